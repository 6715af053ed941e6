"""What a campaign can need next. `orchestrator.core.machine` chooses; the runner and people act."""

from dataclasses import dataclass

from orchestrator.core import work as wk
from orchestrator.core.events import EventBody
from orchestrator.core.state import Attempt, Batch


@dataclass(frozen=True, slots=True)
class Do:
    """Hand a work item to a worker and record its result."""

    work: wk.Work


@dataclass(frozen=True, slots=True)
class Note:
    """Record what follows from the state alone."""

    body: EventBody
    command_id: str


@dataclass(frozen=True, slots=True)
class AskForLabels:
    """Wait for people to label `batch`; `settled` of `wanted` items from its front have their verdicts."""

    batch: Batch
    settled: int
    wanted: int


@dataclass(frozen=True, slots=True)
class AskForDecision:
    """Wait for people to approve or reject the candidate."""

    attempt: Attempt
    approvals: int
    approvers: int


@dataclass(frozen=True, slots=True)
class Halt:
    """Nothing to do: finished, stopped or paused."""


Command = Do | Note | AskForLabels | AskForDecision | Halt
