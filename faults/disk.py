"""ENOSPC and EIO at every call of a run that writes: the k-th call fails, for every k.

Counted are open for writing, write, fsync, rename, mkdir, unlink and rmdir below the run folder.
Until the run folder has its name, a failure leaves nothing; from then on training ends as if
nothing had happened, or, where the end itself could not be kept, a resume ends so.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from . import tiny
from .tiny import Outcome

MORE = {
    "length__steps": 8, "save__every": 3, "save__keep": 1, "eval__every": 4, "log__every": 2,
}  # fmt: skip


class Faulty:
    """Counts the calls that write below `root`; the calls number `first` … `last` fail."""

    def __init__(self, root: Path, first: int = 0, last: int = 0, number: int = errno.EIO) -> None:
        self.root, self.first, self.last, self.number = str(root), first, last, number
        self.short = number == errno.ENOSPC
        self.calls: list[str] = []

    def ours(self, path: Any, dir_fd: int | None = None) -> bool:
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        path = os.fsdecode(path)
        if dir_fd is not None and dir_fd >= 0:
            path = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), path)
        return os.path.abspath(path).startswith(self.root + "/") and not path.endswith("run.lock")

    def call(self, what: str) -> None:
        self.calls.append(what)
        if self.first <= len(self.calls) <= self.last:
            raise OSError(self.number, os.strerror(self.number))

    def wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def checked(path: Any, *rest: Any, **more: Any) -> Any:
            if self.ours(path, more.get("dir_fd")):
                if name == "write" and self.short and len(self.calls) + 1 == self.first:
                    self.calls.append(name)  # what the kernel does first when room ends
                    return real(path, rest[0][: len(rest[0]) // 2])
                self.call(name)
            return real(path, *rest, **more)

        return checked

    def open(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def checked(path: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
            if isinstance(path, int) or "r" in mode or not self.ours(path):
                return real(path, mode, *rest, **more)
            self.call("open")
            return _File(real(path, mode, *rest, **more), self)

        return checked

    def __enter__(self) -> Faulty:
        self.stack = ExitStack()
        for name in ("write", "fsync", "rename", "replace", "mkdir", "unlink", "rmdir"):
            self.stack.enter_context(tiny.patched(os, name, self.wrap(name, getattr(os, name))))
        opened = self.open(io.open)
        self.stack.enter_context(tiny.patched(io, "open", opened))
        self.stack.enter_context(tiny.patched(builtins, "open", opened))
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.close()


class _File:
    """A file whose writes count, too."""

    def __init__(self, file: Any, faulty: Faulty) -> None:
        self.file, self.faulty = file, faulty

    def write(self, data: Any) -> Any:
        if self.faulty.first <= len(self.faulty.calls) + 1 <= self.faulty.last:
            self.file.write(data[: len(data) // 2])
        self.faulty.call("write")
        return self.file.write(data)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def run(folder: Path, short: bool, cases: int) -> Iterator[Outcome]:
    from overnight import runfolder
    from overnight.training import saving

    with tiny.patched(saving, "SAVE_PAUSE", 0.0), tiny.patched(runfolder, "CLOSE_PAUSE", 0.0):
        yield from _run(folder, short)


def _run(folder: Path, short: bool) -> Iterator[Outcome]:
    text, whole = tiny.text_file(folder), folder / "whole"
    root = folder / "root"
    root.mkdir()
    tiny.begin(whole, text, **MORE)
    with Faulty(root) as counted:
        tiny.begin(root / "run", text, **MORE)
    named = counted.calls.index("rename") + 1  # the run folder has its name
    total = len(counted.calls)
    for number, word in ((errno.ENOSPC, "ENOSPC"), (errno.EIO, "EIO")):
        outcome = Outcome(f"disk: {word} at every writing call", 0)
        for first in range(1, total + 1, 23 if short else 1):
            for times in (1, 7) if not (short and outcome.failures) else ():
                shutil.rmtree(root)
                root.mkdir()
                faulty = Faulty(root, first, first + times - 1, number)
                outcome.cases += 1
                outcome.failures += [
                    f"{word} at call {first} ({counted.calls[first - 1]}), {times} times: {wrong}"
                    for wrong in _wrong(root, text, whole, faulty, first <= named)
                ]
        outcome.notes.append(f"{total} calls, {named} until the run folder has its name")
        yield outcome


def _wrong(root: Path, text: Path, whole: Path, faulty: Faulty, creating: bool) -> list[str]:
    from overnight.errors import UserError

    out = root / "run"
    try:
        with faulty:
            done = tiny.begin(out, text, **MORE)
        reason = done.reason
    except (OSError, UserError) as error:
        reason = f"{type(error).__name__}: {error}"
    if creating and reason != "finished":
        left = [path.name for path in root.iterdir()]
        if left and faulty.first == faulty.last:
            return [f"{left} is left ({reason})"]
        return []
    wrong = _damaged(out, reason == "finished")
    if reason != "finished":
        if faulty.first == faulty.last:
            wrong.append(f"the run ended: {reason}")
        again = tiny.resume(out)
        if again.reason != "finished":
            wrong.append(f"the resumed run ended: {again.reason}")
    differences = tiny.different(out, whole)
    told = b'"kind":"disk"' in (out / "log.jsonl").read_bytes()
    if told:  # block losses that found no room are said to be missing
        differences = [d for d in differences if not d.startswith("step-")]
    return wrong + differences


def _damaged(out: Path, finished: bool) -> list[str]:
    from overnight.model import checkpoint
    from overnight.runfolder import RunFolder, read_log

    run, wrong = RunFolder(out), []
    for step in run.checkpoint_steps():
        try:
            checkpoint.verify(run.checkpoint_path(step))
        except checkpoint.DamagedError as error:
            wrong.append(str(error))
    if not finished:
        return wrong
    rows = read_log(run.log)
    wrong += rows.problems
    seqs = [row.seq for row in rows.rows if row.attempt == 1]
    if seqs != list(range(len(seqs))):
        wrong.append("rows are missing or out of order")
    return wrong
