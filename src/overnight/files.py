"""Files that are whole or not there, stay where power fails, and are what they say they are."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil

from .errors import UserError


def replace(path: Path, content: bytes, durable: bool = False) -> None:
    """Write a file under another name, then rename it: no reader ever sees half of one. A `durable`
    one is not lost with the power, either."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _sweep_beginnings(path, older_than=STALE)  # on a shared disk a live one may look gone
    try:
        with open(temporary, "wb", opener=open_no_follow) as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        fsync_path(path.parent)


CLOCK_SKEW = 60.0  # seconds that the clock may have been set by
STALE = 600.0  # seconds: nobody writes one file for so long


class TakenError(UserError):
    """Somebody has this name, or is about to."""


@contextmanager
def appearing(path: Path, option: str) -> Iterator[Path]:
    """A folder to write into; it appears at `path`, which `option` gave, by rename once it is whole
    and durable, or not at all. TakenError, at once, where another process makes it, too."""
    if os.path.lexists(path):  # a link that leads nowhere, too
        raise TakenError(f"{path} exists already: give another {option}.")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _sweep_beginnings(path)
    try:
        make_folder(path.parent)
        with _alone_in(path.parent):
            temporary.mkdir()
            rivals = [left for left in _beginnings(path) if left != temporary]
        if rivals:
            raise TakenError(
                f"{path}: another process is making it ({rivals[0]}): give another {option}."
            )
        yield temporary
        for entry in [*temporary.rglob("*"), temporary]:
            fsync_path(entry)
        temporary.rename(path)
        fsync_path(path.parent)
    except OSError as error:
        what = error.filename or path
        raise UserError(f"{path}: cannot be made: {what}: {error.strerror or error}.", 1) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Of the processes that ask for it one at a time, where the disk knows locks."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _sweep_beginnings(path: Path, older_than: float = 0.0) -> None:
    """Remove what processes that were killed had begun of this very file or folder."""
    for left in _beginnings(path):
        with suppress(OSError):
            if time.time() - left.lstat().st_mtime < older_than:
                continue
        if not _is_abandoned(left):
            continue
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _is_abandoned(left: Path) -> bool:
    """Whether the process that its name tells is gone; another one may have the number by now."""
    pid = left.name.split(".")[-2]
    if pid == str(os.getpid()):  # as of a container that was killed: each has a process 1
        return True
    try:
        return bool(psutil.Process(int(pid)).create_time() > left.lstat().st_mtime + CLOCK_SKEW)
    except psutil.NoSuchProcess:
        return True
    except (psutil.Error, OSError, ValueError):
        return False


def _beginnings(path: Path) -> list[Path]:
    """What stands beside `path` under the names that are of it until it is whole."""
    named = re.compile(rf"\.{re.escape(path.name)}\.\d+\.tmp")
    return [left for left in path.parent.glob(".*.tmp") if named.fullmatch(left.name)]


def make_folder(path: Path) -> None:
    """Make a folder and what is missing above it, durably."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        fsync_path(path.parent)


def fsync_path(path: Path) -> None:
    """Make a file's bytes, or a folder's names, durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_bounded(path: Path, most: int) -> bytes:
    """The content of an ordinary file of at most `most` bytes; OSError if it is another thing,
    such as a link to a device that never ends."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not an ordinary file")
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"larger than {most >> 20} MiB")
    return content


def bounded_lines(file: IO[bytes], most: int) -> Iterator[tuple[int, bytes | None]]:
    """Numbered lines in bounded memory; None for one that is longer than `most` bytes."""
    number = 0
    while line := file.readline(most + 1):
        number += 1
        if len(line) <= most:
            yield number, line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(most)
        yield number, None


def open_no_follow(path: str, flags: int) -> int:
    """An opener for `open`: what a link in somebody's folder leads to is not ours to write."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o644)
