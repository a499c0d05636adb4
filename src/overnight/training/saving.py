"""States to disk and back: when one is due, the best one held until then, a disk that refuses."""

from __future__ import annotations

import copy
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from .. import config
from ..errors import UserError
from ..model import checkpoint
from ..model.checkpoint import State
from ..runfolder import Checkpoint, EventKind, LogWriter, RunFolder
from .update import Updater

SAVE_SECONDS, SAVE_SHARE = 30.0, 0.01  # between saves, of which each may cost 1 % of that time
PATIENCE = 4 / 3  # of that time, for a state that is the best so far
SAVE_TRIES, SAVE_PAUSE = 5, 2.0  # for the last state of a session; seconds between


class FailedError(Exception):
    """The run cannot go on; what it has is safe."""


@dataclass
class Snapshot:
    """What a checkpoint is made of."""

    state: State
    weights: dict[str, Tensor]
    slots: dict[str, Tensor]  # of the optimizers

    def copy(self) -> Snapshot:
        """What training does not change any more, in main memory."""
        weights, slots = (
            {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
            for tensors in (self.weights, self.slots)
        )
        return Snapshot(copy.deepcopy(self.state), weights, slots)

    @property
    def bytes(self) -> int:
        tensors = [*self.weights.values(), *self.slots.values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def is_finite(self) -> bool:
        return all(_is_finite(tensor) for tensor in self.weights.values())


def _is_finite(tensor: Tensor) -> bool:
    """A finite sum has finite parts, and takes a tenth of the time of a look at each; the sum of
    large ones may not be finite."""
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def restore(updater: Updater, folder: Path | None, whole: bool = True) -> State:
    """Bring `updater` to the state saved in `folder`; None is the beginning. Without `whole` only
    what fits is taken: other weights stay random, the optimizer starts anew."""
    updater.reset()
    if folder is None:
        return State()
    weights = checkpoint.read_tensors(folder, checkpoint.MODEL)
    if whole:
        checkpoint.load_into(updater.model, weights, folder)
        try:
            updater.optimizers.load(checkpoint.read_tensors(folder, checkpoint.OPTIMIZER))
        except (KeyError, ValueError) as error:
            raise UserError(f"{folder}: not the optimizer state of this run: {error}.", 1) from None
    else:
        checkpoint.load_what_fits(updater.model, weights)
    return checkpoint.read_state(folder)


class Saver:
    """The saves of one session. What goes wrong is told by `event(kind, message)`."""

    def __init__(
        self,
        run: RunFolder,
        log: LogWriter,
        settings: config.Save,
        event: Callable[[EventKind, str], None],
    ) -> None:
        self.run, self.log, self.settings, self.event = run, log, settings, event
        self.best_step: int | None = None  # its checkpoint is never pruned
        self.seconds = 0.0  # spent here
        self._held: Snapshot | None = None  # the best state, until the next save
        self._saved_at, self._cost = time.monotonic(), 0.0  # of the last save, and holding since

    def hold(self, best: Snapshot) -> None:
        """Evaluations are many, and each may be the best: its state is held, and written with the
        next save."""
        with self._timed():
            self._held = best.copy() if best.is_finite() else None

    def forget(self, best_step: int | None) -> None:
        """The run went back: what was held is no part of it any more."""
        self._held, self.best_step = None, best_step

    def is_due(self, step: int, best: bool) -> bool:
        """By default a save waits a little for a state that is the best so far: the best and the
        newest state are then one checkpoint."""
        if self.settings.every:
            return step % self.settings.every == 0
        waited = time.monotonic() - self._saved_at
        return waited >= max(SAVE_SECONDS, self._cost / SAVE_SHARE) * (1 if best else PATIENCE)

    def save(self, snapshot: Snapshot, reason: str, must: bool) -> None:
        """Save, or log why not. The run must not end without its last state: that is tried again
        for a while."""
        step = snapshot.state.step
        if not snapshot.is_finite():
            self.event("checkpoint", "not saved: the weights are not finite")
            if must:
                raise FailedError(
                    f"the weights of step {step} are not finite: --resume goes on from the last "
                    "good checkpoint; lower optimizer.lr"
                )
            return
        for attempt in range(SAVE_TRIES if must else 1):
            if attempt:
                time.sleep(SAVE_PAUSE)
            if self._try_to_save(snapshot, reason):
                return
        if must:
            raise FailedError(
                f"the state of step {step} could not be saved: make room, then --resume"
            )

    def save_held(self) -> bool:
        if self._held and not self._write(self._held, "best"):
            return False
        self._held = None
        return True

    def prune(self) -> None:
        try:
            checkpoint.prune(self.run, self.best_step, self.settings.keep)
        except OSError as error:
            self.event("disk", f"an old checkpoint could not be removed: {error}")

    def _try_to_save(self, snapshot: Snapshot, reason: str) -> bool:
        """The best state first: where a checkpoint stands, the best before it does, and what a
        kill takes is trained again."""
        same = self._held is not None and self._held.state.step == snapshot.state.step
        self._cost = 0.0
        with self._timed():
            saved = self.save_held() and (same or self._write(snapshot, reason))
        self._saved_at = time.monotonic()
        return saved

    def _write(self, snapshot: Snapshot, reason: str) -> bool:
        """Log first, checkpoint second, so that no checkpoint stands after rows that a power cut
        took; then prune."""
        step = snapshot.state.step
        try:
            free = shutil.disk_usage(self.run.path).free
            if free < snapshot.bytes:
                raise OSError(f"{snapshot.bytes:,} bytes needed, {free:,} free")
            self.log.sync()
            size, seconds = checkpoint.save(
                self.run, snapshot.state, snapshot.weights, snapshot.slots
            )
        except OSError as error:
            self.event("disk", f"checkpoint not saved: {error}")
            return False
        if size:
            path = self.run.checkpoint_path(step).relative_to(self.run.path)
            self.log.write(
                Checkpoint(step=step, path=str(path), bytes=size, seconds=seconds, reason=reason)
            )
        self.prune()
        return True

    @contextmanager
    def _timed(self) -> Iterator[None]:
        begin = time.monotonic()
        yield
        spent = time.monotonic() - begin
        self.seconds += spent
        self._cost += spent
