"""Ledgers that try to cheat the gate: folding refuses each, and says why. Every history here is whole up to the lie."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from fake_world import AUDITORS, World, always_bad, always_good, mixed, settings_of

from orchestrator.core import events as ev
from orchestrator.core import work as wk
from orchestrator.core.commands import AskForDecision, AskForLabels, Command, Do, Note
from orchestrator.core.events import EventBody
from orchestrator.core.gate import GateVerdict, PanelResult
from orchestrator.core.history import fold
from orchestrator.core.machine import next_command
from orchestrator.core.panels import asked_by_name
from orchestrator.core.questions import TestResult
from orchestrator.core.records import Choice, Costs, Decision, Harm, Label, Purpose, Verdict
from orchestrator.core.rules import IllegalEventError
from orchestrator.core.settings import Method
from orchestrator.core.state import state_digest

OTHER = "e" * 64
QUEUES = ("gate", "direction", "path", "creep_base", "creep_older", "audit", "checks")
LATE: dict[str, Any] = {
    "protocol": {"stages": 4, "attempts": 2},
    "gate": {"creep": {"max_labels": 40, "older": 2}, "audit": {"limit": 0.3}, "alpha": 0.4},
    "feedback": {"rater": "people", "checks": {"items": 4}},
}
"""With people, an audit that can refuse, checks, and two anchors from the fourth stage on."""


def before_draw(batch: str) -> Callable[[Command], bool]:
    """About to seal this batch, by a worker or from the state alone."""

    def matches(command: Command) -> bool:
        return (command.work.command_id if isinstance(command, Do) else getattr(command, "command_id", "")) == (
            f"{batch}.drawn"
        )

    return matches


def asked_for(batch: str) -> Callable[[Command], bool]:
    def matches(command: Command) -> bool:
        if isinstance(command, AskForLabels):
            return command.batch.id == batch
        return isinstance(command, Do) and isinstance(command.work, wk.Rate) and command.work.batch == batch

    return matches


def before(kind: type[EventBody], stage: int = 0, attempt: int = 0) -> Callable[[Command], bool]:
    def matches(command: Command) -> bool:
        body = command.body if isinstance(command, Note) else None
        return isinstance(body, kind) and (getattr(body, "stage", 0), getattr(body, "attempt", 0)) == (stage, attempt)

    return matches


def at(until: Callable[[Command], bool], quality: Any = always_good, **changes: Any) -> World:
    world = World(settings_of(**changes), quality=quality)
    assert until(world.run(until)), "the world never came there"
    return world


def next_body(world: World) -> Any:
    """What the rules do allow next."""
    command = next_command(world.state, world.settings)
    assert isinstance(command, Do | Note)
    return world.result(command.work) if isinstance(command, Do) else command.body


def refused(world: World, body: EventBody, why: str) -> None:
    state, stored = world.state, len(world.stored)
    with pytest.raises(IllegalEventError, match=why):
        world.append(body, "a lie")
    assert (world.state, len(world.stored)) == (state, stored)


def refused_person(world: World, body: ev.DecisionMade, why: str) -> None:
    with pytest.raises(IllegalEventError, match=why):
        world.append(body, "a lie", author=body.reviewer, person=True)


def changed(body: Any, **changes: Any) -> Any:
    return type(body).model_validate(body.model_dump() | changes)


def said(batch: str, item: int, rater: str, choice: Choice = Choice.FIRST) -> ev.LabelsRecorded:
    return ev.LabelsRecorded(batch=batch, labels=(Label(item=item, rater=rater, choice=choice),))


# --- the seal ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("queue", ["direction", "path", "creep_base", "creep_older", "audit", "checks"])
def test_no_label_before_the_whole_seal(queue: str) -> None:
    """Whatever is still unsealed, the gate's first label has to wait for it."""
    world = at(before_draw(f"s3.a0.{queue}"), **LATE)
    refused(world, said("s3.a0.gate", 0, "ann"), f"a label before everything is sealed: {queue}")
    attempt = world.state.open_attempt
    assert attempt is not None
    for batch in world.state.panels(attempt):
        rater = "gold" if batch.purpose is Purpose.AUDIT else "ann"
        refused(world, said(batch.id, 0, rater), f"a label before everything is sealed: {queue}")


def test_a_queue_drawn_behind_the_first_label_judges_nothing() -> None:
    """One that was left out, were it not required, could be chosen by what the first labels say."""
    world = at(asked_for("s0.a0.gate"))
    drawn = [event.body for event in world.events if isinstance(event.body, ev.ComparisonsDrawn)]
    world.answer(next_command(world.state, world.settings))
    direction = next(body for body in drawn if body.purpose is Purpose.DIRECTION)
    for purpose in (Purpose.CREEP_BASE, Purpose.CREEP_OLDER, Purpose.CHECKS):
        late = changed(direction, purpose=purpose, comparisons=OTHER, first_prompt=200)
        refused(world, late, "a label was asked before everything was sealed")


@pytest.mark.parametrize("queue", ["gate", "direction", "path", "creep_base", "creep_older"])
def test_a_seal_is_whole_new_and_about_this_candidate(queue: str) -> None:
    world = at(before_draw(f"s3.a0.{queue}"), **LATE)
    seal = next_body(world)
    refused(world, changed(seal, candidate=OTHER), "it questions another candidate")
    refused(world, changed(seal, candidate=None), "it questions another candidate")
    refused(world, changed(seal, reward_model=OTHER), "it questions another reward model")
    refused(world, changed(seal, reward_model=None), "it questions another reward model")
    refused(world, changed(seal, opponent=OTHER), "it compares with another checkpoint")
    refused(world, changed(seal, opponent=None), "it compares with another checkpoint")
    refused(world, changed(seal, p_hat=()), "the predictions belong to it")
    refused(world, changed(seal, p_hat=seal.p_hat[:-1]), "the predictions belong to it")
    refused(world, changed(seal, candidate_first=()), "the order belongs to it")
    refused(world, changed(seal, candidate_first=seal.candidate_first[:-1]), "the order belongs to it")
    refused(world, changed(seal, attempt=1), "stage 3 attempt 1 is not open")
    refused(world, changed(seal, stage=2, attempt=1), "stage 2 attempt 1 is not open")
    refused(world, changed(seal, stage=None), "it names no attempt")
    for earlier in world.state.batches:
        refused(world, changed(seal, comparisons=earlier.comparisons), "its comparisons are those of ")
    if queue == "path":
        refused(world, changed(seal, first_prompt=10_000), "its prompts belong to it")
    else:
        refused(world, changed(seal, first_prompt=None), "its prompts belong to it")
    if queue != "gate":
        refused(world, changed(seal, alpha=0.01), "only a gate spends alpha")
    world.append(seal, "the truth")
    refused(world, seal, f"batch s3.a0.{queue} is sealed already")


def test_a_weaker_opponent_is_not_the_approved_checkpoint() -> None:
    """To beat the base again is easy; a candidate must beat what it would replace."""
    world = at(before_draw("s1.a0.gate"))
    seal = next_body(world)
    assert seal.opponent == world.state.approved != world.state.base
    refused(world, changed(seal, opponent=world.state.base), "it compares with another checkpoint")


@pytest.mark.parametrize("queue", ["gate", "direction", "creep_base", "creep_older"])
def test_no_gate_prompt_serves_twice(queue: str) -> None:
    """Each range of prompts that any queue has used is refused to this one, whole or by one prompt."""
    world = at(before_draw(f"s3.a0.{queue}"), **LATE)
    seal = next_body(world)
    used = [batch for batch in world.state.batches if batch.purpose.judges and batch.first_prompt is not None]
    assert len(used) >= 8
    for batch in used:
        assert batch.first_prompt is not None
        last_of_theirs, just_into_them = batch.first_prompt + batch.count - 1, batch.first_prompt - seal.count + 1
        for first in {batch.first_prompt, last_of_theirs, max(just_into_them, 0)}:
            refused(world, changed(seal, first_prompt=first), "would serve twice")


def test_an_audit_looks_at_the_front_of_the_gates_queue_and_nowhere_else() -> None:
    world = at(before_draw("s0.a0.audit"))
    seal = next_body(world)
    gate = world.state.batch("s0.a0.gate")
    assert gate is not None
    swapped = tuple(not first for first in seal.candidate_first)
    elsewhere = "it audits something else than the front of the gate's queue"
    refused(world, changed(seal, comparisons=OTHER), elsewhere)
    refused(world, changed(seal, candidate_first=swapped), elsewhere)
    refused(world, changed(seal, candidate_first=gate.candidate_first[1 : seal.count + 1]), elsewhere)
    refused(world, changed(seal, opponent=OTHER), elsewhere)
    refused(world, changed(seal, count=seal.count + 1), "the order belongs to it")
    refused(world, changed(seal, candidate=OTHER), "it questions another candidate")
    direction = world.state.batch("s0.a0.direction")
    assert direction is not None
    refused(world, changed(seal, comparisons=direction.comparisons), elsewhere)
    world.append(seal, "the truth")


def test_checks_without_answers_check_nobody() -> None:
    world = at(before_draw("s0.a0.checks"), **LATE)
    seal = next_body(world)
    refused(world, changed(seal, expected=()), "a check item has no known answer")
    refused(world, changed(seal, expected=seal.expected[1:]), "a check item has no known answer")


# --- who labels ----------------------------------------------------------------------------------------------


def test_nobody_audits_what_they_labelled_nor_labels_what_they_audited() -> None:
    changes = {"feedback": {"rater": "people"}, "gate": {"audit": {"evaluator": "people", "limit": 0.3}}}
    world = at(asked_for("s0.a0.audit"), **changes)
    for item in (0, 29):
        refused(world, said("s0.a0.audit", item, "ann"), "ann cannot both label and audit")
    both = ev.LabelsRecorded(
        batch="s0.a0.audit",
        labels=tuple(Label(item=0, rater=rater, choice=Choice.TIE) for rater in (*AUDITORS, "ann")),
    )
    refused(world, both, "ann cannot both label and audit")
    world.append(said("s0.a0.audit", 0, "dee"), "dee audits")
    for queue in ("gate", "direction", "path"):
        refused(world, said(f"s0.a0.{queue}", 59, "dee"), "dee cannot both label and audit")


def test_the_tasks_gold_has_no_deputy() -> None:
    world = at(asked_for("s0.a0.audit"), feedback={"rater": "people"})
    refused(world, said("s0.a0.audit", 0, "dee"), "dee may not label s0.a0.audit")
    world.append(said("s0.a0.audit", 0, "gold"), "gold")


@pytest.mark.parametrize("batch", ["initial", "s0.a1.training", "s0.a0.gate", "s0.a1.gate", "s0.a1.path"])
def test_strangers_do_not_label(batch: str) -> None:
    """Where the raters are named, nobody else's word is taken: not on any batch, not late."""
    changes = {"feedback": {"rater": "people", "raters": ["Ann", "bob "]}}
    world = World(settings_of(**changes), quality=lambda stage, attempt: 0.9 if attempt else 0.4)
    world.run(asked_for("initial" if batch == "initial" else batch if batch != "s0.a0.gate" else "s0.a1.gate"))
    assert world.state.batch(batch) is not None
    for stranger in ("mallory", "Ann", "ann ", "gate", "simulated-0"):
        refused(world, said(batch, 3, stranger), f"{stranger} may not label {batch}")
    mixed_in = ev.LabelsRecorded(
        batch=batch, labels=tuple(Label(item=3, rater=rater, choice=Choice.FIRST) for rater in ("bob", "eve"))
    )
    refused(world, mixed_in, "eve may not label")
    sealed = world.state.batch(batch)
    assert sealed is not None
    item, drawn = next(
        (item, name)
        for item in range(sealed.count)
        for name in asked_by_name(sealed, item, world.settings) or ("bob",)
        if sealed.labels.of(item, name) is None
    )
    world.append(said(batch, item, drawn), "those drawn may, as names are recorded")


def test_the_lot_binds_the_ledger_too() -> None:
    """Of two named raters with one verdict an item, whoever was not drawn is not heard, however quick."""
    world = at(asked_for("s0.a0.gate"), feedback={"rater": "people", "raters": ["ann", "bob"]})
    gate = world.state.batch("s0.a0.gate")
    assert gate is not None
    for item in range(6):
        (drawn,) = asked_by_name(gate, item, world.settings) or ()
        (other,) = {"ann", "bob"} - {drawn}
        refused(world, said(gate.id, item, other), f"item {item} of s0.a0.gate is for {drawn}, by lot")


def test_named_raters_bind_neither_auditors_nor_simulated_raters() -> None:
    named = {"raters": ["ann"]}
    people = {"rater": "people", **named}
    world = World(settings_of(feedback=people, gate={"audit": {"evaluator": "people"}}), quality=always_good)
    world.run()
    assert world.state.advances == 2
    audited = [batch for batch in world.state.batches if batch.purpose is Purpose.AUDIT]
    assert {label.rater for batch in audited for label in batch.labels} == {"dee"}
    world = World(settings_of(feedback=named), quality=always_good)
    world.run()
    assert world.state.advances == 2


def test_a_rater_behind_on_check_items_is_not_heard() -> None:
    """One label in three is a check: the first is due before anything, the next before the third label, and so on."""
    feedback = {"rater": "people", "checks": {"items": 3, "every": 3}}
    world = at(asked_for("s0.a0.gate"), feedback=feedback)
    checks = world.state.batch("s0.a0.checks")
    assert checks is not None

    def answer(item: int) -> None:
        world.append(said(checks.id, item, "ann", checks.expected[item]), f"check {item}")

    item = 0
    for done in range(3):
        refused(world, said("s0.a0.gate", item, "ann"), "ann has 1 check items to answer first")
        answer(done)
        three = tuple(Label(item=item + i, rater="ann", choice=Choice.FIRST) for i in range(3))
        if done < 2:
            refused(world, ev.LabelsRecorded(batch="s0.a0.gate", labels=three), "ann has 1 check items to answer first")
        world.append(ev.LabelsRecorded(batch="s0.a0.gate", labels=three[:2]), f"two after {done}")
        item += 2
    rest = tuple(Label(item=i, rater="ann", choice=Choice.FIRST) for i in range(item, 50))
    world.append(ev.LabelsRecorded(batch="s0.a0.gate", labels=rest), "no check is left")
    refused(world, said("s0.a0.direction", 0, "bob"), "bob has 1 check items to answer first")


def test_a_stretch_of_labels_does_not_stand_on_one_check() -> None:
    world = at(asked_for("s0.a0.gate"), feedback={"rater": "people", "checks": {"items": 10, "every": 10}})
    checks = world.state.batch("s0.a0.checks")
    assert checks is not None
    world.append(said(checks.id, 0, "ann", checks.expected[0]), "one check")
    everything = tuple(Label(item=item, rater="ann", choice=Choice.FIRST) for item in range(100))
    refused(world, ev.LabelsRecorded(batch="s0.a0.gate", labels=everything), "ann has 9 check items to answer first")


@pytest.mark.parametrize("queue", ["gate", "direction", "path", "audit"])
def test_a_word_once_given_is_final(queue: str) -> None:
    """Neither taken back, nor given twice, nor given on an item that is not there; before the verdict and after it."""
    world = at(before(ev.VerdictGiven))
    batch = world.state.batch(f"s0.a0.{queue}")
    assert batch is not None
    first = batch.labels[0]
    for _ in range(2):
        for choice in Choice:
            again = said(batch.id, first.item, first.rater, choice)
            refused(world, again, f"{first.rater} has labelled item {first.item} of {batch.id} already")
        refused(world, said(batch.id, batch.count, first.rater), f"has no item {batch.count}")
        world.append(next_body(world), "verdict") if world.state.attempts[0].verdict is None else None
    assert world.state.attempts[0].verdict is not None


# --- alpha ---------------------------------------------------------------------------------------------------


def test_nobody_spends_alpha_that_is_not_there() -> None:
    world = at(before_draw("s0.a0.gate"))
    seal = next_body(world)
    for alpha in (0.2001, 0.5, 0.999):
        refused(world, changed(seal, alpha=alpha), f"bring the alpha spent to {alpha:.4f} of 0.2")
    refused(world, changed(seal, alpha=None), "alpha belongs to it")


@pytest.mark.parametrize("how", ["rollback", "pause and resume", "another controller", "restarted fold"])
def test_nothing_gives_alpha_back(how: str) -> None:
    """A refused attempt has spent its share of .1/3, and the next may have no more than its own, whatever happens."""
    world = at(before_draw("s0.a0.gate"), always_bad)
    refused(world, changed(next_body(world), alpha=0.2), "it spends 0.2 where an attempt's share is 0.0333")
    world.append(next_body(world), "s0.a0.gate.drawn")
    world.run(before(ev.AttemptBegun, 0, 1))
    assert world.state.attempts[0].rolled_back_to is not None
    match how:
        case "pause and resume":
            world.append(ev.Paused(why="night"), "paused")
            world.append(ev.Resumed(), "resumed")
        case "another controller":
            world.append(ev.ControllerStarted(owner="another"), "controller")
        case "restarted fold":
            world.state = fold(world.events)
    world.run(before_draw("s0.a1.gate"))
    assert world.state.alpha_spent == pytest.approx(0.1 / 3)
    seal = next_body(world)
    refused(world, changed(seal, alpha=0.2 / 3), "where an attempt's share is 0.0333")
    refused(world, changed(seal, alpha=0.19), "bring the alpha spent to 0.2233 of 0.2")
    assert seal.alpha == pytest.approx(0.1 / 3)


def test_a_gate_without_any_alpha_refuses_everything() -> None:
    world = at(before_draw("s0.a0.gate"))
    world.append(changed(next_body(world), alpha=0.0), "s0.a0.gate.drawn")
    world.run(before(ev.VerdictGiven))
    given = next_body(world)
    assert given.decision.verdict is Verdict.ROLLBACK
    assert given.decision.reasons == ("no error budget: alpha is 0.0",)


# --- training ------------------------------------------------------------------------------------------------


def learned(world: World, place: str, *batches: str) -> ev.RewardModelFitted:
    return changed(next_body(world), trained_on=("initial", *batches))


def test_a_reward_model_learns_from_no_audit_no_checks_and_no_batch_that_is_not_there() -> None:
    world = at(
        lambda c: isinstance(c, Do) and c.work.command_id == "s0.a1.reward_model",
        mixed,
        feedback={"checks": {"items": 4}},
    )
    for name in ("s0.a0.audit", "s0.a0.checks"):
        batch = world.state.batch(name)
        assert batch is not None
        assert batch.labels
        refused(world, learned(world, "s0.a1", name), f"the labels of {name} may not train")
    refused(world, learned(world, "s0.a1", "s0.a1.gate"), "was never sealed")
    unlabelled = "s0.a0.direction"
    refused(world, learned(world, "s0.a1", unlabelled), f"the labels of {unlabelled} may not train")
    world.append(learned(world, "s0.a1", "s0.a0.gate"), "behind its verdict, the gate's queue may")


def test_nothing_learns_from_the_gate_under_way() -> None:
    """Not before the seal, not while labels come in, not until the verdict stands; of instruments, not ever."""
    world = at(before(ev.VerdictGiven), feedback={"checks": {"items": 4}})
    attempt = world.state.attempts[0]
    assert attempt.fitted is not None
    for batch in world.state.panels(attempt):
        assert batch.labels
        assert not world.state.may_train(batch)
        refused(world, changed(attempt.fitted, trained_on=("initial", batch.id)), "has a candidate already")
    assert [batch.batch for batch in world.state.training_labels(1)] == ["initial"]
    world.append(next_body(world), "verdict")
    learnt = {batch.purpose.value for batch in world.state.panels(attempt) if world.state.may_train(batch)}
    assert learnt == {"gate", "direction", "path"}


def test_a_phase_without_a_reward_model_is_held_to_the_same() -> None:
    world = at(
        lambda c: isinstance(c, Do) and c.work.command_id == "s0.a1.phase",
        mixed,
        protocol={"reward_model": "none"},
        phase={"algorithm": "dpo"},
        feedback={"checks": {"items": 4}},
    )
    phase = next_body(world)
    assert set(phase.trained_on) == {"initial", "s0.a0.gate", "s0.a1.training"}
    for name in ("s0.a0.audit", "s0.a0.checks", "s0.a0.direction"):
        refused(world, changed(phase, trained_on=(*phase.trained_on, name)), f"the labels of {name} may not train")
    world.append(phase, "the truth")


# --- verdicts ------------------------------------------------------------------------------------------------


def at_verdict(stage: int = 0, quality: Any = always_good, **changes: Any) -> tuple[World, ev.VerdictGiven]:
    world = at(before(ev.VerdictGiven, stage), quality, **changes)
    body = next_body(world)
    assert isinstance(body, ev.VerdictGiven)
    return world, body


def claiming(given: ev.VerdictGiven, **changes: Any) -> ev.VerdictGiven:
    return given.model_copy(update={"decision": given.decision.model_copy(update=changes)})


def test_a_verdict_leaves_out_no_queue_and_no_test() -> None:
    """At the fourth stage, with every queue there is."""
    world, given = at_verdict(3, **LATE)
    decision = given.decision
    assert decision.verdict is Verdict.ADVANCE
    assert [panel.purpose.value for panel in decision.panels] == list(QUEUES[:-1])
    for panel in decision.panels:
        others = tuple(kept for kept in decision.panels if kept is not panel)
        refused(world, claiming(given, panels=others), "it rests on other labels than were recorded")
    assert len(decision.tests) == 9
    for test in decision.tests:
        rest = tuple(kept for kept in decision.tests if kept is not test)
        refused(world, claiming(given, tests=rest), f"it leaves out {test.name}$")
        failed = tuple(changed(kept, passed=kept is not test) for kept in decision.tests)
        refused(world, claiming(given, tests=failed), "not every test was passed")
    world.append(given, "the truth")


@pytest.mark.parametrize("place", range(6))
def test_a_verdict_rests_on_labels_that_are_there(place: int) -> None:
    world, given = at_verdict(3, **LATE)
    panel = given.decision.panels[place]
    batch = world.state.batch(f"s3.a0.{panel.purpose.value}")
    assert batch is not None
    settled = batch.settled(1)
    for labels in (0, settled + 1, batch.count + 1):
        claim = tuple(
            changed(kept, labels=labels) if kept is panel else kept  # the others as they are
            for kept in given.decision.panels
        )
        refused(world, claiming(given, panels=claim), "it rests on other labels than were recorded")


def test_a_verdict_does_not_jump_a_gap() -> None:
    """Ninety-nine items are labelled, and the one that is missing stands first."""
    _, given = at_verdict(feedback={"rater": "people"})
    world = at(asked_for("s0.a0.gate"), feedback={"rater": "people"})
    gate = world.state.batch("s0.a0.gate")
    assert gate is not None
    labels = tuple(
        Label(item=item, rater="ann", choice=Choice.FIRST if gate.candidate_first[item] else Choice.SECOND)
        for item in range(1, 100)
    )
    world.append(ev.LabelsRecorded(batch=gate.id, labels=labels), "all but one")
    for queue in ("direction", "path"):
        batch = world.state.batch(f"s0.a0.{queue}")
        assert batch is not None
        whole = tuple(Label(item=item, rater="ann", choice=Choice.FIRST) for item in range(batch.count))
        world.append(ev.LabelsRecorded(batch=batch.id, labels=whole), queue)
    refused(world, given, "the labels say otherwise: 0 of at most 100 labels so far")


def test_half_the_raters_are_no_verdict() -> None:
    """Two raters an item, of whom one has spoken."""
    _, given = at_verdict(feedback={"raters_per_item": 2})
    world = at(asked_for("s0.a0.gate"), feedback={"rater": "people", "raters_per_item": 2})
    for queue in ("gate", "direction", "path"):
        batch = world.state.batch(f"s0.a0.{queue}")
        assert batch is not None
        whole = tuple(Label(item=item, rater="ann", choice=Choice.FIRST) for item in range(batch.count))
        world.append(ev.LabelsRecorded(batch=batch.id, labels=whole), queue)
    forged = given.model_copy(update={"candidate": world.state.attempts[0].candidate})
    refused(world, forged, "the labels say otherwise: 0 of at most 100 labels so far")


def test_a_verdict_is_on_this_candidate_by_this_method_at_this_alpha() -> None:
    world, given = at_verdict()
    refused(world, given.model_copy(update={"candidate": OTHER}), "the verdict is on another candidate")
    refused(world, given.model_copy(update={"candidate": None}), "the verdict is on another candidate")
    refused(world, given.model_copy(update={"candidate": world.state.base}), "the verdict is on another candidate")
    refused(world, given.model_copy(update={"attempt": 1}), "stage 0 attempt 1 is not open")
    for alpha in (None, 0.2, math.nextafter(given.decision.alpha or 0.0, 1.0)):
        refused(world, claiming(given, alpha=alpha), "another alpha than was sealed")
    refused(world, claiming(given, method=Method.WILSON), "weighs evidence by another method")
    refused(world, claiming(given, verdict=Verdict.WAIT), "to wait is no verdict")


def test_an_advance_while_a_veto_stands() -> None:
    world, given = at_verdict()
    refused(world, claiming(given, vetoes=("the samples are twice as long",)), "a veto stands")


def flagged(batch: Any, item: int, rater: str) -> Label | None:
    """Candidate's wins, of which every fifth is harmful."""
    if batch.purpose is not Purpose.GATE:
        return None
    first = batch.candidate_first[item]
    return Label(
        item=item,
        rater=rater,
        choice=Choice.FIRST if first else Choice.SECOND,
        harm=(Harm.FIRST if first else Harm.SECOND) if item % 5 == 0 else None,
    )


def longer(body: EventBody) -> EventBody:
    gate = isinstance(body, ev.ComparisonsDrawn) and body.purpose is Purpose.GATE
    return changed(body, candidate_tokens_mean=30.0) if gate else body


def further(body: EventBody) -> EventBody:
    return changed(body, kl_nats=9.0) if isinstance(body, ev.PhaseFinished) else body


LENGTH = {"length_ratio": 2.0}
TRIPWIRE = {"tripwires": [{"name": "praise", "pattern": "great", "increase": 0.1}]}


@pytest.mark.parametrize(
    ("veto", "vetoes", "options"),
    [
        ("flagged as harmful", {}, {"rater_says": flagged}),
        ("over 2 times as long", LENGTH, {"amend": longer}),
        ("tripwire praise in 50.0%", TRIPWIRE, {}),
        ("sequence KL 9.00 nats", {}, {"amend": further}),
    ],
)
def test_a_veto_is_not_passed_over_in_silence(veto: str, vetoes: dict[str, Any], options: dict[str, Any]) -> None:
    """The machine vetoes; a ledger that says nothing of it, on the best of labels, is refused."""
    world = World(settings_of(gate={"vetoes": vetoes}), quality=always_good, **options)
    world.run(before(ev.VerdictGiven))
    given = next_body(world)
    assert given.decision.verdict is Verdict.ROLLBACK
    assert any(veto in told for told in given.decision.vetoes)

    blind = World(
        settings_of(gate={"vetoes": {"kl_overrun": None, "harm_increase": None}}), quality=always_good, **options
    )
    blind.run(before(ev.VerdictGiven))
    passing = next_body(blind)
    assert passing.decision.verdict is Verdict.ADVANCE
    seals = [event for event in blind.events if not isinstance(event.body, ev.CampaignCreated)]
    forged = World(settings_of(gate={"vetoes": vetoes}), quality=always_good)
    for event in seals:
        body = event.body
        if isinstance(body, ev.ComparisonsDrawn) and body.purpose is Purpose.GATE and vetoes == TRIPWIRE:
            rate = ev.TripwireRate(name="praise", candidate=0.5, opponent=0.1)
            body = changed(body, tripwires=(rate.model_dump(),))
        forged.append(body, f"forged.{event.seq}")
    refused(forged, passing, f"a veto is left out: .*{veto}")


def test_a_tripwire_not_measured_is_a_veto() -> None:
    world = World(
        settings_of(gate={"vetoes": TRIPWIRE}),
        quality=always_good,
        amend=lambda body: changed(body, tripwires=()) if isinstance(body, ev.ComparisonsDrawn) else body,
    )
    world.run(before(ev.VerdictGiven))
    assert next_body(world).decision.vetoes == ("tripwire praise was not measured",)


def clicks(batch: Any, item: int, rater: str) -> Choice | None:
    """Ann says `first` to everything she is asked about as a check."""
    return Choice.TIE if batch.purpose is Purpose.CHECKS and rater == "ann" else None


def test_failing_check_items_carry_no_verdict() -> None:
    world = World(
        settings_of(feedback={"rater": "people", "checks": {"items": 4}}), quality=always_good, rater_says=clicks
    )
    world.run(before(ev.VerdictGiven))
    _, given = at_verdict(feedback={"rater": "people", "checks": {"items": 4}})
    forged = given.model_copy(update={"candidate": world.state.attempts[0].candidate})
    assert forged.decision.verdict is Verdict.ADVANCE
    refused(world, claiming(forged, panels=()), "the labels say otherwise")
    honest = World(settings_of(feedback={"rater": "people", "checks": {"items": 4}}), quality=always_good)
    honest.run(before(ev.VerdictGiven))
    checks = honest.state.batch("s0.a0.checks")
    assert checks is not None
    wrong = {Choice.FIRST: Choice.SECOND, Choice.SECOND: Choice.FIRST}
    done = len(checks.labels)
    honest.append(said(checks.id, done % 4, "bob", wrong[checks.expected[done % 4]]), "bob fails")
    refused(honest, next_passing(given, honest), "rater bob failed 1 of 1 check items")


def next_passing(given: ev.VerdictGiven, world: World) -> ev.VerdictGiven:
    return given.model_copy(update={"candidate": world.state.attempts[0].candidate})


def test_an_evaluation_is_not_repeated_until_it_suits() -> None:
    """Gold seen again could be unseen: without it, nobody would audit."""
    world = at(lambda c: isinstance(c, AskForDecision))
    evaluated = [event.body for event in world.events if isinstance(event.body, ev.Evaluated)]
    base, candidate = (changed(body, gold_mean=None, gold_se=None) for body in evaluated)
    refused(world, base, "the base is evaluated already")
    refused(world, candidate, "the candidate is evaluated already")


def test_an_audit_that_can_refuse_is_not_lost_with_gold() -> None:
    """A ledger without the base's evaluation, where nobody would know of a better evaluator."""
    world = World(settings_of(gate={"audit": {"limit": 0.3}}, evaluation={"prompts": 0}), quality=always_good)
    world.run(before(ev.VerdictGiven))
    assert world.state.base_evaluation is None
    assert next_body(world).decision.tests[-1].name == "audit"
    given = next_body(world)
    without = tuple(panel for panel in given.decision.panels if panel.purpose is not Purpose.AUDIT)
    refused(world, claiming(given, panels=without), "it rests on other labels than were recorded")


# --- decisions and what comes late ---------------------------------------------------------------------------


def test_a_decision_is_on_this_digest_once_by_a_person_and_behind_the_verdict() -> None:
    world, given = at_verdict()
    approve = ev.DecisionMade(candidate=given.candidate or "", decision=Decision.APPROVE, reviewer="ann")
    refused(world, approve, "the gate has not passed this candidate")
    world.append(given, "verdict")
    for digest in (OTHER, world.state.base, world.state.reward_model):
        refused(world, changed(approve, candidate=digest), "is not the candidate under review")
    for reviewer in ("gate", "protocol"):
        refused(world, changed(approve, reviewer=reviewer), "decides nothing")
    advanced = ev.Advanced(stage=0, attempt=0, approved=approve.candidate, parent=world.state.attempts[0].start)
    refused(world, advanced, "no decision approves this digest: 1 missing")
    refused(world, approve, "a controller cannot decide for a person")
    world.append(changed(approve, decision=Decision.REJECT), "ann rejects", author="ann", person=True)
    refused_person(world, approve, "ann has decided already")
    refused_person(world, changed(approve, reviewer="bob"), "another reviewer has rejected it")
    refused(world, advanced, "a reviewer rejected this digest")


def test_what_is_done_is_not_undone() -> None:
    """A second verdict, a second seal, a rollback behind an advance, an advance behind a rollback."""
    world, given = at_verdict()
    world.append(given, "verdict")
    undo = GateVerdict(verdict=Verdict.ROLLBACK, reasons=("on second thoughts",))
    refused(world, given.model_copy(update={"decision": undo}), "the verdict stands already")
    approve = ev.DecisionMade(candidate=given.candidate or "", decision=Decision.APPROVE, reviewer="ann")
    world.append(approve, "ann", author="ann", person=True)
    start = world.state.attempts[0].start
    advanced = ev.Advanced(stage=0, attempt=0, approved=approve.candidate, parent=start)
    world.append(advanced, "advanced")
    back = ev.RolledBack(stage=0, attempt=0, to=start, quarantined=approve.candidate, why="undo")
    refused(world, back, "stage 0 attempt 0 is not open")
    refused(world, advanced, "stage 0 attempt 0 is not open")
    refused(world, ev.BaseReady(checkpoint=OTHER, parameters=1, costs=Costs()), "there is a base already")

    bad, refusal = at_verdict(quality=always_bad)
    assert refusal.decision.verdict is Verdict.ROLLBACK
    bad.append(refusal, "verdict")
    passed = claiming(refusal, verdict=Verdict.ADVANCE)
    refused(bad, passed, "the verdict stands already")
    late = ev.Advanced(stage=0, attempt=0, approved=refusal.candidate or "", parent=bad.state.attempts[0].start)
    refused(bad, late, "the gate has not passed it")
    bad.run(before(ev.AttemptBegun, 0, 1))
    refused(bad, late, "stage 0 attempt 0 is not open")
    refused(bad, next_refused(bad), "sealed already")


def next_refused(world: World) -> ev.ComparisonsDrawn:
    """The gate of the attempt that was refused, drawn again for another try."""
    return next(
        changed(event.body, comparisons=OTHER, first_prompt=5000)
        for event in world.events
        if isinstance(event.body, ev.ComparisonsDrawn) and event.body.purpose is Purpose.GATE
    )


@pytest.mark.parametrize("quality", [always_good, always_bad], ids=["passed", "refused"])
def test_labels_behind_the_verdict_change_nothing_but_the_count(quality: Any) -> None:
    """Every item of every queue gets another word from somebody else, and the campaign goes on as if nothing was."""
    calm, late = (at(before(ev.VerdictGiven), quality) for _ in range(2))
    for world in (calm, late):
        world.append(next_body(world), "verdict")
    for queue in ("gate", "direction", "path"):
        batch = late.state.batch(f"s0.a0.{queue}")
        assert batch is not None
        words = tuple(
            Label(item=item, rater="zoe", choice=Choice.BOTH_BAD, harm=Harm.BOTH) for item in range(batch.count)
        )
        late.append(ev.LabelsRecorded(batch=batch.id, labels=words), f"late {queue}")
    for world in (calm, late):
        world.run(lambda c: isinstance(c, Note) and isinstance(c.body, ev.Advanced | ev.RolledBack))
    assert late.state.attempts == calm.state.attempts
    assert next_command(late.state, late.settings) == next_command(calm.state, calm.settings)
    assert late.state.alpha_spent == calm.state.alpha_spent
    assert late.state.labels.gate == calm.state.labels.gate + 220


def test_late_words_on_an_approved_gate_do_not_hide_what_comes_next() -> None:
    """Were late `both bad` labels to count for the approved policy, a candidate as bad would not stand out."""

    def gets_worse(batch: Any, item: int, rater: str) -> Choice | None:
        bad = batch.purpose is Purpose.GATE and batch.stage == 1 and item % 4 == 0
        return Choice.BOTH_BAD if bad else None

    for flood in (False, True):
        world = World(settings_of(), quality=always_good, rater_says=gets_worse)
        world.run(before(ev.AttemptBegun, 1, 0))
        if flood:
            words = tuple(Label(item=item, rater="zoe", choice=Choice.BOTH_BAD) for item in range(100))
            world.append(ev.LabelsRecorded(batch="s0.a0.gate", labels=words), "flood")
        world.run(before(ev.VerdictGiven, 1, 0))
        given = next_body(world)
        assert given.decision.verdict is Verdict.ROLLBACK
        assert "against 0.0% when the approved policy was compared" in given.decision.vetoes[0]


def test_a_history_cut_short_or_doubled_is_none() -> None:
    """Any single event left out or told twice: refused, or it leads to another state."""
    world = World(settings_of(), quality=mixed)
    world.run()
    events = world.events
    whole = state_digest(world.state)
    refusals = 0
    for at_place, event in enumerate(events):
        for history in (
            [*events[:at_place], *events[at_place + 1 :]],
            [*events[: at_place + 1], event, *events[at_place + 1 :]],
        ):
            try:
                state = fold(history)
            except IllegalEventError:
                refusals += 1
            else:
                assert state_digest(state) != whole
    assert refusals >= 1.7 * len(events)


# --- late words, and verdicts that lie consistently ---------------------------------------------------------


def ten_labels_in() -> tuple[World, Any]:
    """A gate of people, audited by people without a say, with ten labels for the candidate."""
    further = {"direction": None, "path": None, "creep": None, "audit": {"evaluator": "people", "labels": 30}}
    world = World(
        settings_of(
            feedback={"rater": "people", "label_deadline_hours": 1}, gate=further, protocol={"stages": 1, "attempts": 1}
        ),
        quality=always_good,
    )
    world.run(lambda command: isinstance(command, AskForLabels) and command.batch.purpose is Purpose.GATE)
    batch = world.state.batch("s0.a0.gate")
    assert batch is not None
    world.append(words_for_the_candidate(batch, range(10), "ann"), "early", author="ann", person=True)
    return world, batch


def words_for_the_candidate(batch: Any, items: Any, rater: str) -> ev.LabelsRecorded:
    sides = {True: Choice.FIRST, False: Choice.SECOND}
    return ev.LabelsRecorded(
        batch=batch.id, labels=tuple(Label(item=i, rater=rater, choice=sides[batch.candidate_first[i]]) for i in items)
    )


def test_words_behind_the_deadline_do_not_turn_a_refusal() -> None:
    """The audit, which decides nothing, keeps the verdict waiting; ninety late wins arrive meanwhile."""
    world, batch = ten_labels_in()
    world.append(ev.FeedbackExpired(batch=batch.id), "expired")
    world.append(words_for_the_candidate(batch, range(10, 100), "eve"), "late", author="eve", person=True)
    world.run(before(ev.VerdictGiven))
    given = next_body(world)
    assert given.decision.verdict is Verdict.ROLLBACK
    assert given.decision.labels - given.decision.skipped == 10, "the others never came"


def test_a_deadline_passes_without_a_controller_that_says_so() -> None:
    """Two hours later under a deadline of one: whoever delays the controller gains nothing."""
    world, batch = ten_labels_in()
    late = words_for_the_candidate(batch, range(10, 100), "ann")
    world.seconds = 3600.0  # the clock is the number of events times this
    world.append(late, "late", author="ann", person=True)
    world.run(before(ev.VerdictGiven))
    assert next_body(world).decision.verdict is Verdict.ROLLBACK
    kept = world.state.batch(batch.id)
    assert kept is not None
    assert (len(kept.labels), kept.expired_after) == (100, 10), "kept to train, and judging nothing"


def test_a_verdict_that_lies_consistently_is_held_against_the_labels() -> None:
    """One label, lost, told as a gate passed with every test; also under another rule's name."""
    world = World(
        settings_of(
            feedback={"rater": "people"},
            gate={"audit": {"evaluator": "none"}},
            protocol={"stages": 1, "attempts": 1},
        ),
        quality=always_bad,
    )
    world.run(lambda command: isinstance(command, AskForLabels) and command.batch.purpose is Purpose.GATE)
    batch, attempt = world.state.batch("s0.a0.gate"), world.state.open_attempt
    assert batch is not None
    assert attempt is not None
    lost = Choice.SECOND if batch.candidate_first[0] else Choice.FIRST
    for item in (0, 1):  # the second makes the first final
        word = ev.LabelsRecorded(batch=batch.id, labels=(Label(item=item, rater="ann", choice=lost),))
        world.append(word, f"word {item}", author="ann", person=True)
    tests = tuple(
        TestResult(
            name=name, labels=0, cap=1, estimate=None, bound=-5.0, limit=9.0, log_e_value=99.0, log_threshold=0.0,
            passed=True,
        )
        for name in ("improvement", "over_promise", "over_promise_top_half")
    )  # fmt: skip
    told = GateVerdict(
        verdict=Verdict.ADVANCE,
        reasons=(),
        alpha=batch.alpha,
        panels=(PanelResult(purpose=Purpose.GATE, labels=1, skipped=0),),
        tests=tests,
    )
    verdict = ev.VerdictGiven(stage=0, attempt=0, candidate=attempt.candidate, decision=told)
    refused(world, verdict, "the labels say otherwise: 1 of at most 100 labels so far")
    other = verdict.model_copy(update={"decision": told.model_copy(update={"rule": 0})})
    refused(world, other, "a rule that is not known here")


def test_a_queue_has_the_length_that_the_campaign_asks_for() -> None:
    world = at(before_draw("s0.a0.gate"))
    seal = next_body(world)
    short = changed(seal, count=5, candidate_first=seal.candidate_first[:5], p_hat=seal.p_hat[:5])
    refused(world, short, "its queue has 5 items, the campaign asks for 100")


def test_people_do_not_rate_where_raters_are_simulated() -> None:
    world = at(lambda command: isinstance(command, Do) and command.work.command_id.startswith("s0.a0.gate.rated"))
    batch = world.state.batch("s0.a0.gate")
    assert batch is not None
    body = words_for_the_candidate(batch, range(3), "ann")
    with pytest.raises(IllegalEventError, match="is rated by simulated, not by people"):
        world.append(body, "people", author="ann", person=True)
