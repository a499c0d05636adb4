"""One update: the micro-steps, the clipped gradient, the optimizer step."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import torch

from ..config import Config
from ..keyed import key
from ..ledger import Ledger
from ..model.decoder import Decoder
from ..model.loss import losses, slice_rows
from ..schedule import rate
from ..text.batches import Batches
from .compiling import compiled
from .guard import SPIKE_Z, is_finite, spike_z
from .optimizers import Optimizers
from .rows import Touched, looked_up, touch

FAR = 10**6  # steps of a schedule whose end is far


class Update(msgspec.Struct):
    """What one update measured. `nats` is the sum of unsmoothed losses over its `tokens`."""

    nats: float
    objective: float  # the sum of what was minimised
    tokens: int
    grad_norm: float  # before clipping
    lr: float
    z: float = 0.0  # how far the loss stands above the recent ones
    skipped: str = ""  # why the weights were left as they were: non_finite, spike

    @property
    def loss(self) -> float:
        return self.nats / self.tokens


class Updater:
    """Model, optimizers and batches: everything that an update reads or changes."""

    def __init__(self, config: Config, train: np.ndarray, device: torch.device) -> None:
        self.config, self.device = config, device
        self.model = Decoder(config.model).to(device)
        self._dtype = torch.bfloat16 if config.train.dtype == "bfloat16" else torch.float32
        self.model.set_compute(self._dtype, fused=_fused(config, device))
        self._hidden = self.model.hidden
        if config.train.compile == "on":
            self._compile()
        self.batches = Batches(train, config.model.context, config.train.seed)
        self.ledger = ledger_of(config, len(train))
        self.reset()

    def _compile(self) -> None:
        """With the loss, where that is one slice on a CPU: small updates take 4 % less time. A loop
        of slices that the compiler takes for one is slow (docs/lab-notes.md, E71)."""
        model, train = self.config.model, self.config.train
        at_once = slice_rows(model.vocab_size, self.device)
        if self.device.type == "cpu" and train.micro_batch * model.context <= at_once:
            self._losses = compiled(self._losses, self.device)  # type: ignore[method-assign]
        else:
            self._hidden = compiled(self._hidden, self.device)

    def reset(self) -> None:
        """Back to step 0."""
        self.model.initialise(self.config.train.seed).train()
        self.optimizers = Optimizers(self.model, self.config.optimizer, self._dtype)

    def update(self, step: int, steps: int, shift: int = 0, recent: Sequence[float] = ()) -> Update:
        """Make update number `step` (1 … `steps`) on the sequences of that number plus `shift`.

        Loss and gradient norm are judged first: if they are not finite, or the loss is a spike
        above the `recent` ones and spikes are to be skipped, the weights stay as they are.
        """
        train = self.config.train
        rows = self.batches.batch((step - 1) * train.batch + shift, train.batch)
        ids = torch.from_numpy(rows).to(self.device, non_blocking=True)
        sums = []  # read only after the last micro-step: a GPU need not wait between them
        touched = touch(self.model, ids[:, :-1])
        for micro, begin in enumerate(range(0, len(ids), train.micro_batch)):
            here = slice(begin, begin + train.micro_batch)
            if self.config.model.dropout:
                torch.manual_seed(key(train.seed, "dropout", step, shift, micro))
            nll, minimised = self._losses(ids[here], looked_up(touched, here))
            (minimised / ids[:, 1:].numel()).backward()
            sums.append(torch.stack((nll, minimised.detach())))
        nats, objective = map(sum, zip(*torch.stack(sums).tolist(), strict=True))
        share = rate(self.config.schedule, step, steps)
        lr = self.config.optimizer.lr * share
        update = Update(nats, objective, ids[:, 1:].numel(), self._clip(touched), lr)
        update.z = spike_z(update.loss, recent) if is_finite(nats, 0.0) else 0.0
        if not is_finite(update.nats, update.grad_norm):
            update.skipped = "non_finite"
        elif train.skip_spikes and update.z > SPIKE_Z:
            update.skipped = "spike"
        if update.skipped:
            self.model.zero_grad(set_to_none=True)
        else:
            self.optimizers.step(share, touched)
        return update

    def _losses(
        self, ids_BU: torch.Tensor, looked_up_BTC: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sums over the tokens of a micro-batch: unsmoothed loss, and what is minimised."""
        smoothing = self.config.train.label_smoothing
        hidden_BTC = self._hidden(ids_BU[:, :-1], looked_up_BTC=looked_up_BTC)
        nll_BT, objective = losses(hidden_BTC, self.model.head_weight, ids_BU[:, 1:], smoothing)
        return nll_BT.sum(), objective

    def _clip(self, touched: list[Touched]) -> float:
        """The norm of the gradient, which is shortened to the limit where it is longer."""
        leaves = [*self.model.parameters(), *(part.values for part in touched)]
        norm = torch.nn.utils.get_total_norm([p.grad for p in leaves if p.grad is not None])
        limit = self.config.optimizer.clip
        if limit and norm > limit:
            torch.nn.utils.clip_grads_with_norm_(leaves, limit, norm)
        return float(norm)


def _fused(config: Config, device: torch.device) -> bool:
    if config.train.attention == "auto":
        return prefers_fused(device, config.train.dtype, config.model.context)
    return config.train.attention == "fused"


def prefers_fused(device: torch.device, dtype: str, context: int) -> bool:
    """Whether torch's fused attention kernel is the faster one: on a CPU only in float32 over long
    contexts (at 64 plain products make updates 1.8 times as fast, at 1,024 the kernel 1.1 times;
    docs/lab-notes.md, E04)."""
    return device.type != "cpu" or (dtype == "float32" and context >= 512)


def ledger_of(config: Config, train_tokens: int) -> Ledger:
    return Ledger(
        batch=config.train.batch,
        micro_batch=config.train.micro_batch,
        context=config.model.context,
        train_tokens=train_tokens,
    )
