"""Which step a row of a foreign log is of, and in which order the rows are."""

from __future__ import annotations

import numpy as np

from ..tables import Array, Columns


def with_steps(loose: Columns, problems: list[str]) -> Columns:
    """With a column `step` of whole numbers: epochs, where they are whole and each has a row of
    its own, else rows, where the log has none."""
    n = len(next(iter(loose.values())))
    steps = loose.get("step")
    if steps is not None:
        if (np.mod(steps[np.isfinite(steps)], 1) == 0).all():
            return loose
        problems.append("steps are no whole numbers: rows are counted instead, so a step is a row")
        return loose | {"step": np.arange(1, n + 1, dtype=np.float64)}
    epochs = loose.get("epoch")
    if epochs is not None and len(np.unique(epochs)) == n and (np.mod(epochs, 1) == 0).all():
        problems.append("no step column: a step here is an epoch")
        return loose | {"step": epochs}
    problems.append("no step column: rows are counted instead, so a step here is a row")
    return loose | {"step": np.arange(1, n + 1, dtype=np.float64)}


def in_order(loose: Columns, problems: list[str]) -> Columns:
    """Rows by step, where a step falls back for another reason than that a run was resumed: it
    begins again in every epoch; the rows are in another order; one last row stands apart."""
    at = np.flatnonzero(np.isfinite(loose["step"]))
    steps = loose["step"][at]
    falls = np.flatnonzero(np.diff(steps) < 0) + 1
    if not len(falls):
        return loose
    if len(falls) == 1 and falls[0] == len(steps) - 1 and steps[-1] <= steps[0]:
        problems.append(f"the last row falls back to step {steps[-1]:,.0f} and is left out")
        keep = np.delete(np.arange(len(loose["step"])), at[-1])
        return {name: values[keep] for name, values in loose.items()}
    begins, ends = steps[np.append(0, falls)], steps[np.append(falls - 1, len(steps) - 1)]
    if len(falls) > 1 and (begins == begins[0]).all() and (ends[:-1] == ends[0]).all():
        problems.append(f"steps begin again {len(falls)} times: they are counted on")
        counted = loose["step"].copy()
        turns = np.searchsorted(falls, np.arange(len(steps)), side="right")
        counted[at] = steps + turns * (ends[0] - begins[0] + _spacing(steps))
        return loose | {"step": counted}
    apart = steps[np.append(True, np.diff(steps) != 0)]
    if len(falls) > 1 and len(np.unique(apart)) == len(apart):
        problems.append("the rows are not in the order of their steps: they are sorted")
        order = np.argsort(loose["step"], kind="stable")
        return {name: values[order] for name, values in loose.items()}
    return loose


def _spacing(steps: Array) -> float:
    """From one row to the next."""
    rises = np.diff(steps)
    return float(np.median(rises[rises > 0])) if (rises > 0).any() else 1.0
