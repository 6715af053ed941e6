"""Who has which comparison on the screen: a ticket is lent for some minutes, and the label that comes back names it.

Tickets only keep two people from the same work; labels are on the ledger. One person holds one live ticket of a
campaign: what is lent to them ends what they had. A ticket that has run out is still found, since the word of whoever
thought for long is kept, and one that is sent twice is told as known; `KEPT` later it is forgotten.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import BigInteger, Connection, Row, bindparam, delete, func, insert, literal, select, update

from orchestrator import failpoints
from orchestrator.errors import HeadMovedError
from orchestrator.store import schema
from orchestrator.store.database import Database, written


@dataclass(frozen=True, slots=True)
class Place:
    """A comparison to be shown to one person."""

    batch: str
    item: int
    repeat: bool = False
    """Shown to this person before, to see whether they say the same again."""
    swapped: bool = False
    """The second response stands on the left."""


@dataclass(frozen=True, slots=True)
class Ticket:
    id: str
    """22 random characters, safe in a URL."""
    campaign: str
    batch: str
    item: int
    person: str
    repeat: bool
    swapped: bool
    lent_at: datetime
    until: datetime
    """Live before this moment."""


KEPT: Final = timedelta(days=30)
"""How long a ticket that has ended is still known: as long as a page with it can be open, which is a session's time."""
FORGOTTEN_AT_ONCE: Final = 4
"""So many with each that is lent: more than come in, and never a long delete while people wait."""

_ID: Final = re.compile(r"[A-Za-z0-9_-]{22}")
_T = schema.tickets.c
_FIND = select(schema.tickets).where(_T.id == bindparam("ticket"))
_CLOSE = update(schema.tickets).where(_T.id == bindparam("ticket")).values(until=bindparam("now"))
_END = (
    update(schema.tickets)
    .where(_T.campaign == bindparam("held_at"), _T.person == bindparam("holder"), _T.until > bindparam("now"))
    .values(until=_T.lent_at)
)
_LIVE = (
    select(schema.tickets)
    .where(_T.campaign == bindparam("campaign"), _T.until > bindparam("now"))
    .order_by(_T.lent_at, _T.id)
)
_LIVE_OF = _LIVE.where(_T.person == bindparam("person"))
_LONG_ENDED = (
    select(_T.id)
    .where(_T.campaign == bindparam("ended_at"), _T.until < bindparam("before"))
    .order_by(_T.until)
    .limit(literal(FORGOTTEN_AT_ONCE))
)
_FORGET = delete(schema.tickets).where(_T.id.in_(_LONG_ENDED))
_INSERT = insert(schema.tickets)
_HEAD = select(schema.campaigns.c.head_seq).where(schema.campaigns.c.name == bindparam("campaign"))


Choose = Callable[[tuple[Ticket, ...]], Place | None]
"""Given the live tickets of a campaign, the place to lend next."""


class Tickets:
    """The tickets of one ledger's campaigns. Threads may share it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def lend(
        self,
        campaign: str,
        person: str,
        choose: Choose,
        *,
        until: datetime,
        now: datetime,
        after_seq: int | None = None,
    ) -> Ticket | None:
        """Lend the place that `choose` names, given the campaign's tickets that are live; None where it names none.

        What this person held before is free again. Of one campaign, no two are lent at once. `choose` is called in the
        transaction and must not ask the ledger: everybody who waits for this turn holds a connection.

        Args:
            after_seq: the last event that `choose` knows of. A word that came in behind it ended its ticket, and would
                be missed here and there.

        Raises:
            HeadMovedError: events came in behind `after_seq`.
        """
        with self._database.write() as connection:
            self._wait_for_turn(connection, campaign)
            ticket = _lend(connection, campaign, person, choose, until, now, after_seq)
            failpoints.hit("tickets.before_commit")
        failpoints.hit("tickets.after_commit")
        return ticket

    def closing(
        self, ticket: str, campaign: str, person: str, choose: Choose, *, until: datetime, now: datetime
    ) -> Callable[[Connection], None]:
        """For the append that answers a ticket: end it, and lend the same person what comes next.

        One transaction serves both, so that whoever asks next only has to read.
        """

        def along(connection: Connection) -> None:
            # First the turn: whoever has it may be about to end this ticket, too.
            self._wait_for_turn(connection, campaign)
            connection.execute(_CLOSE, {"ticket": ticket, "now": written(now)})
            _lend(connection, campaign, person, choose, until, now)

        return along

    def _wait_for_turn(self, connection: Connection, campaign: str) -> None:
        if self._database.path is None:  # SQLite lets one write at a time anyway
            connection.execute(select(func.pg_advisory_xact_lock(_lock(campaign))))

    def find(self, ticket: str) -> Ticket | None:
        """The ticket of that id, live or not; None where none is known any more."""
        if not _ID.fullmatch(ticket):
            return None  # PostgreSQL would choke on some of what people may send
        with self._database.read() as connection:
            row = connection.execute(_FIND, {"ticket": ticket}).one_or_none()
        return None if row is None else _read(row)

    def live(self, campaign: str, now: datetime) -> tuple[Ticket, ...]:
        """The campaign's live tickets, oldest first."""
        with self._database.read() as connection:
            return _live(connection, campaign, now)

    def live_of(self, campaign: str, person: str, now: datetime) -> tuple[Ticket, ...]:
        """One person's live tickets, oldest first."""
        with self._database.read() as connection:
            asked = {"campaign": campaign, "person": person, "now": written(now)}
            return tuple(map(_read, connection.execute(_LIVE_OF, asked)))


def _lend(
    connection: Connection,
    campaign: str,
    person: str,
    choose: Choose,
    until: datetime,
    now: datetime,
    after_seq: int | None = None,
) -> Ticket | None:
    live = _live(connection, campaign, now)
    # Looked at after the tickets: a word that ends one of them later finds it among these.
    if after_seq is not None and connection.scalar(_HEAD, {"campaign": campaign}) != after_seq:
        raise HeadMovedError(f"campaign {campaign}: events came in behind event {after_seq}; reload and try again")
    place = choose(live)
    if place is None:
        return None
    ticket = Ticket(
        secrets.token_urlsafe(16),
        campaign,
        place.batch,
        place.item,
        person,
        place.repeat,
        place.swapped,
        lent_at=now,
        until=until,
    )
    connection.execute(_FORGET, {"ended_at": campaign, "before": written(now - KEPT)})
    connection.execute(_END, {"held_at": campaign, "holder": person, "now": written(now)})
    connection.execute(_INSERT, asdict(ticket) | {"lent_at": written(now), "until": written(until)})
    return ticket


def _live(connection: Connection, campaign: str, now: datetime) -> tuple[Ticket, ...]:
    return tuple(map(_read, connection.execute(_LIVE, {"campaign": campaign, "now": written(now)})))


def _read(row: Row[Any]) -> Ticket:
    columns = row._asdict()
    columns |= {name: datetime.fromisoformat(columns[name]) for name in ("lent_at", "until")}
    return Ticket(**columns)


def _lock(campaign: str) -> Any:
    """A lock of its own, so that nobody who asks for work waits for an append."""
    digest = hashlib.sha256(b"ratchet tickets " + campaign.encode()).digest()
    return literal(int.from_bytes(digest[:8], signed=True), BigInteger)
