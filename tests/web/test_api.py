"""The API: the same rules as the pages, told to programs; and its own description is true of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from orchestrator.core.records import Role
from orchestrator.web.limits import Limits, Rate

if TYPE_CHECKING:
    from conftest import Place

LABELS, DECISION = "helpful", "harmless"


class Program:
    def __init__(self, place: Place, name: str, *roles: Role, **options: Any) -> None:
        self.browser = place.client(app=place.app(**options))
        self.headers = {"authorization": f"Bearer {place.token(name, *roles)}"}

    def get(self, path: str) -> Any:
        return self.browser.get(f"/api/v1{path}", headers=self.headers)

    def post(self, path: str, **document: Any) -> Any:
        return self.browser.post(f"/api/v1{path}", headers=self.headers, json=document)


def test_labels_a_queue_to_its_end_and_looks_back(place: Place) -> None:
    ana = Program(place, "ana", Role.LABELER)
    at, said = f"/campaigns/{LABELS}", 0
    while (shown := ana.get(f"{at}/next").json()["comparison"]) is not None:
        assert ana.get(f"{at}/next").json()["comparison"]["ticket"] == shown["ticket"]
        answer = ana.post(f"{at}/labels", ticket=shown["ticket"], choice="first", harm="second")
        assert (answer.status_code, answer.json()) == (200, {"standing": "recorded", "choice": "first"})
        said += 1
        assert shown["number"] == said
    assert said == 12
    history = ana.get(f"{at}/history?limit=5").json()
    assert [word["number"] for word in history] == [12, 11, 10, 9, 8]
    assert {(word["choice"], word["harm"]) for word in history} == {("first", "second")}
    assert ana.post(f"{at}/undo", number=12).json() == {"standing": "undone"}
    assert ana.post(f"{at}/undo", number=12).json() == {"standing": "again"}
    assert ana.get(f"{at}/next").json()["comparison"]["number"] == 12


def test_what_raters_saw_differently_is_settled_by_an_approver(place: Place) -> None:
    people = [Program(place, name, Role.LABELER) for name in ("ana", "bo")]
    for person, choice in zip(people, ("first", "tie"), strict=True):
        while (shown := person.get(f"/campaigns/{LABELS}/next").json()["comparison"]) is not None:
            person.post(f"/campaigns/{LABELS}/labels", ticket=shown["ticket"], choice=choice)
    assert people[0].get(f"/campaigns/{LABELS}/disagreements").status_code == 403
    eve = Program(place, "eve", Role.APPROVER)
    found = eve.get(f"/campaigns/{LABELS}/disagreements").json()
    assert len(found) == 12
    place_of_it = {"batch": found[0]["batch"], "item": found[0]["item"]}
    settled = eve.post(f"/campaigns/{LABELS}/settlements", **place_of_it, choice="both_bad", reason="both wrong")
    assert settled.json() == {"standing": "recorded"}
    again = eve.get(f"/campaigns/{LABELS}/disagreements").json()
    mine = next(one for one in again if (one["batch"], one["item"]) == (place_of_it["batch"], place_of_it["item"]))
    assert mine["settled"] == [{"by": "eve", "choice": "both_bad", "reason": "both wrong"}]
    assert {word["rater"] for word in mine["words"]} == {"ana", "bo"}


def test_the_candidate_its_case_and_a_decision_that_binds_its_digest(place: Place) -> None:
    ana = Program(place, "ana", Role.APPROVER)
    at = f"/campaigns/{DECISION}"
    told = ana.get(f"{at}/candidate").json()
    assert told["case"]["change"]["candidate"] == told["digest"]
    assert (told["approvals"], told["approvers"]) == (0, 2)
    other = ana.post(f"{at}/decision", decision="approve", digest="0" * 64, reason="why not")
    assert other.status_code == 409
    for standing in ("recorded", "again"):
        made = ana.post(f"{at}/decision", decision="approve", digest=told["digest"], reason="reads well").json()
        assert made == {"digest": told["digest"], "standing": standing, "approvals": 1, "approvers": 2}
    assert ana.get(f"/campaigns/{LABELS}/candidate").status_code == 404


@pytest.mark.parametrize("header", [{}, {"authorization": "Basic YTpi"}, {"authorization": "Bearer "}])
@pytest.mark.parametrize("path", ["/me", "/campaigns", f"/campaigns/{LABELS}/next"])
def test_without_a_token_there_is_nothing(place: Place, header: dict[str, str], path: str) -> None:
    refused = place.client().get(f"/api/v1{path}", headers=header)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert set(refused.json()) == {"error", "next"}


def test_a_cookie_opens_nothing_here(place: Place) -> None:
    """What a browser sends by itself is what another site's page could borrow."""
    assert place.client("ana").get("/api/v1/me").status_code == 401


def test_codes_revoked_tokens_and_ended_ones_are_refused(place: Place) -> None:
    ana = Program(place, "ana")
    assert ana.get("/me").json()["name"] == "ana"
    place.ledger.people.revoke_credential(ana.get("/me").json()["credential"], by="tester")
    assert ana.get("/me").status_code == 401
    ana.headers = {"authorization": f"Bearer {place.code('ana')}"}
    assert ana.get("/me").status_code == 401


@pytest.mark.parametrize(
    "document",
    [
        {"ticket": "x", "choice": "best"},
        {"ticket": 5, "choice": "first"},
        {"ticket": "x"},
        {"ticket": "x", "choice": "first", "rater": "bo"},
        {"ticket": "\ud800", "choice": "first"},
        {"ticket": "x\n", "choice": "first"},
        [],
        None,
        "first",
    ],
)
def test_malformed_documents_are_refused_with_the_place(place: Place, document: Any) -> None:
    ana = Program(place, "ana")
    headers = {**ana.headers, "content-type": "application/json"}
    content = json.dumps(document)  # escapes what UTF-8 cannot hold
    refused = ana.browser.post(f"/api/v1/campaigns/{LABELS}/labels", headers=headers, content=content)
    assert refused.status_code == 422
    assert "body" in refused.json()["error"]


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 60_000, b'{"ticket": 1e999, "choice": NaN}', b""])
def test_what_is_no_json_is_refused(place: Place, body: bytes) -> None:
    ana = Program(place, "ana")
    headers = {**ana.headers, "content-type": "application/json"}
    refused = ana.browser.post(f"/api/v1/campaigns/{LABELS}/labels", headers=headers, content=body)
    assert refused.status_code in (400, 422)
    assert set(refused.json()) == {"error", "next"}


def test_texts_that_utf8_cannot_hold_are_still_sent(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator.review.office import Office
    from orchestrator.review.texts import Comparison

    odd = Comparison("a\ud800b", "\x00\x1b[31m", "\ud83d\ude00")
    monkeypatch.setattr(Office, "comparison", lambda office, batch, item: odd)
    shown = Program(place, "ana").get(f"/campaigns/{LABELS}/next").json()["comparison"]
    assert shown["prompt"] == "a\ufffdb"
    assert {shown["left"], shown["right"]} == {"\x00\x1b[31m", "\U0001f600"}


def test_every_action_is_described_with_every_refusal(place: Place) -> None:
    document = place.client().get("/api/v1/openapi.json").json()
    actions = {action["operationId"]: action for path in document["paths"].values() for action in path.values()}
    assert set(actions) == {
        "me",
        "campaigns",
        "next",
        "label",
        "undo",
        "history",
        "candidate",
        "decide",
        "disagreements",
        "adjudicate",
    }
    for action in actions.values():
        assert {"200", "401", "403", "404", "409", "422", "429", "503"} <= set(action["responses"])
        assert action["security"] == [{"HTTPBearer": []}]


@pytest.mark.filterwarnings("ignore")
def test_schemathesis_finds_no_answer_that_is_not_described(place: Place) -> None:
    many = Rate(1e6, 1e6)
    app = place.app(limits=Limits(person=many, stranger=many, failure=many))
    schema = schemathesis.openapi.from_asgi("/api/v1/openapi.json", app, headers={"host": "testserver"})
    checks = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
    headers = {"authorization": f"Bearer {place.token('ana')}", "host": "testserver"}
    tried, statuses = 0, set()
    for result in schema.get_all_operations():
        operation = result.ok()

        @settings(
            max_examples=25,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def probe(case: Any) -> None:
            nonlocal tried
            tried += 1
            if case.path_parameters and tried % 2:
                case.path_parameters["campaign"] = (LABELS, DECISION)[tried % 4 // 2]
            statuses.add(case.call_and_validate(headers=headers, checks=checks).status_code)

        given(case=operation.as_strategy())(probe)()
    assert tried > 200
    assert {200, 404} <= statuses, "it got past the door"
