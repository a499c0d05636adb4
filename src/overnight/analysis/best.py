"""The best evaluation, what is tied with it, and the one to take.

The lowest of many noisy values is biased low and often not the best. The tie set holds the truly
best one with at least 95 % probability, whatever the curve: Gupta's subset selection (1965), on
differences, whose noise is surer than that of the values where neighbours are correlated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import msgspec
import numpy as np
from scipy import optimize, stats

from ..ledger import perplexity
from .findings import VALIDATION, Best, known
from .noise import Scatter, level
from .series import Series
from .tables import Array, Log, Mask

CONFIDENCE = 0.95
MOST_TIED = 50  # steps that are named where they are training rows


@dataclass(frozen=True)
class Points:
    """What there is to choose from, by step: `loss` is finite, the others NaN where not known."""

    steps: Array
    loss: Array
    se: Array
    bpb: Array
    bpb_se: Array
    noise: Scatter
    estimator: str


def best(log: Log, series: Series, risen: bool) -> Best | None:
    """The finding, from validation if there is any, else from the training loss (and it says so);
    None where there is neither. `risen`: validation is proven to have got worse."""
    if series.n:
        points = Points(
            series.steps, series.val, series.val_se, series.bpb, series.bpb_se, series.val_noise,
            VALIDATION,
        )  # fmt: skip
        mask, how = _tied(series)
        if risen:  # the error over blocks knows no trend: what the trend has left is not tied
            mask &= ~left_behind(series.val)
        found = _found(points, mask, how, _saved(log))
        return msgspec.structs.replace(found, perplexity=None) if log.per_byte else found
    if not series.train_n:
        return None
    # it says where the log is lowest, not what to deploy
    none = np.full(series.train_n, np.nan)
    points = Points(
        series.train_steps, series.train_loss, none, none, none, series.train_noise,
        "training loss",
    )  # fmt: skip
    mask = tied(points.loss, points.noise)
    found = _found(points, mask, "no validation loss was logged", None)
    found.tied_steps = found.tied_steps[:MOST_TIED]
    return found


def _saved(log: Log) -> set[int] | None:
    """Steps with a checkpoint on disk; None: unknown."""
    if log.folder is None:
        return None
    return {int(row["step"]) for row in log.checkpoint if row.get("present")}


def _tied(series: Series) -> tuple[Mask, str]:
    """The tie set and how it was decided: on shared blocks where they were kept."""
    if series.paired:
        return tied_on_blocks(series.val, series.difference_se), (
            "tied: paired differences on the same blocks, 95 %"
        )
    if series.val_noise.known:
        return tied(series.val, series.val_noise), "tied: scatter between evaluations, 95 %"
    return tied_by_se(series.val, series.val_se)


def _found(points: Points, mask: Mask, how: str, saved: set[int] | None) -> Best:
    """The finding, of one value at least. `mask`: the tie set, and `how` it was decided."""
    steps, loss = points.steps, points.loss
    lowest = int(np.argmin(loss))
    pick, rule = _pick(steps, loss, mask, saved or set())
    smooth, ci = None, None
    if points.noise.known and len(loss) > 3:
        smooth, low, high = level(steps, loss, lowest)
        ci = (low, high)
    return Best(
        step=int(steps[lowest]),
        loss=float(loss[lowest]),
        se=known(points.se[lowest]),
        bpb=known(points.bpb[lowest]),
        bpb_se=known(points.bpb_se[lowest]),
        perplexity=perplexity(float(loss[lowest])),
        smoothed=smooth,
        smoothed_ci=ci,
        tied_steps=[int(step) for step in steps[mask]],
        pick=int(steps[pick]),
        pick_loss=float(loss[pick]),
        pick_saved=None if saved is None else int(steps[pick]) in saved,
        rule=f"{rule} ({how})",
        estimator=points.estimator,
        threshold=float(loss[mask].max() - loss[lowest]),
        n=len(loss),
    )


def _pick(steps: Array, values: Array, mask: Mask, saved: set[int]) -> tuple[int, str]:
    """Which to take, and why: the lowest, or of those on disk the lowest."""
    on_disk = [i for i, step in enumerate(steps) if int(step) in saved]
    pick = int(min(on_disk, key=lambda i: values[i], default=np.argmin(values)))
    if on_disk and values[pick] > values.min():
        if mask[pick]:
            return pick, "the lowest is not on disk; of the tied ones that are, the lowest is taken"
        return pick, (
            "neither the lowest nor one tied with it is on disk; the lowest that is, is taken"
        )
    if mask.sum() > 1:
        return pick, "none of the tied is proven better; the lowest is taken"
    return pick, f"the lowest of {len(values)} evaluations"


@lru_cache(maxsize=512)
def tie_width(k: int) -> float:
    """h such that the truly best of `k` equal values, each with unit noise, is within h of the
    lowest with 95 % probability (Gupta 1965)."""
    if k < 2:
        return 0.0
    z = np.linspace(-8.0, 8.0, 801)
    density = stats.norm.pdf(z) * (z[1] - z[0])

    def missing(h: float) -> float:
        return float(density @ stats.norm.sf(z - h) ** (k - 1)) - CONFIDENCE

    return float(optimize.brentq(missing, 0.0, 12.0, xtol=1e-4))


def tied(values: Array, noise: Scatter) -> Mask:
    """Which `values` (finite) may be the best, as a mask, from the noise of their differences."""
    if not noise.known:
        return np.asarray(values == values.min())
    lowest = int(np.argmin(values))
    se = noise.difference_se(np.abs(np.arange(len(values)) - lowest)) / np.sqrt(2)
    above = values - values[lowest]
    # Values far above cannot be contenders, so they need no allowance: shrink once.
    near = int(np.sum(above <= tie_width(len(values)) * se))
    return np.asarray(above <= tie_width(max(near, 2)) * se)


def tied_on_blocks(values: Array, difference_se: Callable[[int], float]) -> Mask:
    """The same where the evaluations share their blocks: `difference_se(i)` is the standard
    error of value i minus the lowest, over blocks (nan where not known: then not tied)."""
    lowest = int(np.argmin(values))
    mask = np.zeros(len(values), dtype=bool)
    mask[lowest] = True
    width = tie_width(len(values)) / np.sqrt(2)
    for i in np.argsort(values, kind="stable")[1:]:  # the first of equals is the lowest
        se = difference_se(int(i))
        if np.isfinite(se) and values[i] - values[lowest] <= width * se:
            mask[i] = True
    return mask


def tied_by_se(values: Array, se: Array) -> tuple[Mask, str]:
    """With nothing but each evaluation's own standard error (too few for a scatter): within
    the width of two independent errors, which is generous where the blocks are shared."""
    lowest = int(np.argmin(values))
    if not np.isfinite(se[lowest]):
        return values == values[lowest], "noise unknown: too few evaluations to call ties"
    width = tie_width(len(values)) * float(se[lowest])
    mask = values <= values[lowest] + width
    return np.asarray(mask), "tied: standard errors over blocks, 95 %"


def left_behind(values: Array) -> Mask:
    """What is after the lowest and as high as the end."""
    after = np.arange(len(values)) > int(np.argmin(values))
    return np.asarray(after & (values >= values[-1]))
