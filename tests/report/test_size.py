"""A log of a million rows: under 15 seconds and a gigabyte."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}
# A process that was forked inherits the peak of its parent in `ru_maxrss`; Linux has its own.
COMMAND = """
import pathlib, resource, sys
from overnight import cli
assert cli.run(["report", sys.argv[1], "--out", sys.argv[2]]) == 0
used = resource.getrusage(resource.RUSAGE_SELF)
status = pathlib.Path("/proc/self/status")
lines = status.read_text().splitlines() if status.exists() else []
own = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
print(used.ru_utime + used.ru_stime, *own or [used.ru_maxrss])
"""


def report(path: Path, out: Path) -> tuple[float, float]:
    """(CPU seconds, megabytes) of one report; wall time on a busy machine says nothing."""
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, str(path), str(out)],
        check=True, env=ENVIRONMENT, capture_output=True, text=True,
    )  # fmt: skip
    seconds, kilobytes = map(float, done.stdout.split())
    return seconds, kilobytes / 1000


def log(path: Path, rows: int) -> Path:
    with path.open("w") as file:
        file.write("step,loss,val_loss,lr,tokens_per_sec\n")
        for i in range(rows):
            val = f"{2 + 3 / (1 + i / 1000):.4f}" if i % (rows // 100) == 0 else ""
            loss = 2 + 3 / (1 + i / 1000) + 0.05 * ((i * 7919) % 101 - 50) / 50
            file.write(f"{i},{loss:.4f},{val},{1e-3 * (1 - i / rows):.3e},15000\n")
    return path


def test_a_normal_nights_log_is_quick(tmp_path):
    seconds, megabytes = report(log(tmp_path / "night.csv", 5000), tmp_path / "out")
    assert seconds < 6  # 2 on a quiet machine
    assert megabytes < 400


@pytest.mark.slow
def test_a_million_rows(tmp_path):
    seconds, megabytes = report(log(tmp_path / "big.csv", 1_000_000), tmp_path / "out")
    assert seconds < 15
    assert megabytes < 1000
    assert (tmp_path / "out" / "report.html").stat().st_size < 1_500_000
