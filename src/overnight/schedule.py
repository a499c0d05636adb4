"""The learning rate as a share of its peak: a pure function of the step."""

from __future__ import annotations

import math

from .config import Schedule


def rate(schedule: Schedule, step: int, steps: int) -> float:
    """Share of the peak rate for update number `step` (1 … `steps`).

    Warm-up rises linearly and reaches 1 at step `warmup`, or half-way in a shorter run; the last
    update has `min_ratio` (cosine: Loshchilov & Hutter 2017; wsd: Hu et al. 2024, with a linear
    decay), an only one 1.
    """
    warmup = min(schedule.warmup, steps // 2)
    if step <= warmup:
        return step / warmup
    if steps == 1:
        return 1.0
    low, done = schedule.min_ratio, (step - warmup) / max(1, steps - warmup)
    if schedule.kind == "cosine":
        return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * done))
    if schedule.kind == "linear":
        return low + (1 - low) * (1 - done)
    if schedule.kind == "wsd":
        into = max(0.0, (step - steps * (1 - schedule.decay)) / max(1e-9, steps * schedule.decay))
        return low + (1 - low) * (1 - into)
    return 1.0
