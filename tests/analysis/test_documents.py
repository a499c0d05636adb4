"""Each figure that a document got wrong: figures in, right statement out, wrong one absent."""

from __future__ import annotations

import json
import math

import documents
import made
import pytest

from overnight.analysis.analyse import analyse
from overnight.analysis.forecast import Guess, score
from overnight.analysis.run import load_run
from overnight.report import markdown
from overnight.report.document import build
from overnight.report.terminal import chart_of_losses


def read(path):
    found = load_run(path).found
    return found, markdown.render(build(found)).replace("\\", "")


@pytest.fixture(scope="module")
def d000(tmp_path_factory):
    return read(documents.metrics_000(tmp_path_factory.mktemp("d") / "metrics.csv"))


@pytest.fixture(scope="module")
def d002(tmp_path_factory):
    return read(documents.log_002(tmp_path_factory.mktemp("d") / "training_log.jsonl"))


@pytest.fixture(scope="module")
def d003(tmp_path_factory):
    return read(documents.log_003(tmp_path_factory.mktemp("d") / "nexus.csv"))


def advised(found):
    return " ".join(a.do for a in found.advice).lower()


class Test000:
    def test_schedule_is_read_and_not_recommended(self, d000):
        found, _text = d000
        assert found.schedule.kind == "linear"
        assert found.schedule.warmup_steps == pytest.approx(295, abs=15)
        assert found.schedule.end_ratio == pytest.approx(0.5, abs=0.01)
        assert "warm" not in advised(found)
        assert "decay" not in advised(found)
        assert "fall towards zero" not in advised(found)

    def test_training_loss_cannot_show_overfitting(self, d000):
        found, text = d000
        assert found.verdict("overfitting").verdict == "cannot_tell"
        assert "training loss cannot show overfitting" in text.lower()
        drift = found.verdict("train_drift")
        assert drift.verdict == "yes"
        assert drift.evidence["lr_falling"] is True
        assert "optimisation" in advised(found)
        assert "hold out" in advised(found)

    def test_lowest_of_many_is_biased(self, d000):
        found, text = d000
        assert (found.best.step, found.best.loss, found.best.n) == (2565, 1.1835, 393)
        assert found.best.smoothed > found.best.loss + 0.01
        assert found.noise.train_sigma == pytest.approx(0.02, rel=0.3)
        assert "biased low" in text
        assert "which does not say which checkpoint is best" in text

    def test_points_and_what_is_missing(self, d000):
        found, text = d000
        assert found.ledger.logged_points == 393
        assert found.ledger.first_step == 120
        assert "| first logged step | 120 |" in text

    def test_implausibly_low(self, d000):
        found, text = d000
        v = found.verdict("too_good")
        assert v.verdict == "cannot_tell"  # the log does not say what a token is
        assert v.evidence["bpb"] == pytest.approx(0.397, abs=0.005)
        assert "padding" in text
        assert "memorisation" in text
        assert "count the passes" in text


class Test002:
    def test_one_verdict_without_contradiction(self, d002):
        found, text = d002
        gap = found.verdict("gap")
        assert found.verdict("overfitting").verdict == "no"
        assert gap.verdict == "stable"
        assert gap.evidence["mean"] == pytest.approx(0.0005, abs=5e-5)
        assert gap.evidence["mean_se"] == pytest.approx(0.0061, abs=1e-4)
        assert gap.n == 24
        assert "evaluations +0.0005 ± 0.0061 nats" in text
        assert found.verdict("divergence").verdict == "no"
        assert "Overfitting: validation got worse" not in text
        assert "The run diverged" not in text

    def test_the_two_rises_are_noise(self, d002):
        found, _ = d002
        assert found.noise.sigma == pytest.approx(0.016, abs=0.004)
        rises = (5.5657 - 5.5547, 5.5729 - 5.5657)
        assert max(rises) < found.noise.sigma

    def test_last_is_best_and_still_improving(self, d002):
        found, text = d002
        assert (found.best.step, found.best.tied_steps) == (11_760, [11_760])
        v = found.verdict("still_improving")
        assert v.verdict == "yes"
        assert v.evidence["per_1000"] == pytest.approx(-0.075, abs=0.003)
        assert "undertrained" in advised(found)
        assert "early stopping" not in text.lower()
        assert "stop near" not in advised(found)

    def test_two_estimators_are_named(self, d002, tmp_path):
        found, text = d002
        assert found.evaluations[-1].train_loss == 5.4727
        rows = load_run(documents.log_002(tmp_path / "log.jsonl")).tables["train"]
        assert (rows[0]["loss"], rows[-1]["loss"]) == (11.1484, 5.5078)
        assert "Train column: training loss logged with the evaluation" in text

    def test_starts_at_step_0(self, d002):
        found, _ = d002
        assert found.ledger.first_step == 0
        assert math.exp(11.1484) == pytest.approx(69_453, abs=5)
        assert found.evaluations[0].step == 500

    def test_learning_rate_as_logged(self, d002):
        found, text = d002
        assert found.schedule.end_ratio == pytest.approx(0.98, abs=0.005)
        assert found.schedule.warmup_steps == 500
        assert "98 % of the highest" in text
        assert "decayed to 0.0" not in text

    def test_per_checkpoint_table_has_steps(self, d002):
        found, text = d002
        assert [e.step for e in found.evaluations] == documents.STEPS_002
        assert "| step | train | val |" in text

    def test_gap_decides_in_nats(self, d002):
        _found, text = d002
        assert "relative gap" not in text.lower()
        assert "underfitting" not in text.lower()


class Test003:
    def test_best_is_of_the_whole_run_with_its_ties(self, d003):
        found, text = d003
        assert (found.best.step, found.best.loss) == (1400, 2.6312)
        assert found.best.tied_steps == [1400, 1600, 1800, 2000]
        assert found.noise.sigma == pytest.approx(0.02, abs=0.005)
        assert "Tied within noise: steps 1,400, 1,600, 1,800 and 2,000." in text
        assert "none of the tied is proven better; the lowest is taken" in text
        assert "TRUE BEST" not in text

    def test_gap_is_not_severe_and_not_stabilised(self, d003):
        found, text = d003
        gap = found.verdict("gap")
        assert gap.verdict in ("shrinking", "cannot_tell")
        assert gap.evidence["lowest"] == pytest.approx(0.27, abs=0.005)
        assert gap.evidence["highest"] == pytest.approx(0.39, abs=0.005)
        assert "severe" not in text.lower()

    def test_no_claim_of_improvement_or_plateau_from_eight(self, d003):
        found, _ = d003
        assert found.verdict("still_improving").verdict == "cannot_tell"
        assert found.verdict("overfitting").verdict == "cannot_tell"

    def test_schedule(self, d003):
        found, _ = d003
        assert found.schedule.kind == "cosine"
        assert found.schedule.end == 0.0

    def test_warmup_of_the_bpe_run(self, tmp_path):
        found, _ = read(documents.log_003_bpe(tmp_path / "bpe.csv"))
        assert found.schedule.warmup_steps == 150

    def test_tokens_are_counted_per_session_and_run(self, tmp_path):
        """600 × 4 × 127 = 304,800 tokens are the resumed session; the run is 2,000 steps."""
        folder = made.run_folder(
            tmp_path / "r", steps=2000, every=200, resume_at=1400,
            ledger=made.LEDGER | {"batch": 4, "context": 127, "train_tokens": 1_000_000},
        )  # fmt: skip
        found, text = read(folder)
        assert found.ledger.sessions[1].tokens == 304_800
        assert found.ledger.tokens == 2000 * 4 * 127
        assert found.ledger.micro_steps == 2000
        assert "304,800" in text

    def test_axis_of_the_terminal_chart_is_monotone(self, d003):
        found, _ = d003
        labels = [
            float(line.split("┤")[0])
            for line in chart_of_losses(found, 80).splitlines()
            if "┤" in line
        ]
        assert len(labels) > 5
        assert labels == sorted(labels, reverse=True)

    def test_prompt_is_marked_off(self, tmp_path):
        found, text = read(made.run_folder(tmp_path / "r"))
        assert found.samples[0].prompt == "The "
        assert not found.samples[0].text.startswith(found.samples[0].prompt)
        assert "only what follows it was written by the model" in text

    def test_worse_than_a_bigram_is_said(self, tmp_path):
        """2.63 nats per byte against a bigram at 2.49."""
        folder = made.run_folder(tmp_path / "r")
        bigram = {"name": "bigram", "bpb": 2.49 / math.log(2), "nats_per_byte": 2.49, "how": ""}
        (folder / "yardsticks.json").write_text(json.dumps({"bytes": 1, "yardsticks": [bigram]}))
        log = load_run(folder).log
        log.eval["val_bpb"][:] = log.eval["val_loss"] / math.log(2) + 0.4
        v = analyse(log).verdict("below_yardstick")
        assert v.verdict == "yes"
        assert v.evidence["yardstick"] == "bigram"


def test_forecast_error_has_the_sign_of_what_happened():
    """003 put ✓ at −0.059 and ✗ at +0.060: neither mark follows; inside an interval does."""
    low = score(Guess(2.69, 2.60, 2.78, 2.71, 2.70), 1200, 1400, 2.6312)
    high = score(Guess(2.60, 2.51, 2.69, 2.71, 2.70), 1200, 1600, 2.6600)
    assert low.error == pytest.approx(-0.0588)
    assert high.error == pytest.approx(0.06)
    assert low.inside is True
    assert high.inside is True
    assert low.interval_score == pytest.approx(0.18)
    outside = score(Guess(2.56, 2.52, 2.60, 2.71, 2.70), 1200, 2000, 2.6472)
    assert outside.inside is False
    assert outside.interval_score == pytest.approx(0.08 + 0.0472 * 40)
    assert low.skill_no_change == pytest.approx(1 - 0.0588 / 0.0788)


def test_schedule_counted_in_micro_steps(tmp_path):
    """The settings say: to 0. The log ends at 98 % of the peak (002's source)."""
    folder = made.run_folder(tmp_path / "r")
    log = load_run(folder).log
    log.config["schedule"]["min_ratio"] = 0.0
    log.train["lr"][:] = [documents.rate_002(500 + 28 * s) for s in log.train["step"]]
    found = analyse(log)
    v = found.verdict("schedule_mismatch")
    assert v.verdict == "yes"
    assert "98 % of the peak, the settings say 0 %" in v.because
    assert any("micro-steps" in a.do for a in found.advice)


def test_tokens_and_steps_that_disagree(tmp_path):
    """Logged tokens and passes that are not what batch × context × steps gives."""
    folder = made.run_folder(tmp_path / "r")
    log = load_run(folder).log
    log.train["tokens"] *= 4
    v = analyse(log).verdict("units")
    assert v.verdict == "yes"
    assert v.evidence["ratio"] == pytest.approx(4.0)
    assert "tokens per step" in v.evidence["what"]
