"""What happens in the night: bad numbers, full disks, two owners, changed settings."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import TEXT, final_tensors, interrupted, interrupted_at, measured, train

import overnight
from overnight import cli, load_run
from overnight.errors import UserError
from overnight.model import checkpoint
from overnight.runfolder import (
    STRIKES,
    Eval,
    Event,
    LogWriter,
    RunFolder,
    Start,
    Train,
    current,
    lowest_evaluation,
    read_log,
)
from overnight.runlock import RunLock
from overnight.training import changes, guard, loop, machine, resume, saving, session, update
from overnight.training.measuring import Measuring


def events(run: Path, kind: str) -> list[Event]:
    return [row for row in read_log(run / "log.jsonl").of(Event) if row.kind == kind]


def poison(monkeypatch: pytest.MonkeyPatch, steps: set[int], times: int = 10**9) -> None:
    """The loss of these updates is not a number, as often as `times`."""
    original, left = update.Updater._losses, [times * 2]
    current = [0]
    real = update.Updater.update

    def noting(self: update.Updater, number: int, total: int, *more: Any) -> update.Update:
        current[0] = number if total == 24 else 0
        return real(self, number, total, *more)

    def bad(self: update.Updater, *given: Any) -> Any:
        nll, minimised = original(self, *given)
        if current[0] in steps and left[0] > 0:
            left[0] -= 1
            return nll * float("nan"), minimised * float("nan")
        return nll, minimised

    monkeypatch.setattr(update.Updater, "update", noting)
    monkeypatch.setattr(update.Updater, "_losses", bad)


def test_one_bad_update_is_skipped_and_logged(
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    poison(monkeypatch, {7})
    assert train(tmp_path / "run", text) == 0
    (event,) = events(tmp_path / "run", "non_finite")
    assert event.step == 7
    rows = {k[1]: row for k, row in measured(tmp_path / "run").items() if k[0] == "train"}
    assert [rows[s]["steps"] for s in (5, 10, 15)] == [5, 4, 5]
    assert rows[10]["loss"] > 0


def test_repeated_bad_updates_go_back_to_other_data(
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    poison(monkeypatch, {12, 13, 14}, times=3)
    assert train(tmp_path / "run", text) == 0
    assert len(events(tmp_path / "run", "non_finite")) == STRIKES
    (event,) = events(tmp_path / "run", "rewind")
    assert event.step == 9  # the last checkpoint
    assert event.data["from_step"] == 14
    state = checkpoint.read_state(RunFolder(tmp_path / "run").checkpoint_path(24))
    assert state.rewinds == 1
    assert state.shift == (14 - 9) * 4  # the sequences passed over
    starts = read_log(tmp_path / "run" / "log.jsonl").of(Start)
    assert [row.from_step for row in starts] == [0, 9]


def test_a_hopeless_run_stops_with_a_clear_word(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    poison(monkeypatch, set(range(10, 25)))
    assert train(tmp_path / "run", text) == 1
    assert len(events(tmp_path / "run", "rewind")) == guard.REWINDS
    assert "lower optimizer.lr" in capfd.readouterr().err
    assert RunFolder(tmp_path / "run").checkpoint_steps()[-1] == 9  # what was good is kept


def test_weights_that_are_not_finite_are_never_saved(
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = loop.Trainer._save_if_due

    def breaks(self: loop.Trainer, improved: bool, last: bool) -> None:
        if self.state.step == 18:
            next(self.updater.model.parameters()).data[0, 0] = float("inf")
        real(self, improved, last)

    monkeypatch.setattr(loop.Trainer, "_save_if_due", breaks)
    train(tmp_path / "run", text)
    assert 18 not in RunFolder(tmp_path / "run").checkpoint_steps()
    assert any("not finite" in e.message for e in events(tmp_path / "run", "checkpoint"))


def test_spike_z() -> None:
    recent = [3.0 + 0.01 * (i % 5) for i in range(guard.REMEMBERED)]
    assert abs(guard.spike_z(3.02, recent)) < 2
    assert guard.spike_z(3.5, recent) > guard.SPIKE_Z
    assert guard.spike_z(9.0, recent[:10]) == 0  # too few to tell


def test_spikes_are_skipped_only_when_asked(
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(update, "spike_z", lambda loss, recent: 9.0 if len(recent) == 15 else 0.0)
    assert train(tmp_path / "a", text) == 0
    assert [e.step for e in events(tmp_path / "a", "spike")] == [16]
    assert train(tmp_path / "b", text, "--train.skip_spikes", "true") == 0
    assert "skipped" in events(tmp_path / "b", "spike")[0].message
    assert final_tensors(tmp_path / "a") != final_tensors(tmp_path / "b")


def test_a_level_that_has_moved_is_no_spike_for_ever(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, now = update.Updater.update, [0]

    def counted(self: update.Updater, step: int, *more: Any) -> update.Update:
        now[0] = step
        return real(self, step, *more)

    moved = property(lambda self: self.nats / self.tokens * (4 if now[0] > 40 else 1))
    monkeypatch.setattr(update.Updater, "update", counted)
    monkeypatch.setattr(update.Update, "loss", moved)
    assert train(tmp_path / "a", text, "--train.skip_spikes", "true", max_steps="100") == 0
    skipped = [e.step for e in events(tmp_path / "a", "spike")]
    assert skipped[0] == 41
    assert 30 <= len(skipped) <= 45
    assert skipped[-1] < 90


def full_disk(monkeypatch: pytest.MonkeyPatch, times: int) -> list[int]:
    """The next `times` checkpoints find no space left while they are written."""
    left, real = [times], checkpoint._write

    def refuse(folder: Path, *more: Any) -> int:
        if left[0]:
            left[0] -= 1
            folder.mkdir()
            (folder / "model.safetensors").write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(folder, *more)

    monkeypatch.setattr(checkpoint, "_write", refuse)
    monkeypatch.setattr(saving, "SAVE_PAUSE", 0.0)
    return left


def test_a_full_disk_costs_a_save_not_the_run(
    text: str,
    tmp_path: Path,
    whole: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full_disk(monkeypatch, 3)
    assert train(tmp_path / "run", text) == 0
    assert final_tensors(tmp_path / "run") == final_tensors(whole)
    assert len(events(tmp_path / "run", "disk")) == 3
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))


def test_a_disk_that_stays_full_ends_in_a_clear_word_and_can_be_resumed(
    text: str, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with monkeypatch.context() as patch:
        full_disk(patch, 10**6)
        assert train(tmp_path / "run", text) == 1
        assert "make room" in capfd.readouterr().err
    assert cli.run(["train", "--resume", str(tmp_path / "run")]) == 0
    assert final_tensors(tmp_path / "run") == final_tensors(whole)


def test_a_log_on_a_full_disk_loses_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC and a short write at every row: what was refused is written before the next one."""
    log = LogWriter(tmp_path / "log.jsonl", attempt=1)
    real, count = os.write, [0]

    def unreliable(fd: int, data: bytes) -> int:
        count[0] += 1
        if count[0] % 3 == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data[: max(1, len(data) // 2)]) if count[0] % 3 == 1 else real(fd, data)

    monkeypatch.setattr(os, "write", unreliable)
    for step in range(50):
        log.write(Event(step=step, kind="x", message="y" * step))
    monkeypatch.undo()
    log.close()
    read = read_log(tmp_path / "log.jsonl")
    assert not read.problems
    assert [(row.step, row.seq) for row in read.rows] == [(i, i) for i in range(50)]


def test_a_torn_tail_is_sealed_and_reported(
    text: str,
    tmp_path: Path,
    whole: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "run"
    interrupted(out, text, 13, monkeypatch)
    with (out / "log.jsonl").open("ab") as file:
        file.write(b'{"type":"train","attempt":1,"se')
    before = (out / "log.jsonl").read_bytes()
    assert cli.run(["train", "--resume", str(out)]) == 0
    after = (out / "log.jsonl").read_bytes()
    assert after.startswith(before + b"\n")
    assert len(events(out, "torn_log")) == 1
    assert measured(out) == measured(whole)


def test_the_second_owner_is_told_who_the_first_is(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "run"
    interrupted_at(4, monkeypatch)
    train(out, text)
    log = (out / "log.jsonl").read_bytes()
    with RunLock(out / "run.lock"):
        capfd.readouterr()
        assert cli.run(["train", "--resume", str(out)]) == 2
    assert f"process {os.getpid()} on " in capfd.readouterr().err
    assert (out / "log.jsonl").read_bytes() == log
    with RunLock(out / "run.lock"):  # free again
        pass


def test_the_second_owner_is_told_before_torch_is_loaded(whole: Path) -> None:
    code = (
        "import sys; from overnight import cli; code = cli.run(sys.argv[1:]); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    source = str(Path(overnight.__file__).parents[1])
    with RunLock(whole / "run.lock"):
        done = subprocess.run(
            [sys.executable, "-c", code, "train", "--resume", str(whole)],
            env=os.environ | {"PYTHONPATH": source},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 2, done.stderr
    assert f"process {os.getpid()} on" in done.stderr


def test_an_owner_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        RunLock(tmp_path / "run.lock")
        os.write(write, b"x")
        signal.pause()
    os.read(read, 1)
    with pytest.raises(UserError, match=f"process {child} on"):
        RunLock(tmp_path / "run.lock")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with RunLock(tmp_path / "run.lock"):
        pass


@pytest.mark.parametrize(
    ("change", "effect"),
    [
        ("log.every=2", "harmless"),
        ("eval.every=6", "harmless"),
        ("eval.tokens=128", "trajectory"),
        ("save.keep=5", "harmless"),
        ("optimizer.lr=0.01", "trajectory"),
        ("length.steps=30", "trajectory"),
        ("train.micro_batch=4", "trajectory"),
        ("model.width=48", "incompatible"),
        ("optimizer.kind=muon", "incompatible"),
    ],
)
def test_changed_settings_need_the_word_for_what_they_do(
    change: str, effect: str, text: str, tmp_path: Path, whole: Path,
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "run"
    interrupted(out, text, 11, monkeypatch)
    words = ["train", "--resume", str(out), "--set", change]
    if effect != "harmless":
        before = (out / "log.jsonl").read_bytes()
        capfd.readouterr()
        assert cli.run(words) == 2
        assert f"--accept {effect}" in capfd.readouterr().err
        assert (out / "log.jsonl").read_bytes() == before
        words += ["--accept", effect]
    assert cli.run(words) == 0
    name, _, value = change.partition("=")
    assert any(name in event.message for event in events(out, "warning"))
    section, leaf = name.split(".")
    start = read_log(out / "log.jsonl").of(Start)[-1]
    assert str(start.config[section][leaf]) == value
    if effect == "harmless":
        assert final_tensors(out) == final_tensors(whole)


def test_every_change_that_needs_a_word_is_named(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    interrupted(out, text, 11, monkeypatch)
    words = ["train", "--resume", str(out), "--max-steps", "30", "--optimizer.lr", "0.5"]
    assert cli.run(words) == 2
    error = capfd.readouterr().err
    assert "length.steps was " in error
    assert "; optimizer.lr was " in error
    assert cli.run([*words, "--model.width", "48", "--accept", "trajectory"]) == 2
    error = capfd.readouterr().err
    assert "model.width was " in error
    assert "optimizer.lr" not in error  # which is accepted


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("length.minutes=120", "schedule ends at step 24; for another give --max-steps"),
        ("length.passes=3", "schedule ends at step 24"),
        ("length.steps=0", "a length is above 0"),
        ("eval.every=0", "eval.every = 0: the run has 8"),
        ("train.threads=0", "train.threads = 0: the run has 1"),
        ("train.dtype=auto", "the run has float32"),
        ("train.micro_batch=3", "train.batch = 4 is not a multiple of train.micro_batch = 3"),
        ("train.device=cuda:99", "finds no such device"),
        ("optimizer.lr=inf", "give a number that is finite"),
    ],
)
def test_what_a_resume_cannot_take_leaves_the_run_as_it_was(
    change: str, said: str, text: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "run"
    interrupted(out, text, 3, monkeypatch)
    before = {name: (out / name).read_bytes() for name in ("config.toml", "log.jsonl")}
    capfd.readouterr()
    words = ["train", "--resume", str(out), "--set", change, "--accept", "incompatible"]
    assert cli.run(words) == 2
    error = capfd.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert {name: (out / name).read_bytes() for name in before} == before


def test_another_model_or_text_is_judged_by_what_follows_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its first evaluations are better than all that the narrower one reaches."""
    out, mine = tmp_path / "run", tmp_path / "mine.txt"
    mine.write_text(TEXT)
    with monkeypatch.context() as patch:
        interrupted_at(20, patch)
        assert train(out, str(mine), eval_every="5") == 130
    words = ["train", "--resume", str(out)]
    own = (out / "yardsticks.json").read_bytes()
    with monkeypatch.context() as patch:
        interrupted_at(22, patch)
        narrower = ["--model.width", "16", "--accept", "incompatible"]
        assert cli.run([*words, *narrower]) == 130
    (parted,) = events(out, "incomparable")
    assert parted.message == "evaluations before this do not count: model.width"
    kept = current(read_log(out / "log.jsonl").rows)
    assert [row.step for row in kept if isinstance(row, Eval)] == [20]
    mine.write_text(TEXT.replace("square", "SQUARE"))
    with monkeypatch.context() as patch:
        interrupted_at(23, patch)
        assert cli.run([*words, "--accept", "trajectory"]) == 130
    capfd.readouterr()
    mine.write_text(TEXT.replace("square", "CIRCLE"))
    before = (out / "yardsticks.json").read_bytes()
    assert cli.run([*words, "--max-steps", "22", "--accept", "trajectory"]) == 2
    assert "at step 23 already" in capfd.readouterr().err
    assert (out / "yardsticks.json").read_bytes() == before  # refused, so nothing is changed
    assert before != own  # they are those of the text that was accepted
    mine.write_text(TEXT.replace("square", "SQUARE"))
    assert cli.run(words) == 0  # the text is this run's now
    kept = read_log(out / "log.jsonl").rows
    assert [row.step for row in current(kept) if isinstance(row, Eval)] == [24]
    (trained,) = [row for row in current(kept) if isinstance(row, Train)]
    assert (trained.step, trained.steps) == (24, 2)  # the window holds none of the other text
    best = lowest_evaluation(kept)
    assert best is not None
    assert load_run(out).found.best.step == best.step == 24
    assert cli.run(["generate", str(out), "--max-tokens", "2"]) == 0


def test_another_thread_count_is_said(
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupted_at(11, patch)
        train(out, text)
    words = ["train", "--resume", str(out), "--threads", "2", "--accept", "trajectory"]
    assert cli.run(words) == 0
    said = " ".join(event.message for event in events(out, "warning"))
    assert "no longer bit-exact from step 11 on: threads was 1, is 2" in said


def test_another_version_is_said_and_bfloat16_that_is_emulated(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a run is taken up on a lesser machine, some months later."""
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(machine, "has_bfloat16", lambda: True)
        patch.setattr(session, "__version__", "0.0.9")
        interrupted_at(11, patch)
        train(out, text, train__dtype="bfloat16", train__device="cpu")
    assert not events(out, "warning")
    monkeypatch.setattr(machine, "has_bfloat16", lambda: False)
    with monkeypatch.context() as patch:
        interrupted_at(17, patch)
        assert cli.run(["train", "--resume", str(out)]) == 130
    assert cli.run(["train", "--resume", str(out)]) == 0
    said = [event.message for event in events(out, "warning")]
    other = f"overnight was 0.0.9, is {overnight.__version__}"  # than the first session's
    assert [other in message for message in said] == [False, True] * 2
    assert all("emulates bfloat16" in message for message in said[::2])


@pytest.mark.usefixtures("on_a_terminal")
def test_a_closed_terminal_saves_and_trains_on(
    text: str,
    tmp_path: Path,
    whole: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "run"
    original = update.Updater.update

    def hang_up(self: update.Updater, number: int, steps: int, *more: Any) -> update.Update:
        if number == 10 and steps == 24:
            signal.raise_signal(signal.SIGHUP)
        return original(self, number, steps, *more)

    monkeypatch.setattr(update.Updater, "update", hang_up)
    monkeypatch.setattr("overnight.training.progress.Progress.let_go", lambda self: None)
    assert train(out, text) == 0
    assert any("terminal has closed" in e.message for e in events(out, "signal"))
    assert final_tensors(out) == final_tensors(whole)


def test_log_rows_carry_no_nan(tmp_path: Path) -> None:
    log = LogWriter(tmp_path / "log.jsonl", attempt=1)
    log.write(Event(step=0, kind="x", message="", data={"loss": float("nan")}))
    log.close()
    row = json.loads((tmp_path / "log.jsonl").read_text())
    assert row["data"]["loss"] is None


def test_room_is_checked_before_a_save(
    text: str, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = saving.shutil.disk_usage, [2]

    def small(path: Any) -> Any:
        left[0] -= 1
        return real(path)._replace(free=1000) if left[0] >= 0 else real(path)

    monkeypatch.setattr(saving.shutil, "disk_usage", small)
    assert train(tmp_path / "run", text) == 0
    told = [event.message for event in events(tmp_path / "run", "disk")]
    assert len(told) == 2
    assert "bytes needed, 1,000 free" in told[0]
    assert final_tensors(tmp_path / "run") == final_tensors(whole)


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    """What it leads to would be written over."""
    theirs = tmp_path / "theirs"
    theirs.write_text("kept")
    (tmp_path / "run.lock").symlink_to(theirs)
    with pytest.raises(UserError, match="cannot be locked"):
        RunLock(tmp_path / "run.lock")
    assert theirs.read_text() == "kept"


def test_a_log_without_its_first_row_does_not_stop_a_resume(
    text: str, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    interrupted(out, text, 11, monkeypatch)
    log = out / "log.jsonl"
    log.write_bytes(b"X" + log.read_bytes()[1:])
    assert cli.run(["train", "--resume", str(out)]) == 0
    assert any("does not say which text" in e.message for e in events(out, "warning"))
    assert final_tensors(out) == final_tensors(whole)


def test_numbers_that_break_in_a_sample_end_the_run_properly(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: Any) -> Any:
        raise UserError("the model's numbers are no longer finite")

    monkeypatch.setattr(Measuring, "_continued", broken)
    out = tmp_path / "run"
    assert train(out, text) == 1
    assert read_log(out / "log.jsonl").rows[-1].reason == "failed"
    assert (out / "report" / "report.html").is_file()


def test_what_a_killed_beginning_left_is_swept(text: str, tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    for pid in (dead.pid, os.getppid()):
        (tmp_path / f".run.{pid}.tmp").mkdir()
    os.utime(tmp_path / f".run.{os.getppid()}.tmp", (0, 0))  # before that process was there
    assert train(tmp_path / "run", text) == 0
    assert not list(tmp_path.glob(".run.*.tmp"))


def test_another_model_that_was_killed_before_its_first_save_can_go_on(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    interrupted(out, text, 3, monkeypatch)
    words = ["train", "--resume", str(out)]
    with monkeypatch.context() as patch:
        patch.setattr(resume, "train", lambda trainer: 1 / 0)  # settings are written, no weights
        with pytest.raises(ZeroDivisionError):
            cli.run([*words, "--model.width", "16", "--accept", "incompatible"])
    capfd.readouterr()
    assert cli.run(words) == 1
    (error,) = capfd.readouterr().err.splitlines()
    assert "--accept incompatible" in error
    assert cli.run([*words, "--accept", "incompatible"]) == 0


def test_nothing_of_another_model_is_judged_or_logged_with_the_new_one(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupted_at(10, patch)
        assert train(out, text, log_every="100", optimizer__lr="0.02") == 130
    state = checkpoint.read_state(RunFolder(out).checkpoint_path(10))
    assert state.window.steps == len(state.recent) == 10
    words = ["train", "--resume", str(out), "--model.width", "64", "--accept", "incompatible"]
    assert cli.run(words) == 0
    assert read_log(out / "log.jsonl").of(Train)[-1].steps == 24 - 10
    state = checkpoint.read_state(RunFolder(out).checkpoint_path(24))
    assert len(state.recent) == 24 - 10


def test_a_run_without_its_checkpoints_says_that_it_begins_again(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    interrupted(out, text, 10, monkeypatch)
    for folder in (out / "checkpoints").iterdir():
        (folder / "model.safetensors").write_bytes(b"")
    capfd.readouterr()
    assert cli.run(["train", "--resume", str(out)]) == 0
    said = capfd.readouterr().err
    assert "no checkpoint is left: the run begins again" in said
    assert "using the one before" not in said


def test_settings_that_were_emptied_are_damaged_not_changed(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    interrupted(out, text, 10, monkeypatch)
    (out / "config.toml").write_text("")
    capfd.readouterr()
    assert cli.run(["train", "--resume", str(out)]) == 2
    assert "config.toml: damaged, it has no [data]" in capfd.readouterr().err


def test_bad_updates_that_are_far_apart_do_not_add_up(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, {5, 11, 19})
    assert train(tmp_path / "run", text) == 0
    assert len(events(tmp_path / "run", "non_finite")) == STRIKES
    assert events(tmp_path / "run", "rewind") == []


def test_a_second_return_passes_over_what_the_first_did_too(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, {12, 13, 14}, times=6)
    assert train(tmp_path / "run", text) == 0
    assert len(events(tmp_path / "run", "rewind")) == 2
    state = checkpoint.read_state(RunFolder(tmp_path / "run").checkpoint_path(24))
    assert state.shift == 2 * (14 - 9) * 4


@pytest.mark.parametrize(
    "fact", ["torch", "instructions", "float32_products", "device", "device_name", "threads"]
)
def test_every_fact_that_decides_the_bits_is_told(whole: Path, fact: str) -> None:
    first = read_log(whole / "log.jsonl").of(Start)[0]
    assert changes.inexact(first, first.environment, 5) == []
    (told,) = changes.inexact(first, first.environment | {fact: "x"}, 5)
    assert f"{fact} was" in told
