"""Updates and decodings on a device whose tensors have shapes and no numbers.

The device is torch's own for backends written in Python. As on a GPU, an operation of tensors of
two devices is an error. It has to be there before the first gradient of a process: so this is a
program, which test_devices.py runs.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorDeviceMismatchError, FakeTensorMode
from torch.utils import backend_registration

from overnight.config import Config, Model, Train
from overnight.model.decoder import Decoder
from overnight.training.rows import Touched, looked_up
from overnight.training.update import Updater

TINY = Model(layers="A", width=16, heads=2, context=8, vocab_size=11, ssm_head=8)
GRAMMARS: list[dict[str, Any]] = [
    {"position": "alibi", "ngrams": [2, 3], "embed_conv": True, "tied": False},
    {"position": "learned", "dropout": 0.1, "norm": "layer", "attention": "plain"},
    {"position": "rope", "qk_norm": True, "mlp": "swiglu", "kv_heads": 1},
    {"layers": "SA", "embed_conv": True},
]


def main() -> None:
    backend_registration._setup_privateuseone_for_python_backend("gpu")
    make = torch.tensor  # which such a device has no kernel for
    torch.tensor = lambda data, *, device="cpu", **more: make(data, **more).to(device)
    Decoder.to = lambda model, device: model  # type: ignore[method-assign]  # it is made there
    gpu = torch.device("gpu")
    with FakeTensorMode(allow_non_fake_inputs=True):
        two_devices_do_not_mix(gpu)
        for grammar in GRAMMARS:
            ours = updater(gpu, **grammar)
            update(ours)
            decode(ours.model.eval())


def two_devices_do_not_mix(gpu: torch.device) -> None:
    try:
        torch.ones(2, 2).to(gpu) @ torch.ones(2, 2)
    except FakeTensorDeviceMismatchError:
        return
    raise AssertionError("tensors of two devices were multiplied")


def updater(device: torch.device, attention: str = "fused", **grammar: Any) -> Updater:
    config = Config(
        model=msgspec.structs.replace(TINY, **grammar),
        train=Train(batch=4, micro_batch=4, dtype="bfloat16", attention=attention, compile="off"),
    )
    tokens = np.random.default_rng(0).integers(0, 11, 400).astype(np.uint16)
    with device:
        return Updater(config, tokens, device)


def update(ours: Updater) -> None:
    ids = torch.from_numpy(ours.batches.batch(0, 4)).to(ours.device)
    rows = touched(ours.model, ids[:, :-1])
    nats, objective = ours._losses(ids, looked_up(rows, slice(None)))
    objective.backward()
    ours.optimizers.step(0.5, rows)
    tensors = [nats, *ours.model.state_dict().values(), *ours.optimizers.state().values()]
    assert {tensor.device.type for tensor in tensors if tensor.dim()} <= {"gpu"}


def touched(model: Decoder, ids_BT: torch.Tensor) -> list[Touched]:
    """As `rows.touch` gives it; how many rows are different is not known without numbers."""
    found = []
    for table in model.ngrams:
        places_BT = torch.zeros_like(table.rows_of(ids_BT, model.nothing_before(ids_BT)))
        values_UC = table.weight.detach()[:3].clone().requires_grad_()
        found.append(Touched(torch.arange(3).to(ids_BT.device), values_UC, places_BT))
    return found


@torch.no_grad()
def decode(model: Decoder) -> None:
    device = model.embed.device
    logits, state = model.decode(torch.zeros(2, 5, dtype=torch.long).to(device))
    logits, state = model.decode(torch.zeros(2, 1, dtype=torch.long).to(device), state)
    assert (logits.device, state.length) == (device, 6)


if __name__ == "__main__":
    main()
