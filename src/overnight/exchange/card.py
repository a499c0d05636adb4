"""The model card (README.md of an exported folder), from the findings of its run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import __version__
from ..shown import markdown
from ..text.tokenizers import Tokenizer

if TYPE_CHECKING:
    from .exporter import Exported

Findings = dict[str, Any]

HEAD = """---
library_name: transformers
pipeline_tag: text-generation
tags:
- overnight
---"""
USE = """## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("PATH")
tokenizer = AutoTokenizer.from_pretrained("PATH")
```

`overnight import PATH --out RUN` takes it back."""
SPECIALS = """The spelling of a special token in a text stays text (`split_special_tokens`); \
`tokenizer.decode(ids)` writes special tokens out unless `skip_special_tokens=True`."""

LOSSY = "The tokenizer is lossy: decoding does not give every text back."


def card(exported: Exported, tokenizer: Tokenizer, findings: Findings | None) -> str:
    """Markdown; only what the export and the findings say."""
    parts = [
        HEAD,
        f"# {_title(findings)}",
        _table(_facts(exported, findings or {})),
        _yardsticks(exported.step, findings or {}),
        USE,
        SPECIALS,
        "" if tokenizer.lossless else LOSSY,
        f"Written by overnight {__version__}.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _title(findings: Findings | None) -> str:
    return _plain(findings["source"]["name"]) if findings else "A language model"


def _facts(exported: Exported, findings: Findings) -> list[tuple[str, str]]:
    about, ledger = findings.get("about", {}), findings.get("ledger", {})
    row: dict[str, Any] = next(
        (e for e in findings.get("evaluations", []) if e["step"] == exported.step), {}
    )
    whole = findings.get("whole")
    if whole and whole["step"] == exported.step:  # the figure to quote, on all held-out text
        row = row | {"val_loss": whole["loss"], "val_se": whole["se"], "val_bpb": whole["bpb"]}
    rounded = " (the weights are rounded)" if exported.dtype != "float32" else ""
    facts: list[tuple[str, Any]] = [
        ("architecture", exported.architecture),
        ("parameters", f"{exported.parameters:,}"),
        ("weights", exported.dtype + rounded),
        ("model", about.get("model")),
        ("tokenizer", _join(about.get("tokenizer"), about.get("vocab_size"), "{}, {:,} tokens")),
        ("data", about.get("data")),
        ("optimizer", about.get("optimizer")),
        ("weights of step", f"{exported.step:,}"),
        ("trained until step", _number(ledger.get("steps"), "{:,}")),
        ("tokens trained until this step", _number(row.get("tokens"), "{:,.0f}")),
        ("passes through the text until this step", _number(row.get("passes"), "{:.2f}")),
        ("validation loss, nats per token", _loss(row)),
        ("validation, bits per byte", _number(row.get("val_bpb"), "{:.4f}")),
        ("device", about.get("device")),
    ]
    return [(name, _plain(str(value))) for name, value in facts if value is not None]


def _loss(row: dict[str, Any]) -> str | None:
    if row.get("val_loss") is None:
        return None
    se = f" ± {row['val_se']:.4f} (standard error)" if row.get("val_se") is not None else ""
    return f"{row['val_loss']:.4f}{se}"


def _yardsticks(step: int, findings: Findings) -> str:
    """What the held-out text costs without a network, where these weights are those compared."""
    found = findings.get("yardsticks")
    if not found or found["step"] != step or found["model_bpb"] is None:
        return ""
    rows = [("this model", f"{found['model_bpb']:.4f}")]
    rows += [(_plain(row["name"]), f"{row['bpb']:.4f}") for row in found["rows"]]
    return "## Bits per byte on the held-out text\n\n" + _table(rows)


def _table(rows: list[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _number(value: float | None, how: str) -> str | None:
    return None if value is None else how.format(value)


def _join(a: Any, b: Any, how: str) -> str | None:
    return None if a is None or b is None else how.format(a, b)


def _plain(text: str) -> str:
    return markdown(text[:1000])
