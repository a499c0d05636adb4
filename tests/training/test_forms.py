"""The form of an update: known, timed against its alternative, remembered."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from overnight.cache import Cache
from overnight.settings import Settings
from overnight.training import forms
from overnight.training.forms import choose_form
from overnight.training.machine import choose_machine
from overnight.training.update import Updater

CPU = torch.device("cpu")
TOKENS = np.random.default_rng(0).integers(0, 11, 400).astype(np.uint16)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def settings(**given: Any) -> Settings:
    made = Settings()
    tiny = {"model.layers": "A", "model.width": 16, "model.heads": 2, "model.context": 8,
            "model.vocab_size": 11, "train.batch": 4, "train.micro_batch": 4}  # fmt: skip
    made.add(tiny | given, "test")
    return made


def chosen(**given: Any) -> Settings:
    made = settings(**given)
    choose_machine(made)
    choose_form(made, made.get("length.minutes"), TOKENS, CPU)
    return made


def timing(monkeypatch: pytest.MonkeyPatch, standing: float, other: float) -> list[str]:
    """Every trial takes these seconds; the list fills with what was tried."""
    tried: list[str] = []

    def seconds(_: Settings, name: str, *__: Any) -> list[float]:
        tried.append(name)
        return [standing, other]

    monkeypatch.setattr(forms, "_seconds", seconds)
    return tried


@pytest.mark.parametrize(("other", "attention"), [(0.95, "plain"), (0.85, "fused")])
def test_an_alternative_must_be_a_tenth_faster(
    other: float, attention: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    timing(monkeypatch, 1.0, other)
    made = chosen(**{"train.threads": 1})
    assert made.get("train.attention") == attention
    assert "1000" in made.reasons["train.attention"]


def test_what_is_fixed_is_never_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = timing(monkeypatch, 1.0, 0.1)
    fixed = {"train.threads": 2, "train.attention": "plain", "train.compile": "off"}
    made = chosen(**fixed, **{"length.minutes": 600})
    assert not tried
    assert {name: made.get(name) for name in fixed} == fixed


def test_a_choice_is_made_once_per_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = timing(monkeypatch, 1.0, 0.5)
    monkeypatch.setattr("overnight.training.limits.cores", lambda: 4)
    monkeypatch.setattr("psutil.cpu_count", lambda logical: 4)
    first = chosen()
    assert tried == ["train.attention", "train.threads", "train.threads"]
    assert first.get("train.threads") == 1
    again = chosen()
    assert len(tried) == 3
    assert (again.values, again.reasons) == (first.values, first.reasons)
    chosen(**{"train.batch": 8})
    assert len(tried) == 6
    chosen(**{"optimizer.kind": "muon"})
    assert len(tried) == 9


@pytest.mark.parametrize(
    ("milliseconds", "threads"),  # of 12, 6, 3 threads and 1
    [([20, 12, 15, 30], 6), ([20, 19, 12, 11.5], 3), ([20, 19, 18.5, 10], 1),
     ([20, 19, 22, 30], 12), ([60, 20, 10, 5], 12)],
)  # fmt: skip
def test_of_many_threads_fewer_are_tried_where_updates_are_short(
    milliseconds: list[float], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None where an update takes longer than what is lost to many threads could matter."""
    tried: list[int] = []
    cost = dict(zip([12, 6, 3, 1], milliseconds, strict=True))

    def seconds(made: Settings, name: str, values: Any, *__: Any) -> list[float]:
        assert made.get("train.threads") == values[0]
        tried.append(values[1])
        both = [cost[value] / 1000 for value in values]
        return both if both[0] < forms.PATIENCE[name] else both[:1]

    monkeypatch.setattr(forms, "_seconds", seconds)
    monkeypatch.setattr("overnight.training.limits.cores", lambda: 12)
    monkeypatch.setattr("psutil.cpu_count", lambda logical: 12)
    before = torch.get_num_threads()
    try:
        made = chosen(**{"train.attention": "plain", "train.compile": "off"})
    finally:
        torch.set_num_threads(before)
    assert made.get("train.threads") == threads
    assert tried == ([6] if milliseconds[0] > 50 else [6, 3, 1])


def test_a_damaged_memory_is_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = timing(monkeypatch, 1.0, 0.5)
    chosen(**{"train.threads": 1})
    (file,) = Cache().timings.glob("*.json")
    for content in (
        b"",
        b"[1]",
        b"[1, -1]",
        b"[1, 2, 3]",
        b'{"train.attention": ["quick", ""]}',
    ):
        file.write_bytes(content)
        assert chosen(**{"train.threads": 1}).get("train.attention") == "fused"
    assert len(tried) == 6


def test_a_trial_leaves_settings_and_weights_alone() -> None:
    made = settings(**{"train.threads": 1, "train.dtype": "float32"})
    before = dict(made.values)
    both = forms._seconds(made, "train.attention", ("plain", "fused"), 1.5, TOKENS, CPU)
    assert made.values == before
    assert all(0 < seconds < float("inf") for seconds in both)


def test_the_form_is_what_the_updater_takes() -> None:
    for value, fused in (("fused", True), ("plain", False), ("auto", False)):
        made = settings(**{"train.attention": value, "train.dtype": "float32"})
        updater = Updater(made.resolve(), TOKENS, CPU)
        assert updater.model.blocks[0].mixer.fused is fused


@pytest.mark.parametrize(("minutes", "seconds"), [(10, None), (30, 6.75), (120, 27.0)])
def test_trying_compiled_updates_takes_a_share_of_the_run(
    minutes: int, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight updates, four of each form, may take 3 % of it."""
    allowed: dict[str, float] = {}

    def trial(_: Settings, name: str, __: Any, patience: float, *___: Any) -> list[float]:
        allowed[name] = patience
        return [1.0, 0.5]

    monkeypatch.setattr(forms, "_seconds", trial)
    monkeypatch.setattr(forms, "compiler_trouble", lambda device: "")
    made = chosen(**{"length.minutes": minutes, "train.threads": 1})
    assert allowed.get("train.compile") == (pytest.approx(seconds) if seconds else None)
    assert made.get("train.compile") == ("on" if seconds else "off")
