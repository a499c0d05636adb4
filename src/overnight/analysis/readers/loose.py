"""What a reader of a foreign log gathers: columns by our names, which grow row by row."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import numpy as np

from ..tables import Columns

MAX_COLUMNS = 512
# A column that says of each row what it is about, and the words that mean validation.
KIND_FIELDS = ("type", "event", "split", "phase", "mode", "kind", "stage", "dataset")
VALIDATION = ("val", "valid", "validation", "eval", "evaluation", "dev", "test")
# A column that says of each row which run it is of, and how that is called here
RUN_FIELDS = ("run", "run_id", "run_name", "experiment", "exp", "trial", "model", "model_name")
RUN = "run"
MAX_PROBLEMS = 20  # lines that are told of


def named(names: tuple[str, ...], fields: Iterable[str]) -> list[str]:
    """The `fields` that are among `names`, in any case, in the order of those."""
    return sorted((f for f in fields if f.lower() in names), key=lambda f: names.index(f.lower()))


def of_row(known: dict[str, str], kinds: Iterable[object]) -> dict[str, str]:
    """Our names of the foreign ones in a row of these `kinds`: its loss may be that of validation,
    if it has no other."""
    said = (kind.lower() for kind in kinds if isinstance(kind, str))
    if "val_loss" in known.values() or not any(kind in VALIDATION for kind in said):
        return known
    return {
        name: "val_loss" if ours == "loss" and "train" not in name.lower() else ours
        for name, ours in known.items()
    }


class Loose:
    """What a reader gathers: columns that grow row by row, eight bytes a value; the names of the
    file; what could not be read."""

    def __init__(self, problems: list[str]) -> None:
        self.rows = 0
        self.values: dict[str, array[float]] = {}
        self.known: dict[str, str] = {}  # foreign name → ours
        self.seen: dict[str, None] = {}  # every foreign name, in order
        self.runs: dict[str, int] = {}  # what a column of runs says → its number
        self.problems = problems

    def add(self, row: dict[str, float], run: object = None) -> None:
        """One row, by our names; `run`: what it says of which run it is."""
        if isinstance(run, str | int | float):
            row = row | {RUN: self.runs.setdefault(str(run), len(self.runs))}
        for name, value in row.items():
            column = self.values.get(name)
            if column is None:
                column = self.values[name] = array("d", [float("nan")]) * self.rows
            column.append(value)
        self.rows += 1
        if len(row) != len(self.values):
            for column in self.values.values():
                if len(column) < self.rows:
                    column.append(float("nan"))

    def columns(self) -> Columns:
        return {name: np.frombuffer(c, dtype=np.float64) for name, c in self.values.items()}


def note(problems: list[str], problem: str) -> None:
    """Tell of a line that could not be read, if there were not too many before."""
    if len(problems) < MAX_PROBLEMS:
        problems.append(problem)
    elif len(problems) == MAX_PROBLEMS:
        problems.append("more lines could not be read")
