"""What one printed line says: names and their numbers, whatever a tool writes around them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from . import kinds
from .names import OURS, normalise, ours_of, tells_smoothing, tells_task
from .values import COUNTS
from .values import number as parse

STEPS = "step|iter|iteration|update"
WORDS = "|".join([*kinds.VALIDATION, *kinds.TEST])  # that say that a set is held out
TIME = r"\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?(?!\w)"
LOGGER = rf"(?!(?:{'|'.join(kinds.VALIDATION)})\b)[A-Za-z_.]+"  # its name
DAY = "Mon|Tue|Wed|Thu|Fri|Sat|Sun|Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
# One of several that write into one log, as docker compose and kubectl name it: `trainer-1 | `
REPLICA = (
    rf"(?!(?:epoch|batch|{STEPS}|{WORDS})s?\b)[A-Za-z][\w.]*(?:-[\w.]+)*-\d+(?= \| | \d{{4}}-)|"
    r"pod/[\w./-]+|\((?:\w+ )?pid=\d+[^)]*\)|\d+,\d+\]<std(?:out|err)>|std(?:out|err) [FP]\b"
)
IN_FRONT = (
    rf"\d{{4}}[-/]\d\d[-/]\d\d(?:[T ]{TIME}|(?!\w))|{TIME}|rank ?\d+\b|"
    rf"(?:INFO|DEBUG|WARNING|WARN)(?::[\w.]+:|\b(?:\W+{LOGGER}(?= - ))?)|"
    rf"(?:{DAY}),? [\w ]{{1,12}}{TIME}(?: (?:UTC|GMT|[A-Z][SD]T|CES?T)\b)?(?: \d{{4}}\b)?"
    rf"(?: [\w.-]+ [\w./-]+\[\d+\](?=:))?|{REPLICA}|"  # journald: `… host python[123]: `
    r"[IWD]\d{4}(?= \d\d:)|\d+(?= [\w/]+\.py:)|[\w./]+\.py:\d+|[\w.]+:\w+:\d+(?= -)"
)


class Rule(NamedTuple):
    """What stands where a name and a number are wanted, and what it says."""

    mark: str  # stands in every such line; looked for first: 17 µs a line for 33
    form: re.Pattern[str]
    becomes: str


# In this order
TIDY = (
    Rule("\x08", re.compile(r"^.*\x08"), ""),  # Keras goes back over what it wrote
    Rule("", re.compile(r"[ \t]+"), " "),
    # a bar of progress, with figures that change as it grows: ` 45%|████ | 9/20 [00:01<00:02]`
    Rule("%|", re.compile(r"\d+%\|[^\]]*\]"), ""),
    # docker's, kubectl's time in front: `2024-05-01T10:00:00.5Z step 3 loss 2`
    Rule("", re.compile(r"^\S*\d{4}-\d\d-\d\dT[\d:.,]+(?:Z|[+-]\d\d:?\d\d)? "), ""),
    # Python's logging: `2024-05-01 10:00:00,123 - INFO - joeynmt.training - `
    Rule(
        " - ",
        re.compile(
            r"^\d{4}-\d\d-\d\d[ T][\d:,.]+ - (?:[\w.]+ - )?(?:INFO|DEBUG|WARNING) - "
            rf"(?:{LOGGER} - )?",
            re.IGNORECASE,
        ),
        "",
    ),
    # what else loggers put in front: a time, a level, a rank, a line of source, in any order
    Rule(
        "",
        re.compile(
            rf"^(?:[^\w(]*(?:{IN_FRONT}))+[^\w(\[{{'-]*-? *"
            r"(?=[\[({'A-Za-z]|\d+ ?/ ?\d+[\]):, ]|\d+ \| )"
        ),
        "",
    ),
    # TF Estimator: `Saving dict for global step 300: global_step = 300, loss = 2.6`
    Rule(
        "Saving dict", re.compile(r"^Saving dict for global step (\d+): "), r"validation step \1 "
    ),
    # names of files hold rounded figures: `model--val_loss=0.24-step=9.ckpt`
    Rule("=", re.compile(r"(?<!\S)(?=\S*[/'\"])\S+\.(?:ckpt|pth?|nemo|h5|safetensors)\b\S*"), ""),
    # what PyTorch prints of a tensor: `tensor(3.21, device='cuda:0')`
    Rule("tensor(", re.compile(r"\btensor\(([^\s,()]+)(?:,[^()]*)?\)"), r"\1"),
    # what numpy prints of one of its numbers in a dictionary: `np.float64(3.98)`
    Rule("np.", re.compile(r"\bnp\.\w+\(([^\s,()]+)\)"), r"\1"),
    # the unit of a loss is no part of the next name: `loss 3.2 nats lr 3e-5`
    Rule(" nats", re.compile(r"(?<=\d) nats\b(?:(?:/| per )tok(?:en)?\b)?"), ""),
    # llama2.c, build-nanogpt: `250 | loss 3.21`; parameter-golf: `500/20000 train_loss: 8.5`
    Rule(
        "",
        re.compile(
            r"^[\[(]?(\d+)( ?/ ?\d+)?[\])]?:?,? (?:\| )?(?=\(?(?:train|val|loss|epoch)(?:\b|_))"
            rf"(?!.*\b(?:{STEPS})s?\b\W*\d)"  # then it is a rank
        ),
        r"step \1\2 ",
    ),
    # gpt-2-simple: `[100 | 234.50] loss=3.21 avg=3.30`
    Rule(" | ", re.compile(r"^\[(\d+) \| (\d+\.\d+)\] (?=loss)"), r"step \1 elapsed \2 "),
    # a field that says of what a row is: `split: val, step: 100, loss: 3.2`, `mode=eval step=100 …`
    Rule(
        "",
        re.compile(
            rf"^(?=.*[:=] ?['\"]?(?:{WORDS})\b)"  # seldom; what follows takes long
            rf"(\{{')?(.*?)['\"]?\b(?:{'|'.join(kinds.KIND_FIELDS)}|set)['\"]? ?[:=] ?"
            rf"['\"]?({WORDS})(?=['\",;|\])\s]|$)['\"]?",
            re.IGNORECASE,
        ),
        r"\1[\3] \2",
    ),
    # MLPerf's GNMT: `TRAIN [0][10/1885]`
    Rule("TRAIN", re.compile(r"\bTRAIN ?\[(\d+)\]\[(\d+/\d+)\]"), r"epoch \1 batch \2"),
    # Marian: `Ep. 1 : Up. 500 : Sen. 16,557 : Cost 5.75 * 407,343 … : L.r. 2.9e-04`
    Rule(
        "Up.",
        re.compile(r"^(?:\[[^\]]*\] )??(?:(\[valid\]) )?Ep\. (\d+) : Up\. (\d+) :"),
        r"\1 epoch \2 step \3 :",
    ),
    Rule(": Cost ", re.compile(r": Cost (?=\d)"), ": loss "),
    Rule(": L.r. ", re.compile(r": L\.r\. (?=\d)"), ": lr "),
    Rule("[valid]", re.compile(r"^(\[valid\].*)\bperplexity :"), r"\1 val_ppl :"),
    # ms-swift: `'global_step/max_steps': '5/500'`
    Rule("global_step", re.compile(r"global_step/max_steps'?: ?'?(?=\d+/\d)"), "step: "),
    # PyTorch's word_language_model: `| epoch 1 | 200/ 2983 batches | loss 7.1`
    Rule(" batches", re.compile(r"\| (\d+/ ?\d+) batches\b"), r"| batch \1"),
    # MiniMind: `Epoch:[1/2](10/39695) loss:8.9`
    Rule("Epoch", re.compile(r"(Epoch): ?\[(\d+)/\d+\] ?\((\d+/\d+)\)"), r"\1 \2 step \3 "),
    Rule("", re.compile(r"^ +"), ""),
    # llm.c's rate behind its number: `| 124025 tok/s`; OpenNMT's are of both languages
    Rule(
        "tok",
        re.compile(
            r"[|,;(] ?(?:\d+/)?(\d[\d,]*(?:\.\d+)?[kM]?) ?tok(?:ens)?/s(?:ec)?\b(?! ?[:=(\d])"
        ),
        r"| tok_s: \1 ",
    ),
    # nanoGPT's time is that of one iteration: `iter 10: loss 3.1820, time 35.78ms, mfu 10.41%`
    Rule(
        ", mfu", re.compile(r"\b(iter \d+: loss [^,]+,) time (?=[\d.]+ms, mfu)"), r"\1 step_time "
    ),
    # llama2.c, llm.c: `| lr 5.000000e-04 | 123.45ms | mfu`, `| 3179.87 ms | 46.2% bf16 MFU`
    Rule("ms |", re.compile(r"\| (\d+(?:\.\d+)? ?ms) \|"), r"| step_time: \1 |"),
    # Megatron, GPT-NeoX: `validation loss at iteration 100 | lm loss value: 3.2E+00 | …`
    Rule(
        " at iteration ",
        re.compile(
            r"^.*?valid(?:ation)?(?:-0)? (?:loss|results) at iteration (\d+)"
            r"(?!.*on test set).*?loss value: (\S+).*$"
        ),
        r"step \1 val_loss \2",
    ),
    # `Val loss at step 100: 3.2`, `eval loss after 100 steps is 3.2`, `Eval loss @ 100: 3.2`
    Rule(
        "",
        re.compile(
            r"^(?=.*[ _]loss ?(?:at|after|for|@))"  # seldom; what follows takes long
            r"(?:(?!\b(?:loss|best|lowest|min|minimum|previous|final|average|"
            rf"(?:{STEPS})s?\W{{0,3}}\d)).)*?"
            r"\b((?:val|valid|validation|eval|evaluation|dev)[ _]loss) ?(?:at|after|for|@) ?(?:"
            rf"(?:{STEPS})s?[ :#]*(\d[\d,]*)(?![\d,])|(\d[\d,]*)(?![\d,]) (?:{STEPS})s\b|"
            r"(?<=@ )(\d[\d,]*)(?=:))(?: ?(?:/|of) ?\d[\d,]*)?(?: ?\([^)]*\))?"
            r"(?: (?:is|was) | ?[:=|-] ?| )(?=[+-]?(?:\d|\.\d|nan|inf))",
            re.IGNORECASE,
        ),
        r"step \2\3\4 \1: ",
    ),
    # what early stopping says is said of the best, and rounded: `val loss improved from 3.5 to 3.4`
    Rule(
        "",
        re.compile(
            r"\b(?:val|valid|validation|eval|dev)[ _]loss (?:has )?"
            r"(?:improved|decreased|fell|dropped|did not)\b.*$",
            re.IGNORECASE,
        ),
        "",
    ),
    # torchtitan: `validate step: 100  loss:  3.2`
    Rule(
        "validate step",
        re.compile(r"^.*?validate step:\s*(\d+)\s+loss:\s*(\S+).*$"),
        r"step \1 val_loss \2",
    ),
)
PAIR = re.compile(
    r"((?:[A-Za-z]\d?|"  # a name; one of a set may hold digits: `eval_c4_loss`
    r"(?=[ev])\b(?:val|valid|validation|eval)_\w{0,40}(?=_[A-Za-z]))"
    r"[A-Za-z_/ ().-]{0,63}?) ?[:= ] ?[#[]?"
    r"([+-]?(?:(?-i:(?:\d+[dhm] ?){1,3}\d+[ms])|\d+(?::\d\d){1,2}"  # a time
    r"|\d[\d,]*(?:\.\d*)?(?:[eE][+-]?\d+)?[a-z%]*|nan|inf)(?!\w))"
    r"(?: (ms|s|sec|seconds|min|minutes|h|hours|[kKMB])\b(?!/| ?[:=]? ?[\d+-]))?"  # … and its unit
    r"(?: ?/ ?(\d[\d,]*))?",  # and of how many
    re.IGNORECASE,
)
# What a loss is of: its first word, a word between bars or in brackets, the one next to the loss
TAG = re.compile(
    rf"^\W*({WORDS})\b|[|\]:] ?({WORDS}) \||[\[(]({WORDS})[\])]|\b({WORDS})\W{{0,3}}$|"
    "(valid) on '",
    re.IGNORECASE,
)
TRAINED = re.compile(r"train.*[ :=]\d", re.IGNORECASE)
WHOLE = re.compile(r"[\d,]+%?")
BARE = {"train", "val", "valid", "validation"}  # losses as the header of a table; here often not
SAID_OF_IT = re.compile(r"loss \w", re.IGNORECASE)
OTHER_UNIT = re.compile(
    r" ?(?:samples?|seqs?|sequences?|imgs?|images?|it|iters?|steps?)\b(?! ?[:=]? ?\d)",
    re.IGNORECASE,
)
LEVEL = re.compile(r"^.*\b(?:info|debug|warning|root)\b[\s-]*", re.IGNORECASE)
SMOOTHED = "beside_nll_loss"  # a column that is seen and not read
SHORT = {"s": "step", "trl": "loss", "tel": "val_loss"}  # llm.c


def tidy(line: str) -> str:
    """A line as words, names and numbers."""
    for mark, form, becomes in TIDY:
        if mark in line:
            line = form.sub(becomes, line)
    return line


def pairs(line: str, by_batch: bool) -> tuple[dict[str, tuple[str, str]], str]:
    """The names in a line, by ours: the foreign one and its number, of several the first; and what
    the line says that its loss is of. `by_batch`: the batch of an epoch is a step."""
    found: dict[str, tuple[str, str]] = {}
    tag = ""
    for pair in PAIR.finditer(line):
        for name, ours, number in _read(pair):
            if ours not in found:
                found[ours] = name, number
                tag = _tag(pair) if ours == "loss" else tag
    batch, batches = found.pop("batch", None), found.pop("batches", None)
    if by_batch and batch and batches and "step" not in found:
        found |= {"step": batch, "planned": batches}
    return found, tag


@lru_cache(maxsize=4096)
def _named(name: str) -> tuple[str, str | None]:
    """A name without the level that loggers put in front, and ours; its own, if it tells what the
    log is of."""
    if ")" in name.partition("(")[0]:  # of what stood before: `step 100 (250ms) loss 3.2`
        name = name.rpartition(")")[2].strip()
    name = SHORT.get(name, LEVEL.sub("", name)).strip().removesuffix(" is")
    ours = ours_of(name)
    if ours == "val_loss" and normalise(name) not in OURS and SAID_OF_IT.search(name):
        ours = None  # `val loss of epoch 3`: words behind a loss are no set
    return name, name if ours is None and tells_task(name) else ours


def _read(pair: re.Match[str]) -> Iterator[tuple[str, str, str]]:
    """The foreign name, ours, and the number of a pair whose name is known; and of how many."""
    name, number, unit, of = pair.groups()
    name, ours = _named(name)
    if ours is None:
        if of and name.lower() == "batch":
            yield "step", "batch", number.rstrip(",")
            yield "max_steps", "batches", of.rstrip(",")
        return
    number = number.rstrip(",") + (unit if unit and ours in COUNTS else "")
    if parse(number, ours) is None or (normalise(name) in BARE and WHOLE.fullmatch(number)):
        return
    other = ours == "tokens_per_s" and "tok" not in name.lower()
    if other and OTHER_UNIT.match(pair.string, pair.end()):
        return
    if tells_smoothing(name):
        yield SMOOTHED, SMOOTHED, number
    yield name, ours, number
    if ours == "step" and of:
        yield "max_steps", "planned", of.rstrip(",")


def _tag(pair: re.Match[str]) -> str:
    """What a line says that its loss is of, if not of training: val, test or the like."""
    before, name = pair.string[: pair.start(1)], pair.group(1)
    found = TAG.search(before.rstrip())
    # of words that disagree the last counts: `trainer-1 | [valid] loss`, `[valid] train loss`; but
    # one behind a number is of another figure: `train step 10 acc (test) 0.9 loss 3.2`
    last = found.end() if found and not TRAINED.search(before, 0, found.start()) else 0
    if "train" in f"{before[last:]}{name}".lower():
        return ""
    found = found or TAG.search(name)
    return next(filter(None, found.groups())).lower() if found else ""
