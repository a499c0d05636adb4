"""Findings → sentences. Plain, short, exact; every number in them is a number of the findings."""

from __future__ import annotations

from ..analysis.findings import Advice, Best, Findings, Ledger, Whole
from ..wording import counted
from . import numbers as n

BEATEN = {"yes": "yes", "no": "no", "cannot_tell": "cannot tell"}
INSIDE = {True: "yes", False: "no", None: n.DASH}


def model_line(f: Findings) -> str:
    """Model, parameters, data in one line."""
    a = f.about
    parts = [a.model, None if a.parameters is None else f"{a.parameters:,} parameters"]
    if a.tokenizer:
        size = "" if a.vocab_size is None else f", vocabulary {a.vocab_size:,}"
        parts.append(f"tokenizer {a.tokenizer}{size}")
    parts += [a.optimizer, a.data, a.device]
    return "; ".join(p for p in parts if p)


def advice(a: Advice) -> str:
    because = ", ".join(i.replace("_", " ") for i in a.because)
    return f"{a.do} Expected: {a.expected} (from: {because})"


NO_ADVICE = "Nothing in this log calls for a change."


EVENTS = {  # of every runfolder.EventKind
    "resume": "resumed",
    "warning": "warning",
    "incomparable": "another model or text",
    "signal": "signal received",
    "non_finite": "loss not finite",
    "rewind": "went back",
    "spike": "loss spike",
    "disk": "trouble with the disk",
    "torn_log": "torn row",
    "log": "row not readable",
    "checkpoint": "checkpoint",
    "initial": "initial weights",
    "import": "imported weights",
    "failed": "failed",
    "early_stop": "ended early",
}


def event(kind: str) -> str:
    """What happened, in plain words; of an unknown kind its own name."""
    return EVENTS.get(kind, kind.replace("_", " "))


def unit(f: Findings) -> str:
    """Of the losses."""
    if f.source.val_per == "token":
        return "nats per token"
    return "nats per token, of validation per byte"


def loss_caption(f: Findings) -> str:
    text = f"Validation and training loss, {unit(f)}."
    if f.noise.sigma is not None:
        text += f" Band: ±2σ, where one evaluation scatters by σ = {n.small(f.noise.sigma)}."
    if f.curve.rows_per_point > 1:
        text += f" Each training point is the mean of up to {f.curve.rows_per_point:,} rows."
    return text


def never_evaluated(f: Findings, b: Best) -> int | None:
    """The newest step on disk of a run that was stopped before its first evaluation."""
    saved = [c.step for c in f.checkpoints if c.present]
    return max(saved) if saved and b.n == 1 and b.step == 0 and not b.pick_saved else None


def tells_ties(f: Findings, b: Best) -> bool:
    """Whether noise is known by which others could be called as good."""
    return b.se is not None or f.noise.sigma is not None


def best(f: Findings) -> list[str]:
    """Best, ties, rule, luck."""
    b = f.best
    if b is None:
        return []
    se = f" ± {n.loss(b.se)} (standard error over blocks)" if b.se is not None else ""
    bpb = f", {n.loss(b.bpb)} bits per byte" if b.bpb is not None else ""
    perplexity = f", perplexity {n.perplexity(b.perplexity)}" if f.source.val_per == "token" else ""
    lines = [
        *whole(f),
        f"Lowest {b.estimator}: {n.loss(b.loss)}{se} at step {b.step:,}{perplexity}{bpb}.",
    ]
    if not b.validated:
        biased = f"It is the lowest of {b.n:,} noisy values, so it is biased low. " * (b.n > 1)
        lines.append(f"{biased}Training loss does not say which checkpoint is best.")
    elif len(b.tied_steps) > 1:
        lines.append(f"Tied within noise: steps {n.steps(b.tied_steps, 20)}.")
    elif b.n > 1 and tells_ties(f, b):
        lines.append("No other evaluation is tied with it.")
    if (newest := never_evaluated(f, b)) is not None:
        lines.append(f"None of training was evaluated; step {newest:,} is on disk.")
    elif b.validated:
        lines.append(f"Take step {b.pick:,}: {b.rule}.")
        if b.pick_saved is False:
            lines.append("No checkpoint of that step is on disk.")
    if b.smoothed is not None:
        lucky = b.smoothed > b.loss and b.validated
        luck = "The lowest of many values is partly luck: a" if lucky else "A"
        lines.append(
            f"{luck} smooth curve through its neighbours gives {n.loss(b.smoothed)} there "
            f"(95 %: {n.interval(b.smoothed_ci)})."
        )
    return lines


def held_out(w: Whole) -> str:
    if w.bpb is None or w.bytes is None:  # the tokens do not stand for these bytes
        return f"{w.tokens:,} held-out tokens"
    if w.of_bytes is None or w.bytes == w.of_bytes:
        return f"all {w.bytes:,} held-out bytes"
    if w.complete:
        return f"{w.bytes:,} of {w.of_bytes:,} held-out bytes, all that fill whole blocks"
    return f"{w.bytes:,} of {w.of_bytes:,} held-out bytes, in blocks spread evenly"


def whole(f: Findings) -> list[str]:
    """The figure to quote."""
    w = f.whole
    if w is None:
        return []
    bpb = f"{n.within(w.bpb, w.bpb_se)} bits per byte, " if w.bpb is not None else ""
    over = " (standard error over blocks)" if w.se is not None else " (one block, so no error)"
    line = (
        f"The figure to quote: {bpb}loss {n.within(w.loss, w.se)}{over}, perplexity "
        f"{n.perplexity(w.perplexity)}, for step {w.step:,} on {held_out(w)}. The evaluations on "
        "the way see a part of them where that saves time."
    )
    return [line]


def evaluations(f: Findings, listed: int) -> str:
    marks = "★ best, = tied with it. " if any(e.best for e in f.evaluations) else ""
    if listed < (all_of := len(f.evaluations)):
        marks = f"{listed:,} of {all_of:,}, evenly spread; findings.json has all. {marks}"
    train = "" if f.gap_estimator == "none" else f"Train column: {f.gap_estimator}. "
    return f"{marks}{train}Losses in {unit(f)}; ppl is perplexity, SE the standard error."


def gap(f: Findings) -> str:
    reason = f.verdict("gap").because
    known = any(e.gap_se is not None for e in f.evaluations)
    band = " Band: ±2 standard errors over blocks, which another text would move." if known else ""
    return f"Gap: validation minus train, nats per token. {reason}{band}"


KINDS = {
    "linear": "linear decay",
    "cosine": "cosine decay",
    "constant": "constant",
    "wsd": "constant, then decay (WSD)",
    "one_minus_sqrt": "1 − square root decay",
    "inverse_sqrt": "inverse square root decay",
    "step": "steps",
}


def schedule(f: Findings) -> str:
    s = f.schedule
    if s.peak is None:
        return "No learning rate was logged."
    if s.warmup_steps:
        warm = f"warm-up over {counted(s.warmup_steps, 'step')} to {n.rate(s.peak)}"
    elif s.still_warming:
        warm = f"still warming up at {n.rate(s.end)}"
    elif s.warmup_steps == 0:
        warm = f"no warm-up, {n.rate(s.peak)} from the first row on"
    else:
        warm = f"highest logged {n.rate(s.peak)}"
    if s.still_warming:
        return f"As logged: {warm}."
    if s.kind == "constant":
        return f"As logged: {warm}, then constant."
    end = f"{n.rate(s.end)} at the end ({n.percent(s.end_ratio)} of the highest)"
    if s.kind == "unknown":
        return f"As logged: {warm}, {end}; no known shape fits, or too few values follow."
    return f"As logged: {warm}, then {KINDS[s.kind]}, {end}."


def lr_caption(f: Findings) -> str:
    return f"Learning rate as logged, {f.schedule.n:,} values."


def metrics_caption(f: Findings) -> str:
    speed, has = f.ledger.tokens_per_s, any(norm is not None for norm in f.curve.grad_norm)
    norm = "The norm of the gradient" if has else ""
    if speed is None:
        return f"{norm}, as logged."
    also = " and the norm of the gradient" if has else ""
    return f"Tokens per second{also}, as logged; the median speed is {n.count(speed)}."


STEP_IS = {
    "step": "steps (optimizer updates)",
    "epoch": "last epoch (the log has no steps)",
    "row": "rows (the log has no whole steps)",
}


def ledger_rows(f: Findings) -> list[list[str]]:
    led = f.ledger
    rows = [
        [STEP_IS.get(f.source.step_is, f.source.step_is), n.count(led.steps)],
        ["micro-steps", n.count(led.micro_steps)],
        ["tokens", n.count(led.tokens)],
        [_per_step(led), n.count(led.tokens_per_step)],
        ["training tokens (one pass)", n.count(led.train_tokens)],
        ["passes", n.passes(led.passes)],
        ["wall time", n.duration(led.seconds)],
        ["of it pauses between rows", n.duration(led.pause_seconds)],
        ["of it training", n.duration(led.train_seconds)],
        ["of it evaluation and samples", n.duration(led.eval_seconds)],
        ["of it saving", n.duration(led.save_seconds)],
        ["tokens per second, median", n.count(led.tokens_per_s)],
        ["one step, median", n.seconds(led.step_seconds)],
        ["rows slower than 80 % of it", n.percent(led.slow_share)],
        ["logged training points", n.count(led.logged_points)],
        ["first logged step", n.count(led.first_step)],
        ["missing between the first and the last", n.count(led.missing_points or None)],
    ]
    return [row for row in rows if row[1] != n.DASH]


def _per_step(led: Ledger) -> str:
    now = led.tokens_per_step and led.tokens != led.steps * led.tokens_per_step
    return "tokens per step, at the end" if now else "tokens per step"


def beaten(f: Findings) -> str:
    """`Beats guessing (ln V), unigram; not xz.`"""
    y = f.yardsticks
    if y is None:
        return ""
    groups = {
        k: [yardstick(r.name) for r in y.rows if r.beaten == k]
        for k in ("yes", "no", "cannot_tell")
    }
    parts = []
    if groups["yes"]:
        parts.append("beats " + ", ".join(groups["yes"]))
    if groups["no"]:
        parts.append("not " + ", ".join(groups["no"]))
    if groups["cannot_tell"]:
        level = "level with " if y.model_least is None else "perhaps "
        parts.append(level + ", ".join(groups["cannot_tell"]))
    text = "; ".join(parts)
    return text[:1].upper() + text[1:] + "." if text else ""


def yardstick(name: str) -> str:
    return "guessing (ln V)" if name == "ln V" else name


def yardsticks(f: Findings) -> str:
    y = f.yardsticks
    if y is None or y.model_bpb is None:
        reason = f.about.incomparable or "the log has no bits per byte of the model"
        return f"The yardsticks stand alone: {reason}."
    needs = f"The best model needs {n.within(y.model_bpb, y.model_se)} bits per byte"
    part = "the evaluated part of the held-out text" if f.whole is None else held_out(f.whole)
    where = f" on {part}"
    where += f"; the yardsticks on {y.bytes:,}" if y.bytes is not None else ""
    return f"{needs}{where}. {beaten(f)}"


def forecast(f: Findings) -> list[str]:
    p = f.forecast
    if p.status == "made" and p.value is not None and p.for_step is not None:
        if p.low is not None and p.high is not None:
            interval = f" (95 %: {n.interval((p.low, p.high))})"
        else:
            interval = ""
        return [
            f"Expected validation loss at step {p.for_step:,}: {n.loss(p.value)}{interval}. "
            f"{p.reason}",
            f"Calibration of the interval: {p.calibration}.",
        ]
    return [p.reason]


SCORES = (  # what the table of earlier forecasts shows
    "Forecasts as made, or as they would have been made, at earlier steps. Skill is the share "
    "of the error of a simpler forecast that this one avoids: 1 is perfect, below 0 is worse."
)


def _own_methods(f: Findings) -> list[str]:
    """What is known of a run folder; another tool's log is taken at its word."""
    if f.source.format != "run folder":
        return [f"Step: {METHOD_STEP[f.source.step_is]}. Speed and passes: as logged."]
    return [
        "Pass: the training tokens once, in blocks that do not overlap. Step: one optimizer "
        "update.",
        "Speed: tokens per second of each training row, without evaluation and saving; median.",
    ]


METHOD_STEP = {
    "step": "as logged",
    "epoch": "an epoch, as the log has no steps",
    "row": "a row, as the log has no whole steps",
}


def methods(f: Findings) -> list[str]:
    """How each number was computed, for this log."""
    lines = [
        "Loss: mean negative log-likelihood, nats per token. Perplexity: exp(loss). Bits per "
        "byte: nats divided by ln 2 and by UTF-8 bytes.",
        *_own_methods(f),
        f"Noise of an evaluation: {f.noise.method}.",
        *([] if f.gap_estimator == "none" else [f"Train column and gap: {f.gap_estimator}."]),
        "Tied: every evaluation that may be the best with 95 % confidence (Gupta's subset "
        "selection).",
        "Verdicts that rest on a test are adjusted for the number of tests in this report (Holm); "
        "their p values and intervals are in findings.json.",
    ]
    if f.best is not None:
        lines.append(f"Best: {f.best.rule}.")
    if f.whole is not None:
        lines.append("The figure to quote: measured once, after the last step.")
    return lines
