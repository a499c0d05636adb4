"""Token blocks for training (keyed order) and for evaluation (fixed)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ..errors import UserError
from ..wording import counted
from .order import Order


class Batches:
    """The training sequences of a run, by number: a pure function of (tokens, context, seed).

    `tokens` is one-dimensional (a memory-mapped token file). A sequence is `context` inputs and
    the token after them. `blocks` is the number of sequences in one pass.
    """

    def __init__(self, tokens: NDArray[Any], context: int, seed: int) -> None:
        self.context = context
        self.blocks = count_blocks(tokens, context, "training")
        self.order = Order(self.blocks, seed)
        self._windows = sliding_window_view(tokens, context + 1)

    def batch(self, first: int, count: int) -> NDArray[np.int64]:
        """Sequences `first` … `first + count - 1` of the run, int64 [count, context + 1]."""
        starts = self.order.blocks(first, count) * self.context + self._offsets(first, count)
        # a shifted pass has one block too few room: that one takes the head that the shift left
        starts[starts >= len(self._windows)] = 0
        batch: NDArray[np.int64] = self._windows[starts].astype(np.int64)
        return batch

    def _offsets(self, first: int, count: int) -> NDArray[np.int64] | int:
        begin, end = first // self.blocks, (first + count - 1) // self.blocks
        offsets = [self.order.offset(p, self.context) for p in range(begin, end + 1)]
        if len(offsets) == 1:
            return offsets[0]
        return np.asarray(offsets)[np.arange(first, first + count) // self.blocks - begin]


class FixedBlocks:
    """Evaluation blocks, read when indexed: `blocks[a:b]` is int64 [b - a, context + 1]."""

    def __init__(self, tokens: NDArray[Any], context: int, starts: NDArray[np.int64]) -> None:
        self._windows = sliding_window_view(tokens, context + 1)
        self._starts = starts
        self.shape = (len(starts), context + 1)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: Any) -> NDArray[np.int64]:
        blocks: NDArray[np.int64] = self._windows[self._starts[index]].astype(np.int64)
        return blocks


def fixed_blocks(tokens: NDArray[Any], context: int, max_tokens: int) -> FixedBlocks:
    """Evenly spaced non-overlapping blocks of at most `max_tokens` inputs (at least one block);
    all blocks where `max_tokens` is 0 or more than there are."""
    available = count_blocks(tokens, context, "held-out")
    wanted = max(1, max_tokens // context) if max_tokens else available
    count = min(wanted, available)
    blocks = np.arange(count, dtype=np.int64) * available // count
    return FixedBlocks(tokens, context, blocks * context)


def count_blocks(tokens: NDArray[Any], context: int, part: str) -> int:
    """Non-overlapping blocks of `context` inputs with a next token each; at least one."""
    if len(tokens) < context + 1:
        raise UserError(
            f"The {part} text has {counted(len(tokens), 'token')}, fewer than one block of "
            f"{context:,} + 1: give more text or a smaller model.context."
        )
    return (len(tokens) - 1) // context
