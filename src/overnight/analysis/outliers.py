"""Single values far out of their neighbours: what a least squares line must not follow."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage

from ..wording import counted
from .tables import Array, Mask

FEWEST = 20  # values below which neighbours are too few to say
HALF = 10  # neighbours on each side
SOON, BACK = 3, 0.1  # values behind a spike, one of which is back, but for a tenth of its height
MAD_TO_SIGMA = 1.4826  # of a median distance, where values are normal
DIGITS = 3.0  # of the last digit logged, at least
SIGMAS = 8.0  # robust z; of 10⁶ normal values none is beyond 6, real logs have heavier tails


def outliers(values: Array) -> Mask:
    """Which of `values` (finite, in order) stand alone: no neighbour on the same side that stands
    out, too, or at least half as far where values soon are back: a loss that goes on from where it
    has jumped to is none. In the steep beginning none is."""
    if len(values) < FEWEST:
        return np.zeros(len(values), dtype=bool)
    away, scale = stands_out(values)
    least = np.where(scale > 0, np.maximum(SIGMAS * scale, DIGITS * digit(values)), np.inf)
    far, side = np.abs(away) > least, np.sign(away)
    far[:HALF] = False
    behind = sliding_window_view(np.append(np.abs(away[1:]), np.full(SOON, np.inf)), SOON)
    back = behind.min(axis=1) <= np.maximum(np.abs(away) * BACK, least / 2)
    room = np.where(back, np.maximum(np.abs(away), least), least) / 2
    alone = np.zeros(len(values), dtype=bool)
    while True:  # what a spike has left beside it stands alone once the spike is out
        beside = np.pad(np.where(alone, 0.0, away), 1)
        company = np.maximum(beside[:-2] * side, beside[2:] * side)
        found = alone | (far & (company <= room))
        if not (found & ~alone).any():
            return alone
        alone = found


def spiked(values: Array) -> Mask:
    """Which of them stand alone above their neighbours."""
    alone = outliers(values)
    return alone & (stands_out(values)[0] > 0) if alone.any() else alone


def left_out(alone: Mask) -> str:
    """The sentence for those that were."""
    n = int(alone.sum())
    far = f"far from {'its' if n == 1 else 'their'} neighbours"
    return f" {counted(n, 'evaluation')} {far} left out." if n else ""


def digit(values: Array) -> float:
    """The smallest difference of two values: the last digit that the log has."""
    steps = np.diff(np.unique(values))
    return float(steps.min()) if len(steps) else 0.0


def stands_out(values: Array) -> tuple[Array, Array]:
    """(value − median of its neighbours, robust σ of the neighbours)."""
    middle = _median_of_neighbours(values)
    away = np.abs(values - middle)
    scale = MAD_TO_SIGMA * _median_of_neighbours(away)
    whole = MAD_TO_SIGMA * float(np.median(away))
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
