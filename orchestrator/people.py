"""What people do to a campaign: label, approve or reject, pause, stop. Each is an event on the same chain.

A person's word is checked against the newest state and appended only if nothing came in since, so a decision can
never land on a history that its author had not seen; a race makes one of two people look again.
"""

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from orchestrator.core import events as ev
from orchestrator.core.commands import AskForDecision, AskForLabels
from orchestrator.core.events import EventBody
from orchestrator.core.history import IllegalEventError
from orchestrator.core.machine import next_command
from orchestrator.core.records import Choice, Decision, EndedBy, Label, Status
from orchestrator.core.settings import CampaignSettings
from orchestrator.core.state import Attempt, Batch, CampaignState
from orchestrator.errors import CommandConflictError, HeadMovedError, UsageError
from orchestrator.runner import draft, read_settings, read_state_at, would_fold
from orchestrator.store.ledger import Ledger
from orchestrator.text import visible

TRIES: Final = 20
"""Times an append is tried anew when others append at the same moment."""


def same_name(name: str) -> str:
    """One spelling of a name: `Ann`, `ann ` and `ＡＮＮ` are one person, not three approvers.

    Raises:
        UsageError: nothing is left of it, or it is longer than 200 characters.
    """
    plain = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
    if not 0 < len(plain) <= 200 or plain != visible(plain):
        raise UsageError(f"{visible(name, 40)!r} is no name; give one of 1 to 200 printable characters")
    return plain


@dataclass(frozen=True, slots=True)
class Desk:
    """A person's place at one campaign."""

    ledger: Ledger
    campaign: str
    person: str
    """As `same_name` spells it."""
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def state(self) -> CampaignState:
        return read_state_at(self.ledger, self.campaign)[0]

    def settings(self) -> CampaignSettings:
        return read_settings(self.ledger, self.campaign)

    def open_batch(self) -> Batch | None:
        """The batch that people are asked to label now."""
        command = next_command(self.state(), self.settings())
        return command.batch if isinstance(command, AskForLabels) else None

    def candidate(self) -> Attempt | None:
        """The attempt whose candidate waits for a decision."""
        command = next_command(self.state(), self.settings())
        return command.attempt if isinstance(command, AskForDecision) else None

    def next_item(self, batch: Batch) -> int | None:
        """The first item of the queue that needs a verdict and has none of this person's."""
        wanted = self.settings().feedback.raters_per_item
        mine = {label.item for label in batch.labels if label.rater == self.person}
        said = batch.choices(wanted)
        return next((i for i in range(batch.count) if len(said[i]) < wanted and i not in mine), None)

    def label(self, batch: Batch, item: int, choice: Choice) -> None:
        """Record a verdict. Saying the same twice is saying it once.

        Raises:
            UsageError: the item was labelled differently before, or needs no label any more.
        """
        fresh = self.state().batch(batch.id)
        mine = fresh is not None and any((said.item, said.rater) == (item, self.person) for said in fresh.labels)
        wanted = self.settings().feedback.raters_per_item
        if fresh is not None and not mine and 0 <= item < fresh.count and len(fresh.choices(wanted)[item]) >= wanted:
            raise UsageError(f"item {item + 1} of {batch.id} needs no label any more; others were quicker")
        body = ev.LabelsRecorded(batch=batch.id, labels=(Label(item=item, rater=self.person, choice=choice),))
        self._append(body, f"{batch.id}.{item}.label.{self.person}")

    def decide(self, decision: Decision, digest: str, reason: str) -> str:
        """Approve or reject the candidate whose digest begins with `digest`; gives the whole digest.

        Saying the same twice is saying it once, also where the first word was the last that was needed.

        Raises:
            UsageError: no candidate waits, or another one does.
        """
        if (known := self._decided(decision, digest)) is not None:
            return known
        _require_reason(reason)
        attempt = self.candidate()
        if attempt is None or attempt.candidate is None:
            raise UsageError(
                f"campaign {self.campaign}: no candidate waits for a decision; "
                f"see `ratchet review list {self.campaign}`"
            )
        if len(digest) < 8 or not attempt.candidate.startswith(digest.lower()):
            raise UsageError(
                f"the candidate under review is {attempt.candidate[:12]}, not {digest[:12]!r}; "
                f"look again: `ratchet review list {self.campaign}` (8 or more digits name a candidate)"
            )
        body = ev.DecisionMade(candidate=attempt.candidate, decision=decision, reviewer=self.person)
        self._append(body, f"{attempt.place}.decision.{self.person}", reason=reason)
        return attempt.candidate

    def pause(self, reason: str) -> None:
        """Ask the controller to pause after the work item under way.

        Raises:
            UsageError: the campaign has ended.
        """
        state, seq = read_state_at(self.ledger, self.campaign)
        if state.status is not Status.PAUSED:
            self._append(ev.Paused(why=reason), f"paused.{seq}", reason=reason)

    def stop(self, reason: str) -> None:
        """End the campaign for good; the approved checkpoint stays what it is.

        Raises:
            UsageError: it has ended already.
        """
        _require_reason(reason)
        self._append(ev.Finished(ended_by=EndedBy.STOPPED), "finished", reason=reason)

    def _decided(self, decision: Decision, digest: str) -> str | None:
        """The whole digest, where this person's decision on the newest candidate stands recorded already."""
        attempt = next(iter(reversed(self.state().attempts)), None)
        if attempt is None or attempt.candidate is None or len(digest) < 8:
            return None
        said = any((d.reviewer, d.decision) == (self.person, decision) for d in attempt.decisions)
        return attempt.candidate if said and attempt.candidate.startswith(digest.lower()) else None

    def _append(self, body: EventBody, command_id: str, *, reason: str = "") -> None:
        drafted = draft(body, command_id, author=self.person, reason=reason)
        for _ in range(TRIES):
            state, seq = read_state_at(self.ledger, self.campaign)
            try:
                would_fold(state, body, drafted, at=self.now(), seq=seq + 1, epoch=None)
            except IllegalEventError as error:
                if self._is_recorded(command_id, drafted.body):
                    return
                raise UsageError(f"campaign {self.campaign}: {_why(error)}; reload and look again") from error
            try:
                self.ledger.append(self.campaign, [drafted], epoch=None, after_seq=seq)
            except HeadMovedError:
                continue
            except CommandConflictError as error:
                raise UsageError(str(error)) from error
            return
        raise UsageError(f"campaign {self.campaign} is too busy to record this; try again")

    def _is_recorded(self, command_id: str, body: object) -> bool:
        known = (event for event in self.ledger.events(self.campaign) if event.command_id == command_id)
        return any(event.body == body for event in known)


def _require_reason(reason: str) -> None:
    if not reason.strip():
        raise UsageError("a reason is wanted: it stays on the ledger; give it with --reason")


def _why(error: IllegalEventError) -> str:
    """The rule that was broken, without the number of the event that never was."""
    return str(error).partition(": ")[2]
