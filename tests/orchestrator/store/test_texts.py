"""Artifacts that travel through the database, in both of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import delete, update

from orchestrator.artifacts import ArtifactStore
from orchestrator.errors import ArtifactCorruptError, ArtifactMissingError
from orchestrator.store import schema
from orchestrator.store.ledger import Ledger
from orchestrator.store.texts import CHUNK_BYTES


@pytest.fixture
def here(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "here")


@pytest.fixture
def there(tmp_path: Path) -> ArtifactStore:
    """Another host's."""
    return ArtifactStore(tmp_path / "there")


def published(store: ArtifactStore, **files: bytes) -> str:
    with store.staging() as folder:
        for name, data in files.items():
            path = folder / name.replace("__", "/")
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
        return store.publish(folder, kind="samples", meta={"count": 3})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
def test_a_text_arrives_as_it_was(ledger: Ledger, here: ArtifactStore, there: ArtifactStore, size: int) -> None:
    digest = published(here, rows=bytes(range(256)) * (size // 256) + b"x" * (size % 256), sub__note=b"\0\xff")
    assert not ledger.texts.has(digest)
    ledger.texts.publish(digest, here.open(digest))
    ledger.texts.publish(digest, here.open(digest))
    assert ledger.texts.has(digest)
    ledger.texts.fetch(digest, there)
    assert contents(there.open(digest)) == contents(here.open(digest))
    ledger.texts.fetch(digest, there)
    assert there.digests() == (digest,)


def test_an_unknown_text(ledger: Ledger, there: ArtifactStore) -> None:
    with pytest.raises(ArtifactMissingError, match="resume the campaign where its artifacts lie"):
        ledger.texts.fetch("0" * 64, there)
    assert there.digests() == ()


def damage(ledger: Ledger, file: str, part: int, data: bytes | None) -> None:
    """Replace a chunk, or delete it."""
    columns = schema.text_chunks.c
    chunk = (columns.file == file, columns.part == part)
    change = delete(schema.text_chunks) if data is None else update(schema.text_chunks).values(data=data)
    with ledger._database.write() as connection:
        assert connection.execute(change.where(*chunk)).rowcount == 1


@pytest.mark.parametrize(
    ("file", "part", "data"),
    [
        ("rows", 0, b"b" * CHUNK_BYTES),
        ("rows", 0, None),
        ("rows", 1, b"aaaaa and more"),
        ("rows", 1, b"aaaa"),
        ("note", 0, None),
        ("manifest.json", 0, b"{}"),
    ],
)
def test_a_damaged_text_is_not_taken_over(
    ledger: Ledger, here: ArtifactStore, there: ArtifactStore, file: str, part: int, data: bytes | None
) -> None:
    digest = published(here, rows=b"a" * (CHUNK_BYTES + 5), note=b"n")
    ledger.texts.publish(digest, here.open(digest))
    damage(ledger, file, part, data)
    with pytest.raises(ArtifactCorruptError, match="restore the database"):
        ledger.texts.fetch(digest, there)
    assert there.digests() == ()


def test_no_more_is_read_than_a_chunk_may_hold(ledger: Ledger, here: ArtifactStore, there: ArtifactStore) -> None:
    digest = published(here, rows=b"a" * (CHUNK_BYTES + 5))
    ledger.texts.publish(digest, here.open(digest))
    damage(ledger, "rows", 0, b"a" * CHUNK_BYTES + b"never seen")
    ledger.texts.fetch(digest, there)
    assert contents(there.open(digest)) == contents(here.open(digest))


PUBLISH = """
import sys
from pathlib import Path
from orchestrator.artifacts import ArtifactStore
from orchestrator.store import schema
from orchestrator.store.ledger import Ledger
where, root, digest = sys.argv[1:]
with Ledger.open(where) as ledger:
    ledger.texts.publish(digest, ArtifactStore(Path(root)).open(digest))
"""


def test_processes_that_publish_one_text_at_once(
    ledger: Ledger, where: str, here: ArtifactStore, there: ArtifactStore, tmp_path: Path
) -> None:
    digest = published(here, rows=b"r" * (2 * CHUNK_BYTES))
    arguments = [sys.executable, "-c", PUBLISH, where, str(tmp_path / "here"), digest]
    publishers = [subprocess.Popen(arguments) for _ in range(3)]
    assert [process.wait(60) for process in publishers] == [0] * 3
    ledger.texts.fetch(digest, there)
    assert there.digests() == (digest,)
