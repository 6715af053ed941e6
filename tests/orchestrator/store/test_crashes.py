"""kill -9, a full disk, a read-only disk: what was acknowledged is there, what was not is whole or absent."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.store.ledger import Ledger

WRITER = """
import os, sys
from orchestrator.core.envelope import EventDraft
from orchestrator.store.ledger import Ledger
ledger = Ledger.open(sys.argv[1])
lease = ledger.acquire_controller("memo", owner="writer")
for batch in range(int(sys.argv[2])):
    drafts = [EventDraft("t", {"n": n}, command_id=f"{batch}.{n}", author="writer") for n in range(1 + batch % 3)]
    for event in ledger.append("memo", drafts, epoch=lease.epoch):
        os.write(1, f"{event.command_id} {event.hash}\\n".encode())
"""


def new_ledger(path: Path) -> Path:
    with Ledger.open(path) as ledger:
        ledger.create_campaign("memo")
    return path


@pytest.mark.parametrize("fail_point", ["ledger.before_commit", "ledger.after_commit"])
def test_kill_at_every_commit(
    tmp_path: Path, fail_point: str, run_until_no_kill: Callable[..., Iterator[list[str]]]
) -> None:
    batches = [["0.0"], ["1.0", "1.1"], ["2.0", "2.1", "2.2"]]
    path = new_ledger(tmp_path / "ledger.db")
    runs = run_until_no_kill(WRITER, fail_point, str(path), "3")
    for kills, _ in enumerate(runs, start=1):
        # Every run repeats what is recorded, which commits too: the n-th run dies in its n-th batch.
        with Ledger.open(path) as ledger:
            whole = batches[: kills if fail_point == "ledger.after_commit" else kills - 1]
            assert [event.command_id for event in ledger.events("memo")] == [*itertools.chain(*whole)]
            assert ledger.verify("memo").ok
            assert ledger.controller("memo").epoch == kills
            assert not ledger.controller("memo").live
    with Ledger.open(path) as ledger:
        assert [event.command_id for event in ledger.events("memo")] == [*itertools.chain(*batches)]


def test_kill_at_any_time_loses_nothing_acknowledged(tmp_path: Path) -> None:
    path = new_ledger(tmp_path / "ledger.db")
    chance = random.Random(0)
    acknowledged: dict[str, str] = {}
    for _ in range(5):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(path), "100000"], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        # The first line was taken above; a line cut by the kill was no acknowledgement.
        for line in process.stdout.read().decode().splitlines(keepends=True):
            if line.endswith("\n"):
                command_id, digest = line.split()
                acknowledged[command_id] = digest
        process.wait()
        process.stdout.close()
        with Ledger.open(path) as ledger:
            recorded = {event.command_id: event.hash for event in ledger.events("memo")}
            assert acknowledged.items() <= recorded.items()
            assert ledger.verify("memo").ok
    assert len(acknowledged) > 20


FILL = """
import pathlib, sys
from orchestrator.core.envelope import EventDraft
from orchestrator.errors import StorageFullError
from orchestrator.store.ledger import Ledger
disk = pathlib.Path(sys.argv[1])
with Ledger.open(disk / "ledger.db") as ledger:
    ledger.create_campaign("memo")
    (disk / "ballast").write_bytes(bytes(200_000))
    recorded = 0
    try:
        while True:
            drafts = [EventDraft("t", {"x": "x" * 20_000}, command_id=f"{recorded}.{n}", author="a") for n in (0, 1)]
            ledger.append("memo", drafts, epoch=None)
            recorded += 2
    except StorageFullError as error:
        assert "make room" in str(error)
    assert recorded
    assert ledger.verify("memo").checked == recorded
    assert ledger.verify("memo").ok
    (disk / "ballast").unlink()
    ledger.append("memo", drafts, epoch=None)
    assert ledger.verify("memo").checked == recorded + 2
print("survived")
"""


def test_full_disk_loses_nothing_and_goes_on_after_room_is_made(
    tmp_path: Path, run_on_small_disk: Callable[..., str]
) -> None:
    assert run_on_small_disk(FILL, tmp_path / "disk", size_kb=1000) == "survived\n"


READ_ONLY = """
import os, pathlib, subprocess, sys
from orchestrator.core.envelope import EventDraft
from orchestrator.errors import StorageError
from orchestrator.store.ledger import Ledger
disk = pathlib.Path(sys.argv[1])
with Ledger.open(disk / "ledger.db") as ledger:
    ledger.create_campaign("memo")
subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
for path in (disk / "ledger.db", disk / "new.db", disk / "new" / "ledger.db"):
    try:
        Ledger.open(path).append("memo", [EventDraft("t", {}, command_id="a", author="a")], epoch=None)
    except StorageError as error:
        print(str(error).partition(": ")[2])
"""


def test_read_only_disk_is_named(tmp_path: Path, run_on_small_disk: Callable[..., str]) -> None:
    messages = run_on_small_disk(READ_ONLY, tmp_path / "disk", size_kb=1000).splitlines()
    assert len(messages) == 3
    assert all("can be written" in message or "--home" in message for message in messages)


def test_file_size_limit_is_survived(tmp_path: Path) -> None:
    """Where no small disk can be mounted, the kernel's limit on file sizes still makes writes fail."""
    script = """
import resource, sys
from orchestrator.core.envelope import EventDraft
from orchestrator.errors import StorageError
from orchestrator.store.ledger import Ledger
with Ledger.open(sys.argv[1]) as ledger:
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
    recorded = 0
    try:
        while True:
            draft = EventDraft("t", {"x": "x" * 20_000}, command_id=str(recorded), author="a")
            ledger.append("memo", [draft], epoch=None)
            recorded += 1
    except StorageError:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    ledger.append("memo", [draft], epoch=None)
    assert ledger.verify("memo").ok
    assert ledger.verify("memo").checked == recorded + 1 > 1
"""
    path = new_ledger(tmp_path / "ledger.db")
    subprocess.run([sys.executable, "-c", script, str(path)], check=True, timeout=60)


def test_misspelt_fail_point_is_refused() -> None:
    process = subprocess.run(
        [sys.executable, "-c", "import orchestrator.failpoints"],
        env={**os.environ, "RATCHET_FAILPOINT": "ledger.before_commit"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.returncode == 1
    assert "expected NAME:kill@N" in process.stderr
