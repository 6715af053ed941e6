"""The ledger: an append-only, hash-chained list of events for each campaign. Every other state is a view of it.

Controllers and people (the web page, the command line) append to one chain, so appends serialise in one write
transaction. What `append` has returned survives kill -9 and power loss. Nothing here ever updates or deletes an
event. Rows and chain are defined in `core.envelope`, the tables in `schema`, the controller's lock in `lease`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from sqlalchemy import Connection, Row, bindparam, func, insert, literal, select, text, update
from sqlalchemy.exc import IntegrityError as ConstraintError

from orchestrator import failpoints
from orchestrator.core.envelope import (
    EMPTY_HEAD,
    EventDraft,
    Head,
    StoredEvent,
    chain_problems,
    draft_problem,
    from_row,
    row_problem,
    seal,
    to_row,
)
from orchestrator.core.verification import Problem, Verification
from orchestrator.errors import (
    CampaignExistsError,
    CommandConflictError,
    HeadMovedError,
    LedgerCorruptError,
    LockedError,
    StaleEpochError,
    UnknownCampaignError,
    UsageError,
)
from orchestrator.names import checked_campaign_name
from orchestrator.store import schema
from orchestrator.store.database import Database, written
from orchestrator.store.filesystem import on_network
from orchestrator.store.lease import Controller, ControllerLease, locks_of
from orchestrator.store.people import People
from orchestrator.store.texts import Texts
from orchestrator.store.tickets import Tickets

_IDS_PER_QUERY = 1000
"""Databases bound the parameters of one query."""

Rider = Callable[[Connection], None]
"""What another table of the ledger's database records along with an append; made by that table's own module."""

# Written once: to put a statement together takes longer than to run it.
_C, _E = schema.campaigns.c, schema.events.c
_CAMPAIGN: Final = select(schema.campaigns).where(_C.name == bindparam("campaign"))
_CAMPAIGN_LOCKED: Final = _CAMPAIGN.with_for_update(key_share=True)
_MOVE_HEAD: Final = (
    update(schema.campaigns)
    .where(_C.name == bindparam("moved"))
    .values(head_seq=bindparam("seq"), head_hash=bindparam("digest"))
)
_INSERT: Final = insert(schema.events)
_LAST: Final = (
    select(_E.seq, _E.hash).where(_E.campaign == bindparam("campaign")).order_by(_E.seq.desc()).limit(literal(1))
)
_FROM: Final = (
    select(schema.events).where(_E.campaign == bindparam("campaign"), _E.seq >= bindparam("from_seq")).order_by(_E.seq)
)
_KNOWN: Final = select(schema.events).where(
    _E.campaign == bindparam("campaign"), _E.command_id.in_(bindparam("ids", expanding=True))
)


def utc_now() -> datetime:
    return datetime.now(UTC)


class Ledger:
    """The campaigns of one database. Threads may share it; forked processes open their own."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._locks = locks_of(database)
        self._now = now
        self.people = People(database, now)
        self.tickets = Tickets(database)
        self.texts = Texts(database)

    @classmethod
    def open(
        cls,
        where: str | Path,
        *,
        now: Callable[[], datetime] = utc_now,
        busy_timeout: timedelta = timedelta(seconds=30),
    ) -> Self:
        """Open a ledger; create it if there is none, and bring one that an older Ratchet wrote up to date.

        Args:
            where: a file, `sqlite:///PATH`, or `postgresql://USER@HOST/NAME`.
            now: the clock that events are stamped with; aware.
            busy_timeout: how long to wait for another process's write (SQLite).

        Raises:
            LedgerVersionError: if a newer Ratchet wrote it.
            LedgerCorruptError, StorageError, ConfigError: if it cannot be read, written or found.
        """
        database = Database(where, busy_timeout=busy_timeout)
        with ExitStack() as on_failure:
            on_failure.callback(database.close)
            with database.read() as connection:
                current = schema.is_current(connection)
            if not current:
                with database.write() as connection:
                    if database.path is None:
                        # Creating tables locks nothing that a second creator would wait for.
                        connection.execute(select(func.pg_advisory_xact_lock(func.hashtext("ratchet schema"))))
                    if not schema.is_current(connection):
                        schema.bring_up(connection)
            on_failure.pop_all()
        return cls(database, now)

    @property
    def name(self) -> str:
        """For messages: the file, or the URL without its password."""
        return self._database.name

    @property
    def is_local(self) -> bool:
        """Whether it is a file of this machine, beside which the artifacts lie."""
        return self._database.path is not None

    @property
    def is_on_network(self) -> bool:
        """Whether it is a file that other machines may use too, whose locks this one may not see."""
        return self._database.path is not None and on_network(self._database.path)

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def create_campaign(self, name: str) -> None:
        """Begin an empty chain.

        Raises:
            CampaignExistsError: if the name is taken.
            UsageError: if the name is unsafe as part of a file name.
        """
        row = schema.campaigns.insert().values(
            name=checked_campaign_name(name),
            created=written(self._now()),
            epoch=0,
            head_seq=EMPTY_HEAD.seq,
            head_hash=EMPTY_HEAD.hash,
        )
        try:
            with self._database.write() as connection:
                connection.execute(row)
        except ConstraintError as error:
            raise CampaignExistsError(
                f"campaign {name} exists already; choose another name, or `ratchet campaign resume {name}`"
            ) from error

    def campaigns(self) -> tuple[str, ...]:
        """All names, sorted."""
        with self._database.read() as connection:
            return tuple(sorted(connection.scalars(select(schema.campaigns.c.name))))

    def secret(self, campaign: str) -> bytes:
        """32 random bytes of this campaign, made when first asked for; for what people must not be able to foresee.

        Raises:
            UnknownCampaignError: there is no such campaign.
        """
        query = select(schema.campaign_secrets.c.secret).where(schema.campaign_secrets.c.campaign == campaign)
        with self._database.read() as connection:
            known = connection.scalar(query)
        if known is None:
            with self._database.write() as connection:
                self._campaign(connection, campaign, lock=True)
                known = connection.scalar(query)
                if known is None:
                    known = secrets.token_bytes(32)
                    connection.execute(insert(schema.campaign_secrets).values(campaign=campaign, secret=known))
        return bytes(known)

    def append(
        self,
        campaign: str,
        drafts: Sequence[EventDraft],
        *,
        epoch: int | None,
        after_seq: int | None = None,
        along: Rider | None = None,
    ) -> tuple[StoredEvent, ...]:
        """Record all drafts or none; durable once it returns.

        A draft whose command id is known already is not recorded again: the event of the first time takes its place in
        the result, so that a command can be repeated after a crash or a lost reply.

        Args:
            epoch: the controller's, which must be the campaign's current one; None for what a person does.
            after_seq: the last event that the author knew of. Given, nothing new is recorded behind a later one, so
                that a decision never lands on a history which its author had not seen.
            along: what another table of this database records in the same transaction.

        Returns:
            One event for each draft, in their order.

        Raises:
            StaleEpochError: if another controller took over.
            HeadMovedError: if events came in behind `after_seq`.
            CommandConflictError: if a known command id comes with another type, version, author, reason or body.
            UsageError: if a draft has no form that can be stored.
            StorageFullError, StorageError: if the database cannot write.
        """
        for draft in drafts:
            if (what := draft_problem(draft)) is not None:
                raise UsageError(f"campaign {campaign}: the event {draft.type!r} cannot be recorded: {what}")
        with self._database.write() as connection:
            row = self._campaign(connection, campaign, lock=True)
            if epoch is not None and epoch != row.epoch:
                raise StaleEpochError(
                    f"campaign {campaign} is now run by another controller (epoch {row.epoch}, here {epoch}); "
                    f"this one stops: see `ratchet campaign show {campaign}`"
                )
            head = _head(connection, row)
            events = _known(connection, campaign, drafts)
            new = []
            for draft in drafts:
                event = events.get(draft.command_id)
                if event is None:
                    event = seal(draft, campaign=campaign, after=head, time=self._now(), epoch=epoch)
                    events[draft.command_id] = event
                    new.append(event)
                    head = Head(event.seq, event.hash)
                elif not event.repeats(draft):
                    raise CommandConflictError(
                        f"campaign {campaign}: command {draft.command_id} is recorded as event {event.seq} "
                        f"({event.type}) with other contents; reload and decide again"
                    )
            if new and after_seq is not None and after_seq != new[0].seq - 1:
                raise HeadMovedError(
                    f"campaign {campaign}: event {new[0].seq - 1} came in behind event {after_seq}; "
                    "reload and try again"
                )
            if new:
                connection.execute(_INSERT, [to_row(event) for event in new])
                connection.execute(_MOVE_HEAD, {"moved": campaign, "seq": head.seq, "digest": head.hash})
            if along is not None:
                along(connection)
            failpoints.hit("ledger.before_commit")
        failpoints.hit("ledger.after_commit")
        return tuple(events[draft.command_id] for draft in drafts)

    def events(self, campaign: str, after_seq: int = -1) -> tuple[StoredEvent, ...]:
        """The events behind `after_seq`, up to the head; their chain is checked on the way.

        Raises:
            LedgerCorruptError: if the chain is broken in this range, or ends before `after_seq`.
        """
        with self._database.read() as connection:
            head = _recorded_head(self._campaign(connection, campaign))
            if head.seq == after_seq:
                return ()  # asked again and again by whoever follows; the next append looks at the last row
            rows = _rows(connection, campaign, from_seq=after_seq)
        after = EMPTY_HEAD
        if after_seq >= 0:
            if not rows or rows[0]["seq"] != after_seq:
                raise _corrupt(campaign, Problem(f"event {after_seq}", "it was read before and is missing now"))
            after = Head(after_seq, rows.pop(0)["hash"])
        for problem in chain_problems(rows, head, after=after):
            raise _corrupt(campaign, problem)
        return tuple(map(from_row, rows))

    def head(self, campaign: str) -> Head:
        """The last event; `EMPTY_HEAD` before the first. Noted elsewhere, it exposes a tail that was cut later."""
        with self._database.read() as connection:
            return _head(connection, self._campaign(connection, campaign))

    def verify(self, campaign: str, anchor: Head | None = None) -> Verification:
        """Recompute the whole chain, and name every event that is not as it was written.

        Args:
            anchor: a head that was noted elsewhere. Without one, nobody can tell a chain that was cut or forged,
                recorded head and all, by somebody who can write the database.
        """
        try:
            with self._database.read() as connection:
                head = _recorded_head(self._campaign(connection, campaign))
                rows = _rows(connection, campaign)
                problems = [] if self._database.path is None else _file_problems(connection)
        except LedgerCorruptError as error:
            return Verification(checked=0, problems=(Problem("database", str(error)),))
        problems.extend(chain_problems(rows, head, after=EMPTY_HEAD))
        if anchor is not None and anchor not in (EMPTY_HEAD, *(Head(row["seq"], row["hash"]) for row in rows)):
            problems.append(Problem(f"event {anchor.seq}", "it is not the event whose hash was noted elsewhere"))
        return Verification(checked=len(rows), problems=tuple(problems))

    def acquire_controller(self, campaign: str, *, owner: str, takeover: bool = False) -> ControllerLease:
        """Become the campaign's controller: from here on, its appends need the lease's epoch.

        Args:
            owner: who and where, for the message that a second controller gets.
            takeover: overtake a controller that is alive but hangs; whatever it still appends is refused.

        Raises:
            LockedError: if another controller is alive and `takeover` is not set.
        """
        with ExitStack() as on_failure:
            with self._database.write() as connection:
                row = self._campaign(connection, campaign, lock=True)
                if not takeover and self._locks.is_held(connection, campaign, row.epoch):
                    raise LockedError(
                        f"campaign {campaign} is run by {row.owner} (epoch {row.epoch}); "
                        f"wait for it to end, or `ratchet campaign pause {campaign}`"
                    )
                epoch = row.epoch + 1
                release = on_failure.callback(self._locks.hold(campaign, epoch))
                connection.execute(
                    update(schema.campaigns).where(schema.campaigns.c.name == campaign).values(epoch=epoch, owner=owner)
                )
            on_failure.pop_all()
        return ControllerLease(campaign, epoch, owner, release)

    def controller(self, campaign: str) -> Controller:
        """Who ran the campaign last, and whether that process is alive."""
        # To look at a lock means to try it: only in a write transaction does nobody else try at the same time.
        with self._database.write() as connection:
            row = self._campaign(connection, campaign, lock=True)
            return Controller(row.epoch, row.owner, self._locks.is_held(connection, campaign, row.epoch))

    def _campaign(self, connection: Connection, campaign: str, *, lock: bool = False) -> Row[Any]:
        # FOR NO KEY UPDATE makes appends to one campaign queue on PostgreSQL, and lets rows that refer to the campaign
        # be added meanwhile: whoever lends a ticket must not wait for an append that waits to lend one. SQLite leaves
        # it out and queues all writes.
        row = connection.execute(_CAMPAIGN_LOCKED if lock else _CAMPAIGN, {"campaign": campaign}).one_or_none()
        if row is None:
            raise UnknownCampaignError(f"there is no campaign {campaign!r}; see `ratchet campaign list`")
        return row


def _recorded_head(campaign: Row[Any]) -> Head:
    return Head(campaign.head_seq, campaign.head_hash)


def _head(connection: Connection, campaign: Row[Any]) -> Head:
    """The recorded head, provided that it is the last event: nothing is appended to a chain that lost its tail."""
    last = connection.execute(_LAST, {"campaign": campaign.name}).one_or_none()
    head = _recorded_head(campaign)
    if head != (EMPTY_HEAD if last is None else Head(*last)):
        raise _corrupt(campaign.name, Problem("head", "the recorded head is not the last event"))
    return head


def _rows(connection: Connection, campaign: str, from_seq: int = -1) -> list[dict[str, Any]]:
    return [row._asdict() for row in connection.execute(_FROM, {"campaign": campaign, "from_seq": from_seq})]


def _known(connection: Connection, campaign: str, drafts: Sequence[EventDraft]) -> dict[str, StoredEvent]:
    """The events that carry the drafts' command ids already."""
    known = {}
    for start in range(0, len(drafts), _IDS_PER_QUERY):
        ids = [draft.command_id for draft in drafts[start : start + _IDS_PER_QUERY]]
        for row in (row._asdict() for row in connection.execute(_KNOWN, {"campaign": campaign, "ids": ids})):
            if (what := row_problem(row)) is not None:
                raise _corrupt(campaign, Problem(f"event {row['seq']}", what))
            known[row["command_id"]] = from_row(row)
    return known


def _file_problems(connection: Connection) -> list[Problem]:
    """What SQLite itself finds: pages, indices, constraints."""
    return [Problem("database", line) for line in connection.scalars(text("PRAGMA integrity_check")) if line != "ok"]


def _corrupt(campaign: str, problem: Problem) -> LedgerCorruptError:
    return LedgerCorruptError(
        f"ledger of campaign {campaign}, {problem.where}: {problem.what}; "
        f"run `ratchet ledger verify {campaign}` and restore it from a backup"
    )
