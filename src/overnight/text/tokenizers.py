"""Tokenizers: text ↔ ids, one class for every kind.

A tokenizer *is* its `tokenizer.json`: `makers` and `existing` write such a file, and `Tokenizer`
reads everything it does from it. So a saved tokenizer is by construction the one that was used,
and the `tokenizers` library gives the same ids for it. Kinds, told by the file's structure:

- `bytes`: id = byte.
- `chars`: id = rank of the character in the training text, then `<unk>`, always: a prompt may
  hold a character that the training text had not.
- `bpe`: byte-level BPE with GPT-2's words.
- `wordpiece`: pieces of bytes; `wordpiece-classic`: BERT's, lossy.
- `other`: whatever else the library can load.

Between documents stands `<|endoftext|>`, in front of each, where the training text has more than
one; WordPiece has `[CLS]` in front and `[SEP]` behind, always.
"""

from __future__ import annotations

import codecs
import hashlib
import math
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..files import read_bounded
from .formats import BEGIN, BYTE_OF, CONTINUATION, END, SEPARATOR, File

SEPARATORS = (SEPARATOR, "<|end_of_text|>", "</s>", "<eos>")  # as known files call it
REPLACEMENT = "\ufffd"
MAX_FILE_BYTES = 256 * 2**20
MAX_VOCAB = 2**20
# where encoders disagree: white space, contractions, digits, scripts, combining marks, specials
PROBE = (
    "It's  we'LL\n\n x1234567 \t\r\n naïve Straße 你好，世界 нет "
    "e\u0301 \u00a0\u3000🙂🏽 <s> a_b--c "
)

UNKNOWN_BITS = 21  # that say which of Unicode's 1,114,112 places one has

Ids = NDArray[np.uint32]


class Cost(NamedTuple):
    """What it takes to write each id as text, `[V]`: the bytes that it stands for, and the nats
    that come on top of its probability."""

    n_bytes: NDArray[np.int32]
    nats: NDArray[np.float64]


def _is_of_library(error: BaseException) -> bool:
    """Whether a file or a text is to blame. A panic of the library's Rust is no `Exception`."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


class Tokenizer:
    """Text ↔ ids. `decode(encode(x)) == x` for every text where `lossless` (for `chars`: every
    text of known characters; an unseen one is one `<unk>`, decoded as U+FFFD).

    `separator` (what ends a text) and `unknown` are ids or None; `document_start` and
    `document_end` are the ids that stand around a document in a token file, `boundaries` their
    spellings.
    """

    def __init__(self, json: str, source: str = "tokenizer.json") -> None:
        self.json = json
        try:
            self._file = msgspec.json.decode(json, type=File)
        except (msgspec.DecodeError, RecursionError) as error:
            raise UserError(f"{source}: not a tokenizer that can be used: {error}") from None
        ids = self._file.model.ids | {added.content: added.id for added in self._file.added}
        if not ids or min(ids.values()) < 0 or max(ids.values()) >= MAX_VOCAB:
            raise UserError(f"{source}: ids must lie in 0 … {MAX_VOCAB - 1:,}.")
        self.kind = self._file.kind
        self.vocab_size = max(ids.values()) + 1
        self.lossless = self.kind == "chars" or self._file.byte_level
        unknown = None if self._file.byte_level else self._file.model.unk_token
        self.unknown = ids.get(unknown or "")
        if self.kind == "chars" and self.unknown is None:
            raise UserError(f"{source}: its unknown token is not in its vocabulary.")
        self.boundaries = _boundaries(ids)
        self.document_start = [ids[name] for name in self.boundaries[0]]
        self.document_end = [ids[name] for name in self.boundaries[1]]
        self.separator = next(iter(self.document_end or self.document_start), None)
        self._special = {a.id for a in self._file.added if a.special}
        self._special |= {*self.document_start, *self.document_end}

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        try:
            return cls(read_bounded(Path(path), MAX_FILE_BYTES).decode(), str(path))
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}.") from None
        except UnicodeDecodeError:
            raise UserError(f"{path}: not a tokenizer.json (not UTF-8).") from None

    def save(self, path: str | Path) -> None:
        """Write `tokenizer.json`, byte for byte as it was made or loaded."""
        Path(path).write_text(self.json, encoding="utf-8")

    def __getstate__(self) -> dict[str, Any]:
        """Without the fast encoder, which cannot be pickled and is made again."""
        return {name: value for name, value in vars(self).items() if name != "_fast"}

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
                f"The text is no Unicode at character {error.start:,}: half a surrogate pair, or a "
                "byte that is not UTF-8."
            ) from None
        ids: list[int] = self.encode_bytes(data).tolist()
        return ids

    def encode_bytes(self, data: bytes) -> Ids:
        """The ids of UTF-8 text, without special tokens."""
        return self.encode_many([data])[0]

    def encode_many(self, texts: Sequence[bytes]) -> list[Ids]:
        """`encode_bytes` of each text; works outside the interpreter's lock."""
        if encode := self._fast:
            return [encode(text) if text else np.empty(0, np.uint32) for text in texts]
        decoded = [text.decode() for text in texts]
        try:
            many = self._library.encode_batch_fast(decoded, add_special_tokens=False)
        except BaseException as error:  # such as a file whose unknown token is no token
            if not _is_of_library(error):
                raise
            raise UserError(f"The tokenizer cannot encode this text: {error}") from None
        return [np.array(one.ids, np.uint32) for one in many]

    @cached_property
    def cuts(self) -> str:
        """Where a text may be cut so that its parts encode to the ids of the whole: between
        `characters`, behind `words`, or `nowhere`."""
        if self.kind in ("bytes", "chars"):
            return "characters"
        by_words = self.kind == "bpe" or (self._file.byte_level and self._splits_words)
        return "words" if by_words or self.kind == "wordpiece-classic" else "nowhere"

    @cached_property
    def _splits_words(self) -> bool:
        """Whether the library encodes word by word, and no token spans a space between two."""
        splitter = self._library.pre_tokenizer
        found = splitter.pre_tokenize_str("of the word end") if splitter is not None else []
        return {2, 6, 11} <= {begin for _, (begin, _) in found}

    @cached_property
    def _fast(self) -> Callable[[bytes], Ids] | None:
        """An encoder that is faster than the library, with the same ids; None: there is none."""
        if self.kind == "bytes":
            return lambda data: np.frombuffer(data, np.uint8).astype(np.uint32)
        if self.kind == "chars":
            return self._encode_chars
        return self._gigatoken() if self._file.model.type == "BPE" else None

    def _encode_chars(self, data: bytes) -> Ids:
        return self._id_of_character[np.frombuffer(data.decode().encode("utf-32-le"), np.uint32)]

    @cached_property
    def _id_of_character(self) -> Ids:
        table = np.full(0x110000, self.unknown, np.uint32)
        for token, i in self._file.model.ids.items():
            if len(token) == 1:
                table[ord(token)] = i
        return table

    def _gigatoken(self) -> Callable[[bytes], Ids] | None:
        """gigatoken's encoder, which goes word by word; for a file that is not of our making only
        if that does, too, and gets the same ids on text that encoders tend to disagree about."""
        import gigatoken

        try:
            backend = gigatoken.Tokenizer.from_json(self._without_specials()).backend
            if self.kind != "bpe":
                if not self._splits_words:
                    return None
                wanted = self._library.encode(PROBE, add_special_tokens=False).ids
                if backend.encode(PROBE.encode()).tolist() != wanted:
                    return None
        except Exception:  # a file it cannot read: the library reads it, or says why not
            return None
        return backend.encode  # type: ignore[no-any-return]

    def _without_specials(self) -> str:
        tree = msgspec.json.decode(self.json)
        tree["added_tokens"] = [a for a in tree.get("added_tokens") or [] if not a.get("special")]
        return msgspec.json.encode(tree).decode()

    @cached_property
    def _library(self) -> Any:
        """The `tokenizers` library's reading of the file; specials in text stay text."""
        from tokenizers import Tokenizer as Library

        try:
            library = Library.from_str(self.json)
        except BaseException as error:  # the library raises nothing narrower
            if not _is_of_library(error):
                raise
            raise UserError(f"The tokenizer cannot be loaded: {error}") from None
        library.encode_special_tokens = True
        library.no_padding()
        library.no_truncation()
        return library

    # ---- decoding

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; special tokens give nothing, `<unk>` gives U+FFFD."""
        if self.lossless:
            return b"".join([self._pieces[i] for i in ids]).decode("utf-8", "replace")
        text: str = self._library.decode([i for i in ids if i not in self._special])
        return text

    @property
    def unknown_bits(self) -> int | None:
        """What naming an unknown character costs, or None where that does not give back the
        text."""
        return UNKNOWN_BITS if self.lossless else None

    @cached_property
    def cost(self) -> Cost:
        """UTF-8 bytes of text that each id stands for; 0 for special tokens. An unknown character
        of `chars` costs what naming it takes, and counts as one byte, the least it can be: bits per
        byte are too high with it, never too low. In a lossy tokenizer it is left out."""
        if self.lossless:
            n_bytes = np.array([len(piece) for piece in self._pieces], np.int32)
        else:
            n_bytes = self._written_lengths()
        n_bytes[list(self._special)] = 0
        nats = np.zeros(self.vocab_size)
        if self.unknown is not None:
            n_bytes[self.unknown] = self.lossless
            nats[self.unknown] = math.log(2) * (self.unknown_bits or 0)
        return Cost(n_bytes, nats)

    @cached_property
    def _pieces(self) -> list[bytes]:
        """What each id decodes to, where that does not depend on its neighbours."""
        pieces = [b""] * self.vocab_size
        for token, i in self._file.model.ids.items():
            pieces[i] = _letter_bytes(token) if self._file.byte_level else token.encode()
        for added in self._file.added:
            pieces[added.id] = added.content.encode()
        for i in self._special:
            pieces[i] = b""
        if self.unknown is not None:
            pieces[self.unknown] = REPLACEMENT.encode()
        return pieces

    def _written_lengths(self) -> NDArray[np.int32]:
        """Bytes that decoding writes for each id behind another token: its space among them."""
        first = self.encode("a")[:1] or [0]
        texts = self._library.decode_batch([[*first, i] for i in range(self.vocab_size)])
        before = len(self._library.decode(first).encode())
        lengths = np.array([max(0, len(text.encode()) - before) for text in texts], np.int32)
        for token, i in self._file.model.ids.items():
            if re.fullmatch(r"<0x[0-9A-F]{2}>", token):  # a byte of a character, as in Llama 2
                lengths[i] = 1
        return lengths


class Stream:
    """Decodes ids one by one; emits only complete characters.

    The emitted parts and `flush()` together are what `decode` of all ids adds to that of the ids
    `before`.
    """

    def __init__(self, tokenizer: Tokenizer, before: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._ids = list(before)  # lossy tokenizers: spacing depends on the neighbours
        self._shown = "" if tokenizer.lossless else tokenizer.decode(self._ids)

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


def _boundaries(ids: dict[str, int]) -> tuple[list[str], list[str]]:
    """The special tokens in front of a document and behind it."""
    if BEGIN in ids and END in ids:
        return [BEGIN], [END]
    return [name for name in SEPARATORS if name in ids][:1], []


def _letter_bytes(token: str) -> bytes:
    """The bytes that a byte-level token stands for."""
    letters = token.removeprefix(CONTINUATION)
    if all(letter in BYTE_OF for letter in letters):
        return bytes([BYTE_OF[letter] for letter in letters])
    return token.encode()
