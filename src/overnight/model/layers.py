"""The parts every layer is made of: linear, norm, feed-forward.

Parameters are float32; activations carry the compute dtype, and each part casts its weights to
the dtype of its input. So the dtype of the embeddings decides, and gradients arrive in float32.
Shapes: B batch, T time, C width, F feed-forward, H heads, D head size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from threading import Lock
from typing import Any, TypeVar, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import Model
from .gelu import gelu

FEW = 8  # rows up to which a matrix product is bound by reading the matrix
CONVOLUTION = 4  # tokens that a short convolution sees


class _OneDNN:
    """torch's switch, which is the whole process's: off while any thread wants it off."""

    def __init__(self) -> None:
        self._lock, self._users, self._before = Lock(), 0, True

    @contextmanager
    def off(self) -> Iterator[None]:
        switch: Any = torch.backends.mkldnn
        with self._lock:
            if not self._users:
                self._before = switch.enabled
            self._users += 1
            switch.enabled = False
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    switch.enabled = self._before


_onednn = _OneDNN()


@contextmanager
def library_for(rows: int, dtype: torch.dtype) -> Iterator[None]:
    """Without oneDNN for few rows in float32: it takes longer to begin, 10 µs for a product and 5
    for a GELU, than others take to be done (docs/lab-notes.md, E10)."""
    if rows > FEW or dtype != torch.float32:
        yield
        return
    with _onednn.off():
        yield


@overload
def cast(parameter: Tensor, like: Tensor) -> Tensor: ...
@overload
def cast(parameter: Tensor | None, like: Tensor) -> Tensor | None: ...
def cast(parameter: Tensor | None, like: Tensor) -> Tensor | None:
    """`parameter` in the dtype of `like`; asking first is three times cheaper than `.to`."""
    if parameter is None or parameter.dtype is like.dtype:
        return parameter
    return parameter.to(like.dtype)


def drop(x: Tensor, share: float, training: bool) -> Tensor:
    """Dropout, or `x` itself where there is none."""
    if not training or not share:
        return x
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(x, share)
    return x * _mask(x, share)


def _mask(x: Tensor, share: float) -> Tensor:
    """Of the shape of `x`: 0 with probability `share`, to 16 bits of it, else what keeps the mean.
    Four numbers come out of one 64-bit draw: torch's own dropout on a CPU draws each by itself and
    takes about twice as long (docs/lab-notes.md, E23)."""
    dropped = round(share * 2**16)
    draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    bits = draws.view(torch.int16)[: x.numel()].view(x.shape)
    kept = bits >= dropped - 2**15 if dropped < 2**16 else torch.zeros_like(x)
    return kept.to(x.dtype).mul_(2**16 / max(1, 2**16 - dropped))


Module = TypeVar("Module", bound=nn.Module)


class Part(nn.Module):
    """A part of a layer, called without the hooks of `nn.Module`: nobody hangs anything on the
    parts, and looking for hooks at every call would be a quarter of the time of decoding."""

    def __init_subclass__(cls) -> None:
        cls.__call__ = cls.forward  # type: ignore[method-assign]


def plain(module: Module) -> Module:
    """`module` with its parameters and parts as ordinary attributes: the same tensors, found
    sooner. At one token a call, finding them takes as long as a third of the computing."""
    shallow = copy(module)
    parts = {name: plain(part) for name, part in module._modules.items() if part is not None}
    vars(shallow).update(parts, _modules=parts, **module._parameters)
    return shallow


class Linear(Part, nn.Linear):
    """`nn.Linear` that computes in the dtype of its input. Its weight is drawn in `init`.

    Several `outputs` are as many maps of one input, computed in one product; their sizes stay
    known to an optimizer that treats each by itself.
    """

    def __init__(self, inputs: int, *outputs: int, bias: bool) -> None:
        super().__init__(inputs, sum(outputs), bias)
        self.outputs = outputs

    def reset_parameters(self) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, cast(self.weight, x), cast(self.bias, x))


class _Convolution(torch.autograd.Function):
    """Shifted sums, in half the time of autograd's chain of them or of torch's own convolution
    (docs/lab-notes.md, E63)."""

    @staticmethod
    def forward(ctx: Any, padded_BSM: Tensor, weights_JM: Tensor) -> Tensor:
        T = padded_BSM.shape[1] - len(weights_JM) + 1
        y_BTM = padded_BSM[:, :T] * weights_JM[0]
        for j, weight_M in enumerate(weights_JM[1:], 1):
            y_BTM.addcmul_(padded_BSM[:, j : j + T], weight_M)
        ctx.save_for_backward(padded_BSM, weights_JM)
        return y_BTM

    @staticmethod
    def backward(ctx: Any, grad_BTM: Tensor) -> tuple[Tensor, Tensor]:
        padded_BSM, weights_JM = ctx.saved_tensors
        T = grad_BTM.shape[1]
        grad_BSM, grad_JM = torch.zeros_like(padded_BSM), torch.empty_like(weights_JM)
        for j, weight_M in enumerate(weights_JM):
            here = slice(j, j + T)
            grad_BSM[:, here].addcmul_(grad_BTM, weight_M)
            grad_JM[j] = (grad_BTM * padded_BSM[:, here]).sum((0, 1))
        return grad_BSM, grad_JM


def convolve(x_BTM: Tensor, weights_JM: Tensor, tail_BIM: Tensor | None) -> tuple[Tensor, Tensor]:
    """Causal convolution of every channel by itself over the last J = CONVOLUTION tokens, and the
    tail of I = J − 1 inputs that the next tokens want. No tail: zeros."""
    B, T, M = x_BTM.shape
    if tail_BIM is None:
        tail_BIM = x_BTM.new_zeros(B, CONVOLUTION - 1, M)
    padded_BSM = torch.cat([tail_BIM, x_BTM], dim=1)
    weights_JM = cast(weights_JM, x_BTM)
    if T == 1:
        return (padded_BSM * weights_JM).sum(1, keepdim=True), padded_BSM[:, T:]
    y_BTM: Tensor = _Convolution.apply(padded_BSM, weights_JM)  # type: ignore[no-untyped-call]
    return y_BTM, padded_BSM[:, T:]


class _RMSNorm(torch.autograd.Function):
    """torch's own is a chain of products on a CPU: 3.4 times as slow with its gradient
    (docs/lab-notes.md, E12)."""

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
    if x.shape[-2] == 1 and not torch.is_grad_enabled():
        return F.rms_norm(x, x.shape[-1:], weight_C, eps)
    y: Tensor = _RMSNorm.apply(x, weight_C, eps)  # type: ignore[no-untyped-call]
    return y


class Norm(Part):
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
        weight = cast(self.weight, x)
        if self.rms:
            return rms_norm(x, weight, self.eps)
        return torch.layer_norm(x, weight.shape, weight, cast(self.bias, x), self.eps)


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


class MLP(Part):
    """The feed-forward part: GELU, ReLU² (So et al. 2021) or SwiGLU (Shazeer 2020)."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.kind = model.mlp
        hidden = model.feed_forward
        maps = 2 if self.kind == "swiglu" else 1  # gate and value
        self.up = Linear(model.width, *[hidden] * maps, bias=model.bias)
        self.down = Linear(hidden, model.width, bias=model.bias)
        self.dropout = model.dropout

    def forward(self, x_BTC: Tensor) -> Tensor:
        h_BTF = self.up(x_BTC)
        if self.kind == "relu2":
            h_BTF = relu2(h_BTF)
        elif self.kind == "swiglu":
            gate_BTF, h_BTF = h_BTF.chunk(2, dim=-1)
            h_BTF = F.silu(gate_BTF) * h_BTF
        else:
            h_BTF = gelu(h_BTF, "tanh" if self.kind == "gelu_tanh" else "none")
        return drop(self.down(h_BTF), self.dropout, self.training)
