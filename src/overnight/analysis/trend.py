"""Where a stretch of evaluations goes, with intervals made from their scatter.

Two numbers: the slope of a line, which uses every value and decides, and the change that is told,
the mean of the last few minus that of the first few. A line over a curve that bends changes by
more than the values do: by 2.71 nats where they fell by 2.0, and by 2.57 beside a table that says
2.38.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from .noise import Scatter
from .tables import Array

LEAST, TENTH = 3, 10  # values at either end: a tenth of them, three at least
# How a change is told, from `Slope.facts`
CHANGE = (
    "{effect_nats:+.4f} nats from step {first:,} to {last:,} (means of {ends} at either end), "
    "{per_1000:+.3g} per 1,000 steps (95 %: {slope_low:+.3g} to {slope_high:+.3g})"
)


@dataclass(frozen=True)
class Slope:
    """Least squares slope: nats per 1,000 steps with its 95 % interval `ci`, two-sided p against
    none; the `change` between the means of `ends` values at either end with its interval; `n`
    points from `first` to `last`."""

    per_1000: float
    ci: tuple[float, float]
    change: float
    change_ci: tuple[float, float]
    p: float
    n: int
    first: int
    last: int
    ends: int

    def line(self, steps: float) -> tuple[float, float]:
        """The 95 % interval of what the line changes by over so many steps."""
        return self.ci[0] * steps / 1000, self.ci[1] * steps / 1000

    def facts(self) -> dict[str, Any]:
        """The fields and the evidence of a verdict that rests on it."""
        return {
            "effect_nats": self.change, "ci": self.change_ci, "p": self.p, "p_raw": self.p,
            "n": self.n, "per_1000": self.per_1000, "first": self.first, "last": self.last,
            "slope_low": self.ci[0], "slope_high": self.ci[1], "ends": self.ends,
        }  # fmt: skip


def slope(steps: Array, values: Array, noise: Scatter) -> Slope:
    """The trend of `values` (at least three, neighbours of one series with `noise`)."""
    weights = slope_weights(steps)
    found = float(weights @ values)
    se = noise.se(weights)
    degrees = max(noise.degrees, 2.0)
    reach = noise.reach * se
    ends = min(max(LEAST, len(values) // TENTH), len(values) // 2)
    apart = np.repeat([-1.0, 0.0, 1.0], [ends, len(values) - 2 * ends, ends]) / ends
    change, room = float(apart @ values), noise.reach * noise.se(apart)
    return Slope(
        per_1000=found,
        ci=(found - reach, found + reach),
        change=change,
        change_ci=(change - room, change + room),
        p=float(2 * stats.t.sf(abs(found) / se, degrees)) if se > 0 else 0.0,
        n=len(steps),
        first=int(steps[0]),
        last=int(steps[-1]),
        ends=ends,
    )


def slope_weights(steps: Array) -> Array:
    """Σ weights·values is their least squares slope, per 1,000 steps."""
    x = (steps - steps.mean()) / 1000
    return np.asarray(x / (x @ x))


def recent(steps: Array, share: float, least: int) -> int:
    """Index from which on the last `share` of the steps lies, at least `least` points."""
    begin = steps[-1] - share * (steps[-1] - steps[0])
    return max(0, min(int(np.searchsorted(steps, begin)), len(steps) - least))
