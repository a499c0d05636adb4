"""What each lever of the preset `fast` is worth: loss after equal processor time, seed by seed.

    python benchmarks/ablation.py TEXT … [--seconds 100] [--seeds 3] [--only NAME …] [--preset fast]

For each variant (a line of settings that differ from the preset) an update is timed first, all
variants in turn; the budget then gives each its own number of steps, at which its schedule ends.
The figure is bits per byte on the whole held-out split. No TEXT: the embedded speeches.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from typing import Any

import torch

from overnight.settings import Settings, of_preset
from overnight.text.batches import fixed_blocks
from overnight.text.prepare import Prepared, prepare
from overnight.training.evaluate import score
from overnight.training.machine import choose_machine
from overnight.training.settle import settle
from overnight.training.update import FAR, Updater

ROUNDS = 4  # of timing, and updates in each

LEVERS: dict[str, dict[str, Any]] = {
    "fast": {},
    "AdamW": {"optimizer.kind": "adamw", "optimizer.lr": 2e-3},
    "no n-grams": {"model.ngrams": []},
    "RoPE": {"model.position": "rope"},
    "GELU": {"model.mlp": "gelu"},
    "QK norm": {"model.qk_norm": True},
    "RoPE, QK norm": {"model.position": "rope", "model.qk_norm": True},
    "RMS norm": {"model.norm": "rms"},
    "embeddings × 5": {"model.embed_std": 0.1},
    "cosine to a tenth": {"schedule.kind": "cosine", "schedule.min_ratio": 0.1},
    "1 layer": {"model.layers": "A"},
    "3 layers": {"model.layers": "AAA"},
    "4 layers": {"model.layers": "AAAA"},
    "context 64": {"model.context": 64},  # in updates of as many tokens
    "context 256": {"model.context": 256},
    "context 512": {"model.context": 512},
    "batch 16": {"train.batch": 16},
    "batch 64": {"train.batch": 64},
    "bigrams alone": {"model.ngrams": [2]},
    "up to 4-grams": {"model.ngrams": [2, 3, 4]},
    "rows × 4": {"model.ngram_rows": 262144},
    "tied": {"model.tied": True},
    "no convolution": {"model.embed_conv": False},
    "vocabulary 2,048": {"tokenizer.vocab_size": 2048},
    "lr × 2": {"optimizer.lr": 3e-2},
    "lr / 2": {"optimizer.lr": 7.5e-3},
    "Muon lr × 2": {"optimizer.muon_lr": 0.03},
    "Muon lr / 2": {"optimizer.muon_lr": 0.0075},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", nargs="*")
    parser.add_argument("--seconds", type=float, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=list(LEVERS), default=list(LEVERS))
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--set", nargs="*", default=[], help="name=value for every variant")
    given = parser.parse_args()
    common = dict(part.split("=", 1) for part in given.set)
    made = {n: settings_of(given.preset, given.text, common, LEVERS[n]) for n in given.only}
    milliseconds = times(made)
    for name, (settings, prepared) in made.items():
        steps = max(1, round(1000 * given.seconds / milliseconds[name]))
        bpb = [trained(settings, prepared, seed, steps) for seed in range(1, given.seeds + 1)]
        report(name, milliseconds[name], steps, bpb)


def settings_of(
    preset: str, text: list[str], common: dict[str, Any], lever: dict[str, Any]
) -> tuple[Settings, Prepared]:
    settings = of_preset(preset)
    settings.add({"data.text": text, "train.threads": 1} | common, "benchmark")
    tokens = settings.get("train.batch") * settings.get("model.context")
    settings.add(lever, "benchmark")
    if "model.context" in lever:
        settings.add({"train.batch": tokens // settings.get("model.context")}, "benchmark")
    resolved = settings.resolve()
    prepared = prepare(resolved.data, resolved.tokenizer, choose=settings.choose)
    settings.choose("model.vocab_size", prepared.tokenizer.vocab_size, "tokenizer")
    settings.choose("train.micro_batch", resolved.train.batch, "whole")
    choose_machine(settings)
    return settings, prepared


def times(made: dict[str, tuple[Settings, Prepared]]) -> dict[str, float]:
    """Processor milliseconds per update: the least of rounds in which each has its turn."""
    device = settle("cpu", 1)
    least: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name, (settings, prepared) in made.items():
            updater = Updater(settings.resolve(), prepared.train, device)
            updater.update(1, FAR)
            begin = time.process_time()
            for step in range(ROUNDS):
                updater.update(2 + step, FAR)
            spent = 1000 * (time.process_time() - begin) / ROUNDS
            least[name] = min(spent, least.get(name, spent))
    return least


def trained(settings: Settings, prepared: Prepared, seed: int, steps: int) -> float:
    """Bits per byte on the whole held-out split after `steps` updates."""
    settings.add({"train.seed": seed}, "benchmark")
    config = settings.resolve()
    updater = Updater(config, prepared.train, torch.device("cpu"))
    for step in range(1, steps + 1):
        updater.update(step, steps)
    blocks = fixed_blocks(prepared.val, config.model.context, 10**9)
    return score(updater.model, blocks, prepared.tokenizer.cost, torch.device("cpu")).bpb


def report(name: str, milliseconds: float, steps: int, bpb: list[float]) -> None:
    mean = statistics.mean(bpb)
    error = statistics.stdev(bpb) / len(bpb) ** 0.5 if len(bpb) > 1 else float("nan")
    row = {"name": name, "ms": milliseconds, "steps": steps, "bpb": bpb, "mean": mean, "se": error}
    print(json.dumps(row))
    print(f"{name:<24} {milliseconds:6.0f} ms {steps:5d} steps {mean:.4f}", file=sys.stderr)


if __name__ == "__main__":
    main()
