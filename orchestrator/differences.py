"""Where two responses differ, word by word, for a reader who asks to see it. Pages call `of`, and show each span.

Differences are those of the texts as they were written; nothing is escaped here, so every span still goes through
`orchestrator.text.shown`. What both begin and end with is set aside first. Of the rest the longest common subsequence
of words is kept, found a whole row at a time in the bits of one integer: the time depends on how many words there are
and never on which ones, where `difflib` takes seconds for a few thousand repeated words, and a hostile response would
choose those. A rest that is longer than `WORDS` differs as a whole.

Hyyrö, H. (2004), "Bit-parallel LCS-length computation revisited" (row update); the matches are read back from the rows.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any, Final

WORDS: Final = 5000
"""Words, gaps and signs in which two texts are compared; 5000 of each take some 20 ms and 3 MB."""
CHARACTERS: Final = 100_000
"""Of a rest that is looked at for words at all."""
_GAPS: Final = " \n\t"


class SpanKind(StrEnum):
    SAME = "same"
    """Both texts have it, in the same order."""
    ONLY = "only"
    """This text alone has it here."""


@dataclass(frozen=True, slots=True)
class Span:
    kind: SpanKind
    text: str


def of(left: str, right: str) -> tuple[tuple[Span, ...], tuple[Span, ...]]:
    """Both texts as spans, which joined are the text again; what is the same, joined, is equal on both sides.

    No two spans of one kind stand in a row, and none is empty.
    """
    start = _common_start(left, right)
    end = _common_end(left[start:], right[start:])
    rest_left, rest_right = left[start : len(left) - end], right[start : len(right) - end]
    matches = _matches(rest_left, rest_right)
    before, after = left[:start], left[len(left) - end :]
    return tuple(  # type: ignore[return-value]
        _spans(before, rest, [match[side] for match in matches], after)
        for side, rest in enumerate((rest_left, rest_right))
    )


def longest_common(one: Sequence[Hashable], two: Sequence[Hashable]) -> list[tuple[int, int]]:
    """Places, in `one` and in `two`, of a longest common subsequence, ascending. Time and bits: len(one) · len(two)."""
    places: dict[Hashable, int] = {}
    for i, item in enumerate(one):
        places[item] = places.get(item, 0) | 1 << i
    everything = (1 << len(one)) - 1
    row, rows = (
        everything,
        [],
    )  # bit i of row j is 0 where one[i] lengthens what one[:i] has in common with two[: j + 1]
    for item in two:
        met = row & places.get(item, 0)
        row = (row + met | row - met) & everything
        rows.append(row)
    found = []
    i, j = len(one), len(two)
    while i and j:
        if rows[j - 1] >> (i - 1) & 1:
            i -= 1
            continue
        j -= 1
        if j == 0 or rows[j - 1] >> (i - 1) & 1:
            i -= 1
            found.append((i, j))
    return found[::-1]


def _matches(left: str, right: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """What two rests have in common: places (from, to) in each. Gaps and signs with changes on both sides are none."""
    if not left or not right or max(len(left), len(right)) > CHARACTERS:
        return []
    one, two = _words().findall(left), _words().findall(right)
    if max(len(one), len(two)) > WORDS:
        return []
    runs: list[list[tuple[int, int]]] = []
    for i, j in longest_common(one, two):
        if runs and runs[-1][-1] == (i - 1, j - 1):
            runs[-1].append((i, j))
        else:
            runs.append([(i, j)])
    at_one, at_two = _places(one), _places(two)
    return [
        ((at_one[run[0][0]], at_one[run[-1][0] + 1]), (at_two[run[0][1]], at_two[run[-1][1] + 1]))
        for run in runs
        if any(one[i][0].isalnum() for i, _ in run)
    ]


def _spans(before: str, rest: str, same: Sequence[tuple[int, int]], after: str) -> tuple[Span, ...]:
    pieces, at = [(SpanKind.SAME, before)], 0
    for start, stop in same:
        pieces += [(SpanKind.ONLY, rest[at:start]), (SpanKind.SAME, rest[start:stop])]
        at = stop
    spans: list[Span] = []
    for kind, text in (*pieces, (SpanKind.ONLY, rest[at:]), (SpanKind.SAME, after)):
        if text and spans and spans[-1].kind is kind:
            spans[-1] = Span(kind, spans[-1].text + text)
        elif text:
            spans.append(Span(kind, text))
    return tuple(spans)


def _common_start(left: str, right: str) -> int:
    """Characters that both begin with, whole words only; by halves, since to compare slices is fastest."""
    low, high = 0, min(len(left), len(right))
    if left[:high] == right[:high] and len(left) == len(right):
        return high
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if left[low:middle] == right[low:middle] else (low, middle - 1)
    return max(left.rfind(gap, 0, low) for gap in _GAPS) + 1


def _common_end(left: str, right: str) -> int:
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        same = left[len(left) - middle : len(left) - low] == right[len(right) - middle : len(right) - low]
        low, high = (middle, high) if same else (low, middle - 1)
    found = (left.find(gap, len(left) - low) for gap in _GAPS)
    return len(left) - min((at for at in found if at >= 0), default=len(left))


def _places(words: Sequence[str]) -> list[int]:
    """Where each begins, and where the last ends."""
    places = [0]
    for word in words:
        places.append(places[-1] + len(word))
    return places


@cache
def _words() -> Any:
    """Words with their marks and joiners, gaps, and single signs; a sign is whole, be it an emoji of seven characters.

    Where a script has no gaps between words, a letter is a word.
    """
    import regex

    gapless = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
    letter = rf"[[\p{{L}}\p{{N}}_]--[{gapless}]]"
    return regex.compile(rf"{letter}(?:{letter}|[\p{{M}}\u200c\u200d])*|\s+|\X", regex.VERSION1)
