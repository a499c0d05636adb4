"""Values that a log holds and nobody measured; lines that name things in their own way."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from foreign import STEPS, evaluations, falling, losses, run_of, told, val

from overnight.analysis.run import load_run
from overnight.errors import UserError

# --- values -----------------------------------------------------------------------------------


def test_zeros_for_ever_are_a_loss_that_broke(tmp_path: Path) -> None:
    """As transformers prints one that is not finite."""
    good = [{"step": s, "loss": falling(s), "grad_norm": 1.0} for s in STEPS if s < 900]
    bad = [{"step": s, "loss": 0.0, "grad_norm": math.nan} for s in STEPS if s >= 900]
    evals = [
        {"step": s, "eval_loss": val(s) if s < 900 else math.nan} for s in STEPS if s % 100 == 0
    ]
    document = json.dumps({"log_history": sorted(good + bad + evals, key=lambda row: row["step"])})
    run = run_of(tmp_path, "trainer_state.json", [document])
    verdict = run.found.verdict("divergence")
    assert (verdict.verdict, verdict.since_step) == ("yes", 900)
    assert told(run, "the last 31 training losses are exactly 0")
    assert told(run, "4 validation losses not a number")
    assert run.found.best.step < 900


def test_a_loss_of_zero_that_comes_slowly_is_one(tmp_path: Path) -> None:
    rows = [f"{s},{max(0.0, 1 - s / 500):.2f}" for s in STEPS]
    run = run_of(tmp_path, "m.csv", ["step,loss", *rows])
    assert run.tables["train"][-1]["loss"] == 0.0


@pytest.mark.parametrize("column", ["loss", "val_loss"])
def test_one_or_two_zeros_are_values(tmp_path: Path, column: str) -> None:
    """However odd: what stands for something is written more often."""
    rows = [f"{s},{falling(s)},{val(s)}" for s in STEPS]
    end = ["1210,0,2.7", "1220,0,2.7"] if column == "loss" else ["1210,2.5,0"]
    run = run_of(tmp_path, "m.csv", ["step,loss,val_loss", *rows, *end])
    table = run.tables["train" if column == "loss" else "eval"]
    assert table[-1][column] == 0


def test_a_loss_that_comes_to_zero_slowly_keeps_its_zeros(tmp_path: Path) -> None:
    rows = [f"{s},{falling(s)},{max(0.0, 1 - s / 900):.2f}" for s in STEPS]
    run = run_of(tmp_path, "m.csv", ["step,loss,val_loss", *rows])
    assert len(evaluations(run)) == len(STEPS)


@pytest.mark.parametrize("none", ["-1", "0.0"])
def test_what_stands_for_no_evaluation_is_none(tmp_path: Path, none: str) -> None:
    rows = [f"{s},{falling(s)},{val(s) if s % 100 == 0 else none}" for s in STEPS]
    run = run_of(tmp_path, "m.csv", ["step,loss,val_loss", *rows])
    assert evaluations(run) == [(s, val(s)) for s in STEPS if s % 100 == 0]
    assert told(run, "which stands for none")


def test_an_evaluation_said_again_is_one(tmp_path: Path) -> None:
    """Rows of training that repeat the last validation loss; a plateau in two digits does not."""
    rows = [f"{s},{falling(s)},{val(max(s // 100, 1) * 100)}" for s in STEPS if s < 1150]
    run = run_of(tmp_path, "m.csv", ["step,loss,val_loss", *rows])
    assert len(evaluations(run)) == 11
    assert evaluations(run)[1:] == [(s, val(s)) for s in range(200, 1110, 100)]
    random = np.random.default_rng(0)
    flat = [f"{s},{falling(s)},{2.5 + 0.004 * random.normal():.2f}" for s in STEPS]
    assert len(evaluations(run_of(tmp_path, "flat.csv", ["step,loss,val_loss", *flat]))) == 120


def test_a_loss_in_bits_is_told_by_its_perplexity(tmp_path: Path) -> None:
    bits = [(s, falling(s) / math.log(2)) for s in STEPS]
    rows = [
        json.dumps({"num_updates": s, "update": s / 77, "loss": b, "ppl": 2**b}) for s, b in bits
    ]
    run = run_of(tmp_path, "m.jsonl", rows)
    assert [step for step, _ in losses(run)] == list(STEPS)
    assert losses(run)[-1][1] == pytest.approx(falling(1200))
    assert told(run, "loss is in bits")
    lines = [f"step {s} loss {b:.4f} ppl {2**b:.4f}" for s, b in bits]  # fairseq's validation has
    lines += [f"step {s} val_loss {b:.4f}" for s, b in bits[::10]]  # no other name for its own
    printed = run_of(tmp_path, "log.txt", lines)
    assert evaluations(printed)[-1][1] == pytest.approx(
        falling(evaluations(printed)[-1][0]), abs=1e-3
    )


def test_durations_of_rows_are_no_clock(tmp_path: Path) -> None:
    rows = [f"{i},3.{9 - i},3.{9 - i},00:{12 + i // 4}" for i in range(9)]
    run = run_of(tmp_path, "history.csv", ["epoch,train_loss,valid_loss,time", *rows])
    assert run.found.ledger.seconds is None
    late = [f"{s},{falling(s)},{40 + s // 60}" for s in STEPS]
    assert run_of(tmp_path, "l.csv", ["step,loss,time", *late]).found.ledger.seconds == 20
    coarse = [f"{s},{falling(s)},{s // 400}" for s in STEPS]
    assert run_of(tmp_path, "c.csv", ["step,loss,time", *coarse]).found.ledger.seconds == 3
    unix = [f"{s},{falling(s)},{1_750_000_000 + s // 400}" for s in STEPS]
    assert run_of(tmp_path, "u.csv", ["step,loss,time", *unix]).found.ledger.seconds == 3


def test_rows_that_grow_sparse_leave_nothing_missing(tmp_path: Path) -> None:
    dense = [*range(1, 200), *range(200, 5000, 100)]
    run = run_of(tmp_path, "m.csv", ["step,loss", *(f"{s},{falling(s)}" for s in dense)])
    assert run.found.ledger.missing_points == 0
    assert load_run(tmp_path / "m.csv").found.ledger.logged_points == len(dense)
    sparse = [*range(0, 5000, 100), *range(5000, 5100)]  # and dense at the end
    run = run_of(tmp_path, "s.csv", ["step,loss", *(f"{s},{falling(s)}" for s in sparse)])
    assert run.found.ledger.missing_points == 0
    for hole in ([10, *range(510, 1010, 10)], [*range(10, 500, 10), 990]):
        run = run_of(tmp_path, "e.csv", ["step,loss", *(f"{s},{falling(s)}" for s in hole)])
        assert run.found.ledger.missing_points == 49
    holes = [s for s in dense if not 50 <= s < 60 and s != 3000]
    run = run_of(tmp_path, "h.csv", ["step,loss", *(f"{s},{falling(s)}" for s in holes)])
    assert run.found.ledger.missing_points == 11


@pytest.mark.parametrize("cut", ["3000,2.8471,2", "3000,2.8471,2.", "3000,2"])
def test_a_number_that_breaks_off_is_no_loss(tmp_path: Path, cut: str) -> None:
    rows = [f"{s},{falling(s):.4f},{val(s):.4f}" for s in STEPS]
    run = run_of(tmp_path, "m.csv", ["step,loss,val_loss", *rows, cut], end="")
    assert run.tables["train"][-1]["step"] == 1200
    assert told(run, "breaks off within a number")
    few = run_of(tmp_path, "f.csv", ["step,loss", "1,3.1415", "2,3.0001", "3,2.9"], end="")
    assert losses(few)[-1] == (3, 2.9)  # too few rows to know how numbers look
    whole = run_of(tmp_path, "w.csv", ["step,loss,val_loss", *rows], end="")
    assert evaluations(whole)[-1] == (1200, val(1200))
    lines = [f"step {s}: train loss {falling(s):.4f}, val loss {val(s):.4f}" for s in STEPS]
    run = run_of(tmp_path, "m.txt", [*lines, "step 3000: train loss 2.8471, val loss 2."], end="")
    assert run.tables["eval"][-1]["step"] == 1200


def test_preferences_are_no_language(tmp_path: Path) -> None:
    """Their rewards outrank the tokens that are counted beside them, and the loss need not fall."""
    rows = [
        {"step": s, "loss": 0.001 * s / 100, "reward": s / 9, "num_tokens": 50 * s} for s in STEPS
    ]
    run = run_of(tmp_path, "m.jsonl", list(map(json.dumps, rows)))
    assert run.found.verdict("too_good").verdict == "cannot_tell"
    assert run.found.verdict("divergence").verdict == "cannot_tell"
    rows = [{"step": s, "loss": 3 + s / 400 if s > 600 else falling(s), "acc": 0.5} for s in STEPS]
    run = run_of(tmp_path, "acc.jsonl", list(map(json.dumps, rows)))
    assert run.found.verdict("divergence").verdict == "yes"


# --- where validation losses stand --------------------------------------------------------------

LINE = "step {s} | loss {t} | lr 0.0001"
OF_STEP = {
    "[val] step {s} loss {v}": "[train] " + LINE,
    "EVAL | step {s} | loss {v}": LINE,
    "Step {s} valid: loss={v}": LINE,
    "step {s} loss (val) {v}": LINE,
    "step {s} | val_loss {v}": "step {s} | eval in 9 | train | loss {t}",
    "validation results at iteration {s} | lm_loss value: {v}E+00 | lm_loss_ppl value: 9": LINE,
    "validation loss at iteration {s} on validation set | lm loss value: {v}E+00 |": LINE,
}
WITHOUT = (
    "val loss {v}",
    "Epoch 1/5 done | Train loss: 9.9 | Val loss: {v}",
    "eval_loss: {v}, ppl: 9",
)


@pytest.mark.parametrize("form", [*OF_STEP, *WITHOUT])
def test_a_line_of_validation_is_no_training_loss(form: str, tmp_path: Path) -> None:
    lines = []
    for s in STEPS:
        lines.append(OF_STEP.get(form, LINE).format(s=s, t=falling(s)))
        if s % 100 == 0:
            lines += [form.format(s=s, v=val(s)), "best so far, val loss: 1.0"]
    lines.append("validation loss at iteration 1200 on test set | lm loss value: 1.0E+00 |")
    run = run_of(tmp_path, "log.txt", lines)
    assert losses(run) == [(s, falling(s)) for s in STEPS]
    assert evaluations(run) == [(s, val(s)) for s in STEPS if s % 100 == 0]
    assert told(run, "without a step: taken for the one before") == (form in WITHOUT)


def test_a_cell_of_validation_without_a_step(tmp_path: Path) -> None:
    rows = ["step,loss,val_loss", ",,9.0"]  # before the first step
    for s in STEPS:
        rows += [f"{s},{falling(s)},"] + ([f",,{val(s)}"] if s % 100 == 0 else [])
    run = run_of(tmp_path, "m.csv", rows)
    assert evaluations(run) == [(0, 9.0), *((s, val(s)) for s in STEPS if s % 100 == 0)]
    mixed = run_of(tmp_path, "n.csv", [*rows, f"1300,{falling(1300)},{val(1300)}"])
    assert evaluations(mixed) == [(1300, val(1300))]
    assert told(mixed, "13 validation losses without a step: left out")


# --- how lines name things ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    ["2026-05-01 12:00:00.123 | INFO | __main__:train:145 - step {s} | loss {t}",
     "INFO train:88 step {s} loss {t}", "train 10% step {s} loss {t}",
     "2026-05-01T12:00:00.123456789Z step {s}: loss {t}", "step {s} | l2 loss 0.01 | loss {t}",
     "Epoch [1/3], Step [{s}/1200], Loss: {t}", "Training step {s}: loss = {t}",
     "completed step: {s}, loss: {t}", "step #{s} loss {t}", "{s} | loss {t} | lr 1e-4 | 90.1ms",
     "{s} train {t}"],
)  # fmt: skip
def test_the_step_and_the_loss_of_a_line(line: str, tmp_path: Path) -> None:
    run = run_of(tmp_path, "log.txt", [line.format(s=s, t=falling(s)) for s in STEPS])
    assert losses(run) == [(s, falling(s)) for s in STEPS]


@pytest.mark.parametrize(
    ("form", "seconds"),
    [("elapsed: {h:02d}:{m:02d}:00", 71_400), ("elapsed: {x}.0 min", 71_400),
     ("time: {x}000 ms", 1190), ("elapsed: {x} s", 1190)],
)  # fmt: skip
def test_units_apart_from_their_numbers(form: str, seconds: float, tmp_path: Path) -> None:
    lines = [
        f"step {s} loss {falling(s)} | tokens: {s / 10} M | throughput: 12.3 samples/s | "
        "throughput (TFLOPs): 99.5 | " + form.format(x=s, h=s // 60, m=s % 60)
        for s in STEPS
    ]
    run = run_of(tmp_path, "log.txt", lines)
    assert run.found.ledger.seconds == pytest.approx(seconds)
    assert run.tables["train"][-1]["tokens"] == 120_000_000
    assert run.found.ledger.tokens_per_s is None


def test_what_transformers_prints(tmp_path: Path) -> None:
    lines = ["Some weights were not initialised"]
    for s in STEPS:
        lines.append(f"{{'loss': {falling(s)}, 'grad_norm': 1.2, 'epoch': {s / 600:.2f}}}")
        lines.append(f" {s // 12}%|###| {s}/1200 [00:10<01:00, 3.1it/s]\r")
    lines.append(f"{{'eval_loss': {val(1200)}, 'eval_runtime': 1.2, 'epoch': 2.0}}")
    lines.append("{'train_runtime': 123.4, 'train_loss': 9.9, 'epoch': 2.0}")
    for name, part in (("a.txt", lines), ("b.txt", lines[1:])):
        run = run_of(tmp_path, name, part)
        assert [loss for _, loss in losses(run)] == [falling(s) for s in STEPS]
        assert [loss for _, loss in evaluations(run)] == [val(1200)]
        assert told(run, "rows are counted")
        assert run.found.ledger.seconds == 123.4


def test_the_trainers_steps_of_one_run_among_several(tmp_path: Path) -> None:
    header = '"train/global_step","r1 - _step","r1 - eval/loss"'
    run = run_of(tmp_path, "w.csv", [header, *(f"{s},{s // 10},{val(s)}" for s in STEPS)])
    assert evaluations(run)[-1] == (1200, val(1200))


@pytest.mark.parametrize(
    "line",
    ["[/data/test/run.py:33] step {s} loss {t}", "gpt-dev-1  | step {s} loss {t}",
     "2026-05-01 12:00:00 [INFO] test - step {s} - loss {t}",
     "step {s} | eval time: 0.0s | loss {t}", "step {s} | best val inf | loss {t}",
     "step {s} s/it 0.52 loss {t}", "iter {s} ms/step 31.2  loss {t}",
     "tok/s 7123 step {s} loss {t}"],
)  # fmt: skip
def test_what_stands_beside_it_is_no_tag_and_no_unit(line: str, tmp_path: Path) -> None:
    run = run_of(tmp_path, "log.txt", [line.format(s=s, t=falling(s)) for s in STEPS])
    assert losses(run) == [(s, falling(s)) for s in STEPS]
    assert not run.tables["eval"]
    assert run.found.ledger.tokens_per_s == (7123 if "tok/s" in line else None)


def test_a_validation_loss_with_a_name_leaves_the_other_its_own(tmp_path: Path) -> None:
    lines = [f"step {s} val loss {val(s)} loss {falling(s)}" for s in STEPS]
    run = run_of(tmp_path, "log.txt", lines)
    assert losses(run) == [(s, falling(s)) for s in STEPS]
    assert evaluations(run) == [(s, val(s)) for s in STEPS]


@pytest.mark.parametrize(
    "line",
    ["val loss at step {s}: {v}", "Validation loss at step {s}: {v}", "Eval loss @ {s}: {v}",
     "[rank0] eval loss at step {s} is {v}", "val loss for step {s} = {v}",
     "val loss after {s} steps: {v}", "valid loss at iteration {s} | lm loss value: {v} | PPL: 7",
     "step {s} | val loss is {v}", "val loss at step {s}/1200: {v}",
     "val loss at step {s} of 1200: {v}", "val loss at step {s} (1.0 min): {v}",
     "step {s}: val loss {v} (best val loss at step 7: 1.5)",
     "step {s} validation loss {v}\\nvalidation loss decreased (9.9 --> 2.3). Saving model ...",
     "step {s}: val loss: {v}, val loss did not improve from 0.5"],
)  # fmt: skip
def test_sentences_that_say_a_validation_loss(line: str, tmp_path: Path) -> None:
    lines = [f"step {s} | loss {falling(s)} | lr 1e-3\n{line.format(s=s, v=val(s))}" for s in STEPS]
    run = run_of(tmp_path, "log.txt", lines)
    assert losses(run) == [(s, falling(s)) for s in STEPS]
    assert evaluations(run) == [(s, val(s)) for s in STEPS]


@pytest.mark.parametrize(
    "words",
    ["did not improve from 0.5", "improved from 9.0 to 2.3", "of epoch 3", "after 3 epochs: 2",
     "for 50 batches: 3.2"],
)  # fmt: skip
def test_sentences_that_say_none(words: str, tmp_path: Path) -> None:
    lines = [f"step {s} | loss {falling(s)}\nstep {s} val loss {words}" for s in STEPS]
    assert not evaluations(run_of(tmp_path, "log.txt", lines))


@pytest.mark.parametrize(
    "end", ["Best val loss at step 500: 2.6", "final val loss after 2 steps: 2"]
)
def test_a_summary_at_the_end_is_no_evaluation(end: str, tmp_path: Path) -> None:
    lines = [f"step {s}: train loss {falling(s)}, val loss {val(s)}" for s in STEPS]
    run = run_of(tmp_path, "log.txt", [*lines, end])
    assert evaluations(run) == [(s, val(s)) for s in STEPS]


@pytest.mark.parametrize("rank", ["0: epoch 1 | ", "[0] epoch 0 ", "[0] train ", "0: "])
def test_a_rank_is_no_step(rank: str, tmp_path: Path) -> None:
    lines = [f"{rank}step {s} loss {falling(s)}" for s in STEPS]
    assert losses(run_of(tmp_path, "log.txt", lines)) == [(s, falling(s)) for s in STEPS]


@pytest.mark.parametrize("behind", ['timers={"time": 1.5}', "{}", 'extra {"mem": 1}'])
def test_objects_behind_a_printed_line_are_no_rows(behind: str, tmp_path: Path) -> None:
    lines = [f"step {s} loss {falling(s)} {behind}" for s in STEPS]
    assert losses(run_of(tmp_path, "log.txt", lines)) == [(s, falling(s)) for s in STEPS]
    lines = [f'step {s}: {{"loss": {falling(s)}}}' for s in STEPS]
    assert losses(run_of(tmp_path, "o.txt", lines)) == [(s, falling(s)) for s in STEPS]


@pytest.mark.parametrize("name", ["step,loss,ppl", "num_updates,loss,ppl,nll_loss"])
@pytest.mark.parametrize("broken", [400, 1000])
def test_a_loss_that_breaks_beside_a_perplexity(broken: int, name: str, tmp_path: Path) -> None:
    rows = [
        f"{s},nan,nan" if s >= broken else f"{s},{falling(s)},{2 ** (falling(s) - 0.3)}"
        for s in STEPS
    ]
    more = ",1" if "nll" in name else ""
    run = run_of(tmp_path, "m.csv", [name, *(row + more for row in rows)])
    verdict = run.found.verdict("divergence")
    assert (verdict.verdict, verdict.since_step) == ("yes", broken)


@pytest.mark.parametrize("of", ["train_ppl", "val_ppl", "val_bpb"])
def test_a_perplexity_that_stays_nan_has_diverged(of: str, tmp_path: Path) -> None:
    rows = [f"{s},{math.exp(falling(s)) if s < 800 else 'nan'}" for s in STEPS]
    found = run_of(tmp_path, "m.csv", [f"step,{of}", *rows]).found.verdict("divergence")
    assert (found.verdict, found.since_step) == ("yes", 800)
    seldom = [row if i % 10 == 0 else f"{10 * i},nan" for i, row in enumerate(rows[:60])]
    found = run_of(tmp_path, "n.csv", [f"step,{of}", *seldom]).found.verdict("divergence")
    assert found.verdict != "yes"


def test_a_bare_loss_that_breaks_is_read(tmp_path: Path) -> None:
    lines = [f"step {s} train {falling(s) if s < 600 else 'nan'} val {val(s)}" for s in STEPS]
    verdict = run_of(tmp_path, "log.txt", lines).found.verdict("divergence")
    assert (verdict.verdict, verdict.since_step) == ("yes", 600)


def test_a_test_set_is_no_validation(tmp_path: Path) -> None:
    lines = [f"step {s} loss {falling(s)}" for s in STEPS]
    lines += ["Loading best model from step 300", "Test Loss: 1.9", "[test] step 1200 loss 1.8"]
    run = run_of(tmp_path, "log.txt", lines)
    assert losses(run) == [(s, falling(s)) for s in STEPS]
    assert not run.tables["eval"]


def test_comments_and_short_tables_are_no_torn_lines(tmp_path: Path) -> None:
    rows = [f"{s},{falling(s)}" for s in STEPS]
    run = run_of(tmp_path, "c.csv", ["# run A", "# by me", "step,loss", *rows, "1210"], end="")
    assert losses(run)[-1][0] == 1200
    rates = [f"{s},{falling(s)},{0.001 * (1 - s / 1200)}" for s in STEPS]
    run = run_of(tmp_path, "lr.csv", ["step,loss,lr", *rates], end="")
    assert losses(run)[-1] == (1200, falling(1200))


@pytest.mark.parametrize(
    ("is_nan", "words"),
    [
        (lambda s: s in (300, 310, 450), "3 training losses not a number, and later ones are"),
        (lambda s: s == 300, "1 training loss not a number, and later ones are"),
        (lambda s: s % 200 == 0, ""),  # a row for something else
        (lambda s: s % 100 > 40, ""),
    ],
)
def test_a_loss_that_was_nan_for_a_moment_is_told(
    is_nan: Callable[[int], bool], words: str, tmp_path: Path
) -> None:
    lines = [f"{s},{'nan' if is_nan(s) else falling(s)},0.001" for s in STEPS]
    run = run_of(tmp_path, "m.csv", ["step,loss,lr", *lines])
    logged = [(s, falling(s)) for s in STEPS if not is_nan(s)]
    assert [row for row in losses(run) if row[1] is not None] == logged
    assert told(run, words or "not a number") == bool(words)


# --- lines of other tools -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    ["{s}/20000 train_loss: {t} tok/s: 8241348", "[{s}/2000] loss: {t}", "({s}/2000) loss: {t}",
     "{s}: loss={t}", "{s}/21150 (epoch 0.002), train_loss = {t}, time/batch = 0.05",
     "step {s} (0.06M tok)  loss {t}", "step {s} (250ms) loss {t}", "step {s} / 25000 | loss {t}",
     "{{'loss': {t}, 'epoch': 0.01, 'global_step/max_steps': '{s}/5000'}}",
     "[2021-03-28 16:02:20] Ep. 1 : Up. {s} : Sen. 16,557 : Cost {t} * 407,343 after 9 : L.r. 1"],
)  # fmt: skip
def test_steps_in_other_places(line: str, tmp_path: Path) -> None:
    run = run_of(tmp_path, "log.txt", [line.format(s=s, t=falling(s)) for s in STEPS])
    assert losses(run) == [(s, falling(s)) for s in STEPS]


@pytest.mark.parametrize("took", ["1h 5m 31s", "1h5m31s"])
def test_a_time_is_read_to_its_end(took: str, tmp_path: Path) -> None:
    lines = [f"step {s} | loss {falling(s)} | elapsed {s}s" for s in STEPS[:-1]]
    run = run_of(tmp_path, "log.txt", [*lines, f"step 1200 | loss 2.5 | elapsed {took}"])
    assert run.tables["train"][-1]["time"] == 3931


def test_batches_of_an_evaluation_are_no_steps(tmp_path: Path) -> None:
    lines = []
    for s in STEPS:
        lines.append(f"step:{s}/1200 train_loss:{falling(s)} train_time:{s}ms")
        if s % 100 == 0:
            lines += [f"  eval: batch {i}/100 running_loss:7.03" for i in range(20, 101, 20)]
            lines.append(f"step:{s}/1200 val_loss:{val(s)}")
    run = run_of(tmp_path, "log.txt", lines)
    assert losses(run) == [(s, falling(s)) for s in STEPS]
    assert evaluations(run) == [(s, val(s)) for s in STEPS if s % 100 == 0]


def test_validation_behind_what_a_logger_says(tmp_path: Path) -> None:
    """JoeyNMT's loss is a sum over the set; its perplexity tells the mean."""
    logger = "2020-05-01 10:00:00,123 - INFO - joeynmt.training - "
    lines = []
    for s in STEPS:
        lines.append(f"{logger}Epoch 1, Step: {s}, Batch Loss: {falling(s)}, Lr: 0.0001")
        if s % 100 == 0:
            figures = f"bleu: 1.56, loss: 145000.0, ppl: {math.exp(val(s))}, duration: 202s"
            lines.append(f"{logger}Validation result (greedy) at epoch 1, step {s}: {figures}")
    run = run_of(tmp_path, "log.txt", lines)
    assert losses(run) == [(s, falling(s)) for s in STEPS]
    assert evaluations(run) == [(s, pytest.approx(val(s))) for s in STEPS if s % 100 == 0]
    assert told(run, "val_loss is ln(val_perplexity): the loss beside it is a sum")


def test_marians_cross_entropy_is_that_of_a_sentence(tmp_path: Path) -> None:
    lines = []
    for s in STEPS:
        lines.append(
            f"[2021-03-28 16:02:20] Ep. 1 : Up. {s} : Sen. 1 : Cost {falling(s)} * 4 after 9"
        )
        if s % 100 == 0:
            valid = f"[2021-03-28 16:02:20] [valid] Ep. 1 : Up. {s} : "
            lines.append(f"{valid}cross-entropy : 137.3 : new best")
            lines.append(f"{valid}perplexity : {math.exp(val(s))} : new best")
    run = run_of(tmp_path, "log.txt", lines)
    assert losses(run) == [(s, falling(s)) for s in STEPS]
    assert evaluations(run) == [(s, pytest.approx(val(s))) for s in STEPS if s % 100 == 0]


@pytest.mark.parametrize("name", ["log.txt", "log.jsonl"])
def test_a_smoothed_loss_gives_way_to_its_perplexity(name: str, tmp_path: Path) -> None:
    """fairseq's are in bits, and its perplexity is 2 to the nll_loss."""
    lines = []
    for s in STEPS:
        for of, loss in (("", falling(s)), ("valid", val(s))):
            if of and s % 100:
                continue
            bits = loss / math.log(2)
            row = {"loss": bits + 0.3, "nll_loss": bits, "ppl": 2**bits, "num_updates": s}
            printed = " | ".join(f"{key} {value}" for key, value in row.items())
            row = {f"{of}_{key}".lstrip("_"): value for key, value in row.items()}
            lines.append(
                json.dumps(row) if name.endswith("l") else f"{of or 'train_inner'} | {printed}"
            )
    run = run_of(tmp_path, name, lines)
    assert losses(run) == [(s, pytest.approx(falling(s))) for s in STEPS]
    evaluated = [(s, pytest.approx(val(s))) for s in STEPS if s % 100 == 0]
    assert evaluations(run) == evaluated
    assert not told(run, "nll_loss")


def test_several_evaluations_behind_one_row_of_training(tmp_path: Path) -> None:
    """As transformers prints them where it logs every 500 steps and evaluates every epoch."""
    lines = []
    for epoch in range(1, 13):
        if epoch % 2:
            lines.append(str({"loss": 4 - epoch / 10, "epoch": epoch - 0.5}))
            lines.append(str({"loss": 3.9 - epoch / 10, "epoch": epoch - 0.2}))
        lines.append(str({"eval_loss": 4.1 - epoch / 10, "epoch": float(epoch)}))
    run = run_of(tmp_path, "log.txt", lines)
    assert [v for _, v in evaluations(run)] == pytest.approx([4.1 - e / 10 for e in range(1, 13)])
    # one more evaluation at the end, as many a script makes: rows of training stay the steps
    rows = [str({"loss": falling(s), "epoch": s / 100}) for s in STEPS]
    lines = [line for i in range(0, 120, 20) for line in (*rows[i : i + 20], "{'eval_loss': 2.9}")]
    run = run_of(tmp_path, "end.txt", [*lines, "{'eval_loss': 2.8}"])
    assert [s for s, _ in evaluations(run)] == [20, 40, 60, 80, 100, 120]


def test_a_loss_that_is_nan_at_the_end_is_not_followed_by_others(tmp_path: Path) -> None:
    lines = [f"{s},{'nan' if s in (300, 310, 330, 1200) else falling(s)},1" for s in STEPS]
    run = run_of(tmp_path, "m.csv", ["step,loss,lr", *lines])
    assert told(run, "3 training losses not a number, and later ones are")


def test_a_resume_is_no_new_epoch(tmp_path: Path) -> None:
    steps = [*range(10, 610, 10), *range(500, 910, 10)]
    rows = [f"{s},{(s - 1) // 300 + 1},1200,{falling(s)}" for s in steps]
    run = run_of(tmp_path, "m.csv", ["step,epoch,max_steps,loss", *rows])
    assert [s for s, _ in losses(run)] == list(range(10, 910, 10))


def test_a_log_that_begins_within_an_epoch(tmp_path: Path) -> None:
    rows = [(e, b) for e in (16, 17, 18) for b in range(0, 1330, 50) if (e, b) >= (16, 900)]
    lines = [f"Epoch: {e} | Batch: {b}/1330 | Loss: {falling(e)}" for e, b in rows]
    run = run_of(tmp_path, "log.txt", lines)
    assert [s for s, _ in losses(run)] == [(e - 1) * 1330 + b for e, b in rows]
    assert told(run, "steps begin again in every epoch")


def test_perplexities_of_evaluations_are_no_training(tmp_path: Path) -> None:
    rows = [f"eval,{s},{val(s)},{math.exp(val(s)) * 1.05}" for s in STEPS]
    run = run_of(tmp_path, "m.csv", ["mode,step,loss,ppl", *rows])
    assert not run.tables["train"]
    assert evaluations(run) == [(s, val(s)) for s in STEPS]
    lines = [json.dumps({"step": s, "train_bpb" if s % 100 else "val_bpb": 1.5}) for s in STEPS]
    assert len(evaluations(run_of(tmp_path, "b.jsonl", lines))) == 12


def test_a_table_of_experiments_is_no_log(tmp_path: Path) -> None:
    rows = [f"{s:07x}\t{1 - s / 2000}\t44.1\tkeep\ttried {s}" for s in STEPS]
    with pytest.raises(UserError, match="one of commit: a table of results"):
        run_of(tmp_path, "r.tsv", ["commit\tval_bpb\tmemory_gb\tstatus\tdescription", *rows])
    rows = [f"{falling(s)},{val(s)},mine" for s in STEPS]
    assert len(losses(run_of(tmp_path, "l.csv", ["loss,val_loss,experiment_name", *rows]))) == 120


def test_a_column_without_values_tells_no_task(tmp_path: Path) -> None:
    lines = [json.dumps({"current_steps": s, "loss": falling(s), "reward": None}) for s in STEPS]
    assert run_of(tmp_path, "trainer_log.jsonl", lines).found.about.other_task is None


# --- a row for each value -----------------------------------------------------------------------


def test_values_with_their_names_in_a_column(tmp_path: Path) -> None:
    rows = [
        f"ab,{name},{of(s)},17,{s}"
        for s in STEPS
        for name, of in (("loss", falling), ("val_loss", val))
    ]
    run = run_of(tmp_path, "metrics.csv", ["run_id,key,value,timestamp,step", *rows])
    assert losses(run) == [(s, falling(s)) for s in STEPS]
    assert evaluations(run) == [(s, val(s)) for s in STEPS]


def test_values_with_their_name_in_that_of_the_file(tmp_path: Path) -> None:
    rows = ["Wall time,Step,Value", *(f"17.5,{s},{falling(s)}" for s in STEPS)]
    run = run_of(tmp_path, "run-train-tag-train_loss.csv", rows)
    assert losses(run) == [(s, falling(s)) for s in STEPS]
    run = run_of(tmp_path, "run-.-tag-Loss_train.csv", rows)
    assert losses(run) == [(s, falling(s)) for s in STEPS]
    wide = [f"{s},{falling(s)},7" for s in STEPS]
    run = run_of(tmp_path, "wide.csv", ["step,loss,value", *wide])
    assert losses(run) == [(s, falling(s)) for s in STEPS]
    with pytest.raises(UserError, match="does not say of what"):
        run_of(tmp_path, "data.csv", rows)
    document = [json.dumps([[1.7e9 + s, s, val(s)] for s in STEPS])]
    run = run_of(tmp_path, "run-val-tag-val_loss.json", document)
    assert evaluations(run) == [(s, val(s)) for s in STEPS]
    with pytest.raises(UserError, match="does not say of what"):
        run_of(tmp_path, "data.json", document)
    with pytest.raises(UserError, match="no list of rows with names"):
        run_of(tmp_path, "val_loss.json", ["[[1, 2, 3], [1, 2]]"])
