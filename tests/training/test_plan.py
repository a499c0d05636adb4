"""From settings and text to the steps of a run."""

from pathlib import Path
from typing import Any

import pytest

from overnight.config import Settings, read_preset
from overnight.training import plan as plan_module
from overnight.training import sizing
from overnight.training.plan import Plan
from overnight.training.session import plan_run
from overnight.training.sizing import MOST_PASSES


def planned(text: str, **given: Any) -> Plan:
    settings = Settings()
    settings.add(read_preset("fast").layer, "preset fast")
    tiny = {"data.text": [text], "train.threads": 1, "sample.tokens": 0, "train.dtype": "float32",
            "train.compile": "off", "model.context": 16, "model.ngram_rows": 64}  # fmt: skip
    settings.add(tiny | given, "command line")
    return plan_run(settings, lambda message: None)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sizing, "TIMED_TOKENS", 64)
    monkeypatch.setattr(plan_module, "PROBE_SECONDS", {"minutes": 0.05, "other": 0.05})


def test_a_text_bears_some_passes(text: str) -> None:
    plan = planned(text, **{"length.minutes": 600})
    steps = plan.config.length.steps
    assert MOST_PASSES <= plan.ledger.passes(steps) < MOST_PASSES + plan.ledger.passes(1)
    assert f"{MOST_PASSES:g} passes" in plan.reasons["length.steps"]
    assert "600 minutes" in plan.reasons["length.steps"]


def test_who_asks_for_passes_gets_them(text: str) -> None:
    plan = planned(text, **{"length.passes": 12})
    assert plan.ledger.passes(plan.config.length.steps) >= 12
    given = planned(text, **{"length.minutes": 600, "model.size": "given"})
    assert given.ledger.passes(given.config.length.steps) > 2 * MOST_PASSES


def test_evaluation_is_a_small_share(text: str) -> None:
    plan = planned(text, **{"length.passes": 1000, "model.size": "given"})
    config = plan.config
    evaluated = 2 * config.eval.tokens * (config.length.steps // config.eval.every + 1)
    least = 2 * 32 * config.model.context * 17  # blocks enough for a standard error
    share = evaluated / (3 * plan.ledger.tokens(config.length.steps))
    assert share <= 0.03 or evaluated <= least
