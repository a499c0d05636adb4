"""How the tree of settings is filled: by layers.

Layers, weakest first: defaults in `config.py` < preset < file < environment < flag. A layer is a
flat dictionary of dotted names. What no layer gives and no default fits (device, threads, length of
the schedule …) the program chooses when it knows the text and the machine; every such choice
carries its reason, and both are written to the run folder's `config.toml`.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec

from .config import AUTO, UNCHOSEN, Config, all_settings
from .errors import UserError, did_you_mean, within_sentence

PRESETS = Path(__file__).parent / "presets"
MAX_TOML_BYTES = 4 * 2**20
ENVIRONMENT_PREFIX = "OVERNIGHT_"
# variables with our prefix that are not settings
NO_SETTINGS = ("OVERNIGHT_CACHE_GB", "OVERNIGHT_CONDITION", "OVERNIGHT_RUN")
SPOKEN = {("train.micro_batch", "auto"): AUTO}

Layer = dict[str, Any]  # dotted name → value


def check_setting(name: str, value: Any, source: str) -> Any:
    """`value` converted to the type of setting `name`; text is parsed (as flags give it)."""
    known = all_settings()
    if name not in known:
        raise UserError(f'{source}: there is no setting "{name}".{did_you_mean(name, known)}')
    if isinstance(value, str):
        value = SPOKEN.get((name, value), value)
    wanted = known[name].type
    parsed = _parse_list(value, wanted) if isinstance(value, str) else value
    if isinstance(parsed, float) and parsed.is_integer():
        parsed = int(parsed)  # 1e6 tokens
    words = isinstance(value, str | list) and all(isinstance(part, str) for part in value)
    try:
        checked = msgspec.convert(parsed, wanted, strict=not words)
    except msgspec.ValidationError as error:
        choices = _choices(wanted)
        if choices and isinstance(value, str):
            hint = f"{did_you_mean(value, choices)} Known: {', '.join(choices)}."
            raise UserError(f'{source}: {name} = "{value}" is none.{hint}') from None
        raise UserError(f"{source}: {name} = {value!r}: {within_sentence(error)}.") from None
    if isinstance(checked, float) and not math.isfinite(checked):
        raise UserError(f"{source}: {name} = {value!r}: give a number that is finite.")
    if name.startswith("length.") and not checked:
        raise UserError(f"{source}: {name} = {value!r}: a length is above 0.")
    return checked


def _choices(wanted: Any) -> list[str]:
    """The words that a setting may be, where it may be only some."""
    plain = get_args(wanted)[0]
    return list(get_args(plain)) if get_origin(plain) is Literal else []


def _parse_list(text: str, wanted: Any) -> Any:
    """The text of a flag for a list setting: numbers are split at commas, words are not."""
    plain = get_args(wanted)[0]
    if get_origin(plain) is not list:
        return text
    if get_args(plain)[0] is str:
        return [text]
    inner = text.strip().removeprefix("[").removesuffix("]")  # as TOML and Python write it
    return [part.strip() for part in inner.split(",") if part.strip()]


class Settings:
    """Layers merged, with the source of each value; becomes a `Config` by `resolve`."""

    def __init__(self) -> None:
        self.values: Layer = {}
        self.reasons: dict[str, str] = {}
        self.preset = ""
        self.from_preset: set[str] = set()  # given by a preset and by nobody after it
        self.chosen: set[str] = set()  # by the program

    def add(self, layer: Mapping[str, Any], source: str) -> None:
        """Lay `layer` over what is there. A length in it replaces every earlier length."""
        lengths = [k for k in layer if k.startswith("length.")]
        if len(lengths) > 1:
            raise UserError(
                f"{source}: {' and '.join(sorted(lengths))} are given; "
                "a run has one length: give one of them."
            )
        if lengths:
            for name in [k for k in self.values if k.startswith("length.")]:
                del self.values[name]
                self.reasons.pop(name, None)
        for name, value in layer.items():
            self.values[name] = check_setting(name, value, source)
            self.reasons[name] = source
            self.from_preset.discard(name)
            self.chosen.discard(name)

    def add_preset(self, preset: Preset) -> None:
        """Lay a preset over what is there; `model.size = "auto"` may choose otherwise."""
        self.add(preset.layer, f"preset {preset.name}")
        self.from_preset |= preset.layer.keys()

    def not_given(self, name: str) -> bool:
        """Whether `name` has the default or a preset's own value, and not the user's."""
        return name not in self.values or name in self.from_preset

    def given(self) -> dict[str, str]:
        """What the user gave that is not the default, and how: name → "name = value (source)"."""
        return {
            name: f"{name} = {value} ({self.reasons[name]})"
            for name, value in self.values.items()
            if not self.not_given(name)
            and name not in self.chosen
            and value != all_settings()[name].default
        }

    def program_chooses(self, name: str) -> bool:
        """Whether the program is to choose `name`, or has chosen it so far."""
        return name in self.chosen or self.get(name) == UNCHOSEN.get(name)

    def get(self, name: str) -> Any:
        """The value so far: given, chosen, or the default."""
        return self.values.get(name, all_settings()[name].default)

    def choose(self, name: str, value: Any, reason: str) -> None:
        """Fill `name` with the program's choice, whatever stands there, and say why."""
        self.values[name] = check_setting(name, value, "chosen")
        self.reasons[name] = reason
        self.from_preset.discard(name)
        self.chosen.add(name)

    def resolve(self) -> Config:
        """The tree with every value in place."""
        return msgspec.convert(nest(self.values), Config)


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """`{"model.width": 8}` → `{"model": {"width": 8}}`."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        section, _, leaf = name.partition(".")
        tree.setdefault(section, {})[leaf] = value
    return tree


def flatten(tree: Mapping[str, Any], source: str) -> Layer:
    """The inverse of `nest`, for TOML; anything but tables of leaves is an error."""
    flat: Layer = {}
    for section, table in tree.items():
        if not isinstance(table, dict):
            raise UserError(
                f'{source}: "{section}" stands outside a table.'
                + did_you_mean(section, all_settings())
            )
        flat |= {f"{section}.{leaf}": value for leaf, value in table.items()}
    return flat


def read_toml(path: Path) -> dict[str, Any]:
    try:
        if path.exists() and not (path.is_file() and path.stat().st_size <= MAX_TOML_BYTES):
            raise UserError(f"{path}: not a settings file (a file of at most 4 MiB).")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such settings file.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:  # TOML, UTF-8, a NUL in the name
        raise UserError(f"{path}: not valid TOML: {error}") from None


class Preset(msgspec.Struct, frozen=True):
    """A named layer with where it comes from."""

    name: str
    description: str
    source: str
    layer: Layer


def preset_names() -> list[str]:
    return sorted(p.stem for p in PRESETS.glob("*.toml"))


def read_preset(name: str) -> Preset:
    """The preset `name`: shipped, or a path to a TOML file of the same form."""
    path = Path(name) if name.endswith(".toml") else PRESETS / f"{name}.toml"
    if not path.is_file():
        raise UserError(f'There is no preset "{name}".{did_you_mean(name, preset_names())}')
    tree = read_toml(path)
    about = tree.pop("preset", {})
    if not isinstance(about, dict):
        raise UserError(f"{path}: preset = {about!r}: give a table, [preset], or leave it out.")
    return Preset(
        path.stem,
        str(about.get("description", "")),
        str(about.get("source", "")),
        flatten(tree, str(path)),
    )


def of_preset(preset: str) -> Settings:
    """The settings with the preset of that name, and nothing else."""
    settings = Settings()
    settings.add_preset(read_preset(preset))
    return settings


def environment_layer(environ: Mapping[str, str] = os.environ) -> Layer:
    """`OVERNIGHT_MODEL__WIDTH=8` → `{"model.width": "8"}`; what else begins so is an error."""
    found = {}
    for name, value in environ.items():
        setting = name.removeprefix(ENVIRONMENT_PREFIX).lower()
        if not name.startswith(ENVIRONMENT_PREFIX) or name in NO_SETTINGS:
            continue
        if "__" not in setting:
            section, _, leaf = setting.partition("_")
            meant = f"{ENVIRONMENT_PREFIX}{section}__{leaf}".upper()
            hint = f' Did you mean "{meant}"?' if f"{section}.{leaf}" in all_settings() else ""
            raise UserError(f"environment: {name} is no setting.{hint}")
        found[setting.replace("__", ".")] = value
    return found


def dump_config(config: Config, reasons: Mapping[str, str]) -> str:
    """`config` as TOML; behind each value that was given or chosen, by whom and why."""
    import tomlkit

    document = tomlkit.document()
    for section, table in msgspec.to_builtins(config).items():
        body = tomlkit.table()
        for leaf, value in table.items():
            item = tomlkit.item(value)
            reason = reasons.get(f"{section}.{leaf}")
            if reason:
                item.comment(" ".join(reason.split()))
            body.add(leaf, item)
        document.add(section, body)
    return tomlkit.dumps(document)


def load_config(path: Path) -> Config:
    """The resolved settings of a run folder's `config.toml`; all sections are in it."""
    tree = read_toml(path)
    absent = [name for name in Config.__struct_fields__ if name not in tree]
    if absent:
        raise UserError(
            f"{path}: damaged, it has no [{absent[0]}]; the rows `start` of log.jsonl have the "
            "settings, too."
        )
    merged = Settings()
    merged.add(without_unset(flatten(tree, str(path))), str(path))
    return merged.resolve()


def without_unset(layer: Layer) -> Layer:
    """Without the lengths that are 0 beside others: a run's config.toml has all four of them, of
    which one counts."""
    unset = [name for name, value in layer.items() if name.startswith("length.") and not value]
    several = sum(name.startswith("length.") for name in layer) > 1
    return {k: v for k, v in layer.items() if not (several and k in unset)}
