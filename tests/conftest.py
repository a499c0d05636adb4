"""What all tests share. Nothing here may import torch: many tests must not pay for it."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
SHAKESPEARE = Path(__file__).resolve().parents[2] / "shared" / "data" / "tinyshakespeare.txt"

# Before torch is imported anywhere: workers that run side by side take one thread each.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("MKL_NUM_THREADS", "1")
# matplotlib's list of fonts takes seconds to make and is no result of ours: keep the user's.
os.environ.setdefault("MPLCONFIGDIR", str(CACHE / "matplotlib"))


@pytest.fixture(scope="session", autouse=True)
def _own_surroundings(tmp_path_factory: pytest.TempPathFactory):
    """A cache folder of this session alone, and no settings from the user's environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        for name in [n for n in os.environ if n.startswith("OVERNIGHT_")]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def compiler() -> list[str]:
    """The command of the C compiler, where there is one."""
    command = shlex.split(os.environ.get("CC") or "cc")
    if not shutil.which(command[0]):
        pytest.skip(f"no C compiler is here: {command[0]}")
    return command


@pytest.fixture(scope="session")
def shakespeare() -> Path:
    """tinyshakespeare.txt (1.1 MB), which stands beside the checkout where there is one."""
    if not SHAKESPEARE.is_file():
        pytest.skip(f"the text is not here: {SHAKESPEARE}")
    return SHAKESPEARE
