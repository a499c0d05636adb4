"""overnight: train a small language model on the machine you have; read an honest report of it.

A notebook needs two doors:

- `load_run(path)`: config, log tables, findings and checkpoints of a run. Loads no torch.
- `load_model(path, checkpoint="best")`: `(model, tokenizer)`; `model(ids_BT)` gives `logits_BTV`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"
__all__ = ["__version__", "load_model", "load_run"]

if TYPE_CHECKING:
    from .analysis.run import load_run
    from .generation.load import load_model


def __getattr__(name: str) -> Any:  # lazy: `import overnight` must not cost a torch import
    if name == "load_run":
        from .analysis.run import load_run

        return load_run
    if name == "load_model":
        from .generation.load import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
