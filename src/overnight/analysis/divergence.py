"""Divergence: the loss left where it had been and did not come back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import ndimage

from ..runfolder import STRIKES
from .findings import Verdict, make
from .outliers import MAD_TO_SIGMA
from .readers.names import PREFERENCE, normalise
from .series import Series
from .tables import Array, Log

FEWEST = 8
SIGMAS = 5.0  # robust, of one logged value
LOST = 0.2  # share of what had been gained that has to be lost again
LEVEL = (
    "The median of the last {width} {losses} is {now:.4f}, {effect_nats:+.4f} nats from its "
    "lowest level {lowest:.4f} at step {lowest_step:,}"
)
LASTING = 20  # rows; so two of four real logs whose spikes looked so on the way give no alarm


def divergence(log: Log, series: Series, vocab: int | None, warmup: int) -> Verdict:
    """From the training loss (that of evaluations, where few others were logged), or the validation
    loss where there is none: what has not lost all that it had gained may then be overfitting."""
    steps, loss, losses = _judged_by(series)
    alone = bool(np.isnan(log.train["loss"]).all())
    broken = _nonfinite(log, alone)
    n = len(loss)
    if broken is not None and not (n and steps[-1] > broken[0]):
        return make(
            "divergence", "yes",
            "The {name} is not finite from step {broken:,} on.",
            since_step=broken[0], broken=broken[0], n=n, name=broken[1],
            estimator="non-finite values",
        )  # fmt: skip
    if n < FEWEST:
        return make(
            "divergence", "cannot_tell",
            "Too few logged losses: {n}, at least {needed} are needed.",
            n=max(n, series.train_n), needed=FEWEST,
        )  # fmt: skip
    return _of_level(log, steps, loss, losses, math.log(vocab) if vocab else math.inf, warmup)


def _of_level(
    log: Log, steps: Array, loss: Array, losses: str, chance: float, warmup: int
) -> Verdict:
    """From where the level of the loss lies at the end; `chance`: ln V."""
    n, name = len(loss), losses.split()[0]
    width = int(np.clip(n // 50, 3, 501)) | 1  # odd: the median is one of them
    level = _trailing_median(loss, width)
    best = int(np.argmin(level))
    facts = {"losses": losses} | _facts(name, steps, loss, level, width)
    guessing = chance + SIGMAS * facts["sigma"]
    guesses = facts["now"] > guessing and steps[-1] > 2 * warmup and n >= 20
    lost = facts["effect_nats"] > facts["needed"] and best < n - width
    if guesses and facts["lowest"] <= guessing:
        since = _left(loss, level, best, guessing, width)
        return make(
            "divergence", "yes",
            "The median of the last {width} {losses} is {now:.4f}, above ln V = {chance:.4f}: "
            "worse than guessing.",
            since_step=int(steps[since]), rows_since=n - since, chance=chance, **facts,
        )  # fmt: skip
    if not lost:
        return _not_lost(loss, width, chance if guesses else None, facts)
    if log.other_task is not None and PREFERENCE.search(normalise(log.other_task)):
        return make(
            "divergence", "cannot_tell",
            f"{LEVEL}; but the log has a column {{column}}, and training by preferences has a loss "
            "that need not fall.",
            column=log.other_task[:40], **facts,
        )  # fmt: skip
    if name == "validation" and facts["effect_nats"] < facts["gained"]:
        return make(
            "divergence", "cannot_tell",
            f"{LEVEL}. Without a training loss that cannot be told from overfitting.",
            **facts,
        )  # fmt: skip
    since = _left(loss, level, best, facts["lowest"] + facts["needed"], width)
    facts["rows_since"] = n - since
    good = np.flatnonzero(level[:since] <= facts["lowest"] + facts["sigma"])
    facts["good_step"] = int(steps[good[-1]])
    why = f"{LEVEL}, and did not come back."
    return make("divergence", "yes", why, since_step=int(steps[since]), **facts)


def _not_lost(loss: Array, width: int, chance: float | None, facts: dict[str, Any]) -> Verdict:
    """The level is where it had been. `chance`: ln V, where no level is as low as that."""
    if chance is not None:
        return make(
            "divergence", "cannot_tell",
            "No median of {width} {losses} in a row is as low as ln V = {chance:.4f}, where a "
            "model that knows nothing begins: they are in another unit, or sums.",
            chance=chance, **facts,
        )  # fmt: skip
    tail = min(width, LASTING)
    above = float(np.median(loss[-tail:])) - facts["lowest"]
    if above > facts["needed"]:
        return make(
            "divergence", "cannot_tell",
            "The median of the last {tail} {losses} is {above:+.4f} nats from the lowest "
            "level {lowest:.4f}, at step {lowest_step:,}: whether it comes back, the next would "
            "tell.",
            tail=tail, above=above, **facts,
        )  # fmt: skip
    why = f"{LEVEL} (from {{needed:+.4f}} on it would count)."
    return make("divergence", "no", why, **facts)


def proven(verdict: Verdict) -> bool:
    """Whether it is sure enough for one who looks after every row, and would see each spike at its
    height: that no value is finite, or that the loss was away for LASTING rows."""
    lasting = "broken" in verdict.evidence or verdict.evidence.get("rows_since", 0) >= LASTING
    return verdict.verdict == "yes" and lasting


def _left(loss: Array, level: Array, best: int, bound: float, width: int) -> int:
    """The first value beyond `bound` among those that lifted the level there, which lags."""
    crossed = best + int(np.argmax(level[best:] > bound))
    begin = max(best, crossed - width + 1)
    return begin + int(np.argmax(loss[begin : crossed + 1] > bound))


def _judged_by(series: Series) -> tuple[Array, Array, str]:
    """Steps and losses, and what these are."""
    probe = np.isfinite(series.probe)
    if series.train_n < FEWEST <= probe.sum():
        losses = f"training losses of evaluations ({series.gap_estimator})"
        return series.steps[probe], series.probe[probe], losses
    if series.train_n or probe.any():
        return series.train_steps, series.train_loss, "training losses"
    return series.steps, series.val, "validation losses"


def _facts(name: str, steps: Array, loss: Array, level: Array, width: int) -> dict[str, Any]:
    """Where the `level` of the loss was lowest, where it is, and how far it would have to be."""
    best = int(np.argmin(level))
    sigma, gained = _robust_sigma(loss), float(max(level[0] - level[best], 0.0))
    return {
        "name": name,
        "effect_nats": float(level[-1] - level[best]),
        "n": len(loss),
        "sigma": sigma,
        "now": float(level[-1]),
        "lowest": float(level[best]),
        "lowest_step": int(steps[best]),
        "gained": gained,
        "width": width,
        "estimator": f"trailing median of {width} values of the {name} loss",
        "needed": max(SIGMAS * sigma, LOST * gained),
    }


def _nonfinite(log: Log, alone: bool) -> tuple[int, str] | None:
    """The first step from which on no training loss is finite (no validation loss, where that is
    `alone`), and what is not: as logged, or as the events of updates that were skipped say, where
    so many came after the last loss that a run goes back, and it has not."""
    table, column = (log.eval, "val_loss") if alone else (log.train, "loss")
    name = "validation loss" if alone else "training loss"
    loss, steps = table[column], table["step"]
    last = max(steps[np.isfinite(loss)], default=-1.0)
    newest = max((e["attempt"] for e in log.event), default=1)
    skipped = [
        int(e["step"])
        for e in log.event
        if e["kind"] == "non_finite" and e["step"] > last and e["attempt"] == newest
    ]
    found = [(min(skipped), "loss or its gradient")] if len(skipped) >= STRIKES else []
    # A foreign log leaves cells empty; a run of trailing NaN after values is a loss that broke.
    good = np.flatnonzero(np.isfinite(loss))
    infinite = np.flatnonzero(np.isinf(loss))
    own = log.format == "run folder"
    if len(infinite) and (not len(good) or infinite[-1] > good[-1]):
        found.append((int(steps[infinite[infinite > (good[-1] if len(good) else -1)][0]]), name))
    elif own and len(loss) and (not len(good) or good[-1] < len(loss) - 1):
        found.append((int(steps[good[-1] + 1] if len(good) else steps[0]), name))
    evaluated = log.eval["step"][-1] if len(log.eval["step"]) else -1
    if own and evaluated >= max(last, 0) and not np.isfinite(log.eval["val_loss"][-1]):
        found.append((int(evaluated), "validation loss"))
    return min(found, default=None)


def _trailing_median(values: Array, width: int) -> Array:
    origin = (width - 1) // 2  # shifts the window to the values up to and with each one
    return np.asarray(ndimage.median_filter(values, width, mode="nearest", origin=origin))


def _robust_sigma(values: Array) -> float:
    """Scatter from one logged value to the next: median absolute difference, as a normal σ."""
    return float(MAD_TO_SIGMA * np.median(np.abs(np.diff(values))) / math.sqrt(2))
