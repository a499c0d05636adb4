"""Hostile text through every output, in every place where text of a file can be shown.

The page of the report and the rendered Markdown are opened by a real browser, with and without the
page's own content security policy; a script that ran would have marked the page. Terminals are real
ones (pty). Code that a file names would have left a file behind.
"""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from . import tiny
from .payloads import payloads
from .tiny import Outcome

MORE = {"length__steps": 6, "save__every": 2, "save__keep": 1, "eval__every": 3, "log__every": 2}
GROUP = 24  # payloads to one run
TAGS = [
    "html",
    "head",
    "body",
    "meta",
    "title",
    "style",
    "header",
    "h1",
    "h2",
    "h3",
    "p",
    "nav",
    "a",
    "main",
    "section",
    "div",
    "span",
    "strong",
    "em",
    "ul",
    "ol",
    "li",
    "figure",
    "figcaption",
    "blockquote",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "details",
    "summary",
    "noscript",
    "script",
    "svg",
    "g",
    "path",
    "line",
    "circle",
    "rect",
    "text",
    "polyline",
    "polygon",
    "defs",
    "clippath",
    "code",
    "img",
    "br",
    "pre",
    "hr",
    "button",
    "label",
    "input",
    "select",
    "option",
    "output",
    "tspan",
    "desc",
    "small",
]
CODE = re.compile(r"^\s*(javascript|vbscript|data|file|https?)\s*:|^//", re.I)
OURS = re.compile(
    rb"\r\x1b\[2K|\x1b\[[0-9;]*m|\x1b\[2J|\x1b\[H|\x1b\[\?25[lh]|\x1b\[1A|\x1b\[2K|\r\n"
)
seen_events: list[str] = []


def run(folder: Path, short: bool, cases: int) -> Iterator[Outcome]:
    canary = folder / "canary"
    every = payloads(str(canary))
    whole = folder / "whole"
    tiny.begin(whole, tiny.text_file(folder), **MORE)
    groups = [every[i :: -(-len(every) // GROUP)] for i in range(-(-len(every) // GROUP))]
    groups = groups[: 1 if short else None]
    runs = [_hostile_run(folder / f"runs-{i}", whole, group) for i, group in enumerate(groups)]
    yield _pages(folder, runs, groups)
    yield _terminals(runs, groups)
    yield _generated(folder, every)
    yield _code(folder, whole, canary, short)


# ---- a run whose every text is hostile -----------------------------------------------------------


def _hostile_run(parent: Path, whole: Path, group: list[str]) -> Path:
    """A copy of a run with the payloads in every field that is text, also in its name."""
    parent.mkdir()
    name = "".join(c for c in " ".join(group[:3]) if c not in "/\0")
    out = parent / (name.encode()[:200].decode(errors="ignore").strip(".") or "x")
    shutil.copytree(whole, out)
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    joined = " ".join(group)
    lines = []
    for i, row in enumerate(rows):
        text = group[i % len(group)]
        if row["type"] == "sample":
            row["prompt"], row["text"] = text, joined
        if row["type"] == "checkpoint":
            row["path"] = row["reason"] = text
        if row["type"] == "end":
            row["reason"] = text
        if row["type"] == "start":
            row = _texts(row, group)
            row["type"] = "start"
        lines.append(row)
    last = rows[-1]
    for i, text in enumerate(group):
        event = {"type": "event", "attempt": 1, "seq": 1000 + i, "step": 3, "time": last["time"]}
        lines.append(event | {"kind": text, "message": text, "data": {text: text}})
        sample = {"type": "sample", "attempt": 1, "seq": 2000 + i, "step": 6, "time": last["time"]}
        lines.append(sample | {"prompt": text, "text": text, "tokens": 4, "seed": i})
    broken = "\n".join('{"type": "' + text.replace('"', "'") + '", broken' for text in group)
    log = "\n".join(map(json.dumps, lines)) + "\n" + broken.encode(errors="replace").decode() + "\n"
    (out / "log.jsonl").write_text(log)
    given = json.loads((out / "yardsticks.json").read_text())
    for i, row in enumerate(given["yardsticks"]):
        row["name"] = row["how"] = group[i % len(group)]
    (out / "yardsticks.json").write_text(json.dumps(given))
    return out


def _texts(tree: Any, group: list[str]) -> Any:
    """`tree` with a payload for every text that is a value, and beside every name."""
    if isinstance(tree, dict):
        made = {name: _texts(value, group) for name, value in tree.items()}
        if any(isinstance(value, str) for value in tree.values()):
            made |= {text: text for text in group[:4]}
        return made
    if isinstance(tree, list):
        return [_texts(value, group) for value in tree] + group[:4]
    return group[len(tree) % len(group)] if isinstance(tree, str) else tree


# ---- pages -----------------------------------------------------------------------------------


def _pages(folder: Path, runs: list[Path], groups: list[list[str]]) -> Outcome:
    import markdown_it

    from overnight.analysis.run import load_run
    from overnight.report import write

    outcome = Outcome("hostile text: report.html, .md, .json in Chromium", 0)
    browser = shutil.which("chromium") or shutil.which("google-chrome") or ""
    if not browser:
        outcome.failures.append("there is no Chromium here: install it to open the pages")
        return outcome
    raw = folder / "raw.html"
    raw.write_text(f"<!doctype html><body>{groups[0][0]}", errors="replace")
    if "data-ran" not in _html_tag(_opened(browser, raw)):
        outcome.failures.append("the browser does not even run a script that is there")
    render = markdown_it.MarkdownIt("commonmark", {"html": True}).enable("table").render
    for run, group in zip(runs, groups, strict=True):
        outcome.cases += len(group)
        before = _listing(run.parent.parent)
        report = write(load_run(run))
        news = _listing(run.parent.parent) - before
        strayed = [name for name in news if not name.startswith(str(report.resolve()))]
        outcome.failures += [f"written outside of the report: {name!r}" for name in strayed]
        json.loads((report / "findings.json").read_text())
        page = (report / "report.html").read_text()
        (folder / "page.html").write_text(page)
        (folder / "open.html").write_text(re.sub(r"<meta http-equiv[^>]*>", "", page))
        (folder / "md.html").write_text(
            "<!doctype html><body>" + render((report / "report.md").read_text())
        )
        for name in ("page.html", "open.html", "md.html"):
            dom = _opened(browser, folder / name)
            where = f"{name} of {group[0][:30]!r} …"
            if len(dom) < 1000:
                outcome.failures.append(f"{where}: the browser shows nothing")
            if "data-ran" in _html_tag(dom):
                outcome.failures.append(f"{where}: a script ran")
            outcome.failures += [f"{where}: {odd}" for odd in _Odd(dom).found[:3]]
    return outcome


def _html_tag(dom: str) -> str:
    found = re.search(r"<html[^>]*>", dom)
    return found.group() if found else ""


def _opened(browser: str, page: Path) -> str:
    """What the page is after its scripts have run."""
    words = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000"]
    words += ["--user-data-dir=" + str(page.parent / "chromium"), "--dump-dom", page.as_uri()]
    done = subprocess.run(words, capture_output=True, timeout=120)
    return done.stdout.decode(errors="replace")


def _listing(folder: Path) -> set[str]:
    return {
        str(path) for path in folder.rglob("*") if not {"chromium", "matplotlib"} & {*path.parts}
    }


class _Odd(HTMLParser):
    """Elements and attributes that our pages never have."""

    def __init__(self, dom: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(dom)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in TAGS:
            self.found.append(f"<{tag}>")
        for name, value in attributes:
            if name.startswith("on"):
                self.found.append(f"<{tag} {name}=…>")
            if name in ("href", "src", "action", "srcdoc", "data") and CODE.match(value or ""):
                self.found.append(f"<{tag} {name}={value!r:.60}>")


# ---- terminals -------------------------------------------------------------------------------


def _terminals(runs: list[Path], groups: list[list[str]]) -> Outcome:
    outcome = Outcome("hostile text: terminal", 0)
    for run, group in zip(runs, groups, strict=True):
        outcome.cases += len(group)
        for words in (
            ["report", "--terminal", "--", str(run)],
            ["report", "--json", "--", str(run)],
            ["watch", "--once", "--", str(run)],
            ["report", "--", str(run / group[0].replace("/", "").replace("\0", "")[:100])],
            ["train", "--resume", str(run)],
            ["generate", str(run), "--checkpoint", group[0].replace("\0", "")],
            ["train", "--set", f"model.width={group[0]}".replace("\0", "")],
            ["train", "--preset", group[0].replace("\0", "")],
        ):
            shown = on_terminal(words)
            if not shown:
                outcome.failures.append(f"{words[:2]} shows nothing")
            outcome.failures += [f"{words[:2]} with {group[0][:20]!r}: {w}" for w in raw(shown)]
    from overnight.cli import presets

    for group in groups:
        rows = [{"name": text, "default": text, "description": text} for text in group]
        shown = on_terminal(lambda rows=rows: presets._print(rows, False, list(rows[0])))
        outcome.failures += [f"listing: {wrong}" for wrong in raw(shown)]
        said = on_terminal(lambda group=group: _said(group))
        outcome.failures += [f"messages: {wrong}" for wrong in raw(said)]
    return outcome


def _said(group: list[str]) -> None:
    from overnight.training.progress import Progress

    with Progress() as progress:
        for text in group:
            progress.say(text)
            progress.show(text)


def on_terminal(work: Any) -> bytes:
    """What a command line, or a function, writes when its output is a terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            os.environ["TERM"] = "xterm-256color"
            sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            from overnight import cli

            cli.run(work) if isinstance(work, list) else work()
        except BaseException as error:
            print(f"{type(error).__name__}: {error!r}")
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
    shown = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # its other end is closed
            break
        if not part:
            break
        shown += part
    os.waitpid(pid, 0)
    os.close(terminal)
    return shown


def raw(shown: bytes) -> list[str]:
    """Characters that a terminal obeys, but for those of our own making."""
    text = OURS.sub(b"\n", shown).decode(errors="replace")
    odd = {c for c in text if not c.isprintable() and c not in "\n\t"}
    wrong = [f"{sorted(odd)} reach the terminal"] if odd else []
    if "Traceback" in text:
        wrong.append("a traceback: " + text[-200:])
    return wrong


# ---- generate ----------------------------------------------------------------------------------


def _generated(folder: Path, every: list[str]) -> Outcome:
    """A model whose alphabet is that of the payloads writes on a terminal."""
    outcome = Outcome("hostile text: generate on a terminal", 0)
    mine = folder / "hostile.txt"
    mine.write_bytes((" ".join(every * 3)).encode(errors="replace").replace(b"\0", b""))
    out = folder / "writes"
    tiny.begin(out, mine, **MORE)
    for seed in range(4):
        outcome.cases += 1
        words = ["generate", str(out), "--temperature", "3", "--seed", str(seed)]
        shown = on_terminal([*words, "--max-tokens", "200", "--prompt", "\x1b[2J\x9b"])
        outcome.failures += raw(shown)
        if len(shown) < 150:
            outcome.failures.append(f"nothing was written: {shown!r}")
        outcome.failures += raw(on_terminal([*words, "--max-tokens", "50", "--json"]))
    return outcome


# ---- code --------------------------------------------------------------------------------------


class Exploit:
    def __init__(self, canary: Path) -> None:
        self.canary = str(canary)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.canary,)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("pickle.find_class", "os.system"):
        seen_events.append(f"{event} {arguments[:2]}")


def _code(folder: Path, whole: Path, canary: Path, short: bool) -> Outcome:
    """Pickles, modules and files that name code, in a run folder that is then used for all."""
    import pickle

    from overnight import cli

    outcome = Outcome("hostile files: code that would be run", 0)
    evil = pickle.dumps(Exploit(canary))
    out = folder / "evil"
    names = ["model.pt", "pytorch_model.bin", "optimizer.pt", "state.pkl", "training_args.bin"]
    names += [
        "rng.pickle",
        "model.ckpt",
        "scheduler.pt",
        "__init__.py",
        "conftest.py",
        "modeling.py",
    ]
    source = f"import os; os.mkdir({str(canary)!r})".encode()
    sys.addaudithook(_hook)
    places = [".", "checkpoints/step-00000006", "checkpoints", "evals", "report"]
    for place in places[: 2 if short else None]:
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(whole, out)
        (out / place).mkdir(exist_ok=True)
        for name in names:
            (out / place / name).write_bytes(source if name.endswith(".py") else evil)
        _use(cli, out, outcome, canary, f"{names[0]} … in {place}", len(names))
    for name in ("model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"):
        for data in (evil, b"PK\x03\x04" + evil, source)[: 1 if short else None]:
            shutil.rmtree(out, ignore_errors=True)
            shutil.copytree(whole, out)
            (out / "checkpoints" / "step-00000006" / name).write_bytes(data)
            _use(cli, out, outcome, canary, name, 1)
    for name in ("config.toml", "tokenizer.json", "log.jsonl", "yardsticks.json"):
        for data in (evil, source, b"!!python/object/apply:os.mkdir ['x']")[: 1 if short else None]:
            shutil.rmtree(out, ignore_errors=True)
            shutil.copytree(whole, out)
            (out / name).write_bytes(data)
            _use(cli, out, outcome, canary, name, 1)
    return outcome


def _use(cli: Any, out: Path, outcome: Outcome, canary: Path, what: str, cases: int) -> None:
    from contextlib import redirect_stderr, redirect_stdout
    from io import StringIO

    outcome.cases += cases
    seen_events.clear()
    for words in (
        ["report", str(out), "--json"],
        ["generate", str(out), "--max-tokens", "2"],
        ["generate", str(out), "--max-tokens", "2", "--checkpoint", "6"],
        ["train", "--resume", str(out)],
    ):
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            try:
                cli.run(words)
            except Exception as error:
                outcome.failures.append(f"{what}, {words[0]}: {type(error).__name__}: {error}")
    if canary.exists():
        outcome.failures.append(f"{what}: code was run")
        canary.rmdir()
    outcome.failures += [f"{what}: {event}" for event in seen_events]
