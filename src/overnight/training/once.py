"""What is timed once on a machine and kept, so that the same command finds the same answer."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import torch

from .. import __version__
from ..cache import Cache
from ..files import replace
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
    try:
        kept: Answer = msgspec.json.decode(path.read_bytes(), type=kind)
        if fits(kept):
            return kept
    except (OSError, msgspec.MsgspecError):
        pass
    found = find()
    with contextlib.suppress(OSError):  # a full disk: it is found again the next time
        replace(path, msgspec.json.encode(found))
    return found
