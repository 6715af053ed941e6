"""Views of the state: outcomes of a batch, and the digest that names a state."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from fake_world import START, World, settings_of
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from orchestrator.core.records import Choice, Label, Purpose
from orchestrator.core.settings import CampaignSettings
from orchestrator.core.state import VOLATILE, Batch, CampaignState, state_digest

SWAPPED = {Choice.FIRST: Choice.SECOND, Choice.SECOND: Choice.FIRST}


def batch_of(
    said: list[tuple[int, str, Choice]],
    *,
    count: int = 3,
    first: tuple[bool, ...] = (True, False, True),
    expired: bool = False,
) -> Batch:
    labels = tuple(Label(item=item, rater=rater, choice=choice) for item, rater, choice in said)
    return Batch(
        purpose=Purpose.GATE,
        stage=0,
        attempt=0,
        comparisons="0" * 64,
        count=count,
        candidate_first=first,
        p_hat=(0.5,) * count,
        alpha=0.1,
        labels=labels,
        drawn_at=START,
        expired_after=len(labels) if expired else None,
    )


def test_outcome_is_seen_from_the_candidate() -> None:
    batch = batch_of([(0, "a", Choice.FIRST), (1, "a", Choice.FIRST), (2, "a", Choice.BOTH_BAD)])
    assert batch.outcomes(1) == (1.0, 0.0, 0.5)


def test_a_missing_item_blocks_those_behind_it() -> None:
    batch = batch_of([(0, "a", Choice.FIRST), (2, "a", Choice.FIRST)])
    assert batch.settled(1) == 1
    assert batch.outcomes(1) == (1.0,)


def test_what_is_missing_at_the_deadline_is_nothing_said() -> None:
    assert batch_of([(0, "a", Choice.FIRST)], expired=True).outcomes(1) == (1.0, None, None)


@pytest.mark.parametrize(
    ("choices", "outcome"),
    [
        ((Choice.FIRST, Choice.SECOND), 0.5),
        ((Choice.FIRST, Choice.TIE), 0.75),
        ((Choice.FIRST, Choice.SKIP), 0.5),
        ((Choice.SECOND, Choice.SKIP), 0.0),
        ((Choice.SKIP, Choice.SKIP), None),
    ],
)
def test_two_raters_are_averaged_and_a_skip_counts_as_a_loss(
    choices: tuple[Choice, ...], outcome: float | None
) -> None:
    """On either side: the candidate stands second in the mirrored batch."""
    said = [(0, f"r{i}", choice) for i, choice in enumerate(choices)]
    mirrored = [(0, rater, SWAPPED.get(choice, choice)) for _, rater, choice in said]
    assert batch_of(said, count=1, first=(True,)).outcomes(2) == (outcome,)
    assert batch_of(mirrored, count=1, first=(False,)).outcomes(2) == (outcome,)


def test_a_rater_who_never_came_counts_as_a_loss() -> None:
    assert batch_of([(0, "a", Choice.FIRST)], count=1, first=(True,), expired=True).outcomes(2) == (0.5,)


def test_a_rater_too_many_decides_nothing() -> None:
    said = [(0, "a", Choice.FIRST), (0, "b", Choice.SECOND)]
    assert batch_of(said, count=1, first=(True,)).outcomes(1) == (1.0,)


@given(
    said=st.lists(st.sampled_from(Choice), min_size=1, max_size=12),
    sides=st.lists(st.booleans(), min_size=12, max_size=12),
)
def test_swapping_sides_changes_nothing(said: list[Choice], sides: list[bool]) -> None:
    count, first = len(said), tuple(sides[: len(said)])
    labels = [(i, "a", choice) for i, choice in enumerate(said)]
    swapped = [(i, "a", SWAPPED.get(choice, choice)) for i, choice in enumerate(said)]
    there = batch_of(swapped, count=count, first=tuple(not side for side in first))
    assert batch_of(labels, count=count, first=first).outcomes(1) == there.outcomes(1)


@given(order=st.permutations(range(6)))
def test_outcomes_do_not_depend_on_the_order_of_raters(order: list[int]) -> None:
    said = [(i % 3, f"r{i // 3}", (Choice.FIRST, Choice.SECOND, Choice.TIE)[i % 3]) for i in range(6)]
    assert batch_of([said[i] for i in order]).outcomes(2) == batch_of(said).outcomes(2)


@pytest.fixture(scope="module")
def finished() -> CampaignState:
    """With every kind of batch in it that a campaign of two stages can have, and few of each."""
    world = World(small_gate())
    world.run()
    assert {batch.purpose for batch in world.state.batches} == set(Purpose) - {Purpose.CREEP_OLDER, Purpose.CHECKS}
    return world.state


def small_gate(**changes: Any) -> CampaignSettings:
    gate = {"max_labels": 40, "direction": {"max_labels": 30}, "path": {"max_labels": 30}, "creep": {"max_labels": 30}}
    return settings_of(gate=gate, protocol={"stages": 2, "attempts": 3}, **changes)


def test_digest_ignores_names_times_and_durations(finished: CampaignState) -> None:
    other = World(small_gate(name="another"), seconds=17.5)
    other.run()
    assert other.state != finished
    assert state_digest(other.state) == state_digest(finished)


def test_digest_sees_everything_else(finished: CampaignState) -> None:
    """Every number, digest and flag of the state is changed, one at a time; of those that stand in a list, two."""
    document = json.loads(finished.model_dump_json())
    changed, tried = 0, Counter[tuple[str, ...]]()
    for path, value in _leaves(document):
        field = tuple(key for key in path if isinstance(key, str))
        tried[field] += 1
        if tried[field] > 2:
            continue
        other = json.loads(json.dumps(document))
        place = other
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = _different(value)
        try:
            state = CampaignState.model_validate_json(json.dumps(other))
        except ValidationError:
            continue  # not every other value is a value
        volatile = path == ("name",) or not VOLATILE.isdisjoint(path)
        assert (state_digest(state) == state_digest(finished)) is volatile, path
        changed += 1
    assert changed > 250


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from _leaves(item, (*path, key))
    elif value is not None:
        yield path, value


def _different(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1 if isinstance(value, int) else value / 2 + 0.01
    return value[:-1] + ("0" if value[-1] != "0" else "1")
