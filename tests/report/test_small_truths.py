"""Small statements of a report, each beside what the log holds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest

from overnight.analysis.explain import explain
from overnight.analysis.overfitting import harm
from overnight.analysis.run import Run, load_run
from overnight.report import html, questions, words
from overnight.report.document import Cards, Figure, Table, build
from overnight.report.explained import lines
from overnight.report.numbers import MOST_ROWS, shown


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def rewritten(folder: Path, rows: list[dict[str, Any]]) -> Run:
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_run(folder)


def test_a_sample_that_was_written_again_is_one(tmp_path: Path) -> None:
    folder = made.run_folder(tmp_path / "r")
    rows = rows_of(folder)
    sample = next(row for row in rows if row["type"] == "sample")
    run = rewritten(folder, [*rows[:-1], sample | {"seq": 9000}, rows[-1]])
    assert len(run.tables["sample"]) == 10
    assert len(run.found.samples) == 10


def test_the_tables_are_the_log_whatever_the_findings_withhold(tmp_path: Path) -> None:
    folder = made.run_folder(tmp_path / "r")
    rows = rows_of(folder)
    rows[0]["data"]["lossless"] = False
    run = rewritten(folder, rows)
    assert all(e.val_bpb is None for e in run.found.evaluations)
    assert all(row["val_bpb"] is not None for row in run.tables["eval"])


def test_a_last_row_of_one_step_does_not_turn_a_phase(tmp_path: Path) -> None:
    """Of a falling loss, whose last row is high and of one step where the others are of ten."""
    folder = made.run_folder(tmp_path / "r")
    rows = rows_of(folder)
    last = max((row for row in rows if row["type"] == "train"), key=lambda row: row["step"])
    before = load_run(folder).found.phases[-1]
    run = rewritten(
        folder, [*rows[:-1], last | {"step": 401, "steps": 1, "loss": 3.0, "seq": 9000}, rows[-1]]
    )
    phase = run.found.phases[-1]
    assert before.per_1000 < 0
    assert phase.per_1000 == pytest.approx(before.per_1000, abs=0.7)
    heavy = [row | {"steps": 10} if row.get("step") == 401 else row for row in rows_of(folder)]
    assert rewritten(folder, heavy).found.phases[-1].per_1000 > 0


def test_what_is_not_comparable_is_not_compared(tmp_path: Path) -> None:
    """Rows that a resumed session went over again, on another text."""
    folder = made.run_folder(tmp_path / "r", resume_at=200)
    assert load_run(folder).log.replayed[0]["rows"]
    rows = rows_of(folder)
    at = next(i for i, row in enumerate(rows) if row["attempt"] == 2)
    event = {"type": "event", "attempt": 2, "seq": 900, "step": 200, "time": rows[at]["time"]}
    event |= {"kind": "incomparable", "message": "another text", "data": {}}
    rows.insert(at + 1, event)
    assert rewritten(folder, rows).log.replayed == []


def test_the_rate_of_an_evaluation_is_the_last_logged_one(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    table = [f"{s},{5 - s / 100},,{0.1 / s}\n{s},,{5.1 - s / 100},\n" for s in range(1, 40)]
    table.insert(20, "20,4.85,,\n")
    path.write_text("step,loss,val_loss,lr\n" + "".join(table))
    rates = {e.step: e.lr for e in load_run(path).found.evaluations}
    assert rates[39] == pytest.approx(0.1 / 39)
    assert all(rate is not None for rate in rates.values())


def test_a_shared_error_widens_the_interval_beside_an_outlier() -> None:
    random = np.random.default_rng(0)
    steps, losses = np.arange(1, 41) * 100.0, 3 - 0.02 * np.arange(40.0)
    losses += 0.01 * random.standard_normal(40)
    losses[20:] = losses[20] + 0.03 * np.arange(20) + 0.01 * random.standard_normal(20)
    losses[30] += 2
    narrow, wide = harm(steps, losses).ci, harm(steps, losses, difference_se=1.0).ci
    assert narrow is not None
    assert wide is not None
    assert wide[1] - wide[0] > narrow[1] - narrow[0] + 1


@pytest.mark.parametrize("warmup", [20, None])
def test_what_agrees_was_compared(warmup: int | None, tmp_path: Path) -> None:
    """A log that begins behind the warm-up says nothing of it."""
    folder = made.run_folder(tmp_path / "r")
    rows = [r for r in rows_of(folder) if warmup or r["type"] != "train" or r["step"] > 100]
    verdict = rewritten(folder, rows).found.verdict("schedule_mismatch")
    expected = "Shape, warm-up and end agree." if warmup else "Shape and end agree."
    assert (verdict.verdict, verdict.because) == ("no", expected)


def test_every_card_leads_to_a_section(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("step,val_loss\n" + "".join(f"{s},{3 - s / 100}\n" for s in range(1, 40)))
    document = build(load_run(path).found)
    there = {section.id for section in document.sections}
    (cards,) = (b for s in document.sections for b in s.blocks if isinstance(b, Cards))
    assert {card.link for card in cards.cards} <= there


@pytest.mark.parametrize(("every", "says"), [(400, False), (40, True)])
def test_one_evaluation_has_no_rival(every: int, says: bool, tmp_path: Path) -> None:
    found = load_run(made.run_folder(tmp_path / "r", every=every)).found
    detail = next(c.detail for c in questions.cards(found) if c.answer.startswith("step"))
    assert ("tied" in detail or "no other" in detail) == says


@pytest.mark.parametrize(
    ("steps", "batch", "block", "tokens", "says"),
    [(183, 64, 256, 300_000, "1 more finishes pass 10"), (10, 3, 10, 100, "pass 3 is complete"),
     (0, 3, 10, 100, "4 more finish pass 1"), (9, 3, 10, 100, "1 more finishes pass 3")],
)  # fmt: skip
def test_steps_that_finish_a_pass(
    steps: int, batch: int, block: int, tokens: int, says: str
) -> None:
    found = explain(2.0, steps=steps, batch=batch, block=block, corpus_tokens=tokens)
    assert any(says in line for line in lines(found, None))


def test_a_run_that_was_stopped_before_its_first_evaluation(tmp_path: Path) -> None:
    folder = made.run_folder(tmp_path / "run", steps=400, every=400)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    lines = [row for row in lines if row["type"] not in ("full", "end")]
    lines = [row for row in lines if row["type"] != "eval" or row["step"] == 0]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    found = load_run(folder).found
    card = questions.cards(found)[0]
    present = [c.step for c in found.checkpoints if c.present]
    assert present
    assert card.answer == "cannot tell"
    assert f"on disk is of step {max(present):,}" in card.detail
    assert not any("Take step" in line for line in words.best(found))


def section(run: Run, name: str) -> Any:
    return next((s for s in build(run.found).sections if s.id == name), None)


def test_a_page_lists_so_many_evaluations_that_it_can_be_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    losses = 2 + 1 / (1 + np.arange(5000) / 100) + 0.01 * rng.standard_normal(5000)
    losses[1234] = 1.5
    path = tmp_path / "m.csv"
    path.write_text("step,val_loss\n" + "".join(f"{i},{v:.4f}\n" for i, v in enumerate(losses)))
    run = load_run(path)
    (table,) = (block for block in section(run, "evaluations").blocks if isinstance(block, Table))
    steps = [row[0] for row in table.rows]
    assert (steps[0], steps[-1]) == ("0", "4,999")
    assert "1,234 ★" in steps
    assert MOST_ROWS <= len(steps) <= MOST_ROWS + 1
    assert f"{len(steps):,} of 5,000" in section(run, "evaluations").blocks[0].text
    page = html.render(build(run.found), run.findings)
    assert page.count('"val_perplexity"') == len(steps)
    assert len(run.findings["evaluations"]) == 5000
    assert shown(MOST_ROWS, []) == list(range(MOST_ROWS))


def test_what_was_made_of_a_log_is_no_open_question(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("step,loss,aux\n" + "".join(f"{i},3.{i},1\n" for i in range(9)))
    run = load_run(path)
    assert section(run, "reading").blocks[0].items == ["not read: columns aux"]
    assert not any("aux" in line for line in section(run, "unknown").blocks[0].items)


def test_the_norm_of_the_gradient_is_drawn_without_a_speed(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    rows = "".join(f"{i},3.{i},0.{i}\n" for i in range(9))
    path.write_text("step,loss,grad_norm\n" + rows)
    figures = [b for b in section(load_run(path), "ledger").blocks if isinstance(b, Figure)]
    assert [figure.chart for figure in figures] == ["speed norm"]
    path.write_text("step,loss\n" + "".join(f"{i},3.{i}\n" for i in range(9)))
    assert not [b for b in section(load_run(path), "ledger").blocks if isinstance(b, Figure)]


def test_a_checkpoint_that_is_gone_is_no_good_news(tmp_path: Path) -> None:
    folder = made.run_folder(tmp_path / "r")
    run = load_run(folder)
    assert (questions.cards(run.found)[0].tone, run.found.best.pick_saved) == ("good", True)
    shutil.rmtree(folder / "checkpoints")
    (folder / "checkpoints").mkdir()
    card = questions.cards(load_run(folder).found)[0]
    assert (card.tone, "it is not on disk" in card.detail) == ("unsure", True)
