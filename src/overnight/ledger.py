"""Units and exact arithmetic: micro-steps, steps, tokens, passes.

One place computes them; plan, trainer, log and report use it. A *step* is an optimizer update,
a *pass* is the training tokens once (non-overlapping blocks).
"""

from __future__ import annotations

import math

import msgspec
from msgspec import structs


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """What one step costs and what a pass is.

    `batch` and `micro_batch` count sequences of `context` tokens; `batch` is per step over all
    `ranks`. `train_tokens` is the length of the training text in tokens. Where a resumed run has
    another batch, steps cost so much since `since_step`; `since_tokens` and `since_micro_steps`
    were counted before.
    """

    batch: int
    micro_batch: int
    context: int
    train_tokens: int
    ranks: int = 1
    since_step: int = 0
    since_tokens: int = 0
    since_micro_steps: int = 0

    @property
    def accumulation(self) -> int:
        """Micro-steps per step on one rank."""
        return self.batch // (self.micro_batch * self.ranks)

    @property
    def tokens_per_step(self) -> int:
        return self.batch * self.context

    @property
    def blocks_per_pass(self) -> int:
        """Non-overlapping blocks of `context` inputs, each with a next token for every input."""
        return (self.train_tokens - 1) // self.context

    @property
    def steps_per_pass(self) -> int:
        return math.ceil(self.train_tokens / self.tokens_per_step)

    def tokens(self, step: int) -> int:
        return self.since_tokens + (step - self.since_step) * self.tokens_per_step

    def passes(self, step: int) -> float:
        return self.tokens(step) / self.train_tokens

    def micro_steps(self, step: int) -> int:
        more = (step - self.since_step) * self.accumulation * self.ranks
        return self.since_micro_steps + more

    def after(self, before: Ledger, step: int) -> Ledger:
        """This arithmetic for a run that `before` has counted until `step`."""
        going_on = structs.replace(
            self,
            since_step=before.since_step,
            since_tokens=before.since_tokens,
            since_micro_steps=before.since_micro_steps,
        )
        if going_on == before:
            return going_on
        return structs.replace(
            self,
            since_step=step,
            since_tokens=before.tokens(step),
            since_micro_steps=before.micro_steps(step),
        )

    def steps_for_tokens(self, tokens: float) -> int:
        """The fewest steps that see at least `tokens` tokens, and at least one."""
        return max(1, math.ceil(tokens / self.tokens_per_step))

    def steps_for_passes(self, passes: float) -> int:
        return self.steps_for_tokens(passes * self.train_tokens)


def bits_per_byte(nats: float, n_bytes: int) -> float:
    """Σ nats / (ln 2 · Σ UTF-8 bytes): the number that compares tokenizers."""
    return nats / (math.log(2) * n_bytes)


def perplexity(loss: float) -> float:
    """exp(loss), infinite where that overflows."""
    return math.exp(loss) if loss < 700 else math.inf
