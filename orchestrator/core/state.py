"""What a campaign has come to: the frozen state that folding its events gives, and views of it.

State holds nothing that cannot be folded from the ledger again. `state_digest` leaves out names and times, so two
runs of one configuration and seed, disturbed or not, agree on it.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from pydantic import Field

from orchestrator.core.attribution import Attribution
from orchestrator.core.canonical import digest_of
from orchestrator.core.events import Distances, Evaluated, RewardModelFitted, TripwireRate
from orchestrator.core.gate import GateVerdict
from orchestrator.core.label_log import LabelLog
from orchestrator.core.records import (
    Choice,
    Costs,
    Count,
    Decision,
    Digest,
    EndedBy,
    Label,
    LabelCounts,
    Purpose,
    Record,
    Status,
    place_of,
)
from orchestrator.core.settings import (
    Advance,
    Algorithm,
    ApprovalSettings,
    CandidateSettings,
    FeedbackSettings,
    GateSettings,
    ProtocolSettings,
    RestartFrom,
)
from orchestrator.core.work import LabelledBatch, batch_id

VOLATILE: Final = frozenset(
    {
        "compute_seconds",
        "waiting_seconds",
        "last_event_at",
        "waits_since",
        "drawn_at",
        "labelled_at",
        "said_at",
        "credential",
        "brought",
        "why_paused",
        "labelling_paused",
    }
)
"""Keys that, like the campaign's name, may differ between two runs of the same campaign."""


class OpenWord(Record):
    """A rater's last word, which they may still take back; until it is final, a gate does not look at it."""

    rater: str
    item: Count
    repeat: bool = False
    said_at: datetime


class Adjudication(Record):
    """A settling word on an item that raters saw differently."""

    item: Count
    choice: Choice
    adjudicator: str
    reason: str


class Brought(Record):
    """Labels that were said elsewhere, and who answers for it."""

    by: str
    labels: Count


class Batch(Record):
    """A sealed queue of comparisons and the labels that came in for it."""

    purpose: Purpose
    stage: Count | None
    attempt: Count | None
    comparisons: Digest
    count: Count
    policy: Digest | None = None
    """Whom the batch is about: a gate's candidate, else who drew both of each pair."""
    opponent: Digest | None = None
    candidate_first: tuple[bool, ...] = ()
    p_hat: tuple[float, ...] = ()
    alpha: float | None = None
    first_prompt: Count | None = None
    expected: tuple[Choice, ...] = ()
    candidate_tokens_mean: float | None = None
    opponent_tokens_mean: float | None = None
    tripwires: tuple[TripwireRate, ...] = ()
    labels: LabelLog = Field(default_factory=LabelLog)
    """Those that stand, in order of arrival."""
    open_words: tuple[OpenWord, ...] = ()
    """One a rater at most."""
    regrets: Count = 0
    """Words taken back when they were final already; they stand."""
    repeats: LabelLog = Field(default_factory=LabelLog)
    """Second verdicts on items of this queue that were shown to the same rater again, in order of arrival."""
    adjudications: tuple[Adjudication, ...] = ()
    """In order of arrival; of an item, the last one counts."""
    brought: tuple[Brought, ...] = ()
    """How many of the labels came out of files."""
    drawn_at: datetime
    labelled_at: datetime | None = None
    """When the last label came, or the deadline passed."""
    expired_after: Count | None = None
    """Labels that were in when the deadline passed; those that came later may train, and judge nothing."""

    @property
    def id(self) -> str:
        return batch_id(self.purpose, self.stage, self.attempt)

    @property
    def expired(self) -> bool:
        return self.expired_after is not None

    @property
    def in_time(self) -> tuple[Label, ...]:
        return self.labels[: self.expired_after]

    def choices(self, raters_per_item: int) -> tuple[tuple[Choice, ...], ...]:
        """Per item, the first `raters_per_item` verdicts; later ones are kept but teach nothing."""
        return _by_item(self.labels, self.count, raters_per_item)

    def entered(self, raters_per_item: int, items: int) -> tuple[Label, ...]:
        """The labels that made the outcomes of the first `items`: the first `raters_per_item` of each."""
        said = [0] * self.count
        entered = []
        for label in self.in_time:
            if label.item < items and said[label.item] < raters_per_item:
                said[label.item] += 1
                entered.append(label)
        return tuple(entered)

    def settled(self, raters_per_item: int) -> int:
        """Items from the front of the queue that have all their verdicts, for good.

        A missing verdict blocks the items behind it, and so does one that may still be taken back, unless the queue is
        complete: then there is nothing left to wait for. A word beyond the verdicts that count blocks nothing.
        """
        if self.expired:
            return self.count
        front = min(self.labels.front(raters_per_item), self.count)
        if front == self.count:
            return front
        open_items = (
            word.item
            for word in self.open_words
            if not word.repeat and word.rater in {said.rater for said in self.labels.on(word.item)[:raters_per_item]}
        )
        return min((front, *open_items))

    def complete(self, raters_per_item: int) -> bool:
        """Whether every item has its verdicts, or the time for them is over."""
        return self.expired or self.labels.front(raters_per_item) >= self.count

    def teaches(self, raters_per_item: int) -> tuple[tuple[Choice, ...], ...]:
        """Per item, the verdicts that train: its raters', or the one that settled their disagreement."""
        settled = {word.item: (word.choice,) for word in self.adjudications}
        return tuple(settled.get(item, said) for item, said in enumerate(self.choices(raters_per_item)))

    def outcomes(self, raters_per_item: int) -> tuple[float | None, ...]:
        """Where it judges: outcome for the candidate's side of each settled item, in queue order.

        A rater who skipped or never came has not preferred it; None where all did.
        """
        return tuple(sum(won) / raters_per_item if won else None for won in self._won(raters_per_item))

    def opinions(self, raters_per_item: int) -> tuple[float | None, ...]:
        """The same, as the mean over those who had an opinion."""
        return tuple(sum(won) / len(won) if won else None for won in self._won(raters_per_item))

    def unsaid(self, raters_per_item: int) -> tuple[float, ...]:
        """Of each settled item, the share of its raters who had no opinion."""
        return tuple(1.0 - len(won) / raters_per_item for won in self._won(raters_per_item))

    def _won(self, raters_per_item: int) -> list[list[float]]:
        """Of each settled item, what every rater with an opinion gave the candidate's side in time."""
        said = _by_item(self.in_time, self.count, raters_per_item)[: self.settled(raters_per_item)]
        return [
            [
                first if candidate_first else 1.0 - first
                for choice in choices
                if (first := choice.first_wins) is not None
            ]
            for choices, candidate_first in zip(said, self.candidate_first, strict=False)
        ]


class ReviewDecision(Record):
    decision: Decision
    reviewer: str
    reason: str
    override: bool = False
    credential: str | None = None
    """Public id of the token with which it was said; None for the gate and the protocol."""


class Attempt(Record):
    stage: Count
    attempt: Count
    start: Digest
    reward_model: Digest | None = None
    fitted: RewardModelFitted | None = None
    """None where the reward model was carried over, or where there is none."""
    label_set: Digest | None = None
    """What the reward model, or the policy itself where there is none, was trained on."""
    candidate: Digest | None = None
    start_digest: Digest | None = None
    rollouts: Digest | None = None
    steps: Count = 0
    stopped_by: str | None = None
    failure: str | None = None
    """Name of what broke a failed phase."""
    proxy: float | None = None
    kl_nats: float | None = None
    kl_budget_nats: float | None = None
    distances: Distances | None = None
    spread_start: float | None = None
    spread_candidate: float | None = None
    evaluation: Evaluated | None = None
    verdict: GateVerdict | None = None
    attribution: Attribution | None = None
    decisions: tuple[ReviewDecision, ...] = ()
    advanced: bool = False
    rolled_back_to: Digest | None = None
    costs: Costs = Costs()

    @property
    def place(self) -> str:
        return place_of(self.stage, self.attempt)

    @property
    def closed(self) -> bool:
        return self.advanced or self.rolled_back_to is not None

    @property
    def promises_nothing(self) -> bool:
        """Whether the candidate came about without any reward model, so that nothing was promised of it."""
        return self.candidate is not None and self.reward_model is None

    @property
    def failed_phase(self) -> bool:
        return self.stopped_by is not None and self.candidate is None

    @property
    def approvers(self) -> frozenset[str]:
        return frozenset(d.reviewer for d in self.decisions if d.decision is Decision.APPROVE)

    @property
    def overridden(self) -> bool:
        """Whether one approval stood for all that are wanted."""
        return any(d.override for d in self.decisions)

    @property
    def rejected(self) -> bool:
        return any(d.decision is Decision.REJECT for d in self.decisions)


class Deployment(Record):
    """A checkpoint that became the deployable one, and what everything had cost by then."""

    checkpoint: Digest
    parent: Digest | None
    gold_mean: float | None = None
    gold_se: float | None = None
    labels: LabelCounts = LabelCounts()
    costs: Costs = Costs()


class CampaignState(Record):
    name: str = ""
    settings_digest: Digest | None = None
    start_from: Digest | None = None
    protocol: ProtocolSettings = ProtocolSettings()
    feedback: FeedbackSettings = FeedbackSettings()
    gate: GateSettings = GateSettings()
    approval: ApprovalSettings = ApprovalSettings()
    algorithm: Algorithm = Algorithm.RLOO
    candidate: CandidateSettings | None = None
    """The rules that the campaign was created with: folding refuses what breaks them."""
    status: Status = Status.RUNNING
    why_paused: str | None = None
    labelling_paused: str | None = None
    """Why nobody is given comparisons now; None where people are."""
    ended_by: EndedBy | None = None
    base: Digest | None = None
    approved: Digest | None = None
    reward_model: Digest | None = None
    """The last one fitted."""
    base_evaluation: Evaluated | None = None
    batches: tuple[Batch, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    deployments: tuple[Deployment, ...] = ()
    """The base first, then every approved checkpoint."""
    labels: LabelCounts = LabelCounts()
    labels_with_gold: Count = 0
    """Simulated raters' labels that name a winner where gold does, too. For reports; no decision reads it."""
    labels_agreed_with_gold: Count = 0
    """How many of these name gold's winner."""
    costs: Costs = Costs()
    """All work so far, the base's growing aside; discarded attempts included."""
    waiting_seconds: float = 0.0
    """Time between a person's word, or the deadline of words, and what was done before it."""
    last_event_at: datetime | None = None
    waits_since: datetime | None = None
    """When the last thing was done that people may be waited for since."""

    @property
    def stage(self) -> int:
        """The stage under way, or the last one."""
        return self.attempts[-1].stage if self.attempts else 0

    @property
    def advances(self) -> int:
        return max(len(self.deployments) - 1, 0)

    @property
    def rollbacks(self) -> int:
        return sum(attempt.rolled_back_to is not None for attempt in self.attempts)

    @property
    def open_attempt(self) -> Attempt | None:
        return self.attempts[-1] if self.attempts and not self.attempts[-1].closed else None

    @property
    def last_candidate(self) -> Digest | None:
        return next((a.candidate for a in reversed(self.attempts) if a.candidate is not None), None)

    @property
    def restart_point(self) -> Digest | None:
        """Where the protocol makes the next attempt begin; None before the base is ready."""
        match self.protocol.restart_from:
            case RestartFrom.APPROVED:
                return self.approved
            case RestartFrom.BASE:
                return self.base
            case RestartFrom.LAST:
                return self.last_candidate or self.base

    @property
    def promises(self) -> bool:
        """As `CampaignSettings.promises`."""
        if self.candidate is not None:
            return self.candidate.reward_model is not None
        return self.algorithm.promises

    @property
    def automatic_reviewer(self) -> str | None:
        """Who decides instead of people, where the campaign says so."""
        if self.protocol.advance is Advance.ALWAYS:
            return "protocol"
        return "gate" if self.approval.by == "gate" else None

    @property
    def approvals_needed(self) -> int:
        return self.approval.approvers if self.automatic_reviewer is None else 1

    def approvals_missing(self, attempt: Attempt) -> int:
        return 0 if attempt.overridden else max(self.approvals_needed - len(attempt.approvers), 0)

    @property
    def alpha_spent(self) -> float:
        return sum(batch.alpha or 0.0 for batch in self.batches)

    def batch(self, batch: str) -> Batch | None:
        return next((b for b in self.batches if b.id == batch), None)

    def panel(self, attempt: Attempt, purpose: Purpose) -> Batch | None:
        """One of the batches that judge an attempt."""
        return self.batch(batch_id(purpose, attempt.stage, attempt.attempt))

    def gate_batch(self, attempt: Attempt) -> Batch | None:
        return self.panel(attempt, Purpose.GATE)

    def panels(self, attempt: Attempt) -> tuple[Batch, ...]:
        """All batches that judge an attempt, as far as they are sealed."""
        place = (attempt.stage, attempt.attempt)
        return tuple(b for b in self.batches if b.purpose.judges and (b.stage, b.attempt) == place)

    def alpha_spent_before(self, stage: int) -> tuple[float, ...]:
        return tuple(b.alpha or 0.0 for b in self.batches if b.stage is not None and b.stage < stage)

    def training_labels(self, raters_per_item: int) -> tuple[LabelledBatch, ...]:
        """Every label that may train."""
        return tuple(
            LabelledBatch(
                batch=b.id,
                comparisons=b.comparisons,
                # Along a path many policies drew, none of which is kept.
                policy=None if b.purpose is Purpose.PATH else b.policy,
                opponent=b.opponent,
                candidate_first=b.candidate_first,
                choices=b.teaches(raters_per_item),
            )
            for b in self.batches
            if self.may_train(b)
        )

    def may_train(self, batch: Batch) -> bool:
        """Whether a batch's labels may train something now: never those of instruments, and those that judge only
        after their verdict."""
        judging = self.open_attempt
        place = (judging.stage, judging.attempt) if judging is not None and judging.verdict is None else None
        sealed = batch.purpose.judges and (batch.stage, batch.attempt) == place
        return batch.purpose.trains and bool(batch.labels) and not sealed


def state_digest(state: CampaignState) -> str:
    """Digest of the folded state without names, times and durations."""
    return digest_of(_without_volatile(state.model_dump(mode="json", exclude={"name"})))


def _without_volatile(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_volatile(item) for key, item in value.items() if key not in VOLATILE}
    if isinstance(value, list):
        return [_without_volatile(item) for item in value]
    return value


def _by_item(labels: Iterable[Label], count: int, raters_per_item: int) -> tuple[tuple[Choice, ...], ...]:
    by_item: list[list[Choice]] = [[] for _ in range(count)]
    for label in labels:
        if len(by_item[label.item]) < raters_per_item:
            by_item[label.item].append(label.choice)
    return tuple(tuple(choices) for choices in by_item)
