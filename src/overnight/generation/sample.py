"""Sampling: one token at a time from the cached state, for a batch of prompts, streamed as text.

Greedy, temperature, top-k, top-p (Holtzman et al. 2020), repetition penalty (Keskar et al. 2019),
stop strings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import msgspec
import torch
from torch import Tensor

from ..errors import Say, UserError
from ..keyed import key
from ..model.decoder import Decoder
from ..text.tokenizers import Stream, Tokenizer


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How the next token is drawn; the defaults draw from the model's own distribution."""

    max_tokens: int = 256
    temperature: float = 1.0  # 0: the most likely token
    top_k: int = 0  # 0: all
    top_p: float = 1.0
    repetition_penalty: float = 1.0  # 1: none
    stop: tuple[str, ...] = ()  # the continuation ends before the first of these
    seed: int = 1

    def check(self) -> None:
        """Refuse what makes no sense, in one line."""
        rules = {
            "max_tokens": (self.max_tokens >= 1, "1 or more"),
            "temperature": (self.temperature >= 0, "0 or more"),
            "top_k": (self.top_k >= 0, "0 (all) or more"),
            "top_p": (0 < self.top_p <= 1, "above 0, and at most 1"),
            "repetition_penalty": (self.repetition_penalty > 0, "above 0"),
        }
        for name, (holds, range_) in rules.items():
            if not holds:
                flag = f"--{name.replace('_', '-')}"
                raise UserError(f"{flag} {getattr(self, name)}: give a number that is {range_}.")


# Float32 has no reciprocal of much less; all but equal logits are infinitely far apart here
COLDEST = 1e-37
FEW = 256  # tokens that mostly hold the share of `top_p`


def continue_text(
    model: Decoder, tokenizer: Tokenizer, prompt: str, sampling: Sampling, warn: Say = print
) -> Iterator[str]:
    """The continuation of `prompt`, piece by piece; the prompt itself is not repeated. Ends at
    the document separator, before a stop string, or after `max_tokens`. An empty prompt starts a
    document, or a line where texts have no beginning of their own."""
    ids = tokenizer.encode(prompt) or tokenizer.document_start or tokenizer.encode("\n") or [0]
    stream, held = Stream(tokenizer, before=ids), ""
    for (token,) in continue_ids(model, [ids], sampling, warn):
        if token == tokenizer.separator:
            break
        held += stream.push(token)
        cut = _first(held, sampling.stop)
        if cut >= 0:
            yield held[:cut]
            return
        ready = len(held) - _begun(held, sampling.stop)
        if ready:
            yield held[:ready]
            held = held[ready:]
    held += stream.flush()
    cut = _first(held, sampling.stop)
    if held[: cut if cut >= 0 else None]:
        yield held[: cut if cut >= 0 else None]


def _first(text: str, stops: tuple[str, ...]) -> int:
    """Where the first stop string begins in `text`, or −1."""
    return min((at for at in (text.find(s) for s in stops) if at >= 0), default=-1)


def _begun(text: str, stops: tuple[str, ...]) -> int:
    """How many characters at the end of `text` may be the beginning of a stop string."""
    longest = max((len(s) for s in stops), default=1) - 1
    lengths = range(min(longest, len(text)), 0, -1)
    return next((n for n in lengths if any(s.startswith(text[-n:]) for s in stops)), 0)


def continue_ids(
    model: Decoder, prompts: list[list[int]], sampling: Sampling, warn: Say = print
) -> Iterator[tuple[int, ...]]:
    """Sampled ids after `prompts` (of equal length), one tuple a token, `max_tokens` times.

    Row i draws its random numbers from (seed + i), so it reads the same alone. Where positions
    are learned, a full window is cut to its last half and filled in again; that is said once.
    """
    was_training = model.training
    model.eval()
    try:
        yield from _continue(model, prompts, sampling, warn)
    finally:
        model.train(was_training)


def _continue(
    model: Decoder, prompts: list[list[int]], sampling: Sampling, warn: Say
) -> Iterator[tuple[int, ...]]:
    limit = model.config.context if model.positions is not None else None
    device = model.embed.device
    seen = [list(prompt) for prompt in prompts]
    choose_all = _chooser(len(prompts), sampling)
    first = seen if limit is None else [ids[-limit:] for ids in seen]
    logits_BTV, state = model.decode(torch.tensor(first, device=device), last=True)
    warned = False
    for left in reversed(range(sampling.max_tokens)):
        new_B = choose_all(logits_BTV[:, -1], seen)
        new = new_B.tolist()
        yield tuple(new)
        if not left:
            return
        for ids, token in zip(seen, new, strict=True):
            ids.append(token)
        if limit is None or state.length < limit:
            logits_BTV, state = model.decode(new_B[:, None].to(device), state)
            continue
        if not warned:
            warned = True
            warn(
                f"the window of {limit} learned positions is full: "
                "going on from its last half, each time it fills up"
            )
        half = torch.tensor([ids[-max(1, limit // 2) :] for ids in seen], device=device)
        logits_BTV, state = model.decode(half, last=True)


def _chooser(rows: int, sampling: Sampling) -> Callable[[Tensor, list[list[int]]], Tensor]:
    """What draws an id for each row from its logits and the ids before."""
    if sampling.temperature == 0 and sampling.repetition_penalty == 1:
        return lambda logits_BV, _: logits_BV.argmax(-1)
    randoms = [torch.Generator().manual_seed(key(sampling.seed + i, "sample")) for i in range(rows)]

    def each(logits_BV: Tensor, seen: list[list[int]]) -> Tensor:
        drawn = zip(logits_BV.float().cpu(), seen, randoms, strict=True)
        return torch.stack([choose(logits_V, ids, sampling, r) for logits_V, ids, r in drawn])

    return each


def choose(
    logits_V: Tensor, seen: Sequence[int], sampling: Sampling, random: torch.Generator
) -> Tensor:
    """One id drawn from float32 `logits_V` (on the CPU) after the ids `seen`."""
    if sampling.repetition_penalty != 1:
        ids = torch.as_tensor(seen).unique()
        old = logits_V[ids]
        factor = sampling.repetition_penalty
        logits_V = logits_V.scatter(0, ids, torch.where(old > 0, old / factor, old * factor))
    if sampling.temperature == 0:
        return logits_V.argmax()
    scaled = (logits_V - logits_V.max()) / max(sampling.temperature, COLDEST)
    if 0 < sampling.top_k < len(scaled):
        kept = scaled.topk(sampling.top_k)
        scaled = torch.full_like(scaled, -torch.inf).scatter(0, kept.indices, kept.values)
    probabilities = scaled.softmax(-1)
    if sampling.top_p < 1:
        probabilities = _most_likely(probabilities, sampling.top_p)
    return _draw(probabilities, random)


def _most_likely(probabilities_V: Tensor, share: float) -> Tensor:
    """With zeros beyond the most likely ones that hold `share`. Of a trained model they are few,
    and the rest need not be sorted."""
    kept, ids = probabilities_V.topk(min(FEW, len(probabilities_V)))
    if kept.sum() < share:
        kept, ids = probabilities_V.sort(descending=True)
    here = kept.cumsum(0) - kept < share
    return torch.zeros_like(probabilities_V).scatter(0, ids[here], kept[here])


def _draw(probabilities_V: Tensor, random: torch.Generator) -> Tensor:
    """By one random number, where `torch.multinomial` takes one for each of the vocabulary (8,192:
    167 µs for 14; docs/lab-notes.md, E49)."""
    below = probabilities_V.cumsum(0, dtype=torch.float64)
    if not math.isfinite(below[-1]):
        raise UserError("the model's numbers are no longer finite: nothing can be drawn.", 1)
    at = torch.rand((), dtype=torch.float64, generator=random) * below[-1]
    return torch.searchsorted(below, at, right=True)
