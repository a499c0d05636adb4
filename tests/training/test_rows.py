"""N-gram tables trained by the rows they are touched in."""

import math

import msgspec
import numpy as np
import pytest
import torch

from overnight.config import Config, Model, Optimizer, Train
from overnight.training.optimizers import Optimizers
from overnight.training.rows import RowAdagrad, Touched, looked_up, touch
from overnight.training.update import Updater

CONFIG = Config(
    model=Model(
        layers="A", width=8, heads=2, context=6, vocab_size=11, ngrams=[2, 3], ngram_rows=32
    ),
    train=Train(batch=4, micro_batch=2, dtype="float32", attention="plain", compile="off"),
    optimizer=Optimizer(clip=0.0),
)


def updater() -> Updater:
    made = Updater(CONFIG, np.random.default_rng(1).integers(0, 11, 500), torch.device("cpu"))
    with torch.no_grad():
        for table in made.model.ngrams:
            table.weight.normal_(generator=torch.Generator().manual_seed(2))
    return made


def sequences(ours: Updater) -> torch.Tensor:
    return torch.from_numpy(ours.batches.batch(0, 4))


def test_what_is_looked_up_is_what_the_model_looks_up() -> None:
    ours = updater()
    ids = sequences(ours)[:, :-1]
    with torch.no_grad():
        expected = ours.model.hidden(ids)
        found = ours.model.hidden(ids, looked_up_BTC=looked_up(touch(ours.model, ids), slice(None)))
    torch.testing.assert_close(found, expected)


def test_gradients_of_rows_are_those_of_the_whole_table() -> None:
    """Over two micro-batches, against the gradient that autograd gives the table itself."""
    ours = updater()
    ids = sequences(ours)
    _, objective = ours._losses(ids, None)  # the tables as parameters of the model
    objective.backward()
    dense = [table.weight.grad.clone() for table in ours.model.ngrams]
    touched = touch(ours.model, ids[:, :-1])
    for here in (slice(0, 2), slice(2, 4)):
        ours._losses(ids[here], looked_up(touched, here))[1].backward()
    for part, expected in zip(touched, dense, strict=True):
        found = torch.zeros_like(expected).index_copy_(0, part.rows, part.values.grad)
        torch.testing.assert_close(found, expected)


def test_an_update_measures_all_its_micro_batches() -> None:
    """As many tokens in one part or in two: the same sums, and the same gradient."""
    whole = msgspec.structs.replace(CONFIG.train, micro_batch=4, label_smoothing=0.1)
    parts = msgspec.structs.replace(whole, micro_batch=2)
    found = []
    for train in (whole, parts):
        tokens = np.random.default_rng(1).integers(0, 11, 500)
        config = msgspec.structs.replace(CONFIG, train=train)
        found.append(Updater(config, tokens, torch.device("cpu")).update(1, 10))
    one, other = found
    assert other.nats == pytest.approx(one.nats, rel=1e-6)
    assert other.objective == pytest.approx(one.objective, rel=1e-6)
    assert other.grad_norm == pytest.approx(one.grad_norm, rel=1e-5)
    assert one.objective != one.nats


def test_the_norm_and_the_clip_count_the_rows() -> None:
    ours = updater()
    before = [table.weight.detach().clone() for table in ours.model.ngrams]
    touched = touch(ours.model, sequences(ours)[:, :-1])
    ours.config = msgspec.structs.replace(CONFIG, optimizer=Optimizer(clip=0.5))
    for part in touched:
        part.values.grad = torch.full_like(part.values, 3.0)
    numbers = sum(part.values.numel() for part in touched)
    assert ours._clip(touched) == pytest.approx(3 * math.sqrt(numbers))
    squares = sum(float(part.values.grad.square().sum()) for part in touched)
    assert math.sqrt(squares) == pytest.approx(0.5, rel=1e-4)
    assert all(map(torch.equal, before, [table.weight for table in ours.model.ngrams]))


def test_a_gradient_within_the_limit_is_left_as_it_is() -> None:
    ours = updater()
    touched = touch(ours.model, sequences(ours)[:, :-1])
    ours.config = msgspec.structs.replace(CONFIG, optimizer=Optimizer(clip=1e6))
    for part in touched:
        part.values.grad = torch.full_like(part.values, 3.0)
    ours._clip(touched)
    assert all(bool((part.values.grad == 3).all()) for part in touched)


def test_untouched_rows_stay() -> None:
    ours = updater()
    ids = sequences(ours)[:, :-1]
    before = [table.weight.detach().clone() for table in ours.model.ngrams]
    touched = touch(ours.model, ids)
    ours.update(1, 10)
    for table, old, part in zip(ours.model.ngrams, before, touched, strict=True):
        changed = (table.weight != old).any(1).nonzero().flatten()
        assert changed.tolist() == part.rows.tolist()


def touched_by(rows: list[int], grads: torch.Tensor, table: torch.Tensor) -> Touched:
    rows_U = torch.tensor(rows)
    values = table.detach()[rows_U].requires_grad_()
    values.grad = grads
    return Touched(rows_U, values, rows_U[None])


def test_steps_are_torchs_adagrad_but_for_the_mean() -> None:
    """At width 1, touched at every step: √n times the step of Adagrad, which takes the sum."""
    table = torch.nn.Parameter(torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None])
    reference = torch.nn.Parameter(table.detach().clone())
    ours, theirs = RowAdagrad([table], 0.1, 1e-10), torch.optim.Adagrad([reference], 0.1)
    random = torch.Generator().manual_seed(3)
    for n in range(1, 8):
        grad = torch.randn(5, 1, generator=random, dtype=torch.float64)
        ours.step(0.5, [touched_by([0, 1, 2, 3, 4], grad, table)])
        theirs.param_groups[0]["lr"] = 0.1 * 0.5 * math.sqrt(n)
        reference.grad = grad
        theirs.step()
        torch.testing.assert_close(table, reference)


def test_a_row_is_measured_by_its_own_touches_alone() -> None:
    """Hand-made: a row touched at steps 1 and 3 with gradients of RMS 3 and then 4."""
    table = torch.nn.Parameter(torch.zeros(2, 2))
    ours = RowAdagrad([table], 1.0, 0.0)
    ours.step(1.0, [touched_by([1], torch.tensor([[3.0, -3.0]]), table)])
    assert table.tolist() == [[0, 0], [-1, 1]]
    ours.step(1.0, [touched_by([0], torch.tensor([[7.0, 7.0]]), table)])
    ours.step(1.0, [touched_by([1], torch.tensor([[4.0, 4.0]]), table)])
    moved = 4 / math.sqrt((9 + 16) / 2)
    assert table[1].tolist() == pytest.approx([-1 - moved, 1 - moved])
    assert table[0].tolist() == [-1, -1]


def test_state_goes_by_name_and_back_and_old_state_is_refused() -> None:
    ours = updater()
    ours.update(1, 10)
    state = {name: tensor.clone() for name, tensor in ours.optimizers.state().items()}
    assert state["rows/touches/ngrams.1.weight"].shape == (32,)
    fresh = Optimizers(ours.model, CONFIG.optimizer)
    fresh.load(state)
    for name, tensor in fresh.state().items():
        assert torch.equal(tensor, state[name]), name
    with pytest.raises(KeyError):
        fresh.load({"adamw/exp_avg/ngrams.0.weight": torch.zeros(32, 8)})
    with pytest.raises(KeyError):
        fresh.load({"rows/square/ngrams.0.weight": torch.zeros(32, 8)})
