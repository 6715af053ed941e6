"""Who speaks at a terminal: the holder of a token, the same kind as the page's and never a typed name.

Looked for in this order: RATCHET_TOKEN; the token that `ratchet review login` kept in the home. At a home where nobody
was ever let in, and whose ledger is a file there, the first name given becomes its first person: whoever may write the
ledger's file could let themselves in anyway.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

import click

from orchestrator.cli.output import say
from orchestrator.core.records import Role
from orchestrator.errors import ForbiddenError, StorageError, UnauthenticatedError, UsageError
from orchestrator.home import Home
from orchestrator.review.identity import Person
from orchestrator.review.names import person_name, same_name
from orchestrator.store.ledger import Ledger

TOKEN_VARIABLE: Final = "RATCHET_TOKEN"
SUFFIX: Final = ".token"

reviewer_option: Callable[[Any], Any] = click.option(
    "--reviewer", metavar="NAME", help="Whose token of this home to use, where it keeps several."
)


def signed_in(home: Home, ledger: Ledger, reviewer: str | None) -> Person:
    """Whoever holds the token that is in use here.

    Raises:
        UnauthenticatedError: there is no token, or it opens nothing any more.
        ForbiddenError: the token is another person's than the one named.
    """
    wanted = same_name(reviewer) if reviewer is not None else None
    secret = os.environ.get(TOKEN_VARIABLE, "").strip() or _kept(home, wanted)
    if secret is None:
        return _first_person(home, ledger, wanted)
    person = ledger.people.authenticate(secret)
    if wanted not in (None, person.name):
        raise ForbiddenError(f"the token in use is {person.name}'s, not {wanted}'s; nobody speaks for others")
    return person


def keep(home: Home, person: Person, secret: str) -> Path:
    """Keep a token for later commands, readable by this user alone.

    Raises:
        StorageError: the home cannot be written to.
    """
    path = _file(home, person.name)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secret)
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}; set {TOKEN_VARIABLE} instead") from error
    return path


def forget(home: Home, name: str) -> None:
    _file(home, name).unlink(missing_ok=True)


def _file(home: Home, name: str) -> Path:
    # Names may hold what file names may not, and more of it.
    readable = quote(name, safe="")[:100]
    return home.tokens / f"{readable}.{hashlib.sha256(name.encode()).hexdigest()[:8]}{SUFFIX}"


def _kept(home: Home, name: str | None) -> str | None:
    if name is not None:
        files = [_file(home, name)]
    else:
        files = sorted(home.tokens.glob(f"*{SUFFIX}"))
        if len(files) > 1:
            names = ", ".join(unquote(file.name.split(".", 1)[0], errors="replace") for file in files)
            raise UsageError(f"this home keeps tokens of {names}; say which with --reviewer, or set {TOKEN_VARIABLE}")
    try:
        return files[0].read_text().strip() if files else None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"{files[0]}: {error.strerror}; set {TOKEN_VARIABLE} instead") from error


def _first_person(home: Home, ledger: Ledger, name: str | None) -> Person:
    alone = ledger.is_local and not ledger.people.any()
    if name is None and alone:
        raise UnauthenticatedError("nobody was let in here yet: say who you are with --reviewer NAME", why="unknown")
    who = name or "NAME"
    if name is None or not alone:
        raise UnauthenticatedError(
            f"nothing shows who you are: have somebody run `ratchet review invite '{who}' --role labeler`, "
            f"then `ratchet review login`, or set {TOKEN_VARIABLE}",
            why="unknown",
        )
    secret, person = ledger.people.token(person_name(name), tuple(Role), by=person_name(name), alone=True)
    path = keep(home, person, secret)
    say(f"{name} is the first person of this home and may do everything here; the token is in {path}")
    say("let others in with: ratchet review invite NAME --role labeler|approver|auditor")
    return person
