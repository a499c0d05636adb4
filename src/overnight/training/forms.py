"""The form of an update: how many threads, which attention kernel, compiled or not.

What no preset and no flag fixes is first chosen by knowledge, then on a CPU timed against its
alternative on the real shapes. The alternative must be a tenth faster, and what was found is kept
per processor, torch, optimizer, shape and threads: the same command takes the same form, and so
gives the same bits, again.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import torch

from ..errors import Say
from ..settings import Settings
from .compiling import compiler_trouble
from .once import once
from .timing import own_clock, update_seconds
from .update import Updater, prefers_fused

ADVANTAGE = 1.1  # that an alternative needs
ROUNDS, MOST_ROUNDS = 3, 40  # of short updates as many as take
ENOUGH = 0.8  # seconds, lest the noise of the machine decide
PATIENCE = {  # seconds of one update, above which no alternative is tried
    "train.attention": 1.5,
    "train.threads": 0.05,  # fewer are faster only where a thread's share is too small to send
}
WORTH_COMPILING = 30  # minutes a run must last: compiling takes one or two of them
TRIED = 0.03  # of the run, that updates may take in which compiled ones are tried

FORM = ("train.attention", "train.compile", "train.threads")
SHAPE = ("batch", "micro_batch", "dtype", "threads", "attention", "compile")


def choose_form(
    settings: Settings,
    minutes: float,
    train: np.ndarray,
    device: torch.device,
    say: Say = lambda _: None,
) -> None:
    """Settle what of the form is free; the rest is settled already. `minutes`: how long the run
    will train, as far as that is known, else 0. `say` is told what takes long."""
    names = [name for name in FORM if settings.program_chooses(name)]
    if "train.attention" in names:
        context, dtype = settings.get("model.context"), settings.get("train.dtype")
        fused = prefers_fused(device, dtype, context)
        reason = f"known for {device.type}, {dtype}, context {context}"
        settings.choose("train.attention", "fused" if fused else "plain", reason)
    if device.type != "cpu":
        return
    too_slow: set[str] = set()  # to try another
    patience = PATIENCE | {"train.compile": TRIED * 60 * minutes / (2 * (1 + ROUNDS))}
    for name, other in _alternatives(settings, names, minutes, device):
        if name in too_slow:
            continue
        if not _choose(settings, name, other, patience[name], train, device, say):
            too_slow.add(name)
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


def _choose(
    settings: Settings,
    name: str,
    other: Any,
    patience: float,
    train: np.ndarray,
    device: torch.device,
    say: Say,
) -> bool:
    """What stands beside the other value of one setting, and what wins stands for the next. False
    where an update takes longer than `patience`, too long to try another."""

    def find() -> list[float]:
        if name == "train.compile":
            say("timing    compiled updates: compiling takes a minute or so")
        return _seconds(settings, name, (standing, other), patience, train, device)

    standing, config = settings.get(name), settings.resolve()
    shape = [getattr(config.train, leaf) for leaf in SHAPE]
    seconds = once(
        [msgspec.to_builtins(config.model), config.optimizer.kind, shape, name, other],
        list[float],
        find,
        lambda kept: all(s > 0 for s in kept) and (len(kept) == 2 or kept[:1] > [patience]),
    )
    if len(seconds) < 2:
        return False
    first, second = (1000 * s for s in seconds)
    if first > ADVANTAGE * second:
        settings.choose(name, other, f"{_short(second)} ms an update, {standing} {_short(first)}")
    else:
        settings.choose(name, standing, f"{_short(first)} ms an update, {other} {_short(second)}")
    return True


def _short(milliseconds: float) -> str:
    return f"{milliseconds:.1f}" if milliseconds < 10 else f"{milliseconds:.0f}"


def _seconds(
    settings: Settings,
    name: str,
    values: tuple[Any, Any],
    patience: float,
    train: np.ndarray,
    device: torch.device,
) -> list[float]:
    """Seconds of an update with each of two values, the least of rounds in turn; of the first
    alone where that takes too long to try another."""
    config = settings.resolve()
    leaf = name.removeprefix("train.")
    configs = [config.having(train={leaf: value}) for value in values]
    least, updaters = [math.inf] * 2, [Updater(c, train, device) for c in configs]
    spent, turn = 0.0, 0
    while turn <= ROUNDS or (spent < ENOUGH and turn <= MOST_ROUNDS):  # the first one warms up
        for i, (config, updater) in enumerate(zip(configs, updaters, strict=True)):
            torch.set_num_threads(config.train.threads)
            seconds = update_seconds(updater, 1 + turn, own_clock(device))
            if i == 0 and seconds > patience * (1 if turn else 4):  # a first one is slow
                return [seconds]
            if turn:
                least[i], spent = min(least[i], seconds), spent + seconds
        turn += 1
    return least
