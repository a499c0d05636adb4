"""The expected validation loss at the planned end, and how earlier forecasts came true.

The loss law with learning-rate annealing (Tissue, Wang & Wang 2024): L = L₀ + A·S₁^−α − C·S₂, S₁
the sum of the learning rates so far and S₂ what annealing has taken off them. Few evaluations
cannot fix five numbers, so α and C run over a grid; each pair's L₀ and A follow by least squares,
and the pairs are weighted by how well they fit. The interval is that mixture's, with the noise of
the evaluation that is forecast and DOUBT about the fall. Its calibration is not known yet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from .. import config, schedule
from .findings import Forecast, Score
from .noise import scatter
from .series import Series
from .tables import Array, Log

FEWEST = 8  # evaluations after the warm-up
EARLIEST = 0.2  # of the planned steps
ALPHAS = np.array([0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0, 1.3])
GAINS = np.array([0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3])  # nats, if all is annealed
MISFIT = 1.5  # the law is not exact: residuals may be this many σ
DOUBT = 0.5  # and the fall still to come may be off by this share of it (as in three real runs)
HINDCASTS = (0.4, 0.6, 0.8)  # of the run: what would have been said then
MAX_STEPS = 10**7  # of a plan that is drawn step by step; a damaged log may claim any number
GRID = 20_000  # of them the rate is computed for; in between it is a line
CALIBRATION = "unknown: there are not yet enough finished runs to compare intervals with"


@dataclass(frozen=True)
class Guess:
    value: float
    low: float
    high: float
    no_change: float
    power_law: float


def forecast(log: Log, series: Series, planned: int | None) -> Forecast:
    """Made on a live run, refused with a reason, or for a finished run what it would have said."""
    if not series.n:
        return _refused("No forecast: there is no validation loss.")
    if planned is None:
        return _refused("No forecast: the log does not say at which step the run is to end.")
    rates, last = planned_rates(log.config, planned), int(series.steps[-1])
    scores = _scores(log, series, planned, rates) if rates is not None else []
    trained = series.train_steps[-1] if series.train_n else last
    if max(last, trained) >= planned:
        return Forecast(
            status="finished",
            reason="The run is at its end, so there is nothing left to forecast.",
            calibration=CALIBRATION,
            scores=scores,
        )
    if log.session and log.session[-1].get("reason") == "finished":
        return Forecast(
            status="finished",
            reason="The run was ended before its planned end, so there is nothing to forecast.",
            calibration=CALIBRATION,
        )
    if rates is None:
        return _refused("No forecast: the learning rate of the rest of the run is not known.")
    guess, reason = _guess(series.steps, series.val, planned, rates, series.val_noise.sigma)
    if guess is None:
        return _refused(reason, scores)
    return Forecast(
        status="made",
        reason="Made from the evaluations so far and the learning rate still to come.",
        made_at=last,
        for_step=planned,
        value=guess.value,
        low=guess.low,
        high=guess.high,
        no_change=guess.no_change,
        power_law=guess.power_law,
        method="loss law with annealing (Tissue 2024), averaged over its exponents",
        calibration=CALIBRATION,
        scores=scores,
    )


SHAPED_BY = {"cosine": ("min_ratio",), "linear": ("min_ratio",), "wsd": ("min_ratio", "decay")}


def planned_rates(settings: dict[str, Any] | None, steps: int) -> Array | None:
    """The learning rate of steps 1…`steps` as a share of the peak, by the settings of a run; None
    where they do not say: what another tool leaves out is not what is left out here."""
    section = (settings or {}).get("schedule")
    if not isinstance(section, dict) or "kind" not in section or not 1 <= steps <= MAX_STEPS:
        return None
    if not {"warmup", *SHAPED_BY.get(str(section["kind"]), ())} <= set(section):
        return None
    try:
        own = msgspec.convert(section, config.Schedule)
    except msgspec.ValidationError:
        return None
    known = np.linspace(1, steps, min(steps, GRID)).astype(int)
    known = np.unique([*known, np.clip(own.warmup, 1, steps)])  # the peak among them
    rates = [schedule.rate(own, step, steps) for step in known.tolist()]
    return np.asarray(np.interp(np.arange(1, steps + 1), known, rates))


def _refused(reason: str, scores: list[Score] | None = None) -> Forecast:
    return Forecast(status="refused", reason=reason, scores=scores or [])


def _guess(
    steps: Array, val: Array, planned: int, rates: Array, sigma: float
) -> tuple[Guess | None, str]:
    """A forecast of the value at `planned`, or None and why not. `rates`: of steps 1…planned."""
    peak = int(np.argmax(rates)) + 1
    keep = (steps >= peak) & (steps > 0)
    if keep.sum() < FEWEST:
        return None, (
            f"No forecast: at least {FEWEST} evaluations after the warm-up are needed, there are "
            f"{int(keep.sum())}."
        )
    if steps[-1] < EARLIEST * planned:
        return None, f"No forecast before {100 * EARLIEST:.0f} % of the planned steps."
    if not np.isfinite(sigma) or sigma <= 0:
        return None, "No forecast: the noise of an evaluation is not known."
    s, y = steps[keep], val[keep]
    at = np.append(s, planned).astype(int) - 1
    # S₁ normalised to 1 at the end; S₂ as the share of the peak that is gone (momentum of
    # annealing is short against a run of this size).
    forward = np.cumsum(rates) / rates.sum()
    taken = 1 - rates / rates.max()
    taken[: int(np.argmax(rates))] = 0.0
    value, low, high = _mixture(forward[at], taken[at], y, sigma)
    plain, _, _ = _mixture(at / planned, np.zeros(len(at)), y, sigma)
    return Guess(value, low, high, float(y[-1]), plain), ""


def _mixture(forward: Array, taken: Array, y: Array, sigma: float) -> tuple[float, float, float]:
    """(median, 2.5 %, 97.5 %) of the last point's value, over exponents and annealing gains."""
    gains = GAINS if taken.any() else GAINS[:1]
    means, spreads, fits = [], [], []
    error = MISFIT * sigma
    for alpha in ALPHAS:
        basis = np.column_stack([np.ones(len(forward)), forward**-alpha])
        past, end = basis[:-1], basis[-1]
        covariance = np.linalg.inv(past.T @ past + 1e-9 * np.eye(2))
        for gain in gains:
            coefficients = covariance @ past.T @ (y + gain * taken[:-1])
            residual = y + gain * taken[:-1] - past @ coefficients
            if coefficients[1] < 0:
                continue
            means.append(end @ coefficients - gain * taken[-1])
            fall = DOUBT * (y[-3:].mean() - means[-1])
            spreads.append(np.hypot(error * np.sqrt(1 + end @ covariance @ end), fall))
            fits.append(-0.5 * float(residual @ residual) / error**2)
    if not means:  # no falling curve fits: the last level stays
        return float(y[-3:].mean()), float(y[-1] - 4 * error), float(y[-1] + 4 * error)
    weights = np.exp(np.array(fits) - max(fits))
    draws = np.random.default_rng(0).standard_normal((len(means), 400))
    values = (np.array(means)[:, None] + np.array(spreads)[:, None] * draws).ravel()
    order = np.argsort(values)
    share = np.cumsum(np.repeat(weights / weights.sum() / 400, 400)[order])
    low, middle, high = (values[order][np.searchsorted(share, q)] for q in (0.025, 0.5, 0.975))
    return float(middle), float(low), float(high)


def _scores(log: Log, series: Series, planned: int, rates: Array) -> list[Score]:
    """Earlier forecasts for a step that has since been evaluated, and hindcasts at HINDCASTS."""
    actual = dict(zip(series.steps.tolist(), series.val.tolist(), strict=True))
    found = []
    for made in log.forecasts:
        try:
            past = msgspec.convert(made, Forecast)
        except msgspec.ValidationError:
            continue
        if past.for_step is None or past.value is None or past.made_at is None:
            continue
        if past.for_step in actual:
            others = (past.low, past.high, past.no_change, past.power_law)
            kept = Guess(past.value, *(math.nan if v is None else v for v in others))
            found.append(score(kept, past.made_at, past.for_step, actual[past.for_step]))
    if planned in actual and not found:
        for share in HINDCASTS:
            known = series.steps <= share * planned
            if known.sum() < FEWEST:
                continue
            steps, val = series.steps[known], series.val[known]
            guess, _ = _guess(steps, val, planned, rates, scatter(steps, val).sigma)
            if guess is not None:
                found.append(score(guess, int(steps[-1]), planned, actual[planned]))
    return found


def score(guess: Guess, made_at: int, for_step: int, actual: float) -> Score:
    """Error, coverage, interval score at 95 % (Gneiting & Raftery 2007), skill against the two
    baselines: 1 − |error| / |their error|; the sign says which way it went."""
    inside = guess.low <= actual <= guess.high
    known = bool(np.isfinite(guess.low) and np.isfinite(guess.high))
    width = guess.high - guess.low
    missed = max(guess.low - actual, actual - guess.high, 0.0)
    return Score(
        made_at=made_at,
        for_step=for_step,
        value=guess.value,
        low=guess.low if known else None,
        high=guess.high if known else None,
        actual=actual,
        error=actual - guess.value,
        inside=inside if known else None,
        interval_score=width + missed * 2 / 0.05 if known else None,
        skill_no_change=_skill(actual, guess.value, guess.no_change),
        skill_power_law=_skill(actual, guess.value, guess.power_law),
    )


def _skill(actual: float, value: float, baseline: float) -> float | None:
    other = abs(actual - baseline)
    return 1 - abs(actual - value) / other if np.isfinite(other) and other > 0 else None


def made(forecast: Forecast) -> dict[str, Any]:
    """What is kept of a forecast to score it later."""
    return {
        name: getattr(forecast, name)
        for name in ("made_at", "for_step", "value", "low", "high", "no_change", "power_law")
    } | {"status": "made", "reason": ""}
