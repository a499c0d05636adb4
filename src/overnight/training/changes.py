"""What may change when a run is taken up again, and what that does to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import msgspec

from .. import __version__
from ..config import UNCHOSEN, Config, Effect, effect
from ..errors import UserError
from ..runfolder import AnyRow, RunFolder, Start
from ..settings import check_setting, flatten, nest


def absolute(paths: list[str]) -> list[str]:
    """A resume may be called from another folder. (A link stays: its name says what it holds.)"""
    return [p if p == "-" else str(Path(p).expanduser().absolute()) for p in paths]


def refuse_unsettled(run: RunFolder, settings: Config) -> None:
    """What was imported has never been planned. (Samples had no cadence of their own once.)"""
    flat = flatten(msgspec.to_builtins(settings), "")
    for name, value in ({"length.steps": 0} | UNCHOSEN).items():
        if flat[name] == value and name != "sample.every":
            raise UserError(
                f"{run.config}: {name} = {flat[name]} was never settled, so nothing can go on "
                f"here; to train from these weights: --from {run.path}."
            )


def edited(written: Config, rows: list[AnyRow]) -> tuple[Config, dict[str, Any]]:
    """The settings of the last session, and what somebody has changed in config.toml since.

    A kill between a start row and the file leaves the settings of an earlier session: no edit.
    """
    try:
        sessions = [msgspec.convert(row.config, Config) for row in rows if isinstance(row, Start)]
    except msgspec.ValidationError:  # a row that is not ours
        sessions = []
    killed = isinstance(rows[-1], Start) and written in sessions if rows else False
    if not sessions or killed or written == sessions[-1]:
        return written, {}
    last, now = (flatten(msgspec.to_builtins(c), "") for c in (sessions[-1], written))
    return sessions[-1], {name: now[name] for name in now if now[name] != last[name]}


def with_changes(
    before: Config, changes: dict[str, Any], accept: str
) -> tuple[Config, dict[str, str]]:
    """The settings with `changes` in place, and for each that differs what it was."""
    flat = flatten(msgspec.to_builtins(before), "")
    changed: dict[str, str] = {}
    refused: dict[str, list[str]] = {}
    for name, value in changes.items():
        value = check_setting(name, value, "command line")
        if name in ("data.text", "data.val"):
            value = absolute(value)
        if value == flat[name]:
            continue
        if name.startswith("length.") and name != "length.steps":
            end = flat["length.steps"]
            raise UserError(
                f"{name}: this run's schedule ends at step {end:,}; for another give --max-steps."
            )
        if name.startswith("tokenizer."):
            raise UserError(
                f"{name}: the run keeps its own ({flat[name]}); another needs a new run."
            )
        if name in UNCHOSEN and value == UNCHOSEN[name]:
            raise UserError(f"{name} = {value}: the run has {flat[name]}; give another value.")
        what = f"{name} was {flat[name]} and is to be {value}"
        refused.setdefault(effect(name), []).append(what)
        changed[name] = f"was {flat[name]}, changed at a resume"
        flat[name] = value
    for level in reversed(get_args(Effect)):
        if level in refused:
            refuse_unaccepted("; ".join(refused[level]), level, accept)
    return msgspec.convert(nest(flat), Config), changed


def refuse_unaccepted(what: str, level: str, accept: str) -> None:
    """A change that `accept` does not cover is refused."""
    levels = get_args(Effect)
    meaning = {
        "trajectory": "the run would no longer be the one it was",
        "incompatible": "weights and optimizer state would not fit",
    }
    if levels.index(level) > levels.index(accept):
        raise UserError(f"{what}: {meaning[level]}; to do it all the same: --accept {level}.")


def inexact(first: Start, now: dict[str, Any], step: int) -> list[str]:
    """Why the session cannot be bit-exact with the first one, if it cannot."""
    before, now = first.environment | {"overnight": first.version}, now | {"overnight": __version__}
    names = ("overnight", "torch", "instructions", "float32_products", "device", "device_name",
             "threads")  # fmt: skip
    other = [f"{n} was {before.get(n)}, is {now[n]}" for n in names if before.get(n) != now[n]]
    return [f"no longer bit-exact from step {step} on: {', '.join(other)}"] if other else []


def told(before: Config, now: Config, changed: dict[str, str]) -> list[str]:
    """The settings in `changed` with both values; what is no setting (`data`) with its reason."""
    old, new = (flatten(msgspec.to_builtins(config), "") for config in (before, now))
    words = [
        f"{name} {_worded(old[name])} → {_worded(new[name])}" if name in old else f"{name} ({why})"
        for name, why in changed.items()
    ]
    return ["changed: " + ", ".join(words)] if words else []


def _worded(value: Any) -> str:
    return f"{value:,}" if type(value) is int else str(value)


def another(changed: dict[str, str]) -> list[str]:
    """What makes it another model, or another text: losses before compare with none behind. (A text
    that was only moved is the same.)"""
    return [
        name
        for name in changed
        if name == "data" or (effect(name) == "incompatible" and name != "optimizer.kind")
    ]


def incomparable(changed: dict[str, str]) -> list[str]:
    """What says that the evaluations before compare with none behind, where it is so."""
    other = another(changed) + [name for name in changed if name == "eval.tokens"]
    return [f"evaluations before this do not count: {', '.join(other)}"] if other else []
