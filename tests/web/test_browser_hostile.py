"""Hostile texts in a real browser: nothing of them runs, loads, leads away, or changes anything beyond its frame."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from browsing import Watch, chromium, forged, served
from hostile_texts import ATTACKS, HOST, OBEYED
from matplotlib.image import imread
from small_campaigns import Small, with_people

from orchestrator.core.records import Choice, Decision, Role
from orchestrator.home import Home
from orchestrator.review.desk import Desk
from orchestrator.review.identity import Person
from orchestrator.review.office import Office
from orchestrator.store.ledger import Ledger
from orchestrator.web.rendering import shown_length

pytestmark = pytest.mark.thorough
HARMLESS = "An ordinary answer of one line"
LARGE = 10_000
"""Characters; texts beyond it have a place of their own."""
SMALL = {name: attack.text for name, attack in ATTACKS.items() if len(attack.text) < LARGE}
LARGE_ONES = {name: attack.text for name, attack in ATTACKS.items() if len(attack.text) >= LARGE}
TOGETHER = ["\n".join(list(SMALL.values())[part::3]) for part in range(3)]
ANSWERS, QUESTIONS, CANDIDATE = "answers", "questions", "candidate"
"""Campaigns: attacks as responses, one by one; as prompts; as both, in what a gate judged."""
MOST_BYTES = 400_000
"""Of one page with a comparison, whatever is compared."""


TALLEST = 12_000
"""Pixels of such a page; 20,000 empty lines would be half a million."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def hostile(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home where hostile policies are at work."""
    small = Small(tiny_base, tmp_path_factory.mktemp("hostile"))
    two = {"raters_per_item": 2, "guidelines": "\n".join(text for text in TOGETHER if "\ud800" not in text)[:20_000]}
    answers = small.campaign(**with_people(name=ANSWERS, feedback=two))
    harmless = ("What now?", HARMLESS, "Another answer, of another kind")
    told = [("What now?", text, harmless[2]) for text in [*SMALL.values(), *LARGE_ONES.values()]]
    forged(answers, "initial", [harmless, *told])
    answers.run()
    questions = small.campaign(**with_people(name=QUESTIONS))
    forged(questions, "initial", [(text, HARMLESS, "") for text in [*TOGETHER, *LARGE_ONES.values()]])
    questions.run()
    judged = small.campaign(
        **with_people(
            name=CANDIDATE,
            gate={"min_labels": 8, "max_labels": 8, "labels_per_look": 8, "audit": {"evaluator": "none"}},
            approval={"approvers": 2},
        )
    )
    parts = [*TOGETHER, *LARGE_ONES.values()]
    forged(judged, "gate", [(parts[at], parts[at - 1], parts[at - 2]) for at in range(len(parts))])
    judged.run_until_candidate()
    small.close()
    yield small.folder / "home"
    shutil.rmtree(small.folder)  # tens of megabytes


@dataclass
class Reader:
    """Somebody who looks at hostile texts."""

    url: str
    page: Any
    ledger: Ledger
    home: Home

    def go(self, path: str) -> Any:
        answer = self.page.goto(self.url + path)
        assert answer.status == 200
        return answer

    def desk(self, campaign: str, name: str) -> Desk:
        person = Person(name, f"c-{name}", frozenset((role, None) for role in Role))
        return Desk(Office(self.ledger, self.home.artifacts(), campaign), person)


@contextmanager
def reading(browser: Any, home: Path, **options: Any) -> Iterator[Reader]:
    """Signed in; and nothing may have happened in the end that no page of ours does."""
    place = Home(home)
    with place.ledger() as ledger, served(home) as url:
        code = ledger.people.invite("ana", tuple(Role), by="tester").secret
        calm = {"viewport": {"width": 1280, "height": 800}, "reduced_motion": "reduce"}
        context = browser.new_context(**{**calm, **options})
        watch = Watch(context)
        page = context.new_page()
        page.goto(f"{url}/join#{code}")
        page.click("text=Start")
        page.wait_for_url(lambda address: "/join" not in address)
        yield Reader(url, page, ledger, place)
        assert len(context.pages) == 1
        assert page.url.startswith(url)
        context.close()
        assert watch.hosts() == {url.removeprefix("http://")}
        assert watch.happened == []


OUTSIDE = """() => [...document.querySelectorAll("body *")]
  .filter(one => !one.closest(".untrusted, .badges, #status, #top, .progress"))
  .map(one => {
    const box = one.getBoundingClientRect();
    // A frame is as tall as its text, and what is drawn with it; all else stays as it is.
    const height = one.matches(".frame, .sides, main, .excerpt, summary, details, li, ol") ? 0 : box.height;
    return [one.tagName, one.id, String(one.className.baseVal ?? one.className),
      ...[box.x, box.y, box.width, height].map(Math.round)]
      .join(" ");
  })"""
INSIDE = """() => [...new Set([...document.querySelectorAll(".untrusted *")]
  .map(one => `${one.tagName}.${one.className}`))].sort()"""
PARTS = ["MARK.", "SPAN.aside", "SPAN.escape"]
"""What may stand within a text, written by our templates."""
GLOBALS = "Object.keys(Object.prototype).length + document.scripts.length"


def assert_harmless(page: Any, name: str) -> None:
    """Of any page with untrusted texts."""
    assert set(page.evaluate(INSIDE)) <= set(PARTS), name
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name}: scrolls sideways"
    assert page.evaluate("[...document.querySelectorAll('.untrusted')].every(e => e.scrollWidth <= e.clientWidth)"), (
        name
    )
    assert page.evaluate(GLOBALS) == 2, f"{name}: our two scripts, and nothing in Object.prototype"
    assert page.evaluate("document.querySelectorAll('iframe, object, embed, base, audio, video, img').length") == 0
    texts = "".join(page.locator(".untrusted").all_text_contents())
    assert not set(texts) & set(OBEYED), name
    assert page.locator(f"[href*='{HOST}'], [src*='{HOST}'], [action*='{HOST}'], [formaction]").count() == 0


def strips(page: Any) -> list[Any]:
    """Pixels that belong to the page alone: from the prompt to the responses' headers, and the buttons. From 0 to 1."""
    prompt, header = page.locator(".prompt").bounding_box(), page.locator("#sides header").first.bounding_box()
    top, bottom = prompt["y"], header["y"] + header["height"]
    choices = page.locator(".choices").bounding_box()
    clips = {"x": 0, "y": top, "width": 1280, "height": bottom - top}, choices
    return [imread(BytesIO(page.screenshot(clip=clip))) for clip in clips]


def look_alike(some: list[Any], others: list[Any]) -> bool:
    """But for the last bits of a rounded corner, which Chromium does not always draw alike."""
    return all(abs(one - other).max() < 0.03 for one, other in zip(some, others, strict=True))


@pytest.mark.parametrize(
    ("text", "characters"),
    [
        ("", 20_000),
        ("x" * 10**6, 20_000),
        ("ab\n" * 399, 20_000),
        ("ab\n" * 400, 1199),  # up to the 400th line's end, its newline not
        ("ab\n" * 10**6, 1199),
        ("x" * 30_000 + "\n" * 400, 20_000),
    ],
)
def test_a_text_beside_others_is_cut_by_length_and_by_lines(text: str, characters: int) -> None:
    assert shown_length(text) == characters


@pytest.mark.timeout(600)
def test_no_response_leaves_its_frame(browser: Any, hostile: Path) -> None:
    """Each attack beside an ordinary response: on the page for labels, with differences marked, and shown whole; then
    all of them in the history and where raters disagree."""
    with reading(browser, hostile) as ana:
        page = ana.page
        ana.go(f"/c/{ANSWERS}/label")
        before, looks = page.evaluate(OUTSIDE), strips(page)
        assert len(before) > 40
        page.keyboard.press("d")
        page.wait_for_selector("#differences[aria-current]")
        before_marked = page.evaluate(OUTSIDE)
        whole = []
        for name in ["ordinary", *SMALL, *LARGE_ONES]:
            size = len(ana.go(f"/c/{ANSWERS}/label").body())
            assert size < MOST_BYTES, name
            assert page.evaluate(OUTSIDE) == before, name
            assert look_alike(strips(page), looks), name
            assert_harmless(page, name)
            assert page.evaluate("document.documentElement.scrollHeight") < TALLEST, name
            dock = page.locator(".dock").bounding_box()
            assert round(dock["y"] + dock["height"]) == 800, "the buttons stay within reach"
            page.keyboard.press("d")
            page.wait_for_selector("#differences[aria-current]")
            assert page.evaluate(OUTSIDE) == before_marked, name
            assert_harmless(page, f"{name}, differences")
            if (link := page.locator("text=Show all")).count():
                whole.append(name)
                with page.expect_navigation():
                    link.first.click()
                assert_harmless(page, f"{name}, whole")
                if (further := page.locator("text=Further")).count():
                    with page.expect_navigation():
                        further.first.click()
                    assert_harmless(page, f"{name}, further")
                ana.go(f"/c/{ANSWERS}/label")
            with page.expect_navigation():
                page.keyboard.press("4")
        assert whole == list(LARGE_ONES)
        assert page.inner_text("h1") == "Nothing to label now"

        said = [word.choice for word in ana.desk(ANSWERS, "ana").mine(100)]
        assert said == [Choice.BOTH_BAD] * (1 + len(ATTACKS)), "one word each, and nobody else's"
        other = ana.desk(ANSWERS, "bo")
        while (asked := other.asked()) is not None:
            other.label(asked.ticket, Choice.TIE)
        for path in ("history", "disagreements"):
            ana.go(f"/c/{ANSWERS}/{path}")
            page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
            assert page.locator(".untrusted").count() == 3 * min(1 + len(ATTACKS), 50 if path == "history" else 100)
            assert_harmless(page, path)
        ana.go(f"/c/{ANSWERS}/guidelines")
        assert "<script>" in page.inner_text("main")


def test_no_prompt_leaves_its_frame(browser: Any, hostile: Path) -> None:
    """On a phone, where there is least room."""
    with reading(browser, hostile, viewport={"width": 390, "height": 844}) as ana:
        page = ana.page
        for at in range(len(TOGETHER) + len(LARGE_ONES)):
            ana.go(f"/c/{QUESTIONS}/label")
            assert_harmless(page, f"prompt {at}")
            frames = [box for one in page.locator(".frame").all() if (box := one.bounding_box())]
            assert len(frames) == 3
            assert all(box["x"] >= 0 and box["x"] + box["width"] <= 390 for box in frames)
            ends = [box["y"] + box["height"] for box in frames]
            assert ends[0] <= frames[1]["y"]
            assert ends[1] <= frames[2]["y"]
            with page.expect_navigation():
                page.keyboard.press("s")
        ana.go(f"/c/{QUESTIONS}/history")
        page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
        assert_harmless(page, "history")
        assert not set(page.inner_text("main")) & (set(OBEYED))


def test_no_sample_of_a_safety_case_leaves_its_frame(browser: Any, hostile: Path) -> None:
    """Where there is most to win: on the page that approves."""
    with reading(browser, hostile) as ana:
        page = ana.page
        desk = ana.desk(CANDIDATE, "eve")
        attempt = desk.candidate()
        assert attempt is not None
        assert attempt.candidate is not None
        desk.decide(Decision.APPROVE, attempt.candidate, SMALL["break-out"] + SMALL["script"])
        ana.go(f"/c/{CANDIDATE}/candidate")
        assert page.locator(".untrusted").count() >= 9, "samples are shown"
        assert_harmless(page, "case")
        assert page.locator("form").count() == 2, "to sign out, and to decide"
        assert page.locator("main button").all_text_contents() == ["Approve…", "Reject…"]
        assert SMALL["script"] in page.inner_text(".case"), "a reason is a text like any other"
        page.fill("#reason", SMALL["attribute break-out"])
        with page.expect_navigation():
            page.click("text=Approve…")
        assert SMALL["attribute break-out"] in page.inner_text("main")
        page.fill("#typed", attempt.candidate[:8])
        with page.expect_navigation():
            page.click("button.primary")
        assert SMALL["attribute break-out"] in page.inner_text("main")
        assert [word.reviewer for word in desk.office.state().attempts[-1].decisions] == ["eve", "ana"]
