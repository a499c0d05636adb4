"""What the losses of a foreign log are in: nats, or made nats from perplexities and bits."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ...errors import UserError
from ..tables import Columns
from . import names
from .values import LOSSES

SUM, BEGIN = 30.0, 10  # nats: no mean over tokens; losses that show it
LEAST_RATIO, MOST_RATIO = 0.98, 1.1  # of a perplexity to exp(loss): a mean over batches is above


def in_nats(
    path: Path, loose: Columns, known: dict[str, str], seen: Iterable[str], problems: list[str]
) -> bool:
    """A loss from a perplexity or from bits per byte, where the log has nothing else; whether that
    of validation is so one per byte. `seen`: all names of the log."""
    bits, smoothed = False, any(map(names.tells_smoothing, seen))
    for name in set(LOSSES) & set(loose):
        if np.isnan(loose[name]).all():
            del loose[name]
    for loss, perplexity in (("loss", "perplexity"), ("val_loss", "val_perplexity")):
        if loss not in loose and perplexity in loose:
            named = next(foreign for foreign, ours in known.items() if ours == perplexity)
            if loss == "loss" and "train" not in named.lower() and _of_validation(loose):
                problems.append(f"{named[:40]}: of validation, as the loss beside it")
                continue
            with np.errstate(divide="ignore", invalid="ignore"):
                loose[loss] = np.log(loose[perplexity])
            problems.append(f"{loss} is ln({perplexity}); the log has no loss of its own")
        elif {loss, perplexity} <= set(loose) and not (loss == "loss" and _of_validation(loose)):
            bits = _in_bits(loss, loose, perplexity, smoothed, problems)
        elif loss == "val_loss" in loose and bits:
            _to_nats(loss, loose, "that of training", problems)
    per_byte = "val_bpb" in loose and "val_loss" not in loose
    if per_byte:
        loose["val_loss"] = loose["val_bpb"] * names.LN_2
        problems.append("val_loss is bits per byte times ln 2: nats per byte, not per token")
    if not set(LOSSES) & set(loose):
        if set(LOSSES) & set(known.values()):
            raise UserError(f"{path}: not one row has both a step and a loss.")
        raise UserError(
            f"{path}: no loss column found. Known names are such as loss, train_loss, val_loss, "
            "perplexity; the log has to use one of them."
        )
    return per_byte


def _in_bits(
    name: str, loose: Columns, perplexity: str, smoothed: bool, problems: list[str]
) -> bool:
    """Whether a loss is in bits, as its perplexity says and fairseq has it; it is in nats then. One
    that is `smoothed` or a sum gives way to what its perplexity says."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = loose[perplexity] / np.exp(loose[name])
        of_bits = loose[perplexity] / np.exp2(loose[name])
    ratio, of_bits = ratio[np.isfinite(ratio)], of_bits[np.isfinite(of_bits)]
    begin = loose[name][np.isfinite(loose[name])][:BEGIN]
    a_sum = bool(len(begin)) and np.median(begin) > SUM  # later it may have diverged
    if not a_sum and (not len(ratio) or LEAST_RATIO < np.median(ratio) < MOST_RATIO):
        return False
    if len(of_bits) and abs(np.median(of_bits) - 1) < 1 - LEAST_RATIO:
        _to_nats(name, loose, "its perplexity", problems)
        return True
    if smoothed or a_sum:
        with np.errstate(divide="ignore", invalid="ignore"):
            told = np.log(loose[perplexity])
        if not np.nan_to_num(told).any():
            problems.append("the perplexity is 1 in each row: it is no measurement")
            return False
        loose[name] = np.where(np.isinf(loose[name]), loose[name], told)  # one that broke stays
        what = "a sum" if a_sum else "smoothed"
        problems.append(f"{name} is ln({perplexity}): the loss beside it is {what}")
        return False
    problems.append(f"the perplexity is {np.median(ratio):.3g} times exp({name})")
    return False


def _to_nats(name: str, loose: Columns, says: str, problems: list[str]) -> None:
    problems.append(f"{name} is in bits, as {says} says: times ln 2, it is nats")
    loose[name] = loose[name] * names.LN_2


def _of_validation(loose: Columns) -> bool:
    """Whether `perplexity` is that of the validation loss, in whose rows alone it stands."""
    if "val_loss" not in loose:
        return False
    with np.errstate(divide="ignore", invalid="ignore"):
        loss = np.log(loose["perplexity"])
    has = np.isfinite(loss)
    return bool(has.any() and np.allclose(loss[has], loose["val_loss"][has], rtol=0.01))
