"""The case of a run: what is known of it before it is judged."""

from __future__ import annotations

from dataclasses import dataclass

from .findings import About, Best, Ledger, Schedule, Whole, Yardsticks
from .series import Series
from .tables import Log


@dataclass(frozen=True)
class Case:
    """The log and the findings that verdicts, advice and open questions rest on."""

    log: Log
    series: Series
    about: About
    ledger: Ledger
    schedule: Schedule
    best: Best | None
    whole: Whole | None
    yardsticks: Yardsticks | None
