"""GELU (Hendrycks & Gimpel 2016), exact or by tanh; in bfloat16 on a CPU out of a table.

A bfloat16 is one of 65,536 numbers, so GELU and its slope can be known for all of them, each
rounded from float64. Looking both up takes a quarter of the time that compiled code takes to
compute one and, in the gradient, the other (docs/lab-notes.md, E71). `gelu.c` does it;
where no C compiler is, torch does, with the same bits.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .library import declarations, load


def gelu(x: Tensor, approximate: str) -> Tensor:
    """Of every number of `x`, in its dtype; `approximate`: none or tanh, as in torch."""
    if x.dtype != torch.bfloat16 or x.device.type != "cpu":
        return F.gelu(x, approximate=approximate)
    y: Tensor = _GELU.apply(x, approximate)  # type: ignore[no-untyped-call]
    return y


class _GELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, approximate: str) -> Tensor:
        y: Tensor
        y, slope = torch.ops.overnight.gelu(x, approximate)
        ctx.save_for_backward(slope)
        return y

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.saved_tensors[0], None


@cache
@torch.inference_mode(False)  # where there are no gradients, which slopes are taken from
def table(approximate: str) -> Tensor:
    """GELU and its slope `[65536, 2]` at every bfloat16, in the order of its bits."""
    bits = torch.arange(2**16, dtype=torch.int32, device="cpu").to(torch.int16)
    x = bits.view(torch.bfloat16).double().requires_grad_()
    y = F.gelu(x, approximate=approximate)
    (slope,) = torch.autograd.grad(y.sum(), x)
    return torch.stack((y.detach(), slope), -1).bfloat16()


# an operation of torch's own kind: compiled code calls it as it stands
_operations = torch.library.Library("overnight", "DEF")
_operations.define("gelu(Tensor x, str approximate) -> (Tensor, Tensor)")


@torch.library.register_fake("overnight::gelu", lib=_operations)  # type: ignore[untyped-decorator]
def _like(x: Tensor, _: str) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape)


@torch.library.impl(_operations, "gelu", "CPU")
def _look_up(x: Tensor, approximate: str) -> tuple[Tensor, Tensor]:
    if x.dtype != torch.bfloat16:
        raise TypeError(f"{x.dtype}: the table is of bfloat16")
    x, both, library = x.contiguous(), table(approximate), load()
    if library is None:
        return _by_torch(x, both)
    y, slope = torch.empty_like(x), torch.empty_like(x)
    cast = declarations().cast
    library.look_up(
        cast("uint16_t *", x.data_ptr()),
        cast("uint32_t *", both.data_ptr()),
        cast("uint16_t *", y.data_ptr()),
        cast("uint16_t *", slope.data_ptr()),
        x.numel(),
        torch.get_num_threads(),
    )
    return y, slope


def _by_torch(x: Tensor, both: Tensor) -> tuple[Tensor, Tensor]:
    at = (x.view(torch.int16).int() & 0xFFFF).flatten()
    y, slope = (part.contiguous().index_select(0, at).view(x.shape) for part in both.unbind(-1))
    return y, slope
