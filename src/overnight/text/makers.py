"""New tokenizers, made from the training text."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import msgspec

from . import formats
from .formats import BEGIN, BYTE_LETTERS, CLASSIC_UNKNOWN, CONTINUATION, END, SEPARATOR, UNKNOWN
from .tokenizers import Tokenizer


def bytes_tokenizer(separator: bool) -> Tokenizer:
    """256 ids, one for each byte, and the separator where it is wanted."""
    vocab = _numbered([*BYTE_LETTERS, *_separator(separator)])
    return Tokenizer(formats.write(formats.bpe(vocab, []), formats.BYTES, formats.FROM_LETTERS))


def chars_tokenizer(characters: Iterable[str], separator: bool) -> Tokenizer:
    """The sorted characters, then `<unk>`, then the separator where it is wanted."""
    vocab = _numbered([*sorted(set(characters)), UNKNOWN, *_separator(separator)])
    return Tokenizer(formats.write(formats.word_level(vocab), formats.CHARS, formats.JOINED))


def train(kind: str, texts: Iterable[str], vocab_size: int, separator: bool) -> Tokenizer:
    """A `bpe`, `wordpiece` or `wordpiece-classic` tokenizer of `vocab_size` ids, special ones
    among them; fewer where the text has no more pieces that occur twice."""
    if kind == "bpe":
        return train_bpe(texts, vocab_size, separator)
    return train_wordpiece(texts, vocab_size, classic=kind == "wordpiece-classic")


def train_bpe(texts: Iterable[str], vocab_size: int, separator: bool) -> Tokenizer:
    """Byte-level BPE. The 256 bytes are always there, so everything encodes."""
    from tokenizers import models, trainers

    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - separator,
        min_frequency=2,
        initial_alphabet=sorted(BYTE_LETTERS),
        show_progress=False,
    )
    model = _trained(models.BPE(), trainer, texts, formats.WORDS, None)
    vocab = _numbered([*_in_order(model["vocab"]), *_separator(separator)])
    json = formats.write(formats.bpe(vocab, model["merges"]), formats.WORDS, formats.FROM_LETTERS)
    return Tokenizer(json)


def train_wordpiece(texts: Iterable[str], vocab_size: int, classic: bool) -> Tokenizer:
    """WordPiece with `[CLS]` and `[SEP]` around documents.

    Lossless: the pieces are of bytes, each byte is there as the start of a word and as its
    continuation, which is marked by a character that text cannot hold. Classic (BERT's): lower
    case, words at white space and punctuation, `##` before a continuation, `[UNK]` for what
    cannot be written.
    """
    from tokenizers import models, trainers

    prefix = "##" if classic else CONTINUATION
    base = [] if classic else [*BYTE_LETTERS, *(CONTINUATION + b for b in BYTE_LETTERS)]
    special = [CLASSIC_UNKNOWN, BEGIN, END] if classic else [BEGIN, END]
    normalizer, words, decoder = (
        (formats.LOWER_CASE, formats.BERT, formats.FROM_WORDS)
        if classic
        else (None, formats.SHORT_WORDS, formats.FROM_PIECES)
    )
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size - len(special),
        min_frequency=2,
        initial_alphabet=[] if classic else sorted(BYTE_LETTERS),
        limit_alphabet=1000,
        continuing_subword_prefix=prefix,
        show_progress=False,
    )
    model = _trained(models.WordPiece(unk_token=CLASSIC_UNKNOWN), trainer, texts, words, normalizer)
    known = set(base)
    learned = [piece for piece in _in_order(model["vocab"]) if piece not in known]
    room = vocab_size - len(base) - len(special)
    vocab = _numbered([*base, *learned[:room], *special])
    return Tokenizer(formats.write(formats.word_piece(vocab, prefix), words, decoder, normalizer))


def least_vocab_size(kind: str, separator: bool) -> int:
    """Ids that `kind` needs before anything is learned."""
    return {"bpe": 256 + separator, "wordpiece": 2 * 256 + 2}.get(kind, 4)


def suggest_vocab_size(n_bytes: int) -> tuple[int, str]:
    """A vocabulary for a training text of `n_bytes`, and why: 1,024 for 1 MB of text, 4,096
    for 12 MB (measured best there), 16,384 for 100 MB; never more than 32,768."""
    megabytes = n_bytes / 1e6
    size = 2 ** round(math.log2(1024 * max(megabytes, 0.01) ** 0.6))
    size = min(max(size, 1024), 32_768)
    return size, f"fits {megabytes:,.1f} MB of training text (about 1,024 · MB^0.6)"


def _trained(
    model: Any, trainer: Any, texts: Iterable[str], words: formats.Tree, normalizer: Any
) -> formats.Tree:
    """The model part of what the `tokenizers` library learns from `texts`."""
    from tokenizers import Tokenizer as Library

    library = Library.from_str(formats.write(formats.bpe({}, []), words, None, normalizer))
    library.model = model
    library.train_from_iterator(texts, trainer)
    tree: formats.Tree = msgspec.json.decode(library.to_str())["model"]
    return tree


def _separator(wanted: bool) -> list[str]:
    return [SEPARATOR] if wanted else []


def _in_order(vocab: dict[str, int]) -> list[str]:
    return sorted(vocab, key=vocab.__getitem__)


def _numbered(tokens: list[str]) -> dict[str, int]:
    return {token: i for i, token in enumerate(tokens)}
