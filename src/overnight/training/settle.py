"""What torch and the allocator are told before a run: determinism, threads, memory, float32."""

from __future__ import annotations

import contextlib
import ctypes
import os

import psutil
import torch


def settle(device: str, threads: int) -> torch.device:
    """Make torch deterministic on `device` with `threads` CPU threads."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # asked for by deterministic cuBLAS
    torch.set_num_threads(threads)
    # the flag of `use_deterministic_algorithms`, without its import of the compiler (1.2 s)
    torch.set_deterministic_debug_mode("error")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    settled = torch.device(device)
    _take_fast_float32(settled)
    _keep_memory()
    return settled


def _keep_memory() -> None:
    """Let the allocator keep what is freed, in pages of 2 MiB where the system has them.

    By default glibc returns every large tensor to the system and faults it in again, page by page,
    in each update: 31,000 faults and 14 % of the time; and small pages cost another 4 to 10 %
    (docs/lab-notes.md, E12, E25). Elsewhere than under glibc there are no such calls.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return
    trim_threshold, mmap_max = -1, -4  # malloc.h: M_TRIM_THRESHOLD, M_MMAP_MAX
    libc.mallopt(trim_threshold, -1)  # never
    libc.mallopt(mmap_max, 0)
    with contextlib.suppress(OSError):
        _ask_for_large_pages(libc)


def _ask_for_large_pages(libc: ctypes.CDLL) -> None:
    """For the heap, and as much again as a large run takes: addresses, no memory yet. Not where
    a large page is hundreds of MiB, as on some ARM systems."""
    with open("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", encoding="ascii") as file:
        if int(file.read()) > 2**22:
            return
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.free(libc.malloc(psutil.virtual_memory().total // 4))  # it stays in the heap
    huge_pages = 14  # madvise(2): MADV_HUGEPAGE
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        for line in maps:
            if line.rstrip().endswith("[heap]"):
                begin, end = (int(part, 16) for part in line.split()[0].split("-"))
                libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), huge_pages)


def _take_fast_float32(device: torch.device) -> None:
    """Let float32 products go to oneDNN, which the precision "medium" opens: on AMD it is more
    than twice as fast as the default library (docs/lab-notes.md, E04). The word allows it
    to round to bfloat16, or to TF32 on a GPU; only where it does not, as measured, is it taken."""
    torch.set_float32_matmul_precision("medium")
    x = torch.randn(256, 256, generator=torch.Generator().manual_seed(0))
    y = x.to(device)
    error = float(((y @ y).cpu().double() - x.double() @ x.double()).abs().max())
    if error > 1e-3:  # float32 leaves 3e-5, TF32 some 0.02, bfloat16 0.2
        torch.set_float32_matmul_precision("highest")
