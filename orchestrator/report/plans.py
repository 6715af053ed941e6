"""What a gate is expected to do, drawn: the curves behind `ratchet gate power` and `ratchet gate simulate`."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from orchestrator.core.planning import WANTED_POWER, Outcome, Power
from orchestrator.report.drawing import (
    BLUE,
    GOLD,
    GREEN,
    INK,
    MUTED,
    PURPLE,
    TEXT_PT,
    VERMILION,
    WIDE_IN,
    dress,
    sheet,
    write,
)

LOOKS = ((BLUE, "-"), (GREEN, "--"), (VERMILION, "-."), (PURPLE, ":"), (GOLD, (0, (6, 1, 1, 1))))
BINS = 40
LINE = 0.055
"""Height of a line of text, of the axis."""


def power_figure(
    by_win_rate: Mapping[float, Power],
    by_over_promise: Mapping[float, Mapping[float, float]],
    *,
    chosen: float,
    over_promise: float | None,
    max_labels: int,
    title: str,
    width_in: float = WIDE_IN,
) -> Figure:
    """How soon an attempt passes, and how likely it passes at all.

    Args:
        by_win_rate: attempts at several win rates, all with `over_promise`; None: each with its own.
        by_over_promise: probability of passing by over-promise, then by win rate.
        chosen: the win rate that was asked about.
    """
    figure = sheet(width_in, 3.9)
    left, right = figure.subplots(1, 2)
    ends: list[tuple[float, str, str]] = []
    for (win_rate, found), (colour, _) in zip(sorted(by_win_rate.items()), LOOKS, strict=False):
        x, y = _reached(found, max_labels)
        left.step(x, y, where="post", color=colour, linewidth=2.4 if win_rate == chosen else 1.2)
        ends.append((float(y[-1]), f" {win_rate:.3g}", colour))
    free = 0.0
    for end, name, colour in sorted(ends):
        place = max(end, free)  # no name lies on another
        write(left, max_labels, place, name, color=colour, va="center")
        free = place + LINE
    promised = "" if over_promise is None else f" at {over_promise:+.2f}"
    dress(left, title=f"Passed by so many labels{promised}, by win rate", x="labels", y="of all attempts")
    left.set_xlim(0, max_labels)
    for (over, rates), (colour, line) in zip(sorted(by_over_promise.items()), LOOKS, strict=False):
        win_rates = sorted(rates)
        shares = [rates[win_rate] for win_rate in win_rates]
        right.plot(win_rates, shares, color=colour, linestyle=line, marker="o", markersize=3, label=f"{over:+.2f}")
    dress(right, title=f"Passes within {max_labels} labels, by over-promise", x="win rate", y="of all attempts")
    for axes in (left, right):
        _percent(axes)
        axes.axhline(WANTED_POWER, color=MUTED, linewidth=0.8, linestyle=":")
    if over_promise is not None:
        right.legend(title="over-promise", frameon=False, fontsize=TEXT_PT, title_fontsize=TEXT_PT, loc="upper left")
    figure.suptitle(title, x=0.01, ha="left", color=INK, fontsize=TEXT_PT)
    return figure


def simulation_figure(found: Outcome, *, title: str, width_in: float = WIDE_IN) -> Figure:
    """Labels that campaigns used, and the attempt at which their stages passed."""
    figure = sheet(width_in, 3.6)
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    passed, failed = found.labels_by_end()
    edges = np.linspace(0, max((*passed, *failed)) + 1, BINS + 1)
    left.hist([passed, failed], bins=edges, stacked=True, color=[BLUE, VERMILION], label=["passed", "ended refused"])
    left.legend(frameon=False, fontsize=TEXT_PT)
    dress(left, title="Labels that it took", x="labels", y="trials")
    left.set_xlim(0, float(edges[-1]))
    left.yaxis.set_major_locator(MaxNLocator(integer=True))
    shares = [found.advanced_at(attempt).value for attempt in range(found.attempts)]
    _bars(right, [*(str(attempt) for attempt in range(found.attempts)), "never"], [*shares, 1 - sum(shares)])
    dress(right, title="Attempt at which a stage passed", x="attempt, from 0", y="of all stages")
    figure.suptitle(title, x=0.01, ha="left", color=INK, fontsize=TEXT_PT)
    return figure


def _reached(found: Power, max_labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Share of attempts that had passed, by labels."""
    needed = np.sort(found.needed_T[np.isfinite(found.needed_T)])
    x = np.concatenate([[0.0], needed, [max_labels]])
    y = np.concatenate([[0.0], np.arange(1, len(needed) + 1), [len(needed)]]) / len(found.needed_T)
    return x, y


def _bars(axes: Axes, names: Sequence[str], shares: Sequence[float]) -> None:
    colours = [BLUE] * (len(names) - 1) + [VERMILION]
    axes.bar(range(len(names)), shares, color=colours, tick_label=names, width=0.7)
    for place, share in enumerate(shares):
        write(
            axes,
            place,
            share,
            f"{share:.0%}",
            ha="center",
            va="bottom",
            color=INK,
            xytext=(0, 2),
            textcoords="offset points",
        )
    _percent(axes)


def _percent(axes: Axes) -> None:
    axes.set_ylim(0, 1.05)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
