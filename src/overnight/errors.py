"""The one exception a user is meant to see, and the words that mend it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable

Say = Callable[[str], None]  # tells the user a line


class UserError(Exception):
    """Something the user can mend: the message says what is wrong, where, and what to do.

    The command line prints it as one line and exits with `code` (2: bad input, 1: failure).
    """

    def __init__(self, message: str, code: int = 2) -> None:
        super().__init__(message)
        self.code = code


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean "x"?` for the known name nearest to `name`, or an empty string."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if not close:  # a bare last part, as in `width` for `model.width`
        close = [k for k in known if k.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]][:1]
    return f' Did you mean "{close[0]}"?' if close else ""


def within_sentence(error: Exception) -> str:
    """A library's message within a sentence of ours; JSON stays JSON."""
    text = str(error).rstrip(".")
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]
