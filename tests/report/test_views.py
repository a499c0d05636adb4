"""The files of a report: complete, self-contained, and safe with hostile names and samples."""

from __future__ import annotations

import io
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import made
import pytest
from markdown_it import MarkdownIt

from overnight import report, runfolder
from overnight.analysis.advice import advise
from overnight.analysis.case import Case
from overnight.analysis.run import load_run
from overnight.analysis.series import Series
from overnight.report import html, questions, terminal
from overnight.report.document import build

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
EVIL += "\"'`*_[x](javascript:alert(3))|\x1b[31m\x9b\u202e\u200e"
FILES = [
    "findings.json", "lr_schedule.png", "metrics.png", "perplexity_gap.png", "report.html",
    "report.md", "train_val_loss.png",
]  # fmt: skip


def test_the_error_beside_a_loss_is_its_own(tmp_path):
    """Of the checkpoint that is taken, which need not be the lowest evaluation."""
    found = load_run(made.run_folder(tmp_path / "run")).found
    found.whole = None
    other = next(e for e in found.evaluations if e.step and e.step != found.best.step)
    other.val_se = 0.1234
    found.best.pick, found.best.pick_loss = other.step, other.val_loss
    card = next(card for card in questions.cards(found) if card[0] == "Which checkpoint?")
    assert f"{other.val_loss:.4f} ± 0.1234" in card[2]


@pytest.mark.parametrize(("plateau", "more"), [("yes", False), ("no", True)])
def test_no_more_steps_are_advised_where_they_would_give_nothing(plateau, more, tmp_path):
    run = load_run(made.run_folder(tmp_path / "run"))
    found = run.found
    v = {verdict.id: verdict for verdict in found.verdicts}
    v["plateau"].verdict, v["still_improving"].verdict = plateau, "no"
    v["overfitting"].verdict = "no"
    v["below_yardstick"].verdict = "yes"
    v["below_yardstick"].evidence |= {"yardstick": "5-gram", "bpb": 2.0}
    found.ledger.passes = 0.9
    case = Case(
        run.log, Series(run.log), found.about, found.ledger, found.schedule, found.best, None, None
    )
    advised = advise(case, list(v.values()))
    assert any("Give it more steps" in advice.do for advice in advised) is more


@pytest.fixture
def hostile(tmp_path):
    folder = made.run_folder(tmp_path / "run")
    log = runfolder.LogWriter(folder / "log.jsonl", 1)
    log.write(runfolder.Sample(step=400, prompt=EVIL, text=EVIL + "\n# head\n", tokens=4, seed=1))
    log.write(runfolder.Event(step=400, kind=EVIL, message=EVIL))
    log.close()
    return folder


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.handlers, self.links = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.handlers += [k for k, _ in attrs if k.startswith("on") or k == "style"]
        self.links += [v for k, v in attrs if k in ("src", "href", "action")]


def test_all_files_and_nothing_else(hostile):
    folder = report.write(load_run(hostile))
    assert folder == hostile / "report"
    assert sorted(p.name for p in folder.iterdir()) == FILES
    for name in FILES:
        if name.endswith(".png"):
            assert (folder / name).read_bytes().startswith(b"\x89PNG")
    assert json.loads((folder / "findings.json").read_text()) == load_run(hostile).findings


def test_page_is_self_contained_and_escaped(hostile):
    text = (report.write(load_run(hostile)) / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert page.tags.count("script") == 2
    assert "img" not in page.tags
    assert page.handlers == []
    assert all(link.startswith("#") for link in page.links)
    assert "default-src 'none'" in text
    assert "alert(1)</script>" not in text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u202a-\u202e]", text)
    assert len(text) < 1_500_000
    ids = set(re.findall(r'<section id="([^"]+)"', text))
    assert {link[1:] for link in page.links} <= ids  # every card leads somewhere


def test_markdown_shows_hostile_text_as_text(hostile):
    text = (report.write(load_run(hostile)) / "report.md").read_text()
    assert "\x1b" not in text
    shown = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    page = Page()
    page.feed(shown)
    assert "script" not in page.tags
    assert page.tags.count("img") == len(re.findall(r"^!\[", text, re.M))
    assert not any(link.startswith("javascript") for link in page.links)
    assert "<h1>head" not in shown


def test_terminal_has_no_control_characters_of_the_log(hostile):
    from rich.console import Console

    out = io.StringIO()
    found = load_run(hostile).found
    terminal.show(build(found), found, Console(file=out, width=100, no_color=True, highlight=False))
    assert "\x1b" not in out.getvalue()
    assert "Is it overfitting?" in out.getvalue()


def test_ten_questions_are_answered_first(tmp_path):
    found = load_run(made.run_folder(tmp_path / "r", resume_at=200)).found
    first = build(found).sections[0].blocks[0].cards
    assert len(first) == 10
    assert all(answer for _, answer, _, _, _ in first)


def test_the_page_holds_what_its_charts_read():
    script = (Path(report.__file__).parent / "templates" / "report.js").read_text()
    assert set(re.findall(r"\bdata\.(\w+)", script)) == set(html.CHARTED)


def test_a_log_file_is_reported_beside_it(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss\n1,3\n2,2\n")
    assert report.write(load_run(path)) == tmp_path / "metrics-report"


def test_a_forecast_is_kept_and_scored_later(tmp_path):
    """A run that is half done is forecast; when it is done, the report says how that came true."""
    folder = made.run_folder(tmp_path / "r", steps=800, every=40)
    log = folder / "log.jsonl"
    rows = log.read_text().splitlines()
    log.write_text("\n".join(r for r in rows if json.loads(r)["step"] <= 440) + "\n")
    run = load_run(folder)
    assert run.found.forecast.status == "made"
    assert run.found.forecast.for_step == 800
    assert "unknown" in run.found.forecast.calibration
    report.write(run)
    report.write(load_run(folder))  # the same forecast is kept once
    assert len((folder / "report" / "forecasts.jsonl").read_text().splitlines()) == 1
    log.write_text("\n".join(rows) + "\n")
    done = load_run(folder).found.forecast
    assert done.status == "finished"
    assert [(s.made_at, s.for_step) for s in done.scores] == [(440, 800)]
    assert done.scores[0].value == run.found.forecast.value
    kept = folder / "report" / "forecasts.jsonl"
    kept.write_text('{"torn\n' + kept.read_text())  # loses itself alone
    again = load_run(folder)
    assert again.found.forecast.scores == done.scores
    assert "forecasts.jsonl, line 1" in " ".join(again.problems)


def test_a_pipe_where_a_file_belongs_is_not_waited_for(tmp_path):
    folder = made.run_folder(tmp_path / "r")
    (folder / "report").mkdir()
    os.mkfifo(folder / "report" / "forecasts.jsonl")
    for path in list((folder / "evals").iterdir()):
        path.unlink()
        os.mkfifo(path)
    run = load_run(folder)
    assert run.found.best is not None
    assert "forecasts.jsonl: " in " ".join(run.problems)
