"""Cells of foreign logs → numbers: `1,234`, `12.3k`, `7 %`, `5,02`, `00:01:30`, `NaN`, `None`."""

from __future__ import annotations

import re
from datetime import datetime

NAN = float("nan")
BROKEN = float("-inf")  # a loss that was written as not a number; `unmeasured` decides on it
LOSSES = ("loss", "val_loss", "train_loss", "test_loss")
MEASURES = (*LOSSES, "perplexity", "val_perplexity", "val_bpb")  # what a model is judged by
TIMES = ("time", "duration", "step_seconds")
COUNTS = ("step", "planned", "tokens", "tokens_per_s", *TIMES)  # a comma in them parts thousands
MISSING = {"", "none", "null", "na", "n/a", "-", "--", "–", "?", "undefined"}
SUFFIX = {"k": 1e3, "K": 1e3, "m": 1e6, "M": 1e6, "b": 1e9, "B": 1e9, "G": 1e9}
SECONDS = {"ms": 1e-3, "s": 1.0, "sec": 1.0, "seconds": 1.0, "m": 60.0, "min": 60.0}
SECONDS |= {"minutes": 60.0, "h": 3600.0, "hr": 3600.0, "hours": 3600.0}
_PARTS = re.compile(r"(?:(\d+)d ?)?(?:(\d+)h ?)?(?:(\d+)m ?)?(?:(\d+)s)?")
_DURATION = re.compile(r"(\d+(?:\.\d*)?) ?([a-z]+)")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:[,' _\u00a0\u202f]\d{3})+(?:\.\d+)?")
_COMMA = re.compile(r"[+-]?\d+,\d+(?:[eE][+-]?\d+)?")
_CLOCK = re.compile(r"(?:(\d+) days?,? )?(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)")


def number(cell: str, name: str, scale: float = 1.0) -> float | None:
    """The number in `cell` of the column `name` (ours), times `scale` where it has no unit of its
    own; NaN where nothing was logged; None where it is something else. What a model is judged by
    is BROKEN where it says NaN."""
    cell = cell.strip()
    try:
        value = float(cell)
    except ValueError:
        return _spelt(cell, name, scale)
    return BROKEN if value != value and name in MEASURES else value * scale


def _spelt(cell: str, name: str, scale: float) -> float | None:
    if cell.lower() in MISSING:
        return NAN
    if _COMMA.fullmatch(cell):
        thousands = bool(_THOUSANDS.fullmatch(cell))
        if name in TIMES and thousands and not cell.startswith("0,"):
            return None  # 1,234: of seconds either is usual
        if name not in COUNTS or name in TIMES:
            return float(cell.replace(",", ".")) * scale
    if _THOUSANDS.fullmatch(cell):
        return float(re.sub(r"[^\d.+-]", "", cell)) * scale
    if name in TIMES:
        return _time(cell)
    body = cell.rstrip("%").rstrip()
    own = SUFFIX.get(body[-1:])
    try:
        return float(body[:-1]) * own if own else float(body) * scale
    except ValueError:
        return None


def _time(cell: str) -> float | None:
    """Seconds of `1:02:03`, `2 days, 1:02:03`, `1h 2m 3s`, `12.5 s`, `1.5 h`, or of a date."""
    if found := _CLOCK.fullmatch(cell) or _PARTS.fullmatch(cell):
        days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
        return 86_400 * days + 3600 * hours + 60 * minutes + seconds
    try:
        return datetime.fromisoformat(cell).timestamp()
    except (ValueError, OverflowError, OSError):
        pass
    found = _DURATION.fullmatch(cell)
    return float(found[1]) * SECONDS[found[2]] if found and found[2] in SECONDS else None
