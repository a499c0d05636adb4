"""The size of a model by the length of its run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from overnight.config import Config
from overnight.settings import PRESETS, Settings, read_preset
from overnight.text.prepare import Prepared, prepare
from overnight.training import sizing
from overnight.training.sizing import choose_size

CPU = torch.device("cpu")


@pytest.fixture
def prepared(text: str) -> Prepared:
    settings = Settings()
    settings.add({"data.text": [text], "tokenizer.kind": "chars"}, "test")
    config = settings.resolve()
    return prepare(config.data, config.tokenizer)


@pytest.fixture
def fresh(prepared: Prepared) -> Prepared:
    """The same with a text that no run gets to the end of."""
    return replace(prepared, train=np.broadcast_to(np.uint16(0), 10**12))


def sized(prepared: Prepared, **given: Any) -> Settings:
    return sized_in_minutes(prepared, **given)[0]


def sized_in_minutes(prepared: Prepared, **given: Any) -> tuple[Settings, float]:
    settings = Settings()
    settings.add_preset(read_preset("fast"))
    settings.add({"tokenizer.kind": "chars", "train.dtype": "float32"} | given, "command line")
    settings.choose("model.vocab_size", prepared.tokenizer.vocab_size, "tokenizer")
    return settings, choose_size(settings, prepared, CPU)


def weights(settings: Settings) -> int:
    layers, width = settings.get("model.layers"), settings.get("model.width")
    return sizing.Rung(layers, width, 1).weights


def test_every_weight_gets_its_tokens(fresh: Prepared) -> None:
    sizes = []
    for tokens in (10**5, 10**6, 10**7, 10**8, 10**9):
        settings = sized(fresh, **{"length.tokens": tokens})
        sizes.append(weights(settings))
        assert sizes[-1] == sizing.LADDER[0].weights or (
            tokens >= sizing.TOKENS_PER_WEIGHT * sizes[-1]
        )
    assert sizes == sorted(sizes)
    assert len(set(sizes)) >= 4
    assert tuple(sorted(sizing.LADDER, key=lambda rung: rung.weights)) == sizing.LADDER


def test_minutes_count_by_the_rate_of_the_machine(
    fresh: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    for flops in (1e10, 1e12, 1e14):  # per second
        monkeypatch.setattr(
            sizing, "_token_seconds", lambda _, rung, *__, flops=flops: 6 * rung.weights / flops
        )
        sizes.append(weights(sized(fresh, **{"length.minutes": 3})))
    assert sizes[0] < sizes[1] < sizes[2]


def test_what_the_user_gives_stays(fresh: Prepared) -> None:
    given = {"length.tokens": 10**8, "model.width": 130, "train.batch": 3, "model.ngrams": []}
    settings = sized(fresh, **given)
    assert {name: settings.get(name) for name in given} == given
    assert settings.get("model.heads") == 2
    assert len(settings.get("model.layers")) > 1


def test_a_given_size_stays(prepared: Prepared) -> None:
    settings = sized(prepared, **{"model.size": "given", "length.tokens": 10**9})
    layer = read_preset("fast").layer
    for name in ("model.layers", "model.width", "model.heads", "model.ngrams", "train.batch"):
        assert settings.get(name) == layer[name]


def test_a_text_seen_again_and_again_gets_state_spaces_and_no_long_histories(
    prepared: Prepared,
) -> None:
    once = len(prepared.train)
    assert sized(prepared, **{"length.tokens": once}).get("model.ngrams") == [2, 3, 4]
    assert sized(prepared, **{"length.tokens": once}).get("model.layers") == "A"
    again = sized(prepared, **{"length.tokens": 4 * once})
    assert again.get("model.ngrams") == [2]
    assert again.get("model.layers") == "SSA"
    assert again.get("model.ngram_rows") == sizing.ROWS_RECURRING < 65536
    # attention bears more passes of pieces of words, their tables fewer
    for passes, layers, tables in ((1, "A", [2, 3]), (3, "A", [2]), (5, "SSA", [2])):
        words = {"tokenizer.kind": "bpe", "length.tokens": passes * once}
        assert sized(prepared, **words).get("model.ngrams") == tables
        assert sized(prepared, **words).get("model.layers") == layers


def test_sizes_are_weighed_and_timed_with_what_the_user_gives(
    fresh: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = {"length.tokens": 10**7}
    wide = sized(fresh, **tokens, **{"model.width": 512})
    assert wide.get("model.layers") == "A"  # 3.1M weights: a second layer would want 16M tokens
    assert len(sized(fresh, **tokens).get("model.layers")) == 4
    timed = []

    def rate(config: Config, *_: object) -> float:
        timed.append((config.model.width, config.model.heads, config.model.kv_heads))
        return 1e-3

    monkeypatch.setattr(sizing, "_timed", rate)
    heads = {"model.width": 512, "model.heads": 16, "model.kv_heads": 4}
    sized(fresh, **heads, **{"length.minutes": 1.0})
    assert set(timed) == {(512, 16, 4)}


def test_a_width_that_no_state_space_fills_has_none(prepared: Prepared) -> None:
    assert "S" in sized(prepared, **{"length.tokens": 10**6}).get("model.layers")
    narrow = sized(prepared, **{"length.tokens": 10**6, "model.width": 130})
    assert "S" not in narrow.get("model.layers")


def test_a_size_that_does_not_fit_is_not_chosen(
    fresh: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = weights(sized(fresh, **{"length.tokens": 10**9}))
    monkeypatch.setattr(sizing.memory, "memory", lambda device: (2 * 10**8, 10**11))
    small = weights(sized(fresh, **{"length.tokens": 10**9}))
    assert 0 < small < large


@pytest.mark.parametrize(
    ("tokenizer", "held_out", "given", "context"),
    [
        ("chars", 10**6, {}, 256),
        ("bytes", 10**6, {}, 256),
        ("bpe", 10**6, {}, 128),
        ("chars", 8000, {}, 128),  # fewer than 32 blocks of 256
        ("chars", 10**6, {"model.context": 64}, 64),
        ("chars", 10**6, {"model.context": 512, "train.batch": 3}, 512),
    ],
)
def test_letters_get_a_longer_context_in_updates_of_as_many_tokens(
    fresh: Prepared, tokenizer: str, held_out: int, given: dict[str, Any], context: int
) -> None:
    judged = replace(fresh, val=np.broadcast_to(np.uint16(0), held_out))
    for tokens, update in ((10**6, 2048), (10**7, 4096)):
        length = {"tokenizer.kind": tokenizer, "length.tokens": tokens}
        settings = sized(judged, **length, **given)
        assert settings.get("model.context") == context
        assert settings.get("train.batch") == given.get("train.batch", update // context)


def test_a_length_in_steps_counts_the_tokens_of_an_update(fresh: Prepared) -> None:
    update = {"train.batch": 4, "model.context": 256}
    by_steps = sized(fresh, **update, **{"length.steps": 10**7 // 1024})
    by_tokens = sized(fresh, **update, **{"length.tokens": 10**7})
    assert weights(by_steps) == weights(by_tokens) == sizing.LADDER[4].weights
    longer = {"model.context": 8192, "length.steps": 10**7 // 8192}  # than an update has tokens
    assert weights(sized(fresh, **longer)) == weights(by_tokens)


@pytest.mark.parametrize(("micro", "batch"), [(5, 30), (7, 28), (100, 100), (-1, 32), (0, 32)])
def test_an_update_is_whole_micro_batches(fresh: Prepared, micro: int, batch: int) -> None:
    given = {"length.tokens": 10**7, "model.context": 128, "train.micro_batch": micro}
    assert sized(fresh, **given).get("train.batch") == batch


@pytest.mark.parametrize("given", [{}, {"model.context": 512}, {"train.batch": 3}])
def test_sizes_are_weighed_in_the_context_and_batch_they_get(
    given: dict[str, int], fresh: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = replace(fresh, val=np.broadcast_to(np.uint16(0), 10**6))
    weighed, real = [], sizing.memory.needed

    def needed(config: Config, micro: int) -> int:
        weighed.append((config.model.width, config.model.context, config.train.batch))
        return real(config, micro)

    monkeypatch.setattr(sizing.memory, "needed", needed)
    settings = sized(judged, **given, **{"length.tokens": 10**7})
    chosen = tuple(map(settings.get, ("model.width", "model.context", "train.batch")))
    assert chosen in weighed
    batch, context = given.get("train.batch"), given.get("model.context", 256)
    assert {(b, c) for w, c, b in weighed if w == 256} == {(batch or 4096 // context, context)}


def test_a_settings_file_is_the_users_whatever_its_name(prepared: Prepared) -> None:
    settings = Settings()
    settings.add_preset(read_preset("fast"))
    settings.add({"tokenizer.kind": "chars", "train.dtype": "float32"}, "command line")
    settings.add({"model.width": 100, "length.tokens": 10**8}, "presets/mine.toml")
    settings.choose("model.vocab_size", prepared.tokenizer.vocab_size, "tokenizer")
    choose_size(settings, prepared, CPU)
    assert settings.get("model.width") == 100


def test_a_copy_of_a_preset_sizes_as_that_does(fresh: Prepared, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text((PRESETS / "fast.toml").read_text())
    found = []
    for name in ("fast", str(mine)):
        settings = Settings()
        settings.add_preset(read_preset(name))
        settings.add({"length.tokens": 10**8, "tokenizer.kind": "chars"}, "command line")
        settings.choose("model.vocab_size", 60, "tokenizer")
        choose_size(settings, fresh, CPU)
        found.append(settings.values)
    assert found[0] == found[1]
    assert found[0]["model.width"] > 256


def test_a_size_is_timed_once(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sizing, "LADDER", sizing.LADDER[:2])
    monkeypatch.setattr(sizing, "RECURRING", sizing.RECURRING[:1])
    real, timed = sizing._timed, []

    def counted(*given: Any) -> float:
        timed.append(real(*given))
        return timed[-1]

    monkeypatch.setattr(sizing, "_timed", counted)
    vocabulary = {"model.vocab_size": prepared.tokenizer.vocab_size, "train.threads": 1}
    first = sized(prepared, **vocabulary, **{"length.minutes": 3})
    assert len(timed) == 3
    assert 0 < timed[0] < timed[1]
    assert timed[0] < timed[2]  # for a text that recurs
    again = sized(prepared, **vocabulary, **{"length.minutes": 3})
    assert len(timed) == 3
    assert again.values == first.values
    monkeypatch.setattr(sizing, "device_name", lambda device: "another GPU")
    sized(prepared, **vocabulary, **{"length.minutes": 3})
    assert len(timed) == 6


def test_minutes_are_those_that_the_text_bears(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour that would be 60 passes is three minutes; what a length in steps takes is unknown."""
    second = 60 / len(prepared.train)
    monkeypatch.setattr(sizing, "_token_seconds", lambda *_: second)
    for name, given, minutes in [("minutes", 60.0, 3), ("minutes", 2.0, 2), ("steps", 60, 0)]:
        _, found = sized_in_minutes(prepared, **{f"length.{name}": given})
        assert found == pytest.approx(minutes)


@pytest.mark.parametrize(("slowness", "expected"), [(1.5, True), (20.0, False)])
def test_state_spaces_only_where_they_read_the_text_once(
    slowness: float, expected: bool, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attention has time for two passes; state spaces take `slowness` times as long a token."""
    second = 60 / (2 * len(prepared.train))

    def rate(_: object, rung: sizing.Rung, *rest: object) -> float:
        return second * (slowness if "S" in rung.layers else 1.0)

    monkeypatch.setattr(sizing, "_token_seconds", rate)
    settings = sized(prepared, **{"length.minutes": 1.0})
    assert ("S" in settings.get("model.layers")) is expected
    assert settings.get("model.ngrams") == ([2] if expected else [2, 3, 4])


@pytest.mark.parametrize(("enough", "updates"), [(1e9, 4), (0.0, 1)])
def test_one_update_tells_enough_where_it_is_long(
    enough: float, updates: int, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    class Counting(sizing.Updater):
        def update(self, step: int, *given: Any) -> Any:
            made.append(step)
            return super().update(step, *given)

    monkeypatch.setattr(sizing, "Updater", Counting)
    monkeypatch.setattr(sizing, "LONG", enough)
    settings = Settings()
    tiny = {"model.layers": "A", "model.width": 16, "model.heads": 2, "model.context": 8}
    settings.add({**tiny, "train.batch": 2, "train.micro_batch": 2, "train.dtype": "float32"}, "")
    settings.choose("model.vocab_size", prepared.tokenizer.vocab_size, "tokenizer")
    assert sizing._timed(settings.resolve(), prepared, CPU) > 0
    assert len(made) == updates


def test_how_often_a_text_is_read_at_most(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attention learns pieces of words by heart sooner than letters, and than state spaces do."""
    monkeypatch.setattr(sizing, "_token_seconds", lambda *_: 1e-3)
    for kind, layers, most in (
        ("chars", "AA", 3), ("bytes", "AA", 3), ("bpe", "AA", 2), ("bpe", "SSA", 3),
    ):  # fmt: skip
        given = {"tokenizer.kind": kind, "model.layers": layers, "length.minutes": 600.0}
        settings, minutes = sized_in_minutes(prepared, **given)
        assert sizing.most_passes(settings.resolve()) == most
        assert 60 * minutes / 1e-3 == pytest.approx(most * len(prepared.train))


def test_a_model_is_no_larger_than_its_passes_over_the_text_feed(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time for 3.9 passes would feed four layers of 384; two passes feed four of 256."""
    monkeypatch.setattr(sizing, "_token_seconds", lambda *_: 1e-3)
    text = replace(prepared, train=np.broadcast_to(np.uint16(0), 5_000_000))
    given = {"tokenizer.kind": "bpe", "length.minutes": 3.9 * 5_000_000 * 1e-3 / 60}
    settings = sized(text, **given)
    assert (settings.get("model.layers"), settings.get("model.width")) == ("AAAA", 256)
