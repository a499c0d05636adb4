"""Time to a loss: how much sooner ours is where nanoGPT ends; and what ten minutes give.

Times are processor seconds of whole updates on one thread, without evaluation. nanoGPT is trained
to the end of its own schedule; ours five times, with five seeds, for the number of steps that
`ENTRIES` states. Settings and steps were chosen with other seeds than those that race: on
TinyShakespeare, and the steps of the speeches on the speeches.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import torch
from torch.nn import functional as F

import peers
from overnight.settings import Settings, of_preset
from overnight.text.batches import fixed_blocks
from overnight.text.prepare import Prepared, prepare
from overnight.training.evaluate import score
from overnight.training.machine import choose_machine
from overnight.training.sizing import MOST_PASSES, choose_size
from overnight.training.update import FAR, Updater

SHAKESPEARE = Path(__file__).parents[2] / "shared" / "data" / "tinyshakespeare.txt"
NANOGPT = {"n_layer": 4, "n_head": 4, "n_embd": 128, "block_size": 64}
NANOGPT_STEPS = 2000  # of its CPU setting
SEEDS = (1, 2, 3, 4, 5)
EVERYTHING = 10**9  # tokens: the whole split
CONFIRMED = 0.6  # of a goal, on the second corpus
BUDGET_SECONDS, BUDGET_EVALUATIONS, BUDGET_GOAL = 600, 20, 1.50

MUON = {
    "optimizer.kind": "muon",
    "optimizer.lr": 8e-3,
    "optimizer.beta2": 0.95,
    "optimizer.muon_lr": 0.06,
    "optimizer.muon_momentum": 0.8,
    "optimizer.weight_decay": 0.0,
    "schedule.kind": "linear",
    "schedule.warmup": 5,
    "schedule.min_ratio": 0.0,
    "model.embed_std": 0.1,
    "train.batch": 20,
}


class Entry(msgspec.Struct, frozen=True):
    """Ours in the race: settings, steps, and how much sooner it is to be."""

    name: str
    preset: str
    changes: dict[str, Any]
    steps: int
    goal: float
    target: float = 0.0  # 0: the peer's own final loss
    confirming_steps: int = 0  # on the second corpus; 0: as many
    peer_steps: int = NANOGPT_STEPS  # that the peer takes to the target (docs/lab-notes.md, E01)


ENTRIES = (
    Entry("equal architecture", "nanogpt-cpu", MUON, 250, 8, confirming_steps=265),
    Entry("fast", "fast", {}, 48, 20),
    Entry("fast", "fast", {}, 260, 15, target=1.60, peer_steps=5000),
)


def corpora() -> dict[str, list[str]]:
    """Name → text; TinyShakespeare only where it lies."""
    if not SHAKESPEARE.is_file():
        print(f"{SHAKESPEARE} is not here: only the speeches are raced", file=sys.stderr)
        return {"speeches": []}
    return {"shakespeare": [str(SHAKESPEARE)], "speeches": []}


def text_prepared(
    text: list[str], preset: str, changes: dict[str, Any]
) -> tuple[Settings, Prepared]:
    """Settings of `preset` with characters as tokens, and the token files of `text`."""
    settings = of_preset(preset)
    settings.add({"data.text": text, "data.val_fraction": 0.1, "tokenizer.kind": "chars"}, "race")
    settings.add({"train.threads": 1, "train.dtype": "auto"} | changes, "race")
    resolved = settings.resolve()
    prepared = prepare(resolved.data, resolved.tokenizer, choose=settings.choose)
    settings.choose("model.vocab_size", prepared.tokenizer.vocab_size, "tokenizer")
    choose_machine(settings)
    choose_size(settings, prepared, torch.device("cpu"))
    settings.choose("train.micro_batch", settings.get("train.batch"), "whole")
    return settings, prepared


class Finish:
    """Where a run ended: processor seconds of its updates, loss on the whole held-out split."""

    def __init__(self, seconds: float, loss: float) -> None:
        self.seconds, self.loss = seconds, loss


def ours(settings: Settings, prepared: Prepared, steps: int, seed: int) -> Finish:
    settings.add({"train.seed": seed}, "race")
    config = settings.resolve()
    updater = Updater(config, prepared.train, torch.device("cpu"))
    begin = time.process_time()
    for step in range(1, steps + 1):
        updater.update(step, steps)
    seconds = time.process_time() - begin
    blocks = fixed_blocks(prepared.val, config.model.context, EVERYTHING)
    cost = prepared.tokenizer.cost
    return Finish(seconds, score(updater.model, blocks, cost, torch.device("cpu")).loss)


class NanoGPT:
    """nanoGPT at its CPU setting, in parts: warm-up 100, cosine 1e-3 → 1e-4 over 2,000 updates."""

    def __init__(self, module: ModuleType, prepared: Prepared) -> None:
        vocabulary = prepared.tokenizer.vocab_size
        self.run = peers.NanoGPT(module, prepared.train, **NANOGPT, vocab_size=vocabulary, batch=12)
        self.val, self.step, self.seconds = prepared.val, 0, 0.0

    def train(self, updates: int) -> float:
        begin = time.process_time()
        for _ in range(updates):
            done = max(0, self.step - 100) / (NANOGPT_STEPS - 100)
            cosine = 1e-4 + 0.5 * (1 + math.cos(math.pi * done)) * 9e-4
            self.run.rate(1e-3 * self.step / 100 if self.step < 100 else cosine)
            self.run.update()
            self.step += 1
        self.seconds += time.process_time() - begin
        return self.seconds

    @torch.no_grad()
    def loss(self) -> float:
        """Mean over all tokens of consecutive blocks, as ours is measured."""
        self.run.model.eval()
        blocks, total, count = fixed_blocks(self.val, NANOGPT["block_size"], EVERYTHING), 0.0, 0
        for begin in range(0, len(blocks), 256):
            ids = torch.from_numpy(np.asarray(blocks[begin : begin + 256], dtype=np.int64))
            x, y = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
            logits, _ = self.run.model(x, y)
            total += float(F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum"))
            count += y.numel()
        self.run.model.train()
        return total / count


def time_to_loss(folder: Path) -> list[dict[str, Any]]:
    """Our time to a loss beside the time that nanoGPT takes to it."""
    rows = []
    for corpus, text in corpora().items():
        entries = [on(e, corpus) for e in ENTRIES if corpus == "shakespeare" or not e.target]
        made = [
            text_prepared(text, e.preset, e.changes | {"length.steps": e.steps}) for e in entries
        ]
        peer = NanoGPT(peers.nanogpt(folder), made[0][1])
        finishes: list[list[Finish]] = [[] for _ in entries]
        for seed in SEEDS:  # in turn, so that a slow moment meets all
            peers.stock(lambda peer=peer: peer.train(NANOGPT_STEPS // len(SEEDS)))()
            for entry, (settings, prepared), finished in zip(entries, made, finishes, strict=True):
                finished.append(ours(settings, prepared, entry.steps, seed))
        final = peers.stock(peer.loss)()
        for entry, finished in zip(entries, finishes, strict=True):
            rows.append(race_row(entry, corpus, finished, peer.seconds, final))
    return rows


def on(entry: Entry, corpus: str) -> Entry:
    if corpus == "shakespeare" or not entry.confirming_steps:
        return entry
    return msgspec.structs.replace(entry, steps=entry.confirming_steps)


def race_row(
    entry: Entry, corpus: str, finished: list[Finish], peer_seconds: float, final: float
) -> dict[str, Any]:
    target = entry.target or final
    seconds = peer_seconds * entry.peer_steps / NANOGPT_STEPS
    ratios = [seconds / f.seconds for f in finished]
    goal = entry.goal * (1 if corpus == "shakespeare" else CONFIRMED)
    return {
        "name": f"time-to-loss {entry.name}, {corpus} {target:.3f}, s",
        "ours": statistics.median(f.seconds for f in finished),
        "peer": seconds,
        "ratio": statistics.median(ratios),
        "spread": [min(ratios), max(ratios)],
        "losses": [f.loss for f in finished],
        "goal": goal,
        "pass": max(f.loss for f in finished) <= target and statistics.median(ratios) >= goal,
    }


def budget() -> list[dict[str, Any]]:
    """Ten processor minutes of `fast` on TinyShakespeare's characters. The figure is a loss, so the
    ratio is goal / ours; over-fitting would show as a best evaluation well before the last."""
    text = corpora().get("shakespeare")
    if text is None:
        return []
    minutes = BUDGET_SECONDS / 60
    settings, prepared = text_prepared(text, "fast", {"length.minutes": minutes})
    losses, seconds = within(settings, prepared, BUDGET_SECONDS)
    best, last = min(losses), losses[-1]
    return [
        {
            "name": f"budget {seconds / 60:.1f} minutes, val",
            "ours": best,
            "peer": BUDGET_GOAL,
            "ratio": BUDGET_GOAL / best,
            "spread": [BUDGET_GOAL / max(losses[-3:]), BUDGET_GOAL / best],
            "losses": losses,
            "goal": 1.0,
            "pass": best <= BUDGET_GOAL and last <= best + 0.005,
        }
    ]


def within(settings: Settings, prepared: Prepared, budget: float) -> tuple[list[float], float]:
    """Losses on the whole held-out split during a run of `budget` processor seconds, and what it
    took; its steps are fixed after the first of them."""
    config = settings.resolve()
    updater, device = Updater(config, prepared.train, torch.device("cpu")), torch.device("cpu")
    begin = time.process_time()
    for step in range(1, 21):
        updater.update(step, FAR)
    steps = int(20 * budget / (time.process_time() - begin))
    steps = min(steps, updater.ledger.steps_for_passes(MOST_PASSES))  # as a run of `fast` would
    updater.reset()
    seconds, losses = 0.0, []
    blocks = fixed_blocks(prepared.val, config.model.context, EVERYTHING)
    cost = prepared.tokenizer.cost
    for step in range(1, steps + 1):
        begin = time.process_time()
        updater.update(step, steps)
        seconds += time.process_time() - begin
        if step % max(1, steps // BUDGET_EVALUATIONS) == 0 or step == steps:
            losses.append(score(updater.model, blocks, cost, device).loss)
    return losses, seconds
