"""A session from its first line to its last: plan a run, begin it, train, say how it went."""

from __future__ import annotations

import itertools
import os
import shlex
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from .. import __version__
from ..config import Config, without_effect
from ..errors import Say, UserError
from ..files import TakenError, appearing
from ..model import checkpoint
from ..model.checkpoint import State
from ..model.decoder import count_parameters
from ..runfolder import INITIAL, Checkpoint, Event, LogWriter, RunFolder, Start
from ..runlock import RunLock
from ..settings import Layer, Settings, dump_config
from ..text.prepare import Prepared, prepare
from .awake import awake
from .changes import absolute
from .initial import Initial, refuse_other_model
from .loop import StopReason, Trainer
from .machine import check_device, environment
from .plan import Plan
from .planning import make_plan
from .progress import Progress
from .stop import StopSignal
from .summary import Summary, summarise
from .update import Updater


def plan_run(settings: Settings, say: Say, initial: Initial | None = None) -> Plan:
    """Prepare the text and decide everything; nothing but the cache is written."""
    if initial:
        refuse_other_model(settings, initial)
    if (device := settings.get("train.device")) != "auto":  # before the text takes its time
        check_device(device)
    resolved, given = settings.resolve(), settings.given()
    fixed = initial.tokenizer if initial else None
    prepared = prepare(
        resolved.data, resolved.tokenizer, fixed=fixed, choose=settings.choose, say=say
    )
    for name in ("data.text", "data.val"):
        if paths := settings.get(name):
            settings.choose(name, absolute(paths), settings.reasons[name])
    plan = make_plan(settings, prepared, say)
    plan.unused = _unused(given, plan.config, initial.layer if initial else {})
    if initial:
        checkpoint.load_into(plan.updater.model, initial.weights, Path(initial.source))
        plan.reasons["model.layers"] = f"weights of {initial.source}"
        plan.initial = initial.source
    return plan


def _unused(given: dict[str, str], config: Config, taken_over: Layer) -> list[str]:
    """What the user gave and nothing comes of, each with the reason."""
    idle = without_effect(config)
    return [
        f"{told}: {idle[name]}"
        for name, told in given.items()
        if name in idle and name not in taken_over
    ]


def default_folder(preset: str) -> Path:
    """A new name by date and preset."""
    path = Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{preset}"
    beside = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(p for p in itertools.chain([path], beside) if not os.path.lexists(p))


def refuse_existing(path: Path) -> None:
    try:
        str(path).encode()
        there = os.path.lexists(path)  # a link that leads nowhere, too
    except (UnicodeError, ValueError):
        raise UserError(f"--out {str(path)!r}: not a name for a folder.") from None
    if there:
        known = (path / "log.jsonl").is_file()
        hint = f"go on with --resume {shlex.quote(str(path))}, or give" if known else "give"
        raise UserError(f"{path} exists already: {hint} another --out.")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise UserError(f"{path}: {above} is no folder that can be written: give another --out.")


@contextmanager
def _new_folder(path: Path, or_beside: bool) -> Iterator[tuple[Path, Path]]:
    """The path of the run folder, and where it is to be written; `or_beside`: under the next name,
    where another process was as quick."""
    name = path.name
    for number in itertools.count(2):
        with ExitStack() as stack:
            try:
                place = stack.enter_context(appearing(path, "--out"))
            except TakenError:
                if not or_beside:
                    raise
                path = path.with_name(f"{name}-{number}")
                continue
            yield path, place
            return


def begin(
    plan: Plan, path: Path, progress: Progress, stop_reason: StopReason, or_beside: bool = False
) -> Summary:
    """Make the run folder, which appears whole, and train in it; `or_beside`: under another name
    where this one is taken."""
    if not or_beside:
        refuse_existing(path)
    with _new_folder(path, or_beside) as (path, place):
        run = RunFolder(place)
        lock = RunLock(run.lock)
        run.evals.mkdir()
        run.config.write_text(dump_config(plan.config, plan.reasons), encoding="utf-8")
        plan.prepared.tokenizer.save(run.tokenizer)
        shutil.copyfile(plan.prepared.yardsticks, run.yardsticks)
        log = LogWriter(run.log, attempt=1)
        start = start_rows(plan.updater, plan.prepared, plan.reasons)
        log.write(start(0))
        if plan.initial:
            _keep_initial(run, log, plan)
        log.sync()  # which fails where a full disk has refused rows
    progress.say(f"run       {path}")
    with lock:
        return train(
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
    """Save weights that are not random at step 0: a resume before the first checkpoint, and a
    return, must find them; and none may be better."""
    message = f"begins with the weights of {plan.initial}"
    log.write(Event(step=0, kind=INITIAL, message=message))
    model, optimizers = plan.updater.model, plan.updater.optimizers
    size, seconds = checkpoint.save(run, State(), model.state_dict(), optimizers.state())
    path = str(run.checkpoint_path(0).relative_to(run.path))
    log.write(Checkpoint(step=0, path=path, bytes=size, seconds=seconds, reason=INITIAL))


def start_rows(
    updater: Updater, prepared: Prepared, reasons: dict[str, str]
) -> Callable[[int], Start]:
    """A maker of start rows, for a session and for each return within it."""
    settings = updater.config

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


def train(trainer: Trainer) -> Summary:
    """Train, and what it has come to."""
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
        on = f"go on with --resume {shlex.quote(str(run.path))}"
        progress.say(f"stopped at step {trainer.state.step:,}; {on}")
        summary.exit_code = 128 + stop.number
    elif reason == "failed":
        summary.exit_code = 1
    return summary
