"""Is the loss possible? Against a fresh model, against the text itself, against experience."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .findings import About, Best, Ledger, Verdict, Yardstick, Yardsticks, make
from .series import Series

EARLY = 2  # steps after which a first loss no longer is that of a fresh model
NEAR = 0.1  # of ln V
IMPLAUSIBLE = 0.6  # bits per byte: natural text from a small model does not go below
WORD_PIECES = 8000  # a vocabulary of so many holds mostly those
BYTES_PER_WORD_PIECE = 4.3  # of English in a vocabulary of 16,000–50,000
HIGH = 13.0  # ln of 442,000, more than vocabularies have
FRESH = 10  # steps
FEW_TOKENS = 1000  # fewer than vocabularies of word pieces have
FALLS = 0.7  # of its first loss, and lower, is a fresh model of them within a tenth of the run
LOW = 1.5  # nats per token below which a word-piece vocabulary would be implausible


def init_loss(series: Series, about: About) -> Verdict:
    """Is the first loss ln V, what a model that knows nothing gives?"""
    if series.log.step_is != "step":
        return make(
            "init_loss", "cannot_tell",
            "Steps were not logged: how much training came before the first loss is not known.",
        )  # fmt: skip
    step, loss = _first(series)
    if step > EARLY or about.vocab_size is None or about.vocab_size < 2:
        why = (
            "The vocabulary is not known."
            if step <= EARLY
            else "The first logged loss is at step {first_step:,}, after training had begun."
            if math.isfinite(step)
            else "No loss was logged."
        )
        shown = int(step) if math.isfinite(step) else None
        return make("init_loss", "cannot_tell", why, first_step=shown)
    chance = math.log(about.vocab_size)
    off = abs(loss - chance) > NEAR * chance
    why = "At step {first_step:,} it is {loss:.4f}; ln V = ln {vocab:,} = {chance:.4f}."
    return make(
        "init_loss", "yes" if off else "no", why, n=1, first_step=int(step), loss=float(loss),
        chance=chance, vocab=about.vocab_size, effect_nats=float(loss - chance),
        estimator="first logged loss",
    )  # fmt: skip


def _first(series: Series) -> tuple[float, float]:
    """The step of the first loss per token, and that loss; infinity and NaN where there is none."""
    firsts = [
        (s[0], v[0])
        for s, v in ((series.steps, series.val), (series.train_steps, series.train_loss))
        if len(s) and not (v is series.val and series.log.per_byte)
    ]
    return min(firsts, default=(math.inf, math.nan))


def _began_with(series: Series) -> int | None:
    """How many tokens the first loss is that of a fresh model of, where those are too few to be
    pieces of words. Not where the loss hardly falls: a model that is tuned further begins low."""
    step, loss = _first(series)
    if series.log.step_is != "step" or step > EARLY or not 0 < loss < math.log(FEW_TOKENS):
        return None
    early = series.train_loss if len(series.train_loss) else series.val
    fell = len(early) > 1 and np.median(early[: max(len(early) // 10, 2)][1:]) < FALLS * loss
    return round(math.exp(loss)) if fell else None


def too_good(
    best: Best | None, about: About, ledger: Ledger, series: Series, measured: Yardsticks | None
) -> Verdict:
    """Below what a small model reaches on natural text: a leak, padding, or memorisation; unless a
    method without a network shows that the text itself is so cheap."""
    if best is None:
        return make("too_good", "cannot_tell", "No loss was logged.")
    if about.other_task is not None:
        return make(
            "too_good", "cannot_tell",
            "The log has a column {column}, as those of other tasks have: whether its loss is that "
            "of a language model on text is not known.", column=about.other_task[:40],
        )  # fmt: skip
    if best.bpb is not None:
        return _by_bits(best.bpb, best.estimator, ledger.passes, measured)
    return _by_nats(best, about, ledger, series)


def _by_bits(
    bpb: float, estimator: str, passes: float | None, measured: Yardsticks | None
) -> Verdict:
    """Bits per byte compare with those of the text itself."""
    facts = {"bpb": bpb, "limit": IMPLAUSIBLE, "n": 1, "passes": passes, "estimator": estimator}
    if bpb < IMPLAUSIBLE and (cheap := _cheap(measured)) is not None:
        return make(
            "too_good", "no",
            "{bpb:.4f} bits per byte: the text itself is that cheap, {yardstick} needs "
            "{needs:.4f} without a network.",
            yardstick=cheap.name, needs=cheap.bpb, **facts,
        )  # fmt: skip
    return make(
        "too_good", "yes" if bpb < IMPLAUSIBLE else "no",
        "{bpb:.4f} bits per byte. Under {limit:.1f}, a small model on natural text would have "
        "seen it before, or the loss would count padding.", **facts,
    )  # fmt: skip


def _by_nats(best: Best, about: About, ledger: Ledger, series: Series) -> Verdict:
    """Of nats per token it matters what a token is, which few logs say."""
    size = BYTES_PER_WORD_PIECE
    loss, level = best.loss, best.loss
    if not best.validated and best.smoothed is not None:  # the lowest of many rows is luck
        level = best.smoothed
    bpb = loss / math.log(2) / size
    facts = {
        "loss": loss, "bpb": bpb, "size": size, "limit": IMPLAUSIBLE, "n": best.n,
        "estimator": best.estimator, "low": LOW, "high": HIGH,
    }  # fmt: skip
    if loss > HIGH and ledger.steps > FRESH:
        return make(
            "too_good", "cannot_tell",
            "{loss:.4f} is more than {high:.0f} nats, what a model that knows nothing needs for "
            "one of all the tokens in use: it is a sum, or in another unit than nats per token.",
            **facts,
        )  # fmt: skip
    if level < IMPLAUSIBLE * math.log(2):
        return make(
            "too_good", "yes",
            "{level:.4f} nats per token is under {limit:.1f} bits per byte even where a token is a "
            "single byte: suspect memorisation or padding in the loss.", level=level, **facts,
        )  # fmt: skip
    words = about.vocab_size is not None and about.vocab_size >= WORD_PIECES
    if loss >= LOW:
        return make(
            "too_good", "no" if words else "cannot_tell",
            "{loss:.4f} nats per token is possible for a vocabulary of word pieces; without "
            "bits per byte more cannot be said.", **facts,
        )  # fmt: skip
    piece = (
        "{loss:.4f} nats per token is about {bpb:.2f} bits per byte if a token is a word piece of "
        "about {size:.1f} bytes: implausible for a small model on natural text. "
    )
    if words:
        cause = "Suspect memorisation or padding in the loss, and count the passes over the data."
        return make("too_good", "yes", piece + cause, **facts)
    few = _began_with(series)
    if few is not None:
        return make(
            "too_good", "cannot_tell",
            "The first loss is that of a fresh model of some {few} tokens: bytes or characters, "
            "for one of which {loss:.4f} nats is possible.", few=few, **facts,
        )  # fmt: skip
    return make(
        "too_good", "cannot_tell",
        piece + "If tokens are bytes or characters, it is possible; if not, suspect memorisation "
        "or padding in the loss.", **facts,
    )  # fmt: skip


def _cheap(measured: Yardsticks | None) -> Yardstick | None:
    """The cheapest method whose own bits for the held-out text would be implausible; none that
    looks for that in the training text, where a leak would be found."""
    rows = [] if measured is None else measured.rows
    alone = [r for r in rows if "after" not in r.name and r.bpb < IMPLAUSIBLE]
    return min(alone, key=lambda r: r.bpb, default=None)


def below_yardstick(measured: Yardsticks | None) -> Verdict:
    """Does a method without a network need fewer bits? `yes` names the simplest that does."""
    if measured is None or not measured.rows:
        return make("below_yardstick", "cannot_tell", "There are no yardsticks for this run.")
    facts: dict[str, Any] = {"n": len(measured.rows), "estimator": "bits per byte"}
    facts |= {r.name.replace(" ", "_"): r.bpb for r in measured.rows if r.name.startswith("xz")}
    if measured.model_bpb is None:
        why = "The yardsticks stand alone: no bits per byte of the model compare with them."
        return make("below_yardstick", "cannot_tell", why, **facts)
    facts["model_bpb"] = measured.model_bpb
    rows = [r for r in measured.rows if r.beaten == "no"]
    if not rows:
        lowest = min(measured.rows, key=lambda r: r.bpb)
        beaten = lowest.beaten == "yes"
        why = "The model needs {model_bpb:.4f} bits per byte, the lowest yardstick {bpb:.4f}"
        open_ = ": too close to tell apart."
        if measured.model_least is not None:
            open_ = ": less, perhaps, by the characters that its tokenizer does not know."
        return make(
            "below_yardstick", "no" if beaten else "cannot_tell", why + ("." if beaten else open_),
            bpb=lowest.bpb, yardstick=lowest.name, **facts,
        )  # fmt: skip
    first = rows[0]  # the simplest one that wins: the file lists them in that order
    return make(
        "below_yardstick", "yes",
        "The model needs {model_bpb:.4f} bits per byte; {yardstick}, without a network, {bpb:.4f}.",
        bpb=first.bpb, yardstick=first.name, worse_than=[r.name for r in rows],
        effect_nats=float(np.log(2) * (measured.model_bpb - first.bpb)), **facts,
    )  # fmt: skip
