from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.store import database
from orchestrator.store.filesystem import on_network
from orchestrator.store.ledger import Ledger

MOUNTS = r"""
/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
tmpfs /home/ann/fast tmpfs rw 0 0
10.0.0.1@tcp:/scratch /scratch\040disk lustre rw 0 0
ann@host:/x /mnt/ssh fuse.sshfs rw 0 0
server:/old /local nfs rw 0 0
/dev/sdb1 /local xfs rw 0 0
""".lstrip()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/var/ledger.db", False),
        ("/home/ann/ledger.db", True),
        ("/homes/ledger.db", False),
        ("/home/ann/fast/ledger.db", False),
        ("/scratch disk/ledger.db", True),
        ("/mnt/ssh/ledger.db", True),
        ("/local/ledger.db", False),
    ],
)
def test_innermost_and_latest_mount_decides(tmp_path: Path, path: str, expected: bool) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS)
    assert on_network(Path(path), mounts) is expected


def test_system_without_a_list_of_mounts(tmp_path: Path) -> None:
    assert on_network(tmp_path, tmp_path / "none") is False


def test_network_disk_gets_no_write_ahead_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Ledger.open(tmp_path / "ledger.db").close()  # in WAL, as on the local disk that it was copied from
    monkeypatch.setattr(database, "on_network", lambda path: True)
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        ledger.create_campaign("memo")
        with ledger._database.read() as connection:
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "delete"
