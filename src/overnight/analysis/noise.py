"""How far one evaluation may be off: the scatter of evaluations about a smooth curve.

Noise of one evaluation often leaks into the next. A trend is then less sure than its points look,
and by how much a short log hardly shows; so a `Scatter` is no pair of numbers but a mixture over
the correlations that are probable (see `smoothing`), and every standard error is made from all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from .outliers import digit
from .smoothing import LONGEST, RHOS, smooth
from .tables import Array

FEWEST = 6  # evaluations below which nothing is said
SHARE = 0.75  # of the evaluations: the early curve is bent
LEAST = 8  # evaluations that are used in any case
FAR = 40  # points apart, from which on their noise has nothing in common


@dataclass(frozen=True)
class Scatter:
    """Noise of one point of a series of `n`: `sigma` (nats; 0 where it is not known) and lag-1
    correlation `rho`, as far as one number can say it. Standard errors are made of `variances`:
    for each correlation in `rhos` the variance there times its probability, with `degrees` of
    freedom."""

    sigma: float
    rho: float
    degrees: float
    n: int
    rhos: Array
    variances: Array

    @classmethod
    def exactly(cls, sigma: float, rho: float = 0.0, n: int = 0) -> Scatter:
        return cls(sigma, rho, np.inf, n, np.array([rho]), np.array([sigma**2]))

    @property
    def known(self) -> bool:
        return self.sigma > 0

    @property
    def exact(self) -> bool:
        """Whether it is given rather than estimated."""
        return not np.isfinite(self.degrees)

    @property
    def reach(self) -> float:
        """Half of a 95 % interval, in standard errors."""
        return float(stats.t.isf(0.025, max(self.degrees, 2.0)))

    def se(self, weights: Array) -> float:
        """Standard error of Σ weights·values over neighbouring points of the series."""
        auto = np.correlate(weights, weights, "full")[len(weights) - 1 :]
        factors = 2 * self.rhos[:, None] ** np.arange(len(auto)) @ auto - auto[0]
        return float(np.sqrt(max(self.variances @ factors, 0.0)))

    def difference_se(self, apart: NDArray[np.int_]) -> Array:
        """Standard error of the difference of two points, by how many points they are apart."""
        shared = self.rhos[:, None] ** np.arange(FAR + 1)
        return np.asarray(np.sqrt(2 * self.variances @ (1 - shared))[np.minimum(apart, FAR)])


UNKNOWN = Scatter.exactly(0.0)


def scatter(steps: Array, values: Array) -> Scatter:
    """The noise of `values` (finite) at increasing `steps`, from their last three quarters; not
    known of a few values, nor where those are all equal."""
    n = len(values)
    if n < FEWEST:
        return Scatter.exactly(0.0, n=n)
    first = _later(n)
    found = smooth(steps[first:], values[first:])
    if not found.sigma:  # no less than what was rounded away where they were written
        return Scatter.exactly(_rounding(values[first:]), n=n)
    return Scatter(found.sigma, found.rho, found.contrasts.size, n, RHOS, found.variances)


def level(steps: Array, values: Array, at: int) -> tuple[float, float, float]:
    """The curve at index `at` of `values` (at least four), and its 95 % interval: from the last
    three quarters, or from all where `at` lies before them; of a long series, from near it."""
    n = len(values)
    first = _later(n) if at >= _later(n) else 0
    first = max(first, min(at - LONGEST // 2, n - LONGEST))
    found = smooth(steps[first : first + LONGEST], values[first : first + LONGEST])
    value, se = found.level(at - first)
    reach = float(stats.t.isf(0.025, max(found.contrasts.size, 2))) * se
    return value, value - reach, value + reach


def _rounding(values: Array) -> float:
    """σ of rounding to the least difference between two values; 0 where all are equal."""
    return digit(values) / float(np.sqrt(12))


def _later(n: int) -> int:
    """Index of the first evaluation that counts."""
    return n - min(n, max(LEAST, int(np.ceil(SHARE * n))))
