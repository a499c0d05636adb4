"""`overnight watch`: the findings of a run while it trains."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..runfolder import RunFolder
from ..runlock import is_locked
from . import Flag, Whole, say

if TYPE_CHECKING:
    from ..analysis.run import Run

LATELY = 600  # seconds: compiling takes minutes


def watch(
    run: Path,
    /,
    *,
    on: list[str] | None = None,
    pid: Whole | None = None,
    every: float = 5.0,
    once: Flag = False,
) -> int:
    """Follow a run while it trains; ring, run or stop on a condition.

    Parameters
    ----------
    run
        A run folder, or a log file that grows.
    on
        CONDITION=ACTION, may be given again. Conditions: non-finite, divergence, overfitting,
        finished (to its end), ended (in any way). Actions: bell, stop (needs --pid), or a command,
        which is run without a shell.
    pid
        The training process that `stop` ends (by SIGTERM: it saves first).
    every
        Seconds between looks at the log.
    once
        Look once and end.
    """
    from rich.console import Console

    from ..report import watch as view

    rules = [view.parse(text) for text in on or []]
    if pid is None and any(rule.action == "stop" for rule in rules):
        raise UserError("--on …=stop: say which process to stop with --pid.")
    if pid is not None and not 1 < pid < 2**31:
        raise UserError(f"--pid {pid}: not a training process.")
    if not 0.1 <= every <= 86_400:
        raise UserError(f"--every {every}: has to be between 0.1 and 86400 seconds.")
    console, seen, waits = Console(highlight=False), None, False
    while True:
        look = _look(run)
        loaded = None if look == seen else _loaded(run, not once, waits)
        waits = loaded is None and seen is None
        seen = None if waits else look
        if loaded is not None:
            if console.is_terminal:
                console.clear()
                console.print(view.screen(loaded, console.width))
            else:
                print(view.summary(loaded), flush=True)
            for line in view.apply(rules, loaded.found, run, pid):
                say(line)
            if once or view.CONDITIONS["ended"](loaded.found):
                return 0
        time.sleep(every)


def _loaded(run: Path, wait: bool, told: bool) -> Run | None:
    """The run as it stands; None where its log has no row yet and is to be waited for, which is
    said unless it is `told` already."""
    from ..analysis.run import load_run

    try:
        return load_run(run)
    except UserError as error:
        if not (wait and _may_grow(run)):
            raise
        if not told:
            say(f"{error} Looking again when it grows.")
        return None


def _may_grow(log: Path) -> bool:
    """Whether rows may be on their way: what was written of late may be the settings that a trainer
    prints before its first step, and a line alone is a header."""
    if not log.is_file():
        return False
    header = not log.read_bytes().partition(b"\n")[2].strip()
    return header or time.time() - log.stat().st_mtime < LATELY


def _look(run: Path) -> tuple[int, bool]:
    """What changes when there is news: the length of the log, and whether a process trains (one
    that is killed writes no row)."""
    log = run / "log.jsonl" if run.is_dir() else run
    return log.stat().st_size if log.exists() else -1, is_locked(RunFolder(run).lock)
