"""A session that went back to a checkpoint has two attempts, and stays one session."""

from __future__ import annotations

import json
import shutil

import made
import pytest

from overnight import load_run
from overnight.report import markdown
from overnight.report.document import build
from overnight.report.questions import cards


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
    full |= {"val_bpb_se": 0.0144, "val_bytes": 9000, "checkpoint": "best", "seconds": 1.0}
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


def test_what_a_return_left_behind_is_no_part_of_the_run(returned, tmp_path):
    """Stopped soon after it: the rows of steps 210 to 230 are of weights that are gone, and so are
    the updates that were not finite there."""
    copy = tmp_path / "copy"
    shutil.copytree(returned.path, copy)
    rows = [json.loads(line) for line in (copy / "log.jsonl").read_text().splitlines()]
    kept = [row for row in rows if row["attempt"] == 1 or row["step"] <= 210]
    bad = {"type": "event", "attempt": 1, "kind": "non_finite", "message": "skipped", "data": {}}
    for step in (228, 229, 230):
        kept.append(bad | {"seq": 700 + step, "step": step, "time": rows[-1]["time"]})
    (copy / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    found = load_run(copy).found
    assert found.ledger.steps == 210
    assert max(e.step for e in found.evaluations) <= 210
    assert found.best.step <= 210
    assert found.verdict("divergence").verdict != "yes"


def test_the_figure_to_quote(returned):
    found, text = returned.found, markdown.render(build(returned.found)).replace("\\", "")
    assert (found.whole.step, found.whole.bpb, found.whole.bytes) == (400, 3.46, 9000)
    assert found.whole.bpb_se == 0.0144
    assert found.yardsticks.model_bpb == 3.46
    assert "The figure to quote: 3.4600 ± 0.0144 bits per byte" in text
    assert (found.best.step, found.best.bpb is not None) == (400, True)
    assert "| 200 | went back |" in text
    assert "on all 9,000 held-out bytes" in text


def changed(folder, change, tmp_path):
    """The report of the run after `change(row)` of every row of its log."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    rows = [json.loads(line) for line in (copy / "log.jsonl").read_text().splitlines()]
    for row in rows:
        change(row)
    (copy / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = load_run(copy)
    return run.found, markdown.render(build(run.found)).replace("\\", "")


def test_a_figure_that_a_later_session_has_beaten_is_held_against_nothing(returned, tmp_path):
    def older(row):
        if row["type"] == "full":
            row |= {"step": 40, "val_bpb": 9.0}

    found, text = changed(returned.path, older, tmp_path)
    assert found.whole is None
    assert found.yardsticks.model_bpb == found.best.bpb < 9
    assert "The figure to quote" not in text


@pytest.mark.parametrize(
    ("there", "said"),
    [(20_000, "20,000 held-out bytes, in blocks spread evenly"),
     (9_010, "9,010 held-out bytes, all that fill whole blocks")],
)  # fmt: skip
def test_a_part_is_not_called_all(returned, tmp_path, there, said):
    def larger(row):
        if row["type"] == "start":
            row["data"] |= {"val_bytes": there, "val_tokens": there}
            row["config"]["model"]["context"] = 16

    found, text = changed(returned.path, larger, tmp_path)
    assert (found.whole.bytes, found.whole.of_bytes) == (9000, there)
    assert text.count(f"9,000 of {said}") >= 2
    assert "all 9,000" not in text


@pytest.mark.parametrize(
    ("held_out", "name", "beaten", "sentence"),
    [(0, "xz", "no", ", without a network, "), (1, "xz", "no", ", without a network, "),
     (1500, "xz", "no", ", without a network, "),
     (1500, "bigram", "cannot_tell", "xz, without a network, "),
     (3000, "xz", "cannot_tell", "less, perhaps, by the characters")],
)  # fmt: skip
def test_as_many_unknown_characters_as_there_are_hide_a_yardstick(
    returned, tmp_path, held_out, name, beaten, sentence
):
    """9,000 bytes at 8.5 bits: of one character 21 bits are nothing, of 3,000 most; of 1,500 they
    leave 5 bits for a byte, and 3.3 if each has four bytes: bigrams need 3.6."""

    def worse(row):
        if row["type"] == "start":
            row["data"] |= {"unknown": 7000, "val_unknown": held_out, "unknown_bits": 21}
        if row["type"] == "full":
            row |= {"val_bpb": 8.5}

    found, text = changed(returned.path, worse, tmp_path)
    assert {row.beaten for row in found.yardsticks.rows if row.name == name} == {beaten}
    assert sentence in found.verdict("below_yardstick").because
    assert ("too high, not too low" in text) is bool(held_out)
    assert ("held-out bytes" in text) is not bool(held_out)
    assert "level with" not in text.lower()


@pytest.mark.parametrize("facts", [{"unknown": 7}, {"lossless": False}])
def test_bits_of_a_lossy_tokenizer_compare_with_nothing(facts, returned, tmp_path):
    def lossy(row):
        if row["type"] == "start":
            row["data"] |= facts

    found, text = changed(returned.path, lossy, tmp_path)
    assert found.verdict("comparability").verdict == "no"
    assert found.yardsticks.model_bpb is None
    assert all(row.beaten == "cannot_tell" for row in found.yardsticks.rows)
    assert "compare with any tokenizer" not in text
    assert "compare with nothing" in text
    assert (found.best.bpb, found.whole.bpb, found.whole.bpb_se) == (None, None, None)
    assert "held-out bytes" not in text
    assert f"{found.whole.tokens:,} held-out tokens" in text
    assert "There are no yardsticks" not in text
    assert "xz" in found.verdict("below_yardstick").evidence  # which tells of twins
    assert any("keeps all of the text" in advice.do for advice in found.advice)
    card = next(card for card in cards(found) if card[0].startswith("Is it better"))
    assert card[1] == "cannot tell"


def test_bits_that_an_earlier_session_left_out_compare_with_nothing(tmp_path):
    folder = made.run_folder(tmp_path / "r", resume_at=200)
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    starts = [row for row in rows if row["type"] == "start"]
    for row, bits in zip(starts, ({}, {"unknown_bits": 21}), strict=True):
        row["data"] = {"unknown": 7} | bits
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert load_run(folder).found.verdict("comparability").verdict == "no"
    starts[0]["data"]["unknown_bits"] = 21
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert load_run(folder).found.verdict("comparability").verdict == "yes"


MANY = {"train.dtype": "float32 → bfloat16", "length.steps": "2,000 → 2,010",
        "optimizer.weight_decay": "0.1 → 0.3", "schedule.min_ratio": "0.1 → 0.2",
        "sample.prompts": "['I, too, '] → []", "train.label_smoothing": "0.0 → 0.1"}  # fmt: skip


@pytest.mark.parametrize(
    ("told", "answer"),
    [("optimizer.lr 0.001 → 0.002", "optimizer.lr"),
     ("optimizer.lr (was 0.001, changed at a resume)", "optimizer.lr"),  # as 0.1.0 said it
     ("data (other text)", "data"),
     ("model.colour red → blue", "settings"),
     (", ".join(f"{name} {values}" for name, values in MANY.items()),
      "train.dtype, length.steps, optimizer.weight_decay, schedule.min_ratio and 2 more")],
)  # fmt: skip
def test_what_a_resume_changed_is_the_answer(told, answer, tmp_path):
    folder = made.run_folder(tmp_path / "r", resume_at=200)
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    at = next(i for i, row in enumerate(rows) if row["attempt"] == 2)
    for row in rows[at:]:
        if row["type"] == "train":
            row["loss"] += 0.1
    rows.insert(
        at + 1,
        rows[at + 1] | {"type": "event", "kind": "warning", "message": f"changed: {told}"},
    )
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    card = next(c for c in cards(load_run(folder).found) if c[0] == "What changed at resume?")
    assert card[1] == answer
    assert f"Changed: {told}." in card[2]


def test_weights_as_drawn_are_held_against_no_yardstick(returned, tmp_path):
    def begun(row):
        if row["type"] == "eval" and row["step"]:
            row["val_loss"] = None
        if row["type"] == "full":
            row |= {"step": 10**6}

    found, _ = changed(returned.path, begun, tmp_path)
    assert found.verdict("below_yardstick").verdict == "yes"
    assert not any("below_yardstick" in advice.because for advice in found.advice)


def test_one_skipped_update_is_no_divergence(returned, tmp_path):
    def change(row):
        if row["type"] == "event" and row["kind"] == "rewind":
            row |= {"kind": "non_finite", "step": 401}  # after the last row

    assert changed(returned.path, change, tmp_path)[0].verdict("divergence").verdict == "no"


def test_early_trouble_does_not_hide_late_divergence(returned, tmp_path):
    def change(row):
        if row["type"] == "sample" and row["step"] <= 120:
            row["type"] = "event"
            row |= {"kind": "non_finite", "step": 50, "message": "update skipped", "data": {}}
        if row["type"] == "train" and row["step"] > 300:
            row["loss"] = None

    verdict = changed(returned.path, change, tmp_path)[0].verdict("divergence")
    assert verdict.verdict == "yes"
    assert 300 < verdict.since_step <= 320
    assert verdict.because.startswith("The training loss is not finite")


def test_updates_that_were_skipped_and_made_up_for_are_no_divergence(returned, tmp_path):
    def change(row):
        if row["type"] == "sample" and row["step"] <= 120:
            row["type"] = "event"
            row |= {"kind": "non_finite", "step": 50, "message": "update skipped", "data": {}}

    found = changed(returned.path, change, tmp_path)[0]
    assert sum(event.kind == "non_finite" for event in found.events) == 3
    assert found.verdict("divergence").verdict == "no"
