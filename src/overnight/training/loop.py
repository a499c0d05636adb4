"""The loop: update, log row, evaluation, samples, checkpoint, stop; in this order at every step.

So a checkpoint of step k stands after everything else that belongs to step k, and a session that
resumes from it does what an uninterrupted one would do next.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np
import safetensors.numpy

from ..config import Config
from ..errors import UserError
from ..generation.sample import Sampling, continue_text
from ..model import checkpoint
from ..model.checkpoint import State, Window
from ..model.decoder import in_float32
from ..runfolder import (
    End,
    Eval,
    Event,
    Full,
    LogWriter,
    RunFolder,
    Sample,
    Start,
    Train,
    best_evaluation,
    current,
    fsync_path,
    not_linked,
    read_log,
)
from ..text.batches import FixedBlocks, fixed_blocks
from ..text.prepare import Prepared
from . import memory
from .evaluate import Score, StoppedError, full_tokens, score
from .guard import REMEMBERED, REWINDS, SPIKE_Z, STRIKES
from .plan import duration
from .progress import Progress
from .saving import FailedError, Saver, Snapshot, restore
from .stop import StopSignal
from .update import Update, Updater

DRAWN_TOKENS = 8192  # evaluated of weights that are as drawn


class Clock(msgspec.Struct):
    """Monotonic seconds of this session by what they were spent on."""

    begin: float
    train: float = 0.0
    eval: float = 0.0
    evals: int = 0
    steps: int = 0


@dataclass
class Trainer:
    """One session of one run, from a state to the end or a stop."""

    run: RunFolder
    log: LogWriter
    config: Config
    updater: Updater
    prepared: Prepared
    state: State
    progress: Progress
    start: Callable[[int], Start]  # the start row of a return within the session
    # val losses by step → why to stop early, or ""; asked only if `train.early_stop` is set
    stop_reason: Callable[[list[int], list[float]], str]

    def __post_init__(self) -> None:
        self.val, self.probe = self._blocks(self.config.eval.tokens)
        self.byte_lengths = self.prepared.tokenizer.byte_lengths()
        self.best = self._best_so_far()
        self.last_loss = math.nan
        self.clock = Clock(time.monotonic())
        self.saver = Saver(self.run, self.log, self.config.save, self._event)
        self.saver.best_step = self.best.step if self.best else None

    def _blocks(self, tokens: int) -> tuple[FixedBlocks, FixedBlocks]:
        """As many of the held-out as of the training text."""
        context = self.config.model.context
        val = fixed_blocks(self.prepared.val, context, tokens)
        return val, fixed_blocks(self.prepared.train, context, len(val) * context)

    @property
    def steps(self) -> int:
        return self.config.length.steps

    def _best_so_far(self) -> Eval | None:
        """Of the steps up to this one: those that a killed session logged beyond are measured
        again, and saved if they are the best."""
        rows = read_log(self.run.log).rows
        return best_evaluation(row for row in rows if row.step <= self.state.step)

    def train(self, stop: StopSignal) -> str:
        """Run to the end or to a stop: `finished`, `interrupted` or `failed`."""
        self.stop = stop
        try:
            self._train()
            self._evaluate_whole()
            reason = "finished"
        except StoppedError:
            reason = "interrupted"
        except (FailedError, UserError) as error:
            self._event("failed", str(error))
            reason = "failed"
        except (RuntimeError, MemoryError) as error:
            if not memory.is_out_of_memory(error):
                raise
            self._event("failed", memory.advice(self.config, self.updater.device))
            reason = "failed"
        self._end(reason)
        return reason

    def _train(self) -> None:
        self._measure_if_due()  # step 0, or what a stop broke off
        self.saver.prune()  # what a kill came before
        if self._ended_early():  # and the kill came before the end row
            return
        while self.state.step < self.steps:
            if self.stop:
                self._save("signal", must=True)
                raise StoppedError
            if not self._update():
                continue
            step, last = self.state.step, self.state.step == self.steps
            if step % self.config.log.every == 0 or last:
                self._log_window()
            try:
                improved = self._measure_if_due()
            except StoppedError:
                self._save("signal", must=True)
                raise
            ended = self._ended_early()
            self._save_if_due(improved, last or ended)
            self._show()
            if ended:
                return

    def _update(self) -> bool:
        """Make the next update; False where that led back to an earlier step."""
        begin, state = time.monotonic(), self.state
        update = self.updater.update(state.step + 1, self.steps, state.shift, state.recent)
        seconds = time.monotonic() - begin
        state.step += 1
        state.measured = False
        self.clock.train += seconds
        self.clock.steps += 1
        state.window.seconds += seconds
        self.last_lr = update.lr
        if update.skipped:
            self._strike(update)
            return self.state is state
        if update.z > SPIKE_Z:
            self._event("spike", f"loss {update.loss:.4f}, {update.z:.1f}σ above the last ones")
        state.strikes = 0
        state.recent = [*state.recent[1 - REMEMBERED :], update.loss]
        window = state.window
        window.steps += 1
        window.tokens += update.tokens
        window.nats += update.nats
        window.objective += update.objective
        window.grad_norm += update.grad_norm
        self.last_loss = window.nats / window.tokens
        return True

    def _strike(self, update: Update) -> None:
        """An update was judged unfit: log it; after some in a row that are not finite, go back."""
        self._event(
            update.skipped,
            f"update skipped: loss {update.loss:.4g}, gradient norm {update.grad_norm:.4g}",
        )
        if update.skipped != "non_finite":
            return
        self.state.strikes += 1
        if self.state.strikes >= STRIKES:
            self._go_back()

    def _go_back(self) -> None:
        """Return to the last good checkpoint and go on with other data; at most some times."""
        bad = self.state
        if bad.rewinds >= REWINDS:
            raise FailedError(
                f"loss or gradient was not finite {STRIKES} times in a row, after going back "
                f"{REWINDS} times: lower optimizer.lr, or give train.dtype = float32"
            )
        folder = checkpoint.newest(self.run, lambda text: self._event("checkpoint", text))
        self.state = restore(self.updater, folder)
        self.state.rewinds = bad.rewinds + 1
        self.state.shift = bad.shift + (bad.step - self.state.step) * self.config.train.batch
        self.best = self._best_so_far()
        self.saver.forget(self.best.step if self.best else None)
        step = self.state.step
        self.log.begin_attempt()
        self.log.write(self.start(step))
        self._event("rewind", f"back from step {bad.step} to {step}, on other data", bad.step)

    def _event(self, kind: str, message: str, from_step: int | None = None) -> None:
        data = {} if from_step is None else {"from_step": from_step}
        self.log.write(Event(step=self.state.step, kind=kind, message=message, data=data))
        self.progress.say(f"step {self.state.step:,}: {message}")

    def _log_window(self) -> None:
        window, ledger, step = self.state.window, self.updater.ledger, self.state.step
        smoothed = self.config.train.label_smoothing > 0
        self.log.write(
            Train(
                step=step,
                steps=window.steps,
                tokens=ledger.tokens(step),
                passes=ledger.passes(step),
                loss=window.nats / window.tokens if window.tokens else None,
                objective=window.objective / window.tokens if smoothed and window.tokens else None,
                lr=self.last_lr,
                grad_norm=window.grad_norm / window.steps if window.steps else None,
                seconds=window.seconds,
                tokens_per_s=window.tokens / window.seconds,
            )
        )
        self.state.window = Window()

    def _measure_if_due(self) -> bool:
        """Evaluate and sample where the cadence asks for it and no session did so yet; whether
        this is the best val loss of everything logged."""
        step, ends = self.state.step, self.state.step == self.steps
        evaluates = ends or step % self.config.eval.every == 0
        every = self.config.sample.every or self.config.eval.every  # 0: a run of an older version
        samples = step > 0 and (ends or step % every == 0)
        if self.state.measured or not (evaluates or samples):
            return False
        improved = evaluates and self._evaluate()
        if samples:
            self._sample()
        self.state.measured = True
        return improved

    def _ended_early(self) -> bool:
        """Whether harm is proven at an evaluation of this very step, and is to end the run."""
        if not self.config.train.early_stop or not self.state.measured:
            return False
        evals = [row for row in current(read_log(self.run.log).rows) if isinstance(row, Eval)]
        known = {
            row.step: row.val_loss
            for row in evals
            if row.step <= self.state.step and row.val_loss is not None
        }
        reason = self.stop_reason(list(known), list(known.values()))
        if reason:
            self._event("early_stop", f"ended early: {reason}")
        return bool(reason)

    def _evaluate(self) -> bool:
        """Score both fixed sets; whether this is the best val loss of everything logged."""
        begin = time.monotonic()
        step, ledger = self.state.step, self.updater.ledger
        val, probe = (self._score(blocks) for blocks in self._sets())
        seconds = time.monotonic() - begin
        self._keep_block_losses(val, probe)
        row = Eval(
            step=step,
            tokens=ledger.tokens(step),
            passes=ledger.passes(step),
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
        self.clock.eval += seconds
        self.clock.evals += 1
        best = self.best.val_loss if self.best else None
        improved = step > 0 and math.isfinite(val.loss) and (best is None or val.loss < best)
        if improved:
            self.best, self.saver.best_step = row, step
        error = f" ± {val.se:.4f}" if math.isfinite(val.se) else " (one block: no standard error)"
        self.progress.say(
            f"step {step:,}: val {val.loss:.4f}{error}, "
            f"train probe {probe.loss:.4f}, {val.bpb:.3f} bits per byte"
            + (" (best so far)" if improved else "")
        )
        return improved

    def _sets(self) -> tuple[FixedBlocks, FixedBlocks]:
        """Held-out and training blocks; a few where weights are as drawn: the first step waits."""
        if self.state.step == 0 and 0 not in self.run.checkpoint_steps():
            return self._blocks(min(DRAWN_TOKENS, self.config.eval.tokens))
        return self.val, self.probe

    def _score(self, blocks: FixedBlocks) -> Score:
        model, device = self.updater.model, self.updater.device
        return score(model, blocks, self.byte_lengths, device, self.stop)

    def _keep_block_losses(self, val: Score, probe: Score) -> None:
        path = self.run.eval_path(self.state.step, self.log.attempt)
        losses = {
            "val": val.block_losses.astype(np.float32),
            "probe": probe.block_losses.astype(np.float32),
        }
        try:
            with open(path, "wb", opener=not_linked) as file:
                file.write(safetensors.numpy.save(losses))
                file.flush()
                os.fsync(file.fileno())
            fsync_path(path.parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            self._event("disk", f"block losses not kept: {error}")

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
            self.log.write(
                Sample(
                    step=self.state.step,
                    prompt=prompt,
                    text=self._continued(prompt, sampling),
                    tokens=sample.tokens,
                    seed=sampling.seed,
                )
            )
        self.clock.eval += time.monotonic() - begin

    def _continued(self, prompt: str, sampling: Sampling) -> str:
        model, parts = self.updater.model, []
        with in_float32(model) if self.updater.device.type == "cpu" else contextlib.nullcontext():
            for part in continue_text(model, self.prepared.tokenizer, prompt, sampling, _silent):
                parts.append(part)
                if self.stop:
                    raise StoppedError
        return "".join(parts)

    def _save_if_due(self, improved: bool, last: bool) -> None:
        if improved:
            self.saver.hold(self._snapshot())
        if last or self.saver.is_due(self.state.step, improved):
            self._save("last" if last else "interval", must=last)
        if self.stop.hung_up:
            self.stop.hung_up = False
            self.progress.let_go()
            self._event("signal", "the terminal has closed: saving, training goes on")
            self._save("signal")

    def _save(self, reason: str, must: bool = False) -> None:
        self.saver.save(self._snapshot(), reason, must)

    def _snapshot(self) -> Snapshot:
        return Snapshot(
            self.state, self.updater.model.state_dict(), self.updater.optimizers.state()
        )

    def _evaluate_whole(self) -> None:
        """The figure to quote: the best checkpoint on the whole val split."""
        if self.best is None or self.best.step not in self.run.checkpoint_steps():
            return
        begin = time.monotonic()
        folder = self.run.checkpoint_path(self.best.step)
        try:
            checkpoint.verify(folder)
        except checkpoint.DamagedError as error:
            self._event("checkpoint", f"the best checkpoint is damaged: {error}")
            return
        if self.best.step != self.state.step:
            weights = checkpoint.read_tensors(folder, checkpoint.MODEL)
            checkpoint.load_into(self.updater.model, weights, folder)
        tokens = full_tokens(self.updater.ledger.tokens(self.steps))
        blocks = fixed_blocks(self.prepared.val, self.config.model.context, tokens)
        n_tokens = len(blocks) * self.config.model.context
        self.progress.say(
            f"last      evaluating step {self.best.step:,} on {n_tokens:,} val tokens"
        )
        whole = self._score(blocks)
        self.log.write(
            Full(
                step=self.best.step,
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
        self.clock.eval += time.monotonic() - begin

    def _end(self, reason: str) -> None:
        if reason == "interrupted":
            name = signal.Signals(self.stop.number).name
            self._event("signal", f"stopped by {name}")
        self.saver.save_held()  # where the run failed
        self.log.write(
            End(
                step=self.state.step,
                reason=reason,
                seconds=time.monotonic() - self.clock.begin,
                train_seconds=self.clock.train,
                eval_seconds=self.clock.eval,
                save_seconds=self.saver.seconds,
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
        saving = left * self.saver.seconds / max(1, clock.steps)
        return left * per_step + evaluation + saving


def _silent(message: str) -> None:
    """A sample that outgrows the window is no news during training."""
