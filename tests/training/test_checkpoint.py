"""Checkpoints: whole or not at all, verified, pruned by one rule."""

import pytest
import torch

from overnight.errors import UserError
from overnight.model import checkpoint
from overnight.model.checkpoint import DamagedError, State, Window
from overnight.runfolder import RunFolder


@pytest.fixture
def run(tmp_path) -> RunFolder:
    return RunFolder(tmp_path)


def save(run: RunFolder, step: int) -> None:
    window = Window(steps=3, tokens=7, nats=0.1 + 0.2, objective=1e-300, grad_norm=1 / 3)
    tensors = {"w": torch.full((4, 3), float(step)), "b": torch.arange(3.0)}
    checkpoint.save(run, State(step, window), tensors, {"adamw/step/w": torch.tensor(2.0)})


def test_what_is_saved_is_what_is_read(run: RunFolder) -> None:
    save(run, 12)
    folder = checkpoint.newest(run, pytest.fail)
    assert folder == run.checkpoint_path(12)
    state = checkpoint.read_state(folder)
    assert state == State(12, Window(3, 7, 0.1 + 0.2, 1e-300, 1 / 3, 0.0))
    tensors = checkpoint.read_tensors(folder, checkpoint.MODEL)
    assert torch.equal(tensors["w"], torch.full((4, 3), 12.0))


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "extend"])
def test_damage_is_named_and_the_one_before_is_used(run: RunFolder, name: str, damage: str) -> None:
    save(run, 1)
    save(run, 2)
    path = run.checkpoint_path(2) / name
    data = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    else:
        changed = {"truncate": data[:-1], "extend": data + b"x"}.get(damage)
        if changed is None:
            data[len(data) // 2] ^= 1
            changed = data
        path.write_bytes(bytes(changed))
    said: list[str] = []
    assert checkpoint.newest(run, said.append) == run.checkpoint_path(1)
    assert len(said) == 1
    assert "damaged" in said[0]
    assert name in said[0]
    assert run.checkpoint_steps() == [1]
    assert list(run.checkpoints.glob("damaged-*"))  # kept aside


@pytest.mark.parametrize("text", ["", "{", "[]", '{"step": 1, "files": {}}', "\xff" * 9])
def test_a_broken_manifest_is_damage(run: RunFolder, text: str) -> None:
    save(run, 1)
    (run.checkpoint_path(1) / "manifest.json").write_text(text)
    with pytest.raises(DamagedError):
        checkpoint.verify(run.checkpoint_path(1))


def test_an_unfinished_one_does_not_exist(run: RunFolder) -> None:
    save(run, 1)
    run.checkpoint_path(2).with_name(".step-00000002.tmp").mkdir()
    run.checkpoint_path(3).mkdir()  # no manifest
    assert run.checkpoint_steps() == [1]
    save(run, 2)
    assert run.checkpoint_steps() == [1, 2]


def test_nothing_committed_is_overwritten(run: RunFolder) -> None:
    save(run, 5)
    before = (run.checkpoint_path(5) / "model.safetensors").stat().st_mtime_ns
    save(run, 5)
    assert (run.checkpoint_path(5) / "model.safetensors").stat().st_mtime_ns == before


def test_pruning_keeps_the_best_and_the_newest(run: RunFolder) -> None:
    for step in range(1, 7):
        save(run, step)
    assert checkpoint.prune(run, best_step=2, keep=2) == [1, 3, 4]
    assert run.checkpoint_steps() == [2, 5, 6]
    assert checkpoint.prune(run, best_step=None, keep=1) == [2, 5]


def test_weights_of_another_model_are_refused(run: RunFolder) -> None:
    save(run, 1)
    folder = run.checkpoint_path(1)
    tensors = checkpoint.read_tensors(folder, checkpoint.MODEL)
    with pytest.raises(UserError, match="not the weights"):
        checkpoint.load_into(torch.nn.Linear(3, 4, bias=False), tensors, folder)


@pytest.mark.parametrize("name", ["model.safetensors", "manifest.json"])
def test_a_link_out_of_the_folder_is_damage(run: RunFolder, name: str, tmp_path) -> None:
    save(run, 1)
    path = run.checkpoint_path(1) / name
    path.rename(tmp_path / "outside")
    path.symlink_to(tmp_path / "outside")
    with pytest.raises(DamagedError):
        checkpoint.verify(run.checkpoint_path(1))


def test_the_checkpoint_of_another_step_is_damage(run: RunFolder) -> None:
    save(run, 1)
    run.checkpoint_path(1).rename(run.checkpoint_path(2))
    with pytest.raises(DamagedError, match="step 1"):
        checkpoint.verify(run.checkpoint_path(2))


def test_a_size_below_zero_is_damage(run: RunFolder) -> None:
    save(run, 1)
    manifest = run.checkpoint_path(1) / "manifest.json"
    (run.checkpoint_path(1) / "model.safetensors").unlink()
    size = run.checkpoint_path(1) / "state.json"
    assert size.is_file()
    manifest.write_text(
        "".join(
            line if '"bytes"' not in line else '"bytes": -1,'
            for line in manifest.read_text().splitlines()
        )
    )
    with pytest.raises(DamagedError, match="no file found"):
        checkpoint.verify(run.checkpoint_path(1))


def test_what_is_no_tensors_is_refused_though_the_manifest_vouches(run: RunFolder) -> None:
    save(run, 1)
    (run.checkpoint_path(1) / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(UserError, match="no tensors"):
        checkpoint.read_tensors(run.checkpoint_path(1), checkpoint.MODEL)


def test_a_missing_tensor_is_refused(run: RunFolder) -> None:
    save(run, 1)
    tensors = checkpoint.read_tensors(run.checkpoint_path(1), checkpoint.MODEL)
    own = {name: tensor for name, tensor in tensors.items() if name != "b"}
    with pytest.raises(UserError, match="not the weights"):
        checkpoint.check_fit(own, tensors, run.checkpoint_path(1))
    with pytest.raises(UserError, match="not the weights"):
        checkpoint.check_fit(tensors, own, run.checkpoint_path(1))


def test_what_was_being_made_is_swept(run: RunFolder) -> None:
    save(run, 1)
    left = run.checkpoints / ".step-00000002.tmp"
    left.mkdir()
    checkpoint.sweep(run)
    assert not left.exists()
    assert run.checkpoint_steps() == [1]


def test_one_that_lost_its_manifest_is_named(run: RunFolder) -> None:
    """Newer than the rest it must have had one; an older one is what a removal left."""
    for step in (1, 2, 3):
        save(run, step)
    for step in (1, 3):
        (run.checkpoint_path(step) / "manifest.json").unlink()
    warnings: list[str] = []
    assert checkpoint.newest(run, warnings.append) == run.checkpoint_path(2)
    assert len(warnings) == 1
    assert "step-00000003 has no manifest.json; kept as damaged-" in warnings[0]
    run.checkpoint_path(7).with_name("step-7").mkdir()  # somebody's own name for a copy
    assert checkpoint.newest(run, warnings.append) == run.checkpoint_path(2)
    assert len(warnings) == 1


def test_weights_of_another_dtype_do_not_fit(tmp_path):
    own = {"a": torch.zeros(3)}
    checkpoint.check_fit(own, {"a": torch.ones(3)}, tmp_path)
    with pytest.raises(UserError, match="float16"):
        checkpoint.check_fit(own, {"a": torch.ones(3).half()}, tmp_path)
