"""How far one evaluation may be off: the scatter of evaluations about a smooth curve.

Second differences (Gasser, Sroka & Jennen-Steinmetz 1986): where the curve is nearly straight over
three neighbours, v₋ − 2v₀ + v₊ has variance 6σ². Early curvature would count as noise, so only the
last three quarters are used, and the steps are first bent (identity, logarithm, inverse powers) to
the scale on which the curve is straightest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .tables import Array

FEWEST = 6  # evaluations below which nothing is said
SHARE = 0.75


@dataclass(frozen=True)
class Scatter:
    """Noise of one point of a series: `sigma` (nats), lag-1 correlation `rho` shrunk towards 0,
    `degrees` of freedom of sigma, `n` points used. sigma is NaN below FEWEST points."""

    sigma: float
    rho: float
    degrees: float
    n: int

    @property
    def known(self) -> bool:
        return bool(np.isfinite(self.sigma) and self.sigma > 0)


UNKNOWN = Scatter(float("nan"), 0.0, 0.0, 0)


def scatter(steps: Array, values: Array) -> Scatter:
    """The noise of `values` (finite) at increasing `steps`."""
    n = len(values)
    if n < FEWEST:
        return Scatter(float("nan"), 0.0, 0.0, n)
    first = n - max(FEWEST, int(np.ceil(SHARE * n)))
    x, y = steps[first:], values[first:]
    residuals = min((_contrasts(_bend(x, p), y, 1) for p in POWERS), key=_spread)
    return Scatter(_spread(residuals), 0.0, 0.6 * (len(y) - 2), n)


POWERS = (1.0, 0.0, -0.5, -1.0)


def _bend(x: Array, power: float) -> Array:
    """Steps on the scale x^power (0: logarithm), on which a power law is straight."""
    x = np.maximum(x, 1.0)
    return np.log(x) if power == 0 else x**power


def _contrasts(x: Array, y: Array, lag: int) -> Array:
    """Each value minus the straight line through its neighbours `lag` away, scaled so that
    independent noise of variance σ² gives variance σ²."""
    left, middle, right = slice(None, -2 * lag), slice(lag, -lag), slice(2 * lag, None)
    width = x[right] - x[left]
    w = np.divide(x[middle] - x[left], width, out=np.full(len(width), 0.5), where=width != 0)
    contrast = y[middle] - (1 - w) * y[left] - w * y[right]
    return np.asarray(contrast / np.sqrt(1 + w**2 + (1 - w) ** 2))


def _spread(residuals: Array) -> float:
    """Root mean square, with residuals beyond 3 robust σ pulled in where there are enough."""
    size = np.abs(residuals)
    if len(size) >= 12:
        size = np.minimum(size, 3 * 1.4826 * np.median(size))
    return float(np.sqrt(np.mean(size**2)))
