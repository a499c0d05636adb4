"""Single values far out of their neighbours: what a least squares line must not follow."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from .tables import Array, Mask

FEWEST = 20  # values below which neighbours are too few to say
HALF = 10  # neighbours on each side
DIGITS = 3.0  # of the last digit logged, at least
SIGMAS = 8.0  # robust z; of 10⁶ normal values none is beyond 6, real logs have heavier tails


def outliers(values: Array) -> Mask:
    """Which of `values` (finite, in order) stand alone, no neighbour standing out half as far on
    the same side: a loss that goes on from where it has jumped to is none. In the steep beginning
    none is."""
    if len(values) < FEWEST:
        return np.zeros(len(values), dtype=bool)
    away, scale = stands_out(values)
    least = np.where(scale > 0, np.maximum(SIGMAS * scale, DIGITS * digit(values)), np.inf)
    out = np.where(np.abs(away) > least, np.sign(away), 0)
    out[:HALF] = 0
    beside = np.pad(np.where(np.abs(away) > least / 2, np.sign(away), 0), 1)
    return np.asarray((out != 0) & (beside[:-2] != out) & (beside[2:] != out))


def digit(values: Array) -> float:
    """The smallest difference of two values: the last digit that the log has."""
    steps = np.diff(np.unique(values))
    return float(steps.min()) if len(steps) else 0.0


def stands_out(values: Array) -> tuple[Array, Array]:
    """(value − median of its neighbours, robust σ of the neighbours)."""
    middle = _median_of_neighbours(values)
    away = np.abs(values - middle)
    scale = 1.4826 * _median_of_neighbours(away)
    whole = 1.4826 * float(np.median(away))
    return values - middle, np.maximum(scale, whole / 2)


def _median_of_neighbours(values: Array) -> Array:
    """Of HALF values on each side, the value itself left out; before the steep beginning stands the
    first one, near the end it is the last 2 · HALF others. (A table of one row, because scipy 1.17
    does not heed the hole in a footprint of one axis.)"""
    footprint = np.ones((1, 2 * HALF + 1), dtype=bool)
    footprint[0, HALF] = False
    row = ndimage.median_filter(values[None], footprint=footprint, mode="nearest")[0]
    begin = max(0, len(values) - 2 * HALF - 1)
    for i in range(max(0, len(values) - HALF), len(values)):
        row[i] = np.median(np.delete(values[begin:], i - begin))
    return np.asarray(row)
