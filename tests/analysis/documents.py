"""The figures of the five documents (SEEDS.md), as logs that a reader can read."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

# 002: train and validation loss of its 24 checkpoints, every 500 steps, the last at 11,760.
CHECKPOINTS_002 = """
7.7298 7.7284  7.4274 7.3973  7.0574 6.9951  6.7263 6.7079  6.5093 6.5597  6.4148 6.4261
6.3274 6.3265  6.1991 6.2279  6.1838 6.1420  6.1246 6.1063  5.9818 6.0348  5.9762 5.9922
5.9233 5.9252  5.8690 5.8850  5.8524 5.8399  5.8012 5.8065  5.7546 5.7600  5.6975 5.7154
5.7252 5.6940  5.6586 5.6240  5.5820 5.5547  5.5545 5.5657  5.5211 5.5729  5.4727 5.4956
"""
STEPS_002 = [*range(500, 12_000, 500), 11_760]

# 003, byte run: step, train, val, learning rate.
BYTES_003 = [
    (600, 2.4485, 2.8293, 2.52e-4),
    (800, 2.4020, 2.7930, 2.10e-4),
    (1000, 2.4396, 2.7724, 1.62e-4),
    (1200, 2.3791, 2.7097, 1.13e-4),
    (1400, 2.3606, 2.6312, 6.80e-5),
    (1600, 2.3230, 2.6600, 3.16e-5),
    (1800, 2.2944, 2.6523, 8.13e-6),
    (2000, 2.3617, 2.6472, 0.0),
]
# 003, BPE run: step, train, learning rate.
BPE_003 = [
    (20, 7.0265, 4e-5), (40, 6.8018, 8e-5), (60, 6.5416, 1.2e-4), (80, 5.9054, 1.6e-4),
    (100, 5.8856, 2e-4), (120, 5.8364, 2.4e-4), (140, 5.6039, 2.8e-4), (160, 5.6409, 3e-4),
    (180, 5.6555, 3e-4), (200, 5.7732, 3e-4),
]  # fmt: skip


def metrics_000(path: Path) -> Path:
    """A metrics.csv with 000's columns and figures: first 120, lowest 1.1835 at 2,565, last
    1.3003 at 6,000, learning rate 4.06e-5 → 1e-4 → 5e-5, 16–17k tokens/s."""
    rng = np.random.default_rng(0)
    steps = np.arange(120, 6001, 15)
    mean = np.where(
        steps < 2600,
        1.22 + 3.6 * np.exp(-(steps - 120) / 330.0),
        1.22 + 0.08 * (steps - 2600) / 3400,
    )
    loss = mean + 0.02 * rng.standard_normal(len(steps))
    loss = np.maximum(loss, 1.1836)
    loss[0], loss[steps == 2565], loss[-1] = 4.7001, 1.1835, 1.3003
    warmup = 120 * 1e-4 / 4.06e-5
    lr = np.where(
        steps < warmup, 1e-4 * steps / warmup, 1e-4 - 5e-5 * (steps - warmup) / (6000 - warmup)
    )
    lines = ["step,loss,perplexity,tokens_per_sec,lr"]
    for s, value, rate in zip(steps, loss, lr, strict=True):
        speed = 16_500 + 400 * rng.standard_normal()
        lines.append(f"{s},{value:.4f},{math.exp(value):.4f},{speed:.1f},{rate:.3e}")
    path.write_text("\n".join(lines) + "\n")
    return path


def log_002(path: Path) -> Path:
    """A training_log.jsonl with 002's figures: step 0 at 11.1484, micro-batch losses between,
    24 evaluations, a learning rate that stayed near its peak, Python's spelling of JSON."""
    rng = np.random.default_rng(0)
    numbers = list(map(float, CHECKPOINTS_002.split()))
    train, val = numbers[::2], numbers[1::2]
    known = np.interp(np.arange(0, 11_761, 10), [0, *STEPS_002], [11.1484, *train])
    rows = []
    for step, mean in zip(range(0, 11_761, 10), known.tolist(), strict=True):
        loss = 11.1484 if step == 0 else mean + 0.06 * rng.standard_normal()
        loss = 5.5078 if step == 11_760 else loss
        lr = 3e-4 * min(1.0, step / 500) if step <= 500 else rate_002(step)
        rows.append({"step": step, "epoch": step // 3921, "loss": round(loss, 4), "lr": lr})
        if step in STEPS_002:
            i = STEPS_002.index(step)
            rows.append(
                {"step": step, "epoch": step // 3921, "train_loss": train[i], "val_loss": val[i]}
            )
    path.write_text("\n".join(json.dumps(r) for r in rows) + "\n")
    return path


def rate_002(step: int) -> float:
    """A cosine that has only reached 98 % of its peak when the run ends."""
    return 3e-4 * 0.5 * (1 + math.cos(math.pi * (step - 500) / (11_260 / 0.0903)))


def log_003(path: Path) -> Path:
    """The byte run's table as a CSV, resumed at 1,400 as the document says."""
    lines = ["step,train_loss,val_loss,lr"]
    lines += ["200,2.80,,2.99e-4", "400,2.65,,2.83e-4"]
    for step, train, val, lr in BYTES_003:
        lines.append(f"{step},{train},{val},{lr:.2e}")
    path.write_text("\n".join(lines) + "\n")
    return path


def log_003_bpe(path: Path) -> Path:
    lines = ["step,train_loss,lr"] + [f"{s},{loss},{lr:.2e}" for s, loss, lr in BPE_003]
    path.write_text("\n".join(lines) + "\n")
    return path
