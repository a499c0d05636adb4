"""What the documents list is all that there is."""

from __future__ import annotations

import re
import typing
from pathlib import Path

import msgspec

from overnight.analysis.findings import Findings

DOCS = Path(__file__).parent.parent / "docs"


def structs(kind):
    """`kind` and every struct that its fields hold."""
    found = {kind}
    for hint in typing.get_type_hints(kind).values():
        for part in (hint, *typing.get_args(hint)):
            if isinstance(part, type) and issubclass(part, msgspec.Struct):
                found |= structs(part)
    return found


def test_the_page_of_the_report_names_every_field_of_findings():
    section = (DOCS / "report.md").read_text().split("## Findings")[1].split("\n## ")[0]
    named = set(re.findall(r"`(\w+)`", section))
    fields = {f for kind in structs(Findings) for f in kind.__struct_fields__}
    assert len(fields) > 100
    assert sorted(fields - named) == []
