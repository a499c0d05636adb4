"""What the log says of the run as a whole: where it comes from, what it trained, on what."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from ..ledger import perplexity
from ..runfolder import INITIAL, RunFolder
from ..runlock import is_locked
from ..wording import counted
from .findings import About, Best, Source, Whole, known
from .tables import Log


def source(log: Log) -> Source:
    return Source(
        name=log.source.resolve().name,
        format=log.format,
        train_rows=len(log.train["step"]),
        eval_rows=len(log.eval["step"]),
        columns=log.columns,
        step_is=log.step_is,
        val_per="byte" if log.per_byte else "token",
        problems=log.problems,
    )


def whole(log: Log, best: Best | None) -> Whole | None:
    """The figure to quote: the best checkpoint on all held-out text; None where a later session
    has found a better step."""
    row = log.whole
    if row is None or (best and row["step"] not in (best.pick, *best.tied_steps)):
        return None
    loss, se, bpb = row["val_loss"], row.get("val_se"), row.get("val_bpb")
    data = _start_data(log)
    context = _integer(_section(_section(_start(log), "config"), "model").get("context")) or 0
    exact = not _unknown(data)  # unknown characters are more bytes than counted
    return Whole(
        step=row["step"],
        loss=loss,
        se=se,
        bpb=bpb,
        bpb_se=row.get("val_bpb_se"),
        perplexity=known(perplexity(loss)),
        tokens=row["val_tokens"],
        bytes=row["val_bytes"] if exact else None,
        of_bytes=_integer(data.get("val_bytes")),
        complete=row["val_tokens"] + context >= (_integer(data.get("val_tokens")) or math.inf),
    )


def without_bits(log: Log) -> Log:
    """The log without bits per byte, where they compare with nothing: they are those of another
    text, or of a part of it."""
    none = np.full_like(log.eval["val_bpb"], np.nan)
    evals = log.eval | {"val_bpb": none, "val_bpb_se": none}
    whole = log.whole and log.whole | {"val_bpb": None, "val_bpb_se": None}
    return dataclasses.replace(log, eval=evals, whole=whole)


def planned_steps(log: Log) -> int | None:
    """As the settings have it, or else as the log itself counts."""
    said = _section(log.config or {}, "length").get("steps"), log.planned
    return next((int(n) for n in said if isinstance(n, int | float) and 0 < n < 2**53), None)


def _start(log: Log) -> dict[str, Any]:
    """The last start row."""
    return next((s for s in reversed(log.session) if "config" in s), {})


def _start_data(log: Log) -> dict[str, Any]:
    return _section(_start(log), "data")


def about(log: Log, planned: int | None) -> About:
    """The model line and what else the start row says."""
    start = _start(log)
    config = start.get("config") or log.config or {}
    model, data = _section(config, "model"), _start_data(log)
    tokenizer = _section(config, "tokenizer")
    environment = start.get("environment") or {}
    total = (start.get("parameters") or {}).get("total")
    return About(
        model=_model_line(model),
        parameters=total if isinstance(total, int) else None,
        vocab_size=_integer(data.get("vocab_size")) or _integer(model.get("vocab_size")),
        context=_integer(model.get("context")),
        tokenizer=str(tokenizer["kind"]) if tokenizer.get("kind") else None,
        data=_data_line(data),
        optimizer=_optimizer_line(config),
        device=_device_line(config, environment),
        status=_status(log),
        planned_steps=planned,
        begins_with=next((str(e["message"]) for e in log.event if e["kind"] == INITIAL), None),
        unknown=_unknown(_start_data(log)),
        unknown_bits=_integer(data.get("unknown_bits")),
        incomparable=next(filter(None, map(_incomparable, _data_of_all(log))), None),
        other_task=log.other_task,
    )


def _data_of_all(log: Log) -> list[dict[str, Any]]:
    """Of every session: an earlier one may have counted otherwise."""
    return [_section(session, "data") for session in log.session]


def _incomparable(data: dict[str, Any]) -> str | None:
    if data.get("lossless") is False:
        return "the tokenizer loses part of the text, such as case, accents and spaces"
    unknown = _unknown(data)
    if unknown and not _integer(data.get("unknown_bits")):
        return (
            f"{counted(unknown, 'character')} of the held-out text: unknown to the tokenizer, and "
            "all count as one"
        )
    return None


def _unknown(data: dict[str, Any]) -> int | None:
    """Characters of the held-out text that the tokenizer does not know; of all the text, where an
    older version has counted only these."""
    return _integer(data.get("val_unknown", data.get("unknown")))


def _status(log: Log) -> str:
    if not log.session:
        return "unknown"
    ended = log.session[-1].get("reason")
    if not ended and log.folder is not None and not is_locked(RunFolder(log.folder).lock):
        return "killed"
    return str(ended or "running")


def _section(config: dict[str, Any], name: str) -> dict[str, Any]:
    """One table of the settings; a damaged log may hold anything in its place."""
    found = config.get(name)
    return found if isinstance(found, dict) else {}


def _model_line(model: dict[str, Any]) -> str | None:
    layers = model.get("layers")
    if not layers:
        return None
    parts = [counted(layers if isinstance(layers, int) else len(str(layers)), "layer")]
    for name in ("heads", "width", "context", "position", "norm", "mlp"):
        if model.get(name):
            parts.append(f"{name} {model[name]}")
    if model.get("dropout") is not None:
        parts.append(f"dropout {model['dropout']}")
    if "tied" in model:
        parts.append("tied head" if model["tied"] else "untied head")
    return ", ".join(parts)


def _optimizer_line(config: dict[str, Any]) -> str | None:
    optimizer, train = _section(config, "optimizer"), _section(config, "train")
    if not optimizer.get("kind"):
        return None
    words = [str(optimizer["kind"])]
    for name in ("lr", "weight_decay", "clip"):
        if optimizer.get(name) is not None:
            words.append(f"{name} {optimizer[name]}")
    if train.get("batch"):
        words.append(f"batch {train['batch']}")
    return ", ".join(words)


def _device_line(config: dict[str, Any], environment: dict[str, Any]) -> str | None:
    name = environment.get("device_name") or environment.get("processor")
    parts = (environment.get("device"), _section(config, "train").get("dtype"), name)
    return ", ".join(str(part) for part in parts if part) or None


def _data_line(data: dict[str, Any]) -> str | None:
    parts = [
        f"{data[name]:,} {words}"
        for name, words in (("train_tokens", "training tokens"), ("val_tokens", "held out"))
        if isinstance(data.get(name), int)
    ]
    if data.get("split"):
        parts.append(f"split: {data['split']}")
    return ", ".join(parts) or None


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and value > 0 else None
