from __future__ import annotations

import numpy as np
import pytest

from overnight.errors import UserError
from overnight.ledger import Ledger
from overnight.text.batches import Batches, fixed_blocks


@pytest.mark.parametrize(("n", "context"), [(101, 10), (110, 10), (109, 10), (11, 10), (1000, 7)])
def test_a_pass_sees_the_text_once(n, context):
    tokens = np.arange(n, dtype=np.uint16)
    batches = Batches(tokens, context, seed=4)
    ledger = Ledger(batch=1, micro_batch=1, context=context, train_tokens=n)
    assert batches.blocks == ledger.blocks_per_pass == (n - 1) // context
    for pass_ in range(5):
        batch = batches.batch(pass_ * batches.blocks, batches.blocks)
        assert batch.dtype == np.int64
        assert batch.shape == (batches.blocks, context + 1)
        assert (np.diff(batch) == 1).all()  # consecutive tokens
        inputs, times = np.unique(batch[:, :-1], return_counts=True)
        if pass_ == 0:
            assert (times == 1).all()
            assert len(inputs) == batches.blocks * context
        else:  # a shifted pass: its head is seen in a block of its own
            assert len(inputs) > n - 1 - 2 * context
            assert (times <= 2).all()


def test_boundaries_differ_between_passes():
    batches = Batches(np.arange(5000), 50, 1)
    starts = [set(batches.batch(p * 99, 99)[:, 0] % 50) for p in range(4)]
    assert starts[0] == {0}
    assert len({min(s - {0}, default=0) for s in starts}) > 2


def test_batches_do_not_depend_on_how_they_are_asked_for():
    batches = Batches(np.arange(1000, dtype=np.uint32), 13, 2)
    run = batches.batch(0, 300)
    parts = [
        Batches(np.arange(1000, dtype=np.uint32), 13, 2).batch(i, 50) for i in range(0, 300, 50)
    ]
    assert np.array_equal(run, np.concatenate(parts))


def test_fixed_blocks_are_spread_evenly_and_do_not_overlap():
    tokens = np.arange(1001, dtype=np.uint16)
    blocks = fixed_blocks(tokens, 10, 300)
    assert len(blocks) == 30
    assert blocks.shape == (30, 11)
    starts = blocks[:][:, 0]
    assert set(np.diff(starts)) <= {30, 40}
    assert np.array_equal(blocks[3:5], blocks[np.array([3, 4])])
    assert len(fixed_blocks(tokens, 10, 0)) == len(fixed_blocks(tokens, 10, 10**9)) == 100
    assert len(fixed_blocks(tokens, 10, 3)) == 1


def test_too_short_a_text_is_said_with_numbers():
    with pytest.raises(UserError, match=r"training text has 10 tokens.* 10 \+ 1"):
        Batches(np.zeros(10, np.uint16), 10, 0)
    with pytest.raises(UserError, match="held-out"):
        fixed_blocks(np.zeros(10, np.uint16), 10, 0)
