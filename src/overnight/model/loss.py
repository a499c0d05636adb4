"""The loss of a batch of logits, and its gradient, in one pass over slices that fit the cache.

torch's own cross-entropy goes over float32 copies of all logits several times; on a CPU that was a
quarter of an update at a vocabulary of 4,096 (docs/lab-notes.md, 2026-11-20).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SLICE_ELEMENTS = 2**19  # of logits at once: 2 MB in float32


class _Losses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits_NV: Tensor, targets_N: Tensor, smoothing: float
    ) -> tuple[Tensor, Tensor]:
        N, V = logits_NV.shape
        wide = torch.float64 if logits_NV.dtype == torch.float64 else torch.float32
        nll_N = torch.empty(N, dtype=wide, device=logits_NV.device)
        objective_N = torch.empty_like(nll_N)
        grad_NV = torch.empty_like(logits_NV) if ctx.needs_input_grad[0] else None
        rows = max(1, SLICE_ELEMENTS // V)
        for begin in range(0, N, rows):
            here = slice(begin, begin + rows)
            x, targets = logits_NV[here].to(wide, copy=True), targets_N[here, None]
            total = x.logsumexp(-1, keepdim=True)
            nll = total - x.gather(1, targets)
            nll_N[here] = nll[:, 0]
            objective = nll
            if smoothing:
                uniform = total - x.mean(-1, keepdim=True)
                objective = (1 - smoothing) * nll + smoothing * uniform
            objective_N[here] = objective[:, 0]
            if grad_NV is not None:  # softmax − (1 − ε)·onehot − ε/V
                p = x.sub_(total).exp_()
                if smoothing:
                    p -= smoothing / V
                p.scatter_add_(1, targets, torch.full_like(total, smoothing - 1))
                grad_NV[here] = p
        if grad_NV is not None:
            ctx.save_for_backward(grad_NV)
        ctx.mark_non_differentiable(nll_N)
        return nll_N, objective_N

    @staticmethod
    def backward(ctx: Any, _: Tensor, grad_N: Tensor) -> tuple[Tensor, None, None]:
        (grad_NV,) = ctx.saved_tensors
        return grad_NV * grad_N[:, None].to(grad_NV.dtype), None, None


def losses(logits_BTV: Tensor, targets_BT: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Of each target, in nats, float32 `[B, T]`: its negative log-likelihood (no gradient), and
    what is minimised: that with `smoothing` of the target spread over the vocabulary (Szegedy et
    al. 2016)."""
    nll_N, objective_N = _Losses.apply(  # type: ignore[no-untyped-call]
        logits_BTV.flatten(0, -2), targets_BT.flatten(), smoothing
    )
    return nll_N.view(targets_BT.shape), objective_N.view(targets_BT.shape)
