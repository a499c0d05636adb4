"""One JSON document that holds the rows: a list of objects, or an object with such a list in it
(`log_history`, `history` …) or with a list of numbers for each column, maybe within an object
(Keras' `history`); or TensorBoard's list of a time, a step and a value each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import UserError
from ..tables import Log
from . import plain_jsonl
from .files import JSON_NAMES, decoded, opened
from .names import of_file, ours_of
from .rows import tables
from .values import MEASURES

MAX_BYTES = 256 * 2**20
TENSORBOARD = ("wall_time", "step", "value")


def fits(path: Path, head: bytes) -> bool:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    rows = start.startswith(b"[") and start[1:].lstrip().startswith((b"{", b"]"))
    return rows or path.name.endswith(JSON_NAMES)


def read(path: Path) -> Log:
    """The tables of a JSON document; `UserError` if it holds no rows."""
    with opened(path) as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise UserError(f"{path}: longer than {MAX_BYTES:,} bytes; save it as .jsonl.")
    try:
        document = decoded(content.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError) as error:
        if content.lstrip(b"\xef\xbb\xbf \r\n").startswith(b"{"):
            return plain_jsonl.read(path)  # objects line by line under this name
        raise UserError(f"{path}: not a JSON document: {error}.") from None
    rows = _values(path, document) if _is_tensorboard(document) else _rows(document)
    if not rows:
        if isinstance(document, dict) and document.get("log_history") == []:
            raise UserError(
                f"{path}: its log_history is empty: the run was shorter than its logging_steps."
            )
        raise UserError(f"{path}: no list of rows with names in it; nothing to report on.")
    log = tables(path, "json", enumerate(rows, 1), [])
    most = document.get("max_steps") if isinstance(document, dict) else None  # transformers
    if isinstance(most, int) and most > 0:
        log.planned = float(most)
    return log


def _is_tensorboard(document: Any) -> bool:
    lists = document if isinstance(document, list) and document else [None]
    return all(isinstance(row, list) and len(row) == len(TENSORBOARD) for row in lists)


def _values(path: Path, document: list[list[Any]]) -> list[dict[str, Any]]:
    names = [*TENSORBOARD[:2], of_file(path)]
    return [dict(zip(names, row, strict=True)) for row in document]


def _rows(document: Any) -> list[dict[str, Any]]:
    if isinstance(document, list):
        return [row for row in document if isinstance(row, dict)]
    if not isinstance(document, dict):
        return []
    lists = [value for value in document.values() if isinstance(value, list) and value]
    held = [value for value in lists if isinstance(value[0], dict)]
    if held:
        return [row for row in max(held, key=len) if isinstance(row, dict)]
    columns = {k: v for k, v in document.items() if isinstance(v, list)}
    if set(MEASURES).isdisjoint(map(ours_of, columns)):
        columns = _nested(document) or columns
    length = max((len(v) for v in columns.values()), default=0)
    return [{k: v[i] for k, v in columns.items() if i < len(v)} for i in range(length)]


def _nested(document: dict[str, Any]) -> dict[str, list[Any]]:
    """The lists of numbers in an object of a document, as Keras keeps its `history`, by the names
    of both; none if several objects have some: they may be of other steps, or of other runs."""
    objects = [
        {
            f"{outer}_{inner}": values
            for inner, values in held.items()
            if isinstance(values, list) and values and isinstance(values[0], int | float)
        }
        for outer, held in document.items()
        if isinstance(held, dict)
    ]
    objects = [columns for columns in objects if columns]
    return objects[0] if len(objects) == 1 else {}
