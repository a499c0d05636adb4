"""Every preset, scaled down from the command line alone, from real text to an exported model."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch

import overnight
from overnight import cli
from overnight.errors import UserError
from overnight.generation.sample import Sampling, continue_ids
from overnight.model.decoder import Decoder
from overnight.runfolder import Eval, read_log
from overnight.settings import preset_names
from overnight.training import update

pytestmark = pytest.mark.slow

SHRINK = {
    "--max-steps": "200", "--eval-every": "50", "--eval.tokens": "8192", "--threads": "1",
    "--train.batch": "8", "--train.micro_batch": "8", "--model.context": "64",
    "--optimizer.lr": "3e-3", "--schedule.warmup": "10", "--sample.tokens": "16",
}  # fmt: skip
SMALLER = {
    "tinygpt": {"--tokenizer.vocab_size": "1000", "--model.layers": "AA"},
    "tinygpt-base": {"--tokenizer.vocab_size": "1000", "--model.layers": "AA",
                     "--model.width": "64", "--model.feed_forward": "256"},
    "gpt-wikitext103": {"--tokenizer.vocab_size": "1000", "--model.layers": "AAA",
                        "--model.width": "96", "--model.heads": "6"},
    "gpt-24": {"--tokenizer.vocab_size": "1000", "--model.layers": "AAA", "--model.width": "80",
               "--model.heads": "4"},
    "nexus-bytes": {"--model.width": "64", "--model.feed_forward": "128", "--model.ssm_head": "32"},
    "nexus-bpe": {"--tokenizer.vocab_size": "500", "--model.width": "64",
                  "--model.feed_forward": "128", "--model.ssm_head": "32"},
    "tiny-chars": {"--model.layers": "AA", "--model.width": "64"},
    "nanogpt-cpu": {"--model.width": "64"},
    "llama-mini": {"--tokenizer.vocab_size": "500", "--model.layers": "AA",
                   "--model.width": "96", "--model.feed_forward": "128"},
    "fast": {"--tokenizer.vocab_size": "500", "--model.layers": "AA", "--model.width": "64",
             "--model.ngram_rows": "1000"},
}  # fmt: skip
NO_COUNTERPART = {"fast"}


@pytest.fixture(scope="module", params=preset_names())
def trained(
    request: pytest.FixtureRequest, shakespeare: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """A run of the preset: stopped on the way, resumed, finished, reported."""
    name: str = request.param
    out = tmp_path_factory.mktemp(name) / "run"
    words = ["train", str(shakespeare), "--preset", name, "--out", str(out)]
    for flag, value in (SHRINK | SMALLER[name]).items():
        words += [flag, value]
    original = update.Updater.update

    def stopped(self: update.Updater, number: int, steps: int, *more: object) -> update.Update:
        if number == 77 and steps == 200:
            signal.raise_signal(signal.SIGINT)
        return original(self, number, steps, *more)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(update.Updater, "update", stopped)
        assert cli.run(words) == 130
    assert cli.run(["train", "--resume", str(out)]) == 0
    return name, out


@pytest.fixture
def model(trained: tuple[str, Path]) -> Decoder:
    return overnight.load_model(trained[1], "last")[0]


def test_val_falls_and_the_report_is_there(trained: tuple[str, Path]) -> None:
    name, out = trained
    losses = [row.val_loss for row in read_log(out / "log.jsonl").of(Eval)]
    assert len(losses) == 5
    assert losses[0] - losses[-1] > 0.5, name
    assert losses[-1] == min(losses)
    assert (out / "report" / "report.html").stat().st_size > 10_000


def test_generates(trained: tuple[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    words = ["generate", str(trained[1]), "--prompt", "The king", "--max-tokens", "40", "--json"]
    assert cli.run(words) == 0
    (sample,) = json.loads(capfd.readouterr().out)
    assert sample["text"]


def test_exports_or_says_why_not(
    trained: tuple[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name, out = trained
    words = ["export", str(out), "--to", "hf", "--out", str(tmp_path / "hf")]
    code = cli.run(words)
    assert code == (2 if name in NO_COUNTERPART else 0), capfd.readouterr().err
    if code:
        return
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()
    ours, tokenizer = overnight.load_model(out, "best")
    ids = torch.tensor([tokenizer.encode("Now is the winter of our discontent")])
    with torch.no_grad():
        a, b = ours(ids), theirs(ids).logits
    assert float((a - b).abs().max()) <= 1e-5 * max(1.0, float(b.abs().max()))


def test_cached_decoding_equals_recomputation(trained: tuple[str, Path], model: Decoder) -> None:
    """Logits to 1e-4 and the same greedy text: over 300 tokens where the position allows it, over
    the whole window elsewhere."""
    length = model.config.context if model.positions is not None else 300
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(0, model.config.vocab_size, (1, length), generator=random)
    with torch.no_grad():
        whole = model(ids)
        logits, state = model.decode(ids[:, :5])
        parts = [logits]
        for i in range(5, length):
            logits, state = model.decode(ids[:, i : i + 1], state)
            parts.append(logits)
    assert float((torch.cat(parts, 1) - whole).abs().max()) < 1e-4
    prompt, count = ids[0, :5].tolist(), length - 5
    greedy = Sampling(max_tokens=count, temperature=0)
    cached = [token for (token,) in continue_ids(model, [prompt], greedy)]
    text = list(prompt)
    with torch.no_grad():
        for _ in range(count):
            text.append(int(model(torch.tensor([text]))[0, -1].argmax()))
    assert cached == text[5:]


def test_causal_exactly(trained: tuple[str, Path], model: Decoder) -> None:
    random = torch.Generator().manual_seed(1)
    ids = torch.randint(0, model.config.vocab_size, (2, 64), generator=random)
    for t in (1, 30, 63):
        other = ids.clone()
        other[:, t] = (other[:, t] + 1) % model.config.vocab_size
        with torch.no_grad():
            a, b = model(ids), model(other)
        assert torch.equal(a[:, :t], b[:, :t])
        assert not torch.equal(a[:, t], b[:, t])


def test_a_damaged_checkpoint_is_refused(trained: tuple[str, Path]) -> None:
    """Last of this module: it breaks the run."""
    path = trained[1] / "checkpoints" / "step-00000200" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match="damaged"):
        overnight.load_model(trained[1], 200)
