"""Resume at every step of a run: the same bits, every row and every block loss.

The reference saves nothing but its end. A second run saves at every step; from it, for every k,
the folder as it stood at step k is cut out and taken up again, with new model, optimizer and
trainer objects. Chains stop and go on three times; some sessions are processes of their own.
Compiled updates are taken up around what happens between them.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import tiny
from .tiny import Outcome

MORE = {"eval__every": 25, "log__every": 7, "save__keep": 200}
KINDS = [("float32", 1), ("bfloat16", 1), ("float32", 2), ("bfloat16", 2)]


def run(folder: Path, short: bool, cases: int) -> Iterator[Outcome]:
    steps, chains = (30, cases or 1) if short else (100, cases or 10)
    everywhere = [1, 24, 25] if short else list(range(steps))
    processes = [] if short else [1, 50, 99]
    for dtype, threads in KINDS[:2] if short else KINDS:
        more = _settings(steps, dtype, threads)
        name = f"at every step: {dtype}, {threads} threads"
        yield _campaign(folder, name, everywhere, chains, processes, more)
    if short:  # compiling takes most of a minute
        return
    # before, at and after the beginning, evaluations and the end; every step has its save
    around = [0, 1, 2, 24, 25, 26, 49, 50, 51, 74, 75, 76, 98, 99]
    for dtype, threads in KINDS:
        more = _settings(steps, dtype, threads) | {"train__compile": "on"}
        yield _campaign(folder, f"compiled: {dtype}, {threads} threads", around, chains, [50], more)


def _settings(steps: int, dtype: str, threads: int) -> dict[str, Any]:
    return MORE | {"length__steps": steps, "train__dtype": dtype, "train__threads": threads}


def _campaign(
    folder: Path,
    name: str,
    positions: list[int],
    chains: int,
    processes: list[int],
    more: dict[str, Any],
) -> Outcome:
    """Take a run up at all `positions`, in chains, and in processes at some."""
    outcome = Outcome(f"resume {name}", 0)
    text, place = tiny.text_file(folder), folder / name.replace(" ", "-")
    place.mkdir()
    whole, saved = place / "whole", place / "saved"
    tiny.begin(whole, text, **more, save__every=10**6)
    tiny.begin(saved, text, **more, save__every=1)
    for step in positions:
        _one(place / "resumed", saved, whole, step, outcome)
    for number in range(chains):
        _chain(place / "chain", text, whole, more, number, outcome)
    for step in processes:
        _process(place / "process", saved, whole, step, outcome)
    return outcome


def cut(saved: Path, step: int, out: Path) -> None:
    """The run folder as it stood when the checkpoint of `step` was committed."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(saved, out)
    for path in out.glob("checkpoints/step-*"):
        if int(path.name[5:]) > step:
            shutil.rmtree(path)
    for path in out.glob("evals/*"):
        if int(path.name.split("-")[1]) > step:
            path.unlink()
    rows = (out / "log.jsonl").read_bytes().splitlines(keepends=True)
    end = next(
        (i for i, row in enumerate(rows) if b'"checkpoint"' in row and _step(row) == step), 0
    )
    (out / "log.jsonl").write_bytes(b"".join(rows[: end + 1]))


def _step(row: bytes) -> int:
    import msgspec

    return int(msgspec.json.decode(row)["step"])


def _one(out: Path, saved: Path, whole: Path, step: int, outcome: Outcome) -> None:
    cut(saved, step, out)
    tiny.resume(out)
    _compare(f"step {step}", out, whole, outcome)


def _chain(
    out: Path, text: Path, whole: Path, more: dict[str, Any], number: int, outcome: Outcome
) -> None:
    """Stop at three places by a signal during the update, then to the end."""
    from overnight.training.update import Updater

    shutil.rmtree(out, ignore_errors=True)
    stops = sorted(random.Random(number).sample(range(1, more["length__steps"]), 3))
    real = Updater.update

    def signalled(self: Updater, step: int, *rest: Any) -> Any:
        if step in stops:
            stops.remove(step)
            signal.raise_signal(signal.SIGTERM)
        return real(self, step, *rest)

    with tiny.patched(Updater, "update", signalled):
        tiny.begin(out, text, **more, save__every=10**6)
        while stops:
            tiny.resume(out)
        tiny.resume(out)
    _compare(f"chain {number}", out, whole, outcome)


def _process(out: Path, saved: Path, whole: Path, step: int, outcome: Outcome) -> None:
    """The command line, in a process of its own, which compiles anew what is compiled."""
    cut(saved, step, out)
    words = [sys.executable, "-m", "overnight", "train", "--resume", str(out)]
    own = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(out.parent / f"compiled-{step}")}
    done = subprocess.run(words, capture_output=True, text=True, env=own)
    if done.returncode:
        outcome.failures.append(f"process at step {step}: {done.stderr[-200:]}")
    _compare(f"process at step {step}", out, whole, outcome)


def _compare(what: str, out: Path, whole: Path, outcome: Outcome) -> None:
    outcome.cases += 1
    outcome.failures += [f"{what}: {wrong}" for wrong in tiny.different(out, whole)[:3]]
