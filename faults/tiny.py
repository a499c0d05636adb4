"""A real run of seconds, and what is compared between two of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TEXT = "".join(f"Line {i} says that {i * i} is the square of {i}.\n" for i in range(400))
SETTINGS: dict[str, Any] = {
    "tokenizer.kind": "chars", "train.device": "cpu", "train.dtype": "float32", "train.threads": 1,
    "train.attention": "plain", "train.compile": "off",  # else timed, at every beginning
    "train.batch": 4, "train.micro_batch": 2, "model.layers": "SA", "model.width": 32,
    "model.heads": 2, "model.ssm_head": 16, "model.context": 16, "model.dropout": 0.1,
    "model.ngrams": [2], "model.ngram_rows": 64,
    "train.label_smoothing": 0.1, "optimizer.kind": "muon", "schedule.warmup": 3,
    "length.steps": 24, "eval.every": 8, "eval.tokens": 128, "sample.tokens": 4, "log.every": 5,
    "save.every": 9,
}  # fmt: skip
TIMES = {"time", "attempt", "seq", "seconds", "tokens_per_s"}


@dataclass
class Outcome:
    """What one campaign found."""

    name: str
    cases: int
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0


def own_surroundings(folder: Path) -> None:
    """A cache and a text of this campaign alone; no settings from the user's environment."""
    for name in [n for n in os.environ if n.startswith("OVERNIGHT_")]:
        del os.environ[name]
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    text_file(folder)


def text_file(folder: Path) -> Path:
    path = folder / "lines.txt"
    if not path.is_file():
        path.write_text(TEXT)
    return path


def quiet() -> Any:
    """A progress that keeps its messages to itself."""
    from overnight.training.progress import Progress

    class Quiet(Progress):
        def __init__(self) -> None:
            super().__init__()
            self._live = None
            self.said: list[str] = []

        def say(self, message: str) -> None:
            self.said.append(message)

    return Quiet()


def begin(run: Path, text: Path, **more: Any) -> Any:
    """Train a tiny run; `more` are settings with `__` for the dot."""
    from overnight.settings import Settings
    from overnight.training import planning, session

    settings = Settings()
    given = {name.replace("__", "."): value for name, value in more.items()}
    settings.add(SETTINGS | {"data.text": [str(text)]} | given, "campaign")
    with patched(planning, "TIMED_SECONDS", {"minutes": 0.0, "other": 0.0}):
        planned = session.plan_run(settings, lambda _: None)
    return session.begin(planned, run, quiet(), _no_reason)


def resume(run: Path, changes: dict[str, Any] | None = None) -> Any:
    from overnight.training import resume

    return resume.resume(run, quiet(), _no_reason, changes)


def _no_reason(steps: list[int], losses: list[float]) -> str:
    """To stop early."""
    return ""


def last_step(run: Path) -> int:
    from overnight.runfolder import RunFolder

    return max(RunFolder(run).checkpoint_steps(), default=0)


def bits(run: Path) -> dict[str, bytes]:
    """Weights and optimizer state of the newest checkpoint, and every block loss, as bytes."""
    from overnight.runfolder import RunFolder

    folder = RunFolder(run)
    place = folder.checkpoint_path(last_step(run))
    found = {name: (place / name).read_bytes() for name in _TENSORS}
    for path in sorted(folder.evals.glob("*.safetensors"), key=_attempt):  # the last one counts
        found[path.name.split("-attempt")[0]] = path.read_bytes()
    return found


def _attempt(path: Path) -> int:
    return int(path.stem.rsplit("-", 1)[1])


_TENSORS = ("model.safetensors", "optimizer.safetensors")


def measured(rows: list[Any]) -> dict[Any, Any]:
    """What was logged that is not a time, by kind, step and prompt."""
    import msgspec

    return {
        (row["type"], row["step"], row.get("steps"), row.get("prompt")): {
            k: v for k, v in row.items() if k not in TIMES
        }
        for row in msgspec.to_builtins(rows)
        if row["type"] in ("train", "eval", "sample", "full")
    }


def different(run: Path, whole: Path) -> list[str]:
    """How a run that went through faults differs from the uninterrupted one, in words."""
    from overnight.runfolder import RunFolder, current, read_log

    wrong = []
    mine, other = bits(run), bits(whole)
    wrong += [f"{name} differs" for name in sorted(other) if mine.get(name) != other[name]]
    rows, expected = read_log(RunFolder(run).log).rows, read_log(RunFolder(whole).log).rows
    reference = measured(current(expected))
    for key, row in measured(current(rows)).items():
        if reference.get(key) != row:
            wrong.append(f"row {key[:2]} differs")
    missing = reference.keys() - measured(current(rows)).keys()
    wrong += [f"row {key[:2]} is missing" for key in sorted(missing, key=str)]
    for row in rows:  # also those that a later session replaced
        for key, values in measured([row]).items():
            if reference.get(key, values) != values:
                wrong.append(f"replaced row {key[:2]} differs")
    return wrong


@contextmanager
def patched(place: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(place, name)
    setattr(place, name, value)
    try:
        yield
    finally:
        setattr(place, name, before)
