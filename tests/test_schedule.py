import itertools
import math

import pytest
import torch

from overnight.config import Schedule
from overnight.schedule import rate


def rates(steps: int, **settings: object) -> list[float]:
    return [rate(Schedule(**settings), step, steps) for step in range(1, steps + 1)]


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant", "wsd"])
@pytest.mark.parametrize("warmup", [0, 1, 10])
def test_warms_up_to_the_peak_and_ends_at_the_minimum(kind: str, warmup: int) -> None:
    shares = rates(100, kind=kind, warmup=warmup, min_ratio=0.1)
    assert max(shares) <= 1
    if warmup:
        assert shares[:warmup] == [(i + 1) / warmup for i in range(warmup)]
    assert shares[-1] == pytest.approx(1.0 if kind == "constant" else 0.1)
    after = shares[max(warmup - 1, 0) :]
    assert all(a >= b for a, b in itertools.pairwise(after))


def test_cosine_is_that_of_torch() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50, eta_min=0.2)
    expected = []
    for _ in range(50):
        optimizer.step()
        theirs.step()
        expected.append(optimizer.param_groups[0]["lr"])
    assert rates(50, kind="cosine", min_ratio=0.2) == pytest.approx(expected)


def test_wsd_is_flat_and_then_linear() -> None:
    shares = rates(100, kind="wsd", warmup=5, min_ratio=0.0, decay=0.2)
    assert shares[4:80] == [1.0] * 76
    assert shares[80:] == pytest.approx([1 - (i + 1) / 20 for i in range(20)])


def test_a_warmup_longer_than_the_run_still_ends() -> None:
    shares = rates(5, kind="cosine", warmup=100, min_ratio=0.0)
    assert all(map(math.isfinite, shares))
    assert shares[-1] == 0.0
    assert rates(1, kind="linear", warmup=3, min_ratio=0.0) == [1.0]
    assert rates(15, kind="linear", warmup=20, min_ratio=0.0).index(1.0) == 15 // 2 - 1
