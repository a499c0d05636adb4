"""Is real overfitting seen, and fresh text never called it? Ten small runs a seed, one table.

    python tests/analysis/real_overfit.py TEXT [SEED …]

Five presets, scaled down by flags, each on the first 50 kB of TEXT until it overfits and on the
whole TEXT for less than one pass. Seed 1 is the one that anything was chosen on.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SMALL = 50_000  # bytes
EVALUATIONS = 24
# A constant, high learning rate and no dropout: each has its minimum well before the end.
COMMON = {
    "--schedule.kind": "constant", "--schedule.warmup": "10", "--optimizer.lr": "3e-3",
    "--model.dropout": "0",
    "--train.batch": "16", "--train.micro_batch": "16", "--model.context": "64",
    "--data.val_fraction": "0.1", "--eval.tokens": "16384", "--sample.tokens": "0",
    "--threads": "1", "--save.every": "100000",
}  # fmt: skip
SMALL_GPT = {"--model.width": "128", "--model.heads": "4", "--tokenizer.vocab_size": "1000"}
SLOWER = {"--optimizer.lr": "1e-3", "--schedule.warmup": "40"}
PRESETS = {  # name → (flags, steps until it has overfitted 45 kB)
    "tinygpt": (SMALL_GPT | {"--model.layers": "AA", "--model.feed_forward": "512"}, 480),
    "gpt-wikitext103": (SMALL_GPT | SLOWER | {"--model.layers": "AAA"}, 600),
    "gpt-24": (SMALL_GPT | SLOWER | {"--model.layers": "AAAA"}, 600),
    "nexus-bytes": (
        {"--model.width": "64", "--model.feed_forward": "192", "--model.ssm_head": "32"}, 600,
    ),
    "tiny-chars": (
        SLOWER | {"--optimizer.lr": "1.5e-3", "--model.layers": "AAA", "--model.width": "192"},
        1800,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What the report said of one run; `minimum` and `since` count evaluations."""

    preset: str
    seed: int
    fresh: bool
    verdict: str
    minimum: int
    since: int | None
    evaluations: int
    lowest: float
    final: float
    passes: float
    because: str

    @property
    def right(self) -> bool:
        if self.fresh:
            return self.verdict != "yes"
        return self.verdict == "yes" and abs((self.since or 0) - self.minimum) <= 2


def outcome(preset: str, seed: int, fresh: bool, text: Path, folder: Path) -> Outcome:
    """Train in `folder` and read the verdict."""
    from overnight import cli, load_run

    flags, steps = PRESETS[preset]
    if not fresh:
        small = folder / "small.txt"
        small.write_bytes(text.read_bytes()[:SMALL])
        text = small
    else:
        steps = 360  # under a pass for each of them
    length = {"--max-steps": str(steps), "--eval-every": str(steps // EVALUATIONS)}
    out = folder / "run"
    words = ["train", str(text), "--preset", preset, "--out", str(out), "--seed", str(seed)]
    for flag, value in (COMMON | flags | length).items():
        words += [flag, value]
    with contextlib.redirect_stderr(io.StringIO()) as said:
        code = cli.run(words)
    if code:
        raise RuntimeError(said.getvalue()[-2000:])
    run = load_run(out)
    verdict = run.found.verdict("overfitting")
    losses = np.array([e.val_loss for e in run.found.evaluations], dtype=float)
    at = [e.step for e in run.found.evaluations]
    return Outcome(
        preset, seed, fresh, verdict.verdict, _minimum(losses),
        None if verdict.since_step is None else at.index(verdict.since_step),
        len(at), float(losses.min()), float(losses[-1]), run.found.ledger.passes or 0.0,
        verdict.because,
    )  # fmt: skip


def _minimum(losses: np.ndarray) -> int:
    """Where the mean of three neighbours is lowest: the minimum without its luck."""
    return int(np.argmin(np.convolve(losses, np.full(3, 1 / 3), "valid"))) + 1


def outcomes(text: Path, seeds: list[int]) -> Iterator[Outcome]:
    for seed in seeds:
        for fresh in (False, True):
            for preset in PRESETS:
                with tempfile.TemporaryDirectory() as folder:
                    yield outcome(preset, seed, fresh, text, Path(folder))


def row(o: Outcome) -> str:
    since = "" if o.since is None else f", {o.since}"
    return (
        f"| {o.preset} | {o.seed} | {'whole' if o.fresh else '50 kB'} | {o.passes:.2f} | "
        f"{o.lowest:.3f} | {o.final:.3f} | {o.minimum} of {o.evaluations} | "
        f"{o.verdict}{since} | {'right' if o.right else 'WRONG: ' + o.because} |"
    )


def main() -> None:
    text, seeds = Path(sys.argv[1]), [int(s) for s in sys.argv[2:]] or [1]
    print("| preset | seed | text | passes | val lowest | last | minimum | verdict, since | |")
    print("|---|---:|---|---:|---:|---:|---:|---|---|")
    for o in outcomes(text, seeds):
        print(row(o), flush=True)


if __name__ == "__main__":
    main()
