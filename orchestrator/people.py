"""What people do to a campaign: label, approve or reject, pause, stop. Each is an event on the same chain.

A person's word is checked against the newest state and appended only if nothing came in since, so a decision can
never land on a history that its author had not seen; a race makes one of two people look again.
"""

import random
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from orchestrator.core import events as ev
from orchestrator.core.commands import AskForDecision, AskForLabels
from orchestrator.core.events import EventBody
from orchestrator.core.machine import next_command
from orchestrator.core.panels import raters_per_item
from orchestrator.core.records import Choice, Decision, EndedBy, Harm, Label, Purpose, Status
from orchestrator.core.rules import IllegalEventError
from orchestrator.core.settings import CampaignSettings, ChecksSettings
from orchestrator.core.state import Attempt, Batch, CampaignState
from orchestrator.core.vetoes import check_results
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
class Asked:
    """What one person is to label next."""

    batch: Batch
    """Where the label belongs: the queue that waits or, unseen as such, its check items."""
    item: int
    number: int
    """The how-manieth of this person's this is, in this attempt's gate or in a batch that judges nothing; from 1."""


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
        """The queue that people are asked to label now; `asked` says where one of them goes on."""
        command = next_command(self.state(), self.settings())
        return command.batch if isinstance(command, AskForLabels) else None

    def candidate(self) -> Attempt | None:
        """The attempt whose candidate waits for a decision."""
        command = next_command(self.state(), self.settings())
        return command.attempt if isinstance(command, AskForDecision) else None

    def refusal(self) -> str | None:
        """Why this person may not label what waits, in one line; None where they may, or nothing waits."""
        return self._refusal(self.state(), self.settings())

    def asked(self) -> Asked | None:
        """What this person is to label now: the next item of the queue that waits, or a check item before it."""
        state, settings = self.state(), self.settings()
        command = next_command(state, settings)
        if not isinstance(command, AskForLabels) or self._refusal(state, settings) is not None:
            return None
        item = self._next_item(command, settings)
        if item is None:
            return None
        attempt, checks = state.open_attempt, settings.feedback.checks
        if attempt is None or not command.batch.purpose.judges:
            return Asked(command.batch, item, 1 + self._said(command.batch))
        number = 1 + sum(map(self._said, state.panels(attempt)))
        pool = state.panel(attempt, Purpose.CHECKS)
        if checks is not None and pool is not None and command.batch.purpose is not Purpose.AUDIT:
            answered = check_results(state, attempt).get(self.person, (0, 0))[0]
            if answered < self._checks_wanted(pool, number - 1 - answered, checks):
                return Asked(pool, answered, number)
        return Asked(command.batch, item, number)

    def label(self, batch: Batch, item: int, choice: Choice, harm: Harm | None = None) -> None:
        """Record a verdict. Saying the same twice is saying it once.

        Raises:
            UsageError: this person may not label it, labelled it differently before, or it needs no label any more.
        """
        fresh = self.state().batch(batch.id)
        if fresh is not None and not any((said.item, said.rater) == (item, self.person) for said in fresh.labels):
            if (refusal := self.refusal()) is not None:
                raise UsageError(refusal)
            wanted = raters_per_item(batch, self.settings())
            shared = batch.purpose is not Purpose.CHECKS  # which everybody answers
            if shared and 0 <= item < fresh.count and len(fresh.choices(wanted)[item]) >= wanted:
                raise UsageError(f"item {item + 1} of {batch.id} needs no label any more; others were quicker")
        verdict = Label(item=item, rater=self.person, choice=choice, harm=harm)
        self._append(ev.LabelsRecorded(batch=batch.id, labels=(verdict,)), f"{batch.id}.{item}.label.{self.person}")

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

    def _refusal(self, state: CampaignState, settings: CampaignSettings) -> str | None:
        allowed = settings.feedback.raters
        if allowed and self.person not in map(same_name, allowed):
            return f"{self.person} is not among the raters of campaign {self.campaign} (feedback.raters)"
        command = next_command(state, settings)
        attempt = state.open_attempt
        if not isinstance(command, AskForLabels) or not command.batch.purpose.judges or attempt is None:
            return None
        audits = command.batch.purpose is Purpose.AUDIT
        others = [batch for batch in state.panels(attempt) if (batch.purpose is Purpose.AUDIT) is not audits]
        if not any(label.rater == self.person for batch in others for label in batch.labels):
            return None
        if audits:
            return f"{self.person}: you labelled this gate's comparisons; an audit wants other eyes"
        return f"{self.person}: you audited this gate's comparisons; its labels want other eyes"

    def _next_item(self, command: AskForLabels, settings: CampaignSettings) -> int | None:
        """The first item of the queue that needs a verdict and has none of this person's."""
        batch, wanted = command.batch, raters_per_item(command.batch, settings)
        mine = {label.item for label in batch.labels if label.rater == self.person}
        said = batch.choices(wanted)
        return next((i for i in range(command.wanted) if len(said[i]) < wanted and i not in mine), None)

    def _said(self, batch: Batch) -> int:
        return sum(label.rater == self.person for label in batch.labels)

    def _checks_wanted(self, pool: Batch, said: int, checks: ChecksSettings) -> int:
        """Check items for this person to answer before the next label of a queue, after `said` of them.

        At least as many as folding wants (`vetoes.checks_due`); all but the first come at a place drawn from the
        stretch before they are due, since whoever can count would know them otherwise.
        """
        stretch = checks.every - 1
        place = random.Random(f"{pool.comparisons} {self.person} {said // stretch}").randint(1, stretch)
        return min(said // stretch + 1 + (said % stretch >= place), checks.items)

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
