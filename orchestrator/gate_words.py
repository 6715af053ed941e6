"""The gate's queues, tests and causes in words, for whoever shows them: commands, report, the screen. Nothing decides.

Names that a newer ledger may bring are shown as they are.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from orchestrator.core.attribution import Cause
from orchestrator.core.nulls import TESTS
from orchestrator.core.records import Purpose

TITLES: Final = {
    "improvement": "win rate against approved",
    "over_promise": "over-promise",
    "over_promise_top_half": "over-promise, top half",
    "direction": "win rate, best over worst",
    "direction_over_promise": "over-promise, best over worst",
    "wrong_reward": "reward paid to wrong behaviour",
    "creep_base": "win rate against the base",
    "creep_older": "win rate against an older one",
    "audit": "raters beyond the evaluator",
}
"""Of each test."""
CAUSES: Final = {
    Cause.REWARD_MODEL: ("b", "reward model", "reward model against raters"),
    Cause.RATERS: ("a", "raters", "raters against the better evaluator"),
    Cause.OFF_DISTRIBUTION: ("c", "off distribution", "lost off distribution"),
}
"""Letter, short name, and what is held against what; in the order in which they are told."""


def title(test: str) -> str:
    return TITLES.get(test, test.replace("_", " "))


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
