"""`overnight report`: findings of a run as files, JSON, or in the terminal."""

from __future__ import annotations

from pathlib import Path

from ..errors import UserError
from . import Flag, say, write_json


def report(
    source: Path,
    /,
    *,
    out: Path | None = None,
    json: Flag = False,
    terminal: Flag = False,
) -> int:
    """Say what a run shows, how sure that is, and what to do.

    Parameters
    ----------
    source
        A run folder, or a log: .csv with a header line, .jsonl with one object per line, .json
        with a list of them, or what a trainer printed; packed by gzip or not.
    out
        Folder for report.md, report.html, PNGs and findings.json; default: the run's report/.
    json
        Print the findings as JSON on stdout; write files only if --out is given.
    terminal
        Show the report in the terminal; write files only if --out is given.
    """
    if json and terminal:
        raise UserError("--json and --terminal both print on stdout: choose one.")
    from ..analysis.run import load_run

    run = load_run(source)
    if json:
        write_json(run.findings, indent=1)
    if terminal:
        from rich.console import Console

        from ..report import terminal as view
        from ..report.document import build

        view.show(build(run.found), run.found, Console(highlight=False))
    if out is not None or not (json or terminal):
        from ..report import write

        folder = write(run, out)
        say(f"Report: {folder / 'report.html'}")
    return 0
