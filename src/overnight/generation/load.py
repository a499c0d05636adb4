"""From a run folder to a model and its tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch

from ..errors import UserError
from ..model.checkpoint import (
    MODEL,
    DamagedError,
    check_fit,
    load_into,
    read_tensors,
    verify,
)
from ..model.decoder import Decoder
from ..runfolder import RunFolder, lowest_evaluation, read_log
from ..settings import load_config
from ..text.tokenizers import Tokenizer


def load_model(
    run: str | Path | RunFolder, checkpoint: str | int = "best"
) -> tuple[Decoder, Tokenizer]:
    """The model of a run at a checkpoint (`"best"`, `"last"` or a step), and its tokenizer.

    `model(ids_BT)` gives `logits_BTV`; the model is on the CPU, in float32, in evaluation mode.
    `tokenizer.encode(text)` and `tokenizer.decode(ids)` are inverses for text it can write.
    """
    folder = run if isinstance(run, RunFolder) else RunFolder.open(run)
    place = folder.checkpoint_path(find_step(folder, checkpoint))
    try:
        verify(place)
    except DamagedError as error:
        raise UserError(f"checkpoint damaged: {error}.", 1) from None
    settings, tensors = load_config(folder.config).model, read_tensors(place, MODEL)
    tokenizer = Tokenizer.load(folder.tokenizer)
    if tokenizer.vocab_size > settings.vocab_size:
        raise UserError(
            f"{folder.tokenizer}: {tokenizer.vocab_size:,} tokens, the model has "
            f"{settings.vocab_size:,}.",
            1,
        )
    with torch.device("meta"):  # shapes are checked before memory is taken
        try:
            check_fit(Decoder(settings).state_dict(), tensors, place)
        except (RuntimeError, OverflowError, TypeError):
            raise UserError(f"{folder.config}: no model can be this large.", 1) from None
    model = Decoder(settings)
    load_into(model, tensors, place)
    return model.eval(), tokenizer


def find_step(run: RunFolder, checkpoint: str | int) -> int:
    """The step that `checkpoint` means."""
    steps = run.checkpoint_steps()
    if not steps:
        raise UserError(f"{run.path}: no checkpoint yet.", 1)
    if checkpoint == "last":
        return steps[-1]
    if checkpoint == "best":
        best = lowest_evaluation(read_log(run.log).rows, among=steps)
        return best.step if best else steps[-1]
    if not str(checkpoint).isdecimal() or len(str(checkpoint)) > 18:
        raise UserError(f'checkpoint "{checkpoint}": give best, last or a step.')
    if int(checkpoint) not in steps and not run.checkpoint_path(int(checkpoint)).is_dir():
        raise UserError(f"{run.path}: no checkpoint of step {checkpoint}; there are {steps}.")
    return int(checkpoint)
