"""GELU in bfloat16: every number there is, beside float64; the same bits however it is computed."""

import numpy as np
import pytest
import torch
from scipy.special import expit
from scipy.stats import norm
from torch import Tensor
from torch.nn import functional as F

from overnight.config import Model
from overnight.model import gelu as room
from overnight.model.decoder import Decoder
from overnight.model.gelu import gelu

EVERY = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
FINITE = EVERY[EVERY.isfinite()]


def nearest(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values).bfloat16()


def value_and_slope(x: Tensor, approximate: str) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    y = gelu(x, approximate)
    y.backward(torch.ones_like(y))
    assert x.grad is not None
    return y.detach(), x.grad


def test_every_number_has_the_nearest_value_and_slope() -> None:
    x = FINITE.double().numpy()
    y, slope = value_and_slope(FINITE, "none")
    near = np.abs(x) < 5  # further out 1 + erf(x) has no digits left: 0, or x and 1
    wanted = nearest(x * norm.cdf(x)), nearest(norm.cdf(x) + x * norm.pdf(x))
    for got, want in zip((y, slope), wanted, strict=True):
        torch.testing.assert_close(got[near], want[near], rtol=2**-8, atol=1e-12)
        assert (got[near] == want[near]).double().mean() > 0.9999
        torch.testing.assert_close(got[~near], want[~near], rtol=0, atol=1e-4)


def test_the_one_by_tanh_has_too() -> None:
    x = FINITE.double().numpy()
    y, slope = value_and_slope(FINITE, "tanh")
    sigmoid = expit(2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))  # 0.5 + 0.5 tanh of the half
    inner_slope = 2 * np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * x**2)
    wanted = nearest(x * sigmoid), nearest(sigmoid + x * sigmoid * (1 - sigmoid) * inner_slope)
    for got, want in zip((y, slope), wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=2**-8, atol=1e-12)
        assert (got == want).double().mean() > 0.99


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_what_is_no_number_stays_none(approximate: str) -> None:
    x = torch.tensor([float("nan"), float("inf")], dtype=torch.bfloat16)
    y, slope = value_and_slope(x, approximate)
    assert y[0].isnan()
    assert slope[0].isnan()
    assert y[1] == float("inf")


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_the_bits_are_the_same_however_it_is_computed(
    approximate: str, compiler: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In C by one thread or three, and by torch; of numbers that lie apart."""
    x = EVERY.view(256, 256).t()[3:]
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(room._look_up(x, approximate))
    finally:
        torch.set_num_threads(before)
    assert room.load() is not None
    monkeypatch.setattr(room, "load", lambda: None)
    found.append(room._look_up(x, approximate))
    for values, slopes in found:
        assert values.shape == slopes.shape == x.shape
        assert torch.equal(values.view(torch.int16), found[0][0].view(torch.int16))
        assert torch.equal(slopes.view(torch.int16), found[0][1].view(torch.int16))
    at = 7, 40
    y, slope = value_and_slope(x[at].view(1), approximate)
    assert (found[0][0][at], found[0][1][at]) == (y, slope)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_training_takes_what_decoding_made(mode: type) -> None:
    room.table.cache_clear()
    x = torch.linspace(-3, 3, 9).bfloat16()
    with mode():
        decoded = gelu(x, "none")
    y, slope = value_and_slope(x, "none")
    assert torch.equal(y, decoded)
    assert slope[-1] > 1


@pytest.mark.parametrize("x", [EVERY.view(256, 256)[:, 5:9], EVERY[:0], EVERY[7]])
def test_compiled_code_is_told_what_comes(x: Tensor) -> None:
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.overnight.gelu.default, (x, "none"), test_utils=checks)


def test_what_it_cannot_do_is_an_error() -> None:
    with pytest.raises(TypeError, match="float32"):
        torch.ops.overnight.gelu(torch.ones(3), "none")
    x = torch.ones(3, dtype=torch.bfloat16, requires_grad=True)
    (slope,) = torch.autograd.grad(gelu(x, "none").sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        slope.sum().backward()


def test_other_dtypes_are_torchs() -> None:
    x = torch.linspace(-4, 4, 99)
    for approximate in ("none", "tanh"):
        assert torch.equal(gelu(x, approximate), F.gelu(x, approximate=approximate))


@pytest.mark.parametrize("kind", ["gelu", "gelu_tanh"])
def test_a_model_learns_what_it_would_with_torchs(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients of a whole model are as near to float32's as with torch's GELU."""
    shape = Model(layers="AA", width=32, heads=4, context=24, vocab_size=50, mlp=kind)
    model = Decoder(shape).initialise(3)
    ids = torch.randint(0, 50, (4, 17), generator=torch.manual_seed(5))

    def gradients(dtype: torch.dtype) -> Tensor:
        model.set_compute(dtype, fused=False)
        model.zero_grad()
        F.cross_entropy(model(ids[:, :-1]).float().flatten(0, 1), ids[:, 1:].flatten()).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    exact, ours = gradients(torch.float32), gradients(torch.bfloat16)
    monkeypatch.setattr("overnight.model.layers.gelu", lambda x, a: F.gelu(x, approximate=a))
    torchs = gradients(torch.bfloat16)
    assert not torch.equal(ours, torchs)
    assert (ours - exact).norm() < 1.1 * (torchs - exact).norm()
