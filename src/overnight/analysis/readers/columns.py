"""Loose columns → the two tables.

Shared by the readers of foreign logs, where a row may hold anything: a training loss, a validation
loss, both, or neither, and a resumed run may have appended from an earlier step on.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import UserError
from ..tables import EVAL, TRAIN, Array, Columns, Log, select
from . import names
from .steps import in_order, last_run, with_steps
from .unmeasured import measured
from .values import LOSSES

MAX_COLUMNS = 512
# A column that says of each row what it is about, and the words that mean validation.
KIND_FIELDS = ("type", "event", "split", "phase", "mode", "kind", "stage", "dataset")
VALIDATION = ("val", "valid", "validation", "eval", "evaluation", "dev", "test")
# A column that says of each row which run it is of, and how that is called here
RUN_FIELDS = ("run", "run_id", "run_name", "experiment", "exp", "trial", "model", "model_name")
RUN = "run"
FEWEST_ROWS = 5  # of a run
EPOCHS = 50  # rows of a log that may have one for each
RESUMED, BEHIND = 3, 2  # training rows of a resumed session, and of those that it goes over again
MOST_SESSIONS = 100  # of a run that counts anew in each
FIRST = 3.0  # of the usual rise, that a counter shows at most when it begins again
LEAST_RATIO, MOST_RATIO = 0.98, 1.1  # of a perplexity to exp(loss): a mean over batches is above
MAX_PROBLEMS = 20  # lines that are told of


def named(names: tuple[str, ...], fields: Iterable[str]) -> list[str]:
    """The `fields` that are among `names`, in any case, in the order of those."""
    return sorted((f for f in fields if f.lower() in names), key=lambda f: names.index(f.lower()))


def of_row(known: dict[str, str], kinds: Iterable[object]) -> dict[str, str]:
    """Our names of the foreign ones in a row of these `kinds`: its loss may be that of validation,
    if it has no other."""
    said = (kind.lower() for kind in kinds if isinstance(kind, str))
    if "val_loss" in known.values() or not any(kind in VALIDATION for kind in said):
        return known
    return {
        name: "val_loss" if ours == "loss" and "train" not in name.lower() else ours
        for name, ours in known.items()
    }


class Loose:
    """What a reader gathers: columns that grow row by row, eight bytes a value; the names of the
    file; what could not be read."""

    def __init__(self, problems: list[str]) -> None:
        self.rows = 0
        self.values: dict[str, array[float]] = {}
        self.known: dict[str, str] = {}  # foreign name → ours
        self.seen: dict[str, None] = {}  # every foreign name, in order
        self.runs: dict[str, int] = {}  # what a column of runs says → its number
        self.problems = problems

    def add(self, row: dict[str, float], run: object = None) -> None:
        """One row, by our names; `run`: what it says of which run it is."""
        if isinstance(run, str | int | float):
            row = row | {RUN: self.runs.setdefault(str(run), len(self.runs))}
        for name, value in row.items():
            column = self.values.get(name)
            if column is None:
                column = self.values[name] = array("d", [float("nan")]) * self.rows
            column.append(value)
        self.rows += 1
        if len(row) != len(self.values):
            for column in self.values.values():
                if len(column) < self.rows:
                    column.append(float("nan"))

    def columns(self) -> Columns:
        return {name: np.frombuffer(c, dtype=np.float64) for name, c in self.values.items()}


def build(path: Path, form: str, gathered: Loose) -> Log:
    """The tables of a plain log."""
    problems = [
        *gathered.problems,
        *names.unread(gathered.seen, {*gathered.known, *KIND_FIELDS, *RUN_FIELDS}),
    ]
    loose = _of_one_run(gathered.columns(), list(gathered.runs), problems)
    loose = measured(loose, problems)
    per_byte = _losses(path, loose, gathered.known, problems)
    problems += names.scaled(gathered.known)
    loose, step_is = with_steps(loose, problems)
    loose = _evaluations_with_steps(loose, problems)
    loose = last_run(in_order(loose, problems), problems)
    _refuse_results(path, loose)
    loose = _without_abandoned(loose, problems)
    if "time" in loose:
        loose["time"] = _in_seconds(loose["time"])
    for name in ("tokens", "time"):
        if name in loose:
            loose[name] = _counted_on(name, loose, problems)
            if not _rises(loose[name]) or (name == "time" and _of_rows(loose[name])):
                problems.append(f"{name} does not count up: it is of a row and not of the run")
                del loose[name]
    if "tokens_per_s" in loose:  # 0 is what a tool writes that did not measure it
        loose["tokens_per_s"] = np.where(loose["tokens_per_s"] > 0, loose["tokens_per_s"], np.nan)
    train = _table(loose, TRAIN, ("loss", "lr", "tokens_per_s", "grad_norm"), problems)
    wanted = ("val_loss", "train_loss") if "train_loss" in loose else ("val_loss",)
    evals = _table(loose, EVAL, wanted, problems)
    if np.isnan(train["loss"]).all() and np.isnan(evals["val_loss"]).all():
        raise UserError(f"{path}: not one row has both a step and a loss.")
    if "train_loss" not in loose and "loss" in loose and not per_byte:
        evals["train_loss"] = _beside(evals["step"], train["step"], train["loss"])
    return Log(
        path, form, train, evals, columns=gathered.known, problems=problems, step_is=step_is,
        planned=_planned(loose), seconds=_largest(loose, "duration"),
        other_task=names.other_task(gathered.seen), per_byte=per_byte,
    )  # fmt: skip


def _evaluations_with_steps(loose: Columns, problems: list[str]) -> Columns:
    """A validation loss in a row without a step is of the step before it (the first ones of that
    behind), if none has a step."""
    steps = loose["step"]
    without = np.isfinite(loose.get("val_loss", np.full(len(steps), np.nan))) & np.isnan(steps)
    if not without.any():
        return loose
    last = np.maximum.accumulate(np.where(np.isnan(steps), -1, np.arange(len(steps))))
    if np.isfinite(loose["val_loss"][~without]).any() or last[-1] < 0:
        problems.append(f"{without.sum():,} validation losses have no step: left out")
        return loose
    problems.append(f"{without.sum():,} validation losses have no step: taken for the one before")
    last[last < 0] = np.flatnonzero(~np.isnan(steps))[0]
    return loose | {"step": np.where(without, steps[last], steps)}


def _losses(path: Path, loose: Columns, known: dict[str, str], problems: list[str]) -> bool:
    """A loss from a perplexity or from bits per byte, where the log has nothing else; whether that
    of validation is so one per byte."""
    bits = False
    for loss, perplexity in (("loss", "perplexity"), ("val_loss", "val_perplexity")):
        if loss not in loose and perplexity in loose:
            named = next(foreign for foreign, ours in known.items() if ours == perplexity)
            if loss == "loss" and "train" not in named.lower() and _of_validation(loose):
                problems.append(f"{named[:40]}: of validation, as the loss beside it")
                continue
            with np.errstate(divide="ignore", invalid="ignore"):
                loose[loss] = np.log(loose[perplexity])
            problems.append(f"{loss} is ln({perplexity}); the log has no loss of its own")
        elif {loss, perplexity} <= set(loose) and not (loss == "loss" and _of_validation(loose)):
            bits = _in_bits(loss, loose, perplexity, problems)
        elif loss == "val_loss" in loose and bits:
            _to_nats(loss, loose, "that of training", problems)
    per_byte = "val_bpb" in loose and "val_loss" not in loose
    if per_byte:
        loose["val_loss"] = loose["val_bpb"] * names.LN_2
        problems.append("val_loss is bits per byte times ln 2: nats per byte, not per token")
    if not set(LOSSES) & set(loose):
        raise UserError(
            f"{path}: no loss column found. Known names are such as loss, train_loss, val_loss, "
            "perplexity; the log has to use one of them."
        )
    return per_byte


def _in_bits(name: str, loose: Columns, perplexity: str, problems: list[str]) -> bool:
    """Whether a loss is in bits, as its perplexity says and fairseq has it; it is in nats then."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = loose[perplexity] / np.exp(loose[name])
        of_bits = loose[perplexity] / np.exp2(loose[name])
    ratio, of_bits = ratio[np.isfinite(ratio)], of_bits[np.isfinite(of_bits)]
    if not len(ratio) or LEAST_RATIO < np.median(ratio) < MOST_RATIO:
        return False
    if len(of_bits) and abs(np.median(of_bits) - 1) < 1 - LEAST_RATIO:
        _to_nats(name, loose, "its perplexity", problems)
        return True
    problems.append(f"the perplexity is {np.median(ratio):.3g} times exp({name})")
    return False


def _to_nats(name: str, loose: Columns, says: str, problems: list[str]) -> None:
    problems.append(f"{name} is in bits, as {says} says: times ln 2, it is nats")
    loose[name] = loose[name] * names.LN_2


def _of_validation(loose: Columns) -> bool:
    """Whether `perplexity` is that of the validation loss, in whose rows alone it stands."""
    if "val_loss" not in loose:
        return False
    with np.errstate(divide="ignore", invalid="ignore"):
        loss = np.log(loose["perplexity"])
    has = np.isfinite(loss)
    return bool(has.any() and np.allclose(loss[has], loose["val_loss"][has], rtol=0.01))


def _of_one_run(loose: Columns, runs: list[str], problems: list[str]) -> Columns:
    """The rows of the run that a column names last, if it names several and not each row."""
    code = loose.pop(RUN, None)
    if code is None or not 1 < len(runs) <= len(code) / FEWEST_ROWS:
        return loose
    last = int(code[np.isfinite(code)][-1])
    problems.append(
        f"the rows of {len(runs) - 1:,} other runs: a column names {len(runs):,}, the last one is "
        f"{runs[last][:40]!r}"
    )
    return select(loose, code == last)


def _refuse_results(path: Path, loose: Columns) -> None:
    """A table with a row for each of many runs is no log of one."""
    steps = loose["step"][np.isfinite(loose["step"])]
    if len(steps) >= FEWEST_ROWS and (steps == steps[0]).all():
        raise UserError(
            f"{path}: all {len(steps):,} rows are of step {steps[0]:,.0f}: a table of results, "
            "not the log of a run."
        )


def _planned(loose: Columns) -> float | None:
    """The step to end at; fewer than were made are the steps of something else."""
    planned = _largest(loose, "planned")
    return planned if planned and planned >= (_largest(loose, "step") or 0) else None


def _largest(loose: Columns, name: str) -> float | None:
    values = loose.get(name, np.empty(0))
    values = values[np.isfinite(values) & (values > 0)]
    return float(values.max()) if len(values) else None


def _in_seconds(time: Array) -> Array:
    """Unix time in milli-, micro- or nanoseconds in seconds."""
    known = time[np.isfinite(time)]
    unit = 1.0
    while len(known) and np.median(known) / unit > 1e11:  # seconds of the year 5138
        unit *= 1000
    return time / unit


def _counted_on(name: str, loose: Columns, problems: list[str]) -> Array:
    """A counter that a resumed run began again while its steps went on, counted on."""
    values, steps = loose[name].copy(), loose["step"]
    at = np.flatnonzero(np.isfinite(values) & np.isfinite(steps))
    kept, going = values[at], steps[at]
    again = np.flatnonzero((kept[1:] < kept[:-1] / 2) & (going[1:] > going[:-1])) + 1
    others = np.delete(np.diff(kept), again - 1) if len(again) else np.empty(0)
    if not len(others) or len(again) > MOST_SESSIONS:
        return values
    if (others < 0).any() or (others > 0).mean() < 0.5:  # no counter
        return values
    if (kept[again] > FIRST * np.median(others[others > 0])).any():
        return values
    for i in again:
        values[at[i:]] += kept[i - 1]
    problems.append(f"{name} begins again at step {going[again[0]]:,.0f}: it is counted on")
    return values


def _rises(values: Array) -> bool:
    """Whether a column counts up, but for what a resumed run takes back. Rows may share a value."""
    values = values[np.isfinite(values)]
    return len(values) < 3 or bool((np.diff(values) >= 0).mean() > 0.8 and values[-1] > values[0])


def _of_rows(time: Array) -> bool:
    """Whether the few values of a column are durations, of epochs mostly: most are as before, and
    what is gained is little beside the first."""
    time = time[np.isfinite(time)]
    few = 3 <= len(time) <= EPOCHS and time[0] < 1e8  # not seconds since 1970
    little = few and time[-1] - time[0] < time[0] / 4
    return bool(little and (np.diff(time) > 0).mean() < 0.5)


def _without_abandoned(loose: Columns, problems: list[str]) -> Columns:
    """Without the evaluations of what a resumed run went back behind: those beyond the step at
    which training rows begin again. A row that came late, or stands apart, is no resume."""
    steps = loose["step"]
    trained = np.isfinite(loose.get("loss", np.full(len(steps), np.nan))) & np.isfinite(steps)
    if not trained.any():
        return loose
    falls = np.flatnonzero(np.diff(steps[trained]) < 0) + 1
    session = np.zeros(len(steps), dtype=int)
    session[np.flatnonzero(trained)[falls]] = 1
    session = np.cumsum(session)
    begins = np.full(len(falls) + 2, np.inf)
    highest = [-np.inf] * BEHIND  # steps before, in order
    for number, part in enumerate(np.split(steps[trained], falls)):
        if len(part) >= RESUMED and highest[0] > part[0]:
            begins[number] = part[0]
        highest = sorted([*highest, *part[-BEHIND:]])[-BEHIND:]
    resumed = np.minimum.accumulate(begins[::-1])[::-1][1:]  # where any later session begins
    gone = ~trained & (steps > resumed[session])
    if gone.any():
        problems.append(f"{gone.sum()} rows beyond a step to which the run went back: left out")
    return select(loose, ~gone)


def _table(
    loose: Columns, columns: tuple[str, ...], needs: tuple[str, ...], problems: list[str]
) -> Columns:
    """Rows that have a step and any of `needs`; a later row at or after the same step wins."""
    present = [loose[name] for name in needs if name in loose]
    n = len(loose["step"])
    mask = np.zeros(n, dtype=bool)
    for column in present:
        mask |= ~np.isnan(column)
    mask &= np.isfinite(loose["step"]) & (loose["step"] >= 0) & (loose["step"] < 2**53)
    table = {name: loose[name][mask] for name in columns if name in loose}
    table["step"] = loose["step"][mask]
    table = _merge(table, problems)
    table["attempt"] = _attempts(table["step"])
    keep = _latest(table["step"])
    if len(keep) < len(table["step"]):
        problems.append(
            f"{len(table['step']) - len(keep)} rows were written again for the same steps "
            f"({needs[0]}); the later ones count"
        )
    table = select(table, keep)
    missing = np.full(len(keep), np.nan)
    return table | {name: missing.copy() for name in columns if name not in table}


def _merge(table: Columns, problems: list[str]) -> Columns:
    """Neighbouring rows of one step as one row: the last value of each column that has one."""
    steps = table["step"]
    if not len(steps) or (np.diff(steps) != 0).all():
        return table
    starts = np.flatnonzero(np.concatenate([[True], np.diff(steps) != 0]))
    widths = np.diff(np.append(starts, len(steps)))
    merged = {}
    for name, values in table.items():
        last = np.maximum.reduceat(np.where(np.isnan(values), -1, np.arange(len(steps))), starts)
        merged[name] = np.where(last >= 0, values[last], np.nan)
        if name in LOSSES:
            lost = np.isfinite(values) & (values != np.repeat(merged[name], widths))
            if lost.any():
                problems.append(
                    f"{lost.sum():,} values of {name}: their steps have a later one beside them"
                )
    return merged


def _attempts(steps: Array) -> Array:
    """1, and one more each time the step falls back: what a resumed run appended."""
    return 1.0 + np.concatenate([[0.0], np.cumsum(np.diff(steps) < 0)])[: len(steps)]


def _latest(steps: Array) -> NDArray[np.intp]:
    """Rows that no later row went over again, by step. O(n log n)."""
    if not len(steps):
        return np.empty(0, dtype=np.intp)
    # What is written after row i starts again at the lowest later step: row i is replaced when
    # some later row of a later attempt has a step not above its own.
    later_low = np.minimum.accumulate(np.append(steps, np.inf)[::-1])[::-1][1:]
    keep = np.flatnonzero(steps < later_low)
    return keep[np.argsort(steps[keep], kind="stable")]


def _beside(eval_steps: Array, train_steps: Array, loss: Array) -> Array:
    """The training loss logged at the same step as each evaluation; NaN where there is none."""
    if not len(train_steps) or not len(eval_steps):
        return np.full(len(eval_steps), np.nan)
    at = np.clip(np.searchsorted(train_steps, eval_steps), 0, len(train_steps) - 1)
    return np.where(train_steps[at] == eval_steps, loss[at], np.nan)


def note(problems: list[str], problem: str) -> None:
    """Tell of a line that could not be read, if there were not too many before."""
    if len(problems) < MAX_PROBLEMS:
        problems.append(problem)
    elif len(problems) == MAX_PROBLEMS:
        problems.append("more lines could not be read")
