"""Signals: the first asks for a clean stop, the second ends the process at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

STOPPING = b"stopping, and saving; another signal ends it at once\n"


@contextmanager
def outlives_terminal(let_go: Callable[[], None]) -> Iterator[None]:
    """Within it a closed terminal ends nothing: `let_go` is called. Not where SIGHUP is ignored, as
    nohup wants it, nor within a `StopSignal`, which does more."""
    before = signal.getsignal(signal.SIGHUP)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda number, frame: let_go())
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


class StopSignal:
    """While entered, the first SIGINT or SIGTERM sets `number`, and says so, as a step may take
    long; the second exits at once, which damages nothing: rows are single writes, checkpoints are
    committed by rename. SIGHUP (the terminal has closed) sets `hung_up` and nothing else."""

    def __init__(self) -> None:
        self.number = 0
        self.hung_up = False

    def __enter__(self) -> StopSignal:
        handlers = {
            signal.SIGINT: self._stop,
            signal.SIGTERM: self._stop,
            signal.SIGHUP: self._hang_up,
        }
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # as nohup wants it
            del handlers[signal.SIGHUP]
        self._before = {s: signal.signal(s, handler) for s, handler in handlers.items()}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            os._exit(128 + number)
        self.number = number
        if sys.stderr is not None:  # else 2 may be a file of the run
            with contextlib.suppress(OSError):  # by itself: rich may be in the middle of a line
                os.write(2, b"\n" * os.isatty(2) + STOPPING)

    def _hang_up(self, number: int, frame: FrameType | None) -> None:
        self.hung_up = True

    def __bool__(self) -> bool:
        return self.number != 0
