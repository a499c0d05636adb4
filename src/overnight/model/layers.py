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


class Norm(nn.Module):
    """Layer norm, or RMS norm (Zhang & Sennrich 2019), over the last axis."""

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
        if self.rms:  # with the weight inside, torch computes it all in float32, twice as slowly
            return F.rms_norm(x, x.shape[-1:], None, self.eps) * weight
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
        return 2 * positive * grad


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
