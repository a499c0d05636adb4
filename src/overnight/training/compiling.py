"""Compiled code: whether torch can make it here, and how."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from ..errors import UserError


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
