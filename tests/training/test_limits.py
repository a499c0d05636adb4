"""What a control group leaves of the machine, read from folders as a kernel lays them out."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from overnight.training import limits

GB = 2**30


def laid_out(folder: Path, own: str, files: dict[str, str]) -> tuple[Path, Path]:
    root = folder / "cgroup"
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "own").write_text(own)
    return root, folder / "own"


V2 = {
    "job/memory.max": f"{4 * GB}\n",
    "job/memory.current": f"{3 * GB}\n",
    "job/memory.stat": f"anon 1\ninactive_file {GB}\nactive_file 5\n",
    "job/step/memory.max": "max\n",
    "job/step/memory.current": f"{GB}\n",
    "job/step/memory.stat": "inactive_file 0\n",
}
V1 = {
    "memory/memory.limit_in_bytes": f"{2 * GB}\n",
    "memory/memory.usage_in_bytes": f"{GB // 2}\n",
    "memory/memory.stat": "inactive_file 7\ntotal_inactive_file 0\n",
}


@pytest.mark.parametrize(
    ("own", "files", "free", "total"),
    [
        ("0::/job/step\n", V2, 2 * GB, 4 * GB),  # of the group around it
        ("0::/\n", V2, math.inf, math.inf),
        ("0::/job/step\n", V2 | {"job/step/memory.max": f"{2 * GB}\n"}, GB, 2 * GB),
        ("2:cpu,cpuacct:/x\n5:memory:/docker/1f\n", V1, 1.5 * GB, 2 * GB),  # as the root is seen
        ("5:cpu:/docker/1f\n", V1, math.inf, math.inf),
        ("", V2, math.inf, math.inf),
        ("\nabc\n7:x\n0::/job/step\n", V2, 2 * GB, 4 * GB),  # lines that say nothing
    ],
)
def test_memory_that_a_group_may_have(
    own: str, files: dict[str, str], free: float, total: float, tmp_path: Path
) -> None:
    assert limits.memory(*laid_out(tmp_path, own, files)) == (free, total)


def test_a_group_that_is_full_has_nothing_free(tmp_path: Path) -> None:
    files = V2 | {"job/memory.current": f"{6 * GB}\n"}
    assert limits.memory(*laid_out(tmp_path, "0::/job\n", files))[0] == 0


def test_without_groups_nothing_is_limited(tmp_path: Path) -> None:
    assert limits.memory(tmp_path, tmp_path / "no") == (math.inf, math.inf)


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 2),
        ("0::/a/b\n", {"a/cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "6400000 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "100000 0\n"}, 8),
        ("4:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "300000\n",
                               "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
    ],
)  # fmt: skip
def test_a_container_uses_the_cores_it_may_fill(
    own: str, files: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert limits.cores(*laid_out(tmp_path, own, files)) == cores


def test_a_small_group_is_what_the_plan_reckons_with(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from overnight.training import memory

    monkeypatch.setattr(limits, "memory", lambda: (1e6, 2e6))
    assert memory.memory(torch.device("cpu")) == (1_000_000, 2_000_000)
