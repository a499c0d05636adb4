"""From settings and text to the steps of a run."""

from pathlib import Path
from typing import Any

import pytest

from overnight.errors import UserError
from overnight.ledger import Ledger
from overnight.settings import Preset, Settings, read_preset
from overnight.training import planning, sizing
from overnight.training.plan import Plan
from overnight.training.session import plan_run
from overnight.training.sizing import MOST_PASSES


def planned(text: str, **given: Any) -> Plan:
    settings = Settings()
    settings.add_preset(read_preset("fast"))
    tiny = {"data.text": [text], "train.threads": 1, "sample.tokens": 0, "train.dtype": "float32",
            "train.compile": "off", "model.context": 16, "model.ngram_rows": 64}  # fmt: skip
    settings.add(tiny | given, "command line")
    return plan_run(settings, lambda message: None)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sizing, "TIMED_TOKENS", 64)
    monkeypatch.setattr(planning, "TIMED_SECONDS", {"minutes": 0.05, "other": 0.05})


def test_a_text_bears_some_passes(text: str) -> None:
    plan = planned(text, **{"length.minutes": 600})
    steps = plan.config.length.steps
    assert MOST_PASSES <= plan.ledger.passes(steps) < MOST_PASSES + plan.ledger.passes(1)
    assert f"{MOST_PASSES:g} passes" in plan.reasons["length.steps"]
    assert "600 minutes" in plan.reasons["length.steps"]


def test_what_is_given_and_comes_to_nothing_is_said(text: str) -> None:
    of_no_use = {"data.val": [text], "data.val_fraction": 0.2, "model.rope_base": 5e4}
    of_use = {"optimizer.muon_lr": 0.03, "schedule.min_ratio": 0.1}
    lines = planned(text, **of_no_use, **of_use, **{"tokenizer.kind": "bytes"}).lines()
    assert [line for line in lines if line.startswith("unused")] == [
        "unused    data.val_fraction = 0.2 (command line): there is separate validation text",
        "unused    model.rope_base = 50000.0 (command line): model.position is alibi",
    ]


def test_who_asks_for_passes_gets_them(text: str) -> None:
    plan = planned(text, **{"length.passes": 12})
    assert plan.ledger.passes(plan.config.length.steps) >= 12
    given = planned(text, **{"length.minutes": 600, "model.size": "given"})
    assert given.ledger.passes(given.config.length.steps) > 2 * MOST_PASSES


def test_a_text_that_is_learned_by_heart_is_said(text: str) -> None:
    def warned(passes: float) -> list[str]:
        lines = planned(text, **{"length.passes": passes}).lines()
        return [line for line in lines if line.startswith("passes")]

    assert not warned(9.5)
    (line,) = warned(11.9)
    assert "12 times through the text" in line


@pytest.mark.parametrize(("val_tokens", "cadence"), [(10**5, 0.0112), (10**6, 0.006)])
def test_evaluation_is_a_small_share(val_tokens: int, cadence: float) -> None:
    settings, steps = Settings(), 10_000
    ledger = Ledger(batch=16, micro_batch=16, context=256, train_tokens=10**7)
    planning._choose_evaluation(settings, ledger, steps, val_tokens)
    evaluations = steps // settings.get("eval.every") + 1
    evaluated = 2 * settings.get("eval.tokens") * evaluations
    assert evaluated / (3 * ledger.tokens(steps)) == pytest.approx(cadence, rel=0.01)


def test_of_much_held_out_text_the_last_evaluation_takes_a_part() -> None:
    settings, steps = Settings(), 100_000
    settings.add({"eval.every": 200}, "test")
    ledger = Ledger(batch=16, micro_batch=16, context=256, train_tokens=10**9)
    planning._choose_evaluation(settings, ledger, steps, 10**8)
    evaluated = 2 * settings.get("eval.tokens") * (steps // 200 + 1) + 4 * 2**20
    assert evaluated / (3 * ledger.tokens(steps)) == pytest.approx(0.012, rel=0.02)


def test_the_expected_time_counts_every_evaluation(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clockwork = planning.Seconds(step=0.0, eval_token=1.0)
    monkeypatch.setattr(planning, "_seconds", lambda *_: clockwork)
    monkeypatch.setattr(planning, "full_tokens", lambda trained: 100)
    plan = planned(text, **{"length.steps": 50, "eval.every": 10, "eval.tokens": 32})
    assert plan.seconds == 2 * 32 * 7 + 100  # one more than 0, 10, … 50


def test_evaluations_have_blocks_enough_for_a_standard_error() -> None:
    settings = Settings()
    ledger = Ledger(batch=1, micro_batch=1, context=256, train_tokens=10**7)
    planning._choose_evaluation(settings, ledger, 10, 10**6)
    assert settings.get("eval.tokens") == 16 * 256
    assert "16 blocks" in settings.reasons["eval.tokens"]


def test_no_plan_for_ten_years(text: str) -> None:
    with pytest.raises(UserError, match="longer than ten years"):
        planned(text, **{"length.steps": 10**18})


def test_unknown_characters_are_said(text: str, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("Ω und ß " * 300)
    given = {"data.val": [str(other)], "tokenizer.kind": "chars", "length.steps": 2}
    plan = planned(text, **given)
    (line,) = [line for line in plan.lines() if line.startswith("unknown")]
    trained_on, held_out = Path(text).read_text(), other.read_text()
    count = sum(letter not in trained_on for letter in held_out)
    share = 100 * count / len(held_out)
    assert f"{count:,} characters (0 % of the training tokens, {share:.3g} % of the held" in line
    assert not any(line.startswith("unknown") for line in planned(text).lines())
    prompts = planned(text, **given, **{"sample.tokens": 4}).config.sample.prompts
    assert len(prompts) == 3
    assert "\ufffd" not in "".join(prompts)  # nobody would type it


def test_a_presets_micro_batch_gives_way_to_a_given_batch(text: str) -> None:
    for batch, part in ((4, 4), (12, 4), (16, 8)):
        settings = Settings()
        for layer in (read_preset("nanogpt-cpu").layer, {"train.micro_batch": 8}):
            settings.add_preset(Preset("mine", "", "", layer))
        settings.add({"data.text": [text], "train.batch": batch, "length.steps": 1}, "command line")
        plan = plan_run(settings, lambda message: None)
        assert plan.config.train.micro_batch == part
        own = plan.reasons["train.micro_batch"] == "preset mine"
        assert own == (part == 8)


@pytest.mark.parametrize("emulates", [True, False])
def test_what_a_cpu_emulates_is_said(
    emulates: bool, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overnight.training.machine.has_bfloat16", lambda: not emulates)
    given = {"train.device": "cpu", "model.size": "given", "length.steps": 3}
    for dtype, said in (("bfloat16", emulates), ("float32", False)):
        plan = planned(text, **given, **{"train.dtype": dtype})
        assert ("emulates bfloat16" in "".join(plan.lines())) == said


@pytest.mark.parametrize(("taken", "step"), [([0.3, *[0.125] * 12], 0.125), ([2.0], 2.0)])
def test_updates_that_allocate_do_not_count(
    taken: list[float], step: float, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 20 million weights the second one took 0.3 s, the later ones 0.125. One that takes long
    has to do."""
    left = iter(taken)
    monkeypatch.setattr(planning, "update_seconds", lambda *_: next(left))
    monkeypatch.setattr(planning, "TIMED_SECONDS", {"other": 1.5})
    plan = planned(text, **{"length.steps": 5})
    assert plan.step_seconds == pytest.approx(step)


@pytest.mark.parametrize(("eval_seconds", "share"), [(1e-9, 0.95), (1.0, 0.5)])
def test_some_of_a_given_time_is_kept_for_what_is_not_training(
    eval_seconds: float, share: float
) -> None:
    settings, seconds = Settings(), planning.Seconds(0.01, eval_seconds)
    settings.add({"length.minutes": 10}, "test")
    ledger = Ledger(batch=1, micro_batch=1, context=16, train_tokens=10**9)
    steps = planning._choose_length(settings, ledger, seconds, val_tokens=10**6)
    assert steps == 60 * 10 * share / 0.01
