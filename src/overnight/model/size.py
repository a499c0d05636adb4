"""What a configuration amounts to: exact parameters, and an estimate of the memory it takes."""

from __future__ import annotations

from typing import Any

from ..config import Config
from ..settings import of_preset, read_preset
from .decoder import Decoder, complete, count_parameters

# where the text decides the vocabulary, a usual one stands in the list of presets
ASSUMED_VOCABULARY = {
    "bytes": 256,
    "chars": 66,
    "bpe": 4096,
    "auto": 4096,
    "wordpiece": 16_000,
    "wordpiece-classic": 16_000,
    "file": 32_000,
}


def checkpoint_bytes(config: Config, parameters: dict[str, int]) -> int:
    """Weights and optimizer state in float32: two slots a parameter for AdamW, one for Muon, two
    numbers a row for n-gram tables."""
    hidden = parameters.get("blocks", 0) if config.optimizer.kind == "muon" else 0
    tables = parameters.get("ngrams", 0)
    rows = tables // config.model.width
    return 4 * (3 * parameters["total"] - hidden - 2 * tables + 2 * rows)


def memory_bytes(config: Config, parameters: dict[str, int]) -> int:
    """An estimate of what training takes: weights, gradients and optimizer state, the best state
    where it waits for its save, and the activations that one micro-batch keeps for its backward
    pass.

    Per token and layer about 14 numbers of the width and 3 of the feed-forward (for an S layer 17
    of its inner width and 8 of its state in place of 8); for plain attention the scores, of one
    layer two copies more in the backward pass; and the gradient of the logits.
    """
    model, train = complete(config.model), config.train
    item = 2 if train.dtype == "bfloat16" else 4
    open_on_cpu = train.attention == "auto" and train.device in ("auto", "cpu")
    plain = train.attention == "plain" or open_on_cpu
    scores = model.heads * model.context if plain and "A" in model.layers else 0
    inner = model.ssm_expand * model.width
    mixer = {"A": 8 * model.width + scores, "S": 17 * inner + 8 * model.ssm_state}
    layers = sum(
        mixer[letter] + 6 * model.width + 3 * model.feed_forward for letter in model.layers
    )
    tokens = (train.micro_batch or train.batch) * model.context
    activations = tokens * item * (layers + 2 * scores + model.vocab_size)
    gradients = 4 * (parameters["total"] - parameters.get("ngrams", 0))
    return 2 * checkpoint_bytes(config, parameters) + gradients + activations


def flops_per_token(model: Decoder) -> float:
    """Floating-point operations of an update per token: 6 per weight that multiplies, and
    12·width·context for the scores of each attention layer (PaLM, appendix B). What an S layer
    computes besides its matrices, a few per cent of it, is left out."""
    config = model.config
    weights = sum(matrix.numel() for matrix in model.matrices())
    return 6 * weights + 12 * config.layers.count("A") * config.width * config.context


def with_vocabulary(config: Config) -> Config:
    """`config` with a usual vocabulary, where the text would decide it."""
    vocabulary = config.tokenizer.vocab_size or ASSUMED_VOCABULARY[config.tokenizer.kind]
    return config.having(model={"vocab_size": vocabulary})


def describe(name: str) -> dict[str, Any]:
    """One row of `overnight presets`. Where the text decides the vocabulary, a usual one is
    assumed and `vocabulary_assumed` says so."""
    preset = read_preset(name)
    config = with_vocabulary(of_preset(name).resolve())
    model = config.model
    parameters = count_parameters(model)
    return {
        "name": name,
        "parameters": parameters["total"],
        "vocabulary": model.vocab_size,
        "vocabulary_assumed": not config.tokenizer.vocab_size,
        "context": model.context,
        "tokens_per_update": config.train.batch * model.context,
        "memory_bytes": memory_bytes(config, parameters),
        "description": preset.description,
        "source": preset.source,
    }
