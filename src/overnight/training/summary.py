"""What a session has come to: the figures of a run, read from its log."""

from __future__ import annotations

from typing import Any

import msgspec

from ..ledger import Ledger
from ..runfolder import End, Eval, Full, RunFolder, Start, current, lowest_evaluation, read_log


class Summary(msgspec.Struct):
    """What `overnight train --json` prints when done."""

    run: str
    reason: str  # finished, interrupted, failed
    steps: int
    tokens: int
    passes: float
    best: dict[str, Any] | None  # of those on disk: step, val_loss, se, bpb
    last: dict[str, Any] | None
    bpb: float | None  # the best checkpoint on the whole val split, if the run has finished
    seconds: float
    exit_code: int = 0


def summarise(run: RunFolder, reason: str, seconds: float) -> Summary:
    """The figures of a run, read from its log."""
    written = read_log(run.log).rows
    rows = current(written)
    sessions = [row for row in written if isinstance(row, Start | End)]
    started = next(row for row in reversed(sessions) if isinstance(row, Start))
    ledger = msgspec.convert(started.ledger, Ledger)
    evals = [row for row in rows if isinstance(row, Eval) and row.step]
    best = lowest_evaluation(rows, among=run.checkpoint_steps())
    whole = [row for row in rows if isinstance(row, Full) and best and row.step == best.step]
    steps = sessions[-1].step
    return Summary(
        run=str(run.path),
        reason=reason,
        steps=steps,
        tokens=ledger.tokens(steps),
        passes=ledger.passes(steps),
        best=_figures(best),
        last=_figures(max(evals, key=lambda row: (row.step, row.attempt), default=None)),
        bpb=whole[-1].val_bpb if whole else None,
        seconds=seconds,
    )


def _figures(row: Any) -> dict[str, Any] | None:
    if row is None:
        return None
    return {"step": row.step, "val_loss": row.val_loss, "se": row.val_se, "bpb": row.val_bpb}
