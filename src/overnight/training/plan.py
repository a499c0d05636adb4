"""From settings and text to a plan: every value in place, every choice with its reason."""

from __future__ import annotations

import math
import time
from typing import Any

import msgspec
import numpy as np
import torch

from ..config import AUTO, Config
from ..errors import Say, UserError
from ..ledger import Ledger, counted
from ..model.decoder import count_parameters
from ..model.size import checkpoint_bytes, memory_bytes
from ..settings import Settings
from ..text.batches import fixed_blocks
from ..text.prepare import Prepared
from . import memory
from .evaluate import full_tokens, score
from .forms import choose_form, unsettled
from .machine import choose_machine, emulated, settle, wait
from .memory import gigabytes
from .sizing import MOST_PASSES, choose_size
from .update import Updater

EVALUATIONS = 16  # over a run, where the user asks for no other cadence
SAMPLINGS = 4  # and the end
EVALUATION_SHARE = 0.012  # of the run's time, about, the last one on the whole split among it
FEWEST_BLOCKS = 16  # of each set
KEPT = 0.05  # of a time that is given: for evaluation, samples, saving and the last figure
KEPT_BESIDE, MOST_KEPT = 0.03, 0.5  # beside a last figure that takes much of a short time
PROMPT_BYTES = 24
LONGEST = 10 * 365 * 24 * 3600  # seconds
PROBE_SECONDS = {"minutes": 1.5, "other": 0.3}


class Plan(msgspec.Struct):
    """What is about to be run."""

    config: Config
    reasons: dict[str, str]
    prepared: Prepared
    updater: Updater
    parameters: dict[str, int]
    seconds: float  # expected, for the whole run with evaluations
    step_seconds: float
    initial: str = ""  # where its first weights come from, if they are not drawn

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
        train, warnings = self.config.train, []
        if slow := emulated(train.device, train.dtype):
            warnings.append(f"slow      {slow}")
        if self.updater.device.type == "cpu" and self.memory_bytes > free:
            advice = memory.advice(self.config, self.updater.device)
            warnings.append(f"memory    may not do: {advice}")
        if unknown := self.prepared.facts["unknown"]:
            warnings.append(
                f"unknown   {unknown:,} characters are not in the vocabulary and count as one: "
                "bits per byte leave them out, and compare with nothing"
            )
        if not self.prepared.facts["lossless"]:
            warnings.append(
                "lossy     the tokenizer loses part of the text, such as case and spaces: bits "
                "per byte compare with nothing"
            )
        if (why := self.reasons.get("schedule.warmup", "")).startswith(SHORTENED):
            warmup = self.config.schedule.warmup
            warnings.append(f"warm-up   {counted(warmup, 'step')}: {why}")
        return warnings

    def lines(self) -> list[str]:
        """What was chosen and why, for a person."""
        config, ledger, facts = self.config, self.ledger, self.prepared.facts
        model, train, reasons = config.model, config.train, self.reasons
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
            f"({_why_vocabulary(config, reasons)}): "
            f"{facts['train_tokens']:,} train, {facts['val_tokens']:,} val",
            f"model     {self.parameters['total']:,} parameters ({parts}): layers {model.layers}, "
            f"width {model.width}, heads {model.heads}, context {model.context}",
            f"device    {train.device} ({reasons.get('train.device', 'default')}), "
            f"{train.dtype} ({reasons.get('train.dtype', 'default')}), "
            f"{counted(train.threads, 'thread')} "
            f"({reasons.get('train.threads', 'default')})",
            f"form      {'compiled' if train.compile == 'on' else 'eager'} "
            f"({reasons.get('train.compile', 'default')}), {train.attention} attention "
            f"({reasons.get('train.attention', 'default')})",
            f"batch     {ledger.tokens_per_step:,} tokens an update: "
            f"{counted(train.batch, 'sequence')}"
            + (f" as {ledger.accumulation} micro-steps" if ledger.accumulation > 1 else ""),
            f"length    {counted(steps, 'step')} ({reasons.get('length.steps', 'default')}): "
            f"{ledger.tokens(steps):,} tokens, {ledger.passes(steps):.2f} passes",
            f"measured  every {counted(config.eval.every, 'step')} on {evaluated:,} val tokens "
            f"({reasons.get('eval.every', 'default')})",
            f"needs     {gigabytes(self.memory_bytes)} of memory, {gigabytes(self.disk_bytes)} "
            f"of disk: {config.save.keep + 2} checkpoints of {gigabytes(self.checkpoint_bytes)}",
            *self._warnings(),
            f"expected  {duration(self.seconds)} "
            f"({ledger.tokens_per_step / self.step_seconds:,.0f} tokens/s), until {end}",
        ]


def _why_vocabulary(config: Config, reasons: dict[str, str]) -> str:
    fixed = {"bytes": "one for each byte", "chars": "the characters of the text"}
    fixed["file"] = f"of {config.tokenizer.path}" if config.tokenizer.path else "of the weights"
    return fixed.get(config.tokenizer.kind) or reasons.get("tokenizer.vocab_size", "as given")


def duration(seconds: float) -> str:
    """`3 h 05 min`, `2 min 09 s`, `41 s`."""
    seconds = round(seconds)
    if seconds >= 3600:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    return f"{seconds // 60} min {seconds % 60:02d} s" if seconds >= 60 else f"{seconds} s"


SHORTENED = "half of"  # how the reason of a shortened warm-up begins


def make_plan(settings: Settings, prepared: Prepared, say: Say = lambda _: None) -> Plan:
    """Choose what `settings` leaves open, time a few updates, and fix the number of steps. `say` is
    told what takes time."""
    open_form = unsettled(settings)
    choose_machine(settings)
    settings.choose("model.vocab_size", prepared.tokenizer.vocab_size, "from the tokenizer")
    _choose_prompts(settings, prepared)
    device = settle(settings.get("train.device"), settings.get("train.threads"))
    # a val text too short is said before time passes
    fixed_blocks(prepared.val, settings.get("model.context"), 0)
    try:
        minutes = choose_size(settings, prepared, device, say)
        memory.check(settings.resolve(), device)
        _choose_micro_batch(settings, prepared, device)
        choose_form(settings, open_form, minutes, prepared.train, device, say)
        draft = settings.resolve()
        updater = Updater(draft, prepared.train, device)
        byte_lengths = prepared.tokenizer.byte_lengths()
        probe = Probe(updater, prepared.val, byte_lengths, draft.length.minutes > 0)
    except (RuntimeError, MemoryError) as error:
        raise memory.refusal(error, settings.resolve(), device) from None
    steps = _choose_length(settings, updater.ledger, probe, len(prepared.val))
    if steps * probe.step_seconds > LONGEST:
        raise UserError(
            f"{steps:,} steps at {probe.step_seconds:.2g} s each would take longer than ten years."
        )
    _choose_warmup(settings, steps)
    _choose_evaluation(settings, updater.ledger, steps, len(prepared.val))
    config = settings.resolve()
    config = msgspec.structs.replace(config, model=updater.model.config)
    updater.config = config
    evaluations = steps // config.eval.every + 2
    evaluated = 2 * min(config.eval.tokens, len(prepared.val)) * evaluations
    evaluated += min(len(prepared.val), full_tokens(updater.ledger.tokens(steps)))
    return Plan(
        config=config,
        reasons=settings.reasons,
        prepared=prepared,
        updater=updater,
        parameters=count_parameters(config.model),
        seconds=steps * probe.step_seconds + evaluated * probe.eval_token_seconds,
        step_seconds=probe.step_seconds,
    )


def _choose_micro_batch(settings: Settings, prepared: Prepared, device: torch.device) -> None:
    """The whole batch at once if memory allows, unless another number is given, or `auto`."""
    batch, micro = settings.get("train.batch"), settings.get("train.micro_batch")
    free, _ = memory.memory(device)
    if not micro and memory.estimated(settings.resolve(), free) == batch:
        settings.choose("train.micro_batch", batch, "the whole batch at once")
    elif micro > 0 and batch % micro and settings.left_open("train.micro_batch"):
        part = math.gcd(batch, micro)
        settings.choose("train.micro_batch", part, f"the preset's {micro}, as a part of {batch}")
    elif micro in (0, AUTO):
        found = memory.largest(settings.resolve(), prepared.train, device)
        settings.choose("train.micro_batch", found, f"the largest part of {batch} that fits")
    else:
        memory.check_micro_batch(batch, micro)


class Probe:
    """Seconds per update and per evaluated token, measured on the real shapes, then undone."""

    def __init__(
        self, updater: Updater, val: np.ndarray, byte_lengths: np.ndarray, careful: bool
    ) -> None:
        budget = PROBE_SECONDS["minutes" if careful else "other"]
        updater.update(1, 10**6)  # the first one allocates
        wait(updater.device)
        begin, updates = time.monotonic(), 0
        while not updates or (time.monotonic() - begin < budget and updates < 200):
            updates += 1
            updater.update(1 + updates, 10**6)
            wait(updater.device)
        self.step_seconds = (time.monotonic() - begin) / updates
        blocks = fixed_blocks(val, updater.config.model.context, 4096)
        begin = time.monotonic()
        measured = score(updater.model, blocks, byte_lengths, updater.device)
        self.eval_token_seconds = (time.monotonic() - begin) / measured.tokens
        updater.reset()


def _choose_length(settings: Settings, ledger: Ledger, probe: Probe, val_tokens: int) -> int:
    """Turn the given length into steps, once; the schedule ends there."""
    length = settings.resolve().length
    if length.steps:
        return length.steps
    if length.tokens:
        steps, reason = ledger.steps_for_tokens(length.tokens), f"{length.tokens:,} tokens"
    elif length.minutes:
        whole = min(val_tokens, full_tokens(0)) * probe.eval_token_seconds / (60 * length.minutes)
        kept = min(max(KEPT, whole + KEPT_BESIDE), MOST_KEPT)
        steps = max(1, math.floor(60 * length.minutes * (1 - kept) / probe.step_seconds))
        reason = (
            f"{length.minutes:g} minutes at {1 / probe.step_seconds:.3g} steps/s, measured, "
            f"with {kept:.0%} kept for what is not training"
        )
        most = ledger.steps_for_passes(MOST_PASSES)
        if settings.get("model.size") == "auto" and steps > most:
            reason = (
                f"{MOST_PASSES:g} passes, more than which the text does not bear: "
                f"{length.minutes:g} minutes would be {ledger.passes(steps):.0f}"
            )
            steps = most
    else:
        passes = length.passes or 1.0
        steps = ledger.steps_for_passes(passes)
        reason = f"{passes:g} passes" if length.passes else "one pass, as no length was given"
    settings.add({"length.steps": steps}, reason)
    return steps


def _choose_warmup(settings: Settings, steps: int) -> None:
    """At most half of the run, as `schedule.rate` would have it; but said, and saved."""
    given = settings.get("schedule.warmup")
    if given > steps // 2:
        source = settings.reasons.get("schedule.warmup", "default")
        reason = f"{SHORTENED} {counted(steps, 'step')}; {given:,} ({source}) is more"
        settings.choose("schedule.warmup", steps // 2, reason)


def _choose_evaluation(settings: Settings, ledger: Ledger, steps: int, val_tokens: int) -> None:
    """Cadence and size so that evaluation stays a small share: a token evaluated costs about a
    third of one trained on, and there are two sets."""
    if not settings.get("eval.every"):
        every = max(1, math.ceil(steps / EVALUATIONS))
        reason = f"{counted(math.ceil(steps / every), 'evaluation')} a run"
        settings.choose("eval.every", every, reason)
    evaluations = steps / settings.get("eval.every") + 1
    if not settings.get("sample.every"):
        every = settings.get("eval.every") * math.ceil((evaluations - 1) / SAMPLINGS)
        settings.choose("sample.every", every, f"{SAMPLINGS} times a run, and at its end")
    if not settings.get("eval.tokens"):
        allowed = EVALUATION_SHARE * 3 * ledger.tokens(steps)
        # at the end, which leaves half to the others
        whole = min(val_tokens, full_tokens(ledger.tokens(steps)))
        share = max(allowed - whole, allowed / 2) / (2 * evaluations)
        blocks = min(round(share / ledger.context), 262_144 // ledger.context + 1)
        reason = f"evaluation takes about {EVALUATION_SHARE:.1%} of the time"
        if blocks < FEWEST_BLOCKS:
            blocks, reason = FEWEST_BLOCKS, f"{FEWEST_BLOCKS} blocks, for their standard error"
        tokens = min(blocks * ledger.context, max(val_tokens - 1, 1))
        settings.choose("eval.tokens", tokens, reason)


def _choose_prompts(settings: Settings, prepared: Prepared) -> None:
    """Three beginnings out of the held-out text, where the user gives no prompts."""
    if settings.get("sample.prompts") or not settings.get("sample.tokens"):
        return
    tokens, lengths = prepared.val, prepared.tokenizer.byte_lengths()
    prompts = []
    for i in range(3):
        ids = tokens[len(tokens) * i // 3 :][:64].tolist()
        ids = [t for t in ids if lengths[t]]
        wanted = int(np.searchsorted(np.cumsum(lengths[ids]), PROMPT_BYTES)) + 1
        prompts.append(prepared.tokenizer.decode(ids[:wanted]).strip("\ufffd"))
    settings.choose("sample.prompts", prompts, "from the held-out text")
