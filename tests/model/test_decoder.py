"""The grammar: exact counts, causality, decoding that equals recomputation."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from overnight.config import Model
from overnight.errors import UserError
from overnight.model.attention import alibi_slopes
from overnight.model.decoder import Decoder, NgramTable, complete, count_parameters
from overnight.model.layers import convolve

SMALL = {"layers": "AA", "width": 32, "heads": 4, "context": 24, "vocab_size": 50}
VARIANTS = [
    {"position": position, **rest}
    for position, rest in itertools.product(
        ["learned", "rope", "alibi", "none"],
        [
            {"norm": "layer", "mlp": "gelu", "bias": True, "tied": False},
            {"kv_heads": 2, "mlp": "swiglu", "qk_norm": True, "ngrams": [2, 3], "ngram_rows": 99},
            {"kv_heads": 1, "mlp": "none", "dropout": 0.5},
            {"layers": "SAS", "ssm_head": 16, "ssm_state": 8},
            {"ngrams": [2], "ngram_rows": 99, "embed_conv": True},
        ],
    )
]


def make(**settings: object) -> Decoder:
    decoder = Decoder(Model(**(SMALL | settings))).initialise(3).eval()
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return decoder


def ids_of(batch: int, length: int) -> torch.Tensor:
    return torch.randint(0, 50, (batch, length), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("settings", VARIANTS, ids=lambda s: "-".join(map(str, s.values())))
def test_decoding_equals_recomputation(settings: dict) -> None:
    model, ids = make(**settings), ids_of(3, 24)
    with torch.no_grad():
        whole = model(ids)
        logits, state = model.decode(ids[:, :7])
        parts = [logits]
        for i in range(7, 24):
            logits, state = model.decode(ids[:, i : i + 1], state)
            parts.append(logits)
    assert state.length == 24
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=2e-5, rtol=0)


@pytest.mark.parametrize("settings", VARIANTS, ids=lambda s: "-".join(map(str, s.values())))
@pytest.mark.parametrize("fused", [True, False])
def test_causal_exactly(settings: dict, fused: bool) -> None:
    model, ids = make(**settings), ids_of(2, 24)
    model.set_compute(torch.float32, fused)
    other = ids.clone()
    other[:, 15] = (other[:, 15] + 1) % 50
    with torch.no_grad():
        a, b = model(ids), model(other)
    assert torch.equal(a[:, :15], b[:, :15])
    assert not torch.equal(a[:, 15], b[:, 15])


def test_the_convolution_over_embeddings_is_torchs() -> None:
    """Beside `conv1d` with a group for each channel; a fresh one changes nothing."""
    settings = SMALL | {"position": "learned", "ngrams": [2], "ngram_rows": 99}
    fresh = Decoder(Model(**settings, embed_conv=True)).initialise(3)
    ids = ids_of(2, 24)
    assert torch.equal(fresh(ids), Decoder(Model(**settings)).initialise(3)(ids))
    model = make(**settings, embed_conv=True)
    without = make(**settings)
    without.load_state_dict({k: v for k, v in model.state_dict().items() if k != "convolution"})
    with torch.no_grad():
        plain_BCT = without._embedded(ids, None, None).mT
        weights_C1J = model.convolution.t()[:, None]
        seen_BCT = F.conv1d(F.pad(plain_BCT, (3, 0)), weights_C1J, groups=32)
        torch.testing.assert_close(model._embedded(ids, None, None), (plain_BCT + seen_BCT).mT)


def test_the_gradient_of_a_short_convolution_is_torchs() -> None:
    torch.manual_seed(0)
    tail_BIM, x_BTM = torch.randn(2, 3, 5).double(), torch.randn(2, 9, 5).double()
    weights_JM, upstream = torch.randn(4, 5).double(), torch.randn(2, 9, 5).double()
    leaves = [leaf.requires_grad_() for leaf in (x_BTM, weights_JM, tail_BIM)]
    ours, _ = convolve(*leaves)
    seen_BMS = torch.cat([tail_BIM, x_BTM], 1).mT
    theirs = F.conv1d(seen_BMS, weights_JM.t()[:, None], groups=5).mT
    torch.testing.assert_close(ours, theirs)
    for one, other in zip(
        *(torch.autograd.grad(y, leaves, upstream) for y in (ours, theirs)), strict=True
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("position", ["rope", "alibi", "learned"])
def test_plain_products_equal_fused_kernel(position: str) -> None:
    model, ids = make(position=position, kv_heads=2), ids_of(2, 24)
    with torch.no_grad():
        a = model(ids)
        model.set_compute(torch.float32, fused=False)
        b = model(ids)
    torch.testing.assert_close(a, b, atol=2e-6, rtol=0)


def test_a_model_in_double_computes_in_double() -> None:
    settings = {"layers": "AS", "ssm_head": 16, "ngrams": [2], "embed_conv": True}
    model, ids = make(**settings), ids_of(2, 24)
    with torch.no_grad():
        rounded, exact = model(ids), model.double()(ids)
        decoded, _ = model.decode(ids)
    assert exact.dtype == decoded.dtype == torch.float64
    assert 0 < (exact - rounded).abs().max() < 1e-4
    torch.testing.assert_close(decoded, exact, atol=1e-12, rtol=0)


def test_alibi_reaches_beyond_the_context() -> None:
    model, ids = make(position="alibi"), ids_of(1, 90)
    with torch.no_grad():
        logits, state = model.decode(ids[:, :1])
        for i in range(1, 90):
            logits, state = model.decode(ids[:, i : i + 1], state)
        whole = model(ids)
    torch.testing.assert_close(logits[:, -1], whole[:, -1], atol=2e-5, rtol=0)


def test_alibi_slopes_of_the_paper() -> None:
    assert alibi_slopes(8) == [2.0**-i for i in range(1, 9)]
    assert len(alibi_slopes(12)) == 12
    assert len(set(alibi_slopes(12))) == 12


def test_rope_scores_depend_on_distance_only() -> None:
    from overnight.model.attention import rotate

    q, k = torch.randn(1, 1, 1, 16), torch.randn(1, 1, 1, 16)
    near = (rotate(q, 9, 1e4) * rotate(k, 4, 1e4)).sum()
    far = (rotate(q, 1009, 1e4) * rotate(k, 1004, 1e4)).sum()
    torch.testing.assert_close(near, far, atol=1e-3, rtol=0)
    assert not torch.isclose(near, (rotate(q, 9, 1e4) * rotate(k, 5, 1e4)).sum(), atol=1e-3)


def test_grouped_query_equals_repeated_heads() -> None:
    """GQA is multi-head attention whose key and value heads are shared."""
    grouped = make(kv_heads=2, position="none", mlp="none")
    full = make(kv_heads=4, position="none", mlp="none")
    full.load_state_dict(grouped.state_dict() | _repeated(grouped))
    ids = ids_of(2, 24)
    with torch.no_grad():
        torch.testing.assert_close(grouped(ids), full(ids), atol=2e-6, rtol=0)


def _repeated(grouped: Decoder) -> dict[str, torch.Tensor]:
    weights = {}
    for name, weight in grouped.state_dict().items():
        if name.endswith("qkv.weight"):
            q, k, v = weight.split([32, 16, 16])
            k, v = (x.view(2, 8, 32).repeat_interleave(2, 0).reshape(32, 32) for x in (k, v))
            weights[name] = torch.cat([q, k, v])
    return weights


@pytest.mark.parametrize(
    ("settings", "total"),
    [
        # nanoGPT's own formula without biases: V·d + T·d + L·(12d² + 2d) + d
        ({"width": 128, "layers": "AAAA", "context": 64, "vocab_size": 65,
          "position": "learned", "norm": "layer", "mlp": "gelu"}, 804_096),
        # GPT-2 small, published: 124,439,808 with biases and learned positions
        ({"width": 768, "layers": "A" * 12, "heads": 12, "context": 1024, "vocab_size": 50_257,
          "position": "learned", "norm": "layer", "mlp": "gelu", "bias": True}, 124_439_808),
        # Llama-2 7B, published: 6,738,415,616
        ({"width": 4096, "layers": "A" * 32, "heads": 32, "context": 4096, "vocab_size": 32_000,
          "position": "rope", "norm": "rms", "mlp": "swiglu", "feed_forward": 11_008,
          "tied": False}, 6_738_415_616),
    ],
    ids=["nanogpt-cpu", "gpt2", "llama2-7b"],
)  # fmt: skip
def test_exact_parameter_counts(settings: dict, total: int) -> None:
    counts = count_parameters(Model(**settings))
    assert counts["total"] == total
    assert sum(n for part, n in counts.items() if part != "total") == total


def test_initialisation_is_a_function_of_seed_and_name() -> None:
    a, b = Decoder(Model(**SMALL)).initialise(1), Decoder(Model(**SMALL)).initialise(1)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    deeper = Decoder(Model(**(SMALL | {"layers": "AAA"}))).initialise(1)
    assert torch.equal(a.blocks[0].mixer.qkv.weight, deeper.blocks[0].mixer.qkv.weight)
    assert not torch.equal(a.embed, Decoder(Model(**SMALL)).initialise(2).embed)


def test_embeddings_alone_begin_at_what_is_asked_for() -> None:
    shape = SMALL | {"position": "learned", "tied": False, "width": 64}
    usual, wide = (Decoder(Model(**shape, embed_std=std)).initialise(1) for std in (0.02, 0.1))
    for (name, a), b in zip(usual.named_parameters(), wide.parameters(), strict=True):
        if name in ("embed", "positions"):
            assert torch.allclose(5 * a, b)
            assert abs(float(b.std().detach()) - 0.1) < 0.005
        else:
            assert torch.equal(a, b)


def test_projections_into_the_stream_begin_smaller_with_depth() -> None:
    """GPT-2's 1/√N of N projections: of 4 in two layers, of 16 in eight."""
    two, eight = (Decoder(Model(**(SMALL | {"layers": n * "A"}))).initialise(1) for n in (2, 8))
    for a, b in ((two.blocks[1].mixer.out, eight.blocks[1].mixer.out),
                 (two.blocks[1].mlp.down, eight.blocks[1].mlp.down)):  # fmt: skip
        assert torch.allclose(a.weight, 2 * b.weight)
        assert abs(float(a.weight.std().detach()) - 0.01) < 0.001
    assert torch.equal(two.blocks[1].mlp.up.weight, eight.blocks[1].mlp.up.weight)


def test_first_loss_is_that_of_a_uniform_guess() -> None:
    model, ids = Decoder(Model(**SMALL)).initialise(1), ids_of(8, 24)
    with torch.no_grad():
        loss = F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert abs(float(loss) - 3.912) < 0.05  # ln 50


def test_bfloat16_is_near_float32() -> None:
    model, ids = make(position="rope"), ids_of(2, 24)
    with torch.no_grad():
        exact = model(ids).log_softmax(-1)
        model.set_compute(torch.bfloat16, fused=False)
        rounded = model(ids)
    assert rounded.dtype == torch.bfloat16
    error = (rounded.float().log_softmax(-1) - exact).abs().mean()
    assert 0 < float(error) < 0.03


@pytest.mark.parametrize(
    "settings",
    [{"heads": 5}, {"kv_heads": 3}, {"vocab_size": 0}, {"width": 36, "heads": 12}],
    ids=["width/heads", "kv", "vocabulary", "odd head with rope"],
)
def test_impossible_grammar_is_refused(settings: dict) -> None:
    with pytest.raises(UserError):
        complete(Model(**(SMALL | settings)))


def test_relu2_gradient() -> None:
    from overnight.model.layers import relu2

    x = torch.linspace(-2, 2, 41, dtype=torch.float64).requires_grad_()
    assert torch.equal(relu2(x), F.relu(x).square())
    assert torch.autograd.gradcheck(relu2, (x[x != 0].detach().requires_grad_(),))


@pytest.mark.parametrize("order", [2, 3])
def test_rows_of_an_n_gram_are_what_checkpoints_were_trained_with(order: int) -> None:
    """By Python's own integers, and pinned: another hash would read every trained table wrongly."""
    ids, before = [5, 17, 4095, 5], [-1] * (order - 1)
    expected = []
    for end in range(len(ids)):
        hashed = 0
        for token in reversed((before + ids)[end : end + order]):
            hashed = (hashed * 1_000_003 + token + 1) % 2**40
        expected.append((hashed * 0x9E3779 ^ hashed >> 17) % 65_536)
    rows = NgramTable(order, 65_536, 1).rows_of(torch.tensor([ids]), torch.tensor([before]))
    assert rows.tolist() == [expected]
    assert expected[0] == {2: 18_479, 3: 9_095}[order]
