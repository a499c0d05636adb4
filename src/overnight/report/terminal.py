"""A document in the terminal, with a chart whose axis is monotone."""

from __future__ import annotations

from typing import Any, Literal

from ..analysis.findings import Findings
from ..shown import inert
from . import numbers as n
from .document import Block, Cards, Document, Figure, Items, Quote, Quotes, Table, Text
from .questions import Card

STYLES = {"good": "green", "bad": "red", "unsure": "yellow", "open": "dim", "quiet": "dim", "": ""}
ROWS = 30  # of a table
HEIGHT = 14  # of the chart


def show(document: Document, findings: Findings, console: Any) -> None:
    """Print the document on a rich console."""
    from rich.text import Text as Line

    console.print(Line(plain(document.title), style="bold"))
    console.print(Line(plain(document.subtitle), style="dim"))
    for section in document.sections:
        console.print()
        console.print(Line(plain(section.title), style="bold"))
        for block in section.blocks:
            _block(block, findings, console)


def plain(text: str) -> str:
    """Without control characters, which could move the cursor or worse."""
    return inert(text, keep="\n")


def _block(block: Block, findings: Findings, console: Any) -> None:
    from rich.text import Text as Line

    match block:
        case Text(text, tone, lead):
            line = Line(f"{plain(lead)}. " if lead else "", style=f"bold {STYLES[tone]}".strip())
            line.append(plain(text), style="" if lead else STYLES[tone])
            console.print(line)
        case Items(items, ordered):
            for i, item in enumerate(items, 1):
                console.print(Line(f"{f'{i}.' if ordered else '-'} {plain(item)}"))
        case Table():
            console.print(_table(block))
        case Figure(_, chart, caption):
            if chart == "loss":
                console.print(Line(chart_of_losses(findings, console.width)))
            console.print(Line(plain(caption), style="dim"))
        case Quote(step, prompt, text):
            line = Line(f"step {step:,}: ")
            line.append(plain(prompt), style="dim underline")
            line.append(plain(text))
            console.print(line)
        case Quotes(quotes, title):
            console.print(
                Line(f"{len(quotes):,} {plain(title)}: in the written report", style="dim")
            )
        case Cards(found):
            console.print(cards(found))


def cards(found: list[Card]) -> Any:
    from rich.table import Table as Grid
    from rich.text import Text as Line

    grid = Grid(box=None, show_header=False, padding=(0, 2, 0, 0))
    for card in found:
        grid.add_row(
            Line(plain(card.question), style="dim"),
            Line(plain(card.answer), style=f"bold {STYLES[card.tone]}".strip()),
            Line(plain(card.detail)),
        )
    return grid


def _table(table: Table) -> Any:
    from rich.table import Table as Grid
    from rich.text import Text as Line

    grid = Grid(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for i, head in enumerate(table.head):
        side: Literal["left", "right"] = "right" if table.numeric and i else "left"
        grid.add_column(plain(head), justify=side, overflow="fold")
    hidden = len(table.rows) - ROWS
    shown = table.rows if hidden <= 0 else table.rows[-ROWS:]
    for row in shown:
        grid.add_row(*(Line(plain(cell)) for cell in row))
    if hidden > 0:
        grid.caption = f"{hidden:,} earlier rows are not shown"
    return grid


def chart_of_losses(f: Findings, width: int) -> str:
    """Validation (●) and training (·) loss against steps as text; the axis falls evenly."""
    val = [(float(e.step), e.val_loss) for e in f.evaluations if e.val_loss is not None]
    train = [(s, v) for s, v in zip(f.curve.step, f.curve.loss, strict=True) if v is not None]
    points = val + train
    if len(points) < 2:
        return ""
    columns = max(20, min(width, 100) - 17)
    values = sorted(v for _, v in points)
    low, high = values[0], values[min(len(values) - 1, int(0.97 * len(values)))]
    high = max(high, *(v for _, v in val)) if val else high
    high = high if high > low else low + 1.0
    first, last = min(s for s, _ in points), max(s for s, _ in points)
    grid = [[" "] * columns for _ in range(HEIGHT)]
    for mark, series in (("·", train), ("●", val)):
        for step, value in series:
            row = round((high - value) / (high - low) * (HEIGHT - 1))
            column = round((step - first) / ((last - first) or 1) * (columns - 1))
            if 0 <= row < HEIGHT:
                grid[row][column] = mark
    lines = []
    for i, cells in enumerate(grid):
        label = f"{high - (high - low) * i / (HEIGHT - 1):9.4f}"
        lines.append(f"{label} ┤{''.join(cells).rstrip()}")
    lines.append(" " * 10 + "└" + "─" * columns)
    ends = n.count(first), n.count(last)
    lines.append(" " * 11 + ends[0] + ends[1].rjust(columns - len(ends[0])) + " step")
    return "\n".join(lines)
