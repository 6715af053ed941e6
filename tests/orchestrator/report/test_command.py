"""`ratchet report`: writes the file, prints where, and says what is wrong in a line."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from orchestrator.cli.main import cli
from orchestrator.errors import UnknownCampaignError
from orchestrator.home import Home


def run(home: Home, *arguments: str) -> tuple[int, str, BaseException | None]:
    done = CliRunner().invoke(cli, ["--home", str(home.root), "report", *arguments])
    return done.exit_code, done.stdout, done.exception


def test_it_writes_below_home_unless_told_otherwise(real_home: Home, tmp_path: Path) -> None:
    code, printed, _ = run(real_home, "mini")
    assert (code, printed.strip()) == (0, str(real_home.reports / "mini.html"))
    elsewhere = tmp_path / "new" / "x.html"
    code, printed, _ = run(real_home, "mini", "--out", str(elsewhere), "--json")
    assert (code, json.loads(printed)) == (0, {"report": str(elsewhere)})
    assert elsewhere.read_bytes() == (real_home.reports / "mini.html").read_bytes()


def test_a_campaign_that_is_not_there_has_no_report(real_home: Home, tmp_path: Path) -> None:
    assert isinstance(run(real_home, "other")[2], UnknownCampaignError)
    assert isinstance(run(Home(tmp_path / "empty"), "mini")[2], UnknownCampaignError)
    assert not (tmp_path / "empty").exists()
    assert not (real_home.reports / "other.html").exists()


def test_its_help_has_an_example() -> None:
    assert "ratchet report quickstart" in CliRunner().invoke(cli, ["report", "--help"]).stdout
