"""Text in, token files out: gather, split, make the tokenizer, encode, measure; cached.

The cache key is the SHA-256 of the text's bytes and of the settings, so a second run on the same
text only hashes it.
"""

from __future__ import annotations

import hashlib
import math
import re
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from .. import __version__, config
from ..cache import Cache, keep, recall
from ..errors import Say, UserError
from ..wording import counted
from . import corpus, encode, existing, makers, parts, sources
from .progress import Progress
from .tokenizers import Tokenizer
from .yardsticks import MAX_TRAIN_BYTES, MAX_VAL_BYTES, yardsticks

FORMAT = 1  # of the files of an entry; a new number makes every older entry a miss
LONG_TRAINING = 8 * 2**20  # merging, which tells nothing on its way, takes seconds from here on
TRAINER_BYTES = 64 * 2**20  # text that a tokenizer is trained on at most

Choose = Callable[[str, Any, str], None]


class Prepared(msgspec.Struct):
    """What training needs. `train` and `val` are one-dimensional, uint16 or uint32; `facts` is
    the `data` field of a start row (docs/log-format.md)."""

    train: NDArray[Any]
    val: NDArray[Any]
    tokenizer: Tokenizer
    facts: dict[str, Any]
    yardsticks: Path
    folder: Path


class _Meta(msgspec.Struct, forbid_unknown_fields=True):
    """The sidecar of the token files."""

    format: int
    dtype: str
    tokenizer: str  # SHA-256 of tokenizer.json
    facts: dict[str, Any]
    sizes: dict[str, int]  # file → bytes
    checksums: dict[str, int] | None = None  # file → CRC-32; older entries have none


class _Remembered(msgspec.Struct):
    """What a text and settings led to."""

    fingerprint: str
    choices: list[tuple[str, Any, str]]


TOLD_SIZE = 2_000_000  # bytes, of which yardsticks take seconds
TOLD_SECONDS = 2.0  # whatever takes longer says so
FINGERPRINT = re.compile("[0-9a-f]{64}")
FILES = ("train.bin", "val.bin", "tokenizer.json", "yardsticks.json")


def prepare(
    data: config.Data,
    tokenizer: config.Tokenizer,
    *,
    fixed: Tokenizer | None = None,
    fingerprint: str = "",
    choose: Choose | None = None,
    say: Say = lambda _: None,
    workers: int = 0,
) -> Prepared:
    """The token files of the text that `data` names.

    `fixed`: the tokenizer of an existing run, instead of a new one. `fingerprint`: of its text,
    whose tokens are taken where they are kept; standard input cannot be read again. `choose` is
    told every setting that is chosen here, with its reason; `say` how far the work is.
    """
    if tokenizer.kind == "file" and fixed is None:
        fixed = existing.find(tokenizer.path)
    cache = Cache()
    names = sources.names(data.text)
    if fingerprint and "-" in (*data.text, *data.val):
        prepared = kept(fingerprint, data, say)
        if prepared is None:
            raise UserError("The text came from standard input and is not in the cache any more.")
        return prepared
    job = _Job(data, tokenizer, fixed, cache, say, workers)
    remembered = job.remembered() or (job.of_run(fingerprint) if fixed else None)
    prepared = _open(cache, remembered.fingerprint, names, say) if remembered else None
    if not (remembered and prepared):
        remembered = job.build()
        prepared = _open(cache, remembered.fingerprint, names, say)
        if prepared is None:
            raise UserError(f"{cache.path}: what was written there cannot be read back.", code=1)
        cache.trim(prepared.folder)
    for name, value, reason in remembered.choices:
        if choose:
            choose(name, value, reason)
    return prepared


def kept(fingerprint: str, data: config.Data, say: Say = lambda _: None) -> Prepared | None:
    """The tokens of a text that cannot be read again, if they are in the cache. (The log that has
    the `fingerprint` may be anybody's, and name a folder with it.)"""
    if not FINGERPRINT.fullmatch(fingerprint):
        return None
    return _open(Cache(), fingerprint, sources.names(data.text), say)


def _open(cache: Cache, fingerprint: str, names: list[str], say: Say) -> Prepared | None:
    """The entry, if it is there and whole; a damaged one is removed."""
    folder = cache.entry(fingerprint)
    if not folder.exists():
        return None
    try:
        meta = msgspec.json.decode((folder / "meta.json").read_bytes(), type=_Meta)
        whole = all((folder / name).stat().st_size == meta.sizes[name] for name in FILES)
        tokenizer = Tokenizer((folder / "tokenizer.json").read_text("utf-8"))
        if meta.format != FORMAT or not whole or tokenizer.hash != meta.tokenizer:
            raise ValueError("sizes or hashes differ")
        if meta.checksums is not None and meta.checksums != _checksums(folder):
            raise ValueError("checksums differ")
        train, val = (np.memmap(folder / f, np.dtype(meta.dtype), "r") for f in FILES[:2])
    except (FileNotFoundError, KeyError, ValueError, msgspec.DecodeError, UserError):
        say(f"The cached tokens in {folder} are damaged: they are removed.")
        cache.remove(folder)
        return None
    except OSError as error:
        raise UserError(
            f"{folder}: the cached tokens cannot be read: {error.strerror or error}.", code=1
        ) from None
    with suppress(OSError):  # of another user, or on a disk that is only read
        folder.touch()
    facts = meta.facts | {
        "names": names, "lossless": tokenizer.lossless, "unknown_bits": tokenizer.unknown_bits,
        "val_unknown": int(np.count_nonzero(val == tokenizer.unknown)) if meta.facts["unknown"]
        else 0,
    }  # fmt: skip
    return Prepared(train, val, tokenizer, facts, folder / "yardsticks.json", folder)


class _Job:
    """One preparation: settings in, an entry of the cache out."""

    def __init__(
        self,
        data: config.Data,
        tokenizer: config.Tokenizer,
        fixed: Tokenizer | None,
        cache: Cache,
        say: Say,
        workers: int,
    ) -> None:
        self.data, self.settings, self.fixed = data, tokenizer, fixed
        self.cache, self.say, self.workers = cache, say, workers
        if [*data.text, *data.val].count("-") > 1:
            raise UserError("Standard input (-) can be read only once.")
        self.sources = sources.find(data.text, data.text_field, say)
        self.val_sources = sources.find(data.val, data.text_field, say) if data.val else []
        rows = any(source.kind != "text" for source in self.sources + self.val_sources)
        if data.text_field != "text" and not rows:
            say(f"data.text_field = {data.text_field} has no effect: no file here has rows")
        self.choices: list[tuple[str, Any, str]] = []
        digests = [[s.digest() for s in group] for group in (self.sources, self.val_sources)]
        self._tell_twice(*digests)
        self.content = _hash(
            [
                [(s.form, digest) for s, digest in zip(group, found, strict=True)]
                for group, found in zip((self.sources, self.val_sources), digests, strict=True)
            ]
        )
        wanted = fixed.hash if fixed else msgspec.to_builtins(tokenizer)
        asked = [FORMAT, __version__, self.content, data.val_fraction, wanted]
        self._memo = cache.settings / f"{_hash(asked)}.json"

    def _tell_twice(self, text: list[bytes], val: list[bytes]) -> None:
        """Of files with the same content: what is held out may then be trained on."""
        seen: dict[bytes, str] = {}
        again = []
        for digest, source in zip(text, self.sources, strict=True):
            if not source.path.stat().st_size:
                continue
            if digest in seen:
                again.append(f"{source.name} holds the same text as {seen[digest]}")
            seen.setdefault(digest, source.name)
        for digest, source in zip(val, self.val_sources, strict=True):
            if digest in seen:
                again.append(f"{source.name}, held out, is the same text as {seen[digest]}")
        more = f", and {len(again) - 1:,} more" if len(again) > 1 else ""
        if again:
            self.say(f"{again[0]}{more}: what is held out may be trained on")

    def remembered(self) -> _Remembered | None:
        found: _Remembered | None = recall(self._memo, _Remembered)
        return found

    def of_run(self, fingerprint: str) -> _Remembered | None:
        """What a run with this tokenizer was made of, if that was this text."""
        fraction = 0.0 if self.val_sources else self.data.val_fraction
        assert self.fixed is not None
        named = {self._fingerprint(fraction, self.fixed, uneven) for uneven in (False, True)}
        return _Remembered(fingerprint, []) if fingerprint in named else None

    def _fingerprint(self, fraction: float, tokenizer: Tokenizer, uneven: bool) -> str:
        what = [FORMAT, self.content, fraction, tokenizer.hash]
        return _hash([*what, "uneven"] if uneven else what)

    def build(self) -> _Remembered:
        with self.cache.building() as folder:
            split = self._split(folder)
            tokenizer = self.fixed or self._tokenizer(split.train)
            fingerprint = self._fingerprint(split.fraction, tokenizer, split.uneven)
            if not self.cache.entry(fingerprint).exists():
                entry = folder / "entry"
                entry.mkdir()
                self._write(entry, tokenizer, split, fingerprint)
                self.cache.commit(entry, fingerprint)
        remembered = _Remembered(fingerprint, self.choices)
        keep(self._memo, remembered)
        return remembered

    def _split(self, folder: Path) -> parts.Split:
        name = ", ".join(sources.names(self.data.text))
        documents = self._gathered(self.sources, folder / "text", name)
        if self.val_sources:
            held = self._gathered(self.val_sources, folder / "held", ", ".join(self.data.val))
            words = "a separate validation text"
            return parts.Split(parts.whole(documents), parts.whole(held), 0.0, words)
        fraction = self.data.val_fraction
        if not fraction:
            fraction, reason = parts.suggest_fraction(documents.size)
            self.choices.append(("data.val_fraction", fraction, reason))
        return parts.split(documents, fraction)

    def _gathered(self, found: list[corpus.Source], path: Path, name: str) -> parts.Documents:
        read = Progress(self.say, "reading text", 0)
        documents = parts.gather(found, path, name, read.advance)
        for source in found:
            source.check_unchanged()
        if without := sum(source.without_text for source in found):
            self.say(f"{name}: {counted(without, 'row')} without text left out")
        return documents

    def _tokenizer(self, train: parts.Part) -> Tokenizer:
        """A new tokenizer; it sees the training part only."""
        separator = sum(span.begins for span in train.spans) > 1
        kind: str = self.settings.kind
        if kind == "auto":
            kind, reason = makers.suggest_kind(train.size)
            if self.settings.vocab_size:
                kind, reason = "bpe", "a vocabulary is given"
            self.choices.append(("tokenizer.kind", kind, reason))
        if kind == "bytes":
            return makers.bytes_tokenizer(separator)
        if kind == "chars":
            seen: set[str] = set()
            for text in train.texts(train.size):
                seen.update(text)
            return makers.chars_tokenizer(seen, separator)
        return self._trained(kind, train, separator)

    def _trained(self, kind: str, train: parts.Part, separator: bool) -> Tokenizer:
        wanted, reason = self.settings.vocab_size, ""
        if not wanted:
            wanted, reason = makers.suggest_vocab_size(train.size)
        elif wanted < (least := makers.least_vocab_size(kind, separator)):
            raise UserError(f"tokenizer.vocab_size = {wanted}: {kind} needs at least {least}.")
        limit = min(train.size, TRAINER_BYTES)
        if limit > LONG_TRAINING:
            self.say(f"training the tokenizer on {limit / 1e6:,.0f} MB of text")
        done = Progress(self.say, "training the tokenizer", limit)
        made = makers.train(kind, done.watch(train.texts(limit)), wanted, separator)
        if made.vocab_size > wanted and not reason:
            raise UserError(
                f"tokenizer.vocab_size = {wanted}: {kind} needs at least {made.vocab_size} here."
            )
        if made.vocab_size < wanted and not reason:
            raise UserError(
                f"tokenizer.vocab_size = {wanted:,} is more than this text allows: "
                f"at most {made.vocab_size:,}."
            )
        if reason:
            if made.vocab_size < wanted:
                reason = "all pairs of this short text that occur twice"
            elif made.vocab_size > wanted:
                reason = "what the characters of the text need"
            self.choices.append(("tokenizer.vocab_size", made.vocab_size, reason))
        return made

    def _write(
        self, entry: Path, tokenizer: Tokenizer, split: parts.Split, fingerprint: str
    ) -> None:
        done = Progress(self.say, "encoding", split.train.size + split.val.size)
        train, val = (
            encode.write_tokens(part, tokenizer, entry / name, done.advance, self.workers)
            for part, name in zip((split.train, split.val), FILES, strict=False)
        )
        tokenizer.save(entry / "tokenizer.json")
        started = time.monotonic()
        if split.train.size > TOLD_SIZE:
            self.say("measuring what the held-out text costs without a network (n-grams, xz)")
        used = min(1, MAX_VAL_BYTES / split.val.size)
        measured = yardsticks(
            split.train.tail(MAX_TRAIN_BYTES),
            split.val.head(MAX_VAL_BYTES),
            tokenizer.vocab_size,
            round(val.tokens * used),
            val.unknown * used * math.log(2) * (tokenizer.unknown_bits or 0),
            self.say,
        )
        if time.monotonic() - started > TOLD_SECONDS:
            self.say(f"measured in {time.monotonic() - started:.0f} s")
        (entry / "yardsticks.json").write_bytes(msgspec.json.encode(measured))
        facts = {
            "fingerprint": fingerprint,
            "split": split.words + _boundaries(tokenizer),
            "documents": sum(span.begins for span in split.train.spans),
            "val_documents": len(split.val.spans),
            "bytes": split.train.size,
            "val_bytes": split.val.size,
            "train_tokens": train.tokens,
            "val_tokens": val.tokens,
            "vocab_size": tokenizer.vocab_size,
            "unknown": train.unknown + val.unknown,
        }
        meta = _Meta(
            format=FORMAT,
            dtype=np.dtype(encode.dtype(tokenizer.vocab_size)).name,
            tokenizer=tokenizer.hash,
            facts=facts,
            sizes={name: (entry / name).stat().st_size for name in FILES},
            checksums=_checksums(entry),
        )
        (entry / "meta.json").write_bytes(msgspec.json.encode(meta))


def _checksums(folder: Path) -> dict[str, int]:
    """CRC-32 of each file: 0.04 s for 100 MB, half of the SHA-256 of the text at a start."""
    found = {}
    for name in FILES:
        checksum = 0
        with (folder / name).open("rb") as file:
            while piece := file.read(corpus.PIECE):
                checksum = zlib.crc32(piece, checksum)
        found[name] = checksum
    return found


def _boundaries(tokenizer: Tokenizer) -> str:
    """What stands between documents, in words."""
    before, behind = (" ".join(names) for names in tokenizer.boundaries)
    if behind:
        return f"; {before} and {behind} around each document"
    return f"; {before} in front of each document" if before else ""


def _hash(value: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(value)).hexdigest()
