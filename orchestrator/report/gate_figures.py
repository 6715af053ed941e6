"""The gate of one attempt in pictures, and the error budget: views of folded state, like those of `figures`.

Passed is a blue dot, not passed a vermilion cross, and each row says so in words besides.
"""

from collections.abc import Sequence
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory

from orchestrator import gate_words
from orchestrator.core.attribution import Attribution, Estimate
from orchestrator.core.budget import Account, account
from orchestrator.core.nulls import is_win_rate
from orchestrator.core.questions import TestResult
from orchestrator.core.state import Attempt, CampaignState
from orchestrator.report.drawing import (
    BLUE,
    GOLD,
    GRID,
    INK,
    MUTED,
    PAPER,
    VERMILION,
    WIDE_IN,
    dress,
    is_narrow,
    sheet,
    write,
)
from orchestrator.report.figures import TINT, outcome_colour

ROW_IN: Final = 0.29
"""Height of a row; a narrow picture writes its name over it, and needs half as much again."""
FRAME_IN: Final = 0.75
"""Height of a panel's title and axis."""


def attempt_at_the_gate(attempt: Attempt, width_in: float = WIDE_IN) -> Figure:
    """Every test of one verdict as an interval against its limit, and where over-credit comes from."""
    tests = attempt.verdict.tests if attempt.verdict is not None else ()
    parts = _parts(attempt.attribution)
    narrow = is_narrow(width_in)
    row = ROW_IN * (1.6 if narrow else 1.0)
    heights = [count * row + FRAME_IN for count in (len(tests), len(parts)) if count]
    figure = sheet(width_in, sum(heights))
    panels = list(figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights).flat)
    if tests:
        _draw_tests(panels[0], attempt, tests, narrow=narrow)
    if parts:
        _draw_attribution(panels[-1], attempt.attribution, parts, narrow=narrow)
    return figure


def error_budget(state: CampaignState, width_in: float = WIDE_IN) -> Figure:
    """What each attempt took of alpha, from the left; what is left stays empty."""
    told = account(state)
    figure = sheet(width_in, 1.5)
    axes = figure.subplots()
    dress(axes, x="error budget α")
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_yticks([])
    axes.set_xlim(0, told.total)
    axes.set_ylim(-0.5, 1.15)
    inches_per_alpha = (width_in - 0.4) / told.total
    for spent, attempt in zip(told.attempts, state.attempts, strict=True):
        if spent.opened:
            begin = spent.spent_after - spent.alpha
            kept = attempt.advanced
            bar: dict[str, Any] = {"facecolor": outcome_colour(attempt), "edgecolor": PAPER, "linewidth": 1.2}
            axes.barh(0, spent.alpha, left=begin, height=0.8, hatch=None if kept else "////", **bar)
            if spent.alpha * inches_per_alpha > 0.3:
                name = f"{spent.stage}.{spent.attempt}"
                _over_bar(axes, begin + spent.alpha / 2, name, outcome_colour(attempt))
    axes.barh(0, told.left, left=told.spent, height=0.8, facecolor="none", edgecolor=MUTED, linewidth=1.0)
    _name_what_is_left(axes, told, inches_per_alpha)
    return figure


def _over_bar(axes: Axes, x: float, text: str, colour: str) -> None:
    write(axes, x, 0.45, text, color=colour, ha="center", va="bottom", xytext=(0, 2), textcoords="offset points")


def _name_what_is_left(axes: Axes, told: Account, inches_per_alpha: float) -> None:
    room = told.left * inches_per_alpha
    if told.next is not None:
        axes.plot([told.spent + told.next] * 2, [-0.4, 0.4], color=MUTED, linewidth=1.2, linestyle=":")
        if told.next * inches_per_alpha > 0.35:
            _over_bar(axes, told.spent + told.next / 2, "next", MUTED)
    if room > 0.9:
        write(axes, told.spent + told.left / 2, 0, f"{told.left:.4f} left", color=INK, ha="center", va="center")


# --- the tests --------------------------------------------------------------------------------------------


def _draw_tests(axes: Axes, attempt: Attempt, tests: Sequence[TestResult], *, narrow: bool) -> None:
    rows = [(len(tests) - 1 - at, test) for at, test in enumerate(tests)]
    for y, test in rows:
        _draw_test(axes, y, test, tick_pt=12.0 if narrow else 17.0)
        if test.name == "wrong_reward" and attempt.evaluation is not None:
            _draw_golds_share(axes, y, attempt.evaluation.wrong_reward_share)
    edges = [edge for test in tests for edge in (test.bound, test.limit, test.estimate) if edge is not None]
    axes.set_xlim(min(*edges, 0.0) - 0.06, max(*edges, 0.6) + 0.06)
    words = [
        (y, gate_words.title(test.name), _verdict_words(test), BLUE if test.passed else VERMILION) for y, test in rows
    ]
    _name_rows(axes, words, narrow=narrow)
    title = "The tests: mean, bound and limit" if narrow else "The tests: mean and bound on the labels, limit as a tick"
    dress(axes, title=title, x="probability")
    _finish_rows(axes, len(tests), narrow=narrow)


def _draw_test(axes: Axes, y: int, test: TestResult, *, tick_pt: float) -> None:
    colour = BLUE if test.passed else VERMILION
    wanted = axes.get_yaxis_transform()
    above = is_win_rate(test.name)
    axes.plot([test.limit], [y], color=INK, marker="|", markersize=tick_pt, markeredgewidth=1.6, zorder=3)
    axes.plot([test.limit], [y], color=INK, marker=9 if above else 8, markersize=4, zorder=3)
    if test.estimate is None:
        write(axes, 0.5, y, "no evidence", color=MUTED, ha="center", va="center", xycoords=wanted)
        return
    axes.plot([test.estimate, test.bound], [y, y], color=colour, linewidth=2.2, solid_capstyle="butt")
    axes.plot([test.bound], [y], color=colour, marker="|", markersize=9, markeredgewidth=2.2)
    axes.plot([test.estimate], [y], color=colour, marker="o" if test.passed else "X", markersize=7, zorder=4)


def _draw_golds_share(axes: Axes, y: int, share: float | None) -> None:
    """What gold says of the same reward: no part of the test."""
    if share is not None:
        axes.plot([share], [y], color=GOLD, marker="D", markersize=5.5, linestyle="none", zorder=5)


def _verdict_words(test: TestResult) -> str:
    side = ">" if is_win_rate(test.name) else "<"
    return f"{test.bound:.3f}, needed {side} {test.limit:g}: {'passed' if test.passed else 'not passed'}"


# --- the attribution --------------------------------------------------------------------------------------


_Part = tuple[str, Estimate | None, bool]
"""Its name, its figure, and whether it is a cause."""


def _parts(attribution: Attribution | None) -> list[_Part]:
    if attribution is None:
        return []
    parts: list[_Part] = [("over-credit, in all", attribution.over_credit, False)]
    for cause, (letter, _, words) in gate_words.CAUSES.items():
        parts.append((f"({letter}) {words}", getattr(attribution, cause.value), cause in attribution.causes))
    return parts


def _draw_attribution(axes: Axes, attribution: Attribution | None, parts: Sequence[_Part], *, narrow: bool) -> None:
    known = [estimate for _, estimate, _ in parts if estimate is not None]
    words = []
    for at, (name, estimate, cause) in enumerate(parts):
        y = len(parts) - 1 - at
        colour = VERMILION if cause else INK if at == 0 else MUTED
        said = "unknown"
        if estimate is not None:
            bar: dict[str, Any] = {"facecolor": colour, "alpha": 0.55, "height": 0.34 if narrow else 0.56}
            axes.barh(y, estimate.mean, hatch="////" if cause else None, edgecolor=PAPER, linewidth=0, **bar)
            axes.plot([estimate.low, estimate.high], [y, y], color=INK, linewidth=1.3)
            axes.plot([estimate.low, estimate.high], [y, y], color=INK, marker="|", markersize=7, linestyle="none")
            axes.plot([estimate.mean], [y], color=INK, marker="o", markersize=4)
            said = gate_words.interval(estimate.model_dump()) + (", a cause" if cause else "")
        words.append((y, name, said, colour))
    ends = [end for estimate in known for end in (estimate.low, estimate.high)]
    axes.set_xlim(min([*ends, -0.1]) - 0.04, max([*ends, 0.1]) + 0.04)
    axes.axvspan(0, axes.get_xlim()[1], color=VERMILION, alpha=TINT / 2, linewidth=0)
    axes.axvline(0, color=INK, linewidth=1.0)
    _name_rows(axes, words, narrow=narrow)
    title = "Over-credit, by its sources" if narrow else "Over-credit and where it comes from, with 95% intervals"
    dress(axes, title=title, x="probability; right of 0: more credit than due")
    _finish_rows(axes, len(parts), narrow=narrow)


# --- rows with names --------------------------------------------------------------------------------------


def _name_rows(axes: Axes, rows: Sequence[tuple[int, str, str, str]], *, narrow: bool) -> None:
    """Each row's name on the left, and what came of it on the right; over the row where the page is narrow."""
    beside = blended_transform_factory(axes.transAxes, axes.transData)
    axes.set_yticks([] if narrow else [y for y, *_ in rows], [] if narrow else [name for _, name, *_ in rows])
    for y, name, said, colour in rows:
        if narrow:
            how: dict[str, Any] = {"xycoords": beside, "va": "bottom", "textcoords": "offset points"}
            write(axes, 0, y + 0.27, name, color=INK, xytext=(0, 0), **how)
            write(axes, 1, y + 0.27, said.split(": ")[-1], color=colour, ha="right", xytext=(0, 0), **how)
        else:
            how = {"xycoords": beside, "va": "center", "textcoords": "offset points"}
            write(axes, 1, y, said, color=colour, xytext=(8, 0), **how)


def _finish_rows(axes: Axes, count: int, *, narrow: bool) -> None:
    axes.grid(visible=False)
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.spines["left"].set_visible(False)
    axes.set_ylim(-0.5, count - 0.5 + (0.2 if narrow else 0.0))
