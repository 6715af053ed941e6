"""The ledger's tables, and the version that says who may read them."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    insert,
    inspect,
    select,
)

from orchestrator.errors import LedgerCorruptError, LedgerVersionError

SCHEMA_VERSION: Final = 1

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


def is_current(connection: Connection) -> bool:
    """Whether the tables are there, in the version that this code knows.

    Raises:
        LedgerVersionError: if a newer Ratchet made them, or something that is no Ratchet.
        LedgerCorruptError: if they do not say who made them.
    """
    tables = set(inspect(connection).get_table_names())
    if schema_version.name not in tables:
        if foreign := tables & set(metadata.tables):
            raise LedgerVersionError(
                f"the database has tables named {', '.join(sorted(foreign))} that are not Ratchet's; "
                "give the ledger a database of its own"
            )
        return False
    versions = connection.scalars(select(schema_version.c.version)).all()
    if len(versions) != 1 or not isinstance(versions[0], int):
        raise LedgerCorruptError(f"the ledger's schema version reads {versions}; restore it from a backup")
    if versions[0] != SCHEMA_VERSION:
        raise LedgerVersionError(
            f"the ledger has schema version {versions[0]}, this Ratchet reads version {SCHEMA_VERSION}; "
            "use the Ratchet that wrote it, or a newer one"
        )
    return True


def create(connection: Connection) -> None:
    """Make the tables; in the caller's transaction, so that a crash leaves all of them or none."""
    metadata.create_all(connection)
    connection.execute(insert(schema_version).values(version=SCHEMA_VERSION))
