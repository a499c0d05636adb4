from __future__ import annotations

import lzma
import math
from collections import Counter

import pytest

from overnight.text.progress import Progress
from overnight.text.yardsticks import ngram_nats, yardsticks

# interpolated 1–7-gram byte models on tinyshakespeare 90/10, measured independently (nats)
PUBLISHED = [3.347, 2.486, 2.049, 1.774, 1.669, 1.698, 1.779]


def test_shakespeare_gives_the_published_figures(shakespeare):
    text = shakespeare.read_bytes()
    cut = int(0.9 * len(text))
    assert ngram_nats(text[:cut], text[cut:]) == pytest.approx(PUBLISHED, abs=0.002)


def _brute_force(train: bytes, val: bytes, order: int) -> float:
    """Witten–Bell straight from its formula, with dictionaries."""
    counts = [
        Counter(train[i : i + n] for i in range(len(train) - n + 1)) for n in range(order + 1)
    ]
    text = b"\n" * (order - 1) + val

    def p(byte: bytes, context: bytes, n: int) -> float:
        lower = 1 / 256 if n == 1 else p(byte, context[1:], n - 1)
        following = [counts[n][context + bytes([b])] for b in range(256)]
        kinds, seen = sum(c > 0 for c in following), sum(following)
        if not seen:
            return lower
        return (counts[n][context + byte] + kinds * lower) / (seen + kinds)

    nats = 0.0
    for i in range(order - 1, len(text)):
        nats -= math.log(p(text[i : i + 1], text[i - order + 1 : i], order))
    return nats / len(val)


def test_ngrams_equal_brute_force():
    train = b"the cat sat on the mat; the rat sat on that cat\n\xc3\xa9t\xc3\xa9 \xff\xfe" * 2
    val = b"the bat \xc3\xa8 sat on the rat\xff"
    fast = ngram_nats(train, val, 4)
    for order in (1, 2, 3, 4):
        assert fast[order - 1] == pytest.approx(_brute_force(train, val, order), rel=1e-3)


def test_the_table():
    train, val = b"to be or not to be, " * 500, b"that is the question " * 50
    table = yardsticks(train, val, 65, len(val))
    rows = {row["name"]: row for row in table["yardsticks"]}
    assert list(rows) == ["ln V", "unigram", "bigram", "trigram", "4-gram", "5-gram", "6-gram",
                          "7-gram", "xz", "xz after training text"]  # fmt: skip
    assert table["bytes"] == len(val)
    assert table["train_bytes"] == len(train)
    assert rows["ln V"]["bpb"] == pytest.approx(math.log2(65))
    size = len(lzma.compress(val, preset=9 | lzma.PRESET_EXTREME))
    assert rows["xz"]["bpb"] == pytest.approx(8 * size / len(val))
    for row in rows.values():
        assert row["nats_per_byte"] == pytest.approx(row["bpb"] * math.log(2))
        assert row["how"]


def test_how_far_xz_is_and_that_pieces_change_nothing(monkeypatch):
    monkeypatch.setattr("overnight.text.yardsticks.PIECE", 1000)
    monkeypatch.setattr(Progress, "EVERY", 0.0)
    train, val, said = b"".join(b"%d " % i for i in range(9000)), b"%d " * 1500, []
    rows = {r["name"]: r for r in yardsticks(train, val, 65, 9, say=said.append)["yardsticks"]}
    size = len(lzma.compress(val, preset=9 | lzma.PRESET_EXTREME))
    assert rows["xz"]["bpb"] == pytest.approx(8 * size / len(val))
    assert len(said) > 2 * len(train) // 1000
    assert "measuring: 0 of 0 MB, 0 s left" in said[-1]
