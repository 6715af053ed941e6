"""How work says that it goes on."""

from collections.abc import Callable

Progress = Callable[[int, int, str], None]
"""(done, total, message)."""


def silent(done: int, total: int, message: str) -> None:
    """Say nothing."""
