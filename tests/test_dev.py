"""./dev with an installer that only writes down what it is asked for."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = [
    "sh",
    "env",
    "sed",
    "cat",
    "dirname",
    "basename",
    "rm",
    "mkdir",
    "ln",
    "head",
    "tail",
    "tr",
    "uname",
]

# `uv venv` makes a folder with a Python in it; `uv pip install` succeeds unless `broken` exists.
UV = """#!/bin/sh
echo "$@" >>"$PWD/asked"
if [ "$1" = venv ]; then
    for folder; do :; done
    mkdir -p $folder/bin && ln -s {python} $folder/bin/python
elif [ -e broken ]; then
    exit 3
fi
"""


class Checkout:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.venv = folder / ".venv"
        self.bin = folder / "bin"
        self.bin.mkdir()
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool))
        for name in ["dev", "pyproject.toml", "constraints.txt"]:
            shutil.copy(ROOT / name, folder)

    def command(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def dev(self, *words: str) -> subprocess.CompletedProcess:
        environment = {"PATH": str(self.bin), "HOME": str(self.folder)}
        return subprocess.run(
            [self.folder / "dev", *words], env=environment, capture_output=True, text=True
        )

    def asked(self) -> list[str]:
        """What uv was asked for since the last call."""
        log = self.folder / "asked"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    def installed(self) -> list[str]:
        return sorted(f.name for f in self.venv.glob("installed-*"))


@pytest.fixture
def bare(tmp_path: Path) -> Checkout:
    """Neither Python nor uv."""
    return Checkout(tmp_path)


@pytest.fixture
def checkout(bare: Checkout) -> Checkout:
    """Only uv, and the Python that it finds."""
    bare.command("uv", UV.format(python=sys.executable))
    return bare


def test_help_lists_every_command(bare: Checkout) -> None:
    script = (ROOT / "dev").read_text()
    commands = re.findall(r"^        ([a-z]+)[^\n]*;; *#:", script, re.M)
    shown = bare.dev()
    assert shown.returncode == 0
    assert [line.split()[0] for line in shown.stdout.splitlines()[1:]] == commands
    assert {"setup", "demo", "test", "slow", "check", "bench"} <= set(commands)


def test_unknown_command(bare: Checkout) -> None:
    done = bare.dev("tset")
    assert done.returncode == 2
    assert '"tset"' in done.stderr
    assert "  test " in done.stderr


def test_without_python_it_says_what_to_install(bare: Checkout) -> None:
    done = bare.dev("setup")
    assert done.returncode == 1
    assert "apt install python3" in done.stderr
    assert "uv" in done.stderr
    assert not bare.venv.exists()


def test_an_old_python_will_not_do(bare: Checkout) -> None:
    bare.command("python3", "#!/bin/sh\nexit 1\n")
    assert "was not found" in bare.dev("setup").stderr


def test_debian_without_venv_is_told_so(bare: Checkout) -> None:
    bare.command("python3", '#!/bin/sh\ncase "$*" in *ensurepip*|*pip*) exit 1;; esac\n')
    assert "apt install python3-venv" in bare.dev("setup").stderr


def test_installs_once_and_again_when_the_lists_change(checkout: Checkout) -> None:
    done = checkout.dev("setup")
    assert done.returncode == 0, done.stderr
    assert "MB to download" in done.stderr
    assert checkout.installed() == ["installed-dev"]
    last = checkout.asked()[-1]
    assert "-c constraints.txt" in last
    assert "-e .[dev]" in last

    assert checkout.dev("setup").stderr == ""
    assert checkout.asked() == []

    with (checkout.folder / "constraints.txt").open("a") as f:
        f.write("more==1\n")
    checkout.dev("setup")
    asked = checkout.asked()
    assert "-e .[dev]" in asked[-1]
    assert not any(line.startswith("venv") for line in asked), "the venv is kept"


def test_what_was_interrupted_is_made_again(checkout: Checkout) -> None:
    (checkout.folder / "broken").touch()
    assert checkout.dev("setup").returncode == 3
    assert checkout.installed() == []
    (checkout.folder / "broken").unlink()
    (checkout.venv / "half-written").touch()
    checkout.asked()
    assert checkout.dev("setup").returncode == 0
    assert checkout.asked()[0].startswith("venv")
    assert checkout.installed() == ["installed-dev"]
    assert not (checkout.venv / "half-written").exists()


def test_two_at_a_time_are_refused(checkout: Checkout) -> None:
    checkout.venv.mkdir()
    with subprocess.Popen(["sleep", "60"]) as other:
        (checkout.venv / "unfinished").write_text(f"{other.pid}\n")
        done = checkout.dev("setup")
        other.kill()
    assert done.returncode == 1
    assert str(other.pid) in done.stderr
    assert checkout.asked() == []


def test_every_requirement_is_pinned_and_no_place_is_named() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = chain(project["dependencies"], *project["optional-dependencies"].values())
    names = {re.match(r"[A-Za-z0-9-]+", each)[0].lower() for each in wanted} - {"overnight"}
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", pin) for pin in pins), pins
    assert names <= {pin.partition("==")[0] for pin in pins}
