from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator import artifacts
from orchestrator.artifacts import ArtifactStore
from orchestrator.errors import ArtifactCorruptError, ArtifactMissingError, StorageError, StorageFullError

AT_ONCE = timedelta(0)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


def publish(store: ArtifactStore, **files: bytes) -> str:
    with store.staging() as folder:
        for name, data in (files or {"weights": b"0123456789" * 1000, "optimizer": b"state"}).items():
            path = folder / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return store.publish(folder, kind="checkpoint", meta={"stage": 0})


def writable(path: Path) -> Path:
    path.chmod(0o644)
    return path


def test_published_folder_comes_back_under_the_digest_of_its_manifest(store: ArtifactStore, tmp_path: Path) -> None:
    """The manifest is written out by hand here."""
    digest = publish(store, weights=b"abc", sub__dir__optimizer=b"")
    files = {
        "sub/dir/optimizer": {"bytes": 0, "sha256": hashlib.sha256(b"").hexdigest()},
        "weights": {"bytes": 3, "sha256": hashlib.sha256(b"abc").hexdigest()},
    }
    manifest = json.dumps(
        {"files": files, "format": 1, "kind": "checkpoint", "meta": {"stage": 0}},
        sort_keys=True,
        separators=(",", ":"),
    )
    assert digest == hashlib.sha256(manifest.encode()).hexdigest()
    folder = store.open(digest)
    assert folder == tmp_path / "store" / digest[:2] / digest
    assert (folder / "manifest.json").read_text() == manifest
    assert (folder / "weights").read_bytes() == b"abc"
    assert store.kind(digest) == "checkpoint"
    assert store.manifest(digest).meta == {"stage": 0}
    assert store.verify(digest).ok
    assert store.verify(digest).checked == 3
    assert store.digests() == (digest,)


def test_equal_contents_are_one_artifact(store: ArtifactStore) -> None:
    assert publish(store, a=b"1") == publish(store, a=b"1")
    assert publish(store, a=b"2") != publish(store, a=b"1")
    assert len(store.digests()) == 2
    assert store.collect_temporary() == 0


def test_values_and_lines_come_back(store: ArtifactStore) -> None:
    rows = [{"text": "\ud800\0\u202e"}, [1, 0.1], None]
    digest = store.publish_lines("samples", (row for row in rows), meta={"count": 3})
    assert list(store.read_lines(digest)) == rows
    assert store.publish_lines("samples", rows, meta={"count": 3}) == digest
    value = store.publish_json("settings", {"b": 1, "a": [None]})
    assert store.read_json(value) == {"a": [None], "b": 1}
    assert list(store.read_lines(store.publish_lines("samples", []))) == []
    with pytest.raises(ArtifactCorruptError, match="not what is expected"):
        store.read_json(digest)
    with pytest.raises(ArtifactCorruptError, match="not what is expected"):
        list(store.read_lines(value))


def test_lines_do_not_depend_on_time_or_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ArtifactStore(tmp_path / "a").publish_lines("samples", [1, 2])
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
    assert ArtifactStore(tmp_path / "b").publish_lines("samples", [1, 2]) == first


def damage_flip(folder: Path, other: Path) -> None:
    data = bytearray((folder / "weights").read_bytes())
    data[4321] ^= 1
    writable(folder / "weights").write_bytes(data)


def damage_truncate(folder: Path, other: Path) -> None:
    os.truncate(writable(folder / "weights"), 500)


def damage_delete(folder: Path, other: Path) -> None:
    (folder / "weights").unlink()


def damage_add(folder: Path, other: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"pickle")


def damage_swap(folder: Path, other: Path) -> None:
    (folder / "weights").rename(folder / "x")
    shutil.copy(other / "weights", folder / "weights")
    (folder / "x").unlink()


def damage_link(folder: Path, other: Path) -> None:
    shutil.copy(folder / "weights", folder.parent / "elsewhere")
    (folder / "weights").unlink()
    (folder / "weights").symlink_to(folder.parent / "elsewhere")


def damage_manifest(folder: Path, other: Path) -> None:
    """Weights and manifest agree with each other, not with the digest."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["weights"] = {"bytes": 3, "sha256": hashlib.sha256(b"bad").hexdigest()}
    writable(folder / "weights").write_bytes(b"bad")
    writable(folder / "manifest.json").write_text(json.dumps(manifest))


def damage_manifest_gone(folder: Path, other: Path) -> None:
    (folder / "manifest.json").unlink()


def damage_manifest_linked(folder: Path, other: Path) -> None:
    (folder / "manifest.json").rename(folder.parent / "elsewhere")
    (folder / "manifest.json").symlink_to(folder.parent / "elsewhere")


def damage_everything_swapped(folder: Path, other: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(other, folder)


DAMAGES = [damage for name, damage in sorted(globals().items()) if name.startswith("damage_")]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_is_refused_then_healed_by_publishing_again(
    store: ArtifactStore, damage: Callable[[Path, Path], None]
) -> None:
    digest, other = publish(store), publish(store, weights=b"9876543210" * 1000, optimizer=b"state")
    folder = store.open(digest)
    damage(folder, store.open(other))
    with pytest.raises(ArtifactCorruptError, match=f"{digest[:12]}.*ratchet checkpoint verify NAME"):
        store.open(digest)
    assert not store.verify(digest).ok
    assert publish(store) == digest
    assert store.verify(digest).ok
    assert store.verify(other).ok
    assert store.open(digest)


def test_verified_once_is_not_read_again_until_it_changes(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []

    def counted(*arguments: object) -> Iterator[object]:
        reads.append(arguments)
        return file_problems(*arguments)  # type: ignore[arg-type]

    file_problems = artifacts.file_problems
    monkeypatch.setattr(artifacts, "file_problems", counted)
    digest = publish(store)
    store.open(digest)
    store.open(digest)
    assert len(reads) == 2  # just written: its stamps could hide a change in the same tick
    monkeypatch.setattr(artifacts, "_CLOCK_TICK_NS", -1)
    folder = store.open(digest)
    store.open(digest)
    assert len(reads) == 3
    before = (folder / "weights").stat()
    damage_flip(folder, folder)
    os.utime(folder / "weights", ns=(before.st_atime_ns, before.st_mtime_ns))  # hides the mtime, not the ctime
    with pytest.raises(ArtifactCorruptError):
        store.open(digest)


@pytest.mark.parametrize("digest", ["0" * 64, "", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_absent_artifact(store: ArtifactStore, digest: str) -> None:
    with pytest.raises(ArtifactMissingError, match="earlier approved checkpoint"):
        store.open(digest)
    assert not store.verify(digest).ok


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[" * 100_000,
        b'{"files":{},"format":1,"kind":"x","meta":{}}',
        b'{"files":{"../x":{"bytes":0,"sha256":"%s"}},"format":1,"kind":"x","meta":{}}' % (b"0" * 64),
        b'{"files":{"/x":{"bytes":0,"sha256":"%s"}},"format":1,"kind":"x","meta":{}}' % (b"0" * 64),
        b'{"files":{"x":{"bytes":0,"sha256":"%s"}},"format":2,"kind":"x","meta":{}}' % (b"0" * 64),
        b'{"files":{"x":{"bytes":-1,"sha256":"%s"}},"format":1,"kind":"x","meta":{}}' % (b"0" * 64),
        b'{"files":{"x":{"bytes":0,"sha256":"%s"}},"format":1,"kind":"x","meta":{},"y":1}' % (b"0" * 64),
    ],
)
def test_hostile_manifest_with_a_true_digest_is_refused(store: ArtifactStore, tmp_path: Path, data: bytes) -> None:
    digest = hashlib.sha256(data).hexdigest()
    folder = tmp_path / "store" / digest[:2] / digest
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_bytes(data)
    (folder / "x").touch()
    with pytest.raises(ArtifactCorruptError, match="no manifest"):
        store.open(digest)


def test_planted_links_and_special_files_are_not_published(store: ArtifactStore, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("key")
    plants: list[Callable[[Path], object]] = [
        lambda path: path.symlink_to(secret),
        lambda path: path.symlink_to(tmp_path),
        lambda path: path.hardlink_to(secret),
        os.mkfifo,
    ]
    for plant in plants:
        with store.staging() as folder:
            (folder / "weights").write_bytes(b"abc")
            plant(folder / "planted")
            with pytest.raises(ArtifactCorruptError, match="planted is a link or no plain file"):
                store.publish(folder, kind="checkpoint")
    assert store.digests() == ()
    assert secret.stat().st_mode & 0o777 != 0o444


def test_folders_that_cannot_be_artifacts(store: ArtifactStore, tmp_path: Path) -> None:
    with store.staging() as folder, pytest.raises(ValueError, match="needs a file"):
        store.publish(folder, kind="checkpoint")
    with store.staging() as folder:
        (folder / "manifest.json").touch()
        with pytest.raises(ValueError, match="not allowed"):
            store.publish(folder, kind="checkpoint")
    with pytest.raises(ValueError, match="not staged"):
        store.publish(tmp_path, kind="checkpoint")
    with store.staging() as folder:
        (folder / "a").touch()
        with pytest.raises(ValueError, match="meta"):
            store.publish(folder, kind="checkpoint", meta={"x": object()})
    assert store.digests() == ()


def test_staging_is_private_and_gone_afterwards(store: ArtifactStore) -> None:
    with contextlib.suppress(KeyError), store.staging() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "a").touch()
        raise KeyError
    assert not folder.exists()


def test_staging_area_open_to_others_is_refused(tmp_path: Path) -> None:
    ArtifactStore(tmp_path / "store")
    (tmp_path / "store" / "tmp").chmod(0o777)
    with pytest.raises(StorageError, match="writable by everybody"):
        ArtifactStore(tmp_path / "store")
    (tmp_path / "store" / "tmp").rmdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "store" / "tmp").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="is a link"):
        ArtifactStore(tmp_path / "store")


def test_published_files_cannot_be_written_by_accident(store: ArtifactStore) -> None:
    folder = store.open(publish(store))
    assert {path.stat().st_mode & 0o222 for path in folder.iterdir()} == {0}


PUBLISHER = """
import os, pathlib, sys
from orchestrator.artifacts import ArtifactStore
store = ArtifactStore(pathlib.Path(sys.argv[1]))
for n in range(3):
    with store.staging() as folder:
        (folder / "weights").write_bytes(bytes([n]) * 100_000)
        digest = store.publish(folder, kind="checkpoint")
    os.write(1, f"{digest}\\n".encode())
"""


@pytest.mark.parametrize("fail_point", ["artifact.before_rename", "artifact.after_rename"])
def test_kill_at_every_rename(
    store: ArtifactStore,
    tmp_path: Path,
    fail_point: str,
    run_until_no_kill: Callable[..., Iterator[list[str]]],
) -> None:
    for kills, acknowledged in enumerate(run_until_no_kill(PUBLISHER, fail_point, str(tmp_path / "store")), start=1):
        assert len(acknowledged) == kills - 1
        assert set(acknowledged) <= set(store.digests())
        assert all(store.verify(digest).ok for digest in store.digests())
        assert len(store.digests()) == kills - (fail_point == "artifact.before_rename")
        # A run killed behind a rename leaves nothing; so does one killed there when its contents were known already.
        assert store.collect_temporary() == (fail_point == "artifact.before_rename")
    assert len(store.digests()) == 3
    assert store.collect_temporary() == 0


def test_staging_of_a_live_process_is_not_collected(store: ArtifactStore, tmp_path: Path) -> None:
    script = """
import pathlib, sys, time
from orchestrator.artifacts import ArtifactStore
with ArtifactStore(pathlib.Path(sys.argv[1])).staging() as folder:
    print(folder, flush=True)
    time.sleep(600)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "store")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip())
    with store.staging() as own:
        assert store.collect_temporary() == 0
        assert folder.is_dir()
        assert own.is_dir()
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert store.collect_temporary() == 1
        assert not folder.exists()
        assert own.is_dir()


def test_processes_publish_the_same_at_once(store: ArtifactStore, tmp_path: Path) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", PUBLISHER, str(tmp_path / "store")], stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    outputs = {process.communicate(timeout=60)[0] for process in processes}
    assert [process.returncode for process in processes] == [0] * 3
    assert len(outputs) == 1
    assert len(store.digests()) == 3
    assert all(store.verify(digest).ok for digest in store.digests())
    assert store.collect_temporary() == 0


FILL = """
import pathlib, sys
from orchestrator.artifacts import ArtifactStore
from orchestrator.errors import StorageFullError
disk = pathlib.Path(sys.argv[1])
store = ArtifactStore(disk / "store")
first = store.publish_json("small", 1)
for size in (2_000_000, 1_015_000):
    try:
        with store.staging() as folder:
            with open(folder / "weights", "wb", buffering=0) as file:
                while size > 0:
                    size -= file.write(bytes(min(size, 1000)))
            for n in range(200):
                (folder / f"sub{n}").mkdir()
                (folder / f"sub{n}" / "x").write_text("x")
            store.publish(folder, kind="checkpoint")
    except StorageFullError as error:
        print("make room" in str(error), end=" ")
    assert list((disk / "store" / "tmp").iterdir()) == []
assert store.digests() == (first,)
assert store.verify(first).ok
store.publish_json("small", "x" * 100_000)
print("survived")
"""


def test_full_disk(tmp_path: Path, run_on_small_disk: Callable[..., str]) -> None:
    assert run_on_small_disk(FILL, tmp_path / "disk", size_kb=1024) == "True True survived\n"


def test_file_size_limit_is_a_full_disk(tmp_path: Path) -> None:
    script = """
import pathlib, resource, sys
from orchestrator.artifacts import ArtifactStore
from orchestrator.errors import StorageFullError
store = ArtifactStore(pathlib.Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
try:
    store.publish_json("big", "x" * 20_000)
except StorageFullError:
    assert list((pathlib.Path(sys.argv[1]) / "tmp").iterdir()) == []
    assert store.digests() == ()
    print("told")
"""
    process = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "store")], stdout=subprocess.PIPE, text=True, timeout=60
    )
    assert process.stdout == "told\n"


def test_a_librarys_own_words_for_a_full_disk_count(store: ArtifactStore) -> None:
    with pytest.raises(StorageFullError), store.staging():
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")


def test_place_that_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="can be written"):
        ArtifactStore(tmp_path / "file" / "store")


def test_gc_removes_only_what_is_old_and_unnamed(store: ArtifactStore) -> None:
    kept, young, old = publish(store, a=b"1"), publish(store, a=b"2"), publish(store, a=b"3")
    os.utime(store.open(old), (0, 0))
    os.utime(store.open(kept), (0, 0))
    assert store.gc({kept}) == (old,)
    assert store.digests() == tuple(sorted((kept, young)))
    assert store.gc({kept}, older_than=AT_ONCE) == (young,)
    assert store.digests() == (kept,)
    assert store.open(kept)
    assert store.collect_temporary() == 0


def test_publishing_again_makes_young_again(store: ArtifactStore) -> None:
    digest = publish(store)
    os.utime(store.open(digest), (0, 0))
    assert publish(store) == digest
    assert store.gc(set()) == ()
