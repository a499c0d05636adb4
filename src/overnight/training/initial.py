"""Training that begins with the weights of a run: what the new run takes over from it."""

from __future__ import annotations

from pathlib import Path

import msgspec
from torch import Tensor

from ..config import WITH_WEIGHTS
from ..errors import UserError
from ..generation.load import find_step, load_model
from ..runfolder import RunFolder
from ..settings import Layer, Settings, flatten, load_config
from ..text.tokenizers import Tokenizer

MAY_DIFFER = ("model.dropout",)  # of the model, from the run whose weights it gets


class Initial(msgspec.Struct):
    """Weights and tokenizer of a run at a step, and its settings as a layer."""

    source: str  # "step 1,200 of runs/a"
    layer: Layer
    weights: dict[str, Tensor]
    tokenizer: Tokenizer


def load_initial(run: str | Path) -> Initial:
    """What a run that begins with the best weights of `run` takes over."""
    folder = RunFolder.open(run)
    step = find_step(folder, "best")
    model, tokenizer = load_model(folder, step)
    settings = load_config(folder.config).having(model=model.config)
    tree = msgspec.to_builtins(settings)
    flat = flatten(tree, str(folder.config))
    layer = {
        name: value
        for name, value in flat.items()
        if name.startswith((*WITH_WEIGHTS, "tokenizer."))
    }
    return Initial(f"step {step:,} of {run}", layer, model.state_dict(), tokenizer)


def refuse_other_model(settings: Settings, initial: Initial) -> None:
    """The weights fit the run's model alone; its context may change where no tensor has it."""
    learned = initial.layer["model.position"] == "learned"
    free = MAY_DIFFER if learned else (*MAY_DIFFER, "model.context")
    fixed = {
        name: value
        for name, value in initial.layer.items()
        if name.startswith(("model.", "tokenizer.")) and name not in free
    }
    for name, value in fixed.items():
        if settings.get(name) != value:
            raise UserError(
                f"{name} = {settings.get(name)} ({settings.reasons.get(name, 'default')}), "
                f"but the weights of {initial.source} have {value}; leave it out."
            )
