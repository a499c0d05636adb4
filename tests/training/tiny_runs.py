"""Runs of seconds, and what is compared between them."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from overnight import cli
from overnight.runfolder import RunFolder, current, read_log
from overnight.training import update

TEXT = "".join(f"Line {i} says that {i * i} is the square of {i}.\n" for i in range(400))
TINY = {
    "--preset": "nanogpt-cpu", "--max-steps": "24", "--eval-every": "8", "--threads": "1",
    "--train.batch": "4", "--train.micro_batch": "2", "--model.layers": "SA",
    "--model.width": "32", "--model.heads": "2", "--model.ssm_head": "16",
    "--model.context": "16", "--eval.tokens": "256", "--sample.tokens": "8",
    "--model.dropout": "0.1", "--train.label_smoothing": "0.1", "--log-every": "5",
    "--save-every": "9",
}  # fmt: skip


def train(out: Path, text: str, *more: str, **other: str) -> int:
    """`other`: flags that replace those of TINY, as `log_every="1"` or `model__width="8"`."""
    flags = TINY | {_flag(name): value for name, value in other.items()}
    words = [word for pair in flags.items() for word in pair]
    return cli.run(["train", text, *words, "--out", str(out), *more])


def _flag(name: str) -> str:
    return "--" + (name.replace("__", ".") if "__" in name else name.replace("_", "-"))


def interrupted_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGINT arrives while update `step` is computed."""
    original = update.Updater.update

    def with_signal(self: update.Updater, number: int, steps: int, *more: Any) -> update.Update:
        if number == step and steps == 24:
            signal.raise_signal(signal.SIGINT)
        return original(self, number, steps, *more)

    monkeypatch.setattr(update.Updater, "update", with_signal)


def interrupted(out: Path, text: str, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was stopped while it made update `step`."""
    with monkeypatch.context() as patch:
        interrupted_at(step, patch)
        assert train(out, text) == 130


def measured(run: Path) -> dict[Any, Any]:
    """Everything logged that is not a time."""
    times = {"time", "attempt", "seq", "seconds", "tokens_per_s"}
    rows = msgspec.to_builtins(current(read_log(run / "log.jsonl").rows))
    return {
        (row["type"], row["step"], row.get("prompt")): {
            k: v for k, v in row.items() if k not in times
        }
        for row in rows
        if row["type"] in ("train", "eval", "sample", "full")
    }


def final_tensors(run: Path) -> list[bytes]:
    folder = RunFolder(run).checkpoint_path(24)
    return [(folder / name).read_bytes() for name in ("model.safetensors", "optimizer.safetensors")]
