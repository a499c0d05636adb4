"""What a configuration amounts to: exact parameters, and an estimate of the memory it takes."""

from __future__ import annotations

from typing import Any

from ..config import Config, Model
from ..settings import of_preset, read_preset
from .decoder import Decoder, complete, count_parameters
from .ssm import CHUNK

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
    """An estimate of what training takes, beside torch itself: weights, gradients and optimizer
    state, the best state where it waits for its save, the activations that one micro-batch keeps
    for its backward pass, and the gradient of the logits. (docs/lab-notes.md, E40, E84)"""
    model, train = complete(config.model), config.train
    item = 2 if train.dtype == "bfloat16" else 4
    on_cpu = train.device in ("auto", "cpu")
    mixers = {"A": _attention(model, train.attention, item, on_cpu), "S": _state_space(model, item)}
    kept = sum(mixers[letter][0] + _rest(model, item) for letter in model.layers)
    passing = max(mixers[letter][1] for letter in model.layers)
    tokens = (train.micro_batch or train.batch) * model.context
    activations = tokens * (kept + passing + item * model.vocab_size)
    gradients = 4 * (parameters["total"] - parameters.get("ngrams", 0))
    return 2 * checkpoint_bytes(config, parameters) + gradients + activations


def _attention(model: Model, form: str, item: int, on_cpu: bool) -> tuple[int, int]:
    """Bytes of a token that an attention layer keeps, and that pass while its gradient is made.
    Plain products keep the scores, with dropout three times; the fused kernel none, but on a CPU it
    has a copy in float32 for ALiBi, and four with dropout, which it does not know."""
    scores, lines = model.heads * model.context, 8 * model.width * item
    plain = item * scores * (3 if model.dropout else 1), 2 * item * scores
    copies = 4 if model.dropout else int(model.position == "alibi")
    fused = 4 * scores * copies * on_cpu, 0
    tried = max(plain, fused) if on_cpu else fused
    kept, passing = {"plain": plain, "fused": fused, "auto": tried}[form]
    return lines + kept, passing


def _state_space(model: Model, item: int) -> tuple[int, int]:
    """The same of a state space: in float32 its states, one a chunk, and what each token sees of
    its chunk."""
    inner = model.ssm_expand * model.width
    chunked = 4 * (6 * inner * model.ssm_state // CHUNK + 3 * CHUNK * inner // model.ssm_head)
    return 11 * inner * item + chunked, chunked


def _rest(model: Model, item: int) -> int:
    """Of norms, branches and MLP."""
    hidden = {"none": 0, "swiglu": 4}.get(model.mlp, 3) * model.feed_forward
    lines = (3 if model.mlp == "none" else 6) + (4 if model.dropout else 0)
    return item * (lines * model.width + hidden)


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
