"""Units against the figures of documents 001 and 003."""

import math

import pytest

from overnight.ledger import Ledger, bits_per_byte, perplexity


def test_document_001() -> None:
    ledger = Ledger(batch=32, micro_batch=4, context=1024, train_tokens=116_944_985)
    assert ledger.accumulation == 8
    assert ledger.tokens(3000) == 98_304_000
    assert ledger.passes(3000) == pytest.approx(0.8406, abs=1e-4)
    assert ledger.blocks_per_pass == 114_204
    assert ledger.steps_per_pass == 3_569
    assert ledger.steps_per_pass - 3000 == 569
    assert ledger.micro_steps(3000) == 24_000


def test_document_001_batches() -> None:
    for accumulation, tokens in ((64, 262_144), (128, 524_288), (256, 1_048_576)):
        ledger = Ledger(batch=4 * accumulation, micro_batch=4, context=1024, train_tokens=10**9)
        assert ledger.tokens_per_step == tokens


def test_document_003_bits_per_byte() -> None:
    """Byte run 2.6312 nats a byte, BPE run 6.08 nats a token at 2.32 bytes a token."""
    assert bits_per_byte(2.6312, 1) == pytest.approx(3.80, abs=0.005)
    assert bits_per_byte(6.08, 1) / 2.32 == pytest.approx(3.78, abs=0.005)


def test_lengths_are_the_fewest_steps_that_suffice() -> None:
    ledger = Ledger(batch=4, micro_batch=2, context=10, train_tokens=1001)
    assert ledger.steps_for_tokens(40) == 1
    assert ledger.steps_for_tokens(41) == 2
    assert ledger.steps_for_passes(1) == 26
    assert ledger.steps_for_tokens(0) == 1


def test_perplexity_does_not_overflow() -> None:
    assert perplexity(11.1484) == pytest.approx(69_453, rel=1e-4)
    assert perplexity(1e4) == math.inf
