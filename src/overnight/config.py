"""The settings: one typed tree, and what it says of each of them.

How it is filled, from presets, files, flags and the program's own choices, is in `settings.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

AUTO = -1  # of a number that the program finds by trying


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
            "wordpiece-classic loses case, accents and spaces"
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
            le=2**20,
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
    rope_base: Annotated[float, Meta(gt=0, description="base of the rotary frequencies")] = 10000.0
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
    embed_conv: Annotated[
        bool,
        Meta(description="a short convolution over the embeddings: each sees the three before"),
    ] = False
    qk_norm: Annotated[bool, Meta(description="RMS norm on queries and keys")] = False
    dropout: Annotated[
        float,
        Meta(ge=0, lt=1, description="dropout on embeddings, attention weights and branch outputs"),
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
    beta1: Annotated[float, Meta(ge=0, lt=1, description="AdamW momentum")] = 0.9
    beta2: Annotated[float, Meta(ge=0, lt=1, description="AdamW second moment")] = 0.95
    eps: Annotated[float, Meta(gt=0, description="AdamW epsilon")] = 1e-8
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
    batch: Annotated[int, Meta(ge=1, le=2**24, description="sequences per update")] = 32
    micro_batch: Annotated[
        int,
        Meta(
            ge=-1,
            description="sequences per forward/backward; 0: the batch, or what of it fits; "
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

    def having(self, **sections: msgspec.Struct | dict[str, Any]) -> Config:
        """A copy with other sections, or with other values in some of them."""
        replaced = msgspec.structs.replace
        changed = {
            name: replaced(getattr(self, name), **new) if isinstance(new, dict) else new
            for name, new in sections.items()
        }
        return replaced(self, **changed)


class Setting(msgspec.Struct, frozen=True):
    """One leaf of the tree, for lookup and for `overnight settings`."""

    name: str
    type: Any
    default: Any
    description: str


@cache
def all_settings() -> dict[str, Setting]:
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


def takes_list(name: str) -> bool:
    """Whether setting `name` may be given more than once."""
    return get_origin(get_args(all_settings()[name].type)[0]) is list


# What goes along with weights, to a run that begins with them and to another tool: not paths and
# prompts, the user's own, nor length and machine.
WITH_WEIGHTS = (
    "model.", "tokenizer.kind", "tokenizer.vocab_size", "optimizer.", "schedule.", "train.batch",
    "train.micro_batch", "train.label_smoothing", "sample.tokens", "sample.temperature",
    "sample.top_k",
)  # fmt: skip

# What stands where a choice is left to the program, which makes it when a run begins
UNCHOSEN = {
    "train.device": "auto", "train.dtype": "auto", "train.threads": 0, "train.compile": "auto",
    "train.attention": "auto", "train.micro_batch": 0, "eval.every": 0, "eval.tokens": 0,
    "sample.every": 0,
}  # fmt: skip


def without_effect(config: Config) -> dict[str, str]:
    """The settings that come to nothing beside the others, each with the reason."""
    model, tokenizer, kind = config.model, config.tokenizer, config.schedule.kind
    rules: list[tuple[Any, str, str]] = [
        (True, "the tokenizer decides", "model.vocab_size"),
        (config.data.val, "there is separate validation text", "data.val_fraction"),
        (tokenizer.kind != "file", f"tokenizer.kind is {tokenizer.kind}", "tokenizer.path"),
        (
            tokenizer.kind in ("bytes", "chars", "file"),
            f"tokenizer.kind is {tokenizer.kind}",
            "tokenizer.vocab_size",
        ),
        (
            "A" not in model.layers,
            "no layer has attention",
            "model.heads model.kv_heads model.qk_norm train.attention",
        ),
        (
            "S" not in model.layers,
            "no layer is a state space",
            "model.ssm_state model.ssm_head model.ssm_expand",
        ),
        (model.position != "rope", f"model.position is {model.position}", "model.rope_base"),
        (model.mlp == "none", "model.mlp is none", "model.feed_forward"),
        (not model.ngrams, "model.ngrams is empty", "model.ngram_rows"),
        (
            config.optimizer.kind != "muon",
            f"optimizer.kind is {config.optimizer.kind}",
            "optimizer.muon_lr optimizer.muon_momentum optimizer.muon_weight_decay",
        ),
        (kind == "constant", "schedule.kind is constant", "schedule.min_ratio"),
        (kind != "wsd", f"schedule.kind is {kind}", "schedule.decay"),
        (
            not config.sample.tokens,
            "sample.tokens is 0",
            "sample.every sample.prompts sample.temperature sample.top_k",
        ),
    ]
    return {name: why for holds, why, names in rules if holds for name in names.split()}


Effect = Literal["harmless", "trajectory", "incompatible"]


def effect(name: str) -> Effect:
    """What changing setting `name` in the middle of a run does: nothing to the training, another
    trajectory, or weights and optimizer state that no longer fit. Where the text lies does nothing;
    what it says is compared by its fingerprint."""
    section = name.partition(".")[0]
    if name == "eval.tokens":  # losses of other tokens compare with none before
        return "trajectory"
    if section in ("log", "eval", "save", "sample"):
        return "harmless"
    if name in ("data.text", "data.val", "train.early_stop"):
        return "harmless"
    if name == "optimizer.kind" or section in ("tokenizer", "model"):
        return "trajectory" if name == "model.dropout" else "incompatible"
    return "trajectory"
