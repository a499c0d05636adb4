"""From text to token files, in bounded memory.

The text is cut into jobs at places that depend on the text alone, so that the file is the same
for any number of workers. Workers are threads: the encoders work outside the interpreter's lock.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from .parts import Part, Span
from .tokenizers import Ids, Tokenizer

JOB = 2**21  # bytes
_WORD_END = re.compile(rb"[A-Za-z0-9](?=[ \t\r\n])")


class Encoded(msgspec.Struct, frozen=True):
    tokens: int
    unknown: int


def dtype(vocab_size: int) -> type[np.uint16] | type[np.uint32]:
    """The smallest type of a token file."""
    return np.uint16 if vocab_size <= 2**16 else np.uint32


def write_tokens(
    part: Part, tokenizer: Tokenizer, path: Path, advance: Callable[[int], None], workers: int = 0
) -> Encoded:
    """Encode `part` to `path`. `advance` is told the bytes of text done; `workers` 0: a thread
    per core."""
    kind = dtype(tokenizer.vocab_size)
    tokens = unknown = 0
    with path.open("wb") as file:
        for n_bytes, ids in _encoded(part, tokenizer, workers or os.cpu_count() or 1):
            file.write(ids.astype(kind).tobytes())
            tokens += len(ids)
            if tokenizer.unknown is not None:
                unknown += int(np.count_nonzero(ids == tokenizer.unknown))
            advance(n_bytes)
    return Encoded(tokens, unknown)


def _encoded(part: Part, tokenizer: Tokenizer, workers: int) -> Iterator[tuple[int, Ids]]:
    """Bytes and ids of each job, in order, with a few jobs under way."""
    tokenizer.encode_bytes(b"a")  # make the encoder before threads want it
    under_way: deque[tuple[int, Future[Ids]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for job in jobs(part, tokenizer.cuts):
            n_bytes = sum(span.end - span.start for span in job)
            under_way.append((n_bytes, pool.submit(_encode, part, job, tokenizer)))
            if len(under_way) > 2 * workers:
                n_bytes, future = under_way.popleft()
                yield n_bytes, future.result()
        for n_bytes, future in under_way:
            yield n_bytes, future.result()


def _encode(part: Part, job: list[Span], tokenizer: Tokenizer) -> Ids:
    start = np.array(tokenizer.document_start, np.uint32)
    end = np.array(tokenizer.document_end, np.uint32)
    pieces: list[NDArray[np.uint32]] = []
    texts = [part.text[span.start : span.end] for span in job]
    for span, ids in zip(job, tokenizer.encode_many(texts), strict=True):
        pieces += [start] * span.begins + [ids] + [end] * span.finishes
    return np.concatenate(pieces)


def jobs(part: Part, cuts: str) -> Iterator[list[Span]]:
    """The spans of `part` in groups of about `JOB` bytes; longer ones are cut where `cuts`
    (`Tokenizer.cuts`) allows it."""
    job: list[Span] = []
    size = 0
    for whole in part.spans:
        for span in _cut(part, whole, cuts):
            job.append(span)
            size += span.end - span.start
            if size >= JOB:
                yield job
                job, size = [], 0
    if job:
        yield job


def _cut(part: Part, span: Span, cuts: str) -> Iterator[Span]:
    start = span.start
    while span.end - start > JOB and (cut := _place(part, start + JOB, span.end, cuts)):
        yield Span(start, cut, span.begins and start == span.start, False)
        start = cut
    yield Span(start, span.end, span.begins and start == span.start, span.finishes)


def _place(part: Part, wanted: int, end: int, cuts: str) -> int:
    """The first place at or behind `wanted` that no token spans, or 0."""
    if cuts == "characters":
        return part.character(wanted)
    if cuts == "words":
        for start in range(wanted, end, 2**16):
            if found := _WORD_END.search(part.text, start, min(start + 2**16 + 1, end)):
                return found.end()
    return 0
