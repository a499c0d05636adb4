"""Amounts in words."""

from __future__ import annotations

import pytest

from overnight.wording import counted, duration, size


@pytest.mark.parametrize(
    ("number", "unit", "words"),
    [(1, "step", "1 step"), (0, "step", "0 steps"), (2000, "step", "2,000 steps"),
     (3, "pass", "3 passes"), (1.0, "pass", "1 pass"), (0.5, "minute", "0.5 minutes")],
)  # fmt: skip
def test_numbers_of_things(number: float, unit: str, words: str) -> None:
    assert counted(number, unit) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(7.34, "7.3 s"), (41, "41 s"), (59.97, "1 min"), (129, "2 min 9 s"), (3599.6, "1 h"),
     (5399, "1 h 30 min"), (16_020, "4 h 27 min")],
)  # fmt: skip
def test_durations_are_rounded_and_not_cut(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_sizes() -> None:
    assert [size(n) for n in (12, 4000, 12.34e6, 1.5e9)] == ["12 B", "4.0 kB", "12.3 MB", "1.5 GB"]
