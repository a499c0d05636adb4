"""Curve and noise of a series told apart: one model, from which every interval is made.

Each value minus the straight line through its neighbours is a contrast (Gasser, Sroka &
Jennen-Steinmetz 1986), on the scale of steps on which the curve is straightest. What bend is left
gives the curve's contrasts the variance λσ², as in a smoothing spline (Wahba 1978); the noise, of
variance σ², has lag-1 correlation ρ, since the weights move little between two evaluations.

A short log shows neither ρ nor λ, so neither is plugged in: ρ, log λ and log σ are equally likely
at first, and all that is said is averaged over what the contrasts leave probable. ρ may be
negative, because a grid that ended at 0 would overstate it wherever it is 0. Such intervals hold
the curve as often as they say, on average over its points (Nychka 1988); and a value that was
selected for being low is pulled back by as much as it was probably lucky.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .tables import Array

POWERS = (1.0, 0.0, -0.5, -1.0)  # of the steps; 0: logarithm
# A wider grid of ρ or a smaller least λ widens every interval: these ends were chosen on simulated
# runs for coverage at ρ = 0 and at ρ = 0.3 (docs/lab-notes.md, E08).
RHOS = np.linspace(-0.5, 0.8, 14)
ROUGHNESS = np.logspace(-3, 0, 7)  # λ
CLIP = 4.5  # medians (3σ of normal noise): a contrast beyond is a turn, a bump or a spike
LONGEST = 200  # values that are looked at together; a longer series is cut into
PIECES = 40  # pieces, of which so many, evenly spread, are used
ROUNDING = 1e-12  # of the values: what their subtraction leaves where they are equal
SCALE = np.sqrt(1.5)  # of a contrast among even steps


@dataclass(frozen=True)
class Smooth:
    """What a series leaves probable: `weight` over (ρ, λ) and, at each, the noise's `variance`."""

    values: Array
    contrasts: Array  # pieces × contrasts
    weight: Array
    variance: Array

    @property
    def sigma(self) -> float:
        """The noise's σ from its mean precision: with ρ and λ known, the textbook's estimate."""
        if not self.variance.all():
            return 0.0
        return float(1 / np.sqrt((self.weight / self.variance).sum()))

    @property
    def rho(self) -> float:
        return float(self.weight.sum(axis=1) @ RHOS)

    @property
    def variances(self) -> Array:
        """For each ρ the expected σ², times its probability."""
        return np.asarray((self.weight * self.variance).sum(axis=1))

    def level(self, at: int) -> tuple[float, float]:
        """(the curve at index `at`, standard error): the value without its probable luck. For up
        to LONGEST values."""
        spectrum, modes, shared = _modes(self.contrasts.shape[1])
        amplitudes = np.einsum("c,rcm->rm", self.contrasts[0], modes)[:, None]
        own = np.einsum("rc,rcm->rm", shared[:, :, at], modes)[:, None]
        scale = spectrum[:, None] + ROUGHNESS[:, None]
        luck = (own * amplitudes / scale).sum(axis=2)
        left = self.variance * np.maximum(1 - (own**2 / scale).sum(axis=2), 0.0)
        expected = float((self.weight * luck).sum())
        spread = float((self.weight * (left + (luck - expected) ** 2)).sum())
        return float(self.values[at]) - expected, float(np.sqrt(spread))


def smooth(steps: Array, values: Array) -> Smooth:
    """The model of `values` (at least four, finite) at increasing `steps`. Its covariances are
    those among even steps."""
    candidates = [_contrasts(_bend(steps, power), values) for power in POWERS]
    contrasts = _clipped(min(candidates, key=lambda c: float(np.median(np.abs(c)))), values)
    size = min(len(contrasts), LONGEST - 2)
    pieces = contrasts[len(contrasts) % size :].reshape(-1, size)
    pieces = pieces[:: -(-len(pieces) // PIECES)]
    spectrum, modes, _ = _modes(size)
    energy = ((pieces @ modes) ** 2).sum(axis=1)[:, None]
    scale = spectrum[:, None] + ROUGHNESS[:, None]
    variance = (energy / scale).sum(axis=2) / pieces.size
    # σ is integrated out: Student's t with as many degrees of freedom as contrasts.
    likely = -len(pieces) * np.log(scale).sum(axis=2) / 2
    likely -= pieces.size * np.log(np.maximum(variance, np.finfo(float).tiny)) / 2
    weight = np.exp(likely - likely.max())
    return Smooth(values, pieces, weight / weight.sum(), variance)


def _bend(x: Array, power: float) -> Array:
    """Steps on the scale x^power (0: logarithm), on which a power law is straight."""
    x = np.maximum(x, 1.0)
    return np.log(x) if power == 0 else np.asarray(x**power)


def _contrasts(x: Array, y: Array) -> Array:
    """Each value minus the straight line through its neighbours, scaled so that independent noise
    of variance σ² gives variance σ²."""
    width = x[2:] - x[:-2]
    w = np.divide(x[1:-1] - x[:-2], width, out=np.full(len(width), 0.5), where=width != 0)
    contrast = y[1:-1] - (1 - w) * y[:-2] - w * y[2:]
    return np.asarray(contrast / np.sqrt(1 + w**2 + (1 - w) ** 2))


def _clipped(contrasts: Array, values: Array) -> Array:
    """Without the size of turns and spikes; as they are where most are 0, as in a rounded log."""
    most = CLIP * float(np.median(np.abs(contrasts)))
    if most < ROUNDING * float(np.abs(values).max()):
        return contrasts
    return np.clip(contrasts, -most, most)


@lru_cache(maxsize=32)
def _modes(size: int) -> tuple[Array, Array, Array]:
    """For every ρ the contrasts' covariance with unit noise, as eigenvalues and eigenvectors, and
    the covariance of each contrast with the noise of each value."""
    lags = np.abs(np.subtract.outer(np.arange(size + 2), np.arange(size + 2)))
    noise = RHOS[:, None, None] ** lags
    shared = (noise[:, 1:-1] - (noise[:, :-2] + noise[:, 2:]) / 2) / SCALE
    ours = (shared[:, :, 1:-1] - (shared[:, :, :-2] + shared[:, :, 2:]) / 2) / SCALE
    spectrum, modes = np.linalg.eigh(ours)
    return spectrum, modes, shared
