"""The log: what a disk refuses, and which rows count."""

from __future__ import annotations

import fcntl
import os
import random
import threading
import time
from pathlib import Path

import pytest

from overnight import runfolder
from overnight.errors import UserError
from overnight.files import open_no_follow
from overnight.runfolder import (
    Checkpoint,
    End,
    Eval,
    Event,
    Full,
    LogWriter,
    Start,
    current,
    lowest_evaluation,
    read_log,
)
from overnight.runlock import RunLock


def refused(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    real, left = os.fsync, [times]

    def fsync(fd: int) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(5, "Input/output error")
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(runfolder, "CLOSE_PAUSE", 0.0)


def test_the_last_rows_are_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(monkeypatch, 2)
    log = LogWriter(tmp_path / "log.jsonl", attempt=1)
    log.write(Event(step=0, kind="x", message="y"))
    log.close()
    assert len(read_log(tmp_path / "log.jsonl").rows) == 1


def test_last_rows_that_cannot_be_kept_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(monkeypatch, 10**6)
    log = LogWriter(tmp_path / "log.jsonl", attempt=1)
    with pytest.raises(OSError, match="Input/output"):
        log.close()


def evaluation(step: int, attempt: int, val: float | None) -> Eval:
    return Eval(
        step=step, attempt=attempt, tokens=0, passes=0, val_loss=val, val_se=0, val_bpb=0,
        val_tokens=0, probe_loss=0, probe_se=0, probe_bpb=0, probe_tokens=0, seconds=0,
    )  # fmt: skip


def test_best_is_the_lowest_that_counts_and_the_first_of_equals() -> None:
    def best(*rows: Eval) -> tuple[int, int]:
        found = lowest_evaluation(rows)
        assert found is not None
        return found.attempt, found.step

    one = [evaluation(8, 1, 3.0), evaluation(16, 1, 2.0), evaluation(24, 1, 2.0)]
    assert best(*one) == (1, 16)
    # attempt 2 begins at 9 and comes to another result at 16: what attempt 1 found there is gone
    two = [evaluation(9, 2, None), evaluation(16, 2, 2.5), evaluation(24, 2, 2.6)]
    assert best(*one, *two) == (2, 16)
    drawn = [evaluation(0, 1, 1.0), evaluation(8, 1, None)]
    assert lowest_evaluation(drawn) is None
    given = lowest_evaluation([Event(step=0, kind="initial", message=""), *drawn])
    assert given is not None
    assert given.step == 0
    kept = lowest_evaluation(one, among=[8, 24])
    assert kept is not None
    assert kept.step == 24
    assert lowest_evaluation(one, among=[9]) is None


def test_which_rows_count_by_brute_force() -> None:
    draw = random.Random(3)
    for _ in range(300):
        rows = []
        for attempt in range(1, draw.randint(1, 9)):
            begin = draw.randint(0, 20)
            for step in range(begin, begin + draw.randint(0, 12)):
                kind = draw.choice([Checkpoint, Event, End])
                more = {
                    Checkpoint: {"path": "", "bytes": 0, "seconds": 0, "reason": ""},
                    Event: {"kind": "", "message": ""},
                    End: {"reason": "", "seconds": 0, "train_seconds": 0, "eval_seconds": 0,
                          "save_seconds": 0},
                }[kind]  # fmt: skip
                rows.append(kind(step=step, attempt=attempt, **more))
        wanted = [
            row
            for row in sorted(rows, key=lambda row: row.step)
            if isinstance(row, Start | End | Event)
            or not any(r.attempt > row.attempt and r.step < row.step for r in rows)
        ]
        assert current(rows) == wanted


def test_many_attempts_are_read_in_no_time() -> None:
    rows = [evaluation(i, i % 30_000, 1.0) for i in range(60_000)]
    assert current(rows)  # a comparison of all with all would take minutes


def test_who_only_looks_whether_a_run_is_locked_is_not_in_the_way(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    RunLock(path).release()
    looking = os.open(path, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)  # for a moment, as `is_locked` does
    timer = threading.Timer(0.03, os.close, [looking])
    timer.start()
    RunLock(path).release()
    timer.join()


def test_a_folder_that_may_not_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "run.lock").mkdir()
    with pytest.raises(UserError, match="cannot be locked"):
        RunLock(tmp_path / "run.lock")


def test_the_figure_of_an_earlier_step_replaces_no_row() -> None:
    """A second session, from 24 on, finds the best at 8: what the first one measured stays."""
    first = [evaluation(step, 1, 3.0 + step / 100) for step in (8, 16, 24)]
    figure = Full(step=8, attempt=2, val_loss=3.0, val_se=0, val_bpb=0, val_tokens=1, val_bytes=1,
                  checkpoint="best", seconds=0)  # fmt: skip
    rows = [*first, evaluation(32, 2, 3.4), figure]
    kept = [row.step for row in current(rows) if isinstance(row, Eval)]
    assert kept == [8, 16, 24, 32]


def test_a_clock_that_is_set_moves_no_duration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = LogWriter(tmp_path / "log.jsonl", attempt=1)
    log.write(Event(step=0, kind="x", message=""))
    real = time.time
    monkeypatch.setattr("time.time", lambda: real() + 3 * 86_400)
    log.write(Event(step=1, kind="x", message=""))
    log.close()
    first, second = read_log(tmp_path / "log.jsonl").rows
    assert 0 <= second.time - first.time < 60
    assert abs(first.time - real()) < 60


@pytest.mark.parametrize("name", ["log.jsonl", "run.lock"])
def test_a_link_in_a_run_folder_is_not_followed(name: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine\n")
    (tmp_path / name).symlink_to(victim)
    with pytest.raises((OSError, UserError)):
        LogWriter(tmp_path / name, 1) if name == "log.jsonl" else RunLock(tmp_path / name)
    with pytest.raises(OSError, match="symbolic link"):
        open_no_follow(str(tmp_path / name), os.O_WRONLY)
    assert victim.read_text() == "mine\n"
