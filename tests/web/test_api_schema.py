"""The running server holds to its own description, for whoever asks and whatever is sent; nor does a form break it."""

from __future__ import annotations

import shutil
import string
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from orchestrator.home import Home
from orchestrator.store.ledger import Ledger
from orchestrator.web.sessions import form_mark

if TYPE_CHECKING:
    from review_server import Server, Visitor

QUEUE, DECISION = "queue", "harmless"
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
STEADY: dict[str, Any] = {
    "deadline": None,
    "database": None,
    "derandomize": True,
    "phases": [Phase.explicit, Phase.generate],
    "suppress_health_check": list(HealthCheck),
}


@dataclass
class Site:
    ledger: Ledger
    server: Server

    def token(self, name: str) -> str:
        from orchestrator.core.records import Role

        return self.ledger.people.token(name, tuple(Role), by="tester")[0]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def site(request: pytest.FixtureRequest, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Over a queue and a candidate; PostgreSQL refuses texts that SQLite takes."""
    from review_server import add_queue, on_postgresql, serving

    folder = tmp_path_factory.mktemp("described")
    shutil.copytree(prepared, folder / "home")
    here = Home(folder / "home")
    if request.param == "sqlite":
        with here.ledger() as ledger:
            add_queue(here, ledger, 1000)
            with serving(here, folder / "log", "--access-log") as server:
                yield Site(ledger, server)
        return
    with on_postgresql(here, DECISION) as home, home.ledger() as ledger:
        add_queue(home, ledger, 1000)
        with serving(home, folder / "log", "--access-log") as server:
            yield Site(ledger, server)


def described(site: Site) -> Any:
    config = schemathesis.Config.from_dict({"generation": {"mode": "all", "allow-x00": True}})
    return schemathesis.openapi.from_url(f"http://{site.server.host}/api/v1/openapi.json", config=config)


@pytest.mark.parametrize("known", [True, False], ids=["with a token", "without one"])
def test_every_answer_is_described(site: Site, known: bool) -> None:
    from review_server import elsewhere

    statuses: Counter[int] = Counter()
    found = 0
    for result in described(site).get_all_operations():
        operation = result.ok()
        found += 1
        # Somebody else for each: nobody is quick enough to be told to wait.
        secret = site.token(f"prober {elsewhere()}") if known else None
        headers = {"authorization": f"Bearer {secret}"} if known else {}
        with requests.Session() as session:
            session.trust_env = False
            examples = iter(range(1000))

            @settings(max_examples=25 if known else 3, **STEADY)
            @given(case=operation.as_strategy())
            def probe(case: Any) -> None:
                turn = next(examples)  # noqa: B023 - called in this turn of the loop
                if "campaign" in case.path_parameters and turn % 3:
                    case.path_parameters["campaign"] = (QUEUE, DECISION)[turn % 3 - 1]
                checks = CHECKS if known else [check for check in CHECKS if check is not negative_data_rejection]
                reply = case.call_and_validate(session=session, headers=headers, checks=checks)  # noqa: B023
                statuses[reply.status_code] += 1

            probe()
    assert statuses.total() >= 3 * found >= 30
    if known:
        assert {200, 404, 422} <= set(statuses)
    else:
        assert set(statuses) <= {400, 401, 404, 405, 413, 429, 431}
        assert statuses[401] > 5
    assert site.ledger.verify(QUEUE).ok


# --- forms ----------------------------------------------------------------------------------------------------

ANYTHING = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.sampled_from(
    [
        "",
        "\x00",
        "a\x00b",
        "first",
        "approve",
        "9" * 30,
        "-1",
        "١",
        "²",
        "%00",
        "\ud7ff\ue000",
        "é" * 300,
        "' OR 1=1 --",
    ]
)
FIELDS = (
    "ticket",
    "choice",
    "harm_left",
    "number",
    "decision",
    "digest",
    "reason",
    "typed",
    "override",
    "batch",
    "item",
)
SEGMENTS = st.text(string.ascii_letters + string.digits + "._-~", min_size=1, max_size=20) | st.sampled_from(
    ["%00", "%2e%2e", "%ff", "..", "%0d%0a", "%F0%9F%98%80", "a" * 300]
)
POSTED = (
    f"/c/{QUEUE}/label",
    f"/c/{QUEUE}/undo",
    f"/c/{DECISION}/candidate",
    f"/c/{DECISION}/decision",
    f"/c/{QUEUE}/disagreements",
    f"/c/{DECISION}/disagreements",
)


@pytest.fixture
def browser(site: Site) -> Iterator[Visitor]:
    from review_server import elsewhere

    with site.server.visitor(site.token(f"fuzzer {elsewhere()}"), address=elsewhere()) as visitor:
        yield visitor


def in_order(site: Site, browser: Visitor, path: str) -> dict[str, str]:
    """A form with which something would be done, other than to decide on the candidate that the tests look at."""
    from orchestrator.runner import read_state_at

    digest = str(read_state_at(site.ledger, DECISION)[0].attempts[-1].candidate)
    fields = {"number": "", "digest": digest, "reason": "r", "decision": "reject", "batch": "initial", "item": "0"}
    if not path.endswith("/decision"):
        fields |= {"ticket": browser.get(f"/c/{QUEUE}/label").ticket, "choice": "tie", "typed": digest[:8]}
    return fields


def test_no_form_breaks_a_page(site: Site, browser: Visitor) -> None:
    statuses: Counter[int] = Counter()

    @settings(max_examples=90, **STEADY)
    @given(
        path=st.sampled_from(POSTED),
        odd=st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=3),
        query=st.text(string.printable, max_size=20),
    )
    def probe(path: str, odd: dict[str, str], query: str) -> None:
        fields = {"mark": form_mark(str(browser.secret)), **in_order(site, browser, path), **odd}
        reply = browser.post(f"{path}?{quote(query)}", fields, sec_fetch_site="same-origin")
        assert reply.status in (200, 303, 404, 409, 422), reply.text
        assert reply.header("content-security-policy")
        statuses[reply.status] += 1

    probe()
    assert {200, 303, 404, 422} <= set(statuses)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", ["\x00", "a\x00b", "\uffff", "9" * 400, "\u202e", "x" * 20_000])
def test_no_odd_text_breaks_a_form(site: Site, browser: Visitor, field: str, value: str) -> None:
    """Everything else of the form is in order."""
    for path in POSTED:
        fields = in_order(site, browser, path) | {field: value}
        assert browser.send(path, **fields).status in (200, 303, 404, 409, 422)


def test_no_address_breaks_a_page(site: Site, browser: Visitor) -> None:
    names = ("label", "history", "candidate", "guidelines", "disagreements", "undo", "decision", "label/x/left", "")

    @settings(max_examples=100, **STEADY)
    @given(
        campaign=SEGMENTS | st.sampled_from([QUEUE, DECISION]),
        name=st.sampled_from(names) | SEGMENTS,
        query=st.dictionaries(st.sampled_from(["told", "differences", "from", "limit", "x"]), ANYTHING, max_size=3),
        program=st.booleans(),
    )
    def probe(campaign: str, name: str, query: dict[str, str], program: bool) -> None:
        asked = f"?{urlencode(query)}"
        reply = (
            browser.api("GET", f"/campaigns/{campaign}/{name}{asked}")
            if program
            else browser.get(f"/c/{campaign}/{name}{asked}")
        )
        assert reply.status in (200, 400, 404, 405, 422, 429, 431), reply.text

    probe()


def test_nothing_broke(site: Site) -> None:
    """After all of the above."""
    logged = site.server.said()
    assert "Traceback" not in logged
    assert " 500 " not in logged
    assert " 503 " not in logged
    for name in (QUEUE, DECISION):
        assert site.ledger.verify(name).ok
