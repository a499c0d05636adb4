"""The command line: `overnight COMMAND`. One file per group of commands, loaded when called.

Data goes to stdout, messages to stderr. Exit: 0 done, 1 failure, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import io
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from .. import __version__
from ..errors import UserError
from ..shown import printable

COMMANDS = {
    "train": ("train:train", "Train a model on text and report on it."),
    "generate": ("generate:generate", "Continue prompts with a trained model."),
    "report": ("report:report", "Say what a run shows, how sure that is, and what to do."),
    "explain": ("explain:explain", "Say what a loss means, from numbers alone."),
    "watch": ("watch:watch", "Follow a run while it trains; ring, run or stop on a condition."),
    "export": ("exchange:export", "Write a model as a folder that transformers loads."),
    "import": ("exchange:import_", "Take a folder of transformers as a run."),
    "bench": ("bench:bench", "Measure what this machine makes of the presets."),
    "presets": ("presets:presets", "List the presets: size, context, source."),
    "settings": ("presets:settings", "List every setting by its dotted name."),
}


def _whole(_type: object, tokens: Sequence[Any]) -> int:
    """Cyclopts would make 2 of 1.5."""
    text = tokens[0].value
    try:
        number = float(text)
        if number.is_integer():
            return int(text) if text.isdecimal() else int(number)
    except ValueError:
        pass
    raise ValueError(f'"{text}": give a whole number.')


Whole = Annotated[int, Parameter(converter=_whole)]  # of an option; 1e6 is one
Flag = Annotated[bool, Parameter(negative="")]  # there is no --no-…


def build_app() -> App:
    app = App(
        name="overnight",
        help="Train a small language model on the machine you have, tonight; "
        "read an honest report of it in the morning.",
        version=f"overnight {__version__}",
        result_action="return_value",
        suppress_keyboard_interrupt=False,  # `run` says so
    )
    for name, (target, text) in COMMANDS.items():
        app.command(f"{__name__}.{target}", name=name, help=text)
    return app


def say(message: str) -> None:
    """One message line on stderr."""
    print(printable(message), file=sys.stderr, flush=True)


@contextmanager
def loading() -> Iterator[None]:
    """While large libraries load, an interrupt ends the process at once: numpy and torch swallowed
    one of thirty that came then, and hours of training began."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:  # as it is behind & in a script
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def write_json(value: Any, indent: int | None = None) -> None:
    """`value`, of plain and typed structures, on stdout; for a terminal everything beyond ASCII is
    escaped, since a log or a model may hold what a terminal obeys, and so where stdout is not
    UTF-8."""
    import json

    import msgspec

    plain = sys.stdout.isatty() or (sys.stdout.encoding or "utf-8").lower() != "utf-8"
    value = msgspec.to_builtins(value)
    text = json.dumps(value, indent=indent, allow_nan=False, ensure_ascii=plain)
    sys.stdout.write(text + "\n")


SWITCHED = ("true", "false", "1", "0")
SETTING = re.compile(r"--\w+(\.\w+)+")


def spell_out(tokens: Sequence[str]) -> list[str]:
    """`--model.width 8` → `--set model.width=8`: settings are too many to be parameters."""
    rest = list(tokens)
    done: list[str] = []
    while rest:
        token = rest.pop(0)
        if token == "--":
            return [*done, token, *rest]
        name, equals, value = token.partition("=")
        if not SETTING.fullmatch(name):
            done.append(token)
            continue
        if not equals:
            value = _value_of(name.removeprefix("--"), rest)
        done += ["--set", f"{name.removeprefix('--')}={value}"]
    return done


def _value_of(setting: str, rest: list[str]) -> str:
    """The next token, which is taken from `rest`; a switch may stand alone."""
    from ..config import all_settings

    known = all_settings().get(setting)
    switch = known is not None and isinstance(known.default, bool)
    if rest and (rest[0].lower() in SWITCHED if switch else not rest[0].startswith("--")):
        return rest.pop(0)
    if known is not None and not switch:
        raise UserError(f"--{setting}: a value is missing.")
    return "true"


def run(tokens: Sequence[str]) -> int:
    """Run one command line; the exit code."""
    app = build_app()
    if sys.stdout is None:  # closed by `>&-`
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    try:
        words = spell_out(tokens) if tokens[:1] == ["train"] else list(tokens)
        result = app(words, exit_on_error=False, print_error=False)
    except UserError as error:  # one line, whatever a file is called
        say("overnight: " + str(error).replace("\n", "\\n"))
        return error.code
    except CycloptsError as error:
        say(f"overnight: {' '.join(str(error).split())}")
        return 2
    except KeyboardInterrupt:
        say("overnight: interrupted.")
        return 130
    except BrokenPipeError:  # `overnight report RUN | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a full disk, a folder that may not be written
        say(f"overnight: {error}")
        return 1
    return result if isinstance(result, int) else 0


def main() -> None:
    # a model and a log hold what a terminal of another encoding cannot show
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    # Read when torch loads: threads of a busy machine that spin at every barrier take each other's
    # time, and the default made updates 5 to 10 times slower on a loaded one; with 1,000 turns they
    # sleep too soon, a quarter slower on a quiet one (docs/lab-notes.md, E03, E20).
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    sys.exit(run(sys.argv[1:]))
