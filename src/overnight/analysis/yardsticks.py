"""What the held-out text costs without a network, and whether the best model needs less."""

from __future__ import annotations

import math
from typing import Any

from scipy import stats

from .findings import Best, Whole, Yardstick, Yardsticks
from .tables import Log

SURE = 1.96  # standard errors between model and yardstick before "yes" or "no" is said


def yardsticks(log: Log, best: Best | None, whole: Whole | None) -> Yardsticks | None:
    """The rows of yardsticks.json beside the best model, on the same text where it was measured
    there; None where there is no such file."""
    if log.yardsticks is None:
        return None
    model = best.bpb if best else None
    # The standard error over blocks, from nats per token to bits per byte.
    se = best.se * best.bpb / best.loss if best and best.se and best.bpb and best.loss else None
    if whole is not None and whole.bpb is not None:
        model, se = whole.bpb, whole.bpb_se
    listed = log.yardsticks.get("yardsticks")
    rows = [
        row
        for given in (listed if isinstance(listed, list) else [])
        if isinstance(given, dict) and (row := _row(given, model, se)) is not None
    ]
    size = log.yardsticks.get("bytes")
    return Yardsticks(
        bytes=int(size) if isinstance(size, int) else None,
        model_bpb=model,
        model_se=se,
        rows=rows,
    )


def _row(given: dict[str, Any], model: float | None, se: float | None) -> Yardstick | None:
    bpb = _number(given.get("bpb"))
    if bpb is None:
        return None
    margin = None if model is None else bpb - model
    return Yardstick(
        name=str(given.get("name", "")),
        bpb=bpb,
        nats_per_byte=_number(given.get("nats_per_byte")),
        how=str(given.get("how", "")),
        beaten=_beaten(margin, se),
        margin_bpb=margin,
    )


def _number(value: Any) -> float | None:
    try:
        number = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:  # an integer beyond every float
        return None
    return number if math.isfinite(number) else None


def _beaten(margin: float | None, se: float | None) -> str:
    if margin is None:
        return "cannot_tell"
    if se is None:
        return "yes" if margin > 0 else "no"
    if abs(margin) <= SURE * se:
        return "cannot_tell"
    return "yes" if margin > 0 else "no"


def p_worse(margin: float, se: float | None) -> float | None:
    """One-sided p that the model needs more than the yardstick by luck of the text alone."""
    return float(stats.norm.cdf(margin / se)) if se else None
