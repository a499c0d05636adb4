"""Rows that later ones replace: of one step, or of steps that a resumed run goes over again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...wording import counted
from ..tables import Array, Columns, select
from .loose import column
from .values import LOSSES, MEASURES

Mask = NDArray[np.bool_]

RESUMED, BEHIND = 3, 2  # training rows of a resumed session, and of those that it goes over again


def without_abandoned(loose: Columns, problems: list[str]) -> Columns:
    """Without the evaluations of what a resumed run went back behind: those beyond the step at
    which training rows begin again. A row that came late, or stands apart, is no resume."""
    steps = loose["step"]
    trained = np.isfinite(column(loose, "loss")) & np.isfinite(steps)
    if not trained.any():
        return loose
    falls = np.flatnonzero(np.diff(steps[trained]) < 0) + 1
    session = np.zeros(len(steps), dtype=int)
    session[np.flatnonzero(trained)[falls]] = 1
    session = np.cumsum(session)
    begins = np.full(len(falls) + 2, np.inf)
    highest = [-np.inf] * BEHIND  # steps before, in order
    for number, part in enumerate(np.split(steps[trained], falls)):
        if len(part) >= RESUMED and highest[0] > part[0]:
            begins[number] = part[0]
        highest = sorted([*highest, *part[-BEHIND:]])[-BEHIND:]
    resumed = np.minimum.accumulate(begins[::-1])[::-1][1:]  # where any later session begins
    gone = ~trained & (steps > resumed[session])
    if gone.any():
        problems.append(
            f"{counted(gone.sum(), 'row')} beyond a step to which the run went back: left out"
        )
    return select(loose, ~gone)


def table(
    loose: Columns, columns: tuple[str, ...], needs: tuple[str, ...], problems: list[str]
) -> Columns:
    """Rows that have a step and any of `needs`; a later row at or after the same step wins."""
    step = loose["step"]
    mask = np.zeros(len(step), dtype=bool)
    for name in needs:
        if name in loose:
            mask |= ~np.isnan(loose[name])
    mask &= np.isfinite(step) & (step >= 0) & (step < 2**53)
    wanted = {name: loose[name] for name in columns if name in loose} | {"step": step}
    wanted, mask = _beside(loose, wanted, mask)
    rows = _merge(select(wanted, mask), problems)
    rows["attempt"] = _attempts(rows["step"])
    keep = _latest(rows["step"])
    if len(keep) < len(rows["step"]):
        problems.append(
            f"{counted(len(rows['step']) - len(keep), 'row')} written again for the same steps "
            f"({needs[0]}); the later ones count"
        )
    missing = {name: np.full(len(keep), np.nan) for name in columns}
    return missing | select(rows, keep)


def _beside(loose: Columns, rows: Columns, mask: Mask) -> tuple[Columns, Mask]:
    """`rows` and their `mask` with those that have no loss of any kind beside one of it, of the
    same step, for what that does not say itself: tools log tokens and time so."""
    bare = ~mask & np.all([np.isnan(column(loose, name)) for name in MEASURES], axis=0)
    step = rows["step"]
    breaks = (step[1:] != step[:-1]) | np.diff(mask | bare)
    starts = np.flatnonzero(np.append(True, breaks))
    widths = np.diff(np.append(starts, len(mask)))

    def in_step(which: Mask) -> Mask:
        return np.repeat(np.logical_or.reduceat(which, starts), widths)

    lacking = {
        name: np.where(bare & in_step(mask & ~np.isnan(values)), np.nan, values)
        for name, values in rows.items()
    }
    return lacking | {"step": step}, mask | (bare & in_step(mask))


def _merge(table: Columns, problems: list[str]) -> Columns:
    """Neighbouring rows of one step as one row: the last value of each column that has one."""
    steps = table["step"]
    if not len(steps) or (np.diff(steps) != 0).all():
        return table
    starts = np.flatnonzero(np.concatenate([[True], np.diff(steps) != 0]))
    widths = np.diff(np.append(starts, len(steps)))
    merged = {}
    for name, values in table.items():
        last = np.maximum.reduceat(np.where(np.isnan(values), -1, np.arange(len(steps))), starts)
        merged[name] = np.where(last >= 0, values[last], np.nan)
        if name in LOSSES:
            lost = np.isfinite(values) & (values != np.repeat(merged[name], widths))
            if lost.any():
                problems.append(
                    f"{counted(lost.sum(), 'value')} of {name}: a later one stands at the same step"
                )
    return merged


def _attempts(steps: Array) -> Array:
    """1, and one more each time the step falls back: what a resumed run appended."""
    return 1.0 + np.concatenate([[0.0], np.cumsum(np.diff(steps) < 0)])[: len(steps)]


def _latest(steps: Array) -> NDArray[np.intp]:
    """Rows that no later row went over again, by step. O(n log n)."""
    if not len(steps):
        return np.empty(0, dtype=np.intp)
    # What is written after row i starts again at the lowest later step: row i is replaced when
    # some later row of a later attempt has a step not above its own.
    later_low = np.minimum.accumulate(np.append(steps, np.inf)[::-1])[::-1][1:]
    keep = np.flatnonzero(steps < later_low)
    return keep[np.argsort(steps[keep], kind="stable")]
