"""One meaning of "read" and "write" for SQLite and PostgreSQL.

A read sees one snapshot. A write excludes other writes (on PostgreSQL: those that lock the same campaign), is
durable once its block has ended, and leaves nothing behind if it fails. What the database refuses comes out as
one of Ratchet's errors.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from orchestrator.errors import ConfigError, LedgerCorruptError, RatchetError, StorageError, StorageFullError
from orchestrator.store.filesystem import on_network


class Database:
    """Connections to one database. Open it after forking, not before: neither driver survives a fork."""

    def __init__(self, where: str | Path, *, busy_timeout: timedelta) -> None:
        """Connect lazily; `where` is a file, or a URL with a scheme.

        Raises:
            ConfigError: if the URL names no database that Ratchet knows, or its driver is not installed.
            StorageError: if the file's directory cannot be made.
        """
        url = _url(where)
        self.name = url.database or "" if url.drivername == "sqlite" else _shown(url)
        """For messages: the path, or the URL without its password and its options."""
        self.path = Path(self.name).resolve() if url.drivername == "sqlite" else None
        """The SQLite file; None on PostgreSQL."""
        if self.path is None:
            self._engine = _postgresql_engine(url)
            self._reader = self._engine.execution_options(isolation_level="REPEATABLE READ")
            self._writer = self._engine.execution_options(isolation_level="READ COMMITTED")
        else:
            _make_directory(self.path.parent)
            self._engine = _sqlite_engine(self.path, busy_timeout)
            self._reader = self._engine.execution_options(ratchet_begin="BEGIN")
            # A deferred transaction that turns to writing may fail on another's commit; this one waits its turn first.
            self._writer = self._engine.execution_options(ratchet_begin="BEGIN IMMEDIATE")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with self._translated_errors(), self._reader.begin() as connection, _unmoved(connection, self.name):
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with self._translated_errors(), self._writer.begin() as connection:
            yield connection

    @contextmanager
    def session(self) -> Iterator[Connection]:
        """A PostgreSQL connection outside any transaction, for locks that last as long as it does."""
        with (
            self._translated_errors(),
            self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        ):
            yield connection

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise  # a broken constraint is the caller's to explain
        except DBAPIError as error:
            raise _translated(error.orig, self.name) from error
        except PoolTimeoutError as error:
            raise StorageError(f"{self.name}: too many ask at once; try again") from error
        except UnicodeDecodeError as error:
            # The driver fails to read SQLite's own message when that quotes a damaged page.
            raise LedgerCorruptError(f"{self.name}: the database is damaged; restore it from a backup") from error


def sqlite_file(where: str | Path) -> Path | None:
    """The file that `where` names; None for a server.

    Raises:
        ConfigError: as `Database`.
    """
    url = _url(where)
    return Path(url.database or "") if url.drivername == "sqlite" else None


def written(time: datetime) -> str:
    """As every table holds a time: UTC, to the microsecond, so that texts sort as their times do.

    Args:
        time: aware.
    """
    return time.astimezone(UTC).isoformat(timespec="microseconds")


def _url(where: str | Path) -> URL:
    if isinstance(where, Path) or "://" not in where:
        return URL.create("sqlite", database=str(where))
    try:
        url = make_url(where)
    except ArgumentError as error:
        raise ConfigError(
            "the ledger's URL cannot be read; write sqlite:///PATH or postgresql://USER@HOST/NAME"
        ) from error
    match url.get_backend_name():
        case "sqlite" if url.database and url.database != ":memory:":
            return url.set(drivername="sqlite")
        case "postgresql" | "postgres":
            return url.set(drivername="postgresql+psycopg")
    raise ConfigError(
        f"a ledger cannot live at {_shown(url)}; give a file, sqlite:///PATH or postgresql://USER@HOST/NAME"
    )


def _shown(url: URL) -> str:
    """Options are left out since a password may be among them."""
    return url.set(query={}).render_as_string()


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{directory}: {error.strerror}; choose another place with --home") from error


def _sqlite_engine(path: Path, busy_timeout: timedelta) -> Engine:
    # isolation_level=None stops the driver from opening transactions by its own rules; "begin" below opens them.
    options: dict[str, Any] = {"isolation_level": None, "timeout": busy_timeout.total_seconds()}
    to_look_at = path.exists() and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))
    if to_look_at:
        # Opened anew for each transaction: somebody else, who may write, can have begun or ended meanwhile.
        engine = create_engine(
            "sqlite://",
            creator=lambda: _read_only(path, check_same_thread=False, **options),
            poolclass=NullPool,
            hide_parameters=True,
        )
    else:
        where = URL.create("sqlite", database=str(path))
        engine = create_engine(where, connect_args=options, hide_parameters=True)
    # The write-ahead log needs memory that all users of the file share: one machine.
    journal_mode = "DELETE" if on_network(path) else "WAL"

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
        if to_look_at:
            return
        connection.execute(f"PRAGMA journal_mode={journal_mode}")
        connection.execute("PRAGMA synchronous=FULL")
        # Whoever commits when the log is full waits until it is copied back: with so many pages, one in a thousand.
        connection.execute("PRAGMA wal_autocheckpoint=16384")
        connection.execute("PRAGMA fullfsync=ON")  # macOS: a plain fsync stops at the drive's cache
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options()["ratchet_begin"])

    return engine


class _Whole(sqlite3.Connection):
    """To a file that holds all of the ledger, as long as nobody writes: SQLite neither locks it nor looks again."""

    path: Path
    stamp: tuple[int, ...] | None
    """Of the file as it was before it was opened."""


def _read_only(path: Path, **options: Any) -> sqlite3.Connection:
    """Open a file that cannot be written to, or has no room beside it for SQLite's own.

    Where a log lies beside it, somebody writes or was killed: SQLite reads both, or refuses. Where none does, all of
    the ledger is in the file, and SQLite need not look for the memory of a write-ahead log, which it may not make.
    """
    stamp = _stamp(path)
    if stamp is None or not _is_write_ahead(path):
        return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, **options)
    opened = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True, factory=_Whole, **options)
    opened.path, opened.stamp = path, stamp
    return opened


@contextmanager
def _unmoved(connection: Connection, name: str) -> Iterator[None]:
    """Refuse what was read in this block, and what it led to, if somebody wrote meanwhile and SQLite could not know.

    Raises:
        StorageError: so it was.
    """
    opened = connection.connection.dbapi_connection
    try:
        yield
    finally:
        if isinstance(opened, _Whole) and _stamp(opened.path) != opened.stamp:
            raise StorageError(f"{name}: somebody writes to it, which cannot be followed from here; look at a copy")


def _stamp(path: Path) -> tuple[int, ...] | None:
    """What changes when the file is written to; None while a log lies beside it."""
    wal, journal = (path.with_name(f"{path.name}-{log}") for log in ("wal", "journal"))
    if journal.exists() or (wal.exists() and wal.stat().st_size > 0):
        return None
    seen = path.stat()
    return seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns


def _is_write_ahead(path: Path) -> bool:
    """By the file's header (bytes 18 and 19, https://www.sqlite.org/fileformat.html); other files can be locked."""
    with path.open("rb") as file:
        return file.read(20)[18:] == b"\2\2"


def _postgresql_engine(url: URL) -> Engine:
    try:
        return create_engine(url, pool_pre_ping=True, hide_parameters=True)
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise ConfigError("PostgreSQL needs its driver; pip install 'ratchet-rlhf[postgres]'") from error


def _translated(error: BaseException | None, name: str) -> RatchetError:
    if isinstance(error, sqlite3.Error):
        return _translated_sqlite(error, name)
    state = getattr(error, "sqlstate", None)
    cause = str(error).strip().partition("\n")[0]
    if state == "53100":
        return StorageFullError(f"{name}: {cause}; make room and resume")
    return StorageError(f"{name}: {cause}; check the database server and try again")


def _translated_sqlite(error: sqlite3.Error, name: str) -> RatchetError:
    code: Any = getattr(error, "sqlite_errorcode", None)
    match None if code is None else code & 0xFF:
        case sqlite3.SQLITE_FULL:
            return StorageFullError(f"{name}: the disk is full; nothing was recorded: make room and resume")
        case sqlite3.SQLITE_IOERR:
            return StorageError(f"{name}: {error}; nothing was recorded: check the disk, its quota and its free space")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return StorageError(
                f"{name}: {error}; check that the file and its directory can be written, or look at a copy"
            )
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StorageError(f"{name}: another process is writing and did not end in time; try again")
    # Corrupt pages and files that are no database have codes; text that is no UTF-8 has none.
    return LedgerCorruptError(f"{name}: {error}; restore the ledger from a backup")
