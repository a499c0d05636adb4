"""What is kept from one call to the next: prepared texts, choices, timings, compiled code.

    <cache>/overnight/texts/<fingerprint>/    one prepared text
    <cache>/overnight/settings/<key>.json     what these settings led to, for this text
    <cache>/overnight/timings/<key>.json      what was timed on this machine
    <cache>/overnight/native/<key>.so         what was compiled for this machine

A text is complete or not there: it is built in a temporary folder and renamed, so that two
processes may build the same one; the second finds it there. Reading one marks it as used; when the
cache outgrows its cap, the texts that were not used for longest go first. On POSIX an open token
file outlives its name.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from .errors import UserError
from .files import replace

DEFAULT_CAP_GB = 20.0
STALE_SECONDS = 24 * 3600  # a temporary folder of a killed process


class Cache:
    def __init__(self) -> None:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        try:
            self.path = Path(base).expanduser() / "overnight"
        except RuntimeError:
            raise UserError(
                "there is no home folder: set XDG_CACHE_HOME to one for the cache."
            ) from None
        self.texts = self.path / "texts"
        self.settings = self.path / "settings"
        self.timings = self.path / "timings"
        self.native = self.path / "native"
        try:
            self.texts.mkdir(parents=True, exist_ok=True)
            self.settings.mkdir(exist_ok=True)
            self.timings.mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{self.path}: the cache folder cannot be made ({error.strerror}): "
                "set XDG_CACHE_HOME to a folder that can be written."
            ) from None

        self.cap = _cap()

    def entry(self, fingerprint: str) -> Path:
        return self.texts / fingerprint

    @contextmanager
    def building(self) -> Iterator[Path]:
        """A temporary folder beside the entries; gone at the end unless it was committed."""
        folder = None
        try:
            folder = Path(tempfile.mkdtemp(prefix=".tmp-", dir=self.texts))
            yield folder
        except OSError as error:
            raise UserError(
                f"{self.path}: preparing the text failed: {error.strerror or error}. "
                "XDG_CACHE_HOME moves the cache to another disk."
            ) from None
        finally:
            if folder:
                shutil.rmtree(folder, ignore_errors=True)

    def commit(self, folder: Path, fingerprint: str) -> None:
        """Make `folder` the entry; where another process was faster, theirs stays."""
        with suppress(OSError):  # not empty: it is there already
            folder.rename(self.entry(fingerprint))

    def remove(self, entry: Path) -> None:
        """Renamed first: no reader ever sees half an entry."""
        with suppress(OSError):
            trash = Path(tempfile.mkdtemp(prefix=".tmp-", dir=self.texts))
            with suppress(OSError):
                entry.rename(trash / entry.name)
            shutil.rmtree(trash, ignore_errors=True)

    def trim(self, in_use: Path) -> None:
        """Keep to the cap: least recently used first, never the entry in use."""
        entries = []
        for folder in self.texts.iterdir():
            with suppress(OSError):  # another process is trimming, too
                used = folder.stat().st_mtime
                if folder.name.startswith("."):
                    if time.time() - used > STALE_SECONDS:
                        shutil.rmtree(folder, ignore_errors=True)
                    continue
                entries.append((used, folder, sum(f.stat().st_size for f in folder.iterdir())))
        total = sum(size for _, _, size in entries)
        for _, folder, size in sorted(entries):
            if total <= self.cap:
                break
            if folder != in_use:
                self.remove(folder)
                total -= size


def recall(path: Path, kind: Any) -> Any:
    """What was kept at `path`, of type `kind`; None where that is not there, or is something
    else."""
    with suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode(path.read_bytes(), type=kind)
    return None


def keep(path: Path, value: Any) -> None:
    """Keep `value` at `path` for `recall`, if the disk allows: it can be found again."""
    with suppress(OSError):
        replace(path, msgspec.json.encode(value))


def _cap() -> float:
    """Bytes."""
    given = os.environ.get("OVERNIGHT_CACHE_GB", "")
    with suppress(ValueError):
        if (size := float(given or DEFAULT_CAP_GB)) >= 0:  # not nan, either
            return size * 1e9
    raise UserError(f"OVERNIGHT_CACHE_GB={given}: a number of gigabytes is wanted.")
