"""The slope of a stretch of evaluations, with an interval made from their scatter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from .noise import Scatter
from .tables import Array


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
