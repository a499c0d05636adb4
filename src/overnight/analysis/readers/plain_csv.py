"""A CSV file with a header line: any columns, known ones are recognised.

A table may also have a row for each value, with its name in a column (MLflow and others) or in the
name of the file (TensorBoard's `run-train-tag-loss.csv`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import UserError
from ..tables import Log
from .files import is_text, opened, torn
from .kinds import KIND_FIELDS, RUN_FIELDS, TRIED_FIELDS, named
from .loose import MAX_COLUMNS, note
from .names import losses_by_run, normalise, of_file, recognise, run_of
from .rows import tables
from .values import MEASURES, MISSING

MAX_LINE = 2**20
OTHERS = 5  # runs that are named
NAMING = ("key", "metric", "metric_name", "tag", "name")  # columns that say what a value is


def fits(path: Path, head: bytes) -> bool:
    lines = head.decode("utf-8", errors="replace").lstrip("\ufeff \r\n").splitlines()
    first = next((line for line in lines if not _aside(line)), "")
    return any(mark in first for mark in ",;\t") and is_text(head)


def is_table(head: bytes) -> bool:
    """Whether a file that begins so has a header that names a loss."""
    lines = head.decode("utf-8", errors="replace").lstrip("\ufeff \r\n").splitlines()
    first = next((line for line in lines if not _aside(line)), "")
    mark = max(",;\t", key=first.count)
    names = next(csv.reader([first], delimiter=mark), []) if mark in first else []
    return not set(MEASURES).isdisjoint(recognise(name.strip() for name in names).values())


def _aside(line: str) -> bool:
    """An empty line or a comment in front of the header."""
    return not line.strip() or line.lstrip().startswith("#")


def read(path: Path) -> Log:
    """Tables of a CSV; rows that are too long, too short or not numbers lose only themselves."""
    problems: list[str] = []
    with opened(path) as raw:
        text = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="replace", newline="")
        lines = _bounded(text, torn(path), problems)
        before, header_line = next(
            ((i, line) for i, line in enumerate(lines, 1) if not _aside(line)), (0, "")
        )
        mark = max(",;\t", key=header_line.count)
        header = next(csv.reader([header_line], delimiter=mark), [])[:MAX_COLUMNS]
        header = [name.strip() for name in header]
        rows = csv.reader(lines, delimiter=mark)
        known = recognise(header)
        a_value_each = {"value", "step"} <= {normalise(name) for name in header}
        if a_value_each and set(MEASURES).isdisjoint(known.values()):
            return tables(path, "csv", _values(path, header, rows, before), problems)
        if not known:
            raise UserError(
                f"{path}: no log that can be read: no lines with the names of a step and a loss, "
                f"nor a first line with known columns: {header_line.strip()[:120]}"
            )
        problems += _other_runs(header, known)
        told = {*known}
        for fields in (KIND_FIELDS, RUN_FIELDS, TRIED_FIELDS):
            told |= set(named(fields, header))
        return tables(path, "csv", _rows(rows, before, header, told, problems), problems, header)


def _values(
    path: Path, header: list[str], rows: Iterator[list[str]], before: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a table with one value in each, named as what they are a value of."""
    column = {normalise(name): i for i, name in enumerate(header)}
    naming = next((column[name] for name in NAMING if name in column), None)
    tag = of_file(path) if naming is None else ""
    for number, cells in enumerate(rows, before + 1):
        if len(cells) == len(header):
            name = tag or cells[naming or 0].strip()
            row = {"step": cells[column["step"]], name: cells[column["value"]]}
            if "timestamp" in column:
                row["timestamp"] = cells[column["timestamp"]]
            yield number, row


def _other_runs(header: list[str], known: dict[str, str]) -> list[str]:
    """Which of several runs (`RUN - NAME`, as W&B exports them) is read."""
    runs = losses_by_run(header)
    read = next((run_of(name) for name in known if run_of(name) in runs), "")
    if len(runs) < 2:
        return []
    others = [run[:40] for run in runs if run != read]
    more = f" and {len(others) - OTHERS:,} more" if len(others) > OTHERS else ""
    return [f"not read: other runs than {read[:40]}: {', '.join(others[:OTHERS])}{more}"]


def _bounded(text: io.TextIOWrapper, torn: bool, problems: list[str]) -> Iterator[str]:
    """Lines in bounded memory and without NUL, which the csv module refuses; not the last one
    where it is `torn`."""
    while line := text.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            while line and not line.endswith("\n"):
                line = text.readline(MAX_LINE)
            note(problems, f"a line longer than {MAX_LINE} characters was skipped")
            continue
        if torn and not line.endswith(("\n", "\r")):
            note(problems, "the last line breaks off within a number: left out")
            return
        yield line.replace("\0", "")


def _rows(
    reader: Any, before: int, header: list[str], told: set[str], problems: list[str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The cells of the columns `told` that are not empty; `before`: lines up to the header."""
    columns = [(i, name) for i, name in enumerate(header) if name in told]
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            note(problems, f"line {before + reader.line_num}: {error}")
            continue
        cells = [cell.strip() for cell in cells]
        if cells == header:  # a second one, from an appended file
            continue
        filled = ((name, cells[i]) for i, name in columns if i < len(cells))
        row = {name: cell for name, cell in filled if cell.lower() not in MISSING}
        if row:
            yield before + reader.line_num, row
