"""In which order blocks are seen: arithmetic, not state.

Sequence `s` of a run (counted from 0 over the whole run) belongs to pass `s // n_blocks` and sees
block `permutation(seed, pass)[s % n_blocks]`. The permutation is a Feistel network over a grid
that just covers the blocks (Black & Rogaway 2002, "Ciphers with arbitrary finite domains",
generalised Feistel with cycle walking), so any position costs O(1) time and no memory: to resume
is to know one integer.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

ROUNDS = 4
_M1 = np.uint64(0x9E3779B97F4A7C15)
_M2 = np.uint64(0xD6E8FEB86659FD93)
_SHIFT = np.uint64(32)


@lru_cache(maxsize=64)
def _keys(seed: int, pass_: int) -> NDArray[np.uint64]:
    """One key for each round, and one for the offset."""
    return (
        np.random.SeedSequence([seed, pass_]).generate_state(ROUNDS + 1, np.uint64).view(np.uint64)
    )


class Order:
    """Keyed permutations of `n_blocks` blocks, a new one in every pass."""

    def __init__(self, n_blocks: int, seed: int) -> None:
        if n_blocks < 1:
            raise ValueError(f"an order needs at least one block, not {n_blocks}")
        self.n_blocks = n_blocks
        self.seed = seed
        rows = math.isqrt(n_blocks - 1) + 1  # ⌈√n⌉
        self._sides = (np.uint64(rows), np.uint64(-(-n_blocks // rows)))

    def blocks(self, first: int, count: int) -> NDArray[np.int64]:
        """The blocks of sequences `first` … `first + count - 1`."""
        parts = []
        while count > 0:
            pass_, position = divmod(first, self.n_blocks)
            n = min(count, self.n_blocks - position)
            parts.append(self._permute(pass_, position, n))
            first, count = first + n, count - n
        return parts[0] if len(parts) == 1 else np.concatenate(parts or [np.empty(0, np.int64)])

    def offset(self, pass_: int, context: int) -> int:
        """Where the blocks of a pass begin, in [0, context): boundaries differ between passes."""
        return int(_keys(self.seed, pass_)[ROUNDS] % np.uint64(context)) if pass_ else 0

    def _permute(self, pass_: int, position: int, count: int) -> NDArray[np.int64]:
        keys = _keys(self.seed, pass_)
        x = self._encrypt(np.arange(position, position + count, dtype=np.uint64), keys)
        while (outside := x >= self.n_blocks).any():  # cycle walking: the grid is a little larger
            x[outside] = self._encrypt(x[outside], keys)
        return x.astype(np.int64)

    def _encrypt(self, x: NDArray[np.uint64], keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """A permutation of the grid: each round shifts one coordinate by a hash of the other."""
        rows, columns = self._sides
        left, right = np.divmod(x, columns)
        for r in range(0, ROUNDS, 2):
            left = (left + _hash(right, keys[r])) % rows
            right = (right + _hash(left, keys[r + 1])) % columns
        return left * columns + right


def _hash(x: NDArray[np.uint64], key: np.uint64) -> NDArray[np.uint64]:
    """32 well-mixed bits of (x, key); products wrap."""
    x = (x ^ key) * _M1
    x ^= x >> _SHIFT
    x *= _M2
    return x >> _SHIFT
