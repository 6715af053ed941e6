"""People's names: one spelling for each, and those that nobody can have."""

import unicodedata
from typing import Final

from orchestrator.core.records import AUTOMATIC_REVIEWERS, CONTROLLER, recorded_name
from orchestrator.core.settings import GOLD
from orchestrator.errors import UsageError
from orchestrator.text import Badge, shown, visible

RESERVED: Final = AUTOMATIC_REVIEWERS | {CONTROLLER, GOLD, "campaign", "judge", "nobody", "ratchet"}
"""Authors, reviewers and raters that are no person."""
SIMULATED: Final = "simulated"
"""What the names of simulated raters begin with."""


def same_name(name: str) -> str:
    """One spelling of a name: `Ann`, `ann ` and `ＡＮＮ` are one person, not three approvers.

    Raises:
        UsageError: nothing is left of it, or it is longer than 200 characters.
    """
    plain = recorded_name(name)
    # Stricter than text: what joins or marks letters unseen would make two names of one look.
    unseen = any(unicodedata.category(character).startswith("C") for character in plain)
    if not 0 < len(plain) <= 200 or unseen or plain != visible(plain):
        raise UsageError(f"{visible(name, 40)!r} is no name; give one of 1 to 200 printable characters")
    return plain


def person_name(name: str) -> str:
    """As `same_name`, for somebody who is to be known here.

    Raises:
        UsageError: no name, or one that a rater, reviewer or author that is no person goes by, or one that mixes
            alphabets to look like another.
    """
    plain = same_name(name)
    if Badge.MIXED in shown(plain).badges:
        raise UsageError(f"{plain!r} mixes alphabets that look alike; write the name in one of them")
    if plain in RESERVED or plain.startswith(SIMULATED):
        raise UsageError(f"nobody can be called {plain!r}: it names what is no person; choose another name")
    return plain
