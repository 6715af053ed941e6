"""What people say, and what becomes of it: open words, regrets, repeats, settling words, approvals."""

import random
from datetime import datetime, timedelta
from typing import Any

import pytest
from fake_world import World, always_bad, always_good, settings_of
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core import events as ev
from orchestrator.core.commands import AskForDecision, AskForLabels, Command, Note
from orchestrator.core.events import Event, EventBody
from orchestrator.core.history import AUTOMATIC_REVIEWERS, apply, fold
from orchestrator.core.machine import next_command
from orchestrator.core.panels import judged
from orchestrator.core.records import Choice, Decision, Label, Verdict
from orchestrator.core.rules import IllegalEventError
from orchestrator.core.state import Batch, CampaignState, state_digest
from orchestrator.core.words import OPEN_FOR, open_word

GATE = "s0.a0.gate"


def asked_for(batch: str) -> Any:
    def matches(command: Command) -> bool:
        return isinstance(command, AskForLabels) and command.batch.id == batch

    return matches


class Room:
    """People at a campaign that has come somewhere; says at which minute everything happens."""

    def __init__(self, until: Any, *, quality: Any = always_good, **changes: Any) -> None:
        one_queue = {"stages": 1, "attempts": 2, **changes.pop("protocol", {})}
        feedback = {"rater": "people", **changes.pop("feedback", {})}
        gate = {"audit": {"evaluator": "none"}, **changes.pop("gate", {})}
        world = World(settings_of(protocol=one_queue, feedback=feedback, gate=gate, **changes), quality=quality)
        self.command = world.run(until)
        assert until(self.command)
        self.settings, self.state, self.events = world.settings, world.state, world.events
        self.start: datetime = self.events[-1].at

    def say(
        self,
        body: EventBody,
        author: str,
        *,
        minute: float = 0.0,
        reason: str = "",
        credential: str | None = "c-1",
        epoch: int | None = None,
    ) -> CampaignState:
        if "credential" in type(body).model_fields and epoch is None:
            body = body.model_copy(update={"credential": credential})
        seq = self.events[-1].seq + 1
        event = Event(seq, f"word {seq}", self.start + timedelta(minutes=minute), epoch, author, reason, body)
        self.state = apply(self.state, event)
        self.events.append(event)
        return self.state

    def refused(self, why: str, body: EventBody, author: str, **how: Any) -> None:
        state, events = self.state, len(self.events)
        with pytest.raises(IllegalEventError, match=why):
            self.say(body, author, **how)
        assert (self.state, len(self.events)) == (state, events)

    def label(self, rater: str, item: int, choice: Choice = Choice.FIRST, batch: str = GATE, **how: Any) -> None:
        self.say(labelled(rater, item, choice, batch), rater, **how)

    def undo(self, rater: str, item: int, batch: str = GATE, **how: Any) -> None:
        self.say(ev.LabelWithdrawn(batch=batch, item=item, rater=rater), rater, **how)

    def batch(self, batch: str = GATE) -> Batch:
        found = self.state.batch(batch)
        assert found is not None
        return found

    def settled(self, batch: str = GATE) -> int:
        return self.batch(batch).settled(self.settings.feedback.raters_per_item)

    def open(self, batch: str = GATE) -> set[tuple[str, int]]:
        return {(word.rater, word.item) for word in self.batch(batch).open_words}


def labelled(rater: str, item: int, choice: Choice = Choice.FIRST, batch: str = GATE) -> ev.LabelsRecorded:
    return ev.LabelsRecorded(batch=batch, labels=(Label(item=item, rater=rater, choice=choice),))


def at_the_gate(**changes: Any) -> Room:
    return Room(asked_for(GATE), **changes)


def at_the_decision(**changes: Any) -> tuple[Room, str]:
    room = Room(lambda command: isinstance(command, AskForDecision), **changes)
    assert isinstance(room.command, AskForDecision)
    return room, str(room.command.attempt.candidate)


def decision(candidate: str, reviewer: str, said: Decision = Decision.APPROVE, **more: Any) -> ev.DecisionMade:
    return ev.DecisionMade(candidate=candidate, decision=said, reviewer=reviewer, **more)


# --- open words -----------------------------------------------------------------------------------------------


def test_a_word_is_final_when_its_rater_says_the_next_one() -> None:
    room = at_the_gate()
    room.label("ann", 0)
    assert (room.open(), room.settled()) == ({("ann", 0)}, 0)
    room.label("ann", 1)
    assert (room.open(), room.settled()) == ({("ann", 1)}, 1)
    room.label("bob", 2)
    # Item 2 has its verdict too, but behind one that may still go.
    assert (room.open(), room.settled()) == ({("ann", 1), ("bob", 2)}, 1)
    room.label("ann", 3)
    assert (room.open(), room.settled()) == ({("ann", 3), ("bob", 2)}, 2)


def test_a_word_is_final_when_somebody_speaks_more_than_a_quarter_of_an_hour_later() -> None:
    room = at_the_gate()
    room.label("ann", 0)
    room.label("bob", 1, minute=15)
    assert room.open() == {("ann", 0), ("bob", 1)}
    room.label("cyd", 2, minute=15.01)
    assert (room.open(), room.settled()) == ({("bob", 1), ("cyd", 2)}, 1)
    room.undo("ann", 0, minute=15.02)
    assert room.batch().regrets == 1
    assert room.batch().labels.of(0, "ann") is not None


def test_a_word_beyond_those_that_count_takes_nothing_from_the_gate() -> None:
    room = at_the_gate()
    for item in range(3):
        room.label("ann", item)
    room.label("bob", 0, Choice.SECOND)
    assert (room.settled(), room.open()) == (2, {("ann", 2), ("bob", 0)})
    room.undo("bob", 0)
    assert (room.settled(), len(room.batch().labels)) == (2, 3)


def test_words_are_open_in_one_queue_at_a_time() -> None:
    room = at_the_gate(feedback={"checks": {"items": 4}})
    room.label("ann", 0, batch="s0.a0.checks")
    assert room.open("s0.a0.checks") == {("ann", 0)}
    room.label("ann", 0)
    assert (room.open("s0.a0.checks"), room.open()) == (set(), {("ann", 0)})


def test_where_all_labels_are_in_nothing_is_waited_for() -> None:
    """And nothing is taken back any more: the campaign may have gone on with them."""
    room = Room(asked_for("initial"), feedback={"initial_labels": 3})
    for item in range(3):
        room.label("ann", item, batch="initial")
    assert room.settled("initial") == 3
    assert not isinstance(next_command(room.state, room.settings), AskForLabels)
    assert open_word(room.state, room.batch("initial"), "ann") is None
    room.undo("ann", 2, batch="initial")
    assert (len(room.batch("initial").labels), room.batch("initial").regrets) == (3, 1)


def test_a_programs_words_and_an_auditors_are_final_at_once() -> None:
    room = Room(
        asked_for("s0.a0.audit"), gate={"audit": {"evaluator": "people", "labels": 5}}, feedback={"checks": None}
    )
    room.label("dee", 0, batch="s0.a0.audit")
    assert (room.open("s0.a0.audit"), room.settled("s0.a0.audit")) == (set(), 1)
    room.undo("dee", 0, batch="s0.a0.audit")
    assert (room.batch("s0.a0.audit").regrets, len(room.batch("s0.a0.audit").labels)) == (1, 1)
    room = at_the_gate()
    room.say(labelled("p", 0), "controller", epoch=1)
    assert (room.open(), room.settled()) == (set(), 1)


def test_a_deadline_leaves_no_word_open() -> None:
    hours = 60 * 72.0
    room = at_the_gate()
    room.label("ann", 0, minute=hours - 1)
    room.label("bob", 1, minute=hours + 1)
    assert room.open() == set()
    assert room.batch().expired_after == 1
    room.undo("ann", 0, minute=hours + 2)
    room.undo("bob", 1, minute=hours + 3)
    assert (room.batch().regrets, [label.rater for label in room.batch().labels]) == (2, ["ann", "bob"])


# --- taking back ----------------------------------------------------------------------------------------------


def test_what_is_taken_back_in_time_is_as_if_it_had_not_been_said() -> None:
    room = at_the_gate()
    room.label("ann", 0)
    before = room.batch()
    room.label("bob", 1, Choice.SECOND)
    room.undo("bob", 1)
    assert room.batch().model_copy(update={"labelled_at": before.labelled_at}) == before
    room.refused("bob has no label there", ev.LabelWithdrawn(batch=GATE, item=1, rater="bob"), "bob")
    room.label("bob", 1, Choice.TIE)
    assert room.batch().labels.of(1, "bob") == Label(item=1, rater="bob", choice=Choice.TIE)


def test_what_is_taken_back_too_late_is_a_regret_and_stands() -> None:
    room = at_the_gate()
    room.label("ann", 0, Choice.SECOND)
    room.label("ann", 1)
    room.undo("ann", 0)
    assert room.batch().regrets == 1
    assert room.batch().labels.of(0, "ann") == Label(item=0, rater="ann", choice=Choice.SECOND)
    assert room.open() == {("ann", 1)}, "the last one is still theirs to take"
    room.undo("ann", 1)
    assert [label.item for label in room.batch().labels] == [0]
    # The word before is not opened by that.
    room.undo("ann", 0)
    assert (room.batch().regrets, len(room.batch().labels)) == (2, 1)


def test_nothing_is_taken_back_from_a_verdict() -> None:
    room = Room(lambda c: isinstance(c, Note) and isinstance(c.body, ev.VerdictGiven), quality=always_bad)
    assert isinstance(room.command, Note)
    word = room.batch().open_words[0]
    room.say(room.command.body, "controller", epoch=1)
    before = room.batch()
    room.undo(word.rater, word.item)
    assert room.batch() == before.model_copy(update={"regrets": 1})


# --- repeats --------------------------------------------------------------------------------------------------


def repeat(rater: str, item: int, choice: Choice) -> ev.LabelRepeated:
    return ev.LabelRepeated(batch=GATE, label=Label(item=item, rater=rater, choice=choice, swapped=True))


def test_a_repeat_stands_beside_the_first_word_and_judges_nothing() -> None:
    room = at_the_gate()
    for item in range(3):
        room.label("ann", item)
    labels, outcomes = room.batch().labels, room.batch().outcomes(1)
    checks = room.state.labels.checks
    room.say(repeat("ann", 0, Choice.SECOND), "ann")
    assert room.batch().labels == labels
    assert [(said.item, said.choice) for said in room.batch().repeats] == [(0, Choice.SECOND)]
    assert room.state.labels.checks == checks + 1
    # Item 2 is final now, since something else was said.
    assert room.settled() == 3
    assert room.batch().outcomes(1)[:2] == outcomes
    room.refused("twice already", repeat("ann", 0, Choice.TIE), "ann")
    room.refused("never labelled this before", repeat("ann", 5, Choice.TIE), "ann")
    room.refused("never labelled this before", repeat("bob", 0, Choice.TIE), "bob")


def test_a_repeat_is_taken_back_alone() -> None:
    room = at_the_gate()
    for item in range(3):
        room.label("ann", item)
    labels = room.batch().labels
    room.say(repeat("ann", 1, Choice.TIE), "ann")
    room.undo("ann", 1)
    assert (room.batch().repeats, room.batch().labels, room.batch().regrets) == ((), labels, 0)
    room.say(repeat("ann", 1, Choice.BOTH_BAD), "ann")
    assert [said.choice for said in room.batch().repeats] == [Choice.BOTH_BAD]


# --- settling words -------------------------------------------------------------------------------------------


def settle(item: int, choice: Choice, batch: str = "initial", adjudicator: str = "eve") -> ev.LabelAdjudicated:
    return ev.LabelAdjudicated(batch=batch, item=item, choice=choice, adjudicator=adjudicator)


def test_a_settling_word_trains_and_both_versions_stay() -> None:
    room = Room(asked_for("initial"), feedback={"initial_labels": 2, "raters_per_item": 2})
    for rater, choice in (("ann", Choice.FIRST), ("bob", Choice.SECOND)):
        room.label(rater, 0, choice, batch="initial")
        room.label(rater, 1, Choice.TIE, batch="initial")
    (before,) = room.state.training_labels(2)
    assert before.choices == ((Choice.FIRST, Choice.SECOND), (Choice.TIE, Choice.TIE))
    room.say(settle(0, Choice.SECOND), "eve", reason="the first evades")
    (after,) = room.state.training_labels(2)
    assert after.choices == ((Choice.SECOND,), (Choice.TIE, Choice.TIE))
    assert room.batch("initial").choices(2) == before.choices
    (word,) = room.batch("initial").adjudications
    assert (word.adjudicator, word.choice, word.reason) == ("eve", Choice.SECOND, "the first evades")
    room.say(settle(0, Choice.TIE, adjudicator="fay"), "fay", reason="both are right")
    assert room.batch("initial").teaches(2)[0] == (Choice.TIE,)
    assert [word.adjudicator for word in room.batch("initial").adjudications] == ["eve", "fay"]
    room.refused("do not disagree on item 1", settle(1, Choice.FIRST), "eve")
    room.refused("never sealed", settle(0, Choice.FIRST, batch="s9.a9.gate"), "eve")


def test_a_settling_word_leaves_the_gates_outcome_alone() -> None:
    room = at_the_gate(feedback={"raters_per_item": 2})
    for item in range(30):
        room.label("ann", item, Choice.FIRST)
        room.label("bob", item, Choice.SECOND if item % 2 else Choice.FIRST)
    attempt = room.state.open_attempt
    assert attempt is not None
    outcomes, told = room.batch().outcomes(2), judged(room.state, attempt)
    for item in range(1, 30, 2):
        room.say(settle(item, Choice.SECOND, batch=GATE), "eve", reason="why")
    assert room.batch().outcomes(2) == outcomes
    assert judged(room.state, attempt) == told


@pytest.mark.parametrize("batch", ["s0.a0.audit", "s0.a0.checks"])
def test_nobody_settles_what_tells_of_a_rater(batch: str) -> None:
    room = Room(asked_for("s0.a0.audit"), feedback={"checks": {"items": 4}}, gate={"audit": {"evaluator": "people"}})
    room.refused("tell of a rater", settle(0, Choice.FIRST, batch=batch), "eve")


# --- who speaks -----------------------------------------------------------------------------------------------


def words_of(rater: str) -> dict[str, EventBody]:
    return {
        "label": labelled(rater, 5),
        "undo": ev.LabelWithdrawn(batch=GATE, item=1, rater=rater),
        "repeat": repeat(rater, 0, Choice.TIE),
        "settle": settle(0, Choice.TIE, batch=GATE, adjudicator=rater),
    }


@pytest.mark.parametrize("kind", ["label", "undo", "repeat", "settle"])
def test_everybody_speaks_for_themselves_with_a_token(kind: str) -> None:
    room = at_the_gate(feedback={"raters_per_item": 2})
    room.label("bob", 0, Choice.SECOND)
    for item in (0, 1):
        room.label("ann", item)
    body = words_of("ann")[kind]
    room.refused("eve cannot speak for ann", body, "eve")
    room.refused("nothing shows that it was ann who said so", body, "ann", credential=None)
    room.say(body, "ann")


def test_decisions_are_ones_own_and_shown_to_be() -> None:
    room, candidate = at_the_decision()
    room.refused("eve cannot speak for ann", decision(candidate, "ann"), "eve")
    room.refused("nothing shows that it was ann", decision(candidate, "ann"), "ann", credential=None)
    room.say(decision(candidate, "ann"), "ann")


@pytest.mark.parametrize("reviewer", sorted(AUTOMATIC_REVIEWERS))
@pytest.mark.parametrize("epoch", [None, 1])
def test_no_automatic_reviewer_decides_where_people_do(reviewer: str, epoch: int | None) -> None:
    room, candidate = at_the_decision()
    room.refused(f"{reviewer!r} decides nothing", decision(candidate, reviewer), reviewer, epoch=epoch)


def test_the_gate_decides_through_the_controller_alone() -> None:
    room = Room(
        lambda c: isinstance(c, Note) and isinstance(c.body, ev.DecisionMade),
        approval={"by": "gate"},
        feedback={"rater": "simulated"},
    )
    assert isinstance(room.command, Note)
    room.refused("'gate' decides through the controller alone", room.command.body, "gate")
    room.say(room.command.body, "controller", epoch=1)
    assert room.state.attempts[0].approvers == {"gate"}


# --- approvals ------------------------------------------------------------------------------------------------


def test_a_rejection_outweighs_approvals_and_ends_the_matter() -> None:
    room, candidate = at_the_decision(approval={"approvers": 2})
    room.say(decision(candidate, "ann"), "ann")
    room.refused("ann has decided already", decision(candidate, "ann", Decision.REJECT), "ann")
    room.say(decision(candidate, "bob", Decision.REJECT), "bob")
    for said in Decision:
        room.refused("another reviewer has rejected it", decision(candidate, "cyd", said), "cyd")
    command = next_command(room.state, room.settings)
    assert isinstance(command, Note)
    assert isinstance(command.body, ev.RolledBack)


def test_no_approval_comes_after_the_last_one_needed_but_a_rejection_does() -> None:
    room, candidate = at_the_decision()
    room.say(decision(candidate, "ann"), "ann")
    room.refused("it has all approvals that it needs", decision(candidate, "bob"), "bob")
    room.say(decision(candidate, "bob", Decision.REJECT), "bob")
    command = next_command(room.state, room.settings)
    assert isinstance(command, Note)
    assert isinstance(command.body, ev.RolledBack)


def test_an_owner_does_not_approve_their_own_where_the_campaign_says_so() -> None:
    room, candidate = at_the_decision(approval={"owner": " Ann", "self_approval": False})
    room.refused("ann owns this campaign", decision(candidate, "ann"), "ann")
    room.say(decision(candidate, "ann", Decision.REJECT), "ann")
    room, candidate = at_the_decision(approval={"owner": " Ann"})
    room.say(decision(candidate, "ann"), "ann")


def test_an_override_is_allowed_an_approval_and_says_why() -> None:
    room, candidate = at_the_decision(approval={"approvers": 3})
    room.refused("lets nobody stand", decision(candidate, "ann", override=True), "ann", reason="urgent")
    room, candidate = at_the_decision(approval={"approvers": 3, "override": True})
    room.refused("only an approval", decision(candidate, "ann", Decision.REJECT, override=True), "ann", reason="x")
    room.refused("an override says why", decision(candidate, "ann", override=True), "ann", reason=" ")
    room.say(decision(candidate, "bob"), "bob")
    assert room.state.approvals_missing(room.state.attempts[0]) == 2
    room.say(decision(candidate, "ann", override=True), "ann", reason="urgent")
    command = next_command(room.state, room.settings)
    assert isinstance(command, Note)
    assert isinstance(command.body, ev.Advanced)
    room.say(command.body, "controller", epoch=1)
    assert room.state.approved == candidate


def test_an_owner_cannot_override_what_they_may_not_approve() -> None:
    rules = {"approvers": 2, "override": True, "owner": "ann", "self_approval": False}
    room, candidate = at_the_decision(approval=rules)
    room.refused("ann owns this campaign", decision(candidate, "ann", override=True), "ann", reason="urgent")


# --- pausing --------------------------------------------------------------------------------------------------


def test_while_labelling_is_paused_words_are_kept_and_the_campaign_is_asked_the_same() -> None:
    room = at_the_gate()
    before = next_command(room.state, room.settings)
    digest = state_digest(room.state)
    room.say(ev.LabellingPaused(why="new guidelines"), "eve", reason="new guidelines")
    assert room.state.labelling_paused == "new guidelines"
    assert next_command(room.state, room.settings) == before
    assert state_digest(room.state) == digest, "a pause is no part of what a campaign came to"
    room.label("ann", 0)
    assert room.batch().labels.of(0, "ann") is not None
    room.say(ev.LabellingResumed(), "eve")
    assert room.state.labelling_paused is None


# --- any history ----------------------------------------------------------------------------------------------

SAYINGS = st.lists(
    st.tuples(
        st.sampled_from(["label", "label", "label", "undo", "repeat", "settle", "wait"]),
        st.sampled_from(["ann", "bob", "cyd"]),
        st.integers(0, 9),
        st.sampled_from([Choice.FIRST, Choice.SECOND, Choice.TIE, Choice.SKIP]),
    ),
    max_size=40,
)
ROOM = at_the_gate(feedback={"raters_per_item": 2}, gate={"min_labels": 3, "max_labels": 10, "labels_per_look": 1})


def anew() -> Room:
    """The same room, as it was before anybody spoke."""
    room = object.__new__(Room)
    room.settings, room.state, room.events, room.start = ROOM.settings, ROOM.state, list(ROOM.events), ROOM.start
    return room


def talk(room: Room, sayings: list[tuple[str, str, int, Choice]]) -> list[CampaignState]:
    """Say what the rules allow of all this; the states on the way.

    Mostly people go on where they are, and take back what they said last; now and then they do anything.
    """
    states, minute = [room.state], 0.0
    for kind, who, item, choice in sayings:
        if kind == "wait":
            minute += item * 2
            continue
        if item < 7 and kind == "label":
            item = next((n for n in range(10) if room.batch().labels.of(n, who) is None), 0)
        if item < 7 and kind == "undo":
            item = next((word.item for word in room.batch().open_words if word.rater == who), item)
        body: EventBody = {
            "label": labelled(who, item, choice),
            "undo": ev.LabelWithdrawn(batch=GATE, item=item, rater=who),
            "repeat": repeat(who, item, choice),
            "settle": settle(item, choice, batch=GATE, adjudicator=who),
        }[kind]
        try:
            room.say(body, who, minute=minute, reason="why")
        except IllegalEventError:
            continue
        states.append(room.state)
    return states


@given(SAYINGS, st.integers(0, 40))
@settings(max_examples=60)
def test_folding_a_prefix_and_then_the_rest_gives_the_same(
    sayings: list[tuple[str, str, int, Choice]], cut: int
) -> None:
    room = anew()
    talk(room, sayings)
    cut += len(ROOM.events)
    whole = fold(room.events)
    assert fold(room.events[cut:], fold(room.events[:cut])) == whole == room.state
    assert CampaignState.model_validate_json(whole.model_dump_json()) == whole


@given(SAYINGS)
@settings(max_examples=60)
def test_every_state_on_the_way_stays_what_it_was(sayings: list[tuple[str, str, int, Choice]]) -> None:
    """Labels of all states share their indices; an older state must not notice."""
    room = anew()
    states = talk(room, sayings)
    first = len(ROOM.events)
    for number, state in enumerate(states):
        again = fold(room.events[: first + number])
        assert state == again
        assert state.batches[-1].settled(2) == again.batches[-1].settled(2)


@given(SAYINGS)
@settings(max_examples=60)
def test_no_label_that_was_judged_is_ever_taken_back(sayings: list[tuple[str, str, int, Choice]]) -> None:
    """Outcomes that a gate could look at once stay what they are, whatever is said later."""
    room = anew()
    seen: tuple[float | None, ...] = ()
    for state in talk(room, sayings):
        batch = state.batch(GATE)
        assert batch is not None
        now = batch.outcomes(2)
        assert now[: len(seen)] == seen
        seen = now


@given(SAYINGS, st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_the_gate_sees_nothing_of_an_open_word(
    sayings: list[tuple[str, str, int, Choice]], dice: random.Random
) -> None:
    """Taken back, or said the other way: what the gate says is the same."""
    room = anew()
    talk(room, sayings)
    attempt = room.state.open_attempt
    assert attempt is not None
    told = judged(room.state, attempt)
    last = max((word.said_at for word in room.batch().open_words), default=room.start)
    minute = (last - room.start) / timedelta(minutes=1)
    for word in room.batch().open_words:
        if open_word(room.state, room.batch(), word.rater) is None:
            continue  # the queue is complete
        if room.batch().labels.count_on(word.item) > 2:
            continue  # where one verdict too many came in, it moves up into the place that is left
        other = anew()
        other.state, other.events = room.state, list(room.events)
        other.undo(word.rater, word.item, minute=minute)
        assert judged(other.state, attempt) == told
        if not word.repeat:
            other.label(word.rater, word.item, dice.choice(list(Choice)), minute=minute)
            if not other.batch().complete(2):
                assert judged(other.state, attempt) == told


def test_open_for_is_what_the_tests_above_wait() -> None:
    assert timedelta(minutes=15) == OPEN_FOR
    assert ROOM.state.attempts[0].verdict is None
    assert Verdict.WAIT is judged(ROOM.state, ROOM.state.attempts[0]).verdict


# --- deadlines and accounts -----------------------------------------------------------------------------------

LATE = 73 * 60.0
"""Minutes; the label deadline is 72 hours."""


def test_check_items_have_no_deadline_of_their_own() -> None:
    """They would tell themselves: a queue's word that comes too late is told so, a check's never is."""
    room = at_the_gate(feedback={"checks": {"items": 2}})
    room.label("ann", 0, batch="s0.a0.checks", minute=LATE)
    assert not room.batch("s0.a0.checks").expired
    room.label("ann", 0, minute=LATE)
    assert room.batch().expired


def test_nothing_is_taken_back_after_the_deadline() -> None:
    """Though no controller was there to call time."""
    room = at_the_gate()
    room.label("ann", 0, minute=1)
    room.undo("ann", 0, minute=LATE)
    assert [label.item for label in room.batch().labels] == [0]
    assert room.batch().regrets == 1


def test_words_too_many_or_too_late_give_the_next_queue_no_time() -> None:
    room = at_the_gate()
    room.label("ann", 0, minute=1)
    room.label("bob", 0, minute=5)
    assert room.batch().labelled_at == room.start + timedelta(minutes=1)
    room.label("ann", 1, minute=LATE)
    called = room.batch().labelled_at
    room.label("ann", 2, minute=LATE + 60)
    assert room.batch().labelled_at == called


def test_what_was_taken_back_is_not_paid_for() -> None:
    room = at_the_gate()
    before = room.state.labels.gate
    room.label("ann", 0)
    room.undo("ann", 0)
    assert room.state.labels.gate == before
    room.label("ann", 0, Choice.TIE)
    room.label("ann", 1)
    room.undo("ann", 0)  # a regret: the word stands, and was worth its price
    assert room.state.labels.gate == before + 2


def test_only_the_controller_calls_time() -> None:
    room = at_the_gate()
    room.refused("only the controller calls time", ev.FeedbackExpired(batch=GATE), "ann")


def test_a_decision_may_say_of_which_attempt_it_is() -> None:
    """The same digest may come again where it was given; what was said of one attempt is not said of another."""
    room, candidate = at_the_decision()
    room.refused("of another attempt", decision(candidate, "ann", stage=0, attempt=1), "ann")
    room.say(decision(candidate, "ann", stage=0, attempt=0), "ann")
    assert room.state.attempts[-1].approvers == {"ann"}


# --- words from a file --------------------------------------------------------------------------------------


FILE = ev.Origin(format="argilla", file="e" * 64)


def brought(*labels: tuple[int, str], batch: str = GATE) -> ev.LabelsRecorded:
    said = tuple(Label(item=item, rater=rater, choice=Choice.FIRST) for item, rater in labels)
    return ev.LabelsRecorded(batch=batch, labels=said, origin=FILE)


def test_one_person_may_bring_others_words_and_answers_for_them() -> None:
    room = Room(asked_for(GATE))
    spoken = ev.LabelsRecorded(batch=GATE, labels=brought((0, "ann"), (1, "bob")).labels)
    room.refused("olga cannot speak for ann, bob", spoken, "olga")
    room.refused("nothing shows that it was olga who brought", brought((0, "ann")), "olga", credential=None)
    room.refused("nothing shows that it was controller", brought((0, "ann")), "controller", epoch=1)
    paid = room.state.labels.gate
    room.say(brought((0, "ann"), (1, "bob")), "olga", credential="c-9")
    (one,) = room.batch().brought
    assert (one.by, one.labels) == ("olga", 2)
    assert not room.batch().open_words
    assert room.state.labels.gate == paid + 2
    assert not room.state.attempts[0].decisions


def test_words_from_a_file_are_never_too_many() -> None:
    room = Room(asked_for(GATE), feedback={"raters_per_item": 2})
    room.label("ann", 0)
    room.refused("item 0 of s0.a0.gate has all its verdicts", brought((0, "bob"), (0, "cyd")), "olga")
    room.refused("ann has labelled item 0", brought((0, "ann")), "olga")
    room.say(brought((0, "bob")), "olga")
    room.refused("item 0 of s0.a0.gate has all its verdicts", brought((1, "bob"), (0, "cyd")), "olga")
    room.label("cyd", 0)  # said at a desk, it is kept


def test_words_from_a_file_pass_no_check_items_by_and_judge_in_time_or_not_at_all() -> None:
    checked = Room(asked_for(GATE), feedback={"checks": {"items": 4, "every": 4}})
    checked.refused("raters meet check items", brought((0, "ann")), "olga")
    room = Room(asked_for(GATE), feedback={"label_deadline_hours": 1})
    room.refused("the time for the labels", brought((0, "ann")), "olga", minute=61)
    room.label("ann", 0, minute=61)  # said at a desk, it is kept


def test_how_words_came_is_no_part_of_what_a_campaign_came_to() -> None:
    """Two runs agree on their digest, whether the same words came out of a file or from a desk."""
    desk, file = Room(asked_for(GATE)), Room(asked_for(GATE))
    desk.label("ann", 0)
    desk.label("ann", 1, minute=1)
    file.say(brought((0, "ann"), (1, "ann")), "olga", minute=1)
    desk.label("bob", 2, minute=30)
    file.label("bob", 2, minute=30)
    assert state_digest(desk.state) == state_digest(file.state)
