"""The headline of each verdict, and whether it is good news."""

from __future__ import annotations

from ..analysis.findings import Verdict

# (verdict id, verdict) → (headline, tone). Ids in the order of the report.
HEADLINES: dict[str, dict[str, tuple[str, str]]] = {
    "divergence": {
        "yes": ("The run diverged", "bad"),
        "no": ("No divergence", "good"),
        "cannot_tell": ("Cannot tell whether the run diverged", "open"),
    },
    "overfitting": {
        "yes": ("Overfitting: validation got worse", "bad"),
        "no": ("No overfitting", "good"),
        "cannot_tell": ("Cannot tell whether it overfits", "open"),
    },
    "gap": {
        "growing": ("The gap between train and validation grows", "unsure"),
        "shrinking": ("The gap between train and validation shrinks", "good"),
        "stable": ("The gap between train and validation is stable", "good"),
        "cannot_tell": ("Cannot tell where the gap is going", "open"),
    },
    "still_improving": {
        "yes": ("Still improving at the end", "good"),
        "no": ("No longer improving at the end", "unsure"),
        "cannot_tell": ("Cannot tell whether it is still improving", "open"),
    },
    "plateau": {
        "yes": ("On a plateau", "unsure"),
        "no": ("Not on a plateau", "open"),
        "cannot_tell": ("Cannot tell whether it is on a plateau", "open"),
    },
    "train_drift": {
        "yes": ("Training loss drifts up", "bad"),
        "no": ("Training loss does not drift up", "good"),
        "cannot_tell": ("Cannot tell whether the training loss drifts", "open"),
    },
    "spikes": {
        "yes": ("There are loss spikes", "unsure"),
        "no": ("No loss spikes", "good"),
        "cannot_tell": ("Cannot tell about loss spikes", "open"),
    },
    "init_loss": {
        "yes": ("The first loss is not that of a fresh model", "unsure"),
        "no": ("The first loss is what a fresh model gives", "good"),
        "cannot_tell": ("Cannot tell about the first loss", "open"),
    },
    "too_good": {
        "yes": ("Too good to be true", "bad"),
        "no": ("The loss is plausible", "good"),
        "cannot_tell": ("Cannot tell whether the loss is plausible", "open"),
    },
    "below_yardstick": {
        "yes": ("Worse than a yardstick without a network", "bad"),
        "no": ("Better than every yardstick", "good"),
        "cannot_tell": ("Cannot tell whether it beats the yardsticks", "open"),
    },
    "units": {
        "yes": ("The log's own figures disagree", "bad"),
        "no": ("Steps, tokens and times agree with each other", "good"),
        "cannot_tell": ("Units cannot be checked", "open"),
    },
    "schedule_mismatch": {
        "yes": ("The learning rate is not what the settings say", "bad"),
        "no": ("The learning rate is what the settings say", "good"),
        "cannot_tell": ("The schedule cannot be compared with settings", "open"),
    },
    "repeats": {
        "yes": ("The training text was seen more than once", "unsure"),
        "no": ("The text was not gone through twice", "good"),
        "cannot_tell": ("Cannot tell how often the text was seen", "open"),
    },
    "resume": {
        "yes": ("The run was resumed", "unsure"),
        "no": ("One session, no resume", "good"),
        "cannot_tell": ("Cannot tell whether the run was resumed", "open"),
    },
    "throughput": {
        "yes": ("The speed did not hold", "unsure"),
        "no": ("The speed did not fall", "good"),
        "cannot_tell": ("Cannot tell about the speed", "open"),
    },
    "comparability": {
        "yes": ("Comparable with other tokenizers by bits per byte", "good"),
        "no": ("Comparable per token only with the same vocabulary", "unsure"),
        "cannot_tell": ("Cannot tell what this loss compares with", "open"),
    },
}


def in_order(verdicts: list[Verdict]) -> list[Verdict]:
    """What needs attention first, then by the order of HEADLINES."""
    rank = {"bad": 0, "unsure": 1, "good": 2, "open": 3}
    order = list(HEADLINES)
    return sorted(verdicts, key=lambda v: (rank[tone(v)], order.index(v.id)))


def headline(v: Verdict) -> str:
    return HEADLINES[v.id][v.verdict][0]


def tone(v: Verdict) -> str:
    return HEADLINES[v.id][v.verdict][1]


def said(v: Verdict) -> str:
    """The headline, and since when."""
    since = f" since step {v.since_step:,}" if v.since_step is not None else ""
    return f"{headline(v)}{since}"
