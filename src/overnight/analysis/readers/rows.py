"""Rows of any fields → the tables, whatever file they were in.

Objects may be nested one level (`{"train": {"loss": 3.1}}` is `train_loss`) and rows may be of
different kinds, such as one for training, one for evaluation, one with the settings.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import UserError
from ..tables import Log
from . import settings
from .columns import build
from .kinds import KIND_FIELDS, RUN_FIELDS, TRIED_FIELDS, named, of_row
from .loose import MAX_COLUMNS, Loose, note
from .names import normalise, of_one_run, rank, recognise, scale
from .values import BROKEN, LOSSES, MEASURES
from .values import number as parse

MAY_BREAK = {"loss", "grad_norm", "perplexity"}  # what is null where a loss is not finite
NULLS = 3  # rows of training with null for a loss, before it may be one that broke
CONFIG_FIELDS = ("config", "args", "hparams", "hyperparameters", "settings")


class _Kind(NamedTuple):
    """Rows with the same fields."""

    known: dict[str, str]  # foreign name → ours
    factors: dict[str, float]  # what a name is multiplied by
    about: list[str]  # fields that say what a row is of
    run: str | None  # the field that says of which run it is
    tried: list[str]  # fields that say what a row tried


def tables(
    path: Path,
    form: str,
    rows: Iterable[tuple[int, dict[str, Any]]],
    problems: list[str],
    header: Sequence[str] = (),
) -> Log:
    """The tables of numbered `rows` of any fields; with a `header` these are all there are, and
    each means the same in every row."""
    loose = Loose(problems)
    loose.known, loose.seen = recognise(header), dict.fromkeys(of_one_run(list(header)))
    config: dict[str, Any] | None = None
    kinds: dict[tuple[str, ...], _Kind] = {}
    summaries = not header or "loss" in map(normalise, header)
    others = 0
    for number, row in rows:
        if config is None:
            config = _config(row)
            if config is row:
                continue
        flat = _flatten(row, summaries)
        fields = tuple(flat)
        if fields not in kinds:
            if len(kinds) > MAX_COLUMNS and not header:
                note(problems, f"line {number}: too many kinds of rows")
                continue
            kinds[fields] = _kind(flat, loose, bool(header))
        kind = kinds[fields]
        for name in kind.tried:
            loose.said.setdefault(name, set()).add(str(row[name])[:80])
        values = _values(flat, kind, number, problems)
        if "val_loss" in values and not _first_set(values, flat, kind, loose):
            del values["val_loss"]
            others += 1
        if values:
            _watch(values, kind, loose)
            loose.add(values, flat[kind.run] if kind.run is not None else None)
    if others:
        problems.append(f"{others:,} val_loss of other sets at the same steps: the first counts")
    if not header:
        _split_train_loss(loose)
        _break_nulls(loose)
    if not loose.rows:
        lacks = "a header and no rows" if header else "no row with a known field"
        raise UserError(f"{path}: {lacks}; nothing to report on.")
    log = build(path, form, loose)
    log.config = settings.ours(config) if config is not None else None
    return log


def _kind(row: dict[str, Any], loose: Loose, headed: bool) -> _Kind:
    """What rows with the fields of `row` hold; without a header `loose` learns of them, too."""
    if headed:
        known = {name: loose.known[name] for name in row if name in loose.known}
    else:
        known = _agreed(recognise(row), loose.known)
        single = (n for n, v in row.items() if v is not None and not isinstance(v, dict | list))
        loose.seen |= dict.fromkeys(single)
        loose.known |= known
    factors = {name: scale(name, ours) for name, ours in known.items()}
    run = next(iter(named(RUN_FIELDS, row)), None)
    return _Kind(known, factors, named(KIND_FIELDS, row), run, named(TRIED_FIELDS, row))


def _values(row: dict[str, Any], kind: _Kind, number: int, problems: list[str]) -> dict[str, float]:
    """The numbers of a row by our names."""
    values = {}
    ours_of = of_row(kind.known, [row[name] for name in kind.about])
    broken = _says_broken({ours for name, ours in ours_of.items() if row[name] is None})
    for name, ours in ours_of.items():
        value = _number(row[name], ours, kind.factors[name])
        if row[name] is None and ours == broken:
            value = BROKEN
        if value is not None:
            values[ours] = value
        elif isinstance(row[name], str):
            note(problems, f"line {number}: {row[name][:40]!r} is not a number")
    return values


def _watch(values: dict[str, float], kind: _Kind, loose: Loose) -> None:
    """Take note of a row that holds what the last one with a loss did, but for that: a logger that
    writes null for all that it has not, as for a validation loss, writes it for NaN, too."""
    others = values.keys() - MAY_BREAK
    if "loss" in values:
        loose.beside = others
    elif "loss" in kind.known.values() and "lr" in others and others == loose.beside:
        loose.lossless.append(loose.rows)


def _break_nulls(loose: Loose) -> None:
    """Null for the loss of several rows is NaN; `unmeasured` decides whether it broke for good."""
    if len(loose.lossless) >= NULLS:
        for i in loose.lossless:
            loose.values["loss"][i] = BROKEN


def _first_set(values: dict[str, float], row: dict[str, Any], kind: _Kind, loose: Loose) -> bool:
    """Whether a validation loss is of the set that was the first to be evaluated at its step."""
    step, label = values.get("step"), tuple(row[name] for name in kind.about)
    if step is None or loose.held[:1] != (step,):
        loose.held = (step, label)
    return loose.held[1] == label


def _agreed(kind: dict[str, str], known: dict[str, str]) -> dict[str, str]:
    """The names of one kind of row, without a validation loss of another set than the one that
    rows before it had: `eval_b_loss` is not `eval_a_loss`; and without Lightning's mean over an
    epoch, `train_loss_epoch`, behind `train_loss_step`."""
    of_steps = {normalise(name) for name, ours in known.items() if ours == "loss"}
    means = {f"{name.removesuffix('_step')}_epoch" for name in of_steps if name.endswith("_step")}
    kind = {name: ours for name, ours in kind.items() if normalise(name) not in means}
    before = next((name for name, ours in known.items() if ours == "val_loss"), None)
    if before is None:
        return kind
    plainness = rank("val_loss", before)
    return {
        name: ours
        for name, ours in kind.items()
        if ours != "val_loss" or name == before or rank("val_loss", name) < plainness
    }


def _says_broken(nulls: set[str]) -> str:
    """Which loss is broken in a row that has null for these: JSON has no other word for NaN. Not
    where null stands for what cannot break, too; then it says that nothing was logged."""
    return "loss" if "loss" in nulls and nulls <= MAY_BREAK else ""


def _flatten(row: dict[str, Any], summaries: bool) -> dict[str, Any]:
    """`summaries`: whether one row may be that of transformers, at its end."""
    if summaries and "train_runtime" in row:  # its loss is the mean of the whole run
        row = {name: value for name, value in row.items() if name != "train_loss"}
    if isinstance(both := row.get("global_step/max_steps"), str):  # ms-swift: "10/438"
        step, _, end = both.partition("/")
        row = row | {"global_step": step, "max_steps": end}
    if not any(isinstance(v, dict) for v in row.values()):
        return row
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict) and name not in CONFIG_FIELDS:
            flat |= {f"{name}_{inner}": v for inner, v in list(value.items())[:MAX_COLUMNS]}
        else:
            flat[name] = value
    return flat


def _number(value: Any, name: str, scale: float) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        try:
            value = float(value)
        except OverflowError:
            return None
        return BROKEN if value != value and name in MEASURES else value * scale
    if isinstance(value, str) and len(value) < 400:
        return parse(value, name, scale)
    return None


def _config(row: dict[str, Any]) -> dict[str, Any] | None:
    """The settings that a row holds, or is where it has neither a step nor a loss."""
    for name in CONFIG_FIELDS:
        if isinstance(row.get(name), dict):
            return dict(row[name])
    measured = {"step", *LOSSES} & set(recognise(row).values())
    return row if settings.WORDS & row.keys() and not measured else None


def _split_train_loss(loose: Loose) -> None:
    """Rows of one kind say `loss`, those of another `train_loss` (or `train`) beside a validation
    loss: the second is an estimator of its own (a mean over the evaluation), no micro-batch."""
    plain = {normalise(name) for name in loose.seen}
    held = next((name for name in ("val_loss", "test_loss") if name in loose.values), None)
    if "loss" not in plain or not plain & {"train_loss", "train"} or held is None:
        return
    loss, val = loose.values["loss"], loose.values[held]
    both = [i for i in range(loose.rows) if val[i] == val[i] and loss[i] == loss[i]]
    if not both or len(both) == sum(v == v for v in loss):
        return
    nan = float("nan")
    beside = loose.values.setdefault("train_loss", array("d", [nan]) * loose.rows)
    for i in both:
        if beside[i] != beside[i]:
            beside[i], loss[i] = loss[i], nan
