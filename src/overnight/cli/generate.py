"""`overnight generate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def generate(
    run: Path,
    *,
    prompt: str = "",
    max_tokens: int = 256,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    num_samples: int = 1,
    seed: int = 1,
    checkpoint: str = "best",
    json: Annotated[bool, Parameter(negative="")] = False,
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
    num_samples
        Continuations to write.
    seed
        The same seed gives the same text.
    checkpoint
        best, last or a step.
    json
        Print a list of {prompt, text, seed} instead of streaming.
    """
    from ..generation.load import load_model
    from ..generation.sample import Sampling, check, continue_text

    sampling = [
        Sampling(
            max_tokens=max_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed + i,
        )
        for i in range(num_samples)
    ]
    for each in sampling:
        check(each)
    model, tokenizer = load_model(run, checkpoint)
    if json:
        import msgspec

        texts = [
            {
                "prompt": prompt,
                "text": "".join(continue_text(model, tokenizer, prompt, s)),
                "seed": s.seed,
            }
            for s in sampling
        ]
        sys.stdout.write(msgspec.json.encode(texts).decode() + "\n")
        return 0
    for i, each in enumerate(sampling):
        if i:
            sys.stdout.write("\n---\n")
        sys.stdout.write(prompt)
        for piece in continue_text(model, tokenizer, prompt, each):
            sys.stdout.write(piece)
            sys.stdout.flush()
        sys.stdout.write("\n")
    return 0
