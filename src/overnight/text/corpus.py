"""One source of text, a file, as documents.

It yields them as pieces of UTF-8, so that no file has to fit into memory. Everything is checked on
the way: what is not text ends in one line that says where.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import IO, Any

import msgspec

from ..errors import UserError, within_sentence

PIECE = 4 * 2**20  # bytes read at a time
PACKED_PIECE = 8192  # of .zst: a piece can unpack to some 30,000 times its size
MAX_ROW = 256 * 2**20  # a longer .jsonl row is an error
HEAD = 8192  # where NUL bytes betray what is not text, as in git
PACKED = {".gz", ".zst"}
KINDS = {".jsonl": "rows", ".ndjson": "rows", ".parquet": "parquet", ".arrow": "arrow"}
TABLES = ("parquet", "arrow")
OTHER_PACKED = (".bz2", ".xz", ".zip", ".7z", ".tar", ".tgz")
OTHERWISE_PACKED = "packed in a way that is not read: unpack it, or use .gz or .zst."
TAR = slice(257, 262)  # where an archive says "ustar"

FIELDS = 5  # of a row that are named

Piece = tuple[bytes, bool]  # UTF-8, and whether a document ends behind it


class Source:
    """One file. `name` is how errors call it, `form` how it is read."""

    def __init__(self, path: Path, name: str, text_field: str) -> None:
        self.path, self.name, self.text_field = path, name, text_field
        suffixes = [s.lower() for s in Path(name).suffixes]
        self.packing = suffixes.pop() if suffixes and suffixes[-1] in PACKED else ""
        self.kind = KINDS.get(suffixes[-1] if suffixes else "", "text")
        if self.packing and self.kind in TABLES:
            self.kind = "text"
        self._hashed: tuple[int, ...] = ()  # the state of the file then
        self.spool: Any = None  # keeps a temporary file alive
        self.without_text = 0  # rows, once they are read

    def digest(self) -> bytes:
        """SHA-256 of the bytes on disk."""
        try:
            with self.path.open("rb") as file:
                self._hashed = _state(os.fstat(file.fileno()))
                return hashlib.file_digest(file, "sha256").digest()
        except OSError as error:
            raise UserError(f"{self.name}: cannot be read: {error.strerror or error}.") from None

    def check_unchanged(self) -> None:
        """Of what was hashed and then read: the tokens are kept under the hash."""
        now: tuple[int, ...] = ()
        with suppress(OSError):  # or it is gone
            now = _state(self.path.stat())
        if self._hashed != now:
            raise UserError(f"{self.name}: changed while it was read: begin again.")

    @property
    def form(self) -> str:
        """Everything beside the bytes that decides which text comes out."""
        return f"{self.packing} {self.kind} {self.text_field if self.kind != 'text' else ''}"

    def pieces(self) -> Iterator[Piece]:
        """The documents; every byte is checked to be UTF-8."""
        try:
            if self.kind in TABLES:
                yield from self._table()
            else:
                with self._open() as file:
                    yield from self._rows(file) if self.kind == "rows" else self._text(file)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise UserError(f"{self.name}: damaged {self.packing}: {error}") from None
        except OSError as error:
            raise UserError(f"{self.name}: cannot be read: {error.strerror or error}.") from None

    def _open(self) -> IO[bytes]:
        if self.packing == ".gz":
            return gzip.open(self.path, "rb")  # type: ignore[return-value]
        file = self.path.open("rb")
        return io.BufferedReader(_ZstFile(file), PIECE) if self.packing == ".zst" else file

    def _text(self, file: IO[bytes]) -> Iterator[Piece]:
        """The whole file is one document, without its byte-order mark."""
        utf8 = codecs.getincrementaldecoder("utf-8")()
        offset = lines = 0
        piece = file.read(PIECE)
        if piece[TAR] == b"ustar":
            raise UserError(f"{self.name}: {OTHERWISE_PACKED}")
        if piece[:HEAD].count(0) * 10 > len(piece[:HEAD]):
            raise UserError(f"{self.name}: not text (NUL bytes). {_made_utf8(self.name, piece)}")
        if piece.startswith(codecs.BOM_UTF8):
            piece, offset = piece[3:], 3
        while piece:
            following = file.read(PIECE)
            pending = len(utf8.getstate()[0])
            try:
                utf8.decode(piece, final=not following)
            except UnicodeDecodeError as error:
                at = error.start - pending  # in this piece; the one before may hold its start
                line = lines + piece.count(b"\n", 0, max(at, 0)) + 1
                byte = error.object[error.start]
                if self.name.lower().endswith(OTHER_PACKED):
                    raise UserError(f"{self.name}: {OTHERWISE_PACKED}") from None
                raise UserError(
                    f"{self.name}: not UTF-8: byte 0x{byte:02x} at offset {offset + at:,} "
                    f"(line {line:,}). {_made_utf8(self.name, piece if not offset else b'')}"
                ) from None
            offset, lines = offset + len(piece), lines + piece.count(b"\n")
            yield piece, not following
            piece = following

    def _rows(self, file: IO[bytes]) -> Iterator[Piece]:
        """Each row is a document: the text in its field."""
        field = msgspec.field(name=self.text_field)
        row = msgspec.defstruct("row", [("text", str | None, field)])
        decoder = msgspec.json.Decoder(row)
        number = 0
        while line := file.readline(MAX_ROW):
            number += 1
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if not line.strip():
                continue
            try:
                text = decoder.decode(line).text  # type: ignore[attr-defined]
                if text:
                    yield text.encode(), True
                else:
                    self.without_text += 1
            except msgspec.ValidationError as error:
                hint = f'no text in field "{self.text_field}"'
                raise UserError(
                    f"{self.name}:{number}: {hint}: {within_sentence(error)}.{_fields(line)}"
                ) from None
            except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
                raise UserError(
                    f"{self.name}:{number}: not a JSON row: {within_sentence(error)}."
                ) from None

    def _table(self) -> Iterator[Piece]:
        """Each row of the column is a document; an empty cell is none."""
        from . import tables

        for number, text in enumerate(
            tables.column(self.path, self.kind, self.name, self.text_field)
        ):
            if not text:
                self.without_text += 1
                continue
            try:
                yield text.encode(), True
            except UnicodeEncodeError:
                raise UserError(f"{self.name}: row {number:,} is not Unicode.") from None


def _state(found: os.stat_result) -> tuple[int, ...]:
    """What is another one when somebody has written."""
    return found.st_ino, found.st_size, found.st_mtime_ns


def _made_utf8(name: str, beginning: bytes) -> str:
    """How to come from another encoding to UTF-8. UTF-16 has a mark at its beginning, or a NUL in
    most characters; Windows-1252 is Latin-1 with quotes and dashes, which iconv would otherwise
    make control characters of."""
    utf16 = beginning.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in beginning
    encoding = "UTF-16" if utf16 else "WINDOWS-1252"
    said = f"If it is {encoding}, convert it to UTF-8"
    if name == "-" or Path(name).suffix.lower() in PACKED:
        return f"{said}."
    return f"{said}, as with: iconv -f {encoding} -t UTF-8 {quote(name)}"


def _fields(line: bytes) -> str:
    """The fields of a row that hold text, and how one of them is taken."""
    try:
        row = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeError, RecursionError):  # damaged further on
        return ""
    fields = row.items() if isinstance(row, dict) else ()
    held = {name: len(value) for name, value in fields if isinstance(value, str)}
    if not held:
        return ""
    longest = sorted(held, key=lambda name: -held[name])[:FIELDS]
    names = ", ".join(f'"{name[:40]}"' for name in longest)
    return f" There is text in {names}: name the field, as in --data.text_field {quote(longest[0])}"


class _ZstFile(io.RawIOBase):
    """Decompresses frame by frame; a frame that ends early is an `EOFError`, as in gzip."""

    def __init__(self, file: IO[bytes]) -> None:
        import zstandard

        self._file = file
        self._new = zstandard.ZstdDecompressor().decompressobj
        self._frame = self._new()
        self._inside = False
        self._pending = b""
        self._damage = zstandard.ZstdError

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        out = self._pending
        while not out:
            packed = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame, self._inside = self._new(), False
            packed = packed or self._file.read(PACKED_PIECE)
            if not packed:
                if self._inside:
                    raise EOFError("ends early")
                return 0
            self._inside = True
            try:
                out = self._frame.decompress(packed)
            except self._damage as error:
                raise EOFError(str(error)) from None
        n = min(len(out), len(buffer))
        buffer[:n] = out[:n]
        self._pending = out[n:]
        return n
