"""Random numbers as a pure function of a seed and names."""

import hashlib
from typing import Any


def seeded(*parts: Any) -> int:
    """A 63-bit seed from anything printable; the same on every machine, unlike `hash`."""
    return int.from_bytes(hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest(), "big") >> 1
