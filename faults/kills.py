"""SIGKILL at random CPU times over real training, again and again, until the run is finished.

Every session is a process of its own, forked from a parent that has loaded torch and computed
nothing with it. After every kill: the log only grew, the newest checkpoint verifies, at most one
interval is lost. At the end: the bits of the run that nothing happened to.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import tiny
from .tiny import Outcome

EVERY = 3  # steps between checkpoints
LIMIT = 120.0  # seconds for one session
MORE = {"length__steps": 24, "save__every": EVERY, "log__every": 1, "save__keep": 2}


def run(folder: Path, short: bool, cases: int) -> Iterator[Outcome]:
    wanted = cases or (12 if short else 1000)
    import torch

    torch.set_num_threads(1)
    import torch._dynamo  # the optimizers load it at their first step: once, for every child

    from overnight.training import resume  # noqa: F401

    text, whole = tiny.text_file(folder), folder / "whole"
    _session(whole, text, None)
    seconds = _session(folder / "again", text, None).cpu  # the text is prepared by now
    draw = random.Random(20260)
    outcome = Outcome("kill: SIGKILL at a random CPU time", 0)
    runs = 0
    while outcome.cases < wanted:
        out = folder / f"run-{runs}"
        outcome.cases += _until_finished(out, text, whole, seconds, draw, outcome.failures)
        shutil.rmtree(out, ignore_errors=True)
        runs += 1
    outcome.notes.append(f"{runs} runs of 24 steps; {seconds:.2f} CPU seconds each uninterrupted")
    yield outcome


@dataclass
class Ended:
    cpu: float
    killed: bool
    code: int


def _until_finished(
    out: Path, text: Path, whole: Path, seconds: float, draw: random.Random, failures: list[str]
) -> int:
    kills, before = 0, b""
    while True:
        ended = _session(out, text, draw.uniform(0, seconds))
        kills += ended.killed
        if not ended.killed and ended.code:
            failures.append(f"{out.name}: a session ended with {ended.code}")
            return max(kills, 1)
        if (out / "log.jsonl").is_file():
            failures += [f"{out.name}, kill {kills}: {w}" for w in _wrong(out, before)]
            before = (out / "log.jsonl").read_bytes()
        if not ended.killed:
            break
    failures += [f"{out.name}: {wrong}" for wrong in tiny.different(out, whole)]
    if _names(out) != _names(whole):
        failures.append(f"{out.name}: checkpoints {_names(out)}, not {_names(whole)}")
    return kills


def _session(out: Path, text: Path, after: float | None) -> Ended:
    """One session in a process of its own, killed when it has used `after` CPU seconds."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if (out / "log.jsonl").is_file():
                tiny.resume(out)
            else:
                tiny.begin(out, text, **MORE)
            code = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        finally:
            os._exit(code)
    clock, end, used = (
        (~pid << 3) | 2,
        time.monotonic() + LIMIT,
        0.0,
    )  # CLOCK_PROCESS_CPUTIME of pid
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return Ended(used, os.WIFSIGNALED(status), os.waitstatus_to_exitcode(status))
        used = time.clock_gettime(clock)
        if (after is not None and used >= after) or time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            killed = os.WIFSIGNALED(status) and time.monotonic() <= end
            return Ended(used, killed, os.waitstatus_to_exitcode(status))
        time.sleep(0.0005)


def _wrong(out: Path, before: bytes) -> list[str]:
    """What a kill may not leave behind."""
    from overnight.model import checkpoint
    from overnight.runfolder import RunFolder, Train, read_log

    run, wrong = RunFolder(out), []
    log = run.log.read_bytes()
    if not log.startswith(before):
        wrong.append("the log was rewritten")
    steps = run.checkpoint_steps()
    if steps:
        try:
            checkpoint.verify(run.checkpoint_path(steps[-1]))
        except checkpoint.DamagedError as error:
            wrong.append(f"the newest checkpoint cannot be read: {error}")
    read = read_log(run.log)
    reached = max((row.step for row in read.of(Train)), default=0)
    if reached - max(steps, default=0) > EVERY:
        wrong.append(f"step {reached} was reached, checkpoints are {steps}")
    lines = log.split(b"\n")
    torn = len(read.problems)
    if torn > log.count(b'"torn_log"') + (lines[-1] != b""):
        wrong.append(f"rows cannot be read: {read.problems[:2]}")
    if list(run.checkpoints.glob("damaged-*")):
        wrong.append("a checkpoint was found damaged")
    return wrong


def _names(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "checkpoints").iterdir())
