"""For random runs: no two sentences contradict, and every number in the text is in the JSON."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import made
import numpy as np
import pytest
import simulator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overnight.analysis import overfitting
from overnight.analysis.analyse import analyse
from overnight.analysis.findings import Findings, plain
from overnight.analysis.run import load_run
from overnight.report import headlines, html, markdown, words
from overnight.report.document import Cards, Document, Items, Text, build
from overnight.runfolder import EventKind

CONSTANTS = {95, 2, 80, 1, 1000, 4, 10}  # of the fixed sentences: 95 %, ±2σ, 80 % of the median …
OWN_WORDS = ("because", "do", "expected", "reason", "method", "rule", "estimator", "gap_estimator")
NUMBER = re.compile(r"(?<![\w.])[+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")
HOURS = re.compile(r"(?<![\w.])(?:(\d+) h\b ?)?(?:(\d+) min\b ?)?(?:(\d+(?:\.\d+)?) s\b)?")


def csv_of(run: simulator.Simulated, path: Path, train: bool) -> Path:
    lines = ["step,val_loss" + (",train_loss" if train else "")]
    for s, v in zip(run.steps, run.values, strict=True):
        lines.append(f"{s:.0f},{v:.5f}" + (f",{v - 0.1:.5f}" if train else ""))
    path.write_text("\n".join(lines) + "\n")
    return path


def random_run(tmp: Path, seed: int) -> Findings:
    """A run folder or a plain log, with or without harm, resume, train loss."""
    rng = np.random.default_rng(seed)
    if seed % 2:
        folder = made.run_folder(
            tmp / "run", steps=int(rng.integers(10, 60)) * 10, every=int(rng.choice([10, 20, 50])),
            sigma=float(10 ** rng.uniform(-3, -1)), harm=float(rng.choice([0.0, 0.3])),
            resume_at=100 if rng.random() < 0.5 else None, seed=seed,
            blocks=bool(rng.random() < 0.5),
        )  # fmt: skip
        return load_run(folder).found
    harm = float(rng.choice([0.0, 6.0, 20.0]))
    run = simulator.simulate(rng, float(rng.choice([0.0, 0.3])), harm_sigmas=harm)
    return load_run(csv_of(run, tmp / "log.csv", bool(rng.random() < 0.5))).found


def sentences(document: Document) -> list[str]:
    found = [document.subtitle]
    for section in document.sections:
        for block in section.blocks:
            if isinstance(block, Text):
                found.append(f"{block.lead} {block.text}")
            elif isinstance(block, Items):
                found += block.items
            elif isinstance(block, Cards):
                found += [f"{a} {d}" for _, a, d, _, _ in block.cards]
    return found


def numbers_of(value: object, key: str = "") -> list[float]:
    """Every number of the findings; of strings only those that are not our own sentences."""
    if isinstance(value, bool) or value is None:
        return []
    if isinstance(value, int | float):
        return [float(value)]
    if isinstance(value, str):
        if key in OWN_WORDS:
            return []
        return [float(m.replace(",", "")) for m in NUMBER.findall(value)]
    if isinstance(value, dict):
        return [x for k, v in value.items() for x in numbers_of(v, k)]
    if isinstance(value, list | tuple):
        return [x for v in value for x in numbers_of(v, key)] + [float(len(value))]
    raise TypeError(value)


def is_known(text: str, known: np.ndarray) -> bool:
    value = float(text.replace(",", ""))
    if abs(value) in CONSTANTS:
        return True
    digits = text.replace(",", "").lstrip("+-")
    if "e" in digits:
        return bool(np.any(np.isclose(np.abs(known), abs(value), rtol=0.02)))
    decimals = len(digits.partition(".")[2])
    unit = 0.5000001 * 10.0**-decimals
    near = np.abs(np.abs(known) - abs(value)) <= unit
    percent = np.abs(100 * np.abs(known) - abs(value)) <= unit
    rate = (abs(value) < 0.01) & np.isclose(np.abs(known), abs(value), rtol=0.006)  # three digits
    return bool(np.any(near | percent | rate))


def strip_durations(text: str, known: np.ndarray) -> str:
    """Without `4 h 27 min`, each of which has to be a known number of seconds."""

    def check(match: re.Match[str]) -> str:
        if not match[0].strip():
            return match[0]
        hours, minutes, seconds = (float(g) if g else 0.0 for g in match.groups())
        total = 3600 * hours + 60 * minutes + seconds
        room = 60 if hours else 1 if minutes else 0.051
        assert np.any(np.abs(known - total) <= room), match[0]
        return " "

    return HOURS.sub(check, text)


@pytest.mark.parametrize("seed", range(24))
def test_every_number_is_in_the_json(tmp_path, seed):
    found = random_run(tmp_path, seed)
    known = np.array(numbers_of(plain(found)))
    for sentence in sentences(build(found)):
        for text in NUMBER.findall(strip_durations(sentence, known)):
            assert is_known(text, known), f"{text!r} in {sentence!r}"


def test_the_check_can_fail():
    known = np.array([2.3456, 0.98, 12_000.0])
    assert is_known("2.346", known)
    assert is_known("98", known)
    assert not is_known("2.35612", known)
    assert not is_known("97", known)
    with pytest.raises(AssertionError):
        strip_durations("4 h 27 min", known)


@pytest.mark.parametrize("seed", range(24))
def test_no_two_sentences_contradict(tmp_path, seed):
    found = random_run(tmp_path, seed)
    v = {verdict.id: verdict.verdict for verdict in found.verdicts}
    said = " ".join(a.do for a in found.advice)
    assert not (v["overfitting"] == "yes" and v["still_improving"] == "yes")
    assert not (v["plateau"] == "yes" and v["still_improving"] == "yes")
    assert (v["plateau"] == "cannot_tell") == (v["still_improving"] == "cannot_tell")
    assert not ("Train longer" in said and v["overfitting"] == "yes")
    assert not ("Train longer" in said and "Do not train this longer" in said)
    assert ("Deploy step" in said) == (v["overfitting"] == "yes")
    assert not ("learning rate fall" in said and found.schedule.kind != "constant")
    if v["overfitting"] == "yes":
        assert found.best.step < found.ledger.steps
    if v["overfitting"] == "no" and "train_change" not in found.verdict("overfitting").evidence:
        evidence = found.verdict("overfitting").evidence
        if found.verdict("overfitting").n >= overfitting.FEWEST:  # of fewer the last is the lowest
            assert evidence["z"] <= evidence["critical"]  # "no rise" is not said of a rise
    assert found.best.step in found.best.tied_steps
    assert found.best.pick in found.best.tied_steps


@pytest.mark.parametrize("seed", range(4))
def test_the_views_say_the_same(tmp_path, seed):
    found = random_run(tmp_path, seed)
    document = build(found)
    page = html.render(document, plain(found))
    text = markdown.render(document)
    for verdict in found.verdicts:
        for other, (headline, _) in headlines.HEADLINES[verdict.id].items():
            shown = other == verdict.verdict
            assert (f"<strong>{headline}" in page) == shown, headline
            assert (
                bool(re.search(rf"^\*\*{re.escape(markdown.escape(headline))}", text, re.M))
                == shown
            )


BASE: list[Findings] = []


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_verdicts_have_one_headline_each(data, tmp_path_factory):
    """Findings with every verdict drawn at random: each is worded once, in the words for it."""
    if not BASE:
        BASE.append(load_run(made.run_folder(tmp_path_factory.mktemp("w") / "r")).found)
    found = BASE[0]
    for verdict in found.verdicts:
        verdict.verdict = data.draw(st.sampled_from(sorted(headlines.HEADLINES[verdict.id])))
    said = [headlines.said(v) for v in headlines.in_order(found.verdicts)]
    for verdict in found.verdicts:
        known = [text for text, _ in headlines.HEADLINES[verdict.id].values()]
        own = [text for text in known if any(s.startswith(text) for s in said)]
        assert headlines.headline(verdict) in own
    assert len(said) == len({v.id for v in found.verdicts}) == len(headlines.HEADLINES)
    tones = [headlines.tone(v) for v in headlines.in_order(found.verdicts)]
    assert tones == sorted(tones, key=["bad", "unsure", "good", "open"].index)


def test_every_yes_names_what_its_id_asks(tmp_path):
    """A speed that halves is `throughput: yes`, and said as such."""
    log = load_run(made.run_folder(tmp_path / "r")).log
    log.train["tokens_per_s"][20:] /= 2
    found = analyse(log)
    verdict = found.verdict("throughput")
    assert verdict.verdict == "yes"
    assert headlines.headline(verdict) == "The speed did not hold"
    assert any("machine" in a.do for a in found.advice)
    steady = load_run(tmp_path / "r").found.verdict("throughput")
    assert (steady.verdict, headlines.headline(steady)) == ("no", "The speed did not fall")


def test_every_kind_of_event_has_words() -> None:
    assert set(words.EVENTS) == set(get_args(EventKind))
