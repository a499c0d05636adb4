"""Spikes: logged training losses far above their neighbours, and whether they recovered."""

from __future__ import annotations

import numpy as np

from .findings import Verdict, make
from .outliers import DIGITS, FEWEST, HALF, SIGMAS, digit, stands_out
from .series import Series
from .tables import Array

NATS = 0.02  # of relative loss: rounding of a very smooth log is not a spike
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
    above, scale = stands_out(np.log(np.maximum(loss, 1e-9)))
    rise = loss * (1 - np.exp(-above))
    above[-1] = 0.0  # whether that is a spike, the next value will tell
    hits = np.flatnonzero((above > SIGMAS * scale) & (above > NATS) & (rise > DIGITS * digit(loss)))
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


def _recovers(loss: Array, peak: int) -> bool:
    """Back among the values before it within the 20 after it."""
    before, after = loss[max(0, peak - HALF) : peak], loss[peak + 1 : peak + 1 + 2 * HALF]
    if not len(before) or not len(after):
        return False
    return bool(np.median(after[-HALF:]) <= before.max())
