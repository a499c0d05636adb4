"""What an update draws and reads is a function of (seed, step, micro-step), and of nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from overnight.config import Config, Model, Train
from overnight.generation.sample import Sampling, continue_ids
from overnight.training.update import Updater

CONFIG = Config(
    model=Model(vocab_size=16, width=16, heads=2, layers="A", context=8, dropout=0.5),
    train=Train(batch=4, micro_batch=2, device="cpu", dtype="float32"),
)


@pytest.fixture
def updater() -> Updater:
    tokens = np.arange(4000, dtype=np.uint16) % 16
    return Updater(CONFIG, tokens, torch.device("cpu"))


def test_every_micro_step_has_its_own_seed(
    updater: Updater, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(torch, "manual_seed", seeds.append)
    for step in range(1, 9):
        updater.update(step, 9)
    updater.update(8, 9, shift=4)  # other data, other masks
    assert len(seeds) == 2 * 9
    assert len(set(seeds)) == len(seeds)
    again = list(seeds)
    seeds.clear()
    for step in range(1, 9):
        updater.update(step, 9)
    assert seeds == again[:16]


def test_an_update_does_not_depend_on_what_was_drawn_before(updater: Updater) -> None:
    one = updater.update(3, 9).nats
    updater.reset()
    torch.rand(100)
    np.random.default_rng().random()
    assert updater.update(3, 9).nats == one


def test_step_k_reads_the_sequences_of_step_k(
    updater: Updater, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = updater.batches.batch, []

    def noting(first: int, count: int) -> np.ndarray:
        asked.append((first, count))
        return real(first, count)

    monkeypatch.setattr(updater.batches, "batch", noting)
    for step, shift in ((1, 0), (2, 0), (9, 0), (9, 20)):
        updater.update(step, 9, shift)
    assert asked == [(0, 4), (4, 4), (32, 4), (52, 4)]


def test_samples_draw_from_their_own_seed_and_leave_the_common_one_alone(updater: Updater) -> None:
    def drawn(seed: int) -> list[tuple[int, ...]]:
        return list(continue_ids(updater.model, [[1, 2]], Sampling(max_tokens=20, seed=seed)))

    torch.manual_seed(1)
    one, state = drawn(5), torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())
    torch.rand(7)
    assert drawn(5) == one
    assert drawn(6) != one
