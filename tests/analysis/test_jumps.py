"""Level shifts, ends that are flat, tails that are up: where a line says what the values do not."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from overnight.analysis import advice, overfitting, plausible, schedule, trend
from overnight.analysis.findings import Findings, Verdict, Yardstick, Yardsticks
from overnight.analysis.noise import scatter
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


def bent(n: int) -> np.ndarray:
    """A gap that turns up behind its last tenth: a line misses it at both ends."""
    u = np.linspace(0, 1, n)
    return 0.05 * u + 3.0 * np.maximum(0, u - 0.9)


def test_the_change_that_is_told_is_that_of_the_values():
    """Of 200 intervals of a change 95 % hold the true one; a line's held 0 of 60."""
    rng, held, n = np.random.default_rng(1), 0, 30
    steps = np.arange(n) * 250.0 + 2750
    for _ in range(200):
        values = bent(n) + 0.008 * rng.standard_normal(n)
        told = trend.slope(steps, values, scatter(steps, values))
        assert told.ends == 3
        assert told.change == pytest.approx(values[-3:].mean() - values[:3].mean())
        true = bent(n)[-3:].mean() - bent(n)[:3].mean()
        held += told.change_ci[0] <= true <= told.change_ci[1]
    assert held >= 184


def ends_with(path: Path, curve: np.ndarray, sigma: float = 0.003, seed: int = 0) -> Findings:
    """The findings of an evaluation every 200 steps of a curve over STEPS."""
    val = curve[::20] + sigma * np.random.default_rng(seed).standard_normal(len(curve[::20]))
    lines = [f"{s},{v:.4f}" for s, v in zip(STEPS[::20], val, strict=True)]
    file = path / "log.csv"
    file.write_text("\n".join(["step,val_loss", *lines]))
    return load_run(file).found


@pytest.mark.parametrize("drop", [0.1, 0.3])
def test_an_end_that_is_flat_behind_a_drop_does_not_improve(drop, tmp_path):
    """A line over the last 30 % called 62 of 90 of them falling."""
    curve = 2.5 + 3 * np.exp(-STEPS / 500) - drop * (1 - np.exp(-np.maximum(0, STEPS - 7500) / 80))
    for seed in range(5):
        judged = ends_with(tmp_path, curve, seed=seed)
        assert judged.verdict("still_improving").verdict != "yes"
        assert not any("Train longer" in a.do for a in judged.advice)


def test_an_end_that_is_flat_behind_a_late_fall_does_not_improve(tmp_path):
    """Or if it does, by what it still gave, not by 2.71 nats of the 2.0 that it fell by."""
    curve = 4 - 2 / (1 + np.exp(-(STEPS - 8500) / 200))
    for sigma in (0.005, 0.02):
        for seed in range(5):
            judged = ends_with(tmp_path, curve, sigma, seed).verdict("still_improving")
            assert judged.evidence["first"] == 9400
            assert abs(judged.effect_nats) < 0.1


def test_what_falls_more_and_more_slowly_still_improves(tmp_path):
    """A power law, and a rate that ends at 0 under a cosine."""
    cosine = 0.15 * (1 + np.cos(np.pi * STEPS / 10_000)) / 2
    for curve in (LAW, LAW + cosine):
        for seed in range(5):
            judged = ends_with(tmp_path, curve, seed=seed).verdict("still_improving")
            assert judged.verdict == "yes"
            assert judged.evidence["first"] == 7000


def gap_of(path: Path, train: np.ndarray, val: np.ndarray) -> Verdict:
    lines = (f"{100 * i},{t:.5f},{v:.5f}" for i, (t, v) in enumerate(zip(train, val, strict=True)))
    file = path / "log.csv"
    file.write_text("\n".join(["step,train_loss,val_loss", *lines]))
    return load_run(file).found.verdict("gap")


def test_a_gap_that_changes_by_less_than_matters(tmp_path):
    """Its interval excludes 0, so it is not said to have no trend, and the mean has no error."""
    rng, fall = np.random.default_rng(0), 2 + np.arange(1, 61) ** -0.5
    off = np.linspace(0.1, 0.092, 60) + 0.0005 * rng.standard_normal(60)
    judged = gap_of(tmp_path, fall, fall + off)
    assert judged.verdict == "stable"
    assert judged.ci[1] < 0
    assert "less than matters (0.01 nats)" in judged.because
    assert "±" not in judged.because
    still = gap_of(tmp_path, fall, fall + 0.1 + 0.0005 * rng.standard_normal(60))
    assert (still.verdict, "±" in still.because) == ("stable", True)


def test_two_columns_of_one_set_have_no_gap(tmp_path):
    fall = 2 + np.arange(1, 61) ** -0.5
    judged = gap_of(tmp_path, fall, fall)
    assert judged.verdict == "cannot_tell"
    assert "may be of one set" in judged.because


@pytest.mark.parametrize("times", [2, 4, 8])
def test_a_train_loss_that_is_a_sum_has_no_gap(times, tmp_path):
    rng, fall = np.random.default_rng(0), 2 + 2 * np.arange(1, 61) ** -0.5
    judged = gap_of(tmp_path, times * (fall + 0.02 * rng.standard_normal(60)), fall + 0.01)
    assert judged.verdict == "cannot_tell"
    assert f"{times}.0 times the validation loss" in judged.because


@pytest.mark.parametrize("rows", [2, 3, 5, 8])
def test_what_the_last_rows_alone_raise_is_no_drift(rows, tmp_path):
    up = np.where(10_000 - 10 * rows < STEPS, 3.0, 0.0)
    judged = found(tmp_path, LAW + up, LAW).verdict("train_drift")
    assert judged.verdict == "no"
    assert rows < 5 or "alone make it rise" in judged.because


def test_what_rises_throughout_is_a_drift(tmp_path):
    up = 0.3 * np.maximum(0, STEPS - 5000) / 5000
    assert found(tmp_path, LAW + up, LAW + up).verdict("train_drift").verdict == "yes"


def measured(*rows: tuple[str, float]) -> Yardsticks:
    listed = [Yardstick(n, bpb, None, "", "no", None) for n, bpb in rows]
    return Yardsticks(bytes=1000, step=10, model_bpb=0.4, model_se=None, rows=listed)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("ln V", 8.0), ("xz", 0.3)], "no"),
        ([("ln V", 8.0), ("3-gram", 0.5), ("xz", 0.9)], "no"),
        ([("ln V", 8.0), ("xz", 2.1), ("xz after training text", 0.1)], "yes"),  # a leak
        ([], "yes"),
    ],
)
def test_text_that_is_cheap_without_a_network_is_not_too_good(rows, said):
    best, about = SimpleNamespace(bpb=0.4, estimator=""), SimpleNamespace(other_task=None)
    ledger = SimpleNamespace(passes=1.0)
    judged = plausible.too_good(best, about, ledger, None, measured(*rows))
    assert judged.verdict == said
    assert ("the text itself is that cheap" in judged.because) == (said == "no")


def test_values_of_evaluations_are_called_so(tmp_path):
    """Not training losses, of which the same report says that there are two."""
    lines = [
        f"step {s}: train loss {3 + 1 / (s + 1):.4f}, val loss {3.1:.4f}" for s in range(0, 300, 20)
    ]
    lines += [f"iter {s}: loss 3.5, time 10.0ms" for s in (0, 10)]
    file = tmp_path / "out.log"
    file.write_text("\n".join(lines))
    judged = load_run(file).found.verdict("divergence")
    assert "training losses of evaluations (" in judged.because
    assert "training losses is" not in judged.because


def test_the_warm_up_is_a_phase_as_long_as_it_is(tmp_path):
    """Not cut at a third of the run: 20 steps of 40."""
    lines = [f"{s},{4 - s / 40},{1e-3 * min(1, s / 20)}" for s in range(1, 41)]
    file = tmp_path / "log.csv"
    file.write_text("\n".join(["step,loss,lr", *lines]))
    judged = load_run(file).found
    warm = judged.phases[0]
    assert (warm.name, warm.from_step, warm.to_step) == ("warm-up", 1, 20)
    assert judged.schedule.warmup_steps == 20
    assert judged.phases[1].from_step == 21


@pytest.mark.parametrize("every", [1, 10])
@pytest.mark.parametrize("warmup", [20, 100, 200])
@pytest.mark.parametrize("ahead", [0, 1])
def test_a_warm_up_may_begin_one_step_ahead(ahead, warmup, every):
    """(step + 1)/W from step 0 on: 98 of 100 were told, and 18 of 20."""
    steps = np.arange(0.0, 2001, every)
    fall = 0.55 + 0.45 * np.cos(np.pi * np.clip((steps - warmup) / (2000 - warmup), 0, 1))
    rates = 3e-4 * np.where(steps < warmup, (steps + ahead) / warmup, fall)
    found = schedule.schedule({"step": steps, "lr": rates}, None, 2000)
    assert (found.warmup_steps, found.kind) == (warmup, "cosine")


@pytest.mark.parametrize(
    ("passes", "gap", "more_text"),
    [(2.0, "growing", True), (1.2, "growing", False), (2.0, "stable", False)],
)
def test_what_was_read_twice_wants_more_text_and_not_only_more_steps(passes, gap, more_text):
    """It falls, since the learning rate comes down; from two passes on it is learnt by heart."""
    v = {name: Verdict(id=name, verdict="no", because="") for name in ("divergence", "overfitting")}
    v["gap"] = Verdict(id="gap", verdict=gap, because="")
    v["still_improving"] = Verdict(
        id="still_improving", verdict="yes", because="", effect_nats=-0.1,
        evidence={"first": 900, "last": 1300},
    )  # fmt: skip
    case = SimpleNamespace(
        about=SimpleNamespace(planned_steps=1300, status="finished"),
        log=SimpleNamespace(folder=None),
        ledger=SimpleNamespace(steps=1300, passes=passes),
        schedule=SimpleNamespace(end_ratio=0.0),
    )
    (advised,) = advice._longer(v, case)
    assert ("on more text" in advised.do) is ("gap" in advised.because) is more_text


def test_an_end_below_the_level_of_the_lowest_is_not_still_up():
    """A lucky lowest, whose neighbours are above the end, which is above the lowest by 3 sigma."""
    losses, lowest = np.array([3.0, 2.9, 2.8, 2.84, 2.84, 2.83, 2.825, 2.824]), 2
    effect = float(overfitting.above_lowest_weights(len(losses), lowest) @ losses)
    assert effect < 0
    quiet = SimpleNamespace(sigma=0.008)
    assert not overfitting._still_up(losses, lowest, effect, 0.01, quiet)
    assert overfitting._still_up(losses, lowest, -effect, 0.01, quiet)


def test_a_gap_that_grows_below_0_is_said_to_be_there(tmp_path):
    """Validation text that is easier than what is trained on."""
    for level, said in ((-0.5, True), (0.1, False)):
        lines = ["step,train_loss,val_loss"]
        for s in range(100, 4100, 100):
            train = 2 + 2 / (1 + s / 300)
            lines.append(
                f"{s},{train:.4f},{train + level + s / 20_000 + 0.002 * (s % 300 // 100):.4f}"
            )
        file = tmp_path / "log.csv"
        file.write_text("\n".join(lines))
        gap = load_run(file).found.verdict("gap")
        assert (gap.verdict, "still below 0" in gap.because) == ("growing", said)
