"""What a control group, as of a container or a batch job, leaves of the machine to this process.

Neither `os.cpu_count` nor psutil knows of it, and a process that takes more memory than its group
may have is ended without a word. Both versions are read (Linux: cgroup-v2, cgroup-v1/memory).
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

ROOT, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
MEMORY = (  # per version: limit, use, and what of that the system would give back
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def memory(root: Path = ROOT, own: Path = OWN) -> tuple[float, float]:
    """Bytes that are free, and all there are; infinite where nothing limits them."""
    free = total = math.inf
    for folder in _groups("memory", root, own):
        for limit, use, idle in MEMORY:
            with contextlib.suppress(OSError, ValueError):  # not here, or "max"
                most = int((folder / limit).read_text())
                used = int((folder / use).read_text()) - _figure(folder / "memory.stat", idle)
                free, total = min(free, most - used), min(total, most)
    return max(0.0, free), total


def cores(root: Path = ROOT, own: Path = OWN) -> int:
    """Cores that this process may run on, and may fill."""
    try:
        found = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        found = os.cpu_count() or 1
    for folder in _groups("cpu", root, own):
        for quota in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
            with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
                allowed, period = " ".join((folder / name).read_text() for name in quota).split()
                if int(allowed) > 0:  # -1: no limit
                    found = max(1, min(found, int(allowed) // int(period)))
    return found


def _groups(controller: str, root: Path, own: Path) -> Iterator[Path]:
    """The folders of this process's group and of those around it. A container may see its own as
    the root, under any name; what is not there, nobody can read."""
    with contextlib.suppress(OSError, ValueError):
        for line in own.read_text().splitlines():
            _, names, path = [*line.split(":", 2), "", ""][:3]
            if not path or (names and controller not in names.split(",")):
                continue
            group = root / (controller if names else "") / path.lstrip("/")
            yield from (group, *(part for part in group.parents if part.is_relative_to(root)))


def _figure(path: Path, name: str) -> int:
    figures = dict(line.split(" ", 1) for line in path.read_text().splitlines())
    return int(figures.get(name, 0))
