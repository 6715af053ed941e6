"""One text for one value, and the digests of such texts. Standard library only."""

from __future__ import annotations

import hashlib
import json
from typing import TypeAlias

Digest: TypeAlias = str
"""A SHA-256 as 64 lower-case hexadecimal digits."""

_MAX_DEPTH = 200


def canonical_json(value: object) -> str:
    """Write a value as JSON that is the same text for equal values, on every machine.

    Keys are sorted, nothing is blank, everything beyond ASCII is escaped. So NUL and lone surrogates, which databases
    and UTF-8 refuse, travel as escapes and come back from `json.loads` as they were.

    Raises:
        ValueError: for NaN and infinities, keys that are no text or no valid Unicode, nesting beyond 200 levels.
        TypeError: for a value that JSON has no form for.
    """
    _check_keys_and_depth(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def sha256_hex(data: bytes | str) -> Digest:
    """Digest bytes, or text as UTF-8."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def digest_of(value: object) -> Digest:
    """Digest a value by its canonical JSON."""
    return sha256_hex(canonical_json(value))


def _check_keys_and_depth(value: object) -> None:
    # json.dumps would write the keys 1 and "1", or a surrogate pair and the character it spells, as the same
    # text: one document with a key twice. Depth is bounded here because cycles and recursion errors depend on
    # the interpreter. The stack makes it depth first, so that a cycle ends at the bound.
    stack: list[tuple[object, int]] = [(value, 0)]
    while stack:
        node, depth = stack.pop()
        if depth > _MAX_DEPTH:
            raise ValueError(f"nested deeper than {_MAX_DEPTH} levels, or a cycle")
        if isinstance(node, dict):
            for key in node:
                if not isinstance(key, str):
                    raise ValueError(f"key {key!r} is not text")
                key.encode()
            stack.extend((child, depth + 1) for child in node.values())
        elif isinstance(node, (list, tuple)):
            stack.extend((child, depth + 1) for child in node)
