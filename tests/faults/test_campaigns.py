"""The short part of each campaign; `./dev faults` runs them whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import overnight
from faults import corruption, disk, mutants, powercut, resume

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "campaign", [resume, powercut, disk, corruption], ids=lambda module: module.__name__
)
def test_nothing_is_lost(campaign, tmp_path: Path) -> None:
    outcomes = list(campaign.run(tmp_path, short=True, cases=0))
    assert [failure for outcome in outcomes for failure in outcome.failures] == []
    assert all(outcome.cases for outcome in outcomes)


@pytest.mark.parametrize("name", ["kills", "fuzz", "hostile"])
def test_in_processes_of_their_own(name: str) -> None:
    """These fork, which only a process may that has computed nothing yet."""
    if name == "hostile" and not _browser():
        pytest.skip("there is no Chromium here: apt-get install chromium")
    source = str(Path(overnight.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-m", "faults", "--short", name],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": source},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mutant_finds_what_it_removes(mutant: mutants.Mutant) -> None:
    file = Path(overnight.__file__).parent / mutant.file
    assert file.read_text().count(mutant.old) == 1


def _browser() -> str:
    import shutil

    return shutil.which("chromium") or shutil.which("google-chrome") or ""
