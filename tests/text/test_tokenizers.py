from __future__ import annotations

import functools
import json
import math
import pickle
import subprocess
import sys
import time

import msgspec
import numpy as np
import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overnight.errors import UserError
from overnight.text import existing, makers
from overnight.text.formats import BYTE_LETTERS, BYTES, FROM_LETTERS, SEPARATOR, bpe, write
from overnight.text.tokenizers import PROBE, Stream, Tokenizer

TEXT = (
    "The quick brown fox didn't jump over the lazy dog's 1234 dogs.\n\n  The end? Naïve: "
    "«Привет, мир» 你好，世界 🙂🏽 \t tabs\r\nand <|endoftext|> as text, [SEP] [CLS] [UNK] ##.\n"
)
SPECIAL = ["<|endoftext|>", "[SEP]", "[CLS]", "[UNK]", "<unk>", "##", "</s>", "\ue000", "Ġ", "�"]


@functools.cache
def make(kind: str) -> Tokenizer:
    if kind == "bytes":
        return makers.bytes_tokenizer(separator=True)
    if kind == "chars":
        return makers.chars_tokenizer(TEXT + "\ue000Ġ\0", separator=True)
    if kind == "tiktoken":
        return existing.from_tiktoken(encoding())
    size = 400 if kind == "bpe" else 700
    return makers.train(kind, [TEXT * 5, TEXT[::-1] * 3], size, separator=True)


@functools.cache
def encoding():
    """A tiktoken encoding with cl100k's words, from a vocabulary of our own."""
    import tiktoken

    vocab = msgspec.json.decode(make("bpe").json)["model"]["vocab"]
    letter = {c: b for b, c in enumerate(BYTE_LETTERS)}
    ranks = {bytes(letter[c] for c in token): i for token, i in vocab.items() if token != SEPARATOR}
    pattern = (
        r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"""
        r""" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
    )
    return tiktoken.Encoding("own", pat_str=pattern, mergeable_ranks=ranks,
                             special_tokens={SEPARATOR: len(ranks) + 5})  # fmt: skip


LOSSLESS = ["bytes", "bpe", "wordpiece", "tiktoken"]
ALL = [*LOSSLESS, "chars", "wordpiece-classic"]

anything = st.one_of(
    st.text(),
    st.text(alphabet=st.characters(max_codepoint=0x2FF)),
    st.lists(st.sampled_from(SPECIAL + TEXT.split(" ")) | st.text(max_size=3)).map(" ".join),
    st.lists(st.sampled_from(SPECIAL)).map("".join),
    st.builds(lambda c, n: c * n, st.characters(exclude_categories=["Cs"]), st.integers(0, 3000)),
    st.text(alphabet=" \n\r\t\u00a0\u3000a'1"),
)  # fmt: skip


def round_trip(kind: str, text: str) -> None:
    tokenizer = make(kind)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert int(tokenizer.cost.n_bytes[ids].sum()) == len(text.encode())
    assert not {tokenizer.separator, *tokenizer.document_start} & set(ids)
    stream = Stream(tokenizer)
    assert "".join([*map(stream.push, ids), stream.flush()]) == text


@pytest.mark.parametrize("kind", LOSSLESS)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=anything)
def test_round_trip(kind, text):
    round_trip(kind, text)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", LOSSLESS)
@settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=anything)
def test_round_trip_of_ten_thousand(kind, text):
    round_trip(kind, text)


@pytest.mark.parametrize("kind", ["bytes", "bpe", "wordpiece", "chars", "wordpiece-classic"])
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=anything)
def test_the_library_gives_the_same_ids(kind, text):
    library = tokenizers.Tokenizer.from_str(make(kind).json)
    assert library.encode(text).ids == make(kind).encode(text)
    assert library.get_vocab_size() == make(kind).vocab_size


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=anything)
def test_tiktoken_gives_the_same_ids(text):
    assert make("tiktoken").encode(text) == encoding().encode_ordinary(text)


@settings(max_examples=60, deadline=None)
@given(text=st.text(alphabet=sorted(set(TEXT))))
def test_known_characters_round_trip(text):
    assert make("chars").decode(make("chars").encode(text)) == text


def test_an_unseen_character_is_one_unknown():
    tokenizer = makers.chars_tokenizer("abc\n", separator=False)
    assert tokenizer.vocab_size == 5
    assert tokenizer.encode("a🙂b") == [1, tokenizer.unknown, 2]
    assert tokenizer.decode([1, tokenizer.unknown, 2]) == "a\ufffdb"
    assert tokenizer.cost.n_bytes.tolist() == [1, 1, 1, 1, 1]
    assert tokenizer.cost.nats.tolist() == [0, 0, 0, 0, 21 * math.log(2)]


@pytest.mark.parametrize("kind", ALL)
def test_a_saved_tokenizer_is_the_same(kind, tmp_path):
    tokenizer = make(kind)
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert (loaded.json, loaded.hash) == (tokenizer.json, tokenizer.hash)
    assert loaded.kind == ("other" if kind == "tiktoken" else kind)
    for field in ("vocab_size", "separator", "unknown", "lossless", "document_start"):
        assert getattr(loaded, field) == getattr(tokenizer, field)
    assert loaded.encode(TEXT) == tokenizer.encode(TEXT)
    assert tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))


@pytest.mark.parametrize("kind", ALL)
def test_special_tokens_decode_to_nothing(kind):
    tokenizer = make(kind)
    assert tokenizer.decode([tokenizer.separator]) == ""
    assert tokenizer.cost.n_bytes[tokenizer.separator] == 0
    assert tokenizer.decode([*tokenizer.document_start, *tokenizer.encode("the")]) == "the"


def test_classic_wordpiece_says_that_it_is_lossy():
    tokenizer = make("wordpiece-classic")
    assert not tokenizer.lossless
    assert tokenizer.decode(tokenizer.encode("The Quick  fox")) == "the quick fox"
    ids = tokenizer.encode("the quick fox")
    assert tokenizer.cost.n_bytes[ids].sum() == len(" the quick fox")
    stream = Stream(tokenizer)
    assert "".join([*map(stream.push, ids), stream.flush()]) == "the quick fox"
    for cut in range(1, len(ids)):  # what continues a word, and what begins one
        stream = Stream(tokenizer, before=ids[:cut])
        continued = "".join([*map(stream.push, ids[cut:]), stream.flush()])
        assert tokenizer.decode(ids[:cut]) + continued == "the quick fox"
    assert tokenizer.unknown in tokenizer.encode("☃")


def test_trained_sizes_are_exact():
    for separator in (False, True):
        tokenizer = makers.train("bpe", [TEXT * 3], 300, separator)
        assert tokenizer.vocab_size == 300
        assert (tokenizer.separator == 299) is separator
    assert makers.train("wordpiece", [TEXT * 3], 600, False).vocab_size == 600
    assert makers.bytes_tokenizer(False).vocab_size == 256


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "wordpiece-classic"])
def test_training_is_deterministic_across_processes(kind):
    """The library's hash tables are seeded anew in every process."""
    code = (
        "import sys, random; from overnight.text import makers\n"
        "r = random.Random(1)\n"
        "t = ' '.join(''.join(r.choices('abé', k=5)) for _ in range(3000))\n"
        "print(makers.train(sys.argv[1], [t], 600, True).hash)"
    )
    command = [sys.executable, "-c", code, kind]
    hashes = {subprocess.run(command, capture_output=True).stdout for _ in range(4)}
    assert len(hashes) == 1
    assert len(hashes.pop()) == 65


def test_a_stream_shows_only_whole_characters():
    stream = Stream(makers.bytes_tokenizer(False))
    assert [stream.push(b) for b in "é🙂".encode()] == ["", "é", "", "", "", "🙂"]
    assert stream.push(0xF0) + stream.flush() == "\ufffd"


def test_gigatoken_is_used_where_it_agrees():
    assert make("bpe")._fast
    assert make("tiktoken").encode(PROBE) == encoding().encode_ordinary(PROBE)


def test_a_llama_style_file_works():
    """Metaspace, byte fallback, a vocabulary that is not byte-level: nothing is promised but ids,
    the library's text, and lengths that add up."""
    words = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{b:02X}>" for b in range(256)),
        "▁",
        "a",
        "b",
        "▁a",
        "ab",
        "▁ab",
    ]
    library = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            {w: i for i, w in enumerate(words)},
            [("▁", "a"), ("a", "b"), ("▁a", "b")],
            unk_token="<unk>",
            byte_fallback=True,
        )
    )  # fmt: skip
    library.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    library.decoder = tokenizers.decoders.Sequence(
        [
            tokenizers.decoders.Replace("▁", " "),
            tokenizers.decoders.ByteFallback(),
            tokenizers.decoders.Fuse(),
            tokenizers.decoders.Strip(" ", 1, 0),
        ]
    )
    library.add_special_tokens(["<s>", "</s>"])
    tokenizer = Tokenizer(library.to_str())
    text = "ab a é </s> b"
    ids = tokenizer.encode(text)
    assert tokenizer.kind == "other"
    assert tokenizer.cuts == "nowhere"
    assert tokenizer.separator == 2
    assert tokenizer.separator not in ids
    assert tokenizer.decode(ids) == text
    assert tokenizer.cost.n_bytes[ids].sum() == len(text.encode()) + 1  # the space in front


@pytest.mark.parametrize(
    "content",
    ["", "{}", "[]", '{"model": {"type": "BPE", "vocab": {}}}', "[" * 100_000,
     '{"model": {"type": "BPE", "vocab": {"a": -1}}}',
     '{"model": {"type": "BPE", "vocab": {"a": 99999999999}}}'],
)  # fmt: skip
def test_a_broken_file_is_one_line(content, tmp_path):
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(UserError) as error:
        Tokenizer.load(tmp_path / "t.json")
    assert "\n" not in str(error.value)
    assert "t.json" in str(error.value)


def test_half_a_surrogate_is_refused():
    with pytest.raises(UserError, match="character 1"):
        make("bpe").encode("a\ud800")


def test_a_hub_name_is_found_in_its_cache(tmp_path, monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    make("bpe").save(tmp_path / "tokenizer.json")
    cached = {("some/model", "tokenizer.json"): str(tmp_path / "tokenizer.json")}
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda *name: cached.get(name), raising=True
    )
    assert existing.find("some/model").hash == make("bpe").hash
    with pytest.raises(UserError, match="nothing is downloaded"):
        existing.find("other/model")


def test_a_tiktoken_name_is_found_in_its_cache(monkeypatch):
    tiktoken = pytest.importorskip("tiktoken")
    monkeypatch.setattr(tiktoken, "get_encoding", lambda name: encoding())
    assert existing.find("gpt2").hash == make("tiktoken").hash


def test_a_name_of_both_libraries_is_looked_for_in_both_caches(tmp_path, monkeypatch):
    """`gpt2` is an encoding of tiktoken, too."""
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "tiktoken"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"gpt2.*TIKTOKEN_CACHE_DIR.*HF_HOME"):
        existing.find("gpt2")
    model = tmp_path / "models--gpt2"
    (model / "snapshots" / "0123").mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("0123")
    make("bpe").save(model / "snapshots" / "0123" / "tokenizer.json")
    assert existing.find("gpt2").hash == make("bpe").hash


def test_unknown_names_are_refused_without_the_network():
    for name in ("", "no/such-model", "not there", "cl100k_base"):
        with pytest.raises(UserError) as error:
            existing.find(name)
        assert "\n" not in str(error.value)


def test_lengths_are_int32():
    assert make("bpe").cost.n_bytes.dtype == np.int32
    assert len(make("bpe").cost.n_bytes) == make("bpe").vocab_size


@pytest.mark.parametrize("kind", ALL)
def test_a_tokenizer_that_has_encoded_can_be_pickled(kind):
    ids = make(kind).encode(TEXT)
    again = pickle.loads(pickle.dumps(make(kind)))
    assert again.encode(TEXT) == ids
    assert again.decode(ids) == make(kind).decode(ids)


def test_a_panic_of_the_library_is_one_sentence():
    """Rust's panics are no `Exception`."""
    tree = json.loads(make("wordpiece-classic").json)
    charsmap = "/////wAAAAAAAAAA"
    tree["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": charsmap}
    with pytest.raises(UserError):
        Tokenizer(json.dumps(tree))._library  # noqa: B018


def test_a_space_that_is_put_in_front_is_a_loss():
    """GPT-2's bytes as the library makes them by default: "a" comes back as " a"."""
    tree = json.loads(make("bpe").json)
    assert Tokenizer(json.dumps(tree)).lossless
    tree["pre_tokenizer"]["add_prefix_space"] = True
    assert not Tokenizer(json.dumps(tree)).lossless
    both = {"type": "Sequence", "pretokenizers": [tree["pre_tokenizer"]]}
    assert not Tokenizer(json.dumps(tree | {"pre_tokenizer": both})).lossless


def test_a_file_whose_tokens_span_words_is_read_as_the_library_reads_it() -> None:
    """Where nothing is split into words before, a merge may cross the space between two."""
    space = BYTE_LETTERS[32]
    vocabulary = {c: i for i, c in enumerate(BYTE_LETTERS)} | {"of": 256, f"of{space}": 257}
    file = write(bpe(vocabulary, [["o", "f"], ["of", space]]), BYTES, FROM_LETTERS)
    text = "The state of the union of the states. " * 3
    ours = Tokenizer(file)
    expected = tokenizers.Tokenizer.from_str(file).encode(text).ids
    assert 257 in expected
    assert list(ours.encode(text)) == expected
    assert ours.cuts == "nowhere"
    assert make("bpe").cuts == make("tiktoken").cuts == "words"


def test_a_text_without_spaces_does_not_take_minutes() -> None:
    """A megabyte of DNA on one line, and words between such: what is long is trained on in parts,
    and everything encodes."""
    rng = np.random.default_rng(0)
    dna = "".join(rng.choice(list("ACGT"), 1_000_000))
    begin = time.process_time()
    tokenizer = makers.train_bpe([dna, f"some words {dna[:2000]} and more"], 400, separator=False)
    assert time.process_time() - begin < 30  # whole it takes minutes
    assert tokenizer.decode(tokenizer.encode(dna[:5000])) == dna[:5000]


def test_words_of_usual_length_are_trained_on_as_they_are() -> None:
    text = "some words\n\n  and more of them, " * 50 + "x" * 999
    assert list(makers._parted([text])) == [text]
    assert "".join(makers._parted(["a  " + "x" * 1000 + " \n"])) == "a  " + "x" * 1000 + " \n"
