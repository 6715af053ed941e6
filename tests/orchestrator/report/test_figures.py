"""What is drawn is what the state says: the numbers are read back from the drawing."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation, Text

from orchestrator.core.settings import CampaignSettings
from orchestrator.core.state import CampaignState
from orchestrator.report import figures
from orchestrator.report.drawing import BLUE, GOLD, NARROW_IN, VERMILION, to_svg
from orchestrator.report.reading import StepRecord

Campaign = tuple[CampaignState, CampaignSettings]


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, set[str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name for name, _ in attrs}))


def texts(figure: Figure) -> list[str]:
    return [found.get_text() for found in figure.findobj(Text)]


def lines(axes: Axes, colour: str) -> list[list[tuple[float, float]]]:
    return [
        [(float(x), float(y)) for x, y in np.asarray(line.get_xydata())]
        for line in axes.get_lines()
        if line.get_color() == colour
    ]


def test_attempts_follow_each_other_and_jump_back(make: Callable[..., Campaign]) -> None:
    state, settings = make(
        {"advance": False, "win_rate": 0.3, "gold": (3.0, 2.0, 1.0)},
        {"advance": True, "win_rate": 0.75, "gold": (3.0, 4.0)},
    )
    records = {(0, 0): (StepRecord(0, 0.0, 0.0), StepRecord(1, 0.5, 1.0), StepRecord(2, 1.5, 2.0))}
    figure = figures.campaign_over_time(state, settings, records)
    gold, proxy, kl = figure.axes
    assert lines(gold, GOLD) == [[(0, 3.0), (1, 2.0), (2, 1.0)], [(2, 3.0), (3, 4.0)]]
    jumps = [(at.xyann, at.xy) for at in gold.texts if isinstance(at, Annotation) and at.arrow_patch is not None]
    assert jumps == [((2, 1.0), (2, 3.0))]
    assert [(0.0, 0.0), (1.0, 0.5), (2.0, 1.5)] in lines(proxy, "#8f3f97")
    assert [(0.0, 0.0), (1.0, 1.0), (2.0, 2.0)] in lines(kl, "#1c2128")
    assert "stage 0, attempt 0\nrolled back" in texts(figure)
    assert "stage 0, attempt 1\napproved" in texts(figure)


def test_without_gold_two_panels_are_left(make: Callable[..., Campaign]) -> None:
    state, settings = make({"advance": True, "win_rate": 0.75, "with_gold": False})
    assert len(figures.campaign_over_time(state, settings, {}).axes) == 2


def test_the_gate_shows_means_bounds_and_limits(make: Callable[..., Campaign]) -> None:
    state, _ = make({"advance": False, "win_rate": 0.3}, {"advance": True, "win_rate": 0.75})
    figure = figures.gate_picture(state)
    for axes, at in zip(figure.axes, range(3), strict=True):
        for attempt, y in zip(state.attempts, (1, 0), strict=True):
            assert attempt.verdict is not None
            test = attempt.verdict.tests[at]
            assert test.estimate is not None
            drawn = lines(axes, BLUE if test.passed else VERMILION)
            assert [(test.estimate, y), (test.bound, y)] in drawn
        assert any(np.allclose(line.get_xdata(), test.limit) for line in axes.get_lines())


def test_an_attempt_without_evidence_has_no_interval(make: Callable[..., Campaign]) -> None:
    state, _ = make({"advance": False, "failed": "diverged"})
    assert texts(figures.gate_picture(state, NARROW_IN)).count("no evidence") == 3


def test_deployed_gold_is_a_step_curve_over_what_was_spent(demo: tuple[dict[str, Any], dict[str, Campaign]]) -> None:
    _, arms = demo
    figure = figures.deployed_gold(arms, "labels", 4.5)
    (axes,) = figure.axes
    state, _ = arms["ratchet"]
    curve = [(float(deployed.labels.total), deployed.gold_mean) for deployed in state.deployments]
    assert [*curve, (state.labels.total, curve[-1][1])] in lines(axes, BLUE)
    assert {"ratchet", "online", "offline", "target 4.5"} <= set(texts(figure))


def test_the_peak_is_marked(demo: tuple[dict[str, Any], dict[str, Campaign]]) -> None:
    result, arms = demo
    by_step = result["arms"]["offline"]["gold_by_step"][:41]  # the first attempt holds the peak
    figure = figures.gold_by_step(arms, 4.5)
    assert f"peak {max(by_step):.2f} at step {by_step.index(max(by_step))}" in texts(figure)
    assert len(figure.axes) == 3


def test_bars_are_ratios_and_unreached_has_none() -> None:
    tax: dict[str, dict[str, Any]] = {
        "labels": {"ratio": 1.3, "reached_by": {"ratchet": True, "online": True}},
        "samples": {"ratio": None, "reached_by": {"ratchet": False, "online": True, "offline": False}},
        "tokens": {"ratio": None, "reached_by": {"ratchet": False, "online": False}},
        "seconds": {"ratio": None, "reached_by": {"ratchet": True, "online": True}},
    }
    figure = figures.tax_bars(tax)
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches if isinstance(bar, Rectangle)] == [1.3]
    shown = texts(figure)
    assert "1.30" in shown
    assert "unreached by ratchet" in shown
    assert "unreached by ratchet and online" in shown
    assert "no ratio: the base was there at no cost" in shown


def test_pictures_for_trackers_are_png(demo: tuple[dict[str, Any], dict[str, Campaign]]) -> None:
    pictures = figures.demo_figures(*demo)
    assert set(pictures) == {"deployed_gold_by_labels", "deployed_gold_by_samples", "gold_by_step", "robustness_tax"}
    assert all(png.startswith(b"\x89PNG\r\n") for png in pictures.values())


@pytest.mark.parametrize("name", ["$x^2$", "<script>", "\\", '" onload="x'])
def test_names_are_never_formulas_nor_markup(demo: tuple[dict[str, Any], dict[str, Campaign]], name: str) -> None:
    _, arms = demo
    figure = figures.deployed_gold({name: arms["ratchet"]}, "labels", None)
    drawn = to_svg(figure, name="x", alt=name)
    parser = Tags()
    parser.feed(drawn)
    assert parser.found[0] == ("svg", {"viewbox", "role", "aria-label", "stroke-linejoin"})
    assert not [tag for tag, attributes in parser.found if tag == "script" or "onload" in attributes]
    assert name in texts(figure)
