"""Keeps secrets out of what Ratchet shows: MLflow, logs, bug reports. The ledger's own copy is untouched."""

import re
from typing import Any, Final

REDACTED: Final = "[redacted]"

_SECRET_WORD = re.compile(
    r"auth|authorization|apikey|bearer|credentials?|keys?|passphrase|passwd|passwords?|pwd|secrets?|tokens?",
    re.IGNORECASE,
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_USER_INFO = re.compile(r"(\w://)[^/?#\s@]*@")
_QUERY_SECRET = re.compile(r"([?&][^=&\s]*(?:auth|key|password|secret|signature|token)[^=&\s]*=)[^&\s]+", re.IGNORECASE)


def redacted(value: Any) -> Any:
    """A copy of plain data in which values whose key names a secret, and credentials inside addresses, are replaced.

    Numbers under a plural stay (`max_response_tokens: 24` counts, it does not tell).
    """
    if isinstance(value, dict):
        return {key: REDACTED if _is_secret(str(key), item) else redacted(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(item) for item in value]
    return redacted_text(value) if isinstance(value, str) else value


def redacted_text(text: str) -> str:
    """Text whose addresses have lost their `user:password@` and the values of telling query parameters."""
    return _QUERY_SECRET.sub(rf"\1{REDACTED}", _USER_INFO.sub(rf"\1{REDACTED}@", text))


def _is_secret(key: str, value: Any) -> bool:
    words = [word for word in _WORD.findall(key) if _SECRET_WORD.fullmatch(word)]
    if value is None or isinstance(value, bool):
        return False
    counts = isinstance(value, int | float) and all(word[-1] in "sS" for word in words)
    return bool(words) and not counts
