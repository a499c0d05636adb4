"""How large a model is worth its time: what `model.size = "auto"` stands for.

A run of given time sees the more tokens the smaller its model is. The best loss per second is where
every weight of the layers gets its share of tokens (Hoffmann et al. 2022 for long runs; for short
ones docs/lab-notes.md, 2026-11-21). So: the largest rung of a ladder whose run gives it that share.
"""

from __future__ import annotations

import time

import msgspec
import torch

from ..config import Settings, presets
from ..text.prepare import Prepared

TOKENS_PER_WEIGHT = 2.5
HEAD = 64
UTILISATION = 0.5  # of the rate of a large matrix product, over a whole update


class Rung(msgspec.Struct, frozen=True):
    """A size: layers of one width, and the sequences in an update."""

    layers: int
    width: int
    batch: int

    @property
    def weights(self) -> int:
        """Of the layers: four matrices of attention, eight of the MLP."""
        return self.layers * 12 * self.width**2


LADDER = (
    Rung(1, 128, 16),
    Rung(1, 256, 32),
    Rung(2, 256, 32),
    Rung(3, 256, 32),
    Rung(4, 256, 32),
    Rung(4, 384, 32),
    Rung(6, 384, 64),
    Rung(8, 512, 64),
    Rung(12, 768, 128),
)

# Longer histories of characters and bytes recur often enough to be worth tables; where the text
# itself recurs, the longer ones learn it by heart (docs/lab-notes.md, 2026-11-21).
NGRAMS, NGRAMS_REPEATED, REPEATED = [2, 3, 4], [2], 1.5


def choose_size(settings: Settings, prepared: Prepared, device: torch.device) -> None:
    """Fill in what a preset leaves to the length of the run; what the user gives stays."""
    if settings.get("model.size") != "auto":
        return
    rate = UTILISATION * product_rate(settings.get("train.dtype"), device)
    rung = LADDER[0]
    for larger in LADDER[1:]:
        tokens = _tokens(settings, larger, prepared, rate)
        if tokens < TOKENS_PER_WEIGHT * larger.weights:
            break
        rung = larger
    tokens = _tokens(settings, rung, prepared, rate)
    reason = f"size auto: about {tokens:,.0f} tokens for {rung.weights:,} weights in layers"
    chosen = {
        "model.layers": "A" * rung.layers,
        "model.width": rung.width,
        "train.batch": rung.batch,
    }
    if settings.get("tokenizer.kind") in ("chars", "bytes"):
        repeated = tokens > REPEATED * len(prepared.train)
        chosen["model.ngrams"] = NGRAMS_REPEATED if repeated else NGRAMS
    for name, value in chosen.items():
        if _left_open(settings, name):
            settings.choose(name, value, reason)
    if _left_open(settings, "model.heads"):
        width = settings.get("model.width")
        heads = next(n for n in range(max(1, width // HEAD), 0, -1) if width % n == 0)
        settings.choose("model.heads", heads, f"about {HEAD} numbers a head")


def _left_open(settings: Settings, name: str) -> bool:
    """Whether `name` is a preset's own value or the default, and not the user's."""
    sources = {f"preset {preset}" for preset in presets()}
    return not settings.given(name) or settings.reasons[name] in sources


def _tokens(settings: Settings, rung: Rung, prepared: Prepared, rate: float) -> float:
    """Tokens that a run of this size is going to train on."""
    length, context = settings.resolve().length, settings.get("model.context")
    if length.tokens:
        return float(length.tokens)
    if length.steps:
        batch = (
            settings.get("train.batch") if not _left_open(settings, "train.batch") else rung.batch
        )
        return float(length.steps * batch * context)
    if length.minutes:
        head = prepared.tokenizer.vocab_size * rung.width
        return 60 * length.minutes * rate / (6 * (rung.weights + head))
    return (length.passes or 1.0) * len(prepared.train)


def product_rate(dtype: str, device: torch.device, size: int = 1024, rounds: int = 5) -> float:
    """Floating-point operations per second of a square matrix product: the best of `rounds`."""
    x = torch.ones(size, size, dtype=getattr(torch, dtype), device=device)
    best = float("inf")
    for _ in range(rounds):
        begin = time.perf_counter()
        float((x @ x)[0, 0])  # waits for the device
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best
