"""The values that events carry and that state is made of. Frozen; no behaviour beyond arithmetic on themselves."""

import unicodedata
from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field

Digest = Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]
"""SHA-256, lower-case hexadecimal: the name of an artifact or of a state."""
Count = Annotated[int, Field(ge=0)]


class Record(BaseModel):
    """Base of everything on the ledger: unknown keys are errors, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


class Verdict(StrEnum):
    ADVANCE = "advance"
    """The evidence clears every threshold."""
    ROLLBACK = "rollback"
    """The evidence shows no improvement, an over-promise, or cannot be had."""
    WAIT = "wait"
    """Not enough evidence yet. Never treated as ADVANCE."""


class Status(StrEnum):
    RUNNING = "running"
    WAITING = "waiting"
    """People are asked for labels or for a decision."""
    PAUSED = "paused"
    FINISHED = "finished"
    STOPPED = "stopped"
    """Ended by a person before its end."""


class EndedBy(StrEnum):
    STAGES_COMPLETED = "stages_completed"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    STOPPED = "stopped"


class Choice(StrEnum):
    """What a rater says of a comparison."""

    FIRST = "first"
    SECOND = "second"
    TIE = "tie"
    BOTH_BAD = "both_bad"
    SKIP = "skip"
    """No opinion: counts against the candidate at the gate, trains nothing."""

    @property
    def first_wins(self) -> float | None:
        """Outcome in [0, 1] for the first response; None where nothing was said."""
        return {"first": 1.0, "second": 0.0, "tie": 0.5, "both_bad": 0.5, "skip": None}[self.value]

    @property
    def swapped(self) -> "Choice":
        """The same, said of the two responses in the other order."""
        return {Choice.FIRST: Choice.SECOND, Choice.SECOND: Choice.FIRST}.get(self, self)


class Purpose(StrEnum):
    """What a batch of comparisons is for."""

    INITIAL = "initial"
    """On the base's samples, before the first reward model."""
    TRAINING = "training"
    """On the last candidate's own samples; trains only."""
    GATE = "gate"
    """Candidate against approved. This and all further ones judge."""
    DIRECTION = "direction"
    """Best against worst of the candidate's own samples, by its reward model."""
    PATH = "path"
    """Rollouts of the phase, drawn by the reward that they were paid, against samples of its start."""
    CREEP_BASE = "creep_base"
    """Candidate against the base."""
    CREEP_OLDER = "creep_older"
    """Candidate against a checkpoint approved some time ago."""
    AUDIT = "audit"
    """The front of the gate's queue, shown to an evaluator better than the raters; never trains."""
    CHECKS = "checks"
    """Items with a known answer; they tell of the rater, judge no candidate and never train."""

    @property
    def judges(self) -> bool:
        """Whether the batch belongs to a gate: sealed whole before the first of its labels."""
        return self not in (Purpose.INITIAL, Purpose.TRAINING)

    @property
    def trains(self) -> bool:
        """Whether its labels may ever train; those of a gate only after the verdict."""
        return self not in (Purpose.AUDIT, Purpose.CHECKS)

    @property
    def counted_as(self) -> str:
        """Where its labels stand in the account of costs."""
        if self in (Purpose.DIRECTION, Purpose.PATH, Purpose.CREEP_BASE, Purpose.CREEP_OLDER):
            return Purpose.GATE.value
        return self.value


class Harm(StrEnum):
    """Which responses of a comparison a rater flags as harmful."""

    FIRST = "first"
    SECOND = "second"
    BOTH = "both"

    @property
    def swapped(self) -> "Harm":
        return {Harm.FIRST: Harm.SECOND, Harm.SECOND: Harm.FIRST}.get(self, self)


class Decision(StrEnum):
    APPROVE = "approve"
    REJECT = "reject"


class Role(StrEnum):
    """What a person may do at a campaign. None includes another."""

    LABELER = "labeler"
    """Says which response is better."""
    APPROVER = "approver"
    """Approves or rejects candidates, and settles what labelers disagree about."""
    AUDITOR = "auditor"
    """Labels what the audit asks; apart from the labelers."""


AUTOMATIC_REVIEWERS: Final = frozenset({"gate", "protocol"})
"""Who decides on candidates where no person does."""
CONTROLLER: Final = "controller"
"""The author of what the controller itself appends."""


def recorded_name(name: str) -> str:
    """As a person's name is recorded, however the campaign file spells it."""
    # More than once where folding leaves marks in another order than it found them, as of some Greek letters.
    while (folded := " ".join(unicodedata.normalize("NFKC", name).casefold().split())) != name:
        name = folded
    return name


def place_of(stage: int, attempt: int) -> str:
    """An attempt's name inside its campaign: `s0.a1`."""
    return f"s{stage}.a{attempt}"


class Label(Record):
    """One rater's verdict on one comparison."""

    item: Count
    """Place of the comparison in its batch's queue, from 0."""
    rater: str
    choice: Choice
    harm: Harm | None = None
    """None: neither."""
    swapped: bool = False
    """Whether the rater saw the second response on the left; `choice` and `harm` go by the comparison's own order."""


class Costs(Record):
    """What work consumed. Added up over a campaign, discarded attempts included."""

    prompts: Count = 0
    samples: Count = 0
    """Responses sampled from a policy."""
    tokens: Count = 0
    """Response tokens sampled."""
    gradient_steps: Count = 0
    """Optimizer steps, of policies and of reward-model members alike."""
    compute_seconds: Annotated[float, Field(ge=0)] = 0.0
    """Time a worker was busy."""

    def __add__(self, other: Self) -> Self:
        return type(self)(**{name: getattr(self, name) + getattr(other, name) for name in type(self).model_fields})


class LabelCounts(Record):
    """Labels bought so far, by purpose. `audit` and `checks` are bought by instruments that label apart."""

    initial: Count = 0
    gate: Count = 0
    training: Count = 0
    audit: Count = 0
    checks: Count = 0

    @property
    def total(self) -> int:
        return self.initial + self.gate + self.training + self.audit + self.checks

    def plus(self, purpose: Purpose, count: int) -> Self:
        kind = purpose.counted_as
        return self.model_copy(update={kind: getattr(self, kind) + count})
