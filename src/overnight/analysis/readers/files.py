"""Log files as UTF-8 bytes, whatever they were packed in or saved by."""

from __future__ import annotations

import codecs
import gzip
import io
from pathlib import Path
from typing import IO, Any, cast

GZIP = b"\x1f\x8b"
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # what PowerShell's > writes


def opened(path: Path) -> IO[bytes]:
    """`path` for reading; gzip is unpacked, UTF-16 becomes UTF-8. OSError or EOFError while
    reading if the packing is damaged."""
    with path.open("rb") as file:
        begin = file.read(2)
    if begin == GZIP:
        return cast(IO[bytes], gzip.open(path, "rb"))
    if begin in UTF_16:
        return io.BufferedReader(_Utf8(path))
    return path.open("rb")


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
    """The first `size` bytes, unpacked; what can be had of a damaged file."""
    try:
        with opened(path) as file:
            return file.read(size)
    except (OSError, EOFError):
        return b""
