"""The controller: folds the ledger, asks the machine what comes next, acts through a port, appends what happened.

    campaign_created
          │
          ▼            (initial labels missing: AskForLabels)
    base_ready ─► evaluated ─► comparisons_drawn(initial) ─► labels_recorded
          ┌───────────────────────────────────────────────────────┘
          ▼
    attempt_begun ◄───────────────────────────────────────────────┬──────────────────────┐
          │  [comparisons_drawn(training) ─► labels_recorded]     │                      │
          ▼                                                       │                      │
    reward_model_fitted ─► phase_finished ─► evaluated            │                      │
          │                     │                                 │                      │
          │               (phase_failed)                          │                      │
          ▼                     │                                 │                      │
    comparisons_drawn(gate) ─► labels_recorded … ─► verdict_given │                      │
          (labels missing: AskForLabels)                │         │                      │
                                             rollback ──┴─► rolled_back ─► finished(attempts_exhausted)
                                                │                                        │
                                             advance ─► decision_made ─► advanced ───────┤
                                          (AskForDecision)  (reject: rolled_back)        ▼
                                                                              finished(stages_completed)

    Where the candidate is given, nothing is trained: base_ready ─► evaluated ─► attempt_begun ─► candidate_taken ─►
    evaluated ─► comparisons_drawn(gate), and on as above.

    paused and resumed may stand anywhere; people's events (labels, decisions, paused, finished(stopped)) are
    appended by other processes to the same chain and are picked up before each command.

The runner owns no state that the ledger does not hold. Killed anywhere, the next one folds the same events, gets the
same command, and repeats at most the one work item whose result was not yet on the ledger.
"""

import logging
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from orchestrator.artifacts import ArtifactStore, whose
from orchestrator.core import events as ev
from orchestrator.core.commands import AskForDecision, AskForLabels, Do, Halt, Note
from orchestrator.core.envelope import EventDraft, StoredEvent
from orchestrator.core.events import Event, EventBody
from orchestrator.core.history import apply
from orchestrator.core.machine import next_command
from orchestrator.core.panels import deadline
from orchestrator.core.records import CONTROLLER, Status
from orchestrator.core.rules import IllegalEventError
from orchestrator.core.settings import CampaignSettings
from orchestrator.core.state import Batch, CampaignState
from orchestrator.core.work import Work
from orchestrator.errors import (
    HeadMovedError,
    IntegrityError,
    LedgerCorruptError,
    LedgerVersionError,
    RatchetError,
    StaleEpochError,
    StorageError,
    UnknownCampaignError,
    WorkFailedError,
)
from orchestrator.failpoints import hit
from orchestrator.ports import Claim, Progress, WorkDone, Workers
from orchestrator.review.texts import send_texts
from orchestrator.signals import signal_heard
from orchestrator.store.lease import ControllerLease
from orchestrator.store.ledger import Ledger

TRIES: Final = 3
"""Times a retryable work item is run before the campaign pauses with its cause."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Watcher:
    """Whoever wants to see what goes on; changes nothing."""

    on_event: Callable[[Event, CampaignState], None] = lambda event, state: None
    on_work: Callable[[Work], None] = lambda work: None
    on_progress: Progress = lambda done, total, message: None


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where a run of the controller left the campaign."""

    state: CampaignState
    waiting_for: AskForLabels | AskForDecision | None


def draft(body: EventBody, command_id: str, *, author: str, reason: str = "") -> EventDraft:
    """Put a body into words that the ledger takes."""
    return EventDraft(
        type=body.TYPE,
        version=body.VERSION,
        body=body.model_dump(mode="json"),
        command_id=command_id,
        author=author,
        reason=reason,
    )


def would_fold(
    state: CampaignState, body: EventBody, drafted: EventDraft, *, at: datetime, seq: int, epoch: int | None = 0
) -> CampaignState:
    """The state after an event that is not recorded yet.

    Raises:
        IllegalEventError: the rules do not allow it, so it must not be appended.
    """
    return apply(state, Event(seq, drafted.command_id, at, epoch, drafted.author, drafted.reason, body))


def read_state_at(ledger: Ledger, campaign: str) -> tuple[CampaignState, int]:
    """Fold a campaign's whole ledger; the state, and the seq of the event that it goes up to.

    Raises:
        LedgerCorruptError: the chain is broken, or its history breaks the rules.
    """
    return fold_stored(ledger, campaign, CampaignState(), after_seq=-1)


def fold_stored(
    ledger: Ledger,
    campaign: str,
    state: CampaignState,
    *,
    after_seq: int,
    on_event: Callable[[Event, CampaignState], None] | None = None,
) -> tuple[CampaignState, int]:
    """Fold the stored events after `after_seq`, up to which `state` was folded; the state, and the last seq.

    Raises:
        LedgerCorruptError: the chain is broken, or its history breaks the rules.
    """
    return fold_more(campaign, state, ledger.events(campaign, after_seq), seq=after_seq, on_event=on_event)


def fold_more(
    campaign: str,
    state: CampaignState,
    events: Iterable[StoredEvent],
    *,
    seq: int,
    on_event: Callable[[Event, CampaignState], None] | None = None,
) -> tuple[CampaignState, int]:
    """Fold events that follow `seq`; the state, and the last seq.

    Raises:
        LedgerCorruptError: the history breaks the rules.
    """
    for stored in events:
        try:
            event = ev.parse(stored)
            state = apply(state, event)
        except ev.UnknownEventError as error:
            raise LedgerVersionError(f"campaign {campaign}: {error}") from error
        except IllegalEventError as error:
            raise LedgerCorruptError(f"campaign {campaign}: {error}; run `ratchet ledger verify {campaign}`") from error
        seq = event.seq
        if on_event is not None:
            on_event(event, state)
    return state, seq


def read_settings(ledger: Ledger, campaign: str) -> CampaignSettings:
    """The resolved configuration that the campaign was created with.

    Raises:
        UnknownCampaignError: there is none of that name, or a crash cut its creation short.
    """
    first = next(iter(ledger.events(campaign)), None)
    if first is None:
        raise UnknownCampaignError(
            f"there is no campaign {campaign!r}: its creation was cut short; run `ratchet campaign start` again"
        )
    created = ev.parse(first).body
    if not isinstance(created, ev.CampaignCreated):
        raise LedgerCorruptError(f"campaign {campaign}: its first event is {created.TYPE}, not its creation")
    return CampaignSettings.model_validate(created.settings)


class Runner:
    """One controller of one campaign, from `run` to the next wait, pause or end."""

    def __init__(
        self,
        campaign: str,
        *,
        ledger: Ledger,
        artifacts: ArtifactStore,
        workers: Workers,
        watcher: Watcher | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._campaign = campaign
        self._ledger = ledger
        self._artifacts = artifacts
        self._workers = workers
        self._watcher = watcher if watcher is not None else Watcher()
        self._now = now
        self._settings = read_settings(ledger, campaign)
        self._state = CampaignState()
        self._seq = -1

    def run(self, *, takeover: bool = False) -> Outcome:
        """Drive the campaign until it waits for people, is paused, or ends. One that has ended is left as it is.

        Raises:
            LockedError: another controller runs it, or has taken it over.
            WorkFailedError: work kept failing; the campaign is paused with the cause.
            IntegrityError: something stored is not what was written.
        """
        self._catch_up()
        if self._state.ended_by is not None:
            return Outcome(self._state, None)
        owner = f"{socket.gethostname()}:{os.getpid()}"
        with self._ledger.acquire_controller(self._campaign, owner=owner, takeover=takeover) as lease:
            try:
                self._append(ev.ControllerStarted(owner=owner), f"controller.{lease.epoch}", lease)
                if self._state.status is Status.PAUSED:
                    self._append(ev.Resumed(), f"resumed.{self._seq}", lease)
                self._tidy()
                with whose(self._campaign):
                    return self._loop(lease)
            except KeyboardInterrupt:
                self._pause(signal_heard() or "interrupted", lease)
                raise
            except WorkFailedError as error:
                self._pause(str(error), lease)
                raise
            except IntegrityError as error:
                raise type(error)(f"{error}; {self._last_whole()}") from error
            except StorageError as error:
                log.debug("pausing for want of storage", exc_info=error)
                self._try_to_pause(str(error), lease)
                raise

    def _tidy(self) -> None:
        """Remove what killed processes left in staging; those that live, other controllers' too, hold theirs locked."""
        try:
            self._artifacts.collect_temporary()
        except StorageError as error:  # it wastes room and hurts nothing
            log.debug("left what is in staging", exc_info=error)

    def _loop(self, lease: ControllerLease) -> Outcome:
        while True:
            self._catch_up()
            command = next_command(self._state, self._settings)
            match command:
                case Do(work):
                    self._append(self._do(work, lease), work.command_id, lease, reason=work.WHAT)
                case Note(body, command_id):
                    self._check(body)
                    self._append(body, command_id, lease)
                case AskForLabels(batch) if self._deadline_passed(batch):
                    expired = ev.FeedbackExpired(batch=batch.id)
                    self._append(expired, f"{batch.id}.expired", lease, reason="the label deadline passed")
                case AskForLabels() | AskForDecision():
                    return Outcome(self._state, command)
                case Halt():
                    return Outcome(self._state, None)

    def _do(self, work: Work, lease: ControllerLease) -> EventBody:
        """Run a work item, again if it failed in a way that another try may mend."""
        self._watcher.on_work(work)
        claim = Claim(self._campaign, work.command_id, lease.epoch)
        hit("runner.before_work")
        for tried in range(1, TRIES + 1):
            try:
                done = self._workers.run(work, claim, self._watcher.on_progress)
            except WorkFailedError as error:
                if not error.retryable or tried == TRIES:
                    raise
                log.warning("%s failed (%s); trying again", work.WHAT, error)
            else:
                hit("runner.after_work")
                return _fresh(done, claim)
        raise AssertionError("unreachable: the last try returns or raises")

    def _check(self, body: EventBody) -> None:
        """Before the ledger says that a checkpoint is restored or approved, read every byte of it."""
        match body:
            case ev.RolledBack():
                self._artifacts.open(body.to)
            case ev.Advanced():
                self._artifacts.open(body.approved)

    def _last_whole(self) -> str:
        """Where a person may go on from. Nothing falls back to it by itself."""
        for advance, deployed in reversed(list(enumerate(self._state.deployments))):
            if self._artifacts.verify(deployed.checkpoint).ok:
                return f"the last whole approved checkpoint is {deployed.checkpoint[:12]} (advance {advance})"
        return "no approved checkpoint is whole"

    def _deadline_passed(self, batch: Batch) -> bool:
        due = deadline(self._state, batch)
        return due is not None and self._now() > due

    def _append(self, body: EventBody, command_id: str, lease: ControllerLease, *, reason: str = "") -> None:
        """Record the event, unless people have meanwhile made it void (a campaign stopped, a candidate rejected)."""
        known = self._seq
        drafted = draft(body, command_id, author=CONTROLLER, reason=reason)
        send_texts(self._ledger, self._artifacts, body)
        while True:
            self._catch_up()
            try:
                would_fold(self._state, body, drafted, at=self._now(), seq=self._seq + 1)
            except IllegalEventError as error:
                if self._seq == known:
                    raise LedgerCorruptError(f"campaign {self._campaign}: {error}") from error
                log.info("dropped the result of %s, which people made void: %s", command_id, error)
                return
            try:
                self._ledger.append(self._campaign, [drafted], epoch=lease.epoch, after_seq=self._seq)
            except HeadMovedError:
                continue
            hit("runner.after_append")
            self._catch_up()
            return

    def _catch_up(self) -> None:
        """Fold what was appended since, by this controller or by people."""
        self._state, self._seq = fold_stored(
            self._ledger, self._campaign, self._state, after_seq=self._seq, on_event=self._watcher.on_event
        )

    def _pause(self, why: str, lease: ControllerLease) -> None:
        self._catch_up()
        if self._state.status is Status.RUNNING:
            self._append(ev.Paused(why=why), f"paused.{self._seq}", lease)

    def _try_to_pause(self, why: str, lease: ControllerLease) -> None:
        """Say so on the ledger if it still takes a line; the cause is raised either way."""
        try:
            self._pause(why, lease)
        except RatchetError as error:
            log.debug("could not record the pause", exc_info=error)


def _fresh(done: WorkDone, claim: Claim) -> EventBody:
    if done.claim != claim:
        raise StaleEpochError(
            f"a result came back for {done.claim.command_id} of epoch {done.claim.epoch}, "
            f"wanted {claim.command_id} of epoch {claim.epoch}; it is ignored, run `ratchet campaign resume`"
        )
    return done.body
