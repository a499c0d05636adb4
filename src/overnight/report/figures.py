"""Findings as PNG files, by matplotlib without a display."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from ..analysis.findings import Findings
from . import words

INK, TRAIN, VAL, LR = "#2b2f36", "#8a94a6", "#2f6fde", "#7a52c7"
Drawing = Any  # matplotlib Figure
HIGHEST = 1e15  # perplexity that is drawn; a logarithmic axis ends at 1e300


def _figure(rows: int = 1) -> tuple[Drawing, Any]:
    from matplotlib.figure import Figure  # no pyplot: no global state, no display

    figure = Figure(figsize=(8, 3.2 * rows + 0.6), dpi=120, layout="constrained")
    axes = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    for axis in axes:
        axis.grid(True, color="#e4e7ec", linewidth=0.7)
        axis.set_axisbelow(True)
        axis.tick_params(colors=INK, labelsize=9)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    axes[-1].set_xlabel("step")
    return figure, axes


def _nan(values: list[float | None]) -> list[float]:
    return [float("nan") if v is None else v for v in values]


def _series(f: Findings, name: str) -> tuple[list[int], list[float]]:
    return [e.step for e in f.evaluations], _nan([getattr(e, name) for e in f.evaluations])


def loss(f: Findings) -> Drawing:
    figure, (axis,) = _figure()
    c = f.curve
    if c.step:
        if c.rows_per_point > 1:
            axis.fill_between(c.step, _nan(c.low), _nan(c.high), color=TRAIN, alpha=0.2, lw=0)
        axis.plot(c.step, _nan(c.loss), color=TRAIN, lw=1, label="train (logged)")
    steps, val = _series(f, "val_loss")
    if steps:
        if f.noise.sigma is not None:
            s = 2 * f.noise.sigma
            low, high = [v - s for v in val], [v + s for v in val]
            axis.fill_between(steps, low, high, color=VAL, alpha=0.15, lw=0)
        axis.plot(steps, val, color=VAL, lw=1.6, marker="o", ms=3, label="validation")
    if f.best is not None:
        axis.plot([f.best.step], [f.best.loss], "*", color="#d9822b", ms=12, label="lowest")
    axis.set_ylabel(f"loss, {words.unit(f)}")
    if axis.has_data():
        axis.legend(frameon=False, fontsize=9)
    return figure


def gap(f: Findings) -> Drawing:
    figure, (upper, lower) = _figure(2)
    for name, color, label in (
        ("train_perplexity", TRAIN, "train"),
        ("val_perplexity", VAL, "validation"),
    ):
        steps, values = _series(f, name)
        values = [v if v < HIGHEST else float("nan") for v in values]
        if any(v == v for v in values):
            upper.plot(steps, values, color=color, marker="o", ms=3, label=label)
            upper.set_yscale("log")
    if upper.has_data():
        upper.legend(frameon=False, fontsize=9)
    upper.set_ylabel("perplexity")
    steps, values = _series(f, "gap")
    lower.axhline(0, color=INK, lw=0.8)
    lower.plot(steps, values, color=VAL, marker="o", ms=3)
    lower.set_ylabel("val − train, nats")
    return figure


def schedule(f: Findings) -> Drawing:
    figure, (axis,) = _figure()
    axis.plot(f.curve.step, _nan(f.curve.lr), color=LR, lw=1.6)
    axis.set_ylabel("learning rate")
    axis.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    return figure


def metrics(f: Findings) -> Drawing:
    figure, axes = _figure(4)
    c = f.curve
    for axis, name, label in zip(
        axes,
        ("loss", "lr", "tokens_per_s", "grad_norm"),
        ("train loss", "learning rate", "tokens/s", "gradient norm"),
        strict=True,
    ):
        axis.plot(c.step, _nan(getattr(c, name)), color=INK, lw=1)
        axis.set_ylabel(label)
    return figure


FIGURES: dict[str, Callable[[Findings], Drawing]] = {
    "train_val_loss.png": loss,
    "perplexity_gap.png": gap,
    "lr_schedule.png": schedule,
    "metrics.png": metrics,
}


def png(figure: Drawing) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
