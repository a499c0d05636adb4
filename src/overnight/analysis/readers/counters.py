"""The counters of a foreign log: time in seconds and tokens, both of the whole run."""

from __future__ import annotations

import numpy as np

from ..tables import Array, Columns, finite

DAY = 86_400.0  # seconds
EPOCHS = 50  # rows of a log that may have one for each
MOST_SESSIONS = 100  # of a run that counts anew in each
FIRST = 3.0  # of the usual rise, that a counter shows at most when it begins again


def counters(loose: Columns, problems: list[str]) -> Columns:
    """The columns with counters that count up from the run's beginning; without those that do
    not."""
    loose = dict(loose)
    if "time" in loose:
        loose["time"] = _in_seconds(loose["time"])
        loose["time"] = _beyond_midnight(loose["time"])
    if "tokens" in loose and not (loose["tokens"] > 0).any():
        del loose["tokens"]  # LLaMA-Factory's 0, where it does not count them
    for name in ("tokens", "time"):
        if name in loose:
            loose[name] = _counted_on(name, loose, problems)
            if not _rises(loose[name]) or (name == "time" and _of_rows(loose[name])):
                problems.append(f"{name} does not count up: it is of a row and not of the run")
                del loose[name]
    for name in ("tokens_per_s", "step_seconds"):
        if name in loose:  # 0 is what a tool writes that did not measure it
            loose[name] = np.where(loose[name] > 0, loose[name], np.nan)
    if "tokens_per_s" not in loose and {"tokens", "step_seconds"} <= loose.keys():
        loose["tokens_per_s"] = _speed(loose)
        problems.append("tokens per second: from the tokens counted and the time of a step")
    return loose


def _speed(loose: Columns) -> Array:
    """Tokens per second of rows that count tokens and say how long a step took."""
    rows = np.flatnonzero(finite(loose["step"], loose["tokens"], loose["step_seconds"]))
    speed = np.full(len(loose["step"]), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        a_step = np.diff(loose["tokens"][rows]) / np.diff(loose["step"][rows])
        speed[rows[1:]] = a_step / loose["step_seconds"][rows[1:]]
    return np.where(np.isfinite(speed) & (speed > 0), speed, np.nan)


def _in_seconds(time: Array) -> Array:
    """Unix time in milli-, micro- or nanoseconds in seconds."""
    known = time[np.isfinite(time)]
    unit = 1.0
    while len(known) and np.median(known) / unit > 1e11:  # seconds of the year 5138
        unit *= 1000
    return time / unit


def _beyond_midnight(time: Array) -> Array:
    """The time of day, which begins again at midnight, counted on."""
    at = np.flatnonzero(np.isfinite(time))
    change = np.diff(time[at])
    rises = change[change > 0]
    if not len(rises) or time[at].max() >= DAY or time[at].min() < 0:
        return time
    near = FIRST * np.median(rises)
    midnight = (change < 0) & (time[at][:-1] > DAY - near) & (time[at][1:] < near)
    counted = time.copy()
    counted[at] += DAY * np.append(0, np.cumsum(midnight))
    return counted


def _counted_on(name: str, loose: Columns, problems: list[str]) -> Array:
    """A counter that a resumed run began again, counted on from the step that it resumed at."""
    values, steps = loose[name].copy(), loose["step"]
    at = np.flatnonzero(np.isfinite(values) & np.isfinite(steps))
    kept, going = values[at], steps[at]
    again = np.flatnonzero(kept[1:] < kept[:-1] / 2) + 1
    others = np.delete(np.diff(kept), again - 1) if len(again) else np.empty(0)
    if not len(others) or len(again) > MOST_SESSIONS:
        return values
    if (others < 0).any() or (others > 0).mean() < 0.5:  # no counter
        return values
    if (kept[again] > FIRST * np.median(others[others > 0])).any():
        return values
    for i, end in zip(again, [*again[1:], len(at)], strict=True):
        before = np.flatnonzero(going[:i] < going[i])
        values[at[i:end]] = kept[i:end] + (values[at[before[-1]]] if len(before) else 0.0)
    problems.append(f"{name} begins again at step {going[again[0]]:,.0f}: it is counted on")
    return values


def _rises(values: Array) -> bool:
    """Whether a column counts up, but for what a resumed run takes back. Rows may share a value."""
    values = values[np.isfinite(values)]
    return len(values) < 3 or bool((np.diff(values) >= 0).mean() > 0.8 and values[-1] > values[0])


def _of_rows(time: Array) -> bool:
    """Whether the few values of a column are durations, of epochs mostly: most are as before, and
    what is gained is little beside the first."""
    time = time[np.isfinite(time)]
    few = 3 <= len(time) <= EPOCHS and time[0] < 1e8  # not seconds since 1970
    little = few and time[-1] - time[0] < time[0] / 4
    return bool(little and (np.diff(time) > 0).mean() < 0.5)
