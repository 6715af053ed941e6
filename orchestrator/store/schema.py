"""The ledger's tables, and the version that says who may read them."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    insert,
    inspect,
    select,
    update,
)

from orchestrator.errors import LedgerCorruptError, LedgerVersionError

SCHEMA_VERSION: Final = 2
"""1: campaigns and their events. 2: and people, what is on their screens, and the texts that they read."""

EVERY_CAMPAIGN: Final = ""
"""Stands for a campaign's name where a grant is for all of them."""

metadata = MetaData()

schema_version = Table("schema_version", metadata, Column("version", Integer, nullable=False))

campaigns = Table(
    "campaigns",
    metadata,
    Column("name", Text, primary_key=True),
    Column("created", Text, nullable=False),
    # The controller that may write: see lease.py.
    Column("epoch", Integer, nullable=False),
    Column("owner", Text),
    # Beside the chain, so that a missing tail shows.
    Column("head_seq", Integer, nullable=False),
    Column("head_hash", Text, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("campaign", Text, ForeignKey("campaigns.name"), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("type", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("command_id", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("time", Text, nullable=False),
    Column("epoch", Integer),
    Column("body", Text, nullable=False),
    Column("prev_hash", Text, nullable=False),
    Column("hash", Text, nullable=False),
    UniqueConstraint("campaign", "command_id"),
)


# Times are as in `events`: ISO 8601, UTC, microseconds, so that their order is that of their texts.

people = Table(
    "people",
    metadata,
    Column("name", Text, primary_key=True),
    Column("since", Text, nullable=False),
    Column("revoked", Text),
)

grants = Table(
    "grants",
    metadata,
    Column("person", Text, ForeignKey("people.name"), primary_key=True),
    Column("role", Text, primary_key=True),
    Column("campaign", Text, primary_key=True),
)

credentials = Table(
    "credentials",
    metadata,
    Column("id", Text, primary_key=True),
    Column("person", Text, ForeignKey("people.name"), nullable=False, index=True),
    Column("kind", Text, nullable=False),
    # SHA-256 of a secret of 256 random bits: nothing to guess, so nothing to slow a guesser down by.
    Column("secret_hash", Text, nullable=False, unique=True),
    Column("created", Text, nullable=False),
    Column("expires", Text, nullable=False),
    Column("used", Text),
    Column("revoked", Text),
)

people_log = Table(
    "people_log",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("time", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("person", Text, nullable=False),
    Column("what", Text, nullable=False),
)

tickets = Table(
    "tickets",
    metadata,
    Column("id", Text, primary_key=True),
    Column("campaign", Text, ForeignKey("campaigns.name"), nullable=False),
    Column("batch", Text, nullable=False),
    Column("item", Integer, nullable=False),
    Column("person", Text, nullable=False),
    Column("repeat", Boolean, nullable=False),
    Column("swapped", Boolean, nullable=False),
    Column("lent_at", Text, nullable=False),
    Column("until", Text, nullable=False),
    Index("ix_tickets_campaign_until", "campaign", "until"),
)

campaign_secrets = Table(
    "campaign_secrets",
    metadata,
    Column("campaign", Text, ForeignKey("campaigns.name"), primary_key=True),
    Column("secret", LargeBinary, nullable=False),
)

text_chunks = Table(
    "text_chunks",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("file", Text, primary_key=True),
    Column("part", Integer, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
)

_ADDED_BY_2: Final = (people, grants, credentials, people_log, tickets, campaign_secrets, text_chunks)


def is_current(connection: Connection) -> bool:
    """Whether the tables are there, in the version that this code knows; if not, `bring_up` makes it so.

    Raises:
        LedgerVersionError: if a newer Ratchet made them, or something that is no Ratchet.
        LedgerCorruptError: if they do not say who made them.
    """
    return _version(connection) == SCHEMA_VERSION


def bring_up(connection: Connection) -> None:
    """Make the tables, or those that an older ledger lacks; nothing in it changes but its version.

    In the caller's transaction, so that a crash leaves all of them or none.

    Raises:
        LedgerVersionError, LedgerCorruptError: as `is_current`.
    """
    match _version(connection):
        case 0:
            metadata.create_all(connection)
            connection.execute(insert(schema_version).values(version=SCHEMA_VERSION))
        case 1:
            _require_absent(set(inspect(connection).get_table_names()) & {table.name for table in _ADDED_BY_2})
            metadata.create_all(connection, tables=_ADDED_BY_2)
            connection.execute(update(schema_version).values(version=SCHEMA_VERSION))


def _version(connection: Connection) -> int:
    """0 where there is no ledger yet."""
    tables = set(inspect(connection).get_table_names())
    if schema_version.name not in tables:
        _require_absent(tables & set(metadata.tables))
        return 0
    versions = connection.scalars(select(schema_version.c.version)).all()
    if len(versions) != 1 or not isinstance(versions[0], int):
        raise LedgerCorruptError(f"the ledger's schema version reads {versions}; restore it from a backup")
    if not 1 <= versions[0] <= SCHEMA_VERSION:
        raise LedgerVersionError(
            f"the ledger has schema version {versions[0]}, this Ratchet reads versions 1 to {SCHEMA_VERSION}; "
            "use the Ratchet that wrote it, or a newer one"
        )
    return versions[0]


def _require_absent(foreign: set[str]) -> None:
    if foreign:
        raise LedgerVersionError(
            f"the database has tables named {', '.join(sorted(foreign))} that are not Ratchet's; "
            "give the ledger a database of its own"
        )
