"""What every reader returns and every analysis reads: the tables of one log.

The two long tables, `train` and `eval`, are columns (float64 arrays of one length, NaN where a
row has no value), because a log may hold a million rows. The short ones are lists of dicts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Columns = dict[str, Array]

TRAIN = (
    *("step", "steps", "loss", "objective", "lr", "grad_norm", "tokens", "passes", "epoch"),
    *("time", "seconds", "step_seconds", "tokens_per_s", "attempt"),
)
EVAL = (
    *("step", "tokens", "passes", "epoch", "time", "seconds", "attempt"),
    *("val_loss", "val_se", "val_bpb", "val_bpb_se", "val_tokens"),
    *("probe_loss", "probe_se", "probe_bpb", "probe_tokens"),
    "train_loss",  # of a foreign log: whatever it wrote beside the validation loss
)


@dataclass
class Log:
    """One log as tables. `train` and `eval` hold the rows that count, sorted by step."""

    source: Path
    format: str  # run folder, csv, jsonl, json, text
    train: Columns
    eval: Columns
    config: dict[str, Any] | None = None
    sample: list[dict[str, Any]] = field(default_factory=list)
    checkpoint: list[dict[str, Any]] = field(default_factory=list)
    event: list[dict[str, Any]] = field(default_factory=list)
    session: list[dict[str, Any]] = field(default_factory=list)
    yardsticks: dict[str, Any] | None = None
    whole: dict[str, Any] | None = None  # the best checkpoint on all held-out text
    replayed: list[dict[str, Any]] = field(default_factory=list)  # audits of overlaps
    forecasts: list[dict[str, Any]] = field(default_factory=list)  # of earlier reports
    columns: dict[str, str] = field(default_factory=dict)  # foreign name → ours
    problems: list[str] = field(default_factory=list)
    step_is: str = "step"  # or epoch, or row: what a step of a foreign log is
    per_byte: bool = False  # the validation loss is; a training loss is not
    planned: float | None = None  # the step at which a foreign log says that it is to end
    reached: float | None = None  # the step that the summary of a foreign log is of
    seconds: float | None = None  # of the whole run, as a foreign log says
    other_task: str | None = None  # a column that tells of another task than language

    @property
    def folder(self) -> Path | None:
        return self.source if self.format == "run folder" else None


def empty(names: Sequence[str]) -> Columns:
    return {name: np.empty(0) for name in names}


def rows(columns: Columns) -> list[dict[str, Any]]:
    """Columns as a list of dicts: integers where exact, None for what is missing."""
    names = list(columns)
    lists = [[_plain(v) for v in columns[name].tolist()] for name in names]
    return [dict(zip(names, values, strict=True)) for values in zip(*lists, strict=True)]


def _plain(value: float) -> float | int | None:
    if value != value or value in (np.inf, -np.inf):
        return None
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def select(columns: Columns, keep: NDArray[Any] | slice) -> Columns:
    """The rows of `columns` under a mask, in an order, or in a stretch."""
    return {name: values[keep] for name, values in columns.items()}


def finite(*arrays: Array) -> NDArray[np.bool_]:
    """Where all `arrays` are finite."""
    mask = np.ones(arrays[0].shape, dtype=bool)
    for array in arrays:
        mask &= np.isfinite(array)
    return mask


def binned(steps: Array, values: Array, bins: int) -> tuple[Array, Array]:
    """Both as means over equal bins of rows."""
    edges = np.linspace(0, len(steps), bins + 1).astype(int)
    counts = np.diff(edges)
    return np.add.reduceat(steps, edges[:-1]) / counts, np.add.reduceat(values, edges[:-1]) / counts


def of_finite(take: Callable[[Array], Any], values: Array) -> float | None:
    """What `take` makes of those that are finite; None where none is."""
    known = values[np.isfinite(values)]
    return float(take(known)) if len(known) else None
