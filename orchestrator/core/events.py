"""What can happen to a campaign: one frozen, versioned model per event type.

A work item's result *is* an event body, so a worker writes the very words that the ledger keeps. Bodies carry
digests and numbers; texts and tensors live in artifacts. Once released, a model is never edited: a change is a
new version beside the old one, and `parse` keeps reading both.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar, Final, get_args

from pydantic import Field, ValidationError

from orchestrator.core.attribution import Attribution, Estimate
from orchestrator.core.envelope import StoredEvent
from orchestrator.core.gate import GateVerdict
from orchestrator.core.records import Choice, Costs, Count, Decision, Digest, EndedBy, Label, Purpose, Record

ROLLOUT_STEPS: Final = "steps.jsonl"
"""File of a rollouts artifact: one JSON object per RL step, in numbers."""


Credential = Annotated[str, Field(pattern=r"\A[A-Za-z0-9_-]{1,64}\z")]
"""Public id of the token by whose holder something was said; None for controllers, which hold none."""


class EventBody(Record):
    TYPE: ClassVar[str]
    VERSION: ClassVar[int] = 1


class CampaignCreated(EventBody):
    TYPE = "campaign_created"
    settings: dict[str, Any]
    """The resolved configuration, every default written out."""
    settings_digest: Digest
    inputs: dict[str, Digest] = Field(default_factory=dict)
    """Digest of every file that the campaign reads as it goes, by the key that names it."""
    code_version: str
    start_from: Digest | None = None
    """An approved checkpoint of another campaign that serves as this one's base."""


class ControllerStarted(EventBody):
    TYPE = "controller_started"
    owner: str


class BaseReady(EventBody):
    TYPE = "base_ready"
    checkpoint: Digest
    parameters: Count
    loss_nats: float | None = None
    """Mean next-token loss at the end of pre-training; None where the base was given."""
    costs: Costs


class Evaluated(EventBody):
    """Gold seen from outside. Trains nothing, gates nothing; its cost is the experimenter's, not the campaign's."""

    TYPE = "evaluated"
    checkpoint: Digest
    stage: Count | None = None
    """None for the base."""
    attempt: Count | None = None
    gold_mean: float | None
    """None where the task has no gold scorer."""
    gold_se: Annotated[float, Field(ge=0)] | None
    responses: Count
    samples: Digest
    gold_by_step: tuple[float, ...] = ()
    """Mean gold of each step's rollouts; empty for the base."""
    gold_steps: tuple[Count, ...] = ()
    """Which steps these are; empty where every step, from 0 on, has rollouts."""
    wrong_reward_share: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of positive advantage paid to responses below the mean gold of the first step's rollouts (M)."""
    wrong_reward: float | None = None
    """The same, absolute: the sum of such advantages."""
    reward_model_accuracy: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of phase-start sample pairs of unequal gold that the attempt's reward model orders as gold does."""
    reward_model_accuracy_candidate: Annotated[float, Field(ge=0, le=1)] | None = None
    """The same on the candidate's own samples."""
    off_distribution: Estimate | None = None
    """Win rate over the approved policy by gold on ordinary prompts, less that on probes of the same prompts; None
    where the task has no probes."""

    @property
    def gold_course(self) -> tuple[tuple[int, float], ...]:
        """Step and mean gold of its rollouts."""
        steps = self.gold_steps or range(len(self.gold_by_step))
        return tuple(zip(steps, self.gold_by_step, strict=True))


class TripwireRate(Record):
    """How often a pattern occurs in a gate's responses."""

    name: str
    candidate: Annotated[float, Field(ge=0, le=1)]
    """Share of the candidate's responses."""
    opponent: Annotated[float, Field(ge=0, le=1)]


class ComparisonsDrawn(EventBody):
    """Seals a batch before its first label: pairs, order, predictions, and what they question."""

    TYPE = "comparisons_drawn"
    purpose: Purpose
    stage: Count | None = None
    attempt: Count | None = None
    comparisons: Digest
    count: Count
    candidate: Digest | None = None
    """Whom the batch is about; who drew the responses, unless there is an opponent."""
    opponent: Digest | None = None
    """Who drew the responses that the candidate's are compared with."""
    reward_model: Digest | None = None
    candidate_first: tuple[bool, ...] = ()
    """Where a batch judges: whether the response on the candidate's side (of a direction: the one that the reward
    model finds better) stands first."""
    p_hat: tuple[Annotated[float, Field(ge=0, le=1)], ...] = ()
    """Where a batch judges: the reward model's probability that this response is preferred; empty where the protocol
    has no reward model that could promise anything."""
    alpha: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Gate only: the error budget that this attempt spends."""
    first_prompt: Count | None = None
    """Place in its split where the batch's prompts begin; None where they are not its own."""
    expected: tuple[Choice, ...] = ()
    """Checks only: what anybody who reads must say."""
    candidate_tokens_mean: Annotated[float, Field(ge=0)] | None = None
    """Gate only: mean length of the candidate's responses, in tokens, and of the opponent's; in the opponent's tokens
    where their tokenizers differ."""
    opponent_tokens_mean: Annotated[float, Field(ge=0)] | None = None
    tripwires: tuple[TripwireRate, ...] = ()
    costs: Costs


class Origin(Record):
    """Where labels came from that nobody said at a desk: a file, which the event's author brought."""

    format: str
    file: Digest
    """SHA-256 of its bytes."""


class LabelsRecorded(EventBody):
    TYPE = "labels_recorded"
    batch: str
    labels: Annotated[tuple[Label, ...], Field(min_length=1)]
    with_gold: Count | None = None
    """Labels that name a winner where gold does, too: a simulated rater's realised agreement is measured on these.
    None where people label, where the task has no gold, and on ledgers from before this was measured. Reported,
    never decided by: gold stays outside the loop."""
    agreed_with_gold: Count | None = None
    """How many of these name gold's winner."""
    credential: Credential | None = None
    origin: Origin | None = None
    """None where whoever labelled said so themselves. Otherwise the author answers for it that they did, elsewhere, and
    the credential is the author's."""


class LabelWithdrawn(EventBody):
    """A rater takes the last word back. Where that came too late, it stays recorded and changes nothing."""

    TYPE = "label_withdrawn"
    batch: str
    item: Count
    rater: str
    credential: Credential | None = None


class LabelRepeated(EventBody):
    """A rater's second verdict on a comparison that was shown again unmarked, its sides swapped.

    It tells how steady the rater is; it judges and trains nothing.
    """

    TYPE = "label_repeated"
    batch: str
    label: Label
    credential: Credential | None = None


class LabelAdjudicated(EventBody):
    """Somebody's settling word on a comparison that raters saw differently.

    Their verdicts stay. A gate's outcome remains the mean that was fixed beforehand; what trains is this word.
    """

    TYPE = "label_adjudicated"
    batch: str
    item: Count
    choice: Choice
    adjudicator: Annotated[str, Field(min_length=1, max_length=200)]
    credential: Credential | None = None


class LabellingPaused(EventBody):
    """Nobody is given comparisons until it goes on; deadlines do not wait."""

    TYPE = "labelling_paused"
    why: str


class LabellingResumed(EventBody):
    TYPE = "labelling_resumed"


class FeedbackExpired(EventBody):
    """The label deadline passed: what is missing counts against the candidate."""

    TYPE = "feedback_expired"
    batch: str


class AttemptBegun(EventBody):
    TYPE = "attempt_begun"
    stage: Count
    attempt: Count
    start: Digest
    """The checkpoint from which the protocol makes this attempt begin."""
    reward_model: Digest | None = None
    """Carried over where the protocol freezes it; None where this attempt fits its own."""


class RewardModelFitted(EventBody):
    TYPE = "reward_model_fitted"
    stage: Count
    attempt: Count
    reward_model: Digest
    label_set: Digest
    labels: Count
    accuracy: Annotated[float, Field(ge=0, le=1)]
    """On labels that the judging member had not been fitted on."""
    accuracy_low: Annotated[float, Field(ge=0, le=1)]
    accuracy_high: Annotated[float, Field(ge=0, le=1)]
    log_loss_nats: Annotated[float, Field(ge=0)]
    """Held-out; a constant one half scores ln 2 = 0.693."""
    temperature: Annotated[float, Field(gt=0)]
    calibration_slope: float | None = None
    """Of held-out labels on the predicted logit: 1 = probabilities mean what they say, below 1 = overconfident."""
    calibration_slope_se: Annotated[float, Field(ge=0)] | None = None
    effective_labels: Annotated[float, Field(ge=0)] | None = None
    """Where labels weigh by importance: as many equally weighted ones as they are worth."""
    trained_on: tuple[str, ...] = ()
    """The batches whose labels it has seen."""
    costs: Costs


class Distances(Record):
    """How far a candidate is from two policies, as sequence KL; each half is estimated on the samples of its first."""

    reverse_reference_nats: float
    """KL(candidate || reference): the price of what is new."""
    forward_reference_nats: float
    """KL(reference || candidate): what was dropped."""
    reverse_base_nats: float | None = None
    forward_base_nats: float | None = None
    largest_token_log_ratio_nats: float
    """Largest log(candidate/reference) of a token that the candidate drew: a mean hides rare events."""
    high_token_log_ratio_nats: float
    """Its 99.9th percentile."""
    exact: bool
    """Summed over the vocabulary at each token; otherwise k3 on the tokens drawn."""


class PhaseFinished(EventBody):
    TYPE = "phase_finished"
    stage: Count
    attempt: Count
    candidate: Digest
    start: Digest
    start_digest: Digest
    """Of the tensors in memory after the start was restored: equal at every attempt of a stage."""
    rollouts: Digest
    steps: Count
    """Gradient steps taken."""
    stopped_by: str
    proxy: float
    """Mean reward of the last step, in standard deviations of the approved policy's rewards."""
    kl_nats: float
    """Sequence KL(candidate || reference) at the end."""
    steps_allowed: Count | None = None
    """`phase.steps`: batches, each of `updates_per_batch` times `minibatches` gradient steps."""
    kl_budget_nats: float | None = None
    """Both as they were for this attempt, after any shortening."""
    distances: Distances | None = None
    spread_start: float | None = None
    """Disagreement between the reward model's members on the start's samples, and on the candidate's."""
    spread_candidate: float | None = None
    label_set: Digest | None = None
    """What an algorithm without a reward model was trained on."""
    trained_on: tuple[str, ...] = ()
    """The batches that these labels are from."""
    implicit_reward: RewardModelFitted | None = None
    """The candidate read as a reward model, where the algorithm makes it one: what the gate holds it to."""
    costs: Costs


class CandidateTaken(EventBody):
    """A candidate that came from elsewhere: nothing was trained here, and its descent is not known."""

    TYPE = "candidate_taken"
    stage: Count
    attempt: Count
    candidate: Digest
    start: Digest
    """What it is judged against."""
    parameters: Count
    reward_model: Digest | None = None
    """What is held to its promises; None where nothing was promised."""
    costs: Costs


class PhaseFailed(EventBody):
    """The policy or its reward model broke down. There is no candidate, and the attempt is rolled back."""

    TYPE = "phase_failed"
    stage: Count
    attempt: Count
    failure: str | None = None
    """Its name: non_finite, kl_explosion, empty_responses, no_signal, nothing_learned."""
    why: str
    costs: Costs = Costs()


class VerdictGiven(EventBody):
    TYPE = "verdict_given"
    stage: Count
    attempt: Count
    candidate: Digest | None
    decision: GateVerdict
    attribution: Attribution | None = None
    """Where over-credit comes from; None where nothing was labelled."""


class DecisionMade(EventBody):
    """A named reviewer's word on one digest. `gate` and `protocol` decide only where the campaign says so."""

    TYPE = "decision_made"
    candidate: Digest
    stage: Count | None = None
    """With `attempt`: whose candidate it was when it was decided on; the same digest may come again."""
    attempt: Count | None = None
    decision: Decision
    reviewer: Annotated[str, Field(min_length=1, max_length=200)]
    override: bool = False
    """An approval that stands for all that are wanted: four eyes became two, and here it says so."""
    credential: Credential | None = None


class RolledBack(EventBody):
    TYPE = "rolled_back"
    stage: Count
    attempt: Count
    to: Digest
    """The checkpoint restored: what the next attempt begins from."""
    quarantined: Digest | None
    why: str


class Advanced(EventBody):
    TYPE = "advanced"
    stage: Count
    attempt: Count
    approved: Digest
    parent: Digest


class Paused(EventBody):
    TYPE = "paused"
    why: str


class Resumed(EventBody):
    TYPE = "resumed"


class Finished(EventBody):
    TYPE = "finished"
    ended_by: EndedBy


Body = (
    CampaignCreated
    | ControllerStarted
    | BaseReady
    | Evaluated
    | ComparisonsDrawn
    | LabelsRecorded
    | LabelWithdrawn
    | LabelRepeated
    | LabelAdjudicated
    | LabellingPaused
    | LabellingResumed
    | FeedbackExpired
    | AttemptBegun
    | RewardModelFitted
    | PhaseFinished
    | PhaseFailed
    | CandidateTaken
    | VerdictGiven
    | DecisionMade
    | RolledBack
    | Advanced
    | Paused
    | Resumed
    | Finished
)

_BODIES: Final[dict[tuple[str, int], type[EventBody]]] = {(body.TYPE, body.VERSION): body for body in get_args(Body)}


class UnknownEventError(ValueError):
    """An event that this version of the program cannot read."""


@dataclass(frozen=True, slots=True)
class Event:
    """A body with the facts of its recording."""

    seq: int
    command_id: str
    at: datetime
    """Aware, UTC. For people and durations; order is by `seq` alone."""
    epoch: int | None
    """The controller's; None where a person appended."""
    author: str
    reason: str
    body: EventBody


def parse(stored: StoredEvent) -> Event:
    """Read a stored event.

    Raises:
        UnknownEventError: the type or version is unknown, or the body does not fit it.
    """
    model = _BODIES.get((stored.type, stored.version))
    if model is None:
        raise UnknownEventError(
            f"event {stored.seq}: type {stored.type!r} version {stored.version} is unknown to this program; "
            "use the version that wrote it, or a newer one"
        )
    try:
        body = model.model_validate_json(stored.body_json)
    except ValidationError as error:
        raise UnknownEventError(f"event {stored.seq}: body of {stored.type!r} does not fit: {error}") from error
    return Event(
        seq=stored.seq,
        command_id=stored.command_id,
        at=stored.time,
        epoch=stored.epoch,
        author=stored.author,
        reason=stored.reason,
        body=body,
    )
