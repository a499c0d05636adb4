"""What the held-out text costs without a network, and whether the best model needs less."""

from __future__ import annotations

import math
from typing import Any

from .findings import About, Best, Whole, Yardstick, Yardsticks
from .tables import Log

SURE = 1.96  # standard errors between model and yardstick before "yes" or "no" is said


def yardsticks(log: Log, about: About, best: Best | None, whole: Whole | None) -> Yardsticks | None:
    """The rows of yardsticks.json beside the best model, on the same text where it was measured
    there; None where there is no such file."""
    if log.yardsticks is None:
        return None
    measured = whole if whole is not None and whole.bpb is not None else best
    model, se = (measured.bpb, measured.bpb_se) if measured else (None, None)
    step = measured.step if measured else None
    listed = log.yardsticks.get("yardsticks")
    bound = bool(about.unknown)
    rows = [
        row
        for given in (listed if isinstance(listed, list) else [])
        if isinstance(given, dict) and (row := _row(given, model, se, bound)) is not None
    ]
    size = log.yardsticks.get("bytes")
    return Yardsticks(
        bytes=int(size) if isinstance(size, int) else None,
        step=step,
        model_bpb=model,
        model_se=se,
        rows=rows,
    )


def _row(
    given: dict[str, Any], model: float | None, se: float | None, bound: bool
) -> Yardstick | None:
    bpb = _number(given.get("bpb"))
    if bpb is None:
        return None
    margin = None if model is None else bpb - model
    return Yardstick(
        name=str(given.get("name", "")),
        bpb=bpb,
        nats_per_byte=_number(given.get("nats_per_byte")),
        how=str(given.get("how", "")),
        beaten=_beaten(margin, se, bound),
        margin_bpb=margin,
    )


def _number(value: Any) -> float | None:
    try:
        number = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:  # an integer beyond every float
        return None
    return number if math.isfinite(number) else None


def _beaten(margin: float | None, se: float | None, bound: bool) -> str:
    """`bound`: the model needs at most what is said, so that it may be better than it looks."""
    if margin is None or (bound and margin <= 0):
        return "cannot_tell"
    if se is None:
        return "yes" if margin > 0 else "no"
    if abs(margin) <= SURE * se:
        return "cannot_tell"
    return "yes" if margin > 0 else "no"
