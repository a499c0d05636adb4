"""What a run that begins with another's weights takes over, and what it may not change."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch
from grammars import grammar, make_run

from overnight.config import Config, Optimizer, Schedule, Train
from overnight.errors import UserError
from overnight.exchange.exporter import export
from overnight.exchange.importer import import_folder
from overnight.model import checkpoint
from overnight.model.checkpoint import State
from overnight.runfolder import Eval, LogWriter, RunFolder
from overnight.settings import Settings
from overnight.training.initial import Initial, load_initial, refuse_other_model


@pytest.fixture
def initial(tmp_path: Path) -> Initial:
    """Of a run that went through an export and an import."""
    config = Config(optimizer=Optimizer(kind="muon", lr=0.003), train=Train(label_smoothing=0.1))
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
    assert resolved.train.label_smoothing == 0.1
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


def test_the_best_weights_are_taken_not_the_last(tmp_path: Path) -> None:
    """And the schedule with them."""
    config = Config(schedule=Schedule(warmup=7))
    made = make_run(tmp_path / "run", grammar("llama"), config=config)
    run = RunFolder(tmp_path / "run")
    for step in (8, 16):
        checkpoint.save(run, State(step=step), made.state_dict(), {})
    log = LogWriter(run.log, attempt=1)
    for step, loss in ((8, 1.0), (16, 2.0)):
        facts = {"tokens": 1, "passes": 0.1, "val_tokens": 8, "seconds": 1.0, "val_se": 0.1}
        row = {"type": "eval", "step": step, "val_loss": loss, "val_bpb": 1.0, "probe_loss": 1.0}
        row |= facts | {"probe_se": 0.1, "probe_bpb": 1.0, "probe_tokens": 8, "attempt": 1}
        log.write(msgspec.convert(row | {"seq": step, "time": 0.0}, Eval))
    log.close()
    taken = load_initial(run.path)
    assert taken.source.startswith("step 8 ")
    assert taken.layer["schedule.warmup"] == 7
