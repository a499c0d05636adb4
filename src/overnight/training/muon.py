"""Muon (Jordan 2024), a whole model at a time.

The step is torch's own; only its order differs. torch orthogonalises one matrix after another, in
products so small that beginning them takes longer than doing them: a third of an update of four
layers of width 128. Here the matrices of one shape go through them together. And where a layer
computes several maps in one product, such as queries, keys and values, each is a matrix of its own
(docs/lab-notes.md, E25, E38).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class Muon(torch.optim.Muon):
    """`torch.optim.Muon`, sooner. `maps` are the rows of each map in a parameter that holds
    several, one above the other. Directions are made orthogonal in `dtype`: bfloat16, as torch
    has it, is emulated on most CPUs and took more than half of an update there
    (docs/lab-notes.md, E57).
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        maps: Mapping[Tensor, Sequence[int]],
        dtype: torch.dtype,
        **settings: Any,
    ) -> None:
        super().__init__(params, **settings)
        self._rows, self._dtype = maps, dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for maps in _by_shape(self._maps(group)):
                directions = orthogonal(
                    torch.stack([_wide(direction) for _, direction in maps]),
                    group["ns_coefficients"],
                    group["ns_steps"],
                    group["eps"],
                )
                for (matrix, _), direction in zip(maps, directions, strict=True):
                    rows, columns = matrix.shape
                    rate = group["lr"] * math.sqrt(max(1, rows / columns))
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.add_(direction.t() if rows > columns else direction, alpha=-rate)

    def _maps(self, group: dict[str, Any]) -> Iterator[tuple[Tensor, Tensor]]:
        """Each map and its direction."""
        for parameter in group["params"]:
            if parameter.grad is not None:
                rows = list(self._rows.get(parameter, parameter.shape[:1]))
                direction = self._direction(parameter, group)
                yield from zip(parameter.split(rows), direction.split(rows), strict=True)

    def _direction(self, matrix: Tensor, group: dict[str, Any]) -> Tensor:
        """The gradient with Nesterov's momentum."""
        state, grad = self.state[matrix], matrix.grad
        assert grad is not None
        if not state:
            state["momentum_buffer"] = torch.zeros_like(grad)
        momentum: Tensor = state["momentum_buffer"].lerp_(grad, 1 - group["momentum"])
        return grad.lerp(momentum, group["momentum"]).to(self._dtype)


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


def _by_shape(maps: Iterable[tuple[Tensor, Tensor]]) -> list[list[tuple[Tensor, Tensor]]]:
    """Those of one shape, or of its transpose, together."""
    found: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = {}
    for matrix, direction in maps:
        found.setdefault(tuple(sorted(matrix.shape)), []).append((matrix, direction))
    return list(found.values())


def _wide(matrix: Tensor) -> Tensor:
    return matrix.t() if matrix.shape[0] > matrix.shape[1] else matrix
