"""`ratchet ledger verify` holds every word against the people who were let in, in either database."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from desks import all_of, asked_of, say
from hall import Hall
from small_campaigns import for_the_candidate
from sqlalchemy import delete, update

from orchestrator.cli.ledger import problems_of_history
from orchestrator.core import events as ev
from orchestrator.core.commands import AskForLabels
from orchestrator.core.records import Choice, Decision, Label, Role
from orchestrator.review.desk import Desk
from orchestrator.runner import draft
from orchestrator.store import schema

Halls = Callable[..., Hall]


@pytest.fixture
def hall(hall_of: Halls) -> Hall:
    """Six comparisons wait, for anybody's word."""
    made = hall_of()
    made.go_on()
    return made


def desk_of(hall: Hall, name: str, *roles: Role, **options: object) -> Desk:
    """Of somebody who was let in; `Hall.desk` lets nobody in."""
    _, person = hall.ledger.people.token(name, roles or tuple(Role), by="tester", **options)
    return Desk(hall.office, person)


def problems(hall: Hall) -> list[tuple[str, str]]:
    return [(problem.where, problem.what) for problem in problems_of_history(hall.ledger, hall.name)]


def forge(hall: Hall, author: str, credential: str, item: int = 5) -> str:
    """A label as somebody who can write the database would add it: it folds. Where it stands."""
    label = Label(item=item, rater=author, choice=Choice.TIE)
    body = ev.LabelsRecorded(batch="initial", labels=(label,), credential=credential)
    drafted = draft(body, f"forged.{author}.{item}", author=author)
    (stored,) = hall.ledger.append(hall.name, [drafted], epoch=None)
    return f"event {stored.seq}"


def test_what_people_say_at_their_desks_is_vouched_for(hall_of: Halls) -> None:
    hall = hall_of(approval={"approvers": 1})
    desk = desk_of(hall, "ann")
    hall.go_on()
    say(desk, asked_of(desk), Choice.TIE)
    desk.undo(1)
    while isinstance(hall.go_on(), AskForLabels):
        all_of(desk, for_the_candidate)
    assert "labels_recorded" in hall.types
    assert "label_withdrawn" in hall.types
    assert problems(hall) == []


def test_a_token_that_nobody_was_given(hall: Hall) -> None:
    desk_of(hall, "ann")
    where = forge(hall, "ann", "c-0badf00d")
    assert problems(hall) == [(where, "it names the token c-0badf00d, and nobody was ever given that")]


def test_a_label_as_if_from_a_controller_where_people_rate(hall: Hall) -> None:
    desk_of(hall, "ann")
    label = Label(item=5, rater="ann", choice=Choice.TIE)
    body = ev.LabelsRecorded(batch="initial", labels=(label,))
    with hall.ledger.acquire_controller(hall.name, owner="forger") as lease:
        (stored,) = hall.ledger.append(hall.name, [draft(body, "forged", author="controller")], epoch=lease.epoch)
    told = "it stands for people's words, and names no token of anybody's"
    assert problems(hall) == [(f"event {stored.seq}", told)]


def test_a_word_under_another_name_than_the_tokens(hall: Hall) -> None:
    ann, _ = desk_of(hall, "ann"), desk_of(hall, "bo")
    token = ann.person.credential
    where = forge(hall, "bo", token)
    assert problems(hall) == [(where, f"its author is bo, and the token {token} is ann's")]


def test_an_invitation_says_nothing(hall: Hall) -> None:
    desk_of(hall, "ann")
    hall.ledger.people.invite("ann", [Role.LABELER], by="tester")
    (code,) = (held.id for row in hall.ledger.people.list() for held in row.credentials if held.kind == "invitation")
    where = forge(hall, "ann", code)
    assert problems(hall) == [(where, f"it names {code}, an invitation, with which nothing can be said")]


def test_a_word_after_its_token_was_revoked(hall: Hall) -> None:
    desk, kept = desk_of(hall, "ann"), desk_of(hall, "ann")
    say(desk, asked_of(desk), Choice.TIE)
    hall.wait(hours=1)
    hall.ledger.people.revoke_credential(desk.person.credential, by="tester")
    forge(hall, "ann", desk.person.credential, item=4)  # under way while the token ended
    hall.wait(hours=1)
    where = forge(hall, "ann", desk.person.credential)
    say(kept, asked_of(kept), Choice.TIE)
    told = f"the token {desk.person.credential} had been revoked, at 2026-01-01 01:00:00 UTC"
    assert problems(hall) == [(where, told)]


def test_a_word_after_its_token_expired_or_before_it_was_given(hall: Hall) -> None:
    early = hall.now()
    hall.wait(hours=1)
    desk = desk_of(hall, "ann", valid=timedelta(hours=2))
    token = desk.person.credential
    say(desk, asked_of(desk), Choice.TIE)
    hall.wait(hours=3)
    late = forge(hall, "ann", token, item=4)
    hall.time = early
    hall.ledger.people.token("ann", [Role.LABELER], by="tester")  # a role she has; the token is still too young
    before = forge(hall, "ann", token)
    assert problems(hall) == [
        (late, f"the token {token} had expired, at 2026-01-01 03:00:00 UTC"),
        (before, f"the token {token} was given only later, at 2026-01-01 01:00:00 UTC"),
    ]


def test_a_word_without_the_role_for_it(hall: Hall) -> None:
    elsewhere = desk_of(hall, "ann", Role.LABELER, campaigns=["other"])
    approver = desk_of(hall, "bo", Role.APPROVER)
    here = desk_of(hall, "cyd", Role.LABELER, campaigns=["other", hall.name])
    say(here, asked_of(here), Choice.TIE)
    first, second = forge(hall, "ann", elsewhere.person.credential), forge(hall, "bo", approver.person.credential, 4)
    assert problems(hall) == [(first, "ann was no labeler of small then"), (second, "bo was no labeler of small then")]


def test_a_role_that_is_written_into_its_table_was_given_by_nobody(hall: Hall) -> None:
    desk = desk_of(hall, "bo", Role.APPROVER)
    with hall.ledger._database.write() as connection:
        connection.execute(schema.grants.insert().values(person="bo", role="labeler", campaign=""))
    where = forge(hall, "bo", desk.person.credential)
    assert problems(hall) == [(where, "bo was no labeler of small then")]


def test_roles_count_as_they_were_when_the_word_was_said(hall: Hall) -> None:
    desk = desk_of(hall, "ann", Role.LABELER)
    say(desk, asked_of(desk), Choice.TIE)
    hall.wait(hours=1)
    hall.ledger.people.revoke("ann", by="tester")
    hall.wait(hours=1)
    again = desk_of(hall, "ann", Role.APPROVER)
    assert problems(hall) == []
    where = forge(hall, "ann", again.person.credential)
    assert problems(hall) == [(where, "ann was no labeler of small then")]


def test_a_decision_wants_an_approver(hall_of: Halls) -> None:
    hall = hall_of(approval={"approvers": 2})
    bo, ann = desk_of(hall, "bo", Role.LABELER), desk_of(hall, "ann", Role.APPROVER, Role.LABELER)
    while isinstance(hall.go_on(), AskForLabels):
        all_of(ann, for_the_candidate)
    waiting = ann.candidate()
    assert waiting is not None
    assert waiting.candidate is not None
    ann.decide(Decision.APPROVE, waiting.candidate, "good")
    body = ev.DecisionMade(
        candidate=waiting.candidate, decision=Decision.APPROVE, reviewer="bo", credential=bo.person.credential
    )
    (stored,) = hall.ledger.append(hall.name, [draft(body, "forged", author="bo", reason="good")], epoch=None)
    assert problems(hall) == [(f"event {stored.seq}", "bo was no approver of small then")]


def test_a_chain_without_its_people_is_one_problem(hall: Hall) -> None:
    desk = desk_of(hall, "ann")
    assert len(all_of(desk)) == 6
    with hall.ledger._database.write() as connection:
        connection.execute(update(schema.people).values(revoked=None))
        for table in (schema.grants, schema.credentials, schema.people):
            connection.execute(delete(table))
    told = "6 labels and decisions name tokens, and nobody is known here: nothing shows whose they are"
    assert problems(hall) == [("people", told)]


def test_a_campaign_without_people_wants_no_register(hall_of: Halls) -> None:
    hall = hall_of(feedback={"rater": "simulated"}, approval={"by": "gate"})
    hall.go_on()
    assert "labels_recorded" in hall.types
    assert "decision_made" in hall.types
    assert problems(hall) == []


def test_labels_out_of_a_file_need_an_approver_and_raters_who_may_label(hall: Hall) -> None:
    ann, olga = desk_of(hall, "ann", Role.LABELER), desk_of(hall, "olga", Role.APPROVER)
    desk_of(hall, "dee", Role.AUDITOR)

    def bring(by: Desk, item: int, *raters: str) -> str:
        labels = tuple(Label(item=item + n, rater=rater, choice=Choice.TIE) for n, rater in enumerate(raters))
        origin = ev.Origin(format="ratchet", file="f" * 64)
        body = ev.LabelsRecorded(batch="initial", labels=labels, credential=by.person.credential, origin=origin)
        (stored,) = hall.ledger.append(hall.name, [draft(body, f"brought.{item}", author=by.name)], epoch=None)
        return f"event {stored.seq}"

    bring(olga, 0, "ann")
    assert problems(hall) == []
    unheard, unentitled = bring(olga, 1, "ann", "dee", "eve"), bring(ann, 4, "ann")
    assert problems(hall) == [
        (unheard, "dee was no labeler of small then"),
        (unheard, "eve was no labeler of small then"),
        (unentitled, "ann was no approver of small then"),
    ]
