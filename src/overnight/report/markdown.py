"""A document as Markdown. Everything that came from a log is escaped."""

from __future__ import annotations

import re

from ..shown import inert
from ..shown import markdown as escape
from .document import Block, Cards, Document, Figure, Items, Quote, Quotes, Table, Text


def render(document: Document) -> str:
    """The report as one Markdown text."""
    lines = [f"# {escape(document.title)}", ""]
    if document.subtitle:
        lines += [escape(document.subtitle), ""]
    for section in document.sections:
        lines += [f"## {escape(section.title)}", ""]
        for block in section.blocks:
            lines += [*_block(block), ""]
    return "\n".join(lines).rstrip() + "\n"


def _block(block: Block) -> list[str]:
    match block:
        case Text(text, _, lead):
            return [f"**{escape(lead)}.** {escape(text)}" if lead else escape(text)]
        case Items(items, ordered):
            return [f"{f'{i}.' if ordered else '-'} {escape(t)}" for i, t in enumerate(items, 1)]
        case Table():
            return _table(block)
        case Figure(name, _, caption):
            return [f"![{escape(caption)}]({name})", "", f"*{escape(caption)}*"]
        case Quote(step, prompt, text):
            return [f"- step {step:,}: **{_code(prompt)}** {_code(text)}"]
        case Quotes(quotes, _):
            return [line for quote in quotes for line in _block(quote)]
        case Cards(cards):
            head = ["| question | answer | |", "|---|---|---|"]
            return head + [
                f"| {escape(c.question)} | **{escape(c.answer)}** | {escape(c.detail)} |"
                for c in cards
            ]


def _table(table: Table) -> list[str]:
    mark = "---:" if table.numeric else "---"
    lines = ["| " + " | ".join(escape(h) for h in table.head) + " |"]
    lines.append("|" + "|".join(["---", *[mark] * (len(table.head) - 1)]) + "|")
    for i, row in enumerate(table.rows):
        cells = [escape(cell) for cell in row]
        if i in table.marked:
            cells = [f"**{cell}**" if cell else "" for cell in cells]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _code(text: str) -> str:
    """Text of a sample as inline code: line breaks shown, the fence longer than any in it."""
    flat = text.replace("\r", "␍").replace("\n", "⏎")
    flat = inert(flat) or " "
    longest = max((len(run) for run in re.findall(r"`+", flat)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if flat.startswith("`") or flat.endswith("`") else ""
    return f"{fence}{pad}{flat}{pad}{fence}"
