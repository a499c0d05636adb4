from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import stats

from overnight.text.order import Order


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 16, 17, 100, 101, 4096, 10_007, 100_000])
def test_every_pass_is_a_permutation(n):
    order = Order(n, seed=5)
    for pass_ in (0, 1, 7):
        assert np.array_equal(np.sort(order.blocks(pass_ * n, n)), np.arange(n))


def test_a_position_needs_no_history():
    order = Order(1009, 3)
    run = order.blocks(0, 5000)
    for first, count in ((0, 1), (1008, 2), (1500, 64), (3020, 1980)):
        assert np.array_equal(Order(1009, 3).blocks(first, count), run[first : first + count])
    assert [int(order.blocks(s, 1)[0]) for s in range(40)] == run[:40].tolist()
    assert len(order.blocks(17, 0)) == 0


def test_seeds_and_passes_differ():
    orders = [Order(1000, seed).blocks(p * 1000, 1000) for seed in (0, 1, 2**40) for p in (0, 1)]
    for i, a in enumerate(orders):
        for b in orders[:i]:
            assert (a == b).sum() < 12  # 1 expected of unrelated permutations


@pytest.mark.parametrize("n", [97, 1000])
def test_the_place_of_a_block_is_uniform(n):
    """Chi-square over 16 bins of where each of some blocks falls, in 400 keyed permutations."""
    places = np.array([np.argsort(Order(n, seed).blocks(0, n)) for seed in range(400)])
    sizes = np.bincount(np.arange(n) * 16 // n)
    for block in (0, 1, n // 2, n - 1):
        counts = np.bincount(places[:, block] * 16 // n, minlength=16)
        assert stats.chisquare(counts, 400 * sizes / n).pvalue > 1e-4


def test_neighbours_in_order_are_unrelated():
    for seed in range(5):
        x = Order(50_000, seed).blocks(0, 50_000).astype(float)
        for lag in (1, 2, 7, 224):  # 224 = a side of the grid
            r = np.corrcoef(x[:-lag], x[lag:])[0, 1]
            assert abs(r) < 5 / np.sqrt(len(x))
        steps = np.diff(x) % 50_000
        counts = np.bincount((steps * 20 // 50_000).astype(int), minlength=20)
        assert stats.chisquare(counts).pvalue > 1e-4


def test_offsets_are_within_the_context_and_vary():
    order = Order(100, 1)
    assert order.offset(0, 64) == 0
    offsets = [order.offset(p, 64) for p in range(1, 200)]
    assert min(offsets) >= 0
    assert max(offsets) < 64
    assert len(set(offsets)) > 40


def test_a_small_batch_is_cheap():
    order = Order(123_457, 1)
    order.blocks(0, 64)
    best = min(_seconds(lambda: order.blocks(999, 64)) for _ in range(200))
    assert best < 100e-6  # 16 µs measured


def _seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
