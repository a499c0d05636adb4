"""Checkpoints: written whole or not at all, verified before use, pruned by one rule.

A checkpoint is written in a temporary folder beside its place; every file is fsynced, then the
folder; a rename commits it, and the parent is fsynced. Nothing committed is overwritten, and there
is no pointer to a latest one: scan, verify, fall back.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import time
from pathlib import Path
from typing import Any

import msgspec
import safetensors
import safetensors.torch
from torch import Tensor

from ..errors import Say, UserError
from ..files import fsync_path
from ..runfolder import RunFolder

MODEL, OPTIMIZER, STATE, MANIFEST = (
    "model.safetensors",
    "optimizer.safetensors",
    "state.json",
    "manifest.json",
)


MAX_JSON_BYTES = 2**20  # of a manifest or a state; a longer one is no such thing


class Window(msgspec.Struct):
    """Sums of the open log window; exact, since JSON writes a double so that it reads back."""

    steps: int = 0
    tokens: int = 0
    nats: float = 0.0
    objective: float = 0.0
    grad_norm: float = 0.0
    seconds: float = 0.0


class State(msgspec.Struct):
    """All of a run that is not a tensor."""

    step: int = 0
    window: Window = msgspec.field(default_factory=Window)
    shift: int = 0  # sequences passed over, so that a run that went back sees other data
    rewinds: int = 0
    strikes: int = 0  # bad updates in a row
    recent: list[float] = []  # losses of the last updates, to judge a spike by
    measured: bool = False  # evaluation and samples of `step`, if due, are done


class FileFact(msgspec.Struct, forbid_unknown_fields=True):
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, forbid_unknown_fields=True):
    step: int
    files: dict[str, FileFact]


class DamagedError(Exception):
    """A checkpoint that is not what its manifest says."""


def save(
    run: RunFolder, state: State, model: dict[str, Tensor], optimizer: dict[str, Tensor]
) -> tuple[int, float]:
    """Commit a checkpoint, durably; its size in bytes and the seconds it took. A committed one
    of the same step is left as it is: then the size is 0."""
    begin = time.monotonic()
    place, temporary = run.checkpoint_path(state.step), _hidden(run, state.step)
    run.checkpoints.mkdir(exist_ok=True)
    fsync_path(run.path)
    if state.step in run.checkpoint_steps():
        fsync_path(run.checkpoints)
        return 0, time.monotonic() - begin
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        if place.exists():
            _set_aside(place)
        size = _write(temporary, state, model, optimizer)
        temporary.rename(place)
    except OSError:  # the disk is full, say: the run can go on, and nothing is left half-written
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    fsync_path(run.checkpoints)
    return size, time.monotonic() - begin


def _hidden(run: RunFolder, step: int) -> Path:
    """Where a checkpoint stands while it is made, or taken away."""
    return run.checkpoints / f".{run.checkpoint_path(step).name}.tmp"


def sweep(run: RunFolder) -> None:
    """Remove what a killed session was making or taking away."""
    for left in run.checkpoints.glob(".step-*.tmp"):
        shutil.rmtree(left, ignore_errors=True)


def _write(
    folder: Path, state: State, model: dict[str, Tensor], optimizer: dict[str, Tensor]
) -> int:
    """Write a checkpoint's files, durably; their size in bytes."""
    folder.mkdir()
    files = {
        MODEL: safetensors.torch.save({k: v.contiguous() for k, v in model.items()}),
        OPTIMIZER: safetensors.torch.save({k: v.contiguous() for k, v in optimizer.items()}),
        STATE: msgspec.json.encode(state),
    }
    manifest = Manifest(state.step, {name: _fact(data) for name, data in files.items()})
    files[MANIFEST] = msgspec.json.format(msgspec.json.encode(manifest))
    for name, data in files.items():
        with (folder / name).open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    fsync_path(folder)
    return sum(map(len, files.values()))


def _fact(data: bytes) -> FileFact:
    return FileFact(len(data), hashlib.sha256(data).hexdigest())


def verify(folder: Path) -> Manifest:
    """The manifest of a checkpoint whose every file is what it says, or `DamagedError`."""
    manifest: Manifest = _decoded(folder / MANIFEST, Manifest)
    if set(manifest.files) != {MODEL, OPTIMIZER, STATE}:
        raise DamagedError(f"{folder / MANIFEST}: lists {sorted(manifest.files)}")
    for name, expected in manifest.files.items():
        path = folder / name
        size = _size(path)
        if size < 0 or size != expected.bytes:
            found = f"{size} bytes" if size >= 0 else "no file"
            raise DamagedError(f"{path}: {expected.bytes} bytes expected, {found} found")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != expected.sha256:
            raise DamagedError(f"{path}: SHA-256 {expected.sha256} expected, {digest} found")
    for step in (manifest.step, _decoded(folder / STATE, State).step):
        if RunFolder(folder.parent.parent).checkpoint_path(step).name != folder.name:
            raise DamagedError(f"{folder}: holds the state of step {step}")
    return manifest


def _size(path: Path) -> int:
    """Bytes of a regular file, -1 for anything else: a link may lead out of the run folder, a
    pipe may never end."""
    try:
        found = path.lstat()
    except (OSError, ValueError):
        return -1
    return found.st_size if stat.S_ISREG(found.st_mode) else -1


def _decoded(path: Path, kind: type[Any]) -> Any:
    if not 0 <= _size(path) <= MAX_JSON_BYTES:
        raise DamagedError(f"{path}: no file of at most {MAX_JSON_BYTES:,} bytes")
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise DamagedError(f"{path}: {error}") from None


def newest(run: RunFolder, warn: Say) -> Path | None:
    """The newest checkpoint that verifies; a damaged one is named, kept aside, passed over."""
    for folder in run.headless_checkpoints():
        aside = _set_aside(folder)
        warn(f"checkpoint damaged: {folder} has no {MANIFEST}; kept as {aside.name}")
    for step in reversed(run.checkpoint_steps()):
        folder = run.checkpoint_path(step)
        try:
            verify(folder)
        except DamagedError as error:
            aside = _set_aside(folder)
            warn(f"checkpoint damaged: {error}; kept as {aside.name}")
            continue
        return folder
    return None


def _set_aside(folder: Path) -> Path:
    aside = folder.with_name(f"damaged-{folder.name}-{time.time_ns()}")
    return folder.rename(aside)


def read_state(folder: Path) -> State:
    return msgspec.json.decode((folder / STATE).read_bytes(), type=State)


def read_tensors(folder: Path, name: str) -> dict[str, Tensor]:
    """The tensors of MODEL or OPTIMIZER, on the CPU."""
    try:
        return safetensors.torch.load_file(folder / name)
    except safetensors.SafetensorError as error:  # what the manifest vouches for is no such file
        raise UserError(f"{folder / name}: no tensors ({error}).", 1) from None


def load_into(model: Any, tensors: dict[str, Tensor], path: Path) -> None:
    """Copy weights into `model`; names, shapes and dtypes must be the model's own."""
    check_fit(model.state_dict(), tensors, path)
    model.load_state_dict(tensors)


def check_fit(own: dict[str, Tensor], tensors: dict[str, Tensor], path: Path) -> None:
    """Names, shapes and dtypes of `tensors` are those of `own`, or a word that they are not."""
    if set(own) != set(tensors):
        odd = sorted(set(own) ^ set(tensors))
        raise UserError(f"{path}: not the weights of this model: {', '.join(odd[:3])}.", 1)
    for name, tensor in tensors.items():
        if not _fits(own[name], tensor):
            raise UserError(
                f"{path}: {name} is {tensor.dtype} {list(tensor.shape)}, "
                f"the model has {own[name].dtype} {list(own[name].shape)}.",
                1,
            )


def load_what_fits(model: Any, tensors: dict[str, Tensor]) -> None:
    """Copy the weights whose name and shape are the model's; the others stay as they are."""
    own = model.state_dict()
    fitting = {k: v for k, v in tensors.items() if k in own and _fits(own[k], v)}
    model.load_state_dict(own | fitting)


def _fits(own: Tensor, tensor: Tensor) -> bool:
    return own.shape == tensor.shape and own.dtype == tensor.dtype


def prune(run: RunFolder, best_step: int | None, keep: int) -> list[int]:
    """Remove checkpoints but the best and the `keep` newest; the steps removed."""
    steps = run.checkpoint_steps()
    gone = [step for step in steps[: -max(1, keep)] if step != best_step]
    for step in gone:  # out of every reader's sight first: none sees half of one
        shutil.rmtree(run.checkpoint_path(step).rename(_hidden(run, step)))
    return gone
