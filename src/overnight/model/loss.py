"""The head and its loss in one pass over slices that fit the cache.

All logits at once, as torch's own cross-entropy wants them, are the largest tensors of a small
model: going over them again and again was a quarter of an update at a vocabulary of 4,096
(docs/lab-notes.md, E05). Here a slice of rows becomes logits, loss and gradient before the
next one is begun; what stays is the gradient of the logits, in the compute dtype.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SLICE_ELEMENTS = {"cpu": 2**20, "cuda": 2**27, "mps": 2**25}  # of logits at once


def slice_rows(vocabulary: int, device: torch.device) -> int:
    """How many tokens are done at once."""
    return max(1, SLICE_ELEMENTS.get(device.type, 2**20) // vocabulary)


class _HeadLosses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_NC: Tensor,
        head_VC: Tensor,
        targets_N: Tensor,
        smoothing: float,
        grad: bool,
    ) -> tuple[Tensor, Tensor]:
        N, V = len(hidden_NC), len(head_VC)
        wide = torch.float64 if hidden_NC.dtype == torch.float64 else torch.float32
        nll_N = torch.empty(N, dtype=wide, device=hidden_NC.device)
        objective = nll_N.new_zeros(())
        grad_NV = hidden_NC.new_empty(N, V) if grad else None
        rows = slice_rows(V, hidden_NC.device)
        for begin in range(0, N, rows):
            here = slice(begin, begin + rows)
            targets = targets_N[here, None]
            x = (hidden_NC[here] @ head_VC.t()).to(wide)
            x -= x.amax(-1, keepdim=True)
            target_x, mean_x = x.gather(1, targets), x.mean(-1, keepdim=True) if smoothing else 0.0
            total = x.exp_().sum(-1, keepdim=True)
            nll = total.log() - target_x
            nll_N[here] = nll[:, 0]
            uniform = total.log() - mean_x
            objective += ((1 - smoothing) * nll + smoothing * uniform).sum()
            if grad_NV is not None:  # softmax − (1 − ε)·onehot − ε/V
                if smoothing:
                    x -= total * (smoothing / V)
                x.scatter_add_(1, targets, total * (smoothing - 1))
                grad_NV[here] = x.div_(total)
        if grad_NV is not None:
            ctx.save_for_backward(grad_NV, hidden_NC, head_VC)
        ctx.mark_non_differentiable(nll_N)
        return nll_N, objective

    @staticmethod
    def backward(ctx: Any, _: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_NV, hidden_NC, head_VC = ctx.saved_tensors
        scale = upstream.to(grad_NV.dtype)
        return (grad_NV @ head_VC) * scale, (grad_NV.t() @ hidden_NC) * scale, None, None, None


def losses(
    hidden_BTC: Tensor, head_VC: Tensor, targets_BT: Tensor, smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Of each target, in nats, float32 `[B, T]`: its negative log-likelihood under the logits
    `hidden @ head.T` (no gradient); and the sum of what is minimised, with a gradient: that, with
    `smoothing` of the target spread over the vocabulary (Szegedy et al. 2016)."""
    nll_N, objective = _HeadLosses.apply(  # type: ignore[no-untyped-call]
        hidden_BTC.flatten(0, -2),
        head_VC.to(hidden_BTC.dtype),
        targets_BT.flatten(),
        smoothing,
        torch.is_grad_enabled(),
    )
    return nll_N.view(targets_BT.shape), objective
