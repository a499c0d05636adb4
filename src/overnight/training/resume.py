"""A run taken up again from its newest good checkpoint, exactly; what is not as before is told."""

from __future__ import annotations

import time
from os.path import exists
from pathlib import Path
from typing import Any

import msgspec
import torch

from ..config import AUTO, Config
from ..errors import Say, UserError
from ..files import replace
from ..ledger import Ledger
from ..model import checkpoint
from ..model.checkpoint import State
from ..runfolder import (
    INCOMPARABLE,
    AnyRow,
    Checkpoint,
    End,
    Event,
    EventKind,
    LogRead,
    LogWriter,
    RunFolder,
    Start,
    read_log,
)
from ..runlock import RunLock
from ..settings import dump_config, load_config
from ..text.prepare import Prepared, kept, prepare
from ..text.tokenizers import Tokenizer
from . import memory
from .changes import (
    another,
    edited,
    incomparable,
    inexact,
    refuse_unaccepted,
    refuse_unsettled,
    told,
    with_changes,
)
from .loop import StopReason, Trainer
from .machine import check_device, check_threads, emulated
from .progress import Progress
from .saving import restore
from .session import start_rows, train
from .settle import settle
from .summary import Summary, summarise
from .update import Updater

MAX_PROBLEMS = 20  # of the log that are told


def resume(
    path: Path,
    progress: Progress,
    stop_reason: StopReason,
    changes: dict[str, Any] | None = None,
    accept: str = "harmless",
) -> Summary:
    """Take a run up from its newest good checkpoint, exactly.

    `changes` are settings given anew. Harmless ones are taken; others need `accept` to name their
    effect (`config.Effect`), and leave an event.
    """
    run = RunFolder.open(path)
    with RunLock(run.lock):
        return _resume(run, progress, stop_reason, changes or {}, accept)


def _resume(
    run: RunFolder,
    progress: Progress,
    stop_reason: StopReason,
    changes: dict[str, Any],
    accept: str,
) -> Summary:
    begun = time.monotonic()
    read = read_log(run.log)
    before, edits = edited(load_config(run.config), read.rows)
    settings, changed = with_changes(before, edits | changes, accept)
    if settings.length.steps <= before.length.steps and (done := _done(read, settings)):
        progress.say(f"{run.path} {done}.")
        return summarise(run, "finished", time.monotonic() - begun)
    refuse_unsettled(run, settings)
    warnings = [slow] if (slow := emulated(settings.train.device, settings.train.dtype)) else []
    # other settings of the text are other tokens
    same = not any(name.startswith("data.") for name in changed)
    prepared, other_text = _text(run, settings, read, accept, same, progress.say, warnings.append)
    changed |= other_text
    try:
        updater = _updater(settings, prepared)
        state = _state(updater, run, read.rows, accept, bool(another(changed)), warnings.append)
    except (RuntimeError, MemoryError) as error:
        raise memory.refusal(error, settings, torch.device(settings.train.device)) from None
    log = LogWriter(run.log, attempt=read.attempts + 1)
    first, last = _first_and_last(read)
    start = start_rows(updater, prepared, (last.reasons if last else {}) | changed)
    row = start(state.step)
    log.write(row)
    if other_text:
        replace(run.yardsticks, prepared.yardsticks.read_bytes(), durable=True)
    if changed:
        replace(run.config, dump_config(updater.config, row.reasons).encode(), durable=True)
    warnings += told(before, updater.config, changed)
    warnings += inexact(first, row.environment, state.step) if first else []
    events: dict[EventKind, list[str]] = {
        INCOMPARABLE: incomparable(changed),
        "torn_log": ["the last row was torn by a kill; it is sealed"] if log.sealed else [],
        "log": [f"log.jsonl, {problem}" for problem in read.problems[:MAX_PROBLEMS]],
        "warning": warnings,
        "resume": [f"resumed at step {state.step:,} of {updater.config.length.steps:,}"],
    }
    _tell(events, state.step, log, progress)
    return train(
        Trainer(
            run=run,
            log=log,
            config=updater.config,
            updater=updater,
            prepared=prepared,
            state=state,
            progress=progress,
            start=start,
            stop_reason=stop_reason,
        )
    )


def _first_and_last(read: LogRead) -> tuple[Start | None, Start | None]:
    """The start rows of the first and of the last session; a damaged log may have lost them."""
    starts = read.of(Start)
    return (starts[0], starts[-1]) if starts else (None, None)


def _text(
    run: RunFolder, settings: Config, read: LogRead, accept: str, same: bool, say: Say, warn: Say
) -> tuple[Prepared, dict[str, str]]:
    """The text as tokens, and the change that it is, where it is not the one of this run. `same`:
    it is asked for as before, so that its tokens will do where it is gone."""
    _, last = _first_and_last(read)
    fingerprint = str(last.data.get("fingerprint", "")) if last else ""
    gone = [p for p in (*settings.data.text, *settings.data.val) if p != "-" and not exists(p)]
    if gone and same and (prepared := kept(fingerprint, settings.data, say)):
        say(f"{gone[0]}: not there any more; its tokens are in the cache, and the run goes on")
        return prepared, {}
    prepared = prepare(
        settings.data,
        settings.tokenizer,
        fixed=Tokenizer.load(run.tokenizer),
        fingerprint=fingerprint,
        say=say,
    )
    if not fingerprint:
        warn("the log does not say which text this run began with: not compared")
    elif fingerprint != prepared.facts["fingerprint"]:
        refuse_unaccepted("the text is not the one of this run", "trajectory", accept)
        return prepared, {"data": "other text"}
    return prepared, {}


def _done(read: LogRead, settings: Config) -> str:
    """What the last session came to, where that was the end."""
    sessions = [row for row in read.rows if isinstance(row, Start | End)]
    starts = read.of(Start)
    if not starts or not starts[-1].ledger.get("train_tokens"):  # damaged; imported, never begun
        return ""
    if getattr(sessions[-1], "reason", "") != "finished":
        return ""
    if (step := sessions[-1].step) >= settings.length.steps:
        return "is finished; nothing to do"
    if not settings.train.early_stop:
        return ""
    return f"ended early, at step {step:,}; to go on all the same: --train.early_stop false"


def _updater(settings: Config, prepared: Prepared) -> Updater:
    """On this machine, which may be another one than the run began on: what it lacks is refused,
    and a micro-batch that is given as `auto` is found; `config` of the updater has it."""
    check_device(settings.train.device)
    check_threads(settings.train.threads)
    device = settle(settings.train.device, settings.train.threads)
    memory.check(settings, device)
    if settings.train.micro_batch == AUTO:
        micro = memory.largest(settings, prepared.train, device)
        settings = memory.with_micro_batch(settings, micro)
    memory.check_micro_batch(settings.train.batch, settings.train.micro_batch)
    return Updater(settings, prepared.train, device)


def _state(
    updater: Updater, run: RunFolder, rows: list[AnyRow], accept: str, another: bool, warn: Say
) -> State:
    """Bring `updater` to the newest good checkpoint. `another`: the model or the text is not that
    of the losses before."""
    checkpoint.sweep(run)
    folder = checkpoint.newest(run, warn)
    if folder is None and any(isinstance(row, Checkpoint) for row in rows):
        warn("no checkpoint is left: the run begins again")
    state, lost = _restored(updater, folder, accept)
    if lost:
        warn(lost)
    if lost or another:  # recent losses and the open window are not of this model
        state = State(step=state.step, shift=state.shift, rewinds=state.rewinds)
    if (steps := updater.config.length.steps) < state.step:
        raise UserError(f"length.steps = {steps:,}: the run is at step {state.step:,} already.")
    if counted := _counted(rows, state.step):
        updater.ledger = updater.ledger.after(counted, state.step)
        state.shift = _shifted(state, counted, updater.ledger)
    return state


def _restored(updater: Updater, folder: Path | None, accept: str) -> tuple[State, str]:
    """The state in `folder`; of one that does not fit what does, if `accept` covers that, and what
    was lost."""
    try:
        return restore(updater, folder), ""
    except UserError as error:
        if accept != "incompatible":
            raise UserError(
                f"{error} If settings of the model have changed since: give them back, or take "
                "what fits with --accept incompatible.",
                error.code,
            ) from None
    state = restore(updater, folder, whole=False)
    return state, "only the weights that fit were taken; the optimizer begins anew"


def _counted(rows: list[AnyRow], step: int) -> Ledger | None:
    """The arithmetic of the session that saved the checkpoint of `step`; where a power cut has
    taken the row of that, of the last session that may have."""
    ledger = saved = begun = None
    for row in rows:
        if isinstance(row, Start):
            ledger = row.ledger
            begun = ledger if row.from_step <= step else begun
        elif isinstance(row, Checkpoint) and row.step == step:
            saved = ledger
    saved = saved or begun
    return msgspec.convert(saved, Ledger) if saved and saved.get("train_tokens") else None


def _shifted(state: State, before: Ledger, now: Ledger) -> int:
    """`shift` for the batches of `now`, so that they go on where those of `before` ended."""
    if (before.batch, before.context) == (now.batch, now.context):
        return state.shift
    seen = (state.step * before.batch + state.shift) * before.context // now.context
    return seen - state.step * now.batch


def _tell(
    events: dict[EventKind, list[str]], step: int, log: LogWriter, progress: Progress
) -> None:
    """Messages by the kind of their event, to the log and to the user."""
    for kind, messages in events.items():
        for message in messages:
            log.write(Event(step=step, kind=kind, message=message))
            progress.say(message)
