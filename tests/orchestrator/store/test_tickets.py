"""Lending comparisons to people, in both databases."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.core.envelope import EventDraft
from orchestrator.store.ledger import Ledger
from orchestrator.store.tickets import Place, Ticket

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def next_free(live: tuple[Ticket, ...]) -> Place:
    """The first item that nobody holds."""
    held = {ticket.item for ticket in live}
    return Place("b", next(item for item in range(1000) if item not in held))


def lend(ledger: Ledger, person: str, *, now: datetime = NOON, campaign: str = "memo") -> Ticket:
    ticket = ledger.tickets.lend(campaign, person, next_free, until=now + 10 * MINUTE, now=now)
    assert ticket is not None
    return ticket


def test_what_is_lent_is_found(ledger: Ledger) -> None:
    place = Place("s0.a1.gate", 7, repeat=True, swapped=True)
    elsewhere = NOON.astimezone(timezone(timedelta(hours=5)))
    ticket = ledger.tickets.lend("memo", "ann", lambda _: place, until=elsewhere + 10 * MINUTE, now=elsewhere)
    assert ticket is not None
    assert re.fullmatch(r"[A-Za-z0-9_-]{22}", ticket.id)
    assert ticket == Ticket(ticket.id, "memo", "s0.a1.gate", 7, "ann", True, True, NOON, NOON + 10 * MINUTE)
    assert ledger.tickets.find(ticket.id) == ticket
    for unknown in ("nothing", "", "A" * 22, "\x00" * 22, "é" * 22, "\udc80"):
        assert ledger.tickets.find(unknown) is None


def test_whoever_chooses_sees_what_others_hold(ledger: Ledger) -> None:
    ledger.create_campaign("other")
    assert [lend(ledger, name).item for name in ("ann", "bo", "cyd")] == [0, 1, 2]
    assert lend(ledger, "ann", campaign="other").item == 0
    # At the tenth minute all three have run out.
    assert lend(ledger, "dan", now=NOON + 10 * MINUTE - timedelta(microseconds=1)).item == 3
    assert lend(ledger, "eve", now=NOON + 10 * MINUTE).item == 0


def test_one_person_holds_one_ticket_of_a_campaign(ledger: Ledger) -> None:
    ledger.create_campaign("other")
    bo, elsewhere, first = lend(ledger, "bo"), lend(ledger, "ann", campaign="other"), lend(ledger, "ann")
    second = lend(ledger, "ann", now=NOON + MINUTE)
    assert ledger.tickets.live("memo", NOON + MINUTE) == (bo, second)
    assert ledger.tickets.live("other", NOON + MINUTE) == (elsewhere,)
    known = ledger.tickets.find(first.id)
    assert known is not None
    assert (known.person, known.item) == ("ann", first.item), "a word for it is still taken"
    assert lend(ledger, "cyd", now=NOON + MINUTE).item == first.item


def test_nothing_is_lent_where_nothing_is_chosen(ledger: Ledger) -> None:
    assert ledger.tickets.lend("memo", "ann", lambda _: None, until=NOON + MINUTE, now=NOON) is None
    assert ledger.tickets.live("memo", NOON) == ()


def test_a_choice_that_fails_lends_nothing(ledger: Ledger) -> None:
    def fail(live: tuple[Ticket, ...]) -> Place:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ledger.tickets.lend("memo", "ann", fail, until=NOON + MINUTE, now=NOON)
    assert lend(ledger, "ann").item == 0


def answer(ledger: Ledger, ticket: str, choose: Any = lambda live: None) -> None:
    """Append something, and close the ticket along with it."""
    along = ledger.tickets.closing(ticket, "memo", "ann", choose, until=NOON + MINUTE, now=NOON)
    ledger.append("memo", [EventDraft("said", {}, command_id=ticket, author="ann")], epoch=None, along=along)


def test_an_answer_closes_its_ticket_and_lends_the_next_in_one_go(ledger: Ledger) -> None:
    ticket = lend(ledger, "ann")
    answer(ledger, ticket.id, lambda live: Place("gate", 7 + len(live)))
    assert [(t.person, t.item) for t in ledger.tickets.live_of("memo", "ann", NOON)] == [("ann", 7)]


def test_an_answer_frees_the_place_but_the_ticket_is_still_known(ledger: Ledger) -> None:
    ticket = lend(ledger, "ann")
    answer(ledger, ticket.id)
    assert ledger.tickets.live("memo", NOON) == ()
    assert lend(ledger, "bo").item == 0
    found = ledger.tickets.find(ticket.id)
    assert found is not None
    assert (found.person, found.item) == ("ann", 0)


def test_tickets_are_forgotten_a_month_after_they_ended_a_few_at_a_time(ledger: Ledger) -> None:
    ledger.create_campaign("other")
    elsewhere = lend(ledger, "ann", campaign="other")
    old = [lend(ledger, f"person {n}") for n in range(10)]
    answer(ledger, old[9].id)  # an answer ends it at once
    later = NOON + 10 * MINUTE + timedelta(days=30)
    lend(ledger, "bo", now=later)  # to the moment a month after the nine ran out; the answered one goes
    known = [ledger.tickets.find(ticket.id) for ticket in old]
    assert known == [*old[:9], None]
    left = []
    for turn in range(3):
        lend(ledger, f"another {turn}", now=later + MINUTE)
        left.append(sum(ledger.tickets.find(ticket.id) is not None for ticket in old))
    assert left == [5, 1, 0]
    assert ledger.tickets.find(elsewhere.id) == elsewhere, "each campaign forgets its own"
    assert len(ledger.tickets.live("memo", later + MINUTE)) == 4


def test_people_who_ask_at_once_get_different_comparisons(ledger: Ledger) -> None:
    with ThreadPoolExecutor(12) as room:
        lent = list(room.map(lambda n: lend(ledger, f"person {n}"), range(36)))
    assert sorted(ticket.item for ticket in lent) == list(range(36))
    assert len({ticket.id for ticket in lent}) == 36


LEND = """
import sys
from datetime import datetime, timedelta
from orchestrator.store.ledger import Ledger
from orchestrator.store.tickets import Place
now = datetime.fromisoformat("2026-03-01T12:00:00+00:00")
def next_free(live):
    return Place("b", next(i for i in range(1000) if i not in {ticket.item for ticket in live}))
with Ledger.open(sys.argv[1]) as ledger:
    for turn in range(int(sys.argv[3])):
        person, until = f"{sys.argv[2]}{turn}", now + timedelta(minutes=10)
        ticket = ledger.tickets.lend("memo", person, next_free, until=until, now=now)
        print(ticket.id, flush=True)
"""


def test_processes_that_ask_at_once_get_different_comparisons(ledger: Ledger, where: str) -> None:
    askers = [subprocess.Popen([sys.executable, "-c", LEND, where, name, "15"], stdout=-3) for name in "abc"]
    assert [process.wait(60) for process in askers] == [0] * 3
    live = ledger.tickets.live("memo", NOON)
    assert sorted(ticket.item for ticket in live) == list(range(45))


@pytest.mark.parametrize(("fail_point", "lent"), [("tickets.before_commit", 0), ("tickets.after_commit", 1)])
def test_kill_while_lending(
    ledger: Ledger, where: str, fail_point: str, lent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATCHET_FAILPOINT", f"{fail_point}:kill@1")
    killed = subprocess.run([sys.executable, "-c", LEND, where, "ann", "1"], capture_output=True, timeout=60)
    assert (killed.returncode, killed.stdout) == (-9, b"")
    assert len(ledger.tickets.live("memo", NOON)) == lent
    assert lend(ledger, "bo").item == lent


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["lend", "answer", "wait"]), st.integers(0, 9), st.sampled_from("abc")), max_size=25
    )
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_live_tickets_are_those_of_a_plain_list(
    steps: list[tuple[str, int, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The oracle holds every ticket in a list and looks at all of them."""
    with Ledger.open(Path(tmp_path_factory.mktemp("t")) / "ledger.db") as ledger:
        ledger.create_campaign("memo")
        now, held = NOON, list[tuple[str, int, str, datetime]]()
        for step, number, person in steps:
            if step == "wait":
                now += number * MINUTE
            elif step == "answer" and held:
                gone, item, whose, _ = held[number % len(held)]
                answer(ledger, gone)
                held[number % len(held)] = (gone, item, whose, NOON)
            elif step == "lend":
                ticket = ledger.tickets.lend("memo", person, next_free, until=now + number * MINUTE, now=now)
                assert ticket is not None
                assert ticket.item not in {item for _, item, _, until in held if until > now}
                held = [(name, item, whose, NOON if whose == person else until) for name, item, whose, until in held]
                held.append((ticket.id, ticket.item, person, now + number * MINUTE))
            live = {(ticket.id, ticket.item) for ticket in ledger.tickets.live("memo", now)}
            assert live == {(name, item) for name, item, _, until in held if until > now}


def test_only_live_tickets_are_read(ledger: Ledger) -> None:
    """By the database's own plan: the index that begins with the campaign and bounds `until`."""
    from sqlalchemy import text

    if not ledger.is_local:
        pytest.skip("PostgreSQL plans by the statistics of the day")
    with ledger._database.read() as connection:
        query = "EXPLAIN QUERY PLAN SELECT * FROM tickets WHERE campaign = 'memo' AND until > 'x' ORDER BY lent_at, id"
        plan = " ".join(str(row) for row in connection.execute(text(query)))
    assert "ix_tickets_campaign_until (campaign=? AND until>?)" in plan
