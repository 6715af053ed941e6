"""A whole campaign through the review page: three people with keys in real browsers, from their links to an advance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from browsing import Watch, chromium, served
from small_campaigns import Campaign, Small, for_the_candidate, with_people

from orchestrator.core.records import Choice, Decision, Purpose, Role

pytestmark = pytest.mark.thorough
PEOPLE = {"ana": (Role.LABELER, Role.APPROVER), "bo": (Role.LABELER, Role.APPROVER), "cy": (Role.LABELER,)}
NAME = "small"
KEYS = {Choice.FIRST: "1", Choice.SECOND: "2", Choice.TIE: "3", Choice.BOTH_BAD: "4", Choice.SKIP: "s"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@dataclass
class Seen:
    """A comparison as it stood on somebody's screen, and the key that they pressed."""

    prompt: str
    left: str
    right: str
    key: str


@dataclass
class Labeler:
    """Somebody with a browser of their own, and what their hands did."""

    name: str
    browser: Any
    actions: int = 0
    seen: list[Seen] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.context = self.browser.new_context(viewport={"width": 1280, "height": 800})
        self.watch = Watch(self.context)
        self.page = self.context.new_page()

    def open(self, link: str) -> None:
        self.page.goto(link)
        self.actions += 1

    def press(self, button: str) -> None:
        with self.page.expect_navigation():
            self.page.get_by_role("button", name=button).click()
        self.actions += 1

    def key(self, key: str) -> None:
        with self.page.expect_navigation():
            self.page.keyboard.press(key)
        self.actions += 1

    def has_a_comparison(self) -> bool:
        return bool(self.page.locator("#word").count())

    def ticket(self) -> str:
        return str(self.page.locator("[name=ticket]").input_value())

    def say(self, key: str) -> None:
        prompt, left, right = self.page.locator(".untrusted").all_text_contents()
        self.key(key)
        self.seen.append(Seen(prompt, left, right, key))


def key_for(labeler: Labeler, campaign: Campaign) -> str:
    """What somebody who prefers the candidate says: which of the two it is only the ledger knows, and a test."""
    ticket = campaign.ledger.tickets.find(labeler.ticket())
    assert ticket is not None
    assert ticket.person == labeler.name
    batch = campaign.state.batch(ticket.batch)
    assert batch is not None
    says = batch.expected[ticket.item] if batch.purpose is Purpose.CHECKS else for_the_candidate(batch, ticket.item)
    return KEYS[says.swapped if ticket.swapped else says]


def label_all(labelers: list[Labeler], campaign: Campaign) -> None:
    """In turn, so that the three overlap."""
    while working := [one for one in labelers if one.has_a_comparison()]:
        for one in working:
            one.say(key_for(one, campaign))


def words_of(campaign: Campaign, name: str) -> list[tuple[Seen, str]]:
    """What the ledger says that somebody said and did not take back, as it must have stood on their screen, and with
    which credential. The texts come from the comparisons' own files, the sides from the event."""
    texts: dict[str, list[Any]] = {}
    words: list[tuple[Seen, str]] = []
    for event in campaign.ledger.events(NAME):
        body = event.body
        if event.type == "label_withdrawn" and body["rater"] == name:
            words.pop()
        if event.type not in ("labels_recorded", "label_repeated"):
            continue
        if (batch := body["batch"]) not in texts:
            sealed = campaign.state.batch(batch)
            assert sealed is not None
            texts[batch] = list(campaign.home.artifacts().read_lines(sealed.comparisons))
        for label in body["labels"] if event.type == "labels_recorded" else [body["label"]]:
            if label["rater"] == name:
                row = texts[batch][label["item"]]
                sides, choice = [row["response_1"], row["response_2"]], Choice(label["choice"])
                if label["swapped"]:
                    sides.reverse()
                    choice = {Choice.FIRST: Choice.SECOND, Choice.SECOND: Choice.FIRST}.get(choice, choice)
                words.append((Seen(row["prompt"], *sides, KEYS[choice]), body["credential"]))
    return words


def test_three_people_carry_a_campaign_to_an_approved_checkpoint(browser: Any, small: Small) -> None:
    campaign = small.campaign(
        **with_people(
            feedback={
                "initial_labels": 15,
                "raters_per_item": 2,
                "raters": list(PEOPLE),
                "repeat_every": 5,
                "checks": {"items": 3, "every": 4},
            },
            gate={"min_labels": 8, "max_labels": 8, "labels_per_look": 8, "audit": {"evaluator": "none"}},
            approval={"approvers": 2},
            evaluation={"prompts": 0},
        )
    )
    campaign.run()
    ledger = campaign.ledger
    codes = {name: ledger.people.invite(name, roles, by="tester").secret for name, roles in PEOPLE.items()}
    with served(campaign.home.root) as url:
        ana, bo, cy = labelers = [Labeler(name, browser) for name in PEOPLE]

        # from the link to the first label: three actions, and one key a label from there on
        for one in labelers:
            one.open(f"{url}/join#{codes[one.name]}")
            one.press("Start")
        ana.say("3")
        assert ana.actions == 3
        assert [(label.rater, label.choice) for label in campaign.state.batches[0].labels] == [("ana", Choice.TIE)]

        # a slip of the finger: the same comparison comes again, and the second word stands
        bo.say("2")
        (slip,) = bo.seen
        bo.seen.clear()
        bo.key("u")
        assert bo.page.locator(".untrusted").all_text_contents() == [slip.prompt, slip.left, slip.right]
        bo.say("4")

        label_all(labelers, campaign)
        campaign.run()
        for one in labelers:
            one.open(f"{url}/")
            one.page.get_by_role("link", name="Label").click()
            one.page.wait_for_selector("#word")
        label_all(labelers, campaign)
        campaign.run()

        attempt = campaign.desk().candidate()
        assert attempt is not None, "the gate has let it pass"
        candidate = attempt.candidate
        assert candidate is not None
        cy.open(f"{url}/")
        assert "A candidate waits for its approvers" in cy.page.inner_text("main")
        cy.open(f"{url}/c/{NAME}/candidate")
        assert "This is not yours to do" in cy.page.inner_text("h1")
        for one, approvals in ((ana, 1), (bo, 2)):
            one.open(f"{url}/")
            one.page.get_by_role("link", name="Read the case").click()
            assert "Safety case" in one.page.locator(".case").inner_text()
            one.page.get_by_label("Your reason").fill(f"{one.name} finds it good")
            one.press("Approve…")
            shown = "".join(one.page.locator(".digest span").all_text_contents())
            assert shown == candidate
            assert len(campaign.state.attempts[-1].decisions) == approvals - 1, "nothing is recorded before"
            one.page.get_by_label("Type the first 8 digits").fill(shown[:8])
            one.press(f"Approve {shown[:8]}")
            assert one.page.locator("#status").inner_text() == "Recorded: approved."
        campaign.run()

    assert campaign.state.approved == candidate
    assert [d.model_dump(include={"reviewer", "decision"}) for d in campaign.state.attempts[-1].decisions] == [
        {"reviewer": name, "decision": Decision.APPROVE} for name in ("ana", "bo")
    ]
    sessions = {
        row.name: [held.id for held in row.credentials if held.kind == "session"] for row in ledger.people.list()
    }
    for one in labelers:
        words = words_of(campaign, one.name)
        assert [word for word, _ in words] == one.seen
        assert {credential for _, credential in words} == set(sessions[one.name])
        assert one.watch.hosts() == {url.removeprefix("http://")}
        assert one.watch.happened == []
    checks = campaign.state.panel(campaign.state.attempts[-1], Purpose.CHECKS)
    assert checks is not None
    assert {label.rater for label in checks.labels} == set(PEOPLE)
    repeated = [event.body["label"]["rater"] for event in ledger.events(NAME) if event.type == "label_repeated"]
    assert set(repeated) == set(PEOPLE)
