"""Updates as compiled code: what eager ones compute, the same in every session; or why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from tiny_runs import final_tensors, interrupted_at, measured, train

from overnight import cli
from overnight.config import Config, Model, Train, effect
from overnight.model import loss
from overnight.settings import Settings
from overnight.training import compiling, machine, update
from overnight.training.update import Updater

TINY = Model(layers="A", width=16, heads=2, context=8, vocab_size=11)


def updater(form: str, dtype: str, **more: Any) -> Updater:
    settings = Train(batch=4, micro_batch=2, dtype=dtype, threads=1, compile=form)
    tokens = np.random.default_rng(0).integers(0, 11, 400).astype(np.uint16)
    return Updater(
        Config(model=msgspec.structs.replace(TINY, **more), train=settings),
        tokens,
        torch.device("cpu"),
    )


@pytest.mark.parametrize("loss_too", [True, False])
@pytest.mark.parametrize(
    "grammar",
    [
        {"layers": "SA", "ssm_head": 8, "position": "alibi", "ngrams": [2], "qk_norm": True,
         "embed_conv": True},
        {"mlp": "gelu", "norm": "layer", "bias": True},
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_part_is_compiled(
    dtype: str, grammar: dict[str, Any], loss_too: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced whole, without the compiler: what cannot be in one graph is an error. So traced, the
    very operations of eager code are done. The loss is in the graph where it is one slice."""
    real, traced = torch.compile, []

    def trace(function: Any, **more: Any) -> Any:
        traced.append(function.__name__)
        return real(function, backend="aot_eager", **more)

    monkeypatch.setattr(torch, "compile", trace)
    monkeypatch.setattr(compiling, "compiler_trouble", lambda device: "")
    tokens = 2 * TINY.context  # of a micro-batch
    monkeypatch.setitem(loss.SLICE_ELEMENTS, "cpu", 11 * (tokens if loss_too else tokens - 1))
    eager, ours = (updater(form, dtype, **grammar) for form in ("off", "on"))
    for step in (1, 2):
        assert ours.update(step, 20) == eager.update(step, 20)
    assert traced == ["_losses" if loss_too else "hidden"]


def test_elsewhere_than_on_a_cpu_the_loss_stays_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as nobody has measured it there."""
    made = []
    monkeypatch.setattr(update, "compiled", lambda f, device: made.append(f.__name__) or f)
    ours = updater("on", "float32")
    ours.device = torch.device("cuda")
    ours._compile()
    assert made == ["_losses", "hidden"]


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 3e-3)])
def test_compiled_and_eager_agree(dtype: str, tolerance: float) -> None:
    """Loss and gradient norm of ten updates, relative to their size. Rounding differs: compiled
    code keeps float32 between operations that eager code rounds to bfloat16."""
    eager, compiled = updater("off", dtype), updater("on", dtype)
    for step in range(1, 11):
        one, other = eager.update(step, 20), compiled.update(step, 20)
        assert other.nats == pytest.approx(one.nats, rel=tolerance)
        assert other.grad_norm == pytest.approx(one.grad_norm, rel=10 * tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_resumed_compiled_run_is_the_uninterrupted_one(
    dtype: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"train__compile": "on", "train__dtype": dtype}
    assert train(tmp_path / "whole", text, **more) == 0
    with monkeypatch.context() as patch:
        interrupted_at(13, patch)
        assert train(tmp_path / "run", text, **more) == 130
    torch.compiler.reset()
    assert cli.run(["train", "--resume", str(tmp_path / "run")]) == 0
    assert final_tensors(tmp_path / "run") == final_tensors(tmp_path / "whole")
    assert measured(tmp_path / "run") == measured(tmp_path / "whole")


def chosen(monkeypatch: pytest.MonkeyPatch, trouble: str, **more: Any) -> Settings:
    monkeypatch.setattr(machine, "compiler_trouble", lambda device: trouble)
    monkeypatch.setattr(machine, "check_device", lambda device: None)
    settings = Settings()
    settings.add({"train.threads": 1, "train.dtype": "float32"} | more, "test")
    machine.choose_machine(settings)
    return settings


def test_chosen_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    for device, trouble, form, reason in (
        ("cpu", "", "off", "on cpu it pays in long runs alone"),
        ("cuda", "", "on", "for the GPU"),
        ("cuda", "no triton", "off", "torch cannot compile here: no triton"),
    ):
        settings = chosen(monkeypatch, trouble, **{"train.device": device})
        assert settings.get("train.compile") == form
        assert settings.reasons["train.compile"] == reason
    assert chosen(monkeypatch, "", **{"train.compile": "on"}).get("train.compile") == "on"


def test_without_a_compiler_one_line(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fails(*given: Any, **more: Any) -> None:
        raise RuntimeError("\nNo working C++ compiler found\nSet TORCHDYNAMO_VERBOSE=1")

    monkeypatch.setattr(torch, "compile", fails)
    compiling.compiler_trouble.cache_clear()
    assert train(tmp_path / "run", text, train__compile="on") == 2
    compiling.compiler_trouble.cache_clear()
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert "torch cannot compile on this machine (No working C++ compiler found)" in error
    assert "train.compile = off" in error
    assert not (tmp_path / "run").exists()


def test_a_run_from_before_the_choice_stays_eager() -> None:
    assert effect("train.compile") == "trajectory"
    old = updater("auto", "float32")
    assert old._hidden == old.model.hidden
    assert "_losses" not in vars(old)
    assert msgspec.to_builtins(Config())["train"]["compile"] == "auto"
