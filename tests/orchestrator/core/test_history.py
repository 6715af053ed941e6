"""Folding: what the rules refuse, wherever a history came from, and what it keeps apart."""

from collections.abc import Callable
from typing import Any

import pytest
from fake_world import World, always_good, mixed, settings_of

from orchestrator.core import events as ev
from orchestrator.core.commands import AskForDecision, AskForLabels, Command, Do, Note
from orchestrator.core.gate import GateVerdict
from orchestrator.core.history import fold
from orchestrator.core.records import Choice, Costs, Decision, EndedBy, Label, Purpose, Status, Verdict
from orchestrator.core.rules import IllegalEventError
from orchestrator.core.work import RunPhase

OTHER = "e" * 64
THIRD = "f" * 64


def is_about_to(kind: type[ev.EventBody], stage: int = 0, attempt: int = 0) -> Callable[[Command], bool]:
    """The machine is about to record an event of this kind on this attempt."""

    def matches(command: Command) -> bool:
        if not isinstance(command, Note) or not isinstance(command.body, kind):
            return False
        place = (getattr(command.body, "stage", stage), getattr(command.body, "attempt", attempt))
        return place == (stage, attempt)

    return matches


def world_at(until: Callable[[Command], bool], quality: Any = always_good, **changes: Any) -> tuple[World, Any]:
    """A world stopped before that command; with it, the body or command that the rules do allow."""
    world = World(settings_of(**changes), quality=quality)
    command = world.run(until)
    assert until(command), "the world never came there"
    match command:
        case Note(body, _):
            return world, body
        case Do(work):
            return world, world.result(work)
        case _:
            return world, command


def phase_of(stage: int, attempt: int) -> Callable[[Command], bool]:
    return lambda c: isinstance(c, Do) and c.work.command_id == f"s{stage}.a{attempt}.phase"


def draw_of(batch: str) -> Callable[[Command], bool]:
    return lambda c: isinstance(c, Do) and c.work.command_id == f"{batch}.drawn"


def refused(world: World, body: ev.EventBody, why: str) -> None:
    """The event is refused for that reason, and the state is what it was."""
    before = world.state
    with pytest.raises(IllegalEventError, match=why):
        world.append(body, "illegal")
    assert world.state is before


def changed(body: Any, **changes: Any) -> Any:
    return type(body).model_validate(body.model_dump() | changes)


# --- beginnings ----------------------------------------------------------------------------------------------


def test_nothing_happens_before_a_campaign_is_created() -> None:
    world = World(settings_of())
    started = ev.ControllerStarted(owner="somebody")
    world.append(started, "start")
    with pytest.raises(IllegalEventError, match="before the campaign was created"):
        fold(world.events[1:])


def test_a_campaign_is_created_once_and_has_one_base() -> None:
    world, _ = world_at(is_about_to(ev.AttemptBegun))
    refused(world, world.events[0].body, "a campaign is created once")
    refused(world, world.events[1].body, "there is a base already")


def test_the_base_evaluated_is_this_base() -> None:
    world = World(settings_of())
    body = world.run(lambda c: isinstance(c, Do) and c.work.command_id == "base.evaluated")
    assert isinstance(body, Do)
    refused(world, changed(world.result(body.work), checkpoint=OTHER), "it evaluates another base")


def test_the_initial_batch_needs_a_base_and_no_attempt() -> None:
    world, drawn = world_at(draw_of("initial"))
    refused(world, changed(drawn, stage=0, attempt=0), "belongs to no attempt")
    refused(World(settings_of()), drawn, "there is no base")
    world.append(drawn, "drawn")
    refused(world, drawn, "batch initial is sealed already")


# --- attempts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("restart_from", ["approved", "base", "last"])
@pytest.mark.parametrize(("stage", "attempt"), [(0, 0), (0, 1), (1, 0)])
def test_an_attempt_begins_nowhere_else(restart_from: str, stage: int, attempt: int) -> None:
    world, begun = world_at(
        is_about_to(ev.AttemptBegun, stage, attempt), mixed if attempt else always_good_but_first, **_from(restart_from)
    )
    others = {world.state.base, world.state.approved, world.state.last_candidate, OTHER} - {begun.start, None}
    for other in others:
        refused(world, changed(begun, start=other), "begin from another checkpoint")
    world.append(begun, "begun")


def always_good_but_first(stage: int, attempt: int) -> float | None:
    """A failed attempt in stage 0, so that base, approved and last candidate differ at its end."""
    return mixed(0, attempt) if stage == 0 else 0.9


def _from(restart_from: str) -> dict[str, Any]:
    return {"protocol": {"restart_from": restart_from}}


def test_attempts_come_in_order() -> None:
    world, begun = world_at(is_about_to(ev.AttemptBegun, 0, 1), mixed)
    for place in [(0, 0), (0, 2), (1, 0), (1, 1)]:
        refused(world, changed(begun, stage=place[0], attempt=place[1]), r"expected attempt \(0, 1\)")
    world.append(begun, "begun")
    refused(world, changed(begun, attempt=2), "an attempt is still open")


def test_no_attempt_before_the_base_nor_beyond_the_protocol() -> None:
    refused(World(settings_of()), ev.AttemptBegun(stage=0, attempt=0, start=OTHER), "no base to begin from")
    world, _ = world_at(is_about_to(ev.Finished), lambda stage, attempt: None)
    assert world.state.base is not None
    beyond = ev.AttemptBegun(stage=0, attempt=3, start=world.state.base)
    refused(world, beyond, "stages or attempts are used up")


def test_a_reward_model_carried_over_is_the_last_one() -> None:
    world, begun = world_at(is_about_to(ev.AttemptBegun, 0, 1), mixed, protocol={"reward_model": "frozen"})
    refused(world, changed(begun, reward_model=OTHER), "not the last one")


def test_an_attempt_has_one_reward_model() -> None:
    world, _ = world_at(phase_of(0, 0))
    fitted = world.state.attempts[0].fitted
    assert fitted is not None
    refused(world, changed(fitted, reward_model=OTHER), "has its reward model already")
    refused(world, changed(fitted, attempt=1), "stage 0 attempt 1 is not open")


def test_a_phase_begins_from_its_attempts_checkpoint_with_its_reward_model() -> None:
    world, finished = world_at(phase_of(0, 0))
    refused(world, changed(finished, start=OTHER), "began from another checkpoint")
    refused(world, changed(finished, stage=1), "stage 1 attempt 0 is not open")
    unready, _ = world_at(lambda c: isinstance(c, Do) and c.work.command_id == "s0.a0.reward_model")
    refused(unready, finished, "no reward model was frozen")
    world.append(finished, "finished")
    refused(world, changed(finished, candidate=OTHER), "has a candidate already")
    refused(world, ev.PhaseFailed(stage=0, attempt=0, why="late"), "has a candidate already")


def test_a_rollback_that_did_not_restore_the_same_bytes_is_refused() -> None:
    world, finished = world_at(phase_of(0, 1), mixed)
    refused(world, changed(finished, start_digest=OTHER), "differs from what it was before")
    world.append(finished, "finished")


def test_what_promised_something_is_questioned_about_it() -> None:
    """No ledger can take the promise away from DPO, whose candidate is its own reward model, or from a gate's seal."""
    without = {"protocol": {"reward_model": "none"}, "phase": {"algorithm": "dpo"}}
    world, phase = world_at(phase_of(0, 0), **without)
    assert phase.implicit_reward is not None
    refused(world, phase.model_copy(update={"implicit_reward": None}), "does not fit its algorithm")
    elsewhere = phase.implicit_reward.model_copy(update={"stage": 7, "attempt": 3})
    refused(world, phase.model_copy(update={"implicit_reward": elsewhere}), "promises for another attempt")
    world, seal = world_at(draw_of("s0.a0.gate"), **without)
    refused(world, seal.model_copy(update={"p_hat": ()}), "the seal is not whole")
    refused(world, seal.model_copy(update={"reward_model": None, "p_hat": ()}), "another reward model")

    world, phase = world_at(phase_of(0, 0), protocol={"reward_model": "none"}, phase={"algorithm": "labels"})
    invented = ev.RewardModelFitted(
        stage=0,
        attempt=0,
        reward_model=OTHER,
        label_set=OTHER,
        labels=1,
        accuracy=1.0,
        accuracy_low=0.9,
        accuracy_high=1.0,
        log_loss_nats=0.1,
        temperature=1.0,
        costs=Costs(),
    )
    refused(world, invented, "no use for one")
    refused(world, phase.model_copy(update={"implicit_reward": invented}), "does not fit its algorithm")

    world, phase = world_at(phase_of(0, 0))
    refused(world, phase.model_copy(update={"implicit_reward": invented}), "frozen before it")


def test_a_failed_phase_has_no_candidate_afterwards() -> None:
    world, _ = world_at(is_about_to(ev.VerdictGiven), lambda stage, attempt: None)
    attempt = world.state.attempts[0]
    late = ev.PhaseFinished(
        stage=0,
        attempt=0,
        candidate=OTHER,
        start=attempt.start,
        start_digest=THIRD,
        rollouts=THIRD,
        steps=1,
        stopped_by="steps",
        proxy=0.0,
        kl_nats=0.0,
        costs=Costs(),
    )
    refused(world, late, "the attempt's phase has ended")
    refused(world, ev.PhaseFailed(stage=0, attempt=0, why="again"), "the attempt's phase has ended")


def test_the_candidate_evaluated_is_this_candidate() -> None:
    world, evaluated = world_at(lambda c: isinstance(c, Do) and c.work.command_id == "s0.a0.evaluated")
    refused(world, changed(evaluated, checkpoint=OTHER), "it evaluates another candidate")


# --- the gate ------------------------------------------------------------------------------------------------


def test_a_gate_is_sealed_whole_and_on_its_own_candidate() -> None:
    world, drawn = world_at(draw_of("s0.a0.gate"))
    refused(world, changed(drawn, candidate=OTHER), "it questions another candidate")
    refused(world, changed(drawn, reward_model=OTHER), "it questions another reward model")
    refused(world, changed(drawn, alpha=None), "the seal is not whole")
    refused(world, changed(drawn, p_hat=drawn.p_hat[1:]), "the seal is not whole")
    refused(world, changed(drawn, candidate_first=()), "the seal is not whole")
    refused(world, changed(drawn, count=99), "the seal is not whole")
    refused(world, changed(drawn, attempt=1), "attempt 1 is not open")
    refused(world, changed(drawn, attempt=None), "it names no attempt")
    refused(world, changed(drawn, alpha=0.21), "bring the alpha spent to 0.2100 of 0.2")
    refused(world, changed(drawn, purpose=Purpose.TRAINING), "only a gate spends alpha")
    world.append(drawn, "drawn")
    refused(world, drawn, "sealed already")


def test_a_gate_is_not_sealed_before_its_candidate_exists() -> None:
    world, drawn = world_at(draw_of("s0.a0.gate"))
    early, _ = world_at(lambda c: isinstance(c, Do) and isinstance(c.work, RunPhase))
    refused(early, changed(drawn, candidate=None), "there is no candidate")
    assert world.state.attempts[0].candidate == drawn.candidate


def test_a_gate_is_not_sealed_behind_its_verdict() -> None:
    world, drawn = world_at(draw_of("s0.a0.gate"))
    given_up = GateVerdict(verdict=Verdict.ROLLBACK, reasons=("the sampler broke",))
    world.append(ev.VerdictGiven(stage=0, attempt=0, candidate=drawn.candidate, decision=given_up), "verdict")
    refused(world, drawn, "the verdict stands already")


def test_no_phase_behind_a_verdict() -> None:
    world, finished = world_at(phase_of(0, 0))
    given_up = GateVerdict(verdict=Verdict.ROLLBACK, reasons=("the machine broke",))
    world.append(ev.VerdictGiven(stage=0, attempt=0, candidate=None, decision=given_up), "verdict")
    refused(world, finished, "the attempt's phase has ended")


def test_labels_go_to_items_that_exist_once_a_rater() -> None:
    world = World(settings_of(feedback={"rater": "people"}))
    ask = world.run(lambda c: isinstance(c, AskForLabels))
    assert isinstance(ask, AskForLabels)
    said = Label(item=0, rater="ann", choice=Choice.FIRST)
    refused(world, ev.LabelsRecorded(batch="nonsense", labels=(said,)), "'nonsense' was never sealed")
    refused(world, ev.LabelsRecorded(batch="s0.a0.gate", labels=(said,)), "was never sealed")
    refused(world, ev.LabelsRecorded(batch="initial", labels=(said, said)), "ann has labelled item 0")
    beyond = Label(item=12, rater="ann", choice=Choice.FIRST)
    refused(world, ev.LabelsRecorded(batch="initial", labels=(beyond,)), "has no item 12")
    world.append(ev.LabelsRecorded(batch="initial", labels=(said,)), "first")
    again = Label(item=0, rater="ann", choice=Choice.SECOND)
    refused(world, ev.LabelsRecorded(batch="initial", labels=(again,)), "ann has labelled item 0 of initial already")
    refused(world, ev.FeedbackExpired(batch="s0.a0.gate"), "was never sealed")


def test_agreement_with_gold_adds_up_over_stretches_and_people_have_none() -> None:
    world = World(settings_of(feedback={"rater": "people"}))
    world.run(lambda c: isinstance(c, AskForLabels))
    said = [Label(item=item, rater="ann", choice=Choice.FIRST) for item in range(12)]
    too_many = ev.LabelsRecorded(batch="initial", labels=tuple(said[:4]), with_gold=5, agreed_with_gold=1)
    refused(world, too_many, "more labels agree with gold than could be compared")
    more_right = ev.LabelsRecorded(batch="initial", labels=tuple(said[:4]), with_gold=2, agreed_with_gold=3)
    refused(world, more_right, "more labels agree with gold than could be compared")
    world.append(ev.LabelsRecorded(batch="initial", labels=tuple(said[:4]), with_gold=3, agreed_with_gold=2), "1")
    world.append(ev.LabelsRecorded(batch="initial", labels=tuple(said[4:8]), with_gold=4, agreed_with_gold=4), "2")
    world.append(ev.LabelsRecorded(batch="initial", labels=tuple(said[8:10])), "3")
    assert (world.state.labels_with_gold, world.state.labels_agreed_with_gold) == (7, 6)


def test_labels_that_judge_train_nothing_until_the_verdict() -> None:
    world, given = world_at(is_about_to(ev.VerdictGiven))
    assert [batch.batch for batch in world.state.training_labels(1)] == ["initial"]
    world.append(given, "verdict")
    judged = ["initial", "s0.a0.gate", "s0.a0.direction", "s0.a0.path"]
    assert [batch.batch for batch in world.state.training_labels(1)] == judged


def test_a_label_behind_the_verdict_changes_no_verdict() -> None:
    world = World(settings_of(feedback={"rater": "people"}), quality=always_good)
    world.run(is_about_to(ev.Advanced))
    before = world.state.attempts[0]
    late = ev.LabelsRecorded(batch="s0.a0.gate", labels=(Label(item=99, rater="zoe", choice=Choice.FIRST),))
    world.append(late, "late", author="zoe", person=True)
    assert world.state.attempts[0] == before
    world.run()
    assert world.state.attempts[0].advanced


def test_a_verdict_is_on_this_candidate_final_and_rests_on_the_sealed_queue() -> None:
    world, given = world_at(is_about_to(ev.VerdictGiven))
    decision = given.decision
    assert decision.verdict is Verdict.ADVANCE

    def claims(**changes: Any) -> ev.VerdictGiven:
        return changed(given, decision=changed(decision, **changes).model_dump())

    refused(world, changed(given, candidate=OTHER), "the verdict is on another candidate")
    refused(world, changed(given, candidate=None), "the verdict is on another candidate")
    refused(world, claims(verdict=Verdict.WAIT), "to wait is no verdict")
    refused(world, claims(alpha=0.15), "another alpha than was sealed")
    refused(world, claims(alpha=None), "another alpha than was sealed")
    everything = "improvement, over_promise, over_promise_top_half, direction, direction_over_promise, wrong_reward"
    refused(world, claims(tests=()), f"leaves out {everything}")
    failed = changed(decision.tests[2], passed=False)
    refused(world, claims(tests=(*decision.tests[:2], failed, *decision.tests[3:])), "not every test was passed")
    for place, panel in enumerate(decision.panels):
        for labels in (0, 100):
            false = (*decision.panels[:place], changed(panel, labels=labels), *decision.panels[place + 1 :])
            refused(world, claims(panels=false), "it rests on other labels than were recorded")
    world.append(given, "verdict")
    refused(world, given, "the verdict stands already")


def test_a_passing_verdict_has_asked_everything() -> None:
    """A verdict that leaves a question or a queue out is no pass, however well it stands on the others."""
    dpo = {"protocol": {"reward_model": "none"}, "phase": {"algorithm": "dpo"}}
    for place, changes, tests in (((0, 0), {}, 6), ((1, 0), {}, 7), ((1, 0), dpo, 6)):
        world, verdict = world_at(is_about_to(ev.VerdictGiven, *place), **changes)
        decision = verdict.decision
        assert len(decision.tests) == tests
        for panel in decision.panels:
            rest = tuple(kept for kept in decision.panels if kept is not panel)
            stripped = verdict.model_copy(update={"decision": decision.model_copy(update={"panels": rest})})
            refused(world, stripped, "it rests on other labels than were recorded")
        assert decision.verdict is Verdict.ADVANCE
        for left_out in decision.tests:
            rest = tuple(test for test in decision.tests if test is not left_out)
            stripped = verdict.model_copy(update={"decision": decision.model_copy(update={"tests": rest})})
            refused(world, stripped, f"leaves out {left_out.name}")


def test_no_pass_without_a_gate_where_the_protocol_has_one() -> None:
    world, drawn = world_at(draw_of("s0.a0.gate"))
    ungated = GateVerdict(verdict=Verdict.ADVANCE, reasons=("trust me",))
    body = ev.VerdictGiven(stage=0, attempt=0, candidate=drawn.candidate, decision=ungated)
    refused(world, body, "the gate was never opened")


def test_once_does_not_advance_at_the_first_attempt() -> None:
    """Not even on evidence that would carry a pass anywhere else."""
    usual, given = world_at(is_about_to(ev.VerdictGiven), feedback={"labels_per_round": 4})
    once, refusal = world_at(is_about_to(ev.VerdictGiven), protocol={"advance": "once"})
    assert given.decision.verdict is Verdict.ADVANCE
    assert (refusal.decision.verdict, refusal.candidate) == (Verdict.ROLLBACK, given.candidate)
    refused(once, given, "the gate was never opened")
    for event in usual.events[len(once.events) :]:
        once.append(event.body, f"smuggled.{event.seq}")
    refused(once, given, "retrains once before it may advance")


# --- decisions and their ends --------------------------------------------------------------------------------


def at_decision(**changes: Any) -> tuple[World, ev.DecisionMade]:
    world, ask = world_at(lambda c: isinstance(c, AskForDecision), **changes)
    return world, ev.DecisionMade(candidate=ask.attempt.candidate, decision=Decision.APPROVE, reviewer="ann")


def test_a_decision_is_on_the_candidate_under_review() -> None:
    world, approve = at_decision()
    assert world.state.base is not None
    refused(world, changed(approve, candidate=world.state.base), "is not the candidate under review")
    refused(world, changed(approve, candidate=OTHER), "is not the candidate under review")


def test_a_decision_on_a_stale_digest_is_refused() -> None:
    """Approved while the next attempt's candidate is already there."""
    world, rolled_back = world_at(is_about_to(ev.RolledBack), mixed)
    stale = ev.DecisionMade(candidate=rolled_back.quarantined, decision=Decision.APPROVE, reviewer="ann")
    refused(world, stale, "the gate has not passed this candidate")
    world.append(rolled_back, "rolled back")
    refused(world, stale, "is not the candidate under review")
    world.run(lambda c: isinstance(c, AskForDecision))
    refused(world, stale, "is not the candidate under review")


def test_no_decision_before_the_verdict() -> None:
    world, given = world_at(is_about_to(ev.VerdictGiven))
    approve = ev.DecisionMade(candidate=given.candidate, decision=Decision.APPROVE, reviewer="ann")
    refused(world, approve, "the gate has not passed this candidate")


def by_ann(world: World, body: ev.DecisionMade) -> None:
    world.append(body, f"ann {len(world.stored)}", author="ann", person=True)


def test_a_reviewer_decides_once() -> None:
    world, approve = at_decision(approval={"approvers": 2})
    by_ann(world, approve)
    for again in (approve, changed(approve, decision=Decision.REJECT)):
        with pytest.raises(IllegalEventError, match="ann has decided already"):
            by_ann(world, again)
    refused(world, changed(approve, reviewer="bob"), "a controller cannot decide for a person")


@pytest.mark.parametrize("reviewer", ["gate", "protocol"])
def test_the_program_does_not_sign_where_people_do(reviewer: str) -> None:
    world, approve = at_decision()
    refused(world, changed(approve, reviewer=reviewer), f"{reviewer!r} decides nothing")


def test_an_advance_needs_every_approval_of_this_very_digest() -> None:
    world, approve = at_decision(approval={"approvers": 2})
    start = world.state.attempts[0].start
    advanced = ev.Advanced(stage=0, attempt=0, approved=approve.candidate, parent=start)
    refused(world, advanced, "no decision approves this digest: 2 missing")
    by_ann(world, approve)
    refused(world, advanced, "no decision approves this digest: 1 missing")
    world.append(changed(approve, reviewer="bob"), "bob", author="bob", person=True)
    refused(world, changed(advanced, approved=OTHER), "it advances another checkpoint")
    refused(world, changed(advanced, parent=OTHER), "it names another parent")
    refused(world, changed(advanced, stage=1), "stage 1 attempt 0 is not open")
    world.append(advanced, "advanced")
    refused(world, advanced, "is not open")


def test_an_advance_needs_a_passing_verdict() -> None:
    world, rolled_back = world_at(is_about_to(ev.RolledBack), mixed)
    attempt = world.state.attempts[0]
    advanced = ev.Advanced(stage=0, attempt=0, approved=rolled_back.quarantined, parent=attempt.start)
    refused(world, advanced, "the gate has not passed it")


def test_one_rejection_outweighs_every_approval() -> None:
    world, approve = at_decision(approval={"approvers": 1})
    by_ann(world, approve)
    world.append(changed(approve, reviewer="bob", decision=Decision.REJECT), "bob", author="bob", person=True)
    advanced = ev.Advanced(stage=0, attempt=0, approved=approve.candidate, parent=world.state.attempts[0].start)
    refused(world, advanced, "a reviewer rejected this digest")
    command = world.run(is_about_to(ev.RolledBack))
    assert isinstance(command, Note)
    assert isinstance(command.body, ev.RolledBack)
    assert command.body.quarantined == approve.candidate


def test_no_rollback_without_a_refusal() -> None:
    world, approve = at_decision()
    assert world.state.base is not None
    body = ev.RolledBack(stage=0, attempt=0, to=world.state.base, quarantined=approve.candidate, why="a whim")
    refused(world, body, "neither the gate nor a reviewer refused")
    early, _ = world_at(phase_of(0, 0))
    refused(early, changed(body, quarantined=None), "neither the gate nor a reviewer refused")


@pytest.mark.parametrize("restart_from", ["approved", "base", "last"])
def test_a_rollback_leads_where_the_protocol_says(restart_from: str) -> None:
    world, body = world_at(is_about_to(ev.RolledBack), mixed, **_from(restart_from))
    others = {world.state.base, world.state.last_candidate, OTHER} - {body.to}
    for other in others:
        refused(world, changed(body, to=other), "rolls back to another checkpoint")
    refused(world, changed(body, quarantined=OTHER), "it quarantines another checkpoint")
    world.append(body, "rolled back")


# --- pauses and ends -----------------------------------------------------------------------------------------


def test_a_campaign_ends_only_where_the_protocol_ends() -> None:
    world, _ = world_at(is_about_to(ev.AttemptBegun, 0, 1), mixed)
    refused(world, ev.Finished(ended_by=EndedBy.STAGES_COMPLETED), "stages are left")
    refused(world, ev.Finished(ended_by=EndedBy.ATTEMPTS_EXHAUSTED), "attempts are left")
    fresh = World(settings_of())
    refused(fresh, ev.Finished(ended_by=EndedBy.ATTEMPTS_EXHAUSTED), "attempts are left")
    world, _ = world_at(phase_of(0, 0))
    refused(world, ev.Finished(ended_by=EndedBy.STAGES_COMPLETED), "an attempt is still open")


def test_nothing_happens_after_the_end() -> None:
    world = World(settings_of())
    world.run()
    happened = {type(event.body): event.body for event in world.events if event.seq}
    for body in happened.values():
        refused(world, body, "ended|created once")
    refused(world, ev.Paused(why="late"), "the campaign has ended")
    refused(world, ev.Resumed(), "the campaign has ended")
    world.append(ev.ControllerStarted(owner="a reader"), "harmless")


def test_a_person_may_stop_a_campaign_in_the_middle() -> None:
    world, _ = world_at(phase_of(0, 0))
    world.append(ev.Finished(ended_by=EndedBy.STOPPED), "stop", author="ann", person=True)
    assert (world.state.status, world.state.ended_by) == (Status.STOPPED, EndedBy.STOPPED)
    refused(world, ev.Resumed(), "the campaign has ended")


def test_people_may_label_while_the_campaign_is_paused() -> None:
    world = World(settings_of(feedback={"rater": "people"}))
    ask = world.run(lambda c: isinstance(c, AskForLabels))
    assert isinstance(ask, AskForLabels)
    world.append(ev.Paused(why="night"), "pause")
    world.answer(ask)
    assert (world.state.status, world.state.labels.initial) == (Status.PAUSED, 7)


# --- what folding keeps --------------------------------------------------------------------------------------


def test_waiting_counts_the_time_before_a_persons_word_alone() -> None:
    """Every event comes 10 seconds behind the one before it; people spoke so many times."""
    world = World(settings_of(feedback={"rater": "people"}), seconds=10.0)
    world.run()
    people = sum(event.epoch is None for event in world.events)
    assert people > 10
    assert world.state.waiting_seconds == 10.0 * people


def test_who_looks_whether_people_have_answered_ends_no_wait() -> None:
    world = World(settings_of(feedback={"rater": "people"}), seconds=10.0)
    ask = world.run(lambda c: isinstance(c, AskForLabels))
    assert isinstance(ask, AskForLabels)
    for _ in range(3):
        world.append(ev.ControllerStarted(owner="peeking"), "start")
    assert world.state.waiting_seconds == 0.0
    before = len(world.events)
    world.answer(ask)
    people = len(world.events) - before
    assert world.state.waiting_seconds == 10.0 * (3 + people)


def test_the_time_up_to_a_deadline_was_waited_too() -> None:
    world = World(settings_of(feedback={"rater": "people", "label_deadline_hours": 1.0}), seconds=10.0)
    ask = world.run(lambda c: isinstance(c, AskForLabels) and c.batch.purpose is Purpose.GATE)
    assert isinstance(ask, AskForLabels)
    before = world.state.waiting_seconds
    world.append(ev.FeedbackExpired(batch=ask.batch.id), "expired")
    assert world.state.waiting_seconds == before + 10.0


def test_a_deployment_remembers_what_everything_had_cost_by_then() -> None:
    world = World(settings_of())
    world.run()
    state = fold([])
    for event in world.events:
        before = state
        state = fold([event], state)
        if isinstance(event.body, ev.Advanced):
            deployed = state.deployments[-1]
            assert (deployed.checkpoint, deployed.parent) == (event.body.approved, event.body.parent)
            assert (deployed.labels, deployed.costs) == (before.labels, before.costs)
    assert [d.parent for d in state.deployments] == [None, state.base, state.deployments[1].checkpoint]


def test_what_a_rollback_does_not_roll_back() -> None:
    world, body = world_at(is_about_to(ev.RolledBack), mixed)
    before = world.state
    after = world.append(body, "rolled back")
    assert (after.labels, after.costs, after.batches) == (before.labels, before.costs, before.batches)
    assert after.alpha_spent == before.alpha_spent > 0
