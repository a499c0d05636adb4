"""Amounts in words, in one way everywhere: numbers of things, durations, sizes."""

from __future__ import annotations


def counted(number: float, unit: str) -> str:
    """`1 step`, `2,000 steps`, `3 passes`, `0.5 minutes`."""
    plural = unit + ("es" if unit.endswith("s") else "s")
    shown = f"{number:g}" if isinstance(number, float) else f"{number:,}"
    return f"{shown} {unit if number == 1 else plural}"


def duration(seconds: float) -> str:
    """`4 h 27 min`, `12 min 5 s`, `7.3 s`; of whole seconds `7 s`."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s" if isinstance(seconds, float) else f"{seconds} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def size(n_bytes: float) -> str:
    """`1.5 GB`, `12.3 MB`, `4.0 kB`, `12 B`."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= scale:
            return f"{n_bytes / scale:.1f} {unit}"
    return f"{n_bytes:.0f} B"
