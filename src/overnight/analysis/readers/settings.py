"""Settings that a foreign log holds → the sections of ours that analyses read."""

from __future__ import annotations

import re
from typing import Any

SYNONYMS = {
    "schedule.warmup": "warmup_steps warmup_iters num_warmup_steps warmup",
    "schedule.min_ratio": "min_lr_ratio lr_min_ratio min_ratio",
    "schedule.kind": "lr_scheduler_type lr_schedule scheduler lr_decay_style",
    "length.steps": "max_steps total_steps max_iters num_steps train_iters num_iterations",
    "model.vocab_size": "vocab_size n_vocab padded_vocab_size",
    "model.context": "block_size context_length sequence_length seq_len max_seq_len n_ctx",
}
WORDS = {word for words in SYNONYMS.values() for word in words.split()}
KINDS = ("cosine", "linear", "constant", "wsd")
# What tools add to these words; others end elsewhere, as cosine_with_min_lr and _with_restarts
ADDED = re.compile(r"get|schedulertype|schedule|scheduler|withwarmup|decay|annealing|lr")
TO_ZERO = ("cosine", "linear")  # of transformers, which writes lr_scheduler_type


def ours(config: dict[str, Any]) -> dict[str, Any]:
    """`config` with the sections of ours that its plain names amount to; what is there stays."""
    tree = dict(config)
    flat = _flat(config)
    for name, foreign in SYNONYMS.items():
        section, _, leaf = name.partition(".")
        value = next((flat[word] for word in foreign.split() if word in flat), None)
        if name == "schedule.kind":
            said = re.sub("[^a-z]", "", str(value).lower())
            value = next((kind for kind in KINDS if ADDED.sub("", said) == kind), None)
        elif isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            value = None
        if name == "schedule.warmup" and not value and flat.get("warmup_ratio"):
            value = None  # the ratio counts then
        held = tree.get(section, {})
        if value is not None and isinstance(held, dict) and leaf not in held:
            tree[section] = held | {leaf: value}
    schedule = tree.get("schedule")
    if "lr_scheduler_type" in flat and isinstance(schedule, dict):
        ends = {"min_ratio": 0.0} if schedule.get("kind") in TO_ZERO else {}
        tree["schedule"] = ends | schedule
    return tree


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    """The leaves by their own names, those further out first."""
    inner = {k: v for table in config.values() if isinstance(table, dict) for k, v in table.items()}
    return inner | {k: v for k, v in config.items() if not isinstance(v, dict)}
