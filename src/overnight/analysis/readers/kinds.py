"""What a column says each row is about: training or a held-out set, and which run."""

from __future__ import annotations

import re
from collections.abc import Iterable

KIND_FIELDS = ("type", "event", "split", "phase", "mode", "kind", "stage", "dataset")
VALIDATION, TEST = ("val", "valid", "validation", "eval", "evaluation", "dev"), ("test",)
# A column that says of each row which run it is of
RUN_FIELDS = ("run", "run_id", "run_name", "experiment", "exp", "trial", "model", "model_name")

# A column that says what a row tried, in a table of experiments
TRIED_FIELDS = ("commit", "git_hash", "sha", "description", "hypothesis", "experiment_name")


def named(names: tuple[str, ...], fields: Iterable[str]) -> list[str]:
    """The `fields` that are among `names`, in any case, in the order of those."""
    return sorted((f for f in fields if f.lower() in names), key=lambda f: names.index(f.lower()))


def _words(kind: str) -> list[str]:
    """`valid_en` is validation; of training sets nothing is held out."""
    words = re.findall("[a-z]+", kind.lower())
    return [] if "train" in words else words


def of_row(known: dict[str, str], kinds: Iterable[object]) -> dict[str, str]:
    """Our names of the foreign ones in a row of these `kinds`: its loss may be that of a held-out
    set, if it has no other."""
    said = {word for kind in kinds if isinstance(kind, str) for word in _words(kind)}
    held = "test_loss" if said & {*TEST} else "val_loss" if said & {*VALIDATION} else "loss"
    if held == "loss" or held in known.values():
        return known
    held_of = {"loss": held} | ({"perplexity": "val_perplexity"} if held == "val_loss" else {})
    return {
        name: held_of.get(ours, ours) if "train" not in name.lower() else ours
        for name, ours in known.items()
    }
