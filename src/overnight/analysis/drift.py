"""Does the training loss rise in the last third? That is optimisation or data, not overfitting."""

from __future__ import annotations

import numpy as np

from .findings import Schedule, Verdict, make
from .noise import scatter
from .outliers import outliers
from .series import Series
from .tables import Array
from .trend import CHANGE, slope

FEWEST = 20
BINS = 60  # means of neighbouring rows: their scatter includes the slow wandering of a real run
USEFUL = 0.005  # nats over the last third


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
    x, y = _binned(steps[last], loss[last])
    noise = scatter(x, y)
    if not noise.known:
        return make("train_drift", "no", "The training loss does not change.", n=n)
    trend = slope(x, y, noise)
    estimator = "least squares slope of the training loss over the last third"
    facts = trend.facts() | {"n": n, "estimator": estimator}
    if trend.change_ci[0] > 0 and trend.change > USEFUL:
        falling = rates.decay_from is not None and rates.decay_from < trend.last
        while_lr = " while the learning rate fell" if falling else ""
        return make(
            "train_drift", "yes",
            f"It rose{while_lr}: {CHANGE}. Training loss cannot show overfitting; look at the "
            "optimisation and at the order of the data.",
            since_step=trend.first, lr_falling=falling, **facts,
        )  # fmt: skip
    return make("train_drift", "no", f"Last third: {CHANGE}.", **facts)


def _binned(steps: Array, loss: Array) -> tuple[Array, Array]:
    bins = min(BINS, len(steps))
    edges = np.linspace(0, len(steps), bins + 1).astype(int)[:-1]
    counts = np.diff(np.append(edges, len(steps)))
    return np.add.reduceat(steps, edges) / counts, np.add.reduceat(loss, edges) / counts
