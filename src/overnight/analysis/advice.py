"""What to do, ranked."""

from __future__ import annotations

from typing import Any

from .findings import Advice


def advise(*given: Any) -> list[Advice]:
    return []
