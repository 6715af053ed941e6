"""Untrusted text made visible: what a model wrote is shown, never obeyed."""

import re
import unicodedata
from typing import Final

MAX_CHARACTERS: Final = 4000
"""Shown of one response on a terminal; the rest is counted."""

_KEPT_CONTROLS: Final = frozenset("\n\t")
_HIDDEN_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_MANY_MARKS: Final = re.compile(r"([̀-ͯ⃐-⃿︠-︯]{4})[̀-ͯ⃐-⃿︠-︯]+")


def visible(text: str, limit: int = MAX_CHARACTERS) -> str:
    """Escape what a terminal would obey or hide: controls, ANSI and OSC escapes, bidi, zero width, surrogates.

    Newline and tab stay. Piles of combining marks are cut to four, and text beyond `limit` characters to a note.
    """
    cut = _MANY_MARKS.sub(r"\1…", text[:limit])
    shown = "".join(_shown(character) for character in cut)
    return shown if len(text) <= limit else f"{shown}… [{len(text) - limit} more characters]"


def _shown(character: str) -> str:
    if character in _KEPT_CONTROLS or unicodedata.category(character) not in _HIDDEN_CATEGORIES:
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
