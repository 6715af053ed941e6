"""SIGTERM and a closed terminal leave a campaign as Ctrl-C does: paused, with the cause, to be resumed."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_campaigns import Campaign, CommandLine, Running, Small, with_people

from orchestrator.core.records import Status

WORDS = {signal.SIGTERM: "terminated (SIGTERM)", signal.SIGHUP: "the terminal was closed (SIGHUP)"}
GO_ON = "go on with: ratchet campaign resume small"
ENDLESS = {"base": {"model": None, "seedling": {"width": 32, "layers": 1, "heads": 2, "steps": 10**8}}}


def under_way(small: Small, command_line: CommandLine) -> tuple[Campaign, Running]:
    """A campaign at work that no test would see the end of."""
    campaign = small.campaign(**ENDLESS)
    running = command_line.start(small.folder, "campaign", "resume", "small")
    while "controller_started" not in campaign.types:
        assert not running.ended_within(0.05), running.said()
    return campaign, running


@pytest.mark.parametrize("sent", WORDS)
def test_a_campaign_pauses_and_says_why(small: Small, command_line: CommandLine, sent: signal.Signals) -> None:
    campaign, running = under_way(small, command_line)
    running.send(sent)
    ended = running.wait()
    assert ended.code == 130, ended.stderr
    assert GO_ON in ended.stderr.splitlines()
    assert ended.stderr.splitlines()[-1] == WORDS[sent]
    assert "Traceback" not in ended.stderr
    assert (campaign.state.status, campaign.state.why_paused) == (Status.PAUSED, WORDS[sent])
    assert not campaign.ledger.controller("small").live


def test_further_signals_do_not_break_off_the_pause(small: Small, command_line: CommandLine) -> None:
    campaign, running = under_way(small, command_line)
    for _ in range(5):
        running.send(signal.SIGTERM)
        running.send(signal.SIGHUP)
    assert running.wait().code == 130
    assert campaign.types.count("paused") == 1
    assert campaign.state.why_paused in WORDS.values()
    assert campaign.ledger.verify("small").ok


def test_one_that_waits_for_people_is_left_waiting(small: Small, command_line: CommandLine) -> None:
    campaign = small.campaign(**with_people())
    running = command_line.start(small.folder, "campaign", "resume", "small", "--wait")
    while "goes on when people have answered" not in running.said():
        assert not running.ended_within(0.05), running.said()
    running.send(signal.SIGTERM)
    ended = running.wait()
    assert (ended.code, ended.stderr.splitlines()[-1]) == (130, WORDS[signal.SIGTERM])
    assert GO_ON in ended.stderr.splitlines()
    assert "paused" not in campaign.types


def test_the_review_page_ends_with_the_same_code(small: Small, command_line: CommandLine, tmp_path: Path) -> None:
    small.campaign(**with_people())
    for sent, words in WORDS.items():
        running = command_line.start(tmp_path, "review", "serve", "--port", "0")
        while "let people in with" not in running.said():
            assert not running.ended_within(0.05), running.said()
        running.send(sent)
        ended = running.wait()
        assert (ended.code, ended.stderr.splitlines()[-1]) == (130, words), ended.stderr
        assert "Traceback" not in ended.stderr


def test_what_nohup_ignores_stays_ignored() -> None:
    script = (
        "import os, signal\n"
        "from orchestrator.signals import hear_signals, signal_heard\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "hear_signals()\n"
        "os.kill(os.getpid(), signal.SIGHUP)\n"
        "print(signal_heard())\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "except KeyboardInterrupt:\n"
        "    print(signal_heard())\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, timeout=60)
    assert (ended.returncode, ended.stdout.splitlines()) == (0, ["None", WORDS[signal.SIGTERM]])
