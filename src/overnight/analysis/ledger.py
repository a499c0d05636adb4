"""The ledger of a run from its log, and the log's figures checked against each other."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from scipy import ndimage

from ..ledger import Ledger as Units
from .findings import Check, Ledger, Number, Session
from .tables import Array, Columns, Log, of_finite, select

SLOW = 0.8  # of the median speed
TOLERANCE = 0.02  # beyond which two figures disagree
AROUND = 5  # gaps between rows that show what is usual there
# Seconds between rows, and times the usual ones of a step, that are a pause
PAUSE, PAUSES = 600.0, 20
FEWEST = 200  # rows of counters: epochs rounded to two digits tell 2 % from about 100 on


def units(log: Log) -> Units | None:
    """The arithmetic of the run, from its last start row."""
    return next(filter(None, map(_units, reversed(log.session))), None)


def _units(session: dict[str, Any]) -> Units | None:
    try:
        made = msgspec.convert(session.get("ledger"), Units)
    except msgspec.ValidationError:
        return None
    counts = (made.batch, made.micro_batch, made.context, made.train_tokens, made.ranks)
    return made if min(counts) > 0 else None


def ledger(log: Log) -> Ledger:
    """Steps, tokens, passes and seconds of the run and of each session."""
    train, own = log.train, units(log)
    ends = [t[-1] for t in (train["step"], log.eval["step"]) if len(t)]
    reached = [s["to_step"] for s in log.session[-1:]] or [log.reached or 0]
    last = int(max([*ends, *reached], default=0))
    first = int(min((t[0] for t in (train["step"], log.eval["step"]) if len(t)), default=0))
    tokens = own.tokens(last) if own else _last(train["tokens"])
    paces, _ = speeds(log)
    middle = of_finite(np.median, paces)
    every = _log_every(train["step"])
    sessions = [_session(s, log) for s in log.session]
    return Ledger(
        steps=last,
        first_step=first,
        micro_steps=own.micro_steps(last) if own else None,
        tokens=int(tokens) if tokens is not None else None,
        passes=own.passes(last) if own else _last(train["passes"]),
        epochs=_last(np.sort(np.concatenate([train["epoch"], log.eval["epoch"]]))),
        tokens_per_step=own.tokens_per_step if own else None,
        train_tokens=own.train_tokens if own else None,
        seconds=_total(s.seconds for s in sessions) if sessions else _seconds(log),
        pause_seconds=None if sessions or log.seconds is not None else _pauses(log),
        train_seconds=_total(s.train_seconds for s in sessions),
        eval_seconds=_total(s.eval_seconds for s in sessions),
        save_seconds=_total(s.save_seconds for s in sessions),
        tokens_per_s=of_finite(np.median, train["tokens_per_s"]),
        step_seconds=of_finite(np.median, train["step_seconds"]),
        slow_share=float(np.mean(paces < SLOW * middle)) if middle else None,
        logged_points=len(train["step"]),
        log_every=every,
        missing_points=_missing(train["step"]),
        sessions=sessions,
        checks=checks(log, own),
    )


def speeds(log: Log) -> tuple[Array, str]:
    """The speed of each training row that tells it, and what it counts in a second."""
    tokens, seconds = log.train["tokens_per_s"], log.train["step_seconds"]
    if np.isfinite(tokens).any():
        return tokens[np.isfinite(tokens)], "tokens"
    return 1 / seconds[np.isfinite(seconds)], "steps"


def _session(session: dict[str, Any], log: Log) -> Session:
    worked: dict[int, int] = session.get("worked") or {session["attempt"]: 0}
    mine = np.isin(log.train["attempt"], list(worked))
    steps, own = sum(worked.values()), _units(session)
    wall = session["ended"] - session["started"]
    train = log.train["seconds"][mine]
    evaluating = log.eval["seconds"][np.isin(log.eval["attempt"], list(worked))]
    saving = sum(float(row["seconds"]) for row in log.checkpoint if row["attempt"] in worked)
    return Session(
        attempt=session["attempt"],
        from_step=session["from_step"],
        to_step=session["to_step"],
        steps=steps,
        returns=len(worked) - 1,
        tokens=steps * own.tokens_per_step if own else None,
        seconds=session.get("seconds", wall if np.isfinite(wall) and wall >= 0 else None),
        train_seconds=session.get("train_seconds", float(np.nansum(train))),
        eval_seconds=session.get("eval_seconds", float(np.nansum(evaluating))),
        save_seconds=session.get("save_seconds", saving),
        tokens_per_s=of_finite(np.median, log.train["tokens_per_s"][mine]),
        reason=session.get("reason"),
        started=session["started"],
    )


def checks(log: Log, own: Units | None) -> list[Check]:
    """Figures that are logged and can also be computed from others."""
    train, found = log.train, []
    if own:
        train = select(train, train["step"] > own.since_step)
        with np.errstate(divide="ignore", invalid="ignore"):
            each = (train["tokens"] - own.since_tokens) / (train["step"] - own.since_step)
        found += _check("tokens per step", each, np.full(len(each), float(own.tokens_per_step)))
        found += _check("passes", train["passes"], train["tokens"] / own.train_tokens)
    width = np.diff(train["step"], prepend=np.nan)
    spent = np.where(np.isfinite(train["seconds"]), train["seconds"], np.nan)
    if own is not None:
        steps = np.where(np.isfinite(train["steps"]), train["steps"], width)
        with np.errstate(divide="ignore", invalid="ignore"):
            speed = steps * own.tokens_per_step / spent
        found += _check("tokens per second", train["tokens_per_s"], speed)
    return found + _clock(log) + _epochs(log)


def _epochs(log: Log) -> list[Check]:
    """Tokens that a foreign log counts in an epoch: in the second half of its rows as in the first,
    where that is the same at first (of coarse epochs it is not). Tokens in a step may change."""
    train, n = log.train, len(log.train["step"])
    if log.session or n < FEWEST:
        return []
    tokens, epoch = train["tokens"], train["epoch"]
    with np.errstate(divide="ignore", invalid="ignore"):
        early = ((tokens - tokens[0]) / (epoch - epoch[0]))[n // 4 : 3 * n // 8]
        late = ((tokens - tokens[n // 2]) / (epoch - epoch[n // 2]))[3 * n // 4 :]
        steady = np.ptp(early) < TOLERANCE * np.median(early)
    if not steady:
        return []
    usual = np.full(len(late), np.median(early))
    return _check("tokens an epoch in the second half", late, usual)


def _clock(log: Log) -> list[Check]:
    """Tokens counted against speed × time, for a log that has all three."""
    train = log.train
    if log.session or not np.isfinite(train["tokens"]).any():
        return []
    seconds = np.diff(train["time"])
    with np.errstate(divide="ignore", invalid="ignore"):
        speed = np.diff(train["tokens"]) / seconds
    return _check("tokens per second", train["tokens_per_s"][1:], speed)


def _check(what: str, logged: Array, computed: Array) -> list[Check]:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = logged / computed
    good = np.isfinite(ratio) & (ratio > 0)
    if good.sum() < 3:
        return []
    middle = float(np.median(ratio[good]))
    at = int(np.argsort(np.where(good, np.abs(ratio - middle), np.inf))[0])
    return [
        Check(
            what=what,
            logged=float(logged[at]),
            computed=float(computed[at]),
            ratio=middle,
            agrees=abs(middle - 1) <= TOLERANCE,
        )
    ]


def _seconds(log: Log) -> float | None:
    """As a foreign log says, else from its clock."""
    return log.seconds if log.seconds is not None else elapsed(log.train, log.eval)


def elapsed(train: Columns, evals: Columns) -> float | None:
    """Seconds between the first and last timed row."""
    times = _times(train, evals)
    return float(np.ptp(times)) if len(times) > 1 else None


def _pauses(log: Log) -> float | None:
    """Seconds of the clock between training rows that are too many for the steps between them, and
    not of an evaluation."""
    timed = select(log.train, np.isfinite(log.train["time"]))
    times, gaps = timed["time"], np.diff(timed["time"])
    if not len(gaps):
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        pace = gaps / np.diff(timed["step"])
    evaluated = np.zeros(len(gaps) + 1, dtype=bool)
    evaluated[np.searchsorted(np.maximum.accumulate(times), log.eval["time"]) - 1] = True
    usual = np.median(pace[pace > 0]) if (pace > 0).any() else np.inf
    long = (gaps > PAUSE) & (pace > PAUSES * usual) & ~evaluated[:-1]
    return float(gaps[long].sum()) or None


def _times(train: Columns, evals: Columns) -> Array:
    times = np.concatenate([train["time"], evals["time"]])
    return np.sort(times[np.isfinite(times)])


def _log_every(steps: Array) -> float | None:
    return float(np.median(np.diff(steps))) if len(steps) > 2 else None


def _missing(steps: Array) -> int:
    """Points that would fill the wide gaps: those wider than usual before them and behind them."""
    gaps = np.diff(steps)
    if len(gaps) < 2:
        return 0
    before, behind = (ndimage.median_filter(gaps, AROUND, mode="mirror", origin=side)
                      for side in (AROUND // 2, -(AROUND // 2)))  # fmt: skip
    return int(np.maximum(np.round(gaps / np.maximum(before, behind)) - 1, 0).sum())


def _last(column: Array) -> float | None:
    return of_finite(lambda known: known[-1], column)


def _total(values: Any) -> Number:
    known = [v for v in values if v is not None]
    return float(sum(known)) if known else None
