"""What the first page, and a page that cannot be shown, tell people of different parts. No model, no script."""

from __future__ import annotations

import html
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from desks import all_of, asked_of, say_next
from hall import Hall
from starlette.testclient import TestClient

from orchestrator.core.envelope import EventDraft
from orchestrator.core.records import Choice, Role
from orchestrator.store.tickets import Place
from orchestrator.web.app import create_app
from orchestrator.web.limits import Limits, Rate


class Visitor(TestClient):
    def said(self, path: str = "/") -> str:
        return html.unescape(self.get(path).text)


@pytest.fixture
def hall(tmp_path: Path) -> Iterator[Hall]:
    """Two comparisons wait for one word each, now: the site goes by the real clock."""
    with Hall(str(tmp_path / "ledger.db"), tmp_path, feedback={"initial_labels": 2}) as made:
        made.time = datetime.now(UTC)
        made.go_on()
        yield made


def visitor(hall: Hall, name: str, *roles: Role) -> Visitor:
    browser = Visitor(create_app(hall.ledger, hall.artifacts, allowed_hosts=["testserver"]), follow_redirects=False)
    code = hall.ledger.people.invite(name, roles, by="tester").secret
    assert browser.post("/join", data={"code": code}).status_code == 303
    return browser


def test_what_is_on_others_screens_does_not_wait_for_ones_word(hall: Hall) -> None:
    ann = visitor(hall, "ann", Role.LABELER)
    assert "Comparisons wait for your word" in ann.said()
    for name in ("bob", "cyd"):
        asked_of(hall.desk(name))
    for page in (ann.said(), ann.said("/c/small/label")):
        assert re.search(r"All that is left is on others' screens; look again in [0-9]+ minutes?\.?<", page)
        assert "wait for your word" not in page
    assert 'class="button primary"' not in ann.said()
    say_next(hall.desk("bob"), Choice.TIE)
    hall.desk("bob").undo()
    hall.ledger.tickets.lend("small", "bob", lambda _: Place("elsewhere", 0), until=hall.now(), now=hall.now())
    assert "Comparisons wait for your word" in ann.said(), "bob went on without an answer"


def test_a_campaign_that_cannot_be_read_hides_no_other(hall: Hall, tmp_path: Path) -> None:
    """Neither one that was damaged before anybody looked, nor one that is while it is looked at."""
    with Hall(hall.where, tmp_path, name="broken"), Hall(hall.where, tmp_path, name="newer") as newer:
        ann = visitor(hall, "ann", Role.LABELER)
        assert "cannot be read" not in ann.said()
        newer.ledger.append("newer", [EventDraft("recast", {}, command_id="recast", author="t")], epoch=None)
        with closing(sqlite3.connect(hall.where)) as database, database:
            database.execute("UPDATE campaigns SET head_hash = ? WHERE name = 'broken'", ("0" * 64,))
        for page in (ann.said(), visitor(hall, "bob", Role.LABELER).said()):
            assert "Comparisons wait for your word" in page
            assert re.findall(r"<h2>(\w+)</h2>", page)[0] == "small"
            assert "This campaign cannot be read now; tell whoever runs it" in page
        assert ann.get("/c/newer/label").status_code >= 500
        token, _ = hall.ledger.people.token("cyd", [Role.LABELER], by="tester")
        found = ann.get("/api/v1/campaigns", headers={"authorization": f"Bearer {token}"})
        assert "small" in [campaign["name"] for campaign in found.json()]


def test_what_is_on_ones_own_screen_waits(hall: Hall) -> None:
    ann = visitor(hall, "ann", Role.LABELER)
    assert 'name="ticket"' in ann.said("/c/small/label")
    asked_of(hall.desk("bob"))
    assert "Comparisons wait for your word" in ann.said()


def test_who_has_said_all_is_told_so(tmp_path: Path) -> None:
    feedback = {"initial_labels": 2, "raters_per_item": 2}
    with Hall(str(tmp_path / "ledger.db"), tmp_path, feedback=feedback) as hall:
        hall.time = datetime.now(UTC)
        hall.go_on()
        ann = visitor(hall, "ann", Role.LABELER)
        assert all_of(hall.desk("ann")) == [0, 1]
        asked_of(hall.desk("bob"))
        assert "You have said all that is asked of you; others are waited for" in ann.said()
        assert "What still waits, if anything, is for others" in ann.said("/c/small/label")


@pytest.mark.parametrize(
    ("roles", "told"),
    [
        ([Role.APPROVER], "you are asked when a candidate waits for a decision"),
        ([Role.AUDITOR], "you are asked when an audit waits"),
        ([Role.APPROVER, Role.AUDITOR], "when a candidate waits for a decision or when an audit waits"),
    ],
)
def test_whoever_does_not_label_is_told_their_part_not_refused(hall: Hall, roles: list[Role], told: str) -> None:
    page = visitor(hall, "ann", *roles).said()
    assert "Labelers are at work" in page
    assert told in page
    assert "not invited" not in page
    assert ("Disagreements" in page) is (Role.APPROVER in roles)


@pytest.mark.parametrize("path", ["/nothing", "/c/small/nothing", "/static/0123/app.css", "/c/unknown/label"])
def test_an_error_offers_whoever_is_signed_in_their_first_page(hall: Hall, path: str) -> None:
    ann = visitor(hall, "ann", Role.LABELER)
    page = ann.said(path)
    assert '<a class="button" href="/">To what waits for you</a>' in page
    assert "/join" not in page
    stranger = Visitor(ann.app, follow_redirects=False).said(path)
    assert '<a class="button" href="/join">' in stranger


def test_an_error_offers_whoever_is_too_quick_their_first_page(hall: Hall) -> None:
    app = create_app(
        hall.ledger,
        hall.artifacts,
        allowed_hosts=["testserver"],
        limits=Limits(person=Rate(per_second=0.001, burst=1)),
    )
    ann = Visitor(app, follow_redirects=False)
    ann.cookies.set("ratchet_session", hall.ledger.people.token("ann", [Role.LABELER], by="tester")[0])
    assert [ann.get("/help").status_code for _ in range(2)] == [200, 429]
    assert "/join" not in ann.said("/help")


def test_a_session_that_has_ended_is_offered_the_way_in(hall: Hall) -> None:
    ann = visitor(hall, "ann", Role.LABELER)
    hall.ledger.people.revoke("ann", by="tester")
    gone = ann.get("/")
    assert gone.status_code == 401
    assert '<a class="button" href="/join">' in gone.text
