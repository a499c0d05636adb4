"""A JSONL file: one object per line, any fields, known ones are recognised."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from ...runfolder import MAX_ROW_BYTES
from ..tables import Log
from .columns import note
from .files import JSON_NAMES, is_text, opened
from .rows import tables

_decode = msgspec.json.Decoder().decode


def fits(path: Path, head: bytes) -> bool:
    start = head.lstrip(b"\xef\xbb\xbf \r\n")
    return start.startswith(b"{") and is_text(head) and not path.name.endswith(JSON_NAMES)


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
        row = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        row = _lenient(line)
        if row is None:
            note(problems, f"line {number}: {error}")
            return None
    if not isinstance(row, dict):
        note(problems, f"line {number}: not an object")
        return None
    return row


def _lenient(line: bytes) -> dict[str, Any] | None:
    """Python's json writes NaN and Infinity, which JSON forbids; they matter here."""
    import json

    if b"NaN" not in line and b"Infinity" not in line:
        return None
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None
