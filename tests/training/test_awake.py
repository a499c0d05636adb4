"""Sleep is held off by another program, and that is said only if it does."""

from __future__ import annotations

import subprocess
import sys

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


def test_it_outlives_the_terminal() -> None:
    """A terminal that is closed hangs up on its whole group, which the trainer survives."""
    program = """
import os, signal, psutil
from overnight.training import awake
signal.signal(signal.SIGHUP, lambda *_: None)
awake.command = lambda pid: ["sleep", "60"]
with awake.awake(print):
    holders = psutil.Process().children()
    os.killpg(0, signal.SIGHUP)
    gone, held = psutil.wait_procs(holders, timeout=0.3)
print(len(gone), len(held))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, start_new_session=True
    )
    assert done.stdout.splitlines()[-1] == "0 1", done.stderr
