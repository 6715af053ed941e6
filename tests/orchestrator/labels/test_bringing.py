"""What a campaign takes of labels that were said elsewhere, whatever it asks for; in both databases."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from desks import all_of, asked_of, say, say_next, ticket_of
from hall import Hall
from small_campaigns import against_the_candidate, for_the_candidate

from orchestrator.core.commands import AskForDecision
from orchestrator.core.events import Origin
from orchestrator.core.records import Choice, Decision, Harm, Role, Verdict
from orchestrator.core.state import Batch
from orchestrator.errors import ConflictError, ForbiddenError
from orchestrator.labels.bringing import Bringer, Brought
from orchestrator.labels.campaign import seals_of
from orchestrator.labels.comparisons import Labelled
from orchestrator.review.desk import Standing
from orchestrator.review.identity import Person
from orchestrator.review.office import Office, pause

HallOf = Callable[..., Hall]
Found = Sequence[tuple[int, Labelled]]
GATE = {"alpha": 0.99, "over_promise_limit": 0.9, "min_labels": 20, "max_labels": 20, "labels_per_look": 20}
FILE = Origin(format="ratchet", file="f" * 64)


@pytest.fixture
def hall_of(where: str, tmp_path: Path) -> Iterator[HallOf]:
    """Makes a campaign that waits for its first labels."""
    made = []

    def make(**changes: Any) -> Hall:
        made.append(Hall(where, tmp_path, **{**changes, "gate": {**GATE, **changes.get("gate", {})}}))
        made[-1].go_on()
        return made[-1]

    yield make
    for hall in made:
        hall.__exit__()


def batch_of(hall: Hall, name: str) -> Batch:
    found = hall.state.batch(name)
    assert found is not None
    return found


def at_the_gate(hall_of: HallOf, **changes: Any) -> Hall:
    """Waits for a gate's labels; whoever comes first has labelled what came before."""
    hall = hall_of(**changes)
    for name in changes.get("feedback", {}).get("raters", ["zoe"]):
        all_of(hall.desk(name))
    hall.go_on()
    assert hall.state.batches[1].id == "s0.a0.gate"
    return hall


def rows(
    hall: Hall,
    batch: str,
    items: Iterable[int] | None = None,
    *,
    rater: str = "ana",
    says: Choice | Callable[[Batch, int], Choice] = Choice.FIRST,
    harm: Harm | None = None,
) -> list[tuple[int, Labelled]]:
    """A file's labels of these items, as their record numbers go."""
    known, seal = batch_of(hall, batch), seals_of(hall.ledger, hall.name)[batch]
    found = []
    for number, item in enumerate(range(known.count) if items is None else items, 1):
        shown = hall.office.comparison(known, item)
        choice = says if isinstance(says, Choice) else says(known, item)
        texts = (shown.prompt, shown.response_1, shown.response_2)
        found.append((number, Labelled(f"{batch}.{item}", rater, choice, *texts, harm, seal)))
    return found


def bringer(hall: Hall, *people: Person | str, role: Role = Role.APPROVER, office: Office | None = None) -> Bringer:
    """Olga's; the file calls people by their names."""
    olga = Person("olga", "c-olga", frozenset({(role, None)}))
    known = [p if isinstance(p, Person) else Person(p, "c-olga", frozenset({(Role.LABELER, None)})) for p in people]
    return Bringer(office or hall.office, olga, {person.name: person for person in known}, FILE)


def bring(hall: Hall, found: Found, *people: Person | str, all_or_none: bool = True, **how: Any) -> Brought:
    return bringer(hall, *(people or ("ana",)), **how).bring(found, iter, all_or_none=all_or_none)


def refused(hall: Hall, found: Found, why: str, *people: Person | str) -> None:
    """All of them, for one reason, with nothing recorded."""
    before = hall.ledger.events(hall.name)[-1].seq
    done = bring(hall, found, *people)
    assert [number for number, _ in done.refused] == [number for number, _ in found]
    assert all(why in told for _, told in done.refused), done.refused
    assert hall.ledger.events(hall.name)[-1].seq == before


# --- what is asked ------------------------------------------------------------------------------------------------


def test_a_gate_judges_by_them_at_once(hall_of: HallOf) -> None:
    hall = at_the_gate(hall_of)
    done = bring(hall, rows(hall, "s0.a0.gate", says=for_the_candidate))
    assert (len(done.labels), done.left, done.batch) == (20, 0, "s0.a0.gate")
    assert isinstance(hall.go_on(), AskForDecision)
    verdict = hall.state.attempts[0].verdict
    assert verdict is not None
    assert (verdict.verdict, verdict.labels, verdict.win_rate) == (Verdict.ADVANCE, 20, 1.0)


def test_what_is_over_is_over(hall_of: HallOf) -> None:
    """A settled queue, a candidate that was rolled back, a batch of the attempt before."""
    hall = at_the_gate(hall_of)
    late = rows(hall, "s0.a0.gate", [3], rater="bo")
    refused(hall, rows(hall, "initial", [0, 1]), "initial is not asked for now: it has its labels")
    bring(hall, rows(hall, "s0.a0.gate", says=against_the_candidate))
    hall.go_on()
    assert hall.state.rollbacks == 1
    refused(hall, late, "s0.a0.gate is not asked for now: its candidate was rolled back", "bo")
    again = bring(hall, rows(hall, "s0.a0.gate", says=against_the_candidate))
    assert (again.again, again.labels, again.refused) == (20, (), ()), "told as recorded, also now"


def test_a_decided_candidate_and_an_ended_campaign_take_nothing(hall_of: HallOf) -> None:
    hall = at_the_gate(hall_of)
    bring(hall, rows(hall, "s0.a0.gate", says=for_the_candidate))
    command = hall.go_on()
    assert isinstance(command, AskForDecision)
    refused(hall, rows(hall, "s0.a0.gate", [0], rater="bo"), "is not asked for now", "bo")
    hall.desk("olga").decide(Decision.APPROVE, str(command.attempt.candidate), "reads well")
    hall.go_on()
    refused(hall, rows(hall, "s0.a0.gate", [0], rater="bo"), "the campaign is finished", "bo")


def test_a_paused_campaign_or_queue_takes_nothing(hall_of: HallOf) -> None:
    hall = hall_of()
    hall.desk("olga").pause_labelling("new guidelines")
    refused(hall, rows(hall, "initial", [0]), "labelling of small is paused: new guidelines")
    hall.desk("olga").resume_labelling()
    pause(hall.office, "for the night", author="olga")
    refused(hall, rows(hall, "initial", [0]), "the campaign is paused")


def test_behind_the_deadline_nothing_is_taken_whoever_noticed(hall_of: HallOf) -> None:
    """At a desk a late word is kept: it may train. Of a file's, somebody could choose which."""
    hall = at_the_gate(hall_of, feedback={"label_deadline_hours": 2})
    hall.wait(hours=3)
    refused(hall, rows(hall, "s0.a0.gate", [0]), "the time for the labels of s0.a0.gate is over")


STRANGE_ITEMS = (
    "initial.6", "initial.-1", "initial.00", "initial.٣", "initial.1e0", "initial." + "9" * 5000, "initial", "",
    "s0.a0.gate.0", "row1",
)  # fmt: skip


def test_items_are_those_of_the_ledger(hall_of: HallOf) -> None:
    hall = hall_of()
    (_, said), *_ = rows(hall, "initial", [0])
    strange = [(number, replace(said, item=item)) for number, item in enumerate(STRANGE_ITEMS)]
    refused(hall, strange, "campaign small never asked for an item")
    refused(hall, [(1, replace(said, item="initial.1"))], "its texts are not those of initial.1")


@pytest.mark.parametrize("marked", [True, False])
def test_every_text_is_the_sealed_one(marked: bool, hall_of: HallOf) -> None:
    hall = hall_of()
    (_, said), *_ = rows(hall, "initial", [0])
    texts = {name: getattr(said, name) for name in ("prompt", "response_1", "response_2")}
    changed = [{**texts, name: f"{text}\u200b"} for name, text in texts.items()]
    changed.append({**texts, "response_1": said.response_2, "response_2": said.response_1})
    files = [replace(said, **other, sealed=said.sealed if marked else None) for other in changed]
    refused(hall, list(enumerate(files)), "its texts are not those of initial.0")


def test_without_a_mark_the_texts_decide(hall_of: HallOf) -> None:
    hall = hall_of()
    found = [(number, replace(said, sealed=None)) for number, said in rows(hall, "initial")]
    assert len(bring(hall, found).labels) == 6
    refused(hall_of(name="other"), [(1, replace(found[0][1], sealed="0" * 64))], "another campaign asked for it")


# --- who, and how often -------------------------------------------------------------------------------------------


def test_one_word_a_person_and_no_verdict_too_many(hall_of: HallOf) -> None:
    hall = hall_of(feedback={"raters_per_item": 2})
    assert len(bring(hall, rows(hall, "initial", [2])).labels) == 1
    found = [row for rater in ("ana", "bo", "cy") for row in rows(hall, "initial", [0, 1], rater=rater)]
    known, against = rows(hall, "initial", [2]), rows(hall, "initial", [2], says=Choice.TIE)
    other = rows(hall, "initial", [0], says=Choice.TIE)
    flagged = rows(hall, "initial", [1], harm=Harm.FIRST)
    done = bring(hall, [*found, *other, *flagged, found[0], *known, *against], "ana", "bo", "cy", all_or_none=False)
    assert [(label.item, label.rater) for label in done.labels] == [(0, "ana"), (1, "ana"), (0, "bo"), (1, "bo")]
    assert [told for _, told in done.refused] == [
        "item 0 of initial has all its verdicts",
        "item 1 of initial has all its verdicts",
        "ana labels initial.0 twice in this file, and differently",
        "ana labels initial.1 twice in this file, and differently",
        "ana labels initial.0 twice in this file",
        "ana has said something else of initial.2, and that stands",
    ]
    assert done.again == 1
    assert len(batch_of(hall, "initial").labels) == 5


def test_two_accounts_of_one_person_are_one_person(hall_of: HallOf) -> None:
    hall = hall_of(feedback={"raters_per_item": 2})
    ana = Person("ana", "c-olga", frozenset({(Role.LABELER, None)}))
    twice = Bringer(hall.office, bringer(hall).person, {"ana@a": ana, "ana@b": ana}, FILE)
    same, other = (rows(hall, "initial", [0], rater="ana@a"), rows(hall, "initial", [1], rater="ana@a"))
    found = [
        *same, *other, *rows(hall, "initial", [0], rater="ana@b"),
        *rows(hall, "initial", [1], rater="ana@b", says=Choice.TIE),
    ]  # fmt: skip
    done = twice.bring(found, iter, all_or_none=False)
    assert (len(done.labels), done.again) == (2, 0)
    assert [told for _, told in done.refused] == [
        "ana labels initial.0 twice in this file",
        "ana labels initial.1 twice in this file, and differently",
    ]


def test_a_rater_who_is_not_named_or_not_drawn_is_refused(hall_of: HallOf) -> None:
    from orchestrator.core.panels import asked_by_name

    hall = at_the_gate(hall_of, feedback={"raters": ["ana", "bo"]})
    refused(hall, rows(hall, "s0.a0.gate", [0], rater="eve"), "eve is not among the raters", "eve")
    gate = batch_of(hall, "s0.a0.gate")
    bos = [item for item in range(20) if asked_by_name(gate, item, hall.settings) == ("bo",)]
    assert 0 < len(bos) < 20
    refused(hall, rows(hall, "s0.a0.gate", bos), "is for bo, by lot")


def test_nobody_without_the_role_is_spoken_for(hall_of: HallOf) -> None:
    hall = hall_of()
    for grant in ((Role.AUDITOR, None), (Role.LABELER, "other")):
        eve = Person("eve", "c-olga", frozenset({grant}))
        refused(hall, rows(hall, "initial", [0], rater="eve"), "eve is not invited to small as labeler", eve)
    refused(hall, rows(hall, "initial", [0], rater="zed"), "nobody said who 'zed' is")


@pytest.mark.parametrize("role", [Role.LABELER, Role.AUDITOR])
def test_nobody_but_an_approver_brings(role: Role, hall_of: HallOf) -> None:
    hall = hall_of()
    with pytest.raises(ForbiddenError, match="olga is not invited to small as approver"):
        bring(hall, rows(hall, "initial"), role=role)


def test_check_items_are_not_passed_by(hall_of: HallOf) -> None:
    """What only trains has none, and is taken; a gate's queue is not, from anybody."""
    hall = hall_of(feedback={"checks": {"items": 4, "every": 4}})
    assert len(bring(hall, rows(hall, "initial")).labels) == 6
    hall.go_on()
    checks, why = batch_of(hall, "s0.a0.checks"), "raters meet check items between those of s0.a0.gate"
    refused(hall, rows(hall, "s0.a0.gate"), why)
    refused(hall, rows(hall, "s0.a0.checks", [0]), "never asked")
    all_of(hall.desk("ana"), for_the_candidate)
    assert batch_of(hall, checks.id).labels.count_by("ana") == 4, "also where they have passed them all"


def test_a_file_holds_no_repeats_and_desks_still_ask_them(hall_of: HallOf) -> None:
    hall = hall_of(feedback={"initial_labels": 30, "repeat_every": 5})
    ana = hall.desk("ana")
    said = [say_next(ana, Choice.TIE) for _ in range(2)]
    bring(hall, rows(hall, "initial", range(2, 22)))
    said += iter(lambda: say_next(ana, Choice.TIE), None)
    labels = [ticket.item for ticket in said if ticket is not None and not ticket.repeat]
    repeats = [(place, ticket.item) for place, ticket in enumerate(said) if ticket is not None and ticket.repeat]
    assert labels == [0, 1, *range(22, 30)]
    assert len(batch_of(hall, "initial").labels) == 30
    # Ten labels at the desk, so stretches of 4, 4 and 2: none in the first one, as if there were no file.
    assert len(repeats) in (1, 2)
    assert all(place >= 5 and item in labels[: place - 3] for place, item in repeats), "what a desk has shown her"


# --- audits -------------------------------------------------------------------------------------------------------


def test_an_audit_wants_other_eyes_and_only_what_was_judged(hall_of: HallOf) -> None:
    auditor = Person("dee", "c-olga", frozenset({(Role.AUDITOR, None), (Role.LABELER, None)}))
    both = Person("ana", "c-olga", frozenset({(Role.AUDITOR, None), (Role.LABELER, None)}))
    hall = at_the_gate(hall_of, gate={"audit": {"evaluator": "people", "labels": 10}})
    # The audit shows the very comparisons of the gate; a label of one is none of the other.
    refused(hall, rows(hall, "s0.a0.audit", [0], rater="dee"), "s0.a0.audit is not asked for now", auditor)
    bring(hall, rows(hall, "s0.a0.gate", says=for_the_candidate), both)
    hall.go_on()
    ask = hall.desk("dee", [Role.AUDITOR]).open_batch()
    assert ask is not None
    assert ask.id == "s0.a0.audit"
    audit = rows(hall, "s0.a0.audit", rater="ana", says=for_the_candidate)
    refused(hall, audit, "an audit wants other eyes", both)
    gate = [(number, replace(said, item=said.item.replace("audit", "gate"))) for number, said in audit]
    refused(hall, [(n, replace(said, rater="bo", sealed=None)) for n, said in gate], "s0.a0.gate is not asked", "bo")
    done = bring(hall, rows(hall, "s0.a0.audit", rater="dee", says=for_the_candidate), auditor)
    assert (len(done.labels), done.left) == (10, 0)
    assert isinstance(hall.go_on(), AskForDecision)
    assert (hall.state.labels.gate, hall.state.labels.total) == (20, 26), "an audit without a limit costs nothing"


# --- beside desks -------------------------------------------------------------------------------------------------


def test_a_comparison_on_a_screen_counts_once(hall_of: HallOf) -> None:
    hall = hall_of()
    bo, cy = hall.desk("bo"), hall.desk("cy")
    shown, other = asked_of(bo), asked_of(cy)
    bring(hall, [*rows(hall, "initial", [0]), *rows(hall, "initial", range(1, 6), rater="cy")], "ana", "cy")
    assert say(bo, shown, Choice.SECOND).standing is Standing.EXTRA
    assert say(cy, other, Choice.FIRST).standing is Standing.AGAIN
    with pytest.raises(ConflictError, match="something else"):
        say(cy, other, Choice.SECOND)
    initial = batch_of(hall, "initial")
    assert initial.choices(1) == ((Choice.FIRST,),) * 6
    assert say_next(bo) is None


def test_a_screen_that_a_file_has_answered_keeps_nobody_waiting(hall_of: HallOf) -> None:
    hall = hall_of(feedback={"initial_labels": 2, "lease_minutes": 10})
    ana, bo, cy = (hall.desk(name) for name in ("ana", "bo", "cy"))
    assert ticket_of(ana, asked_of(ana)).item == 0
    hall.wait(minutes=4)
    assert ticket_of(bo, asked_of(bo)).item == 1
    bring(hall, rows(hall, "initial", [0], rater="dee"), "dee")
    for desk in (ana, cy):
        free_in = desk.outlook().free_in
        assert free_in is not None
        assert timedelta(minutes=9, seconds=59) < free_in <= timedelta(minutes=10), "bo's, not ana's of item 0"


def test_words_from_a_file_are_final_and_make_earlier_ones_so(hall_of: HallOf) -> None:
    hall = at_the_gate(hall_of)
    ana, bo = hall.desk("ana"), hall.desk("bo")
    say_next(ana)
    say_next(bo)
    assert {word.rater for word in batch_of(hall, "s0.a0.gate").open_words} == {"ana", "bo"}
    bring(hall, rows(hall, "s0.a0.gate", range(3, 8)))
    assert {word.rater for word in batch_of(hall, "s0.a0.gate").open_words} == {"bo"}
    assert ana.undo().standing is Standing.TOO_LATE
    assert bo.undo().standing is Standing.UNDONE, "another's word is theirs to take back still"
    gate = batch_of(hall, "s0.a0.gate")
    assert (len(gate.labels), gate.regrets) == (6, 1)


@pytest.mark.parametrize("same", [True, False])
def test_who_speaks_meanwhile_is_heard(same: bool, hall_of: HallOf) -> None:
    """Ana answers two of the comparisons at a desk between the look at the ledger and the append."""
    hall = hall_of()
    elsewhere = hall.elsewhere()
    calls = []

    def follow(found: Found) -> Iterable[tuple[int, Labelled]]:
        if not calls:
            desk = hall.desk("ana", office=elsewhere)
            for _ in range(2):
                say_next(desk, Choice.FIRST if same else Choice.SECOND)
        calls.append(None)
        return iter(found)

    done = bringer(hall, "ana").bring(rows(hall, "initial"), follow, all_or_none=True)
    assert len(calls) == 2
    labels = batch_of(hall, "initial").labels
    if same:
        assert (len(done.labels), done.again, len(labels)) == (4, 2, 6)
    else:
        assert ([number for number, _ in done.refused], len(labels)) == ([1, 2], 2), "and the rest is not recorded"


@pytest.mark.parametrize("name", ["olga", "pia"])
def test_two_who_bring_one_file_at_once_bring_it_once(name: str, hall_of: HallOf) -> None:
    hall = hall_of()
    other = replace(
        bringer(hall, "ana", office=hall.elsewhere()), person=Person(name, "c-x", frozenset({(Role.APPROVER, None)}))
    )
    calls = []

    def follow(found: Found) -> Iterable[tuple[int, Labelled]]:
        if not calls:
            assert len(other.bring(found, iter, all_or_none=True).labels) == 6
        calls.append(None)
        return iter(found)

    done = bringer(hall, "ana").bring(rows(hall, "initial"), follow, all_or_none=True)
    assert (len(done.labels), done.again) == (0, 6)
    assert len(batch_of(hall, "initial").labels) == 6
    assert hall.types.count("labels_recorded") == 1


def test_a_look_changes_nothing(hall_of: HallOf) -> None:
    hall = hall_of()
    before = hall.ledger.events(hall.name)
    done = bringer(hall, "ana").look([*rows(hall, "initial"), *rows(hall, "initial", [0], says=Choice.TIE)], iter)
    assert (len(done.labels), len(done.refused), done.left) == (6, 1, 0)
    assert hall.ledger.events(hall.name) == before
    assert not batch_of(hall, "initial").labels
    assert not hall.office.state().batches[0].labels
