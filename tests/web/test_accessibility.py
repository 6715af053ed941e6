"""Everybody can use the review page: by keyboard, without script, on a small screen, zoomed, in light and dark."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from browsing import Watch, chromium

from orchestrator.core.records import Choice, Decision, Role
from orchestrator.review.desk import Desk
from orchestrator.review.identity import Person
from orchestrator.review.office import Office
from orchestrator.web.limits import Limits, Rate

if TYPE_CHECKING:
    from conftest import Place

LABELS, DECISION = "helpful", "harmless"
pytestmark = pytest.mark.thorough
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
PATIENT = Limits(person=Rate(1000, 10_000), stranger=Rate(1000, 10_000), failure=Rate(1000, 10_000))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@dataclass
class Visitor:
    """Somebody who is signed in, in a browser of their own."""

    page: Any
    url: str

    def go(self, path: str) -> Any:
        self.page.goto(self.url + path)
        return self.page

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def focused(self) -> str:
        """The focused element, as its name or text."""
        told = self.page.evaluate(
            "e => (e.getAttribute('aria-label') || e.id || e.innerText).replace(/\\s+/g, ' ').trim()",
            self.page.evaluate_handle("document.activeElement"),
        )
        return str(told)

    def fits(self) -> bool:
        """Whether nothing stands beyond the window's sides."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


@pytest.fixture
def visiting(browser: Any, place: Place, serving: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """Opens a browser for somebody who may do everything, unless it is said what."""
    with serving(place.app(limits=PATIENT)) as port:

        @contextmanager
        def visit(name: str = "ana", *roles: Role, **options: Any) -> Iterator[Visitor]:
            url = f"http://127.0.0.1:{port}"
            calm = {"viewport": {"width": 1280, "height": 800}, "reduced_motion": "reduce"}
            context = browser.new_context(**{**calm, **options})
            watch = Watch(context)
            visitor = Visitor(context.new_page(), url)
            code = place.code(name, *roles)
            visitor.go("/join")
            visitor.page.fill("#code", code)
            visitor.page.click("text=Start")
            visitor.page.wait_for_url(lambda address: "/join" not in address)
            yield visitor
            context.close()
            assert watch.hosts() <= {f"127.0.0.1:{port}"}
            assert watch.happened == []

        yield visit


def desk_of(place: Place, campaign: str, name: str) -> Desk:
    grants = frozenset((role, None) for role in Role)
    return Desk(Office(place.ledger, place.home.artifacts(), campaign), Person(name, f"c-{name}", grants))


def disagree(place: Place) -> None:
    for name, choice in (("dan", Choice.TIE), ("eve", Choice.BOTH_BAD)):
        desk = desk_of(place, LABELS, name)
        asked = desk.asked()
        assert asked is not None
        desk.label(asked.ticket, choice)


def approve(place: Place, *names: str) -> None:
    for name in names:
        desk = desk_of(place, DECISION, name)
        attempt = desk.candidate()
        assert attempt is not None
        assert attempt.candidate is not None
        desk.decide(Decision.APPROVE, attempt.candidate, "reads well")


def sending(page: Any, button: str) -> None:
    with page.expect_navigation():
        page.click(button)


def pressing(page: Any, key: str) -> None:
    with page.expect_navigation():
        page.keyboard.press(key)


def confirm(page: Any) -> None:
    page.fill("#reason", "reads well")
    sending(page, "text=Approve…")


def open_all(page: Any) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")


def wrong_digits(page: Any) -> None:
    confirm(page)
    page.fill("#typed", "00000000")
    sending(page, "button.primary")


def all_labelled(page: Any) -> None:
    while page.locator("#word").count():
        pressing(page, "3")


def wrong_code(page: Any) -> None:
    page.fill("#code", "rti_wrong")
    sending(page, "text=Start")


PAGES: dict[str, tuple[str, Callable[[Any], None] | None]] = {
    "home": ("/", open_all),
    "help": ("/help", None),
    "join": ("/join", None),
    "a wrong code": ("/join", wrong_code),
    "label": (f"/c/{LABELS}/label", None),
    "differences": (f"/c/{LABELS}/label?differences=1", None),
    "flagged": (f"/c/{LABELS}/label", lambda page: page.keyboard.press("h")),
    "help dialog": (f"/c/{LABELS}/label", lambda page: page.keyboard.press("?")),
    "guidelines dialog": (f"/c/{LABELS}/label", lambda page: page.keyboard.press("g")),
    "told": (f"/c/{LABELS}/label", lambda page: pressing(page, "2")),
    "history": (f"/c/{LABELS}/history", open_all),
    "guidelines": (f"/c/{LABELS}/guidelines", None),
    "disagreements": (f"/c/{LABELS}/disagreements", None),
    "no disagreements": (f"/c/{DECISION}/disagreements", None),
    "nothing to label": (f"/c/{LABELS}/label", all_labelled),
    "candidate": (f"/c/{DECISION}/candidate", open_all),
    "confirm": (f"/c/{DECISION}/candidate", confirm),
    "wrong digits": (f"/c/{DECISION}/candidate", wrong_digits),
    "no candidate": (f"/c/{LABELS}/candidate", None),
    "no such campaign": ("/c/nowhere/label", None),
    "no such page": ("/nowhere", None),
}


def violations(page: Any, options: dict[str, Any]) -> list[Any]:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(page, options={"resultTypes": ["violations"], **options}).response["violations"]
    return [(rule["id"], [(node["html"], node["failureSummary"]) for node in rule["nodes"]]) for rule in found]


@pytest.mark.timeout(600)
def test_axe_finds_nothing_on_any_page(visiting: Callable[..., Any], place: Place) -> None:
    """Names, roles, order, contrast of 4.5 : 1 in light and dark, size of targets; and at 320 pixels all of it fits."""
    disagree(place)
    wrong: dict[str, Any] = {}
    with visiting() as ana:
        for name, (path, prepare) in PAGES.items():
            page = ana.go(path)
            if prepare is not None:
                prepare(page)
            wrong[name] = violations(page, {"runOnly": RULES})
            page.emulate_media(color_scheme="dark")
            wrong[f"{name}, dark"] = violations(page, {"runOnly": ["color-contrast"]})
            page.set_viewport_size({"width": 320, "height": 640})
            wrong[f"{name}, small"] = violations(page, {"runOnly": ["target-size", "color-contrast"]})
            wrong[f"{name}, beyond the side"] = [] if ana.fits() else ["scrolls sideways"]
            page.set_viewport_size({"width": 1280, "height": 800})
            page.emulate_media(color_scheme="light")
        approve(place, "dan", "eve")
        page = ana.go(f"/c/{DECISION}/candidate")
        wrong["decided"] = violations(page, {"runOnly": RULES})
        page.evaluate("document.querySelector('h1').style.color = '#ddd'")
        assert [rule for rule, _ in violations(page, {"runOnly": RULES})] == ["color-contrast"], "it looks"
    assert {name: found for name, found in wrong.items() if found} == {}


def test_axe_finds_nothing_on_the_pages_of_strangers(browser: Any, place: Place, serving: Callable[..., Any]) -> None:
    with serving(place.app(limits=PATIENT)) as port:
        url = f"http://127.0.0.1:{port}"
        context = browser.new_context(reduced_motion="reduce")
        # So that whoever comes from another site is not led on at once.
        context.add_init_script("try { sessionStorage.setItem('ratchet.onward', 'yes'); } catch {}")
        page = context.new_page()
        wrong, titles = {}, []
        for kind, start in (
            ("nobody was invited", f"{url}/join"),
            ("not signed in", f"{url}/"),
            ("from another site", f"data:text/html,<a href='{url}/'>go</a>"),
        ):
            page.goto(start)
            if start.startswith("data:"):
                sending(page, "a")
            titles.append(page.inner_text("h1"))
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                wrong[kind, scheme] = violations(page, {"runOnly": RULES})
        context.close()
    assert titles == ["Welcome", "You are not signed in", "You came from another site"]
    assert {where: found for where, found in wrong.items() if found} == {}


STOPS = [
    *("Skip to the content", "Ratchet", "Campaigns", "theme", "Signed in as ana", "0 labels by you"),
    *("harm_left", "harm_right", "1 is better", "2 is better", "Tie", "Both bad", "Skip"),
    *("Undo", "Differences", "Guidelines", "Help"),
]
"""Of the tabulator on the page for labels: from above to below, each control once."""

FOCUSED = """() => {
  const one = document.activeElement, box = one.getBoundingClientRect(), look = getComputedStyle(one);
  const top = document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2);
  const words = one.cloneNode(true);
  words.querySelectorAll("[aria-hidden]").forEach(part => part.remove());
  return {
    name: one.name?.startsWith("harm") ? one.name : one.id === "theme" ? one.id : words.textContent.trim(),
    seen: one.contains(top) || one === top,
    outline: look.outlineStyle === "none" ? 0 : parseFloat(look.outlineWidth),
    place: one.closest("dialog")?.id ?? one.tagName,
  };
}"""


@pytest.mark.parametrize("height", [800, 600])
def test_the_tabulator_goes_from_above_to_below_and_is_seen(visiting: Callable[..., Any], height: int) -> None:
    with visiting(viewport={"width": 1280, "height": height}) as ana:
        page = ana.go(f"/c/{LABELS}/label")
        stops = []
        for _ in STOPS:
            ana.press("Tab")
            stops.append(page.evaluate(FOCUSED))
        assert [stop["name"] for stop in stops] == STOPS
        assert [stop["name"] for stop in stops if not stop["seen"]] == [], "hidden behind something"
        assert [stop["name"] for stop in stops if stop["outline"] < 2] == [], "nobody sees where they are"


def test_the_first_link_skips_to_the_content(visiting: Callable[..., Any]) -> None:
    with visiting() as ana:
        ana.go(f"/c/{LABELS}/label")
        ana.press("Tab", "Enter")
        assert ana.page.evaluate(FOCUSED)["place"] == "MAIN"
        ana.press("Tab")
        assert ana.page.evaluate(FOCUSED)["name"] == "0 labels by you"


@pytest.mark.parametrize(("key", "dialog", "name"), [("?", "help", "Help"), ("g", "guidelines", "Guidelines")])
def test_dialogs_keep_the_focus_and_give_it_back(
    visiting: Callable[..., Any], key: str, dialog: str, name: str
) -> None:
    with visiting() as ana:
        page = ana.go(f"/c/{LABELS}/label")
        ana.press(key)
        places = set()
        for _ in range(30):
            places.add(page.evaluate(FOCUSED)["place"])
            ana.press("Tab")
        # Between the last stop and the first one, the browser's own window has the focus.
        assert dialog in places
        assert places <= {dialog, "BODY"}
        ana.press("1", "s", "u")
        assert page.locator(f"dialog#{dialog}").is_visible(), "keys of the page behind it do nothing"
        ana.press("Escape")
        assert not page.locator(f"dialog#{dialog}").is_visible()
        # The browser tells of the closing a moment later.
        page.wait_for_function("name => document.activeElement.textContent.includes(name)", arg=name, timeout=5000)
        assert page.evaluate(FOCUSED)["name"] == name
        ana.press("Enter")
        assert page.locator(f"dialog#{dialog}").is_visible()
        page.keyboard.press(key)
        assert not page.locator(f"dialog#{dialog}").is_visible(), "its own key closes it"


def test_after_a_key_a_reader_is_told_and_stands_at_the_next_comparison(visiting: Callable[..., Any]) -> None:
    with visiting() as ana:
        page = ana.go(f"/c/{LABELS}/label")
        pressing(page, "1")
        page.wait_for_function("document.querySelector('#status').textContent.startsWith('Recorded')")
        assert page.locator("#status").get_attribute("role") == "status"
        assert page.evaluate("document.activeElement.textContent") == "Comparison 2"
        assert "told=" not in page.url, "reloading does not tell it again"


def test_a_candidate_is_approved_by_keyboard_alone(visiting: Callable[..., Any], place: Place) -> None:
    with visiting() as ana:

        def walk_to(name: str) -> None:
            for _ in range(60):
                ana.press("Tab")
                if ana.focused() == name:
                    return
            raise AssertionError(f"the tabulator does not come to {name}")

        ana.go(f"/c/{DECISION}/candidate")
        walk_to("reason")
        ana.page.keyboard.type("reads well")
        walk_to("Approve…")
        pressing(ana.page, "Enter")
        digits = ana.page.locator(".digest span").first.inner_text()
        walk_to("typed")
        ana.page.keyboard.type(digits)
        walk_to(f"Approve {digits}")
        pressing(ana.page, "Enter")
        assert ana.page.locator("#status").inner_text() == "Recorded: approved."
    decisions = desk_of(place, DECISION, "ana").office.state().attempts[-1].decisions
    assert [(word.reviewer, word.decision) for word in decisions] == [("ana", Decision.APPROVE)]


def test_everything_works_without_script(visiting: Callable[..., Any], place: Place) -> None:
    with visiting(java_script_enabled=False) as ana:
        page = ana.go(f"/c/{LABELS}/label")
        page.get_by_label("Harmful: response 2").check()
        sending(page, "button[value=first]")
        assert "Recorded: response 1 is better." in page.inner_text("#status")
        sending(page, "#undo button")
        assert "Taken back." in page.inner_text("#status")
        assert page.inner_text("h1") == "Comparison 1"
        sending(page, "button[value=tie]")
        sending(page, "#differences")
        assert page.locator("mark").count() > 0
        sending(page, "text=Guidelines")
        assert "Harm comes first." in page.inner_text("main")
        sending(page, "text=Back to labelling")
        sending(page, ".aids >> text=Help")
        assert "Flag harm" in page.inner_text("main")
        ana.go("/")
        page.locator(".me summary").click()
        sending(page, "text=Sign out")
        assert page.inner_text("h1") == "Welcome"
    said = desk_of(place, LABELS, "ana").mine()
    assert [(word.choice, word.harm) for word in said] == [(Choice.TIE, None)]


@pytest.mark.parametrize(("width", "height"), [(640, 400), (320, 640), (320, 256)])
def test_zoomed_and_small_everything_is_within_reach(visiting: Callable[..., Any], width: int, height: int) -> None:
    """1280 x 800 at 200% is 640 x 400; at 400%, 320 x 200."""
    name = "Wolfeschlegelsteinhausenbergerdorff"
    with visiting(name, viewport={"width": width, "height": height}) as long:
        for path in (f"/c/{LABELS}/label", f"/c/{DECISION}/candidate", "/", "/help"):
            page = long.go(path)
            assert long.fits(), path
            assert page.locator(".brand").is_visible()
            if path.startswith("/c/"):
                assert path.split("/")[2] in page.inner_text(".where"), "which campaign it is"
        page = long.go(f"/c/{LABELS}/label")
        for _ in STOPS:
            long.press("Tab")
            stop = page.evaluate(FOCUSED)
            assert stop["seen"], stop
        for text in page.locator(".untrusted").all():
            text.scroll_into_view_if_needed()
            assert text.evaluate("e => e.scrollWidth <= e.clientWidth")
        page.get_by_role("button", name="Tie").click()
