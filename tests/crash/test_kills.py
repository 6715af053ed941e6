"""kill -9 anywhere, resume, and the campaign ends where an undisturbed one does."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest
from small_campaigns import CommandLine, Ended, Small, with_people

from orchestrator.core.records import Status
from orchestrator.runner import Watcher

KILLED = -signal.SIGKILL
POINTS = [
    # The n-th hit, counted over one process, and the event that the kill leaves unrecorded or just recorded.
    ("runner.before_work", 1),  # base_ready
    ("runner.before_work", 5),  # reward_model_fitted
    ("runner.after_work", 3),  # comparisons_drawn(initial)
    ("runner.after_work", 13),  # comparisons_drawn(gate)
    ("runner.after_work", 14),  # labels_recorded of the gate
    ("runner.after_work", 15),  # labels_recorded of its audit
    ("runner.after_append", 6),  # attempt_begun
    ("runner.after_append", 11),  # rolled_back
    ("runner.after_append", 18),  # comparisons_drawn(gate): the audit is not sealed yet
    ("ledger.before_commit", 1),  # campaign_created
    ("ledger.before_commit", 2),  # controller_started
    ("ledger.before_commit", 9),  # phase_finished
    ("ledger.before_commit", 12),  # rolled_back
    ("ledger.before_commit", 20),  # comparisons_drawn(audit)
    ("ledger.before_commit", 25),  # advanced
    ("ledger.before_commit", 26),  # finished
    ("ledger.after_commit", 1),  # campaign_created
    ("ledger.after_commit", 11),  # verdict_given
    ("ledger.after_commit", 22),  # labels_recorded of the audit
    ("ledger.after_commit", 24),  # decision_made
    ("ledger.after_commit", 25),  # advanced
    ("artifact.before_rename", 1),  # the base
    ("artifact.before_rename", 6),  # the candidate
    ("artifact.after_rename", 5),  # the reward model
    ("artifact.after_rename", 6),  # the candidate
]


def resumed(command_line: CommandLine, folder: Path, file: Path) -> Ended:
    """Go on; where the kill came before the campaign was on the ledger, begin again."""
    ended = command_line(folder, "campaign", "resume", "small")
    if ended.code == 2 and "no campaign" in ended.stderr + ended.stdout:
        ended = command_line(folder, "campaign", "start", str(file))
    return ended


def assert_same_end(small: Small, undisturbed: Small) -> None:
    ours, theirs = small.reopen(), undisturbed.reopen()
    assert ours.state.approved == theirs.state.approved
    assert ours.digest == theirs.digest
    assert ours.ledger.verify("small").ok
    work = [event for event in ours.types if event not in ("controller_started", "paused", "resumed")]
    assert work == [event for event in theirs.types if event != "controller_started"]


@pytest.mark.thorough
@pytest.mark.parametrize(("place", "hit"), POINTS)
def test_a_killed_campaign_resumes_to_the_same_end(
    small: Small, undisturbed: Small, command_line: CommandLine, place: str, hit: int
) -> None:
    file = small.file()
    killed = command_line(small.folder, "campaign", "start", str(file), RATCHET_FAILPOINT=f"{place}:kill@{hit}")
    assert killed.code == KILLED, killed.stderr
    ended = resumed(command_line, small.folder, file)
    assert ended.code == 0, ended.stderr
    assert_same_end(small, undisturbed)


def test_killed_again_and_again(small: Small, undisturbed: Small, command_line: CommandLine) -> None:
    """Five kills, each a random while after one to four more events: the ledger's own pace, whatever the machine's."""
    dice = random.Random(0)
    file = small.file()
    running = command_line.start(small.folder, "campaign", "start", str(file))
    kills = 0
    for _ in range(5):
        wanted = recorded(small) + dice.randint(1, 4)
        while recorded(small) < wanted and not running.ended_within(0.005):
            pass
        if running.ended_within(dice.uniform(0.0, 0.1)):
            break
        with suppress(ProcessLookupError):  # it may end by itself between the look and the kill
            running.send(signal.SIGKILL)
        if running.wait().code != KILLED:
            break
        kills += 1
        verb = ["resume", "small"] if recorded(small) else ["start", str(file)]
        running = command_line.start(small.folder, "campaign", *verb)
    ended = running.wait()
    if ended.code != 0:
        ended = resumed(command_line, small.folder, file)
    assert ended.code == 0, ended.stderr
    assert kills > 0
    assert_same_end(small, undisturbed)


def recorded(small: Small) -> int:
    """Events on the ledger so far, read past the code under test; none before there is a ledger."""
    try:
        with closing(sqlite3.connect(f"file:{small.folder / 'home' / 'ledger.db'}?mode=ro", uri=True)) as database:
            return int(database.execute("SELECT count(*) FROM events").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def test_a_fresh_process_resumes_what_a_fresh_process_left(small: Small, undisturbed: Small) -> None:
    environment = {**os.environ, "RATCHET_HOME": str(small.folder / "home")}
    ratchet = [sys.executable, "-m", "orchestrator.cli.main", "campaign"]
    killed = subprocess.run(
        [*ratchet, "start", str(small.file())],
        env={**environment, "RATCHET_FAILPOINT": "runner.after_work:kill@6"},
        capture_output=True,
        timeout=120,
    )
    assert killed.returncode == KILLED, killed.stderr
    resumed = subprocess.run([*ratchet, "resume", "small"], env=environment, capture_output=True, timeout=120)
    assert resumed.returncode == 0, resumed.stderr
    assert_same_end(small, undisturbed)


def test_ctrl_c_pauses_and_resumes_to_the_same_end(small: Small, undisturbed: Small, command_line: CommandLine) -> None:
    running = command_line.start(small.folder, "campaign", "start", str(small.file()))
    while "base gold" not in running.said() and not running.ended_within(0.01):
        time.sleep(0.01)
    running.send(signal.SIGINT)
    ended = running.wait()
    assert ended.code == 130, ended.stderr
    assert ended.stderr.splitlines()[-1] == "interrupted"
    assert "Traceback" not in ended.stderr
    campaign = small.reopen()
    assert campaign.state.status is Status.PAUSED
    assert campaign.state.why_paused == "interrupted"
    assert not campaign.ledger.controller("small").live
    assert command_line(small.folder, "campaign", "resume", "small").code == 0
    assert_same_end(small, undisturbed)


def test_a_kill_between_approval_and_advance_advances_once(small: Small, command_line: CommandLine) -> None:
    campaign = small.campaign(**with_people())
    candidate = campaign.run_until_candidate()
    approve = ("review", "approve", "small", "--reviewer", "ann", "--reason", "good", "--candidate", candidate)
    killed = command_line(small.folder, *approve, RATCHET_FAILPOINT="ledger.after_commit:kill@1")
    assert killed.code == KILLED
    assert command_line(small.folder, *approve).code == 0  # said again, as nobody heard the answer
    resume = ("campaign", "resume", "small")
    assert command_line(small.folder, *resume, RATCHET_FAILPOINT="ledger.before_commit:kill@2").code == KILLED
    assert campaign.types[-1] == "controller_started"
    assert command_line(small.folder, *resume, RATCHET_FAILPOINT="ledger.after_commit:kill@2").code == KILLED
    assert command_line(small.folder, *resume).code == 0
    assert campaign.types.count("decision_made") == campaign.types.count("advanced") == 1
    assert campaign.state.approved == candidate


def test_a_label_is_neither_lost_nor_counted_twice(small: Small, command_line: CommandLine) -> None:
    campaign = small.campaign(**with_people())
    campaign.run()
    label = ("review", "label", "small", "--reviewer", "ann")
    killed = command_line(small.folder, *label, stdin="1\n2\n3\n", RATCHET_FAILPOINT="ledger.after_commit:kill@2")
    assert killed.code == KILLED
    first, second = (label.item for label in campaign.state.batches[0].labels)
    assert first != second
    killed = command_line(small.folder, *label, stdin="1\n", RATCHET_FAILPOINT="ledger.before_commit:kill@1")
    assert killed.code == KILLED
    assert campaign.state.labels.total == 2
    assert command_line(small.folder, *label, stdin="s\nq\n").code == 0
    said = [
        (label.item, (label.choice.swapped if label.swapped else label.choice).value)
        for label in campaign.state.batches[0].labels
    ]
    assert said[:2] == [(first, "first"), (second, "second")]
    assert [choice for _, choice in said[2:]] == ["skip"]
    assert len({item for item, _ in said}) == 3


def test_the_campaign_under_test_visits_every_kind_of_event(undisturbed: Small) -> None:
    """What the kills above are counted on."""
    work, types = [], undisturbed.reopen().types
    assert types[10:12] == ["verdict_given", "rolled_back"]
    assert types[18:23] == ["comparisons_drawn", "comparisons_drawn", "labels_recorded", "labels_recorded",
                            "verdict_given"]  # fmt: skip
    assert types[23:26] == ["decision_made", "advanced", "finished"]
    again = undisturbed.campaign("counted")
    again.run(watcher=Watcher(on_work=lambda item: work.append(item.command_id)))
    assert work == [
        *("base", "base.evaluated", "initial.drawn", "initial.rated.0", "s0.a0.reward_model", "s0.a0.phase"),
        *("s0.a0.evaluated", "s0.a1.training.drawn", "s0.a1.training.rated.0", "s0.a1.reward_model", "s0.a1.phase"),
        *("s0.a1.evaluated", "s0.a1.gate.drawn", "s0.a1.gate.rated.0", "s0.a1.audit.rated.0"),
    ]
