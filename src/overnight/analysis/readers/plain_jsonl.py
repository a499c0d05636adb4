"""A JSONL file: one object per line, any fields, known ones are recognised."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from ...files import bounded_lines
from ...runfolder import MAX_ROW_BYTES
from ...wording import counted
from ..tables import Log
from .files import COLOURS, JSON_NAMES, decoded, is_text, opened, tail
from .loose import note
from .names import recognise
from .rows import tables
from .values import MEASURES

COLOUR = re.compile(COLOURS.encode())
MARK = codecs.BOM_UTF8
FEWEST = 3  # objects that the head of a log holds, or its tail
TAIL = 16_384  # bytes
STEP = re.compile(r"\b(?:step|iter|iteration)\W{0,3}(\d+)", re.IGNORECASE)


def fits(path: Path, head: bytes) -> bool:
    """Where the first line begins as an object does, or most lines hold one, of the head or of the
    tail: a log that was cut begins within a row, loggers put words in front of theirs, and
    trainers print their settings first."""
    if path.name.endswith(JSON_NAMES) or not is_text(head):
        return False
    lines = head.lstrip(MARK + b" \r\n").splitlines()
    first = lines[0].rstrip() if lines else b""
    if first.startswith(b"{") and not first.startswith(b"{'") and first != b"{":  # a printed one
        return True
    return path.is_file() and (_mostly(lines) or _mostly(tail(path, TAIL).splitlines()[1:]))


def _mostly(lines: list[bytes]) -> bool:
    held = sum(_object(line) is not None for line in lines)
    return held >= FEWEST and 2 * held >= sum(bool(line.strip()) for line in lines)


def read(path: Path) -> Log:
    """Tables of a JSONL log; a damaged line is a problem, never an exception."""
    problems: list[str] = []
    with opened(path) as file:
        return tables(path, "jsonl", _objects(file, problems), problems)


def _objects(file: IO[bytes], problems: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    others = 0
    for number, line in bounded_lines(file, MAX_ROW_BYTES):
        if line is None:
            note(problems, f"line {number}: longer than {MAX_ROW_BYTES} bytes")
        elif (row := _object(line)) is not None:
            yield number, row
        elif b"{" in line or b"}" in line:
            note(problems, f"line {number}: not an object of JSON, or not a whole one")
        else:
            others += bool(line.strip())
    if others:
        problems.append(f"{counted(others, 'line')} without an object of JSON: passed over")


def _object(line: bytes) -> dict[str, Any] | None:
    """The object that a line is; or ends with, if that has a loss: behind a logger's words, which
    may say the step."""
    line = (COLOUR.sub(b"", line) if b"\x1b" in line else line).removeprefix(MARK).strip()
    begin = max(0, line.find(b"{"))
    with suppress(ValueError, RecursionError):
        row = decoded(line[begin:])
        if not isinstance(row, dict):
            return None
        if begin and set(MEASURES).isdisjoint(recognise(row).values()):
            return None
        said = STEP.search(line[:begin].decode("utf-8", errors="replace"))
        return {"step": said[1]} | row if said else row
    return None
