"""Fuzzed files to every reader: an answer or a `UserError`, soon, in bounded memory.

Seeds are the files of a real run and logs of other tools. They are mutated as bytes, as text (with
the words that parsers trip over) and as JSON (a value replaced by an odd one). Readers run in
forked children with a limit on memory and on time; a child that dies is a failure, too.
"""
# ruff: noqa: E501  (a list of odd words)

from __future__ import annotations

import json
import os
import random
import resource
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import tiny
from .tiny import Outcome

MEMORY = 3 * 2**29  # bytes beyond what the process has before
SECONDS = 10  # for one input; they take milliseconds
BATCH = 1000  # inputs to one child
MORE = {"length__steps": 6, "save__every": 2, "save__keep": 1, "eval__every": 3, "log__every": 2}


@dataclass
class Target:
    name: str
    seeds: list[bytes]
    read: Callable[[Path, bytes], None]  # in a folder of its own
    share: float


class HangError(Exception):
    pass


def run(folder: Path, short: bool, cases: int) -> Iterator[Outcome]:
    from overnight.model.checkpoint import DamagedError

    wanted = cases or (3000 if short else 100_000)
    whole = folder / "whole"
    tiny.begin(whole, tiny.text_file(folder), **MORE)
    for target in targets(whole):
        outcome = Outcome(f"fuzz: {target.name}", 0)
        total = max(1, round(wanted * target.share))
        (folder / "good").mkdir(exist_ok=True)
        for seed in target.seeds:  # what is not damaged is read
            with suppress(DamagedError):  # a manifest alone
                target.read(folder / "good", seed)
        while outcome.cases < total:
            count = min(BATCH, total - outcome.cases)
            outcome.failures += _child(target, folder / "work", outcome.cases, count)
            outcome.cases += count
        yield outcome


def _child(target: Target, work: Path, first: int, count: int) -> list[str]:
    """Inputs `first` … in a process of its own; what it complains of, one line each."""
    work.mkdir(exist_ok=True)
    receive, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(receive)
        code = 1
        try:
            _work(target, work, range(first, first + count), send)
            code = 0
        finally:
            os._exit(code)
    os.close(send)
    with os.fdopen(receive, errors="replace") as reports:
        lines = reports.read().splitlines()
    _, status = os.waitpid(pid, 0)
    failures, number = [], "?"
    for line in lines:
        if line.startswith("@"):
            number = line[1:]
        else:
            failures.append(f"input {number}: {line}")
    if status:
        code = os.waitstatus_to_exitcode(status)
        failures.append(f"input {number}: the process ended with {code}")
    return failures


def _work(target: Target, work: Path, numbers: range, send: int) -> None:
    with os.fdopen(send, "w", errors="replace") as report:
        _limits()
        for number in numbers:
            report.write(f"@{number}\n")
            report.flush()
            if wrong := _one(target, work, number):
                report.write(" ".join(wrong.split()) + "\n")


def _limits() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)

    def late(*_: Any) -> None:
        raise HangError

    signal.signal(signal.SIGALRM, late)


def _one(target: Target, work: Path, number: int) -> str:
    from overnight.errors import UserError
    from overnight.model.checkpoint import DamagedError

    data = mutated(target.seeds, random.Random(f"{target.name}-{number}"))
    signal.alarm(SECONDS)
    try:
        target.read(work, data)
    except (UserError, DamagedError):
        pass
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)
        ours = [f"{Path(f.filename).name}:{f.lineno}" for f in where if "overnight" in f.filename]
        return f"{type(error).__name__}: {error!s:.150} at {ours[-1:]}"
    finally:
        signal.alarm(0)
    return ""


# ---- readers -----------------------------------------------------------------------------------


def targets(whole: Path) -> list[Target]:
    from overnight.runfolder import RunFolder
    from overnight.settings import PRESETS

    run = RunFolder(whole)
    place = run.checkpoint_path(6)
    presets = [path.read_bytes() for path in sorted(PRESETS.glob("*.toml"))]
    log = run.log.read_bytes()
    evals = [path.read_bytes() for path in sorted(run.evals.iterdir())]
    made = [run.config.read_bytes(), run.tokenizer.read_bytes(), run.yardsticks.read_bytes()]
    tokenizers = [made[1], *_tokenizers()]
    return [
        Target("log.jsonl as resume reads it", [log], _log, 0.2),
        Target("log.jsonl as the report reads it", [log], _report, 0.03),
        Target("config.toml", [made[0]], _config, 0.1),
        Target("presets and settings files", presets, _preset, 0.1),
        Target("manifest.json", [(place / "manifest.json").read_bytes()], _manifest, 0.15),
        Target("state.json", [(place / "state.json").read_bytes()], _state, 0.1),
        Target("tokenizer.json", tokenizers, _tokenizer, 0.1),
        Target("yardsticks.json, forecasts.jsonl", [made[2]], _yardsticks(log), 0.02),
        Target("evals/*.safetensors", evals, _evals, 0.1),
        Target("logs of others: .jsonl, .csv", _foreign(), _other, 0.1),
    ]


def _log(work: Path, data: bytes) -> None:
    from overnight.runfolder import Event, LogWriter, current, lowest_evaluation, read_log

    path = work / "log.jsonl"
    path.write_bytes(data)
    read = read_log(path)
    current(read.rows)
    lowest_evaluation(read.rows)
    writer = LogWriter(path, read.attempts + 1)
    writer.write(Event(step=0, kind="x", message="y"))
    writer.close()
    if read_log(path).rows[-1].attempt != read.attempts + 1:
        raise AssertionError("a row written after it cannot be read")


def _folder(work: Path, **files: bytes) -> Path:
    run = work / "run"
    (run / "report").mkdir(parents=True, exist_ok=True)
    (run / "evals").mkdir(exist_ok=True)
    for name in ("log.jsonl", "yardsticks.json"):
        (run / name).unlink(missing_ok=True)
    for name, data in files.items():
        (run / name.replace("__", ".")).write_bytes(data)
    return run


def _report(work: Path, data: bytes) -> None:
    _findings(_folder(work, log__jsonl=data))


def _findings(path: Path) -> None:
    from overnight.analysis.run import load_run
    from overnight.report import html, markdown
    from overnight.report.document import build

    run = load_run(path)
    json.dumps(run.findings, allow_nan=False)
    document = build(run.found)
    markdown.render(document)
    html.render(document, run.findings)


def _yardsticks(log: bytes) -> Callable[[Path, bytes], None]:
    def read(work: Path, data: bytes) -> None:
        run = _folder(work, log__jsonl=log, yardsticks__json=data)
        (run / "report" / "forecasts.jsonl").write_bytes(data)
        _findings(run)

    return read


def _config(work: Path, data: bytes) -> None:
    from overnight.settings import load_config

    (work / "config.toml").write_bytes(data)
    load_config(work / "config.toml")


def _preset(work: Path, data: bytes) -> None:
    from overnight.settings import Settings, dump_config, read_preset

    (work / "mine.toml").write_bytes(data)
    settings = Settings()
    settings.add(read_preset(str(work / "mine.toml")).layer, "mine")
    dump_config(settings.resolve(), settings.reasons)


def _manifest(work: Path, data: bytes) -> None:
    from overnight.model import checkpoint

    place = work / "checkpoints" / "step-00000006"
    place.mkdir(parents=True, exist_ok=True)
    (place / "manifest.json").write_bytes(data)
    checkpoint.verify(place)


def _state(work: Path, data: bytes) -> None:
    import hashlib

    import msgspec

    from overnight.model import checkpoint

    place = work / "checkpoints" / "step-00000006"
    place.mkdir(parents=True, exist_ok=True)
    files = {"state.json": data, "model.safetensors": b"", "optimizer.safetensors": b""}
    facts = {}
    for name, content in files.items():
        (place / name).write_bytes(content)
        facts[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest = msgspec.json.encode({"step": 6, "files": facts})
    (place / "manifest.json").write_bytes(manifest)
    checkpoint.verify(place)
    checkpoint.read_state(place)


def _tokenizer(work: Path, data: bytes) -> None:
    from overnight.text.tokenizers import Tokenizer

    (work / "tokenizer.json").write_bytes(data)
    tokenizer = Tokenizer.load(work / "tokenizer.json")
    ids = tokenizer.encode("Line 3 says that é is 9.")
    tokenizer.decode(ids)
    assert len(tokenizer.cost.nats) == tokenizer.vocab_size


def _evals(work: Path, data: bytes) -> None:
    from overnight.analysis.readers.own import block_losses
    from overnight.analysis.tables import EVAL, TRAIN, Log, empty

    run = work / "run"
    (run / "evals").mkdir(parents=True, exist_ok=True)
    (run / "evals" / "step-00000003-attempt-1.safetensors").write_bytes(data)
    block_losses(Log(run, "run folder", empty(TRAIN), empty(EVAL)), 3, 1, logged=4.0)


def _other(work: Path, data: bytes) -> None:
    path = work / ("log.jsonl" if data[:20].lstrip().startswith(b"{") else "log.csv")
    path.write_bytes(data)
    from overnight.analysis.readers import read

    read(path)


def _tokenizers() -> list[bytes]:
    from overnight.text import makers

    text = [tiny.TEXT]
    made = [makers.bytes_tokenizer(True)]
    made += [
        makers.train(kind, iter(text), 300, True)
        for kind in ("bpe", "wordpiece", "wordpiece-classic")
    ]
    return [tokenizer.json.encode() for tokenizer in made]


def _foreign() -> list[bytes]:
    rows = [{"step": i, "loss": 4 - i / 30, "lr": 1e-3, "grad_norm": 1.0} for i in range(60)]
    with_val = [{"type": "eval", "step": i, "val_loss": 4 - i / 40} for i in range(0, 60, 10)]
    config = {"config": {"batch_size": 8, "block_size": 64, "lr": 1e-3}}
    nested = [{"iter": i, "train": {"loss": 3.0}, "val": {"loss": 3.1}} for i in range(9)]
    csv = "step,train_loss,val_loss,lr\n" + "".join(f"{i},{4 - i / 9},,1e-3\n" for i in range(30))
    tabs = csv.replace(",", "\t")
    lines = ["\n".join(map(json.dumps, part)) for part in ([config, *rows, *with_val], nested)]
    return [part.encode() for part in [*lines, csv, tabs]]


# ---- mutations ---------------------------------------------------------------------------------

WORDS = [
    *("null", "NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e-999", "-0", "-1", "0"),
    *("9" * 400, "18446744073709551616", "9007199254740993", "true", "[]", "{}", '""', "[" * 3000),
    *('{"a":' * 3000, '"' * 7, "\\u0000", "\\ud800", "\ud7ff", "\x00", "\x1b[2J", "\u202e", "\ufeff"),
    *("=", "[[x]]", "[a.b]", "'''", '"""', "inf", "nan", "1979-05-27T07:32:00Z", "\r", "\r\n", "\n"),
    *(",", ";", "\t", ":", "step", "type", "loss", "start", "eval", "config", "0x", "1_000", "__proto__"),
    *("../../etc/passwd", "/dev/zero", "99999999999", "2147483648", "1e308", "4e-324", "$", "{{7*7}}"),
]  # fmt: skip
VALUES: list[Any] = [
    None, True, 0, -1, 2**31, 2**53 + 1, 2**63, 2**64, 10**40, 1e308, 5e-324, -0.0, "", "x" * 3000,
    "\x1b]0;x\x07", "\u202e", "NaN", [], {}, [[[]]], {"type": "eval"}, ["a", 1, None], 0.5, 1e18,
]  # fmt: skip


def mutated(seeds: list[bytes], draw: random.Random) -> bytes:
    data = draw.choice(seeds)
    for _ in range(draw.choice([1, 1, 2, 4, 16])):
        data = draw.choice(MUTATIONS)(data, seeds, draw)
    return data[: 2**20]


def _bit(data: bytes, seeds: list[bytes], draw: random.Random) -> bytes:
    if not data:
        return data
    at = draw.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :]


def _cut(data: bytes, seeds: list[bytes], draw: random.Random) -> bytes:
    begin, end = sorted(draw.randrange(len(data) + 1) for _ in range(2))
    return data[:begin] + data[end:] if draw.random() < 0.7 else data[begin:end]


def _splice(data: bytes, seeds: list[bytes], draw: random.Random) -> bytes:
    other, at = draw.choice(seeds), draw.randrange(len(data) + 1)
    begin = draw.randrange(len(other) + 1)
    return data[:at] + other[begin : begin + draw.choice([1, 20, 500])] + data[at:]


def _noise(data: bytes, seeds: list[bytes], draw: random.Random) -> bytes:
    at = draw.randrange(len(data) + 1)
    return data[:at] + draw.randbytes(draw.choice([1, 4, 64])) + data[at:]


def _word(data: bytes, seeds: list[bytes], draw: random.Random) -> bytes:
    at, word = draw.randrange(len(data) + 1), draw.choice(WORDS).encode("utf-8", "surrogatepass")
    gone = draw.choice([0, 0, 1, len(word)])
    return data[:at] + word + data[at + gone :]


def _value(data: bytes, seeds: list[bytes], draw: random.Random) -> bytes:
    """A value of a JSON document, or of one line of it, becomes another."""
    lines = data.split(b"\n")
    whole = draw.random() < 0.3
    at = draw.randrange(len(lines))
    try:
        tree = json.loads(data if whole else lines[at])
    except (ValueError, RecursionError):
        return _word(data, seeds, draw)
    spots: list[tuple[Any, Any]] = []
    _spots(tree, spots)
    if not spots:
        return data
    holder, name = draw.choice(spots)
    if draw.random() < 0.15:
        del holder[name]
    elif draw.random() < 0.1 and isinstance(holder, dict):
        holder[str(draw.choice(VALUES))[:50]] = holder.pop(name)
    else:
        holder[name] = draw.choice(VALUES)
    new = json.dumps(tree).encode()
    return new if whole else b"\n".join([*lines[:at], new, *lines[at + 1 :]])


def _spots(tree: Any, spots: list[tuple[Any, Any]]) -> None:
    if len(spots) > 2000:
        return
    if not isinstance(tree, dict | list):
        return
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for name, value in list(items):
        spots.append((tree, name))
        if isinstance(value, dict | list):
            _spots(value, spots)


def _lines(data: bytes, seeds: list[bytes], draw: random.Random) -> bytes:
    lines = data.split(b"\n")
    if draw.random() < 0.5:
        draw.shuffle(lines)
    else:
        lines += draw.choices(lines, k=draw.choice([1, 5, 30]))
    return b"\n".join(lines)


MUTATIONS = [_bit, _cut, _splice, _noise, _word, _word, _value, _value, _value, _lines]
