"""The same forty rows in the spellings of other tools: read as the same numbers."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from overnight import cli, load_run
from overnight.analysis.readers.names import normalise, ours_of
from overnight.analysis.readers.values import BROKEN, number

N = 40
STEPS = [50 * (i + 1) for i in range(N)]
TRAIN = [round(3 + 2 / np.sqrt(i + 1), 4) for i in range(N)]
VAL = [round(3.1 + 2 / np.sqrt(i + 1), 4) for i in range(N)]
ROWS = list(zip(STEPS, TRAIN, VAL, strict=True))
OBJECTS = [{"step": s, "loss": t, "val_loss": v} for s, t, v in ROWS]


def table(head: str, row: str = "{0},{1},{2}", end: str = "\n") -> str:
    return end.join([head, *(row.format(*r) for r in ROWS)]) + end


def lines(make) -> str:
    return "".join(json.dumps(o) + "\n" for r in ROWS for o in make(*r))


def comma(head: str) -> str:
    return table(head, "{0};{1};{2}").replace(".", ",")


PLAIN = table("step,loss,val_loss")
RESUMED = PLAIN[: PLAIN.index("\n1500,") + 1] + "step, loss ,val_loss\n" + PLAIN.split("\n", 20)[20]
LOGS = {
    "slashes.csv": table("iter,train/loss,val/loss"),
    "words.csv": table("Step,Training Loss,Validation Loss"),
    "camel.csv": table("globalStep,trainLoss,valLoss"),
    "units.csv": table("Iteration,Train Loss (nats),Val Loss [nats]"),
    "short.csv": table("iteration,train,val"),
    "nll.csv": table("update,train_nll,valid_nll"),
    "spaces.csv": table(" step , loss , val loss ", " {0} , {1} , {2} "),
    "thousands.csv": table("step;loss;val_loss", "{0:,};{1};{2}"),
    "quoted.csv": table('"step","loss","val_loss"', '"{0:,}","{1}","{2}"'),
    "comma.csv": comma("step;loss;val_loss"),
    "floats.csv": table("step,loss,val_loss", "{0}.0,{1},{2}"),
    "tabs.tsv": table("step\tloss\tval_loss", "{0}\t{1}\t{2}"),
    "windows.csv": "\ufeff" + table("step,loss,val_loss", end="\r\n"),
    "mac.csv": table("step,loss,val_loss", end="\r"),
    "remarks.csv": "# a run\n# of mine\n" + PLAIN,
    "index.csv": table(",step,loss,val_loss", "7,{0},{1},{2}"),
    "sparse.csv": table("step,loss,val_loss", "{0},{1},\n{0},,{2}"),
    "missing.csv": table("step,loss,val_loss", "{0},{1},None\n{0},N/A,{2}"),
    "nans.csv": table("step,loss,val_loss", "{0},{1},nan\n{0},NaN,{2}"),
    "zeros.csv": PLAIN + "\0" * 600 + "\n",
    "long.csv": table("step,split,loss", "{0},train,{1}\n{0},val,{2}"),
    "resumed.csv": RESUMED,
    "utf16.csv": PLAIN.encode("utf-16"),
    "packed.csv.gz": gzip.compress(PLAIN.encode()),
    "slashes.jsonl": lines(lambda s, t, v: [{"iter": s, "train/loss": t, "val/loss": v}]),
    "nested.jsonl": lines(lambda s, t, v: [{"step": s, "train": {"loss": t}, "val": {"loss": v}}]),
    "metrics.jsonl": lines(
        lambda s, t, v: [{"step": s, "metrics": {"train_loss": t, "val_loss": v}}]
    ),
    "losses.jsonl": lines(lambda s, t, v: [{"step": s, "losses": {"train": t, "val": v}}]),
    "kinds.jsonl": lines(
        lambda s, t, v: [
            {"type": "train", "step": s, "loss": t}, {"type": "Val", "step": s, "loss": v},
        ]
    ),
    "texts.jsonl": lines(lambda s, t, v: [{"step": f"{s}", "loss": f"{t}", "val_loss": f"{v}"}]),
    "phases.jsonl": lines(
        lambda s, t, v: [
            {"Split": "train", "step": s, "metrics": {"nll": t}},
            {"Split": "VALID", "step": s, "metrics": {"nll": v}},
        ]
    ),
    "Phases.csv": table("Phase,Step,Cross_Entropy", "train,{0},{1}\nvalid,{0},{2}"),
    "padded.log": table("", "step {0:>9}   |   loss   {1} " + " " * 3000 + "| val loss: {2}"),
    "coloured.log": table("", "\x1b[1mstep {0}\x1b[0m \x1b[32mloss {1} val_loss {2}\x1b[0m"),
    "coloured.jsonl": table("", '\x1b[32m{{"step": {0}, "loss": {1}, "val_loss": {2}}}\x1b[0m'),
    "windows.log": "\ufeff" + table("", "{0} | loss {1} | val_loss {2}", "\r\n").lstrip(),
    "dashes.log": table("-" * 3000 + "a " * 400, "step {0} loss {1} val_loss {2}"),
    "packed.jsonl.gz": gzip.compress(
        lines(lambda s, t, v: [{"step": s, "loss": t, "val_loss": v}]).encode()
    ),
    "list.json": json.dumps(OBJECTS),
    "nan.json": json.dumps([o | {"grad_norm": float("nan")} for o in OBJECTS], indent=1),
    "lines.json": lines(lambda s, t, v: [{"step": s, "loss": t, "val_loss": v}]),
    "history.json": json.dumps({"epoch": 3, "log_history": OBJECTS}),
    "columns.json": json.dumps({"step": STEPS, "loss": TRAIN, "val_loss": VAL}),
}  # fmt: skip


@pytest.mark.parametrize("name", LOGS)
def test_same_numbers(name, tmp_path):
    path = tmp_path / name
    content = LOGS[name]
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    run = load_run(path)
    assert run.log.train["step"].tolist() == STEPS
    assert run.log.train["loss"].tolist() == TRAIN
    assert run.log.eval["step"].tolist() == STEPS
    assert run.log.eval["val_loss"].tolist() == VAL
    assert not [p for p in run.problems if "written again" not in p]


def test_a_loss_that_stays_nan_has_diverged(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(
        "step,loss\n" + "".join(f"{s},{t if s < 1500 else 'nan'}\n" for s, t, _ in ROWS)
    )
    verdict = load_run(path).found.verdict("divergence")
    assert (verdict.verdict, verdict.since_step) == ("yes", 1500)


def test_a_sentence_that_stands_twice_is_no_torn_number(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("step,loss\nDone.\n" + "".join(f"{s},{t}\n" for s, t, _ in ROWS) + "Done.")
    assert load_run(path).log.train["loss"].tolist() == TRAIN


@pytest.mark.parametrize("at", [-200, 40])
def test_damaged_packing_is_one_sentence(at, tmp_path):
    from overnight.errors import UserError

    path = tmp_path / "log.csv.gz"
    packed = gzip.compress((PLAIN * 400).encode())
    path.write_bytes(packed[:at] if at < 0 else packed[:at] + b"\xff\x00" * 9 + packed[at:])
    with pytest.raises(UserError, match="cannot be read"):
        load_run(path)


@pytest.mark.parametrize(
    ("cell", "name", "value"),
    [("1,234", "step", 1234), ("1,234", "loss", 1.234), ("12.3k", "tokens_per_s", 12_300),
     ("7 %", "epoch", 7), ("1:02:03", "time", 3723), ("12.5s", "time", 12.5), ("3e-4", "lr", 3e-4),
     ("10,000", "planned", 10_000), ("1,234.5", "time", 1234.5),
     ("0,125", "time", 0.125), ("12,5", "duration", 12.5), ("3,625", "time", None),
     ("1:02:03", "duration", 3723),
     ("nan", "loss", BROKEN), ("1 234 567", "tokens", 1_234_567), ("abc", "loss", None)],
)  # fmt: skip
def test_cells(cell, name, value):
    assert number(cell, name) == value


@pytest.mark.parametrize("name", ["aux_loss", "z_loss", "val_accuracy", "train_acc", "loss_scale"])
def test_what_is_not_the_loss(name):
    assert ours_of(name) not in ("loss", "val_loss")


def test_normalise():
    assert normalise("run-7 - Train/Loss (nats)") == "train_loss"


@pytest.mark.parametrize(
    "content",
    [b"[", b"[1, 2]", b'{"a": [1]}', b"{", b"\x1f\x8b\x00", b"\xff\xfea", b"a,b\n1,2\n", b"[[]]"],
)
@pytest.mark.parametrize("name", ["log.json", "log.jsonl", "log.csv"])
def test_what_is_no_log_is_one_sentence(content, name, tmp_path):
    from overnight.errors import UserError

    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError):
        load_run(tmp_path / name)


@pytest.mark.parametrize(
    ("highest", "share"), [(700.0, 0.5), (1000.0, 0.9), (1e308, 0.5), (1e308, 1)]
)
def test_a_loss_beyond_all_measure_is_reported(highest, share, tmp_path):
    """Its perplexity is beyond what a logarithmic axis can draw."""
    rows = (f"{i},{3 + highest * share**i},{3.1 + highest * share**i}" for i in range(40))
    (tmp_path / "log.csv").write_text("\n".join(["step,loss,val_loss", *rows]))
    for view in (["--out", str(tmp_path / "report")], ["--terminal"]):
        assert cli.run(["report", str(tmp_path / "log.csv"), *view]) == 0
    assert (tmp_path / "report" / "report.html").is_file()


def test_equal_evaluations_are_tied_and_few_are_not_told_apart(tmp_path):
    def report(losses):
        log = tmp_path / "log.csv"
        log.write_text("\n".join(["step,val_loss", *(f"{i},{x}" for i, x in enumerate(losses))]))
        assert cli.run(["report", str(log), "--out", str(tmp_path / "report")]) == 0
        text = (tmp_path / "report" / "report.md").read_text()
        return load_run(log).found.best.tied_steps, text

    tied, text = report([3.5] * 20)
    assert tied == list(range(20))
    tied, text = report([3.52, 3.51, 3.5])
    assert tied == [2]
    assert "too few to tell ties" in text
    assert "as good" not in text
    assert "is tied with it" not in text
