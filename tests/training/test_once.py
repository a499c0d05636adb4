"""What is timed once on a machine."""

from pathlib import Path

import pytest

from overnight.cache import Cache
from overnight.training.once import once


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def answers() -> tuple[list[float], object]:
    found: list[float] = []

    def find() -> float:
        found.append(float(len(found)))
        return found[-1]

    return found, find


def test_the_same_question_is_answered_once() -> None:
    found, find = answers()
    assert [once(["rate", 3], float, find) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert once(["rate", 4], float, find) == 1.0
    assert len(found) == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("overnight.training.once.processor_name", lambda: "another"),
        ("torch.backends.cpu.get_cpu_capability", lambda: "another"),
        ("torch.__version__", "9.9"),
        ("overnight.training.once.__version__", "9.9"),
    ],
)
def test_another_machine_torch_or_version_is_asked_anew(
    name: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, find = answers()
    once(["rate"], float, find)
    monkeypatch.setattr(name, value)
    assert once(["rate"], float, find) == 1.0


def test_a_file_that_is_no_answer_counts_as_none() -> None:
    _, find = answers()
    once(["rate"], float, find)
    (path,) = Cache().timings.glob("*.json")
    path.write_text('"not a number"')
    assert once(["rate"], float, find) == 1.0
    assert once(["rate"], float, find, fits=lambda answer: answer > 1) == 2.0
