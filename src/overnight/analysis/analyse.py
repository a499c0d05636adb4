"""Tables in, findings out: every analysis once, in the order in which they build on each other."""

from __future__ import annotations

from . import about, listings
from .advice import advise
from .best import best
from .case import Case
from .findings import SCHEMA, Findings
from .forecast import forecast
from .ledger import ledger
from .schedule import schedule
from .series import Series
from .tables import Log
from .verdicts import judge, open_questions, trends
from .yardsticks import yardsticks


def analyse(log: Log) -> Findings:
    """The findings of one log."""
    planned = about.planned_steps(log)
    run = about.about(log, planned)
    if run.incomparable is not None:
        log = about.without_bits(log)
    series, rates = Series(log), schedule(log.train, log.config, planned)
    verdicts = trends(log, series, rates, run)
    risen = next(v for v in verdicts if v.id == "overfitting").verdict == "yes"
    found_best = best(log, series, risen)
    whole = about.whole(log, found_best)
    case = Case(
        log=log,
        series=series,
        about=run,
        ledger=ledger(log),
        schedule=rates,
        best=found_best,
        whole=whole,
        yardsticks=yardsticks(log, run, found_best, whole),
    )
    verdicts += judge(case)
    return Findings(
        schema=SCHEMA,
        source=about.source(log),
        about=run,
        ledger=case.ledger,
        noise=series.noise,
        best=found_best,
        whole=whole,
        schedule=rates,
        yardsticks=case.yardsticks,
        forecast=forecast(log, series, planned),
        verdicts=verdicts,
        advice=advise(case, verdicts),
        cannot_conclude=open_questions(case, verdicts),
        gap_estimator=series.gap_estimator,
        evaluations=listings.evaluations(log, series, found_best),
        checkpoints=listings.checkpoints(log, found_best),
        samples=listings.samples(log),
        events=listings.events(log),
        passes=listings.passes(log),
        phases=listings.phases(log, rates),
        curve=listings.curve(log),
    )
