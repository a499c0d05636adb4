"""The chunked scan against the recurrence in float64, forward and gradient."""

import pytest
import torch
from torch.nn import functional as F

from overnight.config import Model
from overnight.model.decoder import Decoder
from overnight.model.ssm import CHUNK, SSM, scan


def inputs(T: int, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(T)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    step = draw(2, T, 3).exp() * 0.1
    decay = -step * draw(3).exp()
    parts = [draw(2, T, 3, 4), step, decay, draw(2, T, 5), draw(2, T, 5)]
    return [part.to(dtype) for part in parts]


def recurrence(x, step, decay, b, c, state):
    """S ← exp(decay)·S + step·x bᵀ; y = S·c: one token at a time."""
    ys = []
    for t in range(x.shape[1]):
        outer = torch.einsum("bhp,bn->bhpn", step[:, t, :, None] * x[:, t], b[:, t])
        state = decay[:, t].exp()[..., None, None] * state + outer
        ys.append(torch.einsum("bhpn,bn->bhp", state, c[:, t]))
    return torch.stack(ys, 1), state


LENGTHS = [1, 2, 3, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 37]


@pytest.mark.parametrize("T", LENGTHS)
@pytest.mark.parametrize("begun", [False, True])
def test_forward_and_gradient(T: int, begun: bool) -> None:
    parts = [part.requires_grad_() for part in inputs(T)]
    before = torch.randn(2, 3, 4, 5, dtype=torch.float64) * begun
    y, after = scan(*parts, before if begun else None)
    expected, last = recurrence(*parts, before)
    torch.testing.assert_close(y, expected, atol=1e-11, rtol=1e-10)
    torch.testing.assert_close(after, last, atol=1e-11, rtol=1e-10)
    weight = torch.randn_like(y)
    ours = torch.autograd.grad((y * weight).sum() + after.sum(), parts)
    theirs = torch.autograd.grad((expected * weight).sum() + last.sum(), parts)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-8)


def test_float32_is_near_the_float64_recurrence() -> None:
    y, _ = scan(*inputs(200, torch.float32))
    expected, _ = recurrence(*inputs(200), torch.zeros(2, 3, 4, 5, dtype=torch.float64))
    assert float((y - expected).abs().max() / expected.abs().max()) < 3e-6


def test_strong_decay_does_not_overflow() -> None:
    x, step, decay, b, c = inputs(CHUNK, torch.float32)
    y, after = scan(x, step, decay * 1e4, b, c)
    assert torch.isfinite(y).all()
    assert torch.isfinite(after).all()


def test_pieces_equal_the_whole() -> None:
    parts = inputs(150)
    whole, last = scan(*parts)
    state, ys = None, []
    for begin, end in [(0, 1), (1, 70), (70, 71), (71, 150)]:
        y, state = scan(*(part[:, begin:end] for part in parts), state)
        ys.append(y)
    torch.testing.assert_close(torch.cat(ys, 1), whole, atol=1e-11, rtol=1e-10)
    torch.testing.assert_close(state, last, atol=1e-11, rtol=1e-10)


def test_steps_and_decays_begin_where_mamba_2_has_them() -> None:
    """Steps log-uniform in 0.001 … 0.1, decays uniform in 1 … 16 (Dao and Gu 2024)."""
    model = Model(layers="S", width=512, ssm_head=16, vocab_size=8)
    mixer = Decoder(model).initialise(1).blocks[0].mixer
    assert isinstance(mixer, SSM)
    step, decay = F.softplus(mixer.step_bias), mixer.decay_log.exp()
    assert 0.00099 < step.min() < 0.01 < step.max() < 0.101
    assert 0.99 < decay.min() < 4 < 12 < decay.max() < 16.01
