from __future__ import annotations

import bz2
import errno
import io
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from overnight import config
from overnight.errors import UserError
from overnight.text import encode, makers, parts
from overnight.text import prepare as module
from overnight.text.prepare import prepare
from overnight.text.progress import Progress
from overnight.text.tokenizers import Tokenizer

FACTS = {"fingerprint", "split", "documents", "val_documents", "bytes", "val_bytes",
         "train_tokens", "val_tokens", "vocab_size", "unknown", "names", "lossless",
         "unknown_bits", "val_unknown"}  # fmt: skip


def run(*texts, kind="bpe", size=0, val=(), **more):
    data = config.Data(
        text=[str(t) for t in texts],
        val=[str(v) for v in val],
        val_fraction=more.pop("val_fraction", 0.0),
    )
    return prepare(data, config.Tokenizer(kind=kind, vocab_size=size), **more)


def words(seed: int, n: int) -> str:
    """Text of `n` words out of 500, some of them not ASCII."""
    rng = random.Random(seed)
    vocabulary = ["".join(rng.choices("abcdeé", k=rng.randint(1, 7))) for _ in range(500)]
    return " ".join(rng.choices(vocabulary, k=n)) + "\n"


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text(words(0, 5000))
    return path


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "letters"
    path.mkdir()
    for i in range(40):
        (path / f"{i:02}.txt").write_text(words(i, 50 + i))
    return path


def leftovers(cache):
    return [p for p in cache.rglob("*") if ".tmp" in str(p) or p.name.startswith(".")]


def test_shakespeare_is_cut_as_nanogpt_does(shakespeare):
    chosen = []
    prepared = run(shakespeare, kind="chars", choose=lambda *choice: chosen.append(choice))
    assert set(prepared.facts) == FACTS
    assert len(prepared.train) == prepared.facts["train_tokens"] == 1_003_854
    assert len(prepared.val) == prepared.facts["val_tokens"] == 111_540
    assert prepared.facts["vocab_size"] == 66  # nanoGPT's 65, and <unk>
    assert prepared.facts["unknown"] == 0
    text = shakespeare.read_text()
    id_of = {c: i for i, c in enumerate(sorted(set(text)))}  # nanoGPT's ids
    assert prepared.train[:1000].tolist() == [id_of[c] for c in text[:1000]]
    assert prepared.tokenizer.decode(prepared.val.tolist()) == text[1_003_854:]
    assert [c[:2] for c in chosen] == [("data.val_fraction", 0.1)]
    assert json.loads(prepared.yardsticks.read_bytes())["bytes"] == 111_540

    start = time.perf_counter()
    again = run(shakespeare, kind="chars", choose=lambda *choice: chosen.append(choice))
    assert time.perf_counter() - start < 0.05  # 2 ms measured
    assert again.facts == prepared.facts
    assert chosen[0] == chosen[1]  # a choice is told again


def test_shakespeare_as_bytes_has_256_ids(shakespeare):
    prepared = run(shakespeare, kind="bytes")
    assert prepared.facts["vocab_size"] == 256
    assert bytes(prepared.train.tolist()) == shakespeare.read_bytes()[:1_003_854]


@pytest.mark.parametrize("kind", ["bytes", "chars", "bpe", "wordpiece", "wordpiece-classic"])
def test_documents_are_held_out_and_kept_apart(folder, kind):
    prepared = run(folder, kind=kind, val_fraction=0.1)
    tokenizer, facts = prepared.tokenizer, prepared.facts
    assert facts["documents"] == 36
    assert facts["val_documents"] == 4
    assert "every 10th of 40" in facts["split"]
    assert (prepared.train == tokenizer.separator).sum() == 36
    assert prepared.train[0] == tokenizer.document_start[0]
    held = [p.read_text() for i, p in enumerate(sorted(folder.iterdir())) if i % 10 == 5]
    if tokenizer.lossless:
        assert tokenizer.decode(prepared.val.tolist()) == "".join(held)
        lengths = tokenizer.cost.n_bytes
        assert lengths[prepared.train].sum() == facts["bytes"]
        assert lengths[prepared.val].sum() == facts["val_bytes"]
    assert facts["bytes"] + facts["val_bytes"] == sum(p.stat().st_size for p in folder.iterdir())


def test_the_tokenizer_has_seen_the_training_part_only(tmp_path):
    (tmp_path / "a.txt").write_text("abc " * 900 + "xyz " * 100)
    prepared = run(tmp_path / "a.txt", kind="chars", val_fraction=0.1)
    assert prepared.facts["unknown"] == prepared.facts["val_unknown"] == 300
    assert prepared.tokenizer.decode(prepared.val[:4].tolist()) == "\ufffd\ufffd\ufffd "


def test_a_separate_validation_text(book, tmp_path):
    (tmp_path / "val.txt").write_text(words(9, 300))
    prepared = run(book, val=[tmp_path / "val.txt"])
    assert prepared.tokenizer.decode(prepared.train.tolist()) == book.read_text()
    assert prepared.tokenizer.decode(prepared.val.tolist()) == (tmp_path / "val.txt").read_text()
    assert prepared.facts["split"] == "a separate validation text"
    (tmp_path / "val.txt").write_text("")
    with pytest.raises(UserError, match=r"val\.txt: empty"):
        run(book, val=[tmp_path / "val.txt"])


def test_few_documents_are_cut_by_position(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.txt").write_text("äöü" * 100)
    prepared = run(tmp_path, kind="bytes", val_fraction=0.2)
    assert prepared.facts["bytes"] == 2 * 720
    assert prepared.facts["documents"] == 3
    assert prepared.facts["val_documents"] == 1
    assert (prepared.train == 256).sum() == 3
    assert 256 not in prepared.val  # it begins in the middle of a document


def test_rows_without_text_are_left_out_and_counted(tmp_path):
    said = []
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "abc"}\n{"text": null}\n{"text": "def"}\n{"text": ""}\n' * 30)
    prepared = run(path, kind="bytes", say=said.append)
    assert prepared.facts["documents"] + prepared.facts["val_documents"] == 60
    assert f"{path}: 60 rows without text left out" in said


def test_cells_without_text_are_left_out_and_counted(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    said = []
    path = tmp_path / "a.parquet"
    table = sys.modules["pyarrow"].table({"text": ["abc", None, "", "def"] * 30})
    parquet.write_table(table, path)
    prepared = run(path, kind="bytes", say=said.append)
    assert prepared.facts["documents"] + prepared.facts["val_documents"] == 60
    assert f"{path}: 60 rows without text left out" in said


def test_a_field_of_rows_that_no_file_has_is_told(book):
    said = []
    data = config.Data(text=[str(book)], text_field="content")
    prepare(data, config.Tokenizer(kind="bytes"), say=said.append)
    assert "data.text_field = content has no effect: no file here has rows" in said


def test_same_text_and_settings_same_entry(book, folder, cache):
    prepared = run(book, size=400)
    copy = book.with_name("copy.txt")
    copy.write_bytes(book.read_bytes())
    again = run(copy, size=400)
    assert again.folder == prepared.folder
    assert again.facts["names"] == [str(copy)]
    assert run(book, size=300).folder != prepared.folder
    assert run(book, size=400, val_fraction=0.2).folder != prepared.folder
    assert run(folder, size=400).folder != prepared.folder
    copy.write_text(book.read_text() + "!")
    assert run(copy, size=400).folder != prepared.folder
    assert not leftovers(cache)


def test_a_run_is_resumed_with_its_own_tokenizer(book, monkeypatch):
    prepared = run(book, size=400)
    fraction = 0.1  # what was chosen is a setting of the run
    with monkeypatch.context() as patch:
        patch.setattr(module._Job, "_write", None)  # nothing is encoded again
        again = run(book, size=400, val_fraction=fraction, fixed=prepared.tokenizer)
    assert again.folder == prepared.folder
    module.Cache().remove(prepared.folder)
    rebuilt = run(book, size=400, val_fraction=fraction, fixed=prepared.tokenizer)
    assert rebuilt.facts == prepared.facts
    assert np.array_equal(rebuilt.train, prepared.train)


def test_a_resume_finds_the_tokens_of_the_run(book, monkeypatch):
    """Nothing is read again but to be hashed: a full disk, say, has no room for the text."""
    prepared = run(book, size=400)
    monkeypatch.setattr(module._Job, "build", None)
    given = {"fixed": prepared.tokenizer, "fingerprint": prepared.facts["fingerprint"]}
    assert run(book, size=400, val_fraction=0.1, **given).folder == prepared.folder


def test_a_text_that_changes_while_it_is_read_is_not_kept(book, cache, monkeypatch):
    """Its tokens would be kept under the hash of what was there before."""
    gather = module.parts.gather

    def changing(sources, *more):
        text = book.read_text()
        book.write_text(text[::-1])
        return gather(sources, *more)

    monkeypatch.setattr(module.parts, "gather", changing)
    with pytest.raises(UserError, match=r"changed while it was read: begin again\."):
        run(book, size=400)
    assert not list((cache / "texts").iterdir())


@pytest.mark.parametrize("name", ["../../../precious", "{}", "", ".", "settings/../.."])
def test_a_fingerprint_names_no_folder_elsewhere(name, cache, tmp_path):
    """What is no entry of the cache would be removed as a damaged one."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("mine")
    module.Cache()
    for claimed in (name.format(precious), os.path.relpath(precious, cache / "texts")):
        assert module.kept(claimed, config.Data()) is None
    assert (precious / "file").read_text() == "mine"
    assert (cache / "texts").is_dir()


@pytest.mark.parametrize("held", ["a part", "a text of its own"])
def test_standard_input_is_resumed_from_the_cache(held, book, monkeypatch):
    class Stdin:
        buffer = io.BytesIO(words(1, 3000).encode())

    monkeypatch.setattr(sys, "stdin", Stdin)
    texts, val = (["-"], []) if held == "a part" else ([str(book)], ["-"])
    prepared = run(*texts, val=val)
    fingerprint = prepared.facts["fingerprint"]
    again = run(*texts, val=val, fixed=prepared.tokenizer, fingerprint=fingerprint)
    assert np.array_equal(again.val, prepared.val)
    module.Cache().remove(prepared.folder)
    with pytest.raises(UserError, match="standard input"):
        run(*texts, val=val, fixed=prepared.tokenizer, fingerprint=fingerprint)


@pytest.mark.parametrize(
    "damage", ["short", "long", "gone", "meta", "tokenizer", "train.bin", "val.bin"]
)
def test_a_damaged_entry_is_made_again(book, damage):
    prepared = run(book, size=400)
    train = prepared.train.copy()
    file = prepared.folder / "train.bin"
    if damage == "short":
        os.truncate(file, file.stat().st_size - 2)
    elif damage == "long":
        file.write_bytes(file.read_bytes() + b"\0\0")
    elif damage == "gone":
        file.unlink()
    elif damage == "meta":
        (prepared.folder / "meta.json").write_text("{")
    elif damage.endswith(".bin"):  # of the right size, one byte changed
        other = bytearray((prepared.folder / damage).read_bytes())
        other[len(other) // 2] ^= 1
        (prepared.folder / damage).write_bytes(other)
    else:
        path = prepared.folder / "tokenizer.json"
        path.write_text(path.read_text().replace("BPE", "BPF"))
    said = []
    again = run(book, size=400, say=said.append)
    assert "damaged" in said[0]
    assert np.array_equal(again.train, train)
    assert run(book, size=400, say=said.append).facts == again.facts
    assert len(said) == 1


def test_an_entry_without_checksums_stays(book):
    """As they were written before there were any."""
    prepared, said = run(book, size=400), []
    meta = prepared.folder / "meta.json"
    earlier = msgspec.json.decode(meta.read_bytes())
    del earlier["checksums"]
    meta.write_bytes(msgspec.json.encode(earlier))
    assert run(book, size=400, say=said.append).facts == prepared.facts
    assert not said
    assert msgspec.json.decode(meta.read_bytes()) == earlier


def test_the_cache_keeps_to_its_cap(tmp_path, cache, monkeypatch):
    folders = []
    for i in range(4):
        (tmp_path / f"{i}.txt").write_text(words(i, 2000))
        folders.append(run(tmp_path / f"{i}.txt", kind="bytes").folder)
        os.utime(folders[-1], (i, i))
    run(tmp_path / "0.txt", kind="bytes")  # used again: now the newest
    size = sum(f.stat().st_size for f in folders[0].iterdir())
    monkeypatch.setenv("OVERNIGHT_CACHE_GB", str(2.5 * size / 1e9))
    (tmp_path / "5.txt").write_text(words(5, 2000))
    last = run(tmp_path / "5.txt", kind="bytes").folder
    assert set((cache / "texts").iterdir()) == {folders[0], last}
    monkeypatch.setenv("OVERNIGHT_CACHE_GB", "0")
    (tmp_path / "6.txt").write_text(words(6, 2000))
    assert run(tmp_path / "6.txt", kind="bytes").folder.is_dir()  # the one in use stays
    for wrong in ("much", "nan", "-1"):  # said also where the text is there already
        monkeypatch.setenv("OVERNIGHT_CACHE_GB", wrong)
        with pytest.raises(UserError, match="OVERNIGHT_CACHE_GB"):
            run(tmp_path / "6.txt", kind="bytes")


def test_two_processes_at_once(folder, cache):
    code = (
        "import sys; from overnight import config; from overnight.text.prepare import prepare\n"
        "p = prepare(config.Data(text=[sys.argv[1]]), config.Tokenizer())\n"
        "print(p.facts['fingerprint'], int(p.train.astype(int).sum()), 'torch' in sys.modules)"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    outputs = {process.communicate()[0] for process in started}
    assert [process.returncode for process in started] == [0, 0, 0]
    assert len(outputs) == 1
    assert b"False" in outputs.pop()
    assert len(list((cache / "texts").iterdir())) == 1
    assert not leftovers(cache)


@pytest.mark.parametrize("kind", ["bytes", "chars", "bpe", "wordpiece", "wordpiece-classic"])
def test_any_number_of_workers_writes_the_same_file(tmp_path, kind, monkeypatch):
    """Also the same as encoding the text in one piece: cuts are where no token is."""
    text = words(3, 20_000) + "\n\n  don't\t" + words(4, 5000)
    (tmp_path / "a.txt").write_text(text)
    with monkeypatch.context() as patch:
        patch.setattr(encode, "JOB", 2**11)
        files = []
        for workers in (1, 2, 5):
            prepared = run(tmp_path / "a.txt", kind=kind, size=600, workers=workers)
            files.append(prepared.train.tobytes())
            module.Cache().remove(prepared.folder)
        assert len(set(files)) == 1
    kept = int(0.9 * len(text))
    ids = prepared.tokenizer.encode(text[:kept])
    start, end = prepared.tokenizer.document_start, []
    assert prepared.train.tolist() == start + ids + end


def test_a_large_vocabulary_needs_wide_tokens():
    assert encode.dtype(2**16) is np.uint16
    assert encode.dtype(2**16 + 1) is np.uint32


def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, book, cache):
    empty, tiny, broken = (tmp_path / f"{n}.txt" for n in ("empty", "tiny", "broken"))
    empty.write_text("")
    tiny.write_text("x")
    broken.write_bytes(b"fine \xff")
    for texts, more, message in (
        ([empty], {}, "empty.txt: empty"),
        ([tiny], {}, "too few"),
        ([broken], {}, "0xff"),
        ([tmp_path / "none.txt"], {}, "no such file"),
        ([book], {"size": 50_000}, "more than this text allows: at most"),
        ([book], {"size": 100}, "needs at least 256"),
        ([book], {"size": 300, "kind": "wordpiece"}, "needs at least 514"),
        ([book], {"kind": "file"}, "tokenizer.path"),
    ):
        with pytest.raises(UserError, match=message) as error:
            run(*texts, **more)
        assert "\n" not in str(error.value)
        assert error.value.code == 2
    assert not leftovers(cache)
    assert not list((cache / "texts").iterdir())


def test_a_short_text_gets_the_vocabulary_it_allows(tmp_path):
    (tmp_path / "a.txt").write_text("so short a text, so short " * 9)
    chosen = {}
    run(tmp_path / "a.txt", choose=lambda name, value, why: chosen.update({name: (value, why)}))
    size, why = chosen["tokenizer.vocab_size"]
    assert 256 <= size < 300
    assert "short" in why


def test_the_size_of_the_text_decides_what_a_token_is(tmp_path, monkeypatch):
    assert makers.suggest_kind(10**6)[0] == "bytes"
    assert makers.suggest_kind(3 * 10**6)[0] == "bpe"  # 1.344 and 1.504 bits, docs/lab-notes.md
    (tmp_path / "a.txt").write_text("so short a text, so short " * 9)
    for limit, size, kind in ((10**6, 0, "bytes"), (10, 0, "bpe"), (10**6, 258, "bpe")):
        monkeypatch.setattr(makers, "FEW_BYTES", limit)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"{limit}-{size}"))
        for _ in range(2):  # made, and found in the cache
            chosen = {}
            made = run(
                tmp_path / "a.txt",
                kind="auto",
                size=size,
                choose=lambda name, value, why, chosen=chosen: chosen.update({name: value}),
            )
            assert chosen["tokenizer.kind"] == kind
            assert (made.tokenizer.vocab_size == 256) == (kind == "bytes")


def test_a_file_of_somebody_else(book, tmp_path):
    made = run(book, size=400).tokenizer
    made.save(tmp_path / "tokenizer.json")
    data = config.Data(text=[str(book)])
    settings = config.Tokenizer(kind="file", path=str(tmp_path))
    prepared = prepare(data, settings)
    assert prepared.tokenizer.hash == made.hash
    assert Tokenizer.load(prepared.folder / "tokenizer.json").hash == made.hash


def test_an_unwritable_cache_is_said(tmp_path, book, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match="XDG_CACHE_HOME"):
        run(book)


@pytest.mark.parametrize("what", [(module.np, "memmap"), (Path, "read_text")])
def test_what_cannot_be_read_now_is_not_thrown_away(what, book, monkeypatch):
    """Memory that is short, a disk that is gone for a moment: nothing is damaged."""
    prepared = run(book, size=400)

    def short(*_):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    with monkeypatch.context() as patch:
        patch.setattr(*what, short)
        with pytest.raises(UserError, match="Cannot allocate memory"):
            run(book, size=400)
    assert prepared.folder.exists()
    said = []
    assert run(book, size=400, say=said.append).facts == prepared.facts
    assert not said


def test_a_cache_that_can_only_be_read_serves(book, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    prepared, said = run(book, size=400), []
    monkeypatch.setattr(Path, "touch", refuse)
    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    assert run(book, size=400, say=said.append).facts == prepared.facts
    assert not said
    with pytest.raises(UserError, match=r"Read-only file system.*XDG_CACHE_HOME"):
        run(book, size=300)


def test_progress_is_told_with_the_time_left(monkeypatch):
    clock = iter([0.0, 1.0, 3.0, 4.0, 6.0])
    monkeypatch.setattr("overnight.text.progress.time.monotonic", lambda: next(clock))
    said: list[str] = []
    progress = Progress(said.append, "encoding", 100_000_000)
    for _ in range(4):
        progress.advance(20_000_000)
    assert said == ["encoding: 40 of 100 MB, 4 s left", "encoding: 80 of 100 MB, 2 s left"]


def test_training_text_is_sampled_evenly(tmp_path):
    source = tmp_path / "text"
    documents = parts.gather(_sources(tmp_path, ["é" * 500_000, "b" * 900_000]), source, "x", print)
    part = parts.whole(documents)
    assert "".join(part.texts(part.size)) == "é" * 500_000 + "b" * 900_000
    some = "".join(part.texts(part.size // 3))
    assert 0.2 < len(some.encode()) / part.size < 1 / 3 + 1e-5
    assert len("".join(part.texts(300_000)).encode()) <= 300_000
    assert {"é", "b"} <= set(some)
    assert part.tail(10) == b"b" * 10
    assert part.tail(10**9) == part.head(10**9) == documents.text[:]
    assert part.head(11) == b"\xc3\xa9" * 5 + b"\xc3"


def _sources(folder, texts):
    from overnight.text import sources

    for i, text in enumerate(texts):
        (folder / f"{i}.txt").write_text(text)
    return sources.find([str(folder / f"{i}.txt") for i in range(len(texts))], "text")


def test_meta_tells_what_is_in_the_entry(book):
    prepared = run(book, size=300)
    meta = msgspec.json.decode((prepared.folder / "meta.json").read_bytes())
    assert meta["dtype"] == "uint16"
    assert meta["tokenizer"] == prepared.tokenizer.hash
    assert meta["facts"]["train_tokens"] == len(prepared.train)
    assert meta["sizes"]["train.bin"] == 2 * len(prepared.train)


def test_another_field_is_another_text(tmp_path):
    path = tmp_path / "x.jsonl"
    row = json.dumps({"a": words(1, 100), "b": words(2, 100)})
    path.write_text((row + "\n") * 30)
    first, second = (
        prepare(config.Data(text=[str(path)], text_field=f), config.Tokenizer(kind="bytes"))
        for f in "ab"
    )
    assert first.facts["fingerprint"] != second.facts["fingerprint"]
    assert not np.array_equal(first.train[:50], second.train[:50])


def test_guessing_costs_what_a_token_does_however_long_the_text(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_VAL_BYTES", 1000)
    (tmp_path / "t.txt").write_text(words(1, 5000))
    prepared = run(tmp_path / "t.txt", kind="bytes")
    assert len(prepared.val) > 2000
    rows = msgspec.json.decode(prepared.yardsticks.read_bytes())["yardsticks"]
    assert rows[0]["bpb"] == pytest.approx(8.0)  # of 256


def told(*texts, **more) -> list[str]:
    lines: list[str] = []
    run(*texts, kind="bytes", say=lines.append, **more)
    return lines


def test_the_same_text_twice_is_said(tmp_path):
    names = [tmp_path / name for name in ("a.txt", "b.txt", "c.txt")]
    for name, seed in zip(names, (1, 1, 2), strict=True):
        name.write_text(words(seed, 500))
    a, b, c = names
    assert any("b.txt holds the same text as" in line for line in told(a, b))
    assert any("a.txt holds the same text as" in line for line in told(a, a))
    assert any("b.txt, held out, is the same text as" in line for line in told(a, val=[b]))
    empty = [tmp_path / name for name in ("d.txt", "e.txt")]
    for name in empty:
        name.write_text("")
    assert not any("same text" in line for line in told(a, *empty))
    assert not any("same text" in line for line in told(a, c, val=[]))
    assert not any("same text" in line for line in told(a, val=[c]))


def test_documents_of_very_different_sizes_are_split_by_position(tmp_path, monkeypatch):
    """Every tenth of them may hold nearly all of the text, or nearly none."""
    for i in range(20):
        (tmp_path / f"{i:02}.txt").write_text(words(i, 4000 if i == 5 else 20))
    facts = run(tmp_path, kind="bytes", val_fraction=0.1).facts
    assert facts["split"].startswith("by position, as documents differ much in size")
    assert facts["val_bytes"] == pytest.approx(0.1 * (facts["bytes"] + facts["val_bytes"]), rel=0.1)
    with monkeypatch.context() as patch:  # as it once was: another text to train on
        patch.setattr(parts, "UNEVEN", 1e9)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
        before = run(tmp_path, kind="bytes", val_fraction=0.1).facts
    assert before["split"].startswith("by document")
    assert before["fingerprint"] != facts["fingerprint"]
    (tmp_path / "05.txt").write_text(words(5, 20))
    assert run(tmp_path, kind="bytes", val_fraction=0.1).facts["split"].startswith("by document")


@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.tsv"])
def test_a_table_that_is_read_as_text_is_told(tmp_path, name):
    (tmp_path / name).write_text(words(1, 500))
    assert any("read as plain text" in line for line in told(tmp_path / name))
    assert any("read as plain text" in line for line in told(tmp_path))
    (tmp_path / "a.txt").write_text(words(1, 500))
    assert not any("plain text" in line for line in told(tmp_path / "a.txt"))


def test_rows_from_standard_input_are_told(tmp_path, monkeypatch):
    rows = "".join(json.dumps({"text": words(i, 50)}) + "\n" for i in range(30))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(rows.encode())))
    assert any("begins as JSON" in line for line in told("-"))


def test_another_packing_is_named(tmp_path):
    path = tmp_path / "a.txt.bz2"
    path.write_bytes(bz2.compress(words(1, 500).encode()))
    with pytest.raises(UserError, match="packed in a way that is not read"):
        run(path, kind="bytes")
