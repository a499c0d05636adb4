"""New tokenizers, made from the training text."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from . import formats
from .formats import BEGIN, BYTE_LETTERS, CLASSIC_UNKNOWN, CONTINUATION, END, SEPARATOR, UNKNOWN
from .tokenizers import Tokenizer

ALPHABET = 1000  # characters that classic WordPiece can write
ENDLESS, PARTS = re.compile(r"\S{1000}|\s{1000}"), re.compile(r"\s{0,64}\S{1,64}|\s{1,64}")
FEW_BYTES = 1.5e6  # of text, below which pieces recur too soon (docs/lab-notes.md, E18)


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
    if kind == "wordpiece":
        return train_wordpiece(texts, vocab_size)
    return train_classic(texts, vocab_size)


def train_bpe(texts: Iterable[str], vocab_size: int, separator: bool) -> Tokenizer:
    """Byte-level BPE. The 256 bytes are always there, so everything encodes."""
    from tokenizers import models, trainers

    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - separator,
        min_frequency=2,
        initial_alphabet=sorted(BYTE_LETTERS),
        show_progress=False,
    )
    model = _trained(models.BPE(), trainer, _parted(texts), formats.WORDS, None)
    vocab = _numbered([*_in_order(model["vocab"]), *_separator(separator)])
    json = formats.write(formats.bpe(vocab, model["merges"]), formats.WORDS, formats.FROM_LETTERS)
    return Tokenizer(json)


def _parted(texts: Iterable[str]) -> Iterator[str]:
    """Texts with words that are too long (a script without spaces, DNA on one line) in parts: the
    library takes minutes for a word of a megabyte."""
    for text in texts:
        yield from PARTS.findall(text) if ENDLESS.search(text) else [text]


def train_wordpiece(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """WordPiece of bytes, lossless: each byte is there as the start of a word and as its
    continuation, which is marked by a character that text cannot hold."""
    words, decoder = formats.SHORT_WORDS, formats.FROM_PIECES
    vocab = _pieces(texts, vocab_size, list(BYTE_LETTERS), CONTINUATION, [BEGIN, END], words)
    return Tokenizer(formats.write(formats.word_piece(vocab, CONTINUATION), words, decoder))


def train_classic(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """BERT's WordPiece, lossy: lower case, words at white space and punctuation, `##` before a
    continuation, `[UNK]` for a word with a character beyond the most frequent `ALPHABET`."""
    from tokenizers import normalizers

    texts = list(_parted(texts))
    lower = normalizers.BertNormalizer()
    seen: Counter[str] = Counter()
    for text in texts:
        seen.update(lower.normalize_str(text))
    usual = sorted((c for c in seen if not c.isspace()), key=lambda c: (-seen[c], c))[:ALPHABET]
    special = [CLASSIC_UNKNOWN, BEGIN, END]
    vocab = _pieces(
        texts, vocab_size, sorted(usual), "##", special, formats.BERT, formats.LOWER_CASE
    )
    model = formats.word_piece(vocab, "##")
    return Tokenizer(formats.write(model, formats.BERT, formats.FROM_WORDS, formats.LOWER_CASE))


def _pieces(
    texts: Iterable[str],
    vocab_size: int,
    letters: list[str],
    prefix: str,
    special: list[str],
    words: formats.Tree,
    normalizer: formats.Tree | None = None,
) -> dict[str, int]:
    """A WordPiece vocabulary: the letters, the letters as continuations, what the library learns,
    the special tokens.

    The continuations are given to the library beforehand: it would number them in the order of a
    hash table, another one every time, and break ties by these numbers.
    """
    from tokenizers import models, trainers

    base = [*letters, *(prefix + letter for letter in letters)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        initial_alphabet=letters,
        limit_alphabet=len(letters),
        special_tokens=base[len(letters) :],
        continuing_subword_prefix=prefix,
        show_progress=False,
    )
    model = models.WordPiece(unk_token=CLASSIC_UNKNOWN)
    known = set(base)
    learned = _in_order(_trained(model, trainer, texts, words, normalizer)["vocab"])
    learned = [piece for piece in learned if piece not in known]
    room = max(0, vocab_size - len(base) - len(special))
    return _numbered([*base, *learned[:room], *special])


def least_vocab_size(kind: str, separator: bool) -> int:
    """Ids that `kind` needs before anything is learned, whatever the text is."""
    return {"bpe": 256 + separator, "wordpiece": 2 * 256 + 2}.get(kind, 5)


def suggest_kind(n_bytes: int) -> tuple[str, str]:
    """A kind of token for a training text of `n_bytes`, and why."""
    megabytes = f"{n_bytes / 1e6:,.1f} MB of training text"
    if n_bytes < FEW_BYTES:
        return "bytes", f"{megabytes}: pieces of words would recur too soon"
    return "bpe", f"{megabytes}: enough for pieces of words"


def suggest_vocab_size(n_bytes: int) -> tuple[int, str]:
    """A vocabulary for a training text of `n_bytes`, and why: 1,024 for 1 MB of text, 4,096
    for 12 MB (measured best there), 16,384 for 100 MB; never more than 32,768."""
    megabytes = n_bytes / 1e6
    size = 2 ** round(math.log2(1024 * max(megabytes, 0.01) ** 0.6))
    fit = min(max(size, 1024), 32_768)
    rule = "about 1,024 · MB^0.6" if fit == size else "the least" if size < fit else "the most"
    return fit, f"fits {megabytes:,.1f} MB of training text ({rule})"


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
