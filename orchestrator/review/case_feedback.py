"""Of a safety case: what people said of the candidate's responses, whose words those are, and whom they blame.

Prompts and responses are handed on as models wrote them: whoever shows them makes them inert.
"""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from orchestrator import gate_words, lineage
from orchestrator.artifacts import ArtifactStore
from orchestrator.core.attribution import Cause, Estimate
from orchestrator.core.records import Choice, Label, Purpose
from orchestrator.core.state import Attempt, Batch, CampaignState
from orchestrator.core.vetoes import harm_rates
from orchestrator.errors import ArtifactCorruptError, ArtifactMissingError, StorageError
from orchestrator.report import story
from orchestrator.report.reading import RANDOM_PAIRS
from orchestrator.review.case_change import Row
from orchestrator.review.case_gate import LONGEST_WORDS, judged_of
from orchestrator.text import visible

WORST_PAIRS: Final = 6


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


def feedback_of(state: CampaignState, attempt: Attempt, raters: Mapping[str, Any]) -> Iterator[Row]:
    """`raters` is their view."""
    batch = state.gate_batch(attempt)
    judged = judged_of(attempt)
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


def raters_of(state: CampaignState, attempt: Attempt, raters: Mapping[str, Any]) -> tuple[Rater, ...]:
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


def blame_of(attempt: Attempt) -> tuple[Blame, ...]:
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


# --- samples ------------------------------------------------------------------------------------------------


def samples_of(state: CampaignState, attempt: Attempt, artifacts: ArtifactStore) -> tuple[Samples | None, str | None]:
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
    judged, each = judged_of(attempt), state.feedback.raters_per_item
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
