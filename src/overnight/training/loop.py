"""The loop: update, log row, evaluation, samples, checkpoint, stop; in this order at every step.

So a checkpoint of step k stands after everything else that belongs to step k, and a session that
resumes from it does what an uninterrupted one would do next.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from ..config import Config
from ..errors import UserError
from ..model import checkpoint
from ..model.checkpoint import State, Window
from ..runfolder import (
    STRIKES,
    End,
    Eval,
    Event,
    EventKind,
    LogWriter,
    RunFolder,
    Start,
    Train,
    begins_with_weights,
    current,
    lowest_evaluation,
    read_log,
)
from ..text.prepare import Prepared
from ..wording import duration
from . import memory
from .evaluate import StoppedError
from .guard import REMEMBERED, REWINDS, SPIKE_Z
from .measuring import Measuring, described
from .progress import Progress
from .saving import FailedError, Saver, Snapshot, restore
from .stop import StopSignal
from .update import Update, Updater

# Val losses by step → why to stop early, or ""
StopReason = Callable[[list[int], list[float]], str]


class Clock(msgspec.Struct):
    """Monotonic seconds of this session, of which those of updates, and how many these were."""

    begin: float
    train: float = 0.0
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
    stop_reason: StopReason  # asked only if `train.early_stop` is set

    def __post_init__(self) -> None:
        self.best = self._best_so_far()
        self.pretrained = begins_with_weights(read_log(self.run.log).rows)
        self.last_loss = math.nan
        self.clock = Clock(time.monotonic())
        self.measuring = Measuring(
            self.run, self.log, self.config, self.updater, self.prepared, self._event,
            self.progress, self.pretrained,
        )  # fmt: skip
        self.saver = Saver(self.run, self.log, self.config.save, self._event)
        self.saver.best_step = self.best.step if self.best else None

    @property
    def steps(self) -> int:
        return self.config.length.steps

    def _best_so_far(self) -> Eval | None:
        """Of the rows that count, now that this attempt's start row is written: what a killed
        session logged beyond it is measured again, and saved if it is the best."""
        return lowest_evaluation(read_log(self.run.log).rows)

    def train(self, stop: StopSignal) -> str:
        """Run to the end or to a stop: `finished`, `interrupted` or `failed`."""
        self.stop = stop
        try:
            self._train()
            kept = self.run.checkpoint_steps()
            if best := lowest_evaluation(read_log(self.run.log).rows, among=kept):
                self.measuring.evaluate_whole(best.step, self.state.step, self.stop)
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
        self._remember(update.loss)
        window = state.window
        window.steps += 1
        window.tokens += update.tokens
        window.nats += update.nats
        window.objective += update.objective
        window.grad_norm += update.grad_norm
        self.last_loss = window.nats / window.tokens
        return True

    def _remember(self, loss: float) -> None:
        self.state.recent = [*self.state.recent[1 - REMEMBERED :], loss]

    def _strike(self, update: Update) -> None:
        """An update was judged unfit: log it; after some in a row that are not finite, go back."""
        message = f"update skipped: loss {update.loss:.4g}, gradient norm {update.grad_norm:.4g}"
        self._event("spike" if update.skipped == "spike" else "non_finite", message)
        if update.skipped == "spike":  # the level may have moved: then spikes are the new one
            self._remember(update.loss)
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
                f"{REWINDS} times: lower optimizer.lr"
            )
        folder = checkpoint.newest(self.run, lambda text: self._event("checkpoint", text))
        self.state = restore(self.updater, folder)
        self.state.rewinds = bad.rewinds + 1
        self.state.shift = bad.shift + (bad.step - self.state.step) * self.config.train.batch
        step = self.state.step
        self.log.begin_attempt()
        self.log.write(self.start(step))
        self.best = self._best_so_far()
        self.saver.forget(self.best.step if self.best else None)
        self._event("rewind", f"back from step {bad.step} to {step}, on other data", bad.step)

    def _event(self, kind: EventKind, message: str, from_step: int | None = None) -> None:
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
            self.measuring.sample(step, self.stop)
        self.state.measured = True
        return improved

    def _ended_early(self) -> bool:
        """Whether harm is proven at an evaluation of this very step, and is to end the run, which
        would go on."""
        goes_on = self.state.step < self.steps
        if not (self.config.train.early_stop and self.state.measured and goes_on):
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
        row = self.measuring.evaluate(self.state.step, self.stop)
        counts = row.step > 0 or self.pretrained
        improved = counts and _is_less(row.val_loss, self.best.val_loss if self.best else None)
        if improved:
            self.best, self.saver.best_step = row, row.step
        self.progress.say(described(row) + (" (best so far)" if improved else ""))
        return improved

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
                eval_seconds=self.measuring.seconds,
                save_seconds=self.saver.seconds,
            )
        )

    def _show(self) -> None:
        step, clock = self.state.step, self.clock
        per_step = clock.train / clock.steps
        speed = self.updater.ledger.tokens_per_step / per_step
        val = f"{self.best.val_loss:.3f}" if self.best and self.best.val_loss is not None else "–"
        self.progress.show(
            f"step {step:,}/{self.steps:,}  ETA {duration(round(self._remaining(per_step)))}  "
            f"loss {self.last_loss:.3f}  best val {val}  {speed:,.0f} tok/s  "
            f"passes {self.updater.ledger.passes(step):.2f}  lr {self.last_lr:.2e}"
        )

    def _remaining(self, per_step: float) -> float:
        """Seconds to the end: updates, evaluations (the last of them on more text) and saves, at
        what they cost so far."""
        measuring, left = self.measuring, self.steps - self.state.step
        evals_left = math.ceil(left / self.config.eval.every)
        evaluation = evals_left * measuring.seconds / max(1, measuring.evaluations)
        saving = left * self.saver.seconds / max(1, self.clock.steps)
        return left * per_step + evaluation + saving + measuring.seconds_whole()


def _is_less(loss: float | None, best: float | None) -> bool:
    return loss is not None and math.isfinite(loss) and (best is None or loss < best)
