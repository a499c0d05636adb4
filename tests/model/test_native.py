"""One token in compiled code: torch's numbers, for every grammar, wherever the state stands."""

import copy
import gc
import os
import shlex
import shutil
import subprocess
import sys
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from overnight.config import Model
from overnight.model import native
from overnight.model.decoder import Decoder, DecodeState
from overnight.text.cache import Cache

CC = shlex.split(os.environ.get("CC") or "cc")
compiler = pytest.mark.skipif(not shutil.which(CC[0]), reason="no C compiler is here")
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
    """Scores of hundreds, steps of a state space above the range of exp."""
    model, ids = make(layers="AS", mlp="swiglu"), ids_of(1, 40)
    with torch.no_grad():
        for block in model.blocks:
            block.mlp.up.weight.mul_(20)
        model.blocks[0].mixer.qkv.weight.mul_(20)
        model.blocks[1].mixer.step_bias.copy_(torch.tensor([100.0, 30.0, 0.0, -100.0]))
        expected = model(ids)
    logits, state = model.decode(ids[:, :1])
    for i in range(1, 40):
        logits, state = model.decode(ids[:, i : i + 1], state)
    assert is_compiled(state)
    assert expected.isfinite().all()
    torch.testing.assert_close(logits[:, -1], expected[:, -1], atol=1e-3, rtol=1e-3)


@compiler
@pytest.mark.parametrize("mlp", ["gelu", "gelu_tanh", "relu2", "swiglu"])
def test_what_is_no_number_stays_none(mlp: str) -> None:
    model = make(mlp=mlp)
    with torch.no_grad():
        model.blocks[-1].mlp.up.weight[3, 3] = torch.nan  # keys and values have none
    _, state = model.decode(ids_of(1, 4))
    assert model.decode(ids_of(1, 1), state)[0].isnan().all()
    assert is_compiled(state)


class Always(native.Pace):
    """A number of threads that nothing changes; how often it was asked, what each token took."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self._left, self.asked, self.seconds = 0, 0, []

    @property
    def threads(self) -> int:
        self.asked += 1
        return super().threads

    def took(self, seconds: float) -> None:
        self.seconds.append(seconds)


@compiler
def test_threads_change_no_bit() -> None:
    model = make(width=128, heads=4, layers="AS", mlp="gelu", ssm_state=64)
    found = []
    for threads in (1, 2, 3):
        _, state = model.decode(ids_of(2, 99))
        state.pace = pace = Always(threads)
        found.append(model.decode(ids_of(2, 1), state)[0])
        assert is_compiled(state)
        assert pace.asked == 1
        assert 0 < pace.seconds[0] < 60
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@compiler
def test_threads_are_really_asked() -> None:
    """The library calls for a team where the compiler knows how."""
    tried = [*CC, "-fopenmp", "-shared", "-x", "c", os.devnull, "-o", os.devnull]
    if subprocess.run(tried, capture_output=True).returncode:
        pytest.skip("this compiler has no OpenMP")
    assert native.load()
    (library,) = Cache().native.glob("*.so")
    assert any(name in library.read_bytes() for name in (b"GOMP_parallel", b"__kmpc_fork_call"))


def run_of(pace: native.Pace, tokens: int, alone: float, together: float) -> list[bool]:
    """Whether each of the tokens was given all threads."""
    asked = []
    for _ in range(tokens):
        asked.append(pace.threads > 1)
        pace.took(together if asked[-1] else alone)
    return asked


def test_threads_wait_while_another_program_has_a_core() -> None:
    pace = native.Pace(2)
    quiet = run_of(pace, 100, alone=1.0, together=0.6)
    assert quiet == [False] * 4 + [True] * 96
    busy = run_of(pace, 3000, alone=1.0, together=50.0)
    # one of them; then 64 tokens alone, 128, … 1,024
    assert [i for i, all_of_them in enumerate(busy) if all_of_them] == [0, 65, 194, 451, 964, 1989]
    later = run_of(pace, 2000, alone=1.0, together=0.6)
    assert all(later[1025:])
    assert not any(run_of(native.Pace(1), 100, 1.0, 9.0))


def test_threads_that_bring_nothing_are_left_out() -> None:
    assert sum(run_of(native.Pace(64), 5000, alone=1.0, together=1.2)) < 250
    pace = native.Pace(2)
    run_of(pace, 100, alone=1.0, together=0.6)
    longer = run_of(pace, 1000, alone=10.0, together=6.0)  # a longer context: all takes ten times
    assert longer[0]
    assert not any(longer[1:65])
    assert all(longer[65:])


def test_a_late_token_misleads_nobody() -> None:
    """What one thread takes is the least of a pause, not one token that waited for its turn."""
    pace = native.Pace(2)
    run_of(pace, 4, alone=1.0, together=9.0)
    run_of(pace, 1, alone=1.0, together=9.0)
    run_of(pace, 63, alone=1.0, together=9.0)
    run_of(pace, 1, alone=8.0, together=9.0)
    assert run_of(pace, 2, alone=1.0, together=9.0) == [True, False]


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


@compiler
def test_other_ids_than_one_of_each_row_are_torchs() -> None:
    model = make(ngrams=[2, 3])
    _, state = model.decode(ids_of(3, 4))
    for ids in (ids_of(1, 1), ids_of(5, 1)):
        with pytest.raises(RuntimeError):
            model.decode(ids, state)
    with pytest.raises(RuntimeError):
        model.decode(ids_of(3, 1).float(), state)
    _, state = model.decode(ids_of(2, 4).int())
    with torch.no_grad():
        expected = model(torch.cat([ids_of(2, 4), ids_of(2, 1)], 1))[:, -1]
    for kind in (torch.int32, torch.int64):
        logits, same = model.decode(ids_of(2, 1).to(kind), copy.deepcopy(state))
        assert not is_compiled(same)
        torch.testing.assert_close(logits[:, -1], expected, atol=2e-5, rtol=0)


@compiler
def test_defaults_of_torch_change_nothing() -> None:
    model, logits = make(position="alibi"), []
    for dtype, device in ((torch.float32, "cpu"), (torch.float64, "meta")):
        _, state = model.decode(ids_of(1, 4))
        one = ids_of(1, 1)
        torch.set_default_dtype(dtype)
        try:
            with torch.device(device):
                logits.append(model.decode(one, state)[0])
        finally:
            torch.set_default_dtype(torch.float32)
        assert is_compiled(state)
    assert torch.equal(*logits)


@compiler
def test_a_state_is_freed_and_copied_like_any_other() -> None:
    model, ids = make(layers="SA", ngrams=[2]), ids_of(1, 40)
    state = model.decode(ids[:, :30])[1]
    model.decode(ids[:, 30:31], state)
    copied = copy.deepcopy(state)
    for each in (copied, state):  # each goes on by itself
        for i in range(31, 40):
            logits = model.decode(ids[:, i : i + 1], each)[0]
        with torch.no_grad():
            torch.testing.assert_close(logits[:, -1], model(ids)[:, -1], atol=2e-5, rtol=0)
    assert is_compiled(state)
    gone = weakref.ref(state.layers[1])
    gc.disable()
    try:
        del state, each
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("other", ["batch", "dtype", "weights", "compute"])
def test_what_it_is_not_made_for_is_torchs(other: str) -> None:
    model, batch = make(), native.ROWS + 1 if other == "batch" else 1
    if other in ("dtype", "weights"):
        model.double()
    if other in ("dtype", "compute"):
        model.set_compute(torch.float64 if other == "dtype" else torch.bfloat16, fused=True)
    _, state = model.decode(ids_of(batch, 4))
    model.decode(ids_of(batch, 1), state)
    assert not is_compiled(state)


def test_a_state_of_another_dtype_is_torchs() -> None:
    model = make()
    with torch.autocast("cpu", torch.bfloat16):
        _, state = model.decode(ids_of(1, 4))
        logits, _ = model.decode(ids_of(1, 1), state)
    assert state.layers[0].kv.dtype == torch.bfloat16
    assert not is_compiled(state)
    assert logits.isfinite().all()


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


@pytest.fixture
def new_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the library is to be built again."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    native.load.cache_clear()
    yield Cache().native
    native.load.cache_clear()


@compiler
@pytest.mark.parametrize("share", [0.003, 0.5, 0.99])
def test_a_damaged_library_is_built_again(share: float, new_cache: Path) -> None:
    """Half of a library ends the process that opens it."""
    assert native.load()
    (kept,) = new_cache.glob("*.so")
    whole = kept.read_bytes()
    kept.unlink()  # the one in use goes on without its name
    kept.write_bytes(whole[: int(share * len(whole))])
    assert not native._is_whole(kept)
    native.load.cache_clear()
    assert native.load()
    assert native._is_whole(kept)
    assert kept.stat().st_size == len(whole)


@compiler
@pytest.mark.parametrize("what", ["_processor", "FLAGS", "SOURCE", "HEADER"])
def test_another_question_gets_its_own_library(
    what: str, new_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert native.load()
    for name in ("token.c", "token.h"):
        text = native.SOURCE.with_name(name).read_text()
        (tmp_path / name).write_text(text + "/* changed */\n")
    (tmp_path / "same").mkdir()
    shutil.copy(native.HEADER, tmp_path / "same" / "token.h")
    shutil.copy(tmp_path / "token.c", tmp_path / "same" / "token.c")
    changed = {
        "_processor": lambda: "flags: another",
        "FLAGS": [*native.FLAGS, "-g"],
        "SOURCE": tmp_path / "same" / "token.c",
        "HEADER": tmp_path / "token.h",
    }
    monkeypatch.setattr(native, what, changed[what])
    native.load.cache_clear()
    assert native.load()
    assert len(list(new_cache.glob("*.so"))) == 2


@compiler
@pytest.mark.parametrize("trouble", ["fails", "hangs", "has no name", "is not closed"])
def test_a_compiler_that_does_not_is_none(
    trouble: str, new_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cc = tmp_path / "cc"
    half = 'for a in "$@"; do case $a in *.so) echo half > "$a";; esac; done; '
    cc.write_text("#!/bin/sh\n" + half + ("exit 1" if trouble == "fails" else "exec sleep 60"))
    cc.chmod(0o755)
    monkeypatch.setenv("CC", {"has no name": " ", "is not closed": "gcc '"}.get(trouble, str(cc)))
    monkeypatch.setattr(native, "SECONDS", 0.3)
    assert native.load() is None
    assert not new_cache.exists() or not list(new_cache.iterdir())


@compiler
def test_threads_that_load_at_once_all_get_it(new_cache: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert all(library is not None for library in pool.map(lambda _: native.load(), range(4)))
    assert len(list(new_cache.iterdir())) == 2  # with its checksum


def test_without_a_home_torch_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
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
