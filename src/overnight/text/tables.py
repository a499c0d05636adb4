"""A column of text from a table: `.parquet`, or the `.arrow` files of a `datasets` folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import UserError, did_you_mean

ROWS = 1024  # read at a time


def column(path: Path, kind: str, name: str, field: str) -> Iterator[str | None]:
    """The cells of column `field`, row by row; `name` is how errors call the file."""
    try:
        import pyarrow
    except ImportError:
        raise UserError(
            f"{name}: reading .{kind} needs pyarrow: install overnight[hf], or give the text as "
            ".txt or .jsonl."
        ) from None
    try:
        yield from _parquet(path, name, field) if kind == "parquet" else _arrow(path, name, field)
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        text = str(error).partition("\n")[0]
        raise UserError(f"{name}: damaged .{kind}: {text}") from None


def _parquet(path: Path, name: str, field: str) -> Iterator[str | None]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        _check(file.schema_arrow, name, field)
        for batch in file.iter_batches(ROWS, columns=[field]):
            yield from batch.column(0).to_pylist()


def _arrow(path: Path, name: str, field: str) -> Iterator[str | None]:
    import pyarrow

    with pyarrow.memory_map(str(path)) as file, pyarrow.ipc.open_stream(file) as batches:
        _check(batches.schema, name, field)
        for batch in batches:
            yield from batch.column(field).to_pylist()


def _check(schema: Any, name: str, field: str) -> None:
    import pyarrow

    if field not in schema.names:
        raise UserError(
            f'{name}: no column "{field}". Name the one that holds text with --data.text_field; '
            f"there are: {', '.join(schema.names[:20])}.{did_you_mean(field, schema.names)}"
        )
    kind = schema.field(field).type
    if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
        raise UserError(f'{name}: column "{field}" holds {kind}, not text.')
