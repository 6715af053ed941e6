"""Texts that people read, kept in the database for hosts that share it and have no artifacts of their own.

A text is an artifact, cut into chunks under its digest: whole or absent, verified on its way out. What a campaign's
other artifacts hold (models, rollouts) stays on the controller's disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from sqlalchemy import BigInteger, Connection, LargeBinary, func, insert, literal, select

from orchestrator.artifacts import ArtifactStore
from orchestrator.core.canonical import sha256_hex
from orchestrator.errors import ArtifactCorruptError, ArtifactMissingError
from orchestrator.manifest import MANIFEST, Manifest
from orchestrator.store import schema
from orchestrator.store.database import Database

CHUNK_BYTES: Final = 1024**2

_X = schema.text_chunks.c


class Texts:
    """The texts of one database. Threads may share it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def has(self, digest: str) -> bool:
        with self._database.read() as connection:
            return _has(connection, digest)

    def publish(self, digest: str, folder: Path) -> None:
        """Put an artifact's files into the database; all of them or none, and once.

        Args:
            folder: what `ArtifactStore.open` gave for the digest.
        """
        if self.has(digest):
            return
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        with self._database.write() as connection:
            if self._database.path is None:
                connection.execute(select(func.pg_advisory_xact_lock(_lock(digest))))
            if not _has(connection, digest):
                for path in files:
                    for row in _chunks(digest, path, path.relative_to(folder).as_posix()):
                        connection.execute(insert(schema.text_chunks), row)

    def fetch(self, digest: str, into: ArtifactStore) -> None:
        """Bring a text into a store of this host; nothing is published that is not what the digest names.

        Reads no more than the manifest says, a chunk at a time.

        Raises:
            ArtifactMissingError: the database has no such text.
            ArtifactCorruptError: what it has is something else.
        """
        with self._database.read() as connection, into.staging() as folder:
            data = _chunk(connection, digest, MANIFEST, 0)
            if data is None:
                raise ArtifactMissingError(
                    f"there is no artifact {digest[:80]!r} here, nor its text in the database; "
                    "resume the campaign where its artifacts lie"
                )
            if sha256_hex(data) != digest:
                raise _corrupt(digest, "its manifest is another one's")
            try:
                manifest = Manifest.model_validate_json(data)
            except ValidationError as error:
                raise _corrupt(digest, "its manifest cannot be read") from error
            for name, entry in manifest.files.items():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                hashed = hashlib.sha256()
                with path.open("xb") as file:
                    for part in range(-(-entry.bytes // CHUNK_BYTES)):
                        chunk = _chunk(connection, digest, name, part)
                        if chunk is None:
                            raise _corrupt(digest, f"part {part} of {name} is missing")
                        hashed.update(chunk)
                        file.write(chunk)
                if hashed.hexdigest() != entry.sha256:
                    raise _corrupt(digest, f"{name} is not what its manifest says")
            into.publish(folder, kind=manifest.kind, meta=manifest.meta)


def _has(connection: Connection, digest: str) -> bool:
    query = select(_X.part).where(_X.digest == digest, _X.file == MANIFEST, _X.part == 0)
    return connection.scalar(query) is not None


def _chunk(connection: Connection, digest: str, name: str, part: int) -> bytes | None:
    # A chunk that somebody made larger is cut, not read, and fails its digest.
    bounded = func.substr(_X.data, 1, CHUNK_BYTES, type_=LargeBinary)
    data: bytes | None = connection.scalar(select(bounded).where(_X.digest == digest, _X.file == name, _X.part == part))
    return data


def _chunks(digest: str, path: Path, name: str) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        part = 0
        while data := file.read(CHUNK_BYTES):
            yield {"digest": digest, "file": name, "part": part, "data": data}
            part += 1


def _lock(digest: str) -> Any:
    hashed = hashlib.sha256(b"ratchet text " + digest.encode()).digest()
    return literal(int.from_bytes(hashed[:8], signed=True), BigInteger)


def _corrupt(digest: str, what: str) -> ArtifactCorruptError:
    return ArtifactCorruptError(f"text {digest[:12]} in the database: {what}; restore the database from a backup")
