import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from overnight.config import Model
from overnight.model.decoder import Decoder
from overnight.runfolder import Eval
from overnight.text.batches import fixed_blocks
from overnight.text.tokenizers import Cost
from overnight.training.evaluate import Score, full_tokens, score
from overnight.training.measuring import described


@pytest.fixture
def model() -> Decoder:
    small = Model(layers="A", width=16, heads=2, context=8, vocab_size=20, dropout=0.5)
    return Decoder(small).initialise(1).train()


def test_score_is_the_mean_over_every_token(model: Decoder) -> None:
    tokens = np.random.default_rng(0).integers(0, 20, 1000).astype(np.uint16)
    lengths = np.array([0, 2, *[1] * 18], dtype=np.int32)  # id 0 is special
    named = np.array([0.0, 0.0, 14.5, *[0] * 17])  # id 2 takes more to be written
    blocks = fixed_blocks(tokens, 8, 0)
    measured = score(model, blocks, Cost(lengths, named), torch.device("cpu"))
    assert model.training  # put back
    nats, n_bytes, losses = 0.0, 0, []
    model.eval()
    for i in range(len(blocks)):
        ids = torch.from_numpy(blocks[i : i + 1])
        with torch.no_grad():
            nll = F.cross_entropy(model(ids[:, :-1])[0], ids[0, 1:], reduction="none").double()
        losses.append(float(nll.mean()))
        nats += float(nll[ids[0, 1:] != 0].sum())
        nats += 14.5 * int((ids[0, 1:] == 2).sum())
        n_bytes += int(lengths[ids[0, 1:].numpy()].sum())
    assert measured.loss == pytest.approx(np.mean(losses), abs=1e-6)
    assert measured.se == pytest.approx(np.std(losses, ddof=1) / math.sqrt(len(losses)), rel=1e-4)
    assert measured.bpb == pytest.approx(nats / n_bytes / math.log(2), rel=1e-6)
    assert measured.tokens == len(blocks) * 8
    assert measured.bytes == n_bytes


def test_the_error_of_bits_per_byte_is_that_of_a_ratio() -> None:
    """Against the scatter of many texts: blocks of more bytes cost more, so most of it cancels."""
    rng, found = np.random.default_rng(0), []
    for _ in range(2000):
        n_bytes = rng.poisson(300, 40) + 1.0
        nats = 0.9 * n_bytes + rng.normal(0, 12, 40)
        found.append(Score(nats / 64, 64, nats, n_bytes))
    scatter = np.std([one.bpb for one in found])
    assert np.mean([one.bpb_se for one in found]) == pytest.approx(scatter, rel=0.04)
    assert scatter < 0.8 * np.mean([one.se * one.bpb / one.loss for one in found])
    of_two = Score(
        np.ones(2), 1, np.array([1.0, 3.0]), np.ones(2)
    )  # a mean's, where bytes are equal
    assert of_two.bpb_se == pytest.approx(1 / math.log(2))
    assert math.isnan(Score(np.ones(1), 64, np.ones(1), np.ones(1)).bpb_se)


def test_dropout_is_off_and_the_random_state_untouched(model: Decoder) -> None:
    tokens = np.arange(200, dtype=np.uint16) % 20
    blocks, cost = fixed_blocks(tokens, 8, 0), Cost(np.ones(20, np.int32), np.zeros(20))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    a = score(model, blocks, cost, torch.device("cpu"))
    b = score(model, blocks, cost, torch.device("cpu"))
    assert a.loss == b.loss
    assert torch.equal(before, torch.get_rng_state())


def test_the_last_evaluation_grows_with_the_run_between_two_limits() -> None:
    trained = [10**4, 10**6, 10**7, 10**8, 10**10]
    taken = [full_tokens(n) for n in trained]
    assert taken == [2**18, 2**18, 500_000, 2**22, 2**22]


@pytest.mark.parametrize(
    ("loss", "se", "said"),
    [(2.5, 0.125, "val 2.5000 ± 0.1250, "), (2.5, math.nan, "val 2.5000 (one block: no standard "),
     (math.nan, math.nan, "val nan, ")],
)  # fmt: skip
def test_an_evaluation_in_a_line(loss: float, se: float, said: str) -> None:
    row = Eval(
        step=3, tokens=9, passes=0.1, val_loss=loss, val_se=se, val_bpb=loss, val_tokens=64,
        probe_loss=loss, probe_se=se, probe_bpb=loss, probe_tokens=64, seconds=0.1,
    )  # fmt: skip
    assert described(row).startswith(f"step 3: {said}")
