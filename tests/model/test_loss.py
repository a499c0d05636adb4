"""The sliced loss against torch's own, value and gradient."""

import pytest
import torch
from torch.nn import functional as F

from overnight.model import loss
from overnight.model.loss import losses


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("slices", [1, 7, 2**19])
def test_value_and_gradient(smoothing: float, slices: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "SLICE_ELEMENTS", slices * 31)
    torch.manual_seed(0)
    logits = (5 * torch.randn(3, 11, 31, dtype=torch.float64)).requires_grad_()
    targets = torch.randint(0, 31, (3, 11))
    weights = torch.rand(3, 11, dtype=torch.float64)
    nll, objective = losses(logits, targets, smoothing)
    flat, aims = logits.flatten(0, 1), targets.flatten()
    plain = F.cross_entropy(flat, aims, reduction="none").view(3, 11)
    smooth = F.cross_entropy(flat, aims, reduction="none", label_smoothing=smoothing).view(3, 11)
    torch.testing.assert_close(nll, plain.detach(), atol=1e-12, rtol=0)
    torch.testing.assert_close(objective, smooth, atol=1e-12, rtol=0)
    (ours,) = torch.autograd.grad((objective * weights).sum(), logits)
    (theirs,) = torch.autograd.grad((smooth * weights).sum(), logits)
    torch.testing.assert_close(ours, theirs, atol=1e-13, rtol=0)


def test_bfloat16_logits_are_summed_in_float32() -> None:
    torch.manual_seed(0)
    logits = (3 * torch.randn(64, 500)).bfloat16()
    targets = torch.randint(0, 500, (64,))
    nll, _ = losses(logits, targets)
    exact = F.cross_entropy(logits.double(), targets, reduction="none")
    assert nll.dtype == torch.float32
    torch.testing.assert_close(nll.double(), exact, atol=2e-6, rtol=1e-6)


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e30, 1e30, 0.0]], requires_grad=True)
    nll, objective = losses(logits, torch.tensor([0, 0]))
    assert nll[0] == 0
    objective.sum().backward()
    assert torch.isfinite(logits.grad).all()
    bad, _ = losses(torch.tensor([[float("nan"), 0.0]]), torch.tensor([0]))
    assert torch.isnan(bad).all()
