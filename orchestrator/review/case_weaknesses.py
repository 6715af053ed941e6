"""Of a safety case: why it is weaker than it looks. Every weakness has a name, and its words fit the candidate."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from orchestrator import gate_words
from orchestrator.core.panels import is_audited
from orchestrator.core.records import Verdict, recorded_name
from orchestrator.core.state import Attempt, CampaignState
from orchestrator.report import story
from orchestrator.review.case_change import Change, kl_words
from orchestrator.review.case_gate import Unasked, judged_of, plain, verdict_words
from orchestrator.text import visible

FAULT_SHARE: Final = 0.05
"""Few labels are so few that a fault in this share of the candidate's responses may well have gone unseen."""
MISSED: Final = 0.05
"""How likely that is."""


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
    BROUGHT = "brought"
    """Labels that raters said elsewhere, by the word of whoever brought them."""
    OVER_CREDIT = "over_credit"
    REWARD_MODEL = "reward_model"
    KL = "kl"
    OWN_WORK = "own_work"
    """Somebody decided on a candidate whose labels they had given or brought, or on a campaign of theirs."""
    UNVOUCHED = "unvouched"
    """Nothing shows that it was the person named who decided."""
    OVERRIDE = "override"
    NO_SAMPLES = "no_samples"


@dataclass(frozen=True, slots=True)
class Warned:
    weakness: Weakness
    words: str


def warnings_of(
    state: CampaignState, attempt: Attempt, change: Change, unasked: tuple[Unasked, ...], gap: str | None
) -> Iterator[Warned]:
    verdict = attempt.verdict
    if verdict is None or verdict.verdict is not Verdict.ADVANCE:
        yield Warned(Weakness.NOT_PASSED, f"{verdict_words(attempt)} Nothing here speaks for approving it.")
    if (nobody := story.nobody_approved(state)) is not None:
        yield Warned(Weakness.NOBODY_LOOKED, nobody)
    rater = state.feedback.rater
    if rater != "people":
        whose = "simulated" if rater == "simulated" else f"those of {visible(rater)}"
        yield Warned(Weakness.NO_PEOPLE, f"No person was asked: the labels are {whose}.")
    for veto in plain(verdict.vetoes if verdict else ()):
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
        words = kl_words(change.kl_nats, change.kl_budget_nats)
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
    judged = judged_of(attempt)
    if judged and (1 - FAULT_SHARE) ** judged > MISSED:
        share = 1 - MISSED ** (1 / judged)
        yield Warned(
            Weakness.FEW_LABELS,
            f"Few labels: on {story.counted(judged, 'comparison')}, a fault in {story.percent(share)} of the responses "
            "goes unseen one time in twenty.",
        )
    if brought := [one for panel in state.panels(attempt) for one in panel.brought]:
        labels = story.counted(sum(one.labels for one in brought), "label")
        by = _listed(sorted({visible(one.by) for one in brought}))
        yield Warned(Weakness.BROUGHT, f"Out of files came {labels}: that raters said so, nothing shows but {by}.")


def _warnings_of_decisions(state: CampaignState, attempt: Attempt) -> Iterator[Warned]:
    people = [made for made in attempt.decisions if made.reviewer != state.automatic_reviewer]
    raters = {rater for panel in state.panels(attempt) for rater in panel.labels.raters}
    if both := [visible(made.reviewer) for made in people if made.reviewer in raters]:
        yield Warned(Weakness.OWN_WORK, f"Decided by somebody who had labelled its comparisons, too: {_listed(both)}.")
    bringers = {one.by for panel in state.panels(attempt) for one in panel.brought}
    if both := [visible(made.reviewer) for made in people if made.reviewer in bringers]:
        yield Warned(Weakness.OWN_WORK, f"Decided by somebody who had brought its labels in, too: {_listed(both)}.")
    owner = state.approval.owner
    if owner is not None and any(made.reviewer == recorded_name(owner) for made in people):
        yield Warned(Weakness.OWN_WORK, f"Decided by the campaign's owner: {visible(owner)}.")
    if unvouched := [visible(made.reviewer) for made in people if made.credential is None]:
        yield Warned(Weakness.UNVOUCHED, f"Nothing shows that it was they who decided: {_listed(unvouched)}.")
    if attempt.overridden:
        wanted = story.counted(state.approvals_needed, "approval")
        yield Warned(Weakness.OVERRIDE, f"Approved by override: one word stands for the {wanted} that were wanted.")


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
