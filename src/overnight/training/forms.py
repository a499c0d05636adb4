"""The form of an update: how many threads, which attention kernel, compiled or not.

What no preset and no flag fixes is first chosen by knowledge, then on a CPU timed against its
alternative on the real shapes. The alternative must be a tenth faster, and what was found is kept
per processor, torch, shape and threads: the same command takes the same form, and so gives the same
bits, again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import torch
from msgspec import structs

from ..config import Settings
from .machine import compiler_trouble
from .once import once
from .update import Updater, knows_fused

ADVANTAGE = 1.1  # that an alternative needs
ROUNDS = 3
PATIENCE = {  # seconds of one update, above which no alternative is tried
    "train.attention": 1.5,
    "train.compile": 1.5,
    "train.threads": 0.05,  # fewer are faster only where a thread's share is too small to send
}
WORTH_COMPILING = 30  # minutes a run must last: compiling takes the first half of one

OPEN = {"train.attention": "auto", "train.compile": "auto", "train.threads": 0}

Say = Callable[[str], None]
Found = dict[str, tuple[Any, str]]  # setting → value and reason


def left_open(settings: Settings) -> list[str]:
    """The settings of a form that are the program's to choose."""
    return [name for name, value in OPEN.items() if settings.get(name) == value]


def choose_form(
    settings: Settings,
    names: list[str],
    minutes: float,
    train: np.ndarray,
    device: torch.device,
    say: Say = lambda _: None,
) -> None:
    """Settle the settings `names` of the form; the others of it are settled already. `minutes`:
    how long the run will train, as far as that is known, else 0. `say` is told what takes long."""
    if "train.attention" in names:
        context, dtype = settings.get("model.context"), settings.get("train.dtype")
        fused = knows_fused(device, dtype, context)
        reason = f"known for {device.type}, {dtype}, context {context}"
        settings.choose("train.attention", "fused" if fused else "plain", reason)
    if device.type != "cpu":
        return
    others = _alternatives(settings, names, minutes, device)
    possible = {(name, settings.get(name)) for name, _ in others} | set(others)
    config = settings.resolve()
    shape = [getattr(config.train, n) for n in ("batch", "micro_batch", "dtype", "threads")]
    found: Found = once(
        [msgspec.to_builtins(config.model), shape, others],
        dict[str, tuple[int | str, str]],
        lambda: _timed(settings, others, train, device, say),
        lambda kept: all((name, value) in possible for name, (value, _) in kept.items()),
    )
    for name, (value, why) in found.items():
        settings.choose(name, value, why)
    torch.set_num_threads(settings.get("train.threads"))


def _alternatives(
    settings: Settings, names: list[str], minutes: float, device: torch.device
) -> list[tuple[str, Any]]:
    """The other values that are worth a trial: of threads a half, a quarter, … and one."""
    others: list[tuple[str, Any]] = []
    if "train.attention" in names:
        other = {"fused": "plain", "plain": "fused"}[settings.get("train.attention")]
        others.append(("train.attention", other))
    if "train.threads" in names:
        threads = settings.get("train.threads")
        others += [("train.threads", threads >> i) for i in range(1, threads.bit_length())]
    long = minutes >= WORTH_COMPILING
    if "train.compile" in names and long and not compiler_trouble(str(device)):
        others.append(("train.compile", "on"))
    return others


def _timed(
    settings: Settings,
    others: list[tuple[str, Any]],
    train: np.ndarray,
    device: torch.device,
    say: Say,
) -> Found:
    """Each alternative beside what stands; what wins stands for the next."""
    found: Found = {}
    too_slow: set[str] = set()  # to try another
    for name, other in others:
        if name in too_slow:
            continue
        if name == "train.compile":
            say("timing    compiled updates: compiling takes a minute or so")
        standing = settings.get(name)
        seconds, others_seconds = _seconds(settings, name, (standing, other), train, device)
        if others_seconds == float("inf"):
            too_slow.add(name)
            continue
        if seconds > ADVANTAGE * others_seconds:
            times = f"{1000 * others_seconds:.0f} ms an update, {standing} {1000 * seconds:.0f}"
            found[name] = (other, times)
        else:
            times = f"{1000 * seconds:.0f} ms an update, {other} {1000 * others_seconds:.0f}"
            found[name] = (standing, times)
        settings.choose(name, *found[name])
    return found


def _seconds(
    settings: Settings,
    name: str,
    values: tuple[Any, Any],
    train: np.ndarray,
    device: torch.device,
) -> tuple[float, float]:
    """Seconds of an update with each of two values, the least of rounds in turn; infinite for the
    second where the first takes too long to try another."""
    config = settings.resolve()
    leaf = name.removeprefix("train.")
    configs = [
        structs.replace(config, train=structs.replace(config.train, **{leaf: value}))
        for value in values
    ]
    least, updaters = [float("inf")] * 2, [Updater(c, train, device) for c in configs]
    for turn in range(1 + ROUNDS):  # the first one warms up
        for i, (config, updater) in enumerate(zip(configs, updaters, strict=True)):
            torch.set_num_threads(config.train.threads)
            begin = time.perf_counter()
            updater.update(1 + turn, 10**6)
            seconds = time.perf_counter() - begin
            if i == 0 and seconds > PATIENCE[name] * (1 if turn else 4):  # a first one is slow
                return seconds, float("inf")
            if turn:
                least[i] = min(least[i], seconds)
    return least[0], least[1]
