"""Training n-gram tables by the rows that an update touches.

A table has many rows, and an update touches few of them. A gradient of all of it, with its norm,
its clipping and its optimizer step, would be two fifths of an update of a small model
(docs/lab-notes.md, E24). Shapes: R rows of a table, U those that are touched.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..model.decoder import Decoder, NgramTable


class Touched(msgspec.Struct):
    """Rows of one table."""

    rows: Tensor  # [U], in order
    values: Tensor  # [U, C], a leaf of the graph
    places: Tensor  # [B, T], which of the rows a token looks up


def touch(model: Decoder, ids_BT: Tensor) -> list[Touched]:
    """What sequences look up, table by table."""
    before_BP = model.nothing_before(ids_BT)
    touched = []
    for table in map(_as_table, model.ngrams):
        rows_U, places_BT = table.rows_of(ids_BT, before_BP).unique(return_inverse=True)
        values_UC = table.weight.detach().index_select(0, rows_U).requires_grad_()
        touched.append(Touched(rows_U, values_UC, places_BT))
    return touched


def _as_table(module: nn.Module) -> NgramTable:
    assert isinstance(module, NgramTable)  # a list of modules does not tell
    return module


def looked_up(touched: list[Touched], sequences: slice) -> Tensor | None:
    """What the tables say together to some `sequences`, `[B, T, C]`; None without tables."""
    looked_up_BTC: Tensor | None = None
    for part in touched:
        values_BTC = F.embedding(part.places[sequences], part.values)
        looked_up_BTC = values_BTC if looked_up_BTC is None else looked_up_BTC + values_BTC
    return looked_up_BTC


class RowAdagrad:
    """A step against a row's gradient, as long as the learning rate where the gradient is as large
    as the row's have been so far.

    Adagrad (Duchi et al. 2011) with one number for a row, as recommenders keep it for their tables
    (Naumov et al. 2019), here the mean square rather than the sum: the schedule shrinks the steps.
    What is not touched stays as it is. Chosen against Adam in docs/lab-notes.md, E24.
    """

    def __init__(self, tables: Iterable[nn.Parameter], lr: float, eps: float) -> None:
        self.lr, self.eps = lr, eps
        self.state = {
            table: {"touches": table.new_zeros(len(table)), "square": table.new_zeros(len(table))}
            for table in tables
        }

    @torch.no_grad()
    def step(self, rate: float, touched: Iterable[Touched]) -> None:
        """One update at `rate` times the learning rate; each leaf must have its gradient."""
        for (table, state), part in zip(self.state.items(), touched, strict=True):
            rows_U, values_UC, grad_UC = part.rows, part.values.detach(), part.values.grad
            assert grad_UC is not None
            touches_U = state["touches"].index_select(0, rows_U).add_(1)
            square_U = state["square"].index_select(0, rows_U)
            square_U += (grad_UC.square().mean(-1) - square_U) / touches_U
            step_U1 = (rate * self.lr / (square_U.sqrt() + self.eps))[:, None]
            table.index_copy_(0, rows_U, torch.addcmul(values_UC, grad_UC, step_U1, value=-1))
            state["touches"].index_copy_(0, rows_U, touches_U)
            state["square"].index_copy_(0, rows_U, square_U)
