"""Numbers as text: one way for each unit, in every view."""

from __future__ import annotations

from .. import wording

DASH = "–"
MOST_ROWS = 1000  # of a table or a line, beyond which nobody reads and a page grows slow


def loss(value: float | None) -> str:
    return DASH if value is None else f"{value:.4f}"


def small(value: float | None) -> str:
    """A standard error or a scatter: two figures that count, at least four decimals."""
    if value is None:
        return DASH
    return f"{value:.4f}" if value >= 0.001 or value == 0 else f"{value:.2g}"


def within(value: float | None, se: float | None) -> str:
    """`1.2917 ± 0.0118`."""
    return loss(value) + (f" ± {small(se)}" if se is not None else "")


def skill(value: float | None) -> str:
    """Worse than −9 is as bad as it gets."""
    return DASH if value is None else "under −9" if value < -9 else f"{value:+.2f}"


def slope(value: float | None) -> str:
    """Three figures that count, with the sign."""
    return DASH if value is None else f"{value:+.3g}"


def signed(value: float | None) -> str:
    return DASH if value is None else f"{value:+.4f}"


def perplexity(value: float | None) -> str:
    if value is None:
        return DASH
    return f"{value:.2f}" if value < 1e4 else f"{value:,.0f}"


def count(value: float | None) -> str:
    return DASH if value is None else f"{value:,.0f}"


def passes(value: float | None) -> str:
    if value is None:
        return DASH
    return f"{value:.2f}" if value >= 0.1 or value == 0 else f"{value:.3f}"


def rate(value: float | None) -> str:
    """A learning rate: `0.02`, `3e-4`."""
    if value is None:
        return DASH
    if value == 0 or value >= 0.001:
        return f"{value:.3g}"
    mantissa, _, power = f"{value:.2e}".partition("e")
    return f"{float(mantissa):g}e{int(power)}"


def percent(share: float | None) -> str:
    return DASH if share is None else f"{100 * share:.0f} %"


def duration(seconds: float | None) -> str:
    return DASH if seconds is None else wording.duration(float(seconds))


def seconds(value: float | None) -> str:
    """Of one step: `35.8 ms`, `3.82 s`."""
    if value is None:
        return DASH
    return f"{1000 * value:.3g} ms" if value < 1 else f"{value:.3g} s"


def size(n_bytes: float | None) -> str:
    return DASH if n_bytes is None else wording.size(n_bytes)


def interval(ci: tuple[float, float] | None) -> str:
    return DASH if ci is None else f"{ci[0]:.4f} to {ci[1]:.4f}"


def shown(count: int, always: list[int]) -> list[int]:
    """Which of so many rows are shown: all, or MOST_ROWS evenly spread, the first and the last
    among them, and those that `always` are."""
    if count <= MOST_ROWS:
        return list(range(count))
    spread = {round(i * (count - 1) / (MOST_ROWS - 1)) for i in range(MOST_ROWS)}
    return sorted(spread.union(always))


def steps(found: list[int], most: int = 8) -> str:
    """`1,400, 1,600 and 2,000`; of many, the ends and how many."""
    words = [count(s) for s in found]
    if len(words) > most:
        return f"{words[0]}, {words[1]} … {words[-1]} ({len(words)} of them)"
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]
