"""One token at a time in compiled code: `token.c`, built once for a processor, bound to a state.

torch takes 3 to 10 µs to begin an operation, and a token of a small model is a hundred of them. It
does them all the same where no C compiler is, on another device, in another dtype.
"""

from __future__ import annotations

import hashlib
import math
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cffi
import torch
from torch import Tensor

from ..errors import UserError
from ..runfolder import fsync_path
from ..text.cache import Cache
from .attention import Attention, AttentionState, alibi_slopes, rope_tables
from .layers import Linear, Norm
from .ssm import SSM, SSMState

if TYPE_CHECKING:
    from .decoder import DecodeState

SOURCE, HEADER = (Path(__file__).with_name(name) for name in ("token.c", "token.h"))
# Sums may be taken in any order, which is what lets a compiler use vectors. Not -ffast-math: a
# library linked with it has the whole process round small numbers to zero.
FLAGS = ["-O3", "-fPIC", "-shared", "-fassociative-math", "-fno-signed-zeros"]
FLAGS += ["-fno-trapping-math", "-fno-math-errno"]
# what a compiler may not know
TRIED: tuple[list[str], ...] = (["-march=native", "-fopenmp"], ["-march=native"], [])
SECONDS = 60  # that it may take
PAUSES = (64, 1024)  # tokens
BADLY = 3  # times as long as by one thread
ROWS = 4  # of a batch; with more, torch's products are as quick (docs/lab-notes.md, 2026-11-22)


def bind(state: DecodeState) -> Token | None:
    """What computes one more token after `state`, or None where torch has to."""
    model = state.model
    dtypes = {model.compute_dtype, *(p.dtype for p in model.parameters())}
    few_on_cpu = len(state.before_BP) <= ROWS and model.embed.device.type == "cpu"
    if not few_on_cpu or dtypes != {torch.float32}:
        return None
    library = load()
    return Token(_declarations(), library, state) if library else None


class Pace:
    """How many threads the next token gets: all of them, unless that goes badly.

    They wait for each other some five times a layer. Where another program has a core, a wait takes
    as long as its turn, milliseconds: then one thread goes on alone, and all are tried again after
    64 tokens, 128, … 1,024. The bits are the same."""

    def __init__(self, all_threads: int) -> None:
        self._all, self._alone = all_threads, math.inf  # seconds of a token by one thread
        self._left, self._pause = 2, PAUSES[0]  # tokens; the first one finds nothing in the caches

    @property
    def threads(self) -> int:
        """Of the next token."""
        return 1 if self._left else self._all

    def took(self, seconds: float) -> None:
        """A token with `threads`."""
        if self._left:
            self._alone, self._left = seconds, self._left - 1
        elif seconds > BADLY * self._alone:
            self._left, self._pause = self._pause, min(2 * self._pause, PAUSES[1])
        else:
            self._pause = PAUSES[0]


class Token:
    """`token(ids_B1)`: the logits `[B, 1, V]` of one more token after a state, which it changes as
    `Decoder.decode` does. Bound to where weights and state lie now, up to `end` tokens."""

    def __init__(self, c: cffi.FFI, library: Any, state: DecodeState) -> None:
        self._c, self._library, self._state = c, library, state
        self._kept: list[Any] = []  # what the structures point to
        for layer in state.layers:
            layer.make_room()
        rooms = [s.capacity for s in state.layers if isinstance(s, AttentionState)]
        self.end = min(rooms, default=2**31 - 1)
        state.before_BP = state.before_BP.clone()  # shifted in place
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
                "layers": len(model.blocks),
                "layer": self._array("Layer[]", map(self._layer, model.blocks, state.layers)),
                "norm": self._norm(model.norm),
                "head": self._linear(model.head_weight, None),
            },
        )

    def __call__(self, ids_B1: Tensor) -> Tensor:
        state, pace = self._state, self._state.pace
        assert state.length < self.end
        ids_B1, logits_B1V = ids_B1.long().contiguous(), torch.empty(self._shape)
        begin = time.perf_counter()
        failed = self._library.token(
            self._decoder,
            self._c.cast("int64_t *", ids_B1.data_ptr()),
            state.length,
            pace.threads,
            self._c.cast("float *", logits_B1V.data_ptr()),
        )
        pace.took(time.perf_counter() - begin)
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
            slopes = torch.tensor(alibi_slopes(mixer.heads))
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
            "tail": self._at(state.tail_BJE),
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


@cache
def _declarations() -> cffi.FFI:
    c = cffi.FFI()
    c.cdef(HEADER.read_text())
    return c


@cache
def load() -> Any:
    """`token.c` compiled for this processor, or None where that cannot be."""
    compiler = shlex.split(os.environ.get("CC") or "cc")
    if not shutil.which(compiler[0]) or _asks_for_tools():
        return None
    made_of = [SOURCE.read_text(), HEADER.read_text(), _processor(), compiler, FLAGS, TRIED]
    key = hashlib.sha256(repr(made_of).encode()).hexdigest()[:32]
    with suppress(UserError, OSError, subprocess.SubprocessError):
        path = Cache().native / f"{key}.so"
        with suppress(OSError):  # not there, or damaged
            return _declarations().dlopen(str(path))
        _build(compiler, path)
        return _declarations().dlopen(str(path))
    return None


def _build(compiler: list[str], path: Path) -> None:
    """Compile `token.c` into `path`, which is complete or not there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    for more in TRIED:
        command = [*compiler, *FLAGS, *more, str(SOURCE), "-o", str(temporary), "-lm"]
        if subprocess.run(command, capture_output=True, timeout=SECONDS).returncode == 0:
            fsync_path(temporary)
            temporary.replace(path)
            return


def _asks_for_tools() -> bool:
    """Whether `cc` is that of a Mac without developer tools, which opens a window to offer them."""
    return sys.platform == "darwin" and bool(
        subprocess.run(["xcode-select", "-p"], capture_output=True).returncode
    )


def _processor() -> str:
    """What the processor can do, which the code is compiled for."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return line
    return f"{platform.machine()} {platform.processor()} {platform.node()}"
