"""Somebody edits the database behind the ledger's back."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.core.envelope import EventDraft, Head
from orchestrator.errors import LedgerCorruptError, RatchetError
from orchestrator.store.ledger import Ledger


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("intact") / "ledger.db"
    with Ledger.open(path) as ledger:
        ledger.create_campaign("memo")
        for n in range(6):
            ledger.append("memo", [EventDraft("label", {"win": n % 2}, command_id=f"c{n}", author="ann")], epoch=None)
    return path


@pytest.fixture
def path(intact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(intact, tmp_path / "ledger.db"))


def edit(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        for statement in statements:
            database.execute(statement)


FORGED_BODY = """UPDATE events SET body = '{"win":1}' WHERE seq = 2"""


@pytest.mark.parametrize(
    ("statements", "where"),
    [
        ([FORGED_BODY], "event 2"),
        (["UPDATE events SET author = 'bob' WHERE seq = 0"], "event 0"),
        (["UPDATE events SET reason = 'x' WHERE seq = 5"], "event 5"),
        (["UPDATE events SET time = '2020-01-01T00:00:00.000000+00:00' WHERE seq = 3"], "event 3"),
        (["UPDATE events SET time = 'soon' WHERE seq = 3"], "event 3"),
        (["UPDATE events SET epoch = 7 WHERE seq = 3"], "event 3"),
        (["UPDATE events SET body = x'00ff' WHERE seq = 3"], "event 3"),
        (["UPDATE events SET prev_hash = hash WHERE seq = 3"], "event 3"),
        (["DELETE FROM events WHERE seq = 3"], "event 4"),
        (["DELETE FROM events WHERE seq = 0"], "event 1"),
        (["DELETE FROM events WHERE seq >= 4"], "head"),
        (["DELETE FROM events"], "head"),
        (["UPDATE events SET seq = seq + 1 WHERE seq = 5"], "event 6"),
        (["UPDATE events SET seq = 'x' WHERE seq = 5"], "event x"),
        (
            [
                "UPDATE events SET seq = 99 WHERE seq = 2",
                "UPDATE events SET seq = 2 WHERE seq = 3",
                "UPDATE events SET seq = 3 WHERE seq = 99",
            ],
            "event 2",
        ),
        (["UPDATE campaigns SET head_seq = 4"], "head"),
        (["UPDATE campaigns SET head_hash = 'x'"], "head"),
        (
            [
                "INSERT INTO events SELECT campaign, 6, type, version, 'c6', author, reason, time, epoch, body, hash, "
                "hash FROM events WHERE seq = 5"
            ],
            "event 6",
        ),
    ],
)
def test_edit_is_named_and_nothing_is_read_or_built_on_it(path: Path, statements: list[str], where: str) -> None:
    edit(path, *statements)
    with Ledger.open(path) as ledger:
        verification = ledger.verify("memo")
        assert not verification.ok
        assert where in [problem.where for problem in verification.problems]
        with pytest.raises(LedgerCorruptError, match="ratchet ledger verify memo"):
            ledger.events("memo")


def test_edit_with_a_recomputed_hash_breaks_the_next_link(path: Path) -> None:
    edit(path, FORGED_BODY)
    with closing(sqlite3.connect(path)) as database, database:
        database.row_factory = sqlite3.Row
        columns = dict(database.execute("SELECT * FROM events WHERE seq = 2").fetchone())
        del columns["hash"]
        text = json.dumps(columns, sort_keys=True, separators=(",", ":"))
        forged = hashlib.sha256(text.encode()).hexdigest()
        database.execute("UPDATE events SET hash = ? WHERE seq = 2", (forged,))
    with Ledger.open(path) as ledger:
        assert [problem.where for problem in ledger.verify("memo").problems] == ["event 3"]


def test_cut_tail_stops_appends(path: Path) -> None:
    edit(path, "DELETE FROM events WHERE seq = 5")
    with Ledger.open(path) as ledger, pytest.raises(LedgerCorruptError, match="head"):
        ledger.append("memo", [EventDraft("t", {}, command_id="new", author="ann")], epoch=None)


def test_cut_tail_with_its_head_shows_against_a_noted_head(path: Path) -> None:
    with Ledger.open(path) as ledger:
        anchor = ledger.head("memo")
        assert ledger.verify("memo", anchor=anchor).ok
    edit(
        path,
        "DELETE FROM events WHERE seq > 3",
        "UPDATE campaigns SET head_seq = 3, head_hash = (SELECT hash FROM events WHERE seq = 3)",
    )
    with Ledger.open(path) as ledger:
        assert ledger.verify("memo").ok  # nothing inside the database can tell
        assert [problem.where for problem in ledger.verify("memo", anchor=anchor).problems] == ["event 5"]
        assert not ledger.verify("memo", anchor=Head(2, "f" * 64)).ok
        with pytest.raises(LedgerCorruptError, match="event 5"):
            ledger.events("memo", after_seq=5)  # a view's cursor knows better


def test_repetition_of_an_edited_event_is_refused(path: Path) -> None:
    edit(path, FORGED_BODY)
    with Ledger.open(path) as ledger, pytest.raises(LedgerCorruptError, match="event 2"):
        ledger.append("memo", [EventDraft("label", {"win": 1}, command_id="c2", author="ann")], epoch=None)


def test_flipped_bytes_never_give_a_wrong_answer(intact: Path, tmp_path: Path) -> None:
    """Whatever a damaged disk leaves: the same events, or one of Ratchet's errors."""
    with Ledger.open(intact) as ledger:
        truth = ledger.events("memo")
    data = intact.read_bytes()
    chance = random.Random(0)
    told = 0
    for trial in range(60):
        damaged = bytearray(data)
        for _ in range(chance.choice((1, 8, 64))):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        if trial % 5 == 0:
            del damaged[chance.randrange(len(damaged)) :]
        path = tmp_path / f"{trial}.db"
        path.write_bytes(damaged)
        try:
            with Ledger.open(path) as ledger:
                ok = ledger.verify("memo").ok
                assert ledger.events("memo") == truth or not ok
        except RatchetError:
            told += 1
    assert told > 10
