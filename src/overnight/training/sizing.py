"""How large a model is worth its time: what `model.size = "auto"` stands for.

A run of given time sees the more tokens the smaller its model is. The best loss per second is where
every weight of the layers gets its share of tokens (Hoffmann et al. 2022 for long runs; for short
ones docs/lab-notes.md, E13). So: the largest rung of a ladder whose run gives it that share.
"""

from __future__ import annotations

from typing import Any

import msgspec
import torch
from msgspec import structs

from ..config import Config
from ..errors import Say
from ..settings import Settings
from ..text.prepare import Prepared
from . import memory
from .machine import device_name
from .once import once
from .timing import own_clock, update_seconds
from .update import Updater

HEAD = 64
TIMED_TOKENS, TIMED = 4096, 3  # of an update; updates, after one that warms up
LONG = 3.0  # seconds of an update that tells enough by itself


class Rung(msgspec.Struct, frozen=True):
    """A size: layers of one width, and the tokens in an update."""

    layers: str
    width: int
    tokens: int

    @property
    def weights(self) -> int:
        """Of the layers: eight matrices of the MLP, four of attention, six of a state space."""
        return sum(14 if letter == "S" else 12 for letter in self.layers) * self.width**2


LADDER = (
    Rung("A", 128, 2048),
    Rung("A", 256, 4096),
    Rung("AA", 256, 4096),
    Rung("AAA", 256, 4096),
    Rung("AAAA", 256, 4096),
    Rung("AAAA", 384, 4096),
    Rung("AAAAAA", 384, 8192),
    Rung("AAAAAAAA", 512, 8192),
    Rung("AAAAAAAAAAAA", 768, 16384),
)
TOKENS_PER_WEIGHT = 2.5

# Letters (characters, bytes) are few, so longer histories of them recur; and a piece of a word is
# four of them, so they want a longer context (docs/lab-notes.md, E41)
LETTERS = ("chars", "bytes")
NGRAMS_OF_LETTERS = [2, 3, 4]
CONTEXT_OF_LETTERS, LONG_ENOUGH = 256, 32  # blocks of it that a text must have, else it stays short

# Where the text itself recurs, attention and tables of long histories learn it by heart; state
# spaces learn more of the language, for some passes (docs/lab-notes.md, E17, E37).
RECURS, RECURS_LETTERS = 4.0, 1.5  # passes of the rung above, of pieces of words and of letters
RECURRING = (
    Rung("SSA", 128, 2048),
    Rung("SSA", 256, 2048),
    Rung("SSA", 384, 2048),
    Rung("SSASSA", 384, 4096),
    Rung("SSASSASS", 512, 8192),
    Rung("SSASSASSASSA", 768, 16384),
)
TOKENS_PER_WEIGHT_RECURRING = 1.0

# Tables of long histories learn a text by heart when it comes again, those of pieces of words first
# (docs/lab-notes.md, E58)
NEW = 1.5  # passes
NGRAMS_RECURRING, ROWS_RECURRING = [2], 16384
# Beyond so many passes it gets worse: over letters, or of state spaces over pieces of words; and of
# attention over these, which learns them by heart sooner (docs/lab-notes.md, E31, E85)
MOST_PASSES, MOST_OF_PIECES = 3.0, 2.0


def most_passes(config: Config) -> float:
    """How often a text may be read before it is learnt by heart."""
    pieces = config.tokenizer.kind not in LETTERS
    return MOST_OF_PIECES if pieces and "S" not in config.model.layers else MOST_PASSES


def choose_size(
    settings: Settings, prepared: Prepared, device: torch.device, say: Say = lambda _: None
) -> float:
    """Fill in what a preset leaves to the length of the run; what the user gives stays.

    Returns the minutes that a run given in minutes will train: fewer than given where the text
    does not bear them. `say` is told what is timed, which takes seconds each.
    """
    minutes: float = settings.get("length.minutes")
    if settings.get("model.size") != "auto":
        return minutes
    text = len(prepared.train)
    letters = settings.get("tokenizer.kind") in LETTERS
    if letters and settings.not_given("model.context"):
        _choose_context(settings, prepared)
    ladder, recurring = (
        tuple(rung for rung in _with_given(settings, rungs) if _fits(settings, rung))
        for rungs in (LADDER, RECURRING)
    )
    ladder = ladder or _with_given(settings, LADDER)[:1]  # which is refused, and why
    memory.check(_sized(settings, ladder[0]), device)
    free, _ = memory.memory(device)

    def largest(ladder: tuple[Rung, ...], share: float) -> tuple[Rung, float]:
        """The largest rung that fits and whose weights get their tokens, and the tokens."""
        found = ladder[0], _tokens(settings, ladder[0], prepared, device, say)
        for rung in ladder[1:]:
            if memory.needed(_sized(settings, rung), micro=1) > memory.SHARE * free:
                break
            tokens = _tokens(settings, rung, prepared, device, say)
            most = most_passes(_sized(settings, rung))
            if min(tokens, most * text) < share * rung.weights:
                break
            found = rung, tokens
        return found

    rung, tokens = largest(ladder, TOKENS_PER_WEIGHT)
    recurs = tokens > (RECURS_LETTERS if letters else RECURS) * text
    if recurs and recurring:  # they are slower: there must be time to read the text once
        slower = largest(recurring, TOKENS_PER_WEIGHT_RECURRING)
        recurs = slower[1] > text
        rung, tokens = slower if recurs else (rung, tokens)
    batch = _batch(settings, rung)
    chosen = {"model.layers": rung.layers, "model.width": rung.width, "train.batch": batch}
    chosen |= _tables(letters, recurs, tokens / text)
    reason = (
        f"size auto: time for {tokens:,.0f} tokens, {tokens / text:.2g} times the text, "
        f"and {rung.weights:,} weights in layers"
    )
    for name, value in chosen.items():
        if settings.not_given(name):
            settings.choose(name, value, reason)
    if settings.not_given("model.heads"):
        heads = _heads(settings.get("model.width"))
        settings.choose("model.heads", heads, f"about {HEAD} numbers a head")
    return minutes * min(1.0, most_passes(settings.resolve()) * text / tokens)


def _tables(letters: bool, recurs: bool, passes: float) -> dict[str, Any]:
    """Which n-gram tables pay, where it is not those of the preset."""
    if recurs:
        return {"model.ngrams": NGRAMS_RECURRING, "model.ngram_rows": ROWS_RECURRING}
    if letters:
        return {"model.ngrams": NGRAMS_OF_LETTERS}
    return {"model.ngrams": NGRAMS_RECURRING} if passes > NEW else {}


def _choose_context(settings: Settings, prepared: Prepared) -> None:
    """Twice the preset's for letters, where the text is long enough to be judged by."""
    if min(len(prepared.train), len(prepared.val)) > LONG_ENOUGH * CONTEXT_OF_LETTERS:
        settings.choose("model.context", CONTEXT_OF_LETTERS, "letters say little each")


def _batch(settings: Settings, rung: Rung) -> int:
    """The sequences in an update: whole micro-batches where those are given."""
    micro: int = max(1, settings.get("train.micro_batch"))
    context: int = settings.get("model.context")
    return micro * max(1, rung.tokens // (context * micro))


def _with_given(settings: Settings, ladder: tuple[Rung, ...]) -> tuple[Rung, ...]:
    """The rungs with what the user gave in place of their own."""
    given = {
        leaf: settings.get(f"model.{leaf}")
        for leaf in ("layers", "width")
        if not settings.not_given(f"model.{leaf}")
    }
    if not settings.not_given("train.batch"):
        batch = settings.get("train.batch")
        memory.check_micro_batch(batch, max(1, settings.get("train.micro_batch")))
        given["tokens"] = batch * settings.get("model.context")
    return tuple(dict.fromkeys(structs.replace(rung, **given) for rung in ladder))


def _fits(settings: Settings, rung: Rung) -> bool:
    """Whether heads of state spaces fill the width."""
    inner: int = settings.get("model.ssm_expand") * rung.width
    return "S" not in rung.layers or inner % settings.get("model.ssm_head") == 0


def _heads(width: int) -> int:
    return next(n for n in range(max(1, width // HEAD), 0, -1) if width % n == 0)


def _tokens(
    settings: Settings, rung: Rung, prepared: Prepared, device: torch.device, say: Say
) -> float:
    """Tokens that a run of this size is going to train on."""
    length, context = settings.resolve().length, settings.get("model.context")
    if length.tokens:
        return float(length.tokens)
    if length.steps:
        return float(length.steps * _batch(settings, rung) * context)
    if length.minutes:
        return 60 * length.minutes / _token_seconds(settings, rung, prepared, device, say)
    return (length.passes or 1.0) * len(prepared.train)


def _token_seconds(
    settings: Settings, rung: Rung, prepared: Prepared, device: torch.device, say: Say
) -> float:
    """What training on a token takes at this size, timed once on this machine."""
    config = _timed_in_part(_sized(settings, rung), device)
    question = [
        *(msgspec.to_builtins(section) for section in (config.model, config.optimizer)),
        [getattr(config.train, name) for name in ("batch", "dtype", "threads", "attention")],
        [str(device), device_name(device)],
    ]

    def find() -> float:
        say(f"timing    layers {config.model.layers} of width {config.model.width}")
        return _timed(config, prepared, device)

    return once(question, float, find)


def _sized(settings: Settings, rung: Rung) -> Config:
    """The settings at this size."""
    config = settings.resolve()
    own = settings.not_given("model.heads")
    heads = _heads(rung.width) if own else config.model.heads
    return config.having(
        model={"layers": rung.layers, "width": rung.width, "heads": heads},
        train={"batch": _batch(settings, rung)},
    )


def _timed_in_part(config: Config, device: torch.device) -> Config:
    """With updates as small as tell the rate: on a GPU whole ones, since small ones only tell how
    long it takes to begin."""
    small = max(1, TIMED_TOKENS // config.model.context)
    batch = small if device.type == "cpu" else config.train.batch
    return config.having(train={"batch": batch, "micro_batch": batch, "compile": "off"})


def _timed(config: Config, prepared: Prepared, device: torch.device) -> float:
    """Seconds a token, the least of some updates."""
    updater, taken = Updater(config, prepared.train, device), [0.0]
    while taken[-1] <= LONG and len(taken) < 2 + TIMED:
        taken.append(update_seconds(updater, len(taken), own_clock(device)))
    return min(taken[1:]) / updater.ledger.tokens_per_step
