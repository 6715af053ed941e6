"""The gate's queues, tests and causes in words, for whoever shows them: commands, report, the screen. Nothing decides.

Names that a newer ledger may bring are shown as they are.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from orchestrator.core.attribution import Cause
from orchestrator.core.records import Purpose


@dataclass(frozen=True, slots=True)
class Asked:
    """What a test asks."""

    queue: Purpose
    title: str
    is_win_rate: bool
    """A win rate's lower bound must come to lie above the limit; every other figure's upper bound below."""


TESTS: Final = {
    "improvement": Asked(Purpose.GATE, "win rate against approved", is_win_rate=True),
    "over_promise": Asked(Purpose.GATE, "over-promise", is_win_rate=False),
    "over_promise_top_half": Asked(Purpose.GATE, "over-promise, top half", is_win_rate=False),
    "direction": Asked(Purpose.DIRECTION, "win rate, best over worst", is_win_rate=True),
    "direction_over_promise": Asked(Purpose.DIRECTION, "over-promise, best over worst", is_win_rate=False),
    "wrong_reward": Asked(Purpose.PATH, "reward paid to wrong behaviour", is_win_rate=False),
    "creep_base": Asked(Purpose.CREEP_BASE, "win rate against the base", is_win_rate=True),
    "creep_older": Asked(Purpose.CREEP_OLDER, "win rate against an older one", is_win_rate=True),
    "audit": Asked(Purpose.AUDIT, "raters beyond the evaluator", is_win_rate=False),
}
CAUSES: Final = {
    Cause.REWARD_MODEL: ("b", "reward model", "reward model against raters"),
    Cause.RATERS: ("a", "raters", "raters against the better evaluator"),
    Cause.OFF_DISTRIBUTION: ("c", "off distribution", "lost off distribution"),
}
"""Letter, short name, and what is held against what; in the order in which they are told."""


def title(test: str) -> str:
    return TESTS[test].title if test in TESTS else test.replace("_", " ")


def is_win_rate(test: str) -> bool:
    return test in TESTS and TESTS[test].is_win_rate


def queue(test: str) -> str | None:
    """The queue on which a test was asked; None for a test that this version does not know."""
    return TESTS[test].queue.value if test in TESTS else None


def queue_words(purpose: Purpose | str) -> str:
    return str(purpose).replace("_", " ")


def attribution_told(attribution: Mapping[str, Any]) -> Iterator[str]:
    """The whole in one line and its parts in another, from the JSON view."""
    whole = attribution["over_credit"]
    causes = [f"{CAUSES[cause][1]} ({CAUSES[cause][0]})" for cause in map(Cause, attribution["causes"])]
    yield f"over-credit {interval(whole)}: {', '.join(causes) or 'no cause stands out'}"
    yield "; ".join(
        f"({letter}) {words} {interval(attribution[cause.value])}" for cause, (letter, _, words) in CAUSES.items()
    )


def interval(estimate: Mapping[str, Any] | None) -> str:
    if estimate is None:
        return "unknown"
    return f"{_share(estimate['mean'])} [{_share(estimate['low'])}, {_share(estimate['high'])}]"


def _share(value: float) -> str:
    """A difference of probabilities with its sign and without the zero: `+.14`."""
    shown = f"{round(value, 2) + 0.0:+.2f}"
    return shown.replace("0.", ".", 1) if abs(value) < 0.995 else shown
