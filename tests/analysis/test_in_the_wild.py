"""Shapes of logs that were found in public repositories, made up anew: what each says, and not."""

from __future__ import annotations

import json
import math
from pathlib import Path

import made
import numpy as np
import pytest
from foreign import STEPS, evaluations, falling, losses, run_of, told, val

from overnight.analysis import outliers
from overnight.analysis.run import load_run
from overnight.errors import UserError
from overnight.report import questions

EVALS = [s for s in STEPS if s % 100 == 0]
TRAINED = [(s, falling(s)) for s in STEPS]
EVALUATED = [(s, val(s)) for s in EVALS]
BAR = " 62%|██████▏   | 100/160 [47:49<27:55, 27.93s/it]"


# --- printed ----------------------------------------------------------------------------------


def test_dictionaries_behind_a_bar_of_progress(tmp_path: Path) -> None:
    lines = []
    for s in STEPS:
        lines.append(f"{{'loss': {falling(s)}, 'learning_rate': 1e-3, 'epoch': {s / 1000}}}")
        if s % 100 == 0:
            lines.append(
                f"{BAR}{{'eval_loss': {val(s)}, 'eval_runtime': 3.1, 'epoch': {s / 1000}}}"
            )
    run = run_of(tmp_path, "train.log", lines)
    assert [loss for _, loss in losses(run)] == [loss for _, loss in TRAINED]
    # a step is a row of training
    assert evaluations(run) == [(s // 10, val(s)) for s in EVALS]


def test_preferences_in_print_are_no_language_model(tmp_path: Path) -> None:
    lines = [f"{{'loss': 0.6, 'rewards/chosen': {s / 1e4}, 'epoch': {s}}}" for s in STEPS]
    found = run_of(tmp_path, "dpo.log", lines).found
    assert found.about.other_task == "rewards/chosen"
    assert found.verdict("too_good").verdict == "cannot_tell"


@pytest.mark.parametrize(
    "form",
    [
        "Epoch {e}/40 - train loss: {t} - val loss: {v}",
        "[pretrain] epoch   {e}/40  train={t}  heldout={v}  lr=1.50e-04  (best)",
        "Epoch {e}/40\nTrain Loss: {t} - Train Perplexity: {p}\nValid Loss: {v}",
        "Epoch {e} - |param|=6.00e+02 loss={t:e} ppl=1\nValidation - loss={v:e} best_loss=inf",
        "2025-03-02 05:16:20,348 - INFO - epoch: {e}, train_loss: {t}, val_loss: {v}\n"
        "Validation: 100%|████| 19/19 [00:00<00:00, 41.12it/s, val_loss=2.2]",
    ],
)
def test_epochs_alone(form: str, tmp_path: Path) -> None:
    lines = [
        form.format(e=e, t=falling(100 * e), v=val(100 * e), p=round(math.exp(falling(100 * e)), 4))
        for e in range(1, 41)
    ]
    run = run_of(tmp_path, "train.log", lines)
    assert run.found.source.step_is == "epoch"
    assert losses(run) == [(e, falling(100 * e)) for e in range(1, 41)]
    assert evaluations(run) == [(e, val(100 * e)) for e in range(1, 41)]


def test_epochs_say_nothing_where_steps_are_printed(tmp_path: Path) -> None:
    lines = [f"step {s} | loss {falling(s)}" for s in STEPS]
    for e in range(1, 13):
        lines.insert(11 * e - 1, f"Epoch {e}: average train loss 9.0")
    assert losses(run_of(tmp_path, "train.log", lines)) == TRAINED


def test_a_step_above_its_losses(tmp_path: Path) -> None:
    """OLMo's console."""
    lines = []
    for s in STEPS:
        lines += [f"2024-01-01 [train] INFO [step={s}/1200,epoch=0]", "    optim/total_norm=1.2"]
        lines += [f"    train/CrossEntropyLoss={falling(s)}", "    train/Perplexity=9"]
    run = run_of(tmp_path, "train.log", lines)
    assert losses(run) == TRAINED
    assert run.found.about.planned_steps == 1200


@pytest.mark.parametrize(
    ("form", "epochs"),
    [
        ("Epoch:[{e}/3]({s}/420), loss: {t}, lr: 0.0005, epoch_time: 9.0min", 3),  # MiniMind
        ("Epoch {e} | Step {s}/420 | loss {t}", 3),
        ("Epoch {e}, Batch {s}/420, Loss: {t}", 3),
        ("Epoch:[{e}/1]({s}/420), loss: {t}", 1),
    ],
)
def test_steps_of_an_epoch_are_counted_on_as_the_log_says(
    form: str, epochs: int, tmp_path: Path
) -> None:
    """The last step of an epoch is not printed: 400 of 420."""
    lines = [
        form.format(e=e + 1, s=s, t=falling(s + 420 * e))
        for e in range(epochs)
        for s in range(50, 401, 50)
    ]
    run = run_of(tmp_path, "train.log", lines)
    assert [s for s, _ in losses(run)] == [
        s + 420 * e for e in range(epochs) for s in range(50, 401, 50)
    ]


@pytest.mark.parametrize(("first", "given"), [(0, [0, 100, 200, 299]), (1, [0, 100, 200, 300])])
def test_an_evaluation_without_a_step_is_of_the_updates_before_it(
    first: int, given: list[int], tmp_path: Path
) -> None:
    """build-nanogpt counts from 0 and evaluates before the update of that number, llm.c from 1."""
    lines = []
    for done in range(300):
        if done % 100 == 0:
            lines.append(f"val loss {9 - done / 100}")
        if done == 299 and first == 0:
            lines.append("val loss 6.0")
        lines.append(f"step {done + first} | loss {falling(done)} | norm 1.0 | 124025 tok/s")
    if first == 1:
        lines.append("val loss 6.0")
    run = run_of(tmp_path, "main.log", lines)
    assert evaluations(run) == [*zip(given, (9.0, 8.0, 7.0, 6.0), strict=True)]
    assert run.found.ledger.tokens_per_s == 124_025


@pytest.mark.parametrize(
    "rate", ["tok/s: 1000", "tok/s 1000", "| 1000 tok/s", "(1,000 tokens/sec)"]
)
def test_a_rate_before_or_behind_its_name(rate: str, tmp_path: Path) -> None:
    run = run_of(tmp_path, "train.log", [f"step {s} | loss {falling(s)} {rate}" for s in STEPS])
    assert losses(run) == TRAINED
    assert run.found.ledger.tokens_per_s == 1000


def test_validation_perplexities_without_a_step(tmp_path: Path) -> None:
    """OpenNMT."""
    lines = []
    for s in STEPS:
        lines.append(f"Step {s}/ 1200; acc: 4.10; ppl: 9.0; xent: {falling(s)}; 16410/16179 tok/s")
        if s % 100 == 0:
            lines.append(f"Validation perplexity: {math.exp(val(s))}")
    run = run_of(tmp_path, "train.log", lines)
    assert evaluations(run) == [(s, pytest.approx(val(s))) for s in EVALS]
    assert run.found.ledger.tokens_per_s == 16_179


def test_the_train_loss_of_an_evaluation_is_that_of_its_gap(tmp_path: Path) -> None:
    lines = []
    for s in STEPS:
        lines.append(f"[train] iter {s}: loss {falling(s)} 4498 ms/iter")
        if s % 100 == 0:
            lines.append(f"[eval] iter {s}: train {val(s) - 0.1:.4f} val {val(s)} lr 3.29e-05")
    run = run_of(tmp_path, "train.log", lines)
    assert losses(run) == TRAINED
    assert [e.gap for e in run.found.evaluations] == [pytest.approx(0.1, abs=1e-4)] * len(EVALS)


def test_one_evaluation_on_every_line_is_one(tmp_path: Path) -> None:
    lines = [f"step={s} loss={falling(s)} train_loss=4.2922 val_loss=4.2905" for s in STEPS]
    run = run_of(tmp_path, "train.log", lines)
    assert evaluations(run) == [(10, 4.2905)]
    assert told(run, "119 validation losses are those of the row before")


def test_a_loss_that_never_was_a_number(tmp_path: Path) -> None:
    lines = [f"step {s}/2000 | loss nan (+nanz)| norm nan | lr 1e-4" for s in STEPS]
    for before in ([], ["val loss 10.99"]):
        verdict = run_of(tmp_path, "main.log", [*before, *lines]).found.verdict("divergence")
        assert (verdict.verdict, verdict.since_step) == ("yes", 10)
    rows = [f"{s},nan,{val(s)}" for s in EVALS]  # where validation goes on, none was logged
    found = run_of(tmp_path, "m.csv", ["step,loss,val_loss", *rows]).found
    assert found.verdict("divergence").verdict == "no"
    assert (found.source.train_rows, len(found.evaluations)) == (0, len(EVALS))


def test_zeros_before_the_first_line_are_a_hole(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    lines = "\n".join(f"step {s} | loss {falling(s)}" for s in STEPS)
    path.write_bytes(b"\0" * 5000 + lines.encode())
    assert losses(load_run(path)) == TRAINED


# --- tables -----------------------------------------------------------------------------------


def test_ms_swift(tmp_path: Path) -> None:
    """Steps as "10/1200", times as "1h 2m 3s", and a summary that has the only plain step."""
    rows = []
    for s in STEPS:
        time = f"{s // 60}m {s % 60}s" if s < 3600 else ""
        row = {"loss": falling(s), "global_step/max_steps": f"{s}/1210", "elapsed_time": time}
        rows.append(json.dumps(row))
    rows.append(json.dumps({"global_step": 1210, "train_runtime": 99.0, "log_history": [{"a": 1}]}))
    run = run_of(tmp_path, "logging.jsonl", rows)
    assert losses(run) == TRAINED
    assert run.tables["train"][-1]["time"] == 1200
    ledger = run.found.ledger
    assert (ledger.steps, ledger.seconds, run.found.about.planned_steps) == (1210, 99.0, 1210)


def test_rows_of_other_runs_are_no_summary(tmp_path: Path) -> None:
    """W&B's table of several runs, where this one is the shorter."""
    rows = [f"{s},{falling(s) if s <= 600 else ''},{9 if s > 600 else ''}" for s in STEPS]
    run = run_of(tmp_path, "m.csv", ["step,a - loss,b - gradient", *rows])
    assert run.found.ledger.steps == 600


def test_the_summary_of_transformers_is_no_training_loss(tmp_path: Path) -> None:
    """`pandas.DataFrame(trainer.state.log_history).to_csv(…)`."""
    rows = ["loss,step,eval_loss,train_runtime,train_loss"]
    for s in STEPS:
        rows += [f"{falling(s)},{s},,,"] + ([f",{s},{val(s)},,"] if s % 100 == 0 else [])
    run = run_of(tmp_path, "log.csv", [*rows, ",1200,,900.0,3.9"])
    assert losses(run) == TRAINED
    assert evaluations(run) == EVALUATED
    assert run.found.evaluations[-1].train_loss == pytest.approx(falling(1200), abs=0.1)


def test_the_loss_of_tinker(tmp_path: Path) -> None:
    rows = [
        json.dumps({"step": s, "train_mean_nll": falling(s), "test/nll": val(s)}) for s in STEPS
    ]
    run = run_of(tmp_path, "metrics.jsonl", rows)
    assert (losses(run), evaluations(run)[-1]) == (TRAINED, (1200, val(1200)))


def test_processes_that_write_one_log_are_no_sessions(tmp_path: Path) -> None:
    """Two ranks, one of them two rows behind."""
    late = [(s, s) for s in STEPS]
    both = [late[0], late[1]]
    for i in range(2, len(late)):
        both += [late[i], late[i - 2]]
    rows = [json.dumps({"step": s, "loss": falling(s), "elapsed": t}) for s, t in both]
    run = run_of(tmp_path, "log.jsonl", rows)
    assert losses(run) == TRAINED
    assert run.found.verdict("resume").verdict == "cannot_tell"
    assert run.found.ledger.seconds == 1190
    assert told(run, "they are sorted")


def test_a_clock_goes_on_beyond_midnight(tmp_path: Path) -> None:
    rows = ["EPOCH\tTIMESTAMP\tTRAIN_LOSS\tDEV_LOSS"]
    for e in range(1, 41):
        minutes = (20 * 60 + 40 * e) % 1440
        rows.append(f"{e}\t{minutes // 60:02d}:{minutes % 60:02d}:00\t{falling(e)}\t{val(e)}")
    assert run_of(tmp_path, "loss.tsv", rows).found.ledger.seconds == 39 * 40 * 60


def test_pauses_are_told(tmp_path: Path) -> None:
    rows = [f"{s},{falling(s)},{s + (7200 if s > 600 else 0)}" for s in STEPS]
    ledger = run_of(tmp_path, "m.csv", ["step,loss,elapsed", *rows]).found.ledger
    assert (ledger.seconds, ledger.pause_seconds) == (8390, 7210)
    rows = [f"{s},{falling(s)},{200 * s}" for s in STEPS]  # slow, and never idle
    assert (
        run_of(tmp_path, "m.csv", ["step,loss,elapsed", *rows]).found.ledger.pause_seconds is None
    )


def test_tokens_that_were_not_counted_are_none(tmp_path: Path) -> None:
    rows = [f"{s},{falling(s)},0" for s in STEPS]
    run = run_of(tmp_path, "m.csv", ["step,loss,total_tokens", *rows])
    assert run.found.ledger.tokens is None
    assert not told(run, "tokens")


@pytest.mark.parametrize(
    ("column", "ours", "value"),
    [
        ("performance/tokens_per_second", "tokens_per_s", 7.0),
        ("train/grad_norm_before_clip", "grad_norm", 7.0),
        ("tokens_total", "tokens", None),
        ("elapsed_hours", "time", None),
    ],
)
def test_names_of_columns(column: str, ours: str, value: float | None, tmp_path: Path) -> None:
    rows = [f"{s},{falling(s)},{7 if value else s / 100}" for s in STEPS]
    run = run_of(tmp_path, "m.csv", [f"step,loss,{column}", *rows])
    assert run.found.source.columns[column] == ours
    if ours == "time":
        assert run.found.ledger.seconds == pytest.approx(11.9 * 3600)


@pytest.mark.parametrize("column", ["test_acc1", "train_class_error", "eval_bleu", "val_rouge-1"])
def test_columns_of_other_tasks(column: str, tmp_path: Path) -> None:
    rows = [f"{s},{falling(s)},7" for s in STEPS]
    run = run_of(tmp_path, "m.csv", [f"step,loss,{column}", *rows])
    assert run.found.about.other_task == column


def test_the_times_of_a_table_of_values(tmp_path: Path) -> None:
    """MLflow, in milliseconds."""
    rows = [f"r,loss,{s},{1.7e12 + 1000 * s:.0f},{falling(s)}" for s in STEPS]
    run = run_of(tmp_path, "m.csv", ["Run,metric,step,timestamp,value", *rows])
    assert run.found.ledger.seconds == pytest.approx(1190)


@pytest.mark.parametrize(
    ("document", "say"),
    [('{"log_history": []}', "shorter than its logging_steps"), ("[1.0, 0.9]", "rows with names")],
)
def test_json_without_rows_is_said(document: str, say: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=say):
        run_of(tmp_path, "trainer_state.json", [document])


# --- verdicts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("tail", [[9.0, 2.5], [4e4, 160.0, 0.85, 0.83], [9.0]])
def test_a_spike_that_comes_back_bends_no_trend(tail: list[float], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = 0.8 + 0.003 * rng.standard_normal(160)
    values[137 : 137 + len(tail)] = tail
    assert set(np.flatnonzero(outliers.outliers(values))) >= {137 + i for i in range(len(tail[:2]))}
    rows = [f"{100 * i},{value:.5f}" for i, value in enumerate(values)]
    found = run_of(tmp_path, "m.csv", ["step,loss", *rows]).found
    assert found.verdict("train_drift").verdict == "no"


@pytest.mark.parametrize("slow", [2, 40, 400])
def test_a_leap_that_is_slow_to_come_down_is_a_spike(slow: int, tmp_path: Path) -> None:
    """As where a resume lost the optimizer: its neighbours behind are as high."""
    rng = np.random.default_rng(0)
    at = np.arange(1000.0)
    values = 3 + 3 / (1 + at / 50) + 0.02 * rng.standard_normal(1000)
    rows = [
        "step,loss",
        *(f"{step:.0f},{value:.4f}" for step, value in zip(at, values, strict=True)),
    ]
    assert run_of(tmp_path, "n.csv", rows).found.verdict("spikes").verdict == "no"
    values[600:] += 2 * np.exp(-(at[600:] - 600) / slow)
    rows = [
        "step,loss",
        *(f"{step:.0f},{value:.4f}" for step, value in zip(at, values, strict=True)),
    ]
    found = run_of(tmp_path, "m.csv", rows).found.verdict("spikes")
    assert found.verdict == "yes"
    assert 600 <= found.evidence["worst_step"] <= 603
    assert found.evidence["worst_loss"] > 4.5
    assert found.evidence["recovered"] == (1 if slow == 2 else 0)


def test_what_was_never_evaluated_is_not_judged(tmp_path: Path) -> None:
    lines = [f"step {s}: train loss {falling(s)}, val loss {val(s)}" for s in range(10, 310, 10)]
    lines += [f"iter {s}: loss {falling(s)}" for s in STEPS]
    found = run_of(tmp_path, "train.log", lines).found
    for name in ("overfitting", "still_improving", "plateau"):
        assert found.verdict(name).verdict == "cannot_tell"
        assert "last 900 steps were not evaluated" in found.verdict(name).because


def test_nothing_is_deployed_that_was_never_better_than_no_training(tmp_path: Path) -> None:
    rows = [f"{s},{falling(s)},{4.8 + s / 300}" for s in (0, *STEPS)]
    found = run_of(tmp_path, "m.csv", ["step,loss,val_loss", *rows]).found
    assert found.best is not None
    assert found.best.pick == 0
    assert "Deploy none" in found.advice[0].do


def test_the_luckiest_row_does_not_make_a_loss_too_good(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lucky = 0.6 + 0.08 * rng.standard_normal(128)
    lucky[50] = 0.38
    rows = [f"{i},{value:.4f}" for i, value in enumerate(lucky)]
    assert (
        run_of(tmp_path, "m.csv", ["step,loss", *rows]).found.verdict("too_good").verdict != "yes"
    )


def test_a_sum_is_not_taken_for_nats_per_token(tmp_path: Path) -> None:
    rows = [f"{s},{20 + falling(s)}" for s in STEPS]
    verdict = run_of(tmp_path, "m.csv", ["step,loss", *rows]).found.verdict("too_good")
    assert (verdict.verdict, "it is a sum" in verdict.because) == ("cannot_tell", True)
    drawn = run_of(tmp_path, "n.csv", ["step,loss", "1,18.5", "2,17.5"])  # badly: it may be nats
    assert "it is a sum" not in drawn.found.verdict("too_good").because


def test_a_speed_that_rises_is_not_slow(tmp_path: Path) -> None:
    rows = [f"{s},{falling(s)},{12_000 if s < 500 else 26_000}" for s in STEPS]
    run = run_of(tmp_path, "m.csv", ["step,loss,tokens_per_s", *rows])
    assert run.found.verdict("throughput").verdict == "no"
    assert not any("slow" in advice.do for advice in run.found.advice)


def test_a_plateau_with_a_growing_gap_calls_for_no_larger_model(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        f"{s},{3 - s / 800:.4f},{2 + math.exp(-s / 60) + 0.0005 * rng.standard_normal():.4f}"
        for s in STEPS
    ]
    found = run_of(tmp_path, "m.csv", ["step,loss,val_loss", *rows]).found
    assert found.verdict("plateau").verdict == "yes"
    assert found.verdict("gap").verdict == "growing"
    (advised,) = [advice for advice in found.advice if "more dropout" in advice.do]
    assert advised.because == ["plateau", "gap"]


# --- what these rules must leave alone --------------------------------------------------------


@pytest.mark.parametrize(
    "form",
    [
        "step {s} loss {t}, lr 1e-3 extra={{'gpu': 1, 'mem': 3}}",
        "step {s} loss {t} devices {{'cuda:0', 'cuda:1'}}",
        "step {s}: {{'loss': {t}, 'lr': 0.001}}",
        "batch 32/64 | loss {t} | tokens seen 0 | iter {s}",
        "Epoch 1, Batch 3/5000, Global step: {s}, Loss: {t}",
        "total iterations: 6000 | step {s} | loss {t}",
        "step {s} tok/sec/gpu 507 loss {t}",
        "loss: {t} step: {s}, tok/s (507)",
        "step {s} loss {t} tok/s per gpu 500 lr 0.1",
    ],
)
def test_a_line_with_a_step_keeps_it(form: str, tmp_path: Path) -> None:
    lines = ["INFO config: {'model': 'gpt', 'val_loss': 9.9, 'epochs': 3}"]
    run = run_of(tmp_path, "train.log", lines + [form.format(s=s, t=falling(s)) for s in STEPS])
    assert losses(run) == TRAINED
    assert evaluations(run) == []


@pytest.mark.parametrize("mark", ["\t", ",", ";"])
def test_a_table_with_words_in_it_is_a_table(mark: str, tmp_path: Path) -> None:
    rows = [["time", "step", "split", "loss", "note"]]
    for s in STEPS:
        rows.append([f"{s / 10}", f"{s}", "train", f"{falling(s)}", f'"saved, loss={falling(s)}"'])
        if s % 100 == 0:
            rows.append([f"{s / 10}", f"{s}", "val", f"{val(s)}", "epoch=5-train_loss=4.3.ckpt"])
    run = run_of(tmp_path, "m.tsv", [mark.join(row) for row in rows])
    assert (losses(run), evaluations(run)) == (TRAINED, EVALUATED)
    assert run.found.ledger.seconds == 119


@pytest.mark.parametrize(
    "text", ["GPT-2 {}: loss 2.67", "loss: {}.0", "        loss = {}.0", "the train loss was {}.1"]
)
def test_words_about_losses_are_no_log(text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="log that can be read"):
        run_of(tmp_path, "notes.txt", [text.format(i) for i in range(9)])


def test_a_time_in_every_row_is_no_summary(tmp_path: Path) -> None:
    rows = [f"{s},{falling(s)},3.0" for s in STEPS]
    assert losses(run_of(tmp_path, "m.csv", ["step,train_loss,train_runtime", *rows])) == TRAINED


def test_an_evaluation_behind_its_step_stays_there(tmp_path: Path) -> None:
    lines = ["val loss 9.0"]
    for s in (0, *EVALS):
        lines += [f"step {s} loss {falling(s)}"] + ([f"val loss {val(s)}"] if s else [])
    assert evaluations(run_of(tmp_path, "train.log", lines)) == [(0, 9.0), *EVALUATED]


def test_evaluations_in_every_row_all_count(tmp_path: Path) -> None:
    rows = [f"{falling(s) if s % 50 == 0 else ''},{val(s)}" for s in STEPS]
    run = run_of(tmp_path, "m.csv", ["loss,val_loss", *rows])
    assert [loss for _, loss in evaluations(run)] == [val(s) for s in STEPS]


def test_rows_far_apart_and_evaluations_are_no_pauses(tmp_path: Path) -> None:
    steps = [*range(1, 101), *range(1000, 20_001, 1000)]
    rows = [f"{s},{falling(s)},{2 * s}," for s in steps]
    run = run_of(tmp_path, "m.csv", ["step,loss,elapsed,val_loss", *rows])
    assert run.found.ledger.pause_seconds is None
    rows = []
    for s in STEPS:
        clock = s + 1200 * (s // 100)
        rows.append(f"{s},{falling(s)},{clock if s % 100 else clock - 1200},")
        if s % 100 == 0:
            rows.append(f"{s},,{clock},{val(s)}")
    run = run_of(tmp_path, "n.csv", ["step,loss,elapsed,val_loss", *rows])
    assert run.found.ledger.pause_seconds is None


def test_a_validation_loss_behind_a_finished_bar(tmp_path: Path) -> None:
    lines = []
    for s in STEPS:
        lines.append(f"step {s} loss {falling(s)}")
        if s % 100 == 0:
            lines.append(f"100%|####| 50/50 [00:10<00:00, val_loss=1.0] val loss {val(s)}")
    assert evaluations(run_of(tmp_path, "train.log", lines)) == EVALUATED


def test_the_planned_steps_of_the_run_are_not_those_of_an_epoch(tmp_path: Path) -> None:
    rows = [
        json.dumps({"step": s, "loss": falling(s + 100 * turn), "max_steps": 200})
        for turn in (0, 1)
        for s in range(10, 101, 10)
    ]
    run = run_of(tmp_path, "log.jsonl", rows)
    assert [s for s, _ in losses(run)] == [*range(10, 201, 10)]
    assert run.found.about.planned_steps == 200


def test_a_table_may_have_holes_anywhere(tmp_path: Path) -> None:
    names = ["loss", "val_loss", "lr", "tokens", "time", "grad_norm", "tokens_per_s", "epoch",
             "val_perplexity", "val_bpb", "perplexity"]  # fmt: skip
    rng = np.random.default_rng(0)
    rows = [
        ",".join([str(i), *("3.0" if full else "" for full in rng.random(len(names)) < 0.5)])
        for i in range(2500)
    ]
    run = run_of(tmp_path, "m.csv", [",".join(["step", *names]), *rows])
    assert not told(run, "too many kinds")
    assert run.found.ledger.steps > 2490


@pytest.mark.parametrize(
    "speeds", [[1000] * 40 + [300] * 60 + [1400] * 100, [1000] * 130 + [300] * 20 + [1400] * 50]
)
def test_a_stall_is_told_though_the_speed_rose(speeds: list[int], tmp_path: Path) -> None:
    rows = [f"{i},{falling(10 * i)},{speed}" for i, speed in enumerate(speeds)]
    run = run_of(tmp_path, "m.csv", ["step,loss,tokens_per_s", *rows])
    assert run.found.verdict("throughput").verdict == ("yes" if speeds[60] == 300 else "no")
    assert "It rose" not in run.found.verdict("throughput").because


def test_a_model_that_does_not_learn_has_its_evaluations(tmp_path: Path) -> None:
    rows = [f"{s},{2.3 + s % 3 / 1000:.3f},2.30" for s in STEPS]
    assert len(evaluations(run_of(tmp_path, "m.csv", ["step,loss,val_loss", *rows]))) == len(STEPS)


def test_a_perplexity_beside_losses_that_are_no_numbers(tmp_path: Path) -> None:
    rows = [f"{s},nan,{math.exp(falling(s))}" for s in STEPS]
    run = run_of(tmp_path, "m.csv", ["step,loss,perplexity", *rows])
    assert losses(run) == [(s, pytest.approx(loss)) for s, loss in TRAINED]


def test_a_last_row_of_something_else_is_no_summary(tmp_path: Path) -> None:
    rows = [json.dumps({"step": s, "loss": falling(s)}) for s in STEPS]
    rows.append(json.dumps({"updates": 1712345678, "tokens": 99}))
    assert run_of(tmp_path, "log.jsonl", rows).found.ledger.steps == 1200


def test_parts_of_a_text_that_differ_a_little_are_no_spikes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        f"{i},{3 + 0.1 * (i // 50 % 2) + 0.005 * rng.standard_normal():.4f}" for i in range(400)
    ]
    run = run_of(tmp_path, "m.csv", ["step,loss", *rows])
    assert run.found.verdict("spikes").verdict == "no"


def test_of_two_columns_of_one_name_the_one_that_says_something_counts(tmp_path: Path) -> None:
    rows = [f"{s},{falling(s)},n/a" for s in STEPS]
    assert losses(run_of(tmp_path, "m.csv", ["step,loss,loss", *rows])) == TRAINED


@pytest.mark.parametrize("probed", [True, False])
def test_validation_that_rises_alone_is_no_divergence(probed: bool, tmp_path: Path) -> None:
    """A short run: few training rows, and a train loss with each evaluation, or none."""
    rows = [f"{s},{falling(s) if s % 10 == 0 else ''},,," for s in range(5, 61, 5)]
    for s in range(0, 61, 5):
        train, held_out = falling(5 * s) if probed else "", 5 - s / 10 if s < 16 else s / 4
        rows.append(f"{s},,{train},{held_out:.4f},")
    found = run_of(tmp_path, "m.csv", ["step,loss,train_loss,val_loss,lr", *rows]).found
    assert found.verdict("divergence").verdict != "yes"


def test_a_checkpoint_that_is_worse_than_none_is_not_praised(tmp_path: Path) -> None:
    """Validation in another language: best before training."""
    log = made.run_folder(tmp_path / "run", steps=400, every=40)
    text = (log / "log.jsonl").read_text().splitlines()
    lines = []
    for line in text:
        row = json.loads(line)
        if row["type"] == "eval":
            row["val_loss"] = 1.0 if row["step"] == 0 else row["val_loss"] + 5
        lines.append(json.dumps(row))
    (log / "log.jsonl").write_text("\n".join(lines) + "\n")
    found = load_run(log).found
    assert found.best is not None
    assert found.best.step == 0
    card = questions.cards(found)[0]
    assert "no other is as good" not in card.detail
    here = f"{found.best.pick_loss:.4f}"
    assert f"validation was 1.0000 before training, {here} here" in card.detail
    assert found.best.pick_loss > 5
    assert card.tone == "unsure"
    assert found.best.pick > 0
