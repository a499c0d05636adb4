"""Our tensors as a family names and shapes them, and back."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import torch
from torch import Tensor

from ..config import Model
from ..model.decoder import Decoder
from .families import Family

Tensors = dict[str, Tensor]


def blueprint(model: Model) -> Tensors:
    """The tensors of `model` by name, on the meta device: shapes, no memory."""
    with torch.device("meta"):
        return Decoder(model).state_dict()


def with_bias(model: Model, bias: bool) -> Model:
    return msgspec.structs.replace(model, bias=bias)


def to_theirs(family: Family, model: Model, tensors: Mapping[str, Tensor]) -> Tensors:
    """The tensors of `model` as `family` has them; biases it cannot do without are zeros."""
    own = dict(tensors)
    if family.bias == "always":
        for name, shape in blueprint(with_bias(model, True)).items():
            own.setdefault(name, torch.zeros_like(shape, device=_device(own)))
    theirs: Tensors = {}
    for name, tensor in own.items():
        names = their_names(family, model, name)
        turned = _turn(family, name, tensor)
        parts = turned.split(_rows(model, name), 0) if len(names) > 1 else [turned]
        theirs |= zip(names, parts, strict=True)
    for name in _ones(family, model):
        theirs[name] = torch.ones(model.width // model.heads, device=_device(own))
    return {name: tensor.contiguous() for name, tensor in theirs.items()}


def from_theirs(family: Family, model: Model, theirs: Mapping[str, Tensor]) -> Tensors:
    """The inverse of `to_theirs`; a bias that is not there is zero."""
    own: Tensors = {}
    for name, shape in blueprint(model).items():
        names = their_names(family, model, name)
        sizes = _rows(model, name) if len(names) > 1 else [len(shape)]
        parts = [
            theirs[n] if n in theirs else torch.zeros(size)
            for n, size in zip(names, sizes, strict=True)
        ]
        joined = torch.cat(parts) if len(parts) > 1 else parts[0]
        own[name] = _turn(family, name, joined).reshape(shape.shape).contiguous()
    return own


def their_names(family: Family, model: Model, name: str) -> list[str]:
    """What `family` calls our tensor `name`; several where it has its rows apart."""
    if not name.startswith("blocks."):
        return _suffixed(family.top, name, "")
    _, number, part = name.split(".", 2)
    table = family.layer[model.layers[int(number)]]
    return _suffixed(table, part, f"{family.block}{number}.")


def _suffixed(table: Mapping[str, tuple[str, ...]], part: str, prefix: str) -> list[str]:
    if part in table:
        return [prefix + name for name in table[part]]
    module, _, leaf = part.rpartition(".")
    return [f"{prefix}{name}.{leaf}" for name in table[module]]


def _turn(family: Family, name: str, tensor: Tensor) -> Tensor:
    """Its own inverse but for a dimension of one, which `reshape` takes away."""
    if name.endswith("mixer.convolution"):
        return tensor.T[:, None] if tensor.dim() == 2 else tensor[:, 0].T
    matrix = name.startswith("blocks.") and tensor.dim() == 2
    return tensor.T if family.transposed and matrix else tensor


def _rows(model: Model, name: str) -> list[int]:
    if ".mlp.up." in name:
        return [model.feed_forward, model.feed_forward]
    size = model.width // model.heads
    return [size * model.heads, size * model.kv_heads, size * model.kv_heads]


def _ones(family: Family, model: Model) -> list[str]:
    return [f"{family.block}{i}.{name}" for i in range(len(model.layers)) for name in family.ones]


def _device(tensors: Tensors) -> torch.device:
    return next(iter(tensors.values())).device
