"""Still improving, or on a plateau: one slope, two questions, answers that cannot disagree."""

from __future__ import annotations

import numpy as np

from .findings import Verdict, make
from .noise import Scatter
from .outliers import left_out, outliers
from .series import Series
from .tables import Array
from .trend import CHANGE, Slope, recent, slope, slope_weights

FEWEST = 6
SHARE = 0.3  # of the run, at its end
MOST = 0.75  # a slope over more of it says nothing of the end
USEFUL = 0.01  # nats: an improvement below this is not worth a night
SHORTEST = 3  # evaluations at the end that may go another way than the line before them
FLAT = 0.1  # of the slope of the line; the last quarter of a cosine to zero has 0.19 (llm.c)
BENT = 3.0  # standard errors flatter: of 403 healthy simulated curves one is; with 2.0 14 were


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
    trend = _latest(steps[first:], val[first:], noise)
    again = int(steps[-1] - steps[first])
    share = (trend.last - trend.first) / max(trend.last - int(steps[0]), 1)
    early = int(np.argmin(val)) < len(val) - (trend.n + 1) // 2
    harmed = harm.verdict == "yes"
    most = -trend.line(again)[0]
    improving, plateau, why = _judged(trend, share, most, early, harmed)
    other = why
    if plateau == "cannot_tell":
        other = "Neither a useful fall nor a standstill is shown."
    elif improving == "yes" or harmed:
        other = "Validation got worse." if harmed else "The trend is downwards."
    facts = trend.facts() | {
        "estimator": f"least squares slope of validation over the last {share:.0%}",
        "again": again,
        "most": most,
        "useful": USEFUL,
        "lowest_step": int(series.steps[np.argmin(series.val)]),
    }
    return [
        make("still_improving", improving, why + left_out(alone), **facts),
        make("plateau", plateau, other, **facts),
    ]


def _latest(steps: Array, values: Array, noise: Scatter) -> Slope:
    """The trend of a stretch; of its later half or quarter where that is flatter than the line over
    the whole, beyond noise, and flat or next to it, as behind a drop of the learning rate: of 90
    such ends, flat to 0.001 nats, 62 were called falling."""
    trend, n = slope(steps, values, noise), len(values)
    for part in (n // 2, n // 4):
        if part < SHORTEST or trend.ci[1] >= 0:
            break
        later = slope(steps[-part:], values[-part:], noise)
        bend = np.pad(slope_weights(steps[-part:]), (n - part, 0)) - slope_weights(steps)
        flat = later.ci[1] >= 0 or later.per_1000 > FLAT * trend.per_1000
        if flat and bend @ values > BENT * noise.se(bend):
            return later
    return trend


def _judged(
    trend: Slope, share: float, most: float, early: bool, harmed: bool
) -> tuple[str, str, str]:
    """Whether it still improves, whether it stands still, and why. `share` of the run that the
    trend goes over; `most`: nats that as much again would give; `early`: the lowest evaluation is
    not in the later half of it."""
    if harmed:
        return "no", "no", f"Validation got worse; its trend is {CHANGE}."
    if trend.ci[0] > 0:
        return "no", "no", f"It does not fall: the trend is {CHANGE}."
    if trend.ci[1] >= 0 and most < USEFUL:
        return "no", "yes", (
            f"The trend is {CHANGE}: {{again:,}} more steps would give at most {{most:.4f}} nats, "
            "less than {useful:.2f}."
        )  # fmt: skip
    if trend.ci[1] >= 0:
        why = f"The trend is {CHANGE}, which includes none and a useful one."
    elif share > MOST:
        why = (
            f"The trend is {CHANGE}, but the last {{n}} evaluations are most of the run: how it is "
            "at the end, so few cannot say."
        )
    elif early:
        why = (
            f"The trend is {CHANGE}, but the lowest evaluation, at step {{lowest_step:,}}, is not "
            "in the later half of that stretch."
        )
    else:
        return "yes", "no", f"Validation changes by {CHANGE}."
    return "cannot_tell", "cannot_tell", why
