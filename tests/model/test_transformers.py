"""The same weights in transformers' GPT-2 give the same logits."""

import pytest
import torch

from overnight.config import Model
from overnight.model.decoder import Decoder

transformers = pytest.importorskip("transformers")

GPT2 = {
    "attn.c_attn": "mixer.qkv",
    "attn.c_proj": "mixer.out",
    "mlp.c_fc": "mlp.up",
    "mlp.c_proj": "mlp.down",
}


def as_gpt2(ours: Decoder) -> torch.nn.Module:
    """Our weights laid into `GPT2LMHeadModel`, whose linear layers are stored transposed."""
    model = ours.config
    config = transformers.GPT2Config(
        vocab_size=model.vocab_size,
        n_positions=model.context,
        n_embd=model.width,
        n_layer=len(model.layers),
        n_head=model.heads,
        activation_function="gelu",
        layer_norm_epsilon=model.norm_eps,
    )
    theirs = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.zero_()  # bias-free presets have no counterpart for the biases
        body = theirs.transformer
        body.wte.weight.copy_(ours.embed)
        body.wpe.weight.copy_(ours.positions)
        body.ln_f.weight.copy_(ours.norm.weight)
        for block, layer in zip(body.h, ours.blocks, strict=True):
            block.ln_1.weight.copy_(layer.norm.weight)
            block.ln_2.weight.copy_(layer.mlp_norm.weight)
            for name, own in GPT2.items():
                block.get_submodule(name).weight.copy_(layer.get_submodule(own).weight.T)
    return theirs


@pytest.fixture
def ours() -> Decoder:
    """nanogpt-cpu's grammar, smaller, with weights far from their beginning."""
    model = Model(
        layers="AAA",
        width=48,
        heads=4,
        context=32,
        vocab_size=65,
        position="learned",
        norm="layer",
        mlp="gelu",
    )
    decoder = Decoder(model).initialise(7).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return decoder


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)], ids=["f64", "f32"]
)
@pytest.mark.parametrize("fused", [True, False])
def test_gpt2_logits(ours: Decoder, dtype: torch.dtype, tolerance: float, fused: bool) -> None:
    theirs = as_gpt2(ours).to(dtype)
    ours.to(dtype).set_compute(dtype, fused)
    ids = torch.randint(0, 65, (3, 32), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        a, b = ours(ids), theirs(ids).logits
    scale = max(1.0, float(b.abs().max())) if dtype == torch.float32 else 1.0
    assert float((a - b).abs().max()) <= tolerance * scale
    assert float(b.std()) > 0.5  # the logits say something
