import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from overnight.config import Model
from overnight.model.decoder import Decoder
from overnight.text.batches import fixed_blocks
from overnight.training.evaluate import full_tokens, score


@pytest.fixture
def model() -> Decoder:
    small = Model(layers="A", width=16, heads=2, context=8, vocab_size=20, dropout=0.5)
    return Decoder(small).initialise(1).train()


def test_score_is_the_mean_over_every_token(model: Decoder) -> None:
    tokens = np.random.default_rng(0).integers(0, 20, 1000).astype(np.uint16)
    lengths = np.array([0, 2, *[1] * 18], dtype=np.int32)  # id 0 is special
    blocks = fixed_blocks(tokens, 8, 0)
    measured = score(model, blocks, lengths, torch.device("cpu"))
    assert model.training  # put back
    nats, n_bytes, losses = 0.0, 0, []
    model.eval()
    for i in range(len(blocks)):
        ids = torch.from_numpy(blocks[i : i + 1])
        with torch.no_grad():
            nll = F.cross_entropy(model(ids[:, :-1])[0], ids[0, 1:], reduction="none").double()
        losses.append(float(nll.mean()))
        nats += float(nll[ids[0, 1:] != 0].sum())
        n_bytes += int(lengths[ids[0, 1:].numpy()].sum())
    assert measured.loss == pytest.approx(np.mean(losses), abs=1e-6)
    assert measured.se == pytest.approx(np.std(losses, ddof=1) / math.sqrt(len(losses)), rel=1e-4)
    assert measured.bpb == pytest.approx(nats / n_bytes / math.log(2), rel=1e-6)
    assert measured.tokens == len(blocks) * 8
    assert measured.bytes == n_bytes


def test_dropout_is_off_and_the_random_state_untouched(model: Decoder) -> None:
    tokens = np.arange(200, dtype=np.uint16) % 20
    blocks, lengths = fixed_blocks(tokens, 8, 0), np.ones(20, dtype=np.int32)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    a = score(model, blocks, lengths, torch.device("cpu"))
    b = score(model, blocks, lengths, torch.device("cpu"))
    assert a.loss == b.loss
    assert torch.equal(before, torch.get_rng_state())


def test_the_last_evaluation_grows_with_the_run_between_two_limits() -> None:
    trained = [10**4, 10**6, 10**7, 10**8, 10**10]
    taken = [full_tokens(n) for n in trained]
    assert taken == [2**18, 2**18, 500_000, 2**22, 2**22]
