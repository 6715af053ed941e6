"""What every command prints with: untrusted text in lines, tables, bars, logs and complaints, on any terminal."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hostile_texts import ATTACKS, OBEYED
from rich.console import Console
from small_campaigns import CommandLine

from orchestrator.cli.output import framed, say, table
from orchestrator.cli.screen import Screen

SMALL = {name: attack.text for name, attack in ATTACKS.items() if len(attack.text) < 10_000}


@pytest.mark.parametrize("name", SMALL)
def test_a_bar_of_progress_shows_what_a_worker_says(name: str) -> None:
    drawn = io.StringIO()
    with Screen(Console(file=drawn, force_terminal=True, width=120)) as screen:
        watcher = screen.watcher("small")
        assert watcher.on_progress is not None
        watcher.on_progress(1, 2, SMALL[name])
    # The bar itself is drawn with escape sequences, which begin with ESC and [; nothing else that is obeyed is there.
    text = drawn.getvalue()
    assert not set(text) & (set(OBEYED) - {"\x1b", "\r"})
    assert "\x1b]" not in text


def test_markup_in_a_bar_is_text() -> None:
    drawn = io.StringIO()
    with Screen(Console(file=drawn, force_terminal=True, width=120, color_system=None)) as screen:
        watcher = screen.watcher("small")
        assert watcher.on_progress is not None
        watcher.on_progress(1, 2, "[/] [bold]x[/bold]\nforged")
    assert "[/] [bold]x[/bold]\\nforged" in drawn.getvalue()


def test_a_cell_is_one_line_and_a_line_is_visible(capsys: pytest.CaptureFixture[str]) -> None:
    table(["rater", "labels"], [["ann\nbob  9999\x1b[31m", 1]])
    say("waits for \u202e[bold]x")
    shown = capsys.readouterr()
    assert [line.split("  ")[0] for line in shown.out.splitlines()] == ["rater", "ann\\nbob"]
    assert "\\x1b[31m" in shown.out
    assert shown.err == "waits for \\u202e[bold]x\n"


def test_no_line_of_a_response_begins_where_ours_do() -> None:
    assert framed("one\n\n[2]  two\r[2]") == "│ one\n│ \n│ [2]  two\\x0d[2]"
    assert framed("") == "│ "


LOGGED = """
import logging
from orchestrator.cli.main import cli
try:
    cli.main(["ledger", "show", "none"], standalone_mode=False)
except Exception:
    logging.getLogger("orchestrator.runner").warning("failed (%s); trying again", "\\x1b[2J\\nERROR forged\\u202e")
"""


def test_the_log_of_a_command_is_lines_of_its_own(tmp_path: Path) -> None:
    environment = {**os.environ, "RATCHET_HOME": str(tmp_path / "home")}
    ended = subprocess.run([sys.executable, "-c", LOGGED], env=environment, capture_output=True, text=True, check=True)
    assert ended.stderr == "WARNING failed (\\x1b[2J\\nERROR forged\\u202e); trying again\n"


@pytest.mark.parametrize(
    "words",
    [("--\x1b[31m",), ("campaign", "show", "\x1b[31m"), ("--debug", "campaign", "show", "\x1b[31m\u202e"), ("\x1b",)],
)
def test_complaints_quote_what_was_typed(words: tuple[str, ...], command_line: CommandLine, tmp_path: Path) -> None:
    ended = command_line(tmp_path, *words)
    assert ended.code != 0
    assert not set(ended.stdout + ended.stderr) & set(OBEYED)
    assert ended.stderr
