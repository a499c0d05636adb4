"""Log files → the same tables (`analysis.tables.Log`), by one reader for each format.

The readers are `own`, `plain_csv`, `plain_json`, `plain_jsonl` and `plain_text` (`printed` takes
its lines apart). What foreign ones find goes through `rows`, which knows `names`, `values` and
`kinds` of rows, into `loose` columns, and from there through the passes that `columns.build` lists.

To read another tool's log: write `readers/TOOL.py` with `fits(path, head)` and `read(path)`, and
add it to READERS before the ones that take anything.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

from ...errors import UserError
from ..tables import Log
from . import files, own, plain_csv, plain_json, plain_jsonl, plain_text


class Reader(Protocol):
    """What a module of this package offers."""

    def fits(self, path: Path, head: bytes) -> bool: ...

    def read(self, path: Path) -> Log: ...


READERS: tuple[Reader, ...] = (own, plain_jsonl, plain_json, plain_text, plain_csv)
HEAD = 65_536  # bytes that decide the format
LOSS = re.compile(r"(?:\b|_)(?:loss|ppl|perplexity)\b.*\d", re.IGNORECASE)


def read(path: str | Path) -> Log:
    """The tables of the run folder or log file at `path`, by the first reader that fits."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such run folder or log file.")
    if not (path.is_file() or path.is_dir()):
        raise UserError(f"{path}: a pipe or a device: save the log in a file, and report on that.")
    try:
        head = files.head(path, HEAD) if path.is_file() else b""
        if path.is_file() and not head.strip():
            raise UserError(f"{path}: the file is empty; nothing to report on.")
        for reader in READERS:
            if reader.fits(path, head):
                return reader.read(path)
    except files.DAMAGED as error:
        raise UserError(f"{path}: cannot be read: {error}.") from None
    known = (
        "a run folder, a .csv with a header line, a .jsonl with one object per line, a .json with "
        "a list of them, or a trainer's output with a step and a loss in three lines"
    )
    raise UserError(f"{path}: not a log that can be read. Known are {known}.{_first_loss(head)}")


def _first_loss(head: bytes) -> str:
    """What a refusal says of a line that holds a loss after all."""
    for number, line in enumerate(head.decode("utf-8", errors="replace").splitlines(), 1):
        if LOSS.search(line):
            shown = " ".join(line.split())[:80]
            return f" Line {number:,} has a loss, but no step in words that are known: {shown!r}"
    return ""
