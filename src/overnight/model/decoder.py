"""One decoder for every preset: embeddings, a stack of layers given by letters, a head.

`model(ids_BT)` gives `logits_BTV`; `model.decode(ids_BT, state)` gives the same logits with the
state of what came before, at a cost that does not grow with it more than the layers ask for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import Model
from ..errors import UserError
from ..keyed import key
from .attention import Attention, AttentionState
from .layers import (
    CONVOLUTION,
    MLP,
    Linear,
    Norm,
    Part,
    cast,
    convolve,
    drop,
    library_for,
    plain,
)
from .native import Pace, Token, bind, can_compute
from .ssm import SSM, SSMState

LayerState = Any  # AttentionState for an A layer, SSMState for an S layer


class Block(Part):
    """A mixer (attention or state space) and an MLP, each behind a norm, added to the stream."""

    def __init__(self, model: Model, letter: str) -> None:
        super().__init__()
        self.norm = Norm(model)
        self.mixer = Attention(model) if letter == "A" else SSM(model)
        self.mlp_norm = Norm(model) if model.mlp != "none" else None
        self.mlp = MLP(model) if model.mlp != "none" else None

    def forward(self, x_BTC: Tensor, state: LayerState | None = None) -> Tensor:
        x_BTC = x_BTC + self.mixer(self.norm(x_BTC), state)
        if self.mlp is not None and self.mlp_norm is not None:
            x_BTC = x_BTC + self.mlp(self.mlp_norm(x_BTC))
        return x_BTC


class NgramTable(nn.Module):
    """An embedding of the last `order` ids, hashed into `rows`; starts at zero."""

    def __init__(self, order: int, rows: int, width: int) -> None:
        super().__init__()
        self.order, self.rows = order, rows
        self.weight = nn.Parameter(torch.empty(rows, width))

    def forward(self, ids_BT: Tensor, before_BP: Tensor) -> Tensor:
        return F.embedding(self.rows_of(ids_BT, before_BP), self.weight)

    def rows_of(self, ids_BT: Tensor, before_BP: Tensor) -> Tensor:
        """The row of every id; `before_BP`: the ids before these, −1 where no text is."""
        ids = torch.cat([before_BP, ids_BT], dim=1) + 1
        T, P = ids_BT.shape[1], before_BP.shape[1]
        hashed = torch.zeros_like(ids_BT)
        for back in range(self.order):  # multiplicative hashing in int64, wrapped to 40 bits
            hashed = (hashed * 1_000_003 + ids[:, P - back : P - back + T]) & 0xFF_FFFF_FFFF
        hashed = (hashed * 0x9E_3779) ^ (hashed >> 17)
        return hashed % self.rows


class DecodeState:
    """What decoding remembers: one state per layer, the tokens seen, the last few ids and
    embeddings; and the model, in the form that is called fastest."""

    def __init__(self, model: Decoder, before_BP: Tensor) -> None:
        letters = model.config.layers
        self.model = plain(model)
        self.layers = [AttentionState() if letter == "A" else SSMState() for letter in letters]
        self.before_BP = before_BP
        self.tail_BIC: Tensor | None = None  # of the convolution over embeddings
        self.pace = Pace(torch.get_num_threads())
        self._token: Token | None = None

    @cached_property
    def _native(self) -> bool:
        return can_compute(self)

    def token(self, ids_BT: Tensor) -> Token | None:
        """What computes `ids_BT` in compiled code: one of each row, where that can be."""
        one_each = ids_BT.shape == (len(self.before_BP), 1)
        if not (one_each and ids_BT.dtype == torch.int64 and ids_BT.device.type == "cpu"):
            return None
        if self._native and (self._token is None or self.length == self._token.end):
            self._token = bind(self)
        return self._token

    def make_room(self) -> None:
        """To be changed in place, where `native` does."""
        for layer in self.layers:
            layer.make_room()
        self.before_BP = self.before_BP.clone()
        if self.tail_BIC is not None:
            self.tail_BIC = self.tail_BIC.contiguous()

    def unbind(self) -> None:
        """Before what `token` is bound to is replaced."""
        self._token = None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_token": None}  # addresses of this one

    @property
    def length(self) -> int:
        return self.layers[0].length


class Decoder(nn.Module):
    """The model of one `config.Model`, whose `vocab_size` must be filled in."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.config = model = complete(model)
        self._compute_dtype: torch.dtype | None = None
        self.embed = nn.Parameter(torch.empty(model.vocab_size, model.width))
        learned = model.position == "learned"
        self.positions = nn.Parameter(torch.empty(model.context, model.width)) if learned else None
        self.ngrams = nn.ModuleList(
            NgramTable(order, model.ngram_rows, model.width) for order in model.ngrams
        )
        shape = (CONVOLUTION, model.width)
        self.convolution = nn.Parameter(torch.empty(shape)) if model.embed_conv else None
        self.blocks = nn.ModuleList(Block(model, letter) for letter in model.layers)
        self.norm = Norm(model)
        self.head = None if model.tied else Linear(model.width, model.vocab_size, bias=False)

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Logits `[B, T, V]` of the next token at every place of `ids_BT` (int64)."""
        return self._logits(ids_BT, None)

    @torch.inference_mode()
    def decode(
        self, ids_BT: Tensor, state: DecodeState | None = None, last: bool = False
    ) -> tuple[Tensor, DecodeState]:
        """Logits of `ids_BT` as a continuation of `state` (None: the beginning), of the `last` one
        alone if that is enough, and the state after them. The state is changed in place; a
        learned position ends at the context."""
        if state is None:
            state = DecodeState(self, self.nothing_before(ids_BT))
        elif len(ids_BT) != len(state.before_BP):
            raise ValueError(f"{len(ids_BT)} rows after a state of {len(state.before_BP)}")
        elif ids_BT.shape[1] == 1:
            self._check_end(state.length + 1)
            if token := state.token(ids_BT):
                return token(ids_BT, state), state
        state.unbind()
        with library_for(ids_BT.numel(), self.compute_dtype):
            logits_BTV = state.model._logits(ids_BT, state, last)
        if state.before_BP.shape[1]:
            seen = torch.cat([state.before_BP, ids_BT], dim=1)
            state.before_BP = seen[:, seen.shape[1] - state.before_BP.shape[1] :]
        return logits_BTV, state

    def hidden(
        self,
        ids_BT: Tensor,
        state: DecodeState | None = None,
        last: bool = False,
        looked_up_BTC: Tensor | None = None,
    ) -> Tensor:
        """What the head reads, `[B, T, C]`, or `[B, 1, C]` of the `last` token alone.
        `looked_up_BTC`: what the n-gram tables say, where the caller has asked them."""
        x_BTC = self._embedded(ids_BT, state, looked_up_BTC)
        for i, block in enumerate(self.blocks):
            x_BTC = block(x_BTC, state.layers[i] if state else None)
        x_BTC = x_BTC[:, -1:] if last and x_BTC.shape[1] > 1 else x_BTC
        hidden_BTC: Tensor = self.norm(x_BTC)
        return hidden_BTC

    @property
    def compute_dtype(self) -> torch.dtype:
        """Of activations and logits: what `set_compute` was told, else that of the weights."""
        return self._compute_dtype or self.embed.dtype

    @property
    def head_weight(self) -> Tensor:
        """The weight of the head, which is the token embedding where they are tied."""
        return self.embed if self.head is None else self.head.weight

    def _logits(self, ids_BT: Tensor, state: DecodeState | None, last: bool = False) -> Tensor:
        hidden_BTC = self.hidden(ids_BT, state, last)
        return F.linear(hidden_BTC, cast(self.head_weight, hidden_BTC))

    def _embedded(
        self, ids_BT: Tensor, state: DecodeState | None, looked_up_BTC: Tensor | None
    ) -> Tensor:
        x_BTC = F.embedding(ids_BT, self.embed)
        if self.positions is not None:
            past = state.length if state else 0
            end = past + ids_BT.shape[1]
            self._check_end(end)
            x_BTC = x_BTC + self.positions[past:end]
        if looked_up_BTC is not None:
            x_BTC = x_BTC + looked_up_BTC
        elif len(self.ngrams):
            before_BP = state.before_BP if state else self.nothing_before(ids_BT)
            for table in self.ngrams:
                x_BTC = x_BTC + table(ids_BT, before_BP)
        x_BTC = x_BTC.to(self.compute_dtype)
        # as "Canon" layers, of the embeddings alone (Allen-Zhu 2025)
        if self.convolution is not None:
            tail = state.tail_BIC if state else None
            seen_BTC, tail = convolve(x_BTC, self.convolution, tail)
            x_BTC = x_BTC + seen_BTC
            if state:
                state.tail_BIC = tail
        return drop(x_BTC, self.config.dropout, self.training)

    def _check_end(self, end: int) -> None:
        if self.positions is not None and end > self.config.context:
            raise ValueError(f"{end} tokens, but positions are learned up to {self.config.context}")

    def nothing_before(self, ids_BT: Tensor) -> Tensor:
        return ids_BT.new_full((ids_BT.shape[0], max(self.config.ngrams, default=1) - 1), -1)

    def initialise(self, seed: int) -> Decoder:
        """Draw every parameter from (seed, its name); n-gram tables and the convolution over
        embeddings begin at zero."""
        special = {id(p) for m in self.modules() if isinstance(m, SSM) for p in m.vectors()}
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if id(parameter) in special:
                    continue
                if "norm" in name:
                    parameter.fill_(1.0 if name.endswith("weight") else 0.0)
                elif name.endswith("bias") or name.startswith(("ngrams", "convolution")):
                    parameter.zero_()
                else:
                    random = torch.Generator().manual_seed(key(seed, "init", name))
                    drawn = torch.empty(parameter.shape)
                    parameter.copy_(drawn.normal_(0, self._std(name), generator=random))
        for name, module in self.named_modules():
            if isinstance(module, SSM):
                module.initialise(torch.Generator().manual_seed(key(seed, "init", name)))
        return self

    def _std(self, name: str) -> float:
        """Of a parameter at the beginning: GPT-2's 0.02, less by √(2·layers) for the projections
        into the stream (Radford et al. 2019); embeddings as they are asked for."""
        if name in ("embed", "positions"):
            return self.config.embed_std
        into_stream = name.endswith(("out.weight", "down.weight"))
        return 0.02 / math.sqrt(2 * len(self.blocks)) if into_stream else 0.02

    def matrices(self) -> list[Tensor]:
        """The weights that every token is multiplied by."""
        tied: list[Tensor] = [] if self.head else [self.embed]
        return [module.weight for module in self.modules() if isinstance(module, Linear)] + tied

    def set_compute(self, dtype: torch.dtype, fused: bool) -> None:
        """Compute in `dtype`, with torch's fused attention kernel or with plain products."""
        self._compute_dtype = dtype
        for module in self.modules():
            if isinstance(module, Attention):
                module.fused = fused


@contextmanager
def in_float32(model: Decoder) -> Iterator[None]:
    """As a loaded model computes. One token at a time gains nothing from bfloat16 on a CPU, and
    takes twice as long (docs/lab-notes.md, E10)."""
    before, model._compute_dtype = model._compute_dtype, torch.float32
    try:
        yield
    finally:
        model._compute_dtype = before


def complete(model: Model) -> Model:
    """`model` with its zeros filled in and its choices checked against each other."""
    heads = model.kv_heads or model.heads
    hidden = model.feed_forward or 4 * model.width
    wrong = ""
    if model.width % model.heads:
        wrong = f"model.width = {model.width} is not a multiple of model.heads = {model.heads}"
    elif model.heads % heads:
        wrong = f"model.heads = {model.heads} is not a multiple of model.kv_heads = {heads}"
    elif model.position == "rope" and (model.width // model.heads) % 2:
        wrong = "model.position = rope needs an even head size (model.width / model.heads)"
    elif "S" in model.layers and (model.ssm_expand * model.width) % model.ssm_head:
        wrong = (
            f"the inner width of an S layer, {model.ssm_expand * model.width}, "
            f"is not a multiple of model.ssm_head = {model.ssm_head}"
        )
    elif not model.vocab_size:
        wrong = "model.vocab_size is not filled in"
    if wrong:
        raise UserError(wrong + ".")
    return msgspec.structs.replace(model, kv_heads=heads, feed_forward=hidden)


def count_parameters(model: Model) -> dict[str, int]:
    """Exact counts by part, and `total`; takes no memory."""
    with torch.device("meta"):
        decoder = Decoder(model)
    counts: dict[str, int] = {}
    for name, parameter in decoder.named_parameters():
        part = name.split(".")[0]
        part = "norms" if part == "norm" else part
        counts[part] = counts.get(part, 0) + parameter.numel()
    return {"total": sum(counts.values()), **counts}
