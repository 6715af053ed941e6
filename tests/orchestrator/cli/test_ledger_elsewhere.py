"""`--ledger` and RATCHET_LEDGER: the same commands on a ledger that does not lie in the home."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from desks import let_in
from small_campaigns import CommandLine, Ended, Small, with_people

from orchestrator.home import Home
from orchestrator.store.database import sqlite_file
from orchestrator.store.ledger import Ledger

SECRET = "hunter2"


@pytest.fixture
def run(command_line: CommandLine, tmp_path: Path) -> Callable[..., Ended]:
    """Run a command whose home is `tmp_path`/other, where no ledger lies."""
    other = str(tmp_path / "other")
    return lambda *arguments, **options: command_line(tmp_path, *arguments, **{"RATCHET_HOME": other, **options})


def test_a_campaign_whose_ledger_is_elsewhere(
    small: Small, where: str, run: Callable[..., Ended], tmp_path: Path
) -> None:
    started = run("--ledger", where, "campaign", "start", str(small.file(**with_people())))
    assert started.code == 3, started
    with Ledger.open(where) as ledger:
        assert ledger.campaigns() == ("small",)
    assert not (small.folder / "other" / "ledger.db").exists()
    listed = run("campaign", "list", "--json", RATCHET_LEDGER=where)
    assert [found["name"] for found in json.loads(listed.stdout)] == ["small"]
    assert json.loads(run("campaign", "list", "--json").stdout) == []
    waiting = run("review", "list", "small", "--json", RATCHET_LEDGER=where)
    assert json.loads(waiting.stdout)["comparisons"]["wanted"] == 40
    label = ("review", "label", "small", "--reviewer", "ann")
    if sqlite_file(where) is None:  # whoever reaches a server's ledger may be anybody
        refused = run(*label, stdin="1\n", RATCHET_LEDGER=where)
        assert refused.code == 1
        assert "nothing shows who you are" in refused.stderr
        with Ledger.open(where) as ledger:
            assert not ledger.people.any()
        let_in(Home(tmp_path / "other", where), "ann")
    labelled = run(*label, stdin="1\n2\nq\n", RATCHET_LEDGER=where)
    assert "recorded 2 labels of ann" in labelled.stderr
    assert run("ledger", "verify", "small", RATCHET_LEDGER=where).code == 0
    doctor = json.loads(run("doctor", "--json", RATCHET_LEDGER=where).stdout)
    (database,) = [finding for finding in doctor if finding["what"] == "ledger"]
    assert database["ok"]
    assert database["detail"].endswith("answers, campaigns: 1")


def test_doctor_says_when_there_is_no_ledger_yet(run: Callable[..., Ended]) -> None:
    (found,) = [one for one in json.loads(run("doctor", "--json").stdout) if one["what"] == "ledger"]
    assert found["ok"]
    assert "none yet" in found["detail"]


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://ann:{SECRET}@127.0.0.1:1/ratchet",
        f"postgresql://ann@127.0.0.1:1/ratchet?password={SECRET}",
        f"mysql://ann:{SECRET}@127.0.0.1:1/ratchet",
        f"mysql://ann@127.0.0.1:1/ratchet?password={SECRET}",
    ],
)
@pytest.mark.parametrize("command", [("campaign", "list"), ("doctor",)])
def test_a_database_that_does_not_answer_is_named_without_its_password(
    run: Callable[..., Ended], url: str, command: tuple[str, ...]
) -> None:
    pytest.importorskip("psycopg")
    for ended in (run("--ledger", url, *command), run("--debug", *command, RATCHET_LEDGER=url)):
        assert ended.code in (1, 2), ended
        assert "127.0.0.1" in ended.stdout + ended.stderr
        assert SECRET not in ended.stdout + ended.stderr
