from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.records import Role
from orchestrator.errors import UsageError
from orchestrator.review.identity import Person
from orchestrator.review.names import person_name, same_name


@pytest.mark.parametrize("name", ["Ann", "ann ", "ＡＮＮ", " aNn", "\tANN\n"])
def test_spellings_of_one_person(name: str) -> None:
    assert same_name(name) == person_name(name) == "ann"


@given(st.text(max_size=60) | st.text("́̀̈̓̕ͅᾳἀΐᾍὊῐİIi̇ẞßﬃ", max_size=8))
def test_a_name_is_its_own_spelling(name: str) -> None:
    try:
        plain = same_name(name)
    except UsageError:
        return
    assert same_name(plain) == plain
    assert not any(unicodedata.category(character).startswith("C") for character in plain)


@pytest.mark.parametrize("name", ["gate", "Gate", " GOLD", "protocol", "controller", "Simulated", "simulated-12"])
def test_what_is_no_person_is_no_name_of_one(name: str) -> None:
    assert same_name(name)
    with pytest.raises(UsageError, match="choose another name"):
        person_name(name)


def test_nobody_looks_like_somebody_else() -> None:
    with pytest.raises(UsageError, match="mixes alphabets"):
        person_name("\u0430nn")  # the first letter is Cyrillic
    assert person_name("Анна") == "анна"


def test_a_role_is_for_its_campaign_or_for_all() -> None:
    ann = Person("ann", "c-00000000", frozenset({(Role.LABELER, "a"), (Role.AUDITOR, None)}))
    allowed = {(role, campaign) for role in Role for campaign in "ab" if ann.may(role, campaign)}
    assert allowed == {(Role.LABELER, "a"), (Role.AUDITOR, "a"), (Role.AUDITOR, "b")}
