"""Seeds and generators. Randomness is always an argument; nothing here or above touches a global generator."""

import hashlib

import torch

_SEED_BITS = 63
"""Seeds fit a signed 64-bit integer, which is what every consumer (torch, SQLite, JSON readers) can hold."""


def derive_seed(*parts: str | int) -> int:
    """Derive a seed in [0, 2**63) from named parts, such as (campaign seed, stage, attempt, purpose).

    Parts are tagged with type and length before hashing, so ("ab", "c"), ("a", "bc") and (1, "1") differ.
    """
    digest = hashlib.sha256()
    for part in parts:
        tag = b"i" if isinstance(part, int) else b"s"
        text = str(part).encode()
        digest.update(tag + len(text).to_bytes(8, "big") + text)
    return int.from_bytes(digest.digest()[:8], "big") >> (64 - _SEED_BITS)


def generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Make a generator of its own on `device`, seeded with `seed`."""
    return torch.Generator(device=device).manual_seed(seed)
