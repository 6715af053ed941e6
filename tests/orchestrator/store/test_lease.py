from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from orchestrator.core.envelope import EventDraft
from orchestrator.errors import LockedError, StaleEpochError
from orchestrator.store.lease import Controller
from orchestrator.store.ledger import Ledger

HOLDER = """
import sys, time
from orchestrator.store.ledger import Ledger
lease = Ledger.open(sys.argv[1]).acquire_controller("memo", owner="holder")
print(lease.epoch, flush=True)
time.sleep(600)
"""


@contextmanager
def holder(where: str) -> Iterator[subprocess.Popen[str]]:
    """A process that controls "memo", and hangs."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, where], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def acquired_soon(ledger: Ledger) -> int:
    """PostgreSQL learns of a client's death a moment later than its kernel."""
    deadline = time.monotonic() + 10
    while True:
        try:
            with ledger.acquire_controller("memo", owner="next") as lease:
                return lease.epoch
        except LockedError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_second_controller_is_refused_until_the_first_is_killed(where: str, ledger: Ledger) -> None:
    with holder(where) as process:
        with pytest.raises(LockedError, match="run by holder") as refusal:
            ledger.acquire_controller("memo", owner="second")
        assert refusal.value.exit_code == 11
        assert ledger.controller("memo") == Controller(epoch=1, owner="holder", live=True)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert acquired_soon(ledger) == 2


def test_takeover_fences_a_controller_that_hangs(where: str, ledger: Ledger) -> None:
    hung = ledger.acquire_controller("memo", owner="hung")
    with ledger.acquire_controller("memo", owner="new", takeover=True) as lease:
        assert lease.epoch == 2
        with pytest.raises(StaleEpochError):
            ledger.append("memo", [EventDraft("t", {}, command_id="late", author="hung")], epoch=hung.epoch)
        with pytest.raises(LockedError, match="run by new"):
            ledger.acquire_controller("memo", owner="third")
        hung.close()  # its end says nothing about the new one
        with pytest.raises(LockedError, match="run by new"):
            ledger.acquire_controller("memo", owner="third")
        ledger.append("memo", [EventDraft("t", {}, command_id="mine", author="new")], epoch=lease.epoch)
    assert [event.command_id for event in ledger.events("memo")] == ["mine"]
    assert acquired_soon(ledger) == 3


def test_takeover_of_a_stopped_process(where: str, ledger: Ledger) -> None:
    with holder(where) as process:
        process.send_signal(signal.SIGSTOP)
        with ledger.acquire_controller("memo", owner="new", takeover=True):
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
            with pytest.raises(LockedError, match="run by new"):
                ledger.acquire_controller("memo", owner="third")


def test_lease_ends_with_its_block_and_closing_twice_is_harmless(where: str, ledger: Ledger) -> None:
    assert ledger.controller("memo") == Controller(epoch=0, owner=None, live=False)
    with ledger.acquire_controller("memo", owner="first") as lease:
        assert ledger.controller("memo").live
    assert not ledger.controller("memo").live
    with ledger.acquire_controller("memo", owner="second"):
        lease.close()
        assert ledger.controller("memo") == Controller(epoch=2, owner="second", live=True)


def test_campaigns_have_controllers_of_their_own(ledger: Ledger) -> None:
    ledger.create_campaign("other")
    with (
        ledger.acquire_controller("memo", owner="one") as one,
        ledger.acquire_controller("other", owner="two") as two,
    ):
        assert (one.epoch, two.epoch) == (1, 1)


def test_forked_child_does_not_keep_a_dead_controllers_lock(ledger: Ledger, where: str) -> None:
    if where.startswith("postgresql"):
        pytest.skip("PostgreSQL's lock belongs to a connection: a forked child must not touch it at all")
    script = """
import os, sys, time
from orchestrator.store.ledger import Ledger
lease = Ledger.open(sys.argv[1]).acquire_controller("memo", owner="holder")
child = os.fork()
if child == 0:
    os.close(1)
    time.sleep(600)
print(child, flush=True)
os.kill(os.getpid(), 9)
"""
    result = subprocess.run([sys.executable, "-c", script, where], stdout=subprocess.PIPE, text=True, timeout=30)
    orphan = int(result.stdout)
    try:
        with ledger.acquire_controller("memo", owner="next") as lease:
            assert lease.epoch == 2
    finally:
        os.kill(orphan, signal.SIGKILL)


def test_controllers_that_race_get_one_lease(where: str, ledger: Ledger) -> None:
    racer = """
import sys
from orchestrator.errors import LockedError
from orchestrator.store.ledger import Ledger
ledger = Ledger.open(sys.argv[1])
print(flush=True)
sys.stdin.readline()
try:
    lease = ledger.acquire_controller("memo", owner="racer")
    print("won", flush=True)
except LockedError:
    print("lost", flush=True)
sys.stdin.readline()
"""
    racers = [
        subprocess.Popen([sys.executable, "-c", racer, where], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for process in racers:
        assert process.stdout is not None
        process.stdout.readline()
    for process in racers:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    outcomes = sorted(process.stdout.readline() for process in racers if process.stdout is not None)
    for process in racers:
        process.communicate("\n", timeout=30)
    assert outcomes == ["lost\n", "lost\n", "won\n"]
