"""The words of `overnight explain`."""

from __future__ import annotations

import math
from typing import Any

from ..analysis.explain import Explained
from ..analysis.plausible import IMPLAUSIBLE
from ..wording import counted
from . import numbers as n
from .words import yardstick

NOTHING = 0.01  # nats below ln V that are nothing, still


def lines(e: Explained, measured: list[dict[str, Any]] | None = None) -> list[str]:
    """One sentence per fact, then what the figure can and cannot tell."""
    found = [f"Loss {n.loss(e.loss)} nats per token: perplexity {n.perplexity(e.perplexity)}."]
    found += _chance(e) + _size(e) + _data(e)
    if e.seconds is not None and e.steps is not None:
        found.append(f"Time for {counted(e.steps, 'step')}: {n.duration(e.seconds)}.")
    if measured:
        found.append("The last tenth of the text costs, in bits per byte:")
        found += [f"  {yardstick(row['name'])}: {row['bpb']:.4f}" for row in measured]
        if e.bits_per_byte is not None:
            beaten = [yardstick(row["name"]) for row in measured if row["bpb"] > e.bits_per_byte]
            words = ", ".join(beaten) if beaten else "none of them"
            found.append(f"  the loss above, {e.bits_per_byte:.4f}, beats: {words}.")
    return found + _limits(e, measured)


def _chance(e: Explained) -> list[str]:
    if e.chance is None:
        return []
    if e.loss >= e.chance - NOTHING:
        knows = "knows nothing"
    elif e.bits_per_byte is not None and e.bits_per_byte < IMPLAUSIBLE:
        knows = (
            f"knows more than a small model on natural text can (below {IMPLAUSIBLE} bits per "
            "byte): suspect memorisation, or padding in the loss"
        )
    else:
        knows = "has learnt"
    return [f"A model that knows nothing has ln V = {n.loss(e.chance)}: this one {knows}."]


def _size(e: Explained) -> list[str]:
    if e.bits_per_byte is None or e.bytes_per_token is None:
        return [
            f"{e.bits_per_token:.4f} bits per token. How many bytes a token stands for is not "
            "given, so it does not compare with another tokenizer."
        ]
    source = "assumed for this vocabulary" if e.bytes_assumed else "given"
    return [
        f"{e.bits_per_byte:.2f} bits per byte at {e.bytes_per_token:.2f} bytes per token "
        f"({source}): the figure that compares tokenizers."
    ]


def _data(e: Explained) -> list[str]:
    found = []
    if e.sequences_per_step is not None and e.tokens_per_step is not None:
        sequences = counted(e.sequences_per_step, "sequence")
        found.append(f"A step sees {sequences}, {e.tokens_per_step:,} tokens.")
    if e.steps is not None and e.tokens is not None:
        found.append(f"{counted(e.steps, 'step')} saw {e.tokens:,} tokens.")
    if e.passes is not None and e.steps_per_pass is not None and e.blocks is not None:
        finish = "finishes" if e.steps_left == 1 else "finish"
        left = f"{e.steps_left:,} more {finish} pass {max(1, math.ceil(e.passes))}"
        if not e.steps_left:
            left = f"pass {math.floor(e.passes)} is complete"
        found.append(
            f"That is {e.passes:.2f} passes over {e.corpus_tokens:,} tokens "
            f"({e.blocks:,} blocks that do not overlap); a pass is "
            f"{counted(e.steps_per_pass, 'step')}, "
            f"{left}."
        )
    return found


def _limits(e: Explained, measured: list[dict[str, Any]] | None) -> list[str]:
    found = [
        "Whether it is a training or a validation loss, and over how many tokens it was averaged, "
        "decides what it means: one micro-batch is noisy, and training loss cannot show "
        "overfitting.",
    ]
    if measured is None:
        found.append(
            "Whether it is good depends on the text: --text TEXT measures the text itself."
        )
    if e.passes is not None and e.passes >= 4:
        found.append("After this many passes memorisation is likely: look at a validation loss.")
    return found
