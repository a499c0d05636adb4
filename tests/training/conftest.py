import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_runs import TEXT, train


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("text") / "lines.txt"
    path.write_text(TEXT)
    return str(path)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, text: str) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    assert train(out, text) == 0
    return out


@pytest.fixture(scope="module", autouse=True)
def _blank_pictures():
    """Every run ends with a report; its pictures are drawn in tests/report."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("overnight.report.figures.png", lambda drawing: b"\x89PNG")
        yield


@pytest.fixture
def on_a_terminal() -> Iterator[None]:
    """SIGHUP as a terminal leaves it; nohup has it ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)
