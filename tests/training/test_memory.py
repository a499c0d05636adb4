"""Memory: the micro-batch that fits, advice with numbers, nothing taken for what cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import final_tensors, train

from overnight import cli, config
from overnight.errors import UserError
from overnight.generation.load import load_model
from overnight.runfolder import Checkpoint, Event, RunFolder, read_log
from overnight.settings import load_config
from overnight.training import memory, update

BIG = config.Config(
    model=config.Model(vocab_size=1000, width=64, context=128), train=config.Train(batch=12)
)


def micro_batch(run: Path) -> int:
    return load_config(run / "config.toml").train.micro_batch


def test_the_largest_divisor_that_fits_is_taken() -> None:
    for micro in (1, 2, 3, 4, 6, 12):
        just = int(memory.needed(BIG, micro) / memory.SHARE) + 1
        assert memory.estimated(BIG, just) == micro
    assert memory.estimated(BIG, memory.needed(BIG, 1)) == 0  # the estimate may be short


def kept(settings: config.Config, micro: int) -> int:
    """Bytes that autograd keeps of a forward pass over `micro` sequences, parameters left out."""
    tokens = np.arange(2000, dtype=np.uint16) % 60
    updater = update.Updater(memory.with_micro_batch(settings, micro), tokens, torch.device("cpu"))
    own = {p.untyped_storage().data_ptr() for p in updater.model.parameters()}
    found = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        ids = torch.from_numpy(updater.batches.batch(0, micro))
        graph = updater._losses(ids, None)
    assert graph
    return sum(size for address, size in found.items() if address not in own)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("attention", "shape"),
    [
        ("fused", {"layers": "A", "heads": 2, "vocab_size": 4096}),
        ("plain", {}),
        ("fused", {}),
        ("plain", {"dropout": 0.1}),
        ("fused", {"dropout": 0.1}),
        ("fused", {"position": "alibi"}),
        ("plain", {"mlp": "swiglu"}),
        ("plain", {"layers": "SS", "heads": 2}),
        ("plain", {"layers": "SS", "heads": 2, "ssm_state": 128, "dropout": 0.1}),
    ],
)
def test_the_estimate_is_about_what_is_kept(
    attention: str, shape: dict[str, Any], dtype: str
) -> None:
    shape = {"layers": "AA", "heads": 8, "vocab_size": 64} | shape
    settings = config.Config(
        model=config.Model(width=64, context=128, **shape),
        train=config.Train(batch=4, dtype=dtype, attention=attention, device="cpu", threads=1),
    )
    measured = kept(settings, 4) - kept(settings, 2)
    told = memory.needed(settings, 4) - memory.needed(settings, 2)
    assert 0.9 < told / measured < 1.8


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_while_the_form_is_open_either_must_fit(dropout: float) -> None:
    """On a CPU both are tried; a GPU has a fused kernel, and keeps no scores with it."""
    model = config.Model(width=64, context=128, vocab_size=64, dropout=dropout)

    def needed(attention: str, device: str) -> int:
        train = config.Train(batch=4, dtype="bfloat16", attention=attention, device=device)
        return memory.needed(config.Config(model=model, train=train))

    assert needed("auto", "cpu") == max(needed("plain", "cpu"), needed("fused", "cpu"))
    assert needed("auto", "cuda") == needed("fused", "cuda") < needed("plain", "cuda")


def test_auto_leaves_the_batch_as_it_is(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = memory.estimated
    monkeypatch.setattr(memory, "estimated", lambda settings, free: min(2, asked(settings, free)))
    assert train(tmp_path / "auto", text, train__micro_batch="auto") == 0
    assert micro_batch(tmp_path / "auto") == 2
    assert train(tmp_path / "two", text) == 0  # which gives train.micro_batch = 2
    assert final_tensors(tmp_path / "auto") == final_tensors(tmp_path / "two")


def test_a_batch_that_does_not_fit_is_taken_in_parts(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = memory.estimated
    monkeypatch.setattr(memory, "estimated", lambda settings, free: min(2, asked(settings, free)))
    assert train(tmp_path / "run", text, train__micro_batch="0", max_steps="2") == 0
    assert micro_batch(tmp_path / "run") == 2


def test_auto_goes_on_to_what_runs(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The estimate allows the whole batch, but no update runs with more than one sequence."""
    real = update.Updater._losses

    def small(self: update.Updater, ids: torch.Tensor, *rest: Any) -> Any:
        if len(ids) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, ids, *rest)

    monkeypatch.setattr(update.Updater, "_losses", small)
    assert train(tmp_path / "run", text, train__micro_batch="auto", max_steps="3") == 0
    assert micro_batch(tmp_path / "run") == 1


def out_of_memory(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    real = update.Updater.update

    def fails(self: update.Updater, number: int, steps: int, *more: Any) -> update.Update:
        if number == at and (steps == 24) == (at > 1):
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return real(self, number, steps, *more)

    monkeypatch.setattr(update.Updater, "update", fails)


def test_out_of_memory_before_the_run_is_advice_with_numbers(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out_of_memory(monkeypatch, 1)
    assert train(tmp_path / "run", text) == 1
    error = capfd.readouterr().err
    assert "micro-batches of 2 sequences take about" in error
    assert "train.micro_batch = 1 would take about" in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_out_of_memory_in_the_night_is_logged_and_can_be_resumed(
    text: str, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        out_of_memory(patch, 14)
        assert train(out, text) == 1
    (event,) = [row for row in read_log(out / "log.jsonl").of(Event) if row.kind == "failed"]
    assert "train.micro_batch = 1 would take about" in event.message
    assert cli.run(["train", "--resume", str(out)]) == 0
    assert final_tensors(out) == final_tensors(whole)


def test_other_errors_are_not_called_out_of_memory() -> None:
    assert not memory.is_out_of_memory(RuntimeError("shape '[2]' is invalid"))
    assert memory.is_out_of_memory(MemoryError())


@pytest.mark.parametrize("width", ["1048576", "1099511627776"])
def test_a_model_that_cannot_be_is_refused_before_memory_is_taken(
    width: str, text: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", text, model__width=width) == 2
    assert "Traceback" not in capfd.readouterr().err


def test_a_run_that_claims_another_size_is_refused(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("checkpoints", "log.jsonl", "tokenizer.json"):
        (run / name).symlink_to(whole / name)
    for width in (64, 2**20, 2**40):
        told = (whole / "config.toml").read_text().replace("width = 32", f"width = {width}")
        (run / "config.toml").write_text(told)
        with pytest.raises(UserError):
            load_model(run)


def test_the_disk_need_that_is_told_is_that_of_the_run(text: str, tmp_path: Path) -> None:
    sizes = {"model__width": "128", "max_steps": "2", "optimizer__kind": "muon"}
    for kind in ("adamw", "muon"):
        assert train(tmp_path / kind, text, **(sizes | {"optimizer__kind": kind})) == 0
        run = RunFolder(tmp_path / kind)
        rows = read_log(run.log)
        settings = load_config(run.config)
        told = memory.checkpoint_bytes(settings, rows.rows[0].parameters)
        written = rows.of(Checkpoint)[-1].bytes
        assert told <= written <= 1.05 * told + 20_000


def test_a_model_is_refused_where_it_just_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = memory.count_parameters(BIG.model)
    least = int(memory.checkpoint_bytes(BIG, parameters)) + 4 * parameters["total"]
    monkeypatch.setattr(memory, "memory", lambda device: (least, least))
    memory.check(BIG, torch.device("cpu"))
    monkeypatch.setattr(memory, "memory", lambda device: (least - 1, least - 1))
    with pytest.raises(UserError, match="are all there is"):
        memory.check(BIG, torch.device("cpu"))
