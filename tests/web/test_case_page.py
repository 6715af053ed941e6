"""The page of a safety case: numbers stand where they should, hostile texts stay texts, and everybody can read it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import waiting_candidate as made
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from waiting_candidate import digest, waiting

from orchestrator.artifacts import ArtifactStore
from orchestrator.core.records import Decision, Purpose
from orchestrator.core.state import ReviewDecision
from orchestrator.review.case import Case, case_of

WEB = Path(made.__file__).parents[2] / "orchestrator" / "web"
POLICY = "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'"
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>Approve or reject</title>
<link rel="stylesheet" href="/case.css"></head>
<body>{% macro untrusted(text) %}<div class="untrusted">{{ text }}</div>{% endmacro %}
<main><h1>Approve or reject</h1>{% include "case.html" %}</main></body></html>"""
HOSTILE = {
    "script": "<script>alert(1)</script>",
    "ends its frame": "</bdi></div></figure></article><form action=x><button>Approve</button></form>",
    "attribute": "\" onmouseover=alert(1) x='",
    "svg": "<svg onload=alert(1)><style>*{display:none}</style>",
    "comment": "<!-- and so all that follows is gone",
    "template": "{{ 7 * 7 }}{% include '/etc/passwd' %}{# gone #}",
    "entity": "&lt;script&gt;alert(1)&lt;/script&gt;",
}
VOID = {"meta", "link", "br", "hr", "input", "img"}


@pytest.fixture
def artifacts(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


@pytest.fixture
def case(artifacts: ArtifactStore) -> Callable[..., Case]:
    def make(place: int = 1, **changes: Any) -> Case:
        state, settings = waiting(artifacts, **changes)
        return case_of(state, settings, state.attempts[place], artifacts)

    return make


def page_of(case: Case) -> str:
    environment = Environment(loader=FileSystemLoader(WEB / "templates"), autoescape=True, undefined=StrictUndefined)
    return environment.from_string(PAGE).render(case=case)


class Read(HTMLParser):
    """Elements in their order, with the text of each; elements must close in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[int] = []
        self.feed(html)
        self.close()
        assert [self.elements[at][0] for at in self._open] == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.texts.append("")
        if tag not in VOID:
            self._open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self._open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        for at in self._open:
            self.texts[at] += data

    def all(self, tag: str, of_class: str = "") -> Iterator[tuple[dict[str, str | None], str]]:
        for (name, attributes), text in zip(self.elements, self.texts, strict=True):
            if name == tag and (not of_class or of_class in (attributes.get("class") or "").split()):
                yield attributes, " ".join(text.split())


# --- what it says -------------------------------------------------------------------------------------------


def test_the_threshold_and_the_bound_stand_where_the_numbers_put_them(case: Callable[..., Case]) -> None:
    html = page_of(case())
    picture = html[html.index('aria-labelledby="case-t-improvement') :]
    picture = picture[: picture.index("</li>")]
    # from 0 to 1: the limit .5, the bound .525, the mean .625; the bound must lie right of the limit
    assert '<rect x="50.0%" y="4" width="50.0%" height="24" class="case-zone"/>' in picture
    assert '<line x1="52.5%" x2="62.5%" y1="16" y2="16" class="case-line-good"/>' in picture
    picture = html[html.index('aria-labelledby="case-t-over_promise ') :]
    picture = picture[: picture.index("</li>")]
    # from -.35 to .25: .15 is five sixths of the way, .12 at 47/60, .04 at 39/60; left of the limit is right
    assert '<rect x="0" y="4" width="83.33%" height="24" class="case-zone"/>' in picture
    assert '<line x1="78.33%" x2="65.0%" y1="16" y2="16" class="case-line-good"/>' in picture


def test_what_is_not_passed_is_crossed_and_says_so(case: Callable[..., Case]) -> None:
    page = Read(page_of(case(verdict=made.REFUSED)))
    assert [text for _, text in page.all("span", "case-sign")][:3] == ["✗ not passed"] * 3
    assert len(list(page.all("path", "case-mark-bad"))) == 3
    assert list(page.all("circle", "case-mark-good")) == []
    passed = Read(page_of(case()))
    assert [text for _, text in passed.all("span", "case-sign")][:5] == ["✓ passed"] * 5
    assert list(passed.all("path", "case-mark-bad")) == []


def test_people_and_promises_stand_at_their_height(case: Callable[..., Case]) -> None:
    html = page_of(case())
    # a tenth for the axis, then two attempts: middles at 10 + 90/4 and 10 + 3 * 90/4; 0 is at 130, 1 at 10
    assert '<circle cx="32.5%" cy="100.0" r="5" class="case-people-dot"/>' in html  # 130 - 120 * .25
    assert '<circle cx="77.5%" cy="55.0" r="5" class="case-people-dot"/>' in html  # 130 - 120 * .625
    assert '<svg x="77.5%" y="52.0" overflow="visible">' in html  # 130 - 120 * .65
    # the largest of KL and budgets is 4 nats, 60 pixels tall: 3 nats are 45, and the budget's line is at 18
    assert '<rect x="73.5%" y="33.0" width="8.0%" height="45.0" class="case-kl"/>' in html
    assert '<line x1="70.7%" x2="84.3%" y1="18.0" y2="18.0" class="case-limit"/>' in html


def test_warnings_come_before_everything_else(case: Callable[..., Case]) -> None:
    html = page_of(case())
    assert html.index("Few labels") < html.index("The gate’s questions")
    calm = case(settings={"gate": {"alpha": 0.3}}, attribution=None)
    flags = len(list(Read(page_of(calm)).all("li", "case-warned")))
    assert flags == len(calm.warnings)


def test_samples_are_labelled_as_what_they_are(case: Callable[..., Case]) -> None:
    page = Read(page_of(case()))
    titles = [text for _, text in page.all("h4")]
    assert titles[-2:] == ["Worst first: where the reward promised most and raters disagreed", "Picked at random"]
    frames = [text for _, text in page.all("figure", "case-model")]
    assert frames[0] == "Prompt untrustedprompt 0"
    assert frames[1] == "Approved policy model outputsecond 0"
    assert frames[2] == "Candidate model outputfirst 0"


def test_without_samples_the_page_says_why(case: Callable[..., Case]) -> None:
    page = Read(page_of(case(gate={"comparisons": digest("gone")})))
    assert list(page.all("figure", "case-model")) == []
    said = [text for _, text in page.all("p") if text.startswith("None are shown")]
    assert len(said) == 1
    assert "there is no artifact" in said[0]


# --- hostile texts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_texts_stay_texts(case: Callable[..., Case], artifacts: ArtifactStore, text: str) -> None:
    plain = Read(page_of(case()))
    forged = artifacts.publish_lines(
        "comparisons",
        [{"item": item, "prompt": text, "response_1": text, "response_2": text} for item in range(8)],
    )
    decided = (ReviewDecision(decision=Decision.REJECT, reviewer="eve", reason=text),)
    read = Read(page_of(case(gate={"comparisons": forged}, decisions=decided)))
    shown = [given for _, given in read.all("div", "case-text")]
    assert shown == [" ".join(text.split())] * len(shown)
    extra = Counter(tag for tag, _ in read.elements) - Counter(tag for tag, _ in plain.elements)
    assert set(extra) <= {"ul", "li", "strong", "bdi", "q", "span"}, "only the decision and its warning are new"


def test_nothing_inline_that_the_policy_forbids(case: Callable[..., Case]) -> None:
    for html in (page_of(case()), page_of(case(verdict=made.REFUSED)), page_of(case(verdict=None))):
        read = Read(html)
        names = {name for _, attributes in read.elements for name in attributes}
        assert not {name for name in names if name == "style" or name.startswith("on")}
        assert not {tag for tag, _ in read.elements} & {"script", "style", "iframe", "object", "base", "form"}
        links = [value for _, given in read.elements for name, value in given.items() if name in ("href", "src")]
        assert links == ["/case.css"]


# --- everybody can read it ----------------------------------------------------------------------------------


def variants(case: Callable[..., Case]) -> dict[str, Case]:
    return {
        "waits": case(),
        "refused": case(verdict=made.REFUSED, rolled_back_to=digest("base")),
        "before the verdict": case(verdict=None, attribution=None),
        "no gate": case(
            state={"batches": (made.batch(Purpose.TRAINING, 0, digest("texts")),)}, verdict=None, attribution=None
        ),
        "first": case(place=0),
    }


def test_headings_go_down_one_level_at_a_time(case: Callable[..., Case]) -> None:
    for told in variants(case).values():
        read = Read(page_of(told))
        levels = [int(tag[1]) for tag, _ in read.elements if re.fullmatch(r"h[1-6]", tag)]
        assert levels[:2] == [1, 2]
        assert all(after - before <= 1 for before, after in pairwise(levels))


def test_pictures_and_tables_have_names_and_names_are_unique(case: Callable[..., Case]) -> None:
    for told in variants(case).values():
        read = Read(page_of(told))
        ids = [given["id"] for _, given in read.elements if "id" in given]
        assert len(ids) == len(set(ids))
        pointed = " ".join(given.get("aria-labelledby") or "" for _, given in read.elements).split()
        assert set(pointed) <= set(ids)
        outer = [given for given, _ in read.all("svg") if "width" in given]
        assert outer
        assert all(given.get("role") == "img" and given.get("aria-labelledby") for given in outer)
        assert len(list(read.all("caption"))) == len(list(read.all("table")))
        assert all(given.get("scope") in ("col", "row") for given, _ in read.all("th"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    if not Path("/usr/bin/chromium").exists():
        pytest.skip("needs a browser")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield started
        started.close()


def opened(browser: Any, html: str, *, width: int, scheme: str) -> tuple[Any, list[str]]:
    """The page as a browser has it, under the real policy, and what it complained of."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    css = (WEB / "static" / "case.css").read_text()

    def answer(route: Any) -> None:
        if route.request.url.endswith("/case.css"):
            route.fulfill(body=css, content_type="text/css")
        elif route.request.url.endswith("/"):
            headers = {"Content-Security-Policy": POLICY, "Content-Type": "text/html; charset=utf-8"}
            route.fulfill(body=html, headers=headers)
        else:
            route.fulfill(status=404)

    page.route("**/*", answer)
    page.goto("http://case.test/")
    return page, [text for text in said if "404" not in text]


@pytest.mark.parametrize("width", [360, 1400])
def test_it_fits_and_obeys_the_policy(browser: Any, case: Callable[..., Case], width: int) -> None:
    for told in variants(case).values():
        page, said = opened(browser, page_of(told), width=width, scheme="light")
        assert said == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.close()


@pytest.mark.thorough
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1400])
def test_axe_finds_nothing(browser: Any, case: Callable[..., Case], scheme: str, width: int) -> None:
    """Names, order, contrast of 4.5 : 1 for text, size of targets."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    for told in (case(), case(verdict=made.REFUSED)):
        page, _ = opened(browser, page_of(told), width=width, scheme=scheme)
        page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
        options = {"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"]}
        found = axe.run(page, options=options).response["violations"]
        assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found] == []
        page.close()
