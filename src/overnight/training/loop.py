"""The loop: update, log row, evaluation, samples, checkpoint, stop; in this order at every step.

So a checkpoint of step k stands after everything else that belongs to step k, and a session that
resumes from it does what an uninterrupted one would do next.
"""

from __future__ import annotations

import math
import time

import msgspec
import numpy as np
import safetensors.numpy

from ..config import Config
from ..generation.sample import Sampling, continue_text
from ..model import checkpoint
from ..model.checkpoint import State, Window
from ..runfolder import (
    Checkpoint,
    End,
    Eval,
    Event,
    Full,
    LogWriter,
    RunFolder,
    Sample,
    Train,
    best_eval,
    read_log,
)
from ..text.batches import FixedBlocks, fixed_blocks
from ..text.prepare import Prepared
from .evaluate import Score, score
from .plan import duration
from .progress import Progress
from .stop import StopSignal
from .update import Updater

SAVE_SECONDS, SAVE_SHARE = 30.0, 0.01  # by default a save may cost 1 % of the time
FULL_TOKENS = 4 * 2**20  # at most evaluated for the figure to quote


class Clock(msgspec.Struct):
    """Monotonic seconds of this session by what they were spent on."""

    begin: float
    train: float = 0.0
    eval: float = 0.0
    save: float = 0.0
    evals: int = 0
    steps: int = 0


class Trainer:
    """One session of one run, from a state to the end or a stop."""

    def __init__(
        self,
        run: RunFolder,
        log: LogWriter,
        config: Config,
        updater: Updater,
        prepared: Prepared,
        state: State,
        progress: Progress,
        stop: StopSignal,
    ) -> None:
        self.run, self.log, self.config = run, log, config
        self.updater, self.prepared, self.state = updater, prepared, state
        self.progress, self.stop = progress, stop
        context, tokens = config.model.context, config.eval.tokens
        self.val = fixed_blocks(prepared.val, context, tokens)
        self.probe = fixed_blocks(prepared.train, context, len(self.val) * context)
        self.byte_lengths = prepared.tokenizer.byte_lengths()
        self.best = best_eval(read_log(run.log).rows)
        self.last_loss = math.nan
        self.clock = Clock(time.monotonic())
        self._saved_at, self._save_seconds = time.monotonic(), 0.0

    @property
    def steps(self) -> int:
        return self.config.length.steps

    def train(self) -> str:
        """Run to the end or to a stop; `finished` or `interrupted`."""
        if self.state.step == 0:
            self._evaluate()
        while self.state.step < self.steps and not self.stop:
            self._update()
            step, last = self.state.step, self.state.step == self.steps
            if step % self.config.log.every == 0 or last:
                self._log_window()
            improved = False
            if step % self.config.eval.every == 0 or last:
                improved = self._evaluate()
                self._sample()
            self._save_if_due(improved, last)
            self._show()
        reason = "finished" if self.state.step == self.steps else "interrupted"
        if reason == "finished":
            self._evaluate_whole()
        self._end(reason)
        return reason

    def _update(self) -> None:
        begin = time.monotonic()
        update = self.updater.update(self.state.step + 1, self.steps)
        seconds = time.monotonic() - begin
        self.state.step += 1
        self.clock.train += seconds
        self.clock.steps += 1
        window = self.state.window
        window.steps += 1
        window.tokens += update.tokens
        window.nats += update.nats
        window.objective += update.objective
        window.grad_norm += update.grad_norm
        window.seconds += seconds
        self.last_lr = update.lr
        self.last_loss = window.nats / window.tokens

    def _log_window(self) -> None:
        window, ledger, step = self.state.window, self.updater.ledger, self.state.step
        smoothed = self.config.train.label_smoothing > 0
        self.log.write(
            Train(
                step=step,
                steps=window.steps,
                tokens=ledger.tokens(step),
                passes=ledger.passes(step),
                loss=window.nats / window.tokens,
                objective=window.objective / window.tokens if smoothed else None,
                lr=self.last_lr,
                grad_norm=window.grad_norm / window.steps,
                seconds=window.seconds,
                tokens_per_s=window.tokens / window.seconds,
            )
        )
        self.state.window = Window()

    def _evaluate(self) -> bool:
        """Score both fixed sets; whether this is the best val loss of everything logged."""
        begin = time.monotonic()
        step, ledger = self.state.step, self.updater.ledger
        val, probe = self._score(self.val), self._score(self.probe)
        seconds = time.monotonic() - begin
        self._keep_block_losses(val, probe)
        row = Eval(
            step=step,
            tokens=ledger.tokens(step),
            passes=ledger.passes(step),
            val_loss=val.loss,
            val_se=val.se,
            val_bpb=val.bpb,
            val_tokens=val.tokens,
            probe_loss=probe.loss,
            probe_se=probe.se,
            probe_bpb=probe.bpb,
            probe_tokens=probe.tokens,
            seconds=seconds,
        )
        self.log.write(row)
        self.clock.eval += seconds
        self.clock.evals += 1
        best = self.best.val_loss if self.best else None
        improved = step > 0 and math.isfinite(val.loss) and (best is None or val.loss < best)
        if improved:
            self.best = row
        self.progress.say(
            f"step {step:,}: val {val.loss:.4f} ± {val.se:.4f}, "
            f"train probe {probe.loss:.4f}, {val.bpb:.3f} bits per byte"
            + (" (best so far)" if improved else "")
        )
        return improved

    def _score(self, blocks: FixedBlocks) -> Score:
        return score(self.updater.model, blocks, self.byte_lengths, self.updater.device)

    def _keep_block_losses(self, val: Score, probe: Score) -> None:
        path = self.run.eval_path(self.state.step, self.log.attempt)
        losses = {
            "val": val.block_losses.astype(np.float32),
            "probe": probe.block_losses.astype(np.float32),
        }
        path.write_bytes(safetensors.numpy.save(losses))

    def _sample(self) -> None:
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
            parts = list(
                continue_text(
                    self.updater.model, self.prepared.tokenizer, prompt, sampling, _silent
                )
            )
            self.log.write(
                Sample(
                    step=self.state.step,
                    prompt=prompt,
                    text="".join(parts),
                    tokens=sample.tokens,
                    seed=sampling.seed,
                )
            )
        self.clock.eval += time.monotonic() - begin

    def _save_if_due(self, improved: bool, last: bool) -> None:
        every = self.config.save.every
        waited = time.monotonic() - self._saved_at
        if every:
            due = self.state.step % every == 0
        else:
            due = waited >= max(SAVE_SECONDS, self._save_seconds / SAVE_SHARE)
        reasons = {"signal": bool(self.stop), "last": last, "best": improved, "interval": due}
        reason = next((name for name, applies in reasons.items() if applies), "")
        if reason:
            self._save(reason)

    def _save(self, reason: str) -> None:
        size, seconds = checkpoint.save(
            self.run,
            self.state,
            self.updater.model.state_dict(),
            self.updater.optimizers.state(),
        )
        step = self.state.step
        path = self.run.checkpoint_path(step).relative_to(self.run.path)
        self.log.write(
            Checkpoint(step=step, path=str(path), bytes=size, seconds=seconds, reason=reason)
        )
        checkpoint.prune(self.run, self.best.step if self.best else None, self.config.save.keep)
        self.clock.save += seconds
        self._saved_at, self._save_seconds = time.monotonic(), seconds

    def _evaluate_whole(self) -> None:
        """The figure to quote: the best checkpoint on the whole val split."""
        if self.best is None:
            return
        begin = time.monotonic()
        folder = self.run.checkpoint_path(self.best.step)
        if self.best.step != self.state.step:
            weights = checkpoint.read_tensors(folder, checkpoint.MODEL)
            checkpoint.load_into(self.updater.model, weights, folder)
        whole = self._score(fixed_blocks(self.prepared.val, self.config.model.context, FULL_TOKENS))
        self.log.write(
            Full(
                step=self.best.step,
                val_loss=whole.loss,
                val_se=whole.se,
                val_bpb=whole.bpb,
                val_tokens=whole.tokens,
                val_bytes=whole.bytes,
                checkpoint="best",
                seconds=time.monotonic() - begin,
            )
        )
        self.clock.eval += time.monotonic() - begin

    def _end(self, reason: str) -> None:
        if reason == "interrupted":
            name = {2: "SIGINT", 15: "SIGTERM"}.get(self.stop.number, str(self.stop.number))
            self.log.write(Event(step=self.state.step, kind="signal", message=f"stopped by {name}"))
        self.log.write(
            End(
                step=self.state.step,
                reason=reason,
                seconds=time.monotonic() - self.clock.begin,
                train_seconds=self.clock.train,
                eval_seconds=self.clock.eval,
                save_seconds=self.clock.save,
            )
        )

    def _show(self) -> None:
        step, clock = self.state.step, self.clock
        per_step = clock.train / clock.steps
        speed = self.updater.ledger.tokens_per_step / per_step
        val = f"{self.best.val_loss:.3f}" if self.best and self.best.val_loss else "–"
        self.progress.show(
            f"step {step:,}/{self.steps:,}  passes {self.updater.ledger.passes(step):.2f}  "
            f"loss {self.last_loss:.3f}  best val {val}  lr {self.last_lr:.2e}  "
            f"{speed:,.0f} tok/s  ETA {duration(self._remaining(per_step))}"
        )

    def _remaining(self, per_step: float) -> float:
        """Seconds to the end: updates, evaluations and saves at what they cost so far."""
        clock, left = self.clock, self.steps - self.state.step
        evals_left = math.ceil(left / self.config.eval.every)
        evaluation = evals_left * clock.eval / max(1, clock.evals)
        saving = left * clock.save / max(1, clock.steps)
        return left * per_step + evaluation + saving


def _silent(message: str) -> None:
    """A sample that outgrows the window is no news during training."""
