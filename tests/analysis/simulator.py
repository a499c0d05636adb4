"""Runs with known truth: a mean curve nobody sees, noise on it, and the schedule that made it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
KINDS = ("cosine", "linear", "constant", "wsd")


@dataclass(frozen=True)
class Simulated:
    """`values` = `mean` + noise at `steps`; `lr` at `lr_steps`; harm starts at index `onset`."""

    steps: Array
    mean: Array
    values: Array
    sigma: float
    rho: float
    kind: str
    lr_steps: Array
    lr: Array
    warmup: int
    onset: int | None

    @property
    def best(self) -> int:
        """Index of the truly best evaluation."""
        return int(np.argmin(self.mean))


def simulate(
    rng: np.random.Generator, rho: float = 0.0, harm_sigmas: float = 0.0, n: int = 0
) -> Simulated:
    """One run: 12–200 evaluations, σ over two decades, four schedules; a fifth reach a plateau, a
    quarter have a bump as after a resume. With `harm_sigmas`, the last eight evaluations rise by
    that many σ in all."""
    n = n or int(np.exp(rng.uniform(np.log(12), np.log(201))))
    total = int(rng.integers(10, 400)) * 100
    steps = np.round(np.arange(1, n + 1) * total / n)
    sigma = float(10 ** rng.uniform(-3, -1))
    kind = str(rng.choice(KINDS))
    warmup = int(rng.integers(0, max(2, total // 20)))
    lr_steps = np.unique(np.round(np.linspace(1, total, min(total, 400))))
    ratio = float(rng.choice([0.0, 0.1, 0.5]))
    lr = learning_rate(lr_steps, kind, total, warmup, ratio)
    mean = _mean(rng, steps, total, lr_steps, lr)
    if rng.random() < 0.25:
        mean = mean + _bump(rng, n, sigma)
    onset = None
    if harm_sigmas:
        onset = n - 9
        # The curve goes on as if without harm up to the onset, and rises from there.
        mean = np.concatenate(
            [mean[: onset + 1], mean[onset] + harm_sigmas * sigma * np.arange(1, 9) / 8]
        )
    return Simulated(
        steps, mean, mean + sigma * noise(rng, n, rho), sigma, rho, kind, lr_steps, lr, warmup,
        onset,
    )  # fmt: skip


def noise(rng: np.random.Generator, n: int, rho: float) -> Array:
    """Unit noise with lag-1 correlation `rho`."""
    fresh = rng.standard_normal(n)
    if rho:
        for i in range(1, n):
            fresh[i] = rho * fresh[i - 1] + np.sqrt(1 - rho**2) * fresh[i]
    return fresh


def learning_rate(
    steps: Array, kind: str, total: int, warmup: int, ratio: float, peak: float = 1e-3
) -> Array:
    """The schedules of docs: linear warm-up, then `kind` down to `ratio` of the peak."""
    u = np.clip((steps - warmup) / max(total - warmup, 1), 0, 1)
    if kind == "cosine":
        share = ratio + (1 - ratio) * (1 + np.cos(np.pi * u)) / 2
    elif kind == "linear":
        share = ratio + (1 - ratio) * (1 - u)
    elif kind == "wsd":
        share = ratio + (1 - ratio) * (1 - np.clip((u - 0.8) / 0.2, 0, 1))
    else:
        share = np.ones_like(u)
    return np.asarray(peak * np.where(steps < warmup, steps / max(warmup, 1), share))


def _mean(rng: np.random.Generator, steps: Array, total: int, lr_steps: Array, lr: Array) -> Array:
    """Power law in steps, plus what the falling rate gives; or an exponential onto a plateau."""
    floor, height = rng.uniform(1.0, 4.0), rng.uniform(0.5, 4.0)
    if rng.random() < 0.2:
        return np.asarray(floor + height * np.exp(-steps / (total * rng.uniform(0.03, 0.15))))
    start = total * rng.uniform(0.005, 0.05)
    curve = floor + height * (1 + steps / start) ** -rng.uniform(0.2, 0.8)
    lost = 1 - np.interp(steps, lr_steps, lr) / lr.max()
    lost = np.where(steps <= lr_steps[int(np.argmax(lr))], 0.0, lost)
    return np.asarray(curve - rng.uniform(0.0, 0.2) * lost)


def _bump(rng: np.random.Generator, n: int, sigma: float) -> Array:
    """A jump that dies away over a few evaluations, done well before the end."""
    at = int(rng.integers(n // 4, max(n // 4 + 1, int(0.7 * n))))
    size = sigma * rng.uniform(1, 6)
    after = np.arange(n) - at
    return np.where(after >= 0, size * 0.5 ** np.maximum(after, 0), 0.0)
