"""The one exception a user is meant to see, and how a user is told things."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Callable, Iterable

Say = Callable[[str], None]  # tells the user a line


class UserError(Exception):
    """Something the user can mend: the message says what is wrong, where, and what to do.

    The command line prints it as one line and exits with `code` (2: bad input, 1: failure).
    """

    def __init__(self, message: str, code: int = 2) -> None:
        super().__init__(message)
        self.code = code


JOINERS = "\u200c\u200d"  # without a shape of their own, but part of how words are written


def is_inert(character: str) -> bool:
    """Whether a terminal shows `character` and does nothing else. Spaces of any width do no harm;
    controls, marks of direction and what has no shape are not shown as they are."""
    known = character.isprintable() or character in JOINERS
    return known or unicodedata.category(character) == "Zs"


def printable(text: str) -> str:
    """`text` with control characters (but newline and tab) as visible escapes: what comes from a
    file or a model is shown by a terminal, never obeyed."""
    return "".join(
        c if c in "\n\t" or is_inert(c) else c.encode("unicode_escape").decode() for c in text
    )


def inert(text: str, instead: str = "\ufffd", keep: str = "") -> str:
    """`text` with `instead` for each character that is not inert, but those to `keep`."""
    return "".join(c if c in keep or is_inert(c) else instead for c in text)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean "x"?` for the known name nearest to `name`, or an empty string."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if not close:  # a bare last part, as in `width` for `model.width`
        close = [k for k in known if k.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]][:1]
    return f' Did you mean "{close[0]}"?' if close else ""
