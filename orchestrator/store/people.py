"""Who may take part, and the secrets by which they prove it: invitations, sessions, tokens.

Of a secret only its SHA-256 is stored; the secret itself is returned once, to whoever asked for it. What changes here
is durable when the call returns, and every change is noted in a log of its own, which names no secret. Changes
exclude each other, so that a code which two browsers send at once opens one session.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from sqlalchemy import BigInteger, Connection, bindparam, delete, func, insert, literal, select, update

from orchestrator import failpoints
from orchestrator.core.records import Role
from orchestrator.core.vouching import Held, Register, Token
from orchestrator.errors import UnauthenticatedError, UsageError
from orchestrator.names import checked_campaign_name
from orchestrator.review.identity import Grant, Person
from orchestrator.review.names import person_name, same_name
from orchestrator.store import schema
from orchestrator.store.database import Database, written

_SECRET: Final = re.compile(r"rt[ci]_[A-Za-z0-9_-]{43}")
_PREFIX: Final = {"invitation": "rti_", "session": "rtc_", "token": "rtc_"}
_LOCK: Final = literal(int.from_bytes(hashlib.sha256(b"ratchet people").digest()[:8], signed=True), BigInteger)
"""PostgreSQL names advisory locks by 64-bit numbers."""

# What the log says of roles. `register` reads it again, so that these words stay as they are.
_INVITED: Final = "invited as "
_GIVEN_TOKEN: Final = "given token "
_EVERYWHERE: Final = "every campaign"
_SHUT_OUT: Final = "revoked, with every credential and role"
_LET_IN: Final = re.compile(
    f"(?:{_INVITED}|{_GIVEN_TOKEN}c-[0-9a-f]+ as )(?P<roles>[a-z, ]+?) of (?P<places>[^;]+)(?:; code c-[0-9a-f]+)?"
)

Kind = Literal["invitation", "session", "token"]


@dataclass(frozen=True, slots=True)
class Invitation:
    """A code that opens one session or makes one token."""

    person_name: str
    secret: str = field(repr=False)
    expires: datetime


@dataclass(frozen=True, slots=True)
class CredentialRow:
    """What may be shown of a secret."""

    id: str
    kind: Kind
    created: datetime
    expires: datetime


@dataclass(frozen=True, slots=True)
class PersonRow:
    name: str
    since: datetime
    revoked: datetime | None
    """When they were shut out; None for whoever may come in."""
    grants: frozenset[Grant]
    credentials: tuple[CredentialRow, ...]
    """Those that still open something, oldest first."""


@dataclass(frozen=True, slots=True)
class PeopleLogRow:
    """One change of who may take part."""

    time: datetime
    author: str
    person: str
    what: str


_C = schema.credentials.c
_BY_SECRET: Final = (
    select(
        _C.id,
        _C.person,
        _C.kind,
        _C.secret_hash,
        _C.expires,
        _C.used,
        _C.revoked,
        schema.grants.c.role,
        schema.grants.c.campaign,
    )
    .select_from(schema.credentials.outerjoin(schema.grants, schema.grants.c.person == _C.person))
    .where(_C.secret_hash == bindparam("hashed"))
)
"""A row for each grant, or one without."""


_ANYBODY: Final = select(schema.people.c.name).limit(1)


class People:
    """The people of one ledger. Threads may share it."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def invite(
        self,
        name: str,
        roles: Iterable[Role],
        *,
        campaigns: Iterable[str] = (),
        by: str,
        valid: timedelta = timedelta(days=7),
    ) -> Invitation:
        """Let somebody in: give them the roles, beside those they have, and a code that works once.

        Args:
            campaigns: where the roles are for; none named: every campaign of this ledger.
            by: who invites.

        Raises:
            UsageError: the name is none or names no person, no role is given, or a campaign's name is not allowed.
        """
        with self._change() as connection:
            person, given = self._let_in(connection, name, roles, campaigns)
            secret, row = self._new_credential(connection, person, "invitation", valid)
            self._note(connection, by, person, f"{_INVITED}{given}; code {row['id']}")
        return Invitation(person, secret, datetime.fromisoformat(row["expires"]))

    def token(
        self,
        name: str,
        roles: Iterable[Role],
        *,
        campaigns: Iterable[str] = (),
        by: str,
        valid: timedelta = timedelta(days=90),
        alone: bool = False,
    ) -> tuple[str, Person]:
        """As `invite`, but hands out a token at once, for a terminal or a program. Raises as `invite`.

        Args:
            alone: only where nobody was ever let in; UnauthenticatedError where somebody was.
        """
        with self._change() as connection:
            if alone and connection.scalar(_ANYBODY) is not None:
                raise UnauthenticatedError("somebody else was let in first; ask them for an invitation", why="unknown")
            person, given = self._let_in(connection, name, roles, campaigns)
            secret, row = self._new_credential(connection, person, "token", valid)
            self._note(connection, by, person, f"{_GIVEN_TOKEN}{row['id']} as {given}")
            found = Person(person, row["id"], _grants(connection, person))
        return secret, found

    def redeem(
        self, secret: str, *, kind: Literal["session", "token"] = "session", valid: timedelta = timedelta(days=30)
    ) -> tuple[str, Person]:
        """Turn an invitation's code into a session or a token; a code works once.

        A crash after the code was used up and before its holder had the answer costs an invitation, never a secret.

        Raises:
            UnauthenticatedError: the code is unknown, expired, revoked or used.
        """
        with self._change() as connection:
            known = self._look_up(connection, secret, invitation=True)
            now = written(self._now())
            connection.execute(update(schema.credentials).where(_C.id == known.credential).values(used=now))
            fresh, row = self._new_credential(connection, known.name, kind, valid)
            self._note(connection, known.name, known.name, f"turned code {known.credential} into {kind} {row['id']}")
            failpoints.hit("people.before_commit")
        failpoints.hit("people.after_commit")
        return fresh, Person(known.name, row["id"], known.grants)

    def authenticate(self, secret: str) -> Person:
        """Whose session or token this is: one look-up, for every request.

        Raises:
            UnauthenticatedError: it is unknown, expired or revoked.
        """
        with self._database.read() as connection:
            return self._look_up(connection, secret, invitation=False)

    def revoke(self, name: str, *, by: str) -> None:
        """Shut somebody out at once: their sessions, tokens, open invitations and roles end. What they said stays.

        Raises:
            UsageError: nobody of that name was ever let in.
        """
        person = same_name(name)
        with self._change() as connection:
            now = written(self._now())
            gone = update(schema.people).where(schema.people.c.name == person).values(revoked=now)
            if connection.execute(gone).rowcount != 1:
                raise UsageError(f"nobody here is called {person!r}; see `ratchet review people`")
            ended = update(schema.credentials).where(_C.person == person, _C.revoked.is_(None)).values(revoked=now)
            connection.execute(ended)
            connection.execute(delete(schema.grants).where(schema.grants.c.person == person))
            self._note(connection, by, person, _SHUT_OUT)

    def revoke_credential(self, credential: str, *, by: str) -> None:
        """End one session, token or invitation, by its public id; ending it twice is ending it once.

        Raises:
            UsageError: there is no such credential.
        """
        with self._change() as connection:
            query = select(_C.person, _C.kind, _C.revoked).where(_C.id == credential)
            row = connection.execute(query).one_or_none()
            if row is None:
                raise UsageError("there is no credential of that id; see `ratchet review people`")
            if row.revoked is None:
                self._end(connection, credential)
                self._note(connection, by, row.person, f"revoked {row.kind} {credential}")

    def end_session(self, secret: str) -> None:
        """Log out: what this secret opened is closed. A secret that opens nothing is left as it is."""
        with self._change() as connection:
            try:
                person = self._look_up(connection, secret, invitation=False)
            except UnauthenticatedError:
                return
            self._end(connection, person.credential)
            self._note(connection, person.name, person.name, f"ended {person.credential}")

    def list(self) -> tuple[PersonRow, ...]:
        """Everybody who was ever let in, by name, and what they hold now."""
        live = (_C.used.is_(None), _C.revoked.is_(None), _C.expires > written(self._now()))
        with self._database.read() as connection:
            rows = connection.execute(select(schema.people).order_by(schema.people.c.name)).all()
            given: dict[str, set[Grant]] = {row.name: set() for row in rows}
            for grant in connection.execute(select(schema.grants)):
                given[grant.person].add(_grant(grant.role, grant.campaign))
            held: dict[str, list[CredentialRow]] = {row.name: [] for row in rows}
            columns = select(_C.id, _C.person, _C.kind, _C.created, _C.expires)
            for row in connection.execute(columns.where(*live).order_by(_C.created, _C.id)):
                held[row.person].append(
                    CredentialRow(
                        row.id, row.kind, datetime.fromisoformat(row.created), datetime.fromisoformat(row.expires)
                    )
                )
        return tuple(
            PersonRow(
                row.name,
                datetime.fromisoformat(row.since),
                None if row.revoked is None else datetime.fromisoformat(row.revoked),
                frozenset(given[row.name]),
                tuple(held[row.name]),
            )
            for row in rows
        )

    def log(self) -> tuple[PeopleLogRow, ...]:
        """Every change of who may take part, in order."""
        columns = schema.people_log.c
        query = select(columns.time, columns.author, columns.person, columns.what).order_by(columns.seq)
        with self._database.read() as connection:
            return tuple(
                PeopleLogRow(datetime.fromisoformat(time), author, person, what)
                for time, author, person, what in connection.execute(query)
            )

    def register(self) -> Register:
        """Everybody's tokens, and the roles that they held and when, as the log tells.

        The table of grants has only what is held now: what somebody held when they spoke may be taken back since.
        """
        columns = select(_C.id, _C.person, _C.kind, _C.created, _C.expires, _C.revoked)
        with self._database.read() as connection:
            tokens = {
                row.id: Token(
                    row.person,
                    row.kind,
                    datetime.fromisoformat(row.created),
                    datetime.fromisoformat(row.expires),
                    None if row.revoked is None else datetime.fromisoformat(row.revoked),
                )
                for row in connection.execute(columns)
            }
        return Register(tokens, _roles_held(self.log()))

    def any(self) -> bool:
        """Whether anybody was ever let in here."""
        with self._database.read() as connection:
            return connection.scalar(_ANYBODY) is not None

    @contextmanager
    def _change(self) -> Iterator[Connection]:
        with self._database.write() as connection:
            if self._database.path is None:
                connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
            yield connection

    def _let_in(
        self, connection: Connection, name: str, roles: Iterable[Role], campaigns: Iterable[str]
    ) -> tuple[str, str]:
        """Add a person and their grants; their one spelling, and what was given in words."""
        person = person_name(name)
        wanted = sorted({Role(role) for role in roles})
        places = sorted({checked_campaign_name(campaign) for campaign in campaigns})
        if not wanted:
            raise UsageError(f"say what {person} may do: {', '.join(Role)}")
        known = connection.scalar(select(schema.people.c.name).where(schema.people.c.name == person))
        if known is None:
            connection.execute(insert(schema.people).values(name=person, since=written(self._now())))
        else:
            connection.execute(update(schema.people).where(schema.people.c.name == person).values(revoked=None))
        had = _grants(connection, person)
        new = [
            {"person": person, "role": role, "campaign": campaign}
            for role in wanted
            for campaign in places or [schema.EVERY_CAMPAIGN]
            if _grant(role, campaign) not in had
        ]
        if new:
            connection.execute(insert(schema.grants), new)
        return person, f"{', '.join(wanted)} of {', '.join(places) or _EVERYWHERE}"

    def _new_credential(
        self, connection: Connection, person: str, kind: Kind, valid: timedelta
    ) -> tuple[str, dict[str, Any]]:
        if valid <= timedelta(0):
            raise UsageError("a credential must be valid for some time")
        now = self._now()
        secret = _PREFIX[kind] + secrets.token_urlsafe(32)
        while True:
            public = f"c-{secrets.token_hex(4)}"
            if connection.scalar(select(_C.id).where(_C.id == public)) is None:
                break
        row = {
            "id": public,
            "person": person,
            "kind": kind,
            "secret_hash": _hashed(secret),
            "created": written(now),
            "expires": written(now + valid),
        }
        connection.execute(insert(schema.credentials).values(row))
        return secret, row

    def _look_up(self, connection: Connection, secret: str, *, invitation: bool) -> Person:
        """Whose secret it is, provided that it is of the wanted kind and still opens something.

        Finding it by its hash tells a guesser who measures time about hashes, which lead nowhere.
        """
        what = "invitation code" if invitation else "token"
        rows: Sequence[Any] = ()
        if _SECRET.fullmatch(secret) and secret.startswith("rti_") is invitation:
            rows = connection.execute(_BY_SECRET, {"hashed": _hashed(secret)}).all()
        if not rows or not hmac.compare_digest(rows[0].secret_hash, _hashed(secret)):
            raise UnauthenticatedError(f"this {what} is not known here; ask for an invitation", why="unknown")
        found = rows[0]
        if found.revoked is not None:
            raise UnauthenticatedError(f"this {what} was revoked; ask for an invitation", why="revoked")
        if found.used is not None:
            raise UnauthenticatedError(f"this {what} was used already; ask for another one", why="used")
        if found.expires <= written(self._now()):
            raise UnauthenticatedError(f"this {what} has expired; ask for an invitation", why="expired")
        given = frozenset(_grant(row.role, row.campaign) for row in rows if row.role is not None)
        return Person(found.person, found.id, given)

    def _end(self, connection: Connection, credential: str) -> None:
        gone = update(schema.credentials).where(_C.id == credential).values(revoked=written(self._now()))
        connection.execute(gone)

    def _note(self, connection: Connection, by: str, person: str, what: str) -> None:
        row = {"time": written(self._now()), "author": same_name(by), "person": person, "what": what}
        connection.execute(insert(schema.people_log).values(row))


def _hashed(secret: str) -> str:
    return hashlib.sha256(secret.encode("ascii")).hexdigest()


def _grants(connection: Connection, person: str) -> frozenset[Grant]:
    query = select(schema.grants.c.role, schema.grants.c.campaign).where(schema.grants.c.person == person)
    return frozenset(_grant(role, campaign) for role, campaign in connection.execute(query))


def _roles_held(log: Iterable[PeopleLogRow]) -> dict[str, tuple[Held, ...]]:
    """By person, every role that was given, from then until its holder was shut out."""
    held: dict[str, tuple[Held, ...]] = {}
    for row in log:
        before = held.get(row.person, ())
        if row.what == _SHUT_OUT:
            held[row.person] = tuple(replace(role, until=role.until or row.time) for role in before)
        elif (given := _LET_IN.fullmatch(row.what)) is not None:
            places = [None] if given["places"] == _EVERYWHERE else given["places"].split(", ")
            roles = [Role(role) for role in given["roles"].split(", ") if role in list(Role)]
            held[row.person] = (*before, *(Held(role, place, row.time, None) for role in roles for place in places))
    return held


def _grant(role: str, campaign: str) -> Grant:
    return Role(role), None if campaign == schema.EVERY_CAMPAIGN else campaign
