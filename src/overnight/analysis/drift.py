"""Does the training loss rise in the last third? That is optimisation or data, not overfitting."""

from __future__ import annotations

from typing import Any

from .findings import Schedule, Verdict, make
from .noise import scatter
from .outliers import outliers
from .series import Series
from .tables import binned
from .trend import CHANGE, Slope, slope

FEWEST = 20
BINS = 60  # means of neighbouring rows: their scatter includes the slow wandering of a real run
USEFUL = 0.005  # nats over the last third
ALONE = 10  # a last tenth that alone makes it rise is no drift (2 to 8 rows, 3 nats up, did)


def train_drift(series: Series, rates: Schedule) -> Verdict:
    calm = ~outliers(series.train_loss)  # `spikes` tells of them
    steps, loss = series.train_steps[calm], series.train_loss[calm]
    last = steps >= (steps[0] + 2 * (steps[-1] - steps[0]) / 3) if series.train_n else steps > 0
    n = int(last.sum())
    if n < FEWEST:
        return make(
            "train_drift", "cannot_tell",
            "Too few training losses in the last third: {n}, at least {needed} are needed.",
            n=n, needed=FEWEST,
        )  # fmt: skip
    x, y = binned(steps[last], loss[last], min(BINS, n))
    noise = scatter(x, y)
    if not noise.known:
        return make("train_drift", "no", "The training loss does not change.", n=n)
    trend = slope(x, y, noise)
    estimator = "least squares slope of the training loss over the last third"
    facts = trend.facts() | {"n": n, "ends": n * trend.ends // len(x), "estimator": estimator}
    if trend.ci[0] > 0 and trend.change > USEFUL:
        before = slice(len(x) - len(x) // ALONE)
        rest = slope(x[before], y[before], scatter(x[before], y[before]))
        if rest.ci[0] <= 0:
            return _at_the_end(rest, facts)
        falling = rates.decay_from is not None and rates.decay_from < trend.last
        while_lr = " while the learning rate fell" if falling else ""
        return make(
            "train_drift", "yes",
            f"It rose{while_lr}: {CHANGE}. Training loss cannot show overfitting; look at the "
            "optimisation and at the order of the data.",
            since_step=trend.first, lr_falling=falling, **facts,
        )  # fmt: skip
    return make("train_drift", "no", f"Last third: {CHANGE}.", **facts)


def _at_the_end(rest: Slope, facts: dict[str, Any]) -> Verdict:
    """Where only the last rows are up: `rest` is the trend without them."""
    return make(
        "train_drift", "no",
        f"Last third: {CHANGE}; but the rows behind step {{rest_last:,}} alone make it rise, "
        "before them a line has {rest_per_1000:+.3g} per 1,000 steps.",
        rest_last=rest.last, rest_per_1000=rest.per_1000, **facts,
    )  # fmt: skip
