"""Sampling: cached decoding against recomputation, streaming, stops, windows."""

import pytest
import torch

from overnight.config import Model
from overnight.errors import UserError
from overnight.generation.sample import (
    Sampling,
    _most_likely,
    choose,
    continue_ids,
    continue_text,
)
from overnight.model.decoder import Decoder

POSITIONS = ["learned", "rope", "alibi", "none"]


def make(position: str = "rope", **other: object) -> Decoder:
    small = {"layers": "SA", "width": 32, "heads": 2, "context": 16, "vocab_size": 30,
             "ssm_head": 16, "ngrams": [2], "ngram_rows": 50}  # fmt: skip
    model = Decoder(Model(position=position, **(small | other))).initialise(1).eval()
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def greedy_by_recomputation(model: Decoder, ids: list[int], count: int) -> list[int]:
    ids = list(ids)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[-count:]


def ids_of(model: Decoder, prompt: list[int], **sampling: object) -> list[int]:
    return [t for (t,) in continue_ids(model, [prompt], Sampling(**sampling), pytest.fail)]


@pytest.mark.parametrize("position", ["rope", "alibi", "none"])
def test_greedy_is_recomputation_far_beyond_the_context(position: str) -> None:
    model = make(position)
    ours = ids_of(model, [1, 2, 3], max_tokens=100, temperature=0)
    assert ours == greedy_by_recomputation(model, [1, 2, 3], 100)
    assert len(set(ours)) > 3


def test_learned_positions_go_on_from_the_last_half() -> None:
    model, said = make("learned"), []
    sampling = Sampling(max_tokens=40, temperature=0)
    ours = [t for (t,) in continue_ids(model, [[1, 2, 3]], sampling, said.append)]
    ids = [1, 2, 3]
    window = list(ids)
    for _ in range(40):  # the rule, spelt out without a cache
        with torch.no_grad():
            token = int(model(torch.tensor([window]))[0, -1].argmax())
        ids.append(token)
        window = ids[-8:] if len(window) == 16 else [*window, token]
    assert ours == ids[3:]
    assert len(said) == 1
    assert "16" in said[0]


def test_a_long_prompt_is_cut_to_the_window() -> None:
    model = make("learned", layers="A", ngrams=[])
    prompt = [i % 30 for i in range(50)]
    sampling = Sampling(max_tokens=1, temperature=0)
    (token,) = next(continue_ids(model, [prompt], sampling))
    assert token == greedy_by_recomputation(model, prompt[-16:], 1)[0]


@pytest.mark.parametrize("position", POSITIONS)
def test_a_row_of_a_batch_reads_as_it_does_alone(position: str) -> None:
    model = make(position)
    prompts = [[1, 2, 3], [7, 8, 9], [4, 4, 4]]
    sampling = Sampling(max_tokens=30, temperature=0.9, top_k=10, seed=5)
    together = list(zip(*continue_ids(model, prompts, sampling, lambda _: None), strict=True))
    for i, prompt in enumerate(prompts):
        alone = Sampling(max_tokens=30, temperature=0.9, top_k=10, seed=5 + i)
        row = [t for (t,) in continue_ids(model, [prompt], alone, lambda _: None)]
        assert list(together[i]) == row


def test_the_model_is_left_as_it_was() -> None:
    model = make().train()
    ids_of(model, [1], max_tokens=2)
    assert model.training


@pytest.mark.parametrize("position", POSITIONS)
def test_training_goes_on_after_a_sample(position: str) -> None:
    """Tables of positions that decoding made first are the ones that training uses."""
    model = make(position, rope_base=77.0, context=15).train()
    ids_of(model, [1] * 15, max_tokens=1)
    model(torch.ones(2, 15, dtype=torch.int64)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_decoding_leaves_the_libraries_as_they_were() -> None:
    enabled = torch.backends.mkldnn.enabled
    model = make("learned")
    with pytest.raises(ValueError, match="positions are learned"):
        model.decode(torch.zeros(1, 17, dtype=torch.int64))
    _, state = model.decode(torch.zeros(1, 16, dtype=torch.int64), last=True)
    with pytest.raises(ValueError, match="positions are learned"):
        model.decode(torch.zeros(1, 1, dtype=torch.int64), state)
    assert torch.backends.mkldnn.enabled == enabled


def draws(logits: torch.Tensor, n: int = 4000, **sampling: object) -> torch.Tensor:
    random = torch.Generator().manual_seed(1)
    settings = Sampling(**sampling)
    seen = torch.tensor([0])
    chosen = [int(choose(logits, seen, settings, random)) for _ in range(n)]
    return torch.bincount(torch.tensor(chosen), minlength=len(logits)) / n


LOGITS = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()


def test_draws_follow_the_distribution() -> None:
    torch.testing.assert_close(draws(LOGITS), LOGITS.exp(), atol=0.03, rtol=0)
    cold = (LOGITS / 0.5).softmax(-1)
    torch.testing.assert_close(draws(LOGITS, temperature=0.5), cold, atol=0.03, rtol=0)


@pytest.mark.parametrize("temperature", [1e-5, 1e-40, 5e-324])
@pytest.mark.parametrize("more", [{}, {"top_k": 3}, {"top_p": 0.9}], ids=str)
def test_a_tiny_temperature_is_the_limit(temperature: float, more: dict) -> None:
    """The most likely token, or one of those that are equally likely; however large the logits."""
    for scale in (1e-3, 1.0, 1e30):
        logits = scale * torch.tensor([0.5, 2.0, -7.0, 1.5])
        assert draws(logits, n=50, temperature=temperature, **more)[1] == 1
    both = draws(torch.tensor([3.0, -1.0, 3.0]), temperature=temperature, **more)
    torch.testing.assert_close(both, torch.tensor([0.5, 0, 0.5]), atol=0.03, rtol=0)


@pytest.mark.parametrize(("at", "chosen"), [(0.0, 1), (0.49, 1), (0.51, 3), (1 - 2**-53, 3)])
def test_no_draw_is_a_token_of_probability_zero(
    at: float, chosen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor(at, dtype=torch.float64))
    logits = torch.tensor([0, 0.5, 0, 0.5, 0]).log()
    assert int(choose(logits, [0], Sampling(), torch.Generator())) == chosen


def test_a_model_that_is_no_longer_finite_is_said_in_a_line() -> None:
    with pytest.raises(UserError, match="finite"):
        choose(torch.tensor([1.0, torch.nan]), [0], Sampling(), torch.Generator())


def test_top_k_and_top_p_cut_the_tail() -> None:
    two = torch.tensor([0.625, 0.375, 0, 0])
    torch.testing.assert_close(draws(LOGITS, top_k=2), two, atol=0.03, rtol=0)
    torch.testing.assert_close(draws(LOGITS, top_p=0.7), two, atol=0.03, rtol=0)
    assert draws(LOGITS, n=50, top_p=1e-6)[0] == 1  # the most likely one always stays


@pytest.mark.parametrize("top_p", [1e-6, 0.3, 0.9, 0.999, 1 - 1e-7])
def test_top_p_of_a_large_vocabulary_is_that_of_transformers(top_p: float) -> None:
    warper = pytest.importorskip("transformers").TopPLogitsWarper(top_p)
    logits = 2 * torch.randn(3000, generator=torch.Generator().manual_seed(4))
    theirs = warper(torch.zeros(1, 1, dtype=torch.long), logits[None].clone())[0].isfinite()
    ours = _most_likely(logits.softmax(-1), top_p) > 0
    assert int((ours != theirs).sum()) <= (2 if top_p > 0.9999 else 0)  # float32 sums end there


def test_repetition_penalty_is_that_of_transformers() -> None:
    logits_processor = pytest.importorskip("transformers").RepetitionPenaltyLogitsProcessor
    logits = torch.tensor([2.0, -1.0, 1.9, 0.5])
    seen = torch.tensor([0, 1, 0])
    theirs = logits_processor(1.3)(seen[None], logits[None].clone())[0]
    settings = Sampling(repetition_penalty=1.3, temperature=0)
    assert int(choose(logits, seen, settings, torch.Generator())) == int(theirs.argmax()) == 2


class Letters:
    """A stand-in tokenizer: id i is the i-th letter, id 0 ends a document."""

    separator = 0
    document_start = (0,)

    def encode(self, text: str) -> list[int]:
        return [ord(c) - 96 for c in text]

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(i + 96) for i in ids)


class Stream:
    def __init__(self, tokenizer: Letters, before: list[int]) -> None:
        self.tokenizer = tokenizer

    def push(self, token: int) -> str:
        return self.tokenizer.decode([token])

    def flush(self) -> str:
        return "!"  # what was not settled


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        ((), "abcabcabca!"),
        (("ca",), "ab"),
        (("bcab", "x"), "a"),
        (("cc",), "abcabcabca!"),
        (("!",), "abcabcabca"),
    ],
)
def test_stop_strings(
    stop: tuple[str, ...], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from overnight.generation import sample

    monkeypatch.setattr(sample, "Stream", Stream)
    monkeypatch.setattr(sample, "continue_ids", lambda *_: ((1 + i % 3,) for i in range(10)))
    pieces = list(continue_text(make(), Letters(), "b", Sampling(max_tokens=10, stop=stop)))
    assert "".join(pieces) == expected
    if not stop:
        assert len(pieces) == 11  # streamed


def test_the_end_of_a_document_ends_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    from overnight.generation import sample

    monkeypatch.setattr(sample, "Stream", Stream)
    monkeypatch.setattr(sample, "continue_ids", lambda *_: ((i,) for i in (1, 2, 0, 3)))
    assert "".join(continue_text(make(), Letters(), "b", Sampling())) == "ab!"


def test_without_a_prompt_a_document_begins_or_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from overnight.generation import sample

    begun = []
    monkeypatch.setattr(sample, "Stream", Stream)
    monkeypatch.setattr(sample, "continue_ids", lambda _, ids, *__: begun.append(ids) or iter(()))
    tokenizer = Letters()
    "".join(continue_text(make(), tokenizer, "", Sampling()))
    tokenizer.document_start = ()
    tokenizer.encode = lambda text: [7] if text == "\n" else []
    "".join(continue_text(make(), tokenizer, "", Sampling()))
    tokenizer.encode = lambda _: []
    "".join(continue_text(make(), tokenizer, "", Sampling()))
    assert begun == [[(0,)], [[7]], [[0]]]


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}, {"max_tokens": 0},
     {"temperature": float("nan")}, {"repetition_penalty": 0.0}],
    ids=str,
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(wrong: dict) -> None:
    with pytest.raises(UserError):
        Sampling(**wrong).check()
