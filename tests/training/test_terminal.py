"""The terminal: what is shown is never obeyed, and a reader that goes away ends no run."""

from __future__ import annotations

import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from tiny_runs import TINY

import overnight
from overnight.cli import say
from overnight.errors import printable
from overnight.runfolder import End, read_log
from overnight.training.progress import Progress


def test_control_characters_are_shown_not_obeyed(capfd: pytest.CaptureFixture[str]) -> None:
    hostile = "a\x1b[2J\x9b\x07\r\u202eb\n\tc"
    shown = printable(hostile)
    assert shown == "a\\x1b[2J\\x9b\\x07\\r\\u202eb\n\tc"
    say(hostile)
    Progress().say(hostile)
    err = capfd.readouterr().err
    assert not {c for c in err if not c.isprintable() and c not in "\n\t "}


class Closed(StringIO):
    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")


class Broken(StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("stream", [Closed, Broken])
def test_messages_that_nobody_reads(
    stream: type[StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go: list[bool] = []
    monkeypatch.setattr(Progress, "let_go", lambda self: let_go.append(True))
    monkeypatch.setattr(sys, "stderr", stream())
    Progress().say("hello")
    assert let_go == [True]


def test_a_closed_pipe_ends_no_run(text: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = [word for pair in TINY.items() for word in pair]
    process = subprocess.Popen(
        [sys.executable, "-m", "overnight", "train", text, *words, "--out", str(out)],
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(overnight.__file__).parents[1])},
    )
    assert process.stderr is not None
    process.stderr.readline()
    process.stderr.close()
    assert process.wait(timeout=120) == 0
    assert read_log(out / "log.jsonl").of(End)[-1].reason == "finished"
