"""Bringing files to the disk for good, and saying clearly when it refuses."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.core.canonical import Digest
from orchestrator.errors import StorageError, StorageFullError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REFUSED = frozenset({errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR, errno.ELOOP})


@contextmanager
def full_disk_reported(where: Path) -> Iterator[None]:
    """Raise `StorageFullError` for what means a full disk, and let every other error through."""
    try:
        yield
    except Exception as error:
        # safetensors and torch raise errors of their own, with the system's words in them.
        if (isinstance(error, OSError) and error.errno in _FULL) or os.strerror(errno.ENOSPC) in str(error):
            raise StorageFullError(f"{where}: no room is left; nothing was kept: make room and resume") from error
        raise


@contextmanager
def refusals_reported(where: Path) -> Iterator[None]:
    """Raise `StorageError` for what a read-only, closed or failing disk says, `StorageFullError` for a full one."""
    try:
        with full_disk_reported(where):
            yield
    except OSError as error:
        if error.errno in _REFUSED:
            raise StorageError(f"{where}: {error.strerror}; check that it can be written") from error
        raise


def seal_file(path: Path) -> tuple[Digest, int]:
    """Make a file read-only, bring it to the disk, and return its digest and its size in bytes."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        os.fchmod(descriptor, 0o444)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(descriptor)
        return digest, os.fstat(descriptor).st_size


def write_sealed(path: Path, data: bytes) -> None:
    """Write a new read-only file and bring it to the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o444)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder of plain files to a place where nothing is yet: it is there whole and on the disk, or not at all.

    Raises:
        FileExistsError: something came to stand there meanwhile.
        StorageError, StorageFullError: the place cannot be written to.
    """
    fresh = target.with_name(f".{target.name}.partial")
    with refusals_reported(target):
        try:
            shutil.rmtree(fresh, ignore_errors=True)  # left by a copy that was killed
            shutil.copytree(source, fresh)
            for folder, _, names in os.walk(fresh):
                for name in names:
                    _sync_file(Path(folder, name))
                sync_directory(Path(folder))
            try:
                fresh.rename(target)
            except OSError as error:
                if error.errno == errno.ENOTEMPTY:
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error
                raise
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        sync_directory(target.parent)


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Bring a directory's entries to the disk: a new or renamed file is safe only then."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
