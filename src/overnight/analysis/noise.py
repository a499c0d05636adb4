"""How far one evaluation may be off: the scatter of evaluations about a smooth curve.

Second differences (Gasser, Sroka & Jennen-Steinmetz 1986): where the curve is nearly straight over
three neighbours, v₋ − 2v₀ + v₊ has variance 6σ². Early curvature would count as noise, so only the
last three quarters are used, and the steps are first bent (identity, logarithm, inverse powers) to
the scale on which the curve is straightest.

Noise of one evaluation often leaks into the next (the weights move little between them). With
lag-1 correlation ρ the second differences have variance (6 − 8ρ + 2ρ²)σ², so σ looks too small
and a trend too sure. ρ follows from the same contrast over twice the distance, is shrunk towards
PRIOR_RHO because a short log hardly shows it, and corrects σ and every standard error made of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import stats

from .tables import Array

FEWEST = 6  # evaluations below which nothing is said
SHARE = 0.75  # of the evaluations: the early curve is bent
LEAST = 8  # evaluations that are used in any case
TRIM = 0.15  # of the contrasts, the largest, are left out
POWERS = (1.0, 0.0, -0.5, -1.0)

# Chosen on simulated runs (tests/analysis/campaign.py): with these the false alarms of the trend
# test stay under 2 % at ρ = 0 and under 5 % at ρ = 0.3 for every length from 12 to 200.
PRIOR_RHO, PRIOR_N = 0.15, 60.0
MOST_RHO = 0.7


@dataclass(frozen=True)
class Scatter:
    """Noise of one point of a series: `sigma` (nats), lag-1 correlation `rho`, `degrees` of
    freedom of sigma, `n` points of the series. sigma is NaN below FEWEST points."""

    sigma: float
    rho: float
    degrees: float
    n: int

    @property
    def known(self) -> bool:
        return bool(np.isfinite(self.sigma) and self.sigma > 0)

    def se(self, weights: Array) -> float:
        """Standard error of Σ weights·values over neighbouring points of the series."""
        auto = np.correlate(weights, weights, "full")[len(weights) - 1 :]
        powers = self.rho ** np.arange(len(weights))
        variance = auto[0] + 2 * float(auto[1:] @ powers[1:])
        return self.sigma * float(np.sqrt(max(variance, 0.0)))


UNKNOWN = Scatter(float("nan"), 0.0, 0.0, 0)


def scatter(steps: Array, values: Array) -> Scatter:
    """The noise of `values` (finite) at increasing `steps`."""
    n = len(values)
    if n < FEWEST:
        return Scatter(float("nan"), 0.0, 0.0, n)
    first = n - min(n, max(LEAST, int(np.ceil(SHARE * n))))
    x, y = steps[first:], values[first:]
    power = min(POWERS, key=lambda p: _spread(_contrasts(_bend(x, p), y, 1)))
    near = _spread(_contrasts(_bend(x, power), y, 1))
    far = _spread(_contrasts(_bend(x, power), y, 2)) if len(y) >= LEAST else near
    rho = _rho(far / near if near > 0 else 1.0, len(y))
    sigma = near * np.sqrt(6 / (6 - 8 * rho + 2 * rho**2))
    # Neighbouring second differences share points: their squares count as about half as many.
    return Scatter(float(sigma), rho, 0.51 * (len(y) - 2), n)


def _bend(x: Array, power: float) -> Array:
    """Steps on the scale x^power (0: logarithm), on which a power law is straight."""
    x = np.maximum(x, 1.0)
    return np.log(x) if power == 0 else np.asarray(x**power)


def _contrasts(x: Array, y: Array, lag: int) -> Array:
    """Each value minus the straight line through its neighbours `lag` away, scaled so that
    independent noise of variance σ² gives variance σ²."""
    left, middle, right = slice(None, -2 * lag), slice(lag, -lag), slice(2 * lag, None)
    width = x[right] - x[left]
    w = np.divide(x[middle] - x[left], width, out=np.full(len(width), 0.5), where=width != 0)
    contrast = y[middle] - (1 - w) * y[left] - w * y[right]
    return np.asarray(contrast / np.sqrt(1 + w**2 + (1 - w) ** 2))


def _spread(residuals: Array) -> float:
    """Root mean square without the largest TRIM of them, scaled to what normal noise gives: a
    turning point, a bump or a spike is not scatter."""
    n = len(residuals)
    kept = n - max(1, round(TRIM * n))
    square = np.sort(residuals**2)[:kept]
    return float(np.sqrt(square.mean() / _trimmed_mean(n, kept)))


@lru_cache(maxsize=512)
def _trimmed_mean(n: int, kept: int) -> float:
    """Expected mean of the `kept` smallest of `n` squared standard normal values: value z² is
    among them if fewer than `kept` of the other n − 1 are smaller."""
    z = np.linspace(0.0, 8.0, 1601)
    share = stats.binom.cdf(kept - 1, n - 1, 2 * stats.norm.cdf(z) - 1)
    return float(n / kept * np.sum(z**2 * share * 2 * stats.norm.pdf(z)) * (z[1] - z[0]))


_RHO = np.linspace(-0.3, MOST_RHO, 101)
_RATIO = (6 - 8 * _RHO**2 + 2 * _RHO**4) / (6 - 8 * _RHO + 2 * _RHO**2)  # increasing in ρ


def _rho(ratio: float, n: int) -> float:
    """ρ from (far spread / near spread), shrunk by n / (n + PRIOR_N) towards the prior."""
    raw = float(np.interp(ratio**2, _RATIO, _RHO))
    weight = n / (n + PRIOR_N)
    return float(np.clip(weight * raw + (1 - weight) * PRIOR_RHO, 0.0, MOST_RHO))
