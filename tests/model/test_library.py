"""Our C as a library: built once, whole or not there, no trouble where it cannot be."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from overnight.cache import Cache
from overnight.model import library


@pytest.fixture
def new_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the library is to be built again."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    library.load.cache_clear()
    yield Cache().native
    library.load.cache_clear()


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("share", [0.003, 0.5, 0.99])
def test_a_damaged_library_is_built_again(share: float, new_cache: Path) -> None:
    """Half of a library ends the process that opens it."""
    assert library.load()
    (kept,) = new_cache.glob("*.so")
    whole = kept.read_bytes()
    kept.unlink()  # the one in use goes on without its name
    kept.write_bytes(whole[: int(share * len(whole))])
    assert not library._is_whole(kept)
    library.load.cache_clear()
    assert library.load()
    assert library._is_whole(kept)
    assert kept.stat().st_size == len(whole)


@pytest.mark.usefixtures("compiler")
def test_a_damaged_library_is_not_opened_where_none_can_be_built(
    new_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert library.load()
    (kept,) = new_cache.glob("*.so")
    whole = kept.read_bytes()
    kept.unlink()
    kept.write_bytes(whole[:-1])  # which could be opened
    refuses = subprocess.CompletedProcess([], returncode=1)
    monkeypatch.setattr(library.subprocess, "run", lambda *_, **__: refuses)
    library.load.cache_clear()
    assert library.load() is None


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("what", ["_processor", "FLAGS", *library.SOURCES, *library.HEADERS])
def test_another_question_gets_its_own_library(
    what: str, new_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert library.load()
    if what == "_processor":
        monkeypatch.setattr(library, what, lambda: "flags: another")
    elif what == "FLAGS":
        monkeypatch.setattr(library, what, [*library.FLAGS, "-g"])
    else:
        for name in (*library.SOURCES, *library.HEADERS):
            text = (library.FOLDER / name).read_text()
            (tmp_path / name).write_text(text + ("/* changed */\n" if name == what else ""))
        monkeypatch.setattr(library, "FOLDER", tmp_path)
    library.load.cache_clear()
    assert library.load()
    assert len(list(new_cache.glob("*.so"))) == 2


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("trouble", ["fails", "hangs", "has no name", "is not closed"])
def test_a_compiler_that_does_not_is_none(
    trouble: str, new_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cc = tmp_path / "cc"
    half = 'for a in "$@"; do case $a in *.so) echo half > "$a";; esac; done; '
    cc.write_text("#!/bin/sh\n" + half + ("exit 1" if trouble == "fails" else "exec sleep 60"))
    cc.chmod(0o755)
    monkeypatch.setenv("CC", {"has no name": " ", "is not closed": "gcc '"}.get(trouble, str(cc)))
    monkeypatch.setattr(library, "SECONDS", 0.3)
    assert library.load() is None
    assert not new_cache.exists() or not list(new_cache.iterdir())


@pytest.mark.usefixtures("compiler")
def test_a_compiler_that_was_ended_says_nothing_of_what_it_knows(
    new_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in a terminal reaches it, too: without the flags that it was asked for first, the
    library would have one thread for good."""
    cc = tmp_path / "cc"
    cc.write_text('#!/bin/sh\n[ -e $0.ended ] && exec cc "$@"\ntouch $0.ended; kill -INT $$')
    cc.chmod(0o755)
    monkeypatch.setenv("CC", str(cc))
    assert library.load() is None
    assert not list(new_cache.iterdir())
    library.load.cache_clear()
    assert library.load()


@pytest.mark.usefixtures("compiler")
def test_threads_that_load_at_once_all_get_it(new_cache: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert all(found is not None for found in pool.map(lambda _: library.load(), range(4)))
    assert len(list(new_cache.iterdir())) == 2  # with its checksum


def test_without_a_home_torch_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    library.load.cache_clear()
    found = library.load()
    library.load.cache_clear()
    assert found is None


@pytest.mark.usefixtures("compiler")
def test_the_process_keeps_its_small_numbers() -> None:
    """Linked with -ffast-math, a library has the processor take them for zero."""
    program = """
import torch
from overnight.model import library
assert library.load()
assert float(torch.tensor(1e-40) * 1) > 0
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_it_calls_for_threads_where_the_compiler_knows_how(compiler: list[str]) -> None:
    tried = [*compiler, "-fopenmp", "-shared", "-x", "c", os.devnull, "-o", os.devnull]
    if subprocess.run(tried, capture_output=True).returncode:
        pytest.skip("this compiler has no OpenMP")
    assert library.load()
    (built,) = Cache().native.glob("*.so")
    assert any(name in built.read_bytes() for name in (b"GOMP_parallel", b"__kmpc_fork_call"))
