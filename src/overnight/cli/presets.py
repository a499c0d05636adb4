"""`overnight presets` and `overnight settings`: what there is to choose from."""

from __future__ import annotations

from typing import Any

from .. import config
from ..settings import preset_names
from ..shown import printable
from ..wording import size
from . import Flag, write_json

LAST = 24  # of the last column, at least


def presets(*, json: Flag = False) -> None:
    """List the presets: parameters, vocabulary, context, tokens per update, source.

    Parameters
    ----------
    json
        Print a list of objects.
    """
    from ..model.size import describe

    rows = [describe(name) for name in preset_names()]
    if not json:
        for row in rows:
            row["memory"] = size(row["memory_bytes"])
    columns = "name parameters vocabulary context tokens_per_update memory source"
    _print(rows, json, columns.split())


def settings(*, json: Flag = False) -> None:
    """List every setting by its dotted name, with its default.

    Parameters
    ----------
    json
        Print a list of objects.
    """
    rows = [
        {"name": s.name, "default": s.default, "description": s.description}
        for s in config.all_settings().values()
    ]
    _print(rows, json, ["name", "default", "description"])


def _print(rows: list[dict[str, Any]], json: bool, columns: list[str]) -> None:
    if json:
        write_json(rows)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in columns:
        last = column == columns[-1]
        table.add_column(column.replace("_", " "), no_wrap=not last, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row[column]) for column in columns))
    Console(width=max(Console().width, _least(table))).print(table, markup=False)


def _least(table: Any) -> int:
    """The width that its columns need but for the last, of which some is enough. A narrower
    terminal wraps the lines; the table would leave columns out."""
    widths = [max(map(len, [str(c.header), *map(str, c.cells)])) for c in table.columns]
    return sum(widths[:-1]) + 2 * len(widths) + min(widths[-1], LAST)


def _cell(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return printable(str(value))
