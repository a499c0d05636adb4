"""From settings and text to a plan: every value in place, every choice with its reason."""

from __future__ import annotations

import math
import time
from typing import NamedTuple

import numpy as np
import torch

from ..config import AUTO
from ..errors import Say, UserError
from ..ledger import Ledger
from ..model.decoder import count_parameters
from ..settings import Settings
from ..text.batches import fixed_blocks
from ..text.prepare import Prepared
from ..text.tokenizers import Cost
from ..wording import counted
from . import memory
from .evaluate import full_tokens, score
from .forms import choose_form
from .machine import choose_machine
from .plan import Plan
from .settle import settle
from .sizing import choose_size, most_passes
from .timing import update_seconds
from .update import FAR, Updater

EVALUATIONS = 16  # over a run, where the user asks for no other cadence
SAMPLINGS = 4  # and the end
EVALUATION_SHARE = 0.012  # of the run's time, about, the last one on the whole split among it
FEWEST_BLOCKS = 16  # of each set
KEPT = 0.05  # of a time that is given: for evaluation, samples, saving and the last figure
KEPT_BESIDE, MOST_KEPT = 0.03, 0.5  # beside a last figure that takes much of a short time
PROMPT_BYTES = 24
LONGEST = 10 * 365 * 24 * 3600  # seconds
TIMED_SECONDS = {"minutes": 1.5, "other": 0.3}


def make_plan(settings: Settings, prepared: Prepared, say: Say = lambda _: None) -> Plan:
    """Choose what `settings` leaves open, time a few updates, and fix the number of steps. `say` is
    told what takes time."""
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
        choose_form(settings, minutes, prepared.train, device, say)
        draft = settings.resolve()
        updater = Updater(draft, prepared.train, device)
        cost = prepared.tokenizer.cost
        seconds = _seconds(updater, prepared.val, cost, draft.length.minutes > 0)
    except (RuntimeError, MemoryError) as error:
        raise memory.refusal(error, settings.resolve(), device) from None
    steps = _choose_length(settings, updater.ledger, seconds, len(prepared.val))
    if steps * seconds.step > LONGEST:
        raise UserError(
            f"{steps:.3g} steps at {seconds.step:.2g} s each would take longer than ten years."
        )
    shortened = _shorten_warmup(settings, steps)
    _choose_evaluation(settings, updater.ledger, steps, len(prepared.val))
    updater.config = config = settings.resolve().having(model=updater.model.config)
    evaluations = steps // config.eval.every + 2
    evaluated = 2 * min(config.eval.tokens, len(prepared.val)) * evaluations
    evaluated += min(len(prepared.val), full_tokens(updater.ledger.tokens(steps)))
    return Plan(
        config=config,
        reasons=settings.reasons,
        prepared=prepared,
        updater=updater,
        parameters=count_parameters(config.model),
        seconds=steps * seconds.step + evaluated * seconds.eval_token,
        step_seconds=seconds.step,
        shortened=shortened,
    )


def _choose_micro_batch(settings: Settings, prepared: Prepared, device: torch.device) -> None:
    """The whole batch at once if memory allows, unless another number is given, or `auto`."""
    batch, micro = settings.get("train.batch"), settings.get("train.micro_batch")
    free, _ = memory.memory(device)
    if not micro and memory.estimated(settings.resolve(), free) == batch:
        settings.choose("train.micro_batch", batch, "the whole batch at once")
    elif micro > 0 and batch % micro and settings.not_given("train.micro_batch"):
        part = math.gcd(batch, micro)
        settings.choose("train.micro_batch", part, f"the preset's {micro}, as a part of {batch}")
    elif micro in (0, AUTO):
        found = memory.largest(settings.resolve(), prepared.train, device)
        settings.choose("train.micro_batch", found, f"the largest part of {batch} that fits")
    else:
        memory.check_micro_batch(batch, micro)


class Seconds(NamedTuple):
    """Measured: of one update, and of each token that is evaluated."""

    step: float
    eval_token: float


def _seconds(updater: Updater, val: np.ndarray, cost: Cost, careful: bool) -> Seconds:
    """Measured on the real shapes, then undone."""
    budget = TIMED_SECONDS["minutes" if careful else "other"]
    updater.update(1, FAR)  # the first one allocates
    taken: list[float] = []
    while not taken or (sum(taken) < budget and len(taken) < 200):
        taken.append(update_seconds(updater, 2 + len(taken)))
    taken = taken[1:] or taken  # the second one may take twice as long, too
    blocks = fixed_blocks(val, updater.config.model.context, 4096)
    score(updater.model, blocks, cost, updater.device)  # the first one allocates, here too
    begin = time.monotonic()
    measured = score(updater.model, blocks, cost, updater.device)
    eval_token = (time.monotonic() - begin) / measured.tokens
    updater.reset()
    return Seconds(sum(taken) / len(taken), eval_token)


def _choose_length(settings: Settings, ledger: Ledger, seconds: Seconds, val_tokens: int) -> int:
    """Turn the given length into steps, once; the schedule ends there."""
    length = settings.resolve().length
    if length.steps:
        return length.steps
    if length.tokens:
        steps, reason = ledger.steps_for_tokens(length.tokens), counted(length.tokens, "token")
    elif length.minutes:
        whole = min(val_tokens, full_tokens(0)) * seconds.eval_token / (60 * length.minutes)
        kept = min(max(KEPT, whole + KEPT_BESIDE), MOST_KEPT)
        steps = max(1, math.floor(60 * length.minutes * (1 - kept) / seconds.step))
        reason = (
            f"{counted(length.minutes, 'minute')} at {1 / seconds.step:.3g} steps/s, measured, "
            f"with {kept:.0%} kept for what is not training"
        )
        passes = most_passes(settings.resolve())
        most = ledger.steps_for_passes(passes)
        if settings.get("model.size") == "auto" and steps > most:
            reason = (
                f"{counted(passes, 'pass')}, more than which the text does not bear: "
                f"{counted(length.minutes, 'minute')} would be {ledger.passes(steps):.2g}"
            )
            steps = most
    else:
        passes = length.passes or 1.0
        steps = ledger.steps_for_passes(passes)
        reason = counted(passes, "pass") if length.passes else "one pass, as no length was given"
    settings.add({"length.steps": steps}, reason)
    return steps


def _shorten_warmup(settings: Settings, steps: int) -> bool:
    """To half of the run, as `schedule.rate` would have it; but said, and saved. Whether it was
    longer."""
    given = settings.get("schedule.warmup")
    if given <= steps // 2:
        return False
    source = settings.reasons.get("schedule.warmup", "default")
    reason = f"half of {counted(steps, 'step')}; {given:,} ({source}) is more"
    settings.choose("schedule.warmup", steps // 2, reason)
    return True


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
    tokens, tokenizer = prepared.val, prepared.tokenizer
    lengths = tokenizer.cost.n_bytes
    prompts = []
    for i in range(3):
        ids = tokens[len(tokens) * i // 3 :][:64].tolist()
        ids = [t for t in ids if lengths[t] and t != tokenizer.unknown]
        wanted = int(np.searchsorted(np.cumsum(lengths[ids]), PROMPT_BYTES)) + 1
        prompts.append(tokenizer.decode(ids[:wanted]).strip("\ufffd"))
    settings.choose("sample.prompts", prompts, "from the held-out text")
