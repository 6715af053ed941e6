"""Content-addressed folders: checkpoints, samples, label sets. Whole or absent, verified on load.

    root/ab/abcd…/manifest.json   an artifact; its digest abcd… is the SHA-256 of this file,
    root/ab/abcd…/…               which lists every other file with its size and SHA-256
    root/tmp/…                    staging and removal; collected once the process has died that made it
    root/quarantine/…             damaged artifacts that a new publication of the same contents replaced

Publishing brings all files to the disk, writes the manifest last and then renames the folder, so that a crash leaves
a whole artifact or none. Equal contents have one digest: publishing twice is publishing once. Formats without a
checksum of their own (safetensors) are safe here.
"""

from __future__ import annotations

import errno
import fcntl
import gzip
import json
import os
import re
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from orchestrator import failpoints
from orchestrator.core.canonical import Digest, canonical_json, sha256_hex
from orchestrator.core.verification import Problem, Verification
from orchestrator.disk import full_disk_reported, refusals_reported, seal_file, sync_directory, write_sealed
from orchestrator.errors import ArtifactCorruptError, ArtifactMissingError, StorageError
from orchestrator.manifest import MANIFEST, FileEntry, Manifest, file_problems, is_own_file, walk
from orchestrator.store.filesystem import on_network

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_VALUE: Final = "value.json"
ROWS: Final = "rows.jsonl.gz"
_CLOCK_TICK_NS: Final = 2_000_000_000
"""No file system's time stamps are coarser."""

_VERIFY: Final = "ratchet checkpoint verify"
_ADVICE: Final = f"; run `{_VERIFY} NAME`, or continue from an earlier approved checkpoint"

_Stamps = frozenset[tuple[str, int, int, int, int]]

Elsewhere = Callable[[Digest, "ArtifactStore"], None]
"""Publishes an artifact that is missing here in the store, or raises ArtifactMissingError."""


@contextmanager
def whose(campaign: str) -> Iterator[None]:
    """Name the campaign in what is said of a damaged artifact of its."""
    try:
        yield
    except (ArtifactMissingError, ArtifactCorruptError) as error:
        raise type(error)(str(error).replace(f"{_VERIFY} NAME", f"{_VERIFY} {campaign}")) from error


class ArtifactStore:
    """The artifacts below one folder. Threads and processes may share it, publishers of equal contents included."""

    def __init__(self, root: Path, *, elsewhere: Elsewhere | None = None) -> None:
        """Open the store, and make it if there is none.

        Raises:
            StorageError: if the folder cannot be made or its staging area is open to others.
        """
        self._root = root.absolute()
        self._elsewhere = elsewhere
        self._temporary = self._root / "tmp"
        with refusals_reported(self._root):
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._temporary.mkdir(mode=0o700, exist_ok=True)
            if self._temporary.is_symlink() or self._temporary.stat().st_mode & 0o002:
                raise StorageError(
                    f"{self._temporary} is a link or writable by everybody; make it a directory of mode 700"
                )
        # A network file system may answer from a stale cache of attributes.
        self._trusts_stamps = not on_network(self._root)
        self._verified: dict[Digest, _Stamps] = {}

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A new private folder to fill and to publish within the block; it is gone after the block.

        Raises:
            StorageFullError: if the disk fills up within the block.
        """
        with refusals_reported(self._temporary), self._locked(fcntl.LOCK_SH):
            folder = Path(tempfile.mkdtemp(dir=self._temporary))
            # Held until this process ends, however it ends: see collect_temporary.
            descriptor = _open_directory(folder)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            with full_disk_reported(self._root):
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(descriptor)

    def publish(self, staged: Path, *, kind: str, meta: Mapping[str, Any] | None = None) -> Digest:
        """Turn a staged folder into an artifact, durably, and return its digest. Its files become read-only.

        Args:
            meta: facts that follow from the contents alone; a time or a path would give equal work different digests.

        Raises:
            ArtifactCorruptError: if links or special files were planted in the folder.
            ValueError: if the folder is not this store's, is empty, or has names or meta without a plain form.
        """
        if staged.parent != self._temporary:
            raise ValueError(f"{staged} was not staged in {self._temporary}")
        with refusals_reported(self._root):
            manifest = Manifest(kind=kind, files=_sealed(staged), meta=dict(meta or {}))
            data = manifest.to_bytes()
            Manifest.model_validate_json(data)  # nothing is published that cannot be read back
            write_sealed(staged / MANIFEST, data)
            for directory, _, _ in os.walk(staged):
                sync_directory(Path(directory))
            digest = sha256_hex(data)
            with self._locked(fcntl.LOCK_SH):
                self._place(staged, digest)
        return digest

    def open(self, digest: Digest) -> Path:
        """The artifact's folder, after every file was compared with the manifest.

        Later calls in this process compare sizes and time stamps only, which the kernel changes with the contents.

        Raises:
            ArtifactMissingError: if there is none.
            ArtifactCorruptError: if anything in it is not as it was published.
        """
        manifest = self.manifest(digest)
        folder = self._folder(digest)
        with refusals_reported(folder):
            begun = time.time_ns()
            stamps = _stamps(folder)
            if self._verified.get(digest) == stamps:
                return folder
            for problem in file_problems(folder, manifest):
                raise _corrupt(digest, problem)
        # A change in the same tick of the clock as the last one would leave no mark.
        if self._trusts_stamps and all(begun - changed > _CLOCK_TICK_NS for *_, changed in stamps):
            self._verified[digest] = stamps
        return folder

    def manifest(self, digest: Digest) -> Manifest:
        """The manifest, compared with the digest; the files are not read.

        Raises:
            ArtifactMissingError, ArtifactCorruptError: as `open`.
        """
        folder = self._folder(digest)
        if self._elsewhere is not None and not folder.is_dir():
            self._elsewhere(digest, self)
        try:
            with open(os.open(folder / MANIFEST, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
                data = file.read()
        except OSError as error:
            if not folder.is_dir():
                raise _missing(digest) from error
            raise _corrupt(digest, Problem(MANIFEST, f"it cannot be read: {error.strerror}")) from error
        if sha256_hex(data) != digest:
            raise _corrupt(digest, Problem(MANIFEST, "its SHA-256 is not the artifact's digest"))
        try:
            return Manifest.model_validate_json(data)
        except ValidationError as error:
            what = error.errors(include_url=False)[0]["msg"]
            raise _corrupt(digest, Problem(MANIFEST, f"it is no manifest: {what}")) from error

    def kind(self, digest: Digest) -> str:
        """What the artifact was published as."""
        return self.manifest(digest).kind

    def verify(self, digest: Digest) -> Verification:
        """Read everything, whatever was read before, and say what is wrong rather than raise."""
        try:
            manifest = self.manifest(digest)
        except (ArtifactMissingError, ArtifactCorruptError) as error:
            return Verification(checked=0, problems=(Problem(digest, str(error).removesuffix(_ADVICE)),))
        folder = self._folder(digest)
        with refusals_reported(folder):
            problems = tuple(file_problems(folder, manifest))
        return Verification(checked=1 + len(manifest.files), problems=problems)

    def digests(self) -> tuple[Digest, ...]:
        """All artifacts, sorted; nothing is verified."""
        return tuple(sorted(path.name for path in self._root.glob("??/*") if _DIGEST.fullmatch(path.name)))

    def collect_temporary(self) -> int:
        """Remove what dead processes left in staging, and return how many folders that were."""
        collected = 0
        with refusals_reported(self._temporary), self._locked(fcntl.LOCK_EX):
            for entry in self._temporary.iterdir():
                try:
                    if entry.is_symlink() or not entry.is_dir():
                        entry.unlink()
                        continue
                    descriptor = _open_directory(entry)
                except FileNotFoundError:
                    continue  # its process is just leaving
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(entry)
                    collected += 1
                except BlockingIOError:
                    pass  # its process lives
                finally:
                    os.close(descriptor)
        return collected

    def gc(self, keep: Collection[Digest], *, older_than: timedelta = timedelta(hours=1)) -> tuple[Digest, ...]:
        """Remove the artifacts that nothing names, and return their digests.

        Args:
            keep: every digest that a ledger sharing this store names.
            older_than: spares what was published lately: its event may be on its way to a ledger.
        """
        removed = []
        with refusals_reported(self._root), self._locked(fcntl.LOCK_EX):
            newest = time.time() - older_than.total_seconds()
            for digest in sorted(set(self.digests()) - set(keep)):
                folder = self._folder(digest)
                if folder.stat().st_mtime <= newest:
                    # Gone at once and as a whole, should this process die while it deletes.
                    leftover = tempfile.mkdtemp(prefix="gc.", dir=self._temporary)
                    folder.rename(leftover)
                    shutil.rmtree(leftover)
                    removed.append(digest)
        return tuple(removed)

    def publish_json(self, kind: str, value: Any, meta: Mapping[str, Any] | None = None) -> Digest:
        """Publish one JSON value."""
        with self.staging() as folder:
            (folder / _VALUE).write_text(canonical_json(value), encoding="ascii")
            return self.publish(folder, kind=kind, meta=meta)

    def read_json(self, digest: Digest) -> Any:
        """The value that `publish_json` was given."""
        with _parsed(digest), (self.open(digest) / _VALUE).open("rb") as file:
            return json.load(file)

    def publish_lines(self, kind: str, rows: Iterable[Any], meta: Mapping[str, Any] | None = None) -> Digest:
        """Publish many JSON values, compressed; `rows` is consumed as it is written."""
        with self.staging() as folder:
            # No name and no time in the header: equal rows give equal bytes.
            with (
                (folder / ROWS).open("wb") as raw,
                gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as file,
            ):
                for row in rows:
                    file.write(canonical_json(row).encode() + b"\n")
            return self.publish(folder, kind=kind, meta=meta)

    def read_lines(self, digest: Digest) -> Iterator[Any]:
        """The values that `publish_lines` was given, in order; verified before the first one comes."""
        return _lines(digest, self.open(digest) / ROWS)

    def _folder(self, digest: Digest) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise _missing(digest)
        return self._root / digest[:2] / digest

    def _place(self, staged: Path, digest: Digest) -> None:
        folder = self._folder(digest)
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        sync_directory(self._root)
        failpoints.hit("artifact.before_rename")
        while True:
            try:
                staged.rename(folder)
                break
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            if self.verify(digest).ok:
                os.utime(folder)  # young again: see gc
                break
            self._quarantine(folder)
        failpoints.hit("artifact.after_rename")
        sync_directory(folder.parent)

    def _quarantine(self, folder: Path) -> None:
        quarantine = self._root / "quarantine"
        quarantine.mkdir(mode=0o700, exist_ok=True)
        with suppress(FileNotFoundError):  # another publisher was quicker
            folder.rename(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=quarantine))

    @contextmanager
    def _locked(self, operation: int) -> Iterator[None]:
        """Shared to stage and to place, exclusive to collect: nothing is collected between two steps of those."""
        descriptor = _open_directory(self._temporary)
        try:
            fcntl.flock(descriptor, operation)
            yield
        finally:
            os.close(descriptor)


def _sealed(staged: Path) -> dict[str, FileEntry]:
    files = {}
    for name, info in walk(staged):
        if not is_own_file(info):
            raise ArtifactCorruptError(
                f"{staged / name} is a link or no plain file; nothing was published: find out who put it there"
            )
        digest, size = seal_file(staged / name)
        files[name] = FileEntry(sha256=digest, bytes=size)
    return files


def _stamps(folder: Path) -> _Stamps:
    return frozenset(
        (name, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns) for name, info in walk(folder)
    )


def _lines(digest: Digest, path: Path) -> Iterator[Any]:
    with _parsed(digest), gzip.open(path, "rb") as file:
        for line in file:
            yield json.loads(line)


@contextmanager
def _parsed(digest: Digest) -> Iterator[None]:
    """Report contents that are whole but not of the form that the caller expects."""
    try:
        yield
    except (FileNotFoundError, gzip.BadGzipFile, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise _corrupt(digest, Problem("contents", f"not what is expected here: {error}")) from error


def _open_directory(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _missing(digest: Digest) -> ArtifactMissingError:
    return ArtifactMissingError(f"there is no artifact {digest[:80]!r}{_ADVICE}")


def _corrupt(digest: Digest, problem: Problem) -> ArtifactCorruptError:
    return ArtifactCorruptError(f"artifact {digest[:12]}, {problem.where}: {problem.what}{_ADVICE}")
