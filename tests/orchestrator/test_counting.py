"""Counted nouns."""

import pytest

from orchestrator.counting import counted


@pytest.mark.parametrize(
    ("count", "words", "said"),
    [
        (0, ("label",), "0 labels"),
        (1, ("label",), "1 label"),
        (1234, ("label",), "1,234 labels"),
        (1, ("artifact is", "artifacts are"), "1 artifact is"),
        (2, ("artifact is", "artifacts are"), "2 artifacts are"),
    ],
)
def test_the_noun_goes_with_its_number(count: int, words: tuple[str, ...], said: str) -> None:
    assert counted(count, *words) == said
