"""Exported weights in transformers compute what ours compute; back and forth loses nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from grammars import BAMBA, GPT2, GRAMMARS, LLAMA, family_of, grammar, make_run

from overnight.config import Config, Model, Sample
from overnight.errors import UserError
from overnight.exchange import exporter
from overnight.exchange.exporter import export
from overnight.exchange.families import FAMILIES, Family, counterpart
from overnight.exchange.importer import import_folder
from overnight.model.decoder import Decoder, complete

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

EVERY = pytest.mark.parametrize("name", GRAMMARS)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Decoder]]:
    """Each grammar's folder, with `run` and `hf` in it, and its decoder."""
    found = {}
    for name in GRAMMARS:
        folder = tmp_path_factory.mktemp("exchange")
        decoder = make_run(folder / "run", grammar(name))
        exported = export(folder / "run", folder / "hf")
        assert exported.family == family_of(name)
        found[name] = folder, decoder
    return found


def theirs_of(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder / "hf", dtype=dtype, local_files_only=True
    )
    return model.eval()


def ids_for(model: Model, length: int) -> torch.Tensor:
    longest = model.context if model.position == "learned" else length
    random = torch.Generator().manual_seed(length)
    return torch.randint(0, model.vocab_size, (2, min(length, longest)), generator=random)


@EVERY
def test_every_weight_is_taken(made: dict[str, Any], name: str) -> None:
    folder, decoder = made[name]
    _, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder / "hf", output_loading_info=True
    )
    assert not any(report.values()), report
    assert not any(p.std() == 0 for p in decoder.parameters())


@EVERY
@pytest.mark.parametrize("length", [1, 17, 131])  # 131: beyond the trained 64, and two chunks
def test_logits_float32(made: dict[str, Any], name: str, length: int) -> None:
    folder, decoder = made[name]
    ids = ids_for(decoder.config, length)
    with torch.no_grad():
        a, b = decoder(ids), theirs_of(folder)(ids).logits
    assert float(b.std()) > 0.5  # they say something
    assert float((a - b).abs().max()) <= 1e-5 * max(1.0, float(b.abs().max()))


@EVERY
def test_logits_float64(made: dict[str, Any], name: str, double: None) -> None:
    folder, decoder = made[name]
    ours = Decoder(decoder.config)
    ours.load_state_dict(decoder.state_dict())
    ours.double().eval().set_compute(torch.float64, fused=True)
    ids = ids_for(decoder.config, 131)
    with torch.no_grad():
        a, b = ours(ids), theirs_of(folder, torch.float64)(ids).logits
    assert b.dtype == torch.float64
    assert float((a - b).abs().max()) <= 1e-9


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers casts to float32 inside RMS norms, softmax and the scan, whatever the dtype of
    the model: here, in this test alone, float64 stays float64 in these casts. Angles of RoPE and
    slopes of ALiBi, which are made from integers, remain float32 as they are in real use."""

    class Torch:
        float32 = torch.float64

        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

    cast = torch.Tensor.float
    monkeypatch.setattr(torch.Tensor, "float", lambda x: x if x.dtype == torch.float64 else cast(x))
    for family in FAMILIES:
        models = getattr(transformers.models, family.name)
        module = getattr(models, f"modeling_{family.name}")
        monkeypatch.setattr(module, "torch", Torch())


@EVERY
def test_greedy_continuation(made: dict[str, Any], name: str) -> None:
    folder, decoder = made[name]
    prompt = [5, 77, 200]
    ours = greedy(decoder, prompt, 55)
    theirs = theirs_of(folder).generate(
        torch.tensor([prompt]), do_sample=False, max_new_tokens=55, eos_token_id=None
    )
    assert theirs[0, 3:].tolist() == ours


@torch.no_grad()
def greedy(model: Decoder, prompt: list[int], tokens: int) -> list[int]:
    """The most likely continuation, from the cached state."""
    logits, state = model.decode(torch.tensor([prompt]))
    written = [int(logits[0, -1].argmax())]
    while len(written) < tokens:
        logits, state = model.decode(torch.tensor([written[-1:]]), state)
        written.append(int(logits[0, -1].argmax()))
    return written


@EVERY
def test_back_and_forth_is_the_same_bytes(made: dict[str, Any], name: str, tmp_path: Path) -> None:
    folder, decoder = made[name]
    imported = import_folder(folder / "hf", tmp_path / "run")
    assert imported.biases == decoder.config.bias
    export(tmp_path / "run", tmp_path / "hf")
    files = {path.name: path.read_bytes() for path in (tmp_path / "hf").iterdir()}
    before = {path.name: path.read_bytes() for path in (folder / "hf").iterdir()}
    assert set(files) == set(before)
    same = [file for file in files if file != "README.md" and files[file] == before[file]]
    assert len(same) == 6 == len(files) - 1


def test_bfloat16_is_rounded_once(made: dict[str, Any], tmp_path: Path) -> None:
    folder, decoder = made["llama"]
    export(folder / "run", tmp_path / "hf", dtype="bfloat16")
    theirs = theirs_of(tmp_path, torch.bfloat16)
    assert theirs.dtype == torch.bfloat16
    assert torch.equal(theirs.model.embed_tokens.weight, decoder.embed.bfloat16())
    import_folder(tmp_path / "hf", tmp_path / "run")
    export(tmp_path / "run", tmp_path / "again", dtype="bfloat16")
    again = (tmp_path / "again" / "model.safetensors").read_bytes()
    assert again == (tmp_path / "hf" / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (GPT2 | {"position": "none"}, "model.position = none"),
        (GPT2 | {"kv_heads": 2}, "model.kv_heads = fewer than heads (GPT-2: as many as heads)"),
        (GPT2 | {"position": "alibi", "bias": True}, "model.bias = true (MPT: false)"),
        (GPT2 | {"position": "alibi", "feed_forward": 40}, "model.feed_forward = 40"),
        (LLAMA | {"mlp": "none"}, "model.mlp = none"),
        (LLAMA | {"ngrams": [2, 3]}, "model.ngrams = 2,3 (Llama: none)"),
        (GPT2 | {"embed_conv": True}, "model.embed_conv = true (GPT-2: false)"),
        (LLAMA | {"qk_norm": True, "mlp": "relu2"}, "model.mlp = relu2 (Qwen3: swiglu)"),
        (LLAMA | {"norm": "layer"}, "model.norm = layer (Llama: rms)"),
        (BAMBA | {"position": "alibi"}, "model.position = alibi (Bamba: rope)"),
        (BAMBA | {"mlp": "gelu"}, "model.mlp = gelu (Bamba: swiglu)"),
        (BAMBA | {"qk_norm": True}, "model.qk_norm = true (Bamba: false)"),
    ],
)
def test_without_counterpart(settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    model = complete(Model(**{"layers": "AA", "width": 32, "vocab_size": 257, **settings}))
    reason = counterpart(model)
    assert isinstance(reason, str)
    assert words in reason
    make_run(tmp_path / "run", model)
    with pytest.raises(UserError) as caught:
        export(tmp_path / "run", tmp_path / "hf")
    assert caught.value.code == 2
    assert "\n" not in str(caught.value)
    (presets,) = re.findall(r"It has those of (.*)\.$", str(caught.value))
    assert {"nanogpt-cpu", "llama-mini"} <= set(presets.split(", "))
    assert "fast" not in presets
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_presets_have_their_counterparts() -> None:
    from overnight.settings import Settings, preset_names, read_preset

    found = {}
    for name in preset_names():
        settings = Settings()
        settings.add(read_preset(name).layer, name)
        settings.choose("model.vocab_size", 300, "")
        family = counterpart(complete(settings.resolve().model))
        found[name] = family.name if isinstance(family, Family) else family
    expected = {
        "fast": "ngrams",
        "gpt-24": "gpt2",
        "gpt-wikitext103": "gpt2",
        "llama-mini": "llama",
        "nanogpt-cpu": "gpt2",
        "nexus-bpe": "bamba",
        "nexus-bytes": "bamba",
        "tiny-chars": "gpt2",
        "tinygpt": "mpt",
        "tinygpt-base": "mpt",
    }
    wrong = {n: found[n] for n, word in expected.items() if n in found and word not in found[n]}
    assert not wrong


def test_existing_folder_is_refused(made: dict[str, Any], tmp_path: Path) -> None:
    folder, _ = made["mpt"]
    with pytest.raises(UserError, match="exists already"):
        export(folder / "run", tmp_path)
    with pytest.raises(UserError, match="exists already"):
        import_folder(folder / "hf", tmp_path)
    with pytest.raises(UserError, match="float16"):
        export(folder / "run", tmp_path / "hf", dtype="float16")
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_nothing(
    made: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from overnight.exchange import exporter

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporter.safetensors.torch, "save_file", full)
    with pytest.raises(UserError, match="No space left"):
        export(made["mpt"][0] / "run", tmp_path / "hf")
    assert not list(tmp_path.iterdir())


def test_how_text_is_drawn_goes_with_the_model() -> None:
    sample = Sample(temperature=0.3, top_k=7, tokens=9)
    tree = exporter._generation(Config(sample=sample), {"eos_token_id": 1})
    assert (tree["temperature"], tree["top_k"], tree["max_new_tokens"]) == (0.3, 7, 9)
