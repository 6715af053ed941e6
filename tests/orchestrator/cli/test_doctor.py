"""`ratchet doctor` on homes that are not well: each fault is a finding, and the other checks still speak."""

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hall import Hall

from orchestrator.cli.main import cli
from orchestrator.core.envelope import EventDraft


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with the campaigns `one` and `two`."""
    for name in ("one", "two"):
        with Hall(str(tmp_path / "ledger.db"), tmp_path, name=name):
            pass
    return tmp_path


def execute(home: Path, statement: str) -> None:
    with closing(sqlite3.connect(home / "ledger.db")) as database, database:
        database.execute(statement)


def findings(home: Path) -> dict[str, Any]:
    """By what was looked at."""
    ended = CliRunner().invoke(cli, ["doctor", "--home", str(home), "--json"])
    assert isinstance(ended.exception, SystemExit | None), ended.exception
    found = {finding["what"]: finding for finding in json.loads(ended.stdout)}
    assert ended.exit_code == (0 if all(finding["ok"] for finding in found.values()) else 1)
    assert {"python", "home", "disk", "ledger"} <= found.keys()
    return found


def assert_found(finding: dict[str, Any], *words: str) -> None:
    assert not finding["ok"]
    for word in words:
        assert word in finding["detail"]


def test_a_home_that_is_not_there_yet_is_well(tmp_path: Path) -> None:
    found = findings(tmp_path / "a" / "b")
    assert found["home"]["ok"]
    assert found["ledger"]["ok"]
    assert not (tmp_path / "a").exists()


def test_a_ledger_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(os.urandom(9000))
    assert_found(findings(tmp_path)["ledger"], "not a database", "restore")


def test_a_ledger_of_a_newer_version(home: Path) -> None:
    execute(home, "UPDATE schema_version SET version = 99")
    assert_found(findings(home)["ledger"], "schema version 99", "newer one")


def test_an_event_of_a_newer_version_spoils_no_other_campaign(home: Path) -> None:
    with Hall(str(home / "ledger.db"), home, name="three") as hall:
        draft = EventDraft("from_the_future", {}, command_id="f", author="controller")
        hall.ledger.append("one", [draft], epoch=None)
    found = findings(home)
    assert_found(found["ledger of one"], "from_the_future")
    assert not found["MLflow view of one"]["ok"]
    assert found["ledger of two"]["ok"]


def test_a_row_that_no_ratchet_wrote(home: Path) -> None:
    execute(home, "INSERT INTO campaigns VALUES (x'00ff', 'then', 0, NULL, -1, '')")
    assert_found(findings(home)["ledger"], "TypeError")


def test_an_edited_event_spoils_no_other_campaign(home: Path) -> None:
    execute(home, "UPDATE events SET author = 'mallory' WHERE campaign = 'one'")
    found = findings(home)
    assert_found(found["ledger of one"], "event 0", "edited")
    assert found["ledger of two"]["ok"]


@pytest.mark.parametrize("kind", ["junk", "folder"])
def test_what_stands_in_place_of_mlflows_database(home: Path, kind: str) -> None:
    database = home / "mlflow" / "mlflow.db"
    database.parent.mkdir()
    if kind == "junk":
        database.write_bytes(os.urandom(9000))
    else:
        database.mkdir()
    found = findings(home)
    words = "is no database; move it away" if kind == "junk" else "Is a directory"
    assert_found(found["MLflow view of one"], str(database), words, "ratchet campaign track one")
    assert found["ledger of one"]["ok"]
