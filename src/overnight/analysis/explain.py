"""Is this normal? Answered from numbers alone: arithmetic, no experience."""

from __future__ import annotations

import math

import msgspec

from ..ledger import Ledger, perplexity
from .findings import Number, known
from .plausible import BYTES_PER_WORD_PIECE, WORD_PIECES


class Explained(msgspec.Struct, kw_only=True):
    """What the given numbers say; None where they do not."""

    loss: float
    perplexity: Number
    chance: Number  # ln V
    bits_per_token: float
    bits_per_byte: Number
    bytes_per_token: Number
    bytes_assumed: bool
    tokens_per_step: int | None
    sequences_per_step: int | None
    steps: int | None
    tokens: int | None
    corpus_tokens: int | None
    passes: Number
    steps_per_pass: int | None
    steps_left: int | None
    blocks: int | None
    seconds: Number


def _steps_left(units: Ledger, steps: int) -> int:
    """Steps that finish the pass that is begun."""
    return max(0, units.steps_for_passes(max(1, math.ceil(units.passes(steps)))) - steps)


def explain(
    loss: float,
    steps: int | None = None,
    batch: int | None = None,
    accumulation: int = 1,
    block: int | None = None,
    corpus_tokens: int | None = None,
    vocab: int | None = None,
    bytes_per_token: float | None = None,
    seconds_per_step: float | None = None,
) -> Explained:
    """`loss` in nats per token; `batch` sequences per micro-step, `accumulation` of them a step."""
    sequences = batch * accumulation if batch else None
    per_step = sequences * block if sequences and block else None
    seen = steps * per_step if steps is not None and per_step else None
    units = None
    if sequences and block and corpus_tokens and batch:
        units = Ledger(
            batch=sequences, micro_batch=batch, context=block, train_tokens=corpus_tokens
        )
    assumed = bytes_per_token is None and vocab is not None and vocab >= WORD_PIECES
    size = BYTES_PER_WORD_PIECE if assumed else bytes_per_token
    per_pass = units.steps_per_pass if units else None
    return Explained(
        loss=loss,
        perplexity=known(perplexity(loss)),
        chance=math.log(vocab) if vocab else None,
        bits_per_token=loss / math.log(2),
        bits_per_byte=loss / math.log(2) / size if size else None,
        bytes_per_token=size,
        bytes_assumed=assumed,
        tokens_per_step=per_step,
        sequences_per_step=sequences,
        steps=steps,
        tokens=seen,
        corpus_tokens=corpus_tokens,
        passes=seen / corpus_tokens if seen is not None and corpus_tokens else None,
        steps_per_pass=per_pass,
        steps_left=_steps_left(units, steps) if units and steps is not None else None,
        blocks=units.blocks_per_pass if units else None,
        seconds=steps * seconds_per_step if steps is not None and seconds_per_step else None,
    )
