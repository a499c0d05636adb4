"""What a trainer prints: lines that hold a step and a loss as names and numbers, in any words.

nanoGPT, nanochat, modded-nanogpt, llm.c, Megatron, torchtitan and others write so:
`iter 250: loss 3.21, time 90.1ms`, `s:250 trl:3.21`, `iteration 250/ 9000 | lm loss: 3.21E+00 |`,
`250 | loss 3.21`. So does transformers' Trainer, which prints no step: `{'loss': 3.21, …}`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import IO, Any

from ..tables import Log
from . import kinds
from .files import is_text, opened, tail, torn
from .loose import note
from .names import normalise, ours_of, tells_task
from .plain_csv import is_table
from .rows import tables
from .values import COUNTS
from .values import number as parse

MAX_LINE = 4096  # of what is read of one
TAIL = 131_072  # bytes
FEWEST = 3  # lines of the head or the tail that hold a step and a loss
PAIR = re.compile(
    r"([A-Za-z]\d?[A-Za-z_/ ().-]{0,63}?) ?[:= ] ?[#[]?"  # a name
    r"([+-]?(?:\d+(?::\d\d){1,2}|\d[\d,]*(?:\.\d*)?(?:[eE][+-]?\d+)?[a-z%]*|nan|inf)(?!\w))"
    r"(?: (ms|s|sec|seconds|min|minutes|h|hours|[kKMB])\b(?!/| ?[:=]? ?[\d+-]))?"  # … and its unit
    r"(?:/ ?(\d[\d,]*))?",  # and of how many
    re.IGNORECASE,
)
# A rate behind its number: `| 124025 tok/s` (llm.c); OpenNMT's are of both languages
RATE = re.compile(
    r"[|,;(] ?(?:\d+/)?(\d[\d,]*(?:\.\d+)?[kM]?) ?tok(?:ens)?/s(?:ec)?\b(?! ?[:=(\d])"
)
BAR = re.compile(r"\d+%\|[^\]]*\]")  # of progress, with figures that change as it grows
MINIMIND = re.compile(r"(Epoch): ?\[(\d+)/\d+\] ?\((\d+/\d+)\)")  # and the step: (10/39695)
# What stands above rows of a loss alone: an epoch; OLMo's step, as [step=10/10000,epoch=0]
EPOCH = re.compile(r"\bepoch\W{0,3}(?P<epoch>\d+)", re.IGNORECASE)
STEP = re.compile(r"\[step=(?P<step>\d+)/(?P<max_steps>\d+)")
STAMP = re.compile(r"^\S*\d{4}-\d\d-\d\dT[\d:.,]+(?:Z|[+-]\d\d:?\d\d)? ")  # of docker, kubectl
LEVEL = re.compile(r"^.*\b(?:info|debug|warning|root)\b[\s-]*", re.IGNORECASE)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
BLANKS = re.compile(r"[ \t]+")
BEGINS = re.compile(r"^(\d+) (?:\| )?(?=(?:train|val|loss)\b)")  # llama2.c, build-nanogpt
# Lines that name the step otherwise: Megatron's, GPT-NeoX's and torchtitan's, of validation
VALIDATION = (
    re.compile(
        r"validation(?:-0)? (?:loss|results) at iteration (?P<step>\d+)"
        r"(?!.*on test set).*?loss value: (?P<val_loss>\S+)"
    ),
    re.compile(r"validate step:\s*(?P<step>\d+)\s+loss:\s*(?P<val_loss>\S+)"),
)
# What a line is of: its first word, a word in brackets, the one next to the loss
WORDS = "|".join([*kinds.VALIDATION, *kinds.TEST])
TAG = re.compile(
    rf"^\W*({WORDS})\b|[\[(]({WORDS})[\])]|\b({WORDS})\W{{0,3}}$|(valid) on '", re.IGNORECASE
)
WHOLE = re.compile(r"[\d,]+%?")
BARE = {"train", "val", "valid", "validation"}  # losses as the header of a table; here often not
SUMMARY = re.compile(r"\b(?:best|lowest|min|minimum|previous|final|average)\b", re.IGNORECASE)
OTHER_UNIT = re.compile(
    r" ?(?:samples?|seqs?|sequences?|imgs?|images?|it|iters?|steps?)\b(?! ?[:=]? ?\d)",
    re.IGNORECASE,
)
LONE = ("val_loss", "val_perplexity")  # what may stand in a line of its own
SHORT = {"s": "step", "trl": "loss", "tel": "val_loss"}  # llm.c


def fits(path: Path, head: bytes) -> bool:
    """By its head, or by its tail: some trainers print their own source first."""
    return path.is_file() and is_text(head) and (_holds_rows(head) or _holds_rows(tail(path, TAIL)))


def _holds_rows(text: bytes) -> bool:
    lines = text.decode("utf-8", errors="replace").splitlines()
    ways = (False,) if is_table(text) else (False, True)
    return any(_are_enough(row for _, row in _read_lines(lines, by_epoch)) for by_epoch in ways)


def _are_enough(rows: Iterator[dict[str, Any]]) -> bool:
    """Whether there are some that are more than validation losses of their own."""
    whole = (row for row in rows if not row.keys() <= set(LONE))
    return len(list(islice(whole, FEWEST))) == FEWEST


def read(path: Path) -> Log:
    """The tables of a trainer's output; lines that hold no step and loss are passed over. Where
    hardly one has both, the epoch or the step above it is that of a loss."""
    problems: list[str] = []
    with opened(path) as file:
        by_epoch = not _are_enough(row for _, row in _read_lines(_lines(file, False, []), False))
    with opened(path) as file:
        lines = _lines(file, torn(path), problems)
        return tables(path, "text", _read_lines(lines, by_epoch), problems)


def _lines(file: IO[bytes], torn: bool, problems: list[str]) -> Iterator[str]:
    """Lines in bounded memory; not the last one where it is `torn`."""
    # what redraws its line ends it with a carriage return alone
    text = io.TextIOWrapper(file, encoding="utf-8", errors="replace", newline=None)
    while line := text.readline(MAX_LINE):
        if torn and len(line) < MAX_LINE and not line.endswith("\n"):
            note(problems, "the last line breaks off within a number: left out")
            return
        yield line


def _read_lines(lines: Iterable[str], by_epoch: bool) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of numbered lines; `by_epoch` with what stands above them."""
    above: dict[str, Any] = {}
    for number, line in enumerate(lines, 1):
        for form in (EPOCH, STEP) if by_epoch else ():
            above |= found.groupdict() if (found := form.search(line)) else {}
        row = _row(line, by_epoch and bool(above))
        if row is not None:
            yield number, above | row


def _row(line: str, by_epoch: bool = False) -> dict[str, Any] | None:
    """The known names of a line with their numbers as text; None without a step and a loss. A
    validation loss may stand alone, and what is printed as a dictionary without a step; `by_epoch`
    so may any."""
    line = _plain(line)
    for form in VALIDATION:
        if said := form.search(line):
            return dict(said.groupdict())
    dictionary = line.startswith("{'")
    found, tag = _pairs(line.replace("'", "") if "{'" in line else line)
    held = "test_loss" if tag in kinds.TEST else "val_loss"
    if tag and held not in found:
        found[held] = held, found.pop("loss")[1]
    row = dict(found.values())
    loss = not found.keys().isdisjoint(("loss", "val_loss", "test_loss", "val_bpb"))
    if loss and ("step" in found or dictionary):
        return row
    if loss and by_epoch and ("epoch" in found or not SUMMARY.search(line)):
        return row
    if SUMMARY.search(line) or "test" in line.lower() or "{'" in line:
        return None
    return next(({name: found[name][1]} for name in LONE if name in found), None)


def _plain(line: str) -> str:
    """A line as words, names and numbers, without what else tools write around them."""
    line = BLANKS.sub(" ", COLOUR.sub("", line[:MAX_LINE]))
    line = BEGINS.sub(r"step \1 ", STAMP.sub("", line))
    line = MINIMIND.sub(r"\1 \2 step \3 ", BAR.sub("", line)).lstrip()
    return RATE.sub(r"| tok_s: \1 ", line)


def _pairs(line: str) -> tuple[dict[str, tuple[str, str]], str]:
    """The names in a line, by ours: the foreign one and its number, of several the first; and what
    the line says that its loss is of."""
    found: dict[str, tuple[str, str]] = {}
    tag = ""
    for pair in PAIR.finditer(line):
        for name, ours, number in _read(pair):
            if ours not in found:
                found[ours] = name, number
                tag = _tag(pair) if ours == "loss" else tag
    batch, batches = found.pop("batch", None), found.pop("batches", None)
    if batch and batches and "step" not in found:  # of an epoch
        found |= {"step": batch, "planned": batches}
    return found, tag


@lru_cache(maxsize=4096)
def _named(name: str) -> tuple[str, str | None]:
    """A name without the level that loggers put in front, and ours; its own, if it tells what task
    the log is of."""
    name = SHORT.get(name, LEVEL.sub("", name)).strip()
    ours = ours_of(name)
    return name, name if ours is None and tells_task(name) else ours


def _read(pair: re.Match[str]) -> Iterator[tuple[str, str, str]]:
    """The foreign name, ours, and the number of a pair whose name is known; and of how many."""
    name, number, unit, of = pair.groups()
    name, ours = _named(name)
    if ours is None:
        if of and name.lower() == "batch":
            yield "step", "batch", number.rstrip(",")
            yield "max_steps", "batches", of.rstrip(",")
        return
    number = number.rstrip(",") + (unit if unit and ours in COUNTS else "")
    if parse(number, ours) is None or (normalise(name) in BARE and WHOLE.fullmatch(number)):
        return
    other = ours == "tokens_per_s" and "tok" not in name.lower()
    if other and OTHER_UNIT.match(pair.string, pair.end()):
        return
    yield name, ours, number
    if ours == "step" and of:
        yield "max_steps", "planned", of.rstrip(",")


def _tag(pair: re.Match[str]) -> str:
    """What a line says that its loss is of, if not of training: val, test or the like."""
    before, name = pair.string[: pair.start(1)], pair.group(1)
    if "train" in f"{before}{name}".lower():
        return ""
    found = TAG.search(before.rstrip()) or TAG.search(name)
    return next(filter(None, found.groups())).lower() if found else ""
