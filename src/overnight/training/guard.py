"""What must not reach the weights: losses and gradients that are not finite, and, if asked for,
spikes. Judged before the optimizer step."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

REMEMBERED = 64  # losses a spike is judged against
SPIKE_Z = 6.0  # robust standard deviations of the log loss
REWINDS = 3  # times it may go back


def is_finite(loss: float, grad_norm: float) -> bool:
    return math.isfinite(loss) and math.isfinite(grad_norm)


def spike_z(loss: float, recent: Sequence[float]) -> float:
    """How far `loss` stands above the `recent` ones, in robust standard deviations (median and
    MAD of the log loss, the point itself left out); 0 while there are too few to tell."""
    if len(recent) < REMEMBERED // 2 or loss <= 0:
        return 0.0
    logs = [math.log(max(x, 1e-12)) for x in recent]
    middle = statistics.median(logs)
    spread = 1.4826 * statistics.median(abs(x - middle) for x in logs)
    return (math.log(loss) - middle) / max(spread, 1e-3)
