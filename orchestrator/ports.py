"""The narrow interface through which the runner acts: a port runs one whole work item.

Ports are coarse on purpose. Rollout, reward and update of a phase share a process; no call crosses a process
boundary per gradient step, so Ray is placement, not plumbing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from orchestrator.core.events import EventBody
from orchestrator.core.work import Work

Progress = Callable[[int, int, str], None]
"""Called with (done, total, message) while work goes on."""


@dataclass(frozen=True, slots=True)
class Claim:
    """In whose name a work item runs. A result comes back with its claim; one that is out of date is refused."""

    campaign: str
    command_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class WorkDone:
    claim: Claim
    body: EventBody
    busy_seconds: float
    """What the item took where it ran, without the way there and back."""


class Workers(Protocol):
    """Runs work items somewhere: in this process, or on Ray."""

    def run(self, work: Work, claim: Claim, progress: Progress) -> WorkDone:
        """Run one item to its end.

        Raises:
            WorkFailedError: it could not be done; `retryable` says whether another try may help.
            IntegrityError: an artifact that it needs is damaged or missing.
        """
        ...

    def close(self) -> None: ...
