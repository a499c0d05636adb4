"""Preparing text: encoding rates side by side, and 200 MB in bounded memory.

    python benchmarks/prepare.py [megabytes]

Rates are of one thread on the embedded speeches, best of three, with a new encoder each time (a
warm word cache would flatter). Memory is the peak of a process that prepares the large text:
shuffled lines of the speeches.
"""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["RAYON_NUM_THREADS"] = "1"  # before the libraries read it
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from overnight import config
from overnight.text import encode, existing, makers, parts, sources
from overnight.text.prepare import prepare
from overnight.text.tokenizers import Tokenizer

VOCABULARY = 4096


def main() -> None:
    if sys.argv[1:2] == ["child"]:
        child(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
        return
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = name
        rates(folder)
        large(folder, megabytes)


def rates(folder: Path) -> None:
    documents = parts.gather(sources.find([], "text"), folder / "text", "speeches", lambda _: None)
    part, text = parts.whole(documents), documents.text[:]
    bpe = makers.train("bpe", part.texts(part.size), VOCABULARY, True)
    bpe.save(folder / "tokenizer.json")
    piece = makers.train("wordpiece", part.texts(part.size), VOCABULARY, True)
    print(f"{'one thread, bpe ' + str(VOCABULARY):44}{'MB/s':>8}{'of gigatoken':>14}")
    best = {
        name: max(_rate(make(), text) for _ in range(3))
        for name, make in {
            "gigatoken": lambda: _gigatoken(bpe),
            "overnight, to a token file": lambda: _to_file(bpe, part, folder),
            "tokenizers": lambda: _library(bpe),
            "tiktoken": lambda: _tiktoken(bpe),
            "overnight wordpiece, to a token file": lambda: _to_file(piece, part, folder),
            "overnight chars": lambda: (
                makers.chars_tokenizer(set(text.decode()), True).encode_bytes
            ),
            "overnight bytes": lambda: makers.bytes_tokenizer(True).encode_bytes,
        }.items()
    }
    for name, rate in best.items():
        print(f"{name:44}{rate:8.1f}{rate / best['gigatoken']:14.0%}")


def _rate(encode_: Callable[[bytes], object], text: bytes) -> float:
    start = time.perf_counter()
    encode_(text)
    return len(text) / 1e6 / (time.perf_counter() - start)


def _gigatoken(tokenizer: Tokenizer) -> Callable[[bytes], object]:
    import gigatoken

    return gigatoken.Tokenizer.from_json(tokenizer.json).backend.encode


def _to_file(tokenizer: Tokenizer, part: parts.Part, folder: Path) -> Callable[[bytes], object]:
    fresh = Tokenizer(tokenizer.json)
    fresh.encode("a")  # as loaded as the others
    return lambda _: encode.write_tokens(part, fresh, folder / "tokens", lambda _: None, workers=1)


def _library(tokenizer: Tokenizer) -> Callable[[bytes], object]:
    from tokenizers import Tokenizer as Library

    library = Library.from_str(tokenizer.json)
    return lambda text: library.encode_batch_fast([text.decode()])


def _tiktoken(tokenizer: Tokenizer) -> Callable[[bytes], object]:
    import tiktoken

    vocab = dict(enumerate(tokenizer._pieces))
    ranks = {piece: i for i, piece in vocab.items() if piece}
    pattern = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    encoding = tiktoken.Encoding("own", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    assert existing.from_tiktoken(encoding).encode("It's so.") == tokenizer.encode("It's so.")
    return lambda text: encoding.encode_ordinary(text.decode())


def large(folder: Path, megabytes: int) -> None:
    path = folder / "large.txt"
    lines = [
        line for s in sources.find([], "text") for line in s.path.read_bytes().splitlines(True)
    ]
    shuffled, size = random.Random(0), 0
    with path.open("wb") as file:
        while size < megabytes * 10**6:
            shuffled.shuffle(lines)
            size += file.write(b"".join(lines))
    print(f"\n{size / 1e6:.0f} MB, whole preparation{'seconds':>14}{'peak MB':>10}  token file")
    for workers in (1, 2):
        subprocess.run(
            [sys.executable, __file__, "child", path, folder / f"cache{workers}", str(workers)],
            check=True,
        )


def _peak_megabytes() -> float:
    """Of this process; `ru_maxrss` would on Linux hold the parent's, too."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS: bytes


def child(path: Path, cache: Path, workers: int) -> None:
    import hashlib

    os.environ["XDG_CACHE_HOME"] = str(cache)
    tokenizer = config.Tokenizer(vocab_size=VOCABULARY)
    start = time.perf_counter()
    prepared = prepare(config.Data(text=[str(path)]), tokenizer, workers=workers)
    seconds = time.perf_counter() - start
    peak = _peak_megabytes()
    tokens = hashlib.sha256((prepared.folder / "train.bin").read_bytes()).hexdigest()[:16]
    print(f"workers {workers:<24}{seconds:>16.1f}{peak:10.0f}  {tokens}")


if __name__ == "__main__":
    main()
