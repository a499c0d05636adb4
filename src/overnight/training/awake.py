"""Keep the machine from sleeping while a run trains, where the system offers it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator

from ..errors import Say

REFUSED = 0.3  # seconds within which a program ends that may not, or cannot


def command(pid: int) -> list[str] | None:
    """A program that holds sleep off until process `pid` ends by itself, or None."""
    if shutil.which("caffeinate"):
        return ["caffeinate", "-i", "-w", str(pid)]
    if shutil.which("systemd-inhibit") and os.path.isdir("/run/systemd/system"):
        wait = ["tail", f"--pid={pid}", "-f", "/dev/null"]
        return ["systemd-inhibit", "--what=sleep:idle", "--who=overnight", "--why=training", *wait]
    return None


@contextlib.contextmanager
def awake(say: Say) -> Iterator[None]:
    """Hold sleep off inside the block, and say so."""
    words = command(os.getpid())
    if words is None:
        yield
        return
    quiet = subprocess.DEVNULL
    try:
        # of a session of its own: it outlives a terminal that is closed, as the trainer does
        holder = subprocess.Popen(
            words, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
        )
    except OSError:
        yield
        return
    try:
        holder.wait(REFUSED)
    except subprocess.TimeoutExpired:
        say(f"the machine is kept awake ({words[0]})")
    try:
        yield
    finally:
        holder.terminate()
        holder.wait()
