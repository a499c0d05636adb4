"""Harm: has validation got worse beyond noise, and since when?

The null hypothesis is every curve that never rises, a plateau included. Any contrast with weights
that do not decrease has an expected value of at most 0 on such a curve (Chebyshev's sum
inequality), so a positive one is evidence of a rise wherever the curve came from. The test takes
the largest z of the linear trends over the last m evaluations, for every m: that scans the onset,
and because its critical value belongs to the maximum, no minimum is selected outside the test. The
noise is that of `noise.scatter`, correlation included. `critical` and `p_value` come from
simulated plateaus, which are the curves that never rise on which the maximum is largest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

from .findings import Verdict, make
from .noise import Scatter, scatter
from .outliers import left_out, outliers
from .series import Series
from .tables import Array, Mask, binned

FEWEST = 8  # evaluations below which nothing is said
ENOUGH = 10  # evaluations from which on "no" can be said
SHORTEST = 4  # evaluations in the shortest trend
LONGEST = 400  # evaluations scanned; longer series are averaged down to it
ABOVE = 2.75  # σ by which the last two have to be above the lowest, or
ABOVE_LEVEL = 2.5  # standard errors between the levels: a bump that died away is not harm
NEAR = 3  # evaluations that a level is a mean of, at most
JUMP = 8.0  # σ above the lowest, where what follows it is no more of its level
DECIDES = 3  # evaluations of which the lowest is the last: nothing rose, however few they are
DENSE = 4  # training rows from one evaluation to the next, whose means say more than single ones


# Looking again after every evaluation finds a rise in two of three plateaus of 120 evaluations
# sooner or later. With these the whole run has under 5 % of it (200 simulated plateaus of 40 and of
# 120 evaluations), and harm that goes on is proven some evaluations later.
WATCHED, WATCHED_FEWEST = 5.5, 12


def proven(verdict: Verdict) -> bool:
    """Whether harm is sure enough to stop a run that is looked at after every evaluation."""
    sure = verdict.evidence.get("z", 0.0) > WATCHED and verdict.n >= WATCHED_FEWEST
    return verdict.verdict == "yes" and sure


def stop_reason(steps: list[int], losses: list[float]) -> str:
    """Why a run should stop now, in one sentence, or '' to go on. `losses`: validation, nats, of
    every evaluation so far by increasing step; to be asked after each of them."""
    found = harm(np.asarray(steps, float), np.asarray(losses, float))
    if not proven(found):
        return ""
    known = found.evidence
    return (
        f"validation rose from {known['lowest']:.4f} at step {known['lowest_step']:,} to "
        f"{known['final']:.4f} at step {known['final_step']:,}, beyond noise even for one who "
        f"looks after every evaluation (z = {known['z']:.1f}, needed {WATCHED})"
    )


def harm(
    steps: Array,
    losses: Array,
    noise: Scatter | None = None,
    difference_se: float | None = None,
) -> Verdict:
    """Whether `losses` (validation, nats, by increasing `steps`) got worse: a verdict `harm`.

    `noise` is estimated from the series where it is not given. `difference_se` is the standard
    error of the last loss minus the lowest over shared blocks: it widens the interval of the
    effect, which speaks about other text of the same kind.

    The verdict is for one look at a log. Early stopping looks again and again: use `proven`.
    """
    steps, losses = np.asarray(steps, float), np.asarray(losses, float)
    keep = np.isfinite(steps) & np.isfinite(losses)
    steps, losses = steps[keep], losses[keep]
    if (alone := outliers(losses)).any():
        return _without(alone, steps, losses, difference_se)
    if len(losses) < FEWEST:
        return _few(steps, losses)
    noise = noise or scatter(steps, losses)
    logged = _logged(steps, losses, noise)
    if len(losses) > LONGEST:
        steps, losses = binned(steps, losses, LONGEST)
        noise = scatter(steps, losses)
    if not noise.known:
        return _still(losses, logged)
    z, p = rise(losses, noise)
    lowest = int(np.argmin(losses))
    effect, effect_noise = above_lowest(losses, lowest, noise)
    effect_se = effect_noise
    if difference_se is not None and np.isfinite(difference_se):
        effect_se = float(np.hypot(effect_se, difference_se))
    shown = logged | {
        "effect_nats": effect,
        "ci": (effect - noise.reach * effect_se, effect + noise.reach * effect_se),
        "p": p,
        "p_raw": p,
        "estimator": "largest trend over the last m evaluations, every m",
        "z": z,
        "critical": critical(logged["n"]),
        "rho": noise.rho,
    }
    later = len(losses) - 1 - lowest
    return _judged(shown, later, _still_up(losses, lowest, effect, effect_noise, noise))


def _without(alone: Mask, steps: Array, losses: Array, difference_se: float | None) -> Verdict:
    """Without evaluations that stand `alone`: one of them is no trend. What the last one alone
    says, the next one will tell."""
    if alone[-1] or alone[np.argmin(losses)]:
        difference_se = None  # it is of these two
    found = harm(steps[~alone], losses[~alone], difference_se=difference_se)
    found.evidence["left_out"] = int(alone.sum()) + found.evidence.get("left_out", 0)
    found.because += left_out(alone)
    if found.verdict == "no" and alone[-1] and losses[-1] > losses[-2]:
        found.verdict = "cannot_tell"
        found.because = (
            f"The last evaluation, {losses[-1]:.4f} at step {int(steps[-1]):,}, is far from those "
            "before it, which show no rise; the next one would tell."
        )
    return found


def _few(steps: Array, losses: Array) -> Verdict:
    """Of fewer than FEWEST: nothing rose where the last is the lowest, and no more can be said."""
    facts: dict[str, Any] = {"n": len(losses), "estimator": "trend of validation"}
    if len(losses) >= DECIDES and np.argmin(losses) == len(losses) - 1:
        facts |= {"final": float(losses[-1]), "final_step": int(steps[-1])}
        return make("harm", "no", LAST_LOWEST, **facts)
    why = "Too few evaluations: {n}, at least {needed} are needed."
    return make("harm", "cannot_tell", why, needed=FEWEST, **facts)


LAST_LOWEST = "The last evaluation, {final:.4f} at step {final_step:,}, is the lowest of {n}."


def _still(losses: Array, logged: dict[str, Any]) -> Verdict:
    """Where the last three quarters are equal, so that nothing is known of noise."""
    risen = losses[-1] > losses.min()
    why = "The last evaluations are all {final:.4f}, the lowest of {n}."
    if not np.ptp(losses):
        why = "Validation does not change at all over {n} evaluations."
    elif risen:
        why = (
            "The last evaluations are all {final:.4f}, above {lowest:.4f} at step {lowest_step:,}; "
            "without any scatter it is not known what that means."
        )
    verdict = "cannot_tell" if risen else "no"
    return make("harm", verdict, why, estimator="trend of validation", **logged)


def _logged(steps: Array, losses: Array, noise: Scatter) -> dict[str, Any]:
    """What is shown as it was logged, also where means are tested."""
    at = int(np.argmin(losses))
    return {
        "n": len(losses),
        "sigma": noise.sigma,
        "lowest_step": int(steps[at]),
        "lowest": float(losses[at]),
        "final": float(losses[-1]),
        "final_step": int(steps[-1]),
    }


def _judged(shown: dict[str, Any], later: int, still_up: bool) -> Verdict:
    """`later`: how many evaluations came after the lowest one. If none did, nothing rose."""
    rises, verdict, since = shown["z"] > shown["critical"] and later > 0, "no", None
    if rises and later == 1:
        verdict, shown = "cannot_tell", shown | {"last_alone": 1}
        because = (
            "The last evaluation, {final:.4f} at step {final_step:,}, alone is above the lowest, "
            "{lowest:.4f} right before it; the next one would tell."
        )
    elif rises and still_up:
        verdict, since = "yes", shown["lowest_step"]
        because = (
            "Validation rose from {lowest:.4f} at step {lowest_step:,} to {final:.4f} at step "
            "{final_step:,}: by {effect_nats:+.4f} nats between means of up to three evaluations "
            "there and at the end, as one scatters by σ = {sigma:.4f}; beyond noise (z = {z:.1f}; "
            "noise alone stays under {critical:.1f})."
        )
    elif rises:
        verdict = "cannot_tell"
        because = (
            "It rose (z = {z:.1f}; noise alone stays under {critical:.1f}), but the end is back "
            "within noise of the lowest level ({effect_nats:+.4f} nats, σ = {sigma:.4f})."
        )
    elif shown["lowest_step"] == shown["final_step"]:
        because = LAST_LOWEST
    elif shown["n"] < ENOUGH:
        verdict = "cannot_tell"
        because = (
            "No rise beyond noise (σ = {sigma:.4f}), but {n} evaluations would not show a small "
            "one."
        )
    else:
        because = (
            "No rise beyond noise: the mean of the last ones is {effect_nats:+.4f} nats from that "
            "around the lowest, and one evaluation scatters by σ = {sigma:.4f} (z = {z:.1f}; noise "
            "alone stays under {critical:.1f})."
        )
    return make("harm", verdict, because, since_step=since, **shown)


def rise(losses: Array, noise: Scatter) -> tuple[float, float]:
    """The largest z over the trends of the last m values, m from SHORTEST to all; and its p
    against no rise at all."""
    back = losses[::-1] - losses[-1]
    m = np.arange(1, len(back) + 1)
    # Σ over the last m values of (centred index)·value, from two running sums.
    ramp = (m - 1) / 2 * np.cumsum(back) - np.cumsum(np.arange(len(back)) * back)
    variance = noise.variances @ _ramp_variance(len(back), noise.rhos)
    z = float((ramp[SHORTEST - 1 :] / np.sqrt(variance[SHORTEST - 1 :])).max())
    return z, p_value(z, len(losses), noise.degrees)


def critical(n: int) -> float:
    """The z that a plateau of `n` evaluations exceeds in 2–4 % of runs at ρ = 0 and in 4–9 % at
    ρ = 0.3 (1,500 simulated plateaus for each of n = 8 … 200)."""
    return 3.3 - 8.0 / max(n, 12)


def p_value(z: float, n: int, degrees: float) -> float:
    """Share of plateaus of `n` evaluations whose largest trend exceeds `z`: Student's tail times
    the effective number of trends, which the same simulations show to be about n/5."""
    return float(min(1.0, n / 5 * stats.t.sf(z, max(degrees, 2.0))))


def _ramp_variance(n: int, rhos: Array) -> Array:
    """Variance of Σ (i − (m−1)/2)·x_i, i < m, for each ρ and m = 1…n: unit noise of lag-1 corr. ρ.

    It is Σ_k ρ^|k|·A_m(k), and the autocorrelation of a centred ramp is a cubic in m and k.
    """
    lag = np.arange(n)
    left = np.maximum(np.arange(1, n + 1)[:, None] - lag, 0)
    auto = left * (left**2 - 1 - 3 * lag**2) / 12
    return np.asarray(2 * rhos[:, None] ** lag @ auto.T - auto[:, 0])


def above_lowest(losses: Array, lowest: int, noise: Scatter) -> tuple[float, float]:
    """(level at the end − level at the lowest, its standard error)."""
    weights = above_lowest_weights(len(losses), lowest, _beside(losses, lowest, noise))
    return float(weights @ losses), noise.se(weights)


def above_lowest_weights(n: int, lowest: int, near: int = NEAR) -> Array:
    """Mean at the end minus mean from the lowest on: of up to three values each (`near` of them
    there), none in both, so that neither the luck of the minimum nor that of the last evaluation
    counts in full. What stands before the lowest may be of the steep fall."""
    weights = np.zeros(n)
    if lowest == n - 1:
        return weights
    end = max(n - NEAR, lowest + 1)
    weights[end:] = 1 / (n - end)
    low = slice(lowest, min(lowest + near, end))
    weights[low] = -1 / (low.stop - low.start)
    return weights


def _beside(losses: Array, lowest: int, noise: Scatter) -> int:
    """How many values from the lowest on are of its level: where the loss jumps up right behind it,
    a mean with what it jumped to may be above the end (-0.0354 nats, "beyond noise")."""
    far = np.flatnonzero(losses[lowest : lowest + NEAR] > losses[lowest] + JUMP * noise.sigma)
    return int(far[0]) if len(far) else NEAR


def _still_up(losses: Array, lowest: int, effect: float, effect_se: float, noise: Scatter) -> bool:
    """Whether the end lies above the lowest: its last two values, or its level."""
    above = float(losses[-2:].mean() - losses[lowest])
    return effect > 0 and (above > ABOVE * noise.sigma or effect > ABOVE_LEVEL * effect_se)


def overfitting(series: Series, gaps: Verdict) -> Verdict:
    """Harm on validation, unless the train loss got worse with it: then it is not overfitting."""
    if not series.n:
        return make(
            "overfitting", "cannot_tell",
            "There is no validation loss; training loss cannot show overfitting.",
            estimator="none",
        )  # fmt: skip
    paired = series.difference_se(series.n - 1) if series.paired else None
    found = harm(series.steps, series.val, series.val_noise, paired)
    if paired is not None:
        found.evidence["paired_se"] = paired
    found.evidence["gap"] = gaps.verdict
    found.id = "overfitting"
    later = series.log.eval["val_loss"][series.log.eval["step"] > series.steps[-1]]
    if np.isinf(later).any() or (len(later) and series.log.folder is not None):
        found.because += " Later evaluations are not finite."
    if found.verdict != "yes" or series.gap_estimator == "none":
        return found
    train, dense = _train_levels(series)
    change = _train_change(series, train)
    return found if change is None else _with_train(found, *change, dense)


def _with_train(found: Verdict, grown: float, room: float, dense: bool) -> Verdict:
    """What a `yes` becomes beside a train loss that has `grown` by so much, 95 % within `room`."""
    low, high = grown - room, grown + room
    found.evidence |= {"train_change": grown, "train_change_low": low, "train_change_high": high}
    both = found.effect_nats and grown > 0.5 * found.effect_nats
    because = (
        f"the train loss changed by {grown:+.4f} nats, averaged up to the same evaluations "
        f"(95 %: {low:+.4f} to {high:+.4f})"
    )
    if both and low > 0:
        found.verdict, found.since_step = "no", None
        found.because += f" But {because}: both got worse, which is not overfitting."
    elif both:
        if dense:  # no more rows will tell
            found.verdict, found.since_step = "cannot_tell", None
        found.because += f" Whether train got worse, too, is lost in its noise: {because}."
    else:
        found.because += f" Meanwhile {because}."
    return found


def _train_levels(series: Series) -> tuple[Array, bool]:
    """The train loss at each evaluation, and whether it is of many rows: the fixed probe where
    there is one; else the mean of the training rows since the evaluation before; else what is
    logged with the evaluation."""
    means, counts = series.since_last
    if series.probe is series.evals["probe_loss"] or np.median(counts) < DENSE:
        return series.probe, False
    return means, True


def _train_change(series: Series, train: Array) -> tuple[float, float] | None:
    """(what the train loss changed by between the evaluations that harm is measured between, half
    of its 95 % interval, by its own noise); None where too few were logged."""
    calm = ~outliers(series.val)
    steps, val, train = series.steps[calm], series.val[calm], train[calm]
    if len(val) > LONGEST:
        _, train = binned(steps, train, LONGEST)
        steps, val = binned(steps, val, LONGEST)
    lowest = int(np.argmin(val))
    weights = above_lowest_weights(len(val), lowest, _beside(val, lowest, scatter(steps, val)))
    logged = np.isfinite(train)
    up, down = (np.maximum(side * weights[logged], 0.0) for side in (1, -1))
    noise = scatter(steps[logged], train[logged])
    if not up.any() or not down.any() or noise.n < FEWEST:
        return None
    weights = up / up.sum() - down / down.sum()
    return float(weights @ train[logged]), noise.reach * noise.se(weights)
