"""Power cuts: every disk that a cut may leave behind, in bounds, and what is recovered from it.

A recorder watches a real run and notes what reaches the kernel: data (found by comparing the
folder before each call), names made and taken away, fsyncs. Data is safe once its file was
fsynced, a name once its folder was; all else may be lost or kept, one without the other, data also
in part or as zeros (the model of ALICE, Pillai et al. 2014). After each call, such disks are
built and recovered.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from . import tiny
from .resume import cut
from .tiny import Outcome

ALL_SUBSETS = 6  # pending operations of which every subset is tried
DRAWN = 24  # subsets of more, beside the systematic ones
MORE = {
    "length__steps": 12, "save__every": 3, "save__keep": 1, "eval__every": 4, "log__every": 2,
}  # fmt: skip
IGNORED = ("run.lock",)


@dataclass
class Op:
    """One change of the disk. `folder` is the node whose fsync makes a name safe."""

    kind: str  # create, write, rename, remove, sync
    node: int
    folder: int = 0
    name: str = ""
    to_folder: int = 0
    to_name: str = ""
    old: bytes = b""
    new: bytes = b""
    is_file: bool = False


@dataclass
class Needed:
    """What was promised when a call returned."""

    run: bool = False
    log: bytes = b""
    steps: list[int] = field(default_factory=list)  # checkpoints saved and not yet taken away
    config: str = ""  # settings that replaced others


class Recorder:
    """Notes what happens to the files under `root`, between `start` and `stop`."""

    active: Recorder | None = None
    hooked = False

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ops: list[Op] = []
        self.needed: list[Needed] = []  # after each operation
        self.now = Needed()
        self.log_at_save: dict[int, bytes] = {}
        self.nodes: dict[str, int] = {"": 0}  # path → node
        self.data: dict[int, bytes] = {}
        self.count, self.first = 0, 1
        if not Recorder.hooked:
            Recorder.hooked = True
            sys.addaudithook(_audit)

    def add(self, op: Op) -> None:
        self.ops.append(op)
        self.needed.append(self._now())

    def promise(self) -> None:
        """What was just promised holds from here on."""
        if self.needed:
            self.needed[-1] = self._now()

    def _now(self) -> Needed:
        return replace(self.now, steps=list(self.now.steps))

    def stands(self) -> None:
        """What is there now is safe."""
        self.scan()
        for node in sorted(self.nodes.values()):
            self.add(Op("sync", node))
        self.first = len(self.ops) + 1

    def relative(self, path: Any, dir_fd: int = -1) -> str | None:
        """`path` below the root; None for what is not ours."""
        path = os.fsdecode(path)
        if dir_fd >= 0:
            path = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), path)
        path = os.path.abspath(path)
        root = str(self.root)
        if path == root:
            return ""
        inside = path.startswith(root + "/") and os.path.basename(path) not in IGNORED
        return path[len(root) + 1 :] if inside else None

    def scan(self) -> None:
        """Names that have appeared and data that has changed since the last call."""
        for folder, names, files in os.walk(self.root):
            for name in sorted(names) + sorted(set(files) - set(IGNORED)):
                path = os.path.join(folder, name)
                key = path[len(str(self.root)) + 1 :]
                parent = self.nodes[os.path.dirname(key)]
                if key not in self.nodes:
                    self.count += 1
                    self.nodes[key] = self.count
                    self.add(Op("create", self.count, parent, name, is_file=name in files))
                    if name in files:
                        self.data[self.count] = b""
                if name in files:
                    node, new = self.nodes[key], Path(path).read_bytes()
                    if new != self.data[node]:
                        self.add(Op("write", node, old=self.data[node], new=new))
                        self.data[node] = new

    def rename(self, old: str, new: str) -> None:
        node, before = self.nodes[old], os.path.split(old)
        after = os.path.split(new)
        step = before[1].removeprefix("step-")
        if step.isdecimal() and int(step) in self.now.steps:  # is about to be pruned
            self.now.steps.remove(int(step))
        folders = self.nodes[before[0]], self.nodes[after[0]]
        self.add(Op("rename", node, folders[0], before[1], folders[1], after[1]))
        for key in [k for k in self.nodes if k == old or k.startswith(old + "/")]:
            self.nodes[new + key[len(old) :]] = self.nodes.pop(key)

    def remove(self, key: str) -> None:
        folder, name = os.path.split(key)
        self.add(Op("remove", self.nodes.pop(key), self.nodes[folder], name))


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    recorder = Recorder.active
    if recorder is None or event not in ("os.rename", "os.remove", "os.rmdir"):
        return
    Recorder.active = None
    try:
        if event == "os.rename":
            keys = [recorder.relative(path) for path in arguments[:2]]
        else:
            keys = [recorder.relative(*arguments[:2])]
        if keys[0] is not None and os.path.lexists(recorder.root / keys[0]):
            recorder.scan()
            if event == "os.rename" and keys[1] is not None:
                recorder.rename(keys[0], keys[1])
            elif event != "os.rename":
                recorder.remove(keys[0])
    finally:
        Recorder.active = recorder


def record(root: Path, work: Any) -> Recorder:
    """Everything that `work()` does to the files under `root`, and what it promises."""
    from overnight.model import checkpoint
    from overnight.runfolder import LogWriter
    from overnight.training import loop, resume

    recorder = Recorder(root)
    recorder.stands()
    real_fsync, real_save, real_sync = os.fsync, checkpoint.save, LogWriter.sync
    real_train, real_replace = loop.Trainer.train, resume.replace

    def fsync(fd: int) -> None:
        Recorder.active = None
        key = recorder.relative(os.readlink(f"/proc/self/fd/{fd}"))
        recorder.scan()
        real_fsync(fd)
        if key is not None:
            recorder.add(Op("sync", recorder.nodes[key]))
        Recorder.active = recorder

    def save(run: Any, state: Any, *rest: Any) -> Any:
        recorder.log_at_save[state.step] = run.log.read_bytes()
        done = real_save(run, state, *rest)
        recorder.now.steps = sorted({*recorder.now.steps, state.step})
        recorder.promise()
        return done

    def sync(self: LogWriter) -> None:
        real_sync(self)
        path = Path(os.readlink(f"/proc/self/fd/{self._fd}"))
        recorder.now.log = path.read_bytes()
        recorder.promise()

    def train(self: Any, *given: Any) -> str:
        recorder.now.run = True
        recorder.promise()
        return real_train(self, *given)

    def new_settings(path: Path, content: bytes, durable: bool) -> None:
        real_replace(path, content, durable)
        recorder.now.config = content.decode()
        recorder.promise()

    with ExitStack() as stack:
        for place, name, value in (
            (os, "fsync", fsync),
            (checkpoint, "save", save),
            (LogWriter, "sync", sync),
            (loop.Trainer, "train", train),
            (resume, "replace", new_settings),
        ):
            stack.enter_context(tiny.patched(place, name, value))
        Recorder.active = recorder
        try:
            work()
        finally:
            Recorder.active = None
    recorder.scan()
    return recorder


# ---- the disks that a cut may leave ----------------------------------------------------------


def pending(ops: list[Op]) -> list[int]:
    """Operations that no fsync has made safe."""
    left = []
    safe: set[int] = set()
    for i in range(len(ops) - 1, -1, -1):
        op = ops[i]
        if op.kind == "sync":
            safe.add(op.node)
        elif op.kind == "write":
            if op.node not in safe:
                left.append(i)
        elif op.folder not in safe and (op.kind != "rename" or op.to_folder not in safe):
            left.append(i)
    return left[::-1]


def choices(open_ops: list[int], draw: random.Random) -> Iterator[frozenset[int]]:
    """Sets of pending operations that reached the disk."""
    everything = frozenset(open_ops)
    if len(open_ops) <= ALL_SUBSETS:
        for size in range(len(open_ops) + 1):
            yield from map(frozenset, itertools.combinations(open_ops, size))
        return
    for i, op in enumerate(open_ops):
        yield frozenset(open_ops[:i])
        yield everything - {op}
        yield frozenset({op})
    yield everything
    for _ in range(DRAWN):
        yield frozenset(op for op in open_ops if draw.random() < 0.5)


def torn(op: Op, how: str) -> bytes:
    """Data that was on its way: a part of it, or its length with nothing in it."""
    begin = len(op.old) if op.new.startswith(op.old) else 0
    middle = begin + (len(op.new) - begin) // 2
    if how == "half":
        return op.new[:middle]
    return op.new[:begin] + bytes(len(op.new) - begin)


Disk = dict[str, bytes | None]  # path → data, None for a folder


def disk(
    ops: list[Op], open_ops: list[int], kept: frozenset[int], tear: int = -1, how: str = ""
) -> Disk:
    lost = set(open_ops) - kept
    entries: dict[int, dict[str, int]] = {0: {}}
    data: dict[int, bytes] = {}
    for i, op in enumerate(ops):
        if i in lost or op.kind == "sync":
            continue
        if op.kind == "write":
            data[op.node] = torn(op, how) if i == tear else op.new
            continue
        names = entries.setdefault(op.folder, {})
        if op.kind == "create":
            names[op.name] = op.node
        else:
            if names.get(op.name) == op.node:
                del names[op.name]
            if op.kind == "rename":
                entries.setdefault(op.to_folder, {})[op.to_name] = op.node
    files = {op.node for op in ops if op.is_file}
    return dict(_reached("", 0, entries, data, files))


def _reached(
    prefix: str,
    node: int,
    entries: dict[int, dict[str, int]],
    data: dict[int, bytes],
    files: set[int],
) -> Iterator[tuple[str, bytes | None]]:
    for name, child in entries.get(node, {}).items():
        if child in files:
            yield prefix + name, data.get(child, b"")
        else:
            yield prefix + name, None
            yield from _reached(f"{prefix}{name}/", child, entries, data, files)


def build(found: Disk, root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    for path, content in found.items():
        if content is None:
            (root / path).mkdir(exist_ok=True)
        else:
            (root / path).write_bytes(content)


# ---- recovery --------------------------------------------------------------------------------


def recovered(root: Path, name: str, needed: Needed, log_at_save: dict[int, bytes]) -> list[str]:
    """What is wrong after recovery from the disk under `root`."""
    from overnight.model import checkpoint
    from overnight.runfolder import Eval, Event, LogWriter, RunFolder, Start, read_log
    from overnight.settings import load_config
    from overnight.text.tokenizers import Tokenizer

    path = root / name
    if not path.exists():
        return ["the run is not there"] if needed.run else []
    run = RunFolder.open(path)
    load_config(run.config)
    Tokenizer.load(run.tokenizer)
    wrong = []
    if not read_log(run.log).of(Start):
        wrong.append("no start row")
    if needed.config and run.config.read_text() != needed.config:
        wrong.append("the settings are the old ones")
    log = run.log.read_bytes()
    if not log.startswith(needed.log):
        wrong.append(f"{len(needed.log)} synced bytes of the log, {len(log)} found")
    newest = checkpoint.newest(run, wrong.append)  # one that is damaged was never committed
    step = int(newest.name[5:]) if newest else 0
    if step < max(needed.steps, default=0):
        wrong.append(f"checkpoint {max(needed.steps)} was saved, {step} is found")
    if step and not log.startswith(log_at_save.get(step, b"")):
        wrong.append(f"checkpoint {step} stands after rows that are lost")
    for row in read_log(run.log).of(Eval):
        if row.step <= step and not _readable(run.eval_path(row.step, row.attempt)):
            wrong.append(f"block losses of step {row.step} are lost")
    for other in needed.steps:
        try:
            checkpoint.verify(run.checkpoint_path(other))
        except checkpoint.DamagedError as error:
            wrong.append(f"checkpoint {other}: {error}")
    before = len(read_log(run.log).rows)
    writer = LogWriter(run.log, 99)
    writer.write(Event(step=step, kind="x", message="after the cut"))
    writer.close()
    rows = read_log(run.log).rows
    if len(rows) < before + 1 or rows[-1].attempt != 99:
        wrong.append("a row written after the cut is lost")
    return wrong


def _readable(path: Path) -> bool:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return set(load_file(path)) == {"val", "probe"}
    except (OSError, SafetensorError, ValueError):
        return False


def run(folder: Path, short: bool, cases: int) -> Iterator[Outcome]:
    text, whole = tiny.text_file(folder), folder / "whole"
    tiny.begin(whole, text, **MORE)
    root = folder / "root"
    root.mkdir()
    recorder = record(root, lambda: tiny.begin(root / "runs" / "a", text, **MORE))
    yield _cuts("power cut: creation, log, save, prune", folder, recorder, whole, short)
    root, kept = folder / "changed", folder / "kept"
    tiny.begin(kept, text, **(MORE | {"save__keep": 9}))
    cut(kept, 6, root / "runs" / "a")
    changes = {"save.every": 2}
    recorder = record(root, lambda: tiny.resume(root / "runs" / "a", changes))
    yield _cuts("power cut: resume with other settings", folder, recorder, whole, short)


def _cuts(name: str, folder: Path, recorder: Recorder, whole: Path, short: bool) -> Outcome:
    import msgspec

    outcome = Outcome(name, 0)
    draw, seen = random.Random(1), set()
    place, resumed = folder / "disk", 0
    ends = range(recorder.first, len(recorder.ops) + 1)
    for n in ends[:: 3 if short else 1]:
        if short and outcome.failures:
            break
        ops, needed = recorder.ops[:n], recorder.needed[n - 1]
        open_ops = pending(ops)
        for found in _disks(ops, open_ops, draw):
            digest = hashlib.sha256(
                msgspec.json.encode([sorted(found.items()), needed.steps, len(needed.log)])
            ).digest()
            if digest in seen:
                continue
            seen.add(digest)
            outcome.cases += 1
            build(found, place)
            outcome.failures += [
                f"after operation {n} ({ops[-1].kind} {ops[-1].name}): {wrong}"
                for wrong in _tried(place, needed, recorder.log_at_save)
            ]
            if (place / "runs" / "a").exists() and len(seen) % (400 if short else 40) == 0:
                resumed += 1
                build(found, place)
                tiny.resume(place / "runs" / "a")
                outcome.failures += [
                    f"resumed after operation {n}: {wrong}"
                    for wrong in tiny.different(place / "runs" / "a", whole)
                ]
    outcome.notes.append(
        f"{len(ends)} operations, {resumed} of the disks trained to the end: same bits"
    )
    return outcome


def _disks(ops: list[Op], open_ops: list[int], draw: random.Random) -> Iterator[Disk]:
    for kept in choices(open_ops, draw):
        yield disk(ops, open_ops, kept)
    everything = frozenset(open_ops)
    for i in open_ops:
        if ops[i].kind == "write":
            for how in ("half", "zeros"):
                yield disk(ops, open_ops, everything, i, how)
                yield disk(ops, open_ops, frozenset({i}), i, how)


def _tried(root: Path, needed: Needed, log_at_save: dict[int, bytes]) -> list[str]:
    try:
        return recovered(root, "runs/a", needed, log_at_save)
    except Exception as error:
        return [f"{type(error).__name__}: {error}"]
