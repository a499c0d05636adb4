"""Ours beside what a person would pick instead: side by side, in turn, as ratios.

    ./dev bench --peers DIR [--only NAME] [--json] [--rounds N] [--threads N]

DIR holds a checkout of nanoGPT. Names: speed, ceiling, time-to-loss, budget, generation,
hybrid. A row is a median over the rounds; its ratio is the median of the ratios of each round.
Exit 1 if any row falls short.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import hybrid
import peers
import race
from overnight.generation.sample import Sampling, continue_ids
from overnight.model.decoder import Decoder
from overnight.model.size import flops_per_token
from overnight.settings import Settings, of_preset
from overnight.training.bench import product_rate
from overnight.training.machine import has_bfloat16
from overnight.training.settle import settle
from overnight.training.update import FAR, Updater

SMALL = {"layers": 4, "heads": 4, "width": 128, "context": 64, "batch": 12}
MEDIUM = {"layers": 6, "heads": 6, "width": 384, "context": 256, "batch": 16}
VOCABULARY = 65
CPU = torch.device("cpu")
DTYPES = ["bfloat16", "float32"] if has_bfloat16() else ["float32"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=Path, required=True)
    parser.add_argument("--only", choices=list(BENCHES), default=None)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    settle("cpu", given.threads)
    rows = []
    for name in [given.only] if given.only else BENCHES:
        print(f"{name} …", file=sys.stderr)
        with contextlib.redirect_stdout(sys.stderr):  # the peers print
            rows += BENCHES[name](given.peers, given.rounds)
    if given.json:
        print(json.dumps(rows))
    else:
        table(rows)
    sys.exit(0 if all(row["pass"] for row in rows) else 1)


def row(name: str, ours: list[float], peer: list[float], goal: float | None) -> dict[str, Any]:
    ratios = [a / b for a, b in zip(ours, peer, strict=True)]
    ratio = statistics.median(ratios)
    return {
        "name": name,
        "ours": statistics.median(ours),
        "peer": statistics.median(peer),
        "ratio": ratio,
        "spread": [min(ratios), max(ratios)],
        "goal": goal,
        "pass": goal is None or ratio >= goal,
    }


def table(rows: list[dict[str, Any]]) -> None:
    print(f"{'name':<34} {'ours':>12} {'peer':>12} {'ratio':>7} {'spread':>14} {'goal':>5}")
    for r in rows:
        low, high = r["spread"]
        verdict = "" if r["pass"] else "  falls short"
        print(
            f"{r['name']:<34} {r['ours']:>12,.1f} {r['peer']:>12,.1f} {r['ratio']:>7.2f} "
            f"{f'{low:.2f}–{high:.2f}':>14} {r['goal'] or '':>5}{verdict}"
        )


def settings_of(shape: dict[str, int], dtype: str) -> Settings:
    """nanoGPT's architecture and optimizer, for a long run."""
    settings = of_preset("nanogpt-cpu")
    settings.add(
        {
            "model.layers": "A" * shape["layers"],
            "model.heads": shape["heads"],
            "model.width": shape["width"],
            "model.context": shape["context"],
            "model.vocab_size": VOCABULARY,
            "train.batch": shape["batch"],
            "train.micro_batch": shape["batch"],
            "train.dtype": dtype,
            "train.threads": torch.get_num_threads(),
        },
        "benchmark",
    )
    return settings


def updater(shape: dict[str, int], dtype: str) -> Updater:
    """Ours, in the form that a long run takes."""
    return peers.long_run(settings_of(shape, dtype), tokens())


def tokens() -> np.ndarray:
    return np.random.default_rng(0).integers(0, VOCABULARY, 1_000_000).astype(np.uint16)


def speed_of(update: Callable[[], object], shape: dict[str, int], count: int) -> float:
    """Tokens per second over `count` updates."""
    begin = time.perf_counter()
    for _ in range(count):
        update()
    return count * shape["batch"] * shape["context"] / (time.perf_counter() - begin)


def steps_of(ours: Updater) -> Callable[[], object]:
    numbers = iter(range(1, 10**9))
    return lambda: ours.update(next(numbers), FAR)


def bench_speed(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Tokens per second at equal architecture, whole updates: beside nanoGPT at its CPU setting,
    which does not compile, and beside it compiled."""
    module, rows = peers.nanogpt(folder), []
    goals = {("small", "bfloat16"): 2.5, ("small", "float32"): 1.7, ("medium", "bfloat16"): 3.0}
    for name, shape, count in (("small", SMALL, 20), ("medium", MEDIUM, 1)):
        contenders = {}
        for peer in ("nanoGPT", "nanoGPT compiled"):
            theirs = peers.NanoGPT(
                module, tokens(), n_layer=shape["layers"], n_head=shape["heads"],
                n_embd=shape["width"], block_size=shape["context"], vocab_size=VOCABULARY,
                batch=shape["batch"],
            )  # fmt: skip
            if peer.endswith("compiled"):
                theirs.model.compile()
            contenders[peer] = peers.stock(
                lambda t=theirs, s=shape, c=count: speed_of(t.update, s, c)
            )
        for dtype in DTYPES:
            step = steps_of(updater(shape, dtype))
            contenders[dtype] = lambda u=step, s=shape, c=count: speed_of(u, s, c)
        got = peers.in_turn(contenders, rounds)
        for dtype in DTYPES:
            label, goal = f"speed {name} {dtype}", goals.get((name, dtype))
            rows.append(row(f"{label}, tok/s", got[dtype], got["nanoGPT"], goal))
            compiled = got["nanoGPT compiled"]
            rows.append(row(f"{label} beside it compiled", got[dtype], compiled, None))
    return rows


def bench_ceiling(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Share of the rate that the library's own matrix product reaches in the same dtype."""
    rows = []
    for name, shape, count, goal in (("medium", MEDIUM, 1, 0.7), ("small", SMALL, 20, 0.45)):
        for dtype in DTYPES:
            ours = updater(shape, dtype)
            step, work = steps_of(ours), flops_per_token(ours.model)
            measured = peers.in_turn(
                {
                    "ours": lambda u=step, s=shape, c=count, w=work: speed_of(u, s, c) * w / 1e9,
                    "gemm": lambda d=dtype: product_rate(d, CPU, 2048, 1) / 1e9,
                },
                rounds,
            )
            label = f"ceiling {name} {dtype}, GFLOP/s"
            rows.append(row(label, measured["ours"], measured["gemm"], goal))
    return rows


def rate_of(generate: Callable[[], object], count: int) -> float:
    begin = time.perf_counter()
    generate()
    return count / (time.perf_counter() - begin)


def bench_generation(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Tokens per second of 500 greedy tokens at batch 1, nanoGPT's small size, and the hybrid."""
    from transformers import GPT2Config, GPT2LMHeadModel

    module, count = peers.nanogpt(folder), 500
    theirs = peers.NanoGPT(
        module, tokens(), n_layer=4, n_head=4, n_embd=128, block_size=512,
        vocab_size=VOCABULARY, batch=1,
    ).model.eval()  # fmt: skip
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=512, n_embd=128, n_layer=4, n_head=4,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    gpt2 = GPT2LMHeadModel(config).eval()
    small = settings_of(SMALL | {"context": 512}, "float32").resolve().model
    ours = as_loaded(Decoder(small).initialise(1))
    nexus = as_loaded(hybrid.ours("float32")[2])
    jamba = hybrid.jamba().eval()
    jamba.config.use_cache = True
    prompt = torch.zeros(1, 1, dtype=torch.long)
    greedy = {"max_new_tokens": count, "do_sample": False, "use_cache": True, "pad_token_id": 0}
    contenders = {
        "ours": lambda: rate_of(lambda: ids(ours, count), count),
        "nanoGPT": peers.stock(
            lambda: rate_of(lambda: theirs.generate(prompt, count, top_k=1), count)
        ),
        "transformers": peers.stock(
            lambda: rate_of(lambda: gpt2.generate(prompt, **greedy), count)
        ),
        "hybrid": lambda: rate_of(lambda: ids(nexus, count), count),
        "jamba": peers.stock(lambda: rate_of(lambda: jamba.generate(prompt, **greedy), count)),
    }
    with torch.inference_mode():
        got = peers.in_turn(contenders, rounds)
    return [
        row("generation beside nanoGPT, tok/s", got["ours"], got["nanoGPT"], 25),
        row("generation beside transformers", got["ours"], got["transformers"], 3),
        row("generation hybrid beside Jamba", got["hybrid"], got["jamba"], 2),
    ]


def as_loaded(model: Decoder) -> Decoder:
    """A trained model as `load_model` gives it."""
    loaded = Decoder(model.config)
    loaded.load_state_dict(model.state_dict())
    return loaded.eval()


def ids(model: Decoder, count: int) -> list[tuple[int, ...]]:
    return list(continue_ids(model, [[0]], Sampling(max_tokens=count, temperature=0)))


def bench_hybrid(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Training speed of the hybrid beside transformers' Bamba and Jamba, in float32 as they train
    on a CPU by default, and beside their autocast."""
    speeds = hybrid.measure({name: made[0] for name, made in hybrid.contenders().items()}, rounds)
    ours = speeds.get("ours", speeds["ours float32"])
    return [
        row(f"hybrid beside {name}, tok/s", ours, measured, hybrid.GOALS[name.split()[0]])
        for name, measured in speeds.items()
        if name.split()[0] in hybrid.GOALS
    ]


BENCHES: dict[str, Callable[[Path, int], list[dict[str, Any]]]] = {
    "speed": bench_speed,
    "ceiling": bench_ceiling,
    "time-to-loss": lambda folder, rounds: race.time_to_loss(folder),
    "budget": lambda folder, rounds: race.budget(),
    "generation": bench_generation,
    "hybrid": bench_hybrid,
}

if __name__ == "__main__":
    main()
