"""Spikes: logged training losses far above their neighbours, or above all that was before them, and
whether they recovered."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .findings import Verdict, make
from .outliers import DIGITS, FEWEST, HALF, MAD_TO_SIGMA, SIGMAS, digit, stands_out
from .series import Series
from .tables import Array

NATS = 0.02  # of relative loss: rounding of a very smooth log is not a spike
LEAP = 0.1  # of relative loss: parts of a text may differ by less
LISTED = 10
STAYS = 3  # values behind a leap that are up there, too


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
    values = np.log(np.maximum(loss, 1e-9))
    around, scatter = stands_out(values)
    leap, before = _leaps(values, float(np.median(np.abs(around))))
    leaps = (leap > SIGMAS * before) & (leap > LEAP)
    above = np.where(leaps, np.maximum(leap, around), around)
    rise = loss * (1 - np.exp(-above))
    above[-1] = 0.0  # whether that is a spike, the next value will tell
    far = (around > SIGMAS * scatter) | leaps
    hits = np.flatnonzero(far & (above > NATS) & (rise > DIGITS * digit(loss)))
    groups = np.split(hits, np.flatnonzero(np.diff(hits) > HALF) + 1) if len(hits) else []
    facts = {"n": n, "sigmas": SIGMAS, "estimator": f"robust z among {2 * HALF} neighbours"}
    if not groups:
        return make(
            "spikes",
            "no",
            "No logged loss is {sigmas:.0f} times the usual scatter above its neighbours, nor with "
            "those behind it above the ones before.",
            **facts,
        )
    peaks = [int(g[np.argmax(above[g])]) for g in groups]
    worst = max(peaks, key=lambda i: above[i])
    sizes = [float(rise[i]) for i in peaks]
    lost = [i for g, i in zip(groups, peaks, strict=True) if not _recovers(loss, int(g[0]), i)]
    facts |= {
        "count": len(peaks),
        "steps": [int(steps[i]) for i in peaks[:LISTED]],
        "recovered": len(peaks) - len(lost),
        "worst_step": int(steps[worst]),
        "worst_loss": float(loss[worst]),
        "effect_nats": max(sizes),
        "since_step": int(steps[peaks[0]]),
        "within": 2 * HALF,
    }
    return make(
        "spikes", "yes",
        "{count} found, {recovered} back within {within} values; the largest at step "
        "{worst_step:,}: {effect_nats:+.4f} nats, to {worst_loss:.4f}.",
        **facts,
    )  # fmt: skip


def _leaps(values: Array, away: float) -> tuple[Array, Array]:
    """(the least of a value and STAYS behind it − median of the 2 · HALF before, robust σ of
    those): a loss that is slow to come down stands out of what was before it alone. `away` is the
    median distance of all values from their neighbours."""
    width = 2 * HALF
    leap, scale = np.zeros(len(values)), np.full(len(values), np.inf)
    if len(values) <= width + STAYS:
        return leap, scale
    past = sliding_window_view(values, width)[: -STAYS - 1]
    level = np.median(past, axis=1)
    stays = sliding_window_view(values[width:], STAYS + 1).min(axis=1)
    leap[width:-STAYS] = stays - level
    spread = np.median(np.abs(past - level[:, None]), axis=1)
    scale[width:-STAYS] = MAD_TO_SIGMA * np.maximum(spread, away / 2)
    return leap, scale


def _recovers(loss: Array, first: int, peak: int) -> bool:
    """Whether within the 20 values after its peak it is back among those before its first one."""
    before, after = loss[max(0, first - HALF) : first], loss[peak + 1 : peak + 1 + 2 * HALF]
    if not len(before) or not len(after):
        return False
    return bool(np.median(after[-HALF:]) <= before.max())
