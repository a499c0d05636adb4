"""Tables in, findings out: every analysis once, in the order in which they build on each other."""

from __future__ import annotations

from typing import Any

from . import best as best_of
from . import facts
from .advice import advise
from .findings import SCHEMA, VALIDATION, Best, Findings
from .forecast import forecast
from .ledger import ledger
from .schedule import schedule
from .series import Series
from .tables import Log
from .verdicts import judge, open_questions, trends
from .yardsticks import yardsticks


def analyse(log: Log) -> Findings:
    """The findings of one log."""
    planned = facts.planned_steps(log)
    about = facts.about(log, planned)
    if about.incomparable is not None:
        log = facts.without_bits(log)
    series = Series(log)
    counted = ledger(log)
    rates = schedule(log.train, log.config, planned)
    verdicts = trends(log, series, rates, about)
    risen = next(v for v in verdicts if v.id == "overfitting").verdict == "yes"
    found_best = _best(log, series, risen)
    if found_best is not None and log.per_byte:
        found_best.perplexity = None
    whole = facts.whole(log)
    stale = whole and found_best and whole.step not in (found_best.pick, *found_best.tied_steps)
    valid = None if stale else whole  # a later session has found a better step
    measured = yardsticks(log, found_best, valid)
    foreseen = forecast(log, series, planned)
    verdicts += judge(log, series, counted, found_best, valid, rates, measured, about)
    return Findings(
        schema=SCHEMA,
        source=facts.source(log),
        about=about,
        ledger=counted,
        noise=series.noise,
        best=found_best,
        whole=valid,
        schedule=rates,
        yardsticks=measured,
        forecast=foreseen,
        verdicts=verdicts,
        advice=advise(verdicts, about, counted, rates, found_best),
        cannot_conclude=open_questions(verdicts, series, found_best, about, counted),
        gap_estimator=series.gap_estimator,
        evaluations=facts.evaluations(log, series, found_best),
        checkpoints=facts.checkpoints(log, found_best),
        samples=facts.samples(log),
        events=facts.events(log),
        passes=facts.passes(log),
        phases=facts.phases(log, rates),
        curve=facts.curve(log),
    )


def _best(log: Log, series: Series, risen: bool) -> Best | None:
    """From validation if there is any, else from the training loss (and it says so). `risen`:
    validation is proven to have got worse."""
    saved = None
    if log.folder is not None:
        saved = {int(r["step"]) for r in log.checkpoint if r.get("present")}
    if series.n:
        mask, how = _tied(series)
        if risen:  # the error over blocks knows no trend: what the trend has left is not tied
            mask &= ~best_of.left_behind(series.val)
        return best_of.best(
            series.steps, series.val, series.val_se, series.bpb, series.bpb_se, mask,
            series.wiggle, saved, VALIDATION, how,
        )  # fmt: skip
    if not series.train_n:
        return None
    return best_of.best_of_training(series.train_steps, series.train_loss, series.train_noise)


def _tied(series: Series) -> tuple[Any, str]:
    """The tie set and how it was decided: on shared blocks where they were kept."""
    if series.paired:
        return best_of.tied_on_blocks(series.val, series.difference_se), (
            "tied: paired differences on the same blocks, 95 %"
        )
    if series.wiggle.known:
        return best_of.tied(series.val, series.wiggle), ("tied: scatter between evaluations, 95 %")
    return best_of.tied_by_se(series.val, series.val_se)
