"""The slope of a stretch of evaluations, with an interval made from their scatter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from .noise import Scatter
from .tables import Array

# How a change is told, from `Slope.facts`
CHANGE = "{effect_nats:+.4f} nats from step {first:,} to {last:,} (95 %: {low:+.4f} to {high:+.4f})"


@dataclass(frozen=True)
class Slope:
    """Least squares slope: nats per 1,000 steps with its 95 % interval, the `change` over the
    stretch with its interval, two-sided p against no slope, `n` points from `first` to `last`."""

    per_1000: float
    ci: tuple[float, float]
    change: float
    change_ci: tuple[float, float]
    p: float
    n: int
    first: int
    last: int

    def facts(self) -> dict[str, Any]:
        """The fields and the evidence of a verdict that rests on it."""
        low, high = self.change_ci
        return {
            "effect_nats": self.change, "ci": self.change_ci, "p": self.p, "p_raw": self.p,
            "n": self.n, "per_1000": self.per_1000, "first": self.first, "last": self.last,
            "low": low, "high": high,
        }  # fmt: skip


def slope(steps: Array, values: Array, noise: Scatter) -> Slope:
    """The trend of `values` (at least three, neighbours of one series with `noise`)."""
    x = (steps - steps.mean()) / 1000
    weights = x / (x @ x)
    found = float(weights @ values)
    se = noise.se(weights)
    degrees = max(noise.degrees, 2.0)
    reach = noise.reach * se
    span = float(steps[-1] - steps[0]) / 1000
    return Slope(
        per_1000=found,
        ci=(found - reach, found + reach),
        change=found * span,
        change_ci=((found - reach) * span, (found + reach) * span),
        p=float(2 * stats.t.sf(abs(found) / se, degrees)) if se > 0 else 0.0,
        n=len(steps),
        first=int(steps[0]),
        last=int(steps[-1]),
    )


def recent(steps: Array, share: float, least: int) -> int:
    """Index from which on the last `share` of the steps lies, at least `least` points."""
    begin = steps[-1] - share * (steps[-1] - steps[0])
    return max(0, min(int(np.searchsorted(steps, begin)), len(steps) - least))
