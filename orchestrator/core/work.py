"""Work items: everything a worker needs to know, written down. A spec goes in, an event body comes out.

A work item is a pure function of its spec and of the artifacts that the spec names by digest, so running one twice
gives the same digests. Its seed is derived by the worker from the campaign's seed, the stage, the attempt and the
purpose; nothing else feeds randomness.
"""

from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar

from pydantic import Field

from orchestrator.core.records import Choice, Count, Digest, Purpose, Record, place_of
from orchestrator.core.settings import (
    BaseSettings,
    CandidateSettings,
    ChecksSettings,
    PhaseSettings,
    RewardModelSettings,
    TaskSettings,
    TripwireSettings,
)


class Work(Record, ABC):
    """Base of every spec. `command_id` names the step: its event is recorded once, however often it runs."""

    WHAT: ClassVar[str]
    """For people: what the worker is doing."""

    seed: Count
    task: TaskSettings

    @property
    @abstractmethod
    def command_id(self) -> str: ...


class AttemptWork(Work):
    stage: Count
    attempt: Count

    @property
    def place(self) -> str:
        return place_of(self.stage, self.attempt)


class PrepareBase(Work):
    """Grow the seedling, or take in the given model or checkpoint. Gives `BaseReady`."""

    WHAT = "preparing the base model"
    base: BaseSettings
    start_from: Digest | None = None
    """An approved checkpoint of another campaign, taken instead of `base`."""

    @property
    def command_id(self) -> str:
        return "base"


class TakeCandidate(AttemptWork):
    """Take in an existing model, and the reward model that promised something of it. Gives `CandidateTaken`."""

    WHAT = "taking in the candidate"
    start: Digest
    """What it is judged against."""
    candidate: CandidateSettings

    @property
    def command_id(self) -> str:
        return f"{self.place}.candidate"


class DrawComparisons(Work):
    """Sample two responses a prompt and, for a gate, predict the outcome. Gives `ComparisonsDrawn`.

    `first_prompt` is the place in the prompt split where this batch begins: the gate's and the label split's
    prompts are each used once.
    """

    WHAT = "drawing comparisons"
    purpose: Purpose
    stage: Count | None = None
    attempt: Count | None = None
    policy: Digest
    """The candidate; for the initial batch the base."""
    opponent: Digest
    """What the policy is compared with: the approved checkpoint, or the policy itself."""
    reward_model: Digest | None = None
    first_prompt: Count
    count: Annotated[int, Field(ge=1)]
    max_response_tokens: Annotated[int, Field(ge=1)]
    alpha: float | None = None
    tripwires: tuple[TripwireSettings, ...] = ()
    """Patterns to count in the responses of a gate."""

    @property
    def command_id(self) -> str:
        return f"{batch_id(self.purpose, self.stage, self.attempt)}.drawn"


class DrawDirection(AttemptWork):
    """Sample the candidate several times a prompt and pair what its reward model finds best and worst.

    Gives `ComparisonsDrawn`.
    """

    WHAT = "drawing the best and the worst"
    candidate: Digest
    reward_model: Digest
    best_of: Annotated[int, Field(ge=2)]
    first_prompt: Count
    count: Annotated[int, Field(ge=1)]
    max_response_tokens: Annotated[int, Field(ge=1)]

    @property
    def command_id(self) -> str:
        return f"{batch_id(Purpose.DIRECTION, self.stage, self.attempt)}.drawn"


class DrawPath(AttemptWork):
    """Draw rollouts of the phase with probability proportional to max(advantage, 0), and pair each with a response of
    the phase's start to the same prompt. Gives `ComparisonsDrawn`.
    """

    WHAT = "drawing along the path"
    candidate: Digest
    start: Digest
    rollouts: Digest
    reward_model: Digest
    count: Annotated[int, Field(ge=1)]
    max_response_tokens: Annotated[int, Field(ge=1)]

    @property
    def command_id(self) -> str:
        return f"{batch_id(Purpose.PATH, self.stage, self.attempt)}.drawn"


class DrawChecks(AttemptWork):
    """Choose comparisons with a known answer. Gives `ComparisonsDrawn`."""

    WHAT = "drawing check items"
    candidate: Digest
    checks: ChecksSettings

    @property
    def command_id(self) -> str:
        return f"{batch_id(Purpose.CHECKS, self.stage, self.attempt)}.drawn"


class Rate(Work):
    """Ask the simulated raters about a stretch of a batch. Gives `LabelsRecorded`."""

    WHAT = "rating"
    batch: str
    comparisons: Digest
    first: Count
    count: Annotated[int, Field(ge=1)]
    raters_per_item: Annotated[int, Field(ge=1)]
    rater: str
    options: dict[str, Any] = Field(default_factory=dict)
    count_agreement: bool = True
    """Whether to count, for reports alone, how often the verdicts agree with gold."""
    by_everyone: bool = False
    """Whether every rater of the pool says something of every item, as of checks."""

    @property
    def command_id(self) -> str:
        return f"{self.batch}.rated.{self.first}"


class LabelledBatch(Record):
    batch: str
    comparisons: Digest
    policy: Digest | None = None
    """Who drew the responses: a gate's candidate, else both of each pair. None in ledgers that did not note it."""
    opponent: Digest | None = None
    """Who drew a gate's other responses."""
    candidate_first: tuple[bool, ...] = ()
    """Per item, whether `policy` drew the first response; empty where it drew both."""
    choices: tuple[tuple[Choice, ...], ...]
    """Per item of the queue, the verdicts of its raters; empty where nobody said anything."""


class FitRewardModel(AttemptWork):
    """Fit an ensemble from the base on all labels so far, renormalised on the approved policy.

    Gives `RewardModelFitted`, or `PhaseFailed` if it diverges.
    """

    WHAT = "fitting the reward model"
    base: Digest
    normalise_on: Digest
    """The policy whose rewards get mean 0 and standard deviation 1: the attempt's start."""
    batches: tuple[LabelledBatch, ...]
    settings: RewardModelSettings
    max_response_tokens: Annotated[int, Field(ge=1)]

    @property
    def command_id(self) -> str:
        return f"{self.place}.reward_model"


class RunPhase(AttemptWork):
    """Train from `start` against the reward model, or on the labels where there is none.

    Gives `PhaseFinished`, or `PhaseFailed` where the phase ends without a candidate.
    """

    WHAT = "training the policy"
    start: Digest
    reference: Digest
    base: Digest
    """To measure how far the candidate has come from it."""
    reward_model: Digest | None
    batches: tuple[LabelledBatch, ...] = ()
    """All labels that may train, for an algorithm without a reward model; else empty."""
    settings: PhaseSettings

    @property
    def command_id(self) -> str:
        return f"{self.place}.phase"


class Evaluate(Work):
    """Score samples, and a phase's rollouts, with gold. Gives `Evaluated`."""

    WHAT = "evaluating with gold"
    stage: Count | None = None
    attempt: Count | None = None
    checkpoint: Digest
    start: Digest | None = None
    approved: Digest | None = None
    """With whom the checkpoint is compared on probes."""
    rollouts: Digest | None = None
    reward_model: Digest | None = None
    prompts: Annotated[int, Field(ge=1)]
    max_response_tokens: Annotated[int, Field(ge=1)]

    @property
    def command_id(self) -> str:
        if self.stage is None or self.attempt is None:
            return "base.evaluated"
        return f"{place_of(self.stage, self.attempt)}.evaluated"


def batch_id(purpose: Purpose, stage: int | None, attempt: int | None) -> str:
    """Name of a batch of comparisons inside its campaign: `initial`, `s0.a1.gate`."""
    if stage is None or attempt is None:
        return purpose.value
    return f"{place_of(stage, attempt)}.{purpose.value}"
