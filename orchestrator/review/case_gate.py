"""Of a safety case: what the gate asked, what it did not ask and why, and what it spent of the error budget."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from orchestrator import gate_words
from orchestrator.core.budget import account
from orchestrator.core.nulls import asked_of, is_win_rate
from orchestrator.core.panels import QUESTIONED
from orchestrator.core.questions import TestResult
from orchestrator.core.records import Purpose, Verdict
from orchestrator.core.state import Attempt, CampaignState
from orchestrator.report import story
from orchestrator.text import visible

LONGEST_WORDS: Final = 1500
"""Shown of a reason or a veto, in characters."""


@dataclass(frozen=True, slots=True)
class Question:
    """One test of the gate that was asked."""

    name: str
    title: str
    words: str
    """The whole result in a sentence."""
    estimate: float | None
    bound: float
    """One-sided, at the attempt's alpha."""
    limit: float
    above: bool
    """Whether the bound must come to lie above the limit, or below."""
    passed: bool
    labels: int
    scale_low: float
    """Ends of the axis on which it is drawn."""
    scale_high: float

    @property
    def needed(self) -> str:
        return f"{'>' if self.above else '<'} {self.limit:.2f}"

    @property
    def figures(self) -> str:
        estimate = "no evidence" if self.estimate is None else f"{self.estimate:.3f}"
        return f"{estimate}, bound {self.bound:.3f}, needed {self.needed}"


@dataclass(frozen=True, slots=True)
class Unasked:
    title: str
    why: str
    weakens: bool
    """False where there was nothing to ask."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The campaign's error budget, as probabilities of a wrong approval."""

    total: float
    spent: float
    """By this attempt and all before it."""
    here: float | None
    """By this attempt; None where no gate was opened."""

    @property
    def words(self) -> str:
        here = "nothing" if self.here is None else f"{self.here:.4f}"
        return f"α = {self.total:.4f} for the campaign, {self.spent:.4f} spent so far; {here} by this attempt"


def verdict_words(attempt: Attempt) -> str:
    verdict = attempt.verdict
    if attempt.failed_phase:
        return "The phase failed, so there is no candidate."
    if verdict is None:
        return "The gate has come to no verdict yet."
    if not verdict.tests and verdict.verdict is Verdict.ADVANCE:
        return "No gate questioned this candidate."
    if verdict.verdict is not Verdict.ADVANCE:
        return "The gate refused this candidate."
    tests, labels = story.counted(len(verdict.tests), "test"), story.counted(verdict.labels, "comparison")
    return f"The gate passed this candidate: {tests} on {labels}."


def questions_of(attempt: Attempt) -> tuple[Question, ...]:
    tests = attempt.verdict.tests if attempt.verdict is not None else ()
    differences = [test for test in tests if not _is_share(test)]
    edges = [edge for test in differences for edge in (test.bound, test.limit, test.estimate) if edge is not None]
    lowest, highest = min([-0.2, *edges]) - 0.05, max([0.2, *edges]) + 0.05
    return tuple(
        Question(
            name=test.name,
            title=gate_words.title(test.name),
            words=story.test_words(test) if test.estimate is not None else "No label spoke for or against it.",
            estimate=None if test.estimate is None else _signless_zero(test.estimate),
            bound=_signless_zero(test.bound),
            limit=test.limit,
            above=is_win_rate(test.name),
            passed=test.passed,
            labels=test.labels,
            scale_low=0.0 if _is_share(test) else max(lowest, -1.0),
            scale_high=1.0 if _is_share(test) else min(highest, 1.0),
        )
        for test in tests
    )


def unasked_of(state: CampaignState, attempt: Attempt) -> Iterator[Unasked]:
    if state.gate_batch(attempt) is None:
        yield Unasked("every question", _why_no_gate(state, attempt), weakens=True)
        return
    asked = {test.name for test in attempt.verdict.tests} if attempt.verdict is not None else set()
    left: dict[tuple[str, bool], list[str]] = {}
    for purpose in QUESTIONED:
        if names := [gate_words.title(name) for name in asked_of(purpose) if name not in asked]:
            left.setdefault(_why_unasked(state, attempt, purpose), []).extend(names)
    for (why, weakens), titles in left.items():
        yield Unasked("; ".join(titles), why, weakens)


def budget_of(state: CampaignState, attempt: Attempt) -> Budget:
    told = account(state)
    here = next(s for s in told.attempts if (s.stage, s.attempt) == (attempt.stage, attempt.attempt))
    return Budget(told.total, here.spent_after, here.alpha if here.opened else None)


def judged_of(attempt: Attempt) -> int:
    """Items of the gate's own queue that the verdict rests on."""
    panels = attempt.verdict.panels if attempt.verdict is not None else ()
    return next((panel.labels for panel in panels if panel.purpose is Purpose.GATE), 0)


def plain(texts: Iterable[str]) -> tuple[str, ...]:
    """What the ledger has from phases, rules and people, as it may be shown."""
    return tuple(visible(text, LONGEST_WORDS) for text in texts)


def _is_share(test: TestResult) -> bool:
    """A share of comparisons or of reward; the others are differences of two."""
    return is_win_rate(test.name) or test.name == "wrong_reward"


def _signless_zero(value: float) -> float:
    """Minus nothing is nothing."""
    return value if abs(value) >= 0.0005 else 0.0


def _why_no_gate(state: CampaignState, attempt: Attempt) -> str:
    if attempt.verdict is None:
        return "the gate has not been opened"
    if attempt.verdict.vetoes:
        return "a veto came before the first comparison"
    return "the attempt has no candidate" if attempt.candidate is None else "this protocol opens no gate here"


def _why_unasked(state: CampaignState, attempt: Attempt, purpose: Purpose) -> tuple[str, bool]:
    """Why not, and whether that weakens the case: whether there was something to ask."""
    gate, verdict = state.gate, attempt.verdict
    if state.panel(attempt, purpose) is not None:
        if purpose is Purpose.AUDIT and gate.audit.limit is None:
            return "the audit is reported and has no say (gate.audit.limit)", False
        if verdict is None:
            return "the labels are not in yet", False
        if purpose is Purpose.GATE and verdict.tests and attempt.promises_nothing:
            return "no reward model took part, so nothing was promised", True
        return "a veto, or a queue asked before, had refused already", False
    if purpose is Purpose.AUDIT:
        return "there is nobody better than the raters (gate.audit.evaluator)", False  # a weakness of its own
    if state.candidate is not None:
        return "nothing was trained here", False
    if state.protocol.stages == 1:
        return "asked only where a campaign has several stages", False
    match purpose:
        case Purpose.DIRECTION:
            return (
                ("switched off (gate.direction)", True) if gate.direction is None else ("nothing was promised", False)
            )
        case Purpose.PATH:
            return ("switched off (gate.path)", True) if gate.path is None else ("no reward was paid", False)
    if gate.creep is None:
        return "switched off (gate.creep)", True
    if not attempt.stage:
        return "the approved policy is the base itself", False
    if attempt.stage % gate.creep.every:
        return f"asked every {gate.creep.every} stages only", True
    return "no checkpoint was approved that long ago", False
