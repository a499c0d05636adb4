"""A session that went back to a checkpoint has two attempts, and stays one session."""

from __future__ import annotations

import json

import made
import pytest

from overnight import load_run
from overnight.report import markdown
from overnight.report.document import build


@pytest.fixture
def returned(tmp_path):
    """Steps 0–230, back to 200, on to 400, in one process; then rows of the whole held-out text."""
    folder = made.run_folder(tmp_path / "r", resume_at=200)
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    at = next(i for i, row in enumerate(rows) if row["attempt"] == 2)
    back = {"type": "event", "attempt": 2, "seq": 900, "step": 200, "time": rows[at]["time"]}
    back |= {"kind": "rewind", "message": "back from step 230 to 200, on other data", "data": {}}
    full = {"type": "full", "attempt": 2, "seq": 901, "step": 400, "time": rows[-1]["time"]}
    full |= {"val_loss": 2.4, "val_se": 0.01, "val_bpb": 3.46, "val_tokens": 9000}
    full |= {"val_bytes": 9000, "checkpoint": "best", "seconds": 1.0}
    rows[at + 1 : at + 1] = [back]
    rows[-1:] = [full, rows[-1]]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_run(folder)


def test_one_session(returned):
    (session,) = returned.found.ledger.sessions
    assert (session.from_step, session.to_step, session.returns) == (0, 400, 1)
    assert session.steps == 230 + 200
    assert session.seconds == returned.found.ledger.seconds == 30.0  # of the end row, once


def test_nothing_was_replayed(returned):
    """After a return the data are others, so equal rows are not to be expected."""
    verdict = returned.found.verdict("resume")
    assert verdict.verdict == "no"
    assert "went back" in verdict.because
    assert returned.log.replayed == []


def test_the_figure_to_quote(returned):
    found, text = returned.found, markdown.render(build(returned.found)).replace("\\", "")
    assert (found.whole.step, found.whole.bpb, found.whole.bytes) == (400, 3.46, 9000)
    assert found.whole.bpb_se == pytest.approx(0.01 * 3.46 / 2.4)
    assert found.yardsticks.model_bpb == 3.46
    assert "The figure to quote: 3.4600 ± 0.0144 bits per byte" in text
    assert (found.best.step, found.best.bpb is not None) == (400, True)
    assert "| 200 | went back |" in text
