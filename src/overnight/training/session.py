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

from .. import __version__, config
from ..config import Config, Settings
from ..errors import UserError
from ..model import checkpoint
from ..model.checkpoint import State, Window
from ..model.decoder import count_parameters
from ..runfolder import (
    Event,
    LogWriter,
    RunFolder,
    Start,
    best_eval,
    fsync_path,
    read_log,
)
from ..text.prepare import Prepared, prepare
from ..text.tokenizers import Tokenizer
from .loop import Trainer
from .machine import environment, settle
from .plan import Plan, make_plan
from .progress import Progress
from .stop import StopSignal
from .update import Updater

Say = Callable[[str], None]


class Summary(msgspec.Struct):
    """What `overnight train --json` prints when done."""

    run: str
    reason: str  # finished, interrupted
    steps: int
    tokens: int
    passes: float
    best: dict[str, Any] | None  # step, val_loss, se, bpb
    last: dict[str, Any] | None
    bpb: float | None  # the best checkpoint on the whole val split, if the run has finished
    seconds: float
    exit_code: int = 0


def plan_run(settings: Settings, say: Say) -> Plan:
    """Prepare the text and decide everything; nothing but the cache is written."""
    resolved = settings.resolve()
    prepared = prepare(resolved.data, resolved.tokenizer, choose=settings.choose, say=say)
    return make_plan(settings, prepared)


def default_folder(preset: str) -> Path:
    return Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{preset}"


def refuse_existing(path: Path) -> None:
    if path.exists():
        known = (path / "log.jsonl").is_file()
        hint = f"go on with --resume {path}, or give" if known else "give"
        raise UserError(f"{path} exists already: {hint} another --out.")


def begin(plan: Plan, path: Path, progress: Progress) -> Summary:
    """Make the run folder (it appears whole, by rename) and train in it."""
    refuse_existing(path)
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    run = RunFolder(temporary)
    temporary.mkdir(parents=True)
    try:
        (temporary / "evals").mkdir()
        run.config.write_text(config.dump(plan.config, plan.reasons), encoding="utf-8")
        plan.prepared.tokenizer.save(run.tokenizer)
        shutil.copyfile(plan.prepared.yardsticks, run.yardsticks)
        log = LogWriter(run.log, attempt=1)
        log.write(_start_row(plan.config, plan.reasons, plan.prepared, plan.updater, 0))
        log.sync()
        fsync_path(temporary)
        temporary.rename(path)
        fsync_path(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    state = State(step=0, window=Window())
    return _train(RunFolder(path), log, plan.config, plan.updater, plan.prepared, state, progress)


def resume(path: Path, progress: Progress) -> Summary:
    """Take a run up from its newest good checkpoint, exactly."""
    begun = time.monotonic()
    run = RunFolder.open(path)
    settings = config.load(run.config)
    rows = read_log(run.log)
    if any(getattr(row, "reason", "") == "finished" for row in rows.rows):
        progress.say(f"{path} is finished; nothing to do.")
        return summarise(run, "finished", time.monotonic() - begun)
    prepared = prepare(
        settings.data, settings.tokenizer, fixed=Tokenizer.load(run.tokenizer), say=progress.say
    )
    _refuse_other_text(run, rows.rows, prepared)
    device = settle(settings.train.device, settings.train.threads)
    updater = Updater(settings, prepared.train, device)
    warnings: list[str] = []
    folder = checkpoint.newest(run, warnings.append)
    state = State(step=0, window=Window())
    if folder:
        state = checkpoint.read_state(folder)
        weights = checkpoint.read_tensors(folder, checkpoint.MODEL)
        checkpoint.load_into(updater.model, weights, folder)
        updater.optimizers.load(checkpoint.read_tensors(folder, checkpoint.OPTIMIZER))
    log = LogWriter(run.log, attempt=rows.attempts + 1)
    log.write(_start_row(settings, {}, prepared, updater, state.step))
    for message in _resume_events(log, rows.problems, warnings, state.step):
        progress.say(message)
    progress.say(f"resumed at step {state.step:,} of {settings.length.steps:,}")
    return _train(run, log, settings, updater, prepared, state, progress)


def _resume_events(
    log: LogWriter, problems: list[str], warnings: list[str], step: int
) -> list[str]:
    torn = ["the last row was torn by a kill; it is sealed"] if log.sealed else []
    unread = [f"log.jsonl, {problem}" for problem in problems]
    for kind, messages in (("torn_log", torn), ("log", unread), ("checkpoint", warnings)):
        for message in messages:
            log.write(Event(step=step, kind=kind, message=message))
    log.write(Event(step=step, kind="resume", message=f"resumed from step {step}"))
    return torn + unread + warnings


def _refuse_other_text(run: RunFolder, rows: list[Any], prepared: Prepared) -> None:
    start = next((row for row in rows if isinstance(row, Start)), None)
    before = start.data.get("fingerprint") if start else None
    if before != prepared.facts["fingerprint"]:
        raise UserError(
            f"{run.path}: the text is not the one this run began with "
            f"({', '.join(map(str, prepared.facts['names'][:3]))}); resume needs the same."
        )


def _start_row(
    settings: Config, reasons: dict[str, str], prepared: Prepared, updater: Updater, step: int
) -> Start:
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


def _train(
    run: RunFolder,
    log: LogWriter,
    settings: Config,
    updater: Updater,
    prepared: Prepared,
    state: State,
    progress: Progress,
) -> Summary:
    begun = time.monotonic()
    with StopSignal() as stop, progress:
        trainer = Trainer(run, log, settings, updater, prepared, state, progress, stop)
        reason = trainer.train()
    log.close()
    summary = summarise(run, reason, time.monotonic() - begun)
    if reason == "interrupted":
        progress.say(f"stopped at step {state.step:,}; go on with --resume {run.path}")
        summary.exit_code = 128 + stop.number
    return summary


def summarise(run: RunFolder, reason: str, seconds: float) -> Summary:
    """The figures of a run, read from its log."""
    from ..runfolder import Eval, Full, Train

    read = read_log(run.log)
    trained = read.of(Train)
    evals = [row for row in read.of(Eval) if row.step]
    full = read.of(Full)
    last_train = max(trained, key=lambda row: row.step, default=None)
    return Summary(
        run=str(run.path),
        reason=reason,
        steps=max((row.step for row in read.rows), default=0),
        tokens=last_train.tokens if last_train else 0,
        passes=last_train.passes if last_train else 0.0,
        best=_figures(best_eval(read.rows)),
        last=_figures(max(evals, key=lambda row: (row.step, row.attempt), default=None)),
        bpb=full[-1].val_bpb if full else None,
        seconds=seconds,
    )


def _figures(row: Any) -> dict[str, Any] | None:
    if row is None:
        return None
    return {"step": row.step, "val_loss": row.val_loss, "se": row.val_se, "bpb": row.val_bpb}
