"""Sleep is held off by another program, and that is said only if it does."""

from __future__ import annotations

import pytest

from overnight.training import awake


@pytest.mark.parametrize(
    ("words", "held"),
    [(["sleep", "60"], True), (["false"], False), (["/nowhere/caffeinate"], False), (None, False)],
    ids=["holds", "refused", "not there", "none known"],
)
def test_what_is_said_is_so(
    words: list[str] | None, held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(awake, "command", lambda pid: words)
    said: list[str] = []
    with awake.awake(said.append):
        pass
    assert said == (["the machine is kept awake (sleep)"] if held else [])
