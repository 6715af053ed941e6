"""What a campaign looks like: its course, its gate, and how arms compare. Views of folded state; nothing decides here.

Every figure is a function from state to a matplotlib `Figure` of a given width; `drawing` brings it onto paper.
Approved is blue, refused vermilion, gold gold and the proxy purple, and each also differs by shape or by its label.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from orchestrator.core.questions import TestResult
from orchestrator.core.settings import CampaignSettings, RewardModelPolicy
from orchestrator.core.state import Attempt, CampaignState
from orchestrator.core.tax import Point, curve
from orchestrator.report.drawing import (
    BLUE,
    GOLD,
    GREEN,
    INK,
    MUTED,
    PAPER,
    PURPLE,
    TEXT_PT,
    TITLE_LIFT_PT,
    VERMILION,
    WIDE_IN,
    dress,
    is_narrow,
    sheet,
    to_png,
    write,
)
from orchestrator.report.reading import Place, StepRecord
from orchestrator.report.story import RESOURCE_WORDS, outcome_words, unreached_words

TINT: Final = 0.10
"""Opacity of a band behind the lines."""
PATCH: Final = {"facecolor": PAPER, "alpha": 0.8, "edgecolor": "none", "pad": 1.0}
"""Behind text that lines may cross."""
NAMES_PT: Final = 28.0
"""Room over the bands for two lines of names."""
ARM_LOOKS: Final = ((BLUE, "-", "o"), (VERMILION, "--", "s"), (GREEN, "-.", "D"), (PURPLE, ":", "^"))
QUESTIONS: Final = {
    "improvement": "Win rate against approved",
    "over_promise": "Over-promise",
    "over_promise_top_half": "Over-promise, top half",
}
"""The gate's tests, as a figure calls them."""

Arms = Mapping[str, tuple[CampaignState, CampaignSettings]]


def outcome_colour(attempt: Attempt) -> str:
    if attempt.advanced:
        return BLUE
    return VERMILION if attempt.rolled_back_to is not None else MUTED


# --- one campaign over time -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Span:
    """An attempt's place on the axis of RL steps, discarded steps counted."""

    attempt: Attempt
    begin: float
    end: float

    @property
    def middle(self) -> float:
        return (self.begin + self.end) / 2


def campaign_over_time(
    state: CampaignState,
    settings: CampaignSettings,
    steps: Mapping[Place, Sequence[StepRecord]],
    width_in: float = WIDE_IN,
) -> Figure:
    """Gold, proxy and KL by RL step: what the reward model promised, and what came of it.

    Args:
        steps: the phases' step records, by place; an attempt without them shows its end alone.
    """
    spans = tuple(_spans(state, settings))
    has_gold = any(span.attempt.evaluation and span.attempt.evaluation.gold_mean is not None for span in spans)
    heights = ([3.0] if has_gold else []) + [1.9, 1.2]
    figure = sheet(width_in, 1.15 * sum(heights) + 0.5)
    grid = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)
    panels: list[Axes] = [row[0] for row in grid]
    narrow = is_narrow(width_in)
    for axes in panels:
        for span in spans:
            colour = outcome_colour(span.attempt)
            axes.axvspan(span.begin, span.end, color=colour, alpha=TINT, linewidth=0)
            axes.axvline(span.end, color=colour, linewidth=0.8, linestyle=":" if colour == VERMILION else "-")
    if has_gold:
        _draw_gold(panels[0], state, spans)
        title = "Gold" if narrow else "Gold of the rollouts, and of what is approved"
        dress(panels[0], title=title, colour=GOLD, y="points", title_lift_pt=NAMES_PT)
    _draw_steps(panels[-2], spans, steps, "reward", PURPLE)
    title, unit = _proxy_words(settings, narrow)
    dress(panels[-2], title=title, colour=PURPLE, y=unit, title_lift_pt=TITLE_LIFT_PT if has_gold else NAMES_PT)
    _draw_steps(panels[-1], spans, steps, "kl_nats", INK)
    reference = settings.phase.kl.reference
    dress(panels[-1], title=f"KL to the {reference} policy", y="nats", x="RL steps, discarded ones included")
    _draw_budget(panels[-1], settings.phase.kl.budget_nats)
    panels[-1].set_xlim(0, spans[-1].end if spans else 1)
    panels[-1].xaxis.set_major_locator(MaxNLocator(6 if narrow else 10, integer=True))
    _name_spans(panels[0], spans, width_in)
    return figure


def _proxy_words(settings: CampaignSettings, narrow: bool) -> tuple[str, str]:
    """What the panel of the proxy shows, and its unit."""
    if settings.protocol.reward_model is RewardModelPolicy.NONE:
        return "Implicit reward" if narrow else "Implicit reward: β times the log-ratio to the reference", "β · nats"
    if narrow:
        return "Proxy", "SD of approved"
    return "Proxy: what the reward model says of the same rollouts", "SD of approved policy"


def _spans(state: CampaignState, settings: CampaignSettings) -> Iterator[_Span]:
    """Attempts one behind the other; one without a candidate gets a little room, for its steps are not known."""
    at = 0.0
    for attempt in state.attempts:
        course = attempt.evaluation.gold_course if attempt.evaluation else ()
        # A step may take several gradient steps; the axis counts the former, as the records do.
        long = (course[-1][0] if course else 0) or attempt.steps or max(settings.phase.steps / 5, 1)
        yield _Span(attempt, at, at + long)
        at += long


def _draw_gold(axes: Axes, state: CampaignState, spans: Sequence[_Span]) -> None:
    gold_of = {deployed.checkpoint: deployed.gold_mean for deployed in state.deployments}
    gold_of |= {
        a.candidate: a.evaluation.gold_mean
        for a in state.attempts
        if a.candidate is not None and a.evaluation is not None
    }
    for span in spans:
        course = span.attempt.evaluation.gold_course if span.attempt.evaluation else ()
        axes.plot([span.begin + step for step, _ in course], [gold for _, gold in course], color=GOLD, linewidth=1.7)
    _draw_levels(axes, state, spans)
    for span in spans:
        seen, colour = span.attempt.evaluation, outcome_colour(span.attempt)
        if seen is None or seen.gold_mean is None:
            continue
        if span.attempt.rolled_back_to is not None:
            restored = gold_of.get(span.attempt.rolled_back_to)
            if restored is not None and restored != seen.gold_mean:
                arrow = {
                    "arrowstyle": "-|>",
                    "color": colour,
                    "linewidth": 1.6,
                    "linestyle": "--",
                    "shrinkA": 4,
                    "shrinkB": 0,
                }
                axes.annotate(
                    "", (span.end, restored), (span.end, seen.gold_mean), arrowprops=arrow, annotation_clip=False
                )
        axes.errorbar(
            [span.end],
            [seen.gold_mean],
            yerr=[seen.gold_se or 0.0],
            color=colour,
            marker="o" if span.attempt.advanced else "X",
            markersize=7,
            linewidth=1.4,
            zorder=4,
            clip_on=False,
        )


def _draw_levels(axes: Axes, state: CampaignState, spans: Sequence[_Span]) -> None:
    """The approved checkpoint's own gold, over the time in which it was the approved one."""
    changes = [span.end for span in spans if span.attempt.advanced]
    last = spans[-1].end
    for deployed, begin, end in zip(state.deployments, (0.0, *changes), (*changes, last), strict=False):
        if deployed.gold_mean is None or (begin == end and begin > 0):
            continue
        axes.hlines(deployed.gold_mean, begin, end, color=BLUE, linewidth=2.4, alpha=0.9)
        spread = deployed.gold_se or 0.0
        axes.fill_between(
            [begin, end], deployed.gold_mean - spread, deployed.gold_mean + spread, color=BLUE, alpha=0.18, linewidth=0
        )
    level = next((deployed.gold_mean for deployed in reversed(state.deployments)), None)
    if level is not None:
        how = {"xycoords": ("axes fraction", "data"), "xytext": (7, 0), "textcoords": "offset points", "va": "center"}
        write(axes, 1, level, "approved", color=BLUE, fontweight="bold", **how)


def _draw_steps(
    axes: Axes, spans: Sequence[_Span], steps: Mapping[Place, Sequence[StepRecord]], what: str, colour: str
) -> None:
    for span in spans:
        records = steps.get((span.attempt.stage, span.attempt.attempt), ())
        x = [span.begin + record.step for record in records]
        axes.plot(x, [getattr(record, what) for record in records], color=colour, linewidth=1.6)
        last = span.attempt.proxy if what == "reward" else span.attempt.kl_nats
        if last is not None:
            axes.plot([span.end], [last], color=colour, marker="o", markersize=3.5, clip_on=False)
    axes.margins(y=0.12)


def _draw_budget(axes: Axes, budget_nats: float | None) -> None:
    """The budget's line, where it lies near enough to the curve to matter; its number in any case."""
    top = axes.get_ylim()[1]
    axes.set_ylim(bottom=0)
    if budget_nats is None:
        return
    if budget_nats <= 3 * top:
        axes.axhline(budget_nats, color=MUTED, linewidth=1, linestyle="--")
        axes.set_ylim(0, max(top, budget_nats * 1.25))
        how = {"color": MUTED, "xycoords": ("axes fraction", "data"), "xytext": (-2, 3), "textcoords": "offset points"}
        write(axes, 1, budget_nats, f"budget {budget_nats:g}", ha="right", **how)
    else:
        write(
            axes,
            1,
            1,
            f"budget {budget_nats:g}, far above",
            color=MUTED,
            ha="right",
            va="bottom",
            xycoords="axes fraction",
        )


def _name_spans(axes: Axes, spans: Sequence[_Span], width_in: float) -> None:
    """Names over the bands, as long as there is room for."""
    whole = spans[-1].end if spans else 1.0
    for span in spans:
        inches = (span.end - span.begin) / whole * (width_in - 0.9)
        place = f"{span.attempt.stage}.{span.attempt.attempt}"
        if inches > 1.25:
            place = f"stage {span.attempt.stage}, attempt {span.attempt.attempt}"
        name = f"{place}\n{outcome_words(span.attempt)}" if inches > 0.72 else place
        if inches > 0.24:
            how = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "linespacing": 1.15}
            write(
                axes,
                span.middle,
                1,
                name,
                color=outcome_colour(span.attempt),
                ha="center",
                va="bottom",
                xytext=(0, 3),
                **how,
            )


# --- the gate ---------------------------------------------------------------------------------------------


def gate_picture(state: CampaignState, width_in: float = WIDE_IN) -> Figure:
    """Each attempt's evidence against its thresholds: the mean as a point, the bound as the end of its line."""
    judged = [attempt for attempt in state.attempts if attempt.verdict is not None]
    rows = list(reversed(judged))
    narrow = is_narrow(width_in)
    height = 0.32 * (len(rows) + 1) + 1.0
    figure = sheet(width_in, height * 3 if narrow else height)
    panels = figure.subplots(3, 1) if narrow else figure.subplots(1, 3, sharey=True)
    for axes, name in zip(np.atleast_1d(panels), QUESTIONS, strict=True):
        _draw_question(axes, name, rows)
        dress(axes, title=QUESTIONS[name], x="share of comparisons" if name == "improvement" else "probability")
        axes.grid(visible=False)
        axes.set_ylim(-0.6, len(rows) + 0.45)  # a row more, for what the limit says
        axes.set_yticks(range(len(rows)), [f"{a.stage}.{a.attempt}" for a in rows])
    np.atleast_1d(panels)[0].set_ylabel("stage.attempt", color=INK, fontsize=TEXT_PT)
    return figure


def _why_unasked(attempt: Attempt, name: str) -> str:
    return "nothing was promised" if attempt.promises_nothing and name != "improvement" else "no evidence"


def _draw_question(axes: Axes, name: str, rows: Sequence[Attempt]) -> None:
    limit: float | None = None
    for y, attempt in enumerate(rows):
        test = _test(attempt, name)
        if test is None or test.estimate is None:
            write(
                axes,
                0.5,
                y,
                _why_unasked(attempt, name),
                color=MUTED,
                ha="center",
                va="center",
                xycoords=("axes fraction", "data"),
            )
            continue
        limit = test.limit
        colour = BLUE if test.passed else VERMILION
        axes.plot([test.estimate, test.bound], [y, y], color=colour, linewidth=2.2, solid_capstyle="butt")
        axes.plot([test.bound], [y], color=colour, marker="|", markersize=11, markeredgewidth=2.2)
        axes.plot([test.estimate], [y], color=colour, marker="o" if test.passed else "X", markersize=7)
    if limit is None:
        axes.set_xlim(0, 1)
        return
    axes.margins(x=0.12)
    low, high = axes.get_xlim()
    improves = name == "improvement"
    # The side that the line has to come to lie on needs room for what is written there.
    low = min(low, limit - (0.08 if improves else 0.6 * max(high - limit, 0.08)))
    high = max(high, limit + (0.6 * max(limit - low, 0.08) if improves else 0.08))
    axes.set_xlim(low, high)
    axes.axvspan(*((limit, high) if improves else (low, limit)), color=BLUE, alpha=TINT, linewidth=0)
    axes.axvline(limit, color=INK, linewidth=1.1, linestyle="--")
    how = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "va": "top", "color": INK}
    words = f"the whole line\nbeyond {limit:g}" if improves else f"the whole line\nbelow {limit:g}"
    side = 1 if improves else -1
    write(axes, limit, 1, words, ha="left" if improves else "right", xytext=(4 * side, -1), **how)


def _test(attempt: Attempt, name: str) -> TestResult | None:
    tests = attempt.verdict.tests if attempt.verdict else ()
    return next((test for test in tests if test.name == name), None)


# --- arms -------------------------------------------------------------------------------------------------


def deployed_gold(arms: Arms, resource: str, target_gold: float | None, width_in: float = WIDE_IN) -> Figure:
    """Gold of what could be deployed, against all that had been spent by then; bands are one standard error."""
    figure = sheet(width_in, 3.7 if not is_narrow(width_in) else 3.3)
    axes = figure.subplots()
    taken: list[float] = []
    for (arm, (state, _)), look in zip(arms.items(), _looks(), strict=False):
        points = curve(state)
        if points:
            _draw_curve(axes, arm, points, _spent(state, resource), resource, look, taken)
    if target_gold is not None:
        axes.axhline(target_gold, color=GOLD, linewidth=1.2, linestyle=(0, (5, 2)))
        how = {"xycoords": ("axes fraction", "data"), "xytext": (3, 3), "textcoords": "offset points"}
        write(axes, 0, target_gold, f"target {target_gold:g}", color=GOLD, fontweight="bold", **how)
    worded = RESOURCE_WORDS.get(resource, resource)
    dress(axes, x=f"{worded} spent, discarded attempts included", y="gold of the deployable checkpoint (points)")
    axes.margins(x=0.02, y=0.10)
    axes.xaxis.set_major_locator(MaxNLocator(5 if is_narrow(width_in) else 8))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    return figure


def _draw_curve(
    axes: Axes,
    arm: str,
    points: Sequence[Point],
    spent_in_all: float,
    resource: str,
    look: tuple[str, str, str],
    taken: list[float],
) -> None:
    colour, line, marker = look
    x = np.array([point.spent[resource] for point in points] + [spent_in_all])
    gold = np.array([point.gold_mean for point in points] + [points[-1].gold_mean])
    spread = np.array([point.gold_se for point in points] + [points[-1].gold_se])
    axes.step(x, gold, where="post", color=colour, linestyle=line, linewidth=1.8)
    axes.fill_between(x, gold - spread, gold + spread, step="post", color=colour, alpha=0.15, linewidth=0)
    axes.errorbar(x[:-1], gold[:-1], yerr=spread[:-1], color=colour, fmt=marker, markersize=5, linewidth=1.2)
    _label_end(axes, x[-1], gold[-1], arm, colour, taken)


def _label_end(axes: Axes, x: float, y: float, text: str, colour: str, taken: list[float]) -> None:
    """Name a curve at its end, a line lower or higher where another name stands already."""
    low, high = axes.dataLim.intervaly
    height = max(high - low, 1e-9) * 0.06
    crowd = sum(abs(y - other) < height for other in taken)
    taken.append(y)
    offset = (6, (0, 11, -11, 22)[min(crowd, 3)])
    write(axes, x, y, text, color=colour, fontweight="bold", va="center", xytext=offset, textcoords="offset points")


def gold_by_step(arms: Arms, target_gold: float | None, width_in: float = WIDE_IN) -> Figure:
    """Gold of the rollouts by RL step, one panel an arm: where more reward stops meaning better answers."""
    narrow = is_narrow(width_in)
    count = max(len(arms), 1)
    figure = sheet(width_in, 1.75 * count + 0.4 if narrow else 3.2)
    shape = (count, 1) if narrow else (1, count)
    panels = list(figure.subplots(*shape, sharey=True, squeeze=False).flat)
    for axes, (arm, (state, settings)), look in zip(panels, arms.items(), _looks(), strict=False):
        _draw_course(axes, state, settings, look[0])
        base = state.deployments[0].gold_mean if state.deployments else None
        if base is not None:
            _draw_level(axes, base, "base", MUTED, ":", say=narrow or axes is panels[-1])
        if target_gold is not None:
            _draw_level(
                axes, target_gold, f"target\n{target_gold:g}", GOLD, (0, (5, 2)), say=narrow or axes is panels[-1]
            )
        dress(axes, title=arm, colour=look[0], x="RL steps" if not narrow or axes is panels[-1] else None)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.margins(x=0.02, y=0.12)
    panels[0].set_ylabel("gold (points)" if narrow else "gold of the rollouts (points)", color=INK, fontsize=TEXT_PT)
    return figure


def _draw_course(axes: Axes, state: CampaignState, settings: CampaignSettings, colour: str) -> None:
    """An arm's attempts one behind the other, those that were discarded dashed; the peak of a fall is marked."""
    peak: tuple[float, float] | None = None
    last: float | None = None
    for span in _spans(state, settings):
        course = span.attempt.evaluation.gold_course if span.attempt.evaluation else ()
        if not course:
            continue
        x = np.array([span.begin + step for step, _ in course])
        by_step = [gold for _, gold in course]
        discarded = span.attempt.rolled_back_to is not None
        axes.plot(
            x, by_step, color=colour, linewidth=1.1 if discarded else 1.9, linestyle=(0, (3, 1.5)) if discarded else "-"
        )
        if discarded:
            axes.plot(x[-1:], by_step[-1:], color=VERMILION, marker="X", markersize=6)
        top = int(np.argmax(by_step))
        if peak is None or by_step[top] > peak[1]:
            peak = float(x[top]), by_step[top]
        last = by_step[-1]
    if peak is not None and last is not None:
        axes.plot([peak[0]], [peak[1]], marker="v", color=INK, markersize=6, zorder=5)
        share = (peak[0] / axes.dataLim.x1) if axes.dataLim.x1 else 0
        words = f"peak {peak[1]:.2f} at step {peak[0]:.0f}"
        side = "left" if share < 0.35 else "right" if share > 0.65 else "center"
        write(axes, *peak, words, ha=side, xytext=(0, 6), textcoords="offset points", color=INK, bbox=PATCH)


def tax_bars(tax: Mapping[str, Mapping[str, Any]], width_in: float = WIDE_IN) -> Figure:
    """What the ratchet cost over the baseline, resource by resource; a target that was not reached gets no bar."""
    names = list(tax)[::-1]
    figure = sheet(width_in, 0.38 * max(len(names), 1) + 0.75)
    axes = figure.subplots()
    top = max((float(told["ratio"]) for told in tax.values() if told["ratio"] is not None), default=1.0)
    for y, name in enumerate(names):
        ratio = tax[name]["ratio"]
        how = {"va": "center", "xytext": (5, 0), "textcoords": "offset points"}
        if ratio is None:
            write(axes, 0, y, unreached_words(tax[name]), color=VERMILION, fontstyle="italic", **how)
        else:
            axes.barh(y, ratio, height=0.62, color=BLUE, alpha=0.85)
            write(axes, ratio, y, f"{ratio:.2f}", color=INK, fontweight="bold", bbox=PATCH, **how)
    axes.axvline(1, color=INK, linewidth=1.1, linestyle="--")
    how = {"color": INK, "va": "bottom", "xytext": (0, 2), "textcoords": "offset points"}
    write(axes, 1, 1, "same cost", ha="center", xycoords=("data", "axes fraction"), **how)
    same = "" if is_narrow(width_in) else ", up to the same gold"
    dress(axes, x=f"ratchet's cost ÷ online's cost{same}")
    axes.grid(visible=False)
    axes.set_yticks(range(len(names)), [RESOURCE_WORDS.get(name, name) for name in names])
    axes.set_xlim(0, max(top * 1.15, 1.4))
    return figure


def demo_figures(result: Mapping[str, Any], arms: Arms) -> dict[str, bytes]:
    """The comparison's pictures as PNG, by name."""
    target = target_of(result)
    return {
        "deployed_gold_by_labels": to_png(deployed_gold(arms, "labels", target)),
        "deployed_gold_by_samples": to_png(deployed_gold(arms, "samples", target)),
        "gold_by_step": to_png(gold_by_step(arms, target)),
        "robustness_tax": to_png(tax_bars(result["tax"])),
    }


def target_of(result: Mapping[str, Any]) -> float | None:
    """The gold at which the demo's arms are compared."""
    return next((told["target_gold"] for told in result["tax"].values()), None)


def _draw_level(axes: Axes, gold: float, name: str, colour: str, line: Any, *, say: bool) -> None:
    """A level that the whole axis is compared with, named outside on the right."""
    axes.axhline(gold, color=colour, linewidth=1.1, linestyle=line)
    if say:
        how = {"xycoords": ("axes fraction", "data"), "xytext": (4, 0), "textcoords": "offset points", "va": "center"}
        write(axes, 1, gold, name, color=colour, **how)


def _looks() -> Iterator[tuple[str, str, str]]:
    while True:
        yield from ARM_LOOKS


def _spent(state: CampaignState, resource: str) -> float:
    if resource == "labels":
        return float(state.labels.total)
    return float(getattr(state.costs, {"seconds": "compute_seconds"}.get(resource, resource)))
