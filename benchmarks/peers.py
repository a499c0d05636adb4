"""Other implementations, read from a folder beside ours: nothing of theirs is kept here."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from overnight.settings import Settings
from overnight.training.forms import WORTH_COMPILING, choose_form
from overnight.training.update import Updater


def nanogpt(folder: Path) -> ModuleType:
    """nanoGPT's `model.py` out of a checkout."""
    path = folder / "model.py"
    if not path.is_file():
        path = folder / "nanoGPT" / "model.py"
    if not path.is_file():
        sys.exit(f"{folder}: no checkout of nanoGPT here (model.py is missing)")
    spec = importlib.util.spec_from_file_location("nanogpt_model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["nanogpt_model"] = module
    spec.loader.exec_module(module)
    return module


def long_run(settings: Settings, tokens: np.ndarray) -> Updater:
    """Ours, in the form that a long run takes on this CPU."""
    device = torch.device("cpu")
    settings.choose("train.compile", "off", "until it is tried")
    choose_form(settings, WORTH_COMPILING, tokens, device)
    for name in ("train.attention", "train.compile"):
        print(f"{name} = {settings.get(name)} ({settings.reasons[name]})", file=sys.stderr)
    return Updater(settings.resolve(), tokens, device)


class NanoGPT:
    """Whole updates as nanoGPT's training loop makes them: its model, batches and optimizer."""

    def __init__(self, module: ModuleType, tokens: np.ndarray, **shape: int) -> None:
        self.batch, self.block = shape.pop("batch"), shape["block_size"]
        self.tokens = tokens
        torch.manual_seed(1337)
        config = module.GPTConfig(**shape, dropout=0.0, bias=False)
        self.model = module.GPT(config)
        self.optimizer = self.model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), "cpu")

    def draw(self) -> tuple[torch.Tensor, torch.Tensor]:
        starts = torch.randint(len(self.tokens) - self.block, (self.batch,))
        x, y = (
            torch.stack(
                [
                    torch.from_numpy(self.tokens[i + k : i + k + self.block].astype(np.int64))
                    for i in starts
                ]
            )
            for k in (0, 1)
        )
        return x, y

    def rate(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def update(self) -> None:
        _, loss = self.model(*self.draw())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        loss.item()


def stock(call: Callable[[], float]) -> Callable[[], float]:
    """`call` with torch's own way to multiply float32 and with operations that need not repeat
    exactly, both of which ours changes; some of theirs have no other form."""

    def called() -> float:
        precision = torch.get_float32_matmul_precision()
        exact = torch.are_deterministic_algorithms_enabled()
        torch.set_float32_matmul_precision("highest")
        torch.use_deterministic_algorithms(False)
        try:
            return call()
        finally:
            torch.use_deterministic_algorithms(exact)
            torch.set_float32_matmul_precision(precision)

    return called


def in_turn(
    contenders: dict[str, Callable[[], float]], rounds: int, warm: int = 1
) -> dict[str, list[float]]:
    """What each contender measures, round by round, all in turn: a slow moment meets all."""
    for contender in contenders.values():
        for _ in range(warm):
            contender()
    measured: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            measured[name].append(contender())
    return measured
