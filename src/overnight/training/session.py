"""A session from its first line to its last: begin a run or take one up again, train, say how it
went."""

from __future__ import annotations

import glob
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import psutil

from .. import __version__, config
from ..config import Config, Settings
from ..errors import UserError
from ..files import fsync_path, make_folder, replace
from ..generation.initial import Initial, refuse_other_model
from ..ledger import Ledger
from ..model import checkpoint
from ..model.checkpoint import State
from ..model.decoder import count_parameters
from ..runfolder import (
    INCOMPARABLE,
    INITIAL,
    Checkpoint,
    End,
    Eval,
    Event,
    Full,
    LogWriter,
    RunFolder,
    RunLock,
    Start,
    best_evaluation,
    current,
    read_log,
)
from ..text.prepare import Prepared, prepare
from ..text.tokenizers import Tokenizer
from . import memory
from .awake import awake
from .loop import Trainer
from .machine import check_device, check_threads, emulated, environment, settle
from .plan import Plan, make_plan
from .progress import Progress
from .saving import restore
from .stop import StopSignal
from .update import Updater

MAX_PROBLEMS = 20  # of the log that are told
OPEN = ("auto", 0)  # leaves a choice to the program, which made these when the run began:
CHOSEN = ("train.device", "train.dtype", "train.threads", "train.compile", "train.attention",
          "train.micro_batch", "eval.every", "eval.tokens", "sample.every")  # fmt: skip

Say = Callable[[str], None]
StopReason = Callable[[list[int], list[float]], str]  # see Trainer


class Summary(msgspec.Struct):
    """What `overnight train --json` prints when done."""

    run: str
    reason: str  # finished, interrupted, failed
    steps: int
    tokens: int
    passes: float
    best: dict[str, Any] | None  # of those on disk: step, val_loss, se, bpb
    last: dict[str, Any] | None
    bpb: float | None  # the best checkpoint on the whole val split, if the run has finished
    seconds: float
    exit_code: int = 0


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
            settings.choose(name, _absolute(paths), settings.reasons[name])
    plan = make_plan(settings, prepared, say)
    if initial:
        checkpoint.load_into(plan.updater.model, initial.weights, Path(initial.source))
        plan.reasons["model.layers"] = f"weights of {initial.source}"
        plan.initial = initial.source
    return plan


def _absolute(paths: list[str]) -> list[str]:
    """A resume may be called from another folder."""
    return [p if p == "-" else str(Path(p).expanduser().resolve()) for p in paths]


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
    """Make the run folder (it appears whole, by rename) and train in it."""
    refuse_existing(path)
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    run = RunFolder(temporary)
    make_folder(path.parent)
    _sweep_beginnings(path)
    temporary.mkdir()
    try:
        lock = RunLock(run.lock)
        run.evals.mkdir()
        run.config.write_text(config.dump(plan.config, plan.reasons), encoding="utf-8")
        plan.prepared.tokenizer.save(run.tokenizer)
        shutil.copyfile(plan.prepared.yardsticks, run.yardsticks)
        log = LogWriter(run.log, attempt=1)
        start = _start_rows(plan.config, plan.reasons, plan.prepared, plan.updater)
        log.write(start(0))
        if plan.initial:
            _keep_initial(run, log, plan)
        log.sync()
        for file in (run.config, run.tokenizer, run.yardsticks, temporary):
            fsync_path(file)
        temporary.rename(path)
        fsync_path(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
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


def _sweep_beginnings(path: Path) -> None:
    """Remove what processes that were killed had begun of this very run."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        pid = left.name.split(".")[-2]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(left, ignore_errors=True)


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
    before, edits = _edited(config.load(run.config), starts)
    settings, changed = _changed(before, edits | changes, accept)
    sessions = [row for row in read.rows if isinstance(row, Start | End)]
    finished = bool(sessions) and getattr(sessions[-1], "reason", "") == "finished"
    if finished and settings.length.steps <= before.length.steps:
        progress.say(f"{run.path} is finished; nothing to do.")
        return summarise(run, "finished", time.monotonic() - begun)
    _refuse_unsettled(run, settings)
    warnings = [slow] if (slow := emulated(settings.train.device, settings.train.dtype)) else []
    fingerprint = str(starts[-1].data.get("fingerprint", "")) if starts else ""
    prepared = _prepared_again(run, settings, fingerprint, progress.say)
    if not fingerprint:
        warnings.append("the log does not say which text this run began with: not compared")
    elif fingerprint != prepared.facts["fingerprint"]:
        _accept("the text is not the one of this run", "trajectory", accept)
        changed["data"] = "other text"
    updater = _updater(settings, prepared)
    settings = updater.config
    checkpoint.sweep(run)
    folder = checkpoint.newest(run, warnings.append)
    state, lost = _restored(updater, folder, accept)
    warnings += lost
    if settings.length.steps < state.step:
        raise UserError(
            f"length.steps = {settings.length.steps:,}: the run is at step {state.step:,} already."
        )
    log = LogWriter(run.log, attempt=read.attempts + 1)
    reasons = (starts[-1].reasons if starts else {}) | changed
    start = _start_rows(settings, reasons, prepared, updater)
    log.write(start(state.step))
    if "data" in changed:
        replace(run.yardsticks, prepared.yardsticks.read_bytes(), durable=True)
    if changed:
        replace(run.config, config.dump(settings, reasons).encode(), durable=True)
        warnings.append("changed: " + ", ".join(f"{k} ({v})" for k, v in changed.items()))
    if starts:
        now = environment(updater.device, settings.train.threads)
        warnings += _inexact(starts[0], now, state.step)
    other = ", ".join(name for name in changed if _parts_evaluations(name))
    events = {
        INCOMPARABLE: [f"evaluations before this do not count: {other}"] if other else [],
        "torn_log": ["the last row was torn by a kill; it is sealed"] if log.sealed else [],
        "log": [f"log.jsonl, {problem}" for problem in read.problems[:MAX_PROBLEMS]],
        "warning": warnings,
        "resume": [f"resumed at step {state.step:,} of {settings.length.steps:,}"],
    }
    for kind, messages in events.items():
        for message in messages:
            log.write(Event(step=state.step, kind=kind, message=message))
            progress.say(message)
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


def _restored(updater: Updater, folder: Path | None, accept: str) -> tuple[State, list[str]]:
    """The state in `folder`; of one that does not fit what does, if `accept` covers that, and what
    was lost."""
    try:
        return restore(updater, folder), []
    except UserError:
        if accept != "incompatible":
            raise
    state = restore(updater, folder, whole=False)
    return state, ["only the weights that fit were taken; the optimizer begins anew"]


def _prepared_again(run: RunFolder, settings: Config, fingerprint: str, say: Say) -> Prepared:
    """The text, cut with the run's own tokenizer; from the cache if it has this `fingerprint`."""
    tokenizer = Tokenizer.load(run.tokenizer)
    return prepare(
        settings.data, settings.tokenizer, fixed=tokenizer, fingerprint=fingerprint, say=say
    )


def _updater(settings: Config, prepared: Prepared) -> Updater:
    """On this machine, which may be another one than the run began on: what it lacks is refused,
    and a micro-batch that is given as `auto` is found; `config` of the updater has it."""
    check_device(settings.train.device)
    check_threads(settings.train.threads)
    device = settle(settings.train.device, settings.train.threads)
    memory.check(settings, device)
    if settings.train.micro_batch == config.AUTO:
        micro = memory.largest(settings, prepared.train, device)
        settings = memory.with_micro_batch(settings, micro)
    memory.check_micro_batch(settings.train.batch, settings.train.micro_batch)
    return Updater(settings, prepared.train, device)


def _parts_evaluations(change: str) -> bool:
    """Whether those before compare with none behind: of another model, or on another text. (A text
    that was only moved is the same.)"""
    other_model = config.effect(change) == "incompatible" and change != "optimizer.kind"
    return other_model or change in ("data", "eval.tokens")


def _refuse_unsettled(run: RunFolder, settings: Config) -> None:
    """What was imported has never been planned. (Samples had no cadence of their own once.)"""
    flat = config.flatten(msgspec.to_builtins(settings), "")
    for name in ("length.steps", *CHOSEN):
        if flat[name] in OPEN and name != "sample.every":
            raise UserError(
                f"{run.config}: {name} = {flat[name]} was never settled, so nothing can go on "
                f"here; to train from these weights: --from {run.path}."
            )


def _edited(written: Config, starts: list[Start]) -> tuple[Config, dict[str, Any]]:
    """The settings of the last session, and what somebody has changed in config.toml since.

    A kill between a start row and the file leaves the settings of an earlier session: no edit.
    """
    try:
        sessions = [msgspec.convert(row.config, Config) for row in starts]
    except msgspec.ValidationError:  # a row that is not ours
        sessions = []
    if not sessions or written in sessions:
        return written, {}
    last, now = (config.flatten(msgspec.to_builtins(c), "") for c in (sessions[-1], written))
    return sessions[-1], {name: now[name] for name in now if now[name] != last[name]}


def _changed(before: Config, changes: dict[str, Any], accept: str) -> tuple[Config, dict[str, str]]:
    """The settings with `changes` in place, and for each that differs what it was."""
    flat = config.flatten(msgspec.to_builtins(before), "")
    changed = {}
    for name, value in changes.items():
        value = config.check(name, value, "command line")
        if name in ("data.text", "data.val"):
            value = _absolute(value)
        if value == flat[name]:
            continue
        if name.startswith("length.") and name != "length.steps":
            end = flat["length.steps"]
            raise UserError(
                f"{name}: this run's schedule ends at step {end:,}; for another give --max-steps."
            )
        if name in CHOSEN and value in OPEN:
            raise UserError(f"{name} = {value}: the run has {flat[name]}; give another value.")
        _accept(f"{name} was {flat[name]} and is to be {value}", config.effect(name), accept)
        changed[name] = f"was {flat[name]}, changed at a resume"
        flat[name] = value
    return msgspec.convert(config.nest(flat), Config), changed


def _accept(what: str, effect: str, accept: str) -> None:
    """A change that `accept` does not cover is refused."""
    levels = ["harmless", "trajectory", "incompatible"]
    meaning = {
        "trajectory": "the run would no longer be the one it was",
        "incompatible": "weights and optimizer state would not fit",
    }
    if levels.index(effect) > levels.index(accept):
        raise UserError(f"{what}: {meaning[effect]}; to do it all the same: --accept {effect}.")


def _inexact(first: Start, now: dict[str, Any], step: int) -> list[str]:
    """Why the session cannot be bit-exact with the first one, if it cannot."""
    before, now = first.environment | {"overnight": first.version}, now | {"overnight": __version__}
    names = ("overnight", "torch", "instructions", "float32_products", "device", "device_name",
             "threads")  # fmt: skip
    other = [f"{n} was {before.get(n)}, is {now[n]}" for n in names if before.get(n) != now[n]]
    return [f"no longer bit-exact from step {step} on: {', '.join(other)}"] if other else []


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


def summarise(run: RunFolder, reason: str, seconds: float) -> Summary:
    """The figures of a run, read from its log."""
    written = read_log(run.log).rows
    rows = current(written)
    sessions = [row for row in written if isinstance(row, Start | End)]
    ledger = Ledger(**next(row.ledger for row in reversed(sessions) if isinstance(row, Start)))
    evals = [row for row in rows if isinstance(row, Eval) and row.step]
    best = best_evaluation(rows, among=run.checkpoint_steps())
    whole = [row for row in rows if isinstance(row, Full) and best and row.step == best.step]
    steps = sessions[-1].step
    return Summary(
        run=str(run.path),
        reason=reason,
        steps=steps,
        tokens=ledger.tokens(steps),
        passes=ledger.passes(steps),
        best=_figures(best),
        last=_figures(max(evals, key=lambda row: (row.step, row.attempt), default=None)),
        bpb=whole[-1].val_bpb if whole else None,
        seconds=seconds,
    )


def _figures(row: Any) -> dict[str, Any] | None:
    if row is None:
        return None
    return {"step": row.step, "val_loss": row.val_loss, "se": row.val_se, "bpb": row.val_bpb}
