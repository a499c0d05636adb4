"""What other tools write, in small: each case is a kind of log that was found in the wild."""

from __future__ import annotations

import gzip
import json
import math

import numpy as np
import pytest
from foreign import run_of

from overnight.analysis.readers.names import other_task, ours_of, recognise
from overnight.analysis.run import load_run
from overnight.errors import UserError


def table(header, rows):
    return "\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n"


def problem(run, part):
    return [p for p in run.problems if part in p]


def test_a_closing_row_of_nulls_is_no_divergence(tmp_path):
    """LLaMA-Factory; beside it, a loss that broke, as a JSON encoder without NaN writes it."""
    rows = [
        {"current_steps": i, "total_steps": 400, "loss": 3 - i / 400, "lr": 1e-3,
         "elapsed_time": f"{i // 20} day{'s' * (i >= 40)}, 0:00:{i % 20:02d}"}
        for i in range(20, 400, 5)
    ]  # fmt: skip
    end = {"current_steps": 400, "total_steps": 400, "loss": None, "eval_loss": None, "lr": None}
    run = run_of(tmp_path, "trainer_log.jsonl", [*rows, end])
    assert run.found.verdict("divergence").verdict == "no"
    assert (run.found.ledger.steps, run.found.about.planned_steps) == (400, 400)
    assert run.found.ledger.seconds == pytest.approx(18 * 86400 + 15)
    broken = [r | {"loss": None, "grad_norm": None} if i > 60 else r for i, r in enumerate(rows)]
    assert run_of(tmp_path, "b.jsonl", broken).found.verdict("divergence").verdict == "yes"


SEED = [(s, round(5 - s / 1000, 4), round(5.1 - s / 1000, 4)) for s in range(250, 2250, 250)]


@pytest.mark.parametrize("header", ["step,loss,val_loss", "epoch,loss,val_loss"])
def test_runs_one_after_the_other_are_not_one_that_was_resumed(header, tmp_path):
    unit = 250 if header.startswith("epoch") else 1
    first = [(s // unit, t + 1, v + 1) for s, t, v in SEED]
    last = [(s // unit, t, v) for s, t, v in SEED]
    run = run_of(tmp_path, "m.csv", table(header, first + last))
    assert [r["step"] for r in run.tables["eval"]] == [s for s, _, _ in last]
    assert run.found.best.loss == pytest.approx(3.1)
    assert problem(run, "8 rows of 1 earlier run in the same file")
    assert run.found.verdict("resume").verdict == "cannot_tell"


def test_a_column_of_runs_parts_them(tmp_path):
    rows = [(name, s, t + (name == "a")) for s, t, _ in SEED for name in ("a", "b")]
    run = run_of(tmp_path, "m.csv", table("model,step,loss", rows))
    assert [r["loss"] for r in run.tables["train"]] == [t for _, t, _ in SEED]
    assert problem(run, "the last one is 'b'")
    objects = [{"run_name": n, "step": s, "loss": t} for n, s, t in rows]
    again = run_of(tmp_path, "m.jsonl", objects)
    assert again.tables["train"] == run.tables["train"]
    one = [{"run_name": "a", "step": s, "loss": t} for s, t, _ in SEED]
    assert not problem(run_of(tmp_path, "o.jsonl", one), "other runs")


def test_a_table_of_results_is_no_log(tmp_path):
    rows = [(5000, 3 + i / 100) for i in range(20)]
    with pytest.raises(UserError, match="all 20 rows are of step 5,000: a table of results"):
        run_of(tmp_path, "runs.csv", table("iter,val_loss", rows))


def test_values_that_others_replace_are_said(tmp_path):
    rows = [{"step": s, "loss": t} for s, t, _ in SEED]
    rows += [{"step": 2000, "eval_loss": v} for v in (3.0, 3.0, 2.9)]
    run = run_of(tmp_path, "m.jsonl", rows)
    assert run.found.best.loss == 2.9
    assert problem(run, "2 values of val_loss: a later one stands at the same step")


def test_of_several_evaluated_sets_the_first_is_read(tmp_path):
    sets = [{"step": s, f"eval_{g}_loss": v + g} for s, _, v in SEED for g in range(3)]
    rows = [{"step": s, "loss": t, "epoch": s / 800} for s, t, _ in SEED]
    run = run_of(tmp_path, "trainer_state.jsonl", rows + sets)
    assert [r["val_loss"] for r in run.tables["eval"]] == [v for _, _, v in SEED]
    assert problem(run, "columns eval_1_loss, eval_2_loss")
    assert run.found.ledger.epochs == 2.5


def test_transformers_says_how_long_and_until_when(tmp_path):
    rows = [{"step": s, "loss": t} for s, t, _ in SEED] + [{"step": 2000, "train_runtime": 99.5}]
    state = {"max_steps": 3000, "log_history": rows}
    run = run_of(tmp_path, "trainer_state.json", json.dumps(state))
    assert run.found.ledger.seconds == 99.5
    assert run.found.about.planned_steps == 3000
    of_an_epoch = [row | {"total_steps": 149} for row in rows]  # no end of the run
    assert run_of(tmp_path, "m.jsonl", of_an_epoch).found.about.planned_steps is None


def test_settings_in_a_log_are_understood(tmp_path):
    config = {"warmup_steps": 500, "total_steps": 9000, "min_lr_ratio": 0.1, "vocab_size": 50257}
    rows = [{"config": config | {"lr_scheduler_type": "cosine", "bf16": True}}]
    rows += [{"step": s, "loss": t, "lr": 1e-3} for s, t, _ in SEED]
    found = run_of(tmp_path, "m.jsonl", rows).found
    schedule = found.schedule
    assert (schedule.configured, schedule.configured_warmup) == ("cosine", 500)
    assert schedule.configured_end_ratio == 0.1
    assert (found.about.planned_steps, found.about.vocab_size) == (9000, 50257)


@pytest.mark.parametrize(
    ("name", "ours"),
    [("lr-AdamW", "lr"), ("lr-SGD/pg1", "lr"), ("lr/group_0", "lr"), ("lr_scale", None),
     ("wall_time_sec", "time"), ("current_steps", "step"), ("eval_c4_loss", "val_loss"),
     ("eval_loss_ratio", None), ("opt_lr", "lr"), ("lr-DecoupledAdamW/group0", "lr"),
     ("val_loss_wiki", "val_loss"), ("val/wiki/loss", "val_loss"), ("val_loss_std", None),
     ("eval_best_loss", None), ("val_aux_loss", None), ("val_loss_bits", "val_loss"),
     ("throughput/tokens_per_sec", "tokens_per_s"), ("time/token", "tokens"),
     ("iter_num", "step"), ("opt_step", "step"), ("step_num", "step"), ("num_steps", None),
     ("loss/training", "loss"), ("loss/validation", "val_loss"), ("evaluation_loss", "val_loss"),
     ("train_ce_loss", "loss"), ("optim/learning_rate_group0", "lr"), ("schedule/lr", "lr"),
     ("current_lr", "lr"), ("cumulative_tokens", "tokens"), ("time_elapsed", "time"),
     ("wall_clock", "time"), ("tokens/second", "tokens_per_s"), ("toks_per_s", "tokens_per_s")],
)  # fmt: skip
def test_names(name, ours):
    assert ours_of(name) == ours


def test_the_tokens_of_all_devices_count_before_those_of_one(tmp_path):
    rows = [(i, 3.0, 1000 * i, 4000 * i) for i in range(1, 99)]
    run = run_of(tmp_path, "m.csv", table("step,loss,tokens,total_tokens", rows))
    assert run.found.ledger.tokens == 4000 * 98
    assert problem(run, "columns tokens")


def test_the_step_of_the_whole_run_counts_before_that_of_an_epoch(tmp_path):
    rows = [(i % 50, 10 * i, 3.0) for i in range(1, 99)]
    run = run_of(tmp_path, "m.csv", table("step,global_step,loss", rows))
    assert run.found.ledger.steps == 980
    assert problem(run, "columns step")


def test_columns_of_two_runs_are_never_one_run(tmp_path):
    header = "Step,A - train/loss,B - train/loss,B - train/loss__MIN,B - val/loss,C - other"
    assert set(recognise(header.split(","))) == {"Step", "B - train/loss", "B - val/loss"}
    run = run_of(tmp_path, "w.csv", table(header, [(s, t + 3, t, t, v, 1) for s, t, v in SEED]))
    assert [r["loss"] for r in run.tables["train"]] == [t for _, t, _ in SEED]
    assert problem(run, "other runs than B: A")
    assert not problem(run, "columns")


def test_what_no_language_model_logs_is_not_taken_for_one(tmp_path):
    rows = [(i, 0.5 / i, 0.9) for i in range(1, 40)]
    run = run_of(tmp_path, "m.csv", table("epoch,loss,val_accuracy", rows))
    assert run.found.about.other_task == "val_accuracy"
    assert run.found.source.step_is == "epoch"
    assert any("If it is not" in line for line in run.found.cannot_conclude)
    assert not any("too_good" in advice.because for advice in run.found.advice)
    assert other_task(["loss", "mean_token_accuracy"]) is None
    assert other_task(["loss", "accuracy", "tokens"]) is None


def test_a_speed_of_nothing_was_not_measured(tmp_path):
    run = run_of(tmp_path, "m.csv", table("step,loss,throughput", [(i, 3, 0.0) for i in range(30)]))
    assert run.found.ledger.tokens_per_s is None
    assert run.found.verdict("throughput").verdict == "cannot_tell"


def test_a_log_without_a_loss_is_refused(tmp_path):
    with pytest.raises(UserError, match="not one row has both a step and a loss"):
        run_of(tmp_path, "m.csv", table("step,loss,lr", [(i, "", 0.1) for i in range(9)]))


def rates_of(tmp_path, rates, first=10, every=10):
    rows = [(first + every * i, 3, rate) for i, rate in enumerate(rates)]
    return run_of(tmp_path, "m.csv", table("step,loss,lr", rows)).found.schedule


def test_a_cosine_with_a_jump_is_no_staircase(tmp_path):
    u = np.linspace(0, 1, 400)
    rates = 1e-4 * np.minimum(1, np.arange(400) / 40) * (1 + np.cos(np.pi * u)) / 2
    rates[130:] *= 0.6
    assert rates_of(tmp_path, rates).kind == "unknown"
    steps = np.repeat([1e-3, 1e-4, 1e-5], 60)
    assert rates_of(tmp_path, steps).kind == "step"


def test_the_last_rows_of_a_warm_up_are_no_part_of_the_decay(tmp_path):
    step = np.arange(1, 2001)
    found = rates_of(tmp_path, 1e-3 * np.minimum(step / 400, (2000 - step) / 1600), 1, 1)
    assert (found.kind, found.warmup_steps) == ("linear", 400)
    assert found.residual < 1e-6


def test_a_rise_that_was_half_seen_is_no_warm_up(tmp_path):
    rising = [*np.linspace(6e-8, 1e-7, 12), *np.linspace(1e-7, 2e-8, 40)]
    assert rates_of(tmp_path, rising, first=33_000).warmup_steps is None
    usual = [*(1e-3 * np.arange(1, 21) / 20), *np.linspace(1e-3, 0, 81)[1:]]
    found = rates_of(tmp_path, usual)
    assert (found.kind, found.warmup_steps) == ("linear", 200)
    from_a_third = [*np.linspace(3e-4, 1e-3, 20), *np.linspace(1e-3, 0, 81)[1:]]
    assert rates_of(tmp_path, from_a_third).warmup_steps == 200


def test_the_last_digit_of_a_log_is_no_spike(tmp_path):
    losses = [0.0002 if i % 7 else 0.0001 for i in range(60)] + [0.0004] + [0.0002] * 20
    run = run_of(tmp_path, "m.csv", table("step,loss", list(enumerate(losses))))
    assert run.found.verdict("spikes").verdict == "no"


def test_a_useless_fall_is_no_reason_to_train_longer(tmp_path):
    losses = [0.0100 - 0.00002 * i for i in range(40)]
    run = run_of(tmp_path, "m.csv", table("step,loss,val_loss", [(i, x, x) for i, x in
                                                                enumerate(losses)]))  # fmt: skip
    assert not any("rain longer" in advice.do for advice in run.found.advice)


def test_most_of_a_run_is_not_its_end(tmp_path):
    """Six evaluations, the first of weights that are as drawn."""
    losses = [9.2, 4.0, 3.2, 2.9, 2.85, 2.84]
    rows = [(200 * i, x, x) for i, x in enumerate(losses)]
    run = run_of(tmp_path, "m.csv", table("step,loss,val_loss", rows))
    assert run.found.verdict("still_improving").verdict == "cannot_tell"
    assert math.isclose(run.found.best.loss, 2.84)


PRINTED = {
    "nanogpt": ("step {0}: train loss {1}, val loss {2}", "iter {0}: loss {1}, time 9.12ms, mfu 1"),
    "llm.c": ("s:{0} tel:{2}", "s:{0} trl:{1} lr:0.000600 norm:1.52"),
    "megatron": (
        " validation loss at iteration {0} | lm loss value: {2}E+00 | lm loss PPL: 1.0 |",
        " 7: iteration {0:8d}/  9000 | consumed samples: 64 | learning rate: 6.0E-04 | lm loss: "
        "{1}E+00 | loss scale: 1.0 | grad norm: 1.520 |",
    ),
    "modded": ("step:{0}/9000 val_loss:{2} train_time:274ms step_avg:nanms",
               "step:{0}/9000 train_loss:{1} train_time:274ms"),
    "torchtitan": ("[titan] 2026-01-01 10:00:00 - root - INFO - validate step: {0}  loss: {2}",
                   "[titan] 2026-01-01 10:00:00 - root - INFO - step: {0}  loss: {1}  tps: 1,234"),
    "nanochat": ("Step {0:05d} | Validation bpb: {2}",
                 "step {0:05d}/09000 (1.0%) | loss: {1} | lrm: 1.00 | dt: 9.1ms | tok/sec: 1,234"),
}  # fmt: skip


@pytest.mark.parametrize("tool", PRINTED)
def test_what_a_trainer_prints_is_read(tool, tmp_path):
    evaluation, update = PRINTED[tool]
    lines = ["import torch  # its own source, step 3 of 4", "x = 1\n" * 20_000, "loss: none yet"]
    for row in SEED:
        lines += [update.format(*row), "saving checkpoint 3 to out", evaluation.format(*row)]
    run = run_of(tmp_path, "log.txt", "\n".join(lines))
    assert run.found.source.format == "text"
    assert [(r["step"], r["loss"]) for r in run.tables["train"]] == [(s, t) for s, t, _ in SEED]
    if tool in ("nanogpt", "llm.c", "modded"):
        assert [(r["step"], r["val_loss"]) for r in run.tables["eval"]] == [
            (s, v) for s, _, v in SEED
        ]
    if tool in ("megatron", "modded", "nanochat"):
        assert run.found.about.planned_steps == 9000
    if tool in ("torchtitan", "nanochat"):
        assert run.found.ledger.tokens_per_s == 1234


@pytest.mark.parametrize("pack", [str.encode, lambda t: gzip.compress(t.encode()),
                                  lambda t: t.encode("utf-16")])  # fmt: skip
@pytest.mark.parametrize("source", ["", "x = 1\n" * 20_000])
def test_lines_that_begin_with_a_bracket_are_read_packed_or_not(source, pack, tmp_path):
    lines = [PRINTED["torchtitan"][1].format(*row) for row in SEED]
    path = tmp_path / "log.txt"
    path.write_bytes(pack(source + "\n".join(lines)))
    assert [r["loss"] for r in load_run(path).tables["train"]] == [t for _, t, _ in SEED]


def test_prose_is_no_log(tmp_path):
    text = "In step 3 of the plan the loss was 5 men.\nStep 4 had none.\n" * 2
    with pytest.raises(UserError):
        run_of(tmp_path, "story.txt", text)


def evaluated(values, every=100):
    return table("step,val_loss", [(every * (i + 1), v) for i, v in enumerate(values)])


def test_a_rise_behind_a_steep_fall_is_no_fall(tmp_path):
    values = [5.2, 3.6, 3.0, *(round(3.04 + 0.0125 * i, 4) for i in range(13))]
    over = run_of(tmp_path, "log.csv", evaluated(values)).found.verdict("overfitting")
    assert over.verdict == "yes"
    assert 0 < over.ci[0] < over.effect_nats < over.ci[1]


def test_a_perplexity_of_unknown_side_is_no_training_loss(tmp_path):
    losses = [3 - 0.2 * min(i, 8) + 0.1 * max(0, i - 8) for i in range(20)]
    rows = [(100 * (i + 1), v, math.exp(v)) for i, v in enumerate(losses)]
    run = run_of(tmp_path, "log.csv", table("step,val_loss,perplexity", rows))
    assert run.found.verdict("overfitting").verdict == "yes"
    assert run.found.verdict("gap").verdict == "cannot_tell"
    assert problem(run, "perplexity: of validation")
    apart = [{"step": s, "ppl": p} for s, _, p in rows] + [{"step": 2000, "val_loss": 2.0}]
    assert len(run_of(tmp_path, "apart.jsonl", apart).tables["train"]) == 20
    both = [(s, p, v, p * 1.2) for s, v, p in rows]
    both = run_of(
        tmp_path,
        "both.csv",
        table("step,ppl,val_loss,val_ppl", [(s, p * 0.8, v, q) for s, p, v, q in both]),
    )
    assert len(both.tables["train"]) == 20
    named = run_of(tmp_path, "named.csv", table("step,val_loss,train_ppl", rows))
    assert named.tables["train"][0]["loss"] == pytest.approx(3)


def test_evaluations_that_are_exact(tmp_path):
    """Rounded so far that nothing scatters: they still fall, or rise."""
    falls = run_of(tmp_path, "falls.csv", evaluated([4.0, 3.6, 3.4, *[3.35] * 9])).found
    assert "are all 3.3500, the lowest of 12" in falls.verdict("overfitting").because
    assert falls.verdict("overfitting").verdict == "no"
    assert falls.best.tied_steps == list(range(400, 1201, 100))
    above = run_of(tmp_path, "above.csv", evaluated([4.0, 3.0, *[3.2] * 18])).found
    assert above.verdict("overfitting").verdict == "cannot_tell"
    rises = run_of(tmp_path, "rises.csv", evaluated([1 + 0.25 * i for i in range(16)])).found
    assert rises.verdict("overfitting").verdict == "yes"
    assert rises.noise.method.startswith("what rounding leaves")
    equal = run_of(tmp_path, "equal.csv", evaluated([2.0] * 12)).found
    assert "does not change at all over 12" in equal.verdict("overfitting").because
    assert (
        equal.noise.method == "the last three quarters are equal: their scatter cannot be estimated"
    )


def test_validation_alone_that_rises_is_not_called_divergence(tmp_path):
    values = [2 - 0.5 * min(i, 10) / 10 + 0.038 * max(0, i - 10) for i in range(21)]
    found = run_of(tmp_path, "log.csv", evaluated(values)).found
    assert found.verdict("overfitting").verdict == "yes"
    assert found.verdict("divergence").verdict == "cannot_tell"
    assert "lower learning rate" not in found.advice[0].do
    worse = run_of(tmp_path, "worse.csv", evaluated([*values, *[4.0] * 8])).found
    assert worse.verdict("divergence").verdict == "yes"


@pytest.mark.parametrize("broken", ["inf", "nan"])
def test_validation_alone_that_ends_broken(tmp_path, broken):
    values = [*(4 - 0.05 * i for i in range(15)), *[broken] * 15]
    v = run_of(tmp_path, "log.csv", evaluated(values)).found.verdict("divergence")
    assert (v.verdict, v.since_step) == ("yes", 1600)
    assert "validation loss is not finite" in v.because
    rows = [(50 * i, 60 - i, 4 - i / 100 if i % 2 == 0 and i < 40 else "nan") for i in range(60)]
    run = run_of(tmp_path, "ppl.csv", table("step,train_ppl,val_loss", rows))
    assert run.found.verdict("divergence").verdict == "no"
    assert len(run.tables["eval"]) == 20


UNITS = """\
step {0} | loss {1} | tok/s 12.3k | tokens {2}M | elapsed {3}h
"""


def test_printed_numbers_keep_their_units(tmp_path):
    lines = "".join(UNITS.format(i, 4 - i / 20, 1.5 * i, i / 2) for i in range(1, 13))
    run = run_of(tmp_path, "train.log", lines)
    last = run.tables["train"][-1]
    assert (last["tokens_per_s"], last["tokens"], last["time"]) == (12_300, 18e6, 21_600)
    assert run.found.ledger.seconds == pytest.approx(5.5 * 3600)
    parted = "".join(f"step 1_{i:03} | loss {4 - i / 50}\n" for i in range(40))
    parted += "".join(f"step {i} | loss {4 - i / 50} | elapsed {i}m30s\n" for i in range(1, 13))
    run = run_of(tmp_path, "parted.log", parted)  # neither is cut
    assert [row["step"] for row in run.tables["train"]] == list(range(1, 13))
    assert [row["time"] for row in run.tables["train"]] == [60 * i + 30 for i in range(1, 13)]


def test_validation_lines_of_megatron_and_torchtitan(tmp_path):
    rows = [f"iteration {i}/ 400 | lm loss: {4 - i / 400:.4E} |" for i in range(10, 401, 10)]
    rows[19:19] = [" validation loss at iteration 200 | lm loss value: 3.6E+00 | lm loss PPL: 36 |"]
    rows += [" validation loss at iteration 400 | lm loss value: 3.2E+00 | lm loss PPL: 24 |"]
    run = run_of(tmp_path, "megatron.log", "\n".join(rows))
    assert [(e["step"], e["val_loss"]) for e in run.tables["eval"]] == [(200, 3.6), (400, 3.2)]
    assert run.found.ledger.steps == 400
    red, end = "\x1b[31m", "\x1b[0m"
    rows = [
        f"[titan] INFO - {red}step: {i}  {red}loss: {4 - i / 90:.4f}{end}" for i in range(1, 41)
    ]
    rows += [f"[titan] INFO - {red}validate step: 40  {red}loss:  3.5211{end}  {red}memory: 1GiB"]
    run = run_of(tmp_path, "titan.log", "\n".join(rows))
    assert len(run.tables["train"]) == 40
    assert [e["val_loss"] for e in run.tables["eval"]] == [3.5211]


def test_units_in_the_names_of_columns(tmp_path):
    rows = [(i, 4 - i / 50, 8 * i, 1.5 * i) for i in range(1, 61)]
    run = run_of(tmp_path, "log.csv", table("step,loss,time (min),Tokens (M)", rows))
    assert run.found.ledger.seconds == pytest.approx(59 * 8 * 60)
    assert run.found.ledger.tokens == 90_000_000
    assert problem(run, "time (min): times 60")
    rows = [(i, 4 - i / 50, f"{i // 60}:{i % 60:02d}:00", f"{i / 2}M") for i in range(1, 61)]
    own = run_of(tmp_path, "own.csv", table("step,loss,time (min),Tokens (M)", rows)).found.ledger
    assert (own.seconds, own.tokens) == (59 * 60, 30_000_000)  # cells with a unit of their own
    rows = [(i, 4 - i / 50, 1000 * i) for i in range(1, 61)]
    other = "run (b) - step,run (b) - loss,run (b) - tokens"
    assert run_of(tmp_path, "run.csv", table(other, rows)).found.ledger.tokens == 60_000


def test_names_of_json_files_with_points(tmp_path):
    state = {"log_history": [{"step": i, "loss": 4 - i / 50} for i in range(1, 21)]}
    run = run_of(tmp_path, "llama-3.2-1b.json", json.dumps(state))
    assert len(run.tables["train"]) == 20


def test_a_number_of_layers_is_a_number(tmp_path):
    rows = [{"config": {"model": {"layers": 12}}}, *({"step": i, "loss": 3.0} for i in range(9))]
    assert run_of(tmp_path, "log.jsonl", rows).found.about.model == "12 layers"


def test_no_forecast_from_what_a_log_leaves_out(tmp_path):
    """Our defaults are not those of the tool that wrote it; transformers' schedules end at 0."""

    def log(**settings):
        rows = [{"config": settings | {"max_steps": 3000}}]
        for i in range(1, 21):
            rows.append({"step": 100 * i, "val_loss": 3 + 2 / i**0.5 + 0.002 * (i % 3)})
        return run_of(tmp_path, "log.jsonl", rows).found.forecast

    assert log(scheduler="cosine", warmup=100).status == "refused"
    assert log(scheduler="cosine", min_ratio=0.1).status == "refused"
    assert log(scheduler="cosine", warmup=100, min_ratio=0.1).status == "made"
    assert log(lr_scheduler_type="cosine", warmup_steps=100).status == "made"


def test_evaluations_that_a_resumed_run_went_back_behind(tmp_path):
    def trained(begin, end):
        rows = []
        for step in range(begin, end, 10):
            rows.append({"step": step, "loss": 4 - step / 1000})
            if step % 100 == 0:
                rows.append({"step": step, "val_loss": 4.1 - step / 1000})
        return rows

    run = run_of(tmp_path, "log.jsonl", [*trained(10, 1001), *trained(510, 590)])
    assert [e["step"] for e in run.tables["eval"]] == [100, 200, 300, 400, 500]
    assert (run.found.ledger.steps, run.found.best.step) == (580, 500)
    run = run_of(tmp_path, "log.jsonl", [*trained(10, 1001), *trained(510, 790)])
    assert [e["step"] for e in run.tables["eval"]] == [100 * i for i in range(1, 8)]
    begun = [row for row in trained(500, 590) if "loss" in row]  # from the weights of step 500
    run = run_of(tmp_path, "log.jsonl", [*trained(10, 1001), *begun])
    assert [e["step"] for e in run.tables["eval"]] == [100, 200, 300, 400, 500]


def test_the_first_loss_of_epochs_is_none_of_a_fresh_model(tmp_path):
    rows = [{"config": {"vocab_size": 50_000}}]
    rows += [{"epoch": i, "loss": 5.8 - i / 10} for i in range(1, 12)]
    assert run_of(tmp_path, "log.jsonl", rows).found.verdict("init_loss").verdict == "cannot_tell"


def test_what_many_tests_demote_is_not_built_upon(tmp_path, monkeypatch):
    """Overfitting that is no longer proven among several tests: no other verdict says it."""
    values = [4 - 0.3 * min(i, 7) + 0.03 * max(0, i - 7) for i in range(15)]
    path = tmp_path / "log.csv"
    path.write_text(evaluated(values))
    sure = load_run(path).found
    assert sure.verdict("overfitting").verdict == "yes"
    assert sure.verdict("still_improving").because.startswith("Validation got worse")
    monkeypatch.setattr("overnight.analysis.verdicts.ALPHA", -1.0)
    open_ = load_run(path).found
    assert open_.verdict("overfitting").verdict == "cannot_tell"
    assert "got worse" not in open_.verdict("still_improving").because
    assert "got worse" not in open_.verdict("plateau").because
    assert len(open_.best.tied_steps) >= len(sure.best.tied_steps)


def test_lines_are_counted_from_the_first_of_the_file(tmp_path):
    rows = [(i, 4 - i / 20) for i in range(1, 13)]
    content = "# a comment\n\n" + table("step,loss", rows) + "13,much\n"
    assert problem(run_of(tmp_path, "log.csv", content), "line 16: 'much'")


def test_a_step_that_falls_is_no_resume_by_itself(tmp_path):
    """Two ranks a row apart, a row that came late, a row of results at the end."""
    train = [{"step": s, "loss": 4 - s / 1e4} for s in range(50, 6001, 50)]
    evals = {s: {"step": s, "val_loss": 4.1 - s / 1e4} for s in range(500, 6001, 500)}

    def kept(rows):
        return len(run_of(tmp_path, "log.jsonl", rows).tables["eval"])

    plain = [r for row in train for r in (row, evals.get(row["step"])) if r]
    late = [{"step": 2990, "loss": 3.7}]
    at = plain.index(evals[3000]) + 1
    assert kept(plain) == kept([*plain[:at], *late, *plain[at:]]) == 12
    run = run_of(tmp_path, "log.jsonl", [*plain[:at], *late, *plain[at:]])
    assert len(run.tables["train"]) == len(train) + 1  # and the row of step 3000 is there
    assert len(run.found.ledger.sessions) <= 1
    assert kept([*plain, {"step": 100, "loss": 2.2}]) == 12
    ranks = [
        r
        for row in train
        for r in (row, evals.get(row["step"]), {"step": row["step"] - 50, "loss": row["loss"]})
        if r
    ]
    assert kept(ranks) == 12


@pytest.mark.parametrize(
    ("line", "seconds"),
    [("iter {i}: loss {loss}, time 35.50ms, mfu 10.41%", 0.0355),  # nanoGPT
     ("step {i}/99 | loss {loss} (+nanz)| norm 1.5 | lr 8.5e-07 | 3179.50 ms | 46.2% bf16 MFU",
      3.1795),  # llm.c
     ("{i} | loss {loss} | lr 5.0e-04 | 123.00ms | mfu 1.10%", 0.123),  # llama2.c
     (" iteration {i}/ 99 | elapsed time per iteration (ms): 620.0 | lm loss: {loss} |", 0.62),
     ("step {i} | loss: {loss} | dt: 338.00ms | norm: 1.0", 0.338)],
)  # fmt: skip
def test_the_time_of_a_step(line, seconds, tmp_path):
    run = run_of(
        tmp_path, "out.txt", "\n".join(line.format(i=i, loss=4 - i / 100) for i in range(60))
    )
    assert run.found.ledger.step_seconds == pytest.approx(seconds)
    assert not problem(run, "count up")
    speed = run.found.verdict("throughput")
    assert (speed.verdict, speed.evidence["median"]) == ("no", pytest.approx(1 / seconds))


def test_tokens_per_second_of_what_counts_tokens_and_times_a_step(tmp_path):
    """Megatron; the batch grows: 1,000 tokens a step, then 3,000."""
    rows = [(10 * i, 3, 10_000 * i + 20_000 * max(i - 30, 0), 0.5) for i in range(1, 61)]
    run = run_of(tmp_path, "m.csv", table("step,loss,tokens,step_time", rows))
    speeds = [row["tokens_per_s"] for row in run.tables["train"]]
    assert (speeds[0], speeds[1], speeds[-1]) == (None, 2000, 6000)
    micro = table("step,loss,total_tokens,iter_time", rows)
    assert run_of(tmp_path, "litgpt.csv", micro).found.ledger.tokens_per_s is None


@pytest.mark.parametrize(
    ("first", "falls", "advised"), [(4.17, True, False), (4.17, False, True), (8.0, True, True)]
)
def test_a_first_loss_tells_letters_from_pieces_of_words(first, falls, advised, tmp_path):
    """A model of 65 letters that knows nothing begins at ln 65; one that is tuned further begins
    low, too, and hardly falls; pieces of words are thousands."""
    end = 1.3
    rows = [
        (i, first if not i else end + (first - end) * math.exp(-i / (20 if falls else 500)))
        for i in range(2000)
    ]
    run = run_of(tmp_path, "m.csv", table("step,loss", rows))
    assert ("few" in run.found.verdict("too_good").evidence) is not advised
    assert any("padding" in advice.do for advice in run.found.advice) is advised
