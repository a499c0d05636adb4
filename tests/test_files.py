"""Files that are whole or not there."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from overnight import files
from overnight.cache import keep, recall
from overnight.errors import UserError


def test_what_cannot_be_written_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "settings"
    files.replace(path, b"old", durable=True)

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.replace(path, b"new", durable=True)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    with path.open("rb") as reader:  # in the middle of it, say
        files.replace(path, b"new")  # which promises nothing to last
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new"


def test_a_link_under_the_other_name_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / f".report.{os.getpid()}.tmp").symlink_to("precious")
    with pytest.raises(OSError):
        files.replace(tmp_path / "report", b"theirs")
    assert (tmp_path / "precious").read_text() == "mine"
    assert not (tmp_path / "report").exists()


def test_what_a_kill_left_of_a_file_goes_with_the_next_one(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    for pid in (gone.pid, 1):  # the second is of another process, which lives
        (tmp_path / f".report.{pid}.tmp").write_text("half")
        os.utime(tmp_path / f".report.{pid}.tmp", (time.time() - 3600,) * 2)
    (tmp_path / f".report.{gone.pid}0.tmp").write_text("of another machine, say")
    (tmp_path / f".report.json.{os.getpid()}.tmp").write_text("of another file")
    files.replace(tmp_path / "report", b"whole")
    left = {f".report.{gone.pid}0.tmp", f".report.json.{os.getpid()}.tmp", ".report.1.tmp"}
    assert {path.name for path in tmp_path.iterdir()} == {*left, "report"}


def test_a_folder_that_another_process_makes_is_left_to_it(tmp_path: Path) -> None:
    (tmp_path / ".new.1.tmp").mkdir()
    (tmp_path / ".other.b.1.tmp").mkdir()
    with files.appearing(tmp_path / "other", "--out"):  # which is not other.b
        pass
    (tmp_path / ".other.b.1.tmp").rmdir()
    (tmp_path / "other").rmdir()
    with (
        pytest.raises(files.TakenError, match=r"another process is making it .*give another --out"),
        files.appearing(tmp_path / "new", "--out"),
    ):
        raise AssertionError("was entered")
    assert [path.name for path in tmp_path.iterdir()] == [".new.1.tmp"]


def test_only_ordinary_files_of_a_size_are_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert files.read_bounded(path, 3) == b"abc"
    for other, most in ((path, 2), (Path("/dev/zero"), 10), (tmp_path, 10)):
        with pytest.raises(OSError):
            files.read_bounded(other, most)


def make(path: Path, work: Callable[[Path], object]) -> None:
    with files.appearing(path, "--out") as place:
        (place / "log").touch()
        work(place)


def interrupted(place: Path) -> None:
    raise KeyboardInterrupt


def test_a_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    for work, said in (
        (lambda place: (tmp_path / "absent").read_bytes(), "absent: No such file"),
        (lambda place: os.write(99, b""), "run: Bad file descriptor"),
    ):
        with pytest.raises(UserError, match=said):
            make(tmp_path / "run", work)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "run", interrupted)
    assert list(tmp_path.iterdir()) == []


def test_what_a_process_of_our_number_left_is_swept(tmp_path: Path) -> None:
    """As in a container, where every process is the first."""
    (tmp_path / f".run.{os.getpid()}.tmp").mkdir()
    with files.appearing(tmp_path / "run", "--out") as place:
        (place / "log").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_cannot_be_kept_is_found_again(tmp_path: Path) -> None:
    keep(tmp_path / "none" / "a.json", [1.5])  # as where a disk is full
    assert recall(tmp_path / "none" / "a.json", list[float]) is None
    keep(tmp_path / "a.json", [1.5])
    assert recall(tmp_path / "a.json", list[float]) == [1.5]
    assert recall(tmp_path / "a.json", list[str]) is None
    (tmp_path / "a.json").write_bytes(b"[1.5")
    assert recall(tmp_path / "a.json", list[float]) is None


def test_a_folder_is_durable_before_it_appears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in it, then itself, then its name; and processes look for rivals one at a time."""
    done: list[tuple[str, bool]] = []
    real, lock = files.fsync_path, files.fcntl.flock

    def synced(path: Path) -> None:
        done.append((path.name.removesuffix(f".{os.getpid()}.tmp"), (tmp_path / "new").exists()))
        real(path)

    def locked(fd: int, how: int) -> None:
        done.append(("lock", any(tmp_path.iterdir())))
        lock(fd, how)

    monkeypatch.setattr(files, "fsync_path", synced)
    monkeypatch.setattr(files.fcntl, "flock", locked)
    with files.appearing(tmp_path / "new", "--out") as place:
        (place / "log").touch()
    assert done == [("lock", False), ("log", False), (".new", False), (tmp_path.name, True)]
