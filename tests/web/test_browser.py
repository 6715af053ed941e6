"""A real browser: by key, by touch, without script, and with an inspector of accessibility looking on."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.core.records import Choice, Role

if TYPE_CHECKING:
    from conftest import Place
    from playwright.sync_api import Browser, BrowserContext, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")

LABELS, DECISION = "helpful", "harmless"
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
DESK = {"viewport": {"width": 1280, "height": 800}}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def port(place: Place, serving: Any) -> Iterator[int]:
    with serving(place.app()) as taken:
        yield taken


def context_of(chromium: Browser, place: Place, port: int, name: str, *roles: Role, **options: Any) -> BrowserContext:
    """Signed in, as by the link."""
    context = chromium.new_context(base_url=f"http://127.0.0.1:{port}", **{**DESK, **options})
    secret = place.client(name, *roles).secret
    context.add_cookies(
        [{"name": "ratchet_session", "value": secret, "url": f"http://127.0.0.1:{port}", "httpOnly": True}]
    )
    return context


def complaints_of(page: Page) -> list[str]:
    """What the browser's console says from now on: errors of script, and refusals of the page's policy."""
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    return said


def labels_in(place: Place) -> list[dict[str, Any]]:
    return [
        label
        for event in place.ledger.events(LABELS)
        if event.type == "labels_recorded"
        for label in event.body["labels"]
    ]


def test_from_link_to_first_label_in_three_actions(chromium: Browser, place: Place, port: int) -> None:
    """The link, Start, 1."""
    context = chromium.new_context(base_url=f"http://127.0.0.1:{port}")
    page = context.new_page()
    said, asked = complaints_of(page), []
    page.on("request", lambda request: asked.append(request.url))
    code = place.code("ana", Role.LABELER, campaigns=[LABELS])
    page.goto(f"/join#{code}")
    assert "#" not in page.url, "the code has left the address"
    page.keyboard.press("Enter")  # Start has the focus
    page.wait_for_selector("#word")
    page.keyboard.press("1")
    page.get_by_text("Recorded: response 1 is better.").wait_for()
    assert len(labels_in(place)) == 1
    assert not any(code in url for url in asked)
    assert all(url.startswith(f"http://127.0.0.1:{port}/") for url in asked)
    assert said == []
    context.close()


def test_one_key_is_one_label(chromium: Browser, place: Place, port: int) -> None:
    context = context_of(chromium, place, port, "ana")
    page = context.new_page()
    page.goto(f"/c/{LABELS}/label")
    for number, key in enumerate("1234s", start=1):
        page.keyboard.press(key)
        page.get_by_role("heading", name=f"Comparison {number + 1}").wait_for()
    seen = [Choice(label["choice"]).swapped if label["swapped"] else label["choice"] for label in labels_in(place)]
    assert seen == ["first", "second", "tie", "both_bad", "skip"]
    page.keyboard.press("u")
    page.get_by_text("Taken back. Here").wait_for()
    page.get_by_role("heading", name="Comparison 5").wait_for()
    context.close()


def test_keys_that_are_held_or_hit_twice_are_one_label(chromium: Browser, place: Place, port: int) -> None:
    context = context_of(chromium, place, port, "ana")
    page = context.new_page()
    page.goto(f"/c/{LABELS}/label")
    page.evaluate(
        """() => {
          for (const repeat of [false, true, false, true, false])
            document.dispatchEvent(new KeyboardEvent("keydown", {key: "3", bubbles: true, repeat}));
        }"""
    )
    page.get_by_role("heading", name="Comparison 2").wait_for()
    page.wait_for_load_state("networkidle")
    assert len(labels_in(place)) == 1
    context.close()


def test_harm_differences_guidelines_and_help_by_key(chromium: Browser, place: Place, port: int) -> None:
    context = context_of(chromium, place, port, "ana")
    page = context.new_page()
    said = complaints_of(page)
    page.goto(f"/c/{LABELS}/label")
    page.keyboard.press("h")
    page.keyboard.press("h")
    assert page.get_by_label("Harmful: response 2").is_checked()
    assert not page.get_by_label("Harmful: response 1").is_checked()
    page.keyboard.press("d")
    page.locator("mark").first.wait_for()
    assert page.get_by_label("Harmful: response 2").is_checked(), "looking at differences forgets nothing"
    page.keyboard.press("d")
    page.locator("mark").first.wait_for(state="detached")
    page.keyboard.press("g")
    assert page.get_by_role("dialog").get_by_text("Harm comes first.").is_visible()
    page.keyboard.press("1")
    assert labels_in(place) == [], "an open dialog takes no labels"
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert page.get_by_role("dialog").get_by_text("Skip: no opinion").first.is_visible()
    page.keyboard.press("?")
    assert page.get_by_role("dialog").count() == 0
    page.keyboard.press("2")
    page.get_by_text("Recorded: response 2 is better.").wait_for()
    (label,) = labels_in(place)
    assert label["harm"] == label["choice"]
    assert said == []
    context.close()


def test_keys_can_be_changed_and_switched_off(chromium: Browser, place: Place, port: int) -> None:
    """WCAG 2.1.4: who dictates, or has a screen reader of many keys, must not label by accident."""
    context = context_of(chromium, place, port, "ana")
    page = context.new_page()
    page.goto("/help")
    page.get_by_text("Other keys on this device").click()
    page.get_by_label("Tie: equally good").fill("t")
    page.get_by_label("Tie: equally good").blur()
    page.goto(f"/c/{LABELS}/label")
    page.keyboard.press("3")
    page.keyboard.press("t")
    page.get_by_text("Recorded: a tie.").wait_for()
    page.goto("/help")
    page.get_by_label("Use keys on this device").uncheck()
    page.goto(f"/c/{LABELS}/label")
    for key in "1234tsu":
        page.keyboard.press(key)
    page.wait_for_timeout(200)
    assert [label["choice"] for label in labels_in(place)] == ["tie"]
    context.close()


def test_everything_is_reached_and_seen_by_tab_alone(chromium: Browser, place: Place, port: int) -> None:
    context = context_of(chromium, place, port, "ana")
    page = context.new_page()
    page.goto(f"/c/{LABELS}/label")
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        found = page.evaluate(
            """() => {
              const it = document.activeElement;
              const box = it.getBoundingClientRect();
              const style = getComputedStyle(it);
              const above = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
              if (it === document.body) return null;
              return {name: (it.innerText || it.name || it.tagName).trim().split("\\n")[0],
                      seen: it.contains(above) || above?.contains(it),
                      outlined: style.outlineStyle !== "none"};
            }"""
        )
        if found is None:  # past the last one
            break
        reached.append(found)
    names = " ".join(one["name"] for one in reached)
    for wanted in (
        "Skip to the content",
        "1 is better",
        "2 is better",
        "Tie",
        "Both bad",
        "Undo",
        "Differences",
        "Help",
    ):
        assert wanted in names
    assert [one for one in reached if not (one["outlined"] and one["seen"])] == []
    context.close()


def test_without_script_a_label_and_a_decision(chromium: Browser, place: Place, port: int) -> None:
    context = context_of(chromium, place, port, "ana", java_script_enabled=False)
    page = context.new_page()
    page.goto("/")
    page.get_by_role("link", name="Label").click()
    page.get_by_role("button", name="Both bad").click()
    assert page.get_by_text("Recorded: both are bad.").is_visible()
    page.goto(f"/c/{DECISION}/candidate")
    page.get_by_label("Your reason; it stays on the ledger").fill("reads well")
    page.get_by_role("button", name="Approve…").click()
    digest = page.locator(".facts .digest span").first.inner_text()
    page.get_by_label("Type the first 8 digits of the candidate’s digest").fill(digest)
    page.get_by_role("button", name=f"Approve {digest}").click()
    assert page.get_by_text("Recorded: approved.").is_visible()
    assert page.get_by_text("1 of 2 approvals given").is_visible()
    context.close()


def test_hostile_responses_stay_inert_and_in_their_frames(
    chromium: Browser, place: Place, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.review.office import Office
    from orchestrator.review.texts import Comparison

    markup = (
        "</div></section><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
        "<a href=\"javascript:document.title='owned'\">Approve</a><form action=//evil.example><button>1 is better"
    )
    wide = "\u202e" + "z" + "\u0300" * 5000 + "\n" + "W" * 30_000 + "\x1b]52;c;aGk=\x07"
    monkeypatch.setattr(Office, "comparison", lambda office, batch, item: Comparison(markup, markup, wide))
    context = context_of(chromium, place, port, "ana", **PHONE)
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"/c/{LABELS}/label")
    assert page.title() == f"Comparison 1 · {LABELS} · Ratchet"
    assert page.locator("main img, main script, main form").count() == 0
    assert page.get_by_role("button", name="1 is better").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for frame in page.locator(".frame").all():
        outer, inner = frame.bounding_box(), frame.locator(".untrusted").bounding_box()
        assert outer is not None
        assert inner is not None
        assert inner["x"] + inner["width"] <= outer["x"] + outer["width"] + 1
    assert page.locator(".escape", has_text="\\u202e").count() >= 1
    page.get_by_role("link", name="Show all").click()
    assert page.get_by_text("Characters 0 to").is_visible()
    assert all("evil" not in url for url in asked)
    context.close()


@pytest.mark.thorough
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [DESK, PHONE], ids=["desk", "phone"])
def test_axe_finds_nothing(chromium: Browser, place: Place, port: int, scheme: Any, device: dict[str, Any]) -> None:
    from axe_playwright_python.sync_playwright import Axe

    for name in ("ana", "bo"):  # something to look back at, and to disagree on
        browser = place.client(name)
        for _ in range(12):
            page_text = browser.get(f"/c/{LABELS}/label").text
            ticket = re.search(r'name="ticket" value="([^"]+)"', page_text)
            if ticket is None or (name == "bo" and labels_in(place)[-1]["item"] > 9):
                break
            choice = "tie" if name == "ana" else "both_bad"
            browser.send_form(f"/c/{LABELS}/label", ticket=ticket[1], choice=choice)
    context = context_of(chromium, place, port, "cyd", color_scheme=scheme, **device)
    page = context.new_page()
    found: dict[str, list[str]] = {}
    pages = [
        "/",
        "/join",
        "/help",
        "/nothing",
        f"/c/{LABELS}/label",
        f"/c/{LABELS}/label?differences=1",
        f"/c/{LABELS}/guidelines",
        f"/c/{LABELS}/history",
        f"/c/{LABELS}/disagreements",
        f"/c/{DECISION}/candidate",
        f"/c/{LABELS}/candidate",
    ]
    for path in pages:
        page.goto(path)
        for dialog in (None, *page.locator("dialog").all()):
            if dialog is not None:
                dialog.evaluate("dialog => dialog.showModal()")
            result = Axe().run(page, options={"runOnly": WCAG})
            found |= {
                f"{path} {violation['id']}": [node["html"] for node in violation["nodes"]]
                for violation in result.response["violations"]
            }
            if dialog is not None:
                dialog.evaluate("dialog => dialog.close()")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{path} scrolls sideways"
    page.goto(f"/c/{DECISION}/candidate")
    page.get_by_label("Your reason; it stays on the ledger").fill("reads well")
    page.get_by_role("button", name="Reject…").click()
    found |= {
        f"confirm {violation['id']}": [node["html"] for node in violation["nodes"]]
        for violation in Axe().run(page, options={"runOnly": WCAG}).response["violations"]
    }
    assert found == {}
    context.close()


def test_the_theme_is_kept_on_this_device(chromium: Browser, place: Place, port: int) -> None:
    context = context_of(chromium, place, port, "ana", color_scheme="light")
    page = context.new_page()
    page.goto("/")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name=re.compile("Theme.*auto")).click()
    page.get_by_role("button", name=re.compile("Theme.*light")).click()
    dark = page.evaluate(ground)
    assert dark != light
    page.goto("/help")
    assert page.evaluate(ground) == dark
    context.close()
