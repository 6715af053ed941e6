"""What waits in all campaigns of a home at once."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from desks import all_of
from hall import Hall
from small_campaigns import for_the_candidate

from orchestrator.cli.main import cli
from orchestrator.core.commands import AskForDecision
from orchestrator.core.envelope import EventDraft
from orchestrator.core.records import Decision
from orchestrator.errors import IntegrityError, LedgerVersionError


def named(home: Path, name: str) -> Hall:
    return Hall(str(home / "ledger.db"), home, name=name, approval={"by": "person"})


@pytest.fixture
def halls(tmp_path: Path) -> Iterator[dict[str, Hall]]:
    """One campaign asks for labels, one for a decision, one has ended, and one needs nobody yet."""
    with ExitStack() as stack:
        halls = {name: stack.enter_context(named(tmp_path, name)) for name in ("asks", "decides", "ended", "works")}
        halls["asks"].go_on()
        for name in ("decides", "ended"):
            while not isinstance(command := halls[name].go_on(), AskForDecision):
                all_of(halls[name].desk("ann"), for_the_candidate)
        halls["ended"].desk("bob").decide(Decision.APPROVE, str(command.attempt.candidate), "it reads well")
        halls["ended"].go_on()
        yield halls


def listed(home: Path, *words: str) -> Result:
    return CliRunner().invoke(cli, ["--home", str(home), "review", "list", *words])


def test_all_that_waits_is_listed_without_a_name(halls: dict[str, Hall], tmp_path: Path) -> None:
    asks, decides = json.loads(listed(tmp_path, "--json").stdout)
    assert (asks["campaign"], asks["candidate"], asks["comparisons"]["wanted"]) == ("asks", None, 6)
    candidate = halls["decides"].state.attempts[-1].candidate
    assert (decides["campaign"], decides["comparisons"]) == ("decides", None)
    assert decides["candidate"]["digest"] == candidate
    told = listed(tmp_path).stdout
    assert told.startswith("asks:\n0 of 6 comparisons of initial are labelled;\n")
    assert "\n\ndecides:\n" in told
    assert str(candidate) in told
    assert "ratchet review label asks" in told
    assert "ratchet review approve decides" in told
    assert "ended" not in told
    assert "works" not in told


def test_each_document_is_that_of_its_campaign_alone(halls: dict[str, Hall], tmp_path: Path) -> None:
    for document in json.loads(listed(tmp_path, "--json").stdout):
        name = document.pop("campaign")
        assert json.loads(listed(tmp_path, name, "--json").stdout) == document


def test_a_campaign_that_cannot_be_read_hides_no_other(halls: dict[str, Hall], tmp_path: Path) -> None:
    """One is damaged, and a newer Ratchet wrote another."""
    with named(tmp_path, "broken"), named(tmp_path, "newer") as newer:
        newer.ledger.append("newer", [EventDraft("recast", {}, command_id="recast", author="t")], epoch=None)
        with closing(sqlite3.connect(tmp_path / "ledger.db")) as database, database:
            database.execute("UPDATE campaigns SET head_hash = ? WHERE name = 'broken'", ("0" * 64,))
        found = listed(tmp_path, "--json")
        assert isinstance(found.exception, IntegrityError)
        documents = {document["campaign"]: document for document in json.loads(found.stdout)}
        assert set(documents) == {"asks", "broken", "decides", "newer"}
        assert {name for name, document in documents.items() if "problem" in document} == {"broken", "newer"}
        assert "recast" in documents["newer"]["problem"]
        told = listed(tmp_path)
        assert isinstance(told.exception, IntegrityError)
        assert told.exception.exit_code == 5
        assert "ratchet review label asks" in told.stdout
        assert "ratchet review approve decides" in told.stdout
        assert "\nbroken:\ncannot be read: " in told.stdout
        assert "recast" in told.stdout
        alone = listed(tmp_path, "newer").exception
        assert isinstance(alone, LedgerVersionError)


def test_where_nobody_waits_the_list_is_empty(tmp_path: Path) -> None:
    with named(tmp_path, "works"):
        for home in (tmp_path, tmp_path / "nowhere"):
            assert json.loads(listed(home, "--json").stdout) == []
            assert listed(home).stdout == "nothing waits for people\n"
    assert not (tmp_path / "nowhere").exists()
