"""Made-up logs of other tools: a loss that falls, a validation loss above it, and what was read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from overnight.analysis.run import Run, load_run

STEPS = range(10, 1210, 10)


def falling(step: int) -> float:
    """A training loss, with the noise of a hash."""
    return round(2.5 + 3 / (1 + step / 100) + 0.01 * math.sin(37 * step), 4)


def val(step: int) -> float:
    return round(falling(step) + 0.2, 4)


def run_of(tmp_path: Path, name: str, content: Any, end: str = "\n") -> Run:
    """The run of a file: of text or bytes as they are, of a list of lines or of JSON objects."""
    if isinstance(content, list):
        rows = [row if isinstance(row, str) else json.dumps(row) for row in content]
        content = "\n".join(rows) + end
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_run(path)


def evaluations(run: Run) -> list[tuple[int, float]]:
    return [(row["step"], row["val_loss"]) for row in run.tables["eval"]]


def losses(run: Run) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in run.tables["train"]]


def told(run: Run, part: str) -> bool:
    return any(part in problem for problem in run.problems)
