"""Foreign column names → ours, and loose columns → the two tables.

Shared by the readers of plain CSV and JSONL, where a row may hold anything: a training loss, a
validation loss, both, or neither, and a resumed run may have appended from an earlier step on.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import UserError
from ..tables import EVAL, TRAIN, Array, Columns, Log, select
from .steps import in_order, with_steps
from .values import BROKEN, LOSSES

SYNONYMS = {
    "step": "step steps iter iters iteration iterations global_step trainer_global_step update "
    "updates num_updates train_step optimizer_step it",
    "epoch": "epoch epochs train_epoch trainer_epoch",
    "loss": "loss train_loss training_loss tr_loss loss_train train_loss_step batch_loss "
    "train_batch_loss lm_loss train_lm_loss train_cross_entropy cross_entropy train_ce ce_loss ce "
    "train_nll nll nll_loss xent avg_loss mean_loss loss_avg loss_mean avg_train_loss "
    "train_loss_avg train_loss_mean train_loss_epoch running_loss losses_train trn_loss "
    "trainloss train",
    "val_loss": "val_loss valid_loss validation_loss eval_loss loss_val loss_eval dev_loss "
    "test_loss val_loss_epoch val_lm_loss loss_valid val_cross_entropy val_ce valid_ce eval_ce "
    "val_nll valid_nll eval_nll test_nll avg_val_loss val_loss_avg val_loss_mean mean_val_loss "
    "losses_val losses_valid validation_cross_entropy vloss valloss val valid validation",
    "val_se": "val_se val_loss_se eval_se val_stderr",
    "perplexity": "perplexity ppl train_ppl train_perplexity train_perplexity_step",
    "val_perplexity": "val_ppl val_perplexity valid_ppl eval_ppl eval_perplexity "
    "validation_perplexity",
    "val_bpb": "val_bpb eval_bpb bpb bits_per_byte val_bits_per_byte",
    "lr": "lr learning_rate lr_adamw lr_adam lr_0 train_lr train_learning_rate",
    "tokens_per_s": "tokens_per_s tokens_per_sec tokens_per_second tokens_s tok_s tok_per_s "
    "tok_per_sec tok_sec toks_per_sec tps tokens_sec throughput train_tokens_per_second",
    "grad_norm": "grad_norm gradient_norm gnorm norm train_grad_norm",
    "tokens": "tokens tokens_seen total_tokens num_tokens n_tokens consumed_tokens "
    "tokens_processed train_tokens num_input_tokens_seen",
    "time": "time timestamp elapsed elapsed_s elapsed_time elapsed_sec elapsed_seconds "
    "wall_time walltime wall time_s runtime train_runtime",
}
OURS = {name: ours for ours, names in SYNONYMS.items() for name in names.split()}
MAX_COLUMNS = 512
# A column that says of each row what it is about, and the words that mean validation.
KIND_FIELDS = ("type", "event", "split", "phase", "mode", "kind", "stage", "dataset")
VALIDATION = ("val", "valid", "validation", "eval", "evaluation", "dev", "test")
LN_2 = float(np.log(2))
BEYOND = 1e30  # a loss above it is as good as infinite, and can be neither drawn nor squared
BITS = re.compile(r"(?<![a-z])bits(?![a-z])")
PREFIXES = ("metrics", "metric", "logs", "log", "scalars", "scalar", "data", "stats", "history")


def normalise(name: str) -> str:
    """`Train/Loss (nats)`, `trainLoss` and W&B's `run-7 - train/loss` → `train_loss`."""
    name = re.sub(r"\(.*?\)|\[.*?\]", "", name.rpartition(" - ")[2])
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return re.sub(r"[^a-z0-9]+", "_", name.lower().replace("%", "pct")).strip("_")


def ours_of(name: str) -> str | None:
    """Our name of a foreign column, None if it is not known. A `train_` in front of what is no
    loss, and words such as `metrics_`, say nothing."""
    plain = normalise(name)
    for prefix in PREFIXES:
        if plain not in OURS:
            plain = plain.removeprefix(f"{prefix}_")
    found = OURS.get(plain)
    if found is None and plain.startswith(("train_", "perf_", "optim_", "trainer_")):
        found = OURS.get(plain.partition("_")[2])
        return None if found in ("loss", "val_loss", "perplexity", "val_perplexity") else found
    return found


def recognise(names: Iterable[str]) -> dict[str, str]:
    """Foreign name → ours, for the names known. Where two name the same thing, the plainest
    (earliest in SYNONYMS) counts; a `train_loss` beside a `loss` is the loss of evaluations."""
    found: dict[str, str] = {}
    for name in names:
        ours = ours_of(name)
        if ours is None:
            continue
        rival = next((f for f, o in found.items() if o == ours), None)
        if rival is None:
            found[name] = ours
        elif _rank(ours, name) < _rank(ours, rival):
            found[name] = found.pop(rival)
    if "loss" in found.values():
        taken = next(f for f, o in found.items() if o == "loss")
        for name in names:
            plain = normalise(name)
            if name != taken and normalise(taken) == "loss" and plain == "train_loss":
                found[name] = "train_loss"
    return found


def _rank(ours: str, name: str) -> int:
    names = SYNONYMS[ours].split()
    if name.startswith("_"):  # W&B's own counters: of calls to log, of seconds
        return len(names) + 1
    return names.index(plain) if (plain := normalise(name)) in names else len(names)


def other_runs(names: Iterable[str], known: dict[str, str]) -> list[str]:
    """Runs whose columns (`RUN - NAME`, as W&B exports several in one table) are not read."""
    runs = {name.rpartition(" - ")[0] for name in known if ours_of(name) in LOSSES}
    more = (name.rpartition(" - ")[0] for name in names if ours_of(name) in LOSSES)
    return sorted({run for run in more if run and runs and run not in runs})


class Loose:
    """Columns that grow row by row, eight bytes a value."""

    def __init__(self) -> None:
        self.rows = 0
        self.values: dict[str, array[float]] = {}

    def add(self, row: dict[str, float]) -> None:
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


def build(path: Path, form: str, loose: Columns, known: dict[str, str], log: list[str]) -> Log:
    """The tables of a plain log. `loose`: our names → values in the order of the file."""
    loose = {name: _settled(name, values) for name, values in loose.items()}
    problems = list(log)
    for loss, perplexity in (("loss", "perplexity"), ("val_loss", "val_perplexity")):
        if loss not in loose and perplexity in loose:
            with np.errstate(divide="ignore", invalid="ignore"):
                loose[loss] = np.log(loose[perplexity])
            problems.append(f"{loss} is ln({perplexity}); the log has no loss of its own")
    if "val_bpb" in loose and not {"loss", "val_loss", "train_loss"} & set(loose):
        loose["val_loss"] = loose["val_bpb"] * LN_2
        problems.append("val_loss is bits per byte times ln 2: nats per byte, not per token")
    elif "val_bpb" in loose and "val_loss" not in loose:
        problems.append("validation is in bits per byte alone, which no train loss compares with")
    if not {"loss", "val_loss", "train_loss"} & set(loose):
        raise UserError(
            f"{path}: no loss column found. Known names are such as loss, train_loss, val_loss, "
            "perplexity; the log has to use one of them."
        )
    loose = _in_nats(loose, known, problems)
    loose = in_order(with_steps(loose, problems), problems)
    for name in ("tokens", "time"):
        if name in loose and not _rises(loose[name]):
            problems.append(f"{name} does not rise, so it is of a row and not of the run: left out")
            del loose[name]
    train = _table(loose, TRAIN, ("loss", "lr", "tokens_per_s", "grad_norm"), problems)
    wanted = ("val_loss", "train_loss") if "train_loss" in loose else ("val_loss",)
    evals = _table(loose, EVAL, wanted, problems)
    if "train_loss" not in loose and "loss" in loose:
        evals["train_loss"] = _beside(evals["step"], train["step"], train["loss"])
    return Log(path, form, train, evals, columns=known, problems=problems)


def _in_nats(loose: Columns, known: dict[str, str], problems: list[str]) -> Columns:
    """Losses whose name says that they are in bits, in nats."""
    for foreign, ours in known.items():
        if ours in LOSSES and ours in loose and BITS.search(foreign.lower()):
            loose[ours] = loose[ours] * LN_2
            problems.append(f"{foreign[:40]} is in bits: times ln 2, it is nats")
    return loose


def _rises(values: Array) -> bool:
    """Whether a column counts up, but for what a resumed run takes back. Rows may share a value."""
    values = values[np.isfinite(values)]
    return len(values) < 3 or bool((np.diff(values) >= 0).mean() > 0.8 and values[-1] > values[0])


def _settled(name: str, values: Array) -> Array:
    """A loss written as NaN broke if it stays so to the end for longer than ever before: then it
    is infinite from there on. Elsewhere NaN is how a table says that nothing was logged."""
    if name not in LOSSES:
        return values
    values = np.where(values > BEYOND, np.inf, values)
    if not (values == BROKEN).any():
        return values
    broken = values == BROKEN
    values = np.where(broken, np.nan, values)
    good = np.flatnonzero(np.isfinite(values))
    if name != "loss" or not len(good):
        return values
    longest = int(np.diff(good).max(initial=1)) - 1
    tail = np.arange(len(values)) > good[-1]
    if (broken & tail).sum() > longest:
        values[broken & tail] = np.inf
    return values


def _table(
    loose: Columns, names: tuple[str, ...], needs: tuple[str, ...], problems: list[str]
) -> Columns:
    """Rows that have a step and any of `needs`; a later row at or after the same step wins."""
    present = [loose[name] for name in needs if name in loose]
    n = len(loose["step"])
    mask = np.zeros(n, dtype=bool)
    for column in present:
        mask |= ~np.isnan(column)
    mask &= np.isfinite(loose["step"]) & (loose["step"] >= 0) & (loose["step"] < 2**53)
    table = {name: loose[name][mask] for name in names if name in loose}
    table["step"] = loose["step"][mask]
    table = _merge(table)
    table["attempt"] = _attempts(table["step"])
    keep = _latest(table["step"], table["attempt"])
    if len(keep) < len(table["step"]):
        problems.append(
            f"{len(table['step']) - len(keep)} rows were written again for the same steps "
            f"({needs[0]}); the later ones count"
        )
    table = select(table, keep)
    missing = np.full(len(keep), np.nan)
    return table | {name: missing.copy() for name in names if name not in table}


def _merge(table: Columns) -> Columns:
    """Neighbouring rows of one step as one row: the last value of each column that has one."""
    steps = table["step"]
    if not len(steps) or (np.diff(steps) != 0).all():
        return table
    starts = np.flatnonzero(np.concatenate([[True], np.diff(steps) != 0]))
    merged = {}
    for name, values in table.items():
        last = np.maximum.reduceat(np.where(np.isnan(values), -1, np.arange(len(steps))), starts)
        merged[name] = np.where(last >= 0, values[last], np.nan)
    return merged


def _attempts(steps: Array) -> Array:
    """1, and one more each time the step falls back: what a resumed run appended."""
    return 1.0 + np.concatenate([[0.0], np.cumsum(np.diff(steps) < 0)])[: len(steps)]


def _latest(steps: Array, attempts: Array) -> NDArray[np.intp]:
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
