"""A folder of `transformers` as a run folder. Nothing in it is trusted: JSON of bounded size,
safetensors only, sizes and names checked before memory is taken, no code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from .. import __version__
from ..config import WITH_WEIGHTS, Config, Model
from ..errors import UserError
from ..files import appearing
from ..model import checkpoint
from ..model.checkpoint import State
from ..model.decoder import complete, count_parameters
from ..runfolder import End, Event, LogWriter, RunFolder, Start
from ..settings import Settings, dump_config, flatten
from ..text.tokenizers import Tokenizer
from . import folder
from .families import Family, counterpart, read_config, write_config
from .folder import Header
from .tensors import Tensors, blueprint, from_theirs, to_theirs, with_bias

KINDS = ("bytes", "chars", "bpe", "wordpiece", "wordpiece-classic")
BUFFERS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")  # no weights, in old folders


class Imported(msgspec.Struct):
    """What `overnight import --json` prints."""

    run: str
    family: str
    parameters: int
    vocab_size: int
    biases: bool


def import_folder(source: Path, out: Path, tokenizer_file: Path | None = None) -> Imported:
    """Make the run folder `out` from the folder `source`: the weights as step 0.

    A bias that is zero throughout the model is dropped. `UserError` names the key or tensor that
    has no counterpart.
    """
    if not source.is_dir():
        raise UserError(f"{source}: no such folder.")
    tree = folder.read_json(source / folder.CONFIG)
    family, read = read_config(tree)
    tokenizer = _tokenizer(source, tokenizer_file)
    settings = _settings(source, read, tokenizer)
    model = complete(settings.resolve().model)
    if (source / folder.OURS).is_file():
        _refuse_other(tree, family, model)
    if model.vocab_size != tokenizer.vocab_size:
        raise UserError(
            f"{source}: the model has {model.vocab_size:,} ids, "
            f"its tokenizer {tokenizer.vocab_size:,}; a run has as many of both."
        )
    weights = _weights(source, tree, family, model)
    bias = settings.values.get("model.bias")
    weights, model = _drop_zero_biases(source, model, weights, bias)
    closest = counterpart(model)
    if closest is not family:
        amounts = closest if isinstance(closest, str) else f"the model amounts to a {closest.name}"
        raise UserError(f"{source}: config.json is of {family.name}, but {amounts}.")
    settings.choose("model.bias", model.bias, "what the tensors hold")
    resolved = settings.resolve().having(model=model)
    message = f"imported from {source.name} ({family.architecture}): weights only"
    write_run(out, resolved, settings.reasons, tokenizer, weights, message)
    total = count_parameters(model)["total"]
    return Imported(str(out), family.name, total, model.vocab_size, model.bias)


def _tokenizer(source: Path, file: Path | None) -> Tokenizer:
    path = file or source / folder.TOKENIZER
    if not path.is_file():
        hint = "save one with AutoTokenizer's save_pretrained, or give --tokenizer FILE"
        raise UserError(f"{path}: no such file; {hint}.")
    return Tokenizer.load(path)


def _settings(source: Path, read: dict[str, Any], tokenizer: Tokenizer) -> Settings:
    """What overnight.json says, where there is one; otherwise what config.json amounts to."""
    settings = Settings()
    if (source / folder.OURS).is_file():
        tree = folder.read_json(source / folder.OURS)
        tree.pop("overnight", None)
        layer = flatten(tree, str(source / folder.OURS))
        if "model.layers" not in layer or not all(n.startswith(WITH_WEIGHTS) for n in layer):
            raise UserError(f"{source / folder.OURS}: not written by overnight export.")
        settings.add(layer, folder.OURS)
        return settings
    kind = tokenizer.kind if tokenizer.kind in KINDS else "file"
    settings.add({f"model.{name}": value for name, value in read.items()}, folder.CONFIG)
    settings.add({"tokenizer.kind": kind}, folder.TOKENIZER)
    return settings


def _refuse_other(tree: dict[str, Any], family: Family, model: Model) -> None:
    """config.json must be what the model of overnight.json is written as."""
    if counterpart(model) is not family:
        raise UserError(f"{folder.OURS} describes another model than config.json.")
    for name, value in write_config(family, model).items():
        if tree.get(name) != value:
            raise UserError(
                f"config.json: {name} = {str(tree.get(name))[:80]}, "
                f"but {folder.OURS} amounts to {str(value)[:80]}; remove one of them."
            )


def _weights(source: Path, tree: dict[str, Any], family: Family, model: Model) -> Tensors:
    """The folder's tensors under our names; with biases, zero where there are none."""
    model = with_bias(model, family.bias != "never")
    expected = to_theirs(family, model, blueprint(model))
    found = _renamed(family, model, folder.headers(source))
    for name, header in found.items():
        if name not in expected:
            raise UserError(f"{header.file}: {name} has no counterpart in this model.")
        if header.shape != tuple(expected[name].shape):
            raise UserError(
                f"{header.file}: {name} is {list(header.shape)}, "
                f"config.json amounts to {list(expected[name].shape)}."
            )
    missing = [n for n in expected if n not in found and not n.endswith(".bias")]
    if missing:
        raise UserError(f"{source}: the tensor {missing[0]} is missing.")
    tensors = folder.read_tensors(found)
    for name, tensor in tensors.items():
        _refuse_ignored(tree, family, name, tensor)
    for name in [n for n in tensors if n.endswith(family.ones)] if family.ones else []:
        if bool((tensors.pop(name) != 1).any()):
            raise UserError(f"{source}: {name} is not 1 throughout, which has no counterpart here.")
    return from_theirs(family, model, tensors)


def _renamed(family: Family, model: Model, found: dict[str, Header]) -> dict[str, Header]:
    """Without buffers, with the prefix that a bare body lacks, with one of two tied tensors."""
    found = {name: header for name, header in found.items() if not name.endswith(BUFFERS)}
    (embed,), (head,) = family.top["embed"], family.top["head"]
    if embed not in found and embed.removeprefix(family.root) in found:
        found = {n if n.startswith(head) else family.root + n: h for n, h in found.items()}
    tied = found.pop(f"{head}.weight", None) if model.tied else None
    if tied and embed in found:
        both = folder.read_tensors({embed: found[embed], head: tied})
        if not torch.equal(both[embed], both[head]):  # transformers would not tie them, either
            raise UserError(
                f"{tied.file}: {tied.name} is not {found[embed].name}, "
                "though config.json ties them: set tie_word_embeddings to false."
            )
    return {embed: tied, **found} if tied and embed not in found else found


def _refuse_ignored(tree: dict[str, Any], family: Family, name: str, tensor: Tensor) -> None:
    """A bias that transformers would not load, as its config.json says that there is none."""
    if not name.endswith(".bias") or not bool(tensor.any()):
        return
    for part, key in family.bias_keys.items():
        if f".{part}." in name and not tree.get(key.name, key.absent):
            raise UserError(f"config.json: {key.name} is false, but there is {name}.")


def _drop_zero_biases(
    source: Path, model: Model, weights: Tensors, wanted: bool | None
) -> tuple[Tensors, Model]:
    """Without biases where all of them are zero, unless overnight.json has them (`wanted`)."""
    bare = blueprint(with_bias(model, False))
    biased = next((n for n in weights if n not in bare and bool(weights[n].any())), None)
    if wanted is False and biased is not None:
        raise UserError(f"{source}: {biased} is not zero, but {folder.OURS} has no biases.")
    if wanted or (wanted is None and biased is not None):
        return weights, with_bias(model, True)
    return {name: weights[name] for name in bare}, with_bias(model, False)


def write_run(
    out: Path,
    settings: Config,
    reasons: dict[str, str],
    tokenizer: Tokenizer,
    weights: Mapping[str, Tensor],
    message: str,
) -> None:
    """A run folder that holds `weights` at step 0 and was not trained here."""
    with appearing(out, "--out") as place:
        run = RunFolder(place)
        run.evals.mkdir()
        run.config.write_text(dump_config(settings, reasons), encoding="utf-8")
        tokenizer.save(run.tokenizer)
        checkpoint.save(run, State(), dict(weights), {})
        log = LogWriter(run.log, attempt=1)
        log.write(_start_row(settings, reasons, tokenizer))
        log.write(Event(step=0, kind="import", message=message))
        log.write(
            End(
                step=0,
                reason="finished",
                seconds=0,
                train_seconds=0,
                eval_seconds=0,
                save_seconds=0,
            )
        )
        log.close()


def _start_row(settings: Config, reasons: dict[str, str], tokenizer: Tokenizer) -> Start:
    return Start(
        step=0,
        from_step=0,
        version=__version__,
        config=msgspec.to_builtins(settings),
        reasons=reasons,
        environment={"torch": str(torch.__version__)},
        data={"vocab_size": tokenizer.vocab_size},
        parameters=count_parameters(settings.model),
        ledger={
            "batch": settings.train.batch,
            "micro_batch": settings.train.micro_batch or settings.train.batch,
            "context": settings.model.context,
            "train_tokens": 0,
            "ranks": 1,
        },
    )
