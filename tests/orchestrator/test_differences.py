"""Where two texts differ: by hand, against a brute force, and joined again whatever they are."""

import unicodedata
from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.differences import CHARACTERS, WORDS, Span, SpanKind, longest_common, of

words = st.lists(
    st.sampled_from(["a", "b", "the", " ", "  ", "\n", ".", "e\u0301", "👩‍🚀", "今", "\ud800", "\u0301"])
).map("".join)
texts = words | st.text()


def marked(spans: Sequence[Span]) -> str:
    return "".join(span.text if span.kind is SpanKind.SAME else f"<{span.text}>" for span in spans)


@pytest.mark.parametrize(
    ("left", "right", "left_marked", "right_marked"),
    [
        ("", "", "", ""),
        ("same", "same", "same", "same"),
        ("", "new", "", "<new>"),
        ("the red cat sat", "the blue cat sat", "the <red> cat sat", "the <blue> cat sat"),
        ("red cat", "blue dog", "<red cat>", "<blue dog>"),  # a gap alone is nothing in common
        ("a b c", "a c", "a <b >c", "a c"),
        ("It ends.", "It ends!", "It ends<.>", "It ends<!>"),
        ("cat", "cats", "<cat>", "<cats>"),
        ("a cafe\u0301 x", "a cafe x", "a <cafe\u0301> x", "a <cafe> x"),  # no mark is torn from its letter
        ("x 👩‍🚀 y", "x 👩 y", "x <👩‍🚀> y", "x <👩> y"),
        ("今天天气好", "今天很好", "今天<天气>好", "今天<很>好"),
        ("नमस्ते दुनिया", "नमस्ते भारत", "नमस्ते <दुनिया>", "नमस्ते <भारत>"),
    ],
)
def test_by_hand(left: str, right: str, left_marked: str, right_marked: str) -> None:
    told = of(left, right)
    assert (marked(told[0]), marked(told[1])) == (left_marked, right_marked)


@given(texts, texts)
def test_spans_joined_are_the_texts_and_what_is_the_same_is_equal(left: str, right: str) -> None:
    told = of(left, right)
    for text, spans in zip((left, right), told, strict=True):
        assert "".join(span.text for span in spans) == text
        assert all(span.text for span in spans)
        assert all(one.kind is not two.kind for one, two in pairwise(spans))
    one, two = ("".join(span.text for span in spans if span.kind is SpanKind.SAME) for spans in told)
    assert one == two


@given(texts)
def test_a_text_does_not_differ_from_itself(text: str) -> None:
    assert of(text, text) == ((Span(SpanKind.SAME, text),) if text else (),) * 2


@given(words, words)
def test_no_mark_is_torn_from_its_letter(left: str, right: str) -> None:
    for spans in of(left, right):
        for before, after in pairwise(spans):
            assert not (unicodedata.category(after.text[0]) == "Mn" and before.text[-1].isalpha())


def brute_force(one: Sequence[str], two: Sequence[str]) -> int:
    @cache
    def longest(i: int, j: int) -> int:
        if i == len(one) or j == len(two):
            return 0
        if one[i] == two[j]:
            return 1 + longest(i + 1, j + 1)
        return max(longest(i + 1, j), longest(i, j + 1))

    return longest(0, 0)


@given(*[st.lists(st.sampled_from("abc"), max_size=12)] * 2)
def test_the_common_subsequence_is_common_and_longest(one: list[str], two: list[str]) -> None:
    found = longest_common(one, two)
    assert [one[i] for i, _ in found] == [two[j] for _, j in found]
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(found))
    assert len(found) == brute_force(one, two)


def test_what_is_too_long_to_compare_differs_as_a_whole_but_for_its_ends() -> None:
    left, right = "in common a " + "b " * WORDS + "end", "in common c " + "b " * WORDS + "d end"
    told = of(left, right)
    assert marked(told[0]) == "in common <a " + "b " * (WORDS - 1) + "b> end"
    assert marked(told[1]) == "in common <c " + "b " * WORDS + "d> end"


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("x " + "a " * 4_000, "a " * 4_000 + "y"),
        ("a" * 10**7, "b" * 10**7),
        ("a " * (5 * 10**6), "b " + "a " * (5 * 10**6)),
        ("a" + "\u0301" * CHARACTERS, "b" + "\u0301" * CHARACTERS),
        ("!?" * 2_400, "?!" * 2_400),
    ],
    ids=["one word", "one line", "moved by one", "marks", "signs"],
)
def test_what_takes_others_long_is_answered(left: str, right: str) -> None:
    """`difflib` takes half a second for the first, and for the second does not come back."""
    assert ["".join(span.text for span in spans) for spans in of(left, right)] == [left, right]
