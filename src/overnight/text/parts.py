"""All documents of a text, checked, in one file; and its split into two parts.

The split comes before anything else: no tokenizer and no model ever sees the held-out part.
"""

from __future__ import annotations

import mmap
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from .corpus import PIECE, Source

MIN_DOCUMENTS = 20  # fewer are split by position
SMALL_TEXT = 5_000_000  # bytes; below it a tenth is held out, above it a twentieth
UNEVEN = 3.0  # a held-out share that is off by more than this factor is split otherwise
MAX_VAL = 20_000_000  # bytes that a chosen split holds out at most


class Documents(msgspec.Struct):
    """`text[ends[i-1]:ends[i]]` is document i, UTF-8; none is empty."""

    text: mmap.mmap
    ends: NDArray[np.int64]

    @property
    def size(self) -> int:
        return int(self.ends[-1])


def gather(
    sources: Iterable[Source], path: Path, name: str, advance: Callable[[int], None]
) -> Documents:
    """Write the documents of `sources` to `path`, one after the other. `advance` is told the
    bytes read; `name` is what an error calls the text."""
    ends, size = array("q"), 0
    with path.open("wb") as file:
        for source in sources:
            for piece, last in source.pieces():
                file.write(piece)
                size += len(piece)
                advance(len(piece))
                if last and size > (ends[-1] if ends else 0):
                    ends.append(size)
    if not size:
        raise UserError(f"{name}: empty, there is no text in it.")
    with path.open("rb") as file:
        return Documents(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.array(ends))


class Span(msgspec.Struct, frozen=True):
    """A stretch of text, and whether a document begins and ends with it."""

    start: int
    end: int
    begins: bool
    finishes: bool


class Part:
    """Some of the documents (or of their ends): training or held-out text."""

    def __init__(self, text: mmap.mmap, spans: list[Span]) -> None:
        self.text = text
        self.spans = spans
        self.size = sum(s.end - s.start for s in spans)

    def head(self, limit: int) -> bytes:
        """The first `limit` bytes."""
        return b"".join(_until(self._pieces(self.spans), limit))

    def tail(self, limit: int) -> bytes:
        """The last `limit` bytes."""
        size, first = 0, len(self.spans)
        while first and size < limit:
            first -= 1
            size += self.spans[first].end - self.spans[first].start
        start = self.spans[first].start + max(0, size - limit)
        spans = [Span(start, self.spans[first].end, False, False), *self.spans[first + 1 :]]
        return b"".join(self._pieces(spans))

    def texts(self, limit: int) -> Iterator[str]:
        """Evenly spread pieces of the text, `limit` bytes together at the most, no character
        cut; all of it where it is shorter."""
        keep = min(1.0, limit / self.size)
        owed = 0.0  # bytes
        for span in self.spans:
            for start in range(span.start, span.end, 2**18):
                end = min(start + 2**18, span.end)
                owed += keep * (end - start)
                if owed >= end - start:
                    owed -= end - start
                    yield self.text[self.character(start) : self.character(end)].decode()

    def character(self, position: int) -> int:
        """The nearest start of a character at or behind `position`."""
        while position < len(self.text) and self.text[position] & 0xC0 == 0x80:
            position += 1
        return position

    def _pieces(self, spans: Iterable[Span]) -> Iterator[bytes]:
        for span in spans:
            for start in range(span.start, span.end, PIECE):
                yield self.text[start : min(start + PIECE, span.end)]


class Split(msgspec.Struct, frozen=True):
    """Training part and held-out part of a text."""

    train: Part
    val: Part
    fraction: float  # held out; 0: a separate validation text
    words: str  # the rule, for a reader
    uneven: bool = False  # documents would have been held out, were they of more equal sizes


def _until(pieces: Iterable[bytes], limit: int) -> Iterator[bytes]:
    for piece in pieces:
        yield piece[:limit]
        limit -= len(piece)
        if limit <= 0:
            return


def whole(documents: Documents) -> Part:
    return _documents(documents, np.ones(len(documents.ends), bool))


def suggest_fraction(n_bytes: int) -> tuple[float, str]:
    """The share to hold out of `n_bytes` of text, and why."""
    if n_bytes < SMALL_TEXT:
        return 0.1, f"less than {SMALL_TEXT // 10**6} MB of text"
    if n_bytes * 0.05 <= MAX_VAL:
        return 0.05, f"{SMALL_TEXT // 10**6} MB of text or more"
    return round(MAX_VAL / n_bytes, 6), f"about {MAX_VAL // 10**6} MB are enough to measure on"


def split(documents: Documents, fraction: float) -> Split:
    """Hold out `fraction` of the text.

    From 20 documents on every k-th one is held out, k = round(1/fraction), from the middle of
    each k; otherwise, and where these happen to be far larger or smaller than the others, the
    last characters of the text, as nanoGPT does it.
    """
    n = len(documents.ends)
    every = max(2, round(1 / fraction))
    by_document = n >= max(MIN_DOCUMENTS, every)
    if by_document:
        held = np.arange(n) % every == every // 2
        words = f"by document: every {_ordinal(every)} of {n:,} held out"
        train, val = _documents(documents, ~held), _documents(documents, held)
        if 1 / UNEVEN < val.size / (documents.size * fraction) < UNEVEN:
            return Split(train, val, fraction, words)
    characters = _count_characters(documents.text)
    kept = int((1 - fraction) * characters)
    if not 0 < kept < characters:
        raise UserError(
            f"The text has {characters:,} characters: too few to hold out {fraction:.3g} of it."
        )
    why = "by position, as documents differ much in size" if by_document else "by position"
    words = f"{why}: the first {kept:,} of {characters:,} characters train, the rest held out"
    train, val = _cut(documents, _character_offset(documents.text, kept))
    return Split(train, val, fraction, words, uneven=by_document)


def _documents(documents: Documents, chosen: NDArray[np.bool_]) -> Part:
    starts = np.concatenate([[0], documents.ends[:-1]])
    pairs = zip(starts[chosen].tolist(), documents.ends[chosen].tolist(), strict=True)
    return Part(documents.text, [Span(a, b, True, True) for a, b in pairs])


def _cut(documents: Documents, cut: int) -> tuple[Part, Part]:
    """The documents before and behind byte `cut`; one may be cut in two."""
    before, behind = [], []
    start = 0
    for end in documents.ends.tolist():
        if start < cut:
            before.append(Span(start, min(end, cut), True, end <= cut))
        if end > cut:
            behind.append(Span(max(start, cut), end, start >= cut, True))
        start = end
    return Part(documents.text, before), Part(documents.text, behind)


def _starts(text: mmap.mmap, start: int) -> NDArray[np.bool_]:
    """Where characters start in the piece of `text` from `start` on."""
    starts: NDArray[np.bool_] = np.frombuffer(text[start : start + PIECE], np.uint8) & 0xC0 != 0x80
    return starts


def _count_characters(text: mmap.mmap) -> int:
    return sum(int(_starts(text, i).sum()) for i in range(0, len(text), PIECE))


def _character_offset(text: mmap.mmap, number: int) -> int:
    """The byte at which character `number` (from 0) starts."""
    for i in range(0, len(text), PIECE):
        starts = np.flatnonzero(_starts(text, i))
        if number < len(starts):
            return i + int(starts[number])
        number -= len(starts)
    return len(text)


def _ordinal(n: int) -> str:
    last = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{last}"
