"""What is timed once on a machine and kept, so that the same command finds the same answer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import torch

from .. import __version__
from ..cache import Cache, keep, recall
from .machine import processor_name

Answer = TypeVar("Answer")


def once(
    question: list[Any],
    kind: Any,
    find: Callable[[], Answer],
    fits: Callable[[Answer], bool] = lambda answer: True,
) -> Answer:
    """The answer of type `kind` that is kept for `question`, this processor, this torch and this
    version; else what `find` finds. A file that does not answer the question counts as none."""
    # virtual machines call processors with other instructions by one name
    processor = [processor_name(), torch.backends.cpu.get_cpu_capability()]
    machine = [*processor, str(torch.__version__), __version__]
    asked = msgspec.json.encode([*machine, *question])
    path = Cache().timings / f"{hashlib.sha256(asked).hexdigest()[:32]}.json"
    kept: Answer | None = recall(path, kind)
    if kept is not None and fits(kept):
        return kept
    found = find()
    keep(path, found)
    return found
