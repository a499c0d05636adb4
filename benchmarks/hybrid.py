"""Training speed of the hybrid beside transformers' Bamba and Jamba of equal size.

One thread; each model takes whole updates (forward, backward, clip, AdamW) on the same batch of
16 × 128 bytes: ours at once and in the form that a long run takes, which may be compiled, theirs in
4 micro-steps, as the document that describes the hybrid has it, and as they come. They take turns,
so that a slow moment of the machine meets all.

Printed: median tokens per second over the rounds, its spread, and ours as a ratio, round by
round. Ours runs as it does by default (bfloat16 where the CPU has it) and in float32; theirs in
float32, as transformers trains on a CPU, and in bfloat16 autocast.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

import peers
from overnight.model.decoder import Decoder
from overnight.settings import of_preset
from overnight.training.machine import has_bfloat16
from overnight.training.settle import settle
from overnight.training.update import FAR

BATCH, MICRO, CONTEXT, VOCABULARY = 16, 4, 128, 256
GOALS = {"bamba": 1.3, "jamba": 5.0}


def ours(dtype: str) -> tuple[Callable[[], None], int, Decoder]:
    settings = of_preset("nexus-bytes")
    settings.add(
        {
            "model.vocab_size": VOCABULARY,
            "train.batch": BATCH,
            "train.micro_batch": BATCH,
            "train.dtype": dtype,
            "train.threads": torch.get_num_threads(),
            "optimizer.kind": "adamw",
        },
        "benchmark",
    )
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, 200_000).astype(np.uint16)
    updater = peers.long_run(settings, tokens)
    step = iter(range(1, 10**9))
    count = sum(p.numel() for p in updater.model.parameters())
    return lambda: updater.update(next(step), FAR) and None, count, updater.model


def theirs(
    model: torch.nn.Module, autocast: bool
) -> tuple[Callable[[], None], int, torch.nn.Module]:
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)
    ids = torch.randint(0, VOCABULARY, (BATCH, CONTEXT))

    def update() -> None:
        for part in ids.split(MICRO):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                loss = model(input_ids=part, labels=part).loss / (BATCH // MICRO)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    timed = peers.stock(lambda: update() or 0.0)
    return lambda: timed() and None, sum(p.numel() for p in model.parameters()), model


def bamba() -> torch.nn.Module:
    from transformers import BambaConfig, BambaForCausalLM

    config = BambaConfig(
        vocab_size=VOCABULARY, hidden_size=256, intermediate_size=928, num_hidden_layers=6,
        num_attention_heads=8, num_key_value_heads=2, attn_layer_indices=[2], mamba_n_heads=8,
        mamba_d_state=64, mamba_expand=2, mamba_chunk_size=64, max_position_embeddings=CONTEXT,
        use_cache=False,
    )  # fmt: skip
    return BambaForCausalLM(config)


def jamba() -> torch.nn.Module:
    from transformers import JambaConfig, JambaForCausalLM

    config = JambaConfig(
        vocab_size=VOCABULARY, hidden_size=256, intermediate_size=928, num_hidden_layers=6,
        num_attention_heads=8, num_key_value_heads=2, attn_layer_period=6, attn_layer_offset=2,
        num_experts=1, expert_layer_period=1, expert_layer_offset=0, mamba_d_state=16,
        mamba_expand=2, use_mamba_kernels=False, max_position_embeddings=CONTEXT, use_cache=False,
        pad_token_id=0,
    )  # fmt: skip
    return JambaForCausalLM(config)


def contenders() -> dict[str, tuple[Callable[[], None], int, torch.nn.Module]]:
    """By name: an update to call, the parameters, the model."""
    made = {"ours float32": ours("float32")}
    if has_bfloat16():
        made["ours"] = ours("bfloat16")
    for name, make in (("bamba", bamba), ("jamba", jamba)):
        made[name] = theirs(make(), False)
        made[f"{name} autocast"] = theirs(make(), True)
    return made


def measure(contenders: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Tokens per second of each, round by round, in turn."""

    def speed(update: Callable[[], None]) -> float:
        begin = time.perf_counter()
        update()
        return BATCH * CONTEXT / (time.perf_counter() - begin)

    return peers.in_turn({name: partial(speed, u) for name, u in contenders.items()}, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    settle("cpu", 1)
    made = contenders()
    speeds = measure({name: m[0] for name, m in made.items()}, given.rounds)
    best = "ours" if "ours" in made else "ours float32"
    rows = []
    for name, (_, parameters, _) in made.items():
        ratios = [a / b for a, b in zip(speeds[best], speeds[name], strict=True)]
        goal = GOALS.get(name.split()[0])
        ratio = statistics.median(ratios)
        rows.append(
            {
                "name": name,
                "parameters": parameters,
                "tokens_per_s": round(statistics.median(speeds[name])),
                "spread": [round(min(speeds[name])), round(max(speeds[name]))],
                "ratio": round(ratio, 2),
                "goal": goal,
                "pass": goal is None or ratio >= goal,
            }
        )
    if given.json:
        print(json.dumps(rows))
        return
    print(f"{'model':<16} {'parameters':>11} {'tok/s':>8} {'spread':>15} {'ours ×':>7} {'goal':>5}")
    for row in rows:
        low, high = row["spread"]
        print(
            f"{row['name']:<16} {row['parameters']:>11,} {row['tokens_per_s']:>8,} "
            f"{f'{low:,}–{high:,}':>15} {row['ratio']:>7} {row['goal'] or '':>5}"
        )


if __name__ == "__main__":
    main()
