"""Tokenizers: text ↔ ids, one class for every kind.

A tokenizer *is* its `tokenizer.json` (the format of the `tokenizers` library): each maker below
writes such a file, and `Tokenizer` reads everything it does from it. So a saved tokenizer is by
construction the one that was used, and the library gives the same ids for it.

Kinds, told by the file's structure:

- `bytes`: id = byte.
- `chars`: id = rank of the character in the training text, then `<unk>`: a prompt may always hold
  a character that the training text had not.
- `bpe`: byte-level BPE with GPT-2's pre-tokenisation; encoded by `gigatoken`.
- `other`: whatever else the library can load.

Special tokens are entries of the vocabulary that no text can produce, not even text that spells
them: they are no "added tokens", which the library would look for in the text. `<|endoftext|>`
stands in front of every document, where the training text has more than one.
"""

from __future__ import annotations

import codecs
import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..errors import UserError

SEPARATOR = "<|endoftext|>"
UNKNOWN = "<unk>"
REPLACEMENT = "\ufffd"
MAX_FILE_BYTES = 256 * 2**20
MAX_VOCAB = 2**20

FAST = ("bytes", "chars", "bpe")  # kinds not encoded by the `tokenizers` library

Ids = NDArray[np.uint32]
Tree = dict[str, Any]


# ---- the file ------------------------------------------------------------------------------


class _Added(msgspec.Struct):
    id: int
    content: str
    special: bool = False


class _Model(msgspec.Struct):
    type: str
    vocab: dict[str, int]
    merges: list[Any] = []
    unk_token: str | None = None


class _File(msgspec.Struct):
    """The parts of a tokenizer.json that this module looks at."""

    model: _Model
    added_tokens: list[_Added] = []
    normalizer: Tree | None = None
    pre_tokenizer: Tree | None = None
    decoder: Tree | None = None

    @property
    def kind(self) -> str:
        text = [t for t in self.model.vocab if t not in (SEPARATOR, UNKNOWN)]
        byte_level = self.normalizer is None and self.pre_tokenizer in (_byte_level(True), _BYTES)
        if byte_level and self.model.type == "BPE":
            if self.pre_tokenizer == _byte_level(True):
                return "bpe"
            if (
                [self.model.vocab.get(c) for c in BYTE_LETTERS]
                == list(range(256))
                == sorted(self.model.vocab[t] for t in text)
            ):
                return "bytes"
        if self.model.type == "WordLevel" and self.pre_tokenizer == _CHARS:
            return "chars"
        return "other"


def _byte_level(use_regex: bool) -> Tree:
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": use_regex,
    }


_BYTES = _byte_level(False)
_CHARS: Tree = {
    "type": "Split",
    "pattern": {"Regex": r"[\s\S]"},
    "behavior": "Isolated",
    "invert": False,
}


def _letters() -> str:
    """GPT-2's printable letter for each of the 256 bytes (openai/gpt-2, `bytes_to_unicode`)."""
    shown = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = (chr(256 + i) for i in range(256))
    return "".join(chr(b) if b in shown else next(hidden) for b in range(256))


BYTE_LETTERS = _letters()
_BYTE_OF = {letter: byte for byte, letter in enumerate(BYTE_LETTERS)}


def _write(model: Tree, pre_tokenizer: Tree, decoder: Tree) -> str:
    tree: Tree = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": decoder,
        "model": model,
    }
    return msgspec.json.encode(tree).decode()


def _bpe_json(vocab: dict[str, int], merges: list[Any], pre_tokenizer: Tree) -> str:
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": vocab,
        "merges": merges,
    }
    return _write(model, pre_tokenizer, _byte_level(True))


# ---- the makers ----------------------------------------------------------------------------


def bytes_tokenizer(separator: bool) -> Tokenizer:
    """256 ids, one for each byte, and the separator where it is wanted."""
    vocab = {letter: byte for byte, letter in enumerate(BYTE_LETTERS)}
    return Tokenizer(_bpe_json(vocab | ({SEPARATOR: 256} if separator else {}), [], _BYTES))


def chars_tokenizer(characters: Iterable[str], separator: bool) -> Tokenizer:
    """The sorted characters, then `<unk>`, then the separator where it is wanted."""
    tokens = [*sorted(set(characters)), UNKNOWN, *([SEPARATOR] if separator else [])]
    vocab = {token: i for i, token in enumerate(tokens)}
    model = {"type": "WordLevel", "vocab": vocab, "unk_token": UNKNOWN}
    return Tokenizer(_write(model, _CHARS, {"type": "Fuse"}))


def train_bpe(texts: Iterable[str], vocab_size: int, separator: bool) -> Tokenizer:
    """Byte-level BPE of `vocab_size` ids, the separator among them, or fewer where the text has
    no more pairs that occur twice. The 256 bytes are always there, so everything encodes."""
    from tokenizers import Tokenizer as Library
    from tokenizers import models, pre_tokenizers, trainers

    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - separator,
        min_frequency=2,
        initial_alphabet=sorted(BYTE_LETTERS),
        show_progress=False,
    )
    library.train_from_iterator(texts, trainer)
    model = msgspec.json.decode(library.to_str())["model"]
    vocab = model["vocab"] | ({SEPARATOR: len(model["vocab"])} if separator else {})
    return Tokenizer(_bpe_json(vocab, model["merges"], _byte_level(True)))


def suggest_vocab_size(n_bytes: int) -> tuple[int, str]:
    """A BPE vocabulary for a training text of `n_bytes`, and why: 1,024 for 1 MB of text, 4,096
    for 12 MB (measured best there), 16,384 for 100 MB; never more than 32,768."""
    megabytes = n_bytes / 1e6
    size = 2 ** round(math.log2(1024 * max(megabytes, 0.01) ** 0.6))
    size = min(max(size, 512), 32_768)
    return size, f"fits {megabytes:,.1f} MB of training text (about 1,024 · MB^0.6)"


# ---- the tokenizer -------------------------------------------------------------------------


class Tokenizer:
    """Text ↔ ids. `decode(encode(x)) == x` for every text where `lossless` (for `chars`: every
    text of known characters; an unseen one is one `<unk>`, decoded as U+FFFD).

    `separator` and `unknown` are ids or None; `document_start` and `document_end` are what stands
    around a document in a token file.
    """

    def __init__(self, json: str, source: str = "tokenizer.json") -> None:
        self.json = json
        try:
            self._file = msgspec.json.decode(json, type=_File)
        except (msgspec.DecodeError, RecursionError) as error:
            raise UserError(f"{source}: not a tokenizer that can be used: {error}") from None
        vocab = self._file.model.vocab
        self._ids = vocab | {a.content: a.id for a in self._file.added_tokens}
        if not self._ids or not 0 <= min(self._ids.values()) <= max(self._ids.values()) < MAX_VOCAB:
            raise UserError(f"{source}: ids must lie in 0 … {MAX_VOCAB - 1:,}.")
        self.kind = self._file.kind
        self.vocab_size = max(self._ids.values()) + 1
        self.lossless = self.kind != "other" or _is_byte_level(self._file)
        self.separator = self._ids.get(SEPARATOR)
        self.unknown = self._ids.get(self._file.model.unk_token or "")
        self.document_start = [] if self.separator is None else [self.separator]
        self.document_end: list[int] = []

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        try:
            if Path(path).stat().st_size > MAX_FILE_BYTES:
                raise UserError(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB; no tokenizer.")
            return cls(Path(path).read_text(encoding="utf-8"), str(path))
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}.") from None
        except UnicodeDecodeError:
            raise UserError(f"{path}: not a tokenizer.json (not UTF-8).") from None

    def save(self, path: str | Path) -> None:
        """Write `tokenizer.json`, byte for byte as it was made or loaded."""
        Path(path).write_text(self.json, encoding="utf-8")

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the file: equal hashes, equal ids."""
        return hashlib.sha256(self.json.encode()).hexdigest()

    # ---- encoding

    def encode(self, text: str) -> list[int]:
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"The text has half a surrogate pair at character {error.start:,}: not Unicode."
            ) from None
        ids: list[int] = self.encode_bytes(data).tolist()
        return ids

    def encode_bytes(self, data: bytes) -> Ids:
        """The ids of UTF-8 text, without special tokens."""
        return self._encoder(data)

    def encode_many(self, texts: Sequence[bytes]) -> list[Ids]:
        """`encode_bytes` of each text."""
        if self.kind in FAST:
            return [self._encoder(text) for text in texts]
        many = self._library.encode_batch_fast(
            [t.decode() for t in texts], add_special_tokens=False
        )
        return [np.array(one.ids, np.uint32) for one in many]

    @property
    def cuts(self) -> str:
        """Where a text may be cut so that its parts encode to the ids of the whole: between
        `characters`, behind `words`, or `nowhere`."""
        if self.kind in ("bytes", "chars"):
            return "characters"
        return "words" if self.kind == "bpe" else "nowhere"

    @cached_property
    def _encoder(self) -> Callable[[bytes], Ids]:
        if self.kind == "bytes":
            return lambda data: np.frombuffer(data, np.uint8).astype(np.uint32)
        if self.kind == "chars":
            return self._encode_chars
        if self.kind == "bpe":
            from gigatoken import Tokenizer as Gigatoken

            encode = Gigatoken.from_json(self._without_specials()).backend.encode
            return lambda data: encode(data) if data else np.empty(0, np.uint32)
        library = self._library
        return lambda data: np.asarray(
            library.encode(data.decode(), add_special_tokens=False).ids, np.uint32
        )

    def _encode_chars(self, data: bytes) -> Ids:
        return self._id_of_character[np.frombuffer(data.decode().encode("utf-32-le"), np.uint32)]

    @cached_property
    def _id_of_character(self) -> Ids:
        table = np.full(0x110000, self.unknown, np.uint32)
        for token, i in self._file.model.vocab.items():
            if len(token) == 1:
                table[ord(token)] = i
        return table

    @cached_property
    def _library(self) -> Any:
        """The `tokenizers` library's reading of the file; specials in text stay text."""
        from tokenizers import Tokenizer as Library

        try:
            library = Library.from_str(self.json)
        except Exception as error:  # the library raises nothing narrower
            raise UserError(f"The tokenizer cannot be loaded: {error}") from None
        library.encode_special_tokens = True
        library.no_padding()
        library.no_truncation()
        return library

    def _without_specials(self) -> str:
        tree = msgspec.json.decode(self.json)
        tree["added_tokens"] = [a for a in tree.get("added_tokens") or [] if not a.get("special")]
        return msgspec.json.encode(tree).decode()

    # ---- decoding

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; special tokens give nothing, `<unk>` gives U+FFFD."""
        if self.lossless:
            return b"".join([self._pieces[i] for i in ids]).decode("utf-8", "replace")
        text: str = self._library.decode(list(ids))
        return text

    def byte_lengths(self) -> NDArray[np.int32]:
        """UTF-8 bytes of text that each id stands for; 0 for special tokens and `<unk>`."""
        lengths = np.array([len(piece) for piece in self._pieces], np.int32)
        if self.unknown is not None:
            lengths[self.unknown] = 0
        return lengths

    def stream(self) -> Stream:
        return Stream(self)

    @cached_property
    def _pieces(self) -> list[bytes]:
        """What each id decodes to."""
        pieces = [b""] * self.vocab_size
        to_bytes = _byte_level_bytes if _is_byte_level(self._file) else str.encode
        for token, i in self._file.model.vocab.items():
            pieces[i] = to_bytes(token)
        for added in self._file.added_tokens:
            pieces[added.id] = b"" if added.special else added.content.encode()
        if self.separator is not None:
            pieces[self.separator] = b""
        if self.unknown is not None:
            pieces[self.unknown] = REPLACEMENT.encode()
        return pieces


class Stream:
    """Decodes ids one by one; emits only complete characters.

    The emitted parts and `flush()` together are `decode` of all ids.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._ids: list[int] = []  # lossy tokenizers: spacing depends on the neighbours
        self._shown = ""

    def push(self, token: int) -> str:
        if self._tokenizer.lossless:
            return self._utf8.decode(self._tokenizer._pieces[token])
        self._ids.append(token)
        text = self._tokenizer.decode(self._ids)
        if text.endswith(REPLACEMENT) or not text.startswith(self._shown):
            return ""  # not settled yet
        new, self._shown = text[len(self._shown) :], text
        return new

    def flush(self) -> str:
        if self._tokenizer.lossless:
            return self._utf8.decode(b"", final=True)
        return self._tokenizer.decode(self._ids)[len(self._shown) :]


def _is_byte_level(file: _File) -> bool:
    decoder = file.decoder or {}
    return file.normalizer is None and decoder.get("type") == "ByteLevel"


def _byte_level_bytes(token: str) -> bytes:
    if all(letter in _BYTE_OF for letter in token):
        return bytes([_BYTE_OF[letter] for letter in token])
    return token.encode()
