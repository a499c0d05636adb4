"""Values of a foreign log that nobody measured where they stand: what is written for NaN, for
"nothing", or once more from the row before."""

from __future__ import annotations

import numpy as np

from ...wording import counted
from ..tables import Array, Columns
from .loose import column
from .values import BROKEN, MEASURES

TRAINED = ("loss", "perplexity")
MAIN = (*TRAINED, "val_loss", "val_perplexity", "val_bpb")  # the first of them that a log has
BEYOND = 1e30  # a loss above it is as good as infinite, and can be neither drawn nor squared
FEWEST_ROWS = 5  # validation losses that a log needs before those behind them can have broken
ALIVE = 2  # validation losses, or perplexities: training losses that are all NaN are none
LEARNT = 0.1  # nats that a training loss has come down by, which moves validation, too
LARGE = 0.5  # nats; a loss does not come to 0 from there at once
ZEROS = 3  # training losses of exactly 0 at the end that are none
REPEATED = 10  # validation losses, at least, before they can be those of earlier rows
MOST_SESSIONS = 10  # of one run; a step that falls more often is in no order
PASSING, REGULARLY = 0.1, 3  # share of losses that are NaN for a moment; rows that come regularly
REGULAR = 0.9  # share of repetitions that are as long as the others, or a multiple


def measured(columns: Columns, problems: list[str]) -> Columns:
    """The columns without such values; a loss that broke for good is infinite from there on."""
    main = next((name for name in MAIN if name in columns), "")
    found = dict(columns)
    if "loss" in found:
        found["loss"] = _zeros(found["loss"], problems)
    if "val_loss" in found:
        found["val_loss"] = _placeholders(found["val_loss"], problems)
        _tell_broken(found, main, problems)
    others = (found.get(name, np.empty(0)) for name in ("val_loss", "perplexity"))
    alive = any(np.isfinite(other).sum() >= ALIVE for other in others)
    session = _sessions(found)
    logged = found.get("loss", np.empty(0))
    for name in MEASURES:
        if name in found:
            found[name] = _settled(name, found[name], session if name == main else None, alive)
    _tell_passing(logged, found, problems)
    if {"loss", "val_loss"} <= set(found):
        found["val_loss"] = _once(found["val_loss"], found["loss"], problems)
    return found


def _zeros(loss: Array, problems: list[str]) -> Array:
    """transformers adds nothing for a loss that is not finite, and prints 0 ever after."""
    at = np.flatnonzero(np.isfinite(loss))
    others = np.flatnonzero(loss[at] != 0)
    n = len(at) - 1 - int(others[-1]) if len(others) else 0
    if n < ZEROS or loss[at[-n - 1]] < LARGE:
        return loss
    problems.append(
        f"the last {n:,} training losses are exactly 0: what is printed for one that is not finite"
    )
    return np.where(np.isin(np.arange(len(loss)), at[-n:]), BROKEN, loss)


def _placeholders(val: Array, problems: list[str]) -> Array:
    """Without 0 or −1 where nothing was evaluated."""
    none, others = np.isin(val, (0.0, -1.0)), val[np.isfinite(val) & (val > 0)]
    if none.sum() < 2 or not len(others) or others.min() < LARGE:
        return val
    problems.append(
        f"{none.sum():,} validation losses are {val[none][0]:g}, which stands for none: left out"
    )
    return np.where(none, np.nan, val)


def _tell_broken(columns: Columns, main: str, problems: list[str]) -> None:
    """Of evaluations that gave NaN, in rows of their own; elsewhere NaN may be an empty cell."""
    broken = columns["val_loss"] == BROKEN
    if main in TRAINED:
        broken &= np.isnan(columns[main])
        if broken.any():
            problems.append(f"{counted(broken.sum(), 'validation loss')} not a number: left out")


def _tell_passing(logged: Array, columns: Columns, problems: list[str]) -> None:
    """Of training losses, as `logged`, that were NaN in a row of their own, seldom, not regularly,
    and not to the end: elsewhere NaN says that nothing was logged."""
    if not len(logged):
        return
    beside = np.isfinite(column(columns, "val_loss"))
    good = np.flatnonzero(np.isfinite(columns["loss"]))
    at = np.flatnonzero((logged == BROKEN) & np.isnan(columns["loss"]) & ~beside)
    at = at[at < max(good, default=0)]
    seldom = 0 < len(at) <= PASSING * len(good)
    if seldom and (len(at) < REGULARLY or np.ptp(np.diff(at)) > 0):
        problems.append(
            f"{counted(len(at), 'training loss')} not a number, and later ones are: left out"
        )


def _sessions(columns: Columns) -> Array:
    """A number for each row, and another one from where the step falls back, if it seldom does, and
    not behind an evaluation: steps may begin again in each epoch."""
    steps, val = column(columns, "step"), column(columns, "val_loss")
    highest = np.maximum.accumulate(np.nan_to_num(steps, nan=-np.inf))
    back = steps < highest
    falls = np.append(False, back[1:] & ~back[:-1] & ~np.isfinite(val[:-1]))
    return np.cumsum(falls) if falls.sum() <= MOST_SESSIONS else np.zeros(len(steps))


def _settled(name: str, values: Array, session: Array | None, alive: bool) -> Array:
    """The main loss of a log, which has the `session` of each row, written as NaN, broke if it
    stays so to the end for longer than ever before in one session (from the first row on, if
    validation is not `alive`): then it is infinite from there on. Elsewhere NaN is how a table says
    that nothing was logged."""
    values = np.where(values > BEYOND, np.inf, values)
    values = np.where(np.isfinite(values) & (values < -BEYOND), np.nan, values)
    if not (values == BROKEN).any():
        return values
    broken = values == BROKEN
    values = np.where(broken, np.nan, values)
    good = np.flatnonzero(np.isfinite(values))
    least = FEWEST_ROWS if name not in TRAINED else 1 if alive else 0
    if session is None or len(good) < least:
        return values
    within = np.diff(session[good]) == 0
    longest = int(np.diff(good)[within].max(initial=1)) - 1
    tail = np.arange(len(values)) > max(good, default=-1)
    if (broken & tail).sum() > longest:
        values[broken & tail] = np.inf
    return values


def _learns(loss: Array) -> bool:
    """Whether a training loss comes down."""
    loss = loss[np.isfinite(loss)]
    half = len(loss) // 2
    return bool(half and np.median(loss[:half]) - np.median(loss[half:]) > LEARNT)


def _once(val: Array, loss: Array, problems: list[str]) -> Array:
    """Each evaluation once, where rows of training say again what the last one gave: as regularly
    as evaluations are. Rounded losses of a plateau repeat as they happen to."""
    at = np.flatnonzero(np.isfinite(val))
    again = np.append(False, np.diff(val[at]) == 0)
    lengths = np.diff(np.flatnonzero(np.append(~again, True)))
    if len(lengths) > 1:
        lengths = lengths[:-1]  # the last may be cut short
    elif not _learns(loss[at]):
        return val
    if len(at) < REPEATED or len(lengths) == 0 or again.mean() < 0.5:
        return val
    usual = np.bincount(lengths).argmax()
    regular = usual > 1 and (lengths % usual == 0).mean() >= REGULAR
    if not regular or not np.isfinite(loss[at[again]]).any():
        return val
    problems.append(
        f"{again.sum():,} validation losses are those of the row before, said again: left out"
    )
    return np.where(np.isin(np.arange(len(val)), at[again]), np.nan, val)
