"""report, explain and watch on the command line."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import made
import pytest

from overnight import cli
from overnight.runlock import RunLock

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}
QUESTION_001 = ["explain", "--loss", "3.9", "--steps", "3000", "--batch", "4"]
QUESTION_001 += ["--accumulation", "8", "--block", "1024"]
QUESTION_001 += ["--corpus-tokens", "116944985", "--vocab", "32000"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made.run_folder(tmp_path_factory.mktemp("c") / "run", resume_at=200)


def test_json_is_all_of_stdout_and_the_same_object(folder, capsys):
    from overnight import load_run

    assert cli.run(["report", str(folder), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == load_run(folder).findings
    assert err == ""


def test_out_writes_there_and_says_so_on_stderr(folder, tmp_path, capsys):
    assert cli.run(["report", str(folder), "--out", str(tmp_path / "o")]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "report.html" in err
    assert (tmp_path / "o" / "report.md").is_file()


@pytest.mark.parametrize("words", [["report", "/nowhere"], ["report"], ["watch", "/nowhere"],
                                   ["explain"], ["explain", "--loss", "-1"],
                                   ["explain", "--loss", "3", "--batch", "8"]])  # fmt: skip
def test_bad_input_is_one_line_and_exit_2(words, capsys):
    assert cli.run(words) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_report_loads_no_torch(folder, tmp_path):
    code = (
        "import sys; from overnight import cli; "
        f"cli.run(['report', {str(folder)!r}, '--out', {str(tmp_path)!r}]); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=ENVIRONMENT)


def test_question_of_001(capsys):
    assert cli.run(QUESTION_001) == 0
    out = capsys.readouterr().out
    for fact in ("0.84 passes", "98,304,000 tokens", "569 more finish", "3,569 steps",
                 "114,204 blocks", "32 sequences, 32,768 tokens", "10.3735", "49.40"):  # fmt: skip
        assert fact in out
    assert "0.082" not in out
    assert "normal" not in out.lower()


def test_effective_batches_of_001(capsys):
    """64 × 4 are 256 sequences, 262,144 tokens; 512 and 1,024 are 524,288 and 1,048,576."""
    for accumulation, tokens in ((64, 262_144), (128, 524_288), (256, 1_048_576)):
        words = ["explain", "--loss", "3", "--batch", "4", "--accumulation", str(accumulation)]
        assert cli.run([*words, "--block", "1024", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["sequences_per_step"] == 4 * accumulation
        assert found["tokens_per_step"] == tokens


def test_bytes_and_bpe_of_003_compare_in_bits_per_byte(capsys):
    found = []
    for loss, size in (("2.6312", "1"), ("6.08", "2.32")):
        cli.run(["explain", "--loss", loss, "--bytes-per-token", size, "--json"])
        found.append(round(json.loads(capsys.readouterr().out)["bits_per_byte"], 2))
    assert found == [3.80, 3.78]


def test_hours_of_004(capsys):
    """80 × 400 iterations at 2.42 a second are 3.7 hours, not six; at 1–2 s they are 8.9–17.8."""
    hours = []
    for seconds in (1 / 2.42, 1.0, 2.0):
        cli.run(["explain", "--loss", "1", "--steps", "32000", "--seconds-per-step", str(seconds),
                 "--json"])  # fmt: skip
        hours.append(round(json.loads(capsys.readouterr().out)["seconds"] / 3600, 1))
    assert hours == [3.7, 8.9, 17.8]


def test_explain_with_text(tmp_path, capsys):
    path = tmp_path / "t.txt"
    path.write_text("the quick brown fox jumps over the lazy dog. " * 400)
    assert cli.run(["explain", "--loss", "2.0", "--bytes-per-token", "1", "--text", str(path)]) == 0
    out = capsys.readouterr().out
    assert "bigram: " in out
    (beaten,) = [line for line in out.splitlines() if "beats: " in line]
    assert "unigram" in beaten  # 2.9 bits per byte
    assert "bigram" not in beaten
    packed = tmp_path / "t.txt.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    words = ["explain", "--loss", "2.0", "--bytes-per-token", "1", "--text", str(packed)]
    assert cli.run(words) == 0
    assert capsys.readouterr().out == out  # the text, not the bytes of the file


def test_watch_fires_each_rule_once_without_a_shell(folder, tmp_path, capfd):
    mark = tmp_path / "a b;c"
    rule = f"finished=touch '{mark}'"
    assert cli.run(["watch", str(folder), "--on", rule, "--on", "overfitting=false"]) == 0
    out, err = capfd.readouterr()
    assert mark.is_file()
    assert "ran touch (exit 0)" in err
    assert "false" not in err
    assert out.startswith("step 400, finished; val ")


def test_watch_stops_a_process_when_harm_is_proven(tmp_path):
    harmed = made.run_folder(tmp_path / "h", steps=1200, every=40, harm=0.5, blocks=False)
    child = subprocess.Popen(["sleep", "60"])
    try:
        assert (
            cli.run(["watch", str(harmed), "--on", "overfitting=stop", "--pid", str(child.pid)])
            == 0
        )
        assert child.wait(timeout=10) == -signal.SIGTERM
    finally:
        child.kill()


@pytest.mark.parametrize("rule", ["finishd=bell", "finished", "finished=", "overfitting=stop",
                                  "finished='"])  # fmt: skip
def test_watch_refuses_a_bad_rule(folder, rule, capsys):
    assert cli.run(["watch", str(folder), "--on", rule]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_watch_sees_that_a_run_was_killed_between_two_looks(tmp_path, capfd, monkeypatch):
    """Its log grows no more; its lock is free."""
    run = made.run_folder(tmp_path / "k")
    rows = (run / "log.jsonl").read_text().splitlines(keepends=True)
    (run / "log.jsonl").write_text("".join(row for row in rows if '"type":"end"' not in row))
    lock = RunLock(run / "run.lock")
    monkeypatch.setattr("time.sleep", lambda seconds: lock.release())
    assert cli.run(["watch", str(run), "--on", "ended=true", "--on", "finished=false"]) == 0
    out, err = capfd.readouterr()
    assert len(out.splitlines()) == 2
    assert "ended: ran true" in err
    assert "false" not in err  # it did not come to its end
    assert ", killed; val" in out.splitlines()[-1]


@pytest.mark.parametrize(("last", "fires"), [("3.9", False), ("nan", True)])
def test_watch_takes_no_spike_for_divergence(tmp_path, capfd, last, fires):
    """A look at every row meets each spike at its height; what is not finite is sure at once."""
    log = tmp_path / "log.csv"
    rows = [f"{i},{2 + 1 / (1 + i):.4f}" for i in range(90)] + [
        f"{i},{last}" for i in range(90, 94)
    ]
    log.write_text("step,loss\n" + "\n".join(rows) + "\n")
    assert cli.run(["watch", str(log), "--once", "--on", "divergence=true"]) == 0
    out, err = capfd.readouterr()
    assert "diverged" in out
    assert ("divergence: ran true" in err) == fires


SETTINGS = """number of parameters: 0.80M
num decayed parameter tensors: 18, with 802,944 parameters
compiling the model... (takes a ~minute)
"""


@pytest.mark.parametrize(
    ("name", "before", "rows", "missing"),
    [
        ("log.csv", "step,loss\n", "1,3.0\n2,2.5\n3,2.4\n", "a header and no rows"),
        (
            "log.txt",
            SETTINGS,
            "iter 1: loss 3.0\niter 2: loss 2.5\niter 3: loss 2.4\n",
            "not a log that can be read",
        ),
    ],
)
def test_watch_waits_for_the_first_row(tmp_path, capfd, monkeypatch, name, before, rows, missing):
    log = tmp_path / name
    log.write_text(before)
    assert cli.run(["watch", str(log), "--once"]) == 2
    looks = []

    def grow(seconds):
        if looks:
            raise OSError("enough")
        looks.append(seconds)
        log.write_text(before + rows)

    monkeypatch.setattr("time.sleep", grow)
    assert cli.run(["watch", str(log)]) == 1
    out, err = capfd.readouterr()
    assert out.startswith("step 3; ")
    assert err.count(missing) == 2
    assert err.count("Looking again") == 1


@pytest.mark.parametrize(
    ("text", "minutes", "waits"),
    [(SETTINGS, 5, True), (SETTINGS, 11, False), ("step,loss\n", 1000, True)],
)
def test_watch_waits_for_what_may_become_a_log(tmp_path, capfd, monkeypatch, text, minutes, waits):
    """What stands still for ten minutes is no log, and will be none; but for a header."""
    log = tmp_path / "log.csv"
    log.write_text(text)
    os.utime(log, (1e9, 1e9))
    now = iter([1e9 + 1, 1e9 + 2, 1e9 + 60 * minutes, 1e9 + 60 * minutes])
    monkeypatch.setattr("time.time", lambda: next(now))
    looks = []

    def sleep(seconds):
        looks.append(seconds)
        if len(looks) == 3:
            raise OSError("enough")

    monkeypatch.setattr("time.sleep", sleep)
    assert cli.run(["watch", str(log)]) == (1 if waits else 2)
    assert len(looks) == (3 if waits else 2)
    assert capfd.readouterr().err.count("Looking again") == 1


def test_what_a_terminal_cannot_show_is_spelt_out(folder):
    command = [sys.executable, "-m", "overnight", "report", str(folder), "--terminal"]
    shown = subprocess.run(
        command, capture_output=True, env=ENVIRONMENT | {"PYTHONIOENCODING": "ascii"}, check=True
    )
    assert rb"\xb1" in shown.stdout  # ±


def test_report_of_a_run_that_may_only_be_read(folder, tmp_path, monkeypatch):
    asked = []

    def refused(*given):
        asked.append(given)
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("overnight.report._remember", refused)
    live = made.run_folder(tmp_path / "l")
    log = (live / "log.jsonl").read_text().replace('"kind":"cosine"', '"kind":"constant"')
    rows = [json.loads(line) for line in log.splitlines()]
    rows[0]["config"]["length"] = {"steps": 600}
    text = "".join(json.dumps(row) + "\n" for row in rows if row["type"] != "end")
    (live / "log.jsonl").write_text(text)
    assert cli.run(["report", str(live), "--out", str(tmp_path / "o")]) == 0
    assert asked


def test_explain_doubts_what_is_too_good_and_too_little(capsys):
    assert cli.run(["explain", "--loss", "1.18", "--vocab", "16000"]) == 0
    assert "suspect memorisation" in capsys.readouterr().out
    assert cli.run(["explain", "--loss", "9.68", "--vocab", "16000"]) == 0
    assert "knows nothing" in capsys.readouterr().out.splitlines()[1][-20:]


def test_explain_counts_the_pass_that_is_under_way(capsys):
    later = [*QUESTION_001[:4], "5000", *QUESTION_001[5:]]
    assert cli.run(later) == 0
    assert "a pass is 3,569 steps, 2,138 more finish pass 2" in capsys.readouterr().out
