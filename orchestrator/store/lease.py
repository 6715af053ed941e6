"""Who may run a campaign: one controller at a time, known by its epoch.

Two things make this safe. The *lock* tells whether the holder of the current epoch still lives: the system frees
it when that process dies, kill -9 included. The *epoch* fences: every new controller raises it by one, and the
ledger refuses the appends of any other, however late they come. So a controller that hangs can be overtaken: its
lock no longer matters, because the next epoch has a lock of its own.

Locks are taken and looked at inside the ledger's write transaction, never outside: that serialises controllers.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from sqlalchemy import ColumnElement, Connection, func, select
from sqlalchemy.exc import DBAPIError

from orchestrator.errors import LockedError, StorageError
from orchestrator.store.database import Database


@dataclass(frozen=True, slots=True)
class Controller:
    """The last controller that a campaign had."""

    epoch: int
    """0 if it never had one."""
    owner: str | None
    live: bool
    """Whether it still holds its lock."""


class ControllerLease:
    """The right to write a campaign's events under `epoch`, until closed or overtaken."""

    def __init__(self, campaign: str, epoch: int, owner: str, release: Callable[[], None]) -> None:
        self.campaign = campaign
        self.epoch = epoch
        self.owner = owner
        self._release = release

    def close(self) -> None:
        """Let the next controller in; doing it twice does no harm."""
        self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Locks(Protocol):
    """One lock for each epoch of each campaign, freed when its holder dies."""

    def is_held(self, connection: Connection, campaign: str, epoch: int) -> bool: ...

    def hold(self, campaign: str, epoch: int) -> Callable[[], None]:
        """Take the lock and return what lets it go, which may be called twice.

        Raises:
            LockedError: if somebody holds it already.
        """
        ...


def locks_of(database: Database) -> Locks:
    return _AdvisoryLocks(database) if database.path is None else _FileLocks(database.path)


class _FileLocks:
    """flock on files beside the database, for SQLite."""

    def __init__(self, database: Path) -> None:
        self._database = database

    def is_held(self, connection: Connection, campaign: str, epoch: int) -> bool:
        file = self._file(campaign, epoch)
        if not file.exists():
            return False
        descriptor = _flock(file)
        if descriptor is None:
            return True
        file.unlink(missing_ok=True)  # its holder was killed
        os.close(descriptor)
        return False

    def hold(self, campaign: str, epoch: int) -> Callable[[], None]:
        file = self._file(campaign, epoch)
        descriptor = _flock(file)
        if descriptor is None:
            raise LockedError(f"{file} is locked by another process; wait for it to end")
        held = _HeldFile(file, descriptor)
        _held.add(held)
        return held.release

    def _file(self, campaign: str, epoch: int) -> Path:
        return self._database.with_name(f"{self._database.name}.{campaign}.{epoch}.lock")


def _flock(file: Path) -> int | None:
    """Lock a file and return its descriptor, or None if somebody else has it."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StorageError(f"{file}: {error.strerror}; check that its directory can be written") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError as error:
        os.close(descriptor)
        raise StorageError(f"{file}: {error.strerror}; the file system must support flock: move --home") from error
    return descriptor


class _HeldFile:
    """A locked file. It is deleted when it is let go, because every epoch has a new one."""

    def __init__(self, file: Path, descriptor: int) -> None:
        self._file = file
        self._descriptor = descriptor

    def release(self) -> None:
        if self in _held:
            self._file.unlink(missing_ok=True)
            self.abandon()

    def abandon(self) -> None:
        _held.remove(self)
        os.close(self._descriptor)


_held: set[_HeldFile] = set()


def _abandon_in_child() -> None:
    # A flock lives until the last copy of its descriptor is closed: a forked child that outlives its parent, killed
    # with -9, would keep the campaign locked.
    for held in tuple(_held):
        held.abandon()


os.register_at_fork(after_in_child=_abandon_in_child)


class _AdvisoryLocks:
    """Advisory locks of PostgreSQL, each held by a connection of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def is_held(self, connection: Connection, campaign: str, epoch: int) -> bool:
        # Taken for this transaction only, if it can be had at all.
        return not connection.scalar(select(func.pg_try_advisory_xact_lock(_key(campaign, epoch))))

    def hold(self, campaign: str, epoch: int) -> Callable[[], None]:
        key = _key(campaign, epoch)
        with ExitStack() as stack:
            session = stack.enter_context(self._database.session())
            if not session.scalar(select(func.pg_try_advisory_lock(key))):
                raise LockedError(f"epoch {epoch} of campaign {campaign} is locked by another process; try again")
            stack.callback(_unlock, session, key)
            return stack.pop_all().close


def _unlock(session: Connection, key: ColumnElement[int]) -> None:
    # To close the connection would do, but a moment later. A server that is gone holds no lock.
    with suppress(DBAPIError):
        session.execute(select(func.pg_advisory_unlock(key)))


def _key(campaign: str, epoch: int) -> ColumnElement[int]:
    """PostgreSQL names advisory locks by 64-bit numbers, alike in all of a database's schemas: the name says which."""
    schema = func.coalesce(func.current_schema(), "")
    return func.hashtextextended(schema.concat(f" ratchet controller {campaign} {epoch}"), 0)
