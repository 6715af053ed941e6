"""How commands speak: one JSON document on stdout for programs, words for people, untrusted text made visible."""

import getpass
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.core.verification import Verification
from orchestrator.counting import counted
from orchestrator.errors import IntegrityError, RatchetError, UnknownCampaignError
from orchestrator.home import Home
from orchestrator.store.ledger import Ledger
from orchestrator.text import one_line, visible

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")


def person() -> str:
    """Whoever runs this command, as the operating system knows them."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def open_ledger(home: Home) -> Ledger:
    """The ledger of an existing home.

    Raises:
        UnknownCampaignError: nothing was ever started there.
    """
    if not home.exists():
        where = home.root if home.ledger_at is None else home.ledger_at
        raise UnknownCampaignError(f"{where} holds no campaigns; start one, or name another place with --home")
    return home.ledger()


def print_json(document: Any) -> None:
    """NaN and infinity have no place in JSON and become null."""
    click.echo(json.dumps(_finite(document), indent=2, allow_nan=False))


def say(text: str) -> None:
    """A line or more for people, on stderr."""
    click.echo(visible(text), err=True)


def console() -> Console:
    return Console(stderr=True, highlight=False)


@contextmanager
def busy(what: str) -> Iterator[None]:
    """Say that something takes a while: a spinner on a terminal, a line elsewhere."""
    screen = console()
    if screen.is_terminal:
        with screen.status(Text(one_line(what))):
            yield
    else:
        say(what)
        yield


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str | None = None) -> None:
    """Print a table for people on stdout; cells are plain text of one line, whatever they hold. A digest is never
    folded, however narrow the screen."""
    shown = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    holds_digests = [any(_DIGEST.fullmatch(cell_text(row[at])) for row in rows) for at in range(len(columns))]
    for column, whole in zip(columns, holds_digests, strict=True):
        shown.add_column(column, overflow="fold", no_wrap=whole)
    for row in rows:
        shown.add_row(*(Text(one_line(cell_text(cell), 400)) for cell in row))
    width = Console().width if sys.stdout.isatty() else 140
    if any(holds_digests):
        width = max(width, Console(width=10_000).measure(shown).minimum)
    Console(highlight=False, width=width).print(shown)


def framed(text: str) -> str:
    """Untrusted text made visible, behind a bar."""
    return barred(visible(text))


def barred(text: str) -> str:
    """Visible text behind a bar: no line of it, nor one that a terminal would wrap, begins where our own lines do."""
    lines = text.split("\n")
    if sys.stdout.isatty():
        screen = Console()
        lines = [part.plain for line in lines for part in Text(line).wrap(screen, screen.width - 3) or [Text()]]
    return "\n".join(f"│ {line}" for line in lines)


def cell_text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}"
    return str(value)


def report_verification(found: Verification, *, as_json: bool, what: str) -> None:
    """Print what a verification found; problems end the command with exit code 5."""
    problems = [{"where": problem.where, "what": problem.what} for problem in found.problems]
    if as_json:
        print_json({"ok": found.ok, "checked": found.checked, "problems": problems})
    elif found.ok:
        click.echo(f"ok: {counted(found.checked, what)} checked")
    else:
        for problem in found.problems:
            click.echo(visible(f"{problem.where}: {problem.what}"))
    if not found.ok:
        raise IntegrityError(
            f"{counted(len(problems), 'problem')} found; restore from a backup, or go on from an earlier checkpoint"
        )


def require_readable(damaged: Mapping[str, RatchetError]) -> None:
    """End a command that has told of all other campaigns with exit code 5, if there are such."""
    if damaged:
        told = "; ".join(str(error) for error in damaged.values())
        raise IntegrityError(told if len(damaged) == 1 else f"{counted(len(damaged), 'campaign')} damaged: {told}")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
