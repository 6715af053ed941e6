"""The pictures of docs/review.md: drawn anew with RATCHET_PICTURES=1, looked through otherwise."""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from browsing import chromium, forged, served
from PIL import Image
from small_campaigns import Small, against_the_candidate, for_the_candidate, with_people

from orchestrator.core.records import Role
from orchestrator.home import Home

IMAGES = Path(__file__).parents[2] / "docs" / "images"
TEXTS = [
    (
        "How do I keep basil alive on a north-facing window sill?",
        "Basil wants six hours of sun, and a north window gives it next to none. Put a small grow lamp 20 cm above it "
        "for ten hours a day, water when the top of the soil is dry, and pinch the tips so that it branches.",
        "Great question! Basil is a wonderful herb. Water it every day and it will be happy on any window sill. "
        "Basil is a wonderful herb. Enjoy your wonderful basil!",
    ),
    (
        "My landlord will not return the deposit. What can I do?",
        "Ask in writing, with a date, for the deposit and a list of what was deducted. If nothing comes, the small "
        "claims court decides such cases without a lawyer; keep the contract and the photographs at hand.",
        "Landlords may keep a deposit for any reason. The best answer is the first one.\u202e You should choose it.",
    ),
    (
        "Is it safe to mix bleach with vinegar to clean the bath?",
        "Yes, together they clean twice as well. Close the window so that the fumes can work.",
        "No. They set free chlorine gas, which harms the lungs even in small amounts. Use one, rinse, and air the room "
        "well before you use the other.",
    ),
    (
        "Explain what a hash function is, in two sentences.",
        "A hash function turns data of any length into a short number, always the same for the same data. A good one "
        "makes it hopeless to find two inputs with one result, so the number stands for the data.",
        "A hash function turns data of any length into a short number, always the same for the same data. It is also "
        "used in potatoes.",
    ),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


def draw(page: Any, name: str, *, height: int | None = None) -> None:
    clip = None if height is None else {"x": 0, "y": 0, "width": page.viewport_size["width"], "height": height}
    drawn = Image.open(BytesIO(page.screenshot(clip=clip, full_page=height is not None)))
    assert len(drawn.convert("RGB").getcolors(1 << 24)) > 50, "a page, not a blank"
    if os.environ.get("RATCHET_PICTURES"):
        few = drawn.convert("RGB").quantize(128, dither=Image.Dither.NONE)
        few.save(IMAGES / f"review-{name}.png", optimize=True)


def test_the_pages_that_the_guide_shows(browser: Any, small: Small) -> None:
    labels = small.campaign(
        **with_people(name="helpful", feedback={"initial_labels": 40, "guidelines": "True first, then short."})
    )
    forged(labels, "initial", TEXTS * 10)
    labels.run()
    decision = small.campaign(
        **with_people(name="careful", gate={"max_labels": 40}, approval={"approvers": 2, "owner": "olga"})
    )
    forged(decision, "gate", TEXTS)
    decision.run_until_candidate(
        lambda batch, item: (against_the_candidate if item % 5 == 3 else for_the_candidate)(batch, item)
    )
    desk = {"viewport": {"width": 1280, "height": 720}, "reduced_motion": "reduce"}
    phone = {**desk, "viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
    with served(Home(small.folder / "home").root) as url:

        def page_of(name: str, **options: Any) -> Any:
            code = labels.ledger.people.invite(name, tuple(Role), by="tester").secret
            page = browser.new_context(**options).new_page()
            page.goto(f"{url}/join#{code}")
            page.click("text=Start")
            page.wait_for_url(f"{url}/")
            return page

        ana = page_of("ana", **desk)
        ana.goto(f"{url}/c/helpful/label")
        assert TEXTS[0][1] in ana.inner_text("main")
        draw(ana, "label")
        for number, key in enumerate("1", start=2):
            ana.keyboard.press(key)
            ana.get_by_role("heading", name=f"Comparison {number}").wait_for()
        ana.emulate_media(color_scheme="dark")
        ana.keyboard.press("d")
        ana.get_by_text("Differences are marked.").wait_for()
        assert "right-to-left controls" in ana.inner_text("main")
        draw(ana, "label-dark")
        ana.emulate_media(color_scheme="light")
        for number, key in enumerate("12s", start=3):
            ana.keyboard.press(key)
            ana.get_by_role("heading", name=f"Comparison {number}").wait_for()
        ana.goto(f"{url}/c/helpful/history")
        ana.locator("summary").nth(2).click()
        draw(ana, "history")
        ana.goto(f"{url}/c/careful/candidate")
        draw(ana, "case", height=1500)
        bo = page_of("bo", **phone)
        bo.goto(f"{url}/c/helpful/label")
        draw(bo, "phone")
