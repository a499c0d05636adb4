"""What a trainer prints: lines that hold a step and a loss as names and numbers, in any words.

nanoGPT, nanochat, modded-nanogpt, llm.c, Megatron, torchtitan and others write so:
`iter 250: loss 3.21, time 90.1ms`, `s:250 trl:3.21`, `iteration 250/ 9000 | lm loss: 3.21E+00 |`,
`250 | loss 3.21`. So does transformers' Trainer, which prints no step: `{'loss': 3.21, …}`.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, NamedTuple

from ..tables import Log
from . import kinds
from .files import COLOURS, is_text, opened, tail, torn
from .loose import note
from .plain_csv import is_table
from .printed import pairs, tidy
from .rows import tables
from .values import number as parse

COLOUR = re.compile(COLOURS)
MAX_LINE = 4096  # of what is read of one
TAIL = 131_072  # bytes
FEWEST = 3  # lines of the head or the tail that hold a step and a loss
# A rank or a time in front of what says its step itself: `0: step 10 loss 3.2`, `[1] val loss 3.3`
LABEL = re.compile(r"^\W?(\d+(?:\.\d+)?)[\])]?:? (?:\| )?")
HEAD = 1000  # lines that tell whether there are such
# What stands above rows of a loss alone: an epoch; OLMo's step, as [step=10/10000,epoch=0]
EPOCH = re.compile(r"\bepoch\W{0,3}(?P<epoch>\d+)", re.IGNORECASE)
STEP = re.compile(r"\[step=(?P<step>\d+)/(?P<max_steps>\d+)")
SUMMARY = re.compile(r"\b(?:best|lowest|min|minimum|previous|final|average)\b", re.IGNORECASE)
# What a line that is passed over says, of a loss or of what it is of
SPOKEN = re.compile(
    r"(?=.*\d\.\d)(?=.*(?:\b|_)(?:loss|ppl|perplexity|nll|ce|bpb|cross[- _]entropy)\b).{,300}$",
    re.IGNORECASE,
)
HELD_OUT = re.compile(
    r"\b(?:val|valid|validation|eval|evaluation|dev|held[- ]?out)(?:\b|_)", re.IGNORECASE
)
LOSS = re.compile(r"(?:\b|_)loss\b(?![ _]?scal)", re.IGNORECASE)  # of training; no scale of it
NUMBERS = re.compile(r"[+-]?\d[\d.,]*(?:e[+-]?\d+)?")
MEASURED = ("loss", "val_loss", "test_loss", "val_bpb", "val_perplexity")
LONE = ("val_loss", "val_perplexity")  # what may stand in a line of its own


def fits(path: Path, head: bytes) -> bool:
    """By its head, or by its tail: some trainers print their own source first."""
    return path.is_file() and is_text(head) and (_holds_rows(head) or _holds_rows(tail(path, TAIL)))


class Way(NamedTuple):
    """What the step of a line is, where it says none."""

    by_batch: bool = False  # the batch of an epoch: not where batches are those of an evaluation
    by_epoch: bool = False  # the epoch or the step above it


WAYS = (Way(), Way(by_batch=True), Way(by_batch=True, by_epoch=True))  # in this order


def _holds_rows(text: bytes) -> bool:
    lines = text.decode("utf-8-sig", errors="replace").splitlines()
    ways = WAYS[:2] if is_table(text) else WAYS
    return any(_are_enough(row for _, row in _read_lines(lines, way)) for way in ways)


def _are_enough(rows: Iterator[dict[str, Any]]) -> bool:
    """Whether there are some that are more than validation losses of their own."""
    whole = (row for row in rows if not row.keys() <= set(LONE))
    return len(list(islice(whole, FEWEST))) == FEWEST


def read(path: Path) -> Log:
    """The tables of a trainer's output; lines that hold no step and loss are passed over. Where
    hardly one has both, the epoch or the step above it is that of a loss."""
    problems: list[str] = []
    way = next((way for way in WAYS[:2] if _is_enough(path, way)), WAYS[-1])
    with opened(path) as file:
        spoken: dict[str, list[str]] = {"loss of a held-out set": [], "loss": []}
        rows = _read_lines(_lines(file, torn(path), problems), way, spoken)
        log = tables(path, "text", rows, problems)
    for (what, passed_over), table in zip(spoken.items(), (log.eval, log.train), strict=True):
        log.problems += _not_understood(what, passed_over, len(table["step"]))
    return log


def _not_understood(what: str, spoken: list[str], read: int) -> list[str]:
    """What the problems say of lines that speak of `what`, alike but for their numbers, if there
    are more of them than rows that were `read`."""
    alike = Counter(NUMBERS.sub("", line) for line in spoken)
    form, count = alike.most_common(1)[0] if alike else ("", 0)
    if count < FEWEST or count <= read:
        return []
    first = next(line for line in spoken if NUMBERS.sub("", line) == form)
    return [f"{count:,} lines with a {what}, it seems, not understood: {first!r}"]


def _is_enough(path: Path, way: Way) -> bool:
    with opened(path) as file:
        return _are_enough(row for _, row in _read_lines(_lines(file, False, []), way))


def _lines(file: IO[bytes], torn: bool, problems: list[str]) -> Iterator[str]:
    """Lines in bounded memory; not the last one where it is `torn`."""
    # what redraws its line ends it with a carriage return alone
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace", newline=None)
    while line := text.readline(MAX_LINE):
        if torn and len(line) < MAX_LINE and not line.endswith("\n"):
            note(problems, "the last line breaks off within a number: left out")
            return
        yield line


def _read_lines(
    lines: Iterable[str], way: Way, spoken: dict[str, list[str]] | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of numbered lines, with what stands above them where that is their step. `spoken`
    gets the beginnings of lines that are no row and speak of a loss, by whether it is held out."""
    above: dict[str, Any] = {}
    plain = (COLOUR.sub("", line) if "\x1b" in line else line for line in lines)
    head = list(islice(plain, HEAD))
    labelled = _are_labelled(head)
    for number, whole in enumerate(chain(head, plain), 1):
        line = LABEL.sub("", whole) if labelled else whole
        for form in (EPOCH, STEP) if way.by_epoch else ():
            above |= found.groupdict() if (found := form.search(line)) else {}
        row = _row(line, way._replace(by_epoch=bool(above)))
        if row is not None:
            yield number, above | row
        elif spoken is not None and SPOKEN.match(line) and not SUMMARY.search(line):
            held, trained = spoken.values()
            if HELD_OUT.search(line) or LOSS.search(line):
                said = held if HELD_OUT.search(line) else trained
                said.append(" ".join(line.split())[:80])


def _are_labelled(lines: list[str]) -> bool:
    """Whether some have a number in front that is another than the step they say themselves."""
    labels = [label for line in lines if (label := LABEL.match(line))]
    said = ((pairs(tidy(label.string[label.end() :]), False)[0], label[1]) for label in labels)
    steps = ((parse(found["step"][1], "step"), label) for found, label in said if "step" in found)
    return sum(step != float(label) for step, label in steps) >= FEWEST


def _row(line: str, way: Way) -> dict[str, Any] | None:
    """The known names of a line with their numbers as text; None without a step and a loss. A
    validation loss may stand alone, and what is printed as a dictionary without a step; with an
    epoch above so may any."""
    line = tidy(line[:MAX_LINE])
    dictionary = line.startswith("{'")
    found, tag = pairs(line.replace("'", "") if "{'" in line else line, way.by_batch)
    held = "test_loss" if tag in kinds.TEST else "val_loss"
    if tag and held not in found:
        found[held] = held, found.pop("loss")[1]
        if held == "val_loss" and "perplexity" in found:
            found["val_perplexity"] = "val_perplexity", found.pop("perplexity")[1]
    row = dict(found.values())
    loss = not found.keys().isdisjoint(MEASURED)
    if loss and ("step" in found or dictionary):
        return row
    if loss and way.by_epoch and ("epoch" in found or not SUMMARY.search(line)):
        return row
    if SUMMARY.search(line) or "test" in line.lower() or "{'" in line:
        return None
    return next(({name: found[name][1]} for name in LONE if name in found), None)
