"""One campaign, followed for everybody who works at it, and the events that people append to its chain.

A word is checked against the newest state and appended only if nothing came in since, so that a decision can never
land on a history that its author had not seen.
"""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from orchestrator.artifacts import ArtifactStore
from orchestrator.core import events as ev
from orchestrator.core.commands import Command
from orchestrator.core.events import Event, EventBody
from orchestrator.core.machine import next_command
from orchestrator.core.records import EndedBy, Status
from orchestrator.core.rules import IllegalEventError
from orchestrator.core.settings import CampaignSettings
from orchestrator.core.state import Batch, CampaignState
from orchestrator.errors import (
    CommandConflictError,
    ConflictError,
    HeadMovedError,
    StorageError,
    UsageError,
)
from orchestrator.review.asking import Cursors
from orchestrator.review.texts import Comparison, Comparisons
from orchestrator.runner import draft, fold_more, fold_stored, read_settings, would_fold
from orchestrator.store.ledger import Ledger, Rider

TRIES: Final = 40
"""Times an append is tried anew when others append at the same moment."""
PAUSE_S: Final = 0.002
"""Up to so long, times the tries so far, is waited in between, lest the same ones meet again and again."""


@dataclass(frozen=True, slots=True)
class Word:
    """Where a person's word belongs."""

    batch: str
    item: int
    repeat: bool
    brought: bool = False
    """Out of a file, so that no desk has shown it to them."""


@dataclass(slots=True)
class Office:
    """One campaign, followed for everybody who works at it. For any number of threads."""

    ledger: Ledger
    artifacts: ArtifactStore
    campaign: str
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    cursors: Cursors = field(default_factory=Cursors, repr=False)
    code_version: str | None = field(init=False, repr=False, default=None)
    """Of the program that created the campaign; known once its first event was read."""
    _state: CampaignState = field(init=False, repr=False, default_factory=CampaignState)
    _seq: int = field(init=False, repr=False, default=-1)
    _settings: CampaignSettings | None = field(init=False, repr=False, default=None)
    _command: tuple[CampaignState, Command] | None = field(init=False, repr=False, default=None)
    _glance: tuple[CampaignState, Command] | None = field(init=False, repr=False, default=None)
    _secret: bytes | None = field(init=False, repr=False, default=None)
    _texts: dict[str, Comparisons] = field(init=False, repr=False, default_factory=dict)
    _unpacking: threading.Lock = field(init=False, repr=False, default_factory=threading.Lock)
    _said: dict[str, list[Word]] = field(init=False, repr=False, default_factory=dict)
    _regrets: dict[str, int] = field(init=False, repr=False, default_factory=dict)

    def state(self) -> CampaignState:
        """The newest one."""
        with self.lock:
            seen = self._seq
            self._state, self._seq = fold_stored(
                self.ledger, self.campaign, self._state, after_seq=seen, on_event=self._heard
            )
            if self._seq != seen:
                self._glance = None
            return self._state

    def seen(self) -> CampaignState:
        """The newest one that was asked for."""
        return self._state

    @property
    def seq(self) -> int:
        """Of the last event seen."""
        return self._seq

    def settings(self) -> CampaignSettings:
        if self._settings is None:
            self._settings = read_settings(self.ledger, self.campaign)
        return self._settings

    def command(self) -> Command:
        """What the campaign needs next."""
        with self.lock:
            command = self.command_after(self.state())
            self._glance = self._state, command
            return command

    def glance(self) -> tuple[CampaignState, Command]:
        """The newest state and what it needs; while a word is being recorded, those before it.

        A reader need not wait for the disk, and sees whatever this office has answered for.
        """
        if self.lock.acquire(blocking=False):
            try:
                command = self.command()
                return self._state, command
            finally:
                self.lock.release()
        glance = self._glance
        if glance is not None:
            return glance
        with self.lock:
            command = self.command()
            return self._state, command

    def command_after(self, state: CampaignState) -> Command:
        """What it needs in a given state; remembered, since everybody asks for the same."""
        if self._command is None or self._command[0] is not state:
            self._command = state, next_command(state, self.settings())
        return self._command[1]

    def secret(self) -> bytes:
        if self._secret is None:
            self._secret = self.ledger.secret(self.campaign)
        return self._secret

    def words_of(self, person: str) -> list[Word]:
        """What a person has said and not taken back, oldest first; as of the newest state."""
        with self.lock:
            return list(self._said.get(person, ()))

    def number_of_words(self, person: str) -> int:
        return len(self._said.get(person, ()))

    def comparison(self, batch: Batch, item: int) -> Comparison:
        texts = self._texts.get(batch.comparisons)
        if texts is None:
            with self._unpacking:  # a long queue takes seconds: once, and not once for everybody who comes first
                texts = self._texts.get(batch.comparisons)
                if texts is None:
                    texts = self._texts[batch.comparisons] = Comparisons(self.artifacts, batch.comparisons)
        return texts.row(item)

    def append(
        self,
        body: EventBody,
        command_id: str,
        *,
        author: str,
        reason: str = "",
        along: Callable[[CampaignState], Rider] | None = None,
    ) -> CampaignState:
        """Record what a person said; the state after it.

        Args:
            along: given the state after it, what is recorded in the same transaction.

        Raises:
            IllegalEventError: the rules do not allow it in the newest state.
            ConflictError: other words stand under this command id.
            StorageError: others speak all the time, and quicker.
        """
        drafted = draft(body, command_id, author=author, reason=reason)
        with self.lock:
            for tried in range(TRIES):
                time.sleep(random.random() * PAUSE_S * tried)
                # What was seen last will mostly do; where it will not, the append says so, or the rules do.
                try:
                    after = would_fold(self._state, body, drafted, at=self.now(), seq=self._seq + 1, epoch=None)
                    (stored,) = self.ledger.append(
                        self.campaign,
                        [drafted],
                        epoch=None,
                        after_seq=self._seq,
                        along=along(after) if along is not None else None,
                    )
                except (IllegalEventError, HeadMovedError):
                    seen = self._seq
                    self.state()
                    if self._seq == seen:
                        raise
                    continue
                except CommandConflictError as error:
                    raise ConflictError(str(error)) from error
                if stored.seq > self._seq + 1:
                    return self.state()  # it was recorded elsewhere before, and others have spoken since
                if stored.seq == self._seq + 1:
                    self._state, self._seq = fold_more(
                        self.campaign, self._state, [stored], seq=self._seq, on_event=self._heard
                    )
                    if self._command is not None and self._command[0] is after:
                        self._command = self._state, self._command[1]  # the two differ in the moment alone
                    known = self._command is not None and self._command[0] is self._state
                    self._glance = self._command if known else None
                return self._state
        raise StorageError(f"campaign {self.campaign} is too busy to record this; try again")

    def is_recorded(self, command_id: str, body: EventBody) -> bool:
        known = (event for event in self.ledger.events(self.campaign) if event.command_id == command_id)
        return any(event.body == body.model_dump(mode="json") for event in known)

    def _heard(self, event: Event, state: CampaignState) -> None:
        """Keep, by person, the order in which they spoke, which history and undo go by; and how the campaign began."""
        if event.epoch is not None and not isinstance(event.body, ev.CampaignCreated):
            return  # a controller's
        match event.body:
            case ev.CampaignCreated(settings=settings, code_version=code_version):
                self._settings = CampaignSettings.model_validate(settings)
                self.code_version = code_version
            case ev.LabelsRecorded(batch=batch, labels=labels, origin=origin):
                for label in labels:
                    word = Word(batch, label.item, repeat=False, brought=origin is not None)
                    self._said.setdefault(label.rater, []).append(word)
            case ev.LabelRepeated(batch=batch, label=label):
                self._said.setdefault(label.rater, []).append(Word(batch, label.item, repeat=True))
            case ev.LabelWithdrawn(batch=batch, item=item, rater=rater):
                known = state.batch(batch)
                regrets = known.regrets if known is not None else 0
                if regrets == self._regrets.get(batch, 0):
                    self._said[rater].pop()  # only a last word can be taken back
                    self.cursors.back_to(batch, item)
                self._regrets[batch] = regrets


def pause(office: Office, reason: str, *, author: str) -> None:
    """Ask the controller to pause after the work item under way.

    Raises:
        UsageError: the campaign has ended.
    """
    if office.state().status is not Status.PAUSED:
        _run(office, ev.Paused(why=reason), f"paused.{office.seq}.by_request", reason, author)


def stop(office: Office, reason: str, *, author: str) -> None:
    """End the campaign for good; the approved checkpoint stays what it is.

    Raises:
        UsageError: it has ended already.
    """
    require_reason(reason)
    _run(office, ev.Finished(ended_by=EndedBy.STOPPED), "finished", reason, author)


def _run(office: Office, body: EventBody, command_id: str, reason: str, author: str) -> None:
    try:
        office.append(body, command_id, author=author, reason=reason)
    except IllegalEventError as error:
        if not office.is_recorded(command_id, body):
            raise UsageError(f"campaign {office.campaign}: {why(error)}; reload and look again") from error
    except ConflictError as error:
        raise UsageError(str(error)) from error


def require_reason(reason: str) -> None:
    if not reason.strip():
        raise UsageError("a reason is wanted: it stays on the ledger; give it with --reason")


def why(error: IllegalEventError) -> str:
    """The rule that was broken, without the number of the event that never was."""
    return str(error).partition(": ")[2]
