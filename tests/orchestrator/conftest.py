"""Processes that die, and disks that fill up, on purpose."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


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
