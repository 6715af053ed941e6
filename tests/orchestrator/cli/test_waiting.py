"""Commands around people: notices, and `--wait`."""

import json
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from small_campaigns import Campaign, CommandLine, Running, Small, with_people

from orchestrator.core.commands import AskForDecision, AskForLabels
from orchestrator.core.records import Decision, EndedBy

KEEP = "import pathlib, sys; pathlib.Path(sys.argv[1]).open('ab').write(sys.stdin.buffer.read() + b'\\n')"
GATE = {"audit": {"evaluator": "none"}}


def until(running: Running, met: Callable[[], bool]) -> None:
    """Give a running command a minute to come to something."""
    end = time.monotonic() + 60
    while not met():
        assert not running.ended_within(0.1), running.said()
        assert time.monotonic() < end, running.said()


def waits(campaign: Campaign, kind: type, sealed: int) -> bool:
    """Whether people are asked, with so many batches sealed, and no controller holds the campaign."""
    asked = isinstance(campaign.office.command(), kind) and len(campaign.state.batches) == sealed
    return asked and not campaign.ledger.controller(campaign.name).live


def test_a_notice_is_sent_once_and_changes_nothing(small: Small, command_line: CommandLine, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    told = {"notify": {"command": [sys.executable, "-c", KEEP, str(kept)]}}
    file = small.file(**with_people(**told))
    assert command_line(tmp_path, "campaign", "start", str(file)).code == 3
    assert command_line(tmp_path, "campaign", "resume", "small").code == 3
    (line,) = kept.read_text().splitlines()
    assert json.loads(line)["batch"] == "initial"
    (tmp_path / "home" / "told" / "small").unlink()
    ended = command_line(tmp_path, "campaign", "resume", "small", "--set", "notify.command=[/nowhere]", "--json")
    assert (ended.code, ended.json["status"]) == (3, "waiting")
    (warning,) = [line for line in ended.stderr.splitlines() if line.startswith("WARNING")]
    assert "nobody may know that small waits: notify.command (nowhere)" in warning


def test_who_waits_goes_on_when_people_have_answered(small: Small, command_line: CommandLine, tmp_path: Path) -> None:
    campaign = small.campaign(**with_people(gate=GATE))
    running = command_line.start(tmp_path, "campaign", "resume", "small", "--wait")
    for sealed in (1, 2):  # the first labels, the gate's
        until(running, partial(waits, campaign, AskForLabels, sealed))
        campaign.label()
    until(running, partial(waits, campaign, AskForDecision, 2))
    campaign.desk().decide(Decision.APPROVE, str(campaign.state.attempts[0].candidate), "it reads well")
    ended = running.wait()
    assert (ended.code, campaign.state.ended_by) == (0, EndedBy.STAGES_COMPLETED), ended.stderr
    assert campaign.types.count("controller_started") == 4


def test_leaving_it_leaves_it_waiting_and_a_pause_is_kept(
    small: Small, command_line: CommandLine, tmp_path: Path
) -> None:
    campaign = small.campaign(**with_people(gate=GATE))
    running = command_line.start(tmp_path, "campaign", "resume", "small", "--wait")
    until(running, lambda: "goes on when people have answered" in running.said())
    running.send(signal.SIGINT)
    assert running.wait().code == 130
    assert waits(campaign, AskForLabels, 1)
    assert "paused" not in campaign.types
    running = command_line.start(tmp_path, "campaign", "resume", "small", "--wait")
    until(running, lambda: "goes on when people have answered" in running.said())
    campaign.pause("lunch")
    ended = running.wait()
    assert (ended.code, "small is paused" in ended.stderr) == (0, True)
    assert campaign.types[-1] == "paused"
