"""Our own run folder (docs/log-format.md)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ... import runfolder
from ...errors import UserError
from ...files import read_bounded
from ...runfolder import AnyRow, RunFolder
from ..tables import EVAL, TRAIN, Array, Columns, Log

MAX_JSON_BYTES = 4 * 2**20
MAX_EVAL_BYTES = 64 * 2**20  # four bytes a block
# Of a mean, between float64 as it is logged and float32 as the blocks are kept: 2⁻²⁴ at most, with
# room for one that was summed in float32
ROUNDED = 1e-6
STARTED = ("version", "config", "reasons", "environment", "data", "parameters", "ledger")
OTHER_LOGS = (".jsonl", ".csv", ".log")  # of other tools, in a folder that is none of ours
OUR_ROW = re.compile(rb'\{"type":"start",[^\n]*"from_step":')  # that a log of ours begins with
FORECASTS = "forecasts.jsonl"  # in the report folder: one line per forecast that was made


def fits(path: Path, head: bytes) -> bool:
    return path.is_dir() or OUR_ROW.match(head) is not None


def read(path: Path) -> Log:
    """The tables of a run folder; a damaged part becomes a problem, never an exception."""
    if path.is_file():
        raise UserError(f"{path}: the log of a run folder: give the folder it stands in.")
    folder = RunFolder(path)
    if not folder.log.is_file():
        logs = [file for file in path.iterdir() if file.name.endswith(OTHER_LOGS)]
        instead = f" Give the file itself: {logs[0]}" if len(logs) == 1 else ""
        raise UserError(f"{path}: not a run folder (log.jsonl is missing).{instead}")
    read = runfolder.read_log(folder.log)
    if not read.rows:
        raise UserError(f"{folder.log}: holds no readable row; nothing to report on.")
    sessions = _sessions(read.rows)
    kept = runfolder.current(read.rows)
    log = Log(
        source=path,
        format="run folder",
        train=_columns(kept, runfolder.Train, TRAIN),
        eval=_columns(kept, runfolder.Eval, EVAL),
        config=sessions[-1].get("config") if sessions else None,
        sample=_samples(kept),
        checkpoint=[_dict(r) for r in kept if isinstance(r, runfolder.Checkpoint)],
        event=[_dict(r) for r in read.rows if isinstance(r, runfolder.Event)],  # as they happened
        session=sessions,
        whole=_whole(kept),
        replayed=_replayed(read.rows, kept),
        problems=[f"log.jsonl, {problem}" for problem in read.problems],
    )
    present = set(folder.checkpoint_steps())
    for row in log.checkpoint:
        row["present"] = row["step"] in present
    log.yardsticks = _yardsticks(folder.yardsticks, log.problems)
    log.forecasts = _forecasts(folder.report / FORECASTS, log.problems)
    return log


def _dict(row: AnyRow) -> dict[str, Any]:
    return dict(msgspec.to_builtins(row))


def _columns(rows: list[AnyRow], kind: type[Any], names: tuple[str, ...]) -> Columns:
    """Rows of one kind as columns; among equal steps of one kind the last written counts."""
    mine = list({row.step: row for row in rows if type(row) is kind}.values())
    mine.sort(key=lambda row: row.step)
    have = [name for name in names if name in kind.__struct_fields__]
    nan = float("nan")
    columns = {
        name: np.array(
            [nan if (v := getattr(row, name)) is None else v for row in mine], dtype=np.float64
        )
        for name in have
    }
    return columns | {name: np.full(len(mine), nan) for name in names if name not in have}


def _samples(rows: list[AnyRow]) -> list[dict[str, Any]]:
    """Each once: what a stop broke off was written again."""
    found = [row for row in rows if isinstance(row, runfolder.Sample)]
    return [_dict(r) for r in {(r.step, r.prompt, r.seed): r for r in found}.values()]


def _whole(rows: list[AnyRow]) -> dict[str, Any] | None:
    """The last measurement on the whole held-out text; None where there is none."""
    found = [r for r in rows if isinstance(r, runfolder.Full) and r.val_loss is not None]
    return _dict(max(found, key=lambda r: (r.attempt, r.seq))) if found else None


def _returns(rows: list[AnyRow]) -> set[int]:
    """Attempts that a session began itself, by going back to an earlier step."""
    return {r.attempt for r in rows if isinstance(r, runfolder.Event) and r.kind == "rewind"}


def _sessions(rows: list[AnyRow]) -> list[dict[str, Any]]:
    """One dict per session: its last start row, where its last attempt got to, and its end row's
    times. An attempt that began by going back belongs to the session before it."""
    sessions: dict[int, dict[str, Any]] = {}
    returns = _returns(rows)
    owner: dict[int, int] = {}
    begins: dict[int, int] = {}
    for attempt in sorted({row.attempt for row in rows}):
        owner[attempt] = owner.get(attempt - 1, attempt) if attempt in returns else attempt
    for row in rows:
        session = sessions.setdefault(
            owner[row.attempt],
            {
                "attempt": row.attempt, "from_step": row.step, "started": row.time,
                "reason": None, "worked": {},
            },
        )  # fmt: skip
        begins.setdefault(row.attempt, row.step)
        done = row.step - begins[row.attempt]
        session["worked"][row.attempt] = max(done, session["worked"].get(row.attempt, 0))
        reached = max((row.attempt, row.step), session.get("reached", (0, 0)))
        session["reached"], session["to_step"] = reached, reached[1]
        session["ended"] = max(row.time, session.get("ended", row.time))
        if isinstance(row, runfolder.Start):
            fields = _dict(row)
            for name in STARTED:
                session[name] = fields[name]
            if row.attempt == session["attempt"]:
                session["from_step"] = fields["from_step"]
        elif isinstance(row, runfolder.End):
            for name in ("reason", "seconds", "train_seconds", "eval_seconds", "save_seconds"):
                session[name] = getattr(row, name)
    return [sessions[attempt] for attempt in sorted(sessions)]


def _replayed(rows: list[AnyRow], kept: list[AnyRow]) -> list[dict[str, Any]]:
    """Where a later session went over logged steps again: how many rows, how many equal.

    Of each `attempt`: `rows` compared (train windows and evaluations of the same step and, for a
    window, the same length), `equal` of them with the same loss, the largest `difference`. After
    a return the data are others, after some changes model or text: rows before and after are not
    compared.
    """
    if len({row.attempt for row in rows}) < 2:
        return []
    others = _returns(rows) | {
        r.attempt
        for r in rows
        if isinstance(r, runfolder.Event) and r.kind == runfolder.INCOMPARABLE
    }
    new = {_key(row): row for row in kept if isinstance(row, runfolder.Train | runfolder.Eval)}
    audits: dict[int, dict[str, Any]] = {}
    for row in rows:
        twin = new.get(_key(row))
        if twin is None or twin.attempt <= row.attempt:
            continue
        if any(row.attempt < other <= twin.attempt for other in others):
            continue
        audit = audits.setdefault(
            twin.attempt, {"attempt": twin.attempt, "rows": 0, "equal": 0, "difference": 0.0}
        )
        old_loss, new_loss = _loss(row), _loss(twin)
        audit["rows"] += 1
        audit["equal"] += old_loss == new_loss
        if old_loss is not None and new_loss is not None:
            audit["difference"] = max(audit["difference"], abs(old_loss - new_loss))
    return [audits[attempt] for attempt in sorted(audits)]


def _key(row: AnyRow) -> tuple[str, int, int]:
    return type(row).__name__, row.step, getattr(row, "steps", 0)


def _loss(row: AnyRow) -> float | None:
    value = row.loss if isinstance(row, runfolder.Train) else getattr(row, "val_loss", None)
    return None if value is None else float(value)


def _yardsticks(path: Path, problems: list[str]) -> dict[str, Any] | None:
    try:
        loaded = json.loads(read_bounded(path, MAX_JSON_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        problems.append(f"{path.name}: {error}")
        return None
    return loaded if isinstance(loaded, dict) else None


def _forecasts(path: Path, problems: list[str]) -> list[dict[str, Any]]:
    """What earlier reports foresaw, one object per line."""
    try:
        lines = read_bounded(path, MAX_JSON_BYTES).splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(f"{path.name}: {error}")
        return []
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            problems.append(f"{path.name}, line {number}: {error}")
    return [row for row in rows if isinstance(row, dict)]


def block_losses(log: Log, step: int, attempt: int, logged: float) -> Array | None:
    """Mean validation loss per block of one evaluation (nats, float64); None where there are none,
    or others than those of the `logged` loss, which is told."""
    if log.folder is None:
        return None
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = RunFolder(log.folder).eval_path(step, attempt)
    try:
        losses = np.asarray(load(read_bounded(path, MAX_EVAL_BYTES))["val"], np.float64).ravel()
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        log.problems.append(f"evals/{path.name}: cannot be read: left out ({error})")
        return None
    if losses.size and abs(losses.mean() - logged) <= ROUNDED * logged:
        return losses
    log.problems.append(f"evals/{path.name}: not what the log says of step {step:,}: left out")
    return None
