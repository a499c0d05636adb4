"""Sampling: one token at a time from the cached state, streamed as text.

Greedy, temperature, top-k, top-p (Holtzman et al. 2020), repetition penalty (Keskar et al. 2019).
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import torch
from torch import Tensor

from ..errors import UserError
from ..keyed import key
from ..model.decoder import Decoder
from ..text.tokenizers import Stream, Tokenizer


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How the next token is drawn; the defaults draw from the model's own distribution."""

    max_tokens: int = 256
    temperature: float = 1.0  # 0: the most likely token
    top_k: int = 0  # 0: all
    top_p: float = 1.0
    seed: int = 1


def continue_text(
    model: Decoder, tokenizer: Tokenizer, prompt: str, sampling: Sampling
) -> Iterator[str]:
    """The continuation of `prompt`, piece by piece; the prompt itself is not repeated. Ends at
    the document separator or after `max_tokens`. An empty prompt starts a document."""
    ids = tokenizer.encode(prompt) or [tokenizer.separator or 0]
    stream = Stream(tokenizer)
    for token in continue_ids(model, ids, sampling):
        if token == tokenizer.separator:
            break
        if piece := stream.push(token):
            yield piece
    if piece := stream.flush():
        yield piece


@torch.inference_mode()
def continue_ids(model: Decoder, ids: list[int], sampling: Sampling) -> Iterator[int]:
    """Sampled ids after `ids`. Beyond a learned position's last place, the last half of the
    window is kept and filled in again."""
    was_training = model.training
    model.eval()
    try:
        yield from _continue(model, ids, sampling)
    finally:
        model.train(was_training)


def _continue(model: Decoder, ids: list[int], sampling: Sampling) -> Iterator[int]:
    limit = model.config.context if model.positions is not None else None
    random = torch.Generator().manual_seed(key(sampling.seed, "sample"))
    seen = list(ids)
    window = seen if limit is None else seen[-limit:]
    logits, state = model.decode(_row(model, window))
    for _ in range(sampling.max_tokens):
        token = choose(logits[0, -1].float().cpu(), sampling, random)
        yield token
        seen.append(token)
        if limit is not None and state.length >= limit:
            logits, state = model.decode(_row(model, seen[-max(1, limit // 2) :]))
        else:
            logits, state = model.decode(_row(model, [token]), state)


def _row(model: Decoder, ids: list[int]) -> Tensor:
    return torch.tensor([ids], dtype=torch.int64, device=model.embed.device)


def choose(logits_V: Tensor, sampling: Sampling, random: torch.Generator) -> int:
    """One id drawn from float32 `logits_V` (on the CPU)."""
    if sampling.temperature == 0:
        return int(logits_V.argmax())
    scaled = logits_V / sampling.temperature
    if 0 < sampling.top_k < len(scaled):
        kept = scaled.topk(sampling.top_k)
        scaled = torch.full_like(scaled, -torch.inf).scatter(0, kept.indices, kept.values)
    probabilities = scaled.softmax(-1)
    if sampling.top_p < 1:
        ordered, order = probabilities.sort(descending=True)
        before = ordered.cumsum(0) - ordered
        probabilities = probabilities.clone()
        probabilities[order[before >= sampling.top_p]] = 0
    return int(torch.multinomial(probabilities, 1, generator=random))


def check(sampling: Sampling) -> None:
    """Refuse what makes no sense, in one line."""
    if sampling.temperature < 0:
        raise UserError(f"--temperature {sampling.temperature} is below 0.")
    if sampling.top_k < 0:
        raise UserError(f"--top-k {sampling.top_k} is below 0.")
    if not 0 < sampling.top_p <= 1:
        raise UserError(f"--top-p {sampling.top_p} is not in (0, 1].")
    if sampling.max_tokens < 1:
        raise UserError(f"--max-tokens {sampling.max_tokens} is below 1.")
