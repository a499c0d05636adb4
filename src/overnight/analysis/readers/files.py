"""Log files as UTF-8 bytes, whatever they were packed in or saved by."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import re
import zlib
from pathlib import Path
from typing import IO, Any, cast

import msgspec

DAMAGED = (OSError, EOFError, zlib.error)  # what reading a damaged file may raise
GZIP = b"\x1f\x8b"
NUMBER = re.compile(r"\d+(?:\.(\d*))?")
TORN_TAIL = 65_536  # bytes that tell whether the last line is whole
ALIKE = 20  # lines that show how many decimals a number has
JSON_NAMES = (".json", ".json.gz")  # of a document; elsewhere an object is a line
COLOURS = r"\x1b\[[0-9;?]*[A-Za-z]"  # of a terminal; and where a bar of progress moves to
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # what PowerShell's > writes


def opened(path: Path) -> IO[bytes]:
    """`path` for reading; gzip is unpacked, UTF-16 becomes UTF-8. Reading it raises
    one of DAMAGED if the packing is damaged."""
    begin = _begin(path)
    if begin == GZIP:
        return cast(IO[bytes], gzip.open(path, "rb"))
    if begin in UTF_16:
        return io.BufferedReader(_Utf8(path))
    return path.open("rb")


def _begin(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(2)


class _Utf8(io.RawIOBase):
    """A UTF-16 file line by line as UTF-8."""

    def __init__(self, path: Path) -> None:
        self._text = path.open(encoding="utf-16", errors="replace", newline="")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        got = self._text.read(max(1, len(buffer) // 4)).encode()
        buffer[: len(got)] = got
        return len(got)

    def close(self) -> None:
        self._text.close()
        super().close()


def head(path: Path, size: int) -> bytes:
    """The first `size` bytes, unpacked."""
    with opened(path) as file:
        return file.read(size)


def tail(path: Path, size: int) -> bytes:
    """The last `size` bytes, unpacked."""
    last = b""
    with opened(path) as file:
        if _begin(path) not in (GZIP, *UTF_16):
            file.seek(max(0, path.stat().st_size - size))
        while piece := file.read(2**20):
            last = (last + piece)[-size:]
    return last


def torn(path: Path) -> bool:
    """Whether the last line of a text breaks off within a number: it has no end, and its last
    number has fewer decimals than all numbers have at that place in lines that begin alike."""
    text = tail(path, TORN_TAIL).decode("utf-8", errors="replace")
    *before, last = text.splitlines() or [""]
    if not text[-1:].isdigit() and text[-1:] != ".":
        return False
    shape, decimals = _shape(last)
    if not decimals:
        return False  # it ends with a sentence
    at = len(decimals) - 1
    usual = [other[at] for form, other in map(_shape, before[1:]) if form.startswith(shape)]
    zero = not re.search(r"[1-9][\d.]*$", last)  # which is written without decimals, as it is
    return len(usual) >= ALIKE and not zero and decimals[at] < min(usual)


def _shape(line: str) -> tuple[str, list[int]]:
    """A line without its numbers, and the decimals of each."""
    return NUMBER.sub("\0", line), [len(number[1] or "") for number in NUMBER.finditer(line)]


def decoded(content: bytes) -> Any:
    """A JSON document; NaN and Infinity, which JSON forbids, as Python's own `json` writes them.
    ValueError or RecursionError if it is none."""
    try:
        return msgspec.json.decode(content)
    except (ValueError, RecursionError):
        if b"NaN" not in content and b"Infinity" not in content:
            raise
        return json.loads(content)


def is_text(head: bytes) -> bool:
    """Whether a file that begins so is text. Zeros before it are a hole, of a file that was cut off
    while it was written; a power cut may leave some behind, but not in line one."""
    return min(head.lstrip(b"\xef\xbb\xbf \r\n\0").partition(b"\n")[0], default=7) >= 7
