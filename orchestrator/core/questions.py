"""How each null hypothesis of the gate (`nulls`) is questioned on a sealed queue, and when a queue is settled.

A queue's verdict depends on its labels in their order alone, not on how many arrived at once.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from orchestrator.core import evidence
from orchestrator.core.fixed_sample import LOWER_BOUNDS
from orchestrator.core.nulls import IMPROVEMENT, OVER_PROMISES, is_win_rate
from orchestrator.core.records import Count, Purpose, Record, Verdict
from orchestrator.core.settings import GateSettings, Method

HOLD_MARGIN: Final = 0.03
"""How far below one half the hold test (`advance: once`) lets a win rate lie."""
ROUNDING: Final = 1e-9
FIRST_FUTILITY_LOOK: Final = 80
FUTILITY_LOOK_EVERY: Final = 20


class TestResult(Record):
    """One null hypothesis, with everything needed to check the conclusion by hand."""

    __test__ = False  # pytest: not a test class

    name: str
    labels: Count
    """Labels that this test looked at; the top half sees about every second one."""
    cap: Count
    """Labels to which its bet was tuned, or, in a fixed sample, its size."""
    estimate: float | None
    """Mean of Z, or of D; None before the first label."""
    bound: float
    """Confidence bound at level alpha: lower for a win rate, upper for an over-promise."""
    limit: float
    """What the bound must clear."""
    log_e_value: float | None
    """Largest log evidence against the null so far, in nats; None where a bound on a fixed sample decides instead."""
    log_threshold: float
    """ln(1/alpha)."""
    passed: bool
    futile: bool = False

    def bears_out(self, alpha: float) -> bool:
        """Whether it passed, and its own figures say so at this level."""
        if not self.passed or not 0 < alpha < 1:
            return False
        if self.log_e_value is not None:
            return self.log_e_value >= -math.log(alpha) - ROUNDING
        return self.bound > self.limit if is_win_rate(self.name) else self.bound < self.limit


@dataclass(frozen=True, slots=True)
class Panel:
    """One sealed queue of comparisons, with what has been said of its front so far."""

    purpose: Purpose
    count: int
    """Length of the sealed queue."""
    outcomes: Sequence[float | None]
    """Z of the first items, without a gap; None: skipped or expired, counted as Z = 0 and D = 1."""
    promised: Sequence[float] = ()
    """P of the whole queue, in [0, 1]; empty where nothing was promised. An audit's may end where the raters did."""
    unsaid: Sequence[float] = ()
    """Of each outcome, the share of its raters who had no opinion: they count as lost, and as promised in full. Empty:
    nobody's."""

    @property
    def broken(self) -> str | None:
        """What makes this no evidence at all."""
        if self.count < 1:
            return f"no evidence: the {self.purpose.value} queue is empty"
        promised = len(self.promised)
        if self.purpose is Purpose.AUDIT and promised < len(self.outcomes):
            return f"broken evidence: {len(self.outcomes)} items audited, of which raters judged {promised}"
        due = promised > 0 or self.purpose is Purpose.DIRECTION
        if due and promised != self.count and self.purpose is not Purpose.AUDIT:
            return f"broken evidence: {promised} predictions for a queue of {self.count}"
        if any(not 0 <= p <= 1 for p in self.promised):  # NaN fails every comparison
            return "broken evidence: a prediction lies outside [0, 1]"
        if len(self.outcomes) > self.count:
            return f"broken evidence: {len(self.outcomes)} labels for a queue of {self.count}"
        if any(z is not None and not 0 <= z <= 1 for z in self.outcomes):
            return "broken evidence: an outcome lies outside [0, 1]"
        return None


@dataclass(frozen=True, slots=True)
class Settled:
    """How a queue stands after the labels so far."""

    verdict: Verdict
    """ADVANCE: every null of this queue is refuted. ROLLBACK: one never will be. WAIT: more labels are wanted."""
    labels: int
    """Labels from the front of the queue that settled it; all so far while it waits."""
    cap: int
    questions: tuple["Question", ...]

    def results(self) -> tuple[TestResult, ...]:
        """Every test of the queue in numbers; the bounds take a hundred times as long as the verdict."""
        return tuple(question.result(self.labels, self.verdict) for question in self.questions)


def settle(panel: Panel, *, alpha: float, settings: GateSettings, hold: bool = False) -> Settled:
    """Walk the queue to the first place that settles it. The panel must not be broken."""
    cap = min(panel.count, settings.max_labels) if panel.purpose is Purpose.GATE else panel.count
    outcomes = panel.outcomes[:cap]
    questions = _questions(panel, outcomes, cap, alpha, settings, hold)
    least = settings.min_labels if panel.purpose is Purpose.GATE else 1
    said = [place for place, z in enumerate(outcomes, start=1) if z is not None]
    enough_at = said[least - 1] if len(said) >= least else None
    labels, verdict = walk(questions, len(outcomes), cap, enough_at)
    return Settled(verdict, labels, cap, questions)


def top_half(p_hat: Sequence[float]) -> tuple[int, ...]:
    """Places in the queue of the half with the largest predictions; the earlier place wins a tie."""
    by_promise = np.argsort(-np.asarray(p_hat, dtype=np.float64), kind="stable")
    return tuple(sorted(by_promise[: math.ceil(len(p_hat) / 2)].tolist()))


class Question:
    """One null about the mean of x = z - promise over the places of the queue where `asked_N` is True."""

    def __init__(
        self,
        name: str,
        z_N: evidence.Array,
        promise_N: evidence.Array | None,
        *,
        cap: int,
        null: float,
        alpha: float,
        method: Method,
        asked_N: "NDArray[np.bool_] | None" = None,
        proportion: bool,
    ) -> None:
        """`null` is the largest win rate, or the smallest over-promise, that the null allows; `proportion` says that x
        is one, up to a constant, so that a bound on proportions may serve."""
        asked_N = np.ones(len(z_N), dtype=bool) if asked_N is None else asked_N
        self.name, self.cap, self.limit, self.alpha, self.method = name, cap, null, alpha, method
        self.over_promise = promise_N is not None
        self.looks_once = method is not Method.BETTING
        # What was promised varies from item to item, and a bound on the outcomes alone would not know it.
        self.bets = not (self.looks_once and proportion)
        self.z = z_N[asked_N]
        self.promise = np.zeros(len(self.z)) if promise_N is None else promise_N[asked_N]
        self.x = self.z - self.promise
        self.sign, self.lower = (-1.0, -1.0) if self.over_promise else (1.0, 0.0)
        self.null_mean = self.sign * null
        self.seen_N = np.cumsum(asked_N)
        """Of the first n places, how many were asked: seen_N[n - 1]."""
        self.gain_N = np.concatenate([[0.0], np.cumsum(self.x - self.null_mean)])
        """Sum of x above the null over the first n asked: gain_N[n]."""

    def seen(self, places: int) -> int:
        return int(self.seen_N[places - 1]) if places else 0

    def passed_at(self) -> int | None:
        """Labels of the queue after which the null is refuted for good; None if not yet."""
        if self.looks_once and len(self.x) < self.cap:
            return None
        if not self.bets:
            return len(self.seen_N) if self._bound(self.cap) > self.null_mean else None
        reached = np.flatnonzero(self._log_fortune(len(self.x)) >= math.log(1 / self.alpha))
        if not len(reached):
            return None
        return len(self.seen_N) if self.looks_once else int(np.searchsorted(self.seen_N, reached[0] + 1)) + 1

    def is_futile(self, places: int) -> bool:
        """Whether to give the null up as unrefutable; a fixed sample is taken to its end."""
        seen = self.seen(places)
        if self.looks_once or not seen:
            return False
        return evidence.is_futile(float(self.gain_N[seen]), seen, self.cap, self.alpha)

    def result(self, places: int, verdict: Verdict) -> TestResult:
        seen = self.seen(places)
        threshold = math.log(1 / self.alpha)
        log_e = float(self._log_fortune(seen).max(initial=0.0)) if self.bets else None
        bound = self._bound(seen)
        refuted = log_e >= threshold if log_e is not None else bound > self.null_mean
        passed = refuted and (seen == self.cap or not self.looks_once)
        return TestResult(
            name=self.name,
            labels=seen,
            cap=self.cap,
            estimate=self.sign * float(self.x[:seen].mean()) if seen else None,
            bound=self.sign * bound,
            limit=self.limit,
            log_e_value=log_e,
            log_threshold=threshold,
            passed=passed,
            futile=verdict is Verdict.ROLLBACK and not passed,
        )

    def _log_fortune(self, seen: int) -> evidence.Array:
        bet = evidence.bet_fraction(self.alpha, self.cap, self.null_mean - self.lower)
        return evidence.log_fortune(self.x[:seen], self.null_mean, bet)

    def _bound(self, seen: int) -> float:
        """Lower bound of E[x]."""
        if self.bets:
            return evidence.lower_confidence_bound(self.x[:seen], self.alpha, self.cap, lower=self.lower, upper=1.0)
        promised = float(self.promise[:seen].mean()) if seen else -self.lower
        return LOWER_BOUNDS[self.method](self.z[:seen], self.alpha) - promised


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes the questions on one panel."""

    z_N: evidence.Array
    promise_N: evidence.Array | None
    cap: int
    alpha: float
    method: Method

    @classmethod
    def of(cls, panel: Panel, outcomes: Sequence[float | None], cap: int, alpha: float, method: Method) -> Self:
        promised = [1.0] * len(outcomes) if panel.purpose is Purpose.PATH else panel.promised
        unsaid = panel.unsaid or [0.0] * len(outcomes)
        # Without a verdict nothing was won, and everything was promised: Z = 0, D = 1.
        z_N = evidence.as_array([0.0 if z is None else z for z in outcomes])
        silent_N = evidence.as_array([1.0 if z is None else share for z, share in zip(outcomes, unsaid, strict=False)])
        promise_N = evidence.as_array(list(promised[: len(outcomes)]))
        promise_N = promise_N + silent_N * (1.0 - promise_N) if promised else promise_N
        return cls(z_N, promise_N if promised else None, cap, alpha, method)

    def win_rate(self, name: str, even: float) -> Question:
        return Question(
            name, self.z_N, None, cap=self.cap, null=even, alpha=self.alpha, method=self.method, proportion=True
        )

    def over_promise(
        self,
        name: str,
        limit: float,
        *,
        cap: int | None = None,
        asked_N: "NDArray[np.bool_] | None" = None,
        proportion: bool = False,
    ) -> Question:
        return Question(
            name,
            self.z_N,
            self.promise_N,
            cap=self.cap if cap is None else cap,
            null=limit,
            alpha=self.alpha,
            method=self.method,
            asked_N=asked_N,
            proportion=proportion,
        )


def _questions(
    panel: Panel, outcomes: Sequence[float | None], cap: int, alpha: float, settings: GateSettings, hold: bool
) -> tuple[Question, ...]:
    make = _Maker.of(panel, outcomes, cap, alpha, settings.method)
    even = 0.5 - HOLD_MARGIN if hold else 0.5
    match panel.purpose:
        case Purpose.GATE if panel.promised:
            half = top_half(panel.promised[:cap])
            asked_N = np.zeros(cap, dtype=bool)
            asked_N[list(half)] = True
            limit = settings.over_promise_limit
            return (
                make.win_rate(IMPROVEMENT, even),
                make.over_promise(OVER_PROMISES[0], limit),
                make.over_promise(OVER_PROMISES[1], limit, cap=len(half), asked_N=asked_N[: len(outcomes)]),
            )
        case Purpose.GATE:
            return (make.win_rate(IMPROVEMENT, even),)
        case Purpose.DIRECTION if settings.direction is not None and panel.promised:
            return (
                make.win_rate("direction", 0.5),
                make.over_promise("direction_over_promise", settings.direction.over_promise_limit),
            )
        case Purpose.PATH if settings.path is not None:
            return (make.over_promise("wrong_reward", settings.path.wrong_reward_limit, proportion=True),)
        case Purpose.CREEP_BASE | Purpose.CREEP_OLDER:
            return (make.win_rate(panel.purpose.value, even),)
        case Purpose.AUDIT if settings.audit.limit is not None:
            return (make.over_promise("audit", settings.audit.limit),)
    raise ValueError(f"the gate asks nothing of a {panel.purpose.value} queue like this one")


def walk(questions: Iterable[Question], labels: int, cap: int, enough_at: int | None) -> tuple[int, Verdict]:
    """The first number of labels that settles these questions, and how.

    `enough_at` is where min_labels real verdicts are in: skipped and expired items do not make up the number.
    """
    asked = [(question, question.passed_at()) for question in questions]
    needed = [place for place in (*(place for _, place in asked), enough_at) if place is not None]
    passes = max(needed) if len(needed) == len(asked) + 1 else None
    for look in (*range(FIRST_FUTILITY_LOOK, cap, FUTILITY_LOOK_EVERY), cap):
        if passes is not None and passes <= min(look, labels):
            return passes, Verdict.ADVANCE
        if look > labels:
            break
        unsettled = [question for question, place in asked if place is None or place > look]
        if look == cap or any(question.is_futile(look) for question in unsettled):
            return look, Verdict.ROLLBACK
    return labels, Verdict.WAIT
