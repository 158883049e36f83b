"""Seeds as a pure function of a base seed and names."""

import hashlib
from typing import Any


def seeded(*parts: Any) -> int:
    """A 63-bit seed from printable parts. It is the same on every machine, unlike `hash`."""
    return int.from_bytes(hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest(), "big") >> 1
