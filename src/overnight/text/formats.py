"""The file format `tokenizer.json` (of the `tokenizers` library): how each kind looks in it.

Special tokens are entries of the vocabulary that no text can produce, not even text that spells
them: they are no "added tokens", which the library would look for in the text.
"""

from __future__ import annotations

from typing import Any

import msgspec

SEPARATOR = "<|endoftext|>"
UNKNOWN = "<unk>"
BEGIN, END = "[CLS]", "[SEP]"
CLASSIC_UNKNOWN = "[UNK]"
CONTINUATION = "\ue000"  # a private-use character: no byte is written so, no text can hold it
LONGEST_WORD = 64  # bytes of a WordPiece word; a longer run is cut, where the classic gives [UNK]

Tree = dict[str, Any]


def byte_letters() -> str:
    """GPT-2's printable letter for each of the 256 bytes (openai/gpt-2, `bytes_to_unicode`)."""
    shown = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = (chr(256 + i) for i in range(256))
    return "".join(chr(b) if b in shown else next(hidden) for b in range(256))


BYTE_LETTERS = byte_letters()
BYTE_OF = {letter: byte for byte, letter in enumerate(BYTE_LETTERS)}


# ---- pre-tokenizers and decoders -----------------------------------------------------------


def _byte_level(use_regex: bool) -> Tree:
    shape = {"add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}
    return {"type": "ByteLevel"} | shape


def split_on(regex: str) -> Tree:
    """Each match is a word."""
    pattern = {"pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    return {"type": "Split"} | pattern


def sequence(kind: str, *parts: Tree) -> Tree:
    return {"type": "Sequence", kind: list(parts)}


WORDS = _byte_level(True)  # GPT-2's words, in byte letters
BYTES = _byte_level(False)  # the whole text, in byte letters
CHARS = split_on(r"[\s\S]")
SHORT_WORDS = sequence("pretokenizers", WORDS, split_on(rf"[\s\S]{{1,{LONGEST_WORD}}}"))
BERT: Tree = {"type": "BertPreTokenizer"}
LOWER_CASE: Tree = {
    "type": "BertNormalizer",
    "clean_text": True,
    "handle_chinese_chars": True,
    "strip_accents": None,
    "lowercase": True,
}

FROM_LETTERS = _byte_level(True)
FROM_PIECES = sequence(
    "decoders",
    {"type": "Replace", "pattern": {"String": CONTINUATION}, "content": ""},
    FROM_LETTERS,
)
FROM_WORDS: Tree = {"type": "WordPiece", "prefix": "##", "cleanup": True}
JOINED: Tree = {"type": "Fuse"}


# ---- models --------------------------------------------------------------------------------


def bpe(vocab: dict[str, int], merges: list[Any]) -> Tree:
    return {
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


def word_level(vocab: dict[str, int]) -> Tree:
    return {"type": "WordLevel", "vocab": vocab, "unk_token": UNKNOWN}


def word_piece(vocab: dict[str, int], prefix: str) -> Tree:
    return {
        "type": "WordPiece",
        "unk_token": CLASSIC_UNKNOWN,
        "continuing_subword_prefix": prefix,
        "max_input_chars_per_word": 100,
        "vocab": vocab,
    }


def write(
    model: Tree,
    pre_tokenizer: Tree,
    decoder: Tree | None,
    normalizer: Tree | None = None,
    added_tokens: list[Tree] | None = None,
) -> str:
    tree: Tree = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added_tokens or [],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": decoder,
        "model": model,
    }
    return msgspec.json.encode(tree).decode()


# ---- reading -------------------------------------------------------------------------------


class Added(msgspec.Struct):
    id: int
    content: str
    special: bool = False


class Model(msgspec.Struct):
    type: str
    vocab: dict[str, int] | list[tuple[str, float]]  # a list for Unigram
    unk_token: str | None = None
    merges: list[Any] | None = None

    @property
    def ids(self) -> dict[str, int]:
        if isinstance(self.vocab, dict):
            return self.vocab
        return {token: i for i, (token, _) in enumerate(self.vocab)}


def _adds_space(pre_tokenizer: Tree | None) -> bool:
    """Whether a text gets a space in front, which decoding does not take away again."""
    parts = (pre_tokenizer or {}).get("pretokenizers")
    found = [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    return any(part.get("add_prefix_space") is True for part in [pre_tokenizer or {}, *found])


class File(msgspec.Struct):
    """The parts of a tokenizer.json that this project looks at."""

    model: Model
    added_tokens: list[Added] | None = None
    normalizer: Tree | None = None
    pre_tokenizer: Tree | None = None
    decoder: Tree | None = None

    @property
    def added(self) -> list[Added]:
        return self.added_tokens or []

    @property
    def byte_level(self) -> bool:
        """Each token stands for certain bytes, whatever its neighbours are."""
        if self.normalizer is not None or self.decoder is None or _adds_space(self.pre_tokenizer):
            return False
        return self.decoder.get("type") == "ByteLevel" or self.decoder == FROM_PIECES

    @property
    def kind(self) -> str:
        """Told by the structure."""
        shape = (self.model.type, self.normalizer, self.pre_tokenizer)
        if shape == ("BPE", None, BYTES) and not self.model.merges:
            return "bytes" if self._ids_are_bytes() else "other"
        kinds = {
            "bpe": ("BPE", None, WORDS),
            "chars": ("WordLevel", None, CHARS),
            "wordpiece": ("WordPiece", None, SHORT_WORDS),
            "wordpiece-classic": ("WordPiece", LOWER_CASE, BERT),
        }
        return next((kind for kind, known in kinds.items() if known == shape), "other")

    def _ids_are_bytes(self) -> bool:
        return all(self.model.ids.get(letter) == byte for letter, byte in BYTE_OF.items())
