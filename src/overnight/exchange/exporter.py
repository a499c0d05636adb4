"""A trained model as a folder that `transformers` loads without network and without code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import safetensors.torch
import torch

from .. import __version__
from ..config import WITH_WEIGHTS, Config, Model
from ..errors import UserError
from ..files import appearing
from ..generation.load import find_step, load_model
from ..model.decoder import complete
from ..model.size import with_vocabulary
from ..runfolder import RunFolder
from ..settings import load_config, of_preset, preset_names
from ..text.tokenizers import Tokenizer
from . import folder
from .card import card
from .families import Family, counterpart, write_config
from .tensors import to_theirs

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Exported(msgspec.Struct):
    """What `overnight export --json` prints."""

    out: str
    family: str
    architecture: str
    step: int
    parameters: int
    dtype: str


def export(
    run: str | Path,
    out: Path,
    *,
    checkpoint: str | int = "best",
    dtype: str = "float32",
    findings: dict[str, Any] | None = None,
) -> Exported:
    """Write the model of `run` to the new folder `out`. `findings` fill the model card.

    `UserError` where no family of transformers is exact, and where `out` exists.
    """
    if dtype not in DTYPES:
        raise UserError(f'--dtype "{dtype}": give {" or ".join(DTYPES)}.')
    source = RunFolder.open(run)
    settings = load_config(source.config)
    step = find_step(source, checkpoint)
    decoder, tokenizer = load_model(source, step)
    model = decoder.config
    family = counterpart(model)
    if isinstance(family, str):
        raise UserError(f"{run}: {family}. It has those of {', '.join(_exportable())}.")
    tensors = to_theirs(family, model, decoder.state_dict())
    tensors = {name: tensor.to(DTYPES[dtype]) for name, tensor in tensors.items()}
    parameters = sum(p.numel() for p in decoder.parameters())
    exported = Exported(str(out), family.name, family.architecture, step, parameters, dtype)
    with appearing(out, "--out") as place:
        metadata = {"format": "pt"}
        safetensors.torch.save_file(tensors, place / folder.WEIGHTS, metadata=metadata)
        tokenizer.save(place / folder.TOKENIZER)
        trees = describe(family, settings, model, tokenizer, dtype)
        for name, tree in trees.items():
            folder.write_json(place / name, tree)
        text = card(exported, tokenizer, findings)
        (place / folder.CARD).write_text(text, encoding="utf-8")
    return exported


def _exportable() -> list[str]:
    """The presets whose models have a counterpart."""
    models = {n: complete(with_vocabulary(of_preset(n).resolve()).model) for n in preset_names()}
    return [name for name, model in models.items() if not isinstance(counterpart(model), str)]


def describe(
    family: Family, settings: Config, model: Model, tokenizer: Tokenizer, dtype: str
) -> dict[str, Any]:
    """The JSON files of the folder by name."""
    own = write_config(family, model)
    begin, end = tokenizer.document_start, tokenizer.document_end
    ids = {
        "bos_token_id": next(iter(begin), None),
        "eos_token_id": next(iter(end or begin), None),
        "pad_token_id": None,
    }
    return {
        folder.CONFIG: own | ids | {"dtype": dtype},
        folder.GENERATION: _generation(settings, ids | {"use_cache": own.get("use_cache", True)}),
        folder.TOKENIZER_CONFIG: _tokenizer(tokenizer, own.get("max_seq_len", model.context)),
        folder.OURS: _ours(settings, model),
    }


def _generation(settings: Config, ids: dict[str, Any]) -> dict[str, Any]:
    sample = settings.sample
    tree: dict[str, Any] = ids | {"pad_token_id": ids["eos_token_id"]}
    if sample.tokens:
        tree["max_new_tokens"] = sample.tokens
    if not sample.temperature:
        return tree | {"do_sample": False}
    return tree | {"do_sample": True, "temperature": sample.temperature, "top_k": sample.top_k}


def _tokenizer(tokenizer: Tokenizer, longest: int) -> dict[str, Any]:
    """What transformers must know beside tokenizer.json. `split_special_tokens`: the spelling of
    a special token in a text stays text."""
    begin, end = tokenizer.boundaries
    named = {"bos_token": next(iter(begin), None), "eos_token": next(iter(end or begin), None)}
    if tokenizer.unknown is not None:
        named["unk_token"] = json.loads(tokenizer.json)["model"]["unk_token"]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{name: token for name, token in named.items() if token is not None},
        "model_max_length": longest,
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,
    }


def _ours(settings: Config, model: Model) -> dict[str, Any]:
    """The settings that `overnight import` takes back."""
    tree: dict[str, Any] = {"overnight": __version__}
    settings = settings.having(model=model)
    for section, table in msgspec.to_builtins(settings).items():
        kept = {k: v for k, v in table.items() if f"{section}.{k}".startswith(WITH_WEIGHTS)}
        if kept:
            tree[section] = kept
    return tree
