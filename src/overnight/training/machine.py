"""What the machine offers, and what the program makes of it; each choice with its reason."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import psutil
import torch

from ..errors import UserError
from ..settings import Settings
from . import limits

AMPERE = (8, 0)  # the first GPUs of NVIDIA's that multiply bfloat16; torch emulates it on others


def choose_machine(settings: Settings) -> None:
    """Fill `train.device`, `train.dtype`, `train.compile` and `train.threads`."""
    device = settings.get("train.device")
    if device == "auto":
        device, reason = _best_device()
        settings.choose("train.device", device, reason)
    check_device(device)
    check_threads(settings.get("train.threads"))
    if settings.get("train.threads") == 0:
        usable = limits.cores()
        cores = min(usable, psutil.cpu_count(logical=False) or usable)
        settings.choose("train.threads", cores, f"{cores} physical cores usable")
    if settings.get("train.dtype") == "auto":
        settings.choose("train.dtype", *_best_dtype(device))
    if settings.get("train.compile") == "auto":
        settings.choose("train.compile", *_best_form(device))


def _best_device() -> tuple[str, str]:
    if torch.cuda.is_available():
        return "cuda", torch.cuda.get_device_name(0)
    if torch.backends.mps.is_available():
        return "mps", "Apple GPU"
    return "cpu", "no GPU that torch can use"


def check_device(device: str) -> None:
    """Refuse one that is not here: a name, or a number after it."""
    kind, colon, index = device.partition(":")
    count = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }
    if kind not in count or (colon and not re.fullmatch("0|[1-9][0-9]{0,3}", index)):
        raise UserError(f'train.device = "{device}": give auto, cpu, cuda or mps.')
    if int(index or "0") >= count[kind]:
        raise UserError(
            f'train.device = "{device}": torch {torch.__version__} finds no such device.'
        )


def check_threads(threads: int) -> None:
    """Refuse more than can be of use, which the system may answer by ending the process."""
    most = max(64, 4 * (os.cpu_count() or 1))
    if threads > most:
        raise UserError(f"train.threads = {threads:,}: more than {most} help nobody here.")


def _best_dtype(device: str) -> tuple[str, str]:
    if device.startswith("cuda") and torch.cuda.get_device_capability(device) >= AMPERE:
        return "bfloat16", "the GPU multiplies it natively; weights stay float32"
    if device.startswith("cpu") and has_bfloat16():
        return "bfloat16", "the CPU multiplies it natively; weights stay float32"
    return "float32", "no fast bfloat16 here"


def _best_form(device: str) -> tuple[str, str]:
    """Whether updates are compiled."""
    if not device.startswith("cuda"):
        return "off", f"on {device} it pays in long runs alone"
    trouble = compiler_trouble(device)
    return ("off", f"torch cannot compile here: {trouble}") if trouble else ("on", "for the GPU")


def emulated(device: str, dtype: str) -> str:
    """A word of warning where this CPU has no instructions for the `dtype` that was asked for."""
    if device.startswith("cpu") and dtype == "bfloat16" and not has_bfloat16():
        return "this CPU emulates bfloat16: train.dtype = float32 is several times as fast here"
    return ""


@cache
def compiler_trouble(device: str) -> str:
    """Why torch cannot compile for `device`, or "": tried on an addition."""
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(2, device=device))
    except Exception as error:  # of the compiler, of its backend, of the system
        lines = [line for line in str(error).splitlines() if line.strip()]
        return lines[0].strip() if lines else type(error).__name__
    return ""


def compiled(function: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """`function` as compiled code for the shapes it is called with. Whole or not at all: what
    falls back to eager code here and not there is no repetition."""
    trouble = compiler_trouble(str(device))
    if trouble:
        raise UserError(f"torch cannot compile on this machine ({trouble}): train.compile = off.")
    torch.use_deterministic_algorithms(True)  # the compiler's own flag as well
    warnings.filterwarnings("ignore", "Dynamo detected a call to a `functools.lru_cache`")
    return torch.compile(function, fullgraph=True, dynamic=False)


def has_bfloat16() -> bool:
    """Whether the CPU has bfloat16 matrix instructions (AVX-512 BF16 or AMX)."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


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
    (docs/lab-notes.md, 2026-11-21). Elsewhere than under glibc there are no such calls.
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
    than twice as fast as the default library (docs/lab-notes.md, 2026-11-20). The word allows it
    to round to bfloat16, or to TF32 on a GPU; only where it does not, as measured, is it taken."""
    torch.set_float32_matmul_precision("medium")
    x = torch.randn(256, 256, generator=torch.Generator().manual_seed(0))
    y = x.to(device)
    error = float(((y @ y).cpu().double() - x.double() @ x.double()).abs().max())
    if error > 1e-3:  # float32 leaves 3e-5, TF32 some 0.02, bfloat16 0.2
        torch.set_float32_matmul_precision("highest")


def environment(device: torch.device, threads: int) -> dict[str, Any]:
    """What a bit-exact repetition depends on, for the start row."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "system": platform.platform(),
        "processor": processor_name(),
        "float32_products": torch.get_float32_matmul_precision(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "device": str(device),
        "device_name": device_name(device),
        "threads": threads,
        "memory_bytes": psutil.virtual_memory().total,
    }


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""


def processor_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
