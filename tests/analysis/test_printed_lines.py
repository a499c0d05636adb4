"""What stands around the names and numbers of a printed line, one case for each kind of tool."""

from __future__ import annotations

from pathlib import Path

import pytest
from foreign import STEPS, evaluations, falling, losses, run_of, told, val

from overnight.analysis.readers.names import ours_of, scale
from overnight.errors import UserError

EVERY = 200  # steps from one evaluation to the next


def log(train: str, held: str) -> list[str]:
    """Lines of training with an evaluation now and then."""
    lines = []
    for s in STEPS:
        lines.append(train.format(s=s, loss=falling(s)))
        if s % EVERY == 0:
            lines.append(held.format(s=s, loss=val(s)))
    return lines


@pytest.mark.parametrize(
    "front",
    ["2026-01-01 00:00:00 INFO ", "[2026-01-01 00:00:00] ", "2026-01-01 00:00:00,123 ",
     "[rank0]: ", "INFO:root:", "10:00:00 | ", "I0101 10:00:00.123456 14012 train.py:45] ",
     "2026-01-01 10:00:00.123 | INFO     | __main__:train:45 - ", "2026-01-01T10:00:00Z ",
     "[rank1]:[2026/01/01 10:00:00] ", "trainer-1  | ", "my-run-0 2026-01-01T10:00:00.1Z ",
     "[pod/train-0/main] 2026-01-01T10:00:00.1Z ", "2026-01-01T10:00:00.1Z stdout F ",
     "Thu 01 Jan 2026 10:00:00 UTC ", "Jan  1 10:00:00 host python[123]: ",
     "(pid=1) ", "(train_fn pid=123, ip=10.0.0.1) ", "[1,0]<stdout>:"],
)  # fmt: skip
def test_loggers_words_in_front_hide_no_evaluation(front: str, tmp_path: Path) -> None:
    for number, (train, held) in enumerate(
        [("step {s} loss {loss}", "Validation: step {s} loss {loss}"),
         ("{s}/1200 train_loss: {loss}", "{s}/1200 val_loss: {loss}")]
    ):  # fmt: skip
        run = run_of(tmp_path, f"{number}.log", log(front + train, front + held))
        assert losses(run) == [(s, falling(s)) for s in STEPS]
        assert evaluations(run) == [(s, val(s)) for s in STEPS if s % EVERY == 0]


@pytest.mark.parametrize(
    ("train", "held"),
    [
        # TF Estimator, tensor2tensor
        ("INFO:tensorflow:loss = {loss}, step = {s} (7.759 sec)",
         "INFO:tensorflow:Saving dict for global step {s}: global_step = {s}, loss = {loss}"),
        # a tensor as PyTorch prints it
        ("step {s} loss tensor({loss}, device='cuda:0', grad_fn=<NllLossBackward0>)",
         "step {s} val_loss=tensor({loss}, device='cuda:0')"),
        ("{{'step': np.int64({s}), 'loss': np.float64({loss})}}",
         "{{'step': np.int64({s}), 'val_loss': np.float64({loss})}}"),
        # Keras goes back over what it wrote
        ("step {s} loss: 9.9 - ETA: 0s\x08\x08\x08\x08step {s} loss: {loss}",
         "step {s} val_loss: 9.9\x08\x08\x08step {s} val_loss: {loss}"),
        # NeMo: a file's name holds the rounded loss
        ("global_step: {s} | reduced_train_loss: {loss} | consumed_samples: 5120",
         "step {s} val_loss: {loss}\nScheduled async checkpoint save for "
         "results/model_name=0--val_loss={loss:.1f}-step={s}-consumed_samples=5120.0-last.ckpt"),
        # a logger's name that says what the loss is of
        ("2026-01-01 00:00:00,123 - INFO - train - step {s} loss {loss}",
         "2026-01-01 00:00:00,123 - INFO - eval - step {s} loss {loss}"),
        ("10:00:00 [INFO] train - step {s} loss {loss}",
         "10:00:00 [INFO] eval - step {s} loss {loss}"),
        # a count of steps, or a bar of progress, behind a logger's words
        ("[INFO] {s}/1200 train_loss: {loss}", "[INFO] step {s} val_loss: {loss}"),
        ("[rank0]: {s} | loss {loss}", "[rank0]: {s} | val loss {loss}"),
        # a rank in front of fairseq's
        ("0: epoch 001: {s} / 1200 loss={loss}, num_updates={s}, lr=0.001",
         "0: epoch 001 | valid on 'valid' subset | loss {loss} | num_updates {s}"),
        # a name of a set that holds a digit
        ("step {s} loss {loss}", "step {s} val_wikitext2_loss {loss}"),
        ("{{'step': {s}, 'loss': {loss}}}", "{{'step': {s}, 'eval_c4_loss': {loss}}}"),
        # a field that says it, as in a row of a table
        ("split: train, step: {s}, loss: {loss}", "split: val, step: {s}, loss: {loss}"),
        ("mode=train step={s} loss={loss}", "mode=eval step={s} loss={loss}"),
        ("step {s} loss {loss} phase=train", "step {s} loss {loss} phase=valid"),
        ("{{'split': 'train', 'step': {s}, 'loss': {loss}}}",
         "{{'split': 'val', 'step': {s}, 'loss': {loss}}}"),
        # … and one that says it of the program
        ("trainer-1  | step {s} | loss {loss}", "trainer-1  | [valid] step {s} | loss {loss}"),
        ("INFO train: step {s} | loss {loss}", "INFO train: valid | step {s} | loss {loss}"),
        ("worker-1  | step {s} | loss {loss}", "worker-1  | valid | step {s} | loss {loss}"),
        ("[train_gpt] step {s} loss {loss}", "[train_gpt] (val) step {s} loss {loss}"),
        ("[valid] step {s} train loss {loss}", "[valid] step {s} val loss {loss}"),
        ("train step {s} acc (test) 0.8 loss {loss}", "eval step {s} loss {loss}"),
    ],
)  # fmt: skip
def test_how_tools_print(train: str, held: str, tmp_path: Path) -> None:
    run = run_of(tmp_path, "out.log", log(train, held))
    assert losses(run) == [(s, falling(s)) for s in STEPS]
    assert evaluations(run) == [(s, val(s)) for s in STEPS if s % EVERY == 0]


@pytest.mark.parametrize(
    ("train", "held"),
    [("", "   \x1b[A"),  # after the bar of an evaluation
     ("[INFO]  40%|██ | 1/20 [00:01<00:02] ", "[INFO] ")],
)  # fmt: skip
def test_dictionaries_behind_bars_of_progress(train: str, held: str, tmp_path: Path) -> None:
    """transformers, which prints no step."""
    lines = log(
        train + "{{'loss': {loss}, 'epoch': 1.0}}", held + "{{'eval_loss': {loss}, 'epoch': 1.0}}"
    )
    run = run_of(tmp_path, "out.log", lines)
    assert [loss for _, loss in losses(run)] == [falling(s) for s in STEPS]
    assert [loss for _, loss in evaluations(run)] == [val(s) for s in STEPS if s % EVERY == 0]


def test_epochs_of_as_many_steps_as_were_drawn(tmp_path: Path) -> None:
    """AWD-LSTM: how many batches an epoch has is another number in each line."""
    lines = []
    for epoch in (1, 2, 3, 4):
        for batch in range(200, 1200, 200):
            of = 1150 - 37 * (batch // 200 % 3) if batch < 1000 else 1050
            loss = falling(epoch * 100 + batch // 10)
            lines.append(f"| epoch   {epoch} | {batch:5}/{of:5} batches | lr 0.002 | loss {loss} |")
        lines.append(f"| end of epoch   {epoch} | time: 9s | valid loss {val(epoch * 200)} |")
    run = run_of(tmp_path, "out.log", lines)
    steps = [step for step, _ in losses(run)]
    assert steps == [1200 * epoch + batch for epoch in range(4) for batch in range(200, 1200, 200)]
    assert told(run, "counted on")
    assert [step for step, _ in evaluations(run)] == steps[4::5]


def test_one_row_of_training_in_each_epoch(tmp_path: Path) -> None:
    """GluonNLP: its step is the same in each, and its evaluations name no epoch that is read."""
    lines = []
    for epoch in range(12):
        loss = falling(100 * epoch + 100)
        lines.append(f"[Epoch {epoch} Batch 200/372] current loss {loss}, ppl 9.9, lr 30.00")
        lines.append(f"[Epoch {epoch}] time cost 15.20s, valid loss {val(100 * epoch + 100)}")
    run = run_of(tmp_path, "out.log", lines)
    expected = [200 + 372 * epoch for epoch in range(12)]
    assert [step for step, _ in losses(run)] == [step for step, _ in evaluations(run)] == expected


@pytest.mark.parametrize(
    "line", [">>> Held-out CE on wiki = {v}", "validation: avg loss over 50 batches {v}"]
)
def test_what_is_said_of_a_held_out_set_and_not_understood_is_told(
    line: str, tmp_path: Path
) -> None:
    lines = log("step {s} loss {loss}", line.replace("{v}", "{loss}"))
    assert told(run_of(tmp_path, "out.log", lines), "6 lines with a loss of a held-out set")
    understood = log("step {s} loss {loss}", "step {s} val loss {loss}")
    quiet = run_of(tmp_path, "b.log", ["Best val loss was 3.1", *understood])
    assert not told(quiet, "held-out")
    both = log("step {s} loss {loss}", "step {s} val loss {loss}\n" + line.replace("{v}", "{loss}"))
    assert not told(run_of(tmp_path, "c.log", both), "held-out")  # the same, in other words


def test_training_that_is_said_in_other_words_than_evaluations_is_told(tmp_path: Path) -> None:
    lines = log("at {s} we see a loss of {loss}", "step {s} val loss {loss} lr 0.1")
    assert told(run_of(tmp_path, "out.log", lines), "120 lines with a loss, it seems, not under")
    both = log("step {s} loss {loss}", "step {s} val loss {loss}\nat {s} a loss of {loss}")
    assert not told(run_of(tmp_path, "b.log", both), "not understood")


def test_objects_behind_settings_and_a_loggers_words(tmp_path: Path) -> None:
    """fairseq --log-format json: its arguments come first."""
    front = "2021-03-08 12:31:36 | INFO | "
    settings = [front + f"fairseq_cli.train | setting {i} is Namespace(x=1)" for i in range(600)]
    rows = log(
        front + 'train_inner | {{"epoch": 1, "loss": "{loss}", "num_updates": "{s}"}}',
        front + 'valid | {{"epoch": 1, "valid_loss": "{loss}", "valid_num_updates": "{s}"}}',
    )
    run = run_of(tmp_path, "out.log", settings + rows)
    assert run.found.source.format == "jsonl"
    assert losses(run) == [(s, falling(s)) for s in STEPS]
    assert evaluations(run) == [(s, val(s)) for s in STEPS if s % EVERY == 0]


@pytest.mark.parametrize(
    ("name", "ours"),
    [("loss_bits", "loss"), ("train/loss_bits", "loss"), ("val_loss [bit]", "val_loss"),
     ("train_bits_per_token", "loss"), ("8bit_loss", None)],
)  # fmt: skip
def test_bits_in_a_name(name: str, ours: str | None) -> None:
    assert ours_of(name) == ours
    assert ours is None or scale(name, ours) == pytest.approx(0.693147, abs=1e-6)


def test_the_last_of_several_runs_that_log_epochs_alone(tmp_path: Path) -> None:
    """transformers, three times into one file: a mix of them looks like a divergence."""
    lines = [
        f"{{'loss': {above + falling(s)}, 'learning_rate': 1e-4, 'epoch': {s / 400:.4f}}}"
        for above in (0, 8, 1)
        for s in STEPS
    ]
    run = run_of(tmp_path, "out.log", lines)
    assert [loss for _, loss in losses(run)] == [1 + falling(s) for s in STEPS]
    assert told(run, "2 earlier runs in the same file: epochs begin again at 0.025")


@pytest.mark.parametrize("front", ["0: ", "[1] ", "(0) ", "1714550400 "])
def test_a_rank_or_a_time_in_front_is_no_step(front: str, tmp_path: Path) -> None:
    lines = log(front + "step {s}/1200 | loss {loss}", front + "val loss {loss}")
    run = run_of(tmp_path, "out.log", lines)
    assert losses(run) == [(s, falling(s)) for s in STEPS]
    assert evaluations(run) == [(s, val(s)) for s in STEPS if s % EVERY == 0]


def test_the_unit_of_a_loss_hides_no_rate(tmp_path: Path) -> None:
    lines = [f"step {s} loss {falling(s)} nats/token lr {s / 1e6}" for s in STEPS]
    rows = run_of(tmp_path, "out.log", lines).tables["train"]
    assert [(row["loss"], row["lr"]) for row in rows] == [(falling(s), s / 1e6) for s in STEPS]


def test_an_epoch_in_colours_above_its_losses(tmp_path: Path) -> None:
    lines = []
    for epoch in range(1, 13):
        lines.append(f"\x1b[1mEpoch \x1b[36m{epoch}\x1b[0m")
        lines.append(f"\x1b[32mtrain loss {falling(epoch)}\x1b[0m, val loss {val(epoch)}")
    run = run_of(tmp_path, "out.log", lines)
    assert [step for step, _ in losses(run)] == [*range(1, 13)]
    assert [loss for _, loss in evaluations(run)] == [val(epoch) for epoch in range(1, 13)]


def test_a_perplexity_of_1_says_nothing_of_a_sum(tmp_path: Path) -> None:
    """MLPerf's fairseq: the loss is a sum, and its perplexity was never computed."""
    lines = [f"step {s} | loss {8000 * falling(s):.1f} | ppl 1.00 | lr 1e-4" for s in STEPS]
    run = run_of(tmp_path, "out.log", lines)
    assert losses(run)[0] == (10, pytest.approx(8000 * falling(10), abs=0.1))
    assert told(run, "no measurement")
    assert run.found.verdict("too_good").verdict != "yes"


@pytest.mark.parametrize("front", ["", '"type": "config", '])
def test_settings_in_a_row_of_their_own(front: str, tmp_path: Path) -> None:
    rows = [f'{{"step": {s}, "loss": {falling(s)}}}' for s in STEPS]
    settings = f'{{{front}"vocab_size": 5000, "max_steps": 2400, "train_tokens": 2000000}}'
    run = run_of(tmp_path, "log.jsonl", [settings, *rows])
    assert (run.found.about.vocab_size, run.found.about.planned_steps) == (5000, 2400)
    assert run.found.ledger.tokens is None  # those of the text are not those seen
    assert not told(run, "not read")  # and are no columns of it


def test_gpt_2_simple_and_a_loss_without_known_words(tmp_path: Path) -> None:
    rows = [f"[{s} | {s / 4:.2f}] loss={falling(s)} avg=3.30" for s in STEPS]
    run = run_of(tmp_path, "out.log", rows)
    assert losses(run) == [(s, falling(s)) for s in STEPS]
    assert run.found.ledger.seconds == (STEPS[-1] - STEPS[0]) / 4
    lines = ["begins", *(f"nth {s} yields loss of {falling(s)}" for s in STEPS)]
    with pytest.raises(UserError, match=r"Line 2 has a loss.*'nth 10 yields loss of"):
        run_of(tmp_path, "other.log", lines)


def test_steps_that_go_on_from_epoch_to_epoch_are_not_counted_on(tmp_path: Path) -> None:
    lines = [f"epoch {s // 400} step {s}/1200 loss {falling(s)}" for s in STEPS]
    assert losses(run_of(tmp_path, "out.log", lines)) == [(s, falling(s)) for s in STEPS]
