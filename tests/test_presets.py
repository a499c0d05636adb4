"""Every preset builds, with the exact count its source implies."""

import pytest

from overnight.model.size import describe
from overnight.settings import Settings, preset_names, read_preset

COUNTS = {
    # document 000: 3,623,040 and 39,660,032 without biases
    "tinygpt": 3_623_040,
    "tinygpt-base": 39_660_032,
    # document 001: tied, without biases
    "gpt-wikitext103": 110_316_288,
    # document 002: tied, with biases
    "gpt-24": 537_900_800,
    # document 003: within 0.2 % of 6,738,432 and 7,119,360 (its own formula)
    "nexus-bytes": 6_733_304,
    "nexus-bpe": 7_114_232,
    # document 004: 2·66·256 + 128·256 + 4·(12·256² + 13·256) + 2·256
    "tiny-chars": 3_226_112,
    # nanoGPT's formula with one more row, for unseen characters
    "nanogpt-cpu": 66 * 128 + 64 * 128 + 4 * (12 * 128**2 + 2 * 128) + 128,
    # V·d + L·(2·d² + 2·d·(d/3) + 3·d·768 + 2·d) + d, grouped-query with 2 of 6 heads
    "llama-mini": 8192 * 288 + 6 * (2 * 288**2 + 2 * 288 * 96 + 3 * 288 * 768 + 2 * 288) + 288,
    # 2·V·d + 2·65,536·d + 4·d + L·(12·d² + 2·d) + d
    "fast": 2 * 4096 * 256 + 4 * 256 + 2 * 65_536 * 256 + 2 * (12 * 256**2 + 2 * 256) + 256,
}


@pytest.mark.parametrize("name", preset_names())
def test_exact_count(name: str) -> None:
    row = describe(name)
    assert row["parameters"] == COUNTS[name]
    assert row["memory_bytes"] > 4 * 4 * row["parameters"] * 0.7
    assert row["source"]
    assert row["description"]


def test_no_preset_is_without_a_count() -> None:
    assert set(preset_names()) == set(COUNTS)


@pytest.mark.parametrize(("name", "wanted"), [("nexus-bytes", 6_738_432), ("nexus-bpe", 7_119_360)])
def test_nexus_is_as_large_as_its_document_says(name: str, wanted: int) -> None:
    assert abs(describe(name)["parameters"] / wanted - 1) < 0.002


def test_wikitext_untied() -> None:
    from overnight.model.decoder import count_parameters

    settings = Settings()
    settings.add(read_preset("gpt-wikitext103").layer, "preset")
    settings.add({"model.tied": "false", "model.vocab_size": 32_000}, "flag")
    assert count_parameters(settings.resolve().model)["total"] == 134_892_288
