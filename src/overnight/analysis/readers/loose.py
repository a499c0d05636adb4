"""What a reader of a foreign log gathers: columns by our names, which grow row by row."""

from __future__ import annotations

from array import array

import numpy as np

from ..tables import Array, Columns

MAX_COLUMNS = 512
RUN = "run"  # the column of the run that a row says it is of, as a number
MAX_PROBLEMS = 20  # lines that are told of


class Loose:
    """What a reader gathers: columns that grow row by row, eight bytes a value; the names of the
    file; what could not be read."""

    def __init__(self, problems: list[str]) -> None:
        self.rows = 0
        self.values: dict[str, array[float]] = {}
        self.known: dict[str, str] = {}  # foreign name → ours
        self.seen: dict[str, None] = {}  # every foreign name, in order
        self.runs: dict[str, int] = {}  # what a column of runs says → its number
        self.said: dict[str, set[str]] = {}  # what columns say that tell what a row tried
        self.held: tuple[object, ...] = ()  # the step evaluated last, and the set that was first
        self.beside: set[str] = set()  # what the last row with a loss holds beside it
        self.lossless: list[int] = []  # rows like it that have null for a loss
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


def column(columns: Columns, name: str) -> Array:
    """One of them; NaN throughout where the log has none of this name."""
    return columns.get(name, np.full(len(next(iter(columns.values()))), np.nan))


def note(problems: list[str], problem: str) -> None:
    """Tell of a line that could not be read, if there were not too many before."""
    if len(problems) < MAX_PROBLEMS:
        problems.append(problem)
    elif len(problems) == MAX_PROBLEMS:
        problems.append("more lines could not be read")
