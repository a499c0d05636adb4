"""Nothing that an update or a decoding needs stays behind on the CPU.

No GPU is at hand in tests. The device here is torch's own for backends written in Python, with
tensors that have shapes and a device, and no numbers: products of two devices are errors, as on a
GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
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


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    if torch._C._get_privateuse1_backend_name() != "gpu":
        backend_registration._setup_privateuseone_for_python_backend("gpu")
    made = torch.tensor  # which no such device has a kernel for

    def tensor(data: Any, *, device: Any = None, **more: Any) -> torch.Tensor:
        return made(data, **more).to(device or "cpu")

    monkeypatch.setattr(torch, "tensor", tensor)
    monkeypatch.setattr(Decoder, "to", lambda model, device: model)  # it is made there
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield torch.device("gpu")


def updater(device: torch.device, attention: str = "fused", **grammar: Any) -> Updater:
    config = Config(
        model=msgspec.structs.replace(TINY, **grammar),
        train=Train(batch=4, micro_batch=4, dtype="bfloat16", attention=attention, compile="off"),
    )
    tokens = np.random.default_rng(0).integers(0, 11, 400).astype(np.uint16)
    with device:
        return Updater(config, tokens, device)


def touched(model: Decoder, ids_BT: torch.Tensor) -> list[Touched]:
    """As `rows.touch` gives it; how many rows are different is not known without numbers."""
    found = []
    for table in model.ngrams:
        places_BT = torch.zeros_like(table.rows_of(ids_BT, model.nothing_before(ids_BT)))
        values_UC = table.weight.detach()[:3].clone().requires_grad_()
        found.append(Touched(torch.arange(3).to(ids_BT.device), values_UC, places_BT))
    return found


@pytest.mark.parametrize("grammar", GRAMMARS)
def test_an_update_is_on_the_device(gpu: torch.device, grammar: dict[str, Any]) -> None:
    ours = updater(gpu, **grammar)
    ids = torch.from_numpy(ours.batches.batch(0, 4)).to(gpu)
    rows = touched(ours.model, ids[:, :-1])
    nats, objective = ours._losses(ids, looked_up(rows, slice(None)))
    objective.backward()
    ours.optimizers.step(0.5, rows)
    assert nats.device.type == "gpu"
    assert {tensor.device.type for tensor in ours.model.state_dict().values()} == {"gpu"}


@pytest.mark.parametrize("grammar", GRAMMARS)
def test_decoding_is_on_the_device(gpu: torch.device, grammar: dict[str, Any]) -> None:
    model = updater(gpu, **grammar).model.eval()
    with torch.no_grad():
        logits, state = model.decode(torch.zeros(2, 5, dtype=torch.long).to(gpu))
        logits, state = model.decode(torch.zeros(2, 1, dtype=torch.long).to(gpu), state)
    assert (logits.device.type, state.length) == ("gpu", 6)


def test_two_devices_do_not_mix(gpu: torch.device) -> None:
    with pytest.raises(FakeTensorDeviceMismatchError):
        torch.ones(2, 2).to(gpu) @ torch.ones(2, 2)
