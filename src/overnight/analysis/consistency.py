"""Do the log's own figures agree: units, schedule, passes, resumes, speed, comparability."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..wording import counted
from .findings import VALIDATION, About, Best, Ledger, Schedule, Verdict, Whole, make
from .ledger import speeds
from .tables import Array, Log

FEWEST_SPEEDS = 10
UNEVEN = 0.1  # share of slow rows from which on the speed did not hold
PARTS = 10  # of a run, whose medians show whether it ever became slower
FALLEN = 0.85  # last fifth of the run against the first, in tokens per second
WARMUP_OFF = 0.1  # of the configured warm-up, or two logged steps
RATIO_OFF = 0.05  # of the peak


def units(ledger: Ledger) -> Verdict:
    wrong = [c for c in ledger.checks if not c.agrees]
    if not ledger.checks:
        return make("units", "cannot_tell", "The log has no two figures that check each other.")
    if not wrong:
        return make(
            "units", "no",
            f"Logged and computed agree within {{tolerance:.0f}} %: "
            f"{', '.join(c.what for c in ledger.checks)}.",
            n=len(ledger.checks), tolerance=2.0, estimator="logged against computed",
        )  # fmt: skip
    worst = max(wrong, key=lambda c: abs(np.log(max(c.ratio, 1e-12))))
    others = ", ".join(f"{c.what} ({c.ratio:.3g} times)" for c in wrong if c is not worst)
    return make(
        "units", "yes",
        f"{worst.what.capitalize()}: logged {{logged:,.4g}}, but {{computed:,.4g}} by the other "
        "figures of the log, which makes the logged one {ratio:.2f} times that."
        + (f" Others disagree, too: {others}." if others else ""),
        n=len(ledger.checks), logged=worst.logged, computed=worst.computed, ratio=worst.ratio,
        what=[c.what for c in wrong], estimator="logged against computed",
    )  # fmt: skip


def schedule_mismatch(rates: Schedule, about: About, ledger: Ledger) -> Verdict:
    """What was logged against what the settings say."""
    if rates.configured is None or rates.peak is None or rates.kind == "unknown":
        why = (
            "The log has no settings of a schedule to compare with."
            if rates.configured is None
            else "The logged learning rates do not show a known shape."
        )
        return make("schedule_mismatch", "cannot_tell", why, n=rates.n)
    wrong, facts = [], {"n": rates.n, "estimator": "logged learning rates"}
    compared = ["shape"]
    finished = about.planned_steps is not None and ledger.steps >= about.planned_steps
    if finished and rates.kind != rates.configured and not _same(rates):
        wrong.append(f"the logged shape is {rates.kind}, the settings say {rates.configured}")
    if rates.configured_warmup is not None and rates.warmup_steps is not None:
        compared.append("warm-up")
        half = (about.planned_steps or 2 * rates.configured_warmup) // 2  # of a short run
        wanted = min(rates.configured_warmup, half)
        facts |= {"warmup": rates.warmup_steps, "configured_warmup": wanted}
        room = max(WARMUP_OFF * wanted, 2 * (ledger.log_every or 1.0))
        if abs(rates.warmup_steps - wanted) > room:
            wrong.append("warm-up took {warmup:,} steps, the settings say {configured_warmup:,}")
    ratio = rates.configured_end_ratio
    if finished and ratio is not None and rates.end_ratio is not None:
        compared.append("end")
        facts |= {"end": 100 * rates.end_ratio, "configured_end": 100 * ratio}
        if rates.configured != "constant" and abs(rates.end_ratio - ratio) > RATIO_OFF:
            wrong.append(
                "it ended at {end:.0f} % of the peak, the settings say {configured_end:.0f} %"
            )
    if wrong:
        text = "; ".join(wrong)
        return make("schedule_mismatch", "yes", text[:1].upper() + text[1:] + ".", **facts)
    if not finished:
        return make(
            "schedule_mismatch", "cannot_tell",
            "The run has not reached the end of its schedule; so far nothing disagrees.", **facts,
        )  # fmt: skip
    agree = " and ".join(filter(None, (", ".join(compared[:-1]), compared[-1]))).capitalize()
    agree += " agrees." if len(compared) == 1 else " agree."
    return make("schedule_mismatch", "no", agree, **facts)


def _same(rates: Schedule) -> bool:
    """Shapes that cannot be told apart: an end at the peak is constant, whatever its name."""
    flat = rates.configured_end_ratio is not None and rates.configured_end_ratio > 0.99
    return flat and rates.kind == "constant"


def repeats(about: About, ledger: Ledger) -> Verdict:
    if ledger.passes is None:
        return make(
            "repeats", "cannot_tell",
            "The log does not say how many tokens the training text has.",
        )  # fmt: skip
    facts = {"passes": ledger.passes, "n": 1, "estimator": "tokens seen / training tokens"}
    if about.begins_with is not None and ledger.passes <= 1.0:
        return make(
            "repeats", "cannot_tell",
            "{passes:.2f} passes over the training text in this run; how much of it the weights "
            "that it began with had seen is not known.",
            **facts,
        )  # fmt: skip
    if ledger.passes <= 1.0:
        return make("repeats", "no", "{passes:.2f} passes over the training text.", **facts)
    return make("repeats", "yes", "{passes:.2f} passes over the training text.", **facts)


def resume(log: Log, ledger: Ledger) -> Verdict:
    """Sessions, and whether a replayed stretch gave the same numbers."""
    if not log.session:
        attempts = _last(log.train["attempt"], log.eval["attempt"])
        if attempts > 1:
            return make(
                "resume", "yes",
                "Steps fall back in the file, so it was resumed; {attempts} sessions are in it.",
                attempts=int(attempts), n=int(attempts), estimator="order of the rows",
            )  # fmt: skip
        return make("resume", "cannot_tell", "The log does not mark sessions.")
    n = len(log.session)
    returns = sum(s.returns for s in ledger.sessions)
    back = ""
    if returns:
        back = " Within a session it went back to an earlier checkpoint; times: {returns}."
    if n == 1:
        why = f"The run was one session.{back}"
        return make("resume", "no", why, n=n, returns=returns, estimator="start rows")
    at = [s.from_step for s in ledger.sessions[1:]]
    estimator = "start rows; rows of replayed steps"
    rows = sum(a["rows"] for a in log.replayed)
    equal = sum(a["equal"] for a in log.replayed)
    notes = [str(e["message"]) for e in log.event if e["kind"] == "warning"]
    facts: dict[str, Any] = {
        "n": n, "sessions": n, "returns": returns, "at": at, "rows": rows, "equal": equal,
        "warnings": notes, "estimator": estimator,
    }  # fmt: skip
    begins = " and ".join(f"{s:,}" for s in at[:5]) + (" …" if n > 6 else "")
    why = f"{{sessions}} sessions, resumed at step {begins}; "
    if not rows:
        why += "no logged step was replayed, so there is nothing to compare."
    elif rows == equal:
        why += "resumed exactly (logged rows replayed: {rows}, equal: {equal})."
    else:
        facts["difference"] = max(a["difference"] for a in log.replayed)
        why += "not exactly the same (logged rows replayed: {rows}, equal: {equal}, largest "
        why += "difference {difference:.2e} nats)."
    found = make("resume", "yes", why + back, **facts)
    found.because += "".join(f" {note[:1].upper()}{note[1:300]}." for note in notes[:3])
    return found


def throughput(log: Log, ledger: Ledger) -> Verdict:
    """`yes`: the speed did not hold (many slow rows, or slower at the end)."""
    speed, unit = speeds(log)
    if len(speed) < FEWEST_SPEEDS:
        why = "Too few logged speeds: {n}, at least {needed} are needed."
        if not len(speed):
            why = "No speed was logged."
        return make("throughput", "cannot_tell", why, n=len(speed), needed=FEWEST_SPEEDS)
    fifth = len(speed) // 5
    begin, end = float(np.median(speed[:fifth])), float(np.median(speed[-fifth:]))
    slow = 100 * (ledger.slow_share or 0.0)
    facts = {
        "n": len(speed), "median": float(np.median(speed)), "slow": slow, "begin": begin,
        "end": end, "estimator": f"{unit} per second of the training rows",
    }  # fmt: skip
    form = ",.0f" if unit == "tokens" else ".3g"
    why = (
        f"Median {{median:{form}}} {unit} per second, {{begin:{form}}} in the first fifth and "
        f"{{end:{form}}} in the last; {{slow:.0f}} % of the rows are slower than 80 % of the "
        "median."
    )
    parts = [float(np.median(part)) for part in np.array_split(speed, PARTS)]
    fell = any(part < FALLEN * max(parts[: i + 1]) for i, part in enumerate(parts))
    risen = end > begin / FALLEN and not fell  # slow rows are of the time before
    uneven = (slow > 100 * UNEVEN and not risen) or end < FALLEN * begin
    if risen:
        why += " It rose."
    return make("throughput", "yes" if uneven else "no", why, **facts)


def comparability(about: About, best: Best | None, whole: Whole | None) -> Verdict:
    if about.incomparable is not None:
        return make(
            "comparability", "no",
            f"Bits per byte compare with nothing here: {about.incomparable}.",
        )  # fmt: skip
    bpb = whole.bpb if whole is not None else best.bpb if best is not None else None
    if bpb is not None:
        most = (
            f" They are too high, not too low: beside the model's, {about.unknown_bits} bits are "
            f"counted for each of {counted(about.unknown, 'character')} of the held-out text that "
            "the tokenizer does not know."
            if about.unknown and about.unknown_bits
            else ""
        )
        return make(
            "comparability", "yes",
            "{bpb:.4f} bits per byte compare with any tokenizer on the same text; the loss per "
            f"token only with the same tokenizer.{most}",
            bpb=bpb, n=1, estimator="all held-out text" if whole else VALIDATION,
        )  # fmt: skip
    if about.vocab_size is not None:
        return make(
            "comparability", "no",
            "Nats per token compare only with the same tokenizer (vocabulary {vocab:,}).",
            vocab=about.vocab_size,
        )  # fmt: skip
    return make(
        "comparability", "cannot_tell",
        "Neither bits per byte nor the vocabulary is known, so losses per token of other runs "
        "may not compare.",
    )  # fmt: skip


def _last(*columns: Array) -> float:
    return max((float(c.max()) for c in columns if len(c)), default=0.0)
