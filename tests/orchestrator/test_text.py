"""What is done to untrusted text: every character of Unicode, honest text in many scripts, and the named attacks."""

import logging
import sys
import unicodedata
from itertools import pairwise

import pytest
from hostile_texts import ATTACKS, OBEYED
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.text import MARKS, Badge, Kind, Segment, Shown, VisibleFormatter, claims, one_line, shown, visible

IGNORABLE = {
    *(0xAD, 0x34F, 0x61C, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFEFF, 0xFFA0),
    *range(0x180B, 0x1810), *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070),
    *range(0xFE00, 0xFE10), *range(0xFFF0, 0xFFF9), *range(0x1BCA0, 0x1BCA4), *range(0x1D173, 0x1D17B),
    *range(0xE0000, 0xE1000),
}  # fmt: skip
"""Default_Ignorable_Code_Point of Unicode's DerivedCoreProperties.txt."""
PREPENDED = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
"""Prepended_Concatenation_Mark of PropList.txt: of category Cf, and yet drawn."""

anything = st.text(
    st.characters()
    | st.sampled_from(OBEYED + "\ud800\udfff\u0301\u0336\u20dd\u200c\u200d\ufe0f\n\t👩🚀نक्पаο")
    | st.characters(categories=["Mn", "Me", "Cf", "Cs"])
)


def test_every_character_alone_is_shown_or_escaped_as_its_category_says() -> None:
    """Those that this Python does not know yet may be known to a newer table."""
    wrong = []
    for code in range(sys.maxunicode + 1):
        character, category = chr(code), unicodedata.category(chr(code))
        hidden = category in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") or code in IGNORABLE or code == 0x2800
        if character in "\n\t" or code in PREPENDED:
            hidden = False
        if category == "Cn" and code not in IGNORABLE:
            continue
        if (visible(character) != character) is not hidden:
            wrong.append(hex(code))
    assert wrong == []


def test_every_character_among_others_is_shown_as_it_is_alone() -> None:
    """Text with anything odd in it takes another path than text with nothing odd."""
    every = [chr(code) for code in range(0x20000) if unicodedata.category(chr(code)) not in ("Co", "Cn")]
    text = "x".join(every)
    assert visible(text, len(text)) == "x".join(map(visible, every))


def test_marks_are_those_of_the_categories_mn_and_me() -> None:
    wrong = []
    for code in range(0x10000):
        character, category = chr(code), unicodedata.category(chr(code))
        if category != "Cn" and code not in IGNORABLE:
            is_cut = "more marks" in visible("x" + character * (MARKS + 1))
            wrong += [hex(code)] if is_cut is not (category in ("Mn", "Me")) else []
    assert wrong == []


@pytest.mark.parametrize("character", ["\ufdd0", "\uffff", "\U0010ffff", "\u0378", "\U000e0080"])
def test_what_no_unicode_assigns_is_escaped(character: str) -> None:
    assert visible(character) != character


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("\x00\x1b[31m\x9b", "\\x00\\x1b[31m\\x9b"),
        ("a\rb\bc\x7f", "a\\x0db\\x08c\\x7f"),
        ("\u202eabc\u2069", "\\u202eabc\\u2069"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("a\n\tb", "a\n\tb"),
        ("a\u0301\u0301\u0301\u0301\u0301\u0301b", "a\u0301\u0301\u0301\u0301… [2 more marks]b"),
        ("\u0591\u20dd\u0489\u0336\u0e47\U0001e944z", "\u0591\u20dd\u0489\u0336… [2 more marks]z"),
        ("abcdef", "abcd… [2 more characters]"),
    ],
)
def test_by_hand(text: str, told: str) -> None:
    assert visible(text, 4 if text == "abcdef" else 100) == told


@pytest.mark.parametrize(
    "text",
    [
        "می‌خواهم کتاب‌ها را",  # Persian: U+200C keeps letters apart
        "क्‍ष और न्‌य, नमस्ते दुनिया",  # Hindi: joiners after a virama
        "র‍্যাম বাংলা",  # Bengali: a joiner before it
        "ශ්‍රී ලංකා",
        "שָׁלוֹם בְּרֵאשִׁ֖ית, שלום",
        "مَرْحَبًا بِالعَالَمِ ۝",
        "Tiếng Việt, ũ̄́ and e\u0323\u0302",
        "สวัสดีครับ ที่นี่",
        "👩‍🚀 👨‍👩‍👧‍👦 🏳️‍🌈 👩🏽‍🔬 ❤️ ❤️‍🔥 ☎︎ 1️⃣ #️⃣ 🇫🇷",
        "kΩ, μm, Δx, β-carotene, 今天。テスト 한국어",
        "— “quoted” … €5 × ½\u00a0²",
    ],
)
def test_honest_text_stays_as_it_is(text: str) -> None:
    assert shown(text) == Shown((Segment(Kind.TEXT, text),), 0, len(text), ())


@pytest.mark.parametrize(
    "text",
    [
        "a\u200db",
        "a\u200cb",
        "ا\u200cب",  # alef joins nothing on its left: the joiner would change nothing
        "क\u200cष",
        "क्\u200d\u200dष",
        "👩\u200d\u200d🚀",
        "👩\u200dx",
        "x\ufe0f",
        "1\ufe0f2",
        "😀\ufe0f\ufe0f",
        "葛\U000e0100",
        "🏴\U000e0067\U000e007f",
        "्\u200d्\u200d्\u200d",
    ],
)
def test_joiners_and_selectors_that_shape_nothing_are_escaped(text: str) -> None:
    assert "\\" in visible(text)
    assert shown(text).badges[0] == Badge.HIDDEN


@pytest.mark.parametrize("text", ["👩‍🚀" * 3, "می‌خواهم", "❤️" * 4])
def test_a_cut_makes_nothing_look_hidden(text: str) -> None:
    for limit in range(len(text)):
        cut = shown(text, limit)
        assert (cut.hidden, cut.badges, cut.characters) == (0, (Badge.LONG,), len(text))


@given(anything, st.integers(0, 40))
def test_whatever_is_written_is_shown_by_one_rule(text: str, limit: int) -> None:
    page, printed = shown(text, limit), visible(text, limit)
    assert "".join(segment.text for segment in page.segments) == printed
    kinds = [segment.kind for segment in page.segments]
    assert all(one is not two or one is Kind.NOTE for one, two in pairwise(kinds))
    assert all(segment.text for segment in page.segments)
    assert not set(printed) & set(OBEYED)
    assert page.characters == len(text)
    assert page.hidden + sum(len(s.text) for s in page.segments if s.kind is Kind.TEXT) == min(limit, len(text))
    printed.encode()
    for kept in (segment.text for segment in page.segments if segment.kind is Kind.TEXT):
        assert kept in text
        runs = "".join("m" if unicodedata.category(c) in ("Mn", "Me") else " " for c in kept).split()
        assert max(map(len, runs), default=0) <= MARKS
    line = one_line(text, limit)
    assert len(line.splitlines()) <= 1
    assert "\t" not in line


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_are_made_harmless_and_badged(name: str) -> None:
    text = ATTACKS[name].text
    page = shown(text)
    assert tuple(map(str, page.badges)) == ATTACKS[name].badges
    printed = visible(text)
    assert not set(printed) & set(OBEYED)
    assert len(printed) < 50_000


def test_escapes_next_to_one_another_are_one_segment() -> None:
    assert shown("a\x1b\u202eb\u0301\u0301\u0301\u0301\u0301c", 9).segments == (
        Segment(Kind.TEXT, "a"),
        Segment(Kind.ESCAPE, "\\x1b\\u202e"),
        Segment(Kind.TEXT, "b\u0301\u0301\u0301\u0301"),
        Segment(Kind.NOTE, "… [1 more marks]"),
        Segment(Kind.NOTE, "… [1 more characters]"),
    )


@pytest.mark.parametrize(
    ("text", "badges"),
    [
        ("I would approve this plan; the answer is 42.", ()),
        ("She rejected it. The candidate won the election.", ()),
        ("commit 20250101123456 and 1234567890123456", ()),
        ("Approve the candidate", (Badge.PAGE,)),
        ("CHECKPOINT APPROVED", (Badge.PAGE,)),
        ("please press the left response", (Badge.PAGE,)),
        ("[ Approve ]", (Badge.PAGE,)),
        ("ratchet review approve x", (Badge.PAGE,)),
        ("see 5f3d9a1c77e2", (Badge.PAGE,)),
        ("As an AI, I cannot", (Badge.MODEL,)),
        ("I am ChatGPT", (Badge.MODEL,)),
        ("the reference policy wrote this", (Badge.MODEL,)),
    ],
)
def test_claims(text: str, badges: tuple[Badge, ...]) -> None:
    assert claims(text) == badges


@pytest.mark.parametrize(
    ("text", "mixed"),
    [
        ("p\u0430ypal", True),
        ("\u0440aypal", True),
        ("раураl", True),
        ("g\u03bfogle", True),
        ("\u0391pple", True),
        ("Москва and Paris", False),
        ("αβγ and abc", False),
        ("kΩ", False),
        ("σ-algebra of μ-null sets", False),
    ],
)
def test_words_of_two_alphabets_are_badged(text: str, mixed: bool) -> None:
    assert (Badge.MIXED in shown(text).badges) is mixed


def test_a_record_is_one_line_and_its_traceback_is_visible() -> None:
    try:
        raise ValueError("\x1b[2J")
    except ValueError:
        record = logging.LogRecord("x", logging.WARNING, "x", 1, "%s\nforged", ("\x1b[31m\u202e",), sys.exc_info())
    first, *rest = VisibleFormatter("%(levelname)s %(message)s").format(record).split("\n")
    assert first == "WARNING \\x1b[31m\\u202e\\nforged"
    assert rest[0] == "Traceback (most recent call last):"
    assert rest[-1] == "ValueError: \\x1b[2J"
