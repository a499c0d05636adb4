"""The learning rate, read from the logged values, and compared with what the settings say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .findings import Schedule
from .tables import Array, Columns, finite

FITS = 0.005  # largest deviation from a shape, as a share of the peak: logs round to 3 digits
LINEAR = 0.05  # largest deviation of a warm-up from a line through zero, likewise
SOON = 0.1  # of a warm-up: a log that begins later has not seen its beginning
ENOUGH = 5  # logged rates below which no shape is named
GRID = 400  # rows that the shapes are fitted to

# Where the decay may end, as a multiple of the last logged step: it may not have got there yet.
ENDS = np.concatenate([1 + np.linspace(0, 0.1, 21), np.linspace(1.12, 4.0, 40)])

Shape = Callable[[Array], Array]  # share of the decay done (0…1) → share of the rate lost (0…1)
SHAPES: dict[str, Shape] = {
    "linear": lambda u: u,
    "cosine": lambda u: (1 - np.cos(np.pi * u)) / 2,
    "one_minus_sqrt": lambda u: np.sqrt(u),
}


def schedule(train: Columns, config: dict[str, Any] | None, planned: int | None) -> Schedule:
    """Kind, warm-up, peak and end, from the `lr` column; `planned`: the step it should end at."""
    keep = finite(train["step"], train["lr"]) & (train["lr"] >= 0)
    steps, lr = train["step"][keep], train["lr"][keep]
    configured = _configured(config)
    if not len(lr) or lr.max() <= 0:
        return Schedule(
            kind="unknown", warmup_steps=None, peak=None, first=None, end=None, end_ratio=None,
            decay_from=None, still_warming=False, residual=None, n=len(lr), **configured,
        )  # fmt: skip
    peak = float(lr.max())
    level = lr >= peak * (1 - FITS)
    top, last_top = int(np.argmax(level)), len(lr) - 1 - int(np.argmax(level[::-1]))
    warmup, still = _warmup(steps, lr, peak, top)
    kind, residual = _kind(steps, lr, peak, int(np.argmax(lr)), warmup or 0, planned)
    decays = last_top < len(lr) - 1
    return Schedule(
        kind=kind,
        warmup_steps=warmup,
        peak=peak,
        first=float(lr[0]),
        end=float(lr[-1]),
        end_ratio=float(lr[-1] / peak),
        decay_from=int(steps[last_top]) if decays else None,
        still_warming=still,
        residual=residual,
        n=len(lr),
        **configured,
    )


def _configured(config: dict[str, Any] | None) -> dict[str, Any]:
    section = (config or {}).get("schedule")
    if not isinstance(section, dict):
        return {"configured": None, "configured_warmup": None, "configured_end_ratio": None}
    warmup, ratio = section.get("warmup"), section.get("min_ratio")
    return {
        "configured": str(section.get("kind")) if section.get("kind") else None,
        "configured_warmup": int(warmup) if isinstance(warmup, int) else None,
        "configured_end_ratio": float(ratio) if isinstance(ratio, int | float) else None,
    }


def _warmup(steps: Array, lr: Array, peak: float, top: int) -> tuple[int | None, bool]:
    """(steps of linear warm-up from zero, 0 if there is none, None if it was not seen; whether
    the log ends before the peak is reached)."""
    if len(lr) < ENOUGH:
        return None, False
    rising = slice(0, top)
    if top and np.all(np.diff(lr[: top + 1]) >= 0) and lr[0] < peak * (1 - 2 * FITS):
        along = float(steps[rising] @ lr[rising])
        if along <= 0:
            return int(steps[top]), False
        lines = [_line(steps[rising], lr[rising] / peak, ahead) for ahead in (0, 1)]
        ahead = int(lines[1][0] < lines[0][0] / 2)  # rounding must not decide it
        off, length = lines[ahead]
        if off > LINEAR:
            # it rises in another way, or the log begins on the way
            return (int(steps[top]) if steps[0] <= SOON * steps[top] else None), False
        still = top == len(lr) - 1 and len(lr) >= ENOUGH
        reached = float(steps[int(np.argmax(lr))]) + ahead
        return (None if still else round(min(length, reached))), still
    return (0 if steps[0] <= 1 else None), False


def _line(steps: Array, shares: Array, ahead: int) -> tuple[float, float]:
    """(largest deviation, W) of share = (step + `ahead`)/W by least squares: later steps
    count more, and carry less rounding. Where steps count from 0, the first may have 1/W already:
    a line through zero made 98 of 100 steps, and 18 of 20."""
    s = steps + ahead
    length = float(s @ s) / float(s @ shares)
    return float(np.abs(shares - s / length).max()), length


def _kind(
    steps: Array, lr: Array, peak: float, top: int, warmup: int, planned: int | None
) -> tuple[str, float | None]:
    """The shape after the warm-up with the smallest largest deviation, simplest first."""
    thin = np.unique(np.linspace(top, len(lr) - 1, GRID).astype(int))
    s, y = steps[thin], lr[thin] / peak
    if len(s) < ENOUGH:
        return "unknown", None
    best_name, best_residual = "unknown", np.inf
    for name, residual in _candidates(s, y, float(warmup), planned):
        if residual < best_residual * 0.8 - 1e-12:  # a richer shape has to earn its place
            best_name, best_residual = name, residual
    if best_residual <= FITS:
        return best_name, float(best_residual)
    levels = _levels(y)
    if levels is not None and levels <= FITS:
        return "step", levels
    return "unknown", float(best_residual)


def _candidates(
    s: Array, y: Array, warmup: float, planned: int | None
) -> Iterator[tuple[str, float]]:
    yield "constant", float(np.abs(y - 1).max())
    if np.abs(y - 1).max() <= FITS:
        return
    flat = np.flatnonzero(y < 1 - FITS / 2)
    hold = float(s[max(flat[0] - 1, 0)]) if len(flat) else s[-1]  # last row at the peak
    ends = np.unique(np.append(s[-1] * ENDS, planned or s[-1]))
    ends = ends[ends >= s[-1]]
    starts = np.unique(np.append(np.linspace(0, s[0], 11), warmup))
    starts = starts[starts <= s[0]]
    for name in ("linear", "cosine", "one_minus_sqrt"):
        yield name, _fit(SHAPES[name], s, y, starts, ends)
    yield "inverse_sqrt", _inverse_sqrt(s, y)
    if hold - s[0] > 0.1 * (s[-1] - s[0]):
        tail = s >= hold
        if tail.sum() >= 3:
            after = s[min(int(tail.argmax()) + 1, len(s) - 1)]
            begins = np.linspace(hold, after, 6)[:-1]
            yield "wsd", min(_fit(SHAPES[name], s[tail], y[tail], begins, ends) for name in SHAPES)


def _fit(shape: Shape, s: Array, y: Array, starts: Array, ends: Array) -> float:
    """Smallest largest deviation of a − b·shape(u) over starts and ends, a and b by least squares
    with a ≥ b ≥ 0: the peak itself need not be logged, and no schedule goes below zero."""
    least = np.inf
    for start in starts:
        u = np.clip((s[None, :] - start) / np.maximum(ends[:, None] - start, 1e-9), 0, 1)
        lost = shape(u)
        centred = lost - lost.mean(axis=1, keepdims=True)
        b = -np.sum(centred * y, axis=1) / np.maximum(np.sum(centred**2, axis=1), 1e-12)
        a = y.mean() + b * lost.mean(axis=1)
        over = b > a  # then fit y = a·(1 − shape) alone
        left = 1 - lost
        through = np.sum(left * y, axis=1) / np.maximum(np.sum(left**2, axis=1), 1e-12)
        a, b = np.where(over, through, a), np.where(over, through, b)
        worst = np.abs(y - (a[:, None] - b[:, None] * lost)).max(axis=1)
        least = min(least, float(worst.min()))
    return least


def _inverse_sqrt(s: Array, y: Array) -> float:
    """lr ∝ 1/√step from the peak on."""
    scale = float(np.median(y * np.sqrt(np.maximum(s, 1))))
    return float(np.abs(y - np.minimum(1.0, scale / np.sqrt(np.maximum(s, 1)))).max())


def _levels(y: Array) -> float | None:
    """Largest deviation from a few levels (a step schedule), None where there are many."""
    changes = np.abs(np.diff(y)) > FITS
    if not 1 <= changes.sum() <= 12 or changes.sum() > len(y) / 5:
        return None
    groups = np.split(y, np.flatnonzero(changes) + 1)
    return float(max(np.ptp(g) for g in groups))
