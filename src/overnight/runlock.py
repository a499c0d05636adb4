"""Who trains a run: one process at a time."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from pathlib import Path

from .errors import UserError
from .files import open_no_follow

TRIES = 10  # to lock, before somebody else has it


class RunLock:
    """At most one process trains a run: an advisory lock that the kernel frees when its owner
    ends, however it ends. The file says who holds it."""

    def __init__(self, path: Path) -> None:
        try:
            self._fd = open_no_follow(str(path), os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise UserError(f"{path}: cannot be locked: {error.strerror}.", 1) from None
        try:
            self._lock()
        except OSError as error:
            owner = os.read(self._fd, 200).decode("ascii", "replace").strip()
            os.close(self._fd)
            if not isinstance(error, BlockingIOError):  # as on some network file systems
                raise UserError(f"{path}: cannot be locked: {error.strerror}.", 1) from None
            raise UserError(
                f"{path.parent} is being trained by {owner or 'another process'}."
            ) from None
        os.ftruncate(self._fd, 0)
        os.write(self._fd, f"process {os.getpid()} on {socket.gethostname()}\n".encode())

    def _lock(self) -> None:
        """A moment later once more: `is_locked` looks by holding a lock."""
        for left in reversed(range(TRIES)):
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not left:
                    raise
                time.sleep(0.02)

    def __enter__(self) -> RunLock:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def release(self) -> None:
        os.close(self._fd)


def is_locked(path: Path) -> bool:
    """Whether a process of this machine holds the lock at `path`: trains the run."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False
