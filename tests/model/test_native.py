"""One token in compiled code: torch's numbers, for every grammar, wherever the state stands."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from overnight.config import Model
from overnight.model import native
from overnight.model.decoder import Decoder, DecodeState
from overnight.text.cache import Cache

compiler = pytest.mark.skipif(
    not shutil.which(os.environ.get("CC") or "cc"), reason="no C compiler"
)
GRAMMARS = [
    {"position": "learned", "norm": "layer", "mlp": "gelu", "bias": True, "tied": False},
    {"position": "learned", "norm": "layer", "mlp": "gelu_tanh", "bias": True},
    {"position": "rope", "kv_heads": 2, "mlp": "swiglu", "qk_norm": True},
    {"position": "rope", "kv_heads": 1, "mlp": "none", "bias": True},
    {"position": "alibi", "heads": 3, "width": 36, "mlp": "relu2"},
    {"position": "none", "ngrams": [2, 4], "ngram_rows": 77},
    {"position": "rope", "ngrams": [3], "layers": "SAS", "ssm_expand": 3, "bias": True},
    {"position": "none", "layers": "SS", "mlp": "swiglu", "norm": "layer"},
]


def make(**settings: object) -> Decoder:
    small = {"layers": "AA", "width": 32, "heads": 4, "context": 150, "vocab_size": 50,
             "ssm_head": 16, "ssm_state": 8}  # fmt: skip
    model = Decoder(Model(**(small | settings))).initialise(3).eval()
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def ids_of(batch: int, length: int) -> torch.Tensor:
    return torch.randint(0, 50, (batch, length), generator=torch.Generator().manual_seed(2))


def is_compiled(state: DecodeState) -> bool:
    return state._token is not None


@compiler
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("settings", GRAMMARS, ids=lambda s: "-".join(map(str, s.values())))
def test_it_computes_what_the_model_computes(settings: dict, batch: int) -> None:
    """Against float64, and beyond the room that keys and values have at first; with pieces of
    several tokens, which torch computes, between the single ones."""
    model, ids = make(**settings), ids_of(batch, 150)
    with torch.no_grad():
        exact = make(**settings).double()
        exact.set_compute(torch.float64, fused=False)
        expected = exact(ids)
    logits, state = model.decode(ids[:, :5])
    parts, at = [logits], 5
    for piece in [*[1] * 40, 3, *[1] * 70, 2, *[1] * 30]:
        logits, state = model.decode(ids[:, at : at + piece], state)
        assert is_compiled(state) == (piece == 1)
        parts.append(logits)
        at += piece
    assert state.length == at == 150
    torch.testing.assert_close(torch.cat(parts, 1).double(), expected, atol=5e-5, rtol=0)


@compiler
def test_large_numbers_take_no_wrong_turn() -> None:
    """Scores of hundreds: exponentials that under- and overflow where they may."""
    model, ids = make(mlp="swiglu"), ids_of(1, 40)
    with torch.no_grad():
        for block in model.blocks:
            block.mixer.qkv.weight.mul_(20)
            block.mlp.up.weight.mul_(20)
        expected = model(ids)
    logits, state = model.decode(ids[:, :1])
    for i in range(1, 40):
        logits, state = model.decode(ids[:, i : i + 1], state)
    assert is_compiled(state)
    assert expected.isfinite().all()
    torch.testing.assert_close(logits[:, -1], expected[:, -1], atol=1e-3, rtol=1e-3)


class Always(native.Pace):
    """A number of threads that nothing changes."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self._left = 0


@compiler
def test_threads_change_no_bit() -> None:
    model = make(width=128, heads=4, layers="AS", mlp="gelu")
    found = []
    for threads in (1, 2):
        _, state = model.decode(ids_of(2, 99))
        state.pace = Always(threads)
        found.append(model.decode(ids_of(2, 1), state)[0])
        assert is_compiled(state)
    assert torch.equal(*found)


def test_threads_wait_while_another_program_has_a_core() -> None:
    """A machine where a token takes 1 alone, 0.6 together, and 50 together from token 100 on, to
    token 1,000; at last a context in which everything takes six times as long."""
    pace, together = native.Pace(2), []
    for token in range(3000):
        busy, long = 100 <= token < 1000, 6.0 if token >= 2500 else 1.0
        together.append(pace.threads == 2)
        pace.took(long * ((50.0 if busy else 0.6) if together[-1] else 1.0))
    assert not any(together[:2])
    assert all(together[2:101])
    assert sum(together[101:1000]) == 3  # after 64, 128 and 256 tokens
    again = together.index(True, 1000)
    assert again < 1200
    assert all(together[again:2500])
    assert not any(together[2501:2565])  # a longer context is no other program: 64 tokens
    assert all(together[2565:])
    assert native.Pace(1).threads == 1


@compiler
@pytest.mark.parametrize("bad", [-1, 50])
def test_an_id_of_no_token_is_refused_as_torch_refuses_it(bad: int) -> None:
    model = make(ngrams=[2])
    _, state = model.decode(ids_of(2, 4))
    before = state.before_BP.clone()
    with pytest.raises(IndexError):
        model.decode(torch.tensor([[1], [bad]]), state)
    assert state.length == 4
    assert torch.equal(state.before_BP, before)


@pytest.mark.parametrize("other", ["batch", "dtype", "compute"])
def test_what_it_is_not_made_for_is_torchs(other: str) -> None:
    model, batch = make(), native.ROWS + 1 if other == "batch" else 1
    if other == "dtype":
        model.double()
    if other != "batch":
        model.set_compute(torch.float64 if other == "dtype" else torch.bfloat16, fused=True)
    _, state = model.decode(ids_of(batch, 4))
    model.decode(ids_of(batch, 1), state)
    assert not is_compiled(state)


def test_without_a_compiler_torch_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "/nowhere/cc -O9")
    native.load.cache_clear()
    model, ids = make(layers="SA", ngrams=[2]), ids_of(1, 20)
    with torch.no_grad():
        expected = model(ids)
    logits, state = model.decode(ids[:, :1])
    for i in range(1, 20):
        logits, state = model.decode(ids[:, i : i + 1], state)
    native.load.cache_clear()
    assert not is_compiled(state)
    torch.testing.assert_close(logits[:, -1], expected[:, -1], atol=5e-5, rtol=0)


@compiler
def test_a_damaged_library_is_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert native.load()
    (whole,) = Cache().native.iterdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    damaged = Cache().native / whole.name
    damaged.write_bytes(whole.read_bytes()[:100])
    native.load.cache_clear()
    assert native.load()
    native.load.cache_clear()
    assert list(Cache().native.iterdir()) == [damaged]
    assert damaged.stat().st_size == whole.stat().st_size


@compiler
@pytest.mark.parametrize("trouble", ["fails", "hangs"])
def test_a_compiler_that_does_not_is_none(
    trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cc = tmp_path / "cc"
    cc.write_text("#!/bin/sh\n" + ("exit 1" if trouble == "fails" else "exec sleep 60"))
    cc.chmod(0o755)
    monkeypatch.setenv("CC", str(cc))
    monkeypatch.setattr(native, "SECONDS", 0.1)
    native.load.cache_clear()
    found = native.load()
    native.load.cache_clear()
    assert found is None


@compiler
def test_the_process_keeps_its_small_numbers() -> None:
    """Linked with -ffast-math, a library has the processor take them for zero."""
    program = """
import torch
from overnight.model import native
assert native.load()
assert float(torch.tensor(1e-40) * 1) > 0
"""
    subprocess.run([sys.executable, "-c", program], check=True)
