"""Runs that were never trained, with weights far from their beginning."""

from __future__ import annotations

from pathlib import Path

import msgspec
import torch

from overnight.config import Config, Model
from overnight.exchange.importer import write_run
from overnight.model.decoder import Decoder, complete
from overnight.text.makers import bytes_tokenizer
from overnight.text.tokenizers import Tokenizer

GPT2 = {"position": "learned", "norm": "layer", "mlp": "gelu"}
MPT = GPT2 | {"position": "alibi"}
LLAMA = {"position": "rope", "norm": "rms", "mlp": "swiglu", "feed_forward": 40}
BAMBA = LLAMA | {"layers": "SAS", "ssm_state": 8, "ssm_head": 16}

# Every family, in several shapes: the settings that differ from `grammar`'s.
GRAMMARS = {
    "gpt2": GPT2 | {"tied": False},
    "gpt2 biased": GPT2 | {"bias": True, "mlp": "gelu_tanh", "feed_forward": 56, "dropout": 0.1},
    "gpt2 relu2": GPT2 | {"mlp": "relu2", "norm_eps": 1e-3},
    "mpt": MPT,
    "mpt 6 heads": MPT | {"heads": 6, "width": 36, "tied": False, "dropout": 0.2},
    "llama": LLAMA | {"kv_heads": 2},
    "llama biased": LLAMA | {"bias": True, "tied": False, "rope_base": 500.0},
    "qwen3": LLAMA | {"qk_norm": True, "kv_heads": 1},
    "arcee": LLAMA | {"mlp": "relu2", "kv_heads": 2, "norm_eps": 1e-6},
    "arcee gelu biased": LLAMA | {"mlp": "gelu", "bias": True, "tied": False},
    "starcoder2": LLAMA | {"norm": "layer", "mlp": "gelu_tanh", "kv_heads": 2},
    "starcoder2 biased": LLAMA | {"norm": "layer", "mlp": "relu2", "bias": True, "tied": False},
    "bamba": BAMBA | {"kv_heads": 2, "tied": False},
    "bamba biased": BAMBA | {"bias": True, "rope_base": 500.0, "layers": "AS", "ssm_expand": 3},
    "bamba without attention": BAMBA | {"layers": "SS", "position": "none"},
}


def grammar(name: str) -> Model:
    common = {"layers": "AA", "width": 32, "heads": 4, "context": 64, "vocab_size": 257}
    return complete(Model(**{**common, **GRAMMARS[name]}))


def family_of(name: str) -> str:
    return name.split()[0]


def far(model: Model, seed: int = 7) -> Decoder:
    """A decoder whose every parameter has left its beginning."""
    decoder = Decoder(model).initialise(seed).eval()
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=random))
    return decoder


def make_run(
    path: Path, model: Model, tokenizer: Tokenizer | None = None, config: Config | None = None
) -> Decoder:
    """A run folder at `path` with the weights that are returned."""
    decoder = far(model)
    tokenizer = tokenizer or bytes_tokenizer(separator=True)
    settings = msgspec.structs.replace(config or Config(), model=decoder.config)
    write_run(path, settings, {}, tokenizer, decoder.state_dict(), "made")
    return decoder
