"""Still improving, or on a plateau: one slope, two questions, answers that cannot disagree."""

from __future__ import annotations

import numpy as np

from .findings import Verdict, make
from .outliers import left_out, outliers
from .series import Series
from .trend import CHANGE, Slope, recent, slope

FEWEST = 6
SHARE = 0.3  # of the run, at its end
MOST = 0.75  # a slope over more of it says nothing of the end
USEFUL = 0.01  # nats: an improvement below this is not worth a night


NAMES = ("still_improving", "plateau")


def progress(series: Series, harm: Verdict, diverged: bool) -> list[Verdict]:
    """The verdicts of NAMES about the validation loss."""
    if diverged and series.n:
        return [make(name, "no", "The run diverged.", n=series.n) for name in NAMES]
    noise = series.val_noise
    if series.n < FEWEST or not noise.known:
        why = (
            "No validation loss was logged."
            if not series.n
            else "Too few evaluations: {n}, at least {needed} are needed."
        )
        if series.n >= FEWEST:
            why = "The last evaluations are all equal, so their noise cannot be told."
        return [make(name, "cannot_tell", why, n=series.n, needed=FEWEST) for name in NAMES]
    alone = outliers(series.val)
    alone[-1] |= "last_alone" in harm.evidence
    steps, val = series.steps[~alone], series.val[~alone]
    first = recent(steps, SHARE, FEWEST)
    trend = slope(steps[first:], val[first:], noise)
    share = (trend.last - trend.first) / max(trend.last - int(steps[0]), 1)
    early = int(np.argmin(val)) < first + trend.n // 2
    harmed = harm.verdict == "yes"
    improving, plateau, why = _judged(trend, share, early, harmed)
    other = why
    if plateau == "cannot_tell":
        other = "Neither a useful fall nor a standstill is shown."
    elif improving == "yes" or harmed:
        other = "Validation got worse." if harmed else "The trend is downwards."
    facts = trend.facts() | {
        "estimator": f"least squares slope of validation over the last {share:.0%}",
        "most": -trend.change_ci[0],
        "useful": USEFUL,
        "lowest_step": int(series.steps[np.argmin(series.val)]),
    }
    return [
        make("still_improving", improving, why + left_out(alone), **facts),
        make("plateau", plateau, other, **facts),
    ]


def _judged(trend: Slope, share: float, early: bool, harmed: bool) -> tuple[str, str, str]:
    """Whether it still improves, whether it stands still, and why. `share` of the run that the
    trend goes over; `early`: the lowest evaluation is not in the later half of it."""
    rate = CHANGE + ", {per_1000:+.3g} per 1,000 steps"
    if harmed:
        return "no", "no", f"Validation got worse; its trend is {rate}."
    if trend.ci[0] > 0:
        return "no", "no", f"It does not fall: the trend is {rate}."
    if trend.ci[1] >= 0 and -trend.change_ci[0] < USEFUL:
        return "no", "yes", (
            f"The trend is {rate}: as long a stretch again would give at most {{most:.4f}} nats, "
            "less than {useful:.2f}."
        )  # fmt: skip
    if trend.ci[1] >= 0:
        why = f"The trend is {rate}, which includes none and a useful one."
    elif share > MOST:
        why = (
            f"The trend is {rate}, but the last {{n}} evaluations are most of the run: how it is "
            "at the end, so few cannot say."
        )
    elif early:
        why = (
            f"The trend is {rate}, but the lowest evaluation, at step {{lowest_step:,}}, is not in "
            "the later half of that stretch."
        )
    else:
        return "yes", "no", f"Validation changes by {rate}."
    return "cannot_tell", "cannot_tell", why
