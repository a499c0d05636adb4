"""All verdicts of one run, and the adjustment for their number."""

from __future__ import annotations

from typing import Any

from .findings import Verdict


def judge(*given: Any) -> tuple[list[Verdict], list[str]]:
    return [], []
