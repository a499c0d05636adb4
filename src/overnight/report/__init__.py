"""Findings in, documents and pictures out. Imports no torch."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..files import open_no_follow, replace
from ..runfolder import RunFolder

if TYPE_CHECKING:
    from ..analysis.run import Run


def write(run: Run, out: Path | None = None) -> Path:
    """Write report.md, report.html, PNGs and findings.json of `run`; the folder they are in.

    `out` defaults to the run folder's `report/`; for a log file, to `NAME-report` beside it.
    """
    from . import figures, html, markdown
    from .document import build

    folder = out or default_folder(run)
    found = run.found
    document = build(found)
    text = json.dumps(run.findings, indent=1, allow_nan=False, ensure_ascii=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace(folder / "findings.json", text.encode())
        for name, draw in figures.FIGURES.items():
            replace(folder / name, figures.png(draw(found)))
        replace(folder / "report.md", markdown.render(document).encode())
        replace(folder / "report.html", html.render(document, run.findings).encode())
        if run.log.folder is not None and found.forecast.status == "made":
            with contextlib.suppress(OSError):  # a run that may only be read
                _remember(default_folder(run), run)
    except OSError as error:
        raise UserError(f"{folder}: the report cannot be written: {error.strerror}", 1) from None
    return folder


def default_folder(run: Run) -> Path:
    if run.log.folder is not None:
        return RunFolder(run.log.folder).report
    return run.path.with_name(f"{run.path.stem}-report")


def _remember(folder: Path, run: Run) -> None:
    """Keep a forecast, so that a later report can say how it came true; one per step."""
    from ..analysis.forecast import made
    from ..analysis.readers.own import FORECASTS

    row = made(run.found.forecast)
    if any(old.get("made_at") == row["made_at"] for old in run.log.forecasts):
        return
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / FORECASTS, "a", encoding="utf-8", opener=open_no_follow) as file:
        file.write(json.dumps(row, allow_nan=False) + "\n")
