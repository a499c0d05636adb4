"""How far the preparation of a text is, in lines of text."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from ..errors import Say
from ..wording import duration


class Progress:
    """Tells how far a piece of work is and how long it will take, from two seconds on.
    `total` in bytes; 0 where it is not known."""

    EVERY = 2.0  # seconds

    def __init__(self, say: Say, what: str, total: int) -> None:
        self._say, self._what, self._total = say, what, total
        self._done = 0
        self._start = self._last = time.monotonic()

    def advance(self, n_bytes: int) -> None:
        self._done += n_bytes
        now = time.monotonic()
        if now - self._last < self.EVERY:
            return
        self._last = now
        line = f"{self._what}: {self._done / 1e6:,.0f}"
        if self._total:
            left = (now - self._start) * (self._total / self._done - 1)
            line += f" of {self._total / 1e6:,.0f} MB, {duration(round(left))} left"
        else:
            line += " MB"
        self._say(line)

    def watch(self, texts: Iterable[str]) -> Iterator[str]:
        for text in texts:
            yield text
            self.advance(len(text.encode()))
