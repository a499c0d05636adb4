"""What a session goes over again: evaluations, samples, the best checkpoint, the end."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from test_faults import poison
from tiny_runs import final_tensors, interrupted, interrupted_at, measured, train

from overnight import cli
from overnight.model import checkpoint
from overnight.runfolder import Checkpoint, End, Eval, Full, RunFolder, Sample, Train, read_log
from overnight.training import loop, measuring, update
from overnight.training.measuring import Measuring
from overnight.training.stop import StopSignal


def rows(run: Path, kind: type[Any]) -> list[Any]:
    return read_log(run / "log.jsonl").of(kind)


def test_the_best_that_a_stop_broke_off_stays(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop within the evaluation of step 8, which is made up for, and is the best of the run."""
    out, real, stops = tmp_path / "run", Measuring.evaluate, [True]

    def evaluate(self: Measuring, step: int, stop: StopSignal) -> Eval:
        if step == 8 and stops:
            stops.pop()
            signal.raise_signal(signal.SIGINT)
        return real(self, step, stop)

    monkeypatch.setattr(Measuring, "evaluate", evaluate)
    score_lower({1: 5.0}, monkeypatch)
    assert train(out, text, save__keep="1") == 130
    assert [row.step for row in rows(out, Eval)] == [0]
    assert cli.run(["train", "--resume", str(out)]) == 0
    assert 8 in RunFolder(out).checkpoint_steps()
    assert [row.step for row in rows(out, Full)] == [8]


def test_the_last_evaluation_takes_as_many_tokens_as_the_run_is_worth(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(measuring, "full_tokens", lambda trained: asked.append(trained) or 32)
    assert train(tmp_path / "run", text) == 0
    assert asked == [24 * 4 * 16]
    assert [row.val_tokens for row in rows(tmp_path / "run", Full)] == [32]


def test_a_kill_between_evaluation_and_save_does_not_cost_the_best_checkpoint(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = {"save__keep": "9"}
    assert train(tmp_path / "whole", text, **keep) == 0
    real = loop.Trainer._save_if_due

    def dies(self: loop.Trainer, improved: bool, last: bool) -> None:
        if self.state.step == 16:
            raise SystemExit(9)
        real(self, improved, last)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "_save_if_due", dies)
        with pytest.raises(SystemExit):
            train(tmp_path / "run", text, **keep)
    assert cli.run(["train", "--resume", str(tmp_path / "run")]) == 0
    saved = [RunFolder(tmp_path / name).checkpoint_steps() for name in ("whole", "run")]
    assert saved[0] == saved[1] == [8, 9, 16, 18, 24]
    assert measured(tmp_path / "run") == measured(tmp_path / "whole")
    # the evaluation that was done twice, and compared, gave the same
    twice = [row.val_loss for row in rows(tmp_path / "run", Eval) if row.step == 16]
    assert len(twice) == 2
    assert twice[0] == twice[1]


def test_what_is_measured_is_not_measured_again(
    text: str, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    interrupted(out, text, 8, monkeypatch)
    # the signal broke the evaluation of step 8 off
    assert not checkpoint.read_state(RunFolder(out).checkpoint_path(8)).measured
    with monkeypatch.context() as patch:
        interrupted_at(17, patch)
        assert cli.run(["train", "--resume", str(out)]) == 130
    assert cli.run(["train", "--resume", str(out)]) == 0
    assert [row.step for row in rows(out, Eval)] == [0, 8, 16, 24]
    assert len(rows(out, Sample)) == len(rows(whole, Sample))
    assert final_tensors(out) == final_tensors(whole)


def test_a_signal_while_sampling_ends_the_sampling(
    text: str, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real = tmp_path / "run", measuring.continue_text

    def signalled(*given: Any) -> Any:
        for part in real(*given):
            signal.raise_signal(signal.SIGTERM)
            yield part

    with monkeypatch.context() as patch:
        patch.setattr(measuring, "continue_text", signalled)
        assert train(out, text) == 143
    assert not rows(out, Sample)
    assert cli.run(["train", "--resume", str(out)]) == 0
    assert measured(out) == measured(whole)


def test_going_back_to_a_step_where_a_row_is_due(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, {12, 13, 14}, times=3)
    assert train(tmp_path / "run", text, log_every="3") == 0
    steps = [row.step for row in rows(tmp_path / "run", Train) if row.attempt == 2]
    assert steps == [12, 15, 18, 21, 24]


def test_going_back_before_the_first_checkpoint(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, {2, 3, 4}, times=3)
    assert train(tmp_path / "run", text) == 0
    state = checkpoint.read_state(RunFolder(tmp_path / "run").checkpoint_path(24))
    assert state.shift == 4 * 4


def test_an_extended_run_goes_on_after_a_stop(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    assert train(out, text, max_steps="12") == 0
    with monkeypatch.context() as patch:
        interrupted_at(17, patch)
        words = ["train", "--resume", str(out), "--set", "length.steps=24"]
        assert cli.run([*words, "--accept", "trajectory"]) == 130
    assert cli.run(["train", "--resume", str(out)]) == 0
    assert RunFolder(out).checkpoint_steps()[-1] == 24


def score_lower(by: dict[int, float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower the losses of evaluation number n (0 is that of step 0) by `by[n]`."""
    real, calls = measuring.score, [0]

    def scripted(*given: Any) -> Any:
        found = real(*given)
        found.loss -= by.get(calls[0] // 2, 0.0)  # val and the train probe
        calls[0] += 1
        return found

    monkeypatch.setattr(measuring, "score", scripted)


def test_the_best_state_is_held_until_a_save_and_written_first(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(tmp_path / "every", text, save_every="8", save__keep="9") == 0
    score_lower({1: 5.0}, monkeypatch)
    assert train(tmp_path / "run", text, save_every="1000", save__keep="1") == 0
    saves = rows(tmp_path / "run", Checkpoint)
    assert [(row.step, row.reason) for row in saves] == [(8, "best"), (24, "last")]
    for run in (RunFolder(tmp_path / "run"), RunFolder(tmp_path / "every")):
        assert {8, 24} <= set(run.checkpoint_steps())
    for name in (checkpoint.MODEL, checkpoint.OPTIMIZER):
        mine, other = (
            RunFolder(tmp_path / run).checkpoint_path(8) / name for run in ("run", "every")
        )
        assert mine.read_bytes() == other.read_bytes()
    state = checkpoint.read_state(RunFolder(tmp_path / "run").checkpoint_path(8))
    assert (state.step, state.measured, len(state.recent)) == (8, True, 8)


def test_a_run_that_fails_leaves_its_best_state(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = update.Updater.update

    def fails(self: update.Updater, number: int, steps: int, *more: Any) -> update.Update:
        if number == 14 and steps == 24:
            raise MemoryError
        return real(self, number, steps, *more)

    monkeypatch.setattr(update.Updater, "update", fails)
    assert train(tmp_path / "run", text, save_every="1000") == 1
    assert RunFolder(tmp_path / "run").checkpoint_steps() == [8]


def test_a_best_state_that_was_gone_back_from_is_not_saved(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Best at 16, but back to 10; the second time 16 is not the best."""
    score_lower({2: 5.0, 3: -5.0}, monkeypatch)
    poison(monkeypatch, {17, 18, 19}, times=3)
    assert train(tmp_path / "run", text, save_every="10", save__keep="9") == 0
    assert [row.step for row in rows(tmp_path / "run", Eval)] == [0, 8, 16, 16, 24]
    assert RunFolder(tmp_path / "run").checkpoint_steps() == [8, 10, 20, 24]


def test_the_best_after_going_back_is_judged_without_what_was_left(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second time 16 is not as good as the first, and yet the best that counts."""
    score_lower({2: 5.0, 3: 2.0}, monkeypatch)
    poison(monkeypatch, {17, 18, 19}, times=3)
    assert train(tmp_path / "run", text, save_every="10", save__keep="9") == 0
    assert RunFolder(tmp_path / "run").checkpoint_steps() == [8, 10, 16, 20, 24]
    assert [row.step for row in rows(tmp_path / "run", Full)] == [16]


def test_a_kill_before_the_pruning_is_made_good(text: str, tmp_path: Path, whole: Path) -> None:
    out, real = tmp_path / "run", checkpoint.prune

    def dies(run: RunFolder, *more: Any) -> list[int]:
        if 24 in run.checkpoint_steps():
            raise SystemExit(9)
        return real(run, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "prune", dies)
        with pytest.raises(SystemExit):
            train(out, text)
    (out / "checkpoints" / ".step-00000003.tmp").mkdir(exist_ok=True)  # and one half made
    assert cli.run(["train", "--resume", str(out)]) == 0
    names = [sorted(p.name for p in (run / "checkpoints").iterdir()) for run in (out, whole)]
    assert names[0] == names[1]


def test_the_best_checkpoint_is_verified_before_its_figure_is_quoted(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Measuring.evaluate_whole

    def damaged(self: Measuring, best: int, step: int, stop: StopSignal) -> None:
        path = self.run.checkpoint_path(best) / checkpoint.MODEL
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        real(self, best, step, stop)

    monkeypatch.setattr(Measuring, "evaluate_whole", damaged)
    assert train(tmp_path / "run", text) == 0
    log = (tmp_path / "run" / "log.jsonl").read_text()
    assert "the best checkpoint is damaged" in log
    assert '"type":"full"' not in log


def test_an_early_end_is_the_end_after_a_kill(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kill comes behind the last save and before the end row."""
    out = tmp_path / "run"

    def reason(steps: list[int], losses: list[float]) -> str:
        return "worse" if len(steps) == 3 else ""

    def dies(*given: Any) -> None:
        raise SystemExit(9)

    monkeypatch.setattr("overnight.cli.train._stop_reason", reason)
    with monkeypatch.context() as patch:
        patch.setattr(Measuring, "evaluate_whole", dies)
        with pytest.raises(SystemExit):
            train(out, text, train__early_stop="true")
    assert cli.run(["train", "--resume", str(out)]) == 0
    assert RunFolder(out).checkpoint_steps()[-1] == 16
    assert [row.step for row in rows(out, Eval)] == [0, 8, 16]


def test_a_run_that_was_killed_in_its_last_evaluation_gets_its_figure(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice, so that the last session has nothing but its start row at the last step."""
    out = tmp_path / "run"

    def dies(*_: Any) -> None:
        raise SystemExit(9)

    with monkeypatch.context() as patch:
        patch.setattr(Measuring, "evaluate_whole", dies)
        with pytest.raises(SystemExit):
            train(out, text)
        with pytest.raises(SystemExit):
            cli.run(["train", "--resume", str(out)])
    assert cli.run(["train", "--resume", str(out)]) == 0
    assert len(rows(out, Full)) == 1
    assert [row.reason for row in rows(out, End)] == ["finished"]


def test_what_measuring_takes_is_counted(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the time that is left, and for the end row."""
    kept, real = [], Measuring.evaluate_whole

    def evaluate_whole(self: Measuring, best: int, step: int, stop: StopSignal) -> None:
        kept.append((self.evaluations, self.seconds))
        real(self, best, step, stop)
        kept.append((self.evaluations, self.seconds))

    monkeypatch.setattr(Measuring, "evaluate_whole", evaluate_whole)
    out = tmp_path / "run"
    assert train(out, text, sample__tokens="0") == 0
    evals, (full,), (end,) = rows(out, Eval), rows(out, Full), rows(out, End)
    before, after = kept
    assert before == (len(evals), pytest.approx(sum(row.seconds for row in evals)))
    assert after[1] >= before[1] + full.seconds
    assert end.eval_seconds == after[1]


def test_the_figure_to_quote_is_that_of_the_best_weights(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which are not the last ones; here every evaluation takes the whole split."""
    score_lower({1: 5.0}, monkeypatch)
    assert train(tmp_path / "run", text, eval__tokens="1000000") == 0
    losses = {row.step: row.val_loss for row in rows(tmp_path / "run", Eval)}
    (full,) = rows(tmp_path / "run", Full)
    assert full.step == 8
    assert full.val_loss == pytest.approx(losses[8] + 5.0, abs=1e-6)
    assert abs(full.val_loss - losses[24]) > 0.01


@pytest.mark.parametrize(
    ("loss", "best", "less"),
    [(1.0, None, True), (1.0, 2.0, True), (2.0, 2.0, False), (float("nan"), None, False),
     (float("inf"), None, False), (None, None, False), (float("nan"), 2.0, False)],
)  # fmt: skip
def test_only_a_number_can_be_the_best(loss: float | None, best: float | None, less: bool) -> None:
    """One that is none would stay the best: nothing is less."""
    assert loop._is_less(loss, best) == less


def test_weights_that_were_never_trained_are_not_the_best(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score_lower({0: 50.0}, monkeypatch)
    assert train(tmp_path / "run", text) == 0
    assert [row.step for row in rows(tmp_path / "run", Full)] == [24]
