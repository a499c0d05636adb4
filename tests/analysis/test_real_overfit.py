"""Real overfitting is called, within two evaluations of its minimum; fresh text never is."""

from __future__ import annotations

from pathlib import Path

import pytest
import real_overfit

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("fresh", [False, True], ids=["50kB", "fresh"])
@pytest.mark.parametrize("preset", real_overfit.PRESETS)
def test_verdict(preset: str, fresh: bool, shakespeare: Path, tmp_path: Path) -> None:
    found = real_overfit.outcome(preset, 3, fresh, shakespeare, tmp_path)
    assert found.right, found
    assert not fresh or found.passes < 1
