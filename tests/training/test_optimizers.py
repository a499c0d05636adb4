import pytest
import torch

from overnight.config import Model, Optimizer
from overnight.model.decoder import Decoder
from overnight.training.optimizers import Optimizers

SMALL = Model(layers="SA", width=32, heads=4, context=16, vocab_size=40, ssm_head=16)


def model_with_gradients(seed: int = 0) -> Decoder:
    model = Decoder(SMALL).initialise(1)
    random = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=random)
    return model


def test_adamw_is_the_published_update() -> None:
    """One step from zero state: m̂ = g, v̂ = g², so every weight moves by lr·g/(|g| + ε)."""
    model = model_with_gradients()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    settings = Optimizer(kind="adamw", lr=0.01, weight_decay=0.1, eps=1e-8)
    Optimizers(model, settings).step(rate=0.5)
    for name, parameter in model.named_parameters():
        decayed = before[name] * (1 - 0.005 * 0.1 * (parameter.ndim >= 2))
        expected = decayed - 0.005 * gradients[name] / (gradients[name].abs() + 1e-8)
        torch.testing.assert_close(parameter.detach(), expected, atol=1e-6, rtol=1e-5)


def test_muon_updates_are_nearly_orthogonal() -> None:
    """Five Newton–Schulz steps bring the singular values of the update near 1, whatever the
    gradient's are (all but the very smallest ones)."""
    model = model_with_gradients()
    weight = model.blocks[1].mixer.out.weight
    before = weight.detach().clone()
    Optimizers(model, Optimizer(kind="muon", muon_lr=1.0)).step(rate=1.0)
    values = torch.linalg.svdvals(before - weight.detach())
    assert values.quantile(0.1) > 0.5
    assert values.max() < 1.3
    raw = torch.linalg.svdvals(model_with_gradients().blocks[1].mixer.out.weight.grad)
    assert raw.max() / raw.quantile(0.1) > 4


@pytest.mark.parametrize("block", [0, 1])
def test_maps_in_one_product_are_orthogonal_each_by_itself(block: int) -> None:
    """Queries, keys and values; gate, what is convolved and step of a state space. In an update of
    all as one matrix only the columns of the whole would be."""
    model = model_with_gradients()
    mixer = model.blocks[block].mixer
    weight = (mixer.into if block == 0 else mixer.qkv).weight
    parts = mixer.split if block == 0 else [32, 32, 32]
    before = weight.detach().clone()
    Optimizers(model, Optimizer(kind="muon", muon_lr=1.0)).step(rate=1.0)
    for moved in (before - weight.detach()).split(parts):
        values = torch.linalg.svdvals(moved) / max(1, len(moved) / 32) ** 0.5
        assert values.quantile(0.1) > 0.5
        assert values.max() < 1.3


def test_convolutions_and_embeddings_are_not_muons() -> None:
    model = model_with_gradients()
    optimizers = Optimizers(model, Optimizer(kind="muon"))
    optimizers.step(1.0)
    muon = {path.split("/")[2] for path in optimizers.state() if path.startswith("muon")}
    assert muon == {
        "blocks.0.mixer.into.weight", "blocks.0.mixer.out.weight",
        "blocks.0.mlp.up.weight", "blocks.0.mlp.down.weight",
        "blocks.1.mixer.qkv.weight", "blocks.1.mixer.out.weight",
        "blocks.1.mlp.up.weight", "blocks.1.mlp.down.weight",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_state_goes_through_names_and_back(kind: str) -> None:
    settings = Optimizer(kind=kind)
    first, second = model_with_gradients(), model_with_gradients()
    a, b = Optimizers(first, settings), Optimizers(second, settings)
    a.step(1.0)
    second.load_state_dict(first.state_dict())
    b.load({name: tensor.clone() for name, tensor in a.state().items()})
    for model, optimizers in ((first, a), (second, b)):
        random = torch.Generator().manual_seed(9)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=random)
        optimizers.step(0.7)
    for x, y in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(x, y)


def test_state_that_does_not_fit_is_refused() -> None:
    optimizers = Optimizers(model_with_gradients(), Optimizer())
    with pytest.raises(KeyError):
        optimizers.load({"adamw/exp_avg/embed": torch.zeros(3)})
    with pytest.raises(KeyError):
        optimizers.load({"adamw/exp_avg/nothing": torch.zeros(3)})


def test_every_setting_reaches_its_optimizer() -> None:
    given = Optimizer(kind="muon", lr=0.1, beta1=0.5, beta2=0.6, eps=1e-3, weight_decay=0.2,
                      muon_lr=0.3, muon_momentum=0.7, muon_weight_decay=0.4)  # fmt: skip
    made = Optimizers(model_with_gradients(), given)
    for group in made.parts["adamw"].param_groups:
        assert (group["lr"], group["betas"], group["eps"]) == (0.1, (0.5, 0.6), 1e-3)
    (group,) = made.parts["muon"].param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.3, 0.7, 0.4)
    assert (made.rows.lr, made.rows.eps) == (0.1, 1e-3)
