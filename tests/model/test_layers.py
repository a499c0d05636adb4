"""The lean norm against torch's own, value and gradient."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from overnight.model.layers import rms_norm


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


def test_rms_norm_in_bfloat16_rounds_once() -> None:
    torch.manual_seed(0)
    x = 100 * torch.randn(64, 256).bfloat16()
    exact = F.rms_norm(x.double(), (256,))
    assert torch.equal(rms_norm(x, None, 0.0), exact.bfloat16())
