"""Ledgers that an older Ratchet wrote, and those that a newer one did."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, make_url, text

from orchestrator.core.envelope import EMPTY_HEAD, EventDraft, StoredEvent, seal, to_row
from orchestrator.core.records import Role
from orchestrator.errors import LedgerVersionError
from orchestrator.store.ledger import Ledger, utc_now

VERSION_1 = """
CREATE TABLE schema_version (version INTEGER NOT NULL);
CREATE TABLE campaigns (
    name TEXT NOT NULL, created TEXT NOT NULL, epoch INTEGER NOT NULL, owner TEXT,
    head_seq INTEGER NOT NULL, head_hash TEXT NOT NULL, PRIMARY KEY (name)
);
CREATE TABLE events (
    campaign TEXT NOT NULL, seq INTEGER NOT NULL, type TEXT NOT NULL, version INTEGER NOT NULL,
    command_id TEXT NOT NULL, author TEXT NOT NULL, reason TEXT NOT NULL, time TEXT NOT NULL, epoch INTEGER,
    body TEXT NOT NULL, prev_hash TEXT NOT NULL, hash TEXT NOT NULL,
    PRIMARY KEY (campaign, seq), UNIQUE (campaign, command_id), FOREIGN KEY(campaign) REFERENCES campaigns (name)
);
INSERT INTO schema_version VALUES (1);
"""
"""What version 1 ran on a new database."""


def url_of(where: str) -> str:
    if "://" not in where:
        return f"sqlite:///{where}"
    return make_url(where).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def old_event() -> StoredEvent:
    written = EventDraft("label_given", {"win": True}, command_id="a", author="ann")
    return seal(written, campaign="memo", after=EMPTY_HEAD, time=utc_now(), epoch=None)


@pytest.fixture
def old(where: str) -> str:
    """A ledger of version 1 with one event."""
    if "://" not in where:
        Path(where).parent.mkdir()
    engine, event = create_engine(url_of(where)), old_event()
    with engine.begin() as connection:
        for statement in filter(str.strip, VERSION_1.split(";")):
            connection.execute(text(statement))
        campaign = "INSERT INTO campaigns VALUES ('memo', :time, 0, NULL, 0, :hash)"
        connection.execute(text(campaign), {"time": to_row(event)["time"], "hash": event.hash})
        row = to_row(event)
        names = ", ".join(f":{name}" for name in row)
        connection.execute(text(f"INSERT INTO events ({', '.join(row)}) VALUES ({names})"), row)
    engine.dispose()
    return where


def version_of(where: str) -> int:
    engine = create_engine(url_of(where))
    with engine.connect() as connection:
        found: int = connection.execute(text("SELECT version FROM schema_version")).scalar_one()
    engine.dispose()
    return found


def test_an_old_ledger_is_brought_up_to_date_and_keeps_its_events(old: str) -> None:
    with Ledger.open(old) as ledger:
        assert [event.command_id for event in ledger.events("memo")] == ["a"]
        assert ledger.verify("memo").ok
        ledger.append("memo", [EventDraft("paused", {}, command_id="b", author="bo")], epoch=None)
        assert not ledger.people.any()
        ledger.people.invite("ann", [Role.LABELER], by="bo")
    assert version_of(old) == 2
    with Ledger.open(old) as ledger:
        assert [event.command_id for event in ledger.events("memo")] == ["a", "b"]
        assert ledger.people.any()


def test_an_old_ledger_ends_with_the_tables_and_indices_of_a_new_one(old: str, tmp_path: Path) -> None:
    def shape(where: str) -> dict[str, tuple[frozenset[str], frozenset[str]]]:
        engine = create_engine(url_of(where))
        seen = inspect(engine)
        found = {
            table: (
                frozenset(f"{column['name']} {column['nullable']}" for column in seen.get_columns(table)),
                frozenset(str(index["name"]) for index in seen.get_indexes(table)),
            )
            for table in seen.get_table_names()
        }
        engine.dispose()
        return found

    new = str(tmp_path / "new.db")
    Ledger.open(old).close()
    Ledger.open(new).close()
    ours, theirs = shape(old), shape(new)
    assert {name: columns for name, (columns, _) in ours.items()} == {n: columns for n, (columns, _) in theirs.items()}
    assert ours["tickets"][1] >= {"ix_tickets_campaign_until"}


def test_processes_that_bring_one_ledger_up_to_date_at_once(old: str) -> None:
    opener = "import sys; from orchestrator.store.ledger import Ledger; Ledger.open(sys.argv[1]).campaigns()"
    openers = [subprocess.Popen([sys.executable, "-c", opener, old]) for _ in range(3)]
    assert [process.wait(60) for process in openers] == [0] * 3
    assert version_of(old) == 2


def test_somebody_elses_tables_are_not_taken_for_ours(old: str) -> None:
    engine = create_engine(url_of(old))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE people (x INTEGER)"))
    engine.dispose()
    with pytest.raises(LedgerVersionError, match="people that are not Ratchet's"):
        Ledger.open(old)
    assert version_of(old) == 1


@pytest.mark.parametrize("version", [0, 3])
def test_versions_that_this_ratchet_does_not_read(tmp_path: Path, version: int) -> None:
    Ledger.open(tmp_path / "ledger.db").close()
    with sqlite3.connect(tmp_path / "ledger.db") as database:
        database.execute("UPDATE schema_version SET version = ?", [version])
    with pytest.raises(LedgerVersionError, match=f"version {version}, this Ratchet reads versions 1 to 2"):
        Ledger.open(tmp_path / "ledger.db")


def test_secret_of_a_campaign_is_made_once(ledger: Ledger, where: str) -> None:
    ledger.create_campaign("other")
    first = ledger.secret("memo")
    assert len(first) == 32
    assert ledger.secret("memo") == first
    assert ledger.secret("other") != first
    with Ledger.open(where) as again:
        assert again.secret("memo") == first


def test_processes_that_ask_for_one_secret_at_once_get_one(ledger: Ledger, where: str) -> None:
    asker = "import sys; from orchestrator.store.ledger import Ledger; print(Ledger.open(sys.argv[1]).secret('memo'))"
    askers = [subprocess.Popen([sys.executable, "-c", asker, where], stdout=subprocess.PIPE) for _ in range(4)]
    told = {process.communicate(timeout=60)[0] for process in askers}
    assert told == {f"{ledger.secret('memo')}\n".encode()}
