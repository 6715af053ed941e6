"""Ledgers of earlier releases must still parse, fold and mean what they meant.

A golden ledger is written once, by `fake_world.py`, and never again: a release that changes events adds versions
beside the old ones, and a file of its own here. Until its release is out, a file may be written anew.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.envelope import EMPTY_HEAD, Head, chain_problems, from_row
from orchestrator.core.events import Advanced, DecisionMade, PhaseFailed, RolledBack, UnknownEventError, parse
from orchestrator.core.history import fold
from orchestrator.core.records import EndedBy
from orchestrator.core.state import state_digest

GOLDEN = Path(__file__).parent / "golden"
STATES = {"v0.1.0": "013cdf5b38103b6944a1beac47426a107a9dbd147b7e280105b65097c78fa7a8"}
"""Digest of the state that each release's golden ledger folds to."""


def rows_of(release: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (GOLDEN / f"{release}.jsonl").read_text().splitlines()]


def test_every_golden_ledger_has_its_state_recorded() -> None:
    assert {path.stem for path in GOLDEN.glob("*.jsonl")} == set(STATES)


@pytest.mark.parametrize("release", STATES)
def test_the_chain_is_whole(release: str) -> None:
    rows = rows_of(release)
    head = Head(rows[-1]["seq"], rows[-1]["hash"])
    assert list(chain_problems(rows, head, after=EMPTY_HEAD)) == []


@pytest.mark.parametrize("release", STATES)
def test_it_folds_to_the_recorded_state(release: str) -> None:
    state = fold(parse(from_row(row)) for row in rows_of(release))
    assert state_digest(state) == STATES[release]


def test_the_first_release_tells_of_two_advances_two_refusals_and_a_failed_phase() -> None:
    events = [parse(from_row(row)) for row in rows_of("v0.1.0")]
    state = fold(events)
    assert (state.name, state.ended_by, state.advances, state.rollbacks) == (
        "golden",
        EndedBy.STAGES_COMPLETED,
        2,
        3,
    )
    kinds = [type(event.body) for event in events]
    assert (kinds.count(Advanced), kinds.count(RolledBack), kinds.count(PhaseFailed)) == (2, 3, 1)
    assert [e.author for e in events if isinstance(e.body, DecisionMade)] == ["ann", "ann"]


@pytest.mark.parametrize("change", [{"type": "levitated"}, {"version": 99}])
def test_an_event_of_a_later_program_is_named_not_guessed(change: dict[str, Any]) -> None:
    with pytest.raises(UnknownEventError, match=r"event 3: .* unknown to this program"):
        parse(from_row(rows_of("v0.1.0")[3] | change))


def test_a_body_with_a_key_too_many_is_refused() -> None:
    row = rows_of("v0.1.0")[1]
    body = json.dumps(json.loads(row["body"]) | {"extra": 1})
    with pytest.raises(UnknownEventError, match="does not fit"):
        parse(from_row(row | {"body": body}))
