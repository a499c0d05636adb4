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
from .tables import finite
from .trend import CHANGE, recent, slope

FEWEST = 8
SHARE = 0.75  # the early part, where both fall steeply, says nothing of the gap
USEFUL = 0.01  # nats of change below which a trend does not matter
LOOSE = 0.1  # nats: an interval of the change wider than this excludes nothing


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
    noise = scatter(steps, gaps)
    facts = {
        "n": n,
        "mean": float(gaps.mean()),
        "mean_se": float(gaps.std(ddof=1) / np.sqrt(n)),  # where it does not change
        "lowest": float(gaps.min()),
        "highest": float(gaps.max()),
        "final": float(gaps[-1]),
        "estimator": f"least squares over the last three quarters; {series.gap_estimator}",
    }
    about = "mean gap of all {n} evaluations {mean:+.4f} nats, last {final:+.4f}"
    level = about.replace(" nats", " ± {mean_se:.4f} nats")
    if not noise.known:
        return make("gap", "stable", f"It does not change: {about}.", **facts)
    first = recent(steps, SHARE, FEWEST)
    trend = slope(steps[first:], gaps[first:], noise)
    facts = trend.facts() | facts
    without = left_out(alone)
    if series.gap_estimator == LAGS:
        lags = "; the train side is a mean over earlier steps, which lags while the loss falls"
        about, level = about + lags, level + lags
    if trend.change_ci[0] > 0 and trend.change > USEFUL:
        below = " It is still below 0." if gaps[-1] < 0 else ""
        return make("gap", "growing", f"It changed by {CHANGE}; {about}.{below}{without}", **facts)
    if trend.change_ci[1] < 0 and trend.change < -USEFUL:
        return make("gap", "shrinking", f"It changed by {CHANGE}; {about}.{without}", **facts)
    if max(map(abs, trend.change_ci)) <= LOOSE:
        return make("gap", "stable", f"Its change is {CHANGE}; {level}.{without}", **facts)
    why = f"Its change is {CHANGE}: too uncertain; {about}.{without}"
    return make("gap", "cannot_tell", why, **facts)
