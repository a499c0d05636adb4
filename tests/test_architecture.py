"""The rules of docs/architecture.md: who may import whom, and who must not load torch."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[1] / "src" / "overnight"

# From the ground up. A room imports from rooms before its own; the two towers stand side by side.
GROUND = [
    "errors",
    "wording",
    "shown",
    "keyed",
    "ledger",
    "config",
    "settings",
    "schedule",
    "files",
    "cache",
    "runfolder",
    "runlock",
]
WRITING = ["text", "model", "generation", "training"]
EXCHANGE = ["text", "model", "generation", "exchange"]  # beside training
READING = ["analysis", "report"]
ROOF = ["cli", "__init__", "__main__"]
NO_TORCH = ["analysis", "report", "text", "cli"]


def below(room: str) -> set[str]:
    """The rooms that `room` may import from, its own among them."""
    if room in ROOF:
        return {*GROUND, *WRITING, *EXCHANGE, *READING, *ROOF}
    for tower in (GROUND + WRITING, GROUND + EXCHANGE, GROUND + READING):
        if room in tower:
            return set(tower[: tower.index(room) + 1])
    raise AssertionError(f'"{room}" has no floor: give it one here and in docs/architecture.md')


def room_of(file: Path) -> str:
    return file.relative_to(SRC).parts[0].removesuffix(".py")


def imports(tree: ast.AST, file: Path) -> list[tuple[int, str]]:
    """Line and absolute dotted name of everything `tree` imports."""
    package = ["overnight", *file.relative_to(SRC).parts[:-1]]
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *(node.module or "").split(".")] if node.module else base
            found += [(node.lineno, ".".join([*base, alias.name])) for alias in node.names]
    return found


def rooms_imported(file: Path, source: str) -> list[tuple[int, str]]:
    parts = [(line, name.split(".")) for line, name in imports(ast.parse(source), file)]
    return [
        (line, name[1])
        for line, name in parts
        if name[0] == "overnight" and len(name) > 1 and name[1] != "__version__"
    ]


FILES = sorted(SRC.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SRC)))
def test_imports_point_downwards(file: Path) -> None:
    allowed = below(room_of(file))
    wrong = [
        f"{file.relative_to(SRC)}:{line} imports {room}"
        for line, room in rooms_imported(file, file.read_text())
        if room not in allowed
    ]
    assert not wrong, wrong


@pytest.mark.parametrize(
    ("file", "source", "rooms"),
    [
        ("analysis/best.py", "from ..training.loop import x", ["training"]),
        ("analysis/readers/a.py", "def f():\n    from ... import text", ["text"]),
        ("analysis/best.py", "import overnight.model.layers", ["model"]),
        ("ledger.py", "from . import config", ["config"]),
        ("cli/train.py", "from .. import __version__", []),
        ("cli/train.py", "from .presets import x", ["cli"]),
        ("model/layers.py", "import torch.nn", []),
    ],
)
def test_the_rule_sees_every_kind_of_import(file: str, source: str, rooms: list[str]) -> None:
    assert [room for _, room in rooms_imported(SRC / file, source)] == rooms


def test_reading_loads_no_torch() -> None:
    """In a fresh process, import every module of the rooms that must do without torch."""
    modules = [
        ".".join(["overnight", *file.relative_to(SRC).with_suffix("").parts])
        for file in FILES
        if room_of(file) in NO_TORCH and file.name != "__init__.py"
    ]
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    assert 'torch' not in sys.modules, name + ' loads torch'\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *modules], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_entries_of_the_lab_notes_that_are_cited_exist() -> None:
    notes = (SRC.parents[1] / "docs" / "lab-notes.md").read_text()
    entries = re.findall(r"^## (E\d\d) 20", notes, re.MULTILINE)
    assert entries == [f"E{i:02d}" for i in range(1, len(entries) + 1)]
    files = [f for form in ("*.py", "*.c", "*.toml") for f in SRC.rglob(form)]
    lists = [m for f in files for m in re.findall(r"lab-notes\.md((?:,\s+E\d\d)+)", f.read_text())]
    cited = set(re.findall(r"E\d\d", " ".join(lists)))
    assert cited
    assert cited | set(re.findall(r"\bE\d\d\b", notes)) <= set(entries)
