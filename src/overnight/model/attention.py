"""Causal self-attention: multi-head or grouped-query, with RoPE, ALiBi, or neither.

Shapes: B batch, T new tokens, S all tokens so far, C width, H heads, K key/value heads, D head.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from ..config import Model
from .layers import Linear, Part, drop, rms_norm


class AttentionState:
    """Keys and values of the tokens so far, in buffers that double when full."""

    def __init__(self) -> None:
        self.length = 0
        self.kv = torch.empty(0)  # [2, B, K, capacity, D]

    @property
    def capacity(self) -> int:
        return self.kv.shape[3] if self.length else 0

    def append(self, k_BKTD: Tensor, v_BKTD: Tensor) -> tuple[Tensor, ...]:
        """Store the new keys and values; all of them, `[B, K, S, D]` each."""
        new = k_BKTD.shape[2]
        end = self.length + new
        if end > self.capacity:
            self._grow(k_BKTD, end)
        torch.stack((k_BKTD, v_BKTD), out=self.kv.narrow(3, self.length, new))
        self.length = end
        return self.kv.narrow(3, 0, end).unbind()

    def tensors(self) -> list[Tensor]:
        return [self.kv]

    def make_room(self) -> None:
        """For one token at least, where `native` writes it."""
        if self.length == self.capacity:
            self._grow(self.kv[0], self.length + 1)

    def _grow(self, like_BKTD: Tensor, end: int) -> None:
        batch, heads, _, size = like_BKTD.shape
        kv = like_BKTD.new_zeros(2, batch, heads, max(64, 2 * end), size)
        if self.length:
            kv[:, :, :, : self.length] = self.kv[:, :, :, : self.length]
        self.kv = kv


class Attention(Part):
    """Projections in, scaled dot products, projection out."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.heads, self.kv_heads = model.heads, model.kv_heads
        self.size = model.width // model.heads
        self.position, self.rope_base = model.position, model.rope_base
        self.qk_norm, self.norm_eps = model.qk_norm, model.norm_eps
        self.dropout = model.dropout
        self.split = [self.heads, self.kv_heads, self.kv_heads]  # of q, k, v
        self.qkv = Linear(model.width, *(n * self.size for n in self.split), bias=model.bias)
        self.out = Linear(self.heads * self.size, model.width, bias=model.bias)
        self.fused = True  # torch's fused kernel; False: plain matrix products (see `attend`)

    def forward(self, x_BTC: Tensor, state: AttentionState | None = None) -> Tensor:
        B, T, _ = x_BTC.shape
        past = state.length if state else 0
        # split after the heads are apart: the gradient is put together in one copy instead of two
        heads_BNTD = self.qkv(x_BTC).view(B, T, -1, self.size).transpose(1, 2)
        q, k, v = heads_BNTD.split_with_sizes(self.split, dim=1)
        if self.qk_norm:  # a rotation keeps the norm, so before or after RoPE is the same
            q, k = (rms_norm(part, None, self.norm_eps) for part in (q, k))
        if self.position == "rope":
            q, k = rotate(q, past, self.rope_base), rotate(k, past, self.rope_base)
        if state:
            k, v = state.append(k, v)
        y_BHTD = self.attend(q, k, v)
        y_BTC = y_BHTD.transpose(1, 2).reshape(B, T, -1)
        return drop(self.out(y_BTC), self.dropout, self.training)

    def attend(self, q_BHTD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor) -> Tensor:
        """Attention of the last T of S tokens. Plain products and the fused kernel agree to
        rounding; on a CPU the fused one is slow in bfloat16."""
        T, S = q_BHTD.shape[2], k_BKSD.shape[2]
        groups = self.heads // self.kv_heads
        dropout = self.dropout if self.training else 0.0
        bias_HTS = self._bias(T, S, q_BHTD)
        if self.fused:
            causal = bias_HTS is None and T > 1
            return F.scaled_dot_product_attention(
                q_BHTD,
                k_BKSD,
                v_BKSD,
                attn_mask=bias_HTS,
                dropout_p=dropout,
                is_causal=causal,
                enable_gqa=groups > 1,
            )
        k_BHSD, v_BHSD = (x.repeat_interleave(groups, 1) for x in (k_BKSD, v_BKSD))
        # a product copies operands that are not contiguous, a transposed one slowly
        q_BHTD, k_BHSD, v_BHSD = (x.contiguous() for x in (q_BHTD, k_BHSD, v_BHSD))
        if bias_HTS is None and T > 1:
            bias_HTS = causal_bias(T, S, None, q_BHTD.dtype, q_BHTD.device)
        elif bias_HTS is None:
            bias_HTS = q_BHTD.new_zeros(1, 1, 1)
        scores_BHTS = torch.baddbmm(  # scale, product and bias in one pass over the scores
            bias_HTS.expand(len(q_BHTD), self.heads, T, S).flatten(0, 1),
            q_BHTD.flatten(0, 1),
            k_BHSD.flatten(0, 1).transpose(-1, -2),
            alpha=1 / math.sqrt(self.size),
        ).unflatten(0, (-1, self.heads))
        return drop(scores_BHTS.softmax(-1), self.dropout, self.training) @ v_BHSD

    def _bias(self, T: int, S: int, like: Tensor) -> Tensor | None:
        """What is added to the scores, or None where plain causality (T = S) or nothing (T = 1)
        is meant."""
        alibi = self.heads if self.position == "alibi" else None
        if alibi is None and (T == S or T == 1):
            return None
        return causal_bias(T, S, alibi, like.dtype, like.device)


@lru_cache(maxsize=4)  # each prompt length makes one
@torch.inference_mode(False)  # what decoding makes, training may take
def _causal_bias(
    T: int, S: int, alibi_heads: int | None, dtype: torch.dtype, device: torch.device
) -> Tensor:
    i_T1 = torch.arange(S - T, S, device=device)[:, None]
    j_1S = torch.arange(S, device=device)[None, :]
    if alibi_heads:
        slopes_H11 = torch.tensor(alibi_slopes(alibi_heads), device=device)[:, None, None]
        bias = slopes_H11 * (j_1S - i_T1).float()
    else:
        bias = torch.zeros(1, T, S, device=device)
    return bias.masked_fill(j_1S > i_T1, -torch.inf).to(dtype)


def causal_bias(
    T: int, S: int, alibi_heads: int | None, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """`[H or 1, T, S]`: −∞ where a query (the last T of S) must not look, 0 or ALiBi elsewhere.

    Kept for the few shapes of training; decoding with ALiBi slices the last row's one instead of
    filling the cache with a shape per token.
    """
    if T == 1 and alibi_heads:
        capacity = max(64, 1 << (S - 1).bit_length())
        return _causal_bias(1, capacity, alibi_heads, dtype, device)[..., capacity - S :]
    return _causal_bias(T, S, alibi_heads, dtype, device)


def alibi_slopes(heads: int) -> list[float]:
    """Slopes of Press et al. 2022: a geometric sequence, for other than powers of two filled up
    from the sequence of the next power."""

    def powers(n: int) -> list[float]:
        return [2.0 ** (-8.0 * (i + 1) / n) for i in range(n)]

    above = 1 << (heads - 1).bit_length()
    if above == heads:
        return powers(heads)
    both = powers(above)
    return (both[1::2] + both[0::2])[:heads]


def rope_tables(end: int, size: int, base: float, device: torch.device) -> tuple[Tensor, ...]:
    """cos and sin of `end` positions or more, `[capacity, D]`, always from float32 angles, as other
    implementations have."""
    return _rope_tables(max(64, 1 << (end - 1).bit_length()), size, base, device)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _rope_tables(capacity: int, size: int, base: float, device: torch.device) -> tuple[Tensor, ...]:
    inverse = 1.0 / (base ** (torch.arange(0, size, 2, dtype=torch.int64).to(torch.float32) / size))
    angles = torch.arange(capacity, dtype=torch.float32)[:, None] * inverse[None, :]
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos().to(device), angles.sin().to(device)


def rotate(x_BHTD: Tensor, past: int, base: float) -> Tensor:
    """Rotary position embedding (Su et al. 2021), halves rotated against each other."""
    end = past + x_BHTD.shape[2]
    tables = rope_tables(end, x_BHTD.shape[3], base, x_BHTD.device)
    cos, sin = (table[past:end].to(x_BHTD.dtype) for table in tables)
    a, b = x_BHTD.chunk(2, dim=-1)
    return x_BHTD * cos + torch.cat([-b, a], dim=-1) * sin
