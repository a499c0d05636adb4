"""Foreign column names → ours."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from ...errors import UserError
from .values import COUNTS, LOSSES, MEASURES, SECONDS, SUFFIX, TIMES

SYNONYMS = {
    "step": "global_step trainer_global_step step steps iter iters iteration iterations "
    "num_updates update updates train_step training_step completed_step optimizer_step it "
    "current_steps current_step iter_num opt_step step_num",
    "epoch": "epoch epochs train_epoch trainer_epoch",
    "loss": "loss train_loss training_loss tr_loss loss_train train_loss_step batch_loss "
    "train_batch_loss lm_loss train_lm_loss train_cross_entropy cross_entropy train_ce ce_loss ce "
    "train_nll nll nll_loss xent avg_loss mean_loss loss_avg loss_mean avg_train_loss "
    "train_loss_avg train_loss_mean train_loss_epoch running_loss losses_train trn_loss "
    "trainloss reduced_train_loss train_cross_entropy_loss train_language_cross_entropy "
    "loss_train_total loss_out train_mean_nll mean_nll global_avg_loss current_loss "
    "minibatch_loss loss_tok train_epoch_loss train_bits_per_token "
    "loss_metrics_global_avg_loss loss_training train_ce_loss train",
    "val_loss": "val_loss valid_loss validation_loss eval_loss loss_val loss_eval dev_loss "
    "val_loss_epoch val_lm_loss loss_valid val_cross_entropy val_ce valid_ce eval_ce "
    "val_nll valid_nll eval_nll avg_val_loss val_loss_avg val_loss_mean mean_val_loss "
    "losses_val losses_valid validation_cross_entropy vloss valloss eval_language_cross_entropy "
    "val valid validation heldout heldout_loss held_out_loss holdout_loss eval_epoch_loss "
    "val_bits_per_token eval_bits_per_token loss_validation evaluation_loss",
    "test_loss": "test_loss test_nll",
    "val_se": "val_se val_loss_se eval_se val_stderr",
    "perplexity": "perplexity ppl train_ppl train_perplexity train_perplexity_step avg_ppl",
    "val_perplexity": "val_ppl val_perplexity valid_ppl eval_ppl eval_perplexity "
    "validation_perplexity validation_ppl valid_perplexity dev_ppl dev_perplexity",
    "val_bpb": "val_bpb eval_bpb validation_bpb bpb bits_per_byte val_bits_per_byte",
    "lr": "lr learning_rate opt_lr optimizer_lr lr_adamw lr_adam lr_0 train_lr train_learning_rate "
    "current_lr schedule_lr optim_learning_rate_group0",
    "tokens_per_s": "tokens_per_s tokens_per_sec tokens_per_second tokens_s tok_s tok_per_s "
    "tok_per_sec tok_sec toks_per_sec tps tokens_sec throughput "
    "train_tokens_per_second throughput_tokens token_throughput throughput_tokens_per_second "
    "throughput_tokens_per_sec "
    "throughput_device_tokens_per_second toks_per_s tokens_second",
    "grad_norm": "grad_norm gradient_norm gnorm norm train_grad_norm grad_norm_before_clip",
    "tokens": "total_tokens tokens tokens_seen num_tokens n_tokens consumed_tokens "
    "tokens_processed tokens_total train_tokens num_input_tokens_seen throughput_total_tokens "
    "time_token cumulative_tokens",
    "time": "time timestamp elapsed elapsed_s elapsed_time elapsed_sec elapsed_seconds "
    "wall_time walltime wall time_s elapsed_hours elapsed_minutes runtime "
    "wall_time_s wall_time_sec wall_time_seconds time_elapsed wall_clock",
    "duration": "train_runtime",  # of the whole run
    # litgpt's iter_time is that of a micro-step
    "step_seconds": "step_seconds elapsed_time_per_iteration time_per_iteration time_per_step "
    "step_time seconds_per_step sec_per_step s_per_step time_per_step_ms step_time_ms ms_per_step "
    "step_ms dt dt_ms",
    "planned": "max_steps total_steps total_iterations",  # the step at which it is to end
}
OURS = {name: ours for ours, names in SYNONYMS.items() for name in names.split()}
PREFIXES = ("metrics", "metric", "logs", "log", "scalars", "scalar", "data", "stats", "history")
# What tools call the rate of a group of weights: `lr-AdamW/pg1`, `lr/group_0`
RATE = re.compile(
    r"lr[-_/ ](\w*adam|sgd|muon|lion|adagrad|rmsprop|adafactor|group|pg)", re.IGNORECASE
)
# Where several sets are evaluated: transformers' `eval_c4_loss`, `val/wiki/loss`, `val_loss_wiki`
OF_ONE_SET = re.compile(r"(eval|val|valid|validation)_(\w+_(loss|cross_entropy)|loss_[a-z]\w*)")
STATISTIC = re.compile(  # no set, but something about a loss, or a part of it
    r"_(best|min|max|lowest|std|stdev|se|sem|stderr|err|var|ema|smooth(ed)?|delta|diff|change|prev"
    r"|previous|first|last|count|n|num|step|steps|epoch|time|ratio|weight|scale|bits|bpb|ppl|aux"
    r"|z|kl|reg|router|balance|ci|low|high)(_|$)"
)
SPREAD = ("__MIN", "__MAX")  # what W&B's exports hold beside each column
LN_2 = math.log(2)
# A throughput of something else than tokens
OTHER_RATE = re.compile(r"throughput.*(flop|sample|sequence|image|step|it/s|batch)", re.IGNORECASE)
BITS = re.compile(r"[\[(]\s*bits?\s*[\])]|(?<![a-z])bits(?![a-z])")
NAMED = 8  # columns that are not read
# What a language model's log has, and what the log of another task does
TOKENS = re.compile(r"tok|perplexity|ppl|bpb|bits_per_byte")
OTHER_TASK = re.compile(
    r"(^|_)(acc[15]?|accuracy|f1|auc|[mg]?iou|dice|map|bbox|class_error|wer|cer|psnr|ssim|fid|mae"
    r"|rmse|top_?[15]|bleu|chrf|rouge|meteor)(_|$)|^(val|eval|test)_per$"
)
SMOOTHED = re.compile(r"(^|_)nll_loss$")
# What the log of a language model has whose loss is not of text
PREFERENCE = re.compile(r"(^|_)(rewards?|logps|advantages?)(_|$)")


@lru_cache(maxsize=4096)
def normalise(name: str) -> str:
    """`Train/Loss (nats)`, `trainLoss` and W&B's `run-7 - train/loss` → `train_loss`."""
    name = re.sub(r"\(.*?\)|\[.*?\]", "", name.rpartition(" - ")[2])
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return re.sub(r"[^a-z0-9]+", "_", name.lower().replace("%", "pct")).strip("_")


def scale(name: str, ours: str) -> float:
    """What numbers of a column are multiplied by whose name says a unit: `time (min)`,
    `Tokens (M)`, `val/loss (bits)`."""
    name = name.rpartition(" - ")[2]
    if ours in LOSSES:
        return LN_2 if BITS.search(name.lower()) else 1.0
    found = re.search(r"[(\[]\s*(\w+)\s*[)\]]", name)
    unit = found.group(1) if found else ""
    if ours in TIMES:
        plain = normalise(name)
        unit = unit or ("ms" if plain.startswith("ms_") else plain.rpartition("_")[2])
        return SECONDS.get(unit.lower(), 1.0)
    return SUFFIX.get(unit, 1.0) if ours in COUNTS else 1.0


def scaled(known: dict[str, str]) -> list[str]:
    """What the problems say of columns in other units; `known`: foreign name → ours."""
    factors = {foreign: scale(foreign, ours) for foreign, ours in known.items()}
    return [
        f"{foreign[:40]} is in bits: times ln 2, it is nats"
        if factor == LN_2
        else f"{foreign[:40]}: times {factor:,.10g}"
        for foreign, factor in factors.items()
        if factor != 1
    ]


@lru_cache(maxsize=4096)
def ours_of(name: str) -> str | None:
    """Our name of a foreign column, None if it is not known. A `train_` in front of what is no
    loss, and words such as `metrics_`, say nothing."""
    if RATE.match(name.rpartition(" - ")[2]):
        return "lr"
    if OTHER_RATE.search(name):
        return None
    plain = normalise(name)
    for prefix in PREFIXES:
        if plain not in OURS:
            plain = plain.removeprefix(f"{prefix}_")
    found = OURS.get(plain) or OURS.get(plain.removesuffix("_bits"))
    if found is None and OF_ONE_SET.fullmatch(plain) and not STATISTIC.search(plain):
        return "val_loss"
    if found is None and plain.startswith(
        ("train_", "perf_", "performance_", "optim_", "trainer_")
    ):
        found = OURS.get(plain.partition("_")[2])
        return None if found in MEASURES else found
    return found


def recognise(names: Iterable[str]) -> dict[str, str]:
    """Foreign name → ours, for the names known. Where two name the same thing, the plainest
    (earliest in SYNONYMS) counts; a `train_loss` beside a `loss` is the loss of evaluations."""
    found: dict[str, str] = {}
    names = of_one_run(list(names))
    for name in names:
        ours = ours_of(name)
        if ours is None:
            continue
        rival = next((f for f, o in found.items() if o == ours), None)
        if rival is None:
            found[name] = ours
        elif rank(ours, name) < rank(ours, rival):
            found[name] = found.pop(rival)
    if "loss" in found.values():
        taken = next(f for f, o in found.items() if o == "loss")
        for name in names:
            plain = normalise(name)
            if name != taken and normalise(taken) == "loss" and plain == "train_loss":
                found[name] = "train_loss"
    return found


def rank(ours: str, name: str) -> int:
    """How plain a name it is, 0 the plainest."""
    names = SYNONYMS[ours].split()
    if name.rpartition(" - ")[2].startswith("_"):  # W&B's own counters: of calls, of seconds
        return len(names) + 1
    return names.index(plain) if (plain := normalise(name)) in names else len(names)


def run_of(name: str) -> str:
    """The run that W&B's export of several (`RUN - NAME`) says a column is of; or nothing."""
    return name.rpartition(" - ")[0]


def of_one_run(names: list[str]) -> list[str]:
    """The columns of the run that has most losses, the first of equals, and those of no run."""
    runs = losses_by_run(names)
    if len(runs) < 2:
        return names
    chosen = max(runs, key=lambda run: len(runs[run]))
    return [name for name in names if run_of(name) in ("", chosen)]


def losses_by_run(names: Iterable[str]) -> dict[str, set[str]]:
    """The losses of each run, in the order of the columns."""
    runs: dict[str, set[str]] = {}
    for name in names:
        if (ours := ours_of(name)) in LOSSES and run_of(name):
            runs.setdefault(run_of(name), set()).add(str(ours))
    return runs


def other_task(names: Iterable[str]) -> str | None:
    """A column that another task than language has, in a log that counts no tokens; or one of
    training by preferences, whose loss is of no text."""
    plain = {name: normalise(name) for name in names}
    preference = next((name for name, p in plain.items() if PREFERENCE.search(p)), None)
    if preference or any(TOKENS.search(p) for p in plain.values()):
        return preference
    return next((name for name, p in plain.items() if OTHER_TASK.search(p)), None)


def tells_task(name: str) -> bool:
    """Whether a column of this name tells of what task a log is."""
    plain = normalise(name)
    return bool(PREFERENCE.search(plain) or OTHER_TASK.search(plain))


def tells_smoothing(name: str) -> bool:
    """Whether it stands beside a loss with label smoothing, as fairseq's `nll_loss`."""
    return bool(SMOOTHED.search(normalise(name)))


def of_file(path: Path) -> str:
    """The loss that a table of values is of which says so in its name alone, as TensorBoard's
    `run-train-tag-loss.csv`; `UserError` if that says nothing."""
    tag = Path(path.name.removesuffix(".gz")).stem.rpartition("tag-")[2]
    if ours_of(tag) not in LOSSES:
        raise UserError(
            f"{path}: a table of values that does not say of what. Name the file as the loss is "
            "called, such as train_loss.csv."
        )
    return tag


def unread(names: Iterable[str], known: set[str]) -> list[str]:
    """What the problems say of columns that are not read: at most one line."""
    left = [
        name[:60]
        for name in names
        if not {name, name.lower()} & known
        and name.strip()
        and not (name.endswith(SPREAD) or tells_smoothing(name))
    ]
    if not left:
        return []
    more = f" and {len(left) - NAMED:,} more" if len(left) > NAMED else ""
    return [f"not read: columns {', '.join(left[:NAMED])}{more}"]
