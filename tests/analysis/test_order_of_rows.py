"""Rows of logs that stand in another order than that of their steps."""

from __future__ import annotations

import random
import warnings
from pathlib import Path
from typing import Any

import pytest
from foreign import STEPS, evaluations, falling, losses, run_of, told, val

from overnight import load_run

EVALUATED = range(100, 1210, 100)


def trained(steps: range) -> list[dict[str, Any]]:
    return [{"step": s, "loss": falling(s)} for s in steps]


def evaluated(steps: range) -> list[dict[str, Any]]:
    return [{"step": s, "val_loss": val(s)} for s in steps]


def shuffled(rows: list[Any]) -> list[Any]:
    return random.Random(0).sample(rows, len(rows))


@pytest.mark.parametrize("order", [lambda rows: rows[::-1], shuffled], ids=["newest", "shuffled"])
def test_nan_to_the_end_is_told_in_the_order_of_steps(order: Any, tmp_path: Path) -> None:
    rows = [f"{s},{falling(s) if s <= 1000 else 'nan'}" for s in STEPS]
    run = run_of(tmp_path, "m.csv", ["step,loss", *order(rows)])
    found = run.found.verdict("divergence")
    assert (found.verdict, found.since_step) == ("yes", 1010)
    assert told(run, "they are sorted")


def test_epochs_newest_first(tmp_path: Path) -> None:
    rows = [f"{e},{4 - e / 10},{4.1 - e / 20}" for e in range(1, 21)]
    run = run_of(tmp_path, "m.csv", ["epoch,loss,val_loss", *rows[::-1]])
    assert evaluations(run) == [(e, 4.1 - e / 20) for e in range(1, 21)]
    assert len(run.tables["train"]) == 20


def test_a_table_for_each_name(tmp_path: Path) -> None:
    """As MLflow and databases write values, which sort by name."""
    rows = [
        *(f"loss,{falling(s)},{s}" for s in STEPS),
        *(f"lr,{s / 1e6},{s}" for s in STEPS),
        *(f"val_loss,{val(s)},{s}" for s in EVALUATED),
    ]
    run = run_of(tmp_path, "m.csv", ["key,value,step", *rows])
    assert losses(run) == [(s, falling(s)) for s in STEPS]
    assert [row["lr"] for row in run.tables["train"]] == [s / 1e6 for s in STEPS]
    assert evaluations(run) == [(s, val(s)) for s in EVALUATED]
    assert run.found.verdict("resume").verdict == "cannot_tell"


@pytest.mark.parametrize("order", [list, lambda rows: rows[::-1], shuffled])
@pytest.mark.parametrize("front", [True, False])
def test_a_table_of_evaluations(order: Any, front: bool, tmp_path: Path) -> None:
    updates, looks = trained(STEPS), order(evaluated(EVALUATED))
    run = run_of(tmp_path, "m.jsonl", [*looks, *updates] if front else [*updates, *looks])
    assert losses(run) == [(s, falling(s)) for s in STEPS]
    assert evaluations(run) == [(s, val(s)) for s in EVALUATED]
    assert run.found.verdict("resume").verdict == "cannot_tell"


def test_evaluations_in_front_of_a_resumed_run(tmp_path: Path) -> None:
    rows = [*evaluated(EVALUATED), *trained(range(10, 700, 10)), *trained(range(510, 1210, 10))]
    run = run_of(tmp_path, "m.jsonl", rows)
    assert evaluations(run) == [(s, val(s)) for s in EVALUATED]
    assert run.found.verdict("resume").verdict == "yes"


def test_a_resumed_run_in_front_of_evaluations(tmp_path: Path) -> None:
    """Steps of updates fall once, to ones between those before: a run that was resumed."""
    rows = [*trained(range(10, 700, 10)), *trained(range(505, 1210, 10)), *evaluated(EVALUATED)]
    run = run_of(tmp_path, "m.jsonl", rows)
    assert [s for s, _ in losses(run)] == [*range(10, 510, 10), *range(505, 1210, 10)]
    assert evaluations(run) == [(s, val(s)) for s in EVALUATED]


def test_epochs_that_are_written_twice(tmp_path: Path) -> None:
    rows = [f"{e},{4 - e / 10},{4.1 - e / 20}" for e in range(1, 21)]
    twice = [row for row in rows for _ in range(2)]
    run = run_of(tmp_path, "m.csv", ["epoch,loss,val_loss", *twice])
    assert evaluations(run) == [(e, 4.1 - e / 20) for e in range(1, 21)]
    assert len(run.tables["train"]) == 20
    several = [f"{e},{4 - e / 10 - i / 100}" for e in range(1, 21) for i in range(3)]
    run = run_of(tmp_path, "n.csv", ["epoch,loss", *several])
    assert len(run.tables["train"]) == 60


def test_steps_without_end_make_numpy_warn_of_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("step,loss,tokens\n1,3.0,\n2,2.9,\ninf,,5\ninf,,6\n3,2.8,\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_run(path).found.source.train_rows == 3
