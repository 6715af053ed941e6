"""The agreement gate: do people prefer the candidate, and does the reward model promise no more than they give?

Three null hypotheses are questioned on the same fresh labels, in queue order. Z in {0, 1/2, 1} is the outcome for
the candidate, p_hat the reward model's prediction of it, D = p_hat - Z the over-promise:

    improvement            H0: E[Z] <= 1/2          (1/2 - 0.03 for the hold test)
    over_promise           H0: E[D] >= limit
    over_promise_top_half  the same on the half of the queue with the largest p_hat, so that a reward model
                           cannot pass by claiming one half everywhere

The gate passes only if *every* null is refuted at level alpha (intersection-union test, Berger 1982), so
P(pass | any null true) <= alpha, without a further correction. It fails closed: nothing here returns ADVANCE on
missing, odd or broken evidence.

`decide` is a function of the queue alone: it walks the labels and stops at the first place that settles the
verdict, so the verdict does not depend on how many labels arrived at once.
"""

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from orchestrator.core import evidence
from orchestrator.core.records import Count, Record, Verdict
from orchestrator.core.settings import GateSettings

HOLD_MARGIN = 0.03
"""How far below one half the hold test (`advance: once`) lets the win rate lie."""
IMPROVEMENT = "improvement"
OVER_PROMISES = ("over_promise", "over_promise_top_half")
NOTHING_PROMISED = "over_promise: not questioned, since no reward model took part and nothing was promised"
FIRST_FUTILITY_LOOK = 80
FUTILITY_LOOK_EVERY = 20


class TestResult(Record):
    """One null hypothesis, with everything needed to check the conclusion by hand."""

    __test__ = False  # pytest: not a test class

    name: str
    labels: Count
    """Labels that this test looked at; the top half sees about every second one."""
    cap: Count
    """Labels to which its bet was tuned."""
    estimate: float | None
    """Mean of Z, or of D; None before the first label."""
    bound: float
    """Anytime-valid confidence bound: lower for the win rate, upper for the over-promise."""
    limit: float
    """What the bound must clear."""
    log_e_value: float
    """Largest log evidence against the null so far, in nats."""
    log_threshold: float
    """ln(1/alpha)."""
    passed: bool
    futile: bool = False


class GateVerdict(Record):
    verdict: Verdict
    reasons: tuple[str, ...]
    alpha: float | None = None
    """Error budget spent on this verdict; None where the protocol has no gate."""
    labels: Count = 0
    skipped: Count = 0
    tests: tuple[TestResult, ...] = ()
    win_rate: Annotated[float, Field(ge=0, le=1)] | None = None
    win_rate_low: float | None = None
    over_promise: Annotated[float, Field(ge=-1, le=1)] | None = None
    over_promise_high: float | None = None


def top_half(p_hat: Sequence[float]) -> tuple[int, ...]:
    """Places in the queue of the half with the largest predictions; the earlier place wins a tie."""
    by_promise = sorted(range(len(p_hat)), key=lambda i: (-p_hat[i], i))
    return tuple(sorted(by_promise[: math.ceil(len(p_hat) / 2)]))


def decide(
    p_hat: Sequence[float],
    outcomes: Sequence[float | None],
    *,
    alpha: float,
    settings: GateSettings,
    hold: bool = False,
    unpromised: int = 0,
) -> GateVerdict:
    """The verdict on the labels so far.

    Args:
        p_hat: the whole sealed queue's predictions that the candidate is preferred, in [0, 1].
        outcomes: the first labels of that queue, without a gap: 1 candidate preferred, 0 not, one half a tie,
            None skipped or expired (counted as Z = 0 and D = 1).
        alpha: error budget of this attempt.
        hold: question "no worse than 0.03 below even" instead of "better than even".
        unpromised: length of the queue where no reward model took part in the candidate, so that nothing was promised
            and there is no over-promise to question; p_hat is empty then. 0 everywhere else.
    """
    queue = unpromised or len(p_hat)
    broken = _broken_evidence(p_hat, outcomes, alpha, unpromised)
    if broken:
        spent = alpha if math.isfinite(alpha) else None
        return GateVerdict(verdict=Verdict.ROLLBACK, reasons=(broken,), alpha=spent)

    cap = min(queue, settings.max_labels)
    even = 0.5 - HOLD_MARGIN if hold else 0.5
    limit = settings.over_promise_limit
    z_N = evidence.as_array([0.0 if z is None else z for z in outcomes[:cap]])
    d_N = evidence.as_array([1.0 if z is None else p - z for p, z in zip(p_hat[:cap], outcomes[:cap], strict=False)])
    half = set(top_half(p_hat[:cap]))
    in_half_N = np.array([i in half for i in range(len(z_N))], dtype=bool)
    everywhere_N = np.ones(len(z_N), dtype=bool)
    improvement = _Question(IMPROVEMENT, z_N, everywhere_N, cap, even, limit=even, sign=1.0, lower=0.0)
    questions = (
        (improvement,)
        if unpromised
        else (
            improvement,
            _Question(OVER_PROMISES[0], -d_N, everywhere_N, cap, -limit, limit=limit, sign=-1.0, lower=-1.0),
            _Question(OVER_PROMISES[1], -d_N, in_half_N, len(half), -limit, limit=limit, sign=-1.0, lower=-1.0),
        )
    )
    passed_at = [question.passed_at(alpha) for question in questions]
    said = [place for place, z in enumerate(outcomes[:cap], start=1) if z is not None]
    enough_at = said[settings.min_labels - 1] if len(said) >= settings.min_labels else None
    stop, verdict = _walk(questions, passed_at, len(z_N), cap, alpha, enough_at)
    results = tuple(question.result(stop, alpha, verdict) for question in questions)
    return GateVerdict(
        verdict=verdict,
        reasons=(*_reasons(verdict, results, stop, cap), *([NOTHING_PROMISED] if unpromised else [])),
        alpha=alpha,
        labels=stop,
        skipped=sum(z is None for z in outcomes[:stop]),
        tests=results,
        win_rate=results[0].estimate,
        win_rate_low=results[0].bound,
        over_promise=None if unpromised else results[1].estimate,
        over_promise_high=None if unpromised else results[1].bound,
    )


class _Question:
    """One null about the mean of `x_N` on the places of the queue where `asked_N` is True."""

    def __init__(
        self,
        name: str,
        x_N: evidence.Array,
        asked_N: "np.typing.NDArray[np.bool_]",
        cap: int,
        null_mean: float,
        *,
        limit: float,
        sign: float,
        lower: float,
    ) -> None:
        self.name, self.cap, self.null_mean = name, cap, null_mean
        self.limit, self.sign, self.lower = limit, sign, lower
        self.x = x_N[asked_N]
        self.seen_N = np.cumsum(asked_N)
        """Of the first n places, how many were asked: seen_N[n - 1]."""

    def seen(self, places: int) -> int:
        return int(self.seen_N[places - 1]) if places else 0

    def log_fortune(self, alpha: float, seen: int) -> evidence.Array:
        bet = evidence.bet_fraction(alpha, self.cap, self.null_mean - self.lower)
        return evidence.log_fortune(self.x[:seen], self.null_mean, bet)

    def passed_at(self, alpha: float) -> int | None:
        """Labels of the queue after which the null is refuted for good; None if not yet."""
        reached = np.flatnonzero(self.log_fortune(alpha, len(self.x)) >= math.log(1 / alpha))
        if not len(reached):
            return None
        return int(np.flatnonzero(self.seen_N >= reached[0] + 1)[0]) + 1

    def is_futile(self, places: int, alpha: float) -> bool:
        seen = self.seen(places)
        gain = float(np.sum(self.x[:seen] - self.null_mean))
        return seen > 0 and evidence.is_futile(gain, seen, self.cap, alpha)

    def result(self, places: int, alpha: float, verdict: Verdict) -> TestResult:
        seen = self.seen(places)
        x = self.x[:seen]
        bound = evidence.lower_confidence_bound(x, alpha, self.cap, lower=self.lower, upper=1.0)
        log_e = float(self.log_fortune(alpha, seen).max(initial=0.0))
        threshold = math.log(1 / alpha)
        passed = log_e >= threshold
        return TestResult(
            name=self.name,
            labels=seen,
            cap=self.cap,
            estimate=self.sign * float(x.mean()) if seen else None,
            bound=self.sign * bound,
            limit=self.limit,
            log_e_value=log_e,
            log_threshold=threshold,
            passed=passed,
            futile=verdict is Verdict.ROLLBACK and not passed,
        )


def _walk(
    questions: Sequence[_Question],
    passed_at: Sequence[int | None],
    labels: int,
    cap: int,
    alpha: float,
    enough_at: int | None,
) -> tuple[int, Verdict]:
    """The first number of labels that settles the verdict, and the verdict.

    `enough_at` is where min_labels real verdicts are in: skipped and expired items do not make up the number.
    """
    needed = [place for place in (*passed_at, enough_at) if place is not None]
    passes = max(needed) if len(needed) == len(questions) + 1 else None
    for look in (*range(FIRST_FUTILITY_LOOK, cap, FUTILITY_LOOK_EVERY), cap):
        if passes is not None and passes <= min(look, labels):
            return passes, Verdict.ADVANCE
        if look > labels:
            break
        unsettled = [q for q, place in zip(questions, passed_at, strict=True) if place is None or place > look]
        if look == cap or any(question.is_futile(look, alpha) for question in unsettled):
            return look, Verdict.ROLLBACK
    return labels, Verdict.WAIT


def _broken_evidence(
    p_hat: Sequence[float], outcomes: Sequence[float | None], alpha: float, unpromised: int
) -> str | None:
    queue = unpromised or len(p_hat)
    if not 0 < alpha < 1:
        return f"no error budget: alpha is {alpha}"
    if queue < 1:
        return "no evidence: the queue is empty"
    if p_hat and unpromised:
        return f"broken evidence: {len(p_hat)} predictions for a queue that was promised nothing"
    if any(not 0 <= p <= 1 for p in p_hat):  # NaN fails every comparison
        return "broken evidence: a prediction lies outside [0, 1]"
    if len(outcomes) > queue:
        return f"broken evidence: {len(outcomes)} labels for a queue of {queue}"
    if any(z is not None and not 0 <= z <= 1 for z in outcomes):
        return "broken evidence: an outcome lies outside [0, 1]"
    return None


def _reasons(verdict: Verdict, results: Sequence[TestResult], stop: int, cap: int) -> tuple[str, ...]:
    if verdict is Verdict.WAIT:
        return (f"{stop} of at most {cap} labels so far; the evidence is not yet enough either way",)
    if verdict is Verdict.ADVANCE:
        return tuple(f"{_figure(result)}: refuted at alpha" for result in results)
    if all(result.passed for result in results):
        return (f"{stop} labels in all: the gate asks for more than that",)
    ending = "all labels used" if stop >= cap else "out of reach with the labels left"
    return tuple(f"{_figure(result)}: {ending}" for result in results if not result.passed)


def _figure(result: TestResult) -> str:
    side, word = (">", "win rate") if result.name == IMPROVEMENT else ("<", "over-promise")
    estimate = "unknown" if result.estimate is None else f"{result.estimate:+.3f}".removeprefix("+")
    return (
        f"{result.name}: {word} {estimate} over {result.labels} labels, bound {result.bound:.3f} "
        f"against {side} {result.limit:.2f}"
    )
