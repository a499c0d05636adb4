"""The families of `transformers` that compute exactly what a grammar computes, as tables.

A family says which settings it `needs`, how its `config.json` calls our settings, what else stands
in it, and how it names our tensors. `counterpart` picks the family of a model, or says why none is
exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from ..config import Model
from ..errors import UserError

Tree = dict[str, Any]
Names = dict[str, tuple[str, ...]]
REQUIRED = object()
MAX_SIZE = 2**20  # of a width, a head count, a vocabulary … in a config.json that is read
MAX_CONTEXT = 2**30
MAX_LAYERS = 1024
REACH = 16_384  # tokens an ALiBi export promises: transformers fixes them in advance

PLAIN = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu2": "relu2"}
GPT2_PLAIN = PLAIN | {"gelu_tanh": "gelu_new"}
SAME_ACTIVATION = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}


class Key(msgspec.Struct, frozen=True):
    """What a config.json calls a setting, and what it means where it is absent."""

    name: str
    absent: Any = REQUIRED


class Family(msgspec.Struct, frozen=True, kw_only=True):
    name: str  # model_type
    architecture: str
    title: str
    needs: dict[str, tuple[Any, ...]]  # trait → the values that have a counterpart
    keys: dict[str, Key]  # setting → key
    constants: Tree  # keys that must be so; absent means so
    activation: Key | None = None
    activations: dict[str, str] = {}  # ours → theirs
    dropout: tuple[str, ...] = ()
    write: Callable[[Model], Tree] = lambda model: {}  # further keys, as `read` reads them
    read: Callable[[Tree], Tree] = lambda tree: {}
    bias: Literal["always", "never", "chosen"]  # are there bias tensors
    bias_keys: dict[str, Key] = {}  # part of a tensor's name → the key that allows its bias
    root: str  # in front of every name but the head's
    block: str
    top: Names
    layer: dict[str, Names]  # A and S: our part of a block → theirs; "" for both
    ones: tuple[str, ...] = ()  # tensors of ones, of the head size, in each block
    transposed: bool = False  # matrices of blocks are stored [in, out]


# ---- keys that are not one setting


def _rope(model: Model) -> Tree:
    parameters = {"rope_type": "default", "rope_theta": model.rope_base}
    return {"rope_parameters": parameters, "rope_theta": model.rope_base}


def _read_rope(tree: Tree, partial: float = 1.0) -> Tree:
    """`rope_parameters`, before which `rope_scaling` counts, or `rope_theta` of older folders."""
    found = tree.get("rope_scaling") or tree.get("rope_parameters") or {}  # as transformers does
    if not isinstance(found, dict):
        raise unknown("rope_parameters", found)
    kind = found.get("rope_type", found.get("type", "default"))
    if kind != "default":
        raise unknown("rope_parameters.rope_type", kind, "default")
    share = found.get("partial_rotary_factor", partial)
    if share != 1:
        raise unknown("rope_parameters.partial_rotary_factor", share, 1.0)
    base = found.get("rope_theta", tree.get("rope_theta", 10000.0))
    if not isinstance(base, int | float) or not 0 < base < 1e30:
        raise unknown("rope_theta", base)
    return {"position": "rope", "rope_base": float(base)}


def _head_dim(model: Model) -> Tree:
    return _rope(model) | {"head_dim": model.width // model.heads}


def _read_head_dim(tree: Tree, absent: int | None = None) -> Tree:
    own = tree["hidden_size"] / tree["num_attention_heads"]
    size = tree.get("head_dim", absent)
    if size is not None and size != own:
        raise unknown("head_dim", size, own)
    return _read_rope(tree)


def _read_qwen3(tree: Tree) -> Tree:
    kinds = tree.get("layer_types") or []
    if not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds):
        raise unknown("layer_types", kinds, "full_attention")
    return _read_head_dim(tree, absent=128) | {"qk_norm": True}


ATTN_CONFIG: Tree = {
    "alibi": True,
    "alibi_bias_max": 8,
    "attn_type": "multihead_attention",
    "clip_qkv": None,
    "prefix_lm": False,
    "qk_ln": False,
    "softmax_scale": None,
}


def _mpt(model: Model) -> Tree:
    return {"max_seq_len": max(REACH, 4 * model.context), "attn_config": ATTN_CONFIG}


def _read_mpt(tree: Tree) -> Tree:
    given = tree.get("attn_config") or {}
    if not isinstance(given, dict):
        raise unknown("attn_config", given)
    for name, value in ATTN_CONFIG.items():
        if given.get(name, value) != value:
            raise unknown(f"attn_config.{name}", given[name], value)
    return {"position": "alibi", "context": integer(tree, "max_seq_len", MAX_CONTEXT)}


def _bamba(model: Model) -> Tree:
    inner = model.ssm_expand * model.width
    rope = _rope(model)
    rope["rope_parameters"] |= {"partial_rotary_factor": 1.0}
    return {
        **rope,
        "attn_layer_indices": [i for i, letter in enumerate(model.layers) if letter == "A"],
        "mamba_n_heads": inner // model.ssm_head,
        "mamba_d_head": model.ssm_head,
        "mamba_proj_bias": model.bias,
        "use_cache": "A" in model.layers,  # transformers 5.23 has no cache without attention
    }


def _read_bamba(tree: Tree) -> Tree:
    heads = integer(tree, "mamba_n_heads", MAX_SIZE)
    inner = tree["mamba_expand"] * tree["hidden_size"]
    size = tree.get("mamba_d_head", "auto")
    if inner % heads or size not in ("auto", inner // heads):
        raise unknown("mamba_d_head", size, inner / heads)
    limit = tree.get("time_step_limit")
    if limit not in (None, [0.0, float("inf")], [0.0, {"__float__": "Infinity"}]):
        raise unknown("time_step_limit", limit, "[0.0, inf]")
    depth = tree["num_hidden_layers"]
    attention = tree.get("attn_layer_indices") or []
    if not isinstance(attention, list) or not all(type(i) is int for i in attention):
        raise unknown("attn_layer_indices", attention)
    layers = "".join("A" if i in set(attention) else "S" for i in range(depth))
    rope = _read_rope(tree, partial=0.5) if "A" in layers else {"position": "rope"}
    return {"layers": layers, "ssm_head": inner // heads, **rope}


# ---- the families

ATTENTION: Tree = {"layers": ("attention",), "ngrams": ("none",), "embed_conv": (False,)}
GROUPED: Tree = ATTENTION | {"qk_norm": (False,)}
FULL_HEADS: Tree = GROUPED | {"kv_heads": ("as many as heads",)}
ROPE: Tree = GROUPED | {"position": ("rope",)}

LLAMA_KEYS = {
    "vocab_size": Key("vocab_size"),
    "width": Key("hidden_size"),
    "layers": Key("num_hidden_layers"),
    "heads": Key("num_attention_heads"),
    "kv_heads": Key("num_key_value_heads", None),
    "feed_forward": Key("intermediate_size"),
    "context": Key("max_position_embeddings"),
    "norm_eps": Key("rms_norm_eps", 1e-6),
    "tied": Key("tie_word_embeddings", False),
}
LLAMA_TOP: Names = {
    "embed": ("model.embed_tokens.weight",),
    "norm": ("model.norm",),
    "head": ("lm_head",),
}
LLAMA_ATTENTION: Names = {
    "mixer.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "mixer.out": ("self_attn.o_proj",),
}
LLAMA_NORMS: Names = {"norm": ("input_layernorm",), "mlp_norm": ("post_attention_layernorm",)}
LLAMA_BIAS = {"self_attn": Key("attention_bias", False), "mlp": Key("mlp_bias", False)}


def _llama(model: Model) -> Tree:
    return _head_dim(model) | {"attention_bias": model.bias, "mlp_bias": model.bias}


GPT2 = Family(
    name="gpt2",
    architecture="GPT2LMHeadModel",
    title="GPT-2",
    needs=FULL_HEADS | {"position": ("learned",), "norm": ("layer",), "mlp": tuple(GPT2_PLAIN)},
    keys={
        "vocab_size": Key("vocab_size"),
        "width": Key("n_embd"),
        "layers": Key("n_layer"),
        "heads": Key("n_head"),
        "feed_forward": Key("n_inner", None),
        "context": Key("n_positions"),
        "norm_eps": Key("layer_norm_epsilon", 1e-5),
        "tied": Key("tie_word_embeddings", True),
    },
    constants={
        "add_cross_attention": False,
        "reorder_and_upcast_attn": False,
        "scale_attn_by_inverse_layer_idx": False,
        "scale_attn_weights": True,
    },
    activation=Key("activation_function", "gelu_new"),
    activations=GPT2_PLAIN,
    dropout=("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    read=lambda tree: {"position": "learned"},
    bias="always",
    root="transformer.",
    block="transformer.h.",
    top={
        "embed": ("transformer.wte.weight",),
        "positions": ("transformer.wpe.weight",),
        "norm": ("transformer.ln_f",),
        "head": ("lm_head",),
    },
    layer={
        "A": {
            "norm": ("ln_1",),
            "mixer.qkv": ("attn.c_attn",),
            "mixer.out": ("attn.c_proj",),
            "mlp_norm": ("ln_2",),
            "mlp.up": ("mlp.c_fc",),
            "mlp.down": ("mlp.c_proj",),
        }
    },
    transposed=True,
)

MPT = Family(
    name="mpt",
    architecture="MptForCausalLM",
    title="MPT",
    needs=FULL_HEADS
    | {
        "position": ("alibi",),
        "norm": ("layer",),
        "mlp": ("gelu",),
        "bias": (False,),
        "feed_forward": ("4 × width",),
    },
    keys={
        "vocab_size": Key("vocab_size"),
        "width": Key("d_model"),
        "layers": Key("n_layers"),
        "heads": Key("n_heads"),
        "norm_eps": Key("layer_norm_epsilon", 1e-5),
        "tied": Key("tie_word_embeddings", True),
    },
    constants={"expansion_ratio": 4, "logit_scale": None, "no_bias": True},
    write=_mpt,
    read=_read_mpt,
    bias="never",
    root="transformer.",
    block="transformer.blocks.",
    top={
        "embed": ("transformer.wte.weight",),
        "norm": ("transformer.norm_f",),
        "head": ("lm_head",),
    },
    layer={
        "A": {
            "norm": ("norm_1",),
            "mixer.qkv": ("attn.Wqkv",),
            "mixer.out": ("attn.out_proj",),
            "mlp_norm": ("norm_2",),
            "mlp.up": ("ffn.up_proj",),
            "mlp.down": ("ffn.down_proj",),
        }
    },
)

LLAMA = Family(
    name="llama",
    architecture="LlamaForCausalLM",
    title="Llama",
    needs=ROPE | {"norm": ("rms",), "mlp": ("swiglu",)},
    keys=LLAMA_KEYS,
    constants={"hidden_act": "silu"},
    write=_llama,
    read=_read_head_dim,
    bias="chosen",
    bias_keys=LLAMA_BIAS,
    root="model.",
    block="model.layers.",
    top=LLAMA_TOP,
    layer={
        "A": LLAMA_NORMS
        | LLAMA_ATTENTION
        | {"mlp.up": ("mlp.gate_proj", "mlp.up_proj"), "mlp.down": ("mlp.down_proj",)}
    },
)

QWEN3 = msgspec.structs.replace(
    LLAMA,
    name="qwen3",
    architecture="Qwen3ForCausalLM",
    title="Qwen3",
    needs=LLAMA.needs | {"qk_norm": (True,), "bias": (False,)},
    constants={"hidden_act": "silu", "attention_bias": False, "use_sliding_window": False},
    write=_head_dim,
    read=_read_qwen3,
    bias="never",
    ones=("self_attn.q_norm.weight", "self_attn.k_norm.weight"),
)

ARCEE = msgspec.structs.replace(
    LLAMA,
    name="arcee",
    architecture="ArceeForCausalLM",
    title="Arcee",
    needs=LLAMA.needs | {"mlp": tuple(PLAIN)},
    keys=LLAMA_KEYS | {"norm_eps": Key("rms_norm_eps", 1e-5)},
    constants={},
    activation=Key("hidden_act", "relu2"),
    activations=PLAIN,
    layer={
        "A": LLAMA_NORMS
        | LLAMA_ATTENTION
        | {"mlp.up": ("mlp.up_proj",), "mlp.down": ("mlp.down_proj",)}
    },
)

STARCODER2 = msgspec.structs.replace(
    ARCEE,
    name="starcoder2",
    architecture="Starcoder2ForCausalLM",
    title="StarCoder 2",
    needs=ROPE | {"norm": ("layer",), "mlp": tuple(PLAIN)},
    activation=Key("hidden_act", "gelu_pytorch_tanh"),
    keys=LLAMA_KEYS
    | {"norm_eps": Key("norm_epsilon", 1e-5), "tied": Key("tie_word_embeddings", True)},
    constants={"sliding_window": None},
    dropout=("residual_dropout", "embedding_dropout", "attention_dropout"),
    write=lambda model: _rope(model) | {"use_bias": True},
    read=_read_head_dim,
    bias="always",
    bias_keys={"self_attn": Key("use_bias", True), "mlp": Key("use_bias", True)},
    layer={
        "A": LLAMA_NORMS | LLAMA_ATTENTION | {"mlp.up": ("mlp.c_fc",), "mlp.down": ("mlp.c_proj",)}
    },
)

BAMBA_BOTH: Names = {
    "norm": ("input_layernorm",),
    "mlp_norm": ("pre_ff_layernorm",),
    "mlp.up": ("feed_forward.gate_proj", "feed_forward.up_proj"),
    "mlp.down": ("feed_forward.down_proj",),
}

BAMBA = Family(
    name="bamba",
    architecture="BambaForCausalLM",
    title="Bamba",
    needs=LLAMA.needs | {"layers": ("hybrid",)},
    keys=LLAMA_KEYS
    | {
        "norm_eps": Key("rms_norm_eps", 1e-5),
        "ssm_state": Key("mamba_d_state"),
        "ssm_expand": Key("mamba_expand"),
    },
    constants={"hidden_act": "silu", "mamba_d_conv": 4, "mamba_n_groups": 1},
    write=lambda model: (
        _bamba(model)
        | {"attention_bias": model.bias, "mlp_bias": model.bias, "mamba_conv_bias": True}
    ),
    read=_read_bamba,
    bias="chosen",
    bias_keys={
        "self_attn": Key("attention_bias", False),
        "feed_forward": Key("mlp_bias", False),
        "mamba.conv1d": Key("mamba_conv_bias", True),
        "mamba.in_proj": Key("mamba_proj_bias", False),
        "mamba.out_proj": Key("mamba_proj_bias", False),
    },
    root="model.",
    block="model.layers.",
    top=LLAMA_TOP | {"norm": ("model.final_layernorm",)},
    layer={
        "A": BAMBA_BOTH | LLAMA_ATTENTION,
        "S": BAMBA_BOTH
        | {
            "mixer.into": ("mamba.in_proj",),
            "mixer.convolution": ("mamba.conv1d.weight",),
            "mixer.convolution_bias": ("mamba.conv1d.bias",),
            "mixer.step_bias": ("mamba.dt_bias",),
            "mixer.decay_log": ("mamba.A_log",),
            "mixer.skip": ("mamba.D",),
            "mixer.norm": ("mamba.norm",),
            "mixer.out": ("mamba.out_proj",),
        },
    },
)

FAMILIES = (GPT2, MPT, LLAMA, QWEN3, ARCEE, STARCODER2, BAMBA)


def counterpart(model: Model) -> Family | str:
    """The family that computes exactly what `model` (complete) computes; or, in one line, what
    sets it apart from the closest one."""
    mine = traits(model)
    unmet = {
        family.name: [name for name, allowed in family.needs.items() if mine[name] not in allowed]
        for family in FAMILIES
    }

    def distance(family: Family) -> tuple[bool, bool, int]:
        apart = unmet[family.name]
        return "layers" in apart, "position" in apart, len(apart)

    closest = min(FAMILIES, key=distance)
    if not unmet[closest.name]:
        return closest
    apart = ", ".join(
        f"model.{name} = {_word(mine[name])} ({closest.title}: "
        f"{' or '.join(map(_word, closest.needs[name]))})"
        for name in unmet[closest.name]
    )
    return f"transformers has no exact counterpart of this model; the closest differs in {apart}"


def traits(model: Model) -> Tree:
    """The settings by which families differ, in the words that `needs` uses."""
    no_attention = "A" not in model.layers  # then it does not matter how attention would see order
    return {
        "layers": "hybrid" if "S" in model.layers else "attention",
        "position": "rope" if no_attention and model.position != "learned" else model.position,
        "norm": model.norm,
        "mlp": model.mlp,
        "bias": model.bias,
        "qk_norm": model.qk_norm and not no_attention,
        "kv_heads": "as many as heads" if model.kv_heads == model.heads else "fewer than heads",
        "feed_forward": "4 × width"
        if model.feed_forward == 4 * model.width
        else f"{model.feed_forward:,}",
        "ngrams": ",".join(map(str, model.ngrams)) or "none",
        "embed_conv": model.embed_conv,
    }


def _word(value: Any) -> str:
    """As JSON spells it, without quotes."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


# ---- config.json


def write_config(family: Family, model: Model) -> Tree:
    """The keys of config.json that fix what is computed."""
    own = {setting: getattr(model, setting) for setting in family.keys}
    own["layers"] = len(model.layers)
    tree: Tree = {"architectures": [family.architecture], "model_type": family.name}
    tree |= family.constants
    tree |= {key.name: own[setting] for setting, key in family.keys.items()}
    if family.activation:
        tree[family.activation.name] = family.activations[model.mlp]
    tree |= dict.fromkeys(family.dropout, model.dropout)
    return tree | family.write(model)


def read_config(tree: Tree) -> tuple[Family, Tree]:
    """The family of a config.json and the model settings it amounts to, sizes within bounds.
    Biases are not among them: the tensors decide. `UserError` for what has no counterpart."""
    kind = tree.get("model_type")
    family = next((f for f in FAMILIES if f.name == kind), None)
    if family is None:
        raise unknown("model_type", kind, " or ".join(f.name for f in FAMILIES))
    for name, value in family.constants.items():
        if tree.get(name, value) != value:
            raise unknown(name, tree[name], value)
    if tree.get("quantization_config"):
        raise unknown("quantization_config", tree["quantization_config"], None)
    norm, mlp = family.needs["norm"][0], family.needs["mlp"][0]
    model: Tree = {"norm": norm, "mlp": mlp, "ngrams": [], "embed_conv": False}
    for setting, key in family.keys.items():
        model[setting] = _value(tree, setting, key)
    if family.activation:
        model["mlp"] = _activation(family, family.activation, tree)
    if family.dropout:
        model["dropout"] = tree.get(family.dropout[0], 0.0)
    model["layers"] = "A" * model["layers"]
    return family, model | family.read(tree)


def _value(tree: Tree, setting: str, key: Key) -> Any:
    """A key's value, with the type its setting has; None means our 0 (chosen from the rest)."""
    value = tree.get(key.name, key.absent)
    if key.absent is None and value is None:
        return 0
    if setting == "tied" and isinstance(value, bool):
        return value
    if setting == "norm_eps" and isinstance(value, float) and 0 <= value < 1:
        return value
    if setting in ("tied", "norm_eps"):
        raise unknown(key.name, value)
    bounds = {"context": MAX_CONTEXT, "layers": MAX_LAYERS}
    return integer(tree, key.name, bounds.get(setting, MAX_SIZE))


def _activation(family: Family, key: Key, tree: Tree) -> str:
    theirs = tree.get(key.name, key.absent)
    ours = {value: name for name, value in family.activations.items()} | SAME_ACTIVATION
    if not isinstance(theirs, str) or theirs not in ours:
        raise unknown(key.name, theirs, " or ".join(sorted(ours)))
    return ours[theirs]


def integer(tree: Tree, name: str, most: int) -> int:
    """A whole number from 1 to `most`."""
    value = tree.get(name)
    if type(value) is not int or not 1 <= value <= most:
        raise UserError(
            f"config.json: {name} = {_short(value)}: a whole number from 1 to {most:,}."
        )
    return value


def unknown(name: str, value: Any, known: Any = REQUIRED) -> UserError:
    """One line for a key whose value has no counterpart here."""
    only = "" if known is REQUIRED else f" (known: {_word(known)})"
    return UserError(f"config.json: {name} = {_short(value)} has no counterpart here{only}.")


def _short(value: Any) -> str:
    text = _word(value) if not isinstance(value, str) else f'"{value}"'
    return text if len(text) <= 80 else text[:77] + "…"
