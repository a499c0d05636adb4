"""The exported tokenizer gives our ids, also for spellings of special tokens, and decodes."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from grammars import grammar, make_run

from overnight.exchange.exporter import export
from overnight.exchange.importer import import_folder
from overnight.text import makers
from overnight.text.tokenizers import Tokenizer

transformers = pytest.importorskip("transformers")

TRAINING = ["The quick brown fox jumps over the lazy dog.\n", "It's 1234 o'clock, naïve Straße!\n"]
TEXTS = [
    "The lazy fox.",
    "  two  spaces \t tab\r\n\n lines ",
    "<|endoftext|> and [CLS] or [SEP][UNK]<unk>",
    "It's naïve: 你好 🙂🏽 e\u0301 \u0000\u200b",
    "a" * 300,
    "",
]


def make(kind: str) -> Tokenizer:
    texts = TRAINING * 20
    if kind == "bytes":
        return makers.bytes_tokenizer(separator=True)
    if kind == "bytes without separator":
        return makers.bytes_tokenizer(separator=False)
    if kind == "chars":
        return makers.chars_tokenizer("".join(texts), separator=True)
    return makers.train(kind, texts, 600, separator=True)


KINDS = ["bytes", "bytes without separator", "chars", "bpe", "wordpiece", "wordpiece-classic"]


@pytest.fixture(scope="module", params=KINDS)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """Our tokenizer, theirs, and the folder of `run` and `hf`."""
    ours = make(request.param)
    folder = tmp_path_factory.mktemp("tokenizer")
    model = msgspec.structs.replace(grammar("gpt2"), vocab_size=ours.vocab_size)
    make_run(folder / "run", model, ours)
    export(folder / "run", folder / "hf")
    return ours, transformers.AutoTokenizer.from_pretrained(folder / "hf"), folder


@pytest.mark.parametrize("text", TEXTS)
def test_ids(both, text: str) -> None:
    ours, theirs, _ = both
    assert theirs.encode(text) == theirs(text)["input_ids"] == ours.encode(text)


@pytest.mark.parametrize("text", TEXTS)
def test_decoding(both, text: str) -> None:
    ours, theirs, _ = both
    ids = ours.encode(text)
    known = ours.unknown is None or ours.unknown not in ids
    if known:  # transformers spells <unk> out or leaves it out; here it is U+FFFD
        assert theirs.decode(ids) == ours.decode(ids)
    if known and ours.lossless:
        assert theirs.decode(ids) == text
    around = [*ours.document_start, *ids, *ours.document_end]
    if known:
        assert theirs.decode(around, skip_special_tokens=True) == ours.decode(around)


def test_special_ids(both) -> None:
    ours, theirs, folder = both
    config = transformers.AutoConfig.from_pretrained(folder / "hf")
    generation = transformers.GenerationConfig.from_pretrained(folder / "hf")
    assert theirs.eos_token_id == config.eos_token_id == generation.eos_token_id == ours.separator
    assert theirs.bos_token_id == config.bos_token_id == next(iter(ours.document_start), None)
    assert theirs.unk_token_id == ours.unknown
    assert len(theirs) == ours.vocab_size
    assert theirs.model_max_length == 64


def test_saved_by_transformers_and_taken_back(both, tmp_path: Path) -> None:
    ours, theirs, folder = both
    theirs.save_pretrained(tmp_path / "saved")
    import_folder(folder / "hf", tmp_path / "run", tmp_path / "saved" / "tokenizer.json")
    back = Tokenizer.load(tmp_path / "run" / "tokenizer.json")
    assert back.separator == ours.separator
    assert back.lossless == ours.lossless
    for text in TEXTS:
        assert back.encode(text) == ours.encode(text)
        if ours.unknown not in back.encode(text):  # saved there, <unk> is a special token
            assert back.decode(back.encode(text)) == ours.decode(ours.encode(text))
