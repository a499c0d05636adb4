"""What a trainer prints: lines that hold a step and a loss as names and numbers, in any words.

nanoGPT, nanochat, modded-nanogpt, llm.c, Megatron, torchtitan and others write so:
`iter 250: loss 3.21, time 90.1ms`, `s:250 trl:3.21`, `iteration 250/ 9000 | lm loss: 3.21E+00 |`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ...errors import UserError
from ..tables import Log
from .files import is_text, opened, tail
from .names import ours_of
from .rows import tables
from .values import number as parse

MAX_LINE = 4096  # of what is read of one
TAIL = 16_384  # bytes
FEWEST = 3  # lines of the head or the tail that hold a step and a loss
PAIR = re.compile(
    r"([A-Za-z][A-Za-z_/ ().-]{0,63}?) ?[:= ] ?"  # a name
    r"([+-]?(?:\d[\d,]*(?:\.\d*)?(?:[eE][+-]?\d+)?[a-z%]*|nan|inf)(?!\w))"  # its number, unit
    r"(?:/ ?(\d[\d,]*))?",  # and of how many
    re.IGNORECASE,
)
LEVEL = re.compile(r"^.*\b(?:info|debug|warning|root)\b[\s-]*", re.IGNORECASE)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
BLANKS = re.compile(r"[ \t]+")
# Lines that name the step otherwise: Megatron's and torchtitan's, of validation
VALIDATION = (
    re.compile(r"validation loss at iteration (?P<step>\d+).*?loss value: (?P<val_loss>\S+)"),
    re.compile(r"validate step:\s*(?P<step>\d+)\s+loss:\s*(?P<val_loss>\S+)"),
)
SHORT = {"s": "step", "trl": "loss", "tel": "val_loss"}  # llm.c


def fits(path: Path, head: bytes) -> bool:
    """By its head, or by its tail: some trainers print their own source first."""
    return path.is_file() and is_text(head) and (_holds_rows(head) or _holds_rows(tail(path, TAIL)))


def _holds_rows(text: bytes) -> bool:
    lines = text.decode("utf-8", errors="replace").splitlines()
    return sum(_row(line) is not None for line in lines) >= FEWEST


def read(path: Path) -> Log:
    """The tables of a trainer's output; lines that hold no step and loss are passed over."""
    with opened(path) as file:
        log = tables(path, "text", _rows(file), [])
    if not len(log.train["step"]) and not len(log.eval["step"]):
        raise UserError(f"{path}: no line with a step and a loss.")
    return log


def _rows(file: IO[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    # what redraws its line ends it with a carriage return alone
    text = io.TextIOWrapper(file, encoding="utf-8", errors="replace", newline=None)
    while line := text.readline(MAX_LINE):
        number += 1
        row = _row(line)
        if row is not None:
            yield number, row


def _row(line: str) -> dict[str, Any] | None:
    """The known names of a line with their numbers as text; None without a step and a loss."""
    line = BLANKS.sub(" ", COLOUR.sub("", line[:MAX_LINE]))
    for form in VALIDATION:
        if said := form.search(line):
            return dict(said.groupdict())
    row: dict[str, Any] = {}
    found: set[str] = set()
    for name, number, of in PAIR.findall(line):
        name = SHORT.get(name, LEVEL.sub("", name)).strip()
        ours = ours_of(name)
        number = number.rstrip(",")
        if ours is None or ours in found or parse(number, ours) is None:
            continue
        found.add(ours)
        row[name] = number
        if ours == "step" and of:
            row["max_steps"] = of.rstrip(",")
    return row if "step" in found and len(found & {"loss", "val_loss", "val_bpb"}) else None
