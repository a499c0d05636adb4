"""Nothing that an update or a decoding needs stays behind on the CPU; without a GPU at hand."""

import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("device_without_numbers.py")


def test_an_update_and_a_decoding_are_on_one_device() -> None:
    done = subprocess.run([sys.executable, PROGRAM], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
