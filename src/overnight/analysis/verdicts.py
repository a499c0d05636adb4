"""All verdicts of one run, adjusted for their number, and what they leave open."""

from __future__ import annotations

import msgspec

from . import consistency, plausible
from .case import Case
from .divergence import divergence
from .drift import train_drift
from .findings import About, Schedule, Verdict
from .gap import gap
from .overfitting import overfitting
from .plateau import NAMES, progress
from .series import Series
from .spikes import spikes
from .tables import Log

ALPHA = 0.05
SEEN = 0.8  # of the run, that evaluations must reach for a verdict on its end
EMPTIED = {"overfitting": ("no",)}  # by an end that was not evaluated; others by either
# Verdicts that a small p supports, and what they claim; without it they claim nothing.
CLAIMS = {
    "overfitting": ("yes",),
    "gap": ("growing", "shrinking"),
    "still_improving": ("yes",),
    "train_drift": ("yes",),
}


def trends(log: Log, series: Series, rates: Schedule, about: About) -> list[Verdict]:
    """The verdicts about where the curves go, whose tests are adjusted together."""
    gaps = gap(series)
    over = overfitting(series, gaps)
    broke = divergence(log, series, about.vocab_size, rates.warmup_steps or 0)
    drift = train_drift(series, rates)
    trained = broke.verdict == "yes" and broke.evidence["name"] == "training"
    if over.verdict == "yes" and trained and "train_change" not in over.evidence:
        over.verdict, over.since_step = "cannot_tell", None
        over.because += " But training diverged, too."

    def together(over: Verdict) -> dict[str, Verdict]:
        further = progress(series, over, broke.verdict == "yes")
        return {v.id: v for v in holm([broke, over, gaps, *further, drift])}

    found = together(over)
    if found["overfitting"].verdict != over.verdict:  # what was built on it is built anew
        weak = found["overfitting"]
        found = together(msgspec.structs.replace(over, verdict="cannot_tell", since_step=None))
        found["overfitting"] = weak
    if found["gap"].verdict == "growing" and found["still_improving"].verdict == "yes":
        found["gap"].because += " Validation still falls, so this does no harm."
    if (unseen := _unseen(series)) > 0:
        why = f"the last {unseen:,} steps were not evaluated."
        _doubt(found, ("overfitting", *NAMES), why)
    if "tail" in broke.evidence:
        _doubt(found, NAMES, f"the last {broke.evidence['name']} losses are far up.")
    return list(found.values())


def _doubt(found: dict[str, Verdict], names: tuple[str, ...], why: str) -> None:
    for name in names:
        if found[name].verdict in EMPTIED.get(name, ("yes", "no")):
            found[name].verdict = "cannot_tell"
            found[name].because += f" But {why}"


def _unseen(series: Series) -> int:
    """Steps at the end of the run that no evaluation tells of, if they are many; else 0."""
    if not series.n or not series.train_n:
        return 0
    first, end = min(series.train_steps[0], series.steps[0]), series.train_steps[-1]
    unseen = end - series.steps[-1]
    return int(unseen) if unseen > (1 - SEEN) * (end - first) else 0


def judge(case: Case) -> list[Verdict]:
    """The verdicts that are no test of a trend."""
    about, ledger = case.about, case.ledger
    return [
        spikes(case.series),
        plausible.init_loss(case.series, about),
        plausible.too_good(case.best, about, ledger, case.series, case.yardsticks),
        plausible.below_yardstick(case.yardsticks),
        consistency.units(ledger),
        consistency.schedule_mismatch(case.schedule, about, ledger),
        consistency.repeats(about, ledger),
        consistency.resume(case.log, ledger),
        consistency.throughput(case.log, ledger),
        consistency.comparability(about, case.best, case.whole),
    ]


def holm(verdicts: list[Verdict]) -> list[Verdict]:
    """Adjust the p values of the tests together (Holm 1979); a claim that no longer holds at 5 %
    becomes `cannot_tell`. `plateau` is the same test as `still_improving` and follows it."""
    tests = sorted(
        (v for v in verdicts if v.id in CLAIMS and v.p_raw is not None),
        key=lambda v: v.p_raw or 0.0,
    )
    adjusted: dict[str, float] = {}
    largest = 0.0
    for i, v in enumerate(tests):
        largest = max(largest, min(1.0, (len(tests) - i) * (v.p_raw or 0.0)))
        adjusted[v.id] = largest
    if "still_improving" in adjusted:
        adjusted["plateau"] = adjusted["still_improving"]
    weak = {v.id for v in tests if v.verdict in CLAIMS[v.id] and adjusted[v.id] > ALPHA}
    if "still_improving" in weak:
        weak.add("plateau")
    return [_adjusted(v, adjusted.get(v.id), v.id in weak, len(tests)) for v in verdicts]


def _adjusted(v: Verdict, p: float | None, weak: bool, tests: int) -> Verdict:
    if p is None:
        return v
    if not weak:
        return msgspec.structs.replace(v, p=p)
    because = f"{v.because} Among {tests} tests that is not enough (p = {p:.3f})."
    return msgspec.structs.replace(
        v, verdict="cannot_tell", p=p, because=because, since_step=None,
        evidence=v.evidence | {"tests": tests},
    )  # fmt: skip


def open_questions(case: Case, verdicts: list[Verdict]) -> list[str]:
    """What this log cannot show, in one line each."""
    about, best, evaluated, lines = case.about, case.best, case.series.n > 0, []
    if about.status == "killed":
        planned = f" of {about.planned_steps:,}" if about.planned_steps else ""
        lines.append(
            f"How the run ends: its log breaks off at step {case.ledger.steps:,}{planned}, and no "
            "process trains it here; `overnight train --resume` goes on."
        )
    if about.begins_with is not None:
        lines.append(
            "Whether the held-out text is new to it: the weights it began with were trained "
            "before, on a text that is not compared with this one."
        )
    if about.incomparable is not None:
        lines.append(
            f"How many bits the text takes: {about.incomparable}, so bits per byte compare with "
            "nothing."
        )
    elif best is not None and best.bpb is None:
        lines.append(
            "How it compares with a run that has another tokenizer: bits per byte are not logged."
        )
    if about.other_task is not None:
        lines.append(
            f"Whether this is a language model on text: its log has a column "
            f"{about.other_task[:40]}, as those of other tasks have. If it is not, nats stand for "
            "the unit of its loss, and perplexities mean nothing."
        )
    if not evaluated:
        lines.append(
            "Whether it generalises or overfits: there is no validation loss, and training loss "
            "cannot show it."
        )
    if best is not None and best.validated and len(best.tied_steps) > 1:
        lines.append("Which of the tied checkpoints is best: their differences are within noise.")
    unknown = [v for v in verdicts if v.verdict == "cannot_tell" and v.id in QUESTIONS]
    lines += [f"{QUESTIONS[v.id]}: {v.because}" for v in unknown if evaluated or v.id == "repeats"]
    lines.append("Whether another seed would end the same: one run shows one seed.")
    return lines


QUESTIONS = {
    "overfitting": "Whether it overfits",
    "gap": "Where the gap is going",
    "still_improving": "Whether it still improves",
    "repeats": "How often the text was seen",
}
