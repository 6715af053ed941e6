"""People at one campaign: everybody's word counts once, on the history that they saw; in both databases."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from desks import all_of, asked_of, say, say_next, ticket_of
from small_campaigns import against_the_candidate, for_the_candidate

from orchestrator.core.commands import AskForDecision, AskForLabels
from orchestrator.core.panels import asked_by_name
from orchestrator.core.records import Choice, Decision, Harm, Purpose, Role, Status, Verdict
from orchestrator.core.state import Batch
from orchestrator.errors import ConflictError, ForbiddenError, NotFoundError, UsageError
from orchestrator.review.asking import Cursors, missing_by_name
from orchestrator.review.desk import Asked, Desk, Outlook, Said, Standing
from orchestrator.review.office import Office, pause, stop
from orchestrator.store.ledger import Ledger
from orchestrator.store.tickets import Place, Ticket

if TYPE_CHECKING:
    from hall import Hall

HallOf = Callable[..., "Hall"]
GATE = {"alpha": 0.99, "over_promise_limit": 0.9, "min_labels": 40, "max_labels": 40, "labels_per_look": 40}
"""A gate that any candidate passes whom everybody prefers."""


def at_the_gate(hall_of: HallOf, gate: dict[str, Any] | None = None, **changes: Any) -> Hall:
    """Waits for a gate's labels; `zoe` has labelled what came before, and comes no more."""
    hall = hall_of(gate={**GATE, **(gate or {})}, **changes)
    everybody = changes.get("feedback", {}).get("raters", ["zoe", "yan", "xia"])
    for name in everybody:
        all_of(hall.desk(name.casefold()))
    hall.go_on()
    assert hall.state.batches[1].id == "s0.a0.gate"
    return hall


def with_candidate(hall_of: HallOf, **changes: Any) -> tuple[Hall, str]:
    """Waits for a decision."""
    hall = at_the_gate(hall_of, **changes)
    all_of(hall.desk("zoe"), for_the_candidate)
    command = hall.go_on()
    assert isinstance(command, AskForDecision)
    return hall, str(command.attempt.candidate)


def lent(hall: Hall, person: str, item: int, batch: str = "initial") -> str:
    """A ticket that no desk would have lent."""
    until = hall.now() + timedelta(minutes=10)
    ticket = hall.ledger.tickets.lend(hall.name, person, lambda live: Place(batch, item), until=until, now=hall.now())
    assert ticket is not None
    return ticket.id


# --- what is lent ---------------------------------------------------------------------------------------------


def test_each_person_sees_the_items_that_still_need_them(hall_of: HallOf) -> None:
    hall = hall_of(feedback={"initial_labels": 10, "raters_per_item": 2})
    ann, bob, cyd = (hall.desk(name) for name in ("ann", "bob", "cyd"))
    for _ in range(8):
        say_next(ann, Choice.FIRST)
    assert all_of(ann) == [8, 9]
    for _ in range(7):
        say_next(bob, Choice.TIE)
    hall.wait(minutes=10)  # bob has the next one on the screen, and leaves
    assert all_of(cyd) == [7, 8, 9]
    assert bob.asked() is None
    assert bob.refusal() is None


def test_two_people_never_have_the_same_one_where_one_verdict_suffices(hall_of: HallOf) -> None:
    hall = hall_of(feedback={"initial_labels": 30})
    ann, bob = hall.desk("ann"), hall.desk("bob", office=hall.elsewhere())
    while (first := ann.asked()) is not None and (second := bob.asked()) is not None:
        assert ticket_of(ann, first).item != ticket_of(bob, second).item
        say(ann, first, Choice.FIRST)
        say(bob, second, Choice.SECOND)
    assert sorted(label.item for label in hall.state.batches[0].labels) == list(range(30))


def test_a_desk_reads_what_is_new_and_nothing_twice(hall_of: HallOf, monkeypatch: pytest.MonkeyPatch) -> None:
    hall = hall_of(feedback={"initial_labels": 10, "raters_per_item": 2})
    ann, bob = hall.desk("ann", office=hall.elsewhere()), hall.desk("bob", office=hall.elsewhere())
    ann.progress()
    assert len(all_of(bob)) == 10
    head = hall.ledger.head(hall.name).seq
    read: list[int] = []
    events = Ledger.events

    def counted(ledger: Ledger, campaign: str, after_seq: int = -1) -> Any:
        found = events(ledger, campaign, after_seq)
        read.extend(event.seq for event in found)
        return found

    monkeypatch.setattr(Ledger, "events", counted)
    assert len(all_of(ann)) == 10
    assert read == list(range(head - 9, head + 1)), "bob's ten labels, and none of one's own"


def test_two_tabs_and_another_process_show_the_same_comparison(hall_of: HallOf) -> None:
    hall = hall_of()
    asked = asked_of(hall.desk("ann"))
    hall.wait(minutes=9)
    assert hall.desk("ann").asked() == asked
    assert hall.desk("ann", office=hall.elsewhere()).asked() == asked
    hall.wait(minutes=1)
    again = asked_of(hall.desk("ann"))
    assert again.ticket != asked.ticket
    assert (again.prompt, again.left, again.right) == (asked.prompt, asked.left, asked.right)


def test_a_screen_shows_the_two_of_its_ticket_and_a_word_is_kept_in_their_own_order(hall_of: HallOf) -> None:
    hall = hall_of(feedback={"initial_labels": 24})
    ann = hall.desk("ann")
    sides = set()
    for item in range(24):
        asked = asked_of(ann)
        swapped = ticket_of(ann, asked).swapped
        one, two = f"{item}, one", f"{item}, two"
        assert (asked.prompt, asked.number) == (f"initial of None.None: {item}?", item + 1)
        assert (asked.left, asked.right) == ((two, one) if swapped else (one, two))
        assert ann.label(asked.ticket, Choice.FIRST, Harm.SECOND) == Said(Standing.RECORDED, Choice.FIRST)
        label = hall.state.batches[0].labels[item]
        left_is_one = asked.left.endswith("one")
        assert label.choice is (Choice.FIRST if left_is_one else Choice.SECOND)
        assert label.harm is (Harm.SECOND if left_is_one else Harm.FIRST)
        assert label.swapped is swapped
        sides.add(swapped)
    assert sides == {True, False}
    mine = ann.mine()
    assert [(word.number, word.choice, word.harm, word.undoable) for word in mine] == [
        (number, Choice.FIRST, Harm.SECOND, False) for number in range(24, 0, -1)
    ]
    assert mine[0].left == asked.left
    assert [word.number for word in ann.mine(limit=3)] == [24, 23, 22]


def test_each_reviewer_sees_the_sides_in_an_order_of_their_own(hall_of: HallOf) -> None:
    hall = hall_of(feedback={"initial_labels": 40, "raters_per_item": 3})
    seen: dict[str, list[bool]] = {"ann": [], "bob": [], "cyd": []}
    for name, sides in seen.items():
        while (ticket := say_next(hall.desk(name))) is not None:
            sides.append(ticket.swapped)
    assert [len(sides) for sides in seen.values()] == [40] * 3
    assert len({tuple(sides) for sides in seen.values()}) == 3
    # Of 120 fair coins, more than 85 or fewer than 35 of one side: once in 10^6.
    assert 35 <= sum(map(sum, seen.values())) <= 85


# --- words ----------------------------------------------------------------------------------------------------


def test_a_label_said_twice_is_one_and_another_word_is_refused(hall_of: HallOf) -> None:
    hall = hall_of()
    ann = hall.desk("ann")
    asked = asked_of(ann)
    assert ann.label(asked.ticket, Choice.FIRST).standing is Standing.RECORDED
    assert ann.label(asked.ticket, Choice.FIRST) == Said(Standing.AGAIN, Choice.FIRST)
    assert hall.desk("ann", office=hall.elsewhere()).label(asked.ticket, Choice.FIRST).standing is Standing.AGAIN
    for choice, harm in ((Choice.SECOND, None), (Choice.FIRST, Harm.BOTH)):
        with pytest.raises(ConflictError, match="something else"):
            ann.label(asked.ticket, choice, harm)
    assert hall.state.labels.total == 1
    assert hall.types.count("labels_recorded") == 1


def test_harm_said_twice_is_one_and_harm_left_out_is_another_word(hall_of: HallOf) -> None:
    hall = hall_of()
    ann = hall.desk("ann")
    asked = asked_of(ann)
    ann.label(asked.ticket, Choice.FIRST, Harm.BOTH)
    assert ann.label(asked.ticket, Choice.FIRST, Harm.BOTH).standing is Standing.AGAIN
    with pytest.raises(ConflictError, match="something else"):
        ann.label(asked.ticket, Choice.FIRST)
    (label,) = hall.state.batches[0].labels
    assert (label.choice.first_wins is not None, label.harm) == (True, Harm.BOTH)


def test_tickets_of_others_and_of_nobody_are_refused(hall_of: HallOf) -> None:
    hall = hall_of()
    asked = asked_of(hall.desk("ann"))
    with pytest.raises(ForbiddenError, match="somebody else"):
        hall.desk("bob").label(asked.ticket, Choice.FIRST)
    with pytest.raises(NotFoundError, match="not known"):
        hall.desk("ann").label("x" * 22, Choice.FIRST)
    hall.ledger.create_campaign("other")
    elsewhere = hall.ledger.tickets.lend(
        "other", "ann", lambda live: Place("initial", 0), until=hall.now() + timedelta(hours=1), now=hall.now()
    )
    assert elsewhere is not None
    with pytest.raises(NotFoundError, match="not known"):
        hall.desk("ann").label(elsewhere.id, Choice.FIRST)
    assert hall.state.labels.total == 0


def test_a_lease_that_ran_out_goes_to_somebody_else_and_the_late_word_is_kept(hall_of: HallOf) -> None:
    hall = hall_of(feedback={"initial_labels": 1, "lease_minutes": 5})
    ann, bob = hall.desk("ann"), hall.desk("bob", office=hall.elsewhere())
    slow = asked_of(ann)
    assert bob.asked() is None
    hall.wait(minutes=5)
    quick = asked_of(bob)
    assert quick.prompt == slow.prompt
    assert say(bob, quick, Choice.FIRST).standing is Standing.RECORDED
    assert say(ann, slow, Choice.SECOND).standing is Standing.EXTRA
    assert say(ann, slow, Choice.SECOND).standing is Standing.AGAIN
    batch = hall.state.batches[0]
    assert [(label.rater, label.choice) for label in batch.labels] == [("bob", Choice.FIRST), ("ann", Choice.SECOND)]
    assert batch.choices(1) == ((Choice.FIRST,),)


def test_a_word_on_a_candidate_that_was_rolled_back_is_late_and_kept(hall_of: HallOf) -> None:
    hall = at_the_gate(hall_of)
    ann, bob = hall.desk("ann"), hall.desk("bob")
    slow = asked_of(ann)
    hall.wait(minutes=10)
    all_of(bob, against_the_candidate)
    hall.go_on()
    before = hall.state.attempts[0]
    assert before.rolled_back_to is not None
    assert say(ann, slow, Choice.TIE).standing is Standing.LATE
    gate = hall.state.batches[1]
    assert gate.labels.of(0, "ann") is not None
    assert hall.state.attempts[0] == before
    assert ann.undo().standing is Standing.TOO_LATE
    assert hall.state.batches[1].labels.of(0, "ann") is not None


def test_a_word_that_would_run_over_the_end_of_a_campaign_is_refused(hall_of: HallOf) -> None:
    hall = hall_of()
    asked = asked_of(hall.desk("ann"))
    stop(hall.office, "enough", author="ann")
    with pytest.raises(UsageError, match="has ended"):
        hall.desk("ann").label(asked.ticket, Choice.FIRST)


# --- taking back ----------------------------------------------------------------------------------------------


def test_undo_gives_the_same_comparison_again_and_twice_is_once(hall_of: HallOf) -> None:
    hall = hall_of()
    ann, bob = hall.desk("ann"), hall.desk("bob")
    with pytest.raises(UsageError, match="nothing yet"):
        ann.undo()
    say_next(ann, Choice.TIE)
    slip = asked_of(ann)
    say(ann, slip, Choice.FIRST)
    assert [word.undoable for word in ann.mine()] == [True, False]
    assert ann.progress().mine == 2
    assert ann.undo(2).standing is Standing.UNDONE
    assert ann.undo(2).standing is Standing.AGAIN
    assert ann.progress().mine == 1
    assert [label.item for label in hall.state.batches[0].labels] == [0]
    other = asked_of(bob)
    assert other.prompt != slip.prompt, "it is on ann's screen again"
    again = asked_of(ann)
    assert again.ticket != slip.ticket
    assert (again.number, again.prompt, again.left, again.right) == (2, slip.prompt, slip.left, slip.right)
    for choice in (Choice.FIRST, Choice.SECOND):  # the old page, sent once more
        with pytest.raises(ConflictError):
            ann.label(slip.ticket, choice)
    assert say(ann, again, Choice.SECOND).standing is Standing.RECORDED
    assert [label.choice for label in hall.state.batches[0].labels] == [Choice.TIE, Choice.SECOND]


def test_what_is_on_others_screens_is_foreseen_to_the_minute(hall_of: HallOf) -> None:
    hall = hall_of(feedback={"initial_labels": 3, "lease_minutes": 10})
    ann, bob, cyd, dan = (hall.desk(name) for name in ("ann", "bob", "cyd", "dan"))
    for desk in (bob, cyd):
        asked_of(desk)
        hall.wait(minutes=4)
    assert ann.outlook() == Outlook(waits=True)
    say_next(dan)
    assert hall.ledger.tickets.live_of(hall.name, "ann", hall.now()) == (), "looking lends nothing"
    outlook = ann.outlook()
    assert not outlook.waits
    assert outlook.free_in is not None
    assert timedelta(minutes=1, seconds=59) < outlook.free_in <= timedelta(minutes=2), "bob's, lent 8 minutes ago"
    assert not dan.outlook().waits
    hall.wait(minutes=2)
    assert ann.outlook() == Outlook(waits=True)
    say_next(ann)
    say_next(cyd)
    assert ann.outlook() == Outlook(waits=False)


def test_looking_ahead_moves_nothing(hall_of: HallOf) -> None:
    hall = hall_of(feedback={"initial_labels": 3, "raters_per_item": 2})
    say_next(hall.desk("ann"))
    hall.wait(minutes=11)  # what she was lent has run out
    office = hall.elsewhere()
    assert hall.desk("ann", office=office).outlook() == Outlook(waits=True)
    assert office.cursors == Cursors()


def test_an_undo_leaves_one_comparison_on_the_screen(hall_of: HallOf) -> None:
    hall = hall_of()
    ann, bob = hall.desk("ann"), hall.desk("bob")
    slip = asked_of(ann)
    say(ann, slip, Choice.FIRST)
    skipped = asked_of(ann)
    assert ann.undo(1).standing is Standing.UNDONE
    again = asked_of(ann)
    assert [ticket.id for ticket in hall.ledger.tickets.live(hall.name, hall.now())] == [again.ticket]
    assert asked_of(bob).prompt == skipped.prompt, "ann has it no more"
    assert say(ann, skipped, Choice.TIE).standing is Standing.RECORDED, "though her word for it is taken"


def test_only_the_last_word_can_be_taken_back(hall_of: HallOf) -> None:
    hall = hall_of()
    ann = hall.desk("ann")
    for _ in range(3):
        say_next(ann, Choice.TIE)
    with pytest.raises(UsageError, match="only your last word"):
        ann.undo(2)
    assert ann.undo().standing is Standing.UNDONE
    # The one before was final when the third was said.
    assert ann.undo().standing is Standing.TOO_LATE
    assert [label.item for label in hall.state.batches[0].labels] == [0, 1]
    assert hall.state.batches[0].regrets == 1


def test_after_a_quarter_of_an_hour_somebody_elses_word_makes_one_final(hall_of: HallOf) -> None:
    hall = hall_of()
    ann, bob, cyd = (hall.desk(name) for name in ("ann", "bob", "cyd"))
    say_next(ann, Choice.TIE)
    hall.wait(minutes=14)
    say_next(bob, Choice.TIE)
    hall.wait(minutes=1)
    assert [word.rater for word in hall.state.batches[0].open_words] == ["ann", "bob"]
    say_next(cyd, Choice.TIE)
    assert [word.rater for word in hall.state.batches[0].open_words] == ["bob", "cyd"]
    assert ann.undo().standing is Standing.TOO_LATE
    assert bob.undo().standing is Standing.UNDONE


def test_an_undo_from_another_process_is_seen_here(hall_of: HallOf) -> None:
    hall = hall_of()
    here, there = hall.desk("ann"), hall.desk("ann", office=hall.elsewhere())
    say_next(here, Choice.TIE)
    assert len(there.mine()) == 1
    assert there.undo(1).standing is Standing.UNDONE
    assert here.mine() == ()
    assert here.progress().mine == 0
    assert here.undo(1).standing is Standing.AGAIN
    assert say_next(here, Choice.FIRST) is not None


def test_a_regret_is_noted_once(hall_of: HallOf) -> None:
    hall = hall_of(feedback={"initial_labels": 1})
    ann = hall.desk("ann")
    say_next(ann)
    for token in ("c-ann", "c-ann", "c-new"):
        person = replace(ann.person, credential=token)
        assert Desk(hall.elsewhere(), person).undo().standing is Standing.TOO_LATE
    assert hall.state.batches[0].regrets == 1
    assert hall.types.count("label_withdrawn") == 1


def test_what_somebody_else_has_meanwhile_is_not_lent_again(hall_of: HallOf) -> None:
    hall = hall_of(feedback={"initial_labels": 3})
    ann, bob = hall.desk("ann"), hall.desk("bob")
    hall.wait(minutes=1)
    slip = asked_of(ann)
    taken = lent(hall, "bob", ticket_of(ann, slip).item)
    say(ann, slip, Choice.TIE)
    assert ann.undo().standing is Standing.UNDONE
    assert asked_of(ann).prompt != slip.prompt
    assert bob.label(taken, Choice.TIE).standing is Standing.RECORDED


def meanwhile(office: Office, act: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Just before this office appends for the first time, something else happens."""
    append, done = office.ledger.append, []

    def racing(*words: Any, **options: Any) -> Any:
        if not done:
            done.append(True)
            act()
        return append(*words, **options)

    monkeypatch.setattr(office.ledger, "append", racing)


def test_an_undo_that_somebody_was_quicker_than_is_told_as_too_late(
    hall_of: HallOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue is complete while ann takes her word back: the campaign may have gone on."""
    hall = hall_of(feedback={"initial_labels": 2})
    ann, bob = hall.desk("ann", office=hall.elsewhere()), hall.desk("bob")
    say_next(ann)
    hall.wait(minutes=11)
    last = asked_of(bob)
    meanwhile(ann.office, lambda: say(bob, last, Choice.TIE), monkeypatch)
    assert ann.undo(1).standing is Standing.TOO_LATE
    assert len(hall.state.batches[0].labels) == 2


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("others_speak", [True, False])
def test_a_ticket_answered_twice_at_the_same_moment_has_one_word(
    hall_of: HallOf, monkeypatch: pytest.MonkeyPatch, same: bool, others_speak: bool
) -> None:
    hall = hall_of()
    here, there, bob = hall.desk("ann", office=hall.elsewhere()), hall.desk("ann"), hall.desk("bob")
    asked, other = asked_of(here), asked_of(bob)

    def act() -> None:
        there.label(asked.ticket, Choice.FIRST if same else Choice.SECOND)
        if others_speak:
            say(bob, other, Choice.TIE)

    meanwhile(here.office, act, monkeypatch)
    if same:
        assert here.label(asked.ticket, Choice.FIRST).standing in (Standing.RECORDED, Standing.AGAIN)
    else:
        with pytest.raises(ConflictError, match="something else"):
            here.label(asked.ticket, Choice.FIRST)
    assert hall.state.batches[0].labels.count_by("ann") == 1
    assert hall.types.count("labels_recorded") == 1 + others_speak


def test_an_undo_sent_twice_at_the_same_moment_is_one(hall_of: HallOf, monkeypatch: pytest.MonkeyPatch) -> None:
    hall = hall_of()
    here, there = hall.desk("ann", office=hall.elsewhere()), hall.desk("ann")
    for _ in range(2):
        say_next(here)
    here.progress()
    meanwhile(here.office, lambda: there.undo(2), monkeypatch)
    assert here.undo(2).standing in (Standing.AGAIN, Standing.UNDONE)
    assert [label.item for label in hall.state.batches[0].labels] == [0]
    assert hall.types.count("label_withdrawn") == 1


# --- repeats --------------------------------------------------------------------------------------------------


def test_repeats_come_unseen_with_the_sides_the_other_way_round(hall_of: HallOf) -> None:
    hall = hall_of(feedback={"initial_labels": 40, "repeat_every": 5})
    ann = hall.desk("ann")
    seen: list[tuple[Asked, Ticket]] = []
    while (asked := ann.asked()) is not None:
        seen.append((asked, ticket_of(ann, asked)))
        ann.label(asked.ticket, Choice.FIRST)
    assert [asked.number for asked, _ in seen] == list(range(1, len(seen) + 1)), "numbers tell no repeat"
    repeats = [(place, asked, ticket) for place, (asked, ticket) in enumerate(seen) if ticket.repeat]
    labels = [(asked, ticket) for asked, ticket in seen if not ticket.repeat]
    assert [ticket.item for _, ticket in labels] == list(range(40))
    # In ten stretches of four labels, none in the first: nine, or one less where the last place was not reached.
    assert len(repeats) in (8, 9)
    first = {ticket.item: (place, asked) for place, (asked, ticket) in enumerate(seen) if not ticket.repeat}
    for place, asked, ticket in repeats:
        earlier, before = first[ticket.item]
        assert place - earlier > 3
        assert (asked.prompt, asked.left, asked.right) == (before.prompt, before.right, before.left)
    assert len({ticket.item for _, _, ticket in repeats}) == len(repeats)
    batch = hall.state.batches[0]
    assert len(batch.labels) == 40
    assert [said.item for said in batch.repeats] == [ticket.item for _, _, ticket in repeats]
    # Whoever always says "left" contradicts themselves each time.
    assert all(said.choice is not batch.labels[said.item].choice for said in batch.repeats)
    assert hall.state.labels.checks == len(repeats)


def test_a_repeat_can_be_taken_back_and_leaves_the_first_word_alone(hall_of: HallOf) -> None:
    hall = hall_of(feedback={"initial_labels": 40, "repeat_every": 5})
    ann = hall.desk("ann")
    while not ticket_of(ann, asked := asked_of(ann)).repeat:
        say(ann, asked, Choice.TIE)
    said = ticket_of(ann, asked)
    labels = hall.state.batches[0].labels
    say(ann, asked, Choice.FIRST)
    assert ann.label(asked.ticket, Choice.SECOND if said.swapped else Choice.FIRST).standing is Standing.AGAIN
    assert ann.undo(asked.number).standing is Standing.UNDONE
    assert hall.state.batches[0].labels == labels
    assert hall.state.batches[0].repeats == ()
    again = asked_of(ann)
    assert (again.left, again.right, ticket_of(ann, again).repeat) == (asked.left, asked.right, True)
    say(ann, again, Choice.BOTH_BAD)
    assert [word.choice for word in hall.state.batches[0].repeats] == [Choice.BOTH_BAD]


# --- many at once ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlap", [1, 2])
def test_labels_of_many_at_once_are_all_kept(hall_of: HallOf, overlap: int) -> None:
    """Six people in three processes label at the same time: each item has its verdicts, and not one too many."""
    hall = hall_of(feedback={"initial_labels": 20, "raters_per_item": overlap})
    offices = [hall.elsewhere() for _ in range(3)]
    desks = [hall.desk(f"p{n}", office=offices[n % 3]) for n in range(6)]

    def work(desk: Desk) -> list[tuple[int, str, Standing]]:
        said = []
        while (asked := desk.asked()) is not None:
            item = ticket_of(desk, asked).item
            said.append((item, desk.name, desk.label(asked.ticket, Choice.TIE).standing))
        return said

    with ThreadPoolExecutor(6) as room:
        acknowledged = [word for words in room.map(work, desks) for word in words]
    labels = [(label.item, label.rater) for label in hall.state.batches[0].labels]
    assert sorted(labels) == sorted((item, name) for item, name, _ in acknowledged)
    assert {standing for *_, standing in acknowledged} == {Standing.RECORDED}
    assert Counter(item for item, _ in labels) == dict.fromkeys(range(20), overlap)
    assert hall.ledger.verify(hall.name).ok


@pytest.mark.parametrize("patient", [True, False], ids=["patient", "impatient"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("overlap", [1, 2, 3])
def test_random_people_leave_every_item_with_its_verdicts(
    hall_of: HallOf, overlap: int, seed: int, patient: bool
) -> None:
    """Against a list of the words that stand. Where nobody's lease runs out, nobody labels in vain."""
    hall, dice = hall_of(feedback={"initial_labels": 8, "raters_per_item": overlap}), random.Random(seed)
    offices = [hall.office, hall.elsewhere()]
    names = [f"p{n}" for n in range(overlap + 2)]
    screens: dict[str, tuple[str, int]] = {}
    standing: list[tuple[str, int]] = []
    extra = 0

    def taken(but: str) -> Counter[int]:
        """Verdicts that stand or are under way, by item."""
        live = hall.ledger.tickets.live(hall.name, hall.now())
        under_way = {(t.person, t.item) for t in live if t.person != but and (t.person, t.item) not in standing}
        return Counter(item for _, item in [*standing, *under_way])

    for _ in range(100):
        name = dice.choice(names)
        desk = hall.desk(name, office=dice.choice(offices))
        match dice.choices(["ask", "say", "undo", "wait"], weights=[6, 6, 2, 0 if patient else 1])[0]:
            case "ask":
                asked = desk.asked()
                mine = {item for who, item in standing if who == name}
                if asked is None:
                    assert all(item in mine or taken(but=name)[item] >= overlap for item in range(8))
                    continue
                item = ticket_of(desk, asked).item
                assert item not in mine
                assert sum(where == item for _, where in standing) < overlap
                assert not patient or taken(but=name)[item] < overlap
                screens[name] = asked.ticket, item
            case "say" if name in screens:
                ticket, item = screens.pop(name)
                full = sum(where == item for _, where in standing) >= overlap
                assert desk.label(ticket, Choice.TIE).standing is (Standing.EXTRA if full else Standing.RECORDED)
                standing.append((name, item))
                extra += full
            case "undo" if any(who == name for who, _ in standing):
                last = next(word for word in reversed(standing) if word[0] == name)
                screens.pop(name, None)
                if desk.undo().standing is Standing.UNDONE:
                    standing.remove(last)
            case "wait":
                hall.wait(minutes=dice.choice([1, 4, 11]))
        labels = [(label.rater, label.item) for label in hall.state.batches[0].labels]
        assert labels == standing, "nothing lost, nothing twice, in the order in which it was said"
    while sum(len(all_of(hall.desk(name))) for name in names):
        if not patient:
            hall.wait(minutes=11)
    counted = Counter(label.item for label in hall.state.batches[0].labels)
    assert set(counted) == set(range(8))
    assert min(counted.values()) >= overlap
    assert sum(counted.values()) <= 8 * overlap + extra
    assert not (patient and extra)


# --- roles and names ------------------------------------------------------------------------------------------


def test_only_those_whom_the_campaign_names_may_label(hall_of: HallOf) -> None:
    hall = hall_of(feedback={"raters": ["Ann", "bob"]})
    ann, cyd = hall.desk("ann"), hall.desk("cyd")
    say_next(ann, Choice.TIE)
    assert cyd.asked() is None
    assert cyd.refusal() == "cyd is not among the raters of campaign small (feedback.raters)"
    with pytest.raises(UsageError, match="cyd may not label initial"):
        cyd.label(lent(hall, "cyd", 1), Choice.TIE)
    assert [label.rater for label in hall.state.batches[0].labels] == ["ann"]


def test_roles_are_apart(hall_of: HallOf) -> None:
    hall = hall_of()
    labeler, approver = hall.desk("lea", [Role.LABELER]), hall.desk("app", [Role.APPROVER])
    auditor = hall.desk("aud", [Role.AUDITOR])
    for desk in (approver, auditor):
        assert desk.asked() is None
        assert desk.refusal() == f"{desk.name} is not invited to small as labeler"
        with pytest.raises(ForbiddenError, match="not invited to small as labeler"):
            desk.label(lent(hall, desk.name, 0), Choice.TIE)
    assert labeler.asked() is not None
    for desk in (labeler, auditor):
        for act in (
            lambda desk=desk: desk.decide(Decision.APPROVE, "a" * 64, "good"),
            desk.disagreements,
            lambda desk=desk: desk.adjudicate("initial", 0, Choice.TIE, "why"),
            lambda desk=desk: desk.pause_labelling("why"),
            desk.resume_labelling,
        ):
            with pytest.raises(ForbiddenError, match=f"{desk.name} is not invited to small as approver"):
                act()
    assert hall.types[-1] == "comparisons_drawn"


def test_a_role_for_one_campaign_is_none_for_another(hall_of: HallOf) -> None:
    from orchestrator.review.identity import Person

    hall = hall_of()
    here = Person("ann", "c-ann", frozenset({(Role.LABELER, "small")}))
    there = Person("bob", "c-bob", frozenset({(Role.LABELER, "other")}))
    assert Desk(hall.office, here).asked() is not None
    assert Desk(hall.office, there).asked() is None
    assert Desk(hall.office, there).refusal() == "bob is not invited to small as labeler"


# --- pausing --------------------------------------------------------------------------------------------------


def test_while_labelling_is_paused_nobody_is_asked_and_what_is_on_screens_is_kept(hall_of: HallOf) -> None:
    hall = hall_of()
    ann = hall.desk("ann")
    asked = asked_of(ann)
    with pytest.raises(UsageError, match="reason"):
        ann.pause_labelling(" ")
    ann.pause_labelling("the guidelines change")
    ann.pause_labelling("again")
    assert hall.types.count("labelling_paused") == 1
    for name in ("ann", "bob"):
        desk = hall.desk(name, office=hall.elsewhere())
        assert desk.asked() is None
        assert desk.refusal() == "labelling of small is paused: the guidelines change"
    assert say(ann, asked, Choice.TIE).standing is Standing.RECORDED
    ann.resume_labelling()
    ann.resume_labelling()
    assert hall.types.count("labelling_resumed") == 1
    assert hall.desk("bob").asked() is not None


def test_a_campaign_is_paused_and_stopped_once(hall_of: HallOf) -> None:
    hall = hall_of()
    for _ in range(2):
        pause(hall.office, "lunch", author="ann")
    assert hall.types.count("paused") == 1
    assert hall.desk("ann").asked() is None
    for _ in range(2):
        stop(hall.elsewhere(), "enough", author="ann")
    assert hall.types.count("finished") == 1
    with pytest.raises(UsageError, match="has ended"):
        pause(hall.office, "too late", author="ann")


# --- deciding -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [Decision.APPROVE, Decision.REJECT])
def test_of_two_that_decide_one_after_the_other_the_first_stands(hall_of: HallOf, first: Decision) -> None:
    hall, candidate = with_candidate(hall_of)
    second = Decision.REJECT if first is Decision.APPROVE else Decision.APPROVE
    ann, bob = hall.desk("ann"), hall.desk("bob", office=hall.elsewhere())
    decided = ann.decide(first, candidate[:8].upper(), "read twenty")
    assert (decided.digest, decided.standing) == (candidate, Standing.RECORDED)
    assert (decided.approvals, decided.approvers) == (int(first is Decision.APPROVE), 1)
    with pytest.raises(ConflictError, match="no candidate waits"):
        bob.decide(second, candidate, "read forty")
    assert ann.decide(first, candidate, "read twenty").standing is Standing.AGAIN
    with pytest.raises(ConflictError):
        ann.decide(second, candidate, "changed my mind")
    assert hall.types.count("decision_made") == 1


def test_a_decision_names_a_candidate_and_a_reason(hall_of: HallOf) -> None:
    hall, candidate = with_candidate(hall_of)
    ann = hall.desk("ann")
    for digest in (candidate[:7], "deadbeef", "", candidate + "0"):
        with pytest.raises(ConflictError, match=candidate[:12]):
            ann.decide(Decision.APPROVE, digest, "good")
    with pytest.raises(UsageError, match="a reason is wanted"):
        ann.decide(Decision.APPROVE, candidate, " ")
    assert "decision_made" not in hall.types


def test_two_approvers_at_once_from_two_processes(hall_of: HallOf) -> None:
    hall, candidate = with_candidate(hall_of, approval={"approvers": 2})
    desks = [hall.desk(name, office=hall.elsewhere()) for name in ("ann", "bob", "ann", "bob")]
    together = threading.Barrier(4)

    def approve(desk: Desk) -> Standing:
        together.wait()
        return desk.decide(Decision.APPROVE, candidate, "good").standing

    with ThreadPoolExecutor(4) as room:
        standings = list(room.map(approve, desks))
    # Of the same word sent twice at once, either may be told that it was the first.
    assert set(standings) <= {Standing.RECORDED, Standing.AGAIN}
    assert hall.types.count("decision_made") == 2
    hall.go_on()
    assert hall.state.approved == candidate


def test_of_two_who_approve_and_reject_at_once_one_is_told_to_look_again(hall_of: HallOf) -> None:
    hall, candidate = with_candidate(hall_of)
    together = threading.Barrier(2)

    def decide(name: str, decision: Decision) -> bool:
        desk = hall.desk(name, office=hall.elsewhere())
        together.wait()
        try:
            desk.decide(decision, candidate, "because")
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(2) as room:
        told = list(room.map(decide, ("ann", "bob"), (Decision.APPROVE, Decision.REJECT)))
    assert sum(told) == hall.types.count("decision_made") >= 1
    hall.go_on()
    # A rejection that was recorded in time outweighs the approval.
    assert (hall.state.attempts[0].rolled_back_to is not None) is hall.state.attempts[0].rejected


def test_nobody_approves_twice_under_two_spellings(hall_of: HallOf) -> None:
    hall, candidate = with_candidate(hall_of, approval={"approvers": 2})
    for spelling in ("Ann", " \uff21NN "):
        _, person = hall.ledger.people.token(spelling, [Role.APPROVER], by="tester")
        Desk(hall.office, person).decide(Decision.APPROVE, candidate, "good")
    assert hall.types.count("decision_made") == 1
    assert hall.desk("bob").candidate() is not None


def test_nothing_can_be_decided_while_paused_or_after_the_end(hall_of: HallOf) -> None:
    hall, candidate = with_candidate(hall_of)
    ann = hall.desk("ann")
    pause(hall.office, "lunch", author="ann")
    with pytest.raises(ConflictError, match="no candidate waits"):
        ann.decide(Decision.APPROVE, candidate, "good")
    stop(hall.office, "enough", author="ann")
    with pytest.raises(ConflictError):
        ann.decide(Decision.APPROVE, candidate, "good")
    assert hall.state.status is Status.STOPPED
    assert hall.state.approved == hall.state.base


def test_an_owner_approves_only_where_the_campaign_lets_them(hall_of: HallOf) -> None:
    hall, candidate = with_candidate(hall_of, approval={"owner": "Ann", "self_approval": False})
    with pytest.raises(ForbiddenError, match="ann owns campaign small; somebody else has to approve"):
        hall.desk("ann").decide(Decision.APPROVE, candidate, "mine")
    assert hall.desk("bob").decide(Decision.APPROVE, candidate, "good").standing is Standing.RECORDED


def test_an_owner_may_reject_what_is_theirs(hall_of: HallOf) -> None:
    hall, candidate = with_candidate(hall_of, approval={"owner": "Ann", "self_approval": False})
    assert hall.desk("ann").decide(Decision.REJECT, candidate, "it evades").standing is Standing.RECORDED


@pytest.mark.parametrize("allowed", [True, False])
def test_an_override_stands_for_all_where_the_campaign_allows_it(hall_of: HallOf, allowed: bool) -> None:
    hall, candidate = with_candidate(hall_of, approval={"approvers": 3, "override": allowed})
    ann = hall.desk("ann")
    if not allowed:
        with pytest.raises(ConflictError, match="lets nobody stand for the other approvers"):
            ann.decide(Decision.APPROVE, candidate, "urgent", override=True)
        return
    ann.decide(Decision.APPROVE, candidate, "urgent", override=True)
    hall.go_on()
    assert hall.state.approved == candidate
    assert hall.state.attempts[0].overridden


# --- disagreements --------------------------------------------------------------------------------------------


def test_disagreements_are_settled_once_and_both_versions_stay(hall_of: HallOf) -> None:
    hall = hall_of(feedback={"initial_labels": 3, "raters_per_item": 2})
    ann, bob, eve = hall.desk("ann"), hall.desk("bob"), hall.desk("eve", [Role.APPROVER])
    all_of(ann, Choice.FIRST)
    all_of(bob, lambda batch, item: Choice.SECOND if item else Choice.FIRST)
    found = eve.disagreements()
    assert [(one.batch, one.item, one.response_1, one.settled) for one in found] == [
        ("initial", 1, "1, one", ()),
        ("initial", 2, "2, one", ()),
    ]
    assert found[0].words == (("ann", Choice.FIRST), ("bob", Choice.SECOND))
    with pytest.raises(UsageError, match="do not disagree on item 0"):
        eve.adjudicate("initial", 0, Choice.TIE, "why")
    for place in (("initial", 3), ("nothing", 0)):
        with pytest.raises(NotFoundError):
            eve.adjudicate(*place, Choice.TIE, "why")
    with pytest.raises(UsageError, match="reason"):
        eve.adjudicate("initial", 1, Choice.TIE, "")
    for _ in range(2):
        eve.adjudicate("initial", 1, Choice.SECOND, "the first evades")
    assert hall.types.count("label_adjudicated") == 1
    eve.adjudicate("initial", 1, Choice.TIE, "on second thought")
    batch = hall.state.batches[0]
    assert batch.teaches(2) == (
        (Choice.FIRST, Choice.FIRST),
        (Choice.TIE,),
        (Choice.FIRST, Choice.SECOND),
    )
    assert batch.choices(2)[1] == (Choice.FIRST, Choice.SECOND)
    left, done = eve.disagreements()
    assert (left.item, done.item) == (2, 1), "unsettled ones first"
    assert done.settled == (("eve", Choice.SECOND, "the first evades"), ("eve", Choice.TIE, "on second thought"))


def test_nothing_is_settled_while_it_is_judged(hall_of: HallOf) -> None:
    hall = at_the_gate(hall_of, feedback={"raters_per_item": 2})
    ann, bob = hall.desk("ann"), hall.desk("bob")
    for _ in range(5):
        say_next(ann, Choice.FIRST)
        say_next(bob, Choice.SECOND)
    assert [one for one in ann.disagreements() if one.batch == "s0.a0.gate"] == []
    with pytest.raises(ConflictError, match="still being judged"):
        ann.adjudicate("s0.a0.gate", 0, Choice.TIE, "why")
    all_of(ann, against_the_candidate)
    all_of(bob, against_the_candidate)
    hall.go_on()
    verdict = hall.state.attempts[0]
    assert [one.item for one in ann.disagreements() if one.batch == "s0.a0.gate"] == list(range(5))
    ann.adjudicate("s0.a0.gate", 0, Choice.TIE, "why")
    assert hall.state.attempts[0] == verdict


# --- who is asked for what ------------------------------------------------------------------------------------


def a_gate(count: int) -> Batch:
    return Batch(
        purpose=Purpose.GATE,
        stage=0,
        attempt=0,
        comparisons="c" * 64,
        count=count,
        candidate_first=(True,) * count,
        drawn_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def people(**feedback: Any) -> Any:
    from fake_world import settings_of

    return settings_of(feedback={"rater": "people", **feedback})


def test_the_lot_does_not_ask_who_is_quick() -> None:
    """Three raters toss fair coins, and are 1.3 times faster when they favour the candidate."""
    settings = people(raters=["ann", "bob", "cyd"])
    dice, gate = random.Random(1), a_gate(4000)
    quickest = drawn = 0
    for item in range(gate.count):
        favours = {name: dice.random() < 0.5 for name in ("ann", "bob", "cyd")}
        takes = {name: dice.expovariate(1.3 if good else 1.0) for name, good in favours.items()}
        quickest += favours[min(takes, key=takes.__getitem__)]
        (name,) = asked_by_name(gate, item, settings) or ()
        drawn += favours[name]
    assert quickest / gate.count > 0.5 + 0.02, "the race favours the candidate"
    assert abs(drawn / gate.count - 0.5) < 3.3 * 0.5 / gate.count**0.5


@pytest.mark.parametrize("each", [1, 2])
def test_the_lot_treats_all_raters_alike_and_does_not_heed_their_order(each: int) -> None:
    names = ["Ann", "bob", "cyd", "dee", " ANN"]
    gate = a_gate(2000)
    settings, turned = (people(raters_per_item=each, raters=named) for named in (names, names[::-1]))
    said: Counter[str] = Counter()
    for item in range(gate.count):
        asked = asked_by_name(gate, item, settings)
        assert asked == asked_by_name(gate, item, turned)
        assert asked is not None
        assert len(set(asked)) == each
        said.update(asked)
    expected = gate.count * each / 4
    assert set(said) == {"ann", "bob", "cyd", "dee"}
    assert all(abs(count - expected) < 4 * (expected * (1 - each / 4)) ** 0.5 for count in said.values())


def test_who_comes_first_changes_nothing_where_raters_are_named(where: str, tmp_path: Any) -> None:
    """Two gates on the same pairs, labelled in opposite orders by raters who disagree: the same verdicts count."""
    from hall import Hall

    told = []
    words = {"ann": Choice.FIRST, "bob": Choice.SECOND, "cyd": Choice.TIE}
    for name, order in (("one", list(words)), ("two", list(words)[::-1])):
        with Hall(
            where, tmp_path, name=name, feedback={"raters": list(words), "raters_per_item": 2}, gate=GATE
        ) as hall:
            hall.go_on()
            all_of(hall.desk("ann"))
            all_of(hall.desk("bob"))
            hall.go_on()
            items = {person: all_of(hall.desk(person), words[person]) for person in order}
            gate = hall.state.batches[1]
            assert sorted(item for own in items.values() for item in own) == sorted(2 * list(range(40)))
            assert all(len(set(own)) == len(own) for own in items.values())
            assert hall.desk("ann").open_batch() is None, "nothing is missing any more"
            said = {(label.item, label.rater, label.choice) for label in gate.labels}
            told.append((gate.comparisons, gate.outcomes(2), said))
    assert told[0] == told[1]


def test_nobody_is_asked_for_what_the_lot_drew_for_another(hall_of: HallOf) -> None:
    """Who does not come is missed by name, and nobody can fill in."""
    hall = at_the_gate(hall_of, feedback={"raters": ["ann", "bob"]})
    ann, bob = hall.desk("ann"), hall.desk("bob")
    missing = sorted(set(range(40)) - set(all_of(ann)))
    assert missing
    assert ann.asked() is None
    ask = hall.go_on()
    assert isinstance(ask, AskForLabels)
    assert ask.settled <= missing[0]
    assert missing_by_name(ask, hall.settings) == {"bob": len(missing)}
    assert all_of(bob) == missing
    assert hall.desk("ann").open_batch() is None


# --- check items ----------------------------------------------------------------------------------------------


def labelled_in_turns(hall: Hall, names: list[str], *, check: Choice | None = None) -> dict[str, list[str]]:
    """Label until nobody is asked any more; gives, person by person, the batches of their labels.

    Queues are labelled for the candidate, check items as `check` says, or rightly.
    """
    met: dict[str, list[str]] = {name: [] for name in names}
    numbers: dict[str, list[int]] = {name: [] for name in names}
    desks = {name: hall.desk(name) for name in names}
    while True:
        before = sum(map(len, met.values()))
        for name, desk in desks.items():
            asked = desk.asked()
            if asked is None:
                continue
            ticket = ticket_of(desk, asked)
            batch = hall.office.state().batch(ticket.batch)
            assert batch is not None
            right = batch.expected[ticket.item] if batch.expected else for_the_candidate(batch, ticket.item)
            say(desk, asked, check if check is not None and batch.expected else right)
            met[name].append(batch.id)
            numbers[name].append(asked.number)
        if sum(map(len, met.values())) == before:
            break
    for name in names:
        assert numbers[name] == list(range(1, len(met[name]) + 1)), "no number is left out, or tells a check"
    return met


def test_check_items_come_in_between_and_everybody_answers_the_same(hall_of: HallOf) -> None:
    """Of 40 items two people label 20 each: in stretches of 3, so 7 checks each, were there not only 6."""
    hall = at_the_gate(hall_of, feedback={"checks": {"items": 6, "every": 4}})
    met = labelled_in_turns(hall, ["ann", "bob"])
    checks = hall.state.panel(hall.state.attempts[0], Purpose.CHECKS)
    assert checks is not None
    for person, batches in met.items():
        assert [label.item for label in checks.labels if label.rater == person] == list(range(6))
        assert batches.count("s0.a0.gate") == 20
        said = done = 0
        for batch in batches:
            if batch == "s0.a0.checks":
                done += 1
                continue
            assert min(said // 3 + 1, 6) <= done <= min(said // 3 + 2, 6)
            said += 1
    places = {person: [n for n, b in enumerate(said) if b.endswith("checks")] for person, said in met.items()}
    assert places["ann"] != places["bob"], "whoever counts knows nothing"
    assert hall.state.labels.checks == 12
    hall.go_on()
    assert hall.state.attempts[0].verdict is not None


def test_who_fails_the_checks_carries_no_verdict(hall_of: HallOf) -> None:
    hall = at_the_gate(hall_of, feedback={"checks": {"items": 2}}, protocol={"stages": 1, "attempts": 1})
    labelled_in_turns(hall, ["ann"], check=Choice.TIE)
    hall.go_on()
    verdict = hall.state.attempts[0].verdict
    assert verdict is not None
    assert verdict.verdict is Verdict.ROLLBACK
    (veto,) = verdict.vetoes
    assert veto.startswith("rater ann failed 1 of 1 check items")


def test_a_label_that_runs_ahead_of_its_check_is_refused_without_a_word_on_checks(hall_of: HallOf) -> None:
    hall = at_the_gate(hall_of, feedback={"checks": {"items": 2}})
    with pytest.raises(ConflictError) as refused:
        hall.desk("ann").label(lent(hall, "ann", 0, "s0.a0.gate"), Choice.FIRST)
    assert "check" not in str(refused.value)
    assert hall.state.labels.gate == 0


def test_every_queue_is_mixed_with_checks(hall_of: HallOf) -> None:
    """Direction and path are asked after the gate's own queue: the checks go on from where they were.

    The last label is final, and the gate has enough, once the check behind it is answered.
    """
    small = {"max_labels": 20}
    hall = at_the_gate(
        hall_of,
        protocol={"stages": 2, "attempts": 1},
        feedback={"checks": {"items": 80, "every": 2}},
        gate={
            "direction": {**small, "best_of": 2, "over_promise_limit": 0.9},
            "path": {**small, "wrong_reward_limit": 0.9},
        },
    )
    met = labelled_in_turns(hall, ["ann"])["ann"]
    assert list(dict.fromkeys(met)) == ["s0.a0.checks", "s0.a0.gate", "s0.a0.direction", "s0.a0.path"]
    assert met[::2] == ["s0.a0.checks"] * len(met[::2]), "every second label is a check"
    assert "s0.a0.checks" not in met[1::2]
    assert isinstance(hall.go_on(), AskForDecision)


# --- audits by people -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [None, 0.9])
def test_an_audit_wants_other_eyes(hall_of: HallOf, limit: float | None) -> None:
    hall = at_the_gate(hall_of, gate={"audit": {"evaluator": "people", "labels": 10, "limit": limit}})
    ann, bob = hall.desk("ann"), hall.desk("bob")
    asked = asked_of(ann)
    say(ann, asked, for_the_candidate(hall.state.batches[1], 0))
    assert sorted(all_of(ann, for_the_candidate)) == list(range(1, 40))
    assert ann.asked() is None
    assert ann.refusal() == "ann: you labelled this gate's comparisons; an audit wants other eyes"
    batch = bob.open_batch()
    assert batch is not None
    assert (batch.id, batch.count) == ("s0.a0.audit", 10)
    with pytest.raises(UsageError, match="cannot both label and audit"):
        ann.label(lent(hall, "ann", 0, batch.id), Choice.FIRST)
    hall.wait(minutes=11)
    labeler = hall.desk("lea", [Role.LABELER, Role.APPROVER])
    assert labeler.asked() is None
    assert labeler.refusal() == "lea is not invited to small as auditor"
    said = ann.mine(limit=40)[-1]
    assert ann.label(asked.ticket, said.choice).standing is Standing.AGAIN  # said twice is said once, even now
    assert labelled_in_turns(hall, ["ann", "bob"])["bob"] == ["s0.a0.audit"] * 10
    assert bob.undo().standing is Standing.TOO_LATE, "an auditor's word is final at once"
    hall.go_on()
    (attempt,) = hall.state.attempts
    assert attempt.verdict is not None
    assert attempt.verdict.verdict is Verdict.ADVANCE
    assert attempt.attribution is not None
    # Without a limit it decides nothing, and costs the campaign nothing.
    assert hall.state.labels.audit == (0 if limit is None else 10)


def test_an_auditor_sees_what_was_judged_and_labels_none_of_it(hall_of: HallOf) -> None:
    """The audit stops half-way for want of judged comparisons: the gate is asked again, and not the auditor.

    Of ann's 41 words the last is open, so the gate judges by 40.
    """
    audit = {"evaluator": "people", "labels": 80, "limit": 0.3}
    hall = at_the_gate(hall_of, gate={"max_labels": 80, "audit": audit})
    ann, bob = hall.desk("ann"), hall.desk("bob")
    for _ in range(41):
        say_next(ann, for_the_candidate)
    audited = []

    def in_turns(batch: Batch, item: int) -> Choice:
        return for_the_candidate(batch, item) if item % 2 else against_the_candidate(batch, item)

    while (ticket := say_next(bob, in_turns)) is not None:
        assert ticket.batch == "s0.a0.audit"
        audited.append(ticket.item)
    assert audited == list(range(40))
    assert bob.refusal() == "bob: you audited this gate's comparisons; its labels want other eyes"
    asked = asked_of(ann)
    assert (ticket_of(ann, asked).batch, ticket_of(ann, asked).item, asked.number) == ("s0.a0.gate", 41, 42)


def test_an_audit_is_for_people_whom_the_campaign_does_not_name(hall_of: HallOf) -> None:
    audit = {"evaluator": "people", "labels": 10, "limit": 0.9}
    hall = at_the_gate(hall_of, feedback={"raters": ["ann", "bob"]}, gate={"audit": audit})
    ann, bob, dee = (hall.desk(name) for name in ("ann", "bob", "dee"))
    assert dee.refusal() == "dee is not among the raters of campaign small (feedback.raters)"
    assert sorted(all_of(ann, for_the_candidate) + all_of(bob, for_the_candidate)) == list(range(40))
    for rater in (ann, bob):
        assert rater.refusal() == f"{rater.name}: you labelled this gate's comparisons; an audit wants other eyes"
    assert all_of(dee, for_the_candidate) == list(range(10))
    hall.go_on()
    verdict = hall.state.attempts[0].verdict
    assert verdict is not None
    assert verdict.verdict is Verdict.ADVANCE


# --- crashes --------------------------------------------------------------------------------------------------

LABEL = """
import sys
from pathlib import Path
from orchestrator.artifacts import ArtifactStore
from orchestrator.core.records import Choice, Role
from orchestrator.review.desk import Desk
from orchestrator.review.identity import Person
from orchestrator.review.office import Office
from orchestrator.store.ledger import Ledger
with Ledger.open(sys.argv[1]) as ledger:
    office = Office(ledger, ArtifactStore(Path(sys.argv[2])), "small")
    desk = Desk(office, Person("ann", "c-ann", frozenset({(Role.LABELER, None)})))
    print(desk.label(sys.argv[3], Choice.FIRST).standing.value)
"""


@pytest.mark.parametrize(
    ("fail_point", "then"), [("ledger.before_commit", Standing.RECORDED), ("ledger.after_commit", Standing.AGAIN)]
)
def test_a_word_sent_again_after_a_kill_is_one(
    hall_of: HallOf, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, fail_point: str, then: Standing
) -> None:
    hall = hall_of()
    ann = hall.desk("ann")
    asked = asked_of(ann)
    monkeypatch.setenv("RATCHET_FAILPOINT", f"{fail_point}:kill@1")
    words = [sys.executable, "-c", LABEL, hall.where, str(tmp_path / "artifacts"), asked.ticket]
    killed = subprocess.run(words, capture_output=True, timeout=60)
    assert (killed.returncode, killed.stdout) == (-9, b""), killed.stderr
    monkeypatch.delenv("RATCHET_FAILPOINT")
    told = subprocess.run(words, capture_output=True, timeout=60, text=True, check=True).stdout
    assert told == f"{then.value}\n"
    assert ann.label(asked.ticket, Choice.FIRST).standing is Standing.AGAIN
    assert hall.state.labels.total == 1
    (following,) = hall.ledger.tickets.live(hall.name, datetime.now(UTC))
    assert following.item == 1
