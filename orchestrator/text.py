"""Untrusted text made visible: what a model or a stranger wrote is shown, never obeyed. The one rule for all outlets.

A character that would be obeyed (terminal controls), not be seen (zero width, blanks that are no spaces, unassigned) or
move others (bidi controls) is replaced by its number, written as Python writes it. Newline and tab stay. What else
stays, since taking it away would change what honest text looks like:

- a joiner (U+200C, U+200D) where it shapes its neighbours: between cursive letters and at an Indic virama as RFC 5892
  (appendix A) has it, between emoji; one at a time. Elsewhere it is invisible, and hides things;
- a presentation selector (U+FE0E, U+FE0F) right after an emoji, or in a keycap; other variation selectors spell bytes;
- Arabic's visible format characters (U+0600 to U+0605, U+06DD and their like).

Of more than `MARKS` combining marks in a row the rest is counted, and so is all beyond the limit: text is cut before
anything looks at it, so a long one costs no more than its limit. Nothing here knows a page or a terminal; pages print
the segments of `shown`, terminals and logs `visible` or `one_line`, and both come from `_segments`.
"""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any, Final

MAX_CHARACTERS: Final = 4000
"""Shown of one response on a terminal; the rest is counted."""
MARKS: Final = 4
"""Combining marks shown on one character: Hebrew with points and accents needs three, Vietnamese and Hindi two."""

_CONTEXT: Final = 8
"""Characters seen beyond the limit, so that the cut itself makes no joiner look out of place."""
_LETTERS: Final = (
    r"\n\t -~\xa0-\xac\xae-\u02ff\u0391-\u03a1\u03a3-\u0481\u05d0-\u05ea\u060c\u061b\u061f-\u064a\u0660-\u066f"
    r"\u0904-\u0939\u0964-\u0970\u1e00-\u1eff\u2010-\u2027\u20ac\u3001-\u3029\u3041-\u3096\u30a1-\u30fe\u4e00-\u9fff"
    r"\uac00-\ud7a3\uff01-\uff5e"
)
_MARKS: Final = r"\u0300-\u034e\u0350-\u036f\u05b0-\u05bd\u064b-\u065f\u0900-\u0903\u093a-\u093c\u093e-\u094d"
# In two steps, since one class of characters is searched ten times as fast as two alternatives.
_ORDINARY: Final = re.compile(f"[{_LETTERS}]*")
_UNUSUAL: Final = re.compile(f"[^{_LETTERS}{_MARKS}]|[{_MARKS}]{{{MARKS + 1}}}")


class Kind(StrEnum):
    TEXT = "text"
    """As it was written, and safe to show as text."""
    ESCAPE = "escape"
    """Stands for characters that are not shown themselves."""
    NOTE = "note"
    """Ratchet's own words on what was left out here."""


class Badge(StrEnum):
    """What a reader is warned of beside the text."""

    HIDDEN = "hidden characters"
    BIDI = "right-to-left controls"
    MARKS = "piled-up marks"
    MIXED = "mixed alphabets"
    """A word of Latin letters with Cyrillic ones, or with Greek ones that look Latin, in it."""
    LONG = "very long"
    """Not all of it is shown."""
    PAGE = "looks like this page"
    MODEL = "names a model"


@dataclass(frozen=True, slots=True)
class Segment:
    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class Shown:
    segments: tuple[Segment, ...]
    """Never two texts or escapes in a row. A page prints each as text, escapes and notes in an element of their own."""
    hidden: int
    """Characters among those looked at that are not shown themselves: escaped, or marks beyond the pile."""
    characters: int
    """Of the whole text, shown or not."""
    badges: tuple[Badge, ...]
    """Of what was looked at, each once, in the order of `Badge`."""


def visible(text: str, limit: int = MAX_CHARACTERS) -> str:
    """The text as a terminal or a log may have it: the segments of `shown`, joined.

    Newlines and tabs stay; where one line is wanted see `one_line`. At most `limit` characters of `text` are shown.
    """
    if len(text) <= limit and _is_ordinary(text):
        return text
    return "".join(segment.text for segment in _segments(text, limit))


def one_line(text: str, limit: int = MAX_CHARACTERS) -> str:
    """As `visible`, with newline and tab escaped too: text that could forge a line of a log or a table."""
    return visible(text, limit).replace("\n", "\\n").replace("\t", "\\t")


def shown(text: str, limit: int = MAX_CHARACTERS) -> Shown:
    """The text as a page may have it, and what its reader is to be warned of."""
    head = text[:limit]
    badges = claims(head)
    if len(text) <= limit and _is_ordinary(text):
        mixed = not text.isascii() and _is_mixed(head)
        segments: tuple[Segment, ...] = (Segment(Kind.TEXT, text),) if text else ()
        return Shown(segments, 0, len(text), ((Badge.MIXED,) if mixed else ()) + badges)
    segments = tuple(_segments(text, limit))
    told = tuple(_told(head, segments, is_cut=len(text) > limit))
    kept = sum(len(segment.text) for segment in segments if segment.kind is Kind.TEXT)
    return Shown(segments, len(head) - kept, len(text), told + badges)


def claims(text: str) -> tuple[Badge, ...]:
    """Whether a text speaks like the page that shows it, or says which model wrote it.

    A list of English phrases, no more: it catches a policy that learned to say them, not one that means to evade it,
    and it does take the animal for the model. Nothing is decided by it; a reader is told to look twice, and a named
    model has made the comparison less blind.
    """
    plain = text.lower()
    # Twelve hexadecimal digits or more, letters and figures mixed, are how this page writes a checkpoint.
    digest = _DIGEST_CUE.search(plain) and any(not run.isdigit() for run in _DIGEST.findall(plain))
    looks = digest or (any(cue in plain for cue in _PAGE_CUES) and _PAGE.search(plain))
    names = any(name in plain for name in _MODELS)
    return ((Badge.PAGE,) if looks else ()) + ((Badge.MODEL,) if names else ())


class VisibleFormatter(logging.Formatter):
    """Log records whose message is one line, whoever wrote what it quotes; tracebacks keep their lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return one_line(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        return visible(super().formatException(ei), 100_000)


# --- the rule ---------------------------------------------------------------------------------------------


def _is_ordinary(text: str) -> bool:
    """Whether no mark is too many and nothing hidden, found at once for the commonest scripts; others are looked at."""
    end = _ORDINARY.match(text).end()  # type: ignore[union-attr]  # it always matches
    return end == len(text) or _UNUSUAL.search(text, end) is None


def _segments(text: str, limit: int) -> Iterator[Segment]:
    seen, end = text[: limit + _CONTEXT], min(limit, len(text))
    at = 0
    for found in _care().finditer(seen):
        start, stop = found.span("marks") if found["marks"] else found.span()
        stop = min(stop, end)
        if start >= stop:
            break
        if at < start:
            yield Segment(Kind.TEXT, seen[at:start])
        at = stop
        if found["marks"]:
            yield Segment(Kind.NOTE, f"… [{stop - start} more marks]")
        else:
            yield Segment(Kind.ESCAPE, "".join(map(_escaped, seen[start:stop])))
    if at < end:
        yield Segment(Kind.TEXT, seen[at:end])
    if len(text) > limit:
        yield Segment(Kind.NOTE, f"… [{len(text) - limit} more characters]")


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


@cache
def _care() -> Any:
    """What is not shown as it stands. Made at first use: plain text never needs it.

    `regex` rather than `re`, for its properties of characters, and so that their version goes with the package and
    not with Python's: an emoji of last year is unassigned to a Python of the year before.
    """
    import regex

    hidden = r"[[\p{C}\p{Zl}\p{Zp}\p{DI}\u2800]--[\n\t\p{PCM}]]"  # U+2800 is braille for a blank
    joiners = r"\u200c\u200d\ufe0e\ufe0f"
    letter = r"\p{L}\p{M}{0,3}"
    kept = "|".join(
        (
            rf"(?<={letter}\p{{ccc=9}}[\u200c\u200d])",  # after a virama
            r"(?<=\p{L}\u200d)(?=\p{ccc=9})",  # before one: Bengali ya-phalaa, Sinhala touching letters
            r"(?<=[\p{jt=L}\p{jt=D}]\p{Mn}{0,3}\u200c)(?=\p{Mn}{0,3}[\p{jt=R}\p{jt=D}])",  # Persian
            r"(?<=\p{ExtPict}[\ufe0f\p{EMod}]?\u200d)(?=\p{ExtPict})",
            r"(?<=[\p{Emoji}--[0-9#*]][\ufe0e\ufe0f])",
            r"(?<=[0-9#*]\ufe0f)(?=\u20e3)",
        )
    )
    mark = r"[[\p{Mn}\p{Me}]--\p{DI}]"
    return regex.compile(
        rf"(?:[{hidden}--[{joiners}]]|[{joiners}](?!{kept}))+|{mark}{{{MARKS}}}(?P<marks>{mark}+)", regex.VERSION1
    )


# --- badges -----------------------------------------------------------------------------------------------

_BIDI: Final = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
# Every repetition has an end, so that a hostile text costs no more than another; and every phrase holds one of the
# cues, which are looked for first, since to find a word is twenty times as fast as to match a pattern.
_PAGE_CUES: Final = (
    "candidate", "checkpoint", "approve", "reject", "button", "click", "choose", "press", "pick", "ratchet",
)  # fmt: skip
_PAGE: Final = re.compile(
    r"\b(?:approv|reject|promot|advanc|roll(?:ing|ed)? back)\w{0,6}\W{1,9}(?:th[a-z]{1,2}\W{1,9})?"
    r"(?:candidate|checkpoint)"
    r"|\b(?:candidate|checkpoint) (?:is |was )?(?:approved|rejected|digest|under review)"
    r"|\[ ?(?:approve|reject) ?\]|<button\b"
    r"|\b(?:click|press|choose|pick)\b[^.\n]{0,30}"
    r"\b(?:approve|reject|button|(?:left|right|first|second|this) (?:response|answer)|(?:response|answer) [12ab])\b"
    r"|\bratchet (?:review|campaign)\b"
)
_DIGEST: Final = re.compile(r"[0-9a-f]{12,64}")
_DIGEST_CUE: Final = re.compile(r"[0-9][a-f]")
_MODELS: Final = (
    "gpt", "llama", "claude", "gemini", "gemma", "mistral", "mixtral", "qwen", "deepseek", "openai", "anthropic",
    "smollm", "language model", "reward model", "base model", "reference model", "reference policy", "approved policy",
    "approved checkpoint", "candidate policy", "i am the candidate", "i'm the candidate", "as an ai", "i am an ai",
    "i'm an ai", "i’m an ai",
)  # fmt: skip


def _told(head: str, segments: tuple[Segment, ...], *, is_cut: bool) -> Iterator[Badge]:
    if any(segment.kind is Kind.ESCAPE for segment in segments):
        yield Badge.HIDDEN
    if _BIDI.search(head):
        yield Badge.BIDI
    if any(segment.kind is Kind.NOTE for segment in segments[: -1 if is_cut else None]):
        yield Badge.MARKS
    if _is_mixed(head):
        yield Badge.MIXED
    if is_cut:
        yield Badge.LONG


def _is_mixed(text: str) -> bool:
    return any(pattern.search(text) for pattern in _MIXED)


_LATIN: Final = "A-Za-z\xc0-\u024f"
_CYRILLIC: Final = "\u0400-\u052f"
_GREEK: Final = "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧαικνορτυϲ"
# Greek asks for letters that look Latin and for two Latin neighbours: `kΩ`, `μm` and `Δx` are honest.
_MIXED: Final = tuple(
    re.compile(pattern)
    for pattern in (
        f"[{_CYRILLIC}](?<=[{_LATIN}][{_CYRILLIC}])",
        f"[{_LATIN}](?<=[{_CYRILLIC}][{_LATIN}])",
        f"[{_GREEK}](?:(?=[{_LATIN}]{{2}})|(?<=[{_LATIN}]{{2}}[{_GREEK}])|(?<=[{_LATIN}][{_GREEK}])(?=[{_LATIN}]))",
    )
)
