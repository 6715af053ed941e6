"""The safety case of a candidate: everything that an approver reads before signing, as plain values.

Folded state and the gate's sealed comparisons say it all; nothing here decides. `case.html` prints a case on a page,
`case_in_short` on a terminal. Prompts and responses are handed on as models wrote them: whoever shows them makes them
inert. Every other text has been through `visible`.

    case_change       what the candidate is, and what made it so
    case_gate         what the gate asked, what it did not ask, what it spent
    case_feedback     what people said: labels, over-credit, samples
    case_weaknesses   why the case is weaker than it looks
    case              the whole, beside other attempts, costs and decisions

Each reads those above it alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator import views
from orchestrator.artifacts import ArtifactStore
from orchestrator.core.records import Decision, Purpose, Verdict
from orchestrator.core.settings import CampaignSettings
from orchestrator.core.state import Attempt, CampaignState
from orchestrator.report import story
from orchestrator.review.case_change import Change, Row, change_of
from orchestrator.review.case_feedback import Blame, Rater, Samples, blame_of, feedback_of, raters_of, samples_of
from orchestrator.review.case_gate import (
    LONGEST_WORDS,
    Budget,
    Question,
    Unasked,
    budget_of,
    judged_of,
    plain,
    questions_of,
    unasked_of,
    verdict_words,
)
from orchestrator.review.case_weaknesses import Warned, warnings_of
from orchestrator.text import visible


@dataclass(frozen=True, slots=True)
class Course:
    """What one attempt came to: reward against raters. None: not measured."""

    place: str
    """`stage.attempt`."""
    outcome: str
    here: bool
    """It is the attempt that the case is about."""
    proxy: float | None
    """Reward at the end of its phase, in the units that the case's `proxy_unit` names."""
    promised: float | None
    """Mean probability to be preferred that the reward gave the candidate, on the comparisons that were judged."""
    win_rate: float | None
    win_rate_low: float | None
    """One-sided bound at the attempt's alpha."""
    kl_nats: float | None
    kl_budget_nats: float | None


@dataclass(frozen=True, slots=True)
class Earlier:
    """Another attempt of the same stage, and why it is not the approved one."""

    place: str
    outcome: str
    why: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cost:
    name: str
    here: str
    """Of this attempt."""
    campaign: str


@dataclass(frozen=True, slots=True)
class Decided:
    who: str
    decision: str
    reason: str
    automatic: bool
    """The gate or the protocol did it."""
    credential: str | None
    """Public id of the token with which it was said."""
    override: bool
    """It stands for all approvals that are wanted."""

    @property
    def how(self) -> str:
        """Whether there is more to it than a name."""
        if self.automatic:
            return "itself; no person looked"
        whose = "under a name that nothing vouches for" if self.credential is None else f"with token {self.credential}"
        return f"{whose}, for all approvers" if self.override else whose


@dataclass(frozen=True, slots=True)
class Case:
    campaign: str
    stage: int
    attempt: int
    standing: str
    """How the candidate stands, in a few words."""
    verdict: str
    """The gate's, in a sentence."""
    passed: bool
    warnings: tuple[Warned, ...]
    change: Change
    questions: tuple[Question, ...]
    unasked: tuple[Unasked, ...]
    vetoes: tuple[str, ...]
    notes: tuple[str, ...]
    budget: Budget
    feedback: tuple[Row, ...]
    """About the labels themselves."""
    raters: tuple[Rater, ...]
    """The busiest first."""
    blame: tuple[Blame, ...]
    blame_notes: tuple[str, ...]
    courses: tuple[Course, ...]
    proxy_unit: str
    samples: Samples | None
    why_no_samples: str | None
    earlier: tuple[Earlier, ...]
    costs: tuple[Cost, ...]
    decisions: tuple[Decided, ...]
    approvals: int
    approvals_needed: int


def case_of(
    state: CampaignState,
    settings: CampaignSettings,
    attempt: Attempt,
    artifacts: ArtifactStore,
    *,
    code_version: str | None = None,
) -> Case:
    """The case of an attempt's candidate, as far as it has come.

    Before the verdict stands it shows no samples, since nobody may learn which response is the candidate's. Texts that
    are missing or not what they should be leave a gap that the case tells of.

    Args:
        code_version: of the program that created the campaign, as its first event has it.
    """
    verdict = attempt.verdict
    samples, gap = samples_of(state, attempt, artifacts)
    change = change_of(state, settings, attempt, code_version)
    unasked = tuple(unasked_of(state, attempt))
    told = views.raters(state)
    return Case(
        campaign=settings.name,
        stage=attempt.stage,
        attempt=attempt.attempt,
        standing=_standing(state, attempt),
        verdict=verdict_words(attempt),
        passed=verdict is not None and verdict.verdict is Verdict.ADVANCE,
        warnings=tuple(warnings_of(state, attempt, change, unasked, gap)),
        change=change,
        questions=questions_of(attempt),
        unasked=unasked,
        vetoes=plain(verdict.vetoes if verdict else ()),
        notes=plain(verdict.notes if verdict else ()),
        budget=budget_of(state, attempt),
        feedback=tuple(feedback_of(state, attempt, told)),
        raters=raters_of(state, attempt, told),
        blame=blame_of(attempt),
        blame_notes=plain(attempt.attribution.unknown if attempt.attribution else ()),
        courses=tuple(_courses(state, attempt)),
        proxy_unit=story.proxy_unit(state.protocol),
        samples=samples,
        why_no_samples=gap,
        earlier=tuple(_earlier(state, attempt)),
        costs=_costs(state, settings, attempt),
        decisions=tuple(
            Decided(
                visible(made.reviewer),
                made.decision.value,
                visible(made.reason, LONGEST_WORDS),
                made.reviewer == state.automatic_reviewer,
                made.credential,
                made.override,
            )
            for made in attempt.decisions
        ),
        approvals=len(attempt.approvers),
        approvals_needed=state.approvals_needed,
    )


def case_in_short(case: Case) -> list[tuple[str, str]]:
    """Names and values for a terminal, the warnings first; without samples."""
    rows = [("candidate", case.change.candidate or "none"), ("stands", case.standing), ("gate", case.verdict)]
    rows += [("warning", warned.words) for warned in case.warnings]
    rows += [(row.name.lower(), row.value) for row in case.change.rows]
    for question in case.questions:
        said = "passed" if question.passed else "not passed"
        rows.append((question.title, f"{said}: {question.figures}, {story.counted(question.labels, 'label')}"))
    rows += [(unasked.title, f"not asked: {unasked.why}") for unasked in case.unasked]
    rows += [("veto", veto) for veto in case.vetoes]
    rows.append(("error budget", case.budget.words))
    rows += [(row.name.lower(), row.value) for row in case.feedback]
    rows += [(part.title, part.words) for part in case.blame]
    rows += [(f"attempt {earlier.place}", " ".join(earlier.why)) for earlier in case.earlier]
    rows += [(cost.name.lower(), cost.campaign) for cost in case.costs]
    rows.append(("approvals", f"{case.approvals} of {case.approvals_needed}"))
    rows += [(f"{made.decision} by {made.who}", made.reason or made.how) for made in case.decisions]
    return rows


def _standing(state: CampaignState, attempt: Attempt) -> str:
    if attempt.advanced:
        return "approved"
    if attempt.rolled_back_to is not None:
        return "rolled back"
    if attempt.verdict is None:
        return "before the gate's verdict"
    return f"waits for a decision: {len(attempt.approvers)} of {state.approvals_needed} approvals"


def _courses(state: CampaignState, attempt: Attempt) -> Iterator[Course]:
    """This attempt's and those of all before it."""
    for past in state.attempts:
        verdict, batch, judged = past.verdict, state.gate_batch(past), judged_of(past)
        promised = batch.p_hat[:judged] if batch is not None else ()
        here = (past.stage, past.attempt) == (attempt.stage, attempt.attempt)
        yield Course(
            place=f"{past.stage}.{past.attempt}",
            outcome=story.outcome_words(past),
            here=here,
            proxy=past.proxy,
            promised=sum(promised) / len(promised) if promised else None,
            win_rate=verdict.win_rate if verdict else None,
            win_rate_low=verdict.win_rate_low if verdict else None,
            kl_nats=past.kl_nats,
            kl_budget_nats=past.kl_budget_nats,
        )
        if here:
            return


def _earlier(state: CampaignState, attempt: Attempt) -> Iterator[Earlier]:
    for past in state.attempts:
        if past.stage == attempt.stage and past.attempt < attempt.attempt:
            yield Earlier(f"{past.stage}.{past.attempt}", story.outcome_words(past), plain(_why_refused(past)))


def _why_refused(attempt: Attempt) -> Iterator[str]:
    verdict = attempt.verdict
    if attempt.failed_phase:
        yield f"the phase failed: {attempt.stopped_by}"
    for veto in verdict.vetoes if verdict is not None else ():
        yield f"veto: {veto}"
    for question in questions_of(attempt):
        if not question.passed:
            yield f"{question.title}: {question.figures}"
    for made in attempt.decisions:
        if made.decision is Decision.REJECT:
            yield f"rejected by {made.reviewer}: {made.reason or 'no reason given'}"


def _costs(state: CampaignState, settings: CampaignSettings, attempt: Attempt) -> tuple[Cost, ...]:
    spent = views.costs(state, settings.prices)
    here = attempt.costs
    bought: dict[str, int] = {}
    for batch in state.batches:
        # An audit that can refuse nothing is the experimenter's expense, here as in the campaign's account.
        instrument = batch.purpose is Purpose.AUDIT and state.gate.audit.limit is None
        if (batch.stage, batch.attempt) == (attempt.stage, attempt.attempt) and not instrument:
            kind = batch.purpose.counted_as
            bought[kind] = bought.get(kind, 0) + len(batch.labels)
    return (
        *(Cost(f"Labels, {kind}", f"{bought.get(kind, 0):,}", f"{count:,}") for kind, count in spent["labels"].items()),
        Cost("Samples", f"{here.samples:,}", f"{spent['samples']:,}"),
        Cost("Tokens sampled", f"{here.tokens:,}", f"{spent['tokens']:,}"),
        Cost("Gradient steps", f"{here.gradient_steps:,}", f"{spent['gradient_steps']:,}"),
        Cost("Compute, seconds", f"{here.compute_seconds:,.1f}", f"{spent['compute_seconds']:,.1f}"),
        Cost("Waiting for people, seconds", "–", f"{spent['waiting_seconds']:,.1f}"),
        Cost("US dollars, at the campaign's prices", "–", f"{spent['usd']:,.2f}"),
    )
