"""Foreign and damaged logs: read what can be read, say what cannot, never fail otherwise."""

from __future__ import annotations

import contextlib
import json
import math
import re
from pathlib import Path

import made
import pytest
from foreign import run_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overnight.analysis.run import load_run
from overnight.errors import UserError

LOGS = Path(__file__).parents[2].parent / "shared" / "logs"


@pytest.mark.parametrize(
    "header",
    ["step,loss,val_loss,lr,tokens_per_sec", "iter;train_loss;valid_loss;learning_rate;tok/s",
     "Global Step\tTraining Loss\tEval/Loss\tLR\tthroughput"],
)  # fmt: skip
def test_synonyms(tmp_path, header):
    mark = next(m for m in ",;\t" if m in header)
    rows = [f"{i}{mark}3.5{mark}3.6{mark}1e-3{mark}100" for i in range(1, 4)]
    tables = run_of(tmp_path, "m.csv", "\n".join([header, *rows])).tables
    assert len(tables["train"]) == len(tables["eval"]) == 3
    first = tables["train"][0]
    assert (first["step"], first["loss"], first["lr"], first["tokens_per_s"]) == (
        1,
        3.5,
        0.001,
        100,
    )
    assert tables["eval"][0]["val_loss"] == 3.6


def test_sparse_rows_of_one_step_are_one_row(tmp_path):
    text = "step,loss,lr,val_loss\n1,3.0,,\n1,,0.1,\n2,2.0,,\n2,,,2.5\n"
    tables = run_of(tmp_path, "m.csv", text).tables
    assert [(r["step"], r["loss"], r["lr"]) for r in tables["train"]] == [(1, 3, 0.1), (2, 2, None)]
    assert [(r["step"], r["val_loss"]) for r in tables["eval"]] == [(2, 2.5)]


def test_tokens_and_time_in_rows_of_their_own(tmp_path):
    rows = []
    for s in range(10, 210, 10):
        rows += [{"step": s, "loss": 4 - s / 100}, {"step": s, "tokens": 50 * s, "time": s / 4}]
    rows += [{"step": 200, "val_loss": 2.1, "time": 57.0}, {"step": 200, "time": 90.0}]
    run = run_of(tmp_path, "m.jsonl", rows)
    assert [(r["tokens"], r["time"]) for r in run.tables["train"]] == [
        (50 * s, s / 4) for s in range(10, 210, 10)
    ]
    assert run.tables["eval"][0]["time"] == 57.0


def test_appended_resume_replaces_what_it_went_over(tmp_path):
    text = "step,loss\n1,5\n2,4\n3,3\n4,2.9\n3,3.1\n4,2.8\n5,2.7\n"
    run = run_of(tmp_path, "m.csv", text)
    assert [(r["step"], r["loss"]) for r in run.tables["train"]] == [
        (1, 5), (2, 4), (3, 3.1), (4, 2.8), (5, 2.7),
    ]  # fmt: skip
    assert run.found.verdict("resume").verdict == "yes"


FALLING = [(s, round(5 - s / 100, 3)) for s in range(0, 200, 10)]


def csv_of(rows, header="step,loss"):
    return "\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n"


def steps_and_losses(run):
    return [(r["step"], r["loss"]) for r in run.tables["train"]]


@pytest.mark.parametrize(
    ("rows", "say"),
    [(FALLING[::-1], "sorted"), (FALLING[1::2] + FALLING[::2][::-1], "sorted"),
     ([*FALLING, (0, 7.5)], "the last row falls back to step 0")],
    ids=["newest first", "mixed", "a last row apart"],
)  # fmt: skip
def test_rows_out_of_order_are_not_a_resumed_run(rows, say, tmp_path):
    run = run_of(tmp_path, "m.csv", csv_of(rows))
    assert steps_and_losses(run) == FALLING
    assert any(say in problem for problem in run.problems)
    assert not any("written again" in problem for problem in run.problems)
    assert run.found.verdict("resume").verdict == "cannot_tell"


def test_newest_first_with_a_row_of_each_kind(tmp_path):
    rows = [(s, *pair) for s in range(90, -1, -10) for pair in ((3, ""), ("", 3.2))]
    run = run_of(tmp_path, "m.csv", csv_of(rows, "step,loss,val_loss"))
    assert [r["step"] for r in run.tables["eval"]] == list(range(0, 100, 10))
    assert len(run.tables["train"]) == 10


def test_steps_that_begin_again_in_every_epoch_are_counted_on(tmp_path):
    rows = [
        (epoch, it, round(4 - epoch - it / 100, 3)) for epoch in range(3) for it in range(0, 50, 10)
    ]
    run = run_of(tmp_path, "m.csv", csv_of(rows[:-2], "epoch,iter,loss"))
    assert [r["step"] for r in run.tables["train"]] == list(range(0, 130, 10))
    assert [r["loss"] for r in run.tables["train"]] == [loss for _, _, loss in rows[:-2]]
    assert any("begin again 2 times" in problem for problem in run.problems)


def test_steps_that_are_no_whole_numbers_lose_no_row(tmp_path):
    run = run_of(tmp_path, "m.csv", csv_of([(i / 4, 5 - i / 10) for i in range(20)]))
    assert [r["step"] for r in run.tables["train"]] == list(range(1, 21))
    assert any("rows are counted" in problem for problem in run.problems)


def test_epochs_alone_are_the_steps(tmp_path):
    run = run_of(tmp_path, "m.csv", csv_of([(i, 3, 3.1) for i in range(5)], "epoch,loss,val_loss"))
    assert [r["step"] for r in run.tables["eval"]] == [0, 1, 2, 3, 4]
    assert any("a step here is an epoch" in problem for problem in run.problems)


def test_transformers_last_row_is_of_the_whole_run(tmp_path):
    """Its train_loss is a mean over all steps; and epochs there are fractions."""
    rows = [{"epoch": i / 8, "step": 10 * i, "loss": 4 - i / 10} for i in range(1, 17)]
    rows += [{"epoch": i / 4, "step": 20 * i, "eval_loss": 4.1 - i / 5} for i in range(1, 9)]
    rows.append({"epoch": 2.0, "step": 160, "train_loss": 3.15, "train_runtime": 99.0})
    run = run_of(tmp_path, "trainer_state.json", json.dumps({"log_history": rows}))
    assert run.tables["train"][-1]["loss"] == pytest.approx(2.4)
    assert run.tables["eval"][-1]["train_loss"] == pytest.approx(2.4)
    assert [p.number for p in run.found.passes] == [1, 2]
    assert [p.to_step for p in run.found.passes] == [80, 160]
    assert [p.val_loss for p in run.found.passes] == pytest.approx([3.3, 2.5])


def test_what_json_has_no_word_for_is_a_loss_that_broke(tmp_path):
    rows = [{"step": i, "loss": 4 - i / 100 if i < 50 else None} for i in range(70)]
    run = run_of(tmp_path, "m.jsonl", "\n".join(map(json.dumps, rows)))
    verdict = run.found.verdict("divergence")
    assert (verdict.verdict, verdict.since_step) == ("yes", 50)


def test_means_of_epochs_among_the_losses_of_steps(tmp_path):
    """Lightning's logger, as rows of what each has."""
    rows = [{"step": s, "epoch": s // 50, "train_loss_step": 4 - s / 100} for s in range(0, 200, 5)]
    for s in (45, 95, 145, 195):
        rows.append({"step": s, "epoch": s // 50, "train_loss_epoch": 3.3, "val_loss": 3 - s / 100})
    run = run_of(tmp_path, "m.jsonl", sorted(rows, key=lambda row: row["step"]))
    assert [loss for _, loss in steps_and_losses(run)] == [4 - s / 100 for s in range(0, 200, 5)]
    assert len(run.tables["eval"]) == 4


def test_lists_of_numbers_in_an_object(tmp_path):
    losses, held = [4 - e / 20 for e in range(20)], [4.1 - e / 20 for e in range(20)]
    keras = {"history": {"loss": losses, "val_loss": held}, "params": {"metrics": ["loss"]}}
    run = run_of(tmp_path, "a.json", [keras])
    assert [r["val_loss"] for r in run.tables["eval"]] == held
    of_validation = run_of(tmp_path, "b.json", [{"val": {"loss": held}}])
    assert (len(of_validation.tables["train"]), len(of_validation.tables["eval"])) == (0, 20)
    with pytest.raises(UserError, match="no list of rows"):
        run_of(tmp_path, "c.json", [{"small": {"loss": losses}, "large": {"loss": held}}])


def test_null_for_a_loss_among_other_nulls(tmp_path):
    """pandas writes it for NaN and for what was not logged; not where it comes regularly."""

    def diverged(has):
        rows = [
            {"step": s, "loss": 4 - s / 100 if has(s) else None, "val_loss": None, "lr": 1e-3}
            for s in range(60)
        ]
        rows[30:30] = [{"step": 29, "loss": None, "val_loss": 3.8, "lr": None}]
        found = run_of(tmp_path, "m.jsonl", rows).found.verdict("divergence")
        return found.verdict, found.since_step

    assert diverged(lambda s: s < 50) == ("yes", 50)
    assert diverged(lambda s: s % 5 == 0)[0] == "no"
    assert diverged(lambda s: s < 58)[0] == "no"


def test_other_runs_of_one_export_are_named(tmp_path):
    header = "Step,run-a - train/loss,run-b - train/loss"
    run = run_of(tmp_path, "m.csv", csv_of([(i, 4 - i / 10, 3 - i / 10) for i in range(9)], header))
    assert run.tables["train"][0]["loss"] == 4
    assert any("run-b" in problem for problem in run.problems)


def test_the_trainers_step_counts_before_the_loggers(tmp_path):
    rows = [{"_step": i, "trainer/global_step": 10 * i, "loss": 3.0} for i in range(5)]
    run = run_of(tmp_path, "m.jsonl", "\n".join(map(json.dumps, rows)))
    assert [r["step"] for r in run.tables["train"]] == [0, 10, 20, 30, 40]


def test_bits_are_not_nats(tmp_path):
    run = run_of(tmp_path, "m.csv", "step,Train Loss (bits)\n1,2\n2,1\n")
    assert [r["loss"] for r in run.tables["train"]] == pytest.approx([2 * math.log(2), math.log(2)])
    alone = run_of(tmp_path, "b.csv", "step,val_bpb\n1,2\n2,1\n")
    assert [r["val_loss"] for r in alone.tables["eval"]] == pytest.approx(
        [2 * math.log(2), math.log(2)]
    )
    both = run_of(tmp_path, "c.csv", "step,loss,val_bpb\n1,4,2\n2,3,1\n")
    assert [r["val_loss"] for r in both.tables["eval"]] == pytest.approx(
        [2 * math.log(2), math.log(2)]
    )
    assert any("nats per byte, not per token" in problem for problem in both.problems)
    beside = run_of(tmp_path, "d.csv", "step,loss,train_loss,val_bpb\n1,4,4,2\n2,3,3,1\n")
    for run in (both, beside):
        assert "no train loss to compare" in run.found.verdict("gap").because  # of another unit
        assert run.found.source.val_per == "byte"
        assert run.found.best.perplexity is None
        assert run.found.evaluations[0].val_perplexity is None


def test_a_row_of_validation_that_has_both_losses(tmp_path):
    """Its training loss is no validation loss."""
    rows = [{"event": "eval", "step": i, "train_loss": 4 - i / 9, "val_loss": 5 - i / 9}
            for i in range(9)]  # fmt: skip
    run = run_of(tmp_path, "m.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert run.log.eval["val_loss"].tolist() == [row["val_loss"] for row in rows]
    assert run.log.train["loss"].tolist() == [row["train_loss"] for row in rows]
    cells = [("eval", *(row[k] for k in ("step", "val_loss", "train_loss"))) for row in rows]
    run = run_of(tmp_path, "m.csv", csv_of(cells, "event,step,val_loss,train_loss"))
    assert run.log.eval["val_loss"].tolist() == [row["val_loss"] for row in rows]
    assert run.log.train["loss"].tolist() == [row["train_loss"] for row in rows]


@pytest.mark.parametrize("header", ["split,step,loss,val_loss", "split,step,val_loss,loss"])
def test_an_empty_cell_takes_nothing_back(header, tmp_path):
    """A row of validation whose loss stands in the column of training."""
    cells = {"split": "val", "loss": 2.5, "val_loss": ""}
    rows = [[(cells | {"step": i})[name] for name in header.split(",")] for i in range(9)]
    run = run_of(tmp_path, "m.csv", csv_of(rows, header))
    assert run.log.eval["val_loss"].tolist() == [2.5] * 9


def test_a_run_is_told_by_the_column_of_runs(tmp_path):
    rows = [{"model": "gpt", "run": f"r{i % 2}", "step": i // 2, "loss": 3.0 - i % 2}
            for i in range(60)]  # fmt: skip
    run = run_of(tmp_path, "m.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert run.log.train["loss"].tolist() == [2.0] * 30
    assert any("a column names 2" in problem for problem in run.problems)


def test_evaluations_that_were_not_made_are_not_infinite(tmp_path):
    rows = [(i, 3.0, 3.0 - i / 99, "" if i % 5 else 3.0 - i / 99) for i in range(49)]
    run = run_of(tmp_path, "m.csv", csv_of(rows, "step,loss,train_loss,val_loss"))
    assert "not finite" not in run.found.verdict("overfitting").because
    rows[-1] = (48, 3.0, 3.0, "inf")
    run = run_of(tmp_path, "m.csv", csv_of(rows, "step,loss,train_loss,val_loss"))
    assert "Later evaluations are not finite." in run.found.verdict("overfitting").because


def test_a_perplexity_that_is_not_of_its_loss(tmp_path):
    for factor, told in ((1.0, False), (1.04, False), (1.5, True), (0.9, True)):
        rows = [(i, 3.0, f"{factor * math.exp(3.0):.4f}") for i in range(9)]
        run = run_of(tmp_path, "p.csv", csv_of(rows, "step,loss,ppl"))
        assert any("times exp(loss)" in problem for problem in run.problems) == told
    rows = [(i, 3.0, 3.4, f"{math.exp(3.4):.4f}") for i in range(9)]  # of validation, by its value
    run = run_of(tmp_path, "p.csv", csv_of(rows, "step,loss,val_loss,perplexity"))
    assert not any("times exp" in problem for problem in run.problems)


def test_counters_that_a_resumed_run_begins_again(tmp_path):
    """Steps go on; tokens and seconds count from nothing once more."""
    rows = [(i, 3.0, 1000 * (i % 50 + 1), 10 * (i % 50 + 1)) for i in range(100)]
    run = run_of(tmp_path, "m.csv", csv_of(rows, "step,loss,tokens,elapsed"))
    assert run.found.ledger.tokens == 100_000
    assert run.found.ledger.seconds == 990
    assert sum("is counted on" in problem for problem in run.problems) == 2
    rows = [(i, 3.0, tokens) for i, tokens in enumerate((1000, 1200, 500, 800, 900, 1000))]
    run = run_of(tmp_path, "m.csv", csv_of(rows, "step,loss,tokens"))
    assert run.found.ledger.tokens is None  # of a row


@pytest.mark.parametrize("unit", [1, 1e3, 1e6, 1e9])
def test_unix_time_in_any_unit(unit, tmp_path):
    rows = [(i, 3.0, round((1_714_550_000 + 60 * i) * unit)) for i in range(9)]
    run = run_of(tmp_path, "m.csv", csv_of(rows, "step,loss,timestamp"))
    assert run.found.ledger.seconds == pytest.approx(480, abs=1)


def test_tokens_of_an_epoch_that_change(tmp_path):
    def units(epoch):
        rows = [(i, 3.0, 1000 * i, epoch(i)) for i in range(240)]
        run = run_of(tmp_path, "m.csv", csv_of(rows, "step,loss,tokens,epoch"))
        return run.found.verdict("units")

    assert units(lambda i: i / 10).verdict == "no"
    assert units(lambda i: round(i / 103, 2)).verdict == "no"
    wrong = units(lambda i: i / 10 if i < 110 else 4 * i / 10)
    assert wrong.verdict == "yes"
    assert wrong.evidence["ratio"] == pytest.approx(0.25)


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
def test_lines_that_are_redrawn(end, tmp_path):
    text = end.join(
        f"step {i}: train loss {4 - i / 100}, val loss {5 - i / 100}" for i in range(60)
    )
    run = run_of(tmp_path, "out.log", "begins\n" + text + end)
    assert len(run.tables["train"]) == len(run.tables["eval"]) == 60


@pytest.mark.parametrize("name", ["tokens", "time"])
def test_what_belongs_to_a_row_is_no_total(name, tmp_path):
    run = run_of(tmp_path, "m.csv", csv_of([(i, 3, 350) for i in range(9)], f"step,loss,{name}"))
    assert any(f"{name} does not count up" in problem for problem in run.problems)
    assert run.tables["train"][-1][name] is None
    rising = csv_of([(i, 3, 350 * (i // 3)) for i in range(9)], f"step,loss,{name}")
    assert run_of(tmp_path, "r.csv", rising).tables["train"][-1][name] == 700


def test_jsonl_of_several_kinds_and_pythons_nan(tmp_path):
    rows = [
        '{"config": {"vocab_size": 100}}',
        '{"step": 1, "train": {"loss": 4.0}, "lr": 0.1}',
        '{"type": "eval", "step": 1, "loss": 4.2}',
        '{"step": 2, "loss": NaN}',
        "not json",
        "[1, 2]",
        '{"step": 3, "loss": 3.0, "note": "x"}',
    ]
    run = run_of(tmp_path, "m.jsonl", "\n".join(rows))
    assert run.config["vocab_size"] == run.found.about.vocab_size == 100
    assert [r["loss"] for r in run.tables["train"] if r["loss"] is not None] == [4.0, 3.0]
    assert [r["val_loss"] for r in run.tables["eval"]] == [4.2]
    assert run.problems == [
        "2 lines without an object of JSON: passed over",
        "not read: columns note",
    ]


ROWS = [f'{{"step": {i}, "loss": {4 - i / 10:.1f}}}' for i in range(1, 21)]


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (['ep": 0, "loss": 5.0}', *ROWS], "line 1: not an object of JSON, or not a whole one"),
        (["Starting run 7", "", *ROWS], "1 line without an object of JSON: passed over"),
        ([f"2026-01-02 03:04:05 INFO train.py:12 - {row}" for row in ROWS], None),
        ([*ROWS, '{"step": 21, "lo'], "line 21: not an object of JSON, or not a whole one"),
        (["{", '  "lr": 0.1', "}", *ROWS], "line 1: not an object of JSON, or not a whole one"),
    ],
)
def test_rows_of_json_among_other_lines(lines, problem, tmp_path):
    run = run_of(tmp_path, "train.log", "\n".join(lines))
    assert [(r["step"], r["loss"]) for r in run.tables["train"]] == [
        (i, pytest.approx(4 - i / 10)) for i in range(1, 21)
    ]
    assert (problem in run.problems) if problem else not run.problems


def test_settings_of_json_above_printed_lines_are_no_rows(tmp_path):
    lines = ["{", '  "lr": 0.1,', '  "layers": 2', "}"]
    lines += [f"step {i} loss {4 - i / 10:.1f}" for i in range(1, 21)]
    assert len(run_of(tmp_path, "train.log", "\n".join(lines)).tables["train"]) == 20


def test_perplexity_alone(tmp_path):
    run = run_of(tmp_path, "m.csv", "step,perplexity\n1,20\n2,10\n")
    assert run.tables["train"][0]["loss"] == pytest.approx(math.log(20))


@pytest.mark.parametrize(
    ("name", "text", "say"),
    [("a.csv", "", "empty"), ("a.csv", "step,color\n1,2\n", "no known column in the header|loss"),
     ("a.csv", "step,loss\n", "no rows"), ("a.txt", "hello", "not a log"),
     ("a.jsonl", '{"a": 1}\n', "no row with a known field"), ("a.bin", b"\0\1,\2", "not a log")],
)  # fmt: skip
def test_what_cannot_be_read_is_one_clear_line(tmp_path, name, text, say):
    with pytest.raises(UserError, match=say) as error:
        run_of(tmp_path, name, text)
    assert "\n" not in str(error.value)


def test_the_log_of_another_tool_in_a_folder(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 3}')
    with pytest.raises(UserError, match=r"Give the file itself: .*metrics\.jsonl$"):
        load_run(tmp_path)
    (tmp_path / "metrics.csv").write_text("step,loss")
    with pytest.raises(UserError, match=r"\(log\.jsonl is missing\)\.$"):
        load_run(tmp_path)


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="no such"):
        load_run(tmp_path / "nowhere")


CELL = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True).map(repr), st.integers().map(str),
    st.text(max_size=8), st.just(""), st.just("1e999"),
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.lists(st.lists(CELL, max_size=6), min_size=1, max_size=30))
def test_any_csv_gives_findings_or_a_user_error(tmp_path, rows):
    text = "step,loss,val_loss,lr\n" + "\n".join(",".join(row) for row in rows)
    path = tmp_path / "any.csv"
    path.write_text(text, encoding="utf-8", errors="replace")
    with contextlib.suppress(UserError):
        json.dumps(load_run(path).findings, allow_nan=False)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(junk=st.lists(st.binary(max_size=60), max_size=8), cut=st.integers(0, 2000))
def test_a_damaged_run_folder_still_gives_findings(tmp_path_factory, junk, cut):
    folder = made.run_folder(tmp_path_factory.mktemp("d") / "r", steps=120, every=20, blocks=False)
    log = folder / "log.jsonl"
    content = log.read_bytes()
    log.write_bytes(content[: max(1200, len(content) - cut)] + b"\n" + b"\n".join(junk))
    (folder / "yardsticks.json").write_bytes(b"".join(junk))
    json.dumps(load_run(folder).findings, allow_nan=False)


def test_own_run_folder_tables(tmp_path):
    run = load_run(made.run_folder(tmp_path / "r", resume_at=200))
    assert set(run.tables) == {"train", "eval", "sample", "checkpoint", "event", "session"}
    assert [r["step"] for r in run.tables["train"]] == list(range(10, 401, 10))
    assert [s["attempt"] for s in run.tables["session"]] == [1, 2]
    assert run.findings["best"]["step"] == 400
    assert run.config["schedule"]["kind"] == "cosine"
    assert [c["step"] for c in run.checkpoints] == list(range(40, 401, 40))


@pytest.mark.skipif(not LOGS.is_dir(), reason=f"{LOGS} is not there")
def test_lightning_csv():
    found = load_run(LOGS / "lightning-metrics.csv").found
    assert found.source.eval_rows == 10
    assert found.verdict("overfitting").verdict == "no"
    assert found.best.step == 140_739


@pytest.mark.skipif(not LOGS.is_dir(), reason=f"{LOGS} is not there")
@pytest.mark.parametrize(
    ("name", "train", "val"),
    [
        ("llmc-main.log", r"^s:(\d+) trl:(\S+)", r"^s:(\d+) tel:(\S+)"),
        (
            "megatron-fp16-divergence.out",
            r"iteration +(\d+)/.* lm loss: (\S+)",
            r"valid loss at iteration (\d+) \| lm loss value: (\S+)",
        ),
        (
            "megatron-spike-recovers.out",  # DeepSpeed says every tenth loss again, in its own way
            r"(?:iteration|steps:) +(\d+)[/ ].*?loss: (\S+)",
            r"valid loss at iteration (\d+) \| lm loss value: (\S+)",
        ),
        (
            "nanogpt-stdout-overfit.txt",
            r"^iter (\d+): loss ([\d.]+)",
            r"^step (\d+): .*val loss (\S+)",
        ),
    ],
)
def test_printed_logs_hold_what_stands_in_them(name, train, val):
    """Every loss, against a look for nothing but that."""
    path = LOGS / name
    text = path.read_text(errors="replace")
    tables = load_run(path).tables
    for table, column, form in (("train", "loss", train), ("eval", "val_loss", val)):
        read = {r["step"]: r[column] for r in tables[table] if r[column] is not None}
        there = {int(s): float(v) for s, v in re.findall(form, text, re.MULTILINE)}
        assert there
        assert {step: read.get(step) for step in there} == pytest.approx(there)
        assert len(read) == len(there)


@pytest.mark.skipif(not LOGS.is_dir(), reason=f"{LOGS} is not there")
def test_a_real_overfit(tmp_path):
    """nanoGPT on Shakespeare by character: lowest near step 1,750, then rising for 3,000 steps."""
    text = (LOGS / "nanogpt-stdout-overfit.txt").read_text()
    rows = re.findall(r"^step (\d+): train loss ([\d.]+), val loss ([\d.]+)", text, re.M)
    found = run_of(
        tmp_path, "n.csv", "\n".join(["step,train_loss,val_loss", *(",".join(r) for r in rows)])
    ).found
    v = found.verdict("overfitting")
    assert v.verdict == "yes"
    assert abs(v.since_step - 1750) <= 2 * 250
    assert found.verdict("gap").verdict == "growing"
    assert "±" not in found.verdict("gap").because  # a mean of what changes has no error
    assert found.verdict("still_improving").verdict == "no"
    assert found.advice[0].do.startswith("Deploy step")
