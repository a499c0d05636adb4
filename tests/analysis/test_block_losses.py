"""The losses of single blocks: used where they are what the log says of their evaluation."""

from __future__ import annotations

from pathlib import Path

import made
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from overnight.analysis.run import load_run
from overnight.runfolder import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return made.run_folder(tmp_path / "r", steps=120, every=20)


def test_blocks_that_agree_are_paired(run: Path) -> None:
    found = load_run(run)
    assert found.found.noise.paired_se is not None
    assert not found.problems


@pytest.mark.parametrize("bit", [16, 22, 27, 30, 31])
def test_a_flipped_bit_of_a_block_is_told(run: Path, bit: int) -> None:
    before = load_run(run).found.noise.paired_se
    path = RunFolder(run).eval_path(120, 1)
    tensors = load_file(path)
    tensors["val"].view(np.uint32)[7] ^= np.uint32(1 << bit)
    save_file(tensors, path)
    found = load_run(run)
    noise = found.found.noise
    assert found.problems == [f"evals/{path.name}: not what the log says of step 120: left out"]
    assert noise.paired_se is None or noise.paired_se == pytest.approx(before, rel=0.5)


def test_what_is_no_file_of_losses_is_told(run: Path) -> None:
    path = RunFolder(run).eval_path(120, 1)
    path.write_bytes(path.read_bytes()[:50])
    (problem,) = load_run(run).found.source.problems
    assert f"evals/{path.name}: cannot be read: left out" in problem
    path.unlink()
    assert not load_run(run).found.source.problems


@pytest.mark.parametrize("context", [64, 256])
def test_rounding_is_no_disagreement(context: int) -> None:
    """What the blocks are rounded to moves their mean by 2⁻²⁴ of it at most."""
    from overnight.analysis.readers.own import ROUNDED

    rng = np.random.default_rng(context)
    for n in (2, 17, 4096):
        losses = rng.normal(4, 1, (n, context)).clip(0.1).astype(np.float32)
        means = losses.astype(np.float64).mean(1)
        kept = means.astype(np.float32)
        assert abs(kept.astype(np.float64).mean() / means.mean() - 1) < ROUNDED / 10
