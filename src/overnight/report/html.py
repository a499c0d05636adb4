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

from ..shown import is_inert
from .document import Document
from .numbers import shown

CHARTED = ("curve", "evaluations", "noise", "best", "source")


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
    charted = {name: findings[name] for name in CHARTED}
    evaluations = charted["evaluations"]
    best = [i for i, evaluation in enumerate(evaluations) if evaluation["best"]]
    charted["evaluations"] = [evaluations[i] for i in shown(len(evaluations), best)]
    data = json.dumps(charted, allow_nan=False)
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
    # nor may the page hold what a terminal obeys that shows it, or what turns the line
    return page.translate({ord(c): "\ufffd" for c in {*page} - {*"\t\n"} if not is_inert(c)})
