"""Shared by the tests of desks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from hall import Hall


@pytest.fixture
def hall_of(where: str, tmp_path: Path) -> Iterator[Callable[..., Hall]]:
    """Makes a campaign that waits for its first labels, in either database; keyword arguments change its file."""
    from hall import Hall

    made = []

    def make(**changes: Any) -> Hall:
        made.append(Hall(where, tmp_path, **changes))
        made[-1].go_on()
        return made[-1]

    yield make
    for hall in made:
        hall.__exit__()
