"""`overnight generate`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from msgspec.structs import replace

from ..errors import UserError
from ..shown import printable
from ..wording import counted
from . import Flag, Whole, say, write_json


def generate(
    run: Path,
    *,
    prompt: Annotated[str, Parameter(allow_leading_hyphen=True)] = "",
    max_tokens: Whole = 256,
    temperature: float = 0.8,
    top_k: Whole = 0,
    top_p: float = 1.0,
    repetition_penalty: float = 1.0,
    stop: Annotated[list[str] | None, Parameter(negative="", allow_leading_hyphen=True)] = None,
    num_samples: Whole = 1,
    seed: Whole = 1,
    checkpoint: str = "best",
    json: Flag = False,
) -> int:
    """Continue a prompt with the model of RUN, streaming to stdout.

    Parameters
    ----------
    run
        A run folder.
    prompt
        Text to continue; without one a new document begins.
    max_tokens
        The most tokens to write.
    temperature
        0 takes the most likely token.
    top_k
        Draw from the k most likely tokens; 0: all.
    top_p
        Draw from the most likely tokens that hold this share.
    repetition_penalty
        Above 1 makes tokens that stand already less likely.
    stop
        Text that ends the continuation; may be given more than once.
    num_samples
        Continuations to write.
    seed
        The same seed gives the same text; sample i has seed + i.
    checkpoint
        best, last or a step.
    json
        Print a list of {prompt, text, seed} instead of streaming.
    """
    from ..generation.load import load_model
    from ..generation.sample import Sampling, continue_text

    if num_samples < 1:
        raise UserError(f"--num-samples {num_samples} makes no sense.")
    if stop and not all(stop):
        raise UserError('--stop "" would end every text before it begins; leave it out.')
    first = Sampling(
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        repetition_penalty=repetition_penalty,
        stop=tuple(stop or ()),
        seed=seed,
    )
    first.check()
    model, tokenizer = load_model(run, checkpoint)
    if unknown := [i for i in tokenizer.encode(prompt) if i == tokenizer.unknown]:
        say(f"{counted(len(unknown), 'token')} of the prompt: not in the model's vocabulary")
    texts = []
    for i in range(num_samples):
        pieces = continue_text(model, tokenizer, prompt, replace(first, seed=seed + i), say)
        if json:
            texts.append({"prompt": prompt, "text": "".join(pieces), "seed": seed + i})
        else:
            _stream(prompt, pieces, i > 0)
    if json:
        write_json(texts)
    return 0


def _stream(prompt: str, pieces: Iterator[str], another: bool) -> None:
    """Write the prompt and its continuation as it comes. On a terminal control characters are
    shown, not obeyed: the text comes from a model."""
    safe = printable if sys.stdout.isatty() else str
    sys.stdout.write(("\n---\n" if another else "") + safe(prompt))
    try:
        for piece in pieces:
            sys.stdout.write(safe(piece))
            sys.stdout.flush()
    finally:  # what is said of an error begins a line
        sys.stdout.write("\n")
        sys.stdout.flush()
