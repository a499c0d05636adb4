"""A document and its findings as one self-contained page: no network, no outside file.

Text is escaped by jinja2; the charts' data is JSON that cannot end its script element; the content
security policy allows exactly the style and the script that are in the page, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from importlib import resources
from typing import Any

from .document import Document

# What a terminal that shows the page obeys, and what turns the direction of a line: U+FFFD instead
CONTROLS = [*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
OBEYED = {code: "\ufffd" for code in CONTROLS if chr(code) not in "\t\n"}
CHARTED = ("curve", "evaluations", "noise", "best")


@cache
def _asset(name: str) -> str:
    return (resources.files(__package__) / "templates" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def render(document: Document, findings: dict[str, Any]) -> str:
    """The report as one HTML page."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["kind"] = lambda block: type(block).__name__
    style, script = _asset("report.css"), _asset("report.js")
    data = json.dumps({name: findings[name] for name in CHARTED}, allow_nan=False)
    for mark, escaped in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")):
        data = data.replace(mark, escaped)
    page = environment.from_string(_asset("report.html")).render(
        document=document,
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        data=data,
    )
    return page.translate(OBEYED)
