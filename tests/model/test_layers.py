"""The lean norm against torch's own, value and gradient."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from overnight.model.layers import drop, rms_norm


def _same(ours: Callable[[], Tensor], theirs: Callable[[], Tensor], *inputs: Tensor) -> None:
    upstream = torch.randn_like(theirs())
    torch.testing.assert_close(ours(), theirs(), atol=1e-13, rtol=0)
    got, wanted = (torch.autograd.grad(f(), inputs, upstream) for f in (ours, theirs))
    torch.testing.assert_close(got, wanted, atol=1e-12, rtol=0)


@pytest.mark.parametrize("weighted", [True, False])
def test_rms_norm(weighted: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 7, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, dtype=torch.float64, requires_grad=True) if weighted else None
    inputs = (x, weight) if weight is not None else (x,)
    _same(lambda: rms_norm(x, weight, 1e-3), lambda: F.rms_norm(x, (5,), weight, 1e-3), *inputs)


@pytest.mark.parametrize("shape", [(1, 1, 64), (3, 1, 64), (1, 4, 1, 64)])
@torch.inference_mode()
def test_rms_norm_of_one_token(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x, weight = 100 * torch.randn(shape), torch.randn(64)
    for w in (weight, None):
        exact = F.rms_norm(x.double(), (64,), None if w is None else w.double(), 1e-3)
        torch.testing.assert_close(rms_norm(x, w, 1e-3).double(), exact, atol=0, rtol=1e-6)
    assert torch.equal(rms_norm(0 * x, weight, 1e-5), 0 * x)


def test_rms_norm_in_bfloat16_rounds_once() -> None:
    torch.manual_seed(0)
    x = 100 * torch.randn(64, 256).bfloat16()
    exact = F.rms_norm(x.double(), (256,))
    assert torch.equal(rms_norm(x, None, 0.0), exact.bfloat16())


@pytest.mark.parametrize("share", [0.1, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout(share: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.ones(301, 333, dtype=dtype, requires_grad=True)
    y = drop(x, share, True)
    gone = (y == 0).double()
    sd = (share * (1 - share) / x.numel()) ** 0.5
    assert abs(float(gone.mean()) - share) < 4 * sd
    pairs = [gone[:, i:] * gone[:, : gone.shape[1] - i] for i in (1, 2, 3, 4)]
    for both in pairs:  # the four numbers of one draw are independent
        assert abs(float(both.mean()) - share**2) < 6 * sd
    assert y.detach().unique().tolist() == [0, pytest.approx(1 / (1 - share), rel=2**-8)]
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
    torch.manual_seed(0)
    assert torch.equal(drop(x, share, True), y)


def test_dropout_at_its_ends() -> None:
    x = torch.randn(7, 5)
    assert drop(x, 0.0, True) is x
    assert drop(x, 0.5, False) is x
    assert torch.equal(drop(x, 1.0, True), torch.zeros_like(x))
