"""What an update takes: the one way in which every choice that rests on time reads a clock."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from .update import FAR, Updater

Clock = Callable[[], float]  # seconds


def wait(device: torch.device) -> None:
    """Until what was asked of `device` is done: before a clock is read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def own_clock(device: torch.device) -> Clock:
    """One that leaves out what other work takes, where there is one. On a CPU the first thread is
    busy in every part of an update, so its own time is the update's."""
    return time.thread_time if device.type == "cpu" else time.perf_counter


def update_seconds(updater: Updater, step: int, clock: Clock = time.perf_counter) -> float:
    """Seconds of one update, which is made."""
    wait(updater.device)
    begin = clock()
    updater.update(step, FAR)
    wait(updater.device)
    return clock() - begin
