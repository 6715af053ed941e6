"""Following a campaign while MLflow is away, silent or back again."""

import logging
import socket
import time
from datetime import timedelta

import pytest
from mlflow_world import CAMPAIGN, Flaky, World, digest, nobody_listens

from orchestrator.tracking.follower import Follower


def test_the_follower_warns_once_and_ends_in_time(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.base()
    follower = Follower(world.tracker(nobody_listens()), [CAMPAIGN], interval=timedelta(milliseconds=20)).start()
    time.sleep(0.5)
    begun = time.monotonic()
    assert not follower.close(timedelta(seconds=3))
    assert time.monotonic() - begun < 60
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "ratchet campaign track quickstart" in warnings[0].getMessage()


def test_a_server_that_hangs_does_not_hold_the_program(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.base()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        follower = Follower(world.tracker(address), [CAMPAIGN], interval=timedelta(milliseconds=20)).start()
        time.sleep(0.2)
        begun = time.monotonic()
        assert not follower.close(timedelta(seconds=0.5))
        assert time.monotonic() - begun < 60
    assert "is slow" in caplog.text


def test_the_follower_catches_up_after_an_outage(world: World, caplog: pytest.LogCaptureFixture) -> None:
    tracker = world.tracker()
    real = tracker._connected().client
    tracker._connected().client = Flaky(real, 0)
    with Follower(tracker, interval=timedelta(milliseconds=20)) as follower:
        follower.follow(CAMPAIGN)  # before its first event
        world.base()
        world.attempt(0, 0, digest("base"), passes=True)
        time.sleep(0.2)
        tracker._connected().client = real
    assert follower._caught_up
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1
    assert world.tracker().drift(CAMPAIGN) == []
