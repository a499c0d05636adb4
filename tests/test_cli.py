"""The command line as a user meets it: habits, bad input, what is printed where."""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from overnight import cli
from overnight.cli import train
from overnight.errors import UserError
from overnight.runfolder import Eval, read_log
from overnight.settings import load_config, preset_names

GOOD = "It was a dark and stormy night.\n" * 200
SMALL = ["--preset", "nanogpt-cpu", "--max-steps", "2", "--threads", "1", "--sample.tokens", "0",
         "--model.width", "16", "--model.heads", "2", "--model.context", "16"]  # fmt: skip


def python(*words: str, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False, **more
    )  # type: ignore[call-overload]


def test_help_is_quick_and_loads_no_torch() -> None:
    before = os.times()
    done = python("-X", "importtime", "-m", "overnight", "--help")
    after = os.times()
    assert done.returncode == 0
    assert "train" in done.stdout
    for heavy in ("torch", "numpy", "scipy", "matplotlib", "tokenizers"):
        assert f" {heavy}\n" not in done.stderr
    used = after.children_user + after.children_system
    used -= before.children_user + before.children_system
    assert used < 1.0  # 0.12 s on the machine this was written on, without -X importtime


def test_version_and_presets(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("overnight 0.")
    assert cli.run(["presets", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == preset_names()
    assert {"name", "parameters", "vocabulary", "context", "source"} <= set(rows[0])
    assert cli.run(["presets"]) == 0
    assert "3,623,040" in capsys.readouterr().out
    assert cli.run(["settings"]) == 0
    assert "model.width" in capsys.readouterr().out


def refused(words: list[str], capfd: pytest.CaptureFixture[str], folder: Path) -> str:
    """Run, expect exit 2, one line, no traceback, and nothing left behind; the line."""
    before = sorted(folder.rglob("*"))
    capfd.readouterr()
    assert cli.run(words) == 2
    out, err = capfd.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if line]
    assert len(lines) == 1, err
    assert lines[0].startswith("overnight: ")
    assert sorted(folder.rglob("*")) == before
    return lines[0]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.txt").write_text(GOOD)
    (tmp_path / "odd.toml").write_text('preset = "gpt"')
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "empty"),
        (b"short", "fewer than one block"),
        (b"fine\nso far \xff\xfe not", "UTF-8"),
    ],
    ids=["empty", "short", "invalid UTF-8"],
)
def test_bad_text(
    content: bytes, part: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "bad.txt").write_bytes(content)
    line = refused(["train", "bad.txt", *SMALL, "--out", "run"], capfd, folder)
    assert part in line
    assert "bad.txt" in line or content == b"short"


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["train", "absent.txt"], "absent.txt"),
        (["train", "good.txt", "--model.widht", "8"], 'Did you mean "model.width"?'),
        (["train", "good.txt", "--preset", "fats"], 'Did you mean "fast"?'),
        (["train", "good.txt", "--max-stepps", "3"], 'Did you mean "--max-steps"?'),
        (["train", "good.txt", "--max-steps", "3", "--tokens", "9"], "one length"),
        (["train", "good.txt", "--minutes", "3", "--hours", "9"], "one of them"),
        (["train", "good.txt", "--max-steps", "many"], "many"),
        (["train", "good.txt", "--max-steps", "1.5"], "whole number"),
        (["explain", "--loss", "3", "--steps", "inf"], "whole number"),
        (["train", "good.txt", "--tokenizer", "words"], "words"),
        (["train", "good.txt", "--tokenizer", "bpee"], 'Did you mean "bpe"? Known: auto, bytes'),
        (["train", "good.txt", "--schedule.kind", "cosin"], 'Did you mean "cosine"?'),
        (["train", "good.txt", "--vocab-size", "99999999999999999999"], "1048576"),
        (["train", ""], "an empty name"),
        (["train", "good.txt", "--val", ""], "an empty name"),
        (["train", "good.txt", "--optimizer.beta1", "1"], "optimizer.beta1"),
        (["train", "good.txt", "--model.layers", "SSA", "--model.width", "300"], "model.ssm_head"),
        (["report", "good.txt", "--json", "--terminal"], "choose one"),
        (["train", "good.txt", "--threads", "100000"], "threads = 100,000"),
        (["train", "good.txt", "--device", "cpu:"], "give auto, cpu, cuda or mps"),
        (["train", "good.txt", "--tokens", "0.5"], "length.tokens"),
        (["train", "good.txt", "--model.width", "32", "--model.width", "64"], "given twice"),
        (["train", "good.txt", "--seed", "1", "--train.seed", "2"], "train.seed is given twice"),
        (["train", "good.txt", "--preset", "odd.toml"], "preset = 'gpt': give a table"),
        (["train", "-", "--val", "-"], "only once"),
        (["train", "good.txt", "--begin-with", "x"], 'no option "--begin-with"'),
        (["train", "a" * 300], "cannot be read"),
        (["train", "loop"], "loop: no such file or folder."),
        (["train", "good.txt", "--out", "loop"], "exists already"),
        (["train", "two\nlines.txt"], "two\\nlines.txt: no such file or folder."),
        (["train", "bad\udcff.txt"], "not UTF-8"),
        (["train", "good.txt", "--out", "bad\udcff"], "not a name for a folder"),
        (["train", "good.txt", "--device", "abacus"], "abacus"),
        (["train", "good.txt", "--settings", "absent.toml"], "absent.toml"),
        (
            ["train", "good.txt", "--model.width", "17", "--model.heads", "2"],
            "multiple of model.heads",
        ),
        (["train", "good.txt", "--train.micro_batch", "5", "--train.batch", "16"], "multiple of"),
        (["train", "--resume", "absent"], "absent"),
        (["train", "--resume", "."], "not a run folder"),
        (["train", "--resume", ".", "--preset", "fast"], "leave out"),
        (["generate", "absent"], "absent"),
        (["generate", ".", "--temperature", "-1"], "temperature"),
        (["watch", ".", "--on", "finished=stop", "--pid", "9" * 20], "not a training process"),
        (["report", "absent"], "absent"),
        (["trian"], "train"),
        (["train", "good.txt", "--set", "nonsense"], "NAME=VALUE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_words(
    words: list[str], part: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert part in refused(words, capfd, folder)


def test_a_vocabulary_larger_than_the_text_allows(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "good.txt", *SMALL, "--tokenizer", "bpe", "--vocab-size", "9000"]
    line = refused([*words, "--out", "run"], capfd, folder)
    assert "9000" in line.replace(",", "")


def test_an_existing_folder_is_not_touched(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "run").mkdir()
    assert "exists" in refused(["train", "good.txt", *SMALL, "--out", "run"], capfd, folder)


@pytest.mark.parametrize("form", ["folder", "gz", "zst", "jsonl", "stdin"])
def test_every_form_of_text_trains(
    form: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import zstandard

    text = GOOD.encode()
    if form == "folder":
        (folder / "many").mkdir()
        for i in range(3):
            (folder / "many" / f"{i}.txt").write_bytes(text)
        word = "many"
    elif form == "gz":
        (folder / "x.txt.gz").write_bytes(gzip.compress(text))
        word = "x.txt.gz"
    elif form == "zst":
        (folder / "x.txt.zst").write_bytes(zstandard.compress(text))
        word = "x.txt.zst"
    elif form == "jsonl":
        rows = [json.dumps({"text": GOOD, "id": i}) + "\n" for i in range(3)]
        (folder / "x.jsonl").write_text("".join(rows))
        word = "x.jsonl"
    else:
        read, write = os.pipe()
        os.write(write, text)
        os.close(write)
        monkeypatch.setattr(sys, "stdin", os.fdopen(read))
        word = "-"
    assert cli.run(["train", word, *SMALL, "--out", "run", "--json"]) == 0
    summary = json.loads(capfd.readouterr().out)
    assert summary["steps"] == 2
    assert (folder / "run" / "report" / "report.html").is_file()


def test_from_python(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The two doors a notebook needs, and `generate` through the same."""
    import torch

    import overnight

    assert cli.run(["train", "good.txt", *SMALL, "--out", "run"]) == 0
    run = overnight.load_run("run")
    assert run.config["model"]["width"] == 16
    assert {"train", "eval"} <= set(run.tables)
    assert run.findings["best"]["step"] == 2
    assert {"step", "loss", "se", "bpb", "tied_steps"} <= set(run.findings["best"])
    assert run.findings["ledger"]["tokens_per_s"] > 0
    assert run.checkpoints
    json.dumps(run.findings)
    for checkpoint in ("best", "last", 2):
        model, tokenizer = overnight.load_model("run", checkpoint=checkpoint)
    assert not model.training
    assert next(model.parameters()).dtype == torch.float32
    ids = tokenizer.encode("a dark night")
    assert tokenizer.decode(ids) == "a dark night"
    assert model(torch.tensor([ids])).shape == (1, len(ids), tokenizer.vocab_size)
    odd = tokenizer.encode("a🙂d")
    assert len(odd) == 3
    assert tokenizer.decode(odd) == "a\ufffdd"
    capfd.readouterr()
    assert cli.run(["generate", "run", "--prompt", "a🙂d", "--max-tokens", "2"]) == 0
    assert "1 token of the prompt: not in the model's vocabulary" in capfd.readouterr().err
    words = ["generate", "run", "--prompt", "a dark", "--max-tokens", "9", "--num-samples", "2"]
    assert cli.run(words) == 0
    first = capfd.readouterr().out
    assert first.count("a dark") >= 2
    assert cli.run(words) == 0
    assert capfd.readouterr().out == first
    assert cli.run([*words, "--json"]) == 0
    texts = json.loads(capfd.readouterr().out)
    assert [t["seed"] for t in texts] == [1, 2]
    assert texts[0]["text"] != texts[1]["text"]
    assert not texts[0]["text"].startswith("a dark")
    assert cli.run([*words, "--stop", ""]) == 2
    capfd.readouterr()
    assert cli.run(["train", "--settings", "run/config.toml", "--dry-run", "--json"]) == 0
    plan = json.loads(capfd.readouterr().out)["config"]
    assert plan == msgspec.to_builtins(load_config(Path("run/config.toml")))
    endless = ["--num-samples", str(10**12), "--top-p", "2"]
    assert cli.run([*words[:-2], *endless]) == 2  # before any is made
    assert "--top-p 2" in capfd.readouterr().err


def test_the_log_of_a_run_is_no_log_of_another_tool(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["train", "good.txt", *SMALL, "--out", "run"]) == 0
    capfd.readouterr()
    assert cli.run(["report", "run/log.jsonl"]) == 2
    assert "run/log.jsonl: the log of a run folder: give the folder" in capfd.readouterr().err


def test_report_loads_no_torch(folder: Path) -> None:
    assert cli.run(["train", "good.txt", *SMALL, "--out", "run"]) == 0
    done = python("-X", "importtime", "-m", "overnight", "report", "run", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["best"]["step"] == 2
    assert not [line for line in done.stderr.splitlines() if line.endswith((" torch", "_C"))]


def test_separate_validation_text_and_resume_from_another_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "val.txt").write_text("It was a bright and silent night.\n" * 20)
    words = ["train", "good.txt", "--val", "val.txt", *SMALL, "--out", "run"]
    assert cli.run(words) == 0
    data = read_log(folder / "run" / "log.jsonl").rows[0].data
    assert (data["bytes"], data["val_bytes"]) == (len(GOOD), 34 * 20)
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    more = ["--max-steps", "4", "--accept", "trajectory"]
    assert cli.run(["train", "--resume", "../run", *more]) == 0
    assert read_log(folder / "run" / "log.jsonl").rows[-1].step == 4


def test_an_underscore_too_few_in_the_environment_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OVERNIGHT_MODEL_WIDTH", "32")
    line = refused(["train", "good.txt"], capfd, folder)
    assert 'Did you mean "OVERNIGHT_MODEL__WIDTH"?' in line


def test_an_error_behind_text_begins_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    from overnight.cli.generate import _stream

    def pieces() -> Iterator[str]:
        yield "text"
        raise UserError("the model's numbers are no longer finite")

    with pytest.raises(UserError):
        _stream("a ", pieces(), another=False)
    assert capfd.readouterr().out == "a text\n"


def test_prompts_may_begin_with_a_dash(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["train", "good.txt", *SMALL, "--out", "run"]) == 0
    capfd.readouterr()
    for prompt in ("- It was", "--it", "-5", "--see fig. 1", "--foo.bar"):
        words = ["generate", "run", "--prompt", prompt, "--max-tokens", "2", "--stop", "-x"]
        assert cli.run([*words, "--json"]) == 0
        assert json.loads(capfd.readouterr().out)[0]["prompt"] == prompt


def test_closed_streams_are_no_traceback(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdin", None)
        assert "closed" in refused(["train", "-"], capfd, folder)
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", None)
        assert cli.run(["presets", "--json"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", None)
        assert cli.run(["train", "good.txt", *SMALL, "--dry-run"]) == 0


def test_a_setting_without_a_value_is_said(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    line = refused(["train", "good.txt", "--sample.prompts", "--dry-run"], capfd, folder)
    assert "--sample.prompts: a value is missing" in line
    assert cli.run(["train", "good.txt", *SMALL, "--train.early_stop", "--dry-run"]) == 0
    assert cli.run(["train", "--train.early_stop", "good.txt", *SMALL, "--dry-run"]) == 0
    assert cli.run(["train", "--train.early_stop", "false", "good.txt", *SMALL, "--dry-run"]) == 0


def test_what_is_no_setting_of_the_environment_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OVERNIGHT_PRESET", "tiny-chars")
    line = refused(["train", "good.txt"], capfd, folder)
    assert line.endswith("OVERNIGHT_PRESET is no setting.")


def test_a_warm_up_that_does_not_fit_is_shortened_and_told(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "good.txt", *SMALL, "--schedule.warmup", "2"]
    assert cli.run([*words, "--out", "run"]) == 0
    assert "warm-up   1 step: half of 2 steps; 2 (command line) is more" in capfd.readouterr().err
    text = (folder / "run" / "config.toml").read_text()
    assert "warmup = 1 # half of 2 steps; 2 (command line) is more" in text


def test_a_run_keeps_its_tokenizer(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["train", "good.txt", *SMALL, "--out", "run"]) == 0
    capfd.readouterr()
    words = ["train", "--resume", "run", "--tokenizer", "bpe", "--accept", "incompatible"]
    assert "the run keeps its own" in refused(words, capfd, folder)


def test_the_plan_says_what_is_so(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["train", "good.txt", *SMALL, "--dry-run"]
    assert cli.run(words) == 0
    plan = capfd.readouterr().out
    (shown,) = re.findall(r"measured .* on ([\d,]+) val tokens", plan)
    tokens = int(shown.replace(",", ""))
    assert cli.run(["train", "good.txt", *SMALL, "--out", "run"]) == 0
    assert read_log(folder / "run" / "log.jsonl").of(Eval)[-1].val_tokens == tokens
    capfd.readouterr()
    assert cli.run([*words, "--tokenizer", "bytes"]) == 0
    assert "bytes, vocabulary 256 (one for each byte)" in capfd.readouterr().out


def test_who_interrupts_the_report_is_told_how_to_get_it(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("overnight.report.write", interrupt)
    assert cli.run(["train", "good.txt", *SMALL, "--out", "run"]) == 130
    assert "the report is not written: overnight report run" in capfd.readouterr().err


def test_an_interrupt_before_training_is_told_and_leaves_nothing(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("overnight.training.session.plan_run", interrupt)
    assert cli.run(["train", "good.txt", *SMALL, "--out", "run"]) == 130
    assert capfd.readouterr().err == "overnight: interrupted.\n"
    assert not (folder / "run").exists()


@pytest.mark.parametrize(
    "code",
    [
        # numpy and torch do so with what comes while they load
        "from overnight.cli import loading\nwith loading():\n"
        "    try: signal.raise_signal(signal.SIGINT)\n    except KeyboardInterrupt: pass",
        "class Loads:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'cyclopts': signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Loads())\nfrom overnight.__main__ import main; main()",
    ],
    ids=["a library", "the command line"],
)
def test_an_interrupt_while_something_loads_ends_at_once(code: str) -> None:
    # a process behind & in a script, as this may be, has interrupts ignored
    begin = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    done = python("-c", begin + code)
    assert (done.returncode, done.stderr) == (130, "")


def test_when_all_is_loaded_an_interrupt_is_what_it_was() -> None:
    before = signal.getsignal(signal.SIGINT)
    with cli.loading():
        pass
    assert signal.getsignal(signal.SIGINT) is before


def test_interrupts_that_are_ignored_stay_so_while_something_loads() -> None:
    ignored = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    loads = "from overnight.cli import loading\nwith loading(): signal.raise_signal(signal.SIGINT)"
    assert python("-c", ignored + loads).returncode == 0


def test_a_text_that_looks_like_an_option(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-dash.txt").write_text("text")
    assert cli.run(["train", "--", "-dash.txt"]) == 2
    assert "name the file as ./-dash.txt" in capfd.readouterr().err


def test_runs_of_the_same_second_get_names_of_their_own(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.strftime", lambda *_: "now")
    assert cli.run(["train", "good.txt", *SMALL]) == 0
    (folder / "runs" / ".now-nanogpt-cpu-2.1.tmp").mkdir()  # of a process that makes it
    assert cli.run(["train", "good.txt", *SMALL]) == 0
    made = sorted(p.name for p in (folder / "runs").iterdir() if not p.name.startswith("."))
    assert made == ["now-nanogpt-cpu", "now-nanogpt-cpu-2-2"]
    assert "run       runs/now-nanogpt-cpu-2-2" in capfd.readouterr().err
    (folder / ".mine.1.tmp").mkdir()  # a name that is asked for is that or none
    assert cli.run(["train", "good.txt", *SMALL, "--out", "mine"]) == 2
    assert "another process is making it" in capfd.readouterr().err


def test_a_finished_run_keeps_its_report(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["train", "good.txt", *SMALL, "--out", "run"]) == 0
    report = folder / "run" / "report" / "report.html"
    report.write_text("mine")
    assert cli.run(["train", "--resume", "run"]) == 0
    assert report.read_text() == "mine"
    report.unlink()
    assert cli.run(["train", "--resume", "run"]) == 0
    assert report.is_file()
    assert cli.run(["train", "--resume", "run", "--from", "run"]) == 2


def test_a_link_that_leads_nowhere_is_not_its_own_suggestion(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "chapters.md").symlink_to("nowhere")
    assert refused(["train", "chapters.md"], capfd, folder).endswith("no such file or folder.")
    (folder / "chapter.md").write_text(GOOD)
    assert refused(["train", "chapters.md"], capfd, folder).endswith('Did you mean "chapter.md"?')


def test_flags_lie_over_the_environment_and_hours_are_sixty_minutes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OVERNIGHT_MODEL__WIDTH", "8")
    monkeypatch.setenv("OVERNIGHT_MODEL__HEADS", "2")
    settings = train._layers(None, None, {"model.width": "16"}, None)
    assert (settings.get("model.width"), settings.get("model.heads")) == (16, 2)
    assert train._minutes(None, 8) == 480


def test_a_stop_writes_into_no_file_that_took_the_number_of_stderr(folder: Path) -> None:
    code = (
        "import os, signal, sys; from overnight.training.stop import StopSignal\n"
        "assert sys.stderr is None\n"
        "fd = os.open('mine', os.O_RDWR | os.O_CREAT); os.dup2(fd, 2)\n"
        "with StopSignal(): signal.raise_signal(signal.SIGINT)\n"
    )
    command = f"exec {shlex.quote(sys.executable)} -c {shlex.quote(code)} 2>&-"
    assert subprocess.run(["sh", "-c", command], cwd=folder).returncode == 0
    assert (folder / "mine").read_bytes() == b""


def test_a_size_is_found_that_heads_of_state_spaces_fill(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["--model.layers", "SA", "--model.ssm_head", "96", "--max-steps", "3", "--dry-run"]
    words += ["--model.context", "16", "--train.batch", "2", "--model.ngram_rows", "64"]
    assert cli.run(["train", "good.txt", "--threads", "1", *words]) == 0
    assert "width 384" in capfd.readouterr().out
