"""Spikes: logged training losses far above their neighbours, and whether they recovered."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from .findings import Verdict, make
from .series import Series
from .tables import Array

FEWEST = 20
HALF = 10  # neighbours on each side
SIGMAS = 8.0  # robust z; of 10⁶ normal values none is beyond 6, real logs have heavier tails
NATS = 0.02  # of relative loss: rounding of a very smooth log is not a spike
DIGITS = 3.0  # of the last digit logged, at least
LISTED = 10


def spikes(series: Series) -> Verdict:
    """`yes` where the logarithm of the loss stands out of its neighbours' median."""
    steps, loss = series.train_steps, series.train_loss
    n = len(loss)
    if n < FEWEST:
        return make(
            "spikes", "cannot_tell",
            "Too few logged training losses: {n}, at least {needed} are needed.",
            n=n, needed=FEWEST,
        )  # fmt: skip
    above, scale = _stands_out(np.log(np.maximum(loss, 1e-9)))
    rise = loss * (1 - np.exp(-above))
    hits = np.flatnonzero(
        (above > SIGMAS * scale) & (above > NATS) & (rise > DIGITS * _digit(loss))
    )
    groups = np.split(hits, np.flatnonzero(np.diff(hits) > HALF) + 1) if len(hits) else []
    facts = {"n": n, "sigmas": SIGMAS, "estimator": f"robust z among {2 * HALF} neighbours"}
    if not groups:
        return make(
            "spikes",
            "no",
            "No logged loss is {sigmas:.0f} times the usual scatter above its neighbours.",
            **facts,
        )
    peaks = [int(g[np.argmax(above[g])]) for g in groups]
    worst = max(peaks, key=lambda i: above[i])
    sizes = [float(rise[i]) for i in peaks]
    lost = [i for i in peaks if not _recovers(loss, i)]
    facts |= {
        "count": len(peaks),
        "steps": [int(steps[i]) for i in peaks[:LISTED]],
        "recovered": len(peaks) - len(lost),
        "worst_step": int(steps[worst]),
        "worst_loss": float(loss[worst]),
        "effect_nats": max(sizes),
        "since_step": int(steps[peaks[0]]),
    }
    return make(
        "spikes", "yes",
        "{count} found, {recovered} recovered; the largest at step {worst_step:,}: "
        "{effect_nats:+.4f} nats, to {worst_loss:.4f}.",
        **facts,
    )  # fmt: skip


def _digit(loss: Array) -> float:
    """The smallest difference of two logged values: the last digit that the log has."""
    steps = np.diff(np.unique(loss))
    return float(steps.min()) if len(steps) else 0.0


def _stands_out(values: Array) -> tuple[Array, Array]:
    """(value − median of its neighbours, robust σ of the neighbours)."""
    middle = _median_of_neighbours(values)
    away = np.abs(values - middle)
    scale = 1.4826 * _median_of_neighbours(away)
    whole = 1.4826 * float(np.median(away))
    return values - middle, np.maximum(scale, whole / 2)


def _median_of_neighbours(values: Array) -> Array:
    """Of HALF values on each side, the value itself left out; a table of one row, because scipy
    1.17 does not heed the hole in a footprint of one axis."""
    footprint = np.ones((1, 2 * HALF + 1), dtype=bool)
    footprint[0, HALF] = False
    row = ndimage.median_filter(values[None], footprint=footprint, mode="nearest")
    return np.asarray(row[0])


def _recovers(loss: Array, peak: int) -> bool:
    """Back among the values before it within the 20 after it."""
    before, after = loss[max(0, peak - HALF) : peak], loss[peak + 1 : peak + 1 + 2 * HALF]
    if not len(before) or not len(after):
        return False
    return bool(np.median(after[-HALF:]) <= before.max())
