"""Our C as a library of this machine: compiled once for a processor, kept, checked, opened."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import cffi

from ..cache import Cache
from ..errors import UserError

FOLDER = Path(__file__).parent
SOURCES, HEADERS = ("token.c", "gelu.c"), ("token.h", "gelu.h")
# Sums may be taken in any order, which is what lets a compiler use vectors. Not -ffast-math: a
# library linked with it has the whole process round small numbers to zero.
FLAGS = ["-O3", "-fPIC", "-shared", "-fassociative-math", "-fno-signed-zeros"]
FLAGS += ["-fno-trapping-math", "-fno-math-errno"]
# what a compiler may not know
TRIED: tuple[list[str], ...] = (["-march=native", "-fopenmp"], ["-march=native"], ["-fopenmp"], [])
SECONDS = 60  # that it may take


@cache
def declarations() -> cffi.FFI:
    """What the headers say, for Python."""
    c = cffi.FFI()
    for name in HEADERS:
        c.cdef(_source(name))
    return c


@cache
def load() -> Any:
    """The sources compiled for this processor, or None where that cannot be."""
    # nothing that is wrong with a compiler or a cache keeps anybody from writing text
    with suppress(UserError, OSError, ValueError, subprocess.SubprocessError):
        compiler = shlex.split(os.environ.get("CC") or "cc") or [""]
        if not shutil.which(compiler[0]) or _asks_for_tools():
            return None
        sources = [_source(name) for name in (*SOURCES, *HEADERS)]
        made_of = [*sources, _processor(), compiler, FLAGS, TRIED]
        key = hashlib.sha256(repr(made_of).encode()).hexdigest()[:32]
        path = Cache().native / f"{key}.so"
        if _is_whole(path) or _build(compiler, path):
            return declarations().dlopen(str(path))
    return None


def _source(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _is_whole(path: Path) -> bool:
    """Whether the library is there, and is what was built: half of one ends the process."""
    with suppress(OSError):
        return path.with_suffix(".sha256").read_text() == _checksum(path)
    return False


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _build(compiler: list[str], path: Path) -> bool:
    """Compile the sources into `path`, which is complete or as it was, and write its checksum."""
    path.parent.mkdir(exist_ok=True)
    sources = [str(FOLDER / name) for name in SOURCES]
    with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as folder:
        made, checksum = Path(folder) / "made.so", Path(folder) / "made.sha256"
        for more in TRIED:
            command = [*compiler, *FLAGS, *more, *sources, "-o", str(made), "-lm"]
            code = subprocess.run(command, capture_output=True, timeout=SECONDS).returncode
            if code < 0:  # ended from outside, as by Ctrl-C: it says nothing of what it knows
                return False
            if code == 0:
                checksum.write_text(_checksum(made))
                made.replace(path)
                checksum.replace(path.with_suffix(".sha256"))
                return True
    return False


def _asks_for_tools() -> bool:
    """Whether `cc` is that of a Mac without developer tools, which opens a window to offer them."""
    return sys.platform == "darwin" and bool(
        subprocess.run(["xcode-select", "-p"], capture_output=True).returncode
    )


def _processor() -> str:
    """What the processor can do, which the code is compiled for."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return line
    return f"{platform.machine()} {platform.processor()} {platform.node()}"
