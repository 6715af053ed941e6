"""Statuses, headers and words of the pages, without script."""

from __future__ import annotations

import logging
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.core.records import Choice, Decision, Harm, Role
from orchestrator.web.limits import Limits, Rate
from orchestrator.web.rendering import FOLDER
from orchestrator.web.sessions import form_mark

if TYPE_CHECKING:
    from conftest import Browser, Place

LABELS, DECISION, COOKIE = "helpful", "harmless", "ratchet_session"


def ticket_on(page: Any) -> str:
    found = re.search(r'name="ticket" value="([^"]+)"', page.text)
    assert found is not None, page.text
    return found[1]


def labels_in(place: Place) -> list[tuple[int, str, str]]:
    return [
        (label["item"], label["rater"], label["choice"])
        for event in place.ledger.events(LABELS)
        if event.type == "labels_recorded"
        for label in event.body["labels"]
    ]


def candidate_of(place: Place) -> str:
    from orchestrator.runner import read_state_at

    candidate = read_state_at(place.ledger, DECISION)[0].attempts[-1].candidate
    assert candidate is not None
    return candidate


# --- coming in ------------------------------------------------------------------------------------------------


def test_an_invitation_opens_one_session(place: Place) -> None:
    code = place.code("ana")
    first, second = place.client(), place.client()
    joined = first.post("/join", data={"code": code})
    assert (joined.status_code, joined.headers["location"]) == (303, "/")
    cookie = joined.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert "secure" not in cookie.lower()
    assert first.get("/").status_code == 200
    again = second.post("/join", data={"code": code})
    assert again.status_code == 410
    assert "used already" in again.text
    assert "set-cookie" not in again.headers


def test_a_whole_link_may_be_pasted(place: Place) -> None:
    link = f"http://127.0.0.1:8321/join#{place.code('ana')}"
    assert place.client().post("/join", data={"code": link}).status_code == 303


def test_behind_tls_the_cookie_is_this_hosts_alone(place: Place) -> None:
    app = place.app(public_url="https://review.example.org")
    joined = place.client(app=app).post("/join", data={"code": place.code("ana")})
    cookie = joined.headers["set-cookie"]
    assert cookie.startswith("__Host-ratchet_session=rtc_")
    assert "Secure" in cookie
    assert "Domain" not in cookie
    assert joined.headers["strict-transport-security"].startswith("max-age=")


@pytest.mark.parametrize("secret", ["", "x", "rtc_" + "A" * 43, "rti_" + "A" * 43, "é" * 300, "\x00", "a; b"])
def test_what_opens_nothing_is_told_so(place: Place, secret: str) -> None:
    assert place.client().post("/join", data={"code": secret}).status_code == 401
    browser = place.client()
    raw = f"{COOKIE}={secret}".encode()
    assert browser.get("/", headers=[(b"cookie", raw)]).status_code == 401


def test_revoked_and_ended_sessions_open_nothing(place: Place) -> None:
    ana, bo = place.client("ana"), place.client("bo")
    assert ana.get("/").status_code == 200
    place.ledger.people.revoke("ana", by="tester")
    refused = ana.get("/")
    assert refused.status_code == 401
    assert "taken back" in refused.text
    secret = bo.secret
    assert bo.send_form("/leave").status_code == 303
    assert place.client().get("/", headers={"cookie": f"{COOKIE}={secret}"}).status_code == 401


def test_an_invitation_that_has_run_out(prepared: Path, place: Place) -> None:
    from datetime import UTC, datetime

    code = place.code("ana", valid=timedelta(minutes=1))
    from orchestrator.store.ledger import Ledger

    with Ledger.open(place.home.database, now=lambda: datetime.now(UTC) + timedelta(minutes=2)) as later:
        place.ledger.people, kept = later.people, place.ledger.people
        refused = place.client().post("/join", data={"code": code})
        place.ledger.people = kept
    assert refused.status_code == 401
    assert "expired" in refused.text


def test_no_token_for_the_api_is_a_session_for_pages_without_its_cookie(place: Place) -> None:
    token = place.token("ana")
    assert place.client().get("/", headers={"authorization": f"Bearer {token}"}).status_code == 401


def test_a_link_from_another_site_is_asked_to_come_again(place: Place) -> None:
    """A strict cookie stays at home when another site's link is followed; the page on the way brings it along."""
    page = place.client().get(f"/c/{LABELS}/label", headers={"sec-fetch-site": "cross-site"})
    assert page.status_code == 401
    assert f'href="/c/{LABELS}/label"' in page.text


# --- what every response carries ------------------------------------------------------------------------------


PATHS = [
    "/",
    "/join",
    "/help",
    "/nothing",
    f"/c/{LABELS}/label",
    f"/c/{LABELS}/label?differences=1",
    f"/c/{LABELS}/guidelines",
    f"/c/{LABELS}/history",
    f"/c/{DECISION}/candidate",
    f"/c/{LABELS}/candidate",
    f"/c/{LABELS}/disagreements",
    "/c/nothing/label",
    "/api/v1/me",
    "/api/v1/openapi.json",
    "/api/v1/nothing",
]


@pytest.mark.parametrize("path", PATHS)
def test_every_page_carries_the_walls(place: Place, path: str) -> None:
    page = place.client("ana").get(path)
    assert page.status_code < 500
    policy = page.headers["content-security-policy"]
    for wall in ("default-src 'none'", "script-src 'self'", "style-src 'self'", "form-action 'self'"):
        assert wall in policy
    assert "frame-ancestors 'none'" in policy
    assert "base-uri 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["cross-origin-opener-policy"] == "same-origin"
    assert page.headers["cross-origin-resource-policy"] == "same-origin"
    assert page.headers["cache-control"] == "no-store"
    assert "server" not in page.headers


@pytest.mark.parametrize("path", [path for path in PATHS if not path.startswith("/api")])
def test_nothing_is_inline_and_nothing_comes_from_elsewhere(place: Place, path: str) -> None:
    text = place.client("ana").get(path).text
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", text)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text))
    assert all(url.startswith(("/", "?", "#")) for url in re.findall(r'(?:href|src|action)="([^"]*)"', text))
    assert "<title>" in text
    assert 'lang="en"' in text


def test_static_files_are_named_by_their_contents_and_kept(place: Place) -> None:
    browser = place.client("ana")
    for url in re.findall(r'(?:href|src)="(/static/[^"]+)"', browser.get("/").text):
        file = browser.get(url)
        assert file.status_code == 200
        assert "immutable" in file.headers["cache-control"]
        assert file.content == (FOLDER / "static" / url.rpartition("/")[2]).read_bytes()
    assert browser.get("/static/0000000000000000/app.css").status_code == 404
    assert browser.get("/static/0000000000000000/../../app.py").status_code == 404


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost:80@evil", "", "evil:127.0.0.1"])
def test_a_hostile_host_is_refused(place: Place, host: str) -> None:
    assert place.client().get("/join", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["testserver", "LOCALHOST:8321", "127.0.0.1:99", "[::1]:8321", "review.example.org"])
def test_its_own_names_are_answered(place: Place, host: str) -> None:
    app = place.app(public_url="https://review.example.org")
    assert place.client(app=app).get("/join", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(("method", "path"), [("GET", "/leave"), ("PUT", "/"), ("DELETE", f"/c/{LABELS}/label")])
def test_other_methods_are_refused(place: Place, method: str, path: str) -> None:
    refused = place.client("ana").request(method, path)
    assert refused.status_code == 405
    assert "allow" in refused.headers


def test_large_bodies_are_refused_announced_or_not(place: Place) -> None:
    browser = place.client("ana")
    before = place.ledger.head(LABELS)
    announced = browser.post(f"/c/{LABELS}/label", content=b"x" * 70_000)
    assert announced.status_code == 413
    dripped = browser.post(f"/c/{LABELS}/label", content=(b"x" * 1000 for _ in range(100)))
    assert dripped.status_code == 413
    assert place.ledger.head(LABELS) == before


# --- posts of others ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "http://testserver.evil.example"},
    ],
)
def test_another_sites_post_is_refused_even_with_a_good_mark(place: Place, headers: dict[str, str]) -> None:
    ana = place.client("ana")
    page = ana.get(f"/c/{LABELS}/label")
    fields = {"mark": form_mark(ana.secret), "ticket": ticket_on(page), "choice": "first"}
    assert ana.post(f"/c/{LABELS}/label", data=fields, headers=headers).status_code == 403
    assert ana.post("/join", data={"code": place.code("bo")}, headers=headers).status_code == 403
    assert labels_in(place) == []


@pytest.mark.parametrize("mark", [None, "", "0" * 64, "é"])
def test_a_form_without_the_sessions_own_mark_is_refused(place: Place, mark: str | None) -> None:
    ana, bo = place.client("ana"), place.client("bo")
    fields = {"ticket": ticket_on(ana.get(f"/c/{LABELS}/label")), "choice": "first"}
    for data in (fields | ({} if mark is None else {"mark": mark}), fields | {"mark": form_mark(bo.secret)}):
        assert ana.post(f"/c/{LABELS}/label", data=data).status_code == 403
    assert labels_in(place) == []


def test_joining_from_a_sandboxed_frame_is_refused(place: Place) -> None:
    """Nobody is signed in as somebody else behind their back."""
    assert place.client().post("/join", data={"code": place.code("bo")}, headers={"origin": "null"}).status_code == 403


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "multipart/form-data; boundary=x", ""])
def test_only_plain_forms_are_read(place: Place, content_type: str) -> None:
    ana = place.client("ana")
    refused = ana.post(f"/c/{LABELS}/label", content=b"mark=1", headers={"content-type": content_type})
    assert refused.status_code == 422


# --- labelling ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("choice", list(Choice))
def test_a_word_is_recorded_once_as_it_was_seen(place: Place, choice: Choice) -> None:
    ana = place.client("ana")
    ticket = ticket_on(ana.get(f"/c/{LABELS}/label"))
    said = ana.send_form(f"/c/{LABELS}/label", ticket=ticket, choice=choice.value, harm_left="yes")
    assert said.status_code == 303
    assert "Recorded:" in ana.get(said.headers["location"]).text
    again = ana.send_form(f"/c/{LABELS}/label", ticket=ticket, choice=choice.value, harm_left="yes")
    assert "Recorded already" in ana.get(again.headers["location"]).text
    assert len(labels_in(place)) == 1
    (mine,) = (place.client("ana").get(f"/c/{LABELS}/history").text.count('class="entry"'),)
    assert mine == 1


def test_the_side_that_was_flagged_is_the_side_that_was_shown(place: Place) -> None:
    """Ten people see one item; whoever sees the sides swapped flags the other response."""
    flagged = set()
    for name in ("ana", "bo"):
        browser = place.client(name)
        for _ in range(6):
            page = browser.get(f"/c/{LABELS}/label")
            left = re.search(r'id="left-name".*?<div class="untrusted" dir="auto">(.*?)</div>', page.text, re.DOTALL)
            assert left is not None
            browser.send_form(f"/c/{LABELS}/label", ticket=ticket_on(page), choice="first", harm_left="yes")
            flagged.add(left[1])
    labels = [
        label
        for event in place.ledger.events(LABELS)
        if event.type == "labels_recorded"
        for label in event.body["labels"]
    ]
    assert {label["swapped"] for label in labels} == {False, True}
    assert all(label["choice"] == ("second" if label["swapped"] else "first") for label in labels)
    assert all(label["harm"] == label["choice"] for label in labels)


def test_two_tabs_with_different_words_keep_the_first(place: Place) -> None:
    ana = place.client("ana")
    ticket = ticket_on(ana.get(f"/c/{LABELS}/label"))
    assert ticket_on(ana.get(f"/c/{LABELS}/label")) == ticket, "both tabs show the same comparison"
    ana.send_form(f"/c/{LABELS}/label", ticket=ticket, choice="first")
    other = ana.send_form(f"/c/{LABELS}/label", ticket=ticket, choice="second")
    assert other.status_code == 409
    assert "something else" in other.text
    assert len(labels_in(place)) == 1


def test_a_click_that_is_sent_ten_times_at_once_is_one_label(place: Place) -> None:
    app = place.app()
    ana = place.client("ana", app=app)
    ticket = ticket_on(ana.get(f"/c/{LABELS}/label"))
    with ThreadPoolExecutor(10) as pool:
        sent = list(pool.map(lambda _: ana.send_form(f"/c/{LABELS}/label", ticket=ticket, choice="tie"), range(10)))
    told = sorted(answer.headers["location"].partition("told=")[2] for answer in sent)
    assert told == ["again.tie"] * 9 + ["recorded.tie"]
    assert len(labels_in(place)) == 1


def test_somebody_elses_ticket_is_refused(place: Place) -> None:
    ana, bo = place.client("ana"), place.client("bo")
    ticket = ticket_on(ana.get(f"/c/{LABELS}/label"))
    assert bo.send_form(f"/c/{LABELS}/label", ticket=ticket, choice="first").status_code == 403
    assert bo.get(f"/c/{LABELS}/label/{ticket}/left").status_code == 404
    assert labels_in(place) == []


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, 422),
        ({"choice": "best", "ticket": "x"}, 422),
        ({"choice": "first"}, 404),
        ({"choice": "first", "ticket": "../../etc"}, 404),
        ({"choice": "first", "ticket": "x" * 5000}, 404),
        ({"choice": "first", "ticket": "\x00"}, 404),
    ],
)
def test_nonsense_is_refused_and_recorded_nowhere(place: Place, fields: dict[str, str], status: int) -> None:
    assert place.client("ana").send_form(f"/c/{LABELS}/label", **fields).status_code == status
    assert labels_in(place) == []


def test_the_last_word_can_be_taken_back_and_said_anew(place: Place) -> None:
    ana = place.client("ana")
    ticket = ticket_on(ana.get(f"/c/{LABELS}/label"))
    ana.send_form(f"/c/{LABELS}/label", ticket=ticket, choice="first")
    number = re.search(r'name="number" value="(\d+)"', ana.get(f"/c/{LABELS}/label").text)
    assert number is not None
    assert number[1] == "1"
    undone = ana.send_form(f"/c/{LABELS}/undo", number="1")
    assert "Taken back" in ana.get(undone.headers["location"]).text
    twice = ana.send_form(f"/c/{LABELS}/undo", number="1")
    assert "taken back already" in ana.get(twice.headers["location"]).text
    ana.send_form(f"/c/{LABELS}/label", ticket=ticket_on(ana.get(f"/c/{LABELS}/label")), choice="second")
    assert ana.get(f"/c/{LABELS}/history").text.count('class="entry"') == 1


def test_when_all_is_said_the_page_says_so(place: Place) -> None:
    ana = place.client("ana")
    for _ in range(12):
        ana.send_form(f"/c/{LABELS}/label", ticket=ticket_on(ana.get(f"/c/{LABELS}/label")), choice="tie")
    rest = ana.get(f"/c/{LABELS}/label")
    assert rest.status_code == 200
    assert "Nothing to label now" in rest.text


def test_differences_and_guidelines_work_without_script(place: Place) -> None:
    ana = place.client("ana")
    assert "<mark>" not in ana.get(f"/c/{LABELS}/label").text
    assert "<mark>" in ana.get(f"/c/{LABELS}/label?differences=1").text
    assert "Harm comes first." in ana.get(f"/c/{LABELS}/guidelines").text


def test_status_words_come_from_a_list(place: Place) -> None:
    page = place.client("ana").get(f"/c/{LABELS}/label?told=recorded.%3Cb%3Eyou+won").text
    assert "you won" not in page
    assert "Recorded" not in page


# --- roles ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("roles", "path", "status"),
    [
        ((Role.LABELER,), f"/c/{DECISION}/candidate", 403),
        ((Role.LABELER,), f"/c/{LABELS}/disagreements", 403),
        ((Role.APPROVER,), f"/c/{DECISION}/candidate", 200),
        ((Role.APPROVER,), f"/c/{LABELS}/label", 200),
    ],
)
def test_roles_are_looked_at_in_the_server(place: Place, roles: tuple[Role, ...], path: str, status: int) -> None:
    assert place.client("ana", *roles).get(path).status_code == status


def test_an_approver_is_given_nothing_to_label(place: Place) -> None:
    page = place.client("ana", Role.APPROVER).get(f"/c/{LABELS}/label").text
    assert "You cannot label this now" in page
    assert 'name="ticket"' not in page


def test_a_campaign_is_open_to_its_own_people_alone(place: Place) -> None:
    place.ledger.people.token("ana", [Role.LABELER], campaigns=[LABELS], by="tester")
    code = place.code("ana", Role.LABELER, campaigns=[LABELS])
    ana = place.client()
    ana.post("/join", data={"code": code})
    assert ana.get(f"/c/{LABELS}/label").status_code == 200
    assert ana.get(f"/c/{DECISION}/label").status_code == 403
    assert ana.get("/c/no-such-campaign/label").status_code == 403
    assert DECISION not in ana.get("/").text


# --- deciding -------------------------------------------------------------------------------------------------


def decide(browser: Browser, digest: str, *, typed: str | None = None, decision: str = "approve") -> Any:
    typed = digest[:8] if typed is None else typed
    fields = {"decision": decision, "digest": digest, "reason": "reads well", "typed": typed}
    return browser.send_form(f"/c/{DECISION}/decision", **fields)


def decisions_in(place: Place) -> list[tuple[str, str]]:
    return [
        (event.body["reviewer"], event.body["decision"])
        for event in place.ledger.events(DECISION)
        if event.type == "decision_made"
    ]


def test_a_decision_takes_a_reason_a_look_and_the_digest(place: Place) -> None:
    ana, digest = place.client("ana"), candidate_of(place)
    page = ana.get(f"/c/{DECISION}/candidate")
    assert digest in page.text.replace("</span><span>", "")
    nothing = ana.send_form(f"/c/{DECISION}/candidate", decision="approve", digest=digest, reason="  ")
    assert nothing.status_code == 422
    look = ana.send_form(f"/c/{DECISION}/candidate", decision="approve", digest=digest, reason="reads well")
    assert look.status_code == 200
    assert digest in look.text
    assert "reads well" in look.text
    assert decisions_in(place) == []
    assert decide(ana, digest, typed=digest[1:9]).status_code == 422
    assert decide(ana, digest, typed=digest[:7]).status_code == 422
    assert decisions_in(place) == []
    done = decide(ana, digest)
    assert "Recorded: approved" in ana.get(done.headers["location"]).text
    again = decide(ana, digest)
    assert "Recorded already" in ana.get(again.headers["location"]).text
    assert decisions_in(place) == [("ana", "approve")]


def test_a_decision_on_another_candidate_is_refused(place: Place) -> None:
    ana = place.client("ana")
    stale = decide(ana, "0" * 64)
    assert stale.status_code == 409
    assert candidate_of(place)[:12] in stale.text
    look = ana.send_form(f"/c/{DECISION}/candidate", decision="approve", digest="0" * 64, reason="reads well")
    assert look.status_code == 409, "before anybody types its digits"
    assert "reads well" in look.text, "the reason is not lost"
    assert decisions_in(place) == []


def test_one_cannot_say_yes_and_no(place: Place) -> None:
    ana, digest = place.client("ana"), candidate_of(place)
    decide(ana, digest)
    assert decide(ana, digest, decision="reject").status_code == 409
    assert decisions_in(place) == [("ana", "approve")]


def test_approval_and_rejection_at_once_are_both_told_what_stands(place: Place) -> None:
    app, digest = place.app(), candidate_of(place)
    browsers = {"approve": place.client("ana", app=app), "reject": place.client("bo", app=app)}
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda kind: decide(browsers[kind], digest, decision=kind).status_code, browsers))
    stand = decisions_in(place)
    assert len(stand) == answers.count(303)
    assert sorted(set(answers) | {303}) in ([303], [303, 409])
    assert len({who for who, _ in stand}) == len(stand)


def test_labelers_cannot_decide_by_posting(place: Place) -> None:
    assert decide(place.client("ana", Role.LABELER), candidate_of(place)).status_code == 403
    assert decisions_in(place) == []


# --- logs and limits ------------------------------------------------------------------------------------------


def test_no_secret_reaches_a_log(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    code, token = place.code("ana"), place.token("ana")
    browser = place.client()
    browser.post("/join", data={"code": code})
    secret = browser.secret
    browser.get(f"/?code={code}&token={secret}")
    browser.get("/api/v1/me", headers={"authorization": f"Bearer {token}"})
    browser.get("/api/v1/me", headers={"authorization": f"Bearer {code}"})
    said = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("orchestrator"))
    assert "GET / 200" in said
    for hidden in (code, token, secret):
        assert hidden not in said


def test_strangers_are_slowed_and_people_at_the_same_address_are_not(place: Place) -> None:
    app = place.app(limits=Limits(stranger=Rate(0.001, 5), failure=Rate(0.001, 3)))
    ana = place.client("ana", app=app)
    stranger = place.client(app=app)
    statuses = [stranger.get("/join").status_code for _ in range(6)]
    assert statuses[-1] == 429
    assert stranger.get("/join").headers["retry-after"]
    wrong = [stranger.get("/", headers={"cookie": f"{COOKIE}=rtc_{i:043d}"}).status_code for i in range(5)]
    assert wrong == [401, 401, 401, 429, 429]
    assert ana.get("/").status_code == 200


def test_a_person_who_asks_too_much_is_slowed_alone(place: Place) -> None:
    app = place.app(limits=Limits(person=Rate(0.001, 5)))
    ana, bo = place.client("ana", app=app), place.client("bo", app=app)
    assert [ana.get("/help").status_code for _ in range(6)] == [200] * 5 + [429]
    assert bo.get("/help").status_code == 200


@pytest.mark.parametrize("kind", [Decision, Harm, Choice])
def test_every_kind_of_word_has_words(kind: Any) -> None:
    from orchestrator.web import pages

    known = {Decision: pages.DECISION_WORDS, Harm: pages.HARM_WORDS, Choice: pages.CHOICE_WORDS}[kind]
    assert set(known) == set(kind)
