"""Deciding at a real terminal: the case is read, the digest is repeated, and only who may still decide does."""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest
from desks import all_of, let_in
from hall import Hall
from small_campaigns import for_the_candidate

from orchestrator.core.commands import AskForDecision
from orchestrator.home import Home


class Approving:
    """`ratchet review approve`, 80 columns wide."""

    def __init__(self, home: Path) -> None:
        self.terminal, held = pty.openpty()
        command = [sys.executable, "-m", "orchestrator.cli.main", "--home", str(home)]
        self._process = subprocess.Popen(
            [*command, "review", "approve", "small", "--reviewer", "bob", "--reason", "it reads well"],
            stdin=held,
            stdout=held,
            stderr=held,
            env={**os.environ, "COLUMNS": "80"},
        )
        os.close(held)
        self.printed = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self.terminal)

    def until(self, words: str) -> None:
        while words not in self.printed:
            self.printed += os.read(self.terminal, 65536).decode()

    def answer(self, words: str) -> int:
        os.write(self.terminal, f"{words}\n".encode())
        with suppress(OSError):  # a terminal that nobody holds any more
            while more := os.read(self.terminal, 65536):
                self.printed += more.decode()
        return self._process.wait()


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[tuple[Hall, str]]:
    """A campaign whose candidate waits for bob, whose token lies in the home."""
    with Hall(str(tmp_path / "ledger.db"), tmp_path, approval={"by": "person"}) as hall:
        while not isinstance(command := hall.go_on(), AskForDecision):
            all_of(hall.desk("ann"), for_the_candidate)
        let_in(Home(tmp_path), "bob")
        yield hall, str(command.attempt.candidate)


def test_the_case_stands_above_the_question(waiting: tuple[Hall, str], tmp_path: Path) -> None:
    hall, candidate = waiting
    with Approving(tmp_path) as approving:
        approving.until("repeat the first 8 digits of its digest")
        lines = approving.printed.splitlines()
        assert lines[0].split() == ["candidate", candidate]
        names = {line[:30].strip() for line in lines if line[30:32] == "  "}
        assert {"stands", "gate", "warning", "win rate against approved", "error budget", "approvals"} <= names
        assert [line for line in lines if len(line) > 80 and not re.search(r"  [0-9a-f]{64}$", line)] == []
        assert not hall.state.attempts[-1].decisions
        assert approving.answer(candidate[:8]) == 0, approving.printed
    assert [(made.reviewer, made.reason) for made in hall.state.attempts[-1].decisions] == [("bob", "it reads well")]


def test_who_is_shut_out_while_reading_decides_nothing(waiting: tuple[Hall, str], tmp_path: Path) -> None:
    hall, candidate = waiting
    with Approving(tmp_path) as approving:
        approving.until("repeat the first 8 digits of its digest")
        hall.ledger.people.revoke("bob", by="tester")
        assert approving.answer(candidate[:8]) == 1
    assert "this token was revoked" in approving.printed
    assert not hall.state.attempts[-1].decisions
