from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.canonical import canonical_json, digest_of, sha256_hex

# Lone surrogates included: a model may have written anything. (Two halves in a row are the character they spell.)
texts = st.text(st.characters(codec="utf-8") | st.sampled_from(["\ud800", "\0", "\x1b", "\u202e"]))
keys = st.text(st.characters(codec="utf-8"))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda children: st.lists(children) | st.dictionaries(keys, children),
    max_leaves=10,
)


@settings(max_examples=60, deadline=None)
@given(values)
def test_text_comes_back_and_is_stable(value: Any) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text
    assert text.isascii()
    assert "\0" not in text


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(keys, values))
def test_order_of_keys_does_not_matter(value: dict[str, Any]) -> None:
    assert canonical_json(dict(reversed(value.items()))) == canonical_json(value)


def test_known_text_and_digests() -> None:
    assert canonical_json({"b": [1, 1.0, -0.5, True, None], "a": "é\0\ud800"}) == (
        '{"a":"\\u00e9\\u0000\\ud800","b":[1,1.0,-0.5,true,null]}'
    )
    # From FIPS 180-2 and `printf '{"a":1}' | sha256sum`.
    assert sha256_hex(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest_of({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"
    assert sha256_hex("é") == hashlib.sha256(b"\xc3\xa9").hexdigest()


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_lacks_are_refused(number: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"x": [number]})


def test_keys_that_could_collide_are_refused() -> None:
    with pytest.raises(ValueError, match="not text"):
        canonical_json({1: "a", "1": "b"})
    with pytest.raises(ValueError, match="surrogates"):
        canonical_json({"\ud83d\ude00": "a", "😀": "b"})


def test_foreign_types_are_refused() -> None:
    for foreign in (b"", {1, 2}, object()):
        with pytest.raises(TypeError):
            canonical_json([foreign])


def test_depth_and_cycles_are_bounded() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    cycle: list[Any] = []
    cycle += [cycle, cycle]
    for endless in (deep, cycle):
        with pytest.raises(ValueError, match="nested deeper"):
            canonical_json(endless)
