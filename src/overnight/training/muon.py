"""Muon (Jordan 2024), a whole model at a time.

The step is torch's own; only its order differs. torch orthogonalises one matrix after another, in
products so small that beginning them takes longer than doing them: a third of an update of four
layers of width 128. Here the matrices of one shape go through them together
(docs/lab-notes.md, 2026-11-21).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class Muon(torch.optim.Muon):
    """`torch.optim.Muon`, sooner."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for matrices in _by_shape(p for p in group["params"] if p.grad is not None):
                directions = orthogonal(
                    torch.stack([_wide(self._direction(p, group)) for p in matrices]),
                    group["ns_coefficients"],
                    group["ns_steps"],
                    group["eps"],
                )
                for matrix, direction in zip(matrices, directions, strict=True):
                    rows, columns = matrix.shape
                    rate = group["lr"] * math.sqrt(max(1, rows / columns))
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.add_(direction.t() if rows > columns else direction, alpha=-rate)

    def _direction(self, matrix: Tensor, group: dict[str, Any]) -> Tensor:
        """The gradient with Nesterov's momentum, in bfloat16."""
        state, grad = self.state[matrix], matrix.grad
        assert grad is not None
        if not state:
            state["momentum_buffer"] = torch.zeros_like(grad)
        momentum: Tensor = state["momentum_buffer"].lerp_(grad, 1 - group["momentum"])
        return grad.lerp(momentum, group["momentum"]).bfloat16()


def orthogonal(
    x_NRC: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Tensor:
    """The matrices with their singular values brought near 1, by `steps` of a Newton-Schulz
    iteration of fifth order."""
    a, b, c = coefficients
    x_NRC = x_NRC / x_NRC.flatten(1).norm(dim=1).clamp(min=eps)[:, None, None]
    for _ in range(steps):
        gram_NRR = x_NRC @ x_NRC.mT
        x_NRC = torch.baddbmm(
            x_NRC, torch.baddbmm(gram_NRR, gram_NRR, gram_NRR, beta=b, alpha=c), x_NRC, beta=a
        )
    return x_NRC


def _by_shape(matrices: Iterable[Tensor]) -> list[list[Tensor]]:
    """Those of one shape, or of its transpose, together."""
    found: dict[tuple[int, ...], list[Tensor]] = {}
    for matrix in matrices:
        found.setdefault(tuple(sorted(matrix.shape)), []).append(matrix)
    return list(found.values())


def _wide(matrix: Tensor) -> Tensor:
    return matrix.t() if matrix.shape[0] > matrix.shape[1] else matrix
