"""What `settle` does to a process, seen from a new one: others may have settled this one."""

import ctypes
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from overnight.settings import Settings
from overnight.training import machine, settle

SETTLED = """
import json, resource, torch
from overnight.training.settle import settle
settle("cpu", 1)
for _ in range(10):  # the first time, memory has to come from the system
    torch.ones(2**23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(2**23)
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
with open("/proc/self/smaps_rollup") as file:
    large = sum(int(line.split()[1]) for line in file if line.startswith("AnonHugePages"))
print(json.dumps([torch.get_deterministic_debug_mode(), faults, large]))
"""
THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")
LARGE_PAGES = THP.is_file() and "[never]" not in THP.read_text()
ADJUSTABLE = hasattr(ctypes.CDLL(None), "mallopt")


@pytest.fixture(scope="module")
def settled() -> tuple[int, int, int]:
    """(torch's deterministic mode, page faults of ten tensors of 32 MiB, KiB in large pages)."""
    done = subprocess.run([sys.executable, "-c", SETTLED], capture_output=True, check=True)
    mode, faults, large = json.loads(done.stdout)
    return mode, faults, large


def test_what_is_not_deterministic_is_an_error(settled: tuple[int, int, int]) -> None:
    assert settled[0] == 2


@pytest.mark.skipif(not ADJUSTABLE, reason="the allocator has no mallopt")
def test_freed_memory_is_taken_again(settled: tuple[int, int, int]) -> None:
    """Given back, ten tensors would cost 8,192 faults of 4 KiB each."""
    assert settled[1] < 8192


@pytest.mark.skipif(not LARGE_PAGES, reason="the system has no large pages")
def test_the_heap_is_in_large_pages(settled: tuple[int, int, int]) -> None:
    """At least one tensor of 32 MiB, in 15 whole pages of 2 MiB wherever it begins; without the
    advice none is."""
    assert settled[2] >= 15 * 2 * 1024


@pytest.mark.parametrize(
    ("device", "avx512", "amx", "gpu", "dtype"),
    [
        ("cpu", False, False, True, "float32"),
        ("cpu", True, False, False, "bfloat16"),
        ("cpu", False, True, False, "bfloat16"),
        ("cuda", True, True, False, "float32"),  # a GPU that emulates it
        ("cuda", False, False, True, "bfloat16"),
        ("mps", True, True, True, "float32"),
    ],
)
def test_bfloat16_only_where_it_is_in_the_hardware(
    device: str, avx512: bool, amx: bool, gpu: bool, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    capability = (8, 6) if gpu else (7, 5)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(machine, "check_device", lambda device: None)
    settings = Settings()
    settings.add({"train.device": device, "train.threads": 1}, "test")
    settings.add({"train.compile": "off"}, "test")
    machine.choose_machine(settings)
    assert settings.get("train.dtype") == dtype


def test_float32_products_are_those_of_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the fast way rounds to bfloat16, as on a CPU with matrix tiles, it is not taken; large
    numbers stand for one that does."""
    before, randn = torch.get_float32_matmul_precision(), torch.randn
    x = randn(256, 256, generator=torch.Generator().manual_seed(1))
    try:
        settle._take_fast_float32(torch.device("cpu"))
        assert float(((x @ x).double() - x.double() @ x.double()).abs().max()) < 1e-3
        monkeypatch.setattr(torch, "randn", lambda *given, **more: 1e4 * randn(*given, **more))
        settle._take_fast_float32(torch.device("cpu"))
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision(before)
