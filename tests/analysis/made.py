"""Small run folders and logs made up for tests, through the same row types that training uses."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from overnight import runfolder
from overnight.config import Config
from overnight.runfolder import RunFolder
from overnight.settings import dump_config

LEDGER = {"batch": 8, "micro_batch": 4, "context": 64, "train_tokens": 100_000, "ranks": 1}
SETTINGS = {
    "model": {"layers": "AAAA", "width": 128, "heads": 4, "context": 64, "dropout": 0.0},
    "tokenizer": {"kind": "bytes"},
    "schedule": {"kind": "cosine", "warmup": 20, "min_ratio": 0.1},
    "optimizer": {"kind": "adamw", "lr": 1e-3},
}
BLOCKS = 64


def lr_at(step: int, steps: int, warmup: int = 20, peak: float = 1e-3) -> float:
    if step <= warmup:
        return peak * step / warmup
    u = (step - warmup) / (steps - warmup)
    return peak * (0.1 + 0.9 * (1 + math.cos(math.pi * u)) / 2)


def run_folder(
    path: Path,
    steps: int = 400,
    every: int = 40,
    resume_at: int | None = None,
    sigma: float = 0.003,
    harm: float = 0.0,
    seed: int = 0,
    blocks: bool = True,
    ledger: dict[str, int] = LEDGER,
) -> Path:
    """A finished run: loss 5.5 → about 2, `harm` nats of rise over the last third of val."""
    rng = np.random.default_rng(seed)
    folder = RunFolder(path)
    for part in (folder.path, folder.evals, folder.checkpoints):
        part.mkdir(parents=True)
    folder.config.write_text(dump_config(Config(), {}))
    yardsticks = [
        {"name": "ln V", "bpb": 8.0, "nats_per_byte": 5.545, "how": "every byte the same"},
        {"name": "bigram", "bpb": 3.6, "nats_per_byte": 2.495, "how": "pairs of bytes"},
        {"name": "xz", "bpb": 2.1, "nats_per_byte": 1.456, "how": "xz -9e alone"},
    ]
    folder.yardsticks.write_text(
        json.dumps({"bytes": 4096, "train_bytes": 100_000, "yardsticks": yardsticks})
    )
    level = 0.3 * rng.standard_normal(BLOCKS)
    spans = [(0, steps)] if resume_at is None else [(0, resume_at + 30), (resume_at, steps)]
    for attempt, (begin, end) in enumerate(spans, 1):
        log = runfolder.LogWriter(folder.log, attempt)
        _session(log, folder, attempt, begin, end, steps, every, sigma, harm, level, blocks, ledger)
        log.close()
    return path


def _session(log, folder, attempt, begin, end, steps, every, sigma, harm, level, blocks, ledger):
    config = SETTINGS | {"length": {"steps": steps}}
    log.write(
        runfolder.Start(
            step=begin, from_step=begin, version="0.1.0", config=config, reasons={},
            environment={"device": "cpu", "dtype": "float32"},
            data={"train_tokens": 100_000, "val_tokens": 4096, "vocab_size": 256,
                  "split": "made up"},
            parameters={"total": 123_456}, ledger=ledger,
        )
    )  # fmt: skip
    per_step, text = ledger["batch"] * ledger["context"], ledger["train_tokens"]
    for step in range(begin, end + 1):
        noise = np.random.default_rng([step, 1])  # a function of the step: resumes are exact
        mean = 2.0 + 3.5 * (1 + step / 20) ** -0.8
        if step > begin and step % 10 == 0:
            log.write(
                runfolder.Train(
                    step=step, steps=10, tokens=step * per_step, passes=step * per_step / text,
                    loss=mean + 0.02 * noise.standard_normal(), lr=lr_at(step, steps),
                    grad_norm=1.0, seconds=0.5, tokens_per_s=20.0 * per_step,
                )
            )  # fmt: skip
        if step % every == 0 and (step > begin or begin == 0):
            rise = harm * max(0.0, step / steps - 2 / 3) * 3
            per_block = mean + 0.05 + rise + level + sigma * noise.standard_normal(BLOCKS)
            val = float(per_block.astype(np.float32).mean())
            se = float(per_block.std(ddof=1) / math.sqrt(BLOCKS))
            log.write(
                runfolder.Eval(
                    step=step, tokens=step * per_step, passes=step * per_step / text, val_loss=val,
                    val_se=se, val_bpb=val / math.log(2), val_tokens=4096, probe_loss=mean,
                    probe_se=se, probe_bpb=mean / math.log(2), probe_tokens=4096, seconds=0.2,
                )
            )  # fmt: skip
            if blocks:
                from safetensors.numpy import save_file

                tensors = {"val": per_block.astype(np.float32)}
                save_file(tensors, folder.eval_path(step, attempt))
            if step:
                log.write(
                    runfolder.Sample(step=step, prompt="The ", text="<b>cat\n", tokens=4, seed=1)
                )
                place = folder.checkpoint_path(step)
                place.mkdir(exist_ok=True)
                (place / "manifest.json").write_text("{}")
                log.write(
                    runfolder.Checkpoint(
                        step=step, path=f"checkpoints/{place.name}", bytes=1000, seconds=0.1,
                        reason="interval",
                    )
                )  # fmt: skip
    if end == steps:
        log.write(
            runfolder.End(
                step=end, reason="finished", seconds=30.0, train_seconds=20.0, eval_seconds=8.0,
                save_seconds=2.0,
            )
        )  # fmt: skip
