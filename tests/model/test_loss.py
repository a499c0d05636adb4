"""Head and loss in slices against torch's own, value and gradient."""

import pytest
import torch
from torch.nn import functional as F

from overnight.model import loss
from overnight.model.loss import losses


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("slices", [1, 7, 2**19])
def test_value_and_gradient(smoothing: float, slices: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(loss.SLICE_ELEMENTS, "cpu", slices * 31)
    torch.manual_seed(0)
    hidden = torch.randn(3, 11, 5, dtype=torch.float64, requires_grad=True)
    head = (2 * torch.randn(31, 5, dtype=torch.float64)).requires_grad_()
    targets = torch.randint(0, 31, (3, 11))
    nll, objective = losses(hidden, head, targets, smoothing)
    logits, aims = (hidden @ head.t()).flatten(0, 1), targets.flatten()
    plain = F.cross_entropy(logits, aims, reduction="none").view(3, 11)
    smooth = F.cross_entropy(logits, aims, reduction="sum", label_smoothing=smoothing)
    torch.testing.assert_close(nll, plain.detach(), atol=1e-12, rtol=0)
    torch.testing.assert_close(objective, smooth, atol=1e-11, rtol=0)
    ours = torch.autograd.grad(3 * objective, (hidden, head))
    theirs = torch.autograd.grad(3 * smooth, (hidden, head))
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)


def test_bfloat16_logits_are_summed_in_float32() -> None:
    torch.manual_seed(0)
    hidden, head = torch.randn(64, 16).bfloat16(), torch.randn(500, 16).bfloat16()
    targets = torch.randint(0, 500, (64,))
    nll, _ = losses(hidden, head, targets)
    exact = F.cross_entropy((hidden @ head.t()).double(), targets, reduction="none")
    assert nll.dtype == torch.float32
    torch.testing.assert_close(nll.double(), exact, atol=4e-6, rtol=1e-6)


def test_extreme_logits_stay_finite() -> None:
    hidden = torch.eye(2, requires_grad=True)
    head = torch.tensor([[1e4, -1e30], [-1e4, 1e30], [0.0, 0.0]], requires_grad=True)
    nll, objective = losses(hidden, head, torch.tensor([0, 0]))
    assert nll[0] == 0
    objective.backward()
    assert head.grad is not None
    assert torch.isfinite(head.grad).all()
    bad, _ = losses(torch.ones(1, 1), torch.tensor([[float("nan")], [0.0]]), torch.tensor([0]))
    assert torch.isnan(bad).all()


def test_no_gradient_is_kept_where_none_is_asked_for() -> None:
    head = torch.randn(5, 3, requires_grad=True)
    with torch.no_grad():
        _, objective = losses(torch.randn(2, 3), head, torch.tensor([0, 4]))
    assert objective.grad_fn is None
