"""The rows of the report's tables: evaluations, checkpoints, samples, events, passes, phases, and
the training curve."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..ledger import perplexity
from .findings import (
    Best,
    Curve,
    Evaluation,
    Happened,
    Pass,
    Phase,
    Sampled,
    Saved,
    Schedule,
    known,
)
from .series import Series
from .tables import Array, Log, of_finite

POINTS = 1000  # of the thinned curve
MOST = 500  # samples and events that are shown
MAX_TEXT = 4000  # characters of one sample


def evaluations(log: Log, series: Series, best: Best | None) -> list[Evaluation]:
    """Every evaluation with a finite or non-finite loss, by step."""
    table = log.eval
    start = _start_time(log)
    gap_of = dict(zip(series.steps.tolist(), series.probe.tolist(), strict=True))
    tied = set(best.tied_steps) if best and best.validated else set()
    found = []
    for i, step in enumerate(table["step"].tolist()):
        val, train = table["val_loss"][i], gap_of.get(step, math.nan)
        train_se, val_se = table["probe_se"][i], table["val_se"][i]
        found.append(
            Evaluation(
                step=int(step),
                tokens=known(table["tokens"][i]),
                passes=known(table["passes"][i]),
                seconds=known(table["time"][i] - start),
                lr=known(_at(log.train["step"], log.train["lr"], step)),
                val_loss=known(val),
                val_se=known(val_se),
                val_perplexity=None if log.per_byte else known(perplexity(val)),
                val_bpb=known(table["val_bpb"][i]),
                train_loss=known(train),
                train_se=known(train_se),
                train_perplexity=known(perplexity(train)),
                gap=known(val - train),
                gap_se=known(math.hypot(val_se, train_se)),
                best=bool(tied) and best is not None and int(step) == best.step,
                tied=int(step) in tied,
            )
        )
    return found


def _at(steps: Array, values: Array, step: float) -> float:
    """The value logged at `step` or last before it."""
    logged = np.isfinite(values)
    steps, values = steps[logged], values[logged]
    i = int(np.searchsorted(steps, step, side="right")) - 1
    return float(values[i]) if i >= 0 else math.nan


def _start_time(log: Log) -> float:
    times = [t["time"][np.isfinite(t["time"])] for t in (log.train, log.eval)]
    started = [s["started"] for s in log.session]
    return float(min([*(t[0] for t in times if len(t)), *started], default=math.nan))


def checkpoints(log: Log, best: Best | None) -> list[Saved]:
    """Every checkpoint written, with the validation loss at its step."""
    losses = dict(zip(log.eval["step"].tolist(), log.eval["val_loss"].tolist(), strict=True))
    tied = set(best.tied_steps) if best and best.validated else set()
    return [
        Saved(
            step=row["step"],
            path=str(row["path"]),
            bytes=row.get("bytes"),
            seconds=row.get("seconds"),
            reason=str(row.get("reason", "")),
            present=row.get("present"),
            val_loss=known(losses.get(row["step"], math.nan)),
            best=bool(tied) and best is not None and row["step"] == best.step,
            tied=row["step"] in tied,
        )
        for row in log.checkpoint
    ]


def samples(log: Log) -> list[Sampled]:
    return [
        Sampled(
            step=row["step"],
            prompt=str(row["prompt"])[:MAX_TEXT],
            text=str(row["text"])[:MAX_TEXT],
            tokens=row["tokens"],
        )
        for row in log.sample[-MOST:]
    ]


def events(log: Log) -> list[Happened]:
    return [
        Happened(
            step=row["step"],
            attempt=row["attempt"],
            kind=str(row["kind"]),
            message=str(row["message"])[:MAX_TEXT],
        )
        for row in log.event[:MOST]
    ]


def passes(log: Log) -> list[Pass]:
    """One row per time through the text: by passes where known, else by logged epochs."""
    train = log.train
    own = bool(np.isfinite(train["passes"]).any())
    counter = train["passes"] if own else train["epoch"]
    good = np.isfinite(counter)
    if not good.any():
        return []
    # a share of a pass: what ends at 1.0, or a part of a step behind it, belongs to the first, as
    # does an evaluation there
    exact = own or bool((np.mod(counter[good], 1) != 0).any())
    behind = counter - _per_step(train["step"][good], counter[good])
    number = np.where(good, np.maximum(np.ceil(behind) - 1, 0) if exact else np.floor(counter), -1)
    found, values = [], np.unique(number[good])[:MOST]
    begins = [train["step"][number == value][0] for value in values]
    for value, begin, end in zip(values, begins, [*begins[1:], np.inf], strict=True):
        mine = number == value
        steps = train["step"][mine]
        inside = (log.eval["step"] >= begin) & (log.eval["step"] < end)
        vals = log.eval["val_loss"][inside & np.isfinite(log.eval["val_loss"])]
        found.append(
            Pass(
                number=int(value) + (1 if exact else 0),
                from_step=int(steps[0]),
                to_step=int(steps[-1]),
                train_loss=of_finite(np.mean, train["loss"][mine]),
                val_loss=float(vals[-1]) if len(vals) else None,
                tokens_per_s=of_finite(np.median, train["tokens_per_s"][mine]),
            )
        )
    return found


def _per_step(steps: Array, counter: Array) -> float:
    """Passes in a step, or hardly less."""
    if len(steps) < 2:
        return 0.0
    return float((1 - 1e-6) * np.median(np.diff(counter) / np.maximum(np.diff(steps), 1)))


def phases(log: Log, rates: Schedule) -> list[Phase]:
    """Warm-up, then thirds of the rest, each with the slope of the training loss."""
    keep = np.isfinite(log.train["loss"])
    steps, loss = log.train["step"][keep], log.train["loss"][keep]
    # the last row of a run may be of fewer steps than the others
    rows = np.nan_to_num(log.train["steps"][keep], nan=1.0)
    if len(steps) < 12:
        return []
    warm = float(min(rates.warmup_steps or 0, steps[-1]))
    cuts = np.concatenate([[-1.0, warm], warm + (steps[-1] - warm) * np.array([1, 2, 3]) / 3])
    names = ("warm-up", "first third", "middle third", "last third")
    found = []
    for name, low, high in zip(names, cuts[:-1], cuts[1:], strict=True):
        mine = (steps > low) & (steps <= high)
        if mine.sum() < 3:
            continue
        edge = max(1, int(mine.sum()) // 5)
        first, last = (
            float(np.average(loss[mine][part], weights=rows[mine][part]))
            for part in (slice(edge), slice(-edge, None))
        )
        slope = np.polyfit(steps[mine] / 1000, loss[mine], 1, w=np.sqrt(rows[mine]))[0]
        found.append(
            Phase(
                name=name,
                from_step=int(steps[mine][0]),
                to_step=int(steps[mine][-1]),
                loss_from=first,
                loss_to=last,
                per_1000=float(slope),
            )
        )
    return found


def curve(log: Log) -> Curve:
    """At most POINTS points of the training rows: means over equal bins of rows."""
    train, n = log.train, len(log.train["step"])
    edges = np.unique(np.linspace(0, n, min(n, POINTS) + 1).astype(int))
    start = _start_time(log)
    bins = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))

    def over(name: str, take: Any) -> list[float | None]:
        return [of_finite(take, train[name][low:high]) for low, high in bins]

    seconds = over("time", np.max)
    return Curve(
        step=[float(train["step"][high - 1]) for _, high in bins],
        tokens=over("tokens", np.max),
        seconds=[None if t is None else t - start for t in seconds],
        loss=over("loss", np.mean),
        low=over("loss", np.min),
        high=over("loss", np.max),
        lr=over("lr", np.mean),
        tokens_per_s=over("tokens_per_s", np.median),
        grad_norm=over("grad_norm", np.mean),
        rows_per_point=int(np.ceil(n / max(len(bins), 1))) if n else 0,
    )
