"""The gap between validation and train, in nats: where it is going.

In nats and not relative to the loss, because a relative gap changes when only the loss does. A
negative gap is not underfitting; it only says which of two sets is easier.
"""

from __future__ import annotations

import numpy as np

from .findings import Verdict, make
from .noise import scatter
from .outliers import left_out, outliers
from .series import LAGS, Series
from .tables import Mask, finite
from .trend import CHANGE, Slope, recent, slope

FEWEST = 8
SHARE = 0.75  # the early part, where both fall steeply, says nothing of the gap
USEFUL = 0.01  # nats of change below which a trend does not matter
LOOSE = 0.1  # nats: an interval of the line's change wider than this excludes nothing
OTHER_UNIT = 1.8  # times validation, and more, in every row: a sum over 2, 4, 8 micro-steps


def gap(series: Series) -> Verdict:
    """`growing`, `shrinking`, `stable` or `cannot_tell`."""
    keep = finite(series.gap)
    alone = outliers(series.gap[keep])
    steps, gaps = series.steps[keep][~alone], series.gap[keep][~alone]
    n = len(gaps)
    if series.gap_estimator == "none" or n < FEWEST:
        why = "Too few evaluations with a train loss: {n}, at least {needed} are needed."
        if not series.n:
            why = "There is no validation loss."
        elif series.gap_estimator == "none":
            why = "There is no train loss to compare validation with."
        return make("gap", "cannot_tell", why, n=n, needed=FEWEST)
    if (other := _no_gap(series, keep)) is not None:
        return other
    noise = scatter(steps, gaps)
    facts = {
        "n": n,
        "mean": float(gaps.mean()),
        "mean_se": float(gaps.std(ddof=1) / np.sqrt(n)),  # where it does not change
        "lowest": float(gaps.min()),
        "highest": float(gaps.max()),
        "final": float(gaps[-1]),
        "useful": USEFUL,
        "estimator": f"least squares over the last three quarters; {series.gap_estimator}",
    }
    about = "mean gap of all {n} evaluations {mean:+.4f} nats, last {final:+.4f}"
    level = about.replace(" nats", " ± {mean_se:.4f} nats")
    if not noise.known:
        return make("gap", "stable", f"It does not change: {about}.", **facts)
    first = recent(steps, SHARE, FEWEST)
    trend = slope(steps[first:], gaps[first:], noise)
    facts = trend.facts() | facts
    if series.gap_estimator == LAGS:
        lags = "; the train side is a mean over earlier steps, which lags while the loss falls"
        about, level = about + lags, level + lags
    verdict, why = _judged(trend, about, level)
    below = " It is still below 0." if verdict == "growing" and gaps[-1] < 0 else ""
    return make("gap", verdict, f"{why}.{below}{left_out(alone)}", **facts)


def _judged(trend: Slope, about: str, level: str) -> tuple[str, str]:
    """Where it goes, and why. `about`: what it is; `level`: the same, where it does not change."""
    low, high = trend.line(trend.last - trend.first)
    if low > 0 and trend.change > USEFUL:
        return "growing", f"It changed by {CHANGE}; {about}"
    if high < 0 and trend.change < -USEFUL:
        return "shrinking", f"It changed by {CHANGE}; {about}"
    if low <= 0 <= high and max(-low, high) <= LOOSE:
        return "stable", f"Its change is {CHANGE}; {level}"
    if max(-low, high) <= LOOSE and abs(trend.change) <= USEFUL:
        return "stable", f"It changes by less than matters ({{useful}} nats): {CHANGE}; {about}"
    return "cannot_tell", f"Its change is {CHANGE}: too uncertain; {about}"


def _no_gap(series: Series, keep: Mask) -> Verdict | None:
    """Where the train column is the validation loss once more, or of another unit."""
    val, train = series.val[keep], series.probe[keep]
    facts = {"n": len(val), "estimator": series.gap_estimator}
    if np.array_equal(val, train):
        why = "The two columns are equal in every row ({n} of them): they may be of one set."
        return make("gap", "cannot_tell", why, **facts)
    later = slice(len(val) // 4, None)  # at first, what lags may be far above
    ratio = train[later] / np.where(val[later] > 0, val[later], np.nan)
    if not ratio.min() >= OTHER_UNIT:
        return None
    return make(
        "gap", "cannot_tell",
        "The train loss is {ratio:.1f} times the validation loss, never less than {least:.1f} "
        "times over the last three quarters: the train column may be in another unit, as a sum "
        "over micro-steps is.",
        ratio=float(np.median(ratio)), least=float(ratio.min()), **facts,
    )  # fmt: skip
