"""Whether anybody is at work on a campaign, as `campaign show`, `list` and `watch` tell it."""

import signal
import socket
import time
from pathlib import Path

import pytest
from small_campaigns import CommandLine, Small, with_people

from orchestrator.campaigns import controller_at_work
from orchestrator.store import ledger as ledgers

LEFT = "running, but no controller is at work"
GO_ON = "go on with: ratchet campaign resume small"


def test_a_killed_controller_is_missed(small: Small, command_line: CommandLine, tmp_path: Path) -> None:
    killed = command_line(
        tmp_path, "campaign", "start", str(small.file()), RATCHET_FAILPOINT="runner.before_work:kill@1"
    )
    assert killed.code == -signal.SIGKILL
    document = command_line(tmp_path, "campaign", "show", "small", "--json").json
    assert (document["status"], document["controller"]) == ("running", False)
    (listed,) = command_line(tmp_path, "campaign", "list", "--json").json
    assert (listed["status"], listed["controller"]) == ("running", False)
    for words in (("campaign", "show", "small"), ("campaign", "list")):
        told = command_line(tmp_path, *words).stdout
        assert LEFT in told
        assert GO_ON in told


def test_a_living_controller_is_seen_and_keeps_its_lease(
    small: Small, command_line: CommandLine, tmp_path: Path
) -> None:
    ledger = small.campaign().ledger
    with ledger.acquire_controller("small", owner="host:1") as lease:
        document = command_line(tmp_path, "campaign", "show", "small", "--json").json
        assert (document["status"], document["controller"]) == ("running", True)
        for words in (("campaign", "show", "small"), ("campaign", "list")):
            told = command_line(tmp_path, *words).stdout
            assert "running" in told
            assert "controller" not in told
        assert ledger.controller("small").live
        assert ledger.controller("small").epoch == lease.epoch


def test_nobody_need_be_at_work_while_people_are_asked_or_when_all_is_done(
    small: Small, undisturbed: Small, command_line: CommandLine, tmp_path: Path
) -> None:
    small.campaign(**with_people()).run()
    for home, status in ((tmp_path / "home", "waiting"), (undisturbed.folder / "home", "finished")):
        document = command_line(tmp_path, "--home", str(home), "campaign", "show", "small", "--json").json
        assert (document["status"], document["controller"]) == (status, False)
        assert "resume" not in command_line(tmp_path, "--home", str(home), "campaign", "show", "small").stdout


def test_who_watches_is_told_once_that_nobody_goes_on(small: Small, command_line: CommandLine, tmp_path: Path) -> None:
    campaign = small.campaign()
    running = command_line.start(tmp_path, "campaign", "watch", "small")
    end = time.monotonic() + 60
    while GO_ON not in running.said():
        assert not running.ended_within(0.1), running.said()
        assert time.monotonic() < end
    campaign.pause("lunch")
    while "paused: lunch" not in (tmp_path / ".stdout").read_text():
        assert not running.ended_within(0.1), running.said()
        assert time.monotonic() < end
    running.send(signal.SIGINT)
    ended = running.wait()
    assert (ended.code, ended.stderr.count(LEFT)) == (130, 1)


def test_another_machines_locks_may_not_be_seen(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network file system can be mounted here, so this one is said to be one."""
    ledger = small.campaign().ledger
    monkeypatch.setattr(ledgers, "on_network", lambda path: True)
    assert controller_at_work(ledger, "small") is False
    with ledger.acquire_controller("small", owner="elsewhere:1"):
        assert controller_at_work(ledger, "small") is True
    assert controller_at_work(ledger, "small") is None
    ledger.acquire_controller("small", owner=f"{socket.gethostname()}:1").close()
    assert controller_at_work(ledger, "small") is False


def test_what_deploys_without_anybody_says_so(small: Small, command_line: CommandLine, tmp_path: Path) -> None:
    """A person is named as approver, and `advance: always` asks nobody."""
    file = small.file(protocol={"advance": "always"}, approval={"by": "person"})
    started = command_line(tmp_path, "campaign", "start", str(file), RATCHET_FAILPOINT="runner.before_work:kill@1")
    shown = command_line(tmp_path, "campaign", "show", "small").stdout
    for told in (started.stderr, shown):
        assert "NOTE: small deploys every candidate without a gate and without a person" in told
