"""What the held-out text costs without a network: the marks a model must beat.

An n-gram model over bytes, interpolated over all shorter contexts by Witten & Bell's rule
(1991, method C): p_n(b|c) = (N(cb) + T(c) p_{n-1}(b)) / (N(c) + T(c)), with N the counts in the
training text, T(c) the number of different bytes seen after c, and p_0 = 1/256. And `xz -9e`,
alone and with the training text in front.
"""

from __future__ import annotations

import lzma
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import Say
from ..ledger import bits_per_byte
from .progress import Progress

MAX_ORDER = 7  # bytes of a window; fits into 56 bits
MAX_TRAIN_BYTES = 12 * 2**20  # inside xz's window of 64 MiB; some 300 MB of memory, 10 seconds
MAX_VAL_BYTES = 4 * 2**20  # longer held-out text is measured by its beginning
QUERIES = 2**18  # looked up at a time
PIECE = 2**18  # bytes that xz is given at a time
NAMES = ("unigram", "bigram", "trigram", "4-gram", "5-gram", "6-gram", "7-gram")


def yardsticks(
    train: bytes,
    val: bytes,
    vocab_size: int,
    val_tokens: int,
    unknown_nats: float = 0.0,
    say: Say = lambda _: None,
) -> dict[str, Any]:
    """The `yardsticks.json` of docs/log-format.md. `train` and `val` are UTF-8 text; only the
    end of a long training text is used. `val_tokens`: what the tokenizer, with `vocab_size` ids,
    makes of `val`, which is at most `MAX_VAL_BYTES` long; `unknown_nats`: what naming the
    characters takes that it does not know; `say` is told how far xz is, which takes longest."""
    vocab_nats = (math.log(vocab_size) * val_tokens + unknown_nats) / len(val)
    counted = train[-MAX_TRAIN_BYTES:]
    used = f"the last {len(counted) / 1e6:.1f} MB of the training text"
    done = Progress(say, "measuring", 2 * len(counted) + 2 * len(val))
    with ThreadPoolExecutor(2) as pool:  # lzma and numpy's sort release the interpreter's lock
        before = pool.submit(_xz, counted, done)
        after = pool.submit(_xz, counted + val, done)
        alone = pool.submit(_xz, val, done)
        ngrams = ngram_nats(counted, val)
        xz = alone.result(), after.result() - before.result()
    rows = [_row("ln V", vocab_nats, f"each of {vocab_size:,} tokens equally likely")]
    for n, nats in enumerate(ngrams, 1):
        seen = (
            f"each byte from the {n - 1} before it" if n > 1 else "each byte by how often it occurs"
        )
        how = f"{seen}, counted on {used} (Witten-Bell)"
        rows.append(_row(NAMES[n - 1], nats, how))
    rows.append(_row("xz", _nats(xz[0], val), "xz -9e on the held-out text alone"))
    how = f"what xz -9e adds for the held-out text after {used}"
    rows.append(_row("xz after training text", _nats(xz[1], val), how))
    return {"bytes": len(val), "train_bytes": len(counted), "yardsticks": rows}


def ngram_nats(train: bytes, val: bytes, max_order: int = MAX_ORDER) -> list[float]:
    """Nats per byte of `val` under byte models of order 1 … `max_order` counted on `train`.

    One sort of all windows serves every order: the n-grams are the runs of equal n-byte prefixes.
    """
    windows = np.sort(_windows(train + bytes(max_order - 1), max_order))
    queries = _windows(b"\n" * (max_order - 1) + val, max_order)  # ends at each byte of val
    p = np.full(len(val), 1 / 256)
    nats = []
    for n in range(1, max_order + 1):
        grams, counts = _runs(windows >> np.uint64(8 * (max_order - n)))
        totals = np.concatenate([[0], np.cumsum(counts)])
        for i in range(0, len(val), QUERIES):
            part = slice(i, i + QUERIES)
            gram = queries[part] & np.uint64(2 ** (8 * n) - 1)
            p[part] = _interpolate(p[part], gram, grams, counts, totals)
        nats.append(float(-np.log(p).mean()))
    return nats


def _interpolate(
    shorter: NDArray[np.float64],
    gram: NDArray[np.uint64],
    grams: NDArray[np.uint64],
    counts: NDArray[np.int64],
    totals: NDArray[np.int64],
) -> NDArray[np.float64]:
    """p of the last byte of each `gram`, from p by the context that is one byte `shorter`.
    `grams` are those of the training text, sorted; `totals[i]` counts the first i of them."""
    context = gram & ~np.uint64(255)
    first = np.searchsorted(grams, context)
    last = np.searchsorted(grams, context | np.uint64(255), side="right")
    place = np.minimum(np.searchsorted(grams, gram), len(grams) - 1)
    hits = np.where(grams[place] == gram, counts[place], 0)
    seen, kinds = totals[last] - totals[first], last - first
    mixed: NDArray[np.float64] = (hits + kinds * shorter) / np.maximum(seen + kinds, 1)
    return np.where(seen > 0, mixed, shorter)


def _windows(data: bytes, width: int) -> NDArray[np.uint64]:
    """Every `width` consecutive bytes as one big-endian integer."""
    a = np.frombuffer(data, np.uint8)
    n = max(0, len(a) - width + 1)
    out = np.zeros(n, np.uint64)
    for i in range(width):
        out = (out << np.uint64(8)) | a[i : i + n]
    return out


def _runs(ordered: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Distinct values of a sorted array and how often each occurs."""
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    return ordered[starts], np.diff(np.append(starts, len(ordered)))


def _xz(data: bytes, done: Progress) -> int:
    packer, size = lzma.LZMACompressor(preset=9 | lzma.PRESET_EXTREME), 0
    for i in range(0, len(data), PIECE):
        size += len(packer.compress(data[i : i + PIECE]))
        done.advance(len(data[i : i + PIECE]))
    return size + len(packer.flush())


def _nats(compressed: int, val: bytes) -> float:
    return compressed * 8 * math.log(2) / max(1, len(val))


def _row(name: str, nats: float, how: str) -> dict[str, Any]:
    return {"name": name, "bpb": bits_per_byte(nats, 1), "nats_per_byte": nats, "how": how}
