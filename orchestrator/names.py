"""Names that people give and that become parts of file names."""

from __future__ import annotations

import re

from orchestrator.errors import UsageError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_WINDOWS_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def checked_campaign_name(name: str) -> str:
    """Return the name if it is safe as part of a file name on every system.

    Raises:
        UsageError: for separators, dots in front or at the end, control characters, device names, over 64 characters.
    """
    if not _NAME.fullmatch(name) or name.endswith(".") or _WINDOWS_DEVICE.fullmatch(name):
        raise UsageError(
            f"campaign name {name[:80]!r} is not allowed; use 1 to 64 letters, digits, '-', '_' and '.', "
            "beginning with a letter or digit and ending with no dot"
        )
    return name
