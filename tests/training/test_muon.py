"""Muon for many matrices at a time, against torch's for one."""

from typing import Any

import numpy as np
import pytest
import torch

from overnight.config import Config, Model, Optimizer, Train
from overnight.training.muon import Muon, orthogonal
from overnight.training.update import Updater

SHAPES = [(48, 16), (16, 16), (64, 16), (16, 64), (48, 16), (16, 16), (64, 16), (16, 64), (5, 7)]


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_steps_are_torchs(decay: float) -> None:
    random = torch.Generator().manual_seed(1)
    ours = [torch.nn.Parameter(torch.randn(shape, generator=random)) for shape in SHAPES]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    settings = {"lr": 0.05, "momentum": 0.9, "weight_decay": decay}
    first, second = Muon(ours, {}, torch.bfloat16, **settings), torch.optim.Muon(theirs, **settings)
    for _ in range(5):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(p.shape, generator=random)
            q.grad = p.grad.clone()
        first.step()
        second.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, atol=1e-3, rtol=0)  # bfloat16 within; a step is 0.05
        buffers = first.state[p]["momentum_buffer"], second.state[q]["momentum_buffer"]
        assert torch.equal(*buffers)


def test_maps_in_one_parameter_are_steps_of_their_own() -> None:
    """Two of 16 rows and one of 8 move as three parameters of torch's would."""
    random = torch.Generator().manual_seed(3)
    whole = torch.nn.Parameter(torch.randn(40, 16, generator=random))
    apart = [torch.nn.Parameter(p.clone()) for p in whole.detach().split([16, 16, 8])]
    settings = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}
    ours = Muon([whole], {whole: (16, 16, 8)}, torch.bfloat16, **settings)
    theirs = torch.optim.Muon(apart, **settings)
    for _ in range(3):
        whole.grad = torch.randn(40, 16, generator=random)
        for p, grad in zip(apart, whole.grad.split([16, 16, 8]), strict=True):
            p.grad = grad.clone()
        ours.step()
        theirs.step()
    torch.testing.assert_close(whole, torch.cat(list(apart)), atol=1e-3, rtol=0)


def test_singular_values_come_near_one() -> None:
    x = torch.randn(3, 8, 20, generator=torch.Generator().manual_seed(2))
    values = torch.linalg.svdvals(orthogonal(x, (3.4445, -4.775, 2.0315), 5, 1e-7))
    assert float(values.min()) > 0.6
    assert float(values.max()) < 1.3


def test_float32_is_the_published_iteration() -> None:
    """Nesterov's momentum and five steps of Newton-Schulz (Jordan 2024), in float64; torch's own
    bfloat16 is a thousand times further off."""
    random = np.random.default_rng(5)
    start, gradients = random.normal(size=(24, 16)), random.normal(size=(3, 24, 16))
    parameter = torch.nn.Parameter(torch.tensor(start, dtype=torch.float32))
    muon = Muon([parameter], {}, torch.float32, lr=0.05, momentum=0.9, weight_decay=0.1)
    expected, momentum = start, np.zeros_like(start)
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient, dtype=torch.float32)
        muon.step()
        momentum = 0.9 * momentum + 0.1 * gradient
        x = 0.1 * gradient + 0.9 * momentum
        x = x.T / np.linalg.norm(x)
        for _ in range(5):
            gram = x @ x.T
            x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
        expected = expected * (1 - 0.05 * 0.1) - 0.05 * np.sqrt(24 / 16) * x.T
    torch.testing.assert_close(
        parameter.detach().double(), torch.tensor(expected), atol=2e-6, rtol=0
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_run_has_its_own_dtype_there_too(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a CPU has to emulate bfloat16, nothing of an update may be in it."""
    seen = set()

    def orthogonal_seen(x_NRC: torch.Tensor, *given: Any) -> torch.Tensor:
        seen.add(x_NRC.dtype)
        return orthogonal(x_NRC, *given)

    monkeypatch.setattr("overnight.training.muon.orthogonal", orthogonal_seen)
    config = Config(
        model=Model(layers="A", width=16, heads=2, context=8, vocab_size=30),
        optimizer=Optimizer(kind="muon"),
        train=Train(batch=2, micro_batch=2, dtype=dtype),
    )
    Updater(config, np.arange(100, dtype=np.uint16) % 30, torch.device("cpu")).update(1, 10)
    assert seen == {getattr(torch, dtype)}


def test_a_matrix_without_gradient_stays() -> None:
    still, moved = (torch.nn.Parameter(torch.ones(4, 4)) for _ in range(2))
    moved.grad = torch.eye(4)
    Muon([still, moved], {}, torch.float32, lr=0.1).step()
    assert torch.equal(still, torch.ones(4, 4))
    assert not torch.equal(moved, torch.ones(4, 4))
