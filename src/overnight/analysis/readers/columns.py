"""Loose columns → the two tables.

Shared by the readers of foreign logs, where a row may hold anything: a training loss, a validation
loss, both, or neither, and a resumed run may have appended from an earlier step on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...errors import UserError
from ...wording import counted
from ..tables import EVAL, TRAIN, Array, Columns, Log, select
from . import names
from .counters import counters
from .kinds import KIND_FIELDS, RUN_FIELDS
from .loose import RUN, Loose, column
from .losses import in_nats
from .order import by_step
from .overlaps import table, without_abandoned
from .steps import in_order, last_run, with_steps
from .unmeasured import measured
from .values import LOSSES

FEWEST_ROWS = 5  # of a run
VALIDATED = ("val_loss", "val_perplexity", "val_bpb")
LOOKS = 2  # at a test set, at least, before it is one that was evaluated all along
SUMMARY, FARTHER = 2, 2.0  # rows at the end of a log, and how far beyond it they may be


def build(path: Path, form: str, gathered: Loose) -> Log:
    """The tables of a plain log."""
    problems = [
        *gathered.problems,
        *names.unread(gathered.seen, {*gathered.known, *KIND_FIELDS, *RUN_FIELDS}),
    ]
    loose = _of_one_run(gathered.columns(), list(gathered.runs), problems)
    _promote_test(loose, gathered.known, problems)
    loose = measured(by_step(loose, problems), problems)
    per_byte = in_nats(path, loose, gathered.known, gathered.seen, problems)
    problems += names.scaled(gathered.known)
    _refuse_experiments(path, loose, gathered)
    if "epoch" in loose and "step" not in loose:
        loose = last_run(loose, problems, by="epoch")
    loose, step_is = with_steps(loose, problems)
    loose = _evaluations_with_steps(loose, problems)
    loose = last_run(in_order(loose, problems), problems)
    _refuse_results(path, loose)
    loose = without_abandoned(loose, problems)
    loose = counters(loose, problems)
    train = table(loose, TRAIN, ("loss", "lr", "tokens_per_s", "grad_norm"), problems)
    wanted = ("val_loss", "train_loss") if "train_loss" in loose else ("val_loss",)
    evals = table(loose, EVAL, wanted, problems)
    if np.isnan(train["loss"]).all() and np.isnan(evals["val_loss"]).all():
        raise UserError(f"{path}: not one row has both a step and a loss.")
    if "train_loss" not in loose and "loss" in loose and not per_byte:
        evals["train_loss"] = _beside(evals["step"], train["step"], train["loss"])
    return Log(
        path, form, train, evals, columns=gathered.known, problems=problems, step_is=step_is,
        planned=_planned(loose), reached=_closing(loose), seconds=_largest(loose, "duration"),
        other_task=names.other_task(gathered.seen), per_byte=per_byte,
    )  # fmt: skip


def _of_one_run(loose: Columns, runs: list[str], problems: list[str]) -> Columns:
    """The rows of the run that a column names last, if it names several and not each row."""
    code = loose.pop(RUN, None)
    if code is None or not 1 < len(runs) <= len(code) / FEWEST_ROWS:
        return loose
    last = int(code[np.isfinite(code)][-1])
    problems.append(
        f"not read: the rows of {len(runs) - 1:,} other runs: a column names {len(runs):,}, the "
        f"last one is {runs[last][:40]!r}"
    )
    return select(loose, code == last)


def _promote_test(loose: Columns, known: dict[str, str], problems: list[str]) -> None:
    """What was evaluated on a test set all along is what there is of validation, if nothing else
    is; what was so once, or beside validation, is not looked at."""
    test = loose.pop("test_loss", np.empty(0))
    looks = int(np.isfinite(test).sum())
    if not looks:
        return
    validated = max((np.isfinite(loose[n]).sum() for n in VALIDATED if n in loose), default=0)
    if looks < LOOKS or validated >= min(LOOKS, looks):
        problems.append(f"{looks:,} losses of a test set: a run is judged by validation")
        return
    loose["val_loss"] = test
    known |= {name: "val_loss" for name, ours in known.items() if ours == "test_loss"}
    problems.append("there is no validation: the test set is taken for it")


def _evaluations_with_steps(loose: Columns, problems: list[str]) -> Columns:
    """A validation loss in a row without a step is of the step before it, if none has a step; of
    that behind it, where the first one stands before step 0."""
    steps = loose["step"]
    without = np.isfinite(column(loose, "val_loss")) & np.isnan(steps)
    if not without.any():
        return loose
    known = np.flatnonzero(~np.isnan(steps))
    if np.isfinite(loose["val_loss"][~without]).any() or not len(known):
        problems.append(f"{counted(without.sum(), 'validation loss')} without a step: left out")
        return loose
    begins = without[: known[0]].any()
    ends = without[known[-1] :].any()
    # build-nanogpt: the first is of step 0, and the last stands before the last step, too
    behind = bool(begins and not ends and steps[known[0]] == 0)
    rows = np.arange(len(steps))
    near = np.searchsorted(known, rows) if behind else np.searchsorted(known, rows) - 1
    taken = steps[known[np.clip(near, 0, len(known) - 1)]]
    taken[near < 0] = 0
    side = "behind" if behind else "before"
    problems.append(
        f"{counted(without.sum(), 'validation loss')} without a step: taken for the one {side}"
    )
    return loose | {"step": np.where(without, taken, steps)}


def _refuse_results(path: Path, loose: Columns) -> None:
    """A table with a row for each of many runs is no log of one."""
    steps = loose["step"][np.isfinite(loose["step"])]
    if len(steps) >= FEWEST_ROWS and (steps == steps[0]).all():
        raise UserError(
            f"{path}: all {len(steps):,} rows are of step {steps[0]:,.0f}: a table of results, "
            "not the log of a run."
        )


def _refuse_experiments(path: Path, loose: Columns, gathered: Loose) -> None:
    """Nor is one without a step that says in words what each row tried."""
    tried = next((name for name, said in gathered.said.items() if len(said) > FEWEST_ROWS), None)
    if tried is not None and not {"step", "epoch", "time", "tokens"} & set(loose):
        raise UserError(
            f"{path}: no column of steps, but one of {tried[:40]}: a table of results, not the log "
            "of a run."
        )


def _planned(loose: Columns) -> float | None:
    """The step to end at; fewer than were made are the steps of something else."""
    planned = _largest(loose, "planned")
    return planned if planned and planned >= (_largest(loose, "step") or 0) else None


def _closing(loose: Columns) -> float | None:
    """The step of a summary: of a row or two behind the last one with a loss."""
    losses = [loose[name] for name in LOSSES if name in loose]
    logged = np.flatnonzero(~np.isnan(losses).all(axis=0))
    if not len(logged) or len(loose["step"]) - 1 - logged[-1] > SUMMARY:
        return None
    before, behind = np.split(loose["step"], [logged[-1] + 1])
    step, last = (_largest({"step": part}, "step") for part in (behind, before))
    return step if step and last and step <= FARTHER * last else None


def _largest(loose: Columns, name: str) -> float | None:
    values = loose.get(name, np.empty(0))
    values = values[np.isfinite(values) & (values > 0)]
    return float(values.max()) if len(values) else None


def _beside(eval_steps: Array, train_steps: Array, loss: Array) -> Array:
    """The training loss logged at the same step as each evaluation; NaN where there is none."""
    if not len(train_steps) or not len(eval_steps):
        return np.full(len(eval_steps), np.nan)
    at = np.clip(np.searchsorted(train_steps, eval_steps), 0, len(train_steps) - 1)
    return np.where(train_steps[at] == eval_steps, loss[at], np.nan)
