"""A home on a disk that cannot be written to: it can be looked at, and whoever would change it is told why not."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hall import Hall
from small_campaigns import Small

LOOK = """
import json, sys
from click.testing import CliRunner
from orchestrator.cli.main import cli
for words in json.load(sys.stdin):
    ended = CliRunner().invoke(cli, words)
    print(json.dumps([ended.exit_code, ended.stdout, f"{type(ended.exception).__name__}: {ended.exception}"]))
"""
MOUNT = 'mount -t tmpfs none "$1" && cp -a "$2/." "$1" && mount -o remount,ro "$1" && exec "$3" -c "$4"'


KILLED = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
assert database.execute("PRAGMA journal_mode=DELETE").fetchone() == ("delete",)
database.execute("PRAGMA cache_size=5")
database.execute("BEGIN")
name = f"'late-' || value || '-{'x' * 500}'"
database.execute(
    "INSERT INTO campaigns (name, created, epoch, head_seq, head_hash) WITH RECURSIVE n(value) AS "
    f"(SELECT 1 UNION ALL SELECT value + 1 FROM n LIMIT 500) SELECT {name}, '', 0, -1, '' FROM n"
)
os._exit(9)
"""
"""Dies within a transaction so large that part of it is in the file."""
MEANWHILE = """
import sqlite3, sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from sqlalchemy import text
from orchestrator.errors import StorageError
from orchestrator.store.database import Database

looks, writes = (Path(folder) / "ledger.db" for folder in sys.argv[1:])
count = text("SELECT count(*) FROM campaigns")
database = Database(looks, busy_timeout=timedelta(seconds=1))
with database.read() as connection:
    assert connection.scalar(count) == 1

def write(name):
    writer = sqlite3.connect(writes)
    with writer:
        writer.execute(
            "INSERT INTO campaigns (name, created, epoch, head_seq, head_hash) VALUES (?, '', 0, -1, '')", (name,)
        )
    return writer

for ends in (True, False):
    try:
        with database.read() as connection:
            connection.scalar(count)
            writer = write(f"late{ends}")
            if ends:
                writer.close()
            if not ends:
                raise ValueError("what a mixture of versions may lead to")
    except StorageError as error:
        print(error)
writer.close()
with database.read() as connection:
    print(connection.scalar(count))
"""
BIND = 'mount --bind "$2" "$1" && mount -o remount,bind,ro "$1" && exec "$3" -c "$4" "$1" "$2"'


def require_namespaces() -> None:
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("needs user namespaces, to mount a disk read-only")


def look(tmp_path: Path, home: Path, *commands: list[str]) -> list[list[Any]]:
    """Run commands on a read-only copy of a home; exit code, stdout, and the exception of each."""
    require_namespaces()
    disk = tmp_path / "disk"
    disk.mkdir(exist_ok=True)
    ended = subprocess.run(
        ["unshare", "-rm", "sh", "-c", MOUNT, "sh", str(disk), str(home), sys.executable, LOOK],
        env={**os.environ, "RATCHET_HOME": str(disk), "COLUMNS": "200"},
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


def test_it_can_be_looked_at_and_not_changed(undisturbed: Small, tmp_path: Path) -> None:
    campaign = undisturbed.reopen()
    looks = [
        ["campaign", "show", "small", "--json"],
        ["campaign", "list"],
        ["checkpoint", "list", "small"],
        ["checkpoint", "verify", "small"],
        ["ledger", "show", "small"],
        ["ledger", "verify", "small"],
        ["review", "list"],
        ["report", "small", "--out", str(tmp_path / "report.html")],
    ]
    changes = [["report", "small"], ["review", "invite", "ann", "--role", "labeler"]]
    seen = look(tmp_path, campaign.home.root, *looks, *changes, ["doctor"])
    for words, (code, _, error) in zip(looks, seen, strict=False):
        assert code == 0, (words, error)
    assert json.loads(seen[0][1])["ledger"]["state"] == campaign.digest
    assert (tmp_path / "report.html").read_text().startswith("<!")
    for (code, _, error), advice in zip(seen[-3:-1], ("another file with --out", "look at a copy"), strict=True):
        assert code == 1
        assert error.startswith("StorageError")
        assert advice in error
    assert "NOT OK  home" in seen[-1][1]
    assert "cannot be written to" in seen[-1][1]


def test_a_lock_that_cannot_be_tried_is_not_judged(tmp_path: Path) -> None:
    """Without a lock's file nobody runs the campaign; with one, its holder may live or have been killed."""
    home = tmp_path / "home"
    show = ["campaign", "show", "small", "--json"]
    with Hall(str(home / "ledger.db"), home) as hall:
        ((_, told, _),) = look(tmp_path, home, show)
        assert json.loads(told)["controller"] is False
        with hall.ledger.acquire_controller("small", owner="host:1"):
            ((_, told, _),) = look(tmp_path, home, show)
    assert json.loads(told)["controller"] is None


def test_what_a_killed_writer_left_in_its_log_is_not_overlooked(tmp_path: Path) -> None:
    """With the shared memory beside it the log can be read; without, SQLite refuses rather than leave it out."""
    home = tmp_path / "home"
    writer = "import os, sys; from orchestrator.store.ledger import Ledger\n"
    writer += "ledger = Ledger.open(sys.argv[1]); ledger.create_campaign('late'); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", writer, str(home / "ledger.db")]).returncode == 9
    assert (home / "ledger.db-wal").stat().st_size > 0
    ((_, told, _),) = look(tmp_path, home, ["doctor", "--json"])
    assert "ledger of late" in [finding["what"] for finding in json.loads(told)]
    (home / "ledger.db-shm").unlink()
    ((_, told, _),) = look(tmp_path, home, ["doctor", "--json"])
    (finding,) = [finding for finding in json.loads(told) if finding["what"] == "ledger"]
    assert not finding["ok"]
    assert "look at a copy" in finding["detail"]


def test_what_a_killed_writer_left_half_written_is_not_read(tmp_path: Path) -> None:
    """As on a network file system, where the log is a journal of what to take back."""
    home = tmp_path / "home"
    with Hall(str(home / "ledger.db"), home):
        pass
    assert subprocess.run([sys.executable, "-c", KILLED, str(home / "ledger.db")]).returncode == 9
    assert (home / "ledger.db-journal").stat().st_size > 0
    assert b"late-1-" in (home / "ledger.db").read_bytes()
    ((code, told, error),) = look(tmp_path, home, ["campaign", "list"])
    assert (code, told) == (1, "")
    assert error.startswith("StorageError")
    with closing(sqlite3.connect(home / "ledger.db")) as database:  # takes it back
        assert database.execute("SELECT name FROM campaigns").fetchall() == [("small",)]
    ((code, told, _),) = look(tmp_path, home, ["campaign", "list"])
    assert code == 0
    assert "small" in told


def test_what_is_read_while_somebody_writes_is_refused(tmp_path: Path) -> None:
    require_namespaces()
    home, disk = tmp_path / "home", tmp_path / "disk"
    disk.mkdir()
    with Hall(str(home / "ledger.db"), home):
        pass
    ended = subprocess.run(
        ["unshare", "-rm", "sh", "-c", BIND, "sh", str(disk), str(home), sys.executable, MEANWHILE],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    *refused, count = ended.stdout.splitlines()
    assert len(refused) == 2
    assert all("somebody writes to it" in line and "look at a copy" in line for line in refused)
    assert count == "3"
