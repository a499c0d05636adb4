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
    least = model
    if about.unknown:
        counted = log.whole["val_bytes"] if log.whole and whole is not None else 0
        least = _least(model, counted, about)
    rows = [
        row
        for given in (listed if isinstance(listed, list) else [])
        if isinstance(given, dict) and (row := _row(given, model, least, se)) is not None
    ]
    size = log.yardsticks.get("bytes")
    return Yardsticks(
        bytes=int(size) if isinstance(size, int) else None,
        step=step,
        model_bpb=model,
        model_se=se,
        rows=rows,
        model_least=least if about.unknown else None,
    )


def _least(model: float | None, counted: int, about: About) -> float | None:
    """What the model needs at least: were naming its unknown characters free, and each of them four
    bytes, not the one that is counted. All of them may be in the part that was evaluated."""
    if model is None or about.unknown is None or about.unknown_bits is None or not counted:
        return None
    bits = max(0.0, model * counted - about.unknown_bits * about.unknown)
    return float(bits / (counted + 3 * about.unknown))


def _row(
    given: dict[str, Any], model: float | None, least: float | None, se: float | None
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
        beaten=_beaten(bpb, model, least, SURE * (se or 0.0)),
        margin_bpb=margin,
    )


def _number(value: Any) -> float | None:
    try:
        number = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:  # an integer beyond every float
        return None
    return number if math.isfinite(number) else None


def _beaten(bpb: float, model: float | None, least: float | None, sure: float) -> str:
    """Whether the model, which needs from `least` to `model`, needs less than the yardstick."""
    if model is not None and bpb - model > sure:
        return "yes"
    return "no" if least is not None and least - bpb > sure else "cannot_tell"
