"""Folders that are exchanged: what is in one, read without trust."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import safetensors
import torch
from torch import Tensor

from ..errors import UserError
from ..files import read_bounded

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
GENERATION, TOKENIZER, TOKENIZER_CONFIG, CARD, OURS = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "README.md",
    "overnight.json",
)
MAX_JSON_BYTES = 16 * 2**20
EXACT = ("F32", "BF16", "F16")  # what float32 holds exactly


def write_json(path: Path, tree: Any) -> None:
    text = msgspec.json.format(msgspec.json.encode(tree), indent=2)
    path.write_bytes(text + b"\n")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of reasonable size."""
    try:
        tree = json.loads(read_bounded(path, MAX_JSON_BYTES))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON: {str(error)[:200]}.") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: not a JSON object.")
    return tree


class Header(msgspec.Struct, frozen=True):
    """A tensor as its file's header describes it."""

    file: Path
    name: str  # in the file
    shape: tuple[int, ...]
    dtype: str  # F32 …


def headers(folder: Path) -> dict[str, Header]:
    """Every tensor of the folder's safetensors files by name; none is read yet. The library
    checks that a header's sizes are those of its file."""
    found: dict[str, Header] = {}
    for path in _weight_files(folder):
        try:
            with safetensors.safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118
                    part = file.get_slice(name)
                    found[name] = Header(path, name, tuple(part.get_shape()), part.get_dtype())
        except (OSError, safetensors.SafetensorError) as error:
            raise UserError(f"{path}: not a safetensors file: {error}.") from None
    return found


def _weight_files(folder: Path) -> list[Path]:
    """The file, or those that the index names: plain names, inside the folder."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        return _shards(folder)
    pickles = sorted(p.name for p in folder.glob("*") if p.suffix in (".bin", ".pt", ".pth"))
    if pickles:
        raise UserError(
            f"{folder}: {pickles[0]} is a pickle, which can run code when it is read; only "
            f"safetensors are taken (in transformers: save_pretrained writes {WEIGHTS})."
        )
    raise UserError(f"{folder}: no {WEIGHTS} in it.")


def _shards(folder: Path) -> list[Path]:
    shards = read_json(folder / INDEX).get("weight_map")
    names = list(shards.values()) if isinstance(shards, dict) else []
    for name in names:
        if not isinstance(name, str) or name != Path(name).name or "\0" in name:
            raise UserError(f"{folder / INDEX}: weight_map names {name!r}: not a file here.")
        if not (name.endswith(".safetensors") and (folder / name).is_file()):
            raise UserError(f"{folder / INDEX}: {name} is no safetensors file of this folder.")
    return [folder / name for name in sorted(set(names))]


def read_tensors(wanted: dict[str, Header]) -> dict[str, Tensor]:
    """The tensors as float32, which is exact for the types that are taken."""
    odd = next((n for n, header in wanted.items() if header.dtype not in EXACT), None)
    if odd is not None:
        raise UserError(
            f"{wanted[odd].file}: {odd} is {wanted[odd].dtype}; taken are {', '.join(EXACT)}."
        )
    tensors: dict[str, Tensor] = {}
    for path in sorted({header.file for header in wanted.values()}):
        with safetensors.safe_open(path, "pt") as file:
            for name, header in wanted.items():
                if header.file == path:
                    tensors[name] = file.get_tensor(header.name).to(torch.float32)
    return tensors
