"""Ledgers in both their homes; processes that die, and disks that fill up, on purpose."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from orchestrator.store.ledger import Ledger


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A place for a new ledger."""
    if request.param == "sqlite":
        yield str(tmp_path / "home" / "ledger.db")
        return
    if "RATCHET_TEST_POSTGRES_URL" not in os.environ:
        pytest.skip("needs a PostgreSQL: set RATCHET_TEST_POSTGRES_URL")
    url = make_url(os.environ["RATCHET_TEST_POSTGRES_URL"]).set(drivername="postgresql+psycopg")
    name = f"test_{uuid.uuid4().hex}"
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {name}"))
    yield url.update_query_dict({"options": f"-csearch_path={name}"}).render_as_string(hide_password=False)
    with engine.begin() as connection:
        connection.execute(text(f"DROP SCHEMA {name} CASCADE"))
    engine.dispose()


@pytest.fixture
def ledger(where: str) -> Iterator[Ledger]:
    """A ledger with the empty campaign "memo"."""
    with Ledger.open(where) as ledger:
        ledger.create_campaign("memo")
        yield ledger


@pytest.fixture
def run_until_no_kill() -> Callable[..., Iterator[list[str]]]:
    return _run_until_no_kill


@pytest.fixture
def run_on_small_disk() -> Callable[..., str]:
    return _run_on_small_disk


def _run_until_no_kill(script: str, fail_point: str, *arguments: str) -> Iterator[list[str]]:
    """Run a script again and again, killed at the 1st, 2nd, … hit of a fail point, until one run ends by itself.

    Yields the lines that each killed run had printed.
    """
    for hit in range(1, 100):
        process = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            env={**os.environ, "RATCHET_FAILPOINT": f"{fail_point}:kill@{hit}"},
            stdout=subprocess.PIPE,
            text=True,
            timeout=60,
        )
        if process.returncode == 0:
            assert hit > 1, f"{fail_point} was never hit"
            return
        assert process.returncode == -signal.SIGKILL
        yield process.stdout.splitlines()
    pytest.fail(f"{fail_point} was hit a hundred times")


def _run_on_small_disk(script: str, mount_point: Path, *, size_kb: int) -> str:
    """Run a script on a disk of its own, mounted where only it can see it, and return what it printed."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("needs user namespaces, to mount a small disk")
    mount_point.mkdir()
    command = f'mount -t tmpfs -o size={size_kb}k none "$1" && exec "$2" -c "$3" "$1"'
    return subprocess.run(
        ["unshare", "-rm", "sh", "-c", command, "sh", str(mount_point), sys.executable, script],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    ).stdout
