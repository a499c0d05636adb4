"""`load_run`: a run folder or a log file as tables and findings, for a notebook or a view."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from . import tables
from .findings import Findings, plain
from .readers import read
from .tables import Log


class Run:
    """One run, read once. Nothing in it loads torch.

    - `config`: the settings as a tree, None where the log has none
    - `tables`: `train`, `eval`, `sample`, `checkpoint`, `event`, `session`, each a list of dicts;
      train and eval hold the rows that count (a resumed session's rows replace what it went over)
    - `findings`: plain dicts and lists, what `overnight report --json` prints
    - `checkpoints`: those that were written, oldest first
    - `problems`: what could not be read
    """

    def __init__(self, log: Log) -> None:
        self.log = log
        self.path = log.source
        self.config = log.config
        self.problems = log.problems

    @cached_property
    def tables(self) -> dict[str, list[dict[str, Any]]]:
        return {
            "train": tables.rows(self.log.train),
            "eval": tables.rows(self.log.eval),
            "sample": self.log.sample,
            "checkpoint": self.log.checkpoint,
            "event": self.log.event,
            "session": self.log.session,
        }

    @cached_property
    def found(self) -> Findings:
        """The findings, typed."""
        from .analyse import analyse

        return analyse(self.log)

    @cached_property
    def findings(self) -> dict[str, Any]:
        return plain(self.found)

    @property
    def checkpoints(self) -> list[dict[str, Any]]:
        return self.log.checkpoint


def load_run(path: str | Path) -> Run:
    """The run at `path`: a run folder, or the log of another tool. `UserError` if it is neither."""
    return Run(read(path))
