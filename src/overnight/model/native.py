"""One token at a time in compiled code: `token.c`, bound to the weights and state of a model.

torch takes 3 to 10 µs to begin an operation, and a token of a small model is a hundred of them. It
does them all the same where no C compiler is, on another device, in another dtype.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .attention import Attention, AttentionState, alibi_slopes, rope_tables
from .layers import Linear, Norm
from .library import declarations, load
from .ssm import SSM, SSMState

if TYPE_CHECKING:
    from .decoder import DecodeState

FIRST_ALONE, PAUSES = 4, (64, 1024)  # tokens by one thread
PATIENCE = 4  # tokens' time that several threads may lose
ROWS = 4  # of a batch; with more, torch's products are as quick (docs/lab-notes.md, E44)


def can_compute(state: DecodeState) -> bool:
    """Whether single tokens after `state` can be computed here at all."""
    model = state.model
    return (
        len(state.before_BP) <= ROWS
        and model.embed.device.type == "cpu"
        and {model.compute_dtype, *(p.dtype for p in model.parameters())} == {torch.float32}
        and load() is not None
    )


def bind(state: DecodeState) -> Token | None:
    """What computes single tokens after `state`, unless that was computed in another dtype."""
    ours = state.before_BP.dtype == torch.int64 and all(
        tensor.dtype == torch.float32 for layer in state.layers for tensor in layer.tensors()
    )
    return Token(load(), state) if ours else None


class Pace:
    """How many threads the next token gets: all of them, as long as one alone is no quicker.

    They wait for each other some five times a layer. Where another program has a core, a wait takes
    as long as its turn, milliseconds. So the time that all lose against one is added up, and what
    they win taken off; when four tokens' worth is lost, one goes on alone for 64 tokens, and next
    time for 128, … 1,024. The bits are the same."""

    def __init__(self, all_threads: int) -> None:
        self._all = all_threads
        self._left, self._pause = FIRST_ALONE, PAUSES[0]  # tokens: alone now, in the next pause
        self._forget()

    def _forget(self) -> None:
        self._alone, self._lost, self._together = math.inf, 0.0, 0  # seconds, seconds, tokens

    @property
    def threads(self) -> int:
        """Of the next token."""
        return 1 if self._left else self._all

    def took(self, seconds: float) -> None:
        """A token with `threads`."""
        if self._left:
            self._alone, self._left = min(self._alone, seconds), self._left - 1
            return
        self._together += 1
        self._lost = max(0.0, self._lost + seconds - self._alone)
        if self._lost > PATIENCE * self._alone:
            self._left = PAUSES[0] if self._together >= self._pause else self._pause
            self._pause = min(2 * self._left, PAUSES[1])
            self._forget()


class Token:
    """`token(ids_B1, state)`: the logits `[B, 1, V]` of one more token after the state it was made
    for, which it changes as `Decoder.decode` does. Bound to where weights and state lie: weights
    must stay there, and there is room up to `end` tokens."""

    def __init__(self, library: Any, state: DecodeState) -> None:
        self._c, self._library = declarations(), library
        self._kept: list[Any] = []  # what the structures point to
        state.make_room()
        rooms = [s.capacity for s in state.layers if isinstance(s, AttentionState)]
        self.end = min(rooms, default=2**31 - 1)
        model, settings = state.model, state.model.config
        self._shape = (len(state.before_BP), 1, settings.vocab_size)
        self._decoder = self._c.new(
            "Decoder *",
            {
                "batch": len(state.before_BP),
                "width": settings.width,
                "vocabulary": settings.vocab_size,
                "embed": self._at(model.embed),
                "positions": self._at(model.positions),
                "tables": len(model.ngrams),
                "before": state.before_BP.shape[1],
                "table": self._array("NgramTable[]", map(self._table, model.ngrams)),
                "seen": self._c.cast("int64_t *", state.before_BP.data_ptr()),
                "convolution": self._at(model.convolution),
                "tail": self._at(state.tail_BIC),
                "layers": len(model.blocks),
                "layer": self._array("Layer[]", map(self._layer, model.blocks, state.layers)),
                "norm": self._norm(model.norm),
                "head": self._linear(model.head_weight, None),
            },
        )

    def __call__(self, ids_B1: Tensor, state: DecodeState) -> Tensor:
        ids_B1 = ids_B1.contiguous()
        logits_B1V = torch.empty(self._shape, dtype=torch.float32, device="cpu")
        begin = time.perf_counter()
        failed = self._library.token(
            self._decoder,
            self._c.cast("int64_t *", ids_B1.data_ptr()),
            state.length,
            state.pace.threads,
            self._c.cast("float *", logits_B1V.data_ptr()),
        )
        state.pace.took(time.perf_counter() - begin)
        if failed:
            raise MemoryError if failed == 2 else IndexError("an id is none of the vocabulary")
        for layer in state.layers:
            layer.length += 1
        return logits_B1V

    def _layer(self, block: Any, state: Any) -> dict[str, Any]:
        layer: dict[str, Any] = {"norm": self._norm(block.norm)}
        if block.mlp is not None:
            layer["mlp_norm"] = self._norm(block.mlp_norm)
            layer["mlp"] = {
                "activation": getattr(self._library, block.mlp.kind),
                "up": self._map(block.mlp.up),
                "down": self._map(block.mlp.down),
            }
        if isinstance(block.mixer, Attention):
            return layer | {"attends": 1, "attention": self._attention(block.mixer, state)}
        return layer | {"attends": 0, "state_space": self._state_space(block.mixer, state)}

    def _attention(self, mixer: Attention, state: AttentionState) -> dict[str, Any]:
        cos = sin = slopes = None
        if mixer.position == "rope":
            device = torch.device("cpu")
            cos, sin = rope_tables(state.capacity, mixer.size, mixer.rope_base, device)
        if mixer.position == "alibi":
            slopes = torch.tensor(alibi_slopes(mixer.heads), dtype=torch.float32, device="cpu")
        qk_norm = {"eps": mixer.norm_eps, "rms": 1, "width": mixer.size if mixer.qk_norm else 0}
        return {
            "heads": mixer.heads,
            "kv_heads": mixer.kv_heads,
            "size": mixer.size,
            "qkv": self._map(mixer.qkv),
            "out": self._map(mixer.out),
            "qk_norm": qk_norm,
            "cos": self._at(cos),
            "sin": self._at(sin),
            "slopes": self._at(slopes),
            "kv": self._at(state.kv),
            "capacity": state.capacity,
        }

    def _state_space(self, mixer: SSM, state: SSMState) -> dict[str, Any]:
        return {
            "heads": mixer.heads,
            "size": mixer.size,
            "state": mixer.state,
            "into": self._map(mixer.into),
            "out": self._map(mixer.out),
            "convolution": self._at(mixer.convolution),
            "convolution_bias": self._at(mixer.convolution_bias),
            "step_bias": self._at(mixer.step_bias),
            "decay_log": self._at(mixer.decay_log),
            "skip": self._at(mixer.skip),
            "norm": self._norm(mixer.norm),
            "tail": self._at(state.tail_BIM),
            "memory": self._at(state.state_BHPN),
        }

    def _table(self, table: Any) -> dict[str, Any]:
        return {"order": table.order, "rows": table.rows, "weight": self._at(table.weight)}

    def _norm(self, norm: Norm) -> dict[str, Any]:
        return {
            "weight": self._at(norm.weight),
            "bias": self._at(norm.bias),
            "eps": norm.eps,
            "rms": norm.rms,
            "width": len(norm.weight),
        }

    def _map(self, linear: Linear) -> dict[str, Any]:
        return self._linear(linear.weight, linear.bias)

    def _linear(self, weight: Tensor, bias: Tensor | None) -> dict[str, Any]:
        out, into = weight.shape
        return {"weight": self._at(weight), "bias": self._at(bias), "in": into, "out": out}

    def _array(self, kind: str, items: Iterable[dict[str, Any]]) -> Any:
        self._kept.append(self._c.new(kind, list(items)))
        return self._kept[-1]

    def _at(self, tensor: Tensor | None) -> Any:
        if tensor is None:
            return self._c.NULL
        self._kept.append(tensor.detach().contiguous())
        return self._c.cast("float *", self._kept[-1].data_ptr())
