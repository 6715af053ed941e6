"""The gate's pictures: every interval, limit, share and block is where the numbers put it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from orchestrator.core.attribution import Attribution, Cause, Estimate
from orchestrator.core.gate import GateVerdict
from orchestrator.core.questions import TestResult
from orchestrator.core.records import Verdict
from orchestrator.core.settings import CampaignSettings
from orchestrator.core.state import Attempt, CampaignState
from orchestrator.report import gate_figures
from orchestrator.report.drawing import BLUE, INK, MUTED, NARROW_IN, VERMILION, WIDE_IN

Campaign = tuple[CampaignState, CampaignSettings]

FIGURES = {
    # name: mean, bound, limit, passed
    "improvement": (0.62, 0.53, 0.5, True),
    "over_promise": (0.02, 0.11, 0.15, True),
    "direction": (0.55, 0.44, 0.5, False),
    "wrong_reward": (0.41, 0.56, 0.5, False),
    "audit": (None, 1.0, 0.1, False),
}
BLAMED = Attribution(
    over_credit=Estimate(mean=0.1, low=0.02, high=0.18, items=90),
    reward_model=Estimate(mean=0.12, low=0.05, high=0.19, items=200),
    raters=Estimate(mean=-0.02, low=-0.09, high=0.05, items=90),
    off_distribution=None,
    without_verdict=0,
    unknown=(),
    causes=(Cause.REWARD_MODEL,),
)


def attempt_with(attribution: Attribution | None = BLAMED) -> Attempt:
    tests = tuple(
        TestResult(
            name=name,
            labels=40,
            cap=60,
            estimate=mean,
            bound=bound,
            limit=limit,
            log_e_value=1.0,
            log_threshold=3.0,
            passed=passed,
        )
        for name, (mean, bound, limit, passed) in FIGURES.items()
    )
    verdict = GateVerdict(verdict=Verdict.ROLLBACK, reasons=("direction: all labels used",), tests=tests)
    return Attempt(stage=0, attempt=0, start="0" * 64, verdict=verdict, attribution=attribution)


def texts(figure: Figure) -> list[str]:
    return [found.get_text() for found in figure.findobj(Text)]


def drawn(axes: Axes, marker: str | None = None) -> list[tuple[str, list[tuple[float, float]]]]:
    """Colour and points of every line with this marker."""
    return [
        (str(line.get_color()), [(float(x), float(y)) for x, y in np.asarray(line.get_xydata())])
        for line in axes.get_lines()
        if marker is None or line.get_marker() == marker
    ]


@pytest.mark.parametrize("width", [WIDE_IN, NARROW_IN])
def test_every_test_is_an_interval_against_its_limit(width: float) -> None:
    tests, _ = gate_figures.attempt_at_the_gate(attempt_with(), width).axes
    for y, (mean, bound, limit, passed) in enumerate(reversed(FIGURES.values())):
        assert (INK, [(limit, y)]) in drawn(tests, "|")
        if mean is None:
            continue
        colour, marker = (BLUE, "o") if passed else (VERMILION, "X")
        assert (colour, [(mean, y), (bound, y)]) in drawn(tests)
        assert (colour, [(mean, y)]) in drawn(tests, marker)  # told by shape too


def test_verdicts_stand_in_words_too() -> None:
    shown = texts(gate_figures.attempt_at_the_gate(attempt_with()))
    assert {"0.530, needed > 0.5: passed", "0.560, needed < 0.5: not passed", "no evidence"} <= set(shown)
    assert {"win rate against approved", "reward paid to wrong behaviour"} <= set(shown)
    narrow = texts(gate_figures.attempt_at_the_gate(attempt_with(), NARROW_IN))
    assert (narrow.count("passed"), narrow.count("not passed")) == (2, 3)


def test_attribution_bars_end_at_their_means() -> None:
    figure = gate_figures.attempt_at_the_gate(attempt_with())
    _, parts = figure.axes
    bars = {
        round(bar.get_y() + bar.get_height() / 2): bar.get_width()
        for bar in parts.patches
        if isinstance(bar, Rectangle) and bar.get_height() < 1 and bar.get_y() != 0
    }
    assert bars == pytest.approx({3: 0.1, 2: 0.12, 1: -0.02})
    assert (INK, [(0.05, 2), (0.19, 2)]) in drawn(parts)
    shown = texts(figure)
    assert "+.12 [+.05, +.19], a cause" in shown
    assert shown.count("unknown") == 1


def test_without_labels_only_the_other_panel_is_drawn() -> None:
    assert len(gate_figures.attempt_at_the_gate(attempt_with(None)).axes) == 1
    vetoed = attempt_with().model_copy(update={"verdict": GateVerdict(verdict=Verdict.ROLLBACK, reasons=())})
    assert len(gate_figures.attempt_at_the_gate(vetoed).axes) == 1


def test_the_budget_is_laid_out_from_the_left(make: Callable[..., Campaign]) -> None:
    """alpha .5; two hand-made gates spent .05 each, the failed phase between them nothing."""
    state, _ = make(
        {"advance": False, "win_rate": 0.3},
        {"advance": False, "failed": "diverged"},
        {"advance": True, "win_rate": 0.75},
    )
    state = state.model_copy(update={"ended_by": None})
    figure = gate_figures.error_budget(state)
    (axes,) = figure.axes
    blocks = [(bar.get_x(), bar.get_width()) for bar in axes.patches if isinstance(bar, Rectangle)]
    assert blocks == [pytest.approx(block) for block in ((0, 0.05), (0.05, 0.05), (0.1, 0.4))]
    hatched = [bar.get_hatch() for bar in axes.patches]
    assert hatched == ["////", None, None]
    assert axes.get_xlim() == (0, 0.5)
    # the next gate: .4 left over 2 stages of 4 attempts
    (following,) = [points for colour, points in drawn(axes) if colour == MUTED]
    assert [x for x, _ in following] == pytest.approx([0.15, 0.15])
    assert {"0.0", "0.2", "0.4000 left", "next"} <= set(texts(figure))
