"""The options of `ratchet` itself, before a command and behind it."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from small_campaigns import CommandLine

from orchestrator.cli.main import cli
from orchestrator.store.ledger import Ledger


@pytest.fixture
def homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Two homes, each of whose ledgers holds one empty campaign, named like its home; the environment names neither."""
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "neither"))
    monkeypatch.delenv("RATCHET_LEDGER", raising=False)
    for name in ("one", "other"):
        with Ledger.open(tmp_path / name / "ledger.db") as ledger:
            ledger.create_campaign(name)
    return str(tmp_path / "one"), str(tmp_path / "other")


def campaigns_told(*words: str) -> str:
    """What `doctor` says of the ledger; it tells of campaigns that have no events yet, too."""
    ended = CliRunner().invoke(cli, words)
    return "".join(line for line in ended.output.splitlines() if "MLflow view of" in line)


def test_the_home_may_stand_before_a_command_and_behind_it(homes: tuple[str, str]) -> None:
    one, other = homes
    assert "view of one" in campaigns_told("--home", one, "doctor")
    assert "view of other" in campaigns_told("doctor", "--home", other)
    assert "view of one" in campaigns_told("--home", one, "doctor", "--home", f"{one}/")
    assert "view of other" in campaigns_told("--ledger", f"{other}/ledger.db", "doctor", "--home", one)
    assert "view of other" in campaigns_told("doctor", "--home", one, "--ledger", f"{other}/ledger.db")


@pytest.mark.parametrize("words", [("campaign", "list", "--home", "{}"), ("campaign", "--home", "{}", "list")])
def test_it_may_stand_behind_a_group_and_behind_what_is_below(tmp_path: Path, words: tuple[str, ...]) -> None:
    given = [word.format(tmp_path / "there") for word in words]
    assert CliRunner().invoke(cli, given).output == f"no campaigns in {tmp_path / 'there'}\n"


def test_two_different_homes_are_refused_and_secrets_stay_unsaid(tmp_path: Path) -> None:
    for words in (
        ("--home", "a", "campaign", "list", "--home", "b"),
        ("campaign", "--home", "a", "list", "--home", "b"),
        ("--ledger", "postgresql://u:secret@h/a", "campaign", "list", "--ledger", "postgresql://u:secret@h/b"),
    ):
        ended = CliRunner().invoke(cli, words)
        assert ended.exit_code == 2
        assert "is given twice, and differently" in ended.output
        assert "secret" not in ended.output


def test_a_wrong_home_behind_a_command_is_refused_as_before_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    before = CliRunner().invoke(cli, ["--home", str(tmp_path / "file"), "campaign", "list"])
    behind = CliRunner().invoke(cli, ["campaign", "list", "--home", str(tmp_path / "file")])
    assert before.exit_code == behind.exit_code == 2
    assert "is a file" in before.output
    assert before.output.splitlines()[-1] == behind.output.splitlines()[-1]


def test_help_of_a_command_names_them_without_repeating_them() -> None:
    told = CliRunner().invoke(cli, ["campaign", "list", "--help"]).output
    assert told.splitlines()[-1].strip() == "--home, --ledger and --debug may stand here too: see `ratchet --help`."
    assert "RATCHET_HOME" not in told
    assert "RATCHET_HOME" in CliRunner().invoke(cli, ["--help"]).output


def test_debug_behind_a_command_shows_where_it_ended(command_line: CommandLine, tmp_path: Path) -> None:
    quiet, told = (command_line(tmp_path, "campaign", "show", "nobody", *more) for more in ((), ("--debug",)))
    assert quiet.code == told.code == 2
    assert "Traceback" not in quiet.stderr
    assert "Traceback" in told.stderr
