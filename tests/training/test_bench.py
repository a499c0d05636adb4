"""`overnight bench`: figures that fit together, words that follow from them."""

import functools
import json

import pytest
import torch

from overnight import cli
from overnight.config import Model
from overnight.model.decoder import Decoder
from overnight.model.size import flops_per_token
from overnight.training import bench
from overnight.training.bench import Machine, Profile, limit


def test_one_preset_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "--preset", "nanogpt-cpu", "--seconds", "0.1", "--threads", "1", "--json"]
    assert cli.run([*words, "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["machine"]["device"] == "cpu"
    assert found["machine"]["flops"]["float32"] > 1e9
    assert found["machine"]["bandwidth"] > 1e8
    (row,) = found["presets"]
    assert row["preset"] == "nanogpt-cpu"
    assert 0 < row["share"] < 1.2
    assert 0 < row["products"] < 1
    assert row["limit"]
    assert not row["skipped"]
    assert "matrix products" in err


DTYPES = ("float32", "bfloat16")


def machine(**other: float) -> Machine:
    flops = dict(zip(DTYPES, (1e11, 4e11), strict=True))
    figures = {"flops": flops, "bandwidth": 1e10, "step_seconds": 2e-6} | other
    return Machine(device="cpu", name="a processor", threads=1, **figures)


@pytest.mark.parametrize(("rate", "side"), [(1e9, 512), (1e11, 2048)])
def test_a_product_is_as_large_as_its_time_allows(
    rate: float, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bfloat16 that is emulated, and float32 of the same processor; a GPU's library is loaded by
    the first product."""
    sides: list[int] = []

    def timed(product: functools.partial[torch.Tensor], device: torch.device) -> float:
        sides.append(len(product.args[0]))
        return 2 * sides[-1] ** 3 / rate + (5.0 if len(sides) == 1 else 0.0)

    monkeypatch.setattr(bench, "_timed", timed)
    assert bench.product_rate("bfloat16", torch.device("cpu"), 2048, 3) == pytest.approx(rate)
    assert sides[-3:] == [side] * 3
    assert max(sides) == side


def test_the_table_on_stdout(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "measure_machine", lambda *_: machine())
    monkeypatch.setattr(bench, "memory", lambda _: (1000, 1000))
    assert cli.run(["bench", "--preset", "nanogpt-cpu", "--preset", "gpt-24"]) == 0
    out = capsys.readouterr().out
    assert "a processor" in out
    assert out.count("skipped: needs") == 2


def test_a_preset_that_takes_too_long_is_named() -> None:
    slow = machine(flops={"float32": 1e6, "bfloat16": 1e6})
    row, _ = bench.measure(["nanogpt-cpu", "fast"], slow, 0.1)
    assert row.tokens_per_second is None
    assert "--preset nanogpt-cpu" in row.skipped


def test_tables_take_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most weights of `fast` are looked up, not multiplied: on this machine an update is expected
    within the time that one may take, and would not be if they counted."""

    def tried(*given: object) -> None:
        raise MemoryError

    monkeypatch.setattr(bench, "choose_form", tried)
    multiplied = 4096 * 256 + 2 * (12 * 256**2 + 2 * 256) + 256  # head, layers, norm
    rate = 4096 * 6 * multiplied / (bench.SMALL * 0.9 * bench.PATIENCE)
    row, _ = bench.measure(["fast", "gpt-24"], machine(flops=dict.fromkeys(DTYPES, rate)), 1.0)
    assert row.skipped == "out of memory"


@pytest.mark.parametrize(
    ("found", "share", "words"),
    [
        (Profile(8.0, 2.0, 100), 0.64, "matrix products, at 80% of the ceiling"),
        (Profile(8.0, 2.0, 100), 0.16, "too small for the machine: 20%"),
        (Profile(2.0, 8.0, 3_000_000), 0.1, "overhead: 3,000,000 small operations"),
        (Profile(2.0, 8.0, 100), 0.1, "memory bandwidth: 80%"),
    ],
)
def test_what_limits(found: Profile, share: float, words: str) -> None:
    assert words in limit(found, share, 2e-6)


@pytest.mark.parametrize("tied", [True, False])
def test_operations_are_those_of_the_paper(tied: bool) -> None:
    """A table of embeddings that is only looked up in computes nothing."""
    settings = Model(layers="AA", width=32, heads=4, context=24, vocab_size=50, tied=tied,
                     mlp="gelu", ngrams=[2], ngram_rows=99)  # fmt: skip
    with torch.device("meta"):
        model = Decoder(settings)
    assert flops_per_token(model) == 6 * (2 * 12 * 32 * 32 + 50 * 32) + 12 * 2 * 32 * 24


@pytest.mark.parametrize("wrong", [["--seconds", "0"], ["--threads", "-1"], ["--preset", "nano"]])
def test_what_makes_no_sense_is_refused(
    wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["bench", *wrong]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
