"""What `settle` does to a process, seen from a new one: others may have settled this one."""

import ctypes
import json
import subprocess
import sys

import pytest

SETTLED = """
import json, resource, torch
from overnight.training.machine import settle
settle("cpu", 1)
torch.ones(2**23).mul(2)  # the first time, memory has to come from the system
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(2**23)
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(json.dumps([torch.get_deterministic_debug_mode(), faults]))
"""


@pytest.fixture(scope="module")
def settled() -> tuple[int, int]:
    """(torch's deterministic mode, page faults of ten tensors of 32 MiB)."""
    done = subprocess.run([sys.executable, "-c", SETTLED], capture_output=True, check=True)
    mode, faults = json.loads(done.stdout)
    return mode, faults


def test_what_is_not_deterministic_is_an_error(settled: tuple[int, int]) -> None:
    assert settled[0] == 2


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallopt"), reason="the allocator has no mallopt"
)
def test_freed_memory_is_taken_again(settled: tuple[int, int]) -> None:
    """Given back, ten tensors would cost 8,192 faults of 4 KiB each."""
    assert settled[1] < 8192
