"""Signals: the first asks for a clean stop, the second ends the process at once."""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType


class StopSignal:
    """While entered, the first SIGINT or SIGTERM sets `number`; the second exits at once, which
    damages nothing: rows are single writes, checkpoints are committed by rename."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.number = 0

    def __enter__(self) -> StopSignal:
        self._before = {s: signal.signal(s, self._receive) for s in self.SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            os._exit(128 + number)
        self.number = number

    def __bool__(self) -> bool:
        return self.number != 0
