"""The plan of a run, as it is shown before it begins: every choice with its reason."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from ..config import Config
from ..ledger import Ledger
from ..model.size import checkpoint_bytes, memory_bytes
from ..text.batches import fixed_blocks
from ..text.prepare import Prepared
from ..wording import counted, duration, size
from . import memory
from .machine import emulated
from .sizing import most_passes
from .update import Updater

# Beyond these a plan warns. Four passes teach nearly as much as new text would, more teach less and
# less (Muennighoff et al. 2023); our small models get worse sooner (`most_passes`)
MANY_PASSES = 10


class Plan(msgspec.Struct):
    """What is about to be run."""

    config: Config
    reasons: dict[str, str]
    prepared: Prepared
    updater: Updater
    parameters: dict[str, int]
    seconds: float  # expected, for the whole run with evaluations
    step_seconds: float
    shortened: bool  # the warm-up, to half of the run
    unused: list[str] = []  # what the user gave and nothing comes of, with the reason
    initial: str = ""  # where its first weights come from, if they are not random

    @property
    def ledger(self) -> Ledger:
        return self.updater.ledger

    @property
    def checkpoint_bytes(self) -> int:
        return checkpoint_bytes(self.config, self.parameters)

    @property
    def memory_bytes(self) -> int:
        return memory_bytes(self.config, self.parameters)

    @property
    def disk_bytes(self) -> int:
        """The best checkpoint, the newest ones, and one that is being written."""
        return self.checkpoint_bytes * (self.config.save.keep + 2)

    def summary(self) -> dict[str, Any]:
        """The plan as one object, for programs."""
        steps = self.config.length.steps
        return {
            "steps": steps,
            "tokens": self.ledger.tokens(steps),
            "passes": self.ledger.passes(steps),
            "parameters": self.parameters["total"],
            "seconds": self.seconds,
            "memory_bytes": self.memory_bytes,
            "disk_bytes": self.disk_bytes,
            "config": msgspec.to_builtins(self.config),
            "reasons": self.reasons,
            "data": self.prepared.facts,
        }

    def _warnings(self) -> list[str]:
        free, _ = memory.memory(self.updater.device)
        train, warnings = self.config.train, [f"unused    {given}" for given in self.unused]
        if slow := emulated(train.device, train.dtype):
            warnings.append(f"slow      {slow}")
        if self.updater.device.type == "cpu" and self.memory_bytes > free:
            advice = memory.advice(self.config, self.updater.device)
            warnings.append(f"memory    may not do: {advice}")
        facts = self.prepared.facts
        if facts["unknown"]:
            warnings.append(f"unknown   {_unknown(facts)}")
        if not facts["lossless"]:
            warnings.append(
                "lossy     the tokenizer loses part of the text, such as case, accents and spaces: "
                "bits per byte compare with nothing"
            )
        if (passes := self.ledger.passes(self.config.length.steps)) > MANY_PASSES:
            warnings.append(
                f"passes    {passes:,.0f} times through the text: beyond a few a model learns it "
                f"by heart; watch validation, or take --passes {most_passes(self.config):g}"
            )
        if self.shortened:
            warmup, why = self.config.schedule.warmup, self.reasons["schedule.warmup"]
            warnings.append(f"warm-up   {counted(warmup, 'step')}: {why}")
        return warnings

    def lines(self) -> list[str]:
        """What was chosen and why, for a person."""
        config, ledger, facts = self.config, self.ledger, self.prepared.facts
        model, train = config.model, config.train

        def why(name: str) -> str:
            return self.reasons.get(name, "default")

        steps = config.length.steps
        when = "%H:%M" if self.seconds < 12 * 3600 else "%Y-%m-%d %H:%M"
        end = time.strftime(when, time.localtime(time.time() + self.seconds))
        blocks = fixed_blocks(self.prepared.val, model.context, config.eval.tokens)
        evaluated = len(blocks) * model.context
        parts = ", ".join(f"{k} {v:,}" for k, v in self.parameters.items() if k != "total")
        return [
            f"text      {facts['bytes']:,} bytes to train on, {facts['val_bytes']:,} held out "
            f"({facts['split']})",
            f"tokens    {config.tokenizer.kind}, vocabulary {model.vocab_size:,} "
            f"({_why_vocabulary(config, self.reasons)}): "
            f"{facts['train_tokens']:,} train, {facts['val_tokens']:,} val",
            f"model     {self.parameters['total']:,} parameters ({parts}): layers {model.layers}, "
            f"width {model.width}, heads {model.heads}, context {model.context}",
            f"device    {train.device} ({why('train.device')}), "
            f"{train.dtype} ({why('train.dtype')}), "
            f"{counted(train.threads, 'thread')} "
            f"({why('train.threads')})",
            f"form      {'compiled' if train.compile == 'on' else 'eager'} "
            f"({why('train.compile')}), {train.attention} attention "
            f"({why('train.attention')})",
            f"batch     {ledger.tokens_per_step:,} tokens an update: "
            f"{counted(train.batch, 'sequence')}"
            + (f" as {ledger.accumulation} micro-steps" if ledger.accumulation > 1 else ""),
            f"length    {counted(steps, 'step')} ({why('length.steps')}): "
            f"{ledger.tokens(steps):,} tokens, {ledger.passes(steps):.2f} passes",
            f"measured  {_cadence(config.eval.every, steps)} on {evaluated:,} val tokens "
            f"({why('eval.every')})",
            f"needs     {size(self.memory_bytes)} of memory beside torch's own, "
            f"{size(self.disk_bytes)} "
            f"of disk: {config.save.keep + 2} checkpoints of {size(self.checkpoint_bytes)}",
            *self._warnings(),
            f"expected  {duration(round(self.seconds))} "
            f"({ledger.tokens_per_step / self.step_seconds:,.0f} tokens/s), until {end}",
        ]


def _cadence(every: int, steps: int) -> str:
    return f"every {counted(every, 'step')}" if every < steps else "at the beginning and the end,"


def _unknown(facts: dict[str, Any]) -> str:
    """The characters that are not in the vocabulary, of either text, and what they cost."""
    unknown, held_out, bits = facts["unknown"], facts["val_unknown"], facts["unknown_bits"]
    cost = f"each costs {bits} bits more" if bits else "bits per byte leave them out"
    trained_on = 100 * (unknown - held_out) / facts["train_tokens"]
    return (
        f"{counted(unknown, 'character')} ({trained_on:.3g} % of the training tokens, "
        f"{100 * held_out / facts['val_tokens']:.3g} % of the held-out ones) are not in the "
        f"vocabulary and count as one: {cost}"
    )


def _why_vocabulary(config: Config, reasons: dict[str, str]) -> str:
    fixed = {"bytes": "one for each byte", "chars": "the characters of the text"}
    fixed["file"] = f"of {config.tokenizer.path}" if config.tokenizer.path else "of the weights"
    return fixed.get(config.tokenizer.kind) or reasons.get("tokenizer.vocab_size", "as given")
