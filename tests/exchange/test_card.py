"""The model card says what the findings say, and user text cannot break it."""

from __future__ import annotations

from grammars import grammar, make_run

from overnight.analysis.run import load_run
from overnight.exchange.card import card
from overnight.exchange.exporter import Exported, export
from overnight.runfolder import Eval, LogWriter, RunFolder
from overnight.text.makers import bytes_tokenizer

EXPORTED = Exported("out", "gpt2", "GPT2LMHeadModel", 10, 1234, "float32")


def test_from_findings(tmp_path) -> None:
    make_run(tmp_path / "my *run* <b>", grammar("gpt2"))
    run = RunFolder(tmp_path / "my *run* <b>")
    log = LogWriter(run.log, attempt=2)
    figures = {"val_loss": 1.25, "val_se": 0.011, "val_bpb": 1.8034, "val_tokens": 10}
    probe = {"probe_loss": 1.0, "probe_se": 0.01, "probe_bpb": 1.5, "probe_tokens": 10}
    log.write(Eval(step=0, tokens=4096, passes=0.5, seconds=1.0, **figures, **probe))
    log.close()
    export(run.path, tmp_path / "hf", findings=load_run(run.path).findings)
    text = (tmp_path / "hf" / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: transformers\n")
    assert "# my \\*run\\* \\<b\\>\n" in text
    assert "| validation loss, nats per token | 1.2500 ± 0.0110 (standard error) |" in text
    assert "| validation, bits per byte | 1.8034 |" in text
    assert "| passes through the text until this step | 0.50 |" in text
    assert "overnight import" in text


def test_without_findings_nothing_is_claimed() -> None:
    text = card(EXPORTED, bytes_tokenizer(separator=True), None)
    assert "validation" not in text
    assert "| parameters | 1,234 |" in text


def test_yardsticks_only_for_the_weights_they_were_compared_with() -> None:
    findings = {
        "source": {"name": "run"},
        "best": {"step": 20},
        "yardsticks": {"step": 10, "model_bpb": 2.0, "rows": [{"name": "xz | alone", "bpb": 2.5}]},
    }
    text = card(EXPORTED, bytes_tokenizer(separator=True), findings)
    assert "| this model | 2.0000 |\n| xz \\| alone | 2.5000 |" in text
    findings["yardsticks"]["step"] = 20
    assert "xz" not in card(EXPORTED, bytes_tokenizer(separator=True), findings)


def test_the_figure_is_that_of_all_held_out_text_where_it_is_known() -> None:
    evaluated = {"step": 10, "val_loss": 2.5, "val_se": 0.1, "val_bpb": 3.6}
    findings = {
        "source": {"name": "run"},
        "evaluations": [evaluated],
        "whole": {"step": 10, "loss": 2.4, "se": 0.01, "bpb": 3.62},
    }
    text = card(EXPORTED, bytes_tokenizer(separator=True), findings)
    assert "2.4000 ± 0.0100" in text
    assert "3.6200" in text
    assert "3.6000" not in text
    findings["whole"]["step"] = 20  # of other weights
    assert "2.5000 ± 0.1000" in card(EXPORTED, bytes_tokenizer(separator=True), findings)


def test_names_break_nothing_and_are_not_endless() -> None:
    findings = {"source": {"name": "a\n# b\u0007 [x](y) `c` |" + "x" * 5000}}
    text = card(EXPORTED, bytes_tokenizer(separator=True), findings)
    assert "a \\# b \\[x\\](y) \\`c\\` \\|xxx" in text
    assert "x" * 1001 not in text
