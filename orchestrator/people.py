"""What people do to a campaign: label, approve or reject, pause, stop. Each is an event on the same chain.

A person's word is checked against the newest state and appended only if nothing came in since, so a decision can
never land on a history that its author had not seen; a race makes one of two people look again.
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Final

from orchestrator.core import events as ev
from orchestrator.core.canonical import digest_of
from orchestrator.core.commands import AskForDecision, AskForLabels, Command
from orchestrator.core.events import EventBody
from orchestrator.core.machine import next_command
from orchestrator.core.panels import raters_per_item
from orchestrator.core.records import Choice, Decision, EndedBy, Harm, Label, Purpose, Status
from orchestrator.core.rules import IllegalEventError
from orchestrator.core.settings import CampaignSettings, ChecksSettings
from orchestrator.core.state import Attempt, Batch, CampaignState
from orchestrator.core.vetoes import check_results
from orchestrator.errors import CommandConflictError, HeadMovedError, UsageError
from orchestrator.review.names import same_name
from orchestrator.runner import draft, fold_stored, read_settings, would_fold
from orchestrator.store.ledger import Ledger

TRIES: Final = 20
"""Times an append is tried anew when others append at the same moment."""
IN_SIGHT: Final = 20
"""Open items among which each person begins at another place, where nobody is named."""


def asked_by_name(batch: Batch, item: int, settings: CampaignSettings) -> tuple[str, ...] | None:
    """Whose verdicts on an item of a gate's queue count, drawn by lot when it was sealed; None: whoever comes first.

    Were every named rater offered every item, the quickest words would count, and who is quick may well be quick
    because of the verdict. The lot knows the sealed comparisons, the place and the name, nothing that comes later.
    Batches that judge nothing have no deadline, so nobody's absence may block them; audits are for others than the
    raters, and check items for everybody.
    """
    named = {same_name(name) for name in settings.feedback.raters}
    if not named or not batch.purpose.judges or batch.purpose in (Purpose.AUDIT, Purpose.CHECKS):
        return None
    drawn = sorted(named, key=lambda name: digest_of([batch.comparisons, item, name]))
    return tuple(drawn[: raters_per_item(batch, settings)])


def missing_by_name(ask: AskForLabels, settings: CampaignSettings) -> dict[str, int]:
    """Verdicts that the queue still lacks, by the rater for whom the lot drew them; empty where it draws none."""
    batch = ask.batch
    wanted = raters_per_item(batch, settings)
    said, by_item = {(label.item, label.rater) for label in batch.labels}, batch.choices(wanted)
    missing = Counter(
        name
        for item in range(ask.wanted)
        if len(by_item[item]) < wanted
        for name in asked_by_name(batch, item, settings) or ()
        if (item, name) not in said
    )
    return dict(sorted(missing.items()))


@dataclass(frozen=True, slots=True)
class Asked:
    """What one person is to label next."""

    batch: Batch
    """Where the label belongs: the queue that waits or, unseen as such, its check items."""
    item: int
    number: int
    """The how-manieth of this person's this is, in this attempt's gate or in a batch that judges nothing; from 1."""


@dataclass(slots=True)
class Desk:
    """A person's place at one campaign. It keeps what it has folded; for one thread."""

    ledger: Ledger
    campaign: str
    person: str
    """As `same_name` spells it."""
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _state: CampaignState = field(init=False, repr=False, default_factory=CampaignState)
    _seq: int = field(init=False, repr=False, default=-1)
    _settings: CampaignSettings | None = field(init=False, repr=False, default=None)

    def state(self) -> CampaignState:
        """The newest one."""
        self._state, self._seq = fold_stored(self.ledger, self.campaign, self._state, after_seq=self._seq)
        return self._state

    def settings(self) -> CampaignSettings:
        if self._settings is None:
            self._settings = read_settings(self.ledger, self.campaign)
        return self._settings

    def command(self) -> Command:
        """What the campaign needs next."""
        return next_command(self.state(), self.settings())

    def open_batch(self) -> Batch | None:
        """The queue that people are asked to label now; `asked` says where one of them goes on."""
        command = self.command()
        return command.batch if isinstance(command, AskForLabels) else None

    def candidate(self) -> Attempt | None:
        """The attempt whose candidate waits for a decision."""
        command = self.command()
        return command.attempt if isinstance(command, AskForDecision) else None

    def refusal(self) -> str | None:
        """Why this person may not label what waits, in one line; None where they may, or nothing waits."""
        return self._refusal(self.command())

    def asked(self) -> Asked | None:
        """What this person is to label now: an item of the queue that waits, or a check item before it."""
        command = self.command()
        if not isinstance(command, AskForLabels) or self._refusal(command) is not None:
            return None
        item = self._next_item(command)
        if item is None:
            return None
        state, settings = self._state, self.settings()
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
        command = self.command()
        fresh = self._state.batch(batch.id)
        if fresh is not None and not any((said.item, said.rater) == (item, self.person) for said in fresh.labels):
            if (refusal := self._refusal(command)) is not None:
                raise UsageError(refusal)
            self._require_wanted(fresh, item)
        verdict = Label(item=item, rater=self.person, choice=choice, harm=harm)
        self._append(ev.LabelsRecorded(batch=batch.id, labels=(verdict,)), f"{batch.id}.{item}.label.{self.person}")

    def _require_wanted(self, batch: Batch, item: int) -> None:
        if batch.purpose is Purpose.CHECKS or not 0 <= item < batch.count:  # everybody answers the checks
            return
        named = asked_by_name(batch, item, self.settings())
        if named is not None and self.person not in named:
            raise UsageError(f"item {item + 1} of {batch.id} is for {' and '.join(named)}, by lot; yours come to you")
        wanted = raters_per_item(batch, self.settings())
        if len(batch.choices(wanted)[item]) >= wanted:
            raise UsageError(f"item {item + 1} of {batch.id} needs no label any more; others were quicker")

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
        if self.state().status is not Status.PAUSED:
            self._append(ev.Paused(why=reason), f"paused.{self._seq}", reason=reason)

    def stop(self, reason: str) -> None:
        """End the campaign for good; the approved checkpoint stays what it is.

        Raises:
            UsageError: it has ended already.
        """
        _require_reason(reason)
        self._append(ev.Finished(ended_by=EndedBy.STOPPED), "finished", reason=reason)

    def _refusal(self, command: Command) -> str | None:
        """As `refusal`, of the newest command."""
        audits = isinstance(command, AskForLabels) and command.batch.purpose is Purpose.AUDIT
        allowed = self.settings().feedback.raters
        if allowed and not audits and self.person not in map(same_name, allowed):
            return f"{self.person} is not among the raters of campaign {self.campaign} (feedback.raters)"
        attempt = self._state.open_attempt
        if not isinstance(command, AskForLabels) or not command.batch.purpose.judges or attempt is None:
            return None
        others = [batch for batch in self._state.panels(attempt) if (batch.purpose is Purpose.AUDIT) is not audits]
        if not any(label.rater == self.person for batch in others for label in batch.labels):
            return None
        if audits:
            return f"{self.person}: you labelled this gate's comparisons; an audit wants other eyes"
        return f"{self.person}: you audited this gate's comparisons; its labels want other eyes"

    def _next_item(self, command: AskForLabels) -> int | None:
        """An item of the queue that needs a verdict and has none of this person's.

        Of those drawn for this person, the first. Where nobody is named, one of the first few, for each person
        another one: two who meet on one item race for it.
        """
        batch, settings = command.batch, self.settings()
        wanted = raters_per_item(batch, settings)
        mine = {label.item for label in batch.labels if label.rater == self.person}
        said = batch.choices(wanted)
        still_open = (i for i in range(command.wanted) if len(said[i]) < wanted and i not in mine)
        if asked_by_name(batch, 0, settings) is not None:
            return next((i for i in still_open if self.person in (asked_by_name(batch, i, settings) or ())), None)
        in_sight = islice(still_open, IN_SIGHT)
        return min(in_sight, key=lambda i: digest_of([batch.comparisons, i, self.person]), default=None)

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
            state = self.state()
            try:
                would_fold(state, body, drafted, at=self.now(), seq=self._seq + 1, epoch=None)
            except IllegalEventError as error:
                if self._is_recorded(command_id, drafted.body):
                    return
                raise UsageError(f"campaign {self.campaign}: {_why(error)}; reload and look again") from error
            try:
                self.ledger.append(self.campaign, [drafted], epoch=None, after_seq=self._seq)
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
