"""One token in compiled code: torch's numbers, for every grammar, wherever the state stands."""

import copy
import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch

from overnight.config import Model
from overnight.model import library, native
from overnight.model.decoder import Decoder, DecodeState
from overnight.model.layers import library_for

GRAMMARS = [
    {"position": "learned", "norm": "layer", "mlp": "gelu", "bias": True, "tied": False},
    {"position": "learned", "norm": "layer", "mlp": "gelu_tanh", "bias": True},
    {"position": "rope", "kv_heads": 2, "mlp": "swiglu", "qk_norm": True},
    {"position": "rope", "kv_heads": 1, "mlp": "none", "bias": True},
    {"position": "alibi", "heads": 3, "width": 36, "mlp": "relu2"},
    {"position": "none", "ngrams": [2, 4], "ngram_rows": 77},
    {"position": "learned", "ngrams": [2], "ngram_rows": 77, "embed_conv": True},
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


@pytest.mark.usefixtures("compiler")
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


@pytest.mark.usefixtures("compiler")
def test_large_numbers_take_no_wrong_turn() -> None:
    """Scores of thousands, steps of a state space above the range of exp."""
    model, ids = make(layers="AS", mlp="swiglu"), ids_of(4, 140)
    with torch.no_grad():
        for block in model.blocks:
            block.mlp.up.weight.mul_(20)
        model.blocks[0].mixer.qkv.weight.mul_(60)
        model.blocks[1].mixer.step_bias.copy_(torch.tensor([100.0, 30.0, 0.0, -100.0]))
        expected = model(ids)
    logits, state = model.decode(ids[:, :1])
    parts = [logits]
    for i in range(1, 140):
        logits, state = model.decode(ids[:, i : i + 1], state)
        parts.append(logits)
    assert is_compiled(state)
    assert expected.isfinite().all()
    torch.testing.assert_close(torch.cat(parts, 1), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.usefixtures("compiler")
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


@pytest.mark.usefixtures("compiler")
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


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("bad", [-1, 50])
def test_an_id_of_no_token_is_refused_as_torch_refuses_it(bad: int) -> None:
    model = make(ngrams=[2])
    _, state = model.decode(ids_of(2, 4))
    before = state.before_BP.clone()
    with pytest.raises(IndexError):
        model.decode(torch.tensor([[1], [bad]]), state)
    assert state.length == 4
    assert torch.equal(state.before_BP, before)


@pytest.mark.usefixtures("compiler")
def test_other_ids_than_one_of_each_row_are_torchs() -> None:
    model = make(ngrams=[2, 3])
    _, state = model.decode(ids_of(3, 4))
    for ids in (ids_of(1, 1), ids_of(5, 1)):
        with pytest.raises(ValueError, match="rows after a state of 3"):
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


@pytest.mark.usefixtures("compiler")
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


@pytest.mark.usefixtures("compiler")
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
    monkeypatch.setenv("CC", "no-such-compiler -O9")
    library.load.cache_clear()
    model, ids = make(layers="SA", ngrams=[2]), ids_of(1, 20)
    with torch.no_grad():
        expected = model(ids)
    logits, state = model.decode(ids[:, :1])
    for i in range(1, 20):
        logits, state = model.decode(ids[:, i : i + 1], state)
    library.load.cache_clear()
    assert not is_compiled(state)
    torch.testing.assert_close(logits[:, -1], expected[:, -1], atol=5e-5, rtol=0)


def test_the_library_stays_off_while_anybody_wants_it_off() -> None:
    with library_for(1, torch.float32):
        with library_for(1, torch.float32):
            assert not torch.backends.mkldnn.enabled
        assert not torch.backends.mkldnn.enabled
    assert torch.backends.mkldnn.enabled


def test_threads_that_decode_leave_the_library_as_it_was() -> None:
    """torch's switch is the process's; each thread turns it off and on again."""
    model, begun = make(), Barrier(4)

    def decode(_: int) -> None:
        begun.wait()
        for _ in range(50):
            model.decode(ids_of(1, 4))

    assert torch.backends.mkldnn.enabled
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(decode, range(4)))
    assert torch.backends.mkldnn.enabled
