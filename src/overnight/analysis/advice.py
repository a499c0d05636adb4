"""What to do, most urgent first; each line rests on verdicts, and none on what is already on."""

from __future__ import annotations

import math
import shlex

from ..wording import counted
from .case import Case
from .findings import Advice, Verdict
from .plateau import USEFUL

SIMPLE = ("ln V", "unigram", "bigram")  # any model beats these after a few hundred steps
ANNEALED = 0.2  # of the peak: below it the schedule has done its work
LOOKS = 12  # evaluations from which on overfitting is found more often than not
NEARLY = 0.9  # of the planned steps: the rest may still be the fall
AGAIN = 1.9  # passes; pieces of words are learnt by heart from two on (docs/lab-notes.md, E85)
MANY_PASSES = 4.0  # Muennighoff et al. 2023: up to about four passes are nearly as good as new text
PROSE = 4.0  # bits per byte: xz needs more only where its own frame fills a tiny text
REPEATED = 0.55  # of what xz needs for held-out text alone; prose 0.76–0.85, half of it leaked 0.52

STOPPED = ("interrupted", "killed", "failed")

Verdicts = dict[str, Verdict]  # by their names


def advise(case: Case, verdicts: list[Verdict]) -> list[Advice]:
    """The ranked list; empty where nothing calls for a change."""
    v = {verdict.id: verdict for verdict in verdicts}
    improving = v["still_improving"].verdict == "yes"
    return [
        *_broken(v, case),
        *_validation(case),
        *_overfit(v, case),
        *_began_better(v, case),
        *_trust(v, sure=True),
        *_duplicates(v),
        *(() if improving else _yardstick(v, case, simple=True)),
        *_go_on(v, case),
        *_longer(v, case),
        *(_yardstick(v, case, simple=True) if improving else ()),
        *_more_looks(v, case),
        *_yardstick(v, case, simple=False),
        *_schedule(v, case),
        *_stability(v),
        *_quieter(v, case),
        *_trust(v, sure=False),
        *_units_of_loss(case),
    ]


def _broken(v: Verdicts, case: Case) -> list[Advice]:
    found = []
    if v["divergence"].verdict == "yes":
        since = v["divergence"].since_step
        good = _last_good(v["divergence"], case)
        where = f"of step {good:,} or before" if good else "from before it"
        do = f"Go back to a checkpoint {where} and continue with a lower learning rate."
        if since is not None and since <= 1:
            do = "Begin again with a lower learning rate."
        found.append(
            Advice(
                do=do,
                because=["divergence"],
                expected="the loss comes back to the level it had; nothing after it can be used.",
            )
        )
    if v["units"].verdict == "yes":
        found.append(
            Advice(
                do="Settle the units first: find out which of the disagreeing figures is wrong.",
                because=["units"],
                expected="steps, tokens, passes and speed that can be compared with other runs.",
            )
        )
    if v["schedule_mismatch"].verdict == "yes":
        found.append(
            Advice(
                do="Check what the schedule counts: micro-steps taken for steps stretch or cut it.",
                because=["schedule_mismatch"],
                expected="a learning rate that ends where the settings say.",
            )
        )
    return found


def _last_good(diverged: Verdict, case: Case) -> int | None:
    """The last step that is known to be good: the last evaluation as low as the best, else that
    where the level of the loss was its lowest, within noise: it begins before it can be seen."""
    since = diverged.since_step
    if since is None:
        return None
    tied = case.best.tied_steps if case.best is not None and case.best.validated else []
    good = diverged.evidence.get("good_step", since - 1)
    return max((step for step in tied if 0 < step < since), default=good)


def _validation(case: Case) -> list[Advice]:
    if case.best is not None and case.best.validated:
        return []
    return [
        Advice(
            do="Hold out part of the text and log its loss: a fixed set, the same every time.",
            because=["overfitting"],
            expected="overfitting and the best checkpoint can be seen; now they cannot.",
        )
    ]


def _trust(v: Verdicts, sure: bool) -> list[Advice]:
    """Too good to be true; not `sure`: if tokens are pieces of words, which no log says."""
    found = v["too_good"]
    low = found.evidence.get("loss", math.inf) < found.evidence.get("low", -math.inf)
    low &= "few" not in found.evidence
    if found.verdict != ("yes" if sure else "cannot_tell") or not (sure or low):
        return []
    look = (
        "look for padding in the loss, for validation text in the training text, and count the "
        "passes over the data."
    )
    return [
        Advice(
            do=f"L{look[1:]}" if sure else f"If its tokens are pieces of words, {look}",
            because=["too_good"],
            expected="either the cause, or a loss that can be believed.",
        )
    ]


def _duplicates(v: Verdicts) -> list[Advice]:
    """Held-out text that xz finds in the training text."""
    known = v["below_yardstick"].evidence
    alone, after = known.get("xz"), known.get("xz_after_training_text")
    if alone is None or after is None or not after < REPEATED * alone < REPEATED * PROSE:
        return []
    return [
        Advice(
            do="Look for held-out text that stands in the training text, too: with that in front, "
            f"xz needs {after:.4f} bits per byte of it instead of {alone:.4f}.",
            because=["below_yardstick"],
            expected="either a split whose held-out text is new, or a text that repeats itself.",
        )
    ]


def _yardstick(v: Verdicts, case: Case, simple: bool) -> list[Advice]:
    """Worse than a yardstick: an alarm for the simple ones, a remark for the others. Of weights as
    drawn it says nothing."""
    worse = v["below_yardstick"]
    if worse.verdict != "yes" or (worse.evidence["yardstick"] in SIMPLE) != simple:
        return []
    if case.best is None or case.best.step == 0:
        return []
    name, seen = worse.evidence["yardstick"], case.ledger.passes
    do = (
        f"Ask why {name} does better: too few steps, too low a learning rate, or an error in the "
        "data."
    )
    if v["still_improving"].verdict == "yes":
        do = (
            f"After more steps hold it against {name} again; if that still does better, look at "
            "the learning rate and the data."
        )
    elif (
        seen is not None
        and seen < 1.0
        and not any(v[name].verdict == "yes" for name in ("overfitting", "plateau"))
    ):
        seen *= case.best.step / max(case.best.step, case.ledger.steps)
        do = f"Give it more steps: after {seen:.2f} passes over the text {name} still does better."
    return [
        Advice(
            do=do,
            because=["below_yardstick"],
            expected=(
                f"unknown; that {worse.evidence['bpb']:.4f} bits per byte can be had is all that "
                f"{name} shows."
            ),
        )
    ]


def _overfit(v: Verdicts, case: Case) -> list[Advice]:
    if v["overfitting"].verdict != "yes" or case.best is None:
        return []
    lost, seen = v["overfitting"].effect_nats or 0.0, case.ledger.passes
    do = f"Deploy step {case.best.pick:,}, and next time stop near it."
    expected = f"a loss about {lost:.3f} nats lower than the mean of the last evaluations."
    if case.best.step == 0:
        do = "Deploy none of it: on validation it was never better than at step 0."
        expected = "nothing of this run; look at the held-out text, the data and the learning rate."
    found = [Advice(do=do, because=["overfitting"], expected=expected)]
    repeated = v["repeats"].verdict == "yes"
    passes = f" (it was seen {seen:.2f} times)" if repeated and seen else ""
    found.append(
        Advice(
            do=f"Use more text{passes}, or more dropout or a smaller model on the same text.",
            because=["overfitting", "repeats"] if repeated else ["overfitting"],
            expected="the minimum comes later and lies lower; how much, this run cannot say.",
        )
    )
    return found


def _began_better(v: Verdicts, case: Case) -> list[Advice]:
    """Weights of another run, which no evaluation since is as good as."""
    best, given = case.best, case.about.begins_with is not None
    if v["overfitting"].verdict == "yes" or best is None or not (given and best.validated):
        return []
    if best.tied_steps != [0] or case.series.n < 2:
        return []
    return [
        Advice(
            do="Keep the weights it began with, or train them with a lower learning rate.",
            because=["overfitting"],
            expected="at least the loss of step 0, which no later evaluation is as good as.",
        )
    ]


def _goes_on(v: Verdicts, case: Case) -> bool:
    """Whether it ended before its end, which nothing speaks against."""
    stopped = case.about.status in STOPPED and case.log.folder is not None
    harmed = "yes" in (v["divergence"].verdict, v["overfitting"].verdict)
    return stopped and not harmed and case.ledger.steps < (case.about.planned_steps or 0)


def _go_on(v: Verdicts, case: Case) -> list[Advice]:
    if not _goes_on(v, case):
        return []
    again = f"overnight train --resume {shlex.quote(str(case.log.folder))}"
    return [
        Advice(
            do=f"Let it go on to its planned end at step {case.about.planned_steps:,}: {again}",
            because=["resume"],
            expected="what the run was to give; it goes on with the same bits.",
        )
    ]


def _longer(v: Verdicts, case: Case) -> list[Advice]:
    improving = v["still_improving"]
    fell = -(improving.effect_nats or 0.0)
    if _goes_on(v, case):
        return []
    if improving.verdict == "yes" and fell >= USEFUL and v["divergence"].verdict != "yes":
        return [_train_longer(v, case, fell)]
    return [_change_something(v, case)] if v["plateau"].verdict == "yes" else []


def _train_longer(v: Verdicts, case: Case, fell: float) -> Advice:
    """`fell`: nats, over the stretch at the end."""
    seen, planned = v["still_improving"].evidence, case.about.planned_steps
    expected = (
        f"less than the {fell:.3f} nats that steps {seen['first']:,} to {seen['last']:,} gave, for "
        "as many steps again."
    )
    because, ratio = ["still_improving"], case.schedule.end_ratio
    if planned is not None and case.ledger.steps < planned:
        do = f"Let it run to its planned end at step {planned:,}."
    elif (case.ledger.passes or 0.0) >= AGAIN and v["gap"].verdict == "growing":
        because += ["repeats", "gap"]
        do = (
            "Train longer on more text: this one was read more than once, and the gap grows, so "
            "that more of it would be learnt by heart."
        )
    elif ratio is not None and ratio < ANNEALED:
        do = (
            "Train longer: a new run with a longer schedule, for this one's learning rate has "
            "already come down."
        )
    else:
        do = "Train longer: it is undertrained; a lower loss is still to be had."
    return Advice(do=do, because=because, expected=expected)


def _change_something(v: Verdicts, case: Case) -> Advice:
    """On a plateau."""
    most, again = (v["plateau"].evidence[name] for name in ("most", "again"))
    what, because = "a larger model, or more text", ["plateau"]
    if v["gap"].verdict == "growing":
        what, because = "more text, or more dropout", ["plateau", "gap"]
    elif (case.ledger.passes or 0.0) > MANY_PASSES:
        what, because = "more text", ["plateau", "repeats"]
    return Advice(
        do=f"Do not train this longer; change something else: {what}.",
        because=because,
        expected=f"{again:,} more steps would give at most {most:.3f} nats.",
    )


def _more_looks(v: Verdicts, case: Case) -> list[Advice]:
    """A long run that was evaluated too seldom for its questions."""
    seen = v["overfitting"].n
    if v["overfitting"].verdict != "cannot_tell" or not 0 < seen < LOOKS:
        return []
    if case.ledger.steps < 100:
        return []
    return [
        Advice(
            do="Evaluate more often: for these questions a run needs more than "
            f"{counted(seen, 'evaluation')}.",
            because=["overfitting", "still_improving"],
            expected="it can be told whether it overfits and whether it still improves.",
        )
    ]


def _quieter(v: Verdicts, case: Case) -> list[Advice]:
    """Evaluations enough, whose noise hides what happens at the end; where the learning rate has
    come down, that is the end of its schedule."""
    improving, ratio = v["still_improving"], case.schedule.end_ratio
    if ratio is not None and ratio < ANNEALED:
        return []
    if improving.verdict != "cannot_tell" or v["overfitting"].n < LOOKS:
        return []
    return [
        Advice(
            do="Evaluate on more held-out tokens: the noise of an evaluation hides what the end of "
            "the run gave.",
            because=["still_improving"],
            expected="a standard error half as large for four times the tokens.",
        )
    ]


def _schedule(v: Verdicts, case: Case) -> list[Advice]:
    """Only for a rate that was seen to stay constant to the end of a run."""
    if "yes" in (v["overfitting"].verdict, v["divergence"].verdict):
        return []
    rates, planned = case.schedule, case.about.planned_steps
    if planned is not None and case.ledger.steps < NEARLY * planned:
        return []
    if (
        rates.kind != "constant"
        or rates.still_warming
        or rates.configured not in (None, "constant")
    ):
        return []
    return [
        Advice(
            do="Let the learning rate fall towards zero over the last fifth of the run.",
            because=["still_improving"],
            expected="usually some hundredths of a nat; this run cannot say how much.",
        )
    ]


def _stability(v: Verdicts) -> list[Advice]:
    found = []
    if v["train_drift"].verdict == "yes":
        found.append(
            Advice(
                do="Look at the optimisation and the order of the data in the last third.",
                because=["train_drift"],
                expected="a training loss that does not rise.",
            )
        )
    spikes = v["spikes"]
    if spikes.verdict == "yes" and spikes.evidence["recovered"] < spikes.evidence["count"]:
        found.append(
            Advice(
                do="Clip the gradient harder or lower the peak learning rate.",
                because=["spikes"],
                expected="spikes that are soon over, or none.",
            )
        )
    if v["throughput"].verdict == "yes":
        found.append(
            Advice(
                do="Find out what else used the machine while it was slow.",
                because=["throughput"],
                expected="the median speed over the whole run.",
            )
        )
    return found


def _units_of_loss(case: Case) -> list[Advice]:
    if case.best is None or case.best.bpb is not None:
        return []
    do = "Log bits per byte beside the loss."
    if case.about.incomparable is not None:
        do = "Take a tokenizer that keeps all of the text: bytes, characters of it, or BPE."
    return [
        Advice(
            do=do,
            because=["comparability"],
            expected="runs with different tokenizers compare.",
        )
    ]
