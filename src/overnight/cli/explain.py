"""`overnight explain`: what a loss means, from numbers alone."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from ..errors import UserError
from . import Flag, Whole, say, write_json


def explain(
    *,
    loss: float,
    steps: Whole | None = None,
    batch: Whole | None = None,
    accumulation: Whole = 1,
    block: Whole | None = None,
    corpus_tokens: Whole | None = None,
    vocab: Whole | None = None,
    bytes_per_token: float | None = None,
    seconds_per_step: float | None = None,
    text: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    json: Flag = False,
) -> int:
    """Say whether a loss is normal, as far as numbers can: what was seen, and what is left.

    Parameters
    ----------
    loss
        Nats per token.
    steps
        Optimizer updates so far.
    batch
        Sequences per micro-step.
    accumulation
        Micro-steps per step.
    block
        Tokens per sequence.
    corpus_tokens
        Tokens of the training text.
    vocab
        Size of the vocabulary.
    bytes_per_token
        UTF-8 bytes that a token stands for on average; 1 for bytes.
    seconds_per_step
        Seconds one step takes; with --steps, how long that is.
    text
        A file or folder, as train takes it: adds what its last tenth costs without a network.
    json
        Print the numbers as JSON on stdout.
    """

    import msgspec

    from ..analysis.explain import explain as compute
    from ..report.explained import lines

    for name, value in (("loss", loss), ("steps", steps)):
        if value is not None and not (0 <= value < 1e15):
            raise UserError(f"--{name} {value}: not a possible value.")
    for name, amount in (
        ("batch", batch),
        ("block", block),
        ("accumulation", accumulation),
        ("corpus-tokens", corpus_tokens),
        ("vocab", vocab),
        ("bytes-per-token", bytes_per_token),
        ("seconds-per-step", seconds_per_step),
    ):
        if amount is not None and not (0 < amount < 1e18):
            raise UserError(f"--{name} {amount}: has to be above 0.")
    if batch is not None and block is None:
        raise UserError("--batch is in sequences: say with --block how many tokens one has.")
    found = compute(
        loss, steps, batch, accumulation, block, corpus_tokens, vocab, bytes_per_token,
        seconds_per_step,
    )  # fmt: skip
    measured = _measure(text) if text is not None else None
    if json:
        write_json(msgspec.to_builtins(found) | {"yardsticks": measured})
        return 0
    for line in lines(found, measured):
        print(line)
    return 0


def _measure(text: str) -> list[dict[str, object]]:
    """The yardsticks of the last tenth of `text`, the rest being the training text. Of a text as
    bytes, so what guessing costs is ln 256, whatever the vocabulary of the loss."""
    from ..cache import Cache
    from ..text import parts, sources
    from ..text.yardsticks import MAX_TRAIN_BYTES, MAX_VAL_BYTES, yardsticks

    with Cache().building() as folder:
        found = sources.find([text], "text", say)
        documents = parts.gather(found, folder / "text", text, lambda n_bytes: None)
    if documents.size < 1000:
        raise UserError(f"{text}: {documents.size} bytes are too few for yardsticks.")
    cut = documents.size - documents.size // 10
    train = documents.text[max(0, cut - MAX_TRAIN_BYTES) : cut]
    val = documents.text[cut : cut + MAX_VAL_BYTES]
    say(f"measuring what {len(val):,} bytes cost without a network")
    rows: list[dict[str, object]] = yardsticks(train, val, 256, len(val), say=say)["yardsticks"]
    return rows
