"""The terminal: what is shown is never obeyed, and a reader that goes away ends no run."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_runs import TINY, train

import overnight
from overnight.cli import say
from overnight.runfolder import End, read_log
from overnight.shown import inert, printable
from overnight.training import evaluate, measuring
from overnight.training.progress import Progress
from overnight.training.stop import StopSignal, outlives_terminal


def test_control_characters_are_shown_not_obeyed(capfd: pytest.CaptureFixture[str]) -> None:
    hostile = "a\x1b[2J\x9b\x07\r\u202eb\n\tc"
    shown = printable(hostile)
    assert shown == "a\\x1b[2J\\x9b\\x07\\r\\u202eb\n\tc"
    for harmless in ("1\u00a0000", "私\u3000は", "می\u200cخواهم"):
        assert printable(harmless) == inert(harmless) == harmless
    assert inert("a\x1b\u200fb\n", keep="\n") == "a\ufffd\ufffdb\n"
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
    let_go: list[list[int]] = []
    monkeypatch.setattr(Progress, "_to_nowhere", lambda self, streams: let_go.append(streams))
    monkeypatch.setattr(sys, "stderr", stream())
    Progress().say("hello")
    assert let_go == [[2]]  # the summary on stdout is not lost


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


@pytest.mark.usefixtures("on_a_terminal")
def test_a_terminal_that_closes_before_the_first_step_ends_nothing() -> None:
    let_go: list[bool] = []
    with outlives_terminal(lambda: let_go.append(True)):
        signal.raise_signal(signal.SIGHUP)
        with StopSignal() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert stop.hung_up
        signal.raise_signal(signal.SIGHUP)
    assert let_go == [True, True]
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


CLOSES_AS_TORCH_LOADS = """
import builtins, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)
load = builtins.__import__
def closing(name, *more, **named):
    if name == "torch" and "torch" not in sys.modules:
        signal.raise_signal(signal.SIGHUP)
    return load(name, *more, **named)
builtins.__import__ = closing
from overnight.cli import run
sys.exit(run(sys.argv[1:]))
"""


def test_a_terminal_that_closes_while_torch_loads_ends_nothing(text: str, tmp_path: Path) -> None:
    words = [word for pair in TINY.items() for word in pair]
    done = subprocess.run(
        [sys.executable, "-c", CLOSES_AS_TORCH_LOADS, "train", text, *words, "--dry-run"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env=os.environ | {"PYTHONPATH": str(Path(overnight.__file__).parents[1])},
    )  # fmt: skip
    assert (done.returncode, "expected" in done.stdout) == (0, True)


def test_a_stop_is_answered_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    with StopSignal() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.number == signal.SIGINT
    assert capfd.readouterr().err == "stopping, and saving; another signal ends it at once\n"


def test_nohup_is_obeyed() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with outlives_terminal(lambda: None), StopSignal() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.hung_up
    finally:
        signal.signal(signal.SIGHUP, before)


def test_only_what_was_a_terminal_is_let_go(tmp_path: Path) -> None:
    """A summary that goes to a file is not lost with the terminal."""
    code = (
        "from overnight.training.progress import Progress; import os, sys; p = Progress(); "
        "p.let_go(); os.write(1, b'kept'); p._to_nowhere([2]); os.write(2, b'gone')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"kept", b"")


def test_the_last_evaluation_tells_how_long_it_takes(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(Progress, "show", lambda self, line: shown.append(line))
    monkeypatch.setattr(evaluate, "CHUNK_TOKENS", 64)
    minutes = itertools.count(0, 60)
    monkeypatch.setattr(measuring, "time", SimpleNamespace(monotonic=lambda: next(minutes)))
    assert train(tmp_path / "run", text) == 0
    last = [line for line in shown if line.startswith("last ")]
    assert len(last) > 2
    assert " min" in last[0].split("ETA")[1]
    assert last[-1].endswith("100%  ETA 0 s")
