"""State-space layer: Mamba-2's selective state space (Dao & Gu 2024), in chunks.

Each head h keeps a state S (P × N) and does, token by token,

    S ← exp(Δ·A)·S + Δ·x Bᵀ,     y = S·C + D·x,

with a scalar A < 0 per head and Δ, B, C, x computed from the token. Training uses the dual form:
within a chunk the sum over earlier tokens is a masked matrix product, between chunks the state is
carried; so everything but a cumulative sum is matrix products, the same code on every device.
Shapes: B batch, T time, E inner width = H heads × P, N state size, K chunks of L tokens.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import Model
from .layers import CONVOLUTION, Linear, Norm, Part, cast, convolve, drop

CHUNK = 64  # tokens; the fastest to train of 16 … 256 at width 256 on a CPU
STEP_RANGE = (1e-3, 1e-1)  # Δ at the beginning, log-uniform over heads
DECAY_RANGE = (1.0, 16.0)  # −A at the beginning, uniform over heads


class SSMState:
    """The last inputs of the convolution, the state of each head, and the tokens seen."""

    def __init__(self) -> None:
        self.length = 0
        self.tail_BIM: Tensor | None = None  # I = CONVOLUTION − 1
        self.state_BHPN: Tensor | None = None

    def tensors(self) -> list[Tensor]:
        return [part for part in (self.tail_BIM, self.state_BHPN) if part is not None]

    def make_room(self) -> None:
        """To be changed in place, where `native` does."""
        self.tail_BIM, self.state_BHPN = (part.contiguous() for part in self.tensors())


class SSM(Part):
    """Projection in (gate z, convolved x B C, step Δ), scan, gated RMS norm, projection out."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.inner = model.ssm_expand * model.width
        self.size, self.heads = model.ssm_head, self.inner // model.ssm_head
        self.state = model.ssm_state
        mixed = self.inner + 2 * self.state
        self.split = [self.inner, mixed, self.heads]  # of z, what is convolved, Δ
        self.mixed_split = [self.inner, self.state, self.state]  # of x, B, C
        self.into = Linear(model.width, *self.split, bias=model.bias)
        self.convolution = nn.Parameter(torch.empty(CONVOLUTION, mixed))
        self.convolution_bias = nn.Parameter(torch.empty(mixed))
        self.step_bias = nn.Parameter(torch.empty(self.heads))
        self.decay_log = nn.Parameter(torch.empty(self.heads))
        self.skip = nn.Parameter(torch.empty(self.heads))
        self.norm = Norm(model, self.inner, rms=True)
        self.out = Linear(self.inner, model.width, bias=model.bias)
        self.dropout = model.dropout

    def vectors(self) -> list[nn.Parameter]:
        """The parameters that are not matrix products' weights."""
        names = ("convolution", "convolution_bias", "step_bias", "decay_log", "skip")
        return [getattr(self, name) for name in names]

    @torch.no_grad()
    def initialise(self, random: torch.Generator) -> None:
        """Draw `vectors` as Mamba-2 begins."""
        low, high = map(math.log, STEP_RANGE)
        step = torch.exp(torch.empty(self.heads).uniform_(low, high, generator=random))
        self.step_bias.copy_(step + torch.log(-torch.expm1(-step)))  # softplus⁻¹
        self.decay_log.copy_(torch.empty(self.heads).uniform_(*DECAY_RANGE, generator=random).log())
        self.skip.fill_(1.0)
        bound = 1 / math.sqrt(CONVOLUTION)
        weights = torch.empty(self.convolution.shape).uniform_(-bound, bound, generator=random)
        self.convolution.copy_(weights)
        self.convolution_bias.zero_()

    def forward(self, x_BTC: Tensor, state: SSMState | None = None) -> Tensor:
        B, T, _ = x_BTC.shape
        z_BTE, mixed_BTM, step_BTH = self.into(x_BTC).split_with_sizes(self.split, -1)
        tail = state.tail_BIM if state else None
        mixed_BTM, tail = convolve(mixed_BTM, self.convolution, tail)
        mixed_BTM = F.silu(mixed_BTM + cast(self.convolution_bias, mixed_BTM))
        x_BTE, b_BTN, c_BTN = mixed_BTM.split_with_sizes(self.mixed_split, -1)
        x_BTHP = x_BTE.view(B, T, self.heads, self.size)
        # steps and decays are summed and exponentiated: wide, as the parameters are
        step_BTH = F.softplus(step_BTH + self.step_bias)
        decay_BTH = -torch.exp(self.decay_log) * step_BTH
        before = state.state_BHPN if state else None
        y_BTHP, after = scan(x_BTHP, step_BTH, decay_BTH, b_BTN, c_BTN, before)
        if state:
            state.tail_BIM, state.state_BHPN = tail, after
            state.length += T
        y_BTHP = torch.addcmul(y_BTHP, cast(self.skip, x_BTHP)[:, None], x_BTHP)
        y_BTE = self.norm(y_BTHP.reshape(B, T, self.inner) * F.silu(z_BTE))
        return drop(self.out(y_BTE), self.dropout, self.training)


def scan(
    x_BTHP: Tensor,
    step_BTH: Tensor,
    decay_BTH: Tensor,
    b_BTN: Tensor,
    c_BTN: Tensor,
    before_BHPN: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """y `[B, T, H, P]` and the state after the last token `[B, H, P, N]` (float32 or float64).

    `decay` is Δ·A ≤ 0. One token is one step of the recurrence; more go in chunks.
    """
    B, T, H, P = x_BTHP.shape
    if before_BHPN is None:
        before_BHPN = step_BTH.new_zeros(B, H, P, b_BTN.shape[-1])
    if T == 1:
        return _one(x_BTHP, step_BTH, decay_BTH, b_BTN, c_BTN, before_BHPN)
    L = min(CHUNK, T)
    missing = -T % L

    def chunked(part: Tensor) -> Tensor:
        """Filled up with zeros (Δ = 0 keeps the state as it is), `[B, K, L, …]`."""
        after = (0, 0) * (part.dim() - 2) + (0, missing)
        part = F.pad(part, after) if missing else part
        return part.view(B, -1, L, *part.shape[2:])

    y_BKLHP, after = _chunks(
        chunked(x_BTHP),
        chunked(step_BTH),
        chunked(decay_BTH),
        chunked(b_BTN),
        chunked(c_BTN),
        before_BHPN,
    )
    return y_BKLHP.flatten(1, 2)[:, :T], after


def _one(
    x_BTHP: Tensor, step_BTH: Tensor, decay_BTH: Tensor, b_BTN: Tensor, c_BTN: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    into_BHP1 = (step_BTH[:, 0, :, None] * x_BTHP[:, 0])[..., None]
    kept_BH11 = decay_BTH[:, 0, :, None, None].exp()
    state = torch.addcmul(kept_BH11 * state, into_BHP1, cast(b_BTN, state)[:, None])
    y_BE1 = state.flatten(1, 2) @ cast(c_BTN, state).transpose(1, 2)
    return cast(y_BE1.view(x_BTHP.shape), x_BTHP), state


def _chunks(
    x_BKLHP: Tensor,
    step_BKLH: Tensor,
    decay_BKLH: Tensor,
    b_BKLN: Tensor,
    c_BKLN: Tensor,
    state_BHPN: Tensor,
) -> tuple[Tensor, Tensor]:
    dtype = x_BKLHP.dtype
    x_BKHLP = x_BKLHP.transpose(2, 3)
    step_BKHL = step_BKLH.transpose(2, 3)
    sum_BKHL = decay_BKLH.transpose(2, 3).cumsum(-1)
    L = sum_BKHL.shape[-1]
    # within a chunk: y_i = Σ_{j ≤ i} (c_i·b_j) exp(sum_i − sum_j) Δ_j x_j
    between = sum_BKHL[..., :, None] - sum_BKHL[..., None, :]
    future = torch.ones(L, L, dtype=torch.bool, device=x_BKLHP.device).triu(1)
    weight_BKHLL = between.masked_fill(future, -torch.inf).exp() * step_BKHL[..., None, :]
    scores_BK1LL = (c_BKLN @ b_BKLN.transpose(-1, -2))[:, :, None]
    y_BKHLP = (scores_BK1LL * weight_BKHLL.to(dtype)) @ x_BKHLP
    # what each chunk adds to the state, and what the state before it gives each token
    to_end_BKHL = (sum_BKHL[..., -1:] - sum_BKHL).exp() * step_BKHL
    weighted_BKHLP = x_BKHLP * to_end_BKHL[..., None].to(dtype)
    added_BKHPN = weighted_BKHLP.transpose(-1, -2) @ b_BKLN[:, :, None]
    states = []
    for k in range(sum_BKHL.shape[1]):
        states.append(state_BHPN)
        kept_BH11 = sum_BKHL[:, k, :, -1].exp()[..., None, None]
        state_BHPN = kept_BH11 * state_BHPN + added_BKHPN[:, k]
    before_BKHNP = torch.stack(states, 1).to(dtype).transpose(-1, -2)
    carried_BKHLP = (c_BKLN[:, :, None] @ before_BKHNP) * sum_BKHL.exp()[..., None].to(dtype)
    return (y_BKHLP + carried_BKHLP).transpose(2, 3), state_BHPN
