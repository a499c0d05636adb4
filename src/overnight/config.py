"""The settings: one typed tree, filled by layers.

Layers, weakest first: defaults here < preset < file < environment < flag. A layer is a flat
dictionary of dotted names. What no layer gives and no default fits (device, threads, length of
the schedule …) the program chooses when it knows the text and the machine; every such choice
carries its reason, and both are written to the run folder's `config.toml`.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from .errors import UserError, did_you_mean

PRESETS = Path(__file__).parent / "presets"
MAX_TOML_BYTES = 4 * 2**20
ENVIRONMENT_PREFIX = "OVERNIGHT_"


AUTO = -1  # of a number that the program finds by trying
SPOKEN = {("train.micro_batch", "auto"): AUTO}


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Data(_Section, frozen=True, kw_only=True):
    text: Annotated[
        list[str], Meta(description="files, folders or - ; empty: the embedded speeches")
    ] = []
    val: Annotated[list[str], Meta(description="separate validation text; empty: a split")] = []
    val_fraction: Annotated[
        float,
        Meta(ge=0, le=0.5, description="share of the text that is held out; 0: chosen by size"),
    ] = 0.0
    text_field: Annotated[str, Meta(description="the field of a .jsonl row that holds text")] = (
        "text"
    )


class Tokenizer(_Section, frozen=True, kw_only=True):
    kind: Annotated[
        Literal["auto", "bytes", "chars", "bpe", "wordpiece", "wordpiece-classic", "file"],
        Meta(
            description="what a token is; auto: by the size of the text; "
            "wordpiece-classic loses case and spaces"
        ),
    ] = "bpe"
    path: Annotated[
        str,
        Meta(description="file: a tokenizer.json, or a tiktoken or Hub name on this machine"),
    ] = ""
    vocab_size: Annotated[
        int,
        Meta(
            ge=0,
            le=2**24,
            description="tokens wanted of bpe or wordpiece; 0: chosen by the size of the text",
        ),
    ] = 0


class Model(_Section, frozen=True, kw_only=True):
    size: Annotated[
        Literal["given", "auto"],
        Meta(
            description="auto: a preset's layers, width, heads, n-grams and batch give way "
            "to what the length of the run is worth"
        ),
    ] = "given"
    layers: Annotated[
        str,
        Meta(
            pattern="^[AS]+$",
            min_length=1,
            max_length=1024,
            description="one letter a layer: A attention, S state space",
        ),
    ] = "AAAA"
    width: Annotated[int, Meta(ge=1, description="size of the residual stream")] = 256
    heads: Annotated[int, Meta(ge=1, description="attention heads")] = 4
    kv_heads: Annotated[
        int, Meta(ge=0, description="key/value heads (GQA); 0: as many as heads")
    ] = 0
    feed_forward: Annotated[
        int, Meta(ge=0, description="hidden size of the MLP; 0: four times the width")
    ] = 0
    context: Annotated[int, Meta(ge=1, description="tokens a training block holds")] = 256
    position: Annotated[
        Literal["learned", "rope", "alibi", "none"], Meta(description="how order is seen")
    ] = "rope"
    rope_base: Annotated[float, Meta(ge=0, description="base of the rotary frequencies")] = 10000.0
    norm: Annotated[Literal["layer", "rms"], Meta(description="normalisation")] = "rms"
    norm_eps: Annotated[float, Meta(ge=0, description="added to the variance in a norm")] = 1e-5
    mlp: Annotated[
        Literal["gelu", "gelu_tanh", "relu2", "swiglu", "none"],
        Meta(description="the feed-forward part"),
    ] = "relu2"
    bias: Annotated[bool, Meta(description="biases in linear layers and layer norms")] = False
    tied: Annotated[bool, Meta(description="the head is the token embedding")] = True
    embed_std: Annotated[
        float, Meta(gt=0, description="standard deviation of embeddings at the beginning")
    ] = 0.02
    qk_norm: Annotated[bool, Meta(description="RMS norm on queries and keys")] = False
    dropout: Annotated[
        float,
        Meta(ge=0, le=1, description="dropout on embeddings, attention weights and branch outputs"),
    ] = 0.0
    ngrams: Annotated[
        list[Annotated[int, Meta(ge=2, le=4)]],
        Meta(description="orders of the hashed n-gram embedding tables, as 2,3; empty: none"),
    ] = []
    ngram_rows: Annotated[int, Meta(ge=1, description="rows of each n-gram table")] = 32768
    ssm_state: Annotated[int, Meta(ge=1, description="state size of an S layer")] = 64
    ssm_head: Annotated[int, Meta(ge=1, description="head size of an S layer")] = 64
    ssm_expand: Annotated[int, Meta(ge=1, description="inner width of an S layer / width")] = 2
    vocab_size: Annotated[int, Meta(ge=0, description="filled in from the tokenizer")] = 0


class Optimizer(_Section, frozen=True, kw_only=True):
    kind: Annotated[
        Literal["adamw", "muon"],
        Meta(description="muon: Muon for hidden matrices, AdamW for the rest"),
    ] = "adamw"
    lr: Annotated[float, Meta(ge=0, description="peak learning rate of AdamW")] = 1e-3
    beta1: Annotated[float, Meta(ge=0, le=1, description="AdamW momentum")] = 0.9
    beta2: Annotated[float, Meta(ge=0, le=1, description="AdamW second moment")] = 0.95
    eps: Annotated[float, Meta(ge=0, description="AdamW epsilon")] = 1e-8
    weight_decay: Annotated[
        float, Meta(ge=0, description="decay of matrices (never of biases, norms)")
    ] = 0.1
    muon_lr: Annotated[float, Meta(ge=0, description="peak learning rate of Muon")] = 0.02
    muon_momentum: Annotated[float, Meta(ge=0, le=1, description="Muon momentum (Nesterov)")] = 0.95
    muon_weight_decay: Annotated[
        float, Meta(ge=0, description="decay of the matrices that Muon holds")
    ] = 0.0
    clip: Annotated[float, Meta(ge=0, description="gradient norm is clipped to this; 0: never")] = (
        1.0
    )


class Schedule(_Section, frozen=True, kw_only=True):
    kind: Annotated[
        Literal["cosine", "linear", "constant", "wsd"],
        Meta(description="what follows the warm-up"),
    ] = "cosine"
    warmup: Annotated[int, Meta(ge=0, description="steps of linear warm-up")] = 0
    min_ratio: Annotated[
        float, Meta(ge=0, le=1, description="learning rate at the end as a share of the peak")
    ] = 0.1
    decay: Annotated[
        float, Meta(ge=0, le=1, description="wsd: share of the run in the final linear decay")
    ] = 0.2


class Length(_Section, frozen=True, kw_only=True):
    """How long to train; one of them, turned into `steps` before the first step."""

    steps: Annotated[int, Meta(ge=0, description="optimizer updates")] = 0
    tokens: Annotated[int, Meta(ge=0, description="training tokens")] = 0
    passes: Annotated[float, Meta(ge=0, description="times through the training text")] = 0.0
    minutes: Annotated[
        float, Meta(ge=0, description="minutes of wall time, turned into steps by a timed probe")
    ] = 0.0


class Train(_Section, frozen=True, kw_only=True):
    batch: Annotated[int, Meta(ge=1, description="sequences per update")] = 32
    micro_batch: Annotated[
        int,
        Meta(
            ge=-1,
            description="sequences per forward/backward; 0: the batch; "
            "auto (or -1): as many as fit into memory",
        ),
    ] = 0
    label_smoothing: Annotated[
        float, Meta(ge=0, le=1, description="share of the target spread over the vocabulary")
    ] = 0.0
    early_stop: Annotated[
        bool, Meta(description="end the run when validation is proven to get worse")
    ] = False
    skip_spikes: Annotated[
        bool, Meta(description="leave the weights alone where a loss is a spike")
    ] = False
    seed: Annotated[int, Meta(ge=0, description="of weights, order and dropout")] = 1
    device: Annotated[str, Meta(description="auto, cpu, cuda, mps")] = "auto"
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16"],
        Meta(description="compute dtype; weights are always float32"),
    ] = "auto"
    attention: Annotated[
        Literal["auto", "fused", "plain"],
        Meta(description="torch's fused kernel or plain products; they agree to rounding"),
    ] = "auto"
    compile: Annotated[
        Literal["auto", "on", "off"],
        Meta(description="updates as compiled code; evaluation and samples never are"),
    ] = "auto"
    threads: Annotated[int, Meta(ge=0, description="CPU threads; 0: physical cores")] = 0


class Evaluate(_Section, frozen=True, kw_only=True):
    every: Annotated[int, Meta(ge=0, description="steps between evaluations; 0: chosen")] = 0
    tokens: Annotated[
        int,
        Meta(
            ge=0,
            description="tokens in the fixed val set, and in the train probe; "
            "0: chosen; more than the split has: all of it",
        ),
    ] = 0


class Sample(_Section, frozen=True, kw_only=True):
    every: Annotated[int, Meta(ge=0, description="steps between samples; 0: chosen")] = 0
    prompts: Annotated[list[str], Meta(description="fixed prompts; empty: from the val text")] = []
    tokens: Annotated[int, Meta(ge=0, description="tokens written per prompt; 0: no samples")] = 64
    temperature: Annotated[float, Meta(ge=0, description="0 takes the most likely token")] = 0.8
    top_k: Annotated[int, Meta(ge=0, description="0: all tokens")] = 50


class Save(_Section, frozen=True, kw_only=True):
    every: Annotated[int, Meta(ge=0, description="steps between checkpoints; 0: chosen")] = 0
    keep: Annotated[int, Meta(ge=1, description="newest checkpoints kept beside the best")] = 2


class Log(_Section, frozen=True, kw_only=True):
    every: Annotated[int, Meta(ge=1, description="steps per training row")] = 10


class Config(_Section, frozen=True, kw_only=True):
    """The resolved settings of a run."""

    data: Data = Data()
    tokenizer: Tokenizer = Tokenizer()
    model: Model = Model()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    length: Length = Length()
    train: Train = Train()
    eval: Evaluate = Evaluate()
    sample: Sample = Sample()
    save: Save = Save()
    log: Log = Log()


Layer = dict[str, Any]  # dotted name → value


class Setting(msgspec.Struct, frozen=True):
    """One leaf of the tree, for lookup and for `overnight settings`."""

    name: str
    type: Any
    default: Any
    description: str


@cache
def settings() -> dict[str, Setting]:
    """Every setting by its dotted name, in the order of the tree."""
    return {s.name: s for s in _walk(Config, "")}


def _walk(section: type, prefix: str) -> Iterator[Setting]:
    hints = get_type_hints(section, include_extras=True)
    for field in msgspec.structs.fields(section):
        hint = hints[field.encode_name]
        name = prefix + field.name
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            yield from _walk(hint, name + ".")
            continue
        default = (
            field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
        )
        meta = get_args(hint)[1] if get_origin(hint) is Annotated else None
        yield Setting(name, hint, default, (meta and meta.description) or "")


def check(name: str, value: Any, source: str) -> Any:
    """`value` converted to the type of setting `name`; text is parsed (as flags give it)."""
    known = settings()
    if name not in known:
        raise UserError(f'{source}: there is no setting "{name}".{did_you_mean(name, known)}')
    if isinstance(value, str):
        value = SPOKEN.get((name, value), value)
    wanted = known[name].type
    parsed = _parse_list(value, wanted) if isinstance(value, str) else value
    words = isinstance(value, str | list) and all(isinstance(part, str) for part in value)
    try:
        checked = msgspec.convert(parsed, wanted, strict=not words)
    except msgspec.ValidationError as error:
        choices = _choices(wanted)
        if choices and isinstance(value, str):
            hint = f"{did_you_mean(value, choices)} Known: {', '.join(choices)}."
            raise UserError(f'{source}: {name} = "{value}" is none.{hint}') from None
        raise UserError(f"{source}: {name} = {value!r}: {_lower(str(error))}.") from None
    if isinstance(checked, float) and not math.isfinite(checked):
        raise UserError(f"{source}: {name} = {value!r}: give a number that is finite.")
    if name.startswith("length.") and not checked:
        raise UserError(f"{source}: {name} = {value!r}: a length is above 0.")
    return checked


def takes_list(name: str) -> bool:
    """Whether setting `name` may be given more than once."""
    return get_origin(get_args(settings()[name].type)[0]) is list


def _choices(wanted: Any) -> list[str]:
    """The words that a setting may be, where it may be only some."""
    plain = get_args(wanted)[0]
    return list(get_args(plain)) if get_origin(plain) is Literal else []


def _parse_list(text: str, wanted: Any) -> Any:
    """The text of a flag for a list setting: numbers are split at commas, words are not."""
    plain = get_args(wanted)[0]
    if get_origin(plain) is not list:
        return text
    return [text] if get_args(plain)[0] is str else [part for part in text.split(",") if part]


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


class Settings:
    """Layers merged, with the source of each value; becomes a `Config` by `resolve`."""

    def __init__(self) -> None:
        self.values: Layer = {}
        self.reasons: dict[str, str] = {}
        self.preset = ""
        self.open: set[str] = set()  # given by a preset and by nobody after it

    def add(self, layer: Mapping[str, Any], source: str) -> None:
        """Lay `layer` over what is there. A length in it replaces every earlier length."""
        lengths = [k for k in layer if k.startswith("length.")]
        if len(lengths) > 1:
            raise UserError(
                f"{source}: {' and '.join(sorted(lengths))} are both given; "
                "a run has one length: give one of them."
            )
        if lengths:
            for name in [k for k in self.values if k.startswith("length.")]:
                del self.values[name]
                self.reasons.pop(name, None)
        for name, value in layer.items():
            self.values[name] = check(name, value, source)
            self.reasons[name] = source
            self.open.discard(name)

    def add_preset(self, preset: Preset) -> None:
        """Lay a preset over what is there; its values stay open to `model.size = "auto"`."""
        self.add(preset.layer, f"preset {preset.name}")
        self.open |= preset.layer.keys()

    def left_open(self, name: str) -> bool:
        """Whether `name` has the default or a preset's own value, and not the user's."""
        return name not in self.values or name in self.open

    def get(self, name: str) -> Any:
        """The value so far: given, chosen, or the default."""
        return self.values.get(name, settings()[name].default)

    def choose(self, name: str, value: Any, reason: str) -> Any:
        """Fill `name` with the program's choice, and say why; overrides a 0 or "auto"."""
        self.values[name] = check(name, value, "chosen")
        self.reasons[name] = reason
        self.open.discard(name)
        return value

    def resolve(self) -> Config:
        """The tree with every value in place."""
        return msgspec.convert(nest(self.values), Config)


Effect = Literal["harmless", "trajectory", "incompatible"]


def effect(name: str) -> Effect:
    """What changing setting `name` in the middle of a run does: nothing to the training, another
    trajectory, or weights and optimizer state that no longer fit. Where the text lies does nothing;
    what it says is compared by its fingerprint."""
    section = name.partition(".")[0]
    if name == "eval.tokens":  # losses of other tokens compare with none before
        return "trajectory"
    if section in ("log", "eval", "save", "sample") or name in ("data.text", "data.val"):
        return "harmless"
    if name == "optimizer.kind" or section in ("tokenizer", "model"):
        return "trajectory" if name == "model.dropout" else "incompatible"
    return "trajectory"


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
                f'{source}: "{section}" stands outside a table.' + did_you_mean(section, settings())
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


def presets() -> list[str]:
    return sorted(p.stem for p in PRESETS.glob("*.toml"))


def read_preset(name: str) -> Preset:
    """The preset `name`: shipped, or a path to a TOML file of the same form."""
    path = Path(name) if name.endswith(".toml") else PRESETS / f"{name}.toml"
    if not path.is_file():
        raise UserError(f'There is no preset "{name}".{did_you_mean(name, presets())}')
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


def environment_layer(environ: Mapping[str, str] = os.environ) -> Layer:
    """`OVERNIGHT_MODEL__WIDTH=8` → `{"model.width": "8"}`; one underscore for two is an error."""
    found = {}
    for name, value in environ.items():
        setting = name.removeprefix(ENVIRONMENT_PREFIX).lower()
        if name.startswith(ENVIRONMENT_PREFIX) and "__" in setting:
            found[setting.replace("__", ".")] = value
        elif name.startswith(ENVIRONMENT_PREFIX) and setting.replace("_", ".", 1) in settings():
            meant = ENVIRONMENT_PREFIX + setting.upper().replace("_", "__", 1)
            raise UserError(f'environment: {name} is no setting. Did you mean "{meant}"?')
    return found


def dump(config: Config, reasons: Mapping[str, str]) -> str:
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


def load(path: Path) -> Config:
    """The resolved settings of a run folder's `config.toml`."""
    merged = Settings()
    merged.add(
        {k: v for k, v in flatten(read_toml(path), str(path)).items() if not _unset_length(k, v)},
        str(path),
    )
    return merged.resolve()


def _unset_length(name: str, value: Any) -> bool:
    return name.startswith("length.") and not value
