"""A JSONL file: one object per line, any fields, known ones are recognised."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...runfolder import MAX_ROW_BYTES
from ..tables import Log
from .files import JSON_NAMES, decoded, is_text, opened
from .loose import note
from .rows import tables


def fits(path: Path, head: bytes) -> bool:
    start = head.lstrip(b"\xef\xbb\xbf \r\n")
    rows = start.startswith(b"{") and not start.startswith(b"{'")  # which is a printed dictionary
    return rows and is_text(head) and not path.name.endswith(JSON_NAMES)


def read(path: Path) -> Log:
    """Tables of a JSONL log; a damaged line is a problem, never an exception."""
    problems: list[str] = []
    with opened(path) as file:
        return tables(path, "jsonl", _objects(file, problems), problems)


def _objects(file: Any, problems: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    while line := file.readline(MAX_ROW_BYTES + 1):
        number += 1
        row = _row(file, line, number, problems)
        if row is not None:
            yield number, row


def _row(file: Any, line: bytes, number: int, problems: list[str]) -> dict[str, Any] | None:
    """One decoded object, or None for a blank, damaged or overlong line."""
    if len(line) > MAX_ROW_BYTES:
        while line and not line.endswith(b"\n"):
            line = file.readline(MAX_ROW_BYTES)
        note(problems, f"line {number}: longer than {MAX_ROW_BYTES} bytes")
        return None
    line = line.removeprefix(b"\xef\xbb\xbf").strip()
    if not line:
        return None
    try:
        row = decoded(line)
    except (ValueError, RecursionError) as error:
        note(problems, f"line {number}: {error}")
        return None
    if not isinstance(row, dict):
        note(problems, f"line {number}: not an object")
        return None
    return row
