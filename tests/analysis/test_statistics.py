"""Noise, ties, harm, slopes, schedule, spikes, divergence: small cases with known answers."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import made
import numpy as np
import pytest
import simulator

from overnight.analysis import (
    best,
    forecast,
    listings,
    noise,
    outliers,
    overfitting,
    schedule,
    spikes,
)
from overnight.analysis.findings import Verdict
from overnight.analysis.noise import Scatter
from overnight.analysis.run import load_run
from overnight.analysis.series import Series
from overnight.analysis.tables import EVAL, TRAIN, Log, binned, empty
from overnight.analysis.verdicts import holm
from overnight.config import Schedule
from overnight.report import numbers, questions
from overnight.schedule import rate


def test_scatter_finds_sigma_and_ignores_a_smooth_curve():
    rng = np.random.default_rng(0)
    steps = np.arange(1.0, 201) * 50
    found = noise.scatter(steps, 2 + 3 * steps**-0.4 + 0.01 * rng.standard_normal(200))
    assert found.sigma == pytest.approx(0.01, rel=0.2)
    assert found.rho < 0.2


def test_scatter_corrects_for_correlation():
    rng = np.random.default_rng(1)
    steps = np.arange(1.0, 401)
    found = [noise.scatter(steps, simulator.noise(rng, 400, 0.4)) for _ in range(20)]
    assert np.mean([f.sigma for f in found]) == pytest.approx(1.0, rel=0.1)
    assert np.mean([f.rho for f in found]) == pytest.approx(0.4, abs=0.1)


@pytest.mark.parametrize("n", range(6))
def test_scatter_of_too_few_is_unknown(n):
    assert not noise.scatter(np.arange(n, dtype=float), np.ones(n)).known


def test_scatter_of_a_rounded_log_is_not_nothing():
    values = np.full(40, 2.31)
    values[[5, 12, 20, 21, 33]] = 2.32
    assert noise.scatter(np.arange(1.0, 41) * 100, values).sigma == pytest.approx(0.003, abs=0.002)


def test_a_series_that_does_not_change_has_no_noise():
    assert not noise.scatter(np.arange(1.0, 41), np.full(40, 2.0)).known


def test_level_of_the_lowest_takes_its_luck_back():
    """On a plateau the lowest of 40 is 2.2σ too low, its level by far less."""
    rng = np.random.default_rng(0)
    steps = np.arange(1.0, 41) * 100
    levels, lowest = [], []
    for _ in range(50):
        values = 3 + 0.01 * rng.standard_normal(40)
        at = int(np.argmin(values))
        value, low, high = noise.level(steps, values, at)
        assert low < value < high
        levels.append((value - 3) / 0.01)
        lowest.append((values[at] - 3) / 0.01)
    assert np.mean(lowest) < -2
    assert np.mean(levels) > -0.5


def test_level_before_the_last_three_quarters_and_in_a_long_series():
    steps = np.arange(1.0, 1001) * 10
    values = 2 + steps**-0.5 + 1e-4 * np.random.default_rng(0).standard_normal(1000)
    for at in (0, 3, 500, 999):
        value, low, high = noise.level(steps, values, at)
        assert value == pytest.approx(values[at], abs=1e-3)
        assert high - low < 1e-3


def test_standard_error_of_a_difference():
    known = Scatter.exactly(2.0, 0.5)
    assert known.difference_se(np.array([0, 1, 99])) == pytest.approx([0.0, 2.0, math.sqrt(8)])


def test_standard_error_of_a_mean_with_correlation():
    known = Scatter.exactly(2.0, 0.5)
    exact = sum(0.5 ** abs(i - j) for i in range(4) for j in range(4)) / 16
    assert known.se(np.full(4, 0.25)) == pytest.approx(2.0 * math.sqrt(exact))


def test_tie_width_is_guptas():
    """Two equal values: P(Z₁ − Z₂ ≤ h) = 95 % at h = √2 · 1.645; grows with their number."""
    assert best.tie_width(2) == pytest.approx(math.sqrt(2) * 1.6449, abs=1e-3)
    assert best.tie_width(2) < best.tie_width(5) < best.tie_width(50)


def test_ties_on_shared_blocks_need_no_scatter():
    values = np.array([2.5, 2.40, 2.401, 2.45])
    mask = best.tied_on_blocks(values, lambda i: 0.001)
    assert mask.tolist() == [False, True, True, False]


@pytest.mark.parametrize("n", range(8))
def test_harm_of_too_few_is_cannot_tell(n):
    """But for "no" where the last of at least three is the lowest: then nothing rose."""
    down = overfitting.harm(np.arange(n), np.linspace(3, 1, n))
    assert down.verdict == ("no" if n >= 3 else "cannot_tell")
    assert ("the lowest of" in down.because) == (n >= 3)
    assert overfitting.harm(np.arange(n), np.linspace(1, 3, n)).verdict == "cannot_tell"


def test_of_nine_evaluations_the_last_may_be_the_lowest():
    """As of sixteen; where it is not, nine would not show a small rise."""
    values = 3 - 0.1 * np.arange(9) + 0.01 * np.random.default_rng(0).standard_normal(9)
    assert "is the lowest of 9" in overfitting.harm(np.arange(9), values).because
    assert overfitting.harm(np.arange(9), values).verdict == "no"
    values[-1] = values[-2] + 0.001
    assert overfitting.harm(np.arange(9), values).verdict == "cannot_tell"


def test_harm_of_a_clear_rise():
    rng = np.random.default_rng(0)
    u = np.linspace(-1, 1, 41)
    found = overfitting.harm(np.arange(41) * 10, 2 + u**2 + 0.01 * rng.standard_normal(41))
    assert found.verdict == "yes"
    assert abs(found.since_step - 200) <= 20
    assert found.p < 1e-6
    assert found.effect_nats == pytest.approx(1.0, abs=0.15)
    assert found.ci[0] < found.effect_nats < found.ci[1]


def test_harm_ignores_a_bump_that_died_away():
    rng = np.random.default_rng(0)
    values = np.full(40, 2.0) + 0.01 * rng.standard_normal(40)
    values[22:26] += [0.2, 0.1, 0.05, 0.02]
    assert overfitting.harm(np.arange(40), values).verdict != "yes"


def test_harm_takes_missing_values_and_long_series():
    values = np.concatenate([np.linspace(3, 2, 5000), np.linspace(2, 2.5, 5000)])
    values += 0.01 * np.random.default_rng(0).standard_normal(10_000)
    values[::7] = np.nan
    assert overfitting.harm(np.arange(10_000), values).verdict == "yes"


def test_variances_of_ramps_match_the_matrix():
    rhos = np.array([-0.4, 0.0, 0.3])
    for rho, table in zip(rhos, overfitting._ramp_variance(12, rhos), strict=True):
        for m in range(2, 13):
            c = np.arange(m) - (m - 1) / 2
            r = rho ** np.abs(np.subtract.outer(np.arange(m), np.arange(m)))
            assert table[m - 1] == pytest.approx(c @ r @ c)


def test_rising_with_train_is_not_overfitting(tmp_path):
    steps = np.arange(1, 41) * 100
    rise = np.where(steps > 2000, (steps - 2000) / 2000 * 0.5, (2000 - steps) / 2000)
    rng = np.random.default_rng(0)
    lines = ["step,train_loss,val_loss"]
    for s, r in zip(steps, rise, strict=True):
        a, b = 0.01 * rng.standard_normal(2)
        lines.append(f"{s},{2 + r + a},{2.1 + r + b}")
    path = tmp_path / "log.csv"
    path.write_text("\n".join(lines))
    v = load_run(path).found.verdict("overfitting")
    assert v.verdict == "no"
    assert "not overfitting" in v.because


def _overfit(tmp_path, seed, noise):
    """Validation rises by 0.1 nats over the second half while train falls by 0.05."""
    rng = np.random.default_rng(seed)
    steps = np.arange(41) * 250
    fall = 1.0 * np.exp(-steps / 1500)
    val = 3.2 + fall + 0.12 * np.clip((steps - 5000) / 5000, 0, 1) + 0.01 * rng.standard_normal(41)
    train = 3.0 + fall - 0.05 * steps / 5000 + noise * rng.standard_normal(41)
    path = tmp_path / "log.csv"
    rows = (f"{s},{t},{v}" for s, t, v in zip(steps, train, val, strict=True))
    path.write_text("\n".join(["step,loss,val_loss", *rows]))
    return load_run(path).found.verdict("overfitting")


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.2])
def test_noise_of_single_batches_hides_no_overfitting(noise, tmp_path):
    found = [_overfit(tmp_path, seed, noise) for seed in range(20)]
    assert [v.verdict for v in found].count("yes") >= 19
    for v in found:
        low, high = v.evidence["train_change_low"], v.evidence["train_change_high"]
        assert low < v.evidence["train_change"] < high
    assert any(low < -0.05 < high for low, high in (
        (v.evidence["train_change_low"], v.evidence["train_change_high"]) for v in found
    ))  # fmt: skip


def test_of_many_evaluations_one_scatters_as_it_does():
    """Means are tested, but the sentence is about single ones."""
    rng = np.random.default_rng(0)
    steps = np.arange(2000) * 100.0
    losses = 3 + np.exp(-steps / 20_000) + 0.05 * rng.standard_normal(2000)
    v = overfitting.harm(steps, losses)
    assert v.evidence["sigma"] == pytest.approx(0.05, rel=0.15)
    assert v.evidence["lowest"] == losses.min()
    assert (v.evidence["final"], v.evidence["final_step"]) == (losses[-1], 199_900)


def test_holm():
    def test(name, verdict, p):
        return Verdict(id=name, verdict=verdict, because="", p=p, p_raw=p)

    given = [("overfitting", "yes", 0.01), ("gap", "growing", 0.04)]
    given += [("still_improving", "no", 0.5), ("train_drift", "yes", 0.03)]
    found = holm([test(*g) for g in given])
    assert [v.verdict for v in found] == ["yes", "cannot_tell", "no", "cannot_tell"]
    assert [round(v.p, 3) for v in found] == [0.04, 0.09, 0.5, 0.09]


@pytest.mark.parametrize("kind", simulator.KINDS)
@pytest.mark.parametrize("warmup", [0, 60])
def test_schedule_is_named(kind, warmup):
    steps = np.arange(1.0, 1001, 10)
    lr = simulator.learning_rate(steps, kind, 1000, warmup, 0.1)
    train = {"step": steps, "lr": np.array([float(f"{x:.3g}") for x in lr])}
    found = schedule.schedule(train, None, None)
    assert found.kind == kind
    assert found.warmup_steps == pytest.approx(warmup, abs=3)


def test_warmup_from_next_to_nothing():
    found = schedule.schedule(
        {"step": np.arange(1.0, 12.0), "lr": np.array([1e-300] * 9 + [1e8, 1e8])}, None, None
    )
    assert found.warmup_steps == 10


def test_a_warm_up_of_few_rows_is_not_known():
    """Of 15 steps to 5e-4 and down again, three rows show neither length nor peak."""
    rates = [rate(Schedule(kind="linear", warmup=15), s, 30) for s in (10, 20, 30)]
    found = schedule.schedule(
        {"step": np.array([10.0, 20.0, 30.0]), "lr": 5e-4 * np.array(rates)}, None, None
    )
    assert (found.warmup_steps, found.still_warming) == (None, False)


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant", "wsd"])
def test_planned_rate_is_the_trainers(kind):
    section = {"kind": kind, "warmup": 30, "min_ratio": 0.1, "decay": 0.2}
    steps = 50_000
    planned = forecast.planned_rates({"schedule": section}, steps)
    expected = [rate(Schedule(**section), s, steps) for s in range(1, steps + 1)]
    assert np.allclose(planned, expected, atol=2e-3)
    assert planned.sum() == pytest.approx(sum(expected), rel=1e-5)


@pytest.mark.parametrize(
    "section",
    [None, [], "linear", {}, {"warmup": 20}, {"kind": "steps"}, {"kind": "wsd", "decay": 2}],
)
def test_no_rate_is_planned_where_the_settings_do_not_say(section):
    assert forecast.planned_rates({"schedule": section}, 500) is None
    assert forecast.planned_rates(None, 500) is None


@pytest.mark.parametrize(("every", "digits", "warmup"), [(1, 6, 700), (250, 9, 500), (10, 5, 200)])
def test_warmup_of_rates_that_were_rounded_or_rarely_logged(every, digits, warmup):
    steps = np.arange(0, 5000, every)
    lr = 6e-4 * np.minimum(1, (steps + 1) / warmup)
    table = {"step": steps.astype(float), "lr": np.round(lr, digits)}
    found = schedule.schedule(table, None, None)
    assert found.warmup_steps == pytest.approx(warmup, rel=0.02)


def test_still_warming_up():
    steps = np.arange(10.0, 110, 10)
    found = schedule.schedule({"step": steps, "lr": steps * 1e-5}, None, 1000)
    assert found.still_warming


def _losses(tmp_path, loss):
    path = tmp_path / "log.csv"
    path.write_text("step,loss\n" + "\n".join(f"{i},{x}" for i, x in enumerate(loss)))
    return load_run(path).found


def test_spike_that_recovers(tmp_path):
    rng = np.random.default_rng(0)
    loss = np.linspace(4, 3, 300) + 0.02 * rng.standard_normal(300)
    loss[150] += 1.0
    v = _losses(tmp_path, loss).verdict("spikes")
    assert (v.verdict, v.evidence["count"], v.evidence["recovered"]) == ("yes", 1, 1)
    assert v.evidence["steps"] == [150]
    assert v.effect_nats == pytest.approx(1.0, abs=0.1)


def test_divergence_that_stays(tmp_path):
    rng = np.random.default_rng(0)
    loss = np.linspace(6, 3, 300) + 0.02 * rng.standard_normal(300)
    loss[200:] += 4
    v = _losses(tmp_path, loss).verdict("divergence")
    assert v.verdict == "yes"
    assert abs(v.since_step - 200) <= 10


def test_loss_that_became_nan(tmp_path):
    loss = [*np.linspace(6, 3, 50), *([math.inf] * 5)]
    v = _losses(tmp_path, loss).verdict("divergence")
    assert (v.verdict, v.since_step) == ("yes", 50)


def test_a_run_that_broke_is_not_improving(tmp_path):
    path = tmp_path / "log.csv"
    rows = [f"{i},{5 - i / 20},{5 - i / 20 + 0.01 * (i % 3)}" for i in range(40)]
    path.write_text(
        "\n".join(["step,loss,val_loss", *rows, *(f"{i},nan,nan" for i in range(40, 60))])
    )
    found = load_run(path).found
    assert found.verdict("divergence").verdict == "yes"
    for name in ("still_improving", "plateau"):
        assert found.verdict(name).verdict == "no"
        assert "diverged" in found.verdict(name).because


def logged(tmp_path, train, val):
    path = tmp_path / "log.csv"
    rows = (f"{100 * i},{t:.4f},{v:.4f}\n" for i, (t, v) in enumerate(zip(train, val, strict=True)))
    path.write_text("step,loss,val_loss\n" + "".join(rows))
    return load_run(path).found


@pytest.mark.parametrize("at", [20, 45, 59])
def test_one_value_is_no_trend(at, tmp_path):
    """Neither of the training loss nor of validation, though a line would follow it."""
    rng = np.random.default_rng(0)
    train, val = 3.0 + 0.01 * rng.standard_normal((2, 60))
    out = np.zeros(60)
    out[at] = 6.0
    found = logged(tmp_path, train + out, val)
    assert found.verdict("train_drift").verdict != "yes"
    assert found.verdict("gap").verdict == "stable"
    assert found.verdict("spikes").verdict == ("no" if at == 59 else "yes")
    found = logged(tmp_path, train, val + out)
    harm = found.verdict("overfitting")
    assert harm.verdict == ("cannot_tell" if at == 59 else "no")
    assert harm.evidence["left_out"] == 1
    assert found.verdict("gap").verdict == "stable"
    low = logged(tmp_path, train, val - 0.2 * out)
    assert low.verdict("overfitting").verdict == "no"


def test_what_stays_where_it_jumped_to_is_a_trend(tmp_path):
    rng = np.random.default_rng(0)
    values = 3.0 + 0.01 * rng.standard_normal(60)
    for rise in ([1.0, 1.0], [0.05, 0.6, 2.0], [0.08, 2.0]):
        risen = values.copy()
        risen[-len(rise) :] = 3.0 + np.array(rise)
        assert not outliers.outliers(risen).any()
        assert overfitting.harm(np.arange(60), risen).verdict == "yes"


@pytest.mark.parametrize("after", [1, 3, 6])
def test_a_wide_spike_near_the_end_is_found(after, tmp_path):
    values = 3.0 + 0.01 * np.random.default_rng(0).standard_normal(60)
    values[-after - 3 : -after] += [0.3, 0.25, 0.2]
    assert logged(tmp_path, values, np.full(60, np.nan)).verdict("spikes").verdict == "yes"


def test_a_steep_beginning_has_no_outliers():
    rng = np.random.default_rng(0)
    for _ in range(300):
        n = int(rng.choice([20, 30, 50, 100, 300]))
        x = np.arange(1, n + 1) / n
        fall = 0.1 * x ** -rng.uniform(0.1, 1) + 3 * np.exp(-x * rng.uniform(3, 60))
        values = 2 + fall + 10 ** rng.uniform(-4, -1.5) * rng.standard_normal(n)
        assert not outliers.outliers(values).any()


def test_divergence_begins_where_the_loss_left(tmp_path):
    """Not where a median of what came after has noticed."""
    rng = np.random.default_rng(0)
    loss = 3.0 + np.exp(-np.arange(1000) / 50) + 0.02 * rng.standard_normal(1000)
    loss[700:] += 3.0
    found = logged(tmp_path, loss, np.full(1000, np.nan))
    assert found.verdict("divergence").since_step == 70_000
    good = found.verdict("divergence").evidence["good_step"]
    assert 69_000 <= good < 70_000
    assert f"of step {good:,} or before" in found.advice[0].do


def test_one_goes_back_to_before_the_divergence(tmp_path):
    """It is seen when it is beyond noise: the last evaluation as low as the best is before that."""
    rng = np.random.default_rng(0)
    steps = np.arange(400)
    loss = 2 + 2 * np.exp(-steps / 40) + 0.02 * rng.standard_normal(400)
    loss[300:] += 0.02 * (steps[300:] - 300)
    val = np.where(steps % 10 == 0, loss + 0.01, np.nan)
    found = logged(tmp_path, loss, val)
    since = found.verdict("divergence").since_step
    assert since > 30_300
    step = int(re.search(r"of step ([\d,]+) or before", found.advice[0].do)[1].replace(",", ""))
    assert 25_000 <= step <= 30_200
    alone = logged(tmp_path, loss, np.full(400, np.nan)).verdict("divergence")
    assert alone.evidence["good_step"] <= 30_200 < alone.since_step


def test_a_median_is_that_of_an_odd_number(tmp_path):
    """Else it is no value of them, and of two the upper one would be taken."""
    loss = 2 + np.exp(-np.arange(500) / 50)
    found = logged(tmp_path, loss, np.full(500, np.nan)).verdict("divergence")
    assert found.evidence["width"] == 11
    assert found.evidence["now"] == pytest.approx(float(np.median(loss[-11:])), abs=1e-4)


def begun_with_weights(tmp_path, level):
    """A run of 300 steps on `level`, which began with weights whose loss was 2."""
    ledger = made.LEDGER | {"train_tokens": 10**9}
    run = made.run_folder(tmp_path / "r", steps=300, every=150, ledger=ledger)
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    told = {"type": "event", "kind": "initial", "message": "begins with …", "data": {}}
    rows.insert(1, {"attempt": 1, "seq": 0, "step": 0, **told})
    for row in rows:
        if row["type"] == "eval":
            row["val_loss"] = 2.0 if row["step"] == 0 else level + 0.001 * (row["step"] % 7)
    (run / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_run(run).found


@pytest.mark.parametrize(("level", "said"), [(2.3, True), (1.8, False)])
def test_weights_that_were_better_are_kept(level, said, tmp_path):
    found = begun_with_weights(tmp_path, level)
    advice = " ".join(a.do for a in found.advice)
    assert ("Keep the weights it began with" in advice) == said
    assert found.verdict("repeats").verdict == "cannot_tell"


def test_evaluations_too_noisy_to_tell_want_more_tokens(tmp_path):
    rng = np.random.default_rng(1)
    loss = 3.0 - 0.0006 * np.arange(100)
    found = logged(tmp_path, loss, loss + 0.1 * rng.standard_normal(100))
    assert found.verdict("still_improving").verdict == "cannot_tell"
    assert any(a.do.startswith("Evaluate on more held-out tokens") for a in found.advice)
    rates = 1e-3 * np.linspace(1, 0, 100)
    rows = zip(
        range(0, 10_000, 100), loss, loss + 0.1 * rng.standard_normal(100), rates, strict=True
    )
    path = tmp_path / "annealed.csv"
    path.write_text(
        "step,loss,val_loss,lr\n" + "".join(f"{s},{t},{v},{r}\n" for s, t, v, r in rows)
    )
    assert not any(a.do.startswith("Evaluate on more") for a in load_run(path).found.advice)
    quiet = logged(tmp_path, loss, loss + 0.001 * rng.standard_normal(100))
    assert not any(a.do.startswith("Evaluate on more") for a in quiet.advice)


def test_what_concerns_the_next_run_is_no_answer_to_what_next(tmp_path):
    loss = 2 + 2 * np.exp(-np.arange(60) / 10)
    found = logged(tmp_path, loss, loss)
    found.advice = [a for a in found.advice if a.because == ["comparability"]]
    assert found.advice
    card = next(card for card in questions.cards(found) if card.question == "What next?")
    assert card.answer == "nothing"
    assert "For the next run: Log bits per byte" in card.detail


def test_a_run_that_was_stopped_goes_on(tmp_path):
    run = made.run_folder(tmp_path / "r", steps=300)
    log = run / "log.jsonl"
    log.write_text(log.read_text().replace('"reason":"finished"', '"reason":"interrupted"'))
    found = load_run(run).found
    assert not any("--resume" in a.do for a in found.advice)  # it was at its end
    log.write_text(log.read_text().replace('"steps":300', '"steps":900'))
    first = load_run(run).found.advice[0]
    assert first.do.endswith(f"step 900: overnight train --resume {run}")


def test_a_loss_that_no_tokenizer_makes_possible(tmp_path):
    rng = np.random.default_rng(0)
    values = 0.3 + 0.01 * rng.standard_normal((2, 60))
    assert logged(tmp_path, *values).verdict("too_good").verdict == "yes"
    assert logged(tmp_path, *(values + 0.5)).verdict("too_good").verdict == "cannot_tell"


def test_median_of_neighbours_leaves_the_value_out():
    values = np.random.default_rng(0).standard_normal(60)
    half = outliers.HALF
    padded = np.pad(values, (half, 0), "edge")
    for i, found in enumerate(outliers._median_of_neighbours(values)):
        begin = min(i, len(padded) - 2 * half - 1)
        around = np.delete(padded[begin : begin + 2 * half + 1], i + half - begin)
        assert np.sort(around)[[9, 10]].min() <= found <= np.sort(around)[[9, 10]].max()


@pytest.mark.parametrize("n", [20, 30, 100])
def test_ordinary_noise_is_no_spike(n):
    rng, found = np.random.default_rng(0), 0
    for _ in range(200):

        class Made:
            train_n, train_steps = n, np.arange(n)
            train_loss = 3 + 2 * np.arange(1, n + 1) ** -0.3 + 0.05 * rng.standard_normal(n)

        found += spikes.spikes(Made()).verdict == "yes"
    assert found <= 2


def test_spikes_of_too_few():
    class Short:
        train_steps = train_loss = np.ones(5)
        train_n = 5

    assert spikes.spikes(Short()).verdict == "cannot_tell"


def test_forecast_of_a_law_it_knows():
    """Without annealing and nearly without noise, the extrapolated value is hit."""
    steps = np.arange(10.0, 410, 10)
    rates = np.ones(1000)
    val = 2 + 0.5 * (steps / 1000) ** -0.3
    guess, _ = forecast._guess(steps, val, 1000, rates, 0.002)
    assert guess.value == pytest.approx(2.5, abs=0.01)
    assert guess.low < 2.5 < guess.high


def test_a_hindcast_knows_nothing_of_what_came_after():
    """Noise that is large only behind 60 % of a run makes no earlier interval wider."""
    steps = np.arange(20.0, 1001.0, 20.0)
    noise = np.random.default_rng(0).normal(0, 0.002, len(steps))
    val = 2 + 3 * steps**-0.4 + noise

    def hindcasts(val):
        log, series = SimpleNamespace(forecasts=[]), SimpleNamespace(steps=steps, val=val)
        return forecast._scores(log, series, 1000, np.ones(1000))

    wild = val + 0.3 * np.where(steps > 600, np.sign(noise), 0) * (steps < 1000)
    calm, wilder = hindcasts(val), hindcasts(wild)
    assert [s.made_at for s in calm] == [400, 600, 800]
    assert [(s.low, s.high) for s in calm[:2]] == [(s.low, s.high) for s in wilder[:2]]
    assert calm[2].high - calm[2].low < wilder[2].high - wilder[2].low


def test_forecast_refuses_with_a_reason():
    steps = np.arange(10.0, 60, 10)
    guess, reason = forecast._guess(steps, steps * 0 + 2, 1000, np.ones(1000), 0.01)
    assert guess is None
    assert "at least 8 evaluations" in reason


def test_a_watched_plateau_is_not_stopped():
    """Looked at after each of 60 evaluations, in 20 runs with correlated noise: at most one."""
    rng = np.random.default_rng(8)
    stopped = 0
    for _ in range(20):
        values = simulator.noise(rng, 60, 0.3)
        looks = (overfitting.harm(np.arange(k), values[:k]) for k in range(8, 61))
        stopped += any(overfitting.proven(v) for v in looks)
    assert stopped <= 1


def test_watched_harm_is_proven_when_it_goes_on():
    rng = np.random.default_rng(8)
    proven = []
    for _ in range(20):
        values = np.concatenate([np.linspace(2, 1, 20), 1 + 0.0075 * np.arange(1, 21)])
        values = values + 0.01 * rng.standard_normal(40)
        proven.append(overfitting.proven(overfitting.harm(np.arange(40), values)))
    assert np.mean(proven) >= 0.95


def test_a_reason_to_stop_is_one_sentence_and_only_of_proven_harm():
    rng = np.random.default_rng(3)
    u = np.linspace(-1, 1, 31)
    steps = [int(s) for s in np.arange(31) * 100]
    losses = [float(v) for v in 2 + u**2 + 0.01 * rng.standard_normal(31)]
    assert overfitting.stop_reason(steps[:16], losses[:16]) == ""
    reason = overfitting.stop_reason(steps, losses)
    assert "at step 3,000" in reason
    assert reason.count("\n") == 0
    assert overfitting.stop_reason([], []) == ""
    assert overfitting.stop_reason([0, 100], [5.0, math.nan]) == ""
    flat = [float(v) for v in 2 + 0.01 * rng.standard_normal(31)]
    assert all(overfitting.stop_reason(steps[:k], flat[:k]) == "" for k in range(32))


@pytest.mark.parametrize(
    ("alone", "after", "said"),
    [(2.1, 0.0, True), (2.1, 1.0, True), (2.1, 1.6, False), (6.03, 2.93, False)],  # the last: 600 B
)
def test_held_out_text_in_the_training_text_is_said(alone, after, said, tmp_path):
    path = made.run_folder(tmp_path / "run")
    file = path / "yardsticks.json"
    measured = json.loads(file.read_text())
    xz = next(row for row in measured["yardsticks"] if row["name"] == "xz")
    xz["bpb"] = alone
    measured["yardsticks"].append(xz | {"name": "xz after training text", "bpb": after})
    file.write_text(json.dumps(measured))
    advice = " ".join(a.do for a in load_run(path).found.advice)
    assert ("stands in the training text" in advice) == said


def test_equal_evaluations_are_tied_with_each_other():
    values = np.array([5.5, 5.1, 4.9, 4.6, 4.22, 4.05, 4.05])
    mask = best.tied_on_blocks(values, lambda i: 0.01)
    assert mask.tolist() == [False] * 5 + [True] * 2


def test_what_a_trend_has_proven_to_rise_is_tied_with_nothing():
    """A small held-out text: its blocks differ more than the loss has risen."""
    steps = np.arange(0.0, 1001, 25)
    rng = np.random.default_rng(0)
    values = 2 + 0.3 * np.maximum(0, (steps - 300) / 700) + 0.5 * np.exp(-steps / 60)
    values += 0.004 * rng.standard_normal(len(steps))
    tied = set(steps[~best.left_behind(values)].tolist())
    assert steps[np.argmin(values)] in tied
    assert 1000 not in tied
    assert {275, 300, 325} <= tied


def test_a_checkpoint_on_disk_is_taken_where_the_best_is_gone():
    nothing = np.full(5, np.nan)
    evals = dict.fromkeys(EVAL, nothing) | {"step": np.arange(5.0)}
    evals |= {"val_loss": np.array([5.0, 3.0, 1.0, 2.0, 4.0]), "attempt": np.ones(5)}
    log = Log(Path("run"), "run folder", empty(TRAIN), evals)
    log.checkpoint = [{"step": step, "present": step != 2} for step in (1, 2, 3)]
    found = best.best(log, Series(log), risen=False)
    assert (found.step, found.pick, found.pick_loss, found.pick_saved) == (2, 3, 2.0, True)
    log.checkpoint = []
    none = best.best(log, Series(log), risen=False)
    assert (none.pick, none.pick_saved) == (2, False)


def test_overfitting_and_ties_do_not_contradict_each_other(tmp_path):
    """Blocks that differ so much that by them alone the end would be as good as the lowest."""
    found = load_run(made.run_folder(tmp_path / "r", 2400, 20, sigma=0.04, harm=0.04)).found
    assert found.verdict("overfitting").verdict == "yes"
    assert found.evaluations[-1].step == 2400
    assert 2400 not in found.best.tied_steps
    assert len(found.best.tied_steps) > 2


def test_many_evaluations_are_judged_as_their_means_are():
    rng = np.random.default_rng(3)
    losses = 2 + 0.01 * rng.standard_normal(4000) + 0.01 * (np.arange(4000) > 2000)
    steps = np.arange(1.0, 4001)
    thin = overfitting.harm(*binned(steps, losses, overfitting.LONGEST)).evidence["z"]
    assert overfitting.harm(steps, losses).evidence["z"] == pytest.approx(thin, rel=0.01)


@pytest.mark.parametrize(("n", "enough"), [(11, False), (12, True)])
def test_a_run_is_not_stopped_by_a_few_evaluations(n, enough):
    found = Verdict(id="harm", verdict="yes", because="", n=n, evidence={"z": 9.0})
    assert overfitting.proven(found) is enough


def test_ties_of_a_few_evaluations_are_as_wide_as_their_errors():
    mask, _ = best.tied_by_se(np.array([1.0, 1.2, 1.5]), np.full(3, 0.1))
    assert mask.tolist() == [True, True, False]


def test_the_interval_score_of_a_miss():
    """1 wide, missed by 1 at 95 %: 1 + 2/0.05 · 1."""
    missed = forecast.score(forecast.Guess(1.5, 1.0, 2.0, 1.4, 1.4), 10, 20, 3.0)
    assert missed.interval_score == pytest.approx(41.0)
    assert missed.inside is False


def test_a_window_that_ends_with_a_pass_belongs_to_it():
    train = {"step": [10, 20, 30], "loss": [3.0, 2.0, 1.0], "passes": [0.5, 1.0, 1.5]}
    train |= {"epoch": [np.nan] * 3, "tokens_per_s": [1.0] * 3}
    columns = {name: np.array(values, float) for name, values in train.items()}
    evals = {"step": np.array([20.0]), "val_loss": np.array([2.5])}
    log = Log(source=Path("run"), format="run folder", train=columns, eval=evals)
    found = listings.passes(log)
    assert [(p.number, p.from_step, p.to_step, p.train_loss) for p in found] == [
        (1, 10, 20, 2.5), (2, 30, 30, 1.0),
    ]  # fmt: skip


def test_a_part_of_a_step_begins_no_pass():
    """Two passes are rounded up to whole steps."""
    steps = np.array([10, 20, 30, 40, 41])
    train = {"step": steps, "loss": np.ones(5), "passes": steps * 2.01 / 41}
    train |= {"epoch": np.full(5, np.nan), "tokens_per_s": np.ones(5)}
    evals = {"step": np.array([41.0]), "val_loss": np.array([2.5])}
    log = Log(source=Path("run"), format="run folder", train=train, eval=evals)
    assert [(p.number, p.from_step, p.to_step) for p in listings.passes(log)] == [
        (1, 10, 20), (2, 30, 41),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(7.34, "7.3 s"), (59.96, "1 min"), (61, "1 min 1 s"), (3599, "59 min 59 s"), (3600, "1 h")],
)
def test_durations(seconds, said):
    assert numbers.duration(seconds) == said
