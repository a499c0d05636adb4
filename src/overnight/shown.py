"""Text that comes from files and models, where it is shown: never obeyed."""

from __future__ import annotations

import re
import unicodedata

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~!$&])")
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


def markdown(text: str) -> str:
    """`text` as Markdown that shows it as it is, on one line."""
    flat = re.sub("[ \\n]+", " ", inert(text, " ")).strip(" ")
    flat = _SPECIAL.sub(r"\\\1", flat)
    flat = re.sub(r"^([+-])(?=\s|$)", r"\\\1", flat)  # a list item, at the start of a line
    flat = re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", flat)
    return flat.replace("://", ":\\//").replace("@", "\\@").replace("www.", "www\\.")
