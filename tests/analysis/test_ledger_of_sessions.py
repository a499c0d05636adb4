"""Where the seconds of a run went, session by session."""

from __future__ import annotations

import json
from pathlib import Path

import made
import pytest

from overnight.analysis.run import load_run


def test_a_killed_session_has_its_seconds_from_its_rows(tmp_path: Path) -> None:
    """The first of two was killed: it has no row that says what training, evaluating and saving
    took together."""
    run = made.run_folder(tmp_path / "r", steps=400, every=40, resume_at=200)
    found = load_run(run).found.ledger
    killed, ended = found.sessions
    assert (killed.reason, ended.reason) == (None, "finished")
    kept = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    saves = [row for row in kept if row["type"] == "checkpoint" and row["attempt"] == 1]
    assert [row["step"] for row in saves] == [40, 80, 120, 160, 200]
    assert killed.save_seconds == pytest.approx(sum(row["seconds"] for row in saves))
    assert ended.save_seconds == 2.0  # as it says itself
    assert found.save_seconds == killed.save_seconds + ended.save_seconds


def test_a_session_that_saved_nothing_took_no_time_for_it(tmp_path: Path) -> None:
    run = made.run_folder(tmp_path / "r", steps=40, every=40)
    log = run / "log.jsonl"
    rows = log.read_text().splitlines(keepends=True)
    log.write_text("".join(row for row in rows if '"checkpoint"' not in row and '"end"' not in row))
    (session,) = load_run(run).found.ledger.sessions
    assert (session.reason, session.save_seconds) == (None, 0)
