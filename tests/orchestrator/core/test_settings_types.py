"""No value of a campaign file is read as one of another type: for every leaf that the settings have."""

import json
from collections.abc import Iterator
from enum import StrEnum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import pytest
from pydantic import BaseModel, ValidationError

from orchestrator.core.settings import CampaignSettings

Place = tuple[str | int, ...]

WRONG: dict[type, tuple[str, tuple[Any, ...]]] = {
    bool: ("bool_type", (0, 1, 1.0, "true", "yes", "")),
    int: ("int_type", (True, False, "5", "64", 64.0, 0.5, "")),
    float: ("float_type", (True, False, "0.5", "1", "")),
    str: ("string_type", (True, False, 5, 0.5)),
    StrEnum: ("enum", (True, 0, 1, 0.5, "none of them")),
    Literal: ("literal_error", (True, 0, 1, 0.5, "none of them")),  # type: ignore[dict-item]
}
"""By the type that is wanted: what pydantic calls the mistake, and values that are none of that type."""


class Leaf(NamedTuple):
    place: Place
    wanted: Any
    """A key of WRONG."""


def leaves(annotation: Any, place: Place = ()) -> Iterator[Leaf]:
    """Every scalar that the annotation has room for; a list has one at 0, a mapping at `key`."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            yield from leaves(field.annotation, (*place, name))
    elif origin is Annotated:
        yield from leaves(inner[0], place)
    elif origin in (Union, UnionType):
        for part in inner:
            yield from leaves(part, place)
    elif origin is tuple:
        yield from leaves(inner[0], (*place, 0))
    elif origin is dict:
        yield from leaves(inner[1], (*place, "key"))
    elif origin is Literal:
        yield Leaf(place, Literal)
    elif isinstance(annotation, type) and issubclass(annotation, StrEnum):
        yield Leaf(place, StrEnum)
    elif annotation not in (Any, NoneType):
        yield Leaf(place, annotation)


def holding(place: Place, value: Any) -> Any:
    """A document with nothing but the value at its place."""
    for step in reversed(place):
        value = [value] if step == 0 else {step: value}
    return value


def mistakes(document: Any) -> dict[Place, str]:
    with pytest.raises(ValidationError) as refused:
        CampaignSettings.model_validate(document)
    return {error["loc"]: error["type"] for error in refused.value.errors()}


def test_the_table_reaches_into_every_kind_of_place() -> None:
    found = {leaf.place: leaf.wanted for leaf in leaves(CampaignSettings)}
    assert found["seed",] is int
    assert found["base", "seedling", "learning_rate"] is float
    assert found["approval", "self_approval"] is bool
    assert found["gate", "vetoes", "tripwires", 0, "pattern"] is str
    assert found["task", "files", "key"] is str
    assert found["phase", "algorithm"] is StrEnum
    assert found["phase", "kl", "reference"] is Literal
    assert len(found) > 100


@pytest.mark.parametrize("leaf", list(leaves(CampaignSettings)), ids=lambda leaf: ".".join(map(str, leaf.place)))
def test_a_value_of_another_type_is_refused(leaf: Leaf) -> None:
    mistake, values = WRONG[leaf.wanted]
    for value in (*values, [], {}):
        assert mistakes(holding(leaf.place, value))[leaf.place] == mistake, value


@pytest.mark.parametrize(
    "place",
    [leaf.place for leaf in leaves(CampaignSettings) if leaf.wanted is float],
    ids=lambda place: ".".join(map(str, place)),
)
def test_what_is_no_finite_number_is_refused(place: Place) -> None:
    for value in (float("nan"), float("inf"), -float("inf")):
        assert mistakes(holding(place, value))[place] == "finite_number"


def smallest(**changes: Any) -> dict[str, Any]:
    return {"name": "small", "task": {"kind": "memo"}, "base": {"seedling": {}}, **changes}


def test_whole_numbers_are_numbers_and_texts_name_enums() -> None:
    settings = CampaignSettings.model_validate(
        smallest(phase={"algorithm": "ppo", "learning_rate": 1, "kl": {"budget_nats": 5}}, notify={"command": ["true"]})
    )
    assert (settings.phase.learning_rate, settings.phase.kl.budget_nats) == (1.0, 5.0)
    assert settings.phase.algorithm == "ppo"
    assert settings.notify.command == ("true",)


def test_what_a_ledger_holds_is_read_back_the_same() -> None:
    """Also where a float was given as a whole number, or a list as a list."""
    settings = CampaignSettings.model_validate(
        smallest(
            phase={"learning_rate": 1, "kl": {"budget_nats": 5, "target_nats": 2}, "shorten": {}},
            feedback={"raters": ["ann", "bob"], "checks": {}, "repeat_every": 7},
            gate={"vetoes": {"tripwires": [{"name": "url", "pattern": "http"}]}, "direction": None},
        )
    )
    on_the_ledger = json.dumps(settings.model_dump(mode="json"))
    for back in (
        CampaignSettings.model_validate(json.loads(on_the_ledger)),
        CampaignSettings.model_validate_json(on_the_ledger),
    ):
        assert back == settings
        assert back.digest() == settings.digest()
