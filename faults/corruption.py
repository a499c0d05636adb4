"""Damaged checkpoint files: none is ever taken for a good one.

Bytes are flipped, replaced, cut off, zeroed, put in, doubled, swapped with another file or with
the same file of another checkpoint; a file is removed, emptied, or made a link or a pipe. Then
resume must use the checkpoint before, and asking for the damaged one by its step must be refused.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from . import tiny
from .tiny import Outcome

FILES = ("model.safetensors", "optimizer.safetensors", "state.json", "manifest.json")
MORE = {"length__steps": 6, "save__every": 2, "save__keep": 9, "eval__every": 3, "log__every": 2}
SECONDS = 5.0  # a pipe must not hold a reader for good


def run(folder: Path, short: bool, cases: int) -> Iterator[Outcome]:
    wanted = cases or (300 if short else 20_000)
    out = folder / "run"
    tiny.begin(out, tiny.text_file(folder), **MORE)
    good = out / "checkpoints" / "step-00000006"
    kept = folder / "kept"
    shutil.copytree(good, kept)
    outcome = Outcome("corruption of checkpoint files", 0)
    draw = random.Random(7)
    same = 0
    while outcome.cases < wanted and not (short and outcome.failures):
        name, how = draw.choice(FILES), draw.choice(HOWS)
        what = how(good, name, draw)
        if _equal(good, kept):
            same += 1
        else:
            outcome.cases += 1
            for wrong in _accepted(out, draw):
                outcome.failures.append(f"{name}, {what}: {wrong}")
        shutil.rmtree(good, ignore_errors=True)
        for aside in good.parent.glob("damaged-*"):
            shutil.rmtree(aside)
        shutil.copytree(kept, good)
    outcome.notes.append(f"{same} more left every byte, or the manifest's meaning, as it was")
    yield outcome


def _equal(good: Path, kept: Path) -> bool:
    import json

    for name in FILES:
        path = good / name
        if path.is_symlink() or not path.is_file():
            return False
        mine, other = path.read_bytes(), (kept / name).read_bytes()
        if name == "manifest.json" and mine != other:
            try:  # white space
                if json.loads(mine) != json.loads(other):
                    return False
            except ValueError:
                return False
        elif mine != other:
            return False
    return True


def _accepted(out: Path, draw: random.Random) -> list[str]:
    from overnight.errors import UserError
    from overnight.generation.load import load_model
    from overnight.model import checkpoint
    from overnight.runfolder import RunFolder

    wrong = []
    run = RunFolder(out)
    if 6 in run.checkpoint_steps():
        try:
            load_model(run, 6)
            wrong.append("load_model took it")
        except UserError:
            pass
    said: list[str] = []
    found = checkpoint.newest(run, said.append)
    if found is None or found.name != "step-00000004":
        wrong.append(f"resume took {found and found.name}")
    return wrong


# ---- ways to do damage: each changes the file in place and says what it did -------------------


def _flip(place: Path, name: str, draw: random.Random) -> str:
    data = bytearray((place / name).read_bytes())
    at, bit = draw.randrange(len(data)), draw.randrange(8)
    data[at] ^= 1 << bit
    (place / name).write_bytes(data)
    return f"bit {bit} of byte {at} flipped"


def _replace(place: Path, name: str, draw: random.Random) -> str:
    data = bytearray((place / name).read_bytes())
    at, size = draw.randrange(len(data)), draw.choice([1, 2, 8, 64, 4096])
    size = min(size, len(data) - at)
    data[at : at + size] = draw.randbytes(size)
    (place / name).write_bytes(data)
    return f"{size} bytes at {at} replaced"


def _zero(place: Path, name: str, draw: random.Random) -> str:
    data = bytearray((place / name).read_bytes())
    at = draw.randrange(len(data))
    size = min(draw.choice([1, 16, 512, 4096, len(data)]), len(data) - at)
    data[at : at + size] = bytes(size)
    (place / name).write_bytes(data)
    return f"{size} bytes at {at} zeroed"


def _truncate(place: Path, name: str, draw: random.Random) -> str:
    size = draw.randrange((place / name).stat().st_size)
    os.truncate(place / name, size)
    return f"cut to {size} bytes"


def _extend(place: Path, name: str, draw: random.Random) -> str:
    extra = draw.randbytes(draw.choice([1, 8, 1000]))
    with (place / name).open("ab") as file:
        file.write(extra)
    return f"{len(extra)} bytes added"


def _insert(place: Path, name: str, draw: random.Random) -> str:
    data = (place / name).read_bytes()
    at = draw.randrange(len(data))
    (place / name).write_bytes(data[:at] + draw.randbytes(1) + data[at:])
    return f"a byte put in at {at}"


def _exchange(place: Path, name: str, draw: random.Random) -> str:
    data = bytearray((place / name).read_bytes())
    size = min(512, len(data) // 2)
    one, two = draw.randrange(len(data) - size), draw.randrange(len(data) - size)
    data[one : one + size], data[two : two + size] = (
        data[two : two + size],
        data[one : one + size],
    )
    (place / name).write_bytes(data)
    return f"{size} bytes at {one} and {two} exchanged"


def _other(place: Path, name: str, draw: random.Random) -> str:
    other = place.with_name("step-00000004") / name
    (place / name).write_bytes(other.read_bytes())
    return "the file of another checkpoint"


def _swap(place: Path, name: str, draw: random.Random) -> str:
    other = draw.choice([f for f in FILES if f != name])
    (place / name).rename(place / "x")
    (place / other).rename(place / name)
    (place / "x").rename(place / other)
    return f"swapped with {other}"


def _whole_other(place: Path, name: str, draw: random.Random) -> str:
    shutil.rmtree(place)
    shutil.copytree(place.with_name("step-00000004"), place)
    return "the whole folder of another checkpoint"


def _remove(place: Path, name: str, draw: random.Random) -> str:
    (place / name).unlink()
    return "removed"


def _link(place: Path, name: str, draw: random.Random) -> str:
    outside = place.parent.parent / f"outside-{name}"
    shutil.copyfile(place / name, outside)
    (place / name).unlink()
    (place / name).symlink_to(outside)
    return "a link out of the folder"


def _pipe(place: Path, name: str, draw: random.Random) -> str:
    (place / name).unlink()
    os.mkfifo(place / name)
    return "a pipe"


def _folder(place: Path, name: str, draw: random.Random) -> str:
    (place / name).unlink()
    (place / name).mkdir()
    return "a folder"


OFTEN = (_flip, _replace, _zero, _truncate, _extend, _insert, _exchange)
HOWS = OFTEN * 8 + (_other, _swap, _whole_other, _remove, _link, _pipe, _folder)
