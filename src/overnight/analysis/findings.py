"""The findings: what a run shows, as typed data. `docs/report.md` documents every field.

Computed once, here; Markdown, HTML, terminal and JSON are views of it. Losses in nats per token,
times in seconds. A number that is not known, or not finite, is None.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

SCHEMA = 1
Number = float | None
VALIDATION = "validation loss"  # as an estimator
Interval = tuple[float, float] | None


class _Finding(msgspec.Struct, kw_only=True):
    pass


class Source(_Finding):
    """Where the findings come from."""

    name: str
    format: str  # run folder, csv, jsonl, json, text
    train_rows: int
    eval_rows: int
    columns: dict[str, str]  # of a foreign log: its name → ours
    step_is: str  # step, epoch, row: what a step of a foreign log is
    val_per: str  # token, byte: what the validation loss is a mean over
    problems: list[str]  # what could not be read


class About(_Finding):
    """The run as its start row describes it; None where a log does not say."""

    model: str | None = None  # one line, as "4 layers, 8 heads, width 256 …"
    parameters: int | None = None
    vocab_size: int | None = None
    context: int | None = None
    tokenizer: str | None = None
    data: str | None = None
    optimizer: str | None = None
    device: str | None = None
    status: str = "unknown"  # running, killed, finished, interrupted, failed, unknown
    planned_steps: int | None = None
    begins_with: str | None = None  # whose weights, where they are not random
    unknown: int | None = None  # characters of the held-out text that the tokenizer does not know
    unknown_bits: int | None = None  # that each of them costs beside its probability
    incomparable: str | None = None  # why bits per byte compare with nothing
    other_task: str | None = None  # a column that tells of another task than language


class Session(_Finding):
    """What one process did."""

    attempt: int
    from_step: int
    to_step: int
    steps: int  # updates made, those that a return went over again counted again
    returns: int  # how often it went back to an earlier checkpoint
    tokens: int | None
    seconds: Number
    train_seconds: Number
    eval_seconds: Number
    save_seconds: Number
    tokens_per_s: Number  # median over its train rows
    reason: str | None
    started: Number


class Check(_Finding):
    """A figure of the log against the same figure computed from others."""

    what: str
    logged: float
    computed: float
    ratio: float  # logged / computed
    agrees: bool  # within 2 %


class Ledger(_Finding):
    """Units of the run: steps are optimizer updates, a pass is the training tokens once."""

    steps: int
    first_step: int
    micro_steps: int | None
    tokens: int | None
    passes: Number
    epochs: Number  # the last one that a foreign log names
    tokens_per_step: int | None
    train_tokens: int | None
    seconds: Number  # wall time over all sessions
    pause_seconds: Number  # of it, where a foreign log's clock shows that nothing went on
    train_seconds: Number
    eval_seconds: Number
    save_seconds: Number
    tokens_per_s: Number  # median of the train rows
    step_seconds: Number  # of one step, likewise, where a foreign log says it
    slow_share: Number  # share of train rows slower than 80 % of the median
    logged_points: int
    log_every: Number  # median distance of train rows, steps
    missing_points: int  # train rows that the regular distance leads one to expect
    sessions: list[Session]
    checks: list[Check]


class Noise(_Finding):
    """How far one evaluation may be off."""

    sigma: Number  # evaluation to evaluation, nats: scatter about a smooth curve
    rho: Number  # its correlation from one evaluation to the next
    n: int  # evaluations it rests on
    degrees: Number  # effective degrees of freedom of sigma
    method: str
    text_se: Number  # median standard error over blocks: another text of the same kind
    paired_se: Number  # median standard error of a difference on the same blocks
    train_sigma: Number  # of one logged training loss


class Best(_Finding):
    """The lowest evaluation of the run, what is tied with it, and the one to take."""

    step: int
    loss: float
    se: Number
    bpb: Number
    bpb_se: Number
    perplexity: Number
    smoothed: Number  # the level at that step with the luck of the minimum taken out
    smoothed_ci: Interval
    tied_steps: list[int]
    pick: int
    pick_loss: float
    pick_saved: bool | None  # is a checkpoint of the pick on disk
    rule: str
    estimator: str  # VALIDATION, or training loss where there is no other
    threshold: Number  # the highest that is tied minus the lowest, nats
    n: int

    @property
    def validated(self) -> bool:
        """Whether it was chosen by a validation loss."""
        return self.estimator == VALIDATION


class Whole(_Finding):
    """A checkpoint on the whole held-out text, measured once at the end: the figure to quote."""

    step: int
    loss: float
    se: Number  # over blocks
    bpb: Number
    bpb_se: Number
    perplexity: Number
    tokens: int
    bytes: int | None  # None: not known, for it has characters that the tokenizer does not know
    of_bytes: int | None  # held out
    complete: bool  # all blocks that the held-out text fills


class Schedule(_Finding):
    """The learning rate, read from the logged values."""

    kind: str  # cosine, linear, constant, wsd, inverse_sqrt, step, one_minus_sqrt, unknown
    warmup_steps: int | None
    peak: Number
    first: Number
    end: Number
    end_ratio: Number
    decay_from: int | None  # first step below the peak plateau
    still_warming: bool
    residual: Number  # largest deviation from the named shape, as a share of the peak
    configured: str | None
    configured_warmup: int | None
    configured_end_ratio: Number
    n: int


class Yardstick(_Finding):
    name: str
    bpb: float
    nats_per_byte: Number
    how: str
    beaten: str  # yes, no, cannot_tell
    margin_bpb: Number  # yardstick − model


class Yardsticks(_Finding):
    """What the held-out text costs without a network, and whether the best model needs less."""

    bytes: int | None
    step: int | None  # of the model
    model_bpb: Number
    model_se: Number
    rows: list[Yardstick]
    model_least: Number = None  # bits it needs for certain, where characters are unknown to it


class Score(_Finding):
    """How an earlier forecast came true."""

    made_at: int
    for_step: int
    value: float
    low: Number
    high: Number
    actual: float
    error: float  # actual − value
    inside: bool | None
    interval_score: Number
    skill_no_change: Number  # 1 − |error| / |actual − last value then|
    skill_power_law: Number


class Forecast(_Finding):
    """The expected validation loss at the planned end."""

    status: str  # made, refused, finished
    reason: str
    made_at: int | None = None
    for_step: int | None = None
    value: Number = None
    low: Number = None
    high: Number = None
    no_change: Number = None
    power_law: Number = None
    method: str = ""
    calibration: str = "unknown"
    scores: list[Score] = []


class Verdict(_Finding):
    """One question answered: yes, no, cannot_tell, or the verdict's own words."""

    id: str
    verdict: str
    because: str
    since_step: int | None = None
    effect_nats: Number = None
    ci: Interval = None  # 95 %, of effect_nats
    p: Number = None  # adjusted by Holm over all tests of this report
    p_raw: Number = None
    n: int = 0
    estimator: str = ""
    evidence: dict[str, Any] = {}


class Advice(_Finding):
    """What to do, by which verdicts, and what to expect of it."""

    do: str
    because: list[str]  # verdict ids
    expected: str


class Evaluation(_Finding):
    """One evaluation as logged, and what follows from it alone."""

    step: int
    tokens: Number
    passes: Number
    seconds: Number  # since the first row of the log
    lr: Number
    val_loss: Number
    val_se: Number
    val_perplexity: Number
    val_bpb: Number
    train_loss: Number
    train_se: Number
    train_perplexity: Number
    gap: Number  # val − train, nats
    gap_se: Number
    best: bool
    tied: bool


class Saved(_Finding):
    step: int
    path: str
    bytes: int | None
    seconds: Number
    reason: str
    present: bool | None
    val_loss: Number
    best: bool
    tied: bool


class Sampled(_Finding):
    step: int
    prompt: str
    text: str
    tokens: int


class Happened(_Finding):
    step: int
    attempt: int
    kind: str
    message: str


class Pass(_Finding):
    """One time through the training text (or one epoch as a foreign log counts them)."""

    number: int
    from_step: int
    to_step: int
    train_loss: Number  # mean of the logged windows
    val_loss: Number  # last evaluation in it
    tokens_per_s: Number


class Phase(_Finding):
    """A stretch of the run with one slope."""

    name: str  # warm-up, first third, middle third, last third
    from_step: int
    to_step: int
    loss_from: Number
    loss_to: Number
    per_1000: Number  # nats per 1,000 steps


class Curve(_Finding):
    """The training rows, thinned for drawing: means over equal bins of rows."""

    step: list[float]
    tokens: list[Number]
    seconds: list[Number]
    loss: list[Number]
    low: list[Number]
    high: list[Number]
    lr: list[Number]
    tokens_per_s: list[Number]
    grad_norm: list[Number]
    rows_per_point: int


class Findings(_Finding):
    """All that is said of one run."""

    schema: int
    source: Source
    about: About
    ledger: Ledger
    noise: Noise
    best: Best | None
    whole: Whole | None
    schedule: Schedule
    yardsticks: Yardsticks | None
    forecast: Forecast
    verdicts: list[Verdict]
    advice: list[Advice]
    cannot_conclude: list[str]
    gap_estimator: str  # what the train column of the evaluations is
    evaluations: list[Evaluation]
    checkpoints: list[Saved]
    samples: list[Sampled]
    events: list[Happened]
    passes: list[Pass]
    phases: list[Phase]
    curve: Curve

    def verdict(self, name: str) -> Verdict:
        return next(v for v in self.verdicts if v.id == name)


def make(id: str, verdict: str, because: str, **fields: Any) -> Verdict:
    """A verdict whose reason is `because` with its {fields} filled in from the verdict's own
    numbers and `evidence`, so that no number is said that is not data."""
    known = {f for f in Verdict.__struct_fields__ if f not in ("id", "verdict", "because")}
    own = {k: v for k, v in fields.items() if k in known}
    evidence = {k: v for k, v in fields.items() if k not in known}
    return Verdict(
        id=id, verdict=verdict, because=because.format(**fields), evidence=evidence, **own
    )


def known(value: float) -> Number:
    """None in place of what is not finite."""
    return float(value) if math.isfinite(value) else None


def plain(findings: Findings) -> dict[str, Any]:
    """The findings as plain dicts and lists, non-finite numbers as None: what JSON prints."""
    cleaned: dict[str, Any] = _clean(msgspec.to_builtins(findings))
    return cleaned


def _clean(value: Any) -> Any:
    if isinstance(value, float):
        return known(value)
    if isinstance(value, dict):
        return {str(k): _clean(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(v) for v in value]
    return value
