"""What safety costs: saving as a share of the time, determinism as a ratio of step times.

Both are measured on the real disk and the real machine. The ratio is taken in pairs of short runs,
one after the other, so that what else the machine does strikes both; it needs a quiet moment.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import tiny
from .tiny import Outcome

SAVING, DETERMINISM = 0.01, 1.05
REAL = {
    "model__layers": "AAAA", "model__width": 256, "model__heads": 4, "model__context": 128,
    "train__batch": 16, "train__micro_batch": 16, "model__dropout": 0.0, "train__threads": 0,
    "train__dtype": "auto", "save__every": 0, "eval__every": 0, "eval__tokens": 4096,
    "sample__tokens": 16, "log__every": 10, "train__label_smoothing": 0.0,
}  # fmt: skip


def run(folder: Path, short: bool, cases: int) -> Iterator[Outcome]:
    yield _saving(folder, 20 if short else 240)
    yield _determinism(folder, cases or (2 if short else 15))


def _saving(folder: Path, seconds: float) -> Outcome:
    """A run of minutes at the default interval: seconds in saves against seconds in all."""
    from overnight.runfolder import Checkpoint, End, RunFolder, Train, read_log

    out = folder / "run"
    text = tiny.text_file(folder)
    tiny.begin(folder / "probe", text, **(REAL | {"length__steps": 60}))
    window = read_log(RunFolder(folder / "probe").log).of(Train)[-1]
    steps = max(20, int(seconds / (window.seconds / window.steps)))
    tiny.begin(out, text, **(REAL | {"length__steps": steps}))
    rows = read_log(RunFolder(out).log)
    end, saves = rows.of(End)[0], rows.of(Checkpoint)
    share = end.save_seconds / end.seconds
    outcome = Outcome("cost: saving at the default interval", len(saves))
    reasons = [save.reason for save in saves]
    counts = ", ".join(f"{reasons.count(name)} {name}" for name in sorted(set(reasons)))
    outcome.notes.append(
        f"{len(saves)} saves ({counts}) of {saves[-1].bytes / 1e6:.0f} MB took "
        f"{end.save_seconds:.2f} of {end.seconds:.0f} s: {share:.2%}; "
        f"one took {statistics.median(save.seconds for save in saves):.3f} s"
    )
    if share > SAVING:
        outcome.failures.append(f"saving takes {share:.2%} of the time")
    return outcome


def _determinism(folder: Path, pairs: int) -> Outcome:
    """Step time with deterministic algorithms over step time without, in interleaved pairs."""
    import torch

    from overnight.settings import Settings
    from overnight.text.prepare import prepare
    from overnight.training.machine import choose_machine
    from overnight.training.settle import settle
    from overnight.training.update import Updater

    settings = Settings()
    given = {name.replace("__", "."): value for name, value in REAL.items()}
    given |= {"train.threads": torch.get_num_threads(), "data.text": [str(folder / "lines.txt")]}
    settings.add(tiny.SETTINGS | given, "campaign")
    choose_machine(settings)
    prepared = prepare(settings.resolve().data, settings.resolve().tokenizer)
    settings.choose("model.vocab_size", prepared.tokenizer.vocab_size, "from the tokenizer")
    config = settings.resolve()
    device = settle(config.train.device, config.train.threads)
    updater = Updater(config, prepared.train, device)
    ratios = []
    _seconds(updater, 3)
    for pair in range(pairs):
        times: dict[bool, float] = {}
        for exact in (True, False) if pair % 2 else (False, True):
            torch.use_deterministic_algorithms(exact)
            times[exact] = _seconds(updater, 6)
        ratios.append(times[True] / times[False])
    torch.use_deterministic_algorithms(True)
    middle = statistics.median(ratios)
    outcome = Outcome("cost: determinism", pairs)
    spread = statistics.quantiles(ratios, n=4) if pairs > 3 else [min(ratios), middle, max(ratios)]
    outcome.notes.append(
        f"{config.train.dtype}, {config.train.threads} threads: {middle:.3f} of the step time "
        f"without (middle of {pairs} pairs; half of them in {spread[0]:.3f} … {spread[2]:.3f})"
    )
    if middle > DETERMINISM:
        outcome.failures.append(f"deterministic steps take {middle:.3f} of the time")
    return outcome


def _seconds(updater: Any, steps: int) -> float:
    begin = time.monotonic()
    for step in range(1, steps + 1):
        updater.update(step, 10**6)
    return time.monotonic() - begin
