"""What a run that begins with another's weights takes over, and what it may not change."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from grammars import grammar, make_run

from overnight.config import Config, Optimizer
from overnight.errors import UserError
from overnight.exchange.exporter import export
from overnight.exchange.importer import import_folder
from overnight.generation.initial import Initial, load_initial, refuse_other_model
from overnight.settings import Settings


@pytest.fixture
def initial(tmp_path: Path) -> Initial:
    """Of a run that went through an export and an import."""
    config = Config(optimizer=Optimizer(kind="muon", lr=0.003))
    make_run(tmp_path / "first", grammar("llama"), config=config)
    export(tmp_path / "first", tmp_path / "hf")
    import_folder(tmp_path / "hf", tmp_path / "run")
    return load_initial(tmp_path / "run")


def laid_under(initial: Initial, **given: object) -> Settings:
    settings = Settings()
    settings.add(initial.layer, initial.source)
    settings.add({name.replace("__", "."): value for name, value in given.items()}, "command line")
    return settings


def test_weights_and_settings_are_taken_over(initial: Initial, tmp_path: Path) -> None:
    first = load_initial(tmp_path / "first")
    assert all(torch.equal(first.weights[n], w) for n, w in initial.weights.items())
    assert first.tokenizer.json == initial.tokenizer.json
    settings = laid_under(initial, length__steps=5, model__dropout=0.1, model__context=128)
    refuse_other_model(settings, initial)
    resolved = settings.resolve()
    assert resolved.optimizer == Optimizer(kind="muon", lr=0.003)
    assert (resolved.model.dropout, resolved.model.context, resolved.model.kv_heads) == (
        0.1,
        128,
        2,
    )


@pytest.mark.parametrize(
    "given", [{"model__width": 64}, {"model__layers": "AAA"}, {"tokenizer__kind": "chars"}]
)
def test_another_model_is_refused(initial: Initial, given: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"\(command line\), but the weights of step 0 of"):
        refuse_other_model(laid_under(initial, **given), initial)


def test_learned_positions_fix_the_context(tmp_path: Path) -> None:
    make_run(tmp_path / "run", grammar("gpt2"))
    initial = load_initial(tmp_path / "run")
    with pytest.raises(UserError, match=r"model\.context = 32"):
        refuse_other_model(laid_under(initial, model__context=32), initial)
