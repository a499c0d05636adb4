"""The loss on fixed blocks: the same blocks, in the same order, at every evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from ..ledger import bits_per_byte
from ..model.decoder import Decoder
from ..model.loss import losses
from ..text.batches import FixedBlocks
from ..text.tokenizers import Cost

CHUNK_TOKENS = 8192  # at once; fixed, so that the sums do not depend on the training batch
FULL_TOKENS = 2**18, 2**22  # evaluated for the figure to quote: at least, at most, if there are
FULL_SHARE = 0.05  # of the tokens trained on, between these: less than 2 % of the time


def full_tokens(trained: int) -> int:
    """How many held-out tokens the last evaluation of a run takes, which trains on `trained`."""
    least, most = FULL_TOKENS
    return max(least, min(most, round(FULL_SHARE * trained)))


class Score:
    """What one pass over fixed blocks gives. `block_losses` are means in nats per token, `[n]`.

    `se` is the standard error over blocks, each block one draw. Bits per byte count the tokens
    that stand for text: special ones give neither nats nor bytes; `nats` and `n_bytes` `[n]` are
    those of each block. Their ratio scatters by both, which go together: the standard error of a
    ratio of means (Cochran 1977, §6.4).
    """

    def __init__(
        self, block_losses: np.ndarray, context: int, nats: np.ndarray, n_bytes: np.ndarray
    ) -> None:
        self.block_losses = block_losses
        self.tokens = len(block_losses) * context
        self.bytes = int(n_bytes.sum())
        self.loss = float(block_losses.mean())
        n = len(block_losses)
        self.se = float(block_losses.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan
        self.bpb = bits_per_byte(float(nats.sum()), self.bytes) if self.bytes else math.nan
        self.bpb_se = math.nan
        if n > 1 and self.bytes:
            left = nats - n_bytes * (nats.sum() / self.bytes)
            self.bpb_se = bits_per_byte(math.sqrt(n / (n - 1) * float(left @ left)), self.bytes)


class StoppedError(Exception):
    """An evaluation was broken off."""


@torch.no_grad()
def score(
    model: Decoder,
    blocks: np.ndarray | FixedBlocks,
    cost: Cost,
    device: torch.device,
    stop: object = False,
    done: Callable[[int], None] = lambda tokens: None,
) -> Score:
    """Evaluate `model` on `blocks` `[n, context + 1]` of token ids; broken off by `StoppedError`
    as soon as `stop` is true. `done` is told how many tokens are."""
    was_training = model.training
    model.eval()
    bytes_V, extra_V = map(torch.from_numpy, cost)
    means, nats, n_bytes = [], [], []
    context = blocks.shape[1] - 1
    chunk = max(1, CHUNK_TOKENS // context)
    for begin in range(0, len(blocks), chunk):
        if stop:
            model.train(was_training)
            raise StoppedError
        rows = torch.from_numpy(np.asarray(blocks[begin : begin + chunk], dtype=np.int64))
        ids = rows.to(device)
        nll_BT, _ = losses(model.hidden(ids[:, :-1]), model.head_weight, ids[:, 1:])
        nll_BT = nll_BT.cpu().double()  # in this order: an Apple GPU has no float64
        targets_BT = rows[:, 1:]
        bytes_BT = bytes_V[targets_BT]
        means.append(nll_BT.mean(1))
        nats.append((nll_BT + extra_V[targets_BT]).masked_fill(bytes_BT == 0, 0.0).sum(1))
        n_bytes.append(bytes_BT.sum(1))
        done(context * (begin + len(rows)))
    model.train(was_training)
    loss_N, nats_N, bytes_N = (torch.cat(parts).numpy() for parts in (means, nats, n_bytes))
    return Score(loss_N, context, nats_N, bytes_N)
