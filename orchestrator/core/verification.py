"""What a check of stored things found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is not as it was written."""

    where: str
    """The event, file or table, as a person would look it up."""
    what: str


@dataclass(frozen=True, slots=True)
class Verification:
    """The outcome of reading everything back."""

    checked: int
    """How many events or files were looked at."""
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        return not self.problems
