"""What the machine offers, and what the program makes of it; each choice with its reason."""

from __future__ import annotations

import os
import platform
import re
from typing import Any

import psutil
import torch

from ..errors import UserError
from ..settings import Settings
from . import limits
from .compiling import compiler_trouble

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


def has_bfloat16() -> bool:
    """Whether the CPU has bfloat16 matrix instructions (AVX-512 BF16 or AMX)."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


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
