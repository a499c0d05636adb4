"""What a run measures of itself: the loss on two fixed sets and samples at their cadence, and at
the end the figure to quote. Training is the same with and without it."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import safetensors.numpy

from ..config import Config
from ..files import replace
from ..generation.sample import Sampling, continue_text
from ..model import checkpoint
from ..model.decoder import in_float32
from ..runfolder import Eval, EventKind, Full, LogWriter, RunFolder, Sample
from ..text.batches import FixedBlocks, fixed_blocks
from ..text.prepare import Prepared
from ..wording import duration
from .evaluate import Score, StoppedError, full_tokens, score
from .progress import Progress
from .stop import StopSignal
from .update import Updater

RANDOM_TOKENS = 8192  # evaluated of random weights, at step 0


@dataclass
class Measuring:
    """Measures `updater`'s model and logs what it finds. All that takes long is broken off by
    `StoppedError` once the `stop` it is given is set."""

    run: RunFolder
    log: LogWriter
    config: Config
    updater: Updater
    prepared: Prepared
    event: Callable[[EventKind, str], None]  # kind and message
    progress: Progress
    pretrained: bool  # the weights of step 0 are no random ones

    def __post_init__(self) -> None:
        self.val, self.probe = self._blocks(self.config.eval.tokens)
        tokens = full_tokens(self.updater.ledger.tokens(self.config.length.steps))
        self.whole = fixed_blocks(self.prepared.val, self.config.model.context, tokens)
        self.cost = self.prepared.tokenizer.cost
        self.seconds, self.evaluations = 0.0, 0  # of this session
        self._token_seconds = 0.0  # of the last evaluation in it

    def _blocks(self, tokens: int) -> tuple[FixedBlocks, FixedBlocks]:
        """As many of the held-out as of the training text."""
        context = self.config.model.context
        val = fixed_blocks(self.prepared.val, context, tokens)
        return val, fixed_blocks(self.prepared.train, context, len(val) * context)

    def evaluate(self, step: int, stop: StopSignal) -> Eval:
        """Score both sets with the weights of `step`."""
        begin = time.monotonic()
        val, probe = (self._score(blocks, stop) for blocks in self._sets(step))
        seconds = time.monotonic() - begin
        self._token_seconds = seconds / (val.tokens + probe.tokens)
        self._keep_block_losses(step, val, probe)
        row = Eval(
            step=step,
            tokens=self.updater.ledger.tokens(step),
            passes=self.updater.ledger.passes(step),
            val_loss=val.loss,
            val_se=val.se,
            val_bpb=val.bpb,
            val_bpb_se=val.bpb_se,
            val_tokens=val.tokens,
            probe_loss=probe.loss,
            probe_se=probe.se,
            probe_bpb=probe.bpb,
            probe_tokens=probe.tokens,
            seconds=seconds,
        )
        self.log.write(row)
        self.seconds += seconds
        self.evaluations += 1
        return row

    def _sets(self, step: int) -> tuple[FixedBlocks, FixedBlocks]:
        """Held-out and training blocks; a few where weights are random: the first step waits."""
        if step == 0 and not self.pretrained:
            return self._blocks(min(RANDOM_TOKENS, self.config.eval.tokens))
        return self.val, self.probe

    def _score(
        self,
        blocks: FixedBlocks,
        stop: StopSignal,
        done: Callable[[int], None] = lambda tokens: None,
    ) -> Score:
        model, device = self.updater.model, self.updater.device
        return score(model, blocks, self.cost, device, stop, done)

    def _keep_block_losses(self, step: int, val: Score, probe: Score) -> None:
        path = self.run.eval_path(step, self.log.attempt)
        losses = {
            "val": val.block_losses.astype(np.float32),
            "probe": probe.block_losses.astype(np.float32),
        }
        try:
            replace(path, safetensors.numpy.save(losses), durable=True)
        except OSError as error:
            self.event("disk", f"block losses not kept: {error}")

    def sample(self, step: int, stop: StopSignal) -> None:
        """Continue the fixed prompts; the random numbers depend on (seed, prompt), not on when."""
        sample = self.config.sample
        if not sample.tokens:
            return
        begin = time.monotonic()
        for i, prompt in enumerate(sample.prompts):
            sampling = Sampling(
                max_tokens=sample.tokens,
                temperature=sample.temperature,
                top_k=sample.top_k,
                seed=self.config.train.seed + i,
            )
            self.log.write(
                Sample(
                    step=step,
                    prompt=prompt,
                    text=self._continued(prompt, sampling, stop),
                    tokens=sample.tokens,
                    seed=sampling.seed,
                )
            )
        self.seconds += time.monotonic() - begin

    def _continued(self, prompt: str, sampling: Sampling, stop: StopSignal) -> str:
        model, parts = self.updater.model, []
        with in_float32(model) if self.updater.device.type == "cpu" else contextlib.nullcontext():
            for part in continue_text(model, self.prepared.tokenizer, prompt, sampling, _silent):
                parts.append(part)
                if stop:
                    raise StoppedError
        return "".join(parts)

    def seconds_whole(self) -> float:
        """What `evaluate_whole` will take, by what a token took in the last evaluation."""
        return len(self.whole) * self.config.model.context * self._token_seconds

    def evaluate_whole(self, best: int, step: int, stop: StopSignal) -> None:
        """The figure to quote: the checkpoint of step `best` on the whole held-out split. The model
        is the one of `step`, and is afterwards the best one."""
        begin = time.monotonic()
        folder = self.run.checkpoint_path(best)
        try:
            checkpoint.verify(folder)
        except checkpoint.DamagedError as error:
            self.event("checkpoint", f"the best checkpoint is damaged: {error}")
            return
        if best != step:
            weights = checkpoint.read_tensors(folder, checkpoint.MODEL)
            checkpoint.load_into(self.updater.model, weights, folder)
        tokens = len(self.whole) * self.config.model.context
        what = f"last      evaluating step {best:,} on {tokens:,} val tokens"
        self.progress.say(what)
        scoring = time.monotonic()

        def show(done: int) -> None:
            left = (time.monotonic() - scoring) * (tokens / done - 1)
            self.progress.show(f"{what}: {done / tokens:.0%}  ETA {duration(round(left))}")

        whole = self._score(self.whole, stop, show)
        self.log.write(
            Full(
                step=best,
                val_loss=whole.loss,
                val_se=whole.se,
                val_bpb=whole.bpb,
                val_bpb_se=whole.bpb_se,
                val_tokens=whole.tokens,
                val_bytes=whole.bytes,
                checkpoint="best",
                seconds=time.monotonic() - begin,
            )
        )
        self.seconds += time.monotonic() - begin


def described(row: Eval) -> str:
    """An evaluation in a line."""
    error = ""
    if row.val_se is not None and math.isfinite(row.val_se):
        error = f" ± {row.val_se:.4f}"
    elif row.val_loss is not None and math.isfinite(row.val_loss):
        error = " (one block: no standard error)"
    return (
        f"step {row.step:,}: val {row.val_loss:.4f}{error}, "
        f"train probe {row.probe_loss:.4f}, {row.val_bpb:.3f} bits per byte"
    )


def _silent(message: str) -> None:
    """A sample that outgrows the window is no news during training."""
