"""Level shifts, ends that are flat, tails that are up: where a line says what the values do not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from overnight.analysis import overfitting
from overnight.analysis.findings import Findings
from overnight.analysis.run import load_run

STEPS = np.arange(0, 10_001, 10)
LAW = 2 + 6 * ((STEPS + 30) / 30) ** -0.35


def found(
    path: Path, train: np.ndarray, val: np.ndarray, every: int = 250, seed: int = 0
) -> Findings:
    """The findings of dense training rows (σ 0.05) and rarer evaluations (σ 0.01)."""
    rng = np.random.default_rng(seed)
    train = train + 0.05 * rng.standard_normal(len(STEPS))
    val = val + 0.01 * rng.standard_normal(len(STEPS))
    rows = [{"step": int(s), "loss": round(x, 4)} for s, x in zip(STEPS, train, strict=True)]
    for s, x in zip(STEPS, val, strict=True):
        if s % every == 0:
            rows.append({"step": int(s), "val_loss": round(x, 4)})
    file = path / "log.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return load_run(file).found


@pytest.mark.parametrize("begin", [6000, 8000, 9000])
@pytest.mark.parametrize("jump", [0.3, 0.6])
def test_train_and_validation_that_jump_together_are_no_overfitting(jump, begin, tmp_path):
    """Single training rows hide it: of 180 such logs 81 were called overfitting, and now none."""
    up = np.where(begin <= STEPS, jump, 0.0)
    judged = found(tmp_path, LAW - 0.02 + up, LAW + up, seed=begin).verdict("overfitting")
    assert judged.verdict == "no"
    assert "both got worse" in judged.because
    assert judged.evidence["train_change_low"] > 0


def test_validation_that_jumps_alone_has_a_positive_effect(tmp_path):
    """Its level at the lowest is not that of what it jumped to."""
    for seed in range(5):
        up = np.where(STEPS >= 6000, 0.3, 0.0)
        judged = found(tmp_path, LAW - 0.02, LAW + up, seed=seed).verdict("overfitting")
        fall = LAW[STEPS == 5750] - LAW[STEPS >= 9500].mean()
        assert judged.verdict == "yes"
        assert judged.effect_nats == pytest.approx(float(0.3 - fall[0]), abs=0.04)


def test_harm_never_has_a_negative_effect():
    """Where a fall follows a jump, the end is above the lowest, not above its level."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        n = 40
        values = 3 - 0.01 * np.arange(n) + 0.01 * rng.standard_normal(n)
        values[rng.integers(20, 38) :] += rng.uniform(0.03, 0.3)
        judged = overfitting.harm(np.arange(n), values)
        assert judged.verdict != "yes" or judged.effect_nats > 0


def test_what_dense_rows_do_not_show_is_not_known(tmp_path):
    """Both rise, and train scatters by half a nat: what noise hides is no `yes`."""
    up = 0.4 * np.maximum(0, STEPS - 5000) / 5000
    lost = 0
    for seed in range(8):
        loud = 0.5 * np.random.default_rng(seed).standard_normal(len(STEPS))
        judged = found(tmp_path, LAW + up + loud, LAW + up).verdict("overfitting")
        if "lost in its noise" in judged.because:
            lost += 1
            assert judged.verdict == "cannot_tell"
            assert judged.evidence["train_change_low"] <= 0 < judged.evidence["train_change_high"]
    assert lost
