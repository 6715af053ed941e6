"""The agreement gate: do people prefer the candidate, and does the reward model promise no more than they give?

Several sealed queues of comparisons are questioned one after the other (`orchestrator.core.nulls` lists the null
hypotheses). The gate passes only if *every* null of every queue is refuted at level alpha (intersection-union test,
Berger 1982), so P(pass | any null true) <= alpha, without a further correction. The first queue that refuses ends it,
and the labels of the later ones are saved. It fails closed: nothing here returns ADVANCE on missing, odd or broken
evidence.

The verdict is a function of the queues alone: it does not depend on how many labels arrived at once.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Final

from pydantic import Field

from orchestrator.core.nulls import IMPROVEMENT, OVER_PROMISES, TESTS
from orchestrator.core.questions import Panel, Settled, TestResult, settle
from orchestrator.core.records import Count, Purpose, Record, Verdict
from orchestrator.core.settings import GateSettings, Method

RULE: Final = 1
"""To be raised when the same labels may come to another verdict."""
NOTHING_PROMISED: Final = "over_promise: not questioned, since no reward model took part and nothing was promised"
NEVER_COMPARED: Final = "both_bad: not questioned, since the approved policy was never compared before"
NOBODY_BETTER: Final = "audit: nobody better than the raters was asked, so what raters overlook goes unseen"


class PanelResult(Record):
    """What was judged of one sealed queue."""

    purpose: Purpose
    labels: Count
    """Items from the front of the queue that the verdict rests on."""
    skipped: Count


class GateVerdict(Record):
    verdict: Verdict
    reasons: tuple[str, ...]
    notes: tuple[str, ...] = ()
    """What the verdict does not cover."""
    method: Method = Method.BETTING
    rule: Count = RULE
    """By which the evidence was weighed; folding decides again by the same one."""
    alpha: float | None = None
    """Error budget spent on this verdict; None where the protocol has no gate."""
    labels: Count = 0
    """Of all queues together."""
    skipped: Count = 0
    panels: tuple[PanelResult, ...] = ()
    tests: tuple[TestResult, ...] = ()
    vetoes: tuple[str, ...] = ()
    """What refused the candidate without any statistics."""
    win_rate: Annotated[float, Field(ge=0, le=1)] | None = None
    win_rate_low: float | None = None
    over_promise: Annotated[float, Field(ge=-1, le=1)] | None = None
    over_promise_high: float | None = None


def decide(
    p_hat: Sequence[float],
    outcomes: Sequence[float | None],
    *,
    alpha: float,
    settings: GateSettings,
    hold: bool = False,
    unpromised: int = 0,
) -> GateVerdict:
    """The verdict on the candidate against the approved policy alone; `judge` takes all queues.

    Args:
        p_hat: the whole sealed queue's predictions that the candidate is preferred, in [0, 1].
        outcomes: the first labels of that queue, without a gap: 1 candidate preferred, 0 not, one half a tie,
            None skipped or expired (counted as Z = 0 and D = 1).
        alpha: error budget of this attempt.
        hold: question "no worse than 0.03 below even" instead of "better than even".
        unpromised: length of the queue where no reward model took part in the candidate, so that nothing was promised
            and there is no over-promise to question; p_hat is empty then. 0 everywhere else.
    """
    gate = Panel(Purpose.GATE, unpromised or len(p_hat), outcomes, p_hat)
    notes = (NOTHING_PROMISED,) if unpromised else ()
    return judge((gate,), alpha=alpha, settings=settings, hold=hold, notes=notes)


def judge(
    panels: Sequence[Panel],
    *,
    alpha: float,
    settings: GateSettings,
    hold: bool = False,
    notes: tuple[str, ...] = (),
    figures: bool = True,
) -> GateVerdict:
    """The verdict on the labels so far.

    Args:
        panels: every queue that was sealed for this attempt, in the order in which they are asked: candidate against
            approved first.
        figures: whether to add every test in numbers; the verdict is the same, and a hundred times as quick without.
    """
    broken = _broken(panels, alpha)
    if broken is not None:
        spent = alpha if math.isfinite(alpha) else None
        return GateVerdict(verdict=Verdict.ROLLBACK, reasons=(broken,), notes=notes, alpha=spent)
    asked: list[tuple[Panel, Settled]] = []
    for panel in panels:
        settled = settle(panel, alpha=alpha, settings=settings, hold=hold)
        asked.append((panel, settled))
        if settled.verdict is not Verdict.ADVANCE:
            break
    # A fixed sample is looked at once: until it is whole, nobody learns how it stands.
    shown = [figures and not _is_sealed(settled, settings) for _, settled in asked]
    tests = [settled.results() if show else () for (_, settled), show in zip(asked, shown, strict=True)]
    by_name = {test.name: test for results in tests for test in results}
    improvement, over_promise = by_name.get(IMPROVEMENT), by_name.get(OVER_PROMISES[0])
    last_panel, last = asked[-1]
    results = tuple(
        PanelResult(
            purpose=panel.purpose,
            labels=settled.labels,
            skipped=sum(z is None for z in panel.outcomes[: settled.labels]),
        )
        for panel, settled in asked
    )
    return GateVerdict(
        verdict=last.verdict,
        reasons=_reasons(last_panel, last, tests),
        notes=notes,
        method=settings.method,
        alpha=alpha,
        labels=sum(result.labels for result in results),
        skipped=sum(result.skipped for result in results),
        panels=results,
        tests=tuple(test for found in tests for test in found),
        win_rate=improvement.estimate if improvement else None,
        win_rate_low=improvement.bound if improvement else None,
        over_promise=over_promise.estimate if over_promise else None,
        over_promise_high=over_promise.bound if over_promise else None,
    )


def refuse(verdict: GateVerdict, vetoes: Sequence[str]) -> GateVerdict:
    """The same figures, refused: a veto needs no statistics and is no matter of evidence."""
    told = tuple(f"veto: {veto}" for veto in vetoes)
    return verdict.model_copy(update={"verdict": Verdict.ROLLBACK, "reasons": told, "vetoes": tuple(vetoes)})


def _is_sealed(settled: Settled, settings: GateSettings) -> bool:
    return settled.verdict is Verdict.WAIT and settings.method is not Method.BETTING


def _broken(panels: Sequence[Panel], alpha: float) -> str | None:
    if not 0 < alpha < 1:
        return f"no error budget: alpha is {alpha}"
    if not panels or panels[0].purpose is not Purpose.GATE:
        return "no evidence: the candidate was never compared with the approved policy"
    if not panels[0].promised and panels[0].count and any(panel.purpose is Purpose.DIRECTION for panel in panels):
        return "broken evidence: nothing was promised, and yet there is a direction to question"
    return next((panel.broken for panel in panels if panel.broken is not None), None)


def _reasons(panel: Panel, last: Settled, tests: Sequence[Sequence[TestResult]]) -> tuple[str, ...]:
    """Why it stands as it does: every test where all passed, else those of the queue that has the last word."""
    if last.verdict is Verdict.WAIT:
        where = "" if panel.purpose is Purpose.GATE else f"{panel.purpose.value}: "
        return (f"{where}{last.labels} of at most {last.cap} labels so far; the evidence is not yet enough either way",)
    if last.verdict is Verdict.ADVANCE:
        return tuple(f"{_figure(result)}: passed at alpha" for results in tests for result in results)
    if not tests[-1]:
        return (f"{panel.purpose.value}: refused after {last.labels} labels",)
    if all(result.passed for result in tests[-1]):
        return (f"{last.labels} labels in all: the gate asks for more than that",)
    ending = "all labels used" if last.labels >= last.cap else "out of reach with the labels left"
    return tuple(f"{_figure(result)}: {ending}" for result in tests[-1] if not result.passed)


def _figure(result: TestResult) -> str:
    null = TESTS[result.name]
    estimate = "unknown" if result.estimate is None else f"{result.estimate:+.3f}".removeprefix("+")
    return (
        f"{result.name}: {null.figure} {estimate} over {result.labels} labels, bound {result.bound:.3f} "
        f"against {'>' if null.is_win_rate else '<'} {result.limit:.2f}"
    )
