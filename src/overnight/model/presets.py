"""What a preset amounts to: exact parameters, context, tokens per update."""

from __future__ import annotations

from typing import Any

import msgspec

from ..config import Settings, read_preset
from .decoder import count_parameters

ASSUMED_VOCABULARY = {"bytes": 256, "chars": 65, "bpe": 4096}  # where the text decides it


def describe(name: str) -> dict[str, Any]:
    """One row of `overnight presets`. Where the text decides the vocabulary, a usual one is
    assumed and `vocabulary_assumed` says so."""
    preset = read_preset(name)
    settings = Settings()
    settings.add(preset.layer, f"preset {name}")
    resolved = settings.resolve()
    assumed = not resolved.tokenizer.vocab_size
    vocabulary = resolved.tokenizer.vocab_size or ASSUMED_VOCABULARY[resolved.tokenizer.kind]
    model = msgspec.structs.replace(resolved.model, vocab_size=vocabulary)
    return {
        "name": name,
        "parameters": count_parameters(model)["total"],
        "vocabulary": vocabulary,
        "vocabulary_assumed": assumed,
        "context": model.context,
        "tokens_per_update": resolved.train.batch * model.context,
        "description": preset.description,
        "source": preset.source,
    }
