"""`overnight export` and `overnight import`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from ..errors import UserError
from . import Flag, say, write_json


def export(
    run: Path,
    *,
    out: Path,
    to: Literal["hf"] = "hf",
    checkpoint: str = "best",
    dtype: str = "float32",
    json: Flag = False,
) -> int:
    """Write the model of RUN as a folder that transformers loads, if it has an exact counterpart.

    Parameters
    ----------
    run
        A run folder.
    out
        The folder to make.
    to
        hf: a folder for transformers, with tokenizer, generation settings and model card.
    checkpoint
        best, last or a step.
    dtype
        float32, or bfloat16, which rounds the weights.
    json
        Print one summary object on stdout.
    """
    from ..analysis.run import load_run
    from ..exchange.exporter import export as write

    findings = None
    try:
        findings = load_run(run).findings if (run / "log.jsonl").is_file() else None
    except UserError as error:  # the weights are another file
        say(f"{error} The model card says nothing of the run.")
    done = write(run, out, checkpoint=checkpoint, dtype=dtype, findings=findings)
    message = (
        f"{out}: {done.architecture}, {done.parameters:,} parameters of step {done.step:,} "
        f"in {done.dtype}"
    )
    return _finish(done, message, json)


def import_(
    folder: Path,
    *,
    out: Path,
    tokenizer: Path | None = None,
    json: Flag = False,
) -> int:
    """Take a folder of transformers (or of `overnight export`) as a run folder.

    Parameters
    ----------
    folder
        A folder with config.json, model.safetensors and tokenizer.json.
    out
        The run folder to make; its weights are those of step 0.
    tokenizer
        A tokenizer.json, where the folder has none.
    json
        Print one summary object on stdout.
    """
    from ..exchange.importer import import_folder

    done = import_folder(folder, out, tokenizer)
    message = f"{out}: {done.parameters:,} parameters from {folder} ({done.family})"
    return _finish(done, message, json)


def _finish(done: Any, message: str, json: bool) -> int:
    say(message)
    if json:
        write_json(done)
    return 0
