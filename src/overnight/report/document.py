"""Findings → a document: sections of plain blocks, which Markdown, HTML and terminal all draw.

No number is computed here; each block words or lists findings. Text in blocks is plain: the views
escape it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..analysis.findings import Findings
from . import headlines, questions, words
from . import numbers as n


@dataclass(frozen=True)
class Text:
    text: str
    tone: str = ""  # "", good, bad, unsure, open, quiet
    lead: str = ""  # a headline in front


@dataclass(frozen=True)
class Items:
    items: list[str]
    ordered: bool = False


@dataclass(frozen=True)
class Table:
    head: list[str]
    rows: list[list[str]]
    marked: list[int] = field(default_factory=list)  # rows to stress
    numeric: bool = True  # all but the first column are right-aligned
    fold: bool = False  # long: closed at first in HTML


@dataclass(frozen=True)
class Figure:
    name: str  # PNG beside the report
    chart: str  # the interactive charts of the HTML page that take its place, in words
    caption: str


@dataclass(frozen=True)
class Quote:
    """A sample: the prompt was given, only the continuation is the model's."""

    step: int
    prompt: str
    text: str


@dataclass(frozen=True)
class Quotes:
    """Several samples, closed at first in HTML."""

    quotes: list[Quote]
    title: str


@dataclass(frozen=True)
class Cards:
    """The reader's questions and their answers."""

    cards: list[questions.Card]


Block = Text | Items | Table | Figure | Quote | Quotes | Cards


@dataclass(frozen=True)
class Section:
    id: str
    title: str
    blocks: list[Block]


@dataclass(frozen=True)
class Document:
    title: str
    subtitle: str
    sections: list[Section]


def build(f: Findings) -> Document:
    """The whole report. Sections with nothing to say are left out."""
    makers = (
        _curves, _diagnosis, _advice, _best, _evaluations, _gap, _schedule, _ledger,
        _passes, _phases, _yardsticks, _forecast, _samples, _checkpoints, _sessions, _unknown,
        _reading, _methods,
    )  # fmt: skip
    sections = [section for make in makers if (section := make(f)) is not None and section.blocks]
    sections.insert(0, _glance(f, {section.id for section in sections}))
    return Document(f"Report: {f.source.name}", words.model_line(f), sections)


def _glance(f: Findings, there: set[str]) -> Section:
    """The cards; a section that is not `there` has nothing to say, and its verdict says why."""
    cards = [c if c.link in there else c._replace(link="diagnosis") for c in questions.cards(f)]
    return Section("glance", "At a glance", [Cards(cards)])


def _curves(f: Findings) -> Section | None:
    blocks: list[Block] = []
    if f.curve.step or f.evaluations:
        blocks.append(Figure("train_val_loss.png", "loss", words.loss_caption(f)))
    return Section("curves", "Loss", blocks)


def _diagnosis(f: Findings) -> Section:
    blocks: list[Block] = [
        Text(v.because, headlines.tone(v), headlines.said(v))
        for v in headlines.in_order(f.verdicts)
    ]
    return Section("diagnosis", "Diagnosis", blocks)


def _advice(f: Findings) -> Section:
    lines = [words.advice(a) for a in f.advice]
    if not lines:
        return Section("advice", "What to do next", [Text(words.NO_ADVICE)])
    return Section("advice", "What to do next", [Items(lines, ordered=True)])


def _best(f: Findings) -> Section | None:
    if f.best is None:
        return None
    return Section("best", "Best checkpoint", [Text(line) for line in words.best(f)])


def _evaluations(f: Findings) -> Section | None:
    if not f.evaluations:
        return None
    kept = n.shown(len(f.evaluations), [i for i, e in enumerate(f.evaluations) if e.best])
    listed = [f.evaluations[i] for i in kept]
    head = ["step", "passes", "train", "val", "± SE", "gap", "± SE", "ppl train", "ppl val", "bpb"]
    rows = [
        [
            n.count(e.step) + (" ★" if e.best else " =" if e.tied else ""),
            n.passes(e.passes), n.loss(e.train_loss), n.loss(e.val_loss), n.small(e.val_se),
            n.signed(e.gap), n.small(e.gap_se), n.perplexity(e.train_perplexity),
            n.perplexity(e.val_perplexity), n.loss(e.val_bpb),
        ]
        for e in listed
    ]  # fmt: skip
    head, rows = _without_empty(head, rows)
    marked = [i for i, e in enumerate(listed) if e.best]
    return Section(
        "evaluations",
        "Every evaluation" if len(listed) == len(f.evaluations) else "Evaluations",
        [
            Text(words.evaluations(f, len(listed)), "quiet"),
            Table(head, rows, marked, fold=len(rows) > 30),
        ],
    )


def _without_empty(head: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Columns that have a value anywhere."""
    keep = [i for i in range(len(head)) if any(row[i] != n.DASH for row in rows)]
    return [head[i] for i in keep], [[row[i] for i in keep] for row in rows]


def _gap(f: Findings) -> Section | None:
    if not any(e.gap is not None for e in f.evaluations):
        return None
    text = words.gap(f)
    return Section(
        "gap",
        "Gap between train and validation",
        [Figure("perplexity_gap.png", "gap", text)],
    )


def _schedule(f: Findings) -> Section | None:
    if f.schedule.peak is None:
        return None
    return Section(
        "schedule",
        "Learning rate",
        [Text(words.schedule(f)), Figure("lr_schedule.png", "lr", words.lr_caption(f))],
    )


def _ledger(f: Findings) -> Section:
    rows = words.ledger_rows(f)
    blocks: list[Block] = [Table(["what", "value"], rows)]
    if any(v is not None for v in (*f.curve.tokens_per_s, *f.curve.grad_norm)):
        blocks.append(Figure("metrics.png", "speed norm", words.metrics_caption(f)))
    return Section("ledger", "Ledger: steps, tokens, passes, time", blocks)


def _passes(f: Findings) -> Section | None:
    if len(f.passes) < 2:
        return None
    rows = [
        [
            str(p.number), n.count(p.from_step), n.count(p.to_step), n.loss(p.train_loss),
            n.loss(p.val_loss), n.count(p.tokens_per_s),
        ]
        for p in f.passes
    ]  # fmt: skip
    head = ["pass", "from step", "to step", "train (mean)", "val (last)", "tok/s"]
    if f.ledger.passes is None:
        head[0] = "epoch (as logged)"
    head, rows = _without_empty(head, rows)
    return Section("passes", "Per pass", [Table(head, rows, fold=len(rows) > 30)])


def _phases(f: Findings) -> Section | None:
    if not f.phases:
        return None
    rows = [
        [
            p.name, n.count(p.from_step), n.count(p.to_step), n.loss(p.loss_from),
            n.loss(p.loss_to), n.slope(p.per_1000),
        ]
        for p in f.phases
    ]  # fmt: skip
    head = [
        "phase",
        "from step",
        "to step",
        "train loss from",
        "to",
        f"nats per 1,000 {f.source.step_is}s",
    ]
    return Section("phases", "Phases", [Table(head, rows)])


def _yardsticks(f: Findings) -> Section | None:
    if f.yardsticks is None or not f.yardsticks.rows:
        return None
    rows = [
        [words.yardstick(y.name), n.loss(y.bpb), n.signed(y.margin_bpb), words.BEATEN[y.beaten]]
        for y in f.yardsticks.rows
    ]
    return Section(
        "yardsticks",
        "Yardsticks: what the text costs without a network",
        [
            Text(words.yardsticks(f)),
            Table(["yardstick", "bits per byte", "yardstick − model", "beaten"], rows),
            Items([f"{words.yardstick(y.name)}: {y.how}" for y in f.yardsticks.rows if y.how]),
        ],
    )


def _forecast(f: Findings) -> Section:
    blocks: list[Block] = [Text(line) for line in words.forecast(f)]
    if f.forecast.scores:
        rows = [
            [
                n.count(s.made_at), n.count(s.for_step), n.loss(s.value),
                n.interval((s.low, s.high))
                if s.low is not None and s.high is not None
                else n.DASH,
                n.loss(s.actual), n.signed(s.error), words.INSIDE[s.inside],
                n.skill(s.skill_no_change), n.skill(s.skill_power_law),
            ]
            for s in f.forecast.scores
        ]  # fmt: skip
        head = [
            "made at", "for step", "forecast", "95 % interval", "came true", "error", "inside",
            "skill: no change", "skill: power law",
        ]  # fmt: skip
        blocks.append(Text(words.SCORES, "quiet"))
        blocks.append(Table(head, rows))
    return Section("forecast", "Forecast", blocks)


def _samples(f: Findings) -> Section | None:
    """The last ones open, the earlier ones folded."""
    if not f.samples:
        return None
    last = f.samples[-1].step
    quotes = [Quote(s.step, s.prompt, s.text) for s in f.samples]
    earlier = [q for q in quotes if q.step != last]
    blocks: list[Block] = [
        Text("The prompt was given; only what follows it was written by the model.", "quiet"),
        *(q for q in quotes if q.step == last),
    ]
    if earlier:
        blocks.append(Quotes(earlier, "samples of earlier steps"))
    return Section("samples", "Samples by step", blocks)


def _checkpoints(f: Findings) -> Section | None:
    if not f.checkpoints:
        return None
    rows = [
        [
            n.count(c.step) + (" ★" if c.best else " =" if c.tied else ""), n.loss(c.val_loss),
            n.size(c.bytes), c.reason, "yes" if c.present else "no longer", c.path,
        ]
        for c in f.checkpoints
    ]  # fmt: skip
    head = ["step", "val", "size", "reason", "on disk", "path"]
    marked = [i for i, c in enumerate(f.checkpoints) if c.best]
    return Section("checkpoints", "Checkpoints", [Table(head, rows, marked, fold=len(rows) > 30)])


def _sessions(f: Findings) -> Section | None:
    blocks: list[Block] = []
    if f.ledger.sessions:
        rows = [
            [
                str(i), n.count(s.from_step), n.count(s.to_step), n.count(s.steps),
                n.count(s.tokens), n.count(s.returns or None), n.duration(s.seconds),
                n.count(s.tokens_per_s), s.reason or "no end row",
            ]
            for i, s in enumerate(f.ledger.sessions, 1)
        ]  # fmt: skip
        head = [
            "session", "from step", "to step", "steps", "tokens", "went back", "time", "tokens/s",
            "ended",
        ]  # fmt: skip
        head, rows = _without_empty(head, rows)
        blocks.append(Table(head, rows))
    if f.events:
        rows = [[n.count(e.step), words.event(e.kind), e.message] for e in f.events]
        blocks.append(Table(["step", "event", "message"], rows, numeric=False, fold=len(rows) > 30))
    return Section("sessions", "Sessions and events", blocks) if blocks else None


def _unknown(f: Findings) -> Section | None:
    lines = f.cannot_conclude
    return Section("unknown", "What cannot be concluded", [Items(lines)]) if lines else None


def _reading(f: Findings) -> Section | None:
    """Of a foreign log what was made of it, of an own one what is damaged."""
    lines = f.source.problems
    return Section("reading", "How the log was read", [Items(lines)]) if lines else None


def _methods(f: Findings) -> Section:
    return Section("methods", "How each number was computed", [Items(words.methods(f))])
