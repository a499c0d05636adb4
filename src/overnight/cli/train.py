"""`overnight train`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ..config import Effect, all_settings, takes_list
from ..errors import UserError, did_you_mean
from ..runfolder import RunFolder
from ..runlock import RunLock
from ..settings import (
    Settings,
    environment_layer,
    flatten,
    read_preset,
    read_toml,
    without_unset,
)
from ..shown import printable
from . import Flag, Whole, loading, write_json

if TYPE_CHECKING:
    from ..training.initial import Initial

DEFAULT_PRESET = "fast"


def train(
    *text: Annotated[str, Parameter(allow_leading_hyphen=True)],
    preset: str | None = None,
    settings: Path | None = None,
    out: Path | None = None,
    val: Annotated[list[str] | None, Parameter(negative="", allow_leading_hyphen=True)] = None,
    begin_with: Annotated[str | None, Parameter(name="--from")] = None,
    resume: Path | None = None,
    accept: Effect = "harmless",
    tokenizer: str | None = None,
    vocab_size: Whole | None = None,
    max_steps: Whole | None = None,
    tokens: float | None = None,
    passes: float | None = None,
    minutes: float | None = None,
    hours: float | None = None,
    log_every: Whole | None = None,
    eval_every: Whole | None = None,
    save_every: Whole | None = None,
    micro_batch: str | None = None,
    seed: Whole | None = None,
    device: str | None = None,
    threads: Whole | None = None,
    dry_run: Flag = False,
    json: Flag = False,
    set: Annotated[list[str] | None, Parameter(negative="")] = None,
) -> int:
    """Train a model on TEXT (files, folders, - for standard input) and report on it.

    Without TEXT it trains on the embedded State of the Union speeches; without a length for as long
    as its preset says, which of the default one is 3 minutes. Any setting can be given
    by its dotted name, as in --model.width 384; "overnight settings" lists them.

    Parameters
    ----------
    text
        Files, folders or -; .gz, .zst, .jsonl are read as such.
    preset
        Named settings; `overnight presets` lists them. Default: fast.
    settings
        A TOML file of settings, laid over the preset.
    out
        The run folder to make. Default: a new one in runs/, named by date and preset.
    val
        Separate validation text, instead of a part of TEXT; may be given more than once.
    begin_with
        A run folder: begin with its weights, tokenizer and settings, on this text.
    resume
        Go on with this run folder, exactly where it stopped.
    accept
        With --resume: the most that changed text or settings may do.
    tokenizer
        bytes, chars, bpe, wordpiece, wordpiece-classic or file.
    vocab_size
        Tokens wanted of a trained tokenizer.
    max_steps
        Length in updates.
    tokens
        Length in training tokens.
    passes
        Length in times through the text.
    minutes
        Length in minutes, turned into steps before the first step.
    hours
        Length in hours, likewise.
    log_every
        Steps per row of the log.
    eval_every
        Steps between evaluations.
    save_every
        Steps between checkpoints.
    micro_batch
        Sequences per forward/backward, or auto: as many as fit; the batch stays as it is.
    seed
        Of weights, order and dropout.
    device
        auto, cpu, cuda or mps.
    threads
        CPU threads.
    dry_run
        Print the plan on stdout and end.
    json
        Print one object on stdout: the summary when done, or the plan.
    set
        NAME=VALUE, the long form of --NAME VALUE for any setting.
    """
    _refuse_options(text)
    flags: dict[str, Any] = {
        "data.text": list(text) or None,
        "data.val": val,
        "tokenizer.kind": tokenizer,
        "tokenizer.vocab_size": vocab_size,
        "length.steps": max_steps,
        "length.tokens": tokens,
        "length.passes": passes,
        "length.minutes": minutes if hours is None else _minutes(minutes, hours),
        "log.every": log_every,
        "eval.every": eval_every,
        "save.every": save_every,
        "train.micro_batch": micro_batch,
        "train.seed": seed,
        "train.device": device,
        "train.threads": threads,
    }
    flags = {name: value for name, value in flags.items() if value is not None}
    named = _named(set or [])
    for name in named.keys() & flags.keys():
        raise UserError(f"{name} is given twice, as {flags[name]} and {named[name]}; give it once.")
    flags |= named
    if resume is not None:
        kept = {"--out": out, "--preset": preset, "--settings": settings, "--from": begin_with}
        for name, value in kept.items():
            if value is not None:
                raise UserError(f"--resume keeps the run's own settings; leave out {name}.")
        return _resume(resume, flags, accept, dry_run, json)
    initial = None
    if begin_with is not None:
        with loading():
            from ..training.initial import load_initial

        initial = load_initial(begin_with)
    return _begin(_layers(preset, settings, flags, initial), out, dry_run, json, initial)


def _refuse_options(text: tuple[str, ...]) -> None:
    """A lone - is standard input, but a misspelt option is not a file."""
    for word in text:
        if word.startswith("-") and Path(word).exists():
            raise UserError(f'"{word}" looks like an option: name the file as ./{word}.')
        if word.startswith("-") and word != "-":
            names = [n for n in train.__annotations__ if n not in ("text", "return", "begin_with")]
            options = ["--from", *("--" + name.replace("_", "-") for name in names)]
            known = options + ["--" + name for name in all_settings()]
            raise UserError(f'There is no option "{word}".{did_you_mean(word, known)}')


def _named(pairs: list[str]) -> dict[str, Any]:
    """`["model.width=8"]` → `{"model.width": "8"}`; a name given twice makes a list."""
    layer: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f'--set "{pair}": give NAME=VALUE.')
        if name in layer:
            if name in all_settings() and not takes_list(name):
                raise UserError(f"--{name} is given twice; give it once.")
            before = layer[name] if isinstance(layer[name], list) else [layer[name]]
            layer[name] = [*before, value]
        else:
            layer[name] = value
    return layer


def _minutes(minutes: float | None, hours: float) -> float:
    if minutes is not None:
        raise UserError("--minutes and --hours are both given; give one of them.")
    return 60 * hours


def _layers(
    preset: str | None, file: Path | None, flags: dict[str, Any], initial: Initial | None
) -> Settings:
    """The layers in their order; a run that begins with another's weights takes over its
    settings instead of the default preset's."""
    settings = Settings()
    chosen = read_preset(preset or DEFAULT_PRESET)
    if initial:
        settings.add(initial.layer, initial.source)
    if preset or not initial:
        settings.add_preset(chosen)
    if file:
        settings.add(without_unset(flatten(read_toml(file), str(file))), str(file))
    settings.add(environment_layer(), "environment")
    settings.add(flags, "command line")
    settings.preset = "from" if initial and not preset else chosen.name
    return settings


def _begin(
    settings: Settings, out: Path | None, dry_run: bool, json: bool, initial: Initial | None
) -> int:
    from ..training.progress import Progress
    from ..training.stop import outlives_terminal

    progress = Progress()
    with outlives_terminal(progress.let_go):  # before the seconds that torch takes to load
        with loading():
            from ..training import session

        path = out or session.default_folder(settings.preset)
        session.refuse_existing(path)
        plan = session.plan_run(settings, progress.say, initial)
        if dry_run:
            if json:
                write_json(plan.summary())
            else:
                sys.stdout.write(printable("\n".join(plan.lines())) + "\n")
            return 0
        for line in plan.lines():
            progress.say(line)
        done = session.begin(plan, path, progress, _stop_reason, or_beside=out is None)
        return _finish(done, progress, json)


def _resume(run: Path, changes: dict[str, Any], accept: str, dry_run: bool, json: bool) -> int:
    # who trains this run is told at once, before torch is loaded
    RunLock(RunFolder.open(run).lock).release()
    if dry_run:
        raise UserError("--dry-run plans a new run; leave it out with --resume.")
    from ..training.progress import Progress
    from ..training.stop import outlives_terminal

    progress = Progress()
    with outlives_terminal(progress.let_go):
        with loading():
            from ..training.resume import resume

        done = resume(run, progress, _stop_reason, changes, accept)
        return _finish(done, progress, json)


def _stop_reason(steps: list[int], losses: list[float]) -> str:
    """The report's test of validation, at a level for one who looks after every evaluation. (A
    report may still call it no overfitting, where the training loss got worse with it.)"""
    from ..analysis.overfitting import stop_reason

    return stop_reason(steps, losses)


def _finish(summary: Any, progress: Any, json: bool) -> int:
    """Report on what was trained, unless a report of just that is there; print the summary."""
    import msgspec

    from ..analysis.run import load_run
    from ..report import write

    run = RunFolder(Path(summary.run))
    written = run.report / "report.html"
    if not written.exists() or written.stat().st_mtime < run.log.stat().st_mtime:
        try:
            write(load_run(summary.run))
        except KeyboardInterrupt:
            progress.say(f"trained; the report is not written: overnight report {run.path}")
            raise
    progress.say(f"report    {written}")
    if json:
        shown = {k: v for k, v in msgspec.to_builtins(summary).items() if k != "exit_code"}
        write_json(shown)
    code: int = summary.exit_code
    return code
