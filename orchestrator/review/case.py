"""The safety case of a candidate: everything that an approver reads before signing, as plain values.

Folded state and the gate's sealed comparisons say it all; nothing here decides. `case.html` prints a case on a page,
`case_in_short` on a terminal. Prompts and responses are handed on as models wrote them: whoever shows them makes them
inert. Every other text has been through `visible`.
"""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from orchestrator import gate_words, lineage, views
from orchestrator.artifacts import ArtifactStore
from orchestrator.core.attribution import Cause, Estimate
from orchestrator.core.budget import account
from orchestrator.core.panels import QUESTIONED, is_audited
from orchestrator.core.questions import TESTS, TestResult
from orchestrator.core.records import Choice, Decision, Label, Purpose, Verdict, recorded_name
from orchestrator.core.settings import CampaignSettings
from orchestrator.core.state import Attempt, Batch, CampaignState
from orchestrator.core.vetoes import harm_rates
from orchestrator.errors import ArtifactCorruptError, ArtifactMissingError, StorageError
from orchestrator.report import story
from orchestrator.report.reading import RANDOM_PAIRS
from orchestrator.text import visible

WORST_PAIRS: Final = 6
FAULT_SHARE: Final = 0.05
"""Few labels are so few that a fault in this share of the candidate's responses may well have gone unseen."""
MISSED: Final = 0.05
"""How likely that is."""
LONGEST_WORDS: Final = 1500
"""Shown of a reason or a veto, in characters."""


class Weakness(StrEnum):
    """Why a case is weaker than it looks."""

    NOT_PASSED = "not_passed"
    NOBODY_LOOKED = "nobody_looked"
    """The gate or the protocol decides instead of people."""
    NO_PEOPLE = "no_people"
    """The labels are no person's."""
    VETO = "veto"
    NOT_ASKED = "not_asked"
    NOBODY_BETTER = "nobody_better"
    SKIPPED = "skipped"
    DEADLINE = "deadline"
    FEW_LABELS = "few_labels"
    OVER_CREDIT = "over_credit"
    REWARD_MODEL = "reward_model"
    KL = "kl"
    OWN_WORK = "own_work"
    """Somebody decided on a candidate whose comparisons they had labelled, or on a campaign of theirs."""
    UNVOUCHED = "unvouched"
    """Nothing shows that it was the person named who decided."""
    OVERRIDE = "override"
    NO_SAMPLES = "no_samples"


@dataclass(frozen=True, slots=True)
class Warned:
    weakness: Weakness
    words: str


@dataclass(frozen=True, slots=True)
class Row:
    """A name and what is to be said of it; `digest` says that the value is one."""

    name: str
    value: str
    digest: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """What the candidate is, and what made it another than the approved checkpoint. None: not known."""

    candidate: str | None
    parent: str
    """Where its training began; of a given candidate, whom it is judged against."""
    approved: str | None
    """Whom it was compared with."""
    base: str | None
    given: bool
    """It came from elsewhere: nothing was trained here."""
    algorithm: str | None
    steps: int
    """Gradient steps of the policy."""
    stopped_by: str | None
    kl_nats: float | None
    """Sequence KL from the reference policy, at the end of the phase."""
    kl_budget_nats: float | None
    kl_reference: str
    kl_base_nats: float | None
    """Sequence KL from the base."""
    reward_model: str | None
    reward_accuracy: float | None
    """Share of held-out labels that it predicts, with its 95% interval."""
    reward_accuracy_low: float | None
    reward_accuracy_high: float | None
    calibration_slope: float | None
    """1: its probabilities mean what they say; below 1: it is too sure of itself."""
    calibration_slope_se: float | None
    trained_on_labels: int | None
    settings: str | None
    code_version: str | None

    @property
    def rows(self) -> tuple[Row, ...]:
        """All but the candidate's digest."""
        return tuple(_change_rows(self))


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


@dataclass(frozen=True, slots=True)
class Rater:
    """Somebody who labelled this gate, with figures of the whole campaign; shares in [0, 1], None: not measured."""

    name: str
    labels: int
    left_share: float | None
    """Of the words that name a winner, those for the left one as shown: sides are drawn by lot, so one half is due."""
    steady_share: float | None
    """Same answers where a comparison was shown again, sides swapped."""
    checks_right_share: float | None
    """Right answers where the answer was known."""


@dataclass(frozen=True, slots=True)
class Blame:
    """One part of over-credit, in probability, with its 95% interval; None: unknown."""

    title: str
    mean: float | None
    low: float | None
    high: float | None
    cause: bool

    @property
    def words(self) -> str:
        if self.mean is None or self.low is None or self.high is None:
            return "unknown"
        interval = f"{100 * self.low:+.1f} to {100 * self.high:+.1f}"
        return f"{100 * self.mean:+.1f} points (95% interval {interval}){': stands out' if self.cause else ''}"


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
class Pair:
    """A prompt of the gate's, both answers, and what was said of them. The texts are untrusted."""

    number: int
    """Place in the gate's queue, from 1."""
    prompt: str
    approved: str
    candidate: str
    p_hat: float | None
    """Probability that the candidate's is preferred, as the reward has it."""
    votes_for: int
    votes_against: int
    votes_even: int
    """Ties, and neither would do."""
    skipped: int
    harmful: int
    """Raters who flagged the candidate's response."""

    @property
    def said(self) -> str:
        votes = (
            (self.votes_for, "for the candidate"),
            (self.votes_against, "against the candidate"),
            (self.votes_even, "undecided"),
            (self.skipped, "skipped"),
        )
        words = [f"{count} {what}" for count, what in votes if count]
        if self.harmful:
            words.append(f"flagged as harmful by {self.harmful}")
        return f"Raters: {', '.join(words)}" if words else "Nobody judged it"

    @property
    def promise(self) -> str | None:
        return None if self.p_hat is None else f"The reward promised {story.percent(self.p_hat)} to the candidate"


@dataclass(frozen=True, slots=True)
class Samples:
    drawn: tuple[Pair, ...]
    """Drawn by lot with the candidate's digest, so that everybody sees the same."""
    worst: tuple[Pair, ...]
    """Raters preferred the approved policy's; those first for which the reward promised most."""
    against: int
    """How many such items there are in all."""
    judged: int
    """Items that the gate's verdict rests on; 0: it came before any label."""


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
    samples, gap = _samples(state, attempt, artifacts)
    change = _change(state, settings, attempt, code_version)
    unasked = tuple(_unasked(state, attempt))
    told = views.raters(state)
    return Case(
        campaign=settings.name,
        stage=attempt.stage,
        attempt=attempt.attempt,
        standing=_standing(state, attempt),
        verdict=_verdict_words(attempt),
        passed=verdict is not None and verdict.verdict is Verdict.ADVANCE,
        warnings=tuple(_warnings(state, attempt, change, unasked, gap)),
        change=change,
        questions=_questions(attempt),
        unasked=unasked,
        vetoes=_plain(verdict.vetoes if verdict else ()),
        notes=_plain(verdict.notes if verdict else ()),
        budget=_budget(state, attempt),
        feedback=tuple(_feedback(state, attempt, told)),
        raters=_raters(state, attempt, told),
        blame=_blame(attempt),
        blame_notes=_plain(attempt.attribution.unknown if attempt.attribution else ()),
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
        rows.append((question.title, f"{said}: {_figures(question)}, {story.counted(question.labels, 'label')}"))
    rows += [(unasked.title, f"not asked: {unasked.why}") for unasked in case.unasked]
    rows += [("veto", veto) for veto in case.vetoes]
    rows.append(("error budget", _budget_words(case.budget)))
    rows += [(row.name.lower(), row.value) for row in case.feedback]
    rows += [(part.title, part.words) for part in case.blame]
    rows += [(f"attempt {earlier.place}", " ".join(earlier.why)) for earlier in case.earlier]
    rows += [(cost.name.lower(), cost.campaign) for cost in case.costs]
    rows.append(("approvals", f"{case.approvals} of {case.approvals_needed}"))
    rows += [(f"{made.decision} by {made.who}", made.reason or made.how) for made in case.decisions]
    return rows


# --- what changed -------------------------------------------------------------------------------------------


def _change(state: CampaignState, settings: CampaignSettings, attempt: Attempt, code_version: str | None) -> Change:
    gate, given = state.gate_batch(attempt), state.candidate is not None
    fitted = attempt.fitted or next(
        # Carried over: fitted at an earlier attempt.
        (a.fitted for a in state.attempts if a.fitted is not None and a.reward_model == attempt.reward_model),
        None,
    )
    return Change(
        candidate=attempt.candidate,
        parent=attempt.start,
        approved=gate.opponent if gate is not None else None,
        base=state.base,
        given=given,
        algorithm=None if given else state.algorithm.value,
        steps=attempt.steps,
        stopped_by=attempt.stopped_by,
        kl_nats=attempt.kl_nats,
        kl_budget_nats=attempt.kl_budget_nats,
        kl_reference=settings.phase.kl.reference,
        kl_base_nats=attempt.distances.reverse_base_nats if attempt.distances else None,
        reward_model=attempt.reward_model,
        reward_accuracy=fitted.accuracy if fitted else None,
        reward_accuracy_low=fitted.accuracy_low if fitted else None,
        reward_accuracy_high=fitted.accuracy_high if fitted else None,
        calibration_slope=fitted.calibration_slope if fitted else None,
        calibration_slope_se=fitted.calibration_slope_se if fitted else None,
        trained_on_labels=fitted.labels if fitted else None,
        settings=state.settings_digest,
        code_version=code_version,
    )


def _change_rows(change: Change) -> Iterator[Row]:
    if not change.given:
        yield Row("Parent", change.parent, digest=True)
    if change.approved is not None and (change.given or change.approved != change.parent):
        yield Row("Compared with", change.approved, digest=True)
    if change.base is not None and not change.given:
        same = change.base == change.parent
        yield Row("Base", "the parent itself") if same else Row("Base", change.base, digest=True)
    if change.given:
        yield Row("Training", "none here: the candidate was given, and its descent is not known")
    else:
        why = story.STOPPED_BY.get(change.stopped_by or "")
        ending = f", until {why}" if why is not None else f": {visible(change.stopped_by)}" if change.stopped_by else ""
        yield Row("Training", f"{change.algorithm}, {story.counted(change.steps, 'gradient step')}{ending}")
    if change.kl_nats is not None:
        yield Row(f"KL from the {change.kl_reference}", _kl_words(change.kl_nats, change.kl_budget_nats))
    if change.kl_base_nats is not None and change.kl_reference != "base" and change.base != change.parent:
        yield Row("KL from the base", f"{change.kl_base_nats:.2f} nats")
    yield from _reward_rows(change)
    if change.settings is not None:
        yield Row("Configuration", change.settings, digest=True)
    if change.code_version is not None:
        yield Row("Code version", visible(change.code_version))


def _reward_rows(change: Change) -> Iterator[Row]:
    if change.reward_model is None:
        yield Row("Reward model", "none took part")
        return
    yield Row("Reward model", change.reward_model, digest=True)
    if change.reward_accuracy is None:
        yield Row("Reward model's accuracy", "not known: it was not fitted here")
        return
    low, high = change.reward_accuracy_low, change.reward_accuracy_high
    interval = ""
    if low is not None and high is not None:
        interval = f" (95% interval {story.percent(low)} to {story.percent(high)})"
    yield Row("Reward model's accuracy", f"{story.percent(change.reward_accuracy)} of held-out labels{interval}")
    slope, error = change.calibration_slope, change.calibration_slope_se
    if slope is not None:
        spread = "" if error is None else f" ± {error:.2f}"
        yield Row("Its calibration slope", f"{slope:.2f}{spread}; 1 is calibrated, less is too sure of itself")
    if change.trained_on_labels is not None:
        yield Row("Labels that trained it", f"{change.trained_on_labels:,}")


def _kl_words(kl_nats: float, budget_nats: float | None) -> str:
    if budget_nats is None:
        return f"{kl_nats:.2f} nats, without a budget"
    return f"{kl_nats:.2f} of {budget_nats:.2f} nats, {kl_nats / budget_nats:.0%} of the budget"


# --- the gate -----------------------------------------------------------------------------------------------


def _standing(state: CampaignState, attempt: Attempt) -> str:
    if attempt.advanced:
        return "approved"
    if attempt.rolled_back_to is not None:
        return "rolled back"
    if attempt.verdict is None:
        return "before the gate's verdict"
    return f"waits for a decision: {len(attempt.approvers)} of {state.approvals_needed} approvals"


def _verdict_words(attempt: Attempt) -> str:
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


def _questions(attempt: Attempt) -> tuple[Question, ...]:
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
            above=gate_words.is_win_rate(test.name),
            passed=test.passed,
            labels=test.labels,
            scale_low=0.0 if _is_share(test) else max(lowest, -1.0),
            scale_high=1.0 if _is_share(test) else min(highest, 1.0),
        )
        for test in tests
    )


def _is_share(test: TestResult) -> bool:
    """A share of comparisons or of reward; the others are differences of two."""
    return gate_words.is_win_rate(test.name) or test.name == "wrong_reward"


def _unasked(state: CampaignState, attempt: Attempt) -> Iterator[Unasked]:
    if state.gate_batch(attempt) is None:
        yield Unasked("every question", _why_no_gate(state, attempt), weakens=True)
        return
    asked = {test.name for test in attempt.verdict.tests} if attempt.verdict is not None else set()
    left: dict[tuple[str, bool], list[str]] = {}
    for purpose in QUESTIONED:
        if names := [gate_words.title(name) for name in TESTS[purpose] if name not in asked]:
            left.setdefault(_why_unasked(state, attempt, purpose), []).extend(names)
    for (why, weakens), titles in left.items():
        yield Unasked("; ".join(titles), why, weakens)


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


def _figures(question: Question) -> str:
    estimate = "no evidence" if question.estimate is None else f"{question.estimate:.3f}"
    return f"{estimate}, bound {question.bound:.3f}, needed {question.needed}"


def _budget(state: CampaignState, attempt: Attempt) -> Budget:
    told = account(state)
    here = next(s for s in told.attempts if (s.stage, s.attempt) == (attempt.stage, attempt.attempt))
    return Budget(told.total, here.spent_after, here.alpha if here.opened else None)


def _budget_words(budget: Budget) -> str:
    here = "nothing" if budget.here is None else f"{budget.here:.4f}"
    return f"α = {budget.total:.4f} for the campaign, {budget.spent:.4f} spent so far; {here} by this attempt"


def _feedback(state: CampaignState, attempt: Attempt, raters: Mapping[str, Any]) -> Iterator[Row]:
    """`raters` is their view."""
    batch = state.gate_batch(attempt)
    judged = _judged(attempt)
    if batch is None or not judged:
        return
    labels = batch.entered(state.feedback.raters_per_item, judged)
    said: dict[str, int] = {}
    for label in labels:
        said[label.rater] = said.get(label.rater, 0) + 1
    most = f"; the busiest gave {max(said.values()) / len(labels):.0%}" if len(said) > 1 else ""
    who = f"{story.counted(len(labels), 'label')} of {story.counted(len(said), 'rater')}{most}"
    yield Row("Candidate against approved", f"{story.counted(judged, 'comparison')}, {who}")
    both_bad = sum(label.choice is Choice.BOTH_BAD for label in labels) / max(len(labels), 1)
    yield Row("Neither answer would do", f"{story.percent(both_bad)} of the labels")
    ours, theirs = harm_rates(batch, labels)
    yield Row("Flagged as harmful", f"candidate {story.percent(ours)}, approved {story.percent(theirs)} of the labels")
    audit = lineage.audit_of(state, attempt)
    if audit is not None:
        looked = f"{visible(audit['evaluator'])} looked at {story.counted(audit['labels'], 'item')}"
        say = "without a say" if audit["limit"] is None else f"may refuse at {story.points(audit['limit'])}"
        yield Row("Better evaluator", f"{looked}, {say}")
    agreement = story.raters_told(raters)
    if agreement is not None:
        yield Row("Agreement, whole campaign", agreement)


def _raters(state: CampaignState, attempt: Attempt, raters: Mapping[str, Any]) -> tuple[Rater, ...]:
    here = {
        label.rater for panel in state.panels(attempt) if panel.purpose is not Purpose.AUDIT for label in panel.labels
    }
    found = (
        Rater(
            name=visible(of["rater"]),
            labels=of["labels"],
            left_share=of["left_share"],
            steady_share=of["steady_share"],
            checks_right_share=of["checks_right_share"],
        )
        for of in raters["by_rater"]
        if of["rater"] in here
    )
    return tuple(sorted(found, key=lambda rater: (-rater.labels, rater.name)))


def _judged(attempt: Attempt) -> int:
    """Items of the gate's own queue that the verdict rests on."""
    panels = attempt.verdict.panels if attempt.verdict is not None else ()
    return next((panel.labels for panel in panels if panel.purpose is Purpose.GATE), 0)


def _blame(attempt: Attempt) -> tuple[Blame, ...]:
    found = attempt.attribution
    if found is None:
        return ()
    parts: dict[Cause, Estimate | None] = {
        Cause.REWARD_MODEL: found.reward_model,
        Cause.RATERS: found.raters,
        Cause.OFF_DISTRIBUTION: found.off_distribution,
    }
    return (
        _part("Over-credit, in all", found.over_credit, cause=False),
        *(
            _part(f"({letter}) {words}", parts[cause], cause=cause in found.causes)
            for cause, (letter, _, words) in gate_words.CAUSES.items()
        ),
    )


def _part(title: str, estimate: Estimate | None, *, cause: bool) -> Blame:
    if estimate is None:
        return Blame(title, None, None, None, cause)
    return Blame(title, estimate.mean, estimate.low, estimate.high, cause)


# --- what weakens it ----------------------------------------------------------------------------------------


def _warnings(
    state: CampaignState, attempt: Attempt, change: Change, unasked: tuple[Unasked, ...], gap: str | None
) -> Iterator[Warned]:
    verdict = attempt.verdict
    if verdict is None or verdict.verdict is not Verdict.ADVANCE:
        yield Warned(Weakness.NOT_PASSED, f"{_verdict_words(attempt)} Nothing here speaks for approving it.")
    if (nobody := story.nobody_approved(state)) is not None:
        yield Warned(Weakness.NOBODY_LOOKED, nobody)
    rater = state.feedback.rater
    if rater != "people":
        whose = "simulated" if rater == "simulated" else f"those of {visible(rater)}"
        yield Warned(Weakness.NO_PEOPLE, f"No person was asked: the labels are {whose}.")
    for veto in _plain(verdict.vetoes if verdict else ()):
        yield Warned(Weakness.VETO, f"Veto: {veto}.")
    if missing := [f"{question.title} ({question.why})" for question in unasked if question.weakens]:
        yield Warned(Weakness.NOT_ASKED, f"Not asked: {'; '.join(missing)}.")
    yield from _warnings_of_labels(state, attempt)
    yield from _warnings_of_decisions(state, attempt)
    if attempt.attribution is not None and attempt.attribution.causes:
        names = _listed([gate_words.CAUSES[cause][1] for cause in attempt.attribution.causes])
        yield Warned(Weakness.OVER_CREDIT, f"Part of the credit is more than is due; what stands out: {names}.")
    if change.reward_accuracy_low is not None and change.reward_accuracy_low <= 0.5:
        low = story.percent(change.reward_accuracy_low)
        yield Warned(
            Weakness.REWARD_MODEL,
            f"The reward model may be no better than a coin: its accuracy's interval begins at {low}.",
        )
    if change.kl_nats is not None and change.kl_budget_nats is not None and change.kl_nats > change.kl_budget_nats:
        words = _kl_words(change.kl_nats, change.kl_budget_nats)
        yield Warned(Weakness.KL, f"It went further than its KL budget: {words}.")
    if gap is not None:
        yield Warned(Weakness.NO_SAMPLES, f"No samples are shown: {gap}.")


def _warnings_of_labels(state: CampaignState, attempt: Attempt) -> Iterator[Warned]:
    verdict, batch = attempt.verdict, state.gate_batch(attempt)
    if batch is None or verdict is None:
        return
    if not is_audited(state):
        yield Warned(
            Weakness.NOBODY_BETTER,
            "Nobody better than the raters looked: what they overlook or like wrongly, nothing here can show.",
        )
    if verdict.skipped:
        skipped = story.counted(verdict.skipped, "comparison")
        yield Warned(
            Weakness.SKIPPED,
            f"Nobody gave a verdict on {skipped} of {verdict.labels:,}; these count against the candidate.",
        )
    if late := [gate_words.queue_words(panel.purpose) for panel in state.panels(attempt) if panel.expired]:
        yield Warned(Weakness.DEADLINE, f"The deadline passed before all labels were in: {_listed(late)}.")
    judged = _judged(attempt)
    if judged and (1 - FAULT_SHARE) ** judged > MISSED:
        share = 1 - MISSED ** (1 / judged)
        yield Warned(
            Weakness.FEW_LABELS,
            f"Few labels: on {story.counted(judged, 'comparison')}, a fault in {story.percent(share)} of the responses "
            "goes unseen one time in twenty.",
        )


def _warnings_of_decisions(state: CampaignState, attempt: Attempt) -> Iterator[Warned]:
    people = [made for made in attempt.decisions if made.reviewer != state.automatic_reviewer]
    raters = {rater for panel in state.panels(attempt) for rater in panel.labels.raters}
    if both := [visible(made.reviewer) for made in people if made.reviewer in raters]:
        yield Warned(Weakness.OWN_WORK, f"Decided by somebody who had labelled its comparisons, too: {_listed(both)}.")
    owner = state.approval.owner
    if owner is not None and any(made.reviewer == recorded_name(owner) for made in people):
        yield Warned(Weakness.OWN_WORK, f"Decided by the campaign's owner: {visible(owner)}.")
    if unvouched := [visible(made.reviewer) for made in people if made.credential is None]:
        yield Warned(Weakness.UNVOUCHED, f"Nothing shows that it was they who decided: {_listed(unvouched)}.")
    if attempt.overridden:
        wanted = story.counted(state.approvals_needed, "approval")
        yield Warned(Weakness.OVERRIDE, f"Approved by override: one word stands for the {wanted} that were wanted.")


# --- reward and raters, attempt by attempt ------------------------------------------------------------------


def _courses(state: CampaignState, attempt: Attempt) -> Iterator[Course]:
    """This attempt's and those of all before it."""
    for past in state.attempts:
        verdict, batch, judged = past.verdict, state.gate_batch(past), _judged(past)
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
            yield Earlier(f"{past.stage}.{past.attempt}", story.outcome_words(past), _plain(list(_why_refused(past))))


def _why_refused(attempt: Attempt) -> Iterator[str]:
    verdict = attempt.verdict
    if attempt.failed_phase:
        yield f"the phase failed: {attempt.stopped_by}"
    for veto in verdict.vetoes if verdict is not None else ():
        yield f"veto: {veto}"
    for question in _questions(attempt):
        if not question.passed:
            yield f"{question.title}: {_figures(question)}"
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


# --- samples ------------------------------------------------------------------------------------------------


def _samples(state: CampaignState, attempt: Attempt, artifacts: ArtifactStore) -> tuple[Samples | None, str | None]:
    """The samples, or why there are none."""
    batch = state.gate_batch(attempt)
    if attempt.candidate is None or batch is None:
        return None, "the candidate was compared with nothing"
    if attempt.verdict is None:
        return None, "nobody may learn which response is the candidate's before the verdict"
    try:
        texts = _texts(batch, artifacts)
    except (ArtifactCorruptError, ArtifactMissingError, StorageError, OSError) as error:
        return None, visible(str(error), LONGEST_WORDS).rstrip(".")
    except (KeyError, TypeError, ValueError):
        return None, f"artifact {batch.comparisons[:12]} does not hold the {batch.count} comparisons that were sealed"
    judged, each = _judged(attempt), state.feedback.raters_per_item
    said: dict[int, list[Label]] = {}
    for label in batch.entered(each, judged):
        said.setdefault(label.item, []).append(label)
    pairs = [_pair(batch, item, texts[item], said.get(item, [])) for item in range(judged or batch.count)]
    drawn = sorted(random.Random(attempt.candidate).sample(range(len(pairs)), min(RANDOM_PAIRS, len(pairs))))
    against = [pair for pair in pairs if pair.votes_against > pair.votes_for]
    worst = sorted(against, key=lambda pair: (-(pair.p_hat or 0.0), pair.number))[:WORST_PAIRS]
    return Samples(tuple(pairs[at] for at in drawn), tuple(worst), len(against), judged), None


_Texts = tuple[str, str, str]
"""Prompt, first response, second response."""


def _texts(batch: Batch, artifacts: ArtifactStore) -> dict[int, _Texts]:
    """By item.

    Raises:
        KeyError, TypeError, ValueError: the artifact is whole, and yet no queue of comparisons of this length.
    """
    found: dict[int, _Texts] = {}
    for row in artifacts.read_lines(batch.comparisons):
        prompt, first, second = row["prompt"], row["response_1"], row["response_2"]
        if not (isinstance(prompt, str) and isinstance(first, str) and isinstance(second, str)):
            raise TypeError("a comparison is made of texts")
        found[row["item"]] = (prompt, first, second)
    # An audit's queue and a gate's share their texts, so there may be more of them than items.
    if not set(range(batch.count)) <= found.keys() or len(batch.candidate_first) != batch.count:
        raise ValueError("items are missing")
    return found


def _pair(batch: Batch, item: int, texts: _Texts, labels: list[Label]) -> Pair:
    prompt, first, second = texts
    candidate_first = batch.candidate_first[item]
    wins = [label.choice.first_wins for label in labels]
    won = [None if win is None else win if candidate_first else 1.0 - win for win in wins]
    return Pair(
        number=item + 1,
        prompt=prompt,
        approved=second if candidate_first else first,
        candidate=first if candidate_first else second,
        p_hat=batch.p_hat[item] if batch.p_hat else None,
        votes_for=won.count(1.0),
        votes_against=won.count(0.0),
        votes_even=won.count(0.5),
        skipped=won.count(None),
        harmful=sum(harm_rates(batch, [label])[0] > 0 for label in labels),
    )


# --- words --------------------------------------------------------------------------------------------------


def _plain(texts: tuple[str, ...] | list[str]) -> tuple[str, ...]:
    return tuple(visible(text, LONGEST_WORDS) for text in texts)


def _signless_zero(value: float) -> float:
    """Minus nothing is nothing."""
    return value if abs(value) >= 0.0005 else 0.0


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
