"""The run folder: its paths, its log rows (typed), one writer, one reader.

Training writes a run folder; everything else only reads it. `docs/log-format.md` is the contract
for other programs. Rows are appended by one `O_APPEND` write each and never rewritten.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from .errors import UserError
from .files import bounded_lines, open_no_follow

MAX_ROW_BYTES = 4 * 2**20  # a longer line is reported, not decoded
CLOSE_TRIES, CLOSE_PAUSE = 5, 1.0  # for the last rows of a log; seconds between
Count = Annotated[int, Meta(ge=0, le=2**53)]


class Row(msgspec.Struct, kw_only=True, tag_field="type", tag=str.lower):
    """What every row has. `attempt` counts from 1, one more for every resume or return; `seq`
    counts the rows of one attempt from 0; `time` is Unix time in seconds. A number that is not
    finite is written as null."""

    attempt: Count = 0
    seq: Count = 0
    step: Count
    time: float = 0.0


class Start(Row, kw_only=True):
    """A session begins at `from_step`."""

    from_step: Count
    version: str
    config: dict[str, Any]  # the resolved tree
    reasons: dict[str, str]  # dotted name → who gave it, or why it was chosen
    environment: dict[str, Any]  # python, torch, processor, threads, device, dtype …
    data: dict[str, Any]  # fingerprint; bytes, tokens, documents of train and val
    parameters: dict[str, Count]  # total, and the parts
    ledger: dict[str, Count]  # the fields of `ledger.Ledger`


class Train(Row, kw_only=True):
    """Means over the `steps` updates that end at `step`."""

    steps: Count
    tokens: Count  # cumulative
    passes: float  # cumulative
    loss: float | None  # unsmoothed, nats per token, over all tokens of the window
    objective: float | None = None  # what was minimised, where that is not the loss
    lr: float
    grad_norm: float | None  # before clipping, mean over the window
    seconds: float  # spent in these updates
    tokens_per_s: float  # over those seconds


class Eval(Row, kw_only=True):
    """Both fixed sets, in evaluation mode with the weights after update `step`."""

    tokens: Count  # trained so far
    passes: float
    val_loss: float | None  # nats per token
    val_se: float | None  # standard error over blocks
    val_bpb: float | None
    val_bpb_se: float | None = None
    val_tokens: Count  # tokens evaluated
    probe_loss: float | None
    probe_se: float | None
    probe_bpb: float | None
    probe_tokens: Count
    seconds: float


class Full(Row, kw_only=True):
    """The checkpoint of `step` on the whole val split, or of a large one on `full_tokens` of
    `training/evaluate.py`, once, when the run has finished: the figure to quote, and the one that
    yardsticks are compared with."""

    val_loss: float | None
    val_se: float | None
    val_bpb: float | None
    val_bpb_se: float | None = None
    val_tokens: Count
    val_bytes: Count
    checkpoint: str  # best
    seconds: float


class Sample(Row, kw_only=True):
    prompt: str
    text: str  # the continuation only
    tokens: Count
    seed: int


class Checkpoint(Row, kw_only=True):
    path: str  # relative to the run folder
    bytes: Count
    seconds: float
    reason: str  # interval, best, last, signal, initial


# fmt: off
EventKind = Literal[
    "initial", "import", "resume", "incomparable", "warning",  # how a session begins
    "non_finite", "rewind", "spike",  # what training met with
    "early_stop", "signal", "failed",  # why it ended
    "checkpoint", "disk", "log", "torn_log",  # what could not be written, or read
]
# fmt: on
STRIKES = 3  # updates in a row that are not finite, behind which a run goes back ("rewind")


class Event(Row, kw_only=True):
    kind: str  # an EventKind; of a newer version perhaps another one
    message: str
    data: dict[str, Any] = {}


class End(Row, kw_only=True):
    """A session ends: finished, interrupted or failed."""

    reason: str
    seconds: float  # of this session, monotonic
    train_seconds: float
    eval_seconds: float
    save_seconds: float


AnyRow = Start | Train | Eval | Full | Sample | Checkpoint | Event | End
_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[AnyRow] = msgspec.json.Decoder(AnyRow)


class RunFolder:
    """The paths of one run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.toml"
        self.tokenizer = self.path / "tokenizer.json"
        self.yardsticks = self.path / "yardsticks.json"
        self.log = self.path / "log.jsonl"
        self.lock = self.path / "run.lock"
        self.evals = self.path / "evals"
        self.checkpoints = self.path / "checkpoints"
        self.report = self.path / "report"

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """The run at `path`, or a clear word that there is none."""
        run = cls(path)
        if not run.path.exists():
            raise UserError(f"{path}: no such run folder.{_nearby(run.path)}")
        missing = [file.name for file in (run.config, run.log) if not file.is_file()]
        if missing:
            raise UserError(f"{path}: not a run folder ({' and '.join(missing)} missing).")
        return run

    def checkpoint_path(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:08d}"

    def checkpoint_steps(self) -> list[int]:
        """Steps of the committed checkpoints, oldest first."""
        return sorted(s for s, folder in self._steps() if (folder / "manifest.json").is_file())

    def headless_checkpoints(self) -> list[Path]:
        """Newer than all that are committed, and without a manifest: each had one. (An older one
        may be what a power cut left of one that was removed.)"""
        newest = max(self.checkpoint_steps(), default=-1)
        return [folder for step, folder in self._steps() if step > newest]

    def _steps(self) -> Iterator[tuple[int, Path]]:
        for folder in self.checkpoints.glob("step-*"):
            number = folder.name.removeprefix("step-")
            if number.isdecimal() and folder.name == self.checkpoint_path(int(number)).name:
                yield int(number), folder

    def eval_path(self, step: int, attempt: int) -> Path:
        return self.evals / f"step-{step:08d}-attempt-{attempt}.safetensors"


def _nearby(path: Path) -> str:
    folder = path.parent if path.parent.is_dir() else Path()
    names = sorted(p.name for p in folder.iterdir() if (p / "log.jsonl").is_file())
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f" Runs in {folder}: {', '.join(names[-5:])}{more}." if names else ""


class LogWriter:
    """Appends rows to a log, one write each. Seals a torn tail left by a killed session. What a
    full disk refuses is kept and written before the next row, so no row is lost or out of order."""

    def __init__(self, path: Path, attempt: int) -> None:
        self.attempt = attempt
        self.seq = 0
        self.sealed = _ends_torn(path)
        self._waiting = b"\n" if self.sealed else b""
        self._begun = time.time() - _steady()  # a clock that is set jumps, and durations with it
        self._fd = open_no_follow(str(path), os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(self, row: AnyRow) -> None:
        row.attempt, row.seq, row.time = self.attempt, self.seq, self._begun + _steady()
        self.seq += 1
        self._waiting += _encoder.encode(row) + b"\n"
        with contextlib.suppress(OSError):  # waits for the next row, or for `close`
            self._flush()

    def begin_attempt(self) -> None:
        """What follows goes over steps again that this attempt has been to."""
        self.attempt, self.seq = self.attempt + 1, 0

    def _flush(self) -> None:
        while self._waiting:  # one write; a short one (signal, full disk) is completed
            self._waiting = self._waiting[os.write(self._fd, self._waiting) :]

    def sync(self) -> None:
        """Every row so far is durable, or an OSError."""
        self._flush()
        os.fsync(self._fd)

    def close(self) -> None:
        """The end; what a disk still refuses after some tries is lost, and an OSError says so."""
        try:
            for _ in range(CLOSE_TRIES - 1):
                with contextlib.suppress(OSError):
                    return self.sync()
                time.sleep(CLOSE_PAUSE)
            self.sync()
        finally:
            os.close(self._fd)


def _steady() -> float:
    """Seconds of a clock that nobody sets; the machine's sleep counts where that is known."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _ends_torn(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:  # absent or empty
        return False


class LogRead(msgspec.Struct):
    """The rows of a log in the order written, and what could not be read."""

    rows: list[AnyRow]
    problems: list[str]  # "line 12: …"

    def of(self, kind: type[Any]) -> list[Any]:
        return [row for row in self.rows if type(row) is kind]

    @property
    def attempts(self) -> int:
        return max((row.attempt for row in self.rows), default=0)


def read_log(path: Path) -> LogRead:
    """Every readable row; a damaged line becomes a problem, never an exception."""
    rows: list[AnyRow] = []
    problems: list[str] = []
    with path.open("rb") as file:
        for number, line in bounded_lines(file, MAX_ROW_BYTES):
            if line is None:
                problems.append(f"line {number}: longer than {MAX_ROW_BYTES} bytes")
                continue
            if not line.strip():
                continue
            try:
                rows.append(_decoder.decode(line))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                problems.append(f"line {number}: {error}")
    return LogRead(rows, problems)


INCOMPARABLE: Final = "incomparable"  # the event behind which rows compare with none before it
INITIAL: Final = "initial"  # the event of weights that are not random


def current(rows: Iterable[AnyRow]) -> list[AnyRow]:
    """The rows that count: where a later attempt begins, what earlier ones logged beyond that step
    is no part of the run any more. Sorted by step, then by the order written."""
    rows = _comparable(list(rows))
    begins: dict[int, int] = {}
    for row in rows:
        if not isinstance(row, Full):  # of an earlier step, which its attempt need not have been to
            begins[row.attempt] = min(row.step, begins.get(row.attempt, row.step))
    ends, end = {}, math.inf
    for attempt in sorted(begins, reverse=True):
        ends[attempt] = end
        end = min(end, begins[attempt])
    kept = [
        row
        for row in rows
        if isinstance(row, Start | End | Event) or row.step <= ends.get(row.attempt, math.inf)
    ]
    return sorted(kept, key=lambda row: row.step)


def _comparable(rows: list[AnyRow]) -> list[AnyRow]:
    """Without what was measured of another model or on another text, in the order written."""
    cut = max(
        (i for i, r in enumerate(rows) if isinstance(r, Event) and r.kind == INCOMPARABLE),
        default=0,
    )
    return [row for i, row in enumerate(rows) if i >= cut or isinstance(row, Start | End | Event)]


def begins_with_weights(rows: Iterable[AnyRow]) -> bool:
    """Whether step 0 is something to go back to, and not random weights."""
    return any(isinstance(row, Event) and row.kind == INITIAL for row in rows)


def lowest_evaluation(rows: Iterable[AnyRow], among: Container[int] | None = None) -> Eval | None:
    """The evaluation with the lowest finite val loss of all rows that count (the first of equals):
    what *best* means, across all attempts. `among`: of these steps alone, which are on disk.

    Step 0 counts where the run begins with weights; random ones are measured on a few blocks.
    """
    rows = current(rows)
    pretrained = begins_with_weights(rows)
    evals = [
        row
        for row in rows
        if isinstance(row, Eval)
        and row.val_loss is not None
        and (row.step or pretrained)
        and (among is None or row.step in among)
    ]
    return min(evals, key=lambda r: (r.val_loss, r.step), default=None)
