"""Two existing models: the gate alone. What comes in which order, what is questioned, and what the rules refuse."""

from collections.abc import Callable
from typing import Any

import pytest
from fake_world import World, always_good, settings_of
from pydantic import ValidationError

from orchestrator.core import events as ev
from orchestrator.core import work as wk
from orchestrator.core.commands import AskForDecision, AskForLabels, Command, Do, Halt, Note
from orchestrator.core.gate import NEVER_COMPARED, NOTHING_PROMISED
from orchestrator.core.records import Choice, EndedBy, Label, Purpose, Verdict
from orchestrator.core.rules import IllegalEventError

OTHER = "e" * 64
ONCE = {"stages": 1, "attempts": 1}
PROMISED = {"model": "b", "reward_model": "r"}


def comparison(candidate: dict[str, Any] | None = None, **changes: Any) -> Any:
    return settings_of(candidate=candidate or {"model": "b"}, protocol=ONCE, **changes)


def stopped_before(command_id: str, settings: Any = None, quality: Any = always_good) -> tuple[World, Any]:
    """A world about to do that work; with it, what a worker would answer."""
    world = World(settings or comparison(), quality=quality)
    command = world.run(lambda c: isinstance(c, Do) and c.work.command_id == command_id)
    assert isinstance(command, Do)
    return world, world.result(command.work)


def refused(world: World, body: ev.EventBody, why: str) -> None:
    with pytest.raises(IllegalEventError, match=why):
        world.append(body, "illegal")


def changed(body: Any, **changes: Any) -> Any:
    return type(body).model_validate(body.model_dump() | changes)


# --- the way of a comparison ---------------------------------------------------------------------------------


def test_it_is_a_campaign_with_nothing_to_train() -> None:
    world = World(comparison(), quality=always_good)
    assert isinstance(world.run(), Halt)
    assert [work.command_id for work in world.works] == [
        "base",
        "base.evaluated",
        "s0.a0.candidate",
        "s0.a0.evaluated",
        "s0.a0.gate.drawn",
        *[work.command_id for work in world.works if isinstance(work, wk.Rate)],
    ]
    assert {work.batch for work in world.works if isinstance(work, wk.Rate)} == {"s0.a0.gate", "s0.a0.audit"}
    assert [batch.purpose for batch in world.state.batches] == [Purpose.GATE, Purpose.AUDIT]
    assert world.state.labels.initial == world.state.labels.training == world.state.costs.gradient_steps == 0


@pytest.mark.parametrize(
    ("quality", "ended_by", "approves"),
    [
        (always_good, EndedBy.STAGES_COMPLETED, "candidate"),
        (lambda stage, attempt: 0.2, EndedBy.ATTEMPTS_EXHAUSTED, "base"),
    ],
)
def test_the_better_one_is_approved(quality: Callable[..., Any], ended_by: EndedBy, approves: str) -> None:
    world = World(comparison(), quality=quality)
    world.run()
    attempt = world.state.attempts[0]
    assert world.state.ended_by is ended_by
    assert world.state.approved == (attempt.candidate if approves == "candidate" else world.state.base)
    assert attempt.start == world.state.base


def test_the_whole_error_budget_is_spent_on_the_one_gate() -> None:
    world = World(comparison(), quality=always_good)
    world.run()
    assert world.state.gate_batch(world.state.attempts[0]).alpha == pytest.approx(0.2)  # type: ignore[union-attr]


def test_people_label_and_a_person_approves() -> None:
    world = World(comparison(feedback={"rater": "people"}), quality=always_good)
    assert isinstance(world.run(lambda c: isinstance(c, AskForLabels)), AskForLabels)
    assert isinstance(world.run(lambda c: isinstance(c, AskForDecision)), AskForDecision)
    assert world.state.approved == world.state.base
    world.run()
    assert world.state.approved == world.state.attempts[0].candidate


# --- what is questioned --------------------------------------------------------------------------------------


def test_without_a_reward_model_no_promise_is_questioned_and_the_verdict_says_so() -> None:
    world = World(comparison(), quality=always_good)
    world.run()
    attempt = world.state.attempts[0]
    assert attempt.verdict is not None
    assert [test.name for test in attempt.verdict.tests] == ["improvement"]
    assert attempt.verdict.notes == (NOTHING_PROMISED, NEVER_COMPARED)
    assert attempt.verdict.over_promise is None


def test_a_reward_model_is_held_to_its_promises() -> None:
    world = World(comparison(PROMISED), quality=always_good)
    world.run()
    attempt = world.state.attempts[0]
    assert attempt.verdict is not None
    assert [test.name for test in attempt.verdict.tests] == ["improvement", "over_promise", "over_promise_top_half"]
    assert attempt.verdict.notes == (NEVER_COMPARED,)


def test_one_that_promises_too_much_refuses_a_better_candidate() -> None:
    """The candidate wins seven in ten, and is promised to win always: 0.3 too much, where 0.15 is allowed."""
    world, drawn = stopped_before("s0.a0.gate.drawn", comparison(PROMISED), quality=lambda stage, attempt: 0.7)
    world.append(changed(drawn, p_hat=(1.0,) * drawn.count), "s0.a0.gate.drawn")
    world.run()
    verdict = world.state.attempts[0].verdict
    assert verdict is not None
    assert verdict.verdict is Verdict.ROLLBACK
    assert verdict.over_promise == pytest.approx(1 - verdict.win_rate)  # type: ignore[operator]
    passed = {test.name: test.passed for test in verdict.tests}
    assert (passed["improvement"], passed["over_promise"]) == (True, False)


def test_both_bad_is_no_veto_where_nothing_is_known_from_before() -> None:
    """In two comparisons of five neither would do; of the other three the candidate wins all."""
    world, drawn = stopped_before("s0.a0.gate.drawn")
    world.append(drawn, "s0.a0.gate.drawn")
    world.run(lambda c: isinstance(c, Do) and isinstance(c.work, wk.Rate))
    batch = world.state.gate_batch(world.state.attempts[0])
    assert batch is not None
    wins = [Choice.FIRST if first else Choice.SECOND for first in batch.candidate_first]
    labels = tuple(
        Label(item=item, rater="ann", choice=Choice.BOTH_BAD if item % 5 < 2 else wins[item])
        for item in range(batch.count)
    )
    world.append(ev.LabelsRecorded(batch=batch.id, labels=labels), "labels")
    world.run()
    verdict = world.state.attempts[0].verdict
    assert verdict is not None
    assert (verdict.verdict, verdict.vetoes) == (Verdict.ADVANCE, ())


# --- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "protocol",
    [
        {"stages": 2, "attempts": 1},
        {"stages": 1, "attempts": 2},
        {"restart_from": "last", **ONCE},
        {"advance": "always", **ONCE},
    ],
)
def test_a_given_candidate_is_judged_once_and_by_a_gate(protocol: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="judged by one gate"):
        settings_of(candidate={"model": "b"}, protocol=protocol)


def test_where_candidates_are_trained_none_is_taken() -> None:
    world, fitted = stopped_before("s0.a0.reward_model", settings_of())
    taken = ev.CandidateTaken(
        stage=0, attempt=0, candidate=OTHER, start=world.state.base, parameters=1, costs=world.costs()
    )
    refused(world, taken, "candidates are trained in this campaign")
    world.append(fitted, "fitted")
    refused(world, taken, "candidates are trained in this campaign")


def test_where_the_candidate_is_given_nothing_is_trained() -> None:
    training, phase = stopped_before("s0.a0.phase", settings_of(protocol=ONCE))
    fitted = next(e.body for e in training.events if isinstance(e.body, ev.RewardModelFitted))
    failed = ev.PhaseFailed(stage=0, attempt=0, why="the loss is NaN")
    initial = next(e.body for e in training.events if isinstance(e.body, ev.ComparisonsDrawn))
    bought = changed(initial, purpose=Purpose.TRAINING, stage=0, attempt=0)
    world, taken = stopped_before("s0.a0.candidate")
    for body in (fitted, phase, failed, initial, bought):
        refused(world, body, "nothing is trained")
    world.append(taken, "taken")
    for body in (fitted, phase, failed, initial, bought):
        refused(world, body, "nothing is trained")


def test_the_candidate_is_another_one_taken_once_and_judged_against_the_start() -> None:
    world, taken = stopped_before("s0.a0.candidate")
    refused(world, changed(taken, candidate=taken.start), "judged against itself")
    refused(world, changed(taken, start=OTHER), "against another checkpoint")
    refused(world, changed(taken, attempt=1), "is not open")
    world.append(taken, "taken")
    refused(world, changed(taken, candidate=OTHER), "has a candidate already")


@pytest.mark.parametrize(("settings", "given"), [(comparison(), OTHER), (comparison(PROMISED), None)])
def test_who_promises_is_what_the_campaign_says(settings: Any, given: str | None) -> None:
    world, taken = stopped_before("s0.a0.candidate", settings)
    refused(world, changed(taken, reward_model=given), "not what the campaign names")


def test_a_promise_is_not_left_out() -> None:
    """Neither of the seal, nor of the verdict."""
    world, drawn = stopped_before("s0.a0.gate.drawn", comparison(PROMISED))
    refused(world, changed(drawn, p_hat=()), "the predictions belong to it")
    refused(world, changed(drawn, reward_model=None), "another reward model")
    command: Command = world.run(lambda c: isinstance(c, Note) and isinstance(c.body, ev.VerdictGiven))
    assert isinstance(command, Note)
    assert isinstance(command.body, ev.VerdictGiven)
    kept = [test for test in command.body.decision.tests if test.name == "improvement"]
    short = command.body.decision.model_copy(update={"tests": tuple(kept)})
    refused(world, command.body.model_copy(update={"decision": short}), "it leaves out over_promise")
