"""What a person sees while it runs: one live line on a terminal, a plain line elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from ..shown import printable

PLAIN_SECONDS = 10.0  # between plain lines


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """rich would end the process: a run must outlive who reads its messages."""
        raise


class Progress:
    """Shows the newest figures. Messages go to stderr; stdout stays free for data. Where they
    can be written no more (a closed terminal, a reader that has gone), silence."""

    def __init__(self) -> None:
        self.console = _Console(file=sys.stderr, highlight=False, markup=False, soft_wrap=True)
        plain = not self.console.is_terminal or os.environ.get("TERM") == "dumb"
        self._live = None if plain else Live(console=self.console, refresh_per_second=2)
        self._next = 0.0
        self._terminals = [fd for fd in (1, 2) if os.isatty(fd)]

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            with contextlib.suppress(OSError):
                self._live.stop()

    def show(self, line: str) -> None:
        """Replace the live line; elsewhere print it, if the last one is some seconds old."""
        if self._live:
            self._live.update(Text(line, no_wrap=True, overflow="ellipsis"))
        elif time.monotonic() >= self._next:
            self.say(line)
            self._next = time.monotonic() + PLAIN_SECONDS

    def let_go(self) -> None:
        """The terminal is gone: what was to appear there is written to nowhere from now on."""
        self._to_nowhere(self._terminals)

    def _to_nowhere(self, streams: list[int]) -> None:
        if self._live:
            with contextlib.suppress(OSError):
                self._live.stop()
            self._live = None
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in streams:
            os.dup2(nowhere, stream)
        os.close(nowhere)

    def say(self, message: str) -> None:
        """A message that stays."""
        try:
            self.console.print(printable(message))
        except OSError:  # who reads messages has gone; who reads the summary need not have
            self._to_nowhere([2])
