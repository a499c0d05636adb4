"""The series that the verdicts look at: validation, train probe, gap, training loss; with noise."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .findings import Noise
from .noise import FEWEST, UNKNOWN, Scatter, scatter
from .outliers import spiked
from .readers.own import block_losses
from .tables import Array, Log, Mask, finite, of_finite, select

COVERED = 0.5  # of the evaluations, that one kind of train loss is there for
LAGS = "mean of the training rows since the evaluation before"


class Series:
    """Finite evaluations and training rows of a log, by step.

    `steps`, `val`, `val_se`, `bpb`: evaluations with a finite loss. `probe`: the train loss on
    the same footing (NaN where absent). `val_noise`: scatter of val about a smooth curve.
    """

    def __init__(self, log: Log) -> None:
        self.log = log
        keep = finite(log.eval["val_loss"])
        self.evals = select(log.eval, keep)
        self.steps, self.val = self.evals["step"], self.evals["val_loss"]
        self.val_se = self.evals["val_se"]
        self.bpb, self.bpb_se = self.evals["val_bpb"], self.evals["val_bpb_se"]
        self.n = len(self.steps)
        rows = finite(log.train["step"], log.train["loss"])
        self.train_steps, self.train_loss = log.train["step"][rows], log.train["loss"][rows]
        self.train_n = len(self.train_steps)
        self.probe, self.gap_estimator = self._probe()

    def _probe(self) -> tuple[Array, str]:
        """The train loss that a gap is computed from, and what it is."""
        if self.log.per_byte:
            return np.full(self.n, np.nan), "none"
        kinds = [
            (self.evals["probe_loss"], "train probe: fixed training blocks, evaluation mode"),
            (self._without_spikes(), "training loss logged with the evaluation"),
            (self.since_last[0], LAGS),
        ]
        for least in (COVERED * self.n, 1):
            for losses, estimator in kinds:
                if np.isfinite(losses).sum() >= max(least, 1):
                    return losses, estimator
        return kinds[-1][0], "none"

    @cached_property
    def _spiked(self) -> Mask:
        return spiked(self.train_loss)

    def _without_spikes(self) -> Array:
        """The train losses of evaluations, but for single ones far above their neighbours."""
        spikes = np.isin(self.steps, self.train_steps[self._spiked])
        return np.where(spikes, np.nan, self.evals["train_loss"])

    @cached_property
    def since_last(self) -> tuple[Array, NDArray[np.int_]]:
        """Of each evaluation the mean of the training losses since the one before, without single
        spikes, which shows a jump that single rows hide; and how many these are."""
        steps, losses = self.train_steps[~self._spiked], self.train_loss[~self._spiked]
        ends = np.searchsorted(steps, self.steps, side="right")
        counts = np.diff(ends, prepend=0)
        with np.errstate(invalid="ignore"):
            sums = np.diff(np.concatenate([[0.0], np.cumsum(losses)])[ends], prepend=0.0)
            return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan), counts

    @cached_property
    def val_noise(self) -> Scatter:
        return scatter(self.steps, self.val) if self.n else UNKNOWN

    @cached_property
    def train_noise(self) -> Scatter:
        return scatter(self.train_steps, self.train_loss) if self.train_n else UNKNOWN

    @cached_property
    def gap(self) -> Array:
        return self.val - self.probe

    @cached_property
    def blocks(self) -> dict[int, Array]:
        """Evaluation index → mean validation loss per block, where all share their blocks.

        Read only for contenders: evaluations within 20 standard errors of the lowest."""
        if self.log.folder is None or self.n < 2:
            return {}
        lowest = int(np.argmin(self.val))
        reach = 20 * np.nan_to_num(self.val_se[lowest])
        near = np.flatnonzero(self.val <= self.val[lowest] + reach)
        near = np.union1d(near, [self.n - 1, lowest])
        found: dict[int, Array] = {}
        for i in near:
            step, attempt = int(self.steps[i]), int(self.evals["attempt"][i])
            losses = block_losses(self.log, step, attempt, float(self.val[i]))
            if losses is not None and len(losses) > 1 and np.isfinite(losses).all():
                found[int(i)] = losses
        if lowest not in found:
            return {}
        size = len(found[lowest])
        return {i: losses for i, losses in found.items() if len(losses) == size}

    @property
    def paired(self) -> bool:
        return len(self.blocks) >= 2

    def difference_se(self, i: int) -> float:
        """Standard error of val[i] − the lowest, over the blocks both were evaluated on."""
        lowest = int(np.argmin(self.val))
        if i not in self.blocks or lowest not in self.blocks:
            return float("nan")
        difference = self.blocks[i] - self.blocks[lowest]
        return float(np.std(difference, ddof=1) / np.sqrt(len(difference)))

    @cached_property
    def noise(self) -> Noise:
        """The finding about noise."""
        val_noise, train = self.val_noise, self.train_noise
        pairs = [self.difference_se(i) for i in self.blocks]
        pairs = [p for p in pairs if np.isfinite(p) and p > 0]
        method = "scatter about a smooth curve over the last three quarters of the evaluations"
        if self.n < FEWEST:
            method = f"fewer than {FEWEST} evaluations: their scatter cannot be estimated"
        elif not val_noise.known:
            method = "the last three quarters are equal: their scatter cannot be estimated"
        elif val_noise.exact:
            method = "what rounding leaves of evaluations that lie on a smooth curve"
        return Noise(
            sigma=val_noise.sigma if val_noise.known else None,
            rho=val_noise.rho if val_noise.known else None,
            n=val_noise.n,
            degrees=val_noise.degrees if val_noise.known else None,
            method=method,
            text_se=of_finite(np.median, self.val_se),
            paired_se=float(np.median(pairs)) if pairs else None,
            train_sigma=train.sigma if train.known else None,
        )
