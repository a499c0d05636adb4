"""Folders of transformers as runs: exact, or refused in one line; never trusted."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from grammars import grammar, make_run

import overnight
from overnight.cli import run as command
from overnight.errors import UserError
from overnight.exchange.exporter import export
from overnight.exchange.importer import import_folder
from overnight.generation.load import load_model
from overnight.runfolder import RunFolder, read_log
from overnight.text.makers import bytes_tokenizer

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

COMMON = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 256}
ROPE = COMMON | {"intermediate_size": 40, "max_position_embeddings": 64, "num_key_value_heads": 2}
MAMBA = {"mamba_n_heads": 4, "mamba_d_state": 8, "attn_layer_indices": [1]}
WHOLE = {"rope_parameters": {"rope_theta": 500.0, "partial_rotary_factor": 1.0}}
THEIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", COMMON | {"n_positions": 64}),
    "gpt2 untied": ("GPT2", COMMON | {"n_positions": 64, "tie_word_embeddings": False}),
    "llama": ("Llama", ROPE | {"rope_parameters": {"rope_theta": 500.0}}),
    "llama biased": ("Llama", ROPE | {"attention_bias": True, "tie_word_embeddings": True}),
    "mpt": ("Mpt", {"d_model": 32, "n_heads": 4, "n_layers": 2, "vocab_size": 256}),
    "bamba": ("Bamba", ROPE | MAMBA | WHOLE),
    "bamba without attention": ("Bamba", ROPE | MAMBA | {"attn_layer_indices": []}),
    "qwen3": ("Qwen3", ROPE | {"head_dim": 8}),
    "arcee": ("Arcee", ROPE),
    "starcoder2": ("Starcoder2", ROPE),
}


def save_theirs(name: str, folder: Path, **how: Any) -> Any:
    """A model of transformers with all weights far from their beginning, saved by itself."""
    kind, settings = THEIRS[name]
    torch.manual_seed(1)
    config = getattr(transformers, f"{kind}Config")(**settings)
    stem = {"GPT2": "GPT2LMHeadModel"}.get(kind, f"{kind}ForCausalLM")
    model = getattr(transformers, stem)(config).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if not key.endswith(("q_norm.weight", "k_norm.weight")):
                parameter.add_(0.2 * torch.randn(parameter.shape))
    model.save_pretrained(folder, **how)
    bytes_tokenizer(separator=False).save(folder / "tokenizer.json")
    return model


@pytest.mark.parametrize("shards", [False, True], ids=["one file", "shards"])
@pytest.mark.parametrize("name", THEIRS)
def test_saved_by_transformers(name: str, shards: bool, tmp_path: Path) -> None:
    theirs = save_theirs(name, tmp_path / "hf", max_shard_size="20KB" if shards else "1GB")
    assert (tmp_path / "hf" / "model.safetensors.index.json").exists() == shards
    import_folder(tmp_path / "hf", tmp_path / "run")
    ours, _ = overnight.load_model(tmp_path / "run")
    ids = torch.randint(0, 256, (2, 50))
    with torch.no_grad():
        a, b = ours(ids), theirs(ids, use_cache=False).logits
    assert float((a - b).abs().max()) <= 1e-5 * max(1.0, float(b.abs().max()))
    exported = export(tmp_path / "run", tmp_path / "again")
    assert exported.family == name.split()[0]


def test_the_run_folder(tmp_path: Path) -> None:
    make_run(tmp_path / "first", grammar("llama"))
    export(tmp_path / "first", tmp_path / "hf")
    imported = import_folder(tmp_path / "hf", tmp_path / "run")
    run = RunFolder.open(tmp_path / "run")
    assert run.checkpoint_steps() == [0]
    kinds = [type(row).__name__ for row in read_log(run.log).rows]
    assert kinds == ["Start", "Event", "End"]
    read = overnight.load_run(tmp_path / "run")
    assert read.findings["about"]["parameters"] == imported.parameters
    assert not read.problems


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    make_run(tmp_path / "run", grammar("gpt2 biased"))
    export(tmp_path / "run", tmp_path / "hf")
    return tmp_path / "hf"


def change(folder: Path, file: str = "config.json", **keys: Any) -> None:
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_bytes()) | keys))


def change_tensors(folder: Path, how: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    how(tensors)
    safetensors.torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def refused(folder: Path, words: str) -> None:
    out = folder.parent / "refused"
    with pytest.raises(UserError) as caught:
        import_folder(folder, out)
    assert words in str(caught.value)
    assert caught.value.code == 2
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert not out.exists()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"model_type": "gemma"}, 'model_type = "gemma"'),
        ({"model_type": None}, "model_type = null"),
        ({"n_layer": 10**12}, "n_layer = 1000000000000: a whole number from 1 to 1,024"),
        ({"n_embd": -1}, "n_embd = -1"),
        ({"n_embd": 2**20}, "config.json amounts to ["),
        ({"n_embd": "32"}, 'n_embd = "32"'),
        ({"n_head": True}, "n_head = true"),
        ({"n_head": 5}, "not a multiple"),
        ({"n_positions": 2**30}, "transformer.wpe.weight is [64, 32]"),
        ({"vocab_size": 300}, "300 ids"),
        ({"layer_norm_epsilon": "x"}, "layer_norm_epsilon"),
        ({"activation_function": "silu"}, 'activation_function = "silu"'),
        ({"activation_function": ["x" * 1000]}, "activation_function"),
        ({"scale_attn_weights": False}, "scale_attn_weights = false"),
        ({"add_cross_attention": True}, "add_cross_attention = true"),
        ({"resid_pdrop": 7}, "model.dropout = 7"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
    ],
)
def test_configuration_without_counterpart(exported: Path, keys: dict[str, Any], words: str):
    (exported / "overnight.json").unlink()
    change(exported, **keys)
    refused(exported, words)


@pytest.mark.parametrize(
    ("name", "keys", "words"),
    [
        ("llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, '"yarn"'),
        ("llama", {"rope_parameters": None, "rope_scaling": {"type": "linear"}}, '"linear"'),
        ("llama", {"rope_parameters": [1]}, "rope_parameters = [1]"),
        ("llama", {"rope_parameters": None, "rope_theta": 0}, "rope_theta = 0"),
        ("llama", {"head_dim": 16}, "head_dim = 16"),
        ("llama", {"hidden_act": "gelu"}, 'hidden_act = "gelu"'),
        ("llama biased", {"attention_bias": False}, "attention_bias is false, but there is model."),
        ("mpt", {"attn_config": {"qk_ln": True}}, "attn_config.qk_ln = true"),
        ("mpt", {"attn_config": {"alibi": False}}, "attn_config.alibi = false"),
        ("mpt", {"expansion_ratio": 2}, "expansion_ratio = 2"),
        ("bamba", {"rope_parameters": {"rope_theta": 1e4}}, "partial_rotary_factor = 0.5"),
        ("bamba", {"mamba_n_groups": 2}, "mamba_n_groups = 2"),
        ("bamba", {"mamba_d_conv": 2}, "mamba_d_conv = 2"),
        ("bamba", {"mamba_d_head": 8}, "mamba_d_head = 8"),
        ("bamba", {"time_step_limit": [0.0, 1.0]}, "time_step_limit"),
        ("bamba", {"attn_layer_indices": "1"}, "attn_layer_indices"),
        ("bamba", {"mamba_conv_bias": False}, "mamba_conv_bias is false"),
        ("bamba", {"attn_layer_indices": [0]}, "has no counterpart in this model"),
        ("qwen3", {"layer_types": ["sliding_attention"] * 2}, "layer_types"),
        ("qwen3", {"head_dim": None}, "head_dim"),
        ("starcoder2", {"sliding_window": 8}, "sliding_window = 8"),
    ],
)
def test_families_refuse_what_they_cannot(name: str, keys: Any, words: str, tmp_path: Path):
    save_theirs(name, tmp_path / "hf")
    if keys == {"head_dim": None}:  # absent it means 128
        tree = json.loads((tmp_path / "hf" / "config.json").read_bytes())
        (tmp_path / "hf" / "config.json").write_text(
            json.dumps({k: v for k, v in tree.items() if k != "head_dim"})
        )
    else:
        change(tmp_path / "hf", **keys)
    refused(tmp_path / "hf", words)


def test_norms_of_queries_must_be_ones(tmp_path: Path) -> None:
    save_theirs("qwen3", tmp_path / "hf")
    name = "model.layers.1.self_attn.k_norm.weight"
    change_tensors(tmp_path / "hf", lambda tensors: tensors[name][3:4].fill_(1.5))
    refused(tmp_path / "hf", f"{name} is not 1 throughout")


def test_zero_biases_are_dropped_and_others_kept(exported: Path, tmp_path: Path) -> None:
    (exported / "overnight.json").unlink()
    assert import_folder(exported, tmp_path / "kept").biases

    def zero(tensors: dict[str, torch.Tensor]) -> None:
        for name in tensors:
            if name.endswith(".bias"):
                tensors[name].zero_()

    change_tensors(exported, zero)
    assert not import_folder(exported, tmp_path / "dropped").biases


def test_ours_and_theirs_must_agree(exported: Path) -> None:
    change(exported, layer_norm_epsilon=1e-3)
    refused(exported, "layer_norm_epsilon = 0.001, but overnight.json amounts to 1e-05")
    change(exported, layer_norm_epsilon=1e-5)
    ours = json.loads((exported / "overnight.json").read_bytes())
    change(exported, "overnight.json", model=ours["model"] | {"position": "rope"})
    refused(exported, "describes another model")
    change(exported, "overnight.json", model=ours["model"] | {"bias": False})
    refused(exported, "is not zero, but overnight.json has no biases")
    change(exported, "overnight.json", model=ours["model"] | {"widht": 3})
    refused(exported, 'Did you mean "model.width"')
    change(exported, "overnight.json", model=ours["model"], data={"text": ["/etc/passwd"]})
    refused(exported, "not written by overnight export")
    change(exported, "overnight.json", data=3)
    refused(exported, "stands outside a table")


def test_one_of_two_tied_tensors_is_enough(exported: Path, tmp_path: Path) -> None:
    def turn(tensors: dict[str, torch.Tensor]) -> None:
        tensors["lm_head.weight"] = tensors.pop("transformer.wte.weight")
        tensors["transformer.h.0.attn.bias"] = torch.ones(1, 1, 64, 64)  # a buffer of old folders

    change_tensors(exported, turn)
    import_folder(exported, tmp_path / "back")
    export(tmp_path / "back", tmp_path / "again")
    export(tmp_path / "run", tmp_path / "first")
    weights = "model.safetensors"
    assert (tmp_path / "again" / weights).read_bytes() == (
        tmp_path / "first" / weights
    ).read_bytes()


def test_two_tied_tensors_must_be_equal(exported: Path) -> None:
    """transformers would not tie them, whatever config.json says."""

    def other(tensors: dict[str, torch.Tensor]) -> None:
        tensors["lm_head.weight"] = tensors["transformer.wte.weight"] + 1

    change_tensors(exported, other)
    refused(exported, "set tie_word_embeddings to false")


@pytest.mark.parametrize("name", ["llama", "qwen3", "arcee", "starcoder2"])
def test_scaling_of_rope_counts_before_its_parameters(name: str, tmp_path: Path) -> None:
    save_theirs(name, tmp_path / "theirs")
    change(tmp_path / "theirs", rope_scaling={"rope_type": "linear", "factor": 4.0})
    refused(tmp_path / "theirs", '"linear"')
    change(tmp_path / "theirs", rope_scaling={"rope_type": "default", "rope_theta": 77.0})
    import_folder(tmp_path / "theirs", tmp_path / "run")
    model, _ = overnight.load_model(tmp_path / "run")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "theirs").eval()
    ids = torch.arange(40)[None]
    with torch.no_grad():
        torch.testing.assert_close(model(ids), theirs(ids).logits, atol=2e-4, rtol=1e-4)


def test_a_body_without_prefix(exported: Path, tmp_path: Path) -> None:
    def strip(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)

    change_tensors(exported, strip)
    import_folder(exported, tmp_path / "back")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (lambda t: t.pop("transformer.ln_f.weight"), "transformer.ln_f.weight is missing"),
        (lambda t: t.update(extra=torch.ones(1)), "extra has no counterpart"),
        (
            lambda t: t.update({"transformer.ln_f.weight": torch.ones(31)}),
            "transformer.ln_f.weight is [31], config.json amounts to [32]",
        ),
        (
            lambda t: t.update({"transformer.ln_f.weight": torch.ones(32, dtype=torch.float64)}),
            "transformer.ln_f.weight is F64",
        ),
    ],
)
def test_tensors_that_do_not_fit(exported: Path, how: Any, words: str) -> None:
    change_tensors(exported, how)
    refused(exported, words)


def _pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _index(*names: Any) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        shutil.copy(folder / "model.safetensors", folder.parent / "outside.safetensors")
        (folder / "model.safetensors").unlink()
        weight_map = {str(i): name for i, name in enumerate(names)}
        path = folder / "model.safetensors.index.json"
        path.write_text(json.dumps({"weight_map": weight_map}))

    return write


def _write(file: str, data: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / file).write_bytes(data)

    return write


def _link(file: str) -> Callable[[Path], None]:
    """To what never ends."""

    def write(folder: Path) -> None:
        (folder / file).unlink()
        (folder / file).symlink_to("/dev/zero")

    return write


def _pipe(file: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / file).unlink()
        os.mkfifo(folder / file)

    return write


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (_pickle, "pytorch_model.bin is a pickle"),
        (_index("../outside.safetensors"), "'../outside.safetensors': not a file here"),
        (_index("/etc/passwd"), "not a file here"),
        (_index(3), "3: not a file here"),
        (_index("pytorch_model.bin"), "no safetensors file of this folder"),
        (_index(".."), "no safetensors file of this folder"),
        (_index(), "is missing"),
        (_write("model.safetensors", b"\xff" * 100), "not a safetensors file"),
        (_write("model.safetensors", (10**15).to_bytes(8, "little") + b"{}"), "not a safetensors"),
        (
            _write(
                "model.safetensors",
                (72).to_bytes(8, "little")
                + b'{"x":{"dtype":"F32","shape":[99999999999],"data_offsets":[0,399]}}'.ljust(72),
            ),
            "not a safetensors file",
        ),
        (_write("config.json", b"[" * 100_000), "not valid JSON"),
        (_write("config.json", b"[]"), "not a JSON object"),
        (_write("config.json", b"\xff\xfe"), "not valid JSON"),
        (_write("config.json", b'{"n_embd": ' + b"9" * 10_000 + b"}"), "not valid JSON"),
        (_write("config.json", b" " * (16 * 2**20 + 1)), "larger than 16 MiB"),
        (_write("tokenizer.json", b"{}"), "not a tokenizer"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "give --tokenizer"),
        (lambda folder: (folder / "config.json").unlink(), "cannot be read"),
        (_link("config.json"), "not an ordinary file"),
        (_link("tokenizer.json"), "give --tokenizer"),
        (_pipe("config.json"), "not an ordinary file"),
    ],
)
def test_hostile_folders(exported: Path, how: Callable[[Path], None], words: str) -> None:
    how(exported)
    refused(exported, words)


def test_commands(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["import", str(exported), "--out", str(tmp_path / "back"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["family"] == "gpt2"
    words = ["export", str(tmp_path / "back"), "--to", "hf", "--out", str(tmp_path / "again")]
    assert command([*words, "--checkpoint", "0", "--dtype", "bfloat16", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["dtype"] == "bfloat16"
    assert command(words) == 2
    assert "exists already" in capsys.readouterr().err
    assert command(["generate", str(tmp_path / "back"), "--prompt", "a", "--max-tokens", "3"]) == 0
    assert command(["import", str(tmp_path / "none"), "--out", str(tmp_path / "x")]) == 2
    assert command(["export", str(tmp_path / "none"), "--out", str(tmp_path / "x")]) == 2


def test_what_was_imported_begins_anew(
    exported: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It has no plan that could go on."""
    import_folder(exported, tmp_path / "taken")
    words = ["train", "--resume", str(tmp_path / "taken"), "--max-steps", "5", "--device", "cpu"]
    words += ["--threads", "1", "--accept", "trajectory"]
    capfd.readouterr()
    assert command(words) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert f"--from {tmp_path / 'taken'}" in line


def test_a_bias_of_one_of_several_maps_is_kept(tmp_path: Path) -> None:
    """Queries, keys and values are one tensor here; what has no bias has a zero one."""
    make_run(tmp_path / "first", grammar("llama"))
    export(tmp_path / "first", tmp_path / "hf")
    (tmp_path / "hf" / "overnight.json").unlink()
    width = grammar("llama").width // grammar("llama").heads * grammar("llama").kv_heads
    bias = torch.arange(1.0, width + 1)

    def biased(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.0.self_attn.k_proj.bias"] = bias

    change(tmp_path / "hf", attention_bias=True)
    change_tensors(tmp_path / "hf", biased)
    import_folder(tmp_path / "hf", tmp_path / "run")
    model, _ = load_model(tmp_path / "run")
    rows = model.blocks[0].mixer.qkv.bias.split([grammar("llama").width, width, width])
    assert [bool(part.any()) for part in rows] == [False, True, False]
    assert torch.equal(rows[1], bias)


def test_an_imported_run_cannot_be_taken_up(
    exported: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import_folder(exported, tmp_path / "taken")
    assert command(["train", "--resume", str(tmp_path / "taken")]) == 2
    assert "was never settled" in capfd.readouterr().err
