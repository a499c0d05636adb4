"""The ten questions of a reader, each with its answer in a few words."""

from __future__ import annotations

import re
from typing import NamedTuple

from ..analysis.findings import Best, Findings
from ..config import all_settings
from ..wording import counted
from . import numbers as n
from . import words
from .headlines import tone


class Card(NamedTuple):
    """A reader's question, its answer in a few words, more of it, and the section that has all."""

    question: str
    answer: str
    detail: str
    tone: str
    link: str


def cards(f: Findings) -> list[Card]:
    """The ten questions of a reader."""
    return [
        _card_best(f),
        _card_verdict(f, "Is it overfitting?", "overfitting", "gap"),
        _card_verdict(f, "Is it still improving?", "still_improving", "curves"),
        _card_next(f),
        _card_yardsticks(f),
        _card_time(f),
        _card_passes(f),
        _card_speed(f),
        _card_lr(f),
        _card_resume(f),
    ]


def _card_best(f: Findings) -> Card:
    b, question = f.best, "Which checkpoint?"
    if b is None:
        return Card(question, "none", "No finite loss was logged.", "bad", "evaluations")
    if not b.validated:
        detail = (
            f"No validation loss was logged. The training loss is lowest at step {b.step:,} "
            f"({n.loss(b.loss)}), which does not say which checkpoint is best."
        )
        return Card(question, "cannot tell", detail, "open", "best")
    if (newest := words.never_evaluated(f, b)) is not None:
        detail = (
            f"Only the weights before training were evaluated; the newest checkpoint on disk is of "
            f"step {newest:,}."
        )
        return Card(question, "cannot tell", detail, "open", "checkpoints")
    w = f.whole
    if w is not None and w.step == b.pick:
        detail = f"loss {n.within(w.loss, w.se)} on {words.held_out(w)}"
        detail += f", {n.within(w.bpb, w.bpb_se)} bits per byte" if w.bpb is not None else ""
    else:
        se = next((e.val_se for e in f.evaluations if e.step == b.pick), None)
        detail = f"validation loss {n.within(b.pick_loss, se)}"
        if b.bpb is not None and b.pick == b.step:
            detail += f", {n.loss(b.bpb)} bits per byte"
    if b.step == 0 and b.pick != 0:
        detail += f"; validation was {n.loss(b.loss)} before training, {n.loss(b.pick_loss)} here"
    elif len(b.tied_steps) > 1:
        detail += f"; tied within noise: steps {n.steps(b.tied_steps)}"
    elif b.n > 1 and not _alone(f, b):
        detail += "; no other is as good" if words.tells_ties(f, b) else "; too few to tell ties"
    if b.pick_saved is False:
        detail += "; it is not on disk"
    fit = "unsure" if b.pick_saved is False or 0 in (b.pick, b.step) else "good"
    return Card(question, f"step {b.pick:,}", detail, fit, "best")


def _alone(f: Findings, b: Best) -> bool:
    """Whether only the weights as they were drawn were evaluated beside it."""
    return b.validated and not any(e.step not in (0, b.pick) for e in f.evaluations)


def _card_verdict(f: Findings, question: str, name: str, link: str) -> Card:
    v = f.verdict(name)
    answer = v.verdict.replace("_", " ")
    return Card(question, answer, v.because, tone(v), link)


def _card_next(f: Findings) -> Card:
    question = "What next?"
    if not f.advice:
        return Card(question, "nothing", words.NO_ADVICE, "good", "advice")
    first = f.advice[0]
    if first.because == ["comparability"]:
        detail = f"{words.NO_ADVICE} For the next run: {first.do}"
        return Card(question, "nothing", detail, "good", "advice")
    return Card(question, first.do, f"Expected: {first.expected}", "", "advice")


def _card_yardsticks(f: Findings) -> Card:
    question = "Is it better than …?"
    y, b = f.yardsticks, f.best
    if y is None or not y.rows or y.model_bpb is None:
        if f.about.incomparable is not None:
            detail = f"Bits per byte compare with nothing: {f.about.incomparable}."
            return Card(question, "cannot tell", detail, "open", "unknown")
        if b is not None and b.bpb is not None:
            detail = "Compare other runs on this text by bits per byte."
            return Card(question, f"{n.loss(b.bpb)} bits per byte", detail, "", "best")
        detail = "The log has no bits per byte, so only runs with the same tokenizer compare."
        return Card(question, "cannot tell", detail, "open", "unknown")
    return Card(question, f"{n.loss(y.model_bpb)} bits per byte", words.beaten(f), "", "yardsticks")


def _card_time(f: Findings) -> Card:
    led = f.ledger
    detail = ""
    if led.train_seconds is not None and led.seconds:
        detail = f"training {n.duration(led.train_seconds)}"
        if led.eval_seconds is not None:
            detail += f", evaluation and samples {n.duration(led.eval_seconds)}"
        if led.save_seconds is not None:
            detail += f", saving {n.duration(led.save_seconds)}"
    elif led.pause_seconds:
        detail = f"from the first row to the last, {n.duration(led.pause_seconds)} of it pauses"
    answer = n.duration(led.seconds) if led.seconds is not None else "not logged"
    if led.seconds is None and led.step_seconds is not None and f.source.step_is == "step":
        made = led.steps - led.first_step
        answer = f"about {n.duration(made * led.step_seconds)}"
        detail = (
            f"{made:,} steps at a median of {n.seconds(led.step_seconds)}; what evaluations and "
            "saves took is not logged"
        )
    return Card("How long did it take?", answer, detail, "", "ledger")


def _card_passes(f: Findings) -> Card:
    led = f.ledger
    parts = [counted(led.steps, f.source.step_is)]
    if led.tokens is not None:
        parts.append(f"{led.tokens:,} tokens")
    if led.train_tokens is not None:
        parts.append(f"a pass is {led.train_tokens:,} tokens")
    answer = n.passes(led.passes) if led.passes is not None else "not known"
    if led.passes is None and led.epochs is not None:
        parts.append(f"epochs as logged: up to {led.epochs:g}")
    return Card("How many passes over the text?", answer, ", ".join(parts), "", "ledger")


def _card_speed(f: Findings) -> Card:
    led = f.ledger
    if led.tokens_per_s is not None:
        answer = f"{n.count(led.tokens_per_s)} tokens/s"
    elif led.step_seconds is not None:
        answer = f"{n.seconds(led.step_seconds)} a step"
    else:
        return Card("How fast?", "not logged", "", "open", "ledger")
    detail = f"the median; {n.percent(led.slow_share)} of the rows were slower than 80 % of it"
    return Card("How fast?", answer, detail, "", "ledger")


def _card_lr(f: Findings) -> Card:
    if f.schedule.peak is None:
        answer = "0 throughout" if f.schedule.n else "not logged"
        return Card("What was the learning rate?", answer, "", "open", "unknown")
    answer = f"{n.rate(f.schedule.peak)} → {n.rate(f.schedule.end)}"
    return Card("What was the learning rate?", answer, words.schedule(f), "", "schedule")


CHANGED, LONG_ANSWER = "changed: ", 80  # what a resume tells of settings; characters
SETTING = re.compile(r"(?:^|, )(data|\w+\.\w+) ")  # before its values


def _card_resume(f: Findings) -> Card:
    v = f.verdict("resume")

    def card(answer: str, tone: str) -> Card:
        return Card("What changed at resume?", answer, v.because, tone, "sessions")

    if v.verdict == "no":
        return card("no resume", "good")
    rows, equal = v.evidence.get("rows"), v.evidence.get("equal")
    if v.verdict == "cannot_tell" or rows is None:
        return card("cannot tell", "open")
    if rows and rows == equal:
        return card("nothing", "good")
    if changes := [w for w in v.evidence["warnings"] if w.startswith(CHANGED)]:
        return card(_changed(changes), "unsure")
    if rows:
        return card(f"only {equal:,} of {rows:,} rows equal", "unsure")
    return card("nothing to compare", "open")


def _changed(changes: list[str]) -> str:
    """The settings that were changed, as many as fit; their values stand in the sentence."""
    told = (match[1] for change in changes for match in SETTING.finditer(change[len(CHANGED) :]))
    names = [name for name in dict.fromkeys(told) if name == "data" or name in all_settings()]
    for shown in range(len(names), 0, -1):
        more = f" and {len(names) - shown:,} more" if shown < len(names) else ""
        if len(answer := ", ".join(names[:shown]) + more) <= LONG_ANSWER:
            return answer
    return "settings"  # of a version that calls them otherwise
