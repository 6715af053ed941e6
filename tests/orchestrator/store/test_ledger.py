from __future__ import annotations

import hashlib
import json
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from orchestrator.core.envelope import EMPTY_HEAD, EventDraft, Head, StoredEvent
from orchestrator.errors import (
    CampaignExistsError,
    CommandConflictError,
    ConfigError,
    HeadMovedError,
    LedgerCorruptError,
    LedgerVersionError,
    StaleEpochError,
    StorageError,
    UnknownCampaignError,
    UsageError,
)
from orchestrator.store.ledger import Ledger


def draft(command_id: str, **body: object) -> EventDraft:
    return EventDraft("label_given", body, command_id=command_id, author="ann", reason="because")


def test_what_is_appended_comes_back(ledger: Ledger) -> None:
    first, second = ledger.append("memo", [draft("a", win=True), draft("b", text="\ud800\0é")], epoch=None)
    assert ledger.events("memo") == (first, second)
    assert ledger.events("memo", after_seq=0) == (second,)
    assert ledger.events("memo", after_seq=1) == ()
    assert ledger.head("memo") == Head(1, second.hash)
    assert (first.seq, first.type, first.author, first.reason, first.version) == (0, "label_given", "ann", "because", 1)
    assert second.body == {"text": "\ud800\0é"}
    assert first.time.utcoffset() == timedelta(0)


def test_chain_recomputed_by_hand(where: str) -> None:
    """The oracle uses hashlib and json alone, on numbers written out here."""
    moment = datetime(2026, 3, 29, 2, 30, tzinfo=timezone(timedelta(hours=2)))
    with Ledger.open(where, now=lambda: moment) as ledger:
        ledger.create_campaign("memo")
        ledger.append("memo", [draft("a", z=1, a=[0.5, None])], epoch=None)
        ledger.append("memo", [EventDraft("paused", {}, command_id="é", author="bo", version=3)], epoch=None)
        stored = ledger.events("memo")
    expected = [
        {
            "campaign": "memo",
            "seq": 0,
            "type": "label_given",
            "version": 1,
            "command_id": "a",
            "author": "ann",
            "reason": "because",
            "time": "2026-03-29T00:30:00.000000+00:00",
            "epoch": None,
            "body": '{"a":[0.5,null],"z":1}',
            "prev_hash": "0" * 64,
        },
        {
            "campaign": "memo",
            "seq": 1,
            "type": "paused",
            "version": 3,
            "command_id": "é",
            "author": "bo",
            "reason": "",
            "time": "2026-03-29T00:30:00.000000+00:00",
            "epoch": None,
            "body": "{}",
            "prev_hash": stored[0].hash,
        },
    ]
    for event, columns in zip(stored, expected, strict=True):
        text = json.dumps(columns, sort_keys=True, separators=(",", ":"))
        assert event.hash == hashlib.sha256(text.encode()).hexdigest()


def test_repeated_command_is_recorded_once(ledger: Ledger) -> None:
    (first,) = ledger.append("memo", [draft("a", win=True)], epoch=None)
    again = ledger.append("memo", [draft("b"), draft("a", win=True), draft("b")], epoch=None)
    assert [event.seq for event in again] == [1, 0, 1]
    assert again[1] == first
    assert [event.command_id for event in ledger.events("memo")] == ["a", "b"]


@pytest.mark.parametrize(
    "other",
    [
        draft("a", win=False),
        EventDraft("label_given", {"win": True}, command_id="a", author="bo", reason="because"),
        EventDraft("label_given", {"win": True}, command_id="a", author="ann", reason="again"),
        EventDraft("label_withdrawn", {"win": True}, command_id="a", author="ann", reason="because"),
    ],
)
def test_known_command_with_other_contents_is_refused(ledger: Ledger, other: EventDraft) -> None:
    ledger.append("memo", [draft("a", win=True)], epoch=None)
    with pytest.raises(CommandConflictError, match="recorded as event 0"):
        ledger.append("memo", [draft("new"), other], epoch=None)
    assert len(ledger.events("memo")) == 1


def test_the_same_command_twice_in_one_append_must_agree(ledger: Ledger) -> None:
    with pytest.raises(CommandConflictError):
        ledger.append("memo", [draft("a", win=True), draft("a", win=False)], epoch=None)
    assert ledger.head("memo") == EMPTY_HEAD


def test_many_drafts_in_one_append(ledger: Ledger) -> None:
    drafts = [draft(f"label {n}", n=n) for n in range(2500)]
    assert len(ledger.append("memo", drafts, epoch=None)) == 2500
    assert [event.seq for event in ledger.append("memo", drafts, epoch=None)] == list(range(2500))
    assert ledger.verify("memo").checked == 2500


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (EventDraft("", {}, command_id="x", author="ann"), "no type"),
        (EventDraft("t", {}, command_id="", author="ann"), "no command_id"),
        (EventDraft("t", {}, command_id="x", author=""), "no author"),
        (EventDraft("t", {}, command_id="x", author="a\0b"), "NUL"),
        (EventDraft("t", {}, command_id="x", author="ann", reason="\udcff"), "Unicode"),
        (EventDraft("t", {"p": float("nan")}, command_id="x", author="ann"), "canonical"),
        (EventDraft("t", {"p": b""}, command_id="x", author="ann"), "canonical"),
    ],
)
def test_unstorable_draft_is_refused_and_takes_the_others_with_it(ledger: Ledger, bad: EventDraft, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        ledger.append("memo", [draft("good"), bad], epoch=None)
    assert ledger.events("memo") == ()


def test_controller_appends_only_under_the_current_epoch(ledger: Ledger) -> None:
    with ledger.acquire_controller("memo", owner="first") as lease:
        (event,) = ledger.append("memo", [draft("a")], epoch=lease.epoch)
        assert event.epoch == lease.epoch == 1
    with ledger.acquire_controller("memo", owner="second"):
        with pytest.raises(StaleEpochError, match="epoch 2, here 1"):
            ledger.append("memo", [draft("b")], epoch=1)
        with pytest.raises(StaleEpochError):
            ledger.append("memo", [draft("a")], epoch=1)  # not even a repetition
        (person,) = ledger.append("memo", [draft("c")], epoch=None)
    assert [event.command_id for event in ledger.events("memo")] == ["a", "c"]
    assert person.epoch is None


def test_nothing_new_lands_behind_an_event_its_author_had_not_seen(ledger: Ledger) -> None:
    ledger.append("memo", [draft("a")], epoch=None, after_seq=-1)
    with pytest.raises(HeadMovedError, match="event 0 came in behind event -1"):
        ledger.append("memo", [draft("b")], epoch=None, after_seq=-1)
    ledger.append("memo", [draft("a")], epoch=None, after_seq=-1)  # a repetition adds nothing
    ledger.append("memo", [draft("b"), draft("c")], epoch=None, after_seq=0)
    assert [event.command_id for event in ledger.events("memo")] == ["a", "b", "c"]


def test_clock_that_jumps_back_changes_no_order(where: str) -> None:
    times = iter(datetime(2026, 10, 25, hour, tzinfo=UTC) for hour in range(12, 0, -1))
    with Ledger.open(where, now=lambda: next(times)) as ledger:
        ledger.create_campaign("memo")
        for n in range(5):
            ledger.append("memo", [draft(str(n))], epoch=None)
        assert [event.command_id for event in ledger.events("memo")] == ["0", "1", "2", "3", "4"]
        assert ledger.verify("memo").ok


def test_campaigns_are_apart(ledger: Ledger) -> None:
    ledger.create_campaign("other")
    ledger.append("memo", [draft("a")], epoch=None)
    (event,) = ledger.append("other", [draft("a")], epoch=None)
    assert event.seq == 0
    assert ledger.campaigns() == ("memo", "other")
    with pytest.raises(CampaignExistsError):
        ledger.create_campaign("other")


def test_unknown_campaign(ledger: Ledger) -> None:
    for call in (ledger.events, ledger.head, ledger.verify, ledger.controller):
        with pytest.raises(UnknownCampaignError, match="ratchet campaign list"):
            call("nobody")
    with pytest.raises(UnknownCampaignError):
        ledger.append("nobody", [draft("a")], epoch=None)


@pytest.mark.parametrize(
    "name", ["", "../x", "/x", "a/b", "a\\b", ".hidden", "con", "NUL.txt", "x\n", "x\0", "x" * 65, "é", "x.", "-x"]
)
def test_unsafe_names_are_refused(ledger: Ledger, name: str) -> None:
    with pytest.raises(UsageError, match="not allowed"):
        ledger.create_campaign(name)


def test_ledger_survives_reopening(where: str) -> None:
    with Ledger.open(where) as ledger:
        ledger.create_campaign("memo")
        ledger.append("memo", [draft("a")], epoch=None)
    with Ledger.open(where) as ledger:
        assert [event.command_id for event in ledger.events("memo")] == ["a"]


def test_sqlite_url_and_path_are_one_ledger(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path}/a b%c.db") as ledger:
        ledger.create_campaign("memo")
    with Ledger.open(tmp_path / "a b%c.db") as ledger:
        assert ledger.campaigns() == ("memo",)


@pytest.mark.parametrize("where", ["mysql://x/y", "://", "sqlite://", "sqlite:///:memory:"])
def test_other_databases_are_refused(where: str) -> None:
    with pytest.raises(ConfigError, match="postgresql://USER@HOST/NAME"):
        Ledger.open(where)


def test_sqlite_is_durable_and_checks_itself(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.db") as ledger, ledger._database.read() as connection:
        settings = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_newer_ledger_is_refused(tmp_path: Path) -> None:
    Ledger.open(tmp_path / "ledger.db").close()
    with sqlite3.connect(tmp_path / "ledger.db") as database:
        database.execute("UPDATE schema_version SET version = 99")
    with pytest.raises(LedgerVersionError, match="version 99"):
        Ledger.open(tmp_path / "ledger.db")


def test_ledger_that_does_not_know_its_version_is_refused(tmp_path: Path) -> None:
    Ledger.open(tmp_path / "ledger.db").close()
    with sqlite3.connect(tmp_path / "ledger.db") as database:
        database.execute("DELETE FROM schema_version")
    with pytest.raises(LedgerCorruptError, match="schema version"):
        Ledger.open(tmp_path / "ledger.db")


def test_somebody_elses_database_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("CREATE TABLE events (x)")
    with pytest.raises(LedgerVersionError, match="events"):
        Ledger.open(tmp_path / "mlflow.db")


def test_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="--home"):
        Ledger.open(tmp_path / "file" / "ledger.db")
    (tmp_path / "directory").mkdir()
    with pytest.raises(StorageError, match="can be written"):
        Ledger.open(tmp_path / "directory")


def test_writer_that_never_ends_is_named_after_the_timeout(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.db", busy_timeout=timedelta(milliseconds=50)) as ledger:
        ledger.create_campaign("memo")
        other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="another process is writing"):
            ledger.append("memo", [draft("a")], epoch=None)
        assert ledger.events("memo") == ()  # readers do not wait
        other.execute("ROLLBACK")
        other.close()
        ledger.append("memo", [draft("a")], epoch=None)


def test_appends_of_several_processes_form_one_chain(where: str) -> None:
    writer = """
import sys
from orchestrator.core.envelope import EventDraft
from orchestrator.store.ledger import Ledger
where, name = sys.argv[1:]
with Ledger.open(where) as ledger:
    for n in range(30):
        ledger.append("memo", [EventDraft("t", {"n": n}, command_id=f"{name} {n}", author=name)], epoch=None)
"""
    with Ledger.open(where) as ledger:
        ledger.create_campaign("memo")
        writers = [subprocess.Popen([sys.executable, "-c", writer, where, name]) for name in "abc"]
        assert [process.wait(60) for process in writers] == [0, 0, 0]
        stored = ledger.events("memo")
        assert ledger.verify("memo").ok
    assert [event.seq for event in stored] == list(range(90))
    for name in "abc":
        assert [event.body["n"] for event in stored if event.author == name] == list(range(30))


def test_processes_that_create_one_ledger_at_once(where: str) -> None:
    opener = """
import sys
from orchestrator.store.ledger import Ledger
Ledger.open(sys.argv[1]).create_campaign(sys.argv[2])
"""
    openers = [subprocess.Popen([sys.executable, "-c", opener, where, name]) for name in "abc"]
    assert [process.wait(60) for process in openers] == [0] * 3
    with Ledger.open(where) as ledger:
        assert ledger.campaigns() == ("a", "b", "c")


def test_stored_event_is_a_value() -> None:
    event = StoredEvent(
        "memo", 0, "t", 1, "a", "ann", "", datetime(2026, 1, 1, tzinfo=UTC), None, '{"x":[1]}', "0" * 64, "1" * 64
    )
    event.body["x"].append(2)
    assert event.body == {"x": [1]}


def test_a_server_that_is_not_there_is_told_in_one_line() -> None:
    with pytest.raises(StorageError) as refused:
        Ledger.open("postgresql://ann@127.0.0.1:1/ratchet")
    assert "Connection refused; check the database server and try again" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "resume" not in str(refused.value)
