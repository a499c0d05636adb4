"""Following a live run: which conditions hold, what to do about them, what to show."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..analysis import divergence, overfitting
from ..analysis.findings import Findings
from ..errors import UserError, did_you_mean
from . import headlines, questions

if TYPE_CHECKING:
    from ..analysis.run import Run


ENDED = ("finished", "interrupted", "failed", "killed")


def _not_finite(f: Findings) -> bool:
    v = f.verdict("divergence")
    return v.verdict == "yes" and "broken" in v.evidence


CONDITIONS: dict[str, Callable[[Findings], bool]] = {
    "non-finite": _not_finite,
    # looked at again and again
    "divergence": lambda f: divergence.proven(f.verdict("divergence")),
    "overfitting": lambda f: overfitting.proven(f.verdict("overfitting")),
    "finished": lambda f: f.about.status == "finished",
    "ended": lambda f: f.about.status in ENDED,
}


@dataclass
class Rule:
    """`condition` → `action`: bell, stop, or the words of a command. Fires once."""

    condition: str
    action: str
    command: list[str]
    fired: bool = False


def parse(text: str) -> Rule:
    """`overfitting=stop`, `ended=bell`, `divergence=notify-send "it diverged"`."""
    condition, equals, action = text.partition("=")
    condition, action = condition.strip(), action.strip()
    if condition not in CONDITIONS:
        raise UserError(
            f'--on {text}: there is no condition "{condition}".'
            f"{did_you_mean(condition, CONDITIONS)} Known: {', '.join(CONDITIONS)}."
        )
    if not equals or not action:
        raise UserError(f"--on {text}: say what to do: {condition}=bell, =stop or =COMMAND.")
    if action in ("bell", "stop"):
        return Rule(condition, action, [])
    try:
        command = shlex.split(action)
    except ValueError as error:
        raise UserError(f"--on {text}: the command cannot be split: {error}.") from None
    return Rule(condition, "command", command)


def apply(rules: list[Rule], found: Findings, run: Path, pid: int | None) -> list[str]:
    """Fire the rules whose condition holds now; what was done, in one line each."""
    done = []
    for rule in rules:
        if rule.fired or not CONDITIONS[rule.condition](found):
            continue
        rule.fired = True
        done.append(f"{rule.condition}: {_act(rule, run, pid)}")
    return done


def _act(rule: Rule, run: Path, pid: int | None) -> str:
    if rule.action == "bell":
        sys.stderr.write("\a")
        sys.stderr.flush()
        return "rang the bell"
    if rule.action == "stop":
        assert pid is not None  # the command line has refused this before
        try:
            os.kill(pid, signal.SIGTERM)  # the trainer saves and ends
        except OSError as error:
            return f"process {pid} could not be stopped: {error.strerror}"
        return f"asked process {pid} to stop"
    told = os.environ | {"OVERNIGHT_CONDITION": rule.condition, "OVERNIGHT_RUN": str(run)}
    try:
        code = subprocess.run(rule.command, env=told, check=False, stdin=subprocess.DEVNULL)
    except OSError as error:
        return f"{rule.command[0]} could not be run: {error.strerror}"
    return f"ran {rule.command[0]} (exit {code.returncode})"


def summary(run: Run) -> str:
    """One line for a pipe or a log file."""
    f = run.found
    last = next((e for e in reversed(f.evaluations) if e.val_loss is not None), None)
    ended = f", {f.about.status}" if CONDITIONS["ended"](f) else ""
    parts = [f"step {f.ledger.steps:,}{ended}"]
    if last is not None:
        parts.append(f"val {last.val_loss:.4f} at {last.step:,}")
    if f.best is not None:
        parts.append(f"lowest {f.best.loss:.4f} at {f.best.step:,}")
    parts += [
        headlines.headline(v).lower()
        for v in f.verdicts
        if v.id in ("divergence", "overfitting", "still_improving") and v.verdict != "cannot_tell"
    ]
    return "; ".join(parts)


def screen(run: Run, width: int) -> Any:
    """What a terminal shows: status, chart, the reader's questions."""
    from rich.console import Group
    from rich.text import Text as Line

    from . import terminal

    f = run.found
    head = f"{f.source.name}: {f.about.status}, step {f.ledger.steps:,}"
    if f.about.planned_steps:
        head += f" of {f.about.planned_steps:,}"
    return Group(
        Line(terminal.plain(head), style="bold"),
        Line(terminal.chart_of_losses(f, width)),
        terminal.cards(questions.cards(f)),
    )
