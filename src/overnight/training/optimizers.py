"""Which parameter is held by which optimizer, and their state by name.

Muon takes the hidden matrices, `RowAdagrad` the n-gram tables; embeddings, head, norms and biases
stay with AdamW, which is torch's own.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..config import Optimizer
from ..model.layers import Linear
from .muon import Muon
from .rows import RowAdagrad, Touched


def is_hidden(name: str, parameter: Tensor) -> bool:
    """Whether this is the weight of a linear layer inside a block (a convolution is not)."""
    return name.startswith("blocks.") and name.endswith(".weight") and parameter.ndim == 2


class Optimizers:
    """The optimizers of one model, stepped together; Muon's products in `dtype`."""

    def __init__(
        self, model: nn.Module, settings: Optimizer, dtype: torch.dtype = torch.float32
    ) -> None:
        named = dict(model.named_parameters())
        self.names: dict[Tensor, str] = {parameter: name for name, parameter in named.items()}
        muon = {
            name: p for name, p in named.items() if settings.kind == "muon" and is_hidden(name, p)
        }
        tables = {name: p for name, p in named.items() if name.startswith("ngrams.")}
        rest = {name: p for name, p in named.items() if name not in muon and name not in tables}
        self.parts: dict[str, torch.optim.Optimizer] = {"adamw": _adamw(rest.values(), settings)}
        if muon:
            maps = {m.weight: m.outputs for m in model.modules() if isinstance(m, Linear)}
            self.parts["muon"] = Muon(
                muon.values(),
                maps,
                dtype,
                lr=settings.muon_lr,
                momentum=settings.muon_momentum,
                weight_decay=settings.muon_weight_decay,
            )
        self.rows = RowAdagrad(tables.values(), settings.lr, settings.eps)
        for part in self.parts.values():
            for group in part.param_groups:
                group["peak"] = group["lr"]

    def step(self, rate: float, touched: Iterable[Touched] = ()) -> None:
        """One update at `rate` times the peak learning rates, of tables in the rows `touched`;
        gradients are dropped after."""
        for part in self.parts.values():
            for group in part.param_groups:
                group["lr"] = group["peak"] * rate
            part.step()
            part.zero_grad(set_to_none=True)
        self.rows.step(rate, touched)

    def state(self) -> dict[str, Tensor]:
        """Every state tensor as `<optimizer>/<slot>/<parameter>`."""
        return {
            f"{kind}/{slot}/{self.names[parameter]}": tensor
            for kind, held in self._held().items()
            for parameter, slots in held.items()
            for slot, tensor in slots.items()
        }

    def load(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`, exact; a key or shape that does not fit is a `KeyError`."""
        by_name = {name: parameter for parameter, name in self.names.items()}
        held = self._held()
        for path, tensor in state.items():
            kind, slot, name = path.split("/", 2)
            parameter = by_name[name]
            slots = held[kind][parameter]
            own = slots.get(slot, parameter)
            if slot != "step" and tensor.shape != own.shape:
                raise KeyError(f"{path}: shape {list(tensor.shape)}")
            slots[slot] = tensor.to(parameter.device)  # `step` too, which the fused AdamW asks for

    def _held(self) -> dict[str, dict[Tensor, dict[str, Tensor]]]:
        """Slots by optimizer and parameter."""
        return {
            kind: {p: part.state[p] for group in part.param_groups for p in group["params"]}
            for kind, part in self.parts.items()
        } | {"rows": self.rows.state}


def _adamw(parameters: Iterable[nn.Parameter], settings: Optimizer) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only; fused where torch has it for the device."""
    parameters = list(parameters)
    matrices = [p for p in parameters if p.ndim >= 2]
    vectors = [p for p in parameters if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        fused=True,
    )
