"""The parts every layer is made of: linear, norm, feed-forward.

Parameters are float32; activations carry the compute dtype, and each part casts its weights to
the dtype of its input. So the dtype of the embeddings decides, and gradients arrive in float32.
Shapes: B batch, T time, C width, F feed-forward, H heads, D head size, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import Model


class Linear(nn.Linear):
    """`nn.Linear` that computes in the dtype of its input. Its weight is drawn in `init`."""

    def reset_parameters(self) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)


class _RMSNorm(torch.autograd.Function):
    """torch's own is a chain of products on a CPU: 3.4 times as slow with its gradient
    (docs/lab-notes.md, 2026-11-21)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_C: Tensor | None, eps: float) -> Tensor:
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide)
        scale = (norm.square().div_(x.shape[-1]).add_(eps)).rsqrt_()
        unit: Tensor = (x.to(wide) * scale).to(x.dtype)
        ctx.save_for_backward(unit, scale, weight_C)
        return unit if weight_C is None else unit * weight_C

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        unit, scale, weight_C = ctx.saved_tensors
        along, grad_weight_C = grad * unit, None
        if weight_C is None:
            mean = along.mean(-1, keepdim=True)
        else:
            grad_weight_C = along.flatten(0, -2).sum(0)
            mean = (along @ (weight_C / unit.shape[-1]))[..., None]
            grad = grad * weight_C
        grad_x: Tensor = torch.addcmul(grad, unit, mean, value=-1).mul_(scale)
        return grad_x, grad_weight_C, None


def rms_norm(x: Tensor, weight_C: Tensor | None, eps: float) -> Tensor:
    """RMS norm (Zhang & Sennrich 2019) over the last axis; the root is taken in float32."""
    y: Tensor = _RMSNorm.apply(x, weight_C, eps)  # type: ignore[no-untyped-call]
    return y


class Norm(nn.Module):
    """Layer norm, or RMS norm, over the last axis."""

    def __init__(self, model: Model, width: int = 0, rms: bool = False) -> None:
        super().__init__()
        self.rms = rms or model.norm == "rms"
        self.eps = model.norm_eps
        width = width or model.width
        self.weight = nn.Parameter(torch.empty(width))
        biased = model.bias and not self.rms
        self.bias = nn.Parameter(torch.empty(width)) if biased else None

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.to(x.dtype)
        if self.rms:
            return rms_norm(x, weight, self.eps)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.layer_norm(x, x.shape[-1:], weight, bias, self.eps)


class _ReLU2(torch.autograd.Function):
    """ReLU², whose gradient is 2·ReLU: one product where autograd's chain has four."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        positive = x.relu()
        ctx.save_for_backward(positive)
        return positive * positive

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        positive: Tensor = ctx.saved_tensors[0]
        return torch.addcmul(grad.new_zeros(()), positive, grad, value=2)


def relu2(x: Tensor) -> Tensor:
    y: Tensor = _ReLU2.apply(x)  # type: ignore[no-untyped-call]
    return y


class MLP(nn.Module):
    """The feed-forward part: GELU, ReLU² (So et al. 2021) or SwiGLU (Shazeer 2020)."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.kind = model.mlp
        hidden = model.feed_forward
        self.up = Linear(model.width, 2 * hidden if self.kind == "swiglu" else hidden, model.bias)
        self.down = Linear(hidden, model.width, model.bias)
        self.dropout = model.dropout

    def forward(self, x_BTC: Tensor) -> Tensor:
        h_BTF = self.up(x_BTC)
        if self.kind == "gelu":
            h_BTF = F.gelu(h_BTF)
        elif self.kind == "gelu_tanh":
            h_BTF = F.gelu(h_BTF, approximate="tanh")
        elif self.kind == "relu2":
            h_BTF = relu2(h_BTF)
        else:
            gate_BTF, h_BTF = h_BTF.chunk(2, dim=-1)
            h_BTF = F.silu(gate_BTF) * h_BTF
        return F.dropout(self.down(h_BTF), self.dropout, self.training)
