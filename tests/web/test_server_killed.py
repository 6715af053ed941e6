"""kill -9 between commit and answer, clicks that come ten times, two tabs, two approvers, two servers: each word once.

On SQLite, and on PostgreSQL where RATCHET_TEST_POSTGRES_URL names one.
"""

from __future__ import annotations

import http.client
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.core.records import Choice, Role
from orchestrator.home import Home
from orchestrator.store.ledger import Ledger

if TYPE_CHECKING:
    from review_server import Reply, Server, Servers, Visitor

QUEUE, DECISION, ITEMS = "queue", "single", 24
pytestmark = pytest.mark.thorough
AT_THE_COMMIT = ("before", "after")


@dataclass
class Site:
    """A ledger of its own with a queue (two words for each comparison) and a candidate (one approval)."""

    home: Home
    ledger: Ledger
    servers: Servers
    folder: Path
    _started: int = field(default=0, init=False)

    def start(self, failpoint: str = "") -> Server:
        self._started += 1
        return self.servers.start(self.home, self.folder / f"log {self._started}", failpoint)

    def session(self, name: str) -> str:
        from review_server import session

        return session(self.ledger, name)

    @property
    def words(self) -> list[tuple[int, str, str]]:
        from review_server import words_in

        return words_in(self.ledger)

    def bodies(self, campaign: str, kind: str) -> list[dict[str, Any]]:
        return [event.body for event in self.ledger.events(campaign) if event.type == kind]

    @property
    def decisions(self) -> list[tuple[str, str]]:
        return [(body["reviewer"], body["decision"]) for body in self.bodies(DECISION, "decision_made")]

    @property
    def digest(self) -> str:
        from orchestrator.runner import read_state_at

        digest = read_state_at(self.ledger, DECISION)[0].attempts[-1].candidate
        assert digest is not None
        return digest


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    from review_server import Servers

    with Servers() as warm:
        yield warm


@pytest.fixture(scope="module")
def waiting(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose campaigns wait for people; copied for each test."""
    from review_server import add_queue
    from small_campaigns import Small, with_people

    small = Small(tiny_base, tmp_path_factory.mktemp("waiting"))
    campaign = small.campaign(**with_people(name=DECISION, approval={"approvers": 1}))
    campaign.run_until_candidate()
    add_queue(campaign.home, campaign.ledger, ITEMS, raters_per_item=2)
    small.close()
    return small.folder / "home"


@pytest.fixture(params=["sqlite", "postgresql"])
def site(request: pytest.FixtureRequest, waiting: Path, servers: Servers, tmp_path: Path) -> Iterator[Site]:
    shutil.copytree(waiting, tmp_path / "home")
    here = Home(tmp_path / "home")
    if request.param == "sqlite":
        with here.ledger() as ledger:
            yield Site(here, ledger, servers, tmp_path)
        return
    from review_server import on_postgresql

    with on_postgresql(here, QUEUE, DECISION) as home, home.ledger() as ledger:
        yield Site(home, ledger, servers, tmp_path)


def label(browser: Visitor, ticket: str, choice: str = "first") -> Reply:
    return browser.send(f"/c/{QUEUE}/label", ticket=ticket, choice=choice)


def undo(browser: Visitor, number: int) -> Reply:
    return browser.send(f"/c/{QUEUE}/undo", number=str(number))


def decide(browser: Visitor, digest: str, decision: str = "approve") -> Reply:
    fields = {"decision": decision, "digest": digest, "reason": f"I {decision}", "typed": digest[:8]}
    return browser.send(f"/c/{DECISION}/decision", **fields)


def at_once(*asked: Callable[[], Reply]) -> list[Reply]:
    """What each is told, in their order."""
    barrier = threading.Barrier(len(asked))

    def ask(one: Callable[[], Reply]) -> Reply:
        barrier.wait()
        return one()

    with ThreadPoolExecutor(len(asked)) as pool:
        return list(pool.map(ask, asked))


def killed_by(site: Site, server: Server, ask: Callable[[], Reply]) -> None:
    """Ask, and see the server die over it without an answer."""
    with pytest.raises((OSError, http.client.HTTPException)):
        ask()
    assert site.servers.wait(server) == -signal.SIGKILL


# --- kill -9 --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", AT_THE_COMMIT)
def test_killed_at_the_commit_of_a_word(site: Site, when: str) -> None:
    secret = site.session("ana")
    server = site.start(f"ledger.{when}_commit:kill@1")
    browser = server.visitor(secret)
    ticket = browser.get(f"/c/{QUEUE}/label").ticket
    killed_by(site, server, lambda: label(browser, ticket))
    assert len(site.words) == (when == "after")
    browser = site.start().visitor(secret)
    said = label(browser, ticket)
    assert (said.status, said.told) == (303, "again.first" if when == "after" else "recorded.first")
    assert ("Recorded already" in browser.get(str(said.header("location"))).text) is (when == "after")
    assert label(browser, ticket).told == "again.first"
    assert [(name, choice != "tie") for _, name, choice in site.words] == [("ana", True)]
    assert browser.get(f"/c/{QUEUE}/label").ticket != ticket, "it goes on with the next one"
    assert site.ledger.verify(QUEUE).ok


@pytest.mark.parametrize("when", AT_THE_COMMIT)
def test_killed_at_the_commit_of_a_word_taken_back(site: Site, when: str) -> None:
    secret = site.session("ana")
    server = site.start(f"ledger.{when}_commit:kill@3")
    browser = server.visitor(secret)
    for _ in range(2):
        label(browser, browser.get(f"/c/{QUEUE}/label").ticket)
    killed_by(site, server, lambda: undo(browser, 2))
    assert len(site.bodies(QUEUE, "label_withdrawn")) == (when == "after")
    browser = site.start().visitor(secret)
    assert undo(browser, 2).told == ("back" if when == "after" else "undone")
    assert undo(browser, 2).told == "back"
    assert len(site.bodies(QUEUE, "label_withdrawn")) == 1
    item = site.bodies(QUEUE, "label_withdrawn")[0]["item"]
    assert item == site.words[-1][0]
    assert browser.get(f"/c/{QUEUE}/history").text.count('class="entry"') == 1
    assert label(browser, browser.get(f"/c/{QUEUE}/label").ticket, "second").told == "recorded.second"
    assert site.ledger.verify(QUEUE).ok


@pytest.mark.parametrize("when", AT_THE_COMMIT)
@pytest.mark.parametrize("decision", ["approve", "reject"])
def test_killed_at_the_commit_of_a_decision(site: Site, when: str, decision: str) -> None:
    secret, digest = site.session("ana"), site.digest
    server = site.start(f"ledger.{when}_commit:kill@1")
    browser = server.visitor(secret)
    assert browser.get(f"/c/{DECISION}/candidate").status == 200
    killed_by(site, server, lambda: decide(browser, digest, decision))
    assert len(site.decisions) == (when == "after")
    browser = site.start().visitor(secret)
    said = decide(browser, digest, decision)
    assert (said.status, said.told) == (303, f"{'again' if when == 'after' else 'recorded'}.{decision}")
    assert decide(browser, digest, decision).told == f"again.{decision}"
    assert ("Recorded already" in browser.get(str(said.header("location"))).text) is (when == "after")
    assert site.decisions == [("ana", decision)]
    assert site.ledger.verify(DECISION).ok


@pytest.mark.parametrize("when", AT_THE_COMMIT)
def test_killed_at_the_commit_of_joining(site: Site, when: str) -> None:
    """After it, the code is used up and its session's secret is nowhere: a new invitation is wanted."""
    people = site.ledger.people
    code = people.invite("ana", [Role.LABELER], by="tester").secret
    server = site.start(f"people.{when}_commit:kill@1")
    killed_by(site, server, lambda: server.visitor().join(code))
    held = [held.kind for row in people.list() for held in row.credentials]
    assert held == (["session"] if when == "after" else ["invitation"])
    server = site.start()
    again = server.visitor().join(code)
    assert (again.status, len(again.all("set-cookie"))) == ((410, 0) if when == "after" else (303, 1))
    if when == "after":
        again = server.visitor().join(people.invite("ana", [Role.LABELER], by="tester").secret)
        assert again.status == 303
    secret = again.all("set-cookie")[0].partition("=")[2].partition(";")[0]
    assert server.visitor(secret).get(f"/c/{QUEUE}/label").status == 200


@pytest.mark.parametrize("when", AT_THE_COMMIT)
def test_killed_at_the_commit_of_lending(site: Site, when: str) -> None:
    secret = site.session("ana")
    server = site.start(f"tickets.{when}_commit:kill@1")
    browser = server.visitor(secret)
    killed_by(site, server, lambda: browser.get(f"/c/{QUEUE}/label"))
    browser = site.start().visitor(secret)
    ticket = browser.get(f"/c/{QUEUE}/label").ticket
    assert browser.get(f"/c/{QUEUE}/label").ticket == ticket
    assert label(browser, ticket).told == "recorded.first"


# --- at once --------------------------------------------------------------------------------------------------


def test_ten_clicks_are_one_word(site: Site) -> None:
    secret, server = site.session("ana"), site.start()
    ticket = server.visitor(secret).get(f"/c/{QUEUE}/label").ticket
    clicks = [lambda: label(server.visitor(secret), ticket, "tie")] * 10
    assert Counter(reply.told for reply in at_once(*clicks)) == {"recorded.tie": 1, "again.tie": 9}
    assert len(site.words) == 1
    backs = [lambda: undo(server.visitor(secret), 1)] * 10
    assert Counter(reply.told for reply in at_once(*backs)) == {"undone": 1, "back": 9}
    assert len(site.bodies(QUEUE, "label_withdrawn")) == 1
    digest = site.digest
    decisions = [lambda: decide(server.visitor(secret), digest)] * 10
    assert Counter(reply.told for reply in at_once(*decisions)) == {"recorded.approve": 1, "again.approve": 9}
    assert site.decisions == [("ana", "approve")]
    code = site.ledger.people.invite("bo", [Role.LABELER], by="tester").secret
    joins = [lambda: server.visitor().join(code)] * 10
    assert Counter(reply.status for reply in at_once(*joins)) == {303: 1, 410: 9}


def test_two_tabs_that_disagree(site: Site) -> None:
    secret, server = site.session("ana"), site.start()
    ticket = server.visitor(secret).get(f"/c/{QUEUE}/label").ticket
    replies = at_once(*(lambda kind=kind: label(server.visitor(secret), ticket, kind) for kind in ("tie", "both_bad")))
    assert sorted(reply.status for reply in replies) == [303, 409]
    (refused,) = (reply for reply in replies if reply.status == 409)
    assert "something else" in refused.text
    (kept,) = (reply.told for reply in replies if reply.status == 303)
    assert [choice for _, _, choice in site.words] == [kept.partition(".")[2]]


def test_one_candidate_is_decided_once(site: Site) -> None:
    """One approval is wanted; two give it in the same moment."""
    server, digest = site.start(), site.digest
    browsers = [server.visitor(site.session(name)) for name in ("ana", "bo")]
    replies = at_once(*(lambda browser=browser: decide(browser, digest) for browser in browsers))
    _decided_once(site, replies, ["approve", "approve"], browsers)


def test_approved_and_rejected_at_once(site: Site) -> None:
    server, digest, kinds = site.start(), site.digest, ["approve", "reject"]
    browsers = [server.visitor(site.session(name)) for name in ("ana", "bo")]
    said = zip(browsers, kinds, strict=True)
    replies = at_once(*(lambda browser=browser, kind=kind: decide(browser, digest, kind) for browser, kind in said))
    _decided_once(site, replies, kinds, browsers)


def test_approved_and_rejected_at_once_at_two_servers(site: Site) -> None:
    """A rejection that was under way outweighs an approval that nothing was done about; nothing outweighs it."""
    digest, kinds = site.digest, ["approve", "reject"]
    browsers = [site.start().visitor(site.session(name)) for name in ("ana", "bo")]
    said = zip(browsers, kinds, strict=True)
    replies = at_once(*(lambda browser=browser, kind=kind: decide(browser, digest, kind) for browser, kind in said))
    if [reply.status for reply in replies] != [303, 303]:
        _decided_once(site, replies, kinds, browsers)
        return
    assert site.decisions == [("ana", "approve"), ("bo", "reject")]
    for browser in browsers:
        assert "<strong>bo</strong>: reject" in browser.get(f"/c/{DECISION}/candidate").text
    assert site.ledger.verify(DECISION).ok


def _decided_once(site: Site, replies: list[Reply], kinds: Sequence[str], browsers: list[Visitor]) -> None:
    assert sorted(reply.status for reply in replies) == [303, 409]
    winner = next(n for n, reply in enumerate(replies) if reply.status == 303)
    assert site.decisions == [(["ana", "bo"][winner], kinds[winner])]
    refused = replies[1 - winner].text
    assert ["ana", "bo"][winner] in refused, "told who decided"
    assert {"approve": "approved", "reject": "rejected"}[kinds[winner]] in refused
    assert browsers[1 - winner].get(f"/c/{DECISION}/candidate").status == 200
    assert site.ledger.verify(DECISION).ok


def test_whoever_is_overtaken_again_and_again_is_asked_to_come_again(site: Site) -> None:
    """The office looks at its clock between reading the state and appending: there, somebody else speaks."""
    from orchestrator.errors import StorageError
    from orchestrator.review.desk import Desk
    from orchestrator.review.office import Office
    from orchestrator.web.answers import answer_to

    person = site.ledger.people.authenticate(site.session("ana"))
    others = Desk(Office(site.ledger, site.home.artifacts(), QUEUE), person)
    overtaking = False

    def now() -> datetime:
        if overtaking:
            others.pause_labelling("tea")
            others.resume_labelling()
        return datetime.now(UTC)

    desk = Desk(Office(site.ledger, site.home.artifacts(), QUEUE, now=now), person)
    asked = desk.asked()
    assert asked is not None
    overtaking = True
    with pytest.raises(StorageError, match="too busy") as error:
        desk.label(asked.ticket, Choice.FIRST)
    assert answer_to(error.value).status == 503
    assert answer_to(error.value).retry_after_s
    assert site.words == []
    overtaking = False
    assert desk.label(asked.ticket, Choice.FIRST).standing == "recorded"


# --- two servers ----------------------------------------------------------------------------------------------


def test_eight_people_at_two_servers(site: Site) -> None:
    """Every comparison gets its two words, of two people; nothing acknowledged is lost, nothing is there twice."""
    both = [site.start(), site.start()]

    def work(number: int) -> list[tuple[str, str]]:
        name, server = f"labeler {number}", both[number % 2]
        browser = server.visitor(site.session(name))
        said: list[tuple[str, str]] = []
        while True:
            page = browser.get(f"/c/{QUEUE}/label")
            assert page.status == 200, page.text
            if b'name="ticket"' not in page.body:
                return said
            reply = label(browser, page.ticket, ("first", "second", "tie", "both_bad")[len(said) % 4])
            assert reply.status == 303, reply.text
            said.append((name, reply.told.partition(".")[0]))

    with ThreadPoolExecutor(8) as pool:
        said = [word for words in pool.map(work, range(8)) for word in words]
    words = site.words
    assert Counter(standing for _, standing in said) == {"recorded": 2 * ITEMS}
    assert Counter(name for name, _ in said) == Counter(name for _, name, _ in words)
    assert Counter(item for item, _, _ in words) == dict.fromkeys(range(ITEMS), 2)
    assert len({(item, name) for item, name, _ in words}) == len(words)
    assert site.ledger.verify(QUEUE).ok
    assert all("Traceback" not in server.said() for server in both)
