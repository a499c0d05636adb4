"""What a log may not be taken for: rules of the readers and of the verdicts, one case each."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from foreign import STEPS, evaluations, falling, losses, run_of, told, val

from overnight.analysis.divergence import proven
from overnight.analysis.findings import Findings
from overnight.analysis.outliers import outliers, spiked
from overnight.analysis.overfitting import harm
from overnight.analysis.readers.kinds import of_row
from overnight.analysis.run import Run


def jsonl(tmp_path: Path, rows: list[dict[str, object]]) -> Run:
    return run_of(tmp_path, "log.jsonl", [json.dumps(row) for row in rows])


def test_a_loss_that_never_was_near_chance_is_no_divergence(tmp_path: Path) -> None:
    settings = {"config": {"vocab_size": 50257}}
    sums = [{"step": s, "loss": 20 * falling(s)} for s in STEPS]
    found = jsonl(tmp_path, [settings, *sums]).found.verdict("divergence")
    assert (found.verdict, found.since_step) == ("cannot_tell", None)
    assert "another unit" in found.because
    rises = [{"step": s, "loss": 10.8 if s < 300 else 30 + falling(s)} for s in STEPS]
    assert jsonl(tmp_path, [settings, *rises]).found.verdict("divergence").verdict == "yes"
    badly_drawn = [{"step": s, "loss": 11.0 + max(0, s - 900) / 100} for s in STEPS]
    assert jsonl(tmp_path, [settings, *badly_drawn]).found.verdict("divergence").verdict == "yes"


def test_worse_than_guessing_since_it_rose(tmp_path: Path) -> None:
    """Not since it was lowest, or a spike at the end would be proven."""
    spike = [{"step": s, "loss": falling(s) + (9 if s >= 1180 else 0)} for s in STEPS]
    found = jsonl(tmp_path, [{"config": {"vocab_size": 65}}, *spike]).found.verdict("divergence")
    assert (found.verdict, found.since_step, proven(found)) == ("yes", 1180, False)
    assert "worse than guessing" in found.because


def test_a_few_rows_beside_evaluations_are_not_the_train_side(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"step": s, "loss": falling(s)} for s in range(50, 2401, 50)]
    rows += [{"step": s, "eval_loss": val(s)} for s in range(120, 2401, 120)]
    found = jsonl(tmp_path, sorted(rows, key=lambda row: int(str(row["step"])))).found
    assert "since the evaluation before" in found.gap_estimator
    assert found.verdict("gap").verdict != "cannot_tell"
    assert found.verdict("gap").n == 20


SETS = [("val", 0.2), ("test", 0.5)]


def test_a_test_split_among_evaluations(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"step": s, "loss": falling(s)} for s in STEPS]
    for s in STEPS:
        for split, above in SETS:
            rows.append({"step": s, "event": "eval", "split": split, "loss": falling(s) + above})
    run = jsonl(tmp_path, rows)
    assert evaluations(run) == [(s, pytest.approx(falling(s) + 0.2)) for s in STEPS]


def test_a_train_loss_beside_a_test_set_is_of_the_evaluation(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"step": s, "loss": falling(s)} for s in STEPS]
    rows += [{"step": s, "train_loss": 1.5, "test_loss": val(s)} for s in range(100, 1201, 100)]
    run = jsonl(tmp_path, sorted(rows, key=lambda row: int(str(row["step"]))))
    assert losses(run) == [(s, falling(s)) for s in STEPS]
    assert run.found.gap_estimator == "training loss logged with the evaluation"


@pytest.mark.parametrize("order", [1, -1])
def test_a_test_set_beside_validation_is_not_looked_at(tmp_path: Path, order: int) -> None:
    rows: list[dict[str, object]] = []
    for s in STEPS:
        rows.append({"step": s, "split": "train", "loss": falling(s)})
        rows += [{"step": s, "split": k, "loss": falling(s) + a} for k, a in SETS[::order]]
    run = jsonl(tmp_path, rows)
    assert evaluations(run) == [(s, pytest.approx(falling(s) + 0.2)) for s in STEPS]
    assert told(run, "judged by validation")
    lines = [
        f"step {s} {kind} loss {falling(s) + a:.4f}"
        for s in STEPS
        for kind, a in [("train", 0), *SETS[::order]]
    ]
    printed = run_of(tmp_path, "log.txt", lines)
    assert evaluations(printed) == [(s, pytest.approx(falling(s) + 0.2)) for s in STEPS]


def test_a_test_set_alone_stands_for_validation(tmp_path: Path) -> None:
    rows = [f"{s},{falling(s)},{val(s)}" for s in STEPS]
    run = run_of(tmp_path, "m.csv", ["step,train_loss,test_loss", *rows])
    assert evaluations(run) == [(s, val(s)) for s in STEPS]
    assert run.found.source.columns["test_loss"] == "val_loss"
    assert told(run, "taken for it")


@pytest.mark.parametrize(
    ("given", "kind", "warmup", "end"),
    [
        ({"warmup_steps": 0, "warmup_ratio": 0.03, "lr_scheduler_type": "linear"}, "linear", None,
         0.0),
        ({"warmup_steps": 0, "lr_scheduler_type": "cosine_with_min_lr"}, None, 0, None),
        ({"warmup_steps": 9, "lr_scheduler_type": "constant_with_warmup"}, "constant", 9, None),
        ({"warmup": 9, "scheduler": "get_cosine_schedule_with_warmup"}, "cosine", 9, None),
        ({"warmup": 9, "scheduler": "CosineAnnealingLR"}, "cosine", 9, None),
        ({"warmup": 9, "scheduler": "linear_warmup_cosine_decay"}, None, 9, None),
    ],
)  # fmt: skip
def test_settings_of_transformers_are_not_guessed(
    tmp_path: Path, given: dict[str, object], kind: str | None, warmup: int | None,
    end: float | None,
) -> None:  # fmt: skip
    rows = [{"config": given}, *({"step": s, "loss": falling(s), "lr": 1e-3} for s in STEPS)]
    schedule = jsonl(tmp_path, rows).found.schedule
    assert schedule.configured == kind
    assert schedule.configured_warmup == warmup
    assert schedule.configured_end_ratio == end


def test_a_plan_of_minus_one_is_none(tmp_path: Path) -> None:
    rows = [{"config": {"max_steps": -1}, "step": 0, "max_steps": 2000}]
    rows += [{"step": s, "loss": falling(s), "max_steps": 2000} for s in STEPS]
    assert jsonl(tmp_path, rows).found.about.planned_steps == 2000


def test_a_run_that_was_trained_to_its_end_has_no_forecast(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"config": {"max_steps": 1190}}]
    for s in STEPS:
        rows.append({"step": s, "loss": falling(s)})
        rows += [{"step": s, "eval_loss": val(s)}] if s % 100 == 0 else []
    forecast = jsonl(tmp_path, rows[:-1]).found.forecast
    assert (forecast.status, forecast.value) == ("finished", None)


def test_nan_that_a_resume_has_overcome_hides_no_later_one(tmp_path: Path) -> None:
    def part(begin: int, end: int, broke: int) -> list[str]:
        return [f"{s},{falling(s) if s < broke else 'nan'}" for s in range(begin, end, 10)]

    lines = ["step,loss", *part(10, 2000, 1000), *part(800, 1800, 1500)]
    found = run_of(tmp_path, "m.csv", lines).found.verdict("divergence")
    assert (found.verdict, found.since_step) == ("yes", 1500)


def test_nan_in_the_rows_of_evaluations_is_no_loss(tmp_path: Path) -> None:
    """Steps begin again in each epoch, and each ends with a row of its validation."""
    lines = ["epoch,step,loss,val_loss"]
    for epoch in range(5):
        lines += [f"{epoch},{s},{falling(400 * epoch + s)}," for s in range(10, 400, 10)]
        lines.append(f"{epoch},400,nan,{val(400 * epoch + 400)}")
    assert run_of(tmp_path, "m.csv", lines).found.verdict("divergence").verdict == "no"


def test_a_last_row_behind_others_is_a_resume(tmp_path: Path) -> None:
    """And one that came late where rows of later steps follow it."""
    rows = [f"{s},{falling(s)}" for s in STEPS]
    resumed = run_of(tmp_path, "m.csv", ["step,loss", *rows, "1185,2.7"])
    assert losses(resumed)[-1] == (1185, 2.7)
    late = run_of(tmp_path, "n.csv", ["step,loss", *rows, "1185,2.7", "1210,2.6"])
    assert [step for step, _ in losses(late)][-4:] == [1185, 1190, 1200, 1210]


def test_rows_of_two_processes_make_no_sessions(tmp_path: Path) -> None:
    """The step falls at every other row, and one of them had nothing to log now and then."""
    lines = ["step,loss"]
    for s in STEPS:
        lines.append(f"{s},{'nan' if s in (600, 1200) else falling(s)}")
        lines += [f"{s - 5},{falling(s - 5)}"] if s < 1200 else []
    assert run_of(tmp_path, "m.csv", lines).found.verdict("divergence").verdict == "no"


def test_late_evaluations_of_a_train_loss_logged_later(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"step": s, "eval_loss": val(s)} for s in range(100, 2001, 50)]
    rows += [{"step": s, "loss": falling(s)} for s in (1990, 2000, 2010)]
    found = jsonl(tmp_path, rows).found
    assert "were not evaluated" not in found.verdict("still_improving").because


def test_evaluations_of_the_beginning_of_a_continued_run(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = []
    for s in range(100_000, 110_001, 50):
        rows.append({"step": s, "loss": 3 - s / 1e6})
        if s <= 101_000:
            rows.append({"step": s, "val_loss": 3.1 - s / 1e5 + 0.001 * math.sin(s)})
    found = jsonl(tmp_path, rows).found.verdict("still_improving")
    assert found.verdict == "cannot_tell"
    assert "9,000 steps were not evaluated" in found.because


def test_what_is_left_out_of_a_line_is_said(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).standard_normal(60)
    curve = [2 + 0.01 * noise[i] for i in range(60)]
    curve[40] = 9.0
    rows = [f"{10 * i},{2.0 + 0.001 * noise[-i]},{v:.4f}" for i, v in enumerate(curve)]
    found = run_of(tmp_path, "m.csv", ["step,loss,val_loss", *rows]).found
    for name in ("overfitting", "gap", "still_improving"):
        because = found.verdict(name).because
        assert because.endswith("1 evaluation far from its neighbours left out."), name


def test_a_passing_spike_stops_no_run(tmp_path: Path) -> None:
    """One who looks after every row sees each spike at its height."""

    def looked_at(rows: int) -> object:
        losses = [falling(s) + (3 if s >= 1000 else 0) for s in STEPS][:rows]
        lines = [f"{s},{loss}" for s, loss in zip(STEPS, losses, strict=False)]
        return run_of(tmp_path, "m.csv", ["step,loss", *lines]).found.verdict("divergence")

    high = list(STEPS).index(1000)
    for rows, yes, sure in ((high + 3, True, False), (high + 20, True, True)):
        verdict = looked_at(rows)
        assert (verdict.verdict == "yes", proven(verdict)) == (yes, sure)


def test_every_figure_that_disagrees_is_named(tmp_path: Path) -> None:
    """A speed five times too high; epochs that pass twice as fast in the second half."""
    rows = [
        f"{s},{falling(s)},{1000 * s},{s},5000,{s / 600 if s <= 600 else s / 300 - 1:.4f}"
        for s in range(5, 1205, 5)
    ]
    header = "step,loss,tokens,time,tokens_per_s,epoch"
    found = run_of(tmp_path, "m.csv", [header, *rows]).found
    wrong = [check.what for check in found.ledger.checks if not check.agrees]
    assert len(wrong) == 2
    because = found.verdict("units").because
    assert all(what.lower() in because.lower() for what in wrong)


def curve(n: int, rng: np.random.Generator, noise: float = 0.003) -> np.ndarray:
    return 2.6 + 3 / (1 + np.arange(n) / 3) + noise * rng.standard_normal(n)


def log_of(tmp_path: Path, val: np.ndarray, train: np.ndarray | None = None) -> Findings:
    """A log of evaluations at every fifth of the training rows."""
    train = curve(5 * len(val), np.random.default_rng(7)) if train is None else train
    rows = ["step,loss,val_loss"]
    for i, loss in enumerate(train):
        held = f"{val[i // 5]:.4f}" if i % 5 == 4 else ""
        rows.append(f"{50 * i},{loss:.4f},{held}")
    return run_of(tmp_path, "log.csv", rows).found


@pytest.mark.parametrize("n", [10, 17, 25])
@pytest.mark.parametrize("odd", [1, 2])
def test_one_odd_evaluation_at_the_end_is_no_overfitting(n: int, odd: int, tmp_path: Path) -> None:
    """The last one alone may be the first of a rise, or not; the one before it came back."""
    val = curve(n, np.random.default_rng(n))
    val[-odd] += 0.3
    verdict = log_of(tmp_path, val).verdict("overfitting")
    assert verdict.verdict in ("cannot_tell", "no")
    if odd == 1:
        assert verdict.verdict == "cannot_tell"
        assert "next one would tell" in verdict.because


def test_a_lone_last_evaluation_does_not_end_improvement(tmp_path: Path) -> None:
    val = curve(17, np.random.default_rng(1))
    val[-1] += 0.3
    assert log_of(tmp_path, val).verdict("still_improving").verdict == "yes"


def test_a_rise_of_two_evaluations_has_an_effect(tmp_path: Path) -> None:
    """Means of the end and of the lowest share no evaluation."""
    val = curve(40, np.random.default_rng(2))
    val[-2:] += 4
    found = harm(np.arange(40), val)
    assert found.verdict == "yes"
    assert found.effect_nats == pytest.approx(4, abs=0.1)
    train = curve(200, np.random.default_rng(3))
    train[-12:] += 4
    judged = log_of(tmp_path, val, train).verdict("overfitting")
    assert judged.verdict == "no"
    assert judged.because.endswith("both got worse, which is not overfitting.")


@pytest.mark.parametrize(("rows", "tail"), [(301, 5), (5000, 40), (5000, 80)])
def test_a_leap_at_the_very_end_is_not_denied(rows: int, tail: int, tmp_path: Path) -> None:
    loss = curve(rows, np.random.default_rng(4), 0.03)
    loss[-tail:] += 4
    lines = ["step,loss", *(f"{i},{x:.4f}" for i, x in enumerate(loss))]
    verdict = run_of(tmp_path, "log.csv", lines).found.verdict("divergence")
    if verdict.verdict == "cannot_tell":
        assert verdict.evidence["above"] == pytest.approx(4, abs=0.15)
        assert "whether it comes back" in verdict.because
    else:
        assert verdict.verdict == "yes"
        assert verdict.since_step == rows - tail


def test_what_leaps_at_the_end_does_not_still_improve(tmp_path: Path) -> None:
    train = curve(300, np.random.default_rng(5))
    train[-5:] += 4
    found = log_of(tmp_path, curve(60, np.random.default_rng(6)), train)
    assert found.verdict("divergence").verdict == "cannot_tell"
    assert found.verdict("still_improving").verdict == "cannot_tell"
    assert "losses are far up" in found.verdict("still_improving").because
    assert not any(advice.do.startswith("Train longer") for advice in found.advice)


def test_spikes_of_training_are_no_trend_of_the_gap(tmp_path: Path) -> None:
    """A spike falls on an evaluation now and then."""
    train = curve(85, np.random.default_rng(8), 0.03)
    val = curve(85, np.random.default_rng(9))[4::5] + 0.1
    train[64] += 3
    found = log_of(tmp_path, val, train)
    assert found.verdict("spikes").evidence["count"] == 1
    gap = found.verdict("gap")
    assert gap.verdict not in ("growing", "shrinking")
    assert gap.n == 16


def test_spikes_between_evaluations_are_left_out(tmp_path: Path) -> None:
    """Where the train side of the gap is the mean of the rows before."""
    train = curve(85, np.random.default_rng(8), 0.03)
    val = curve(85, np.random.default_rng(9))[4::5] + 0.1
    means = []
    for spike in (0, 4):
        train[62] += spike
        rows = ["step,loss,val_loss"]
        for i, loss in enumerate(train):
            rows.append(f"{50 * i},{loss:.4f},")
            rows += [f"{50 * i + 25},,{val[i // 5]:.4f}"] if i % 5 == 4 else []
        found = run_of(tmp_path, "log.csv", rows).found
        means.append(found.verdict("gap").evidence["mean"])
    assert means[1] == pytest.approx(means[0], abs=0.01)


def test_a_dip_is_no_spike() -> None:
    values = 3 + 0.01 * np.random.default_rng(14).standard_normal(100)
    values[[40, 70]] += [1, -1]
    assert set(np.flatnonzero(outliers(values))) == {40, 70}
    assert set(np.flatnonzero(spiked(values))) == {40}


@pytest.mark.parametrize("at", range(349, 353))
def test_a_jump_of_both_losses_is_no_overfitting(at: int, tmp_path: Path) -> None:
    """The row before a jump stands below its neighbours: that is no spike."""
    train = curve(501, np.random.default_rng(12), 0.03)
    val = curve(501, np.random.default_rng(13))[::25]
    train[at:] += 1.1
    val[np.arange(0, 501, 25) >= at] += 1.1
    rows = ["step,loss,val_loss"]
    for i, loss in enumerate(train):
        rows.append(f"{10 * i},{loss:.4f},{f'{val[i // 25]:.4f}' if i % 25 == 0 else ''}")
    found = run_of(tmp_path, "log.csv", rows).found
    assert found.verdict("divergence").verdict == "yes"
    assert found.verdict("overfitting").verdict != "yes"


def test_of_a_run_that_diverged_no_trend_before_is_told(tmp_path: Path) -> None:
    train = curve(200, np.random.default_rng(10))
    train[120:] += 4
    val = curve(40, np.random.default_rng(11))
    val[24:] += 4
    found = log_of(tmp_path, val, train)
    assert found.verdict("divergence").verdict == "yes"
    for name in ("still_improving", "plateau"):
        assert (found.verdict(name).verdict, found.verdict(name).because) == (
            "no",
            "The run diverged.",
        )


def test_counters_that_a_resume_began_again_further_back_are_counted_on(tmp_path: Path) -> None:
    """0 to 2,500, then from 2,000 to 3,000: 1,000 tokens a step, a second for ten."""
    steps = [*range(0, 2501, 10), *range(2010, 3001, 10)]
    rows = ["step,loss,tokens,elapsed"]
    rows += [f"{s},{curve(400, np.random.default_rng(0))[i]:.3f},{1000 * s},{s / 10}"
             for i, s in enumerate(steps[:251])]  # fmt: skip
    rows += [f"{s},2.7,{1000 * (s - 2000)},{(s - 2000) / 10}" for s in steps[251:]]
    ledger = run_of(tmp_path, "log.csv", rows).found.ledger
    assert ledger.tokens == 3_000_000
    assert ledger.seconds == pytest.approx(300)


@pytest.mark.parametrize("first", ["valid_en", "val-c4", "eval/wiki"])
def test_the_first_of_several_held_out_sets_counts(first: str, tmp_path: Path) -> None:
    rows = []
    for step in range(0, 3000, 100):
        rows.append(f'{{"step": {step}, "split": "train_en", "loss": {2 + 1 / (1 + step)}}}')
        rows.append(f'{{"step": {step}, "split": "{first}", "loss": {2.5 + 1 / (1 + step)}}}')
        rows.append(f'{{"step": {step}, "split": "{first}_code", "loss": 9.0}}')
    found = run_of(tmp_path, "log.jsonl", rows).found
    assert found.best is not None
    assert found.best.loss == pytest.approx(2.5, abs=0.01)
    assert found.source.train_rows == 30
    assert any("30 val_loss of other sets" in problem for problem in found.source.problems)


@pytest.mark.parametrize("kind", ["train_eval", "eval/train", "validation on train"])
def test_an_evaluated_training_set_is_not_held_out(kind: str) -> None:
    assert of_row({"loss": "loss"}, [kind]) == {"loss": "loss"}


def test_a_later_stage_is_no_other_set(tmp_path: Path) -> None:
    """Its steps begin again; its evaluations are read."""
    rows = []
    for stage, lowest in (("pretraining", 3.0), ("annealing", 2.0)):
        for step in range(0, 3000, 100):
            rows.append(
                f'{{"step": {step}, "stage": "{stage}", "loss": {lowest + 1 / (1 + step)}}}'
            )
            rows.append(
                f'{{"step": {step}, "stage": "{stage}", "val_loss": {lowest + 1.1 / (1 + step)}}}'
            )
    found = run_of(tmp_path, "log.jsonl", rows).found
    assert found.best is not None
    assert found.best.loss == pytest.approx(2.0, abs=0.01)
    assert not any("other sets" in problem for problem in found.source.problems)


def test_another_run_begins_its_own_counters(tmp_path: Path) -> None:
    rows = ["step,loss,tokens"]
    rows += [f"{s},{3 + 1 / (1 + s)},{1000 * s}" for _ in range(2) for s in range(0, 3000, 100)]
    found = run_of(tmp_path, "log.csv", rows).found
    assert found.ledger.tokens == 2_900_000
    assert not any("counted on" in problem for problem in found.source.problems)


@pytest.mark.parametrize(
    "rows",
    [[{"step": 0, "loss": 1.0}],
     [{"step": s, "loss": 3 - s / 1e3, "tokens": 100 * s, "epoch": s // 200} for s in range(400)]],
)  # fmt: skip
@pytest.mark.filterwarnings("error")
def test_one_row_and_whole_epochs_warn_of_nothing(
    rows: list[dict[str, object]], tmp_path: Path
) -> None:
    assert jsonl(tmp_path, rows).found.ledger.checks == []
