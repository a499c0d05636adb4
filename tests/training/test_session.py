"""Whole runs, small: what they leave, and that a resumed one is the uninterrupted one."""

from __future__ import annotations

import json
import math
import random
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from tiny_runs import TEXT, TINY, final_tensors, interrupted, interrupted_at, measured, train

from overnight import cli, load_run
from overnight.generation.load import find_step
from overnight.runfolder import (
    End,
    Eval,
    Event,
    Full,
    LogWriter,
    RunFolder,
    Sample,
    Start,
    Train,
    current,
    read_log,
)
from overnight.runlock import RunLock
from overnight.text.batches import Batches
from overnight.text.tokenizers import Tokenizer
from overnight.training import measuring, update
from overnight.training.summary import summarise


@pytest.mark.parametrize("step", [1, 5, 7, 8, 9, 13, 24])
def test_resumed_is_uninterrupted(
    step: int, whole: Path, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    interrupted(out, text, step, monkeypatch)
    assert RunFolder(out).checkpoint_steps()[-1] == step
    assert cli.run(["train", "--resume", str(out)]) == 0
    assert final_tensors(out) == final_tensors(whole)
    assert measured(out) == measured(whole)


def test_a_killed_session_replays_the_same_steps(
    whole: Path, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No clean stop: the process is gone at step 14; the newest checkpoint is of step 9."""
    out = tmp_path / "run"
    original = update.Updater.update

    def dies(self: update.Updater, number: int, steps: int, *more: Any) -> update.Update:
        if number == 14 and steps == 24:
            raise SystemExit(9)
        return original(self, number, steps, *more)

    with monkeypatch.context() as patch:
        patch.setattr(update.Updater, "update", dies)
        with pytest.raises(SystemExit):
            train(out, text)
    found = load_run(out).found
    assert found.about.status == "killed"
    assert any("breaks off at step" in line for line in found.cannot_conclude)
    with RunLock(RunFolder(out).lock):
        assert load_run(out).found.about.status == "running"
    assert cli.run(["train", "--resume", str(out)]) == 0
    assert load_run(out).found.about.status == "finished"
    assert final_tensors(out) == final_tensors(whole)
    assert measured(out) == measured(whole)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_logging_evaluation_sampling_and_saving_never_change_training(
    dtype: str, text: str, tmp_path: Path
) -> None:
    often = {"log_every": "1", "eval_every": "3", "save_every": "2"}
    never = {"eval_every": "24", "sample__tokens": "0", "save_every": "24"}
    for name, cadence in (("often", often), ("never", never)):
        assert train(tmp_path / name, text, train__dtype=dtype, **cadence) == 0
    assert final_tensors(tmp_path / "often") == final_tensors(tmp_path / "never")


def test_what_a_run_leaves(whole: Path) -> None:
    run = RunFolder(whole)
    for path in (run.config, run.tokenizer, run.yardsticks, run.log):
        assert path.is_file()
    for name in ("report.md", "report.html", "findings.json", "train_val_loss.png"):
        assert (run.report / name).stat().st_size > 0
    rows = read_log(run.log)
    assert not rows.problems
    kinds = [type(row).__name__ for row in rows.rows]
    assert kinds[0] == "Start"
    assert kinds[-1] == "End"
    evals = [row.step for row in rows.rows if type(row).__name__ == "Eval"]
    assert evals == [0, 8, 16, 24]
    best = min((r for r in rows.rows if type(r).__name__ == "Eval"), key=lambda r: r.val_loss)
    assert best.step in run.checkpoint_steps()
    assert 24 in run.checkpoint_steps()


def test_a_logged_loss_is_the_mean_of_its_window(text: str, tmp_path: Path, whole: Path) -> None:
    out = tmp_path / "run"
    assert train(out, text, log_every="1") == 0
    each = {k[1]: row["loss"] for k, row in measured(out).items() if k[0] == "train"}
    windows = {k[1]: row for k, row in measured(whole).items() if k[0] == "train"}
    assert sorted(windows) == [5, 10, 15, 20, 24]
    for step, row in windows.items():
        mean = sum(each[s] for s in range(step - row["steps"] + 1, step + 1)) / row["steps"]
        assert row["loss"] == pytest.approx(mean, rel=1e-12)
        assert row["objective"] > row["loss"]  # smoothing is logged beside, never instead


def test_a_finished_run_is_left_alone(whole: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = (whole / "log.jsonl").read_bytes()
    assert cli.run(["train", "--resume", str(whole)]) == 0
    assert (whole / "log.jsonl").read_bytes() == before
    assert "finished" in capfd.readouterr().err


def test_summary_for_machines(text: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "run", text, "--json", max_steps="3") == 0
    summary = json.loads(capfd.readouterr().out)
    assert summary["steps"] == 3
    assert summary["tokens"] == 3 * 4 * 16
    assert summary["best"]["step"] == 3
    assert summary["last"]["val_loss"] > 0
    assert summary["bpb"] > 0


def test_resume_with_other_text_is_refused(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text(TEXT)
    with monkeypatch.context() as patch:
        interrupted_at(4, patch)
        assert train(tmp_path / "run", str(mine)) == 130
    log = (tmp_path / "run" / "log.jsonl").read_bytes()
    mine.write_text(TEXT.replace("square", "SQUARE"))
    capfd.readouterr()
    assert cli.run(["train", "--resume", str(tmp_path / "run")]) == 2
    error = capfd.readouterr().err
    assert "not the one of this run" in error
    assert (tmp_path / "run" / "log.jsonl").read_bytes() == log


def test_a_text_that_was_moved_is_named_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    mine, out = tmp_path / "mine.txt", tmp_path / "run"
    mine.write_text(TEXT)
    with monkeypatch.context() as patch:
        interrupted_at(9, patch)
        assert train(out, str(mine)) == 130
    mine.rename(tmp_path / "moved.txt")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # an empty one
    assert cli.run(["train", "--resume", str(out)]) == 2
    assert "mine.txt: no such file" in capfd.readouterr().err
    monkeypatch.chdir(tmp_path)
    assert cli.run(["train", "--resume", str(out), "moved.txt"]) == 0
    assert str(tmp_path / "moved.txt") in (out / "config.toml").read_text()
    kept = [row.step for row in current(read_log(out / "log.jsonl").rows) if isinstance(row, Eval)]
    assert kept == [0, 8, 16, 24]  # the text is the same, so what was measured counts


def test_a_text_that_is_gone_goes_on_from_its_tokens(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    mine, out = tmp_path / "mine.txt", tmp_path / "run"
    mine.write_text(TEXT)
    interrupted(out, str(mine), 9, monkeypatch)
    mine.unlink()
    capfd.readouterr()
    for other in (["other.txt"], ["--data.val_fraction", "0.2", "--accept", "incompatible"]):
        assert cli.run(["train", "--resume", str(out), *other]) == 2
        assert "no such file" in capfd.readouterr().err
    assert cli.run(["train", "--resume", str(out)]) == 0
    assert capfd.readouterr().err.count(f"{mine}: not there any more; its tokens are in the") == 1
    assert final_tensors(out) == final_tensors(whole)


def test_settings_edited_by_hand_are_changes_of_a_resume(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    interrupted(out, text, 4, monkeypatch)
    file = out / "config.toml"
    written = file.read_text()
    file.write_text(written.replace("weight_decay = 0.1", "weight_decay = 0.3", 1))
    resume = ["train", "--resume", str(out)]
    assert cli.run(resume) == 2
    error = capfd.readouterr().err
    assert "optimizer.weight_decay was 0.1 and is to be 0.3" in error
    with monkeypatch.context() as patch:
        interrupted_at(6, patch)
        assert cli.run([*resume, "--accept", "trajectory"]) == 130
    assert "changed: optimizer.weight_decay 0.1 → 0.3" in capfd.readouterr().err
    file.write_text(written)  # back to what it was: an edit, too
    assert cli.run(resume) == 2
    assert "optimizer.weight_decay was 0.3 and is to be 0.1" in capfd.readouterr().err
    log = out / "log.jsonl"  # as if the power had failed before the file was replaced
    rows = log.read_text().splitlines(keepends=True)
    begun = max(i for i, row in enumerate(rows) if '"type":"start"' in row)
    log.write_text("".join(rows[: begun + 1]))
    assert cli.run(resume) == 0
    assert read_log(log).of(Start)[-1].config["optimizer"]["weight_decay"] == 0.1


def test_a_text_behind_a_link_is_taken_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the cache of a hub: the name of the link says that it is JSONL, its target nothing."""
    blob, link, out = tmp_path / "ab12", tmp_path / "train.jsonl", tmp_path / "run"
    blob.write_text("".join(json.dumps({"text": line}) + "\n" for line in TEXT.splitlines()))
    link.symlink_to(blob)
    interrupted(out, str(link), 4, monkeypatch)
    assert cli.run(["train", "--resume", str(out)]) == 0


def test_what_goes_on_can_be_pasted(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a run's folder"
    interrupted(out, text, 4, monkeypatch)
    assert f"go on with --resume {shlex.quote(str(out))}" in capfd.readouterr().err
    assert train(out, text) == 2
    assert f"go on with --resume {shlex.quote(str(out))}, or" in capfd.readouterr().err


def test_memory_that_is_short_at_a_resume_is_said(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    interrupted(out, text, 4, monkeypatch)

    def short(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("overnight.training.resume._restored", short)
    assert cli.run(["train", "--resume", str(out)]) == 1
    assert "out of memory: micro-batches of" in capfd.readouterr().err


def test_another_batch_goes_on_where_the_last_one_ended(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No sequence is passed over or seen twice, and tokens are those that were trained; also where
    the first session with it is killed before it has saved."""
    out, drawn = tmp_path / "run", []
    interrupted(out, text, 12, monkeypatch)
    batch = Batches.batch

    def recorded(self: Batches, begin: int, size: int) -> Any:
        drawn.append((begin, size))
        if (begin, size) == (64, 8) and drawn.count((64, 8)) == 1:
            raise SystemExit(9)
        return batch(self, begin, size)

    monkeypatch.setattr(Batches, "batch", recorded)
    words = ["train", "--resume", str(out), "--train.batch", "8", "--accept", "trajectory"]
    with pytest.raises(SystemExit):
        cli.run(words)
    assert drawn == [(48, 8), (56, 8), (64, 8)]
    assert cli.run(words[:3]) == 0
    assert drawn[3:] == [(48 + 8 * i, 8) for i in range(12)]
    found = load_run(out).found
    assert found.ledger.tokens == 12 * 64 + 12 * 128
    assert found.ledger.micro_steps == 12 * 2 + 12 * 4
    assert [s.tokens for s in found.ledger.sessions][0::2] == [12 * 64, 12 * 128]
    assert found.verdict("units").verdict == "no"
    last = read_log(out / "log.jsonl").of(Train)[-1]
    assert last.tokens == found.ledger.tokens


def test_another_batch_after_a_power_cut(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has taken the row of the checkpoint, which is durable before."""
    out = tmp_path / "run"
    interrupted(out, text, 12, monkeypatch)
    rows = (out / "log.jsonl").read_text().splitlines(keepends=True)
    lost = next(i for i, row in enumerate(rows) if '"checkpoint"' in row and '"step":12' in row)
    (out / "log.jsonl").write_text("".join(rows[:lost]))
    words = ["train", "--resume", str(out), "--train.batch", "8", "--accept", "trajectory"]
    assert cli.run(words) == 0
    assert load_run(out).found.ledger.tokens == 12 * 64 + 12 * 128


def test_a_changed_resume_keeps_the_reasons(text: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train(out, text) == 0
    before = (out / "config.toml").read_text().count("#")
    assert (
        cli.run(["train", "--resume", str(out), "--max-steps", "26", "--accept", "trajectory"]) == 0
    )
    assert (out / "config.toml").read_text().count("#") == before
    first, second = read_log(out / "log.jsonl").of(Start)
    assert second.reasons == first.reasons | {"length.steps": second.reasons["length.steps"]}
    more = ["--max-steps", "27", "--accept", "trajectory"]
    assert cli.run(["train", "--resume", str(out), *more]) == 0
    assert cli.run(["train", "--resume", str(out), "--max-steps", "28", "--log-every", "3",
                    "--accept", "trajectory"]) == 0  # fmt: skip
    assert cli.run(["train", "--resume", str(out), "--max-steps", "29", *more[2:]]) == 0
    last = read_log(out / "log.jsonl").of(Start)[-1]
    assert last.reasons["log.every"] == "was 5, changed at a resume"


def test_characters_unknown_to_the_tokenizer_are_reported(text: str, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("Ω und ß " * 300)
    out = tmp_path / "run"
    assert train(out, text, "--val", str(other), max_steps="2") == 0
    report = (out / "report" / "report.md").read_text()
    assert "21 bits are counted for each of 900 characters of the held-out text" in report
    tokenizer, (full,) = (
        Tokenizer.load(out / "tokenizer.json"),
        read_log(out / "log.jsonl").of(Full),
    )
    nats = full.val_loss * full.val_tokens
    ids = tokenizer.encode("Ω und ß " * 300)[1 : full.val_tokens + 1]
    unknown, n_bytes = ids.count(tokenizer.unknown), len(ids)  # each counts as one byte
    assert unknown > full.val_tokens / 5
    assert full.val_bpb == pytest.approx((nats / math.log(2) + 21 * unknown) / n_bytes)
    assert "held-out bytes" not in report  # how many they are is not known
    held = "Ω und ß " * 300
    guessing = json.loads((out / "yardsticks.json").read_text())["yardsticks"][0]
    of_all = len(held) * math.log2(tokenizer.vocab_size)
    of_all += 21 * tokenizer.encode(held).count(tokenizer.unknown)
    assert guessing["bpb"] == pytest.approx(of_all / len(held.encode()), rel=1e-6)
    # worse for certain is only what is so with each unknown character for nothing, and four bytes
    least = (full.val_bpb * n_bytes - 21 * 900) / (n_bytes + 3 * 900)
    rows = load_run(out).findings["yardsticks"]["rows"]
    assert any(row["bpb"] > least + 0.1 for row in rows if row["bpb"] < full.val_bpb)
    for row in rows:
        assert (row["beaten"] == "no") is (row["bpb"] < least)


def test_a_place_that_cannot_be_written_is_said_at_once(
    text: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train(Path(text) / "below" / "run", text) == 2
    said = capfd.readouterr().err
    assert "give another --out" in said
    assert "parameters" not in said


def test_dry_run_leaves_nothing(
    text: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", text, "--dry-run", "--json") == 0
    assert json.loads(capfd.readouterr().out)["steps"] == 24
    assert train(tmp_path / "run", text, "--dry-run") == 0
    plan = capfd.readouterr().out
    for word in ("parameters", "memory", "disk", "expected", "passes", "tokens an update"):
        assert word in plan
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("length", "steps"),
    [
        (["--tokens", "640"], 10),
        (["--passes", "0.5"], None),
        (["--minutes", "0.02"], None),
        (["--hours", "0.0003"], None),
    ],
)
def test_length_is_turned_into_steps_once(
    length: list[str], steps: int | None, text: str, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    flags = [word for pair in TINY.items() for word in pair if pair[0] != "--max-steps"]
    assert cli.run(["train", text, *flags, "--out", str(out), *length]) == 0
    start = read_log(out / "log.jsonl").rows[0]
    saved = start.config["length"]
    assert saved["steps"] > 0
    assert [saved[k] for k in ("tokens", "passes", "minutes")] == [0, 0, 0]
    if steps:
        assert saved["steps"] == steps


def test_training_goes_on_from_the_weights_of_a_run(
    whole: Path, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """`--from`: same weights, tokenizer and model; new data order, optimizer and length; and a
    resume before the first save finds those weights."""
    out = tmp_path / "more"
    words = ["train", text, "--from", str(whole), "--max-steps", "24", "--save-every", "100",
             "--eval-every", "24", "--seed", "5", "--threads", "1", "--out"]  # fmt: skip
    assert cli.run([*words, str(out)]) == 0
    assert "unused" not in capfd.readouterr().err  # what comes with the weights, nobody gave
    evals = {k[1]: row["val_loss"] for k, row in measured(out).items() if k[0] == "eval"}
    ended = {k[1]: row["val_loss"] for k, row in measured(whole).items() if k[0] == "eval"}
    assert evals[0] == pytest.approx(ended[24], abs=0.02)  # the eval sets differ in size
    assert evals[24] < evals[0]
    again = tmp_path / "again"
    with monkeypatch.context() as patch:
        interrupted_at(2, patch)
        assert cli.run([*words, str(again)]) == 130
    shutil.rmtree(RunFolder(again).checkpoint_path(2))
    assert cli.run(["train", "--resume", str(again)]) == 0
    assert final_tensors(again) == final_tensors(out)


def test_given_weights_that_nothing_beats_are_the_best(
    whole: Path, text: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """For training, summary, report and `generate` alike; and they stay on disk."""
    out = tmp_path / "worse"
    words = ["train", text, "--from", str(whole), "--max-steps", "24", "--save-every", "4",
             "--eval-every", "8", "--threads", "1", "--optimizer.lr", "3"]  # fmt: skip
    capfd.readouterr()
    assert cli.run([*words, "--json", "--out", str(out)]) == 0
    summary = json.loads(capfd.readouterr().out)
    assert summary["best"]["step"] == 0
    assert summary["bpb"] == read_log(out / "log.jsonl").of(Full)[-1].val_bpb
    run = RunFolder(out)
    assert 0 in run.checkpoint_steps()
    assert find_step(run, "best") == 0
    best = load_run(out).findings["best"]
    assert (best["step"], best["pick"], best["pick_saved"]) == (0, 0, True)
    found = load_run(out).found
    assert found.about.begins_with == f"begins with the weights of step 24 of {whole}"
    assert found.verdict("repeats").verdict in ("yes", "cannot_tell")
    assert any("held-out text is new to it" in line for line in found.cannot_conclude)
    shutil.rmtree(run.checkpoint_path(0))  # without it: the lowest of those that are there
    losses = {row.step: row.val_loss for row in read_log(run.log).of(Eval)}
    there = min((losses[step], step) for step in run.checkpoint_steps() if step in losses)[1]
    assert find_step(run, "best") == load_run(out).findings["best"]["pick"] == there


def test_a_text_at_home_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "mine.txt").write_text(TEXT)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupted_at(3, patch)
        assert train(out, "~/mine.txt") == 130
    assert cli.run(["train", "--resume", str(out)]) == 0


def test_the_summary_of_a_stop_counts_what_was_trained(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Between two rows of the log, too; and it has no figure of other weights than the best."""
    interrupted_at(7, monkeypatch)
    assert train(tmp_path / "run", text, "--json") == 130
    summary = json.loads(capfd.readouterr().out)
    assert (summary["steps"], summary["tokens"]) == (7, 7 * 4 * 16)
    assert summary["bpb"] is None
    ledger = load_run(tmp_path / "run").findings["ledger"]
    assert (ledger["steps"], ledger["tokens"]) == (7, 7 * 4 * 16)


def test_weights_just_drawn_are_scored_in_part_and_others_whole(
    whole: Path, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "RANDOM_TOKENS", 32)
    assert train(tmp_path / "drawn", text, max_steps="8") == 0
    scored = {row.step: row.val_tokens for row in read_log(tmp_path / "drawn/log.jsonl").of(Eval)}
    assert scored == {0: 32, 8: 256}
    words = ["train", text, "--from", str(whole), "--max-steps", "8", "--eval-every", "8"]
    more = ["--eval.tokens", "256", "--threads", "1", "--out", str(tmp_path / "given")]
    assert cli.run([*words, *more]) == 0
    scored = {row.step: row.val_tokens for row in read_log(tmp_path / "given/log.jsonl").of(Eval)}
    assert scored == {0: 256, 8: 256}


@pytest.mark.parametrize(
    ("every", "expected"), [("0", [6, 12, 18, 24]), ("5", [5, 10, 15, 20, 24])]
)
def test_samples_four_times_a_run_or_as_asked(
    every: str, expected: list[int], text: str, tmp_path: Path
) -> None:
    assert train(tmp_path / "run", text, eval_every="2", sample__every=every) == 0
    rows = read_log(tmp_path / "run" / "log.jsonl").of(Sample)
    assert sorted({row.step for row in rows}) == expected


def test_a_run_from_before_samples_had_a_cadence_samples_with_evaluations(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupted_at(5, patch)
        assert train(out, text, eval_every="4", sample__every="100") == 130
    run = RunFolder(out)
    for file, cadence in ((run.config, r"every = 100 .*\n"), (run.log, r'"every":100,')):
        written, replaced = re.subn(cadence, "", file.read_text())
        assert replaced == 1
        file.write_text(written)
    assert cli.run(["train", "--resume", str(out)]) == 0
    rows = read_log(out / "log.jsonl").of(Sample)
    assert sorted({row.step for row in rows}) == [8, 12, 16, 20, 24]


def test_from_refuses_another_model(
    whole: Path, text: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["train", text, "--from", str(whole), "--model.width", "64"]
    assert cli.run([*words, "--out", str(tmp_path / "x")]) == 2
    assert "model.width" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_early_stop_ends_a_run_that_is_proven_to_overfit(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Random letters can only be learned by heart: validation rises above ln 8, for good."""
    mine = tmp_path / "little.txt"
    mine.write_text("".join(random.Random(1).choices("abcdefgh", k=1500)))
    out = tmp_path / "run"
    more = ["--train.early_stop", "--optimizer.lr", "0.005", "--schedule.kind", "constant"]
    flags = {"max_steps": "600", "eval_every": "10", "save_every": "1000", "log_every": "50"}
    assert train(out, str(mine), *more, **flags) == 0
    rows = read_log(out / "log.jsonl")
    (event,) = [row for row in rows.of(Event) if row.kind == "early_stop"]
    assert 100 < event.step < 600
    assert "validation rose" in event.message
    assert RunFolder(out).checkpoint_steps()[-1] == event.step
    before = (out / "log.jsonl").read_bytes()
    assert cli.run(["train", "--resume", str(out)]) == 0
    assert "to go on all the same: --train.early_stop false" in capfd.readouterr().err
    assert (out / "log.jsonl").read_bytes() == before
    verdicts = {v["id"]: v["verdict"] for v in load_run(out).findings["verdicts"]}
    assert verdicts["overfitting"] == "yes"
    assert cli.run(["train", "--resume", str(out), "--train.early_stop", "false"]) == 0
    assert read_log(out / "log.jsonl").of(End)[-1].step == 600
    at_its_end = tmp_path / "end"  # where harm is first proven at the last step
    flags["max_steps"] = str(event.step)
    assert train(at_its_end, str(mine), *more, **flags) == 0
    assert not [row for row in read_log(at_its_end / "log.jsonl").of(Event)
                if row.kind == "early_stop"]  # fmt: skip


def test_prompts_draw_with_seeds_of_their_own(whole: Path) -> None:
    last = [row for row in read_log(whole / "log.jsonl").of(Sample) if row.step == 24]
    assert len(last) > 1
    assert [row.seed for row in last] == [last[0].seed + i for i in range(len(last))]


def test_the_summary_quotes_the_figure_of_the_best_alone(whole: Path, tmp_path: Path) -> None:
    run = RunFolder(Path(shutil.copytree(whole, tmp_path / "run")))
    before = summarise(run, "finished", 1.0)
    (full,) = read_log(run.log).of(Full)
    assert before.bpb == full.val_bpb
    log = LogWriter(run.log, attempt=1)
    log.write(msgspec.structs.replace(full, step=full.step + 1, val_bpb=9.9))
    log.close()
    assert summarise(run, "finished", 1.0) == before


def test_drawn_weights_are_no_best_and_given_ones_are(
    whole: Path, text: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def said_of_the_first(*more: str) -> str:
        capfd.readouterr()
        assert train(tmp_path / f"run{len(more)}", text, *more) == 0
        lines = capfd.readouterr().err.splitlines()
        return next(line for line in lines if line.startswith("step 0: val"))

    assert "best so far" not in said_of_the_first()
    assert "best so far" in said_of_the_first("--from", str(whole))


def test_a_summary_ignores_fields_that_it_does_not_know(whole: Path, tmp_path: Path) -> None:
    """Of the ledger, too, as docs/log-format.md wants it of readers."""
    run = RunFolder(Path(shutil.copytree(whole, tmp_path / "run")))
    before = summarise(run, "finished", 1.0)
    run.log.write_text(
        run.log.read_text().replace('"ledger":{', '"ledger":{"of_a_later_version":7,')
    )
    assert "of_a_later_version" in run.log.read_text()
    assert summarise(run, "finished", 1.0) == before
