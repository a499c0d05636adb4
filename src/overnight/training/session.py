"""A session from its first line to its last: begin a run or take one up again, train, say how it
went."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch

from .. import __version__
from ..config import AUTO, Config
from ..errors import Say, UserError
from ..files import appearing, replace
from ..ledger import Ledger
from ..model import checkpoint
from ..model.checkpoint import State
from ..model.decoder import count_parameters
from ..runfolder import (
    INCOMPARABLE,
    INITIAL,
    AnyRow,
    Checkpoint,
    End,
    Event,
    LogRead,
    LogWriter,
    RunFolder,
    RunLock,
    Start,
    read_log,
)
from ..settings import Settings, dump_config, load_config
from ..text.prepare import Prepared, prepare
from ..text.tokenizers import Tokenizer
from . import memory
from .awake import awake
from .changes import (
    absolute,
    another,
    edited,
    incomparable,
    inexact,
    refuse_unaccepted,
    refuse_unsettled,
    told,
    with_changes,
)
from .initial import Initial, refuse_other_model
from .loop import Trainer
from .machine import check_device, check_threads, emulated, environment, settle
from .plan import Plan, make_plan
from .progress import Progress
from .saving import restore
from .stop import StopSignal
from .summary import Summary, summarise
from .update import Updater

MAX_PROBLEMS = 20  # of the log that are told
StopReason = Callable[[list[int], list[float]], str]  # see Trainer


def plan_run(settings: Settings, say: Say, initial: Initial | None = None) -> Plan:
    """Prepare the text and decide everything; nothing but the cache is written."""
    if initial:
        refuse_other_model(settings, initial)
    if (device := settings.get("train.device")) != "auto":  # before the text takes its time
        check_device(device)
    resolved = settings.resolve()
    fixed = initial.tokenizer if initial else None
    prepared = prepare(
        resolved.data, resolved.tokenizer, fixed=fixed, choose=settings.choose, say=say
    )
    for name in ("data.text", "data.val"):
        if paths := settings.get(name):
            settings.choose(name, absolute(paths), settings.reasons[name])
    plan = make_plan(settings, prepared, say)
    if initial:
        checkpoint.load_into(plan.updater.model, initial.weights, Path(initial.source))
        plan.reasons["model.layers"] = f"weights of {initial.source}"
        plan.initial = initial.source
    return plan


def default_folder(preset: str) -> Path:
    return Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{preset}"


def refuse_existing(path: Path) -> None:
    try:
        str(path).encode()
        there = os.path.lexists(path)  # a link that leads nowhere, too
    except (UnicodeError, ValueError):
        raise UserError(f"--out {str(path)!r}: not a name for a folder.") from None
    if there:
        known = (path / "log.jsonl").is_file()
        hint = f"go on with --resume {path}, or give" if known else "give"
        raise UserError(f"{path} exists already: {hint} another --out.")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise UserError(f"{path}: {above} is no folder that can be written: give another --out.")


def begin(plan: Plan, path: Path, progress: Progress, stop_reason: StopReason) -> Summary:
    """Make the run folder, which appears whole, and train in it."""
    refuse_existing(path)
    with appearing(path, "--out") as place:
        run = RunFolder(place)
        lock = RunLock(run.lock)
        run.evals.mkdir()
        run.config.write_text(dump_config(plan.config, plan.reasons), encoding="utf-8")
        plan.prepared.tokenizer.save(run.tokenizer)
        shutil.copyfile(plan.prepared.yardsticks, run.yardsticks)
        log = LogWriter(run.log, attempt=1)
        start = _start_rows(plan.config, plan.reasons, plan.prepared, plan.updater)
        log.write(start(0))
        if plan.initial:
            _keep_initial(run, log, plan)
        log.sync()  # which fails where a full disk has refused rows
    with lock:
        return _train(
            Trainer(
                run=RunFolder(path),
                log=log,
                config=plan.config,
                updater=plan.updater,
                prepared=plan.prepared,
                state=State(),
                progress=progress,
                start=start,
                stop_reason=stop_reason,
            )
        )


def _keep_initial(run: RunFolder, log: LogWriter, plan: Plan) -> None:
    """Save weights that were not drawn at step 0: a resume before the first checkpoint, and a
    return, must find them; and none may be better."""
    message = f"begins with the weights of {plan.initial}"
    log.write(Event(step=0, kind=INITIAL, message=message))
    model, optimizers = plan.updater.model, plan.updater.optimizers
    size, seconds = checkpoint.save(run, State(), model.state_dict(), optimizers.state())
    path = str(run.checkpoint_path(0).relative_to(run.path))
    log.write(Checkpoint(step=0, path=path, bytes=size, seconds=seconds, reason=INITIAL))


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
    starts = read.of(Start)
    before, edits = edited(load_config(run.config), read.rows)
    settings, changed = with_changes(before, edits | changes, accept)
    if settings.length.steps <= before.length.steps and (done := _done(read, settings)):
        progress.say(f"{run.path} {done}.")
        return summarise(run, "finished", time.monotonic() - begun)
    refuse_unsettled(run, settings)
    warnings = [slow] if (slow := emulated(settings.train.device, settings.train.dtype)) else []
    fingerprint = str(starts[-1].data.get("fingerprint", "")) if starts else ""
    prepared = prepare(
        settings.data,
        settings.tokenizer,
        fixed=Tokenizer.load(run.tokenizer),
        fingerprint=fingerprint,
        say=progress.say,
    )
    if not fingerprint:
        warnings.append("the log does not say which text this run began with: not compared")
    elif fingerprint != prepared.facts["fingerprint"]:
        refuse_unaccepted("the text is not the one of this run", "trajectory", accept)
        changed["data"] = "other text"
    checkpoint.sweep(run)
    folder = checkpoint.newest(run, warnings.append)
    try:
        updater = _updater(settings, prepared)
        state, lost = _restored(updater, folder, accept)
    except (RuntimeError, MemoryError) as error:
        raise memory.refusal(error, settings, torch.device(settings.train.device)) from None
    settings = updater.config
    if lost or another(changed):  # recent losses and the open window are not of this model
        state = State(step=state.step, shift=state.shift, rewinds=state.rewinds)
    if folder is None and read.of(Checkpoint):
        warnings.append("no checkpoint is left: the run begins again")
    if settings.length.steps < state.step:
        raise UserError(
            f"length.steps = {settings.length.steps:,}: the run is at step {state.step:,} already."
        )
    if counted := _counted(read.rows, state.step):
        updater.ledger = updater.ledger.after(counted, state.step)
        state.shift = _shifted(state, counted, updater.ledger)
    log = LogWriter(run.log, attempt=read.attempts + 1)
    reasons = (starts[-1].reasons if starts else {}) | changed
    start = _start_rows(settings, reasons, prepared, updater)
    log.write(start(state.step))
    if "data" in changed:
        replace(run.yardsticks, prepared.yardsticks.read_bytes(), durable=True)
    if changed:
        replace(run.config, dump_config(settings, reasons).encode(), durable=True)
    now = environment(updater.device, settings.train.threads)
    warnings += [*lost, *told(changed), *(inexact(starts[0], now, state.step) if starts else [])]
    events = {
        INCOMPARABLE: incomparable(changed),
        "torn_log": ["the last row was torn by a kill; it is sealed"] if log.sealed else [],
        "log": [f"log.jsonl, {problem}" for problem in read.problems[:MAX_PROBLEMS]],
        "warning": warnings,
        "resume": [f"resumed at step {state.step:,} of {settings.length.steps:,}"],
    }
    _tell(events, state.step, log, progress)
    return _train(
        Trainer(
            run=run,
            log=log,
            config=settings,
            updater=updater,
            prepared=prepared,
            state=state,
            progress=progress,
            start=start,
            stop_reason=stop_reason,
        )
    )


def _tell(events: dict[str, list[str]], step: int, log: LogWriter, progress: Progress) -> None:
    """Messages by the kind of their event, to the log and to the user."""
    for kind, messages in events.items():
        for message in messages:
            log.write(Event(step=step, kind=kind, message=message))
            progress.say(message)


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


def _restored(updater: Updater, folder: Path | None, accept: str) -> tuple[State, list[str]]:
    """The state in `folder`; of one that does not fit what does, if `accept` covers that, and what
    was lost."""
    try:
        return restore(updater, folder), []
    except UserError as error:
        if accept != "incompatible":
            raise UserError(
                f"{error} If settings of the model have changed since: give them back, or take "
                "what fits with --accept incompatible.",
                error.code,
            ) from None
    state = restore(updater, folder, whole=False)
    return state, ["only the weights that fit were taken; the optimizer begins anew"]


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


def _start_rows(
    settings: Config, reasons: dict[str, str], prepared: Prepared, updater: Updater
) -> Callable[[int], Start]:
    """A maker of start rows, for a session and for each return within it."""

    def start(step: int) -> Start:
        return Start(
            step=step,
            from_step=step,
            version=__version__,
            config=msgspec.to_builtins(settings),
            reasons=reasons,
            environment=environment(updater.device, settings.train.threads),
            data=prepared.facts,
            parameters=count_parameters(settings.model),
            ledger=msgspec.to_builtins(updater.ledger),
        )

    return start


def _train(trainer: Trainer) -> Summary:
    begun = time.monotonic()
    run, log, progress = trainer.run, trainer.log, trainer.progress
    with StopSignal() as stop, awake(progress.say), progress:
        reason = trainer.train(stop)
    try:
        log.close()
    except OSError as error:
        raise UserError(f"{run.log}: the last rows are not kept: {error}; --resume.", 1) from None
    summary = summarise(run, reason, time.monotonic() - begun)
    if reason == "interrupted":
        progress.say(f"stopped at step {trainer.state.step:,}; go on with --resume {run.path}")
        summary.exit_code = 128 + stop.number
    elif reason == "failed":
        summary.exit_code = 1
    return summary
