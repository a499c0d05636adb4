"""Rows of a foreign log by step, where a file holds them otherwise: newest first, or of several
processes that write one file, or as several tables one behind the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..tables import Array, Columns, select
from .loose import column
from .steps import in_epochs

AROUND = {"step", "epoch", "time", "duration", "planned"}  # which tables of one file may share
FEWEST_ROWS = 2  # of a table

Indices = NDArray[np.intp]


def by_step(loose: Columns, problems: list[str]) -> Columns:
    """Rows by step (by epoch, in a log without steps), if no order but that one makes sense of
    them; a table of evaluations that stands before that of a resumed run, behind it."""
    key = loose.get("step", loose.get("epoch", np.empty(0)))
    says = np.isfinite(key)
    if not says.any() or ("step" in loose and in_epochs(loose, np.flatnonzero(says)) is not None):
        return loose
    key = _said_last(key, says, before=key[says].min())
    written = _tables(loose)
    parts = [_sorted(key, part) for part in written]
    if any((part != other).any() for part, other in zip(parts, written, strict=True)):
        problems.append("the rows are not in the order of their steps: they are sorted")
    if all((np.diff(key[part]) >= 0).all() for part in parts):
        return select(loose, np.argsort(key, kind="stable"))
    trained = np.isfinite(column(loose, "loss")) | np.isfinite(column(loose, "perplexity"))
    return select(loose, np.concatenate(sorted(parts, key=lambda part: not trained[part].any())))


def _said_last(values: Array, says: NDArray[np.bool_], before: float) -> Array:
    """Of each row that `says` none, the value of the row above; `before` the first that does."""
    last = np.maximum.accumulate(np.where(says, np.arange(len(values)), -1))
    return np.where(last < 0, before, values[last])


def _tables(loose: Columns) -> list[Indices]:
    """The rows of each table, where a file holds one behind the other, each of columns of its own;
    else all rows as one."""
    rows = np.arange(len(next(iter(loose.values()))))
    filled = np.zeros(len(rows), dtype=int)  # a bit for each column that a row fills
    for number, name in enumerate(sorted(loose.keys() - AROUND)):
        filled |= np.where(np.isnan(loose[name]), 0, 1 << number)
    table = np.full(len(rows), np.nan)
    apart = _apart(np.unique(filled[filled > 0]).tolist())
    for number, columns in enumerate(apart):
        mine = filled & columns > 0
        if mine.sum() >= FEWEST_ROWS:
            table[mine] = number
    says = ~np.isnan(table)
    table = _said_last(table, says, before=table[says.argmax()])
    parts = np.split(rows, np.flatnonzero(np.diff(table) != 0) + 1)
    return parts if len(parts) == len(np.unique(table)) else [rows]


def _apart(kinds: list[int]) -> list[int]:
    """Sets of columns, of which no two are filled in one row."""
    sets: list[int] = []
    for kind in kinds:
        joined = [other for other in sets if other & kind]
        sets = [other for other in sets if not other & kind]
        sets.append(sum(joined) & ~kind | kind)
    return sets


def _sorted(key: Array, rows: Indices) -> Indices:
    """`rows` by step, where each has one of its own and it falls several times, or one row came
    late. Those that fall once, or say steps again, are those of a resumed run."""
    steps = key[rows]
    apart = steps[np.append(True, np.diff(steps) != 0)]
    falls = (np.diff(steps) < 0).sum()
    late = (steps < np.maximum.accumulate(steps)).sum() == 1 and steps[-1] == steps.max()
    if (falls > 1 or late) and len(np.unique(apart)) == len(apart):
        return rows[np.argsort(steps, kind="stable")]
    return rows
