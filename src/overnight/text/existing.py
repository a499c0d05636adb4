"""Tokenizers that exist: a file, a `tiktoken` encoding, a Hub name. Never from the network:
what is not on this machine is an error."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ..errors import UserError
from . import formats
from .formats import BYTE_LETTERS
from .tokenizers import Tokenizer


def find(name: str) -> Tokenizer:
    """The tokenizer at a path (`tokenizer.json`, or a folder that holds it), or the one that a
    `tiktoken` or Hub name stands for in the caches of those libraries."""
    if not name:
        raise UserError('tokenizer.kind = "file" needs tokenizer.path: a tokenizer.json or a name.')
    path = Path(name).expanduser()
    if path.is_dir():
        path = path / "tokenizer.json"
    if path.is_file():
        return Tokenizer.load(path)
    tokenizer = _from_tiktoken(name) or _from_hub(name)
    if tokenizer is None:
        raise UserError(
            f"tokenizer.path = {name}: no such file, and no tokenizer of this name in the caches "
            "of tiktoken (TIKTOKEN_CACHE_DIR) and of the Hub (HF_HOME); nothing is downloaded."
        )
    return tokenizer


def _from_hub(name: str) -> Tokenizer | None:
    if importlib.util.find_spec("huggingface_hub") is None:
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        path = try_to_load_from_cache(name, "tokenizer.json")
    except HFValidationError:
        return None
    return Tokenizer.load(path) if isinstance(path, str) else None


def _from_tiktoken(name: str) -> Tokenizer | None:
    if importlib.util.find_spec("tiktoken") is None:
        return None
    import tiktoken
    import tiktoken.load

    if name not in tiktoken.list_encoding_names():
        return None
    with patch.object(tiktoken.load, "read_file", _not_here), suppress(_NotHereError):
        return from_tiktoken(tiktoken.get_encoding(name))
    return None


class _NotHereError(Exception):
    """A file that only the network has."""


def _not_here(address: str) -> bytes:
    """In place of what `tiktoken` calls where its cache ends."""
    raise _NotHereError


def from_tiktoken(encoding: Any) -> Tokenizer:
    """A `tiktoken.Encoding` as tokenizer.json: the same ids; its special tokens as such."""
    ranks: dict[bytes, int] = encoding._mergeable_ranks
    vocab = {_letters(token): rank for token, rank in ranks.items()}
    merges = [[_letters(a), _letters(b)] for a, b in _merges(ranks)]
    special = [
        {
            "id": i,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for token, i in sorted(encoding._special_tokens.items(), key=lambda item: item[1])
    ]
    words = formats.sequence("pretokenizers", formats.split_on(encoding._pat_str), formats.BYTES)
    # a word that is a token as a whole is taken as it is, as tiktoken does
    model = formats.bpe(vocab, merges) | {"ignore_merges": True}
    return Tokenizer(formats.write(model, words, formats.FROM_LETTERS, added_tokens=special))


def _letters(token: bytes) -> str:
    return "".join(BYTE_LETTERS[byte] for byte in token)


def _merges(ranks: dict[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """The pair that each token is merged from: what is left of it when only tokens of lower rank
    may be merged (as `transformers` and `tiktoken` recover them)."""
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        parts = [token[i : i + 1] for i in range(len(token))]
        while len(parts) > 2:
            joined = [ranks.get(a + b, rank) for a, b in pairwise(parts)]
            best = min(range(len(joined)), key=joined.__getitem__)
            if joined[best] >= rank:
                break
            parts[best : best + 2] = [parts[best] + parts[best + 1]]
        if len(parts) == 2:
            yield parts[0], parts[1]
