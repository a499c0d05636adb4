"""Random numbers as arithmetic: every seed is a pure function of what it is for."""

from __future__ import annotations

import hashlib


def key(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for (`seed`, `purpose`), the same on every machine."""
    text = "\x1f".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
