"""When a save is due."""

from pathlib import Path

import pytest
import torch

from overnight import config
from overnight.model import checkpoint
from overnight.model.checkpoint import State
from overnight.runfolder import LogWriter, RunFolder
from overnight.training import saving
from overnight.training.saving import Saver, Snapshot


def test_saving_takes_one_hundredth_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default at a best state after 30 s, or 100 times what the last save took and was spent on
    holding; at another after a third more."""
    now = [0.0]
    monkeypatch.setattr(saving.time, "monotonic", lambda: now[0])
    run, told = RunFolder(tmp_path), []
    log = LogWriter(run.log, attempt=1)
    saver = Saver(run, log, config.Save(), lambda kind, message: told.append(message))
    real = checkpoint.save

    def slow(*given: object) -> tuple[int, float]:
        now[0] += 0.5
        return real(*given)

    def due_after(seconds: float, best: bool = True) -> bool:
        begin, now[0] = now[0], now[0] + seconds
        due, now[0] = saver.is_due(1, best), begin
        return due

    def snapshot(step: int) -> Snapshot:
        return Snapshot(State(step=step), {"w": torch.zeros(2)}, {"s": torch.zeros(2)})

    assert not due_after(29.9)
    assert due_after(30)
    assert not due_after(39.9, best=False)
    assert due_after(40.1, best=False)
    monkeypatch.setattr(checkpoint, "save", slow)
    saver.save(snapshot(1), "interval", must=False)
    assert not due_after(49.9)
    assert due_after(50.1)
    assert not due_after(66, best=False)
    assert due_after(67, best=False)
    copied = Snapshot.copy

    def slowly(self: Snapshot) -> Snapshot:
        now[0] += 0.25
        return copied(self)

    monkeypatch.setattr(Snapshot, "copy", slowly)
    saver.hold(snapshot(2))
    assert not due_after(74)
    assert due_after(75.1)
    assert saver.seconds == pytest.approx(0.75)
    assert not told


@pytest.mark.parametrize(
    ("values", "finite"),
    [
        ([1.0, -2.0], True),
        ([3e38, 3e38], True),  # though their sum is not
        ([0.0, float("nan")], False),
        ([float("inf"), float("-inf")], False),
        ([float("inf"), 1.0], False),
    ],
)
def test_weights_are_finite_if_each_number_is(values: list[float], finite: bool) -> None:
    weights = {"a": torch.zeros(2), "b": torch.tensor(values)}
    assert Snapshot(State(), weights, {}).is_finite() == finite
