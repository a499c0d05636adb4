"""Which step a row of a foreign log is of, and in which order the rows are."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...wording import counted
from ..tables import Array, Columns, select
from .loose import column
from .values import LOSSES

Indices = NDArray[Any]

JUMP = 0.3  # of all that was gained: a loss that jumps back further is that of another run
FALLS, BETWEEN = 10, 5  # times that a step falls, and rows from one to the next: no resumes
REPEATED = 0.1  # share of epochs with two rows, at most


def with_steps(loose: Columns, problems: list[str]) -> tuple[Columns, str]:
    """With a column `step` of whole numbers, and what one is: a step; an epoch, where epochs are
    whole and each has a row of its own; else a row."""
    steps = loose.get("step")
    if steps is not None:
        if (np.mod(steps[np.isfinite(steps)], 1) == 0).all():
            return loose, "step"
        problems.append("steps are no whole numbers: rows are counted instead, so a step is a row")
        return loose | {"step": _counted(loose)}, "row"
    if "epoch" in loose and _one_row_each(loose):
        problems.append("no step column: a step here is an epoch")
        return loose | {"step": loose["epoch"]}, "epoch"
    problems.append("no step column: rows are counted instead, so a step here is a row")
    return loose | {"step": _counted(loose)}, "row"


def _counted(loose: Columns) -> Array:
    """The number of each row; where some stand between them of evaluations alone, of those of
    training, if there is one between two evaluations."""
    trained, evaluated = (~np.isnan(column(loose, name)) for name in ("loss", "val_loss"))
    alone = evaluated & ~trained
    between = trained.any() and trained.sum() >= alone.sum()
    of_training = np.cumsum(trained)
    early = of_training[alone & (of_training < trained.sum())]  # at the end one more is usual
    several = len(np.unique(early)) < len(early)  # behind one row of training
    return (of_training if between and not several else np.arange(1, len(trained) + 1)).astype(
        np.float64
    )


def _one_row_each(loose: Columns) -> bool:
    """Whether epochs are whole numbers and hardly one has two values of a loss; each may be written
    twice, by two handlers or two processes."""
    epochs = loose["epoch"]
    if not (np.isfinite(epochs).all() and (np.mod(epochs, 1) == 0).all()):
        return False
    starts = np.append(True, np.diff(epochs) != 0)
    group = np.cumsum(starts) - 1
    most = 0
    for name in LOSSES:
        if name in loose:
            at = np.flatnonzero(np.isfinite(loose[name]))
            others = (np.diff(group[at]) == 0) & (np.diff(loose[name][at]) != 0)
            most = max(most, len(np.unique(group[at[1:][others]])))
    return bool(most <= REPEATED * (group[-1] + 1))


def in_order(loose: Columns, problems: list[str]) -> Columns:
    """Rows by step, where a step falls back for another reason than that a run was resumed: it
    begins again in every epoch; several processes write one file; one last row stands apart."""
    at = np.flatnonzero(np.isfinite(loose["step"]))
    steps = loose["step"][at]
    falls = np.flatnonzero(np.diff(steps) < 0) + 1
    if (counted := in_epochs(loose, at)) is not None:
        problems.append("steps begin again in every epoch: they are counted on")
        return loose | {"step": counted}
    if not len(falls):
        return loose
    if len(falls) == 1 and falls[0] == len(steps) - 1 and steps[-1] <= steps[0]:
        problems.append(f"the last row falls back to step {steps[-1]:,.0f} and is left out")
        return select(loose, np.delete(np.arange(len(loose["step"])), at[-1]))
    begins, ends = steps[np.append(0, falls)], steps[np.append(falls - 1, len(steps) - 1)]
    again = (begins == begins[0]).all() and (ends[:-1] == ends[0]).all() and ends[-1] <= ends[0]
    if again and _goes_on(loose, at, falls):
        times = "once" if len(falls) == 1 else f"{len(falls)} times"
        problems.append(f"steps begin again {times}: they are counted on")
        counted = loose["step"].copy()
        turns = np.searchsorted(falls, np.arange(len(steps)), side="right")
        length = ends[0] - begins[0] + _spacing(steps)
        of = loose.get("planned", np.full(1, np.nan))
        of = of[np.isfinite(of)]
        if len(of) and np.ptp(of) == 0 and ends[0] <= of[0] < ends[0] + _spacing(steps):
            length = of[0]  # as the log says: step 100 of 105
        counted[at] = steps + turns * length
        return loose | {"step": counted}
    if len(falls) > FALLS and len(steps) / len(falls) < BETWEEN:
        problems.append("the rows are not in the order of their steps: they are sorted")
        return select(loose, np.argsort(loose["step"], kind="stable"))
    return loose


def in_epochs(loose: Columns, at: Indices) -> Array | None:
    """Steps counted on by the number of the epoch, where they fall, or stay, with each new epoch
    and never else, and training rows say how many one has, or about how many. The first may be
    cut."""
    epochs, of = column(loose, "epoch")[at], column(loose, "planned")[at]
    says = np.flatnonzero(np.isfinite(of))
    steps, of = loose["step"][at], of[says]
    if not len(says) or not (np.mod(epochs[says], 1) == 0).all():
        return None
    # an evaluation is of the epoch above it
    epochs = epochs[says[np.maximum(np.searchsorted(says, np.arange(len(at)), "right") - 1, 0)]]
    counts, rises = steps[says], np.diff(epochs[says])
    # where it is another one in each row, as bptt is drawn in AWD-LSTM, it is about the largest
    length = of[0] if np.ptp(of) == 0 else counts.max() + _spacing(counts)
    falls, turns = np.diff(counts) < 0, rises > 0
    again = turns.any() and (rises >= 0).all() and not (np.diff(counts) > 0)[turns].any()
    if not again or falls[~turns].any() or steps.max() > length:
        return None
    counted = loose["step"].copy()
    counted[at] = steps + (epochs - min(1.0, epochs[0])) * length
    return counted


def _goes_on(loose: Columns, at: Indices, falls: Indices) -> bool:
    """Whether the loss after most falls of the step goes on from where it was before, as it does
    in the next epoch, and not from where it was at first, as it does in another run."""
    name = "loss" if "loss" in loose and np.isfinite(loose["loss"][at]).any() else "val_loss"
    if name not in loose:
        return False
    parts = [part[np.isfinite(part)] for part in np.split(loose[name][at], falls)]
    parts = [part for part in parts if len(part)]
    on = [
        part[0] - before[-1] < JUMP * (parts[0][0] - before[-1])
        for before, part in itertools.pairwise(parts)
    ]
    return bool(sum(on) > len(on) / 2)


def last_run(loose: Columns, problems: list[str], by: str = "step") -> Columns:
    """The last of several runs that stand one after the other: where steps (or epochs, in a log
    without steps) fall back to the first one or below, nothing of what was before goes on."""
    at = np.flatnonzero(np.isfinite(loose[by]))
    steps = loose[by][at]
    lowest = np.minimum.accumulate(steps)
    falls = np.flatnonzero((np.diff(steps) < 0) & (steps[1:] <= lowest[:-1])) + 1
    begins = [fall for fall in falls.tolist() if _both_sides(loose, at, fall)]
    if not begins:
        return loose
    problems.append(
        f"not read: {counted(at[begins[-1]], 'row')} of {counted(len(begins), 'earlier run')} in "
        f"the same file: {by}s begin again at {steps[begins[-1]]:,.6g}"
    )
    return select(loose, slice(at[begins[-1]], None))


def _both_sides(loose: Columns, at: Indices, begin: int) -> bool:
    """Whether one loss is logged before and after: a table of evaluations behind one of updates is
    no other run."""
    logged = (np.isfinite(loose[name][at]) for name in LOSSES if name in loose)
    return any(bool(has[:begin].any() and has[begin:].any()) for has in logged)


def _spacing(steps: Array) -> float:
    """From one row to the next."""
    rises = np.diff(steps)
    return float(np.median(rises[rises > 0])) if (rises > 0).any() else 1.0
