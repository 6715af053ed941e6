"""`ratchet doctor`: what works on this machine, what does not and why."""

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import click

from orchestrator.cli.output import json_option, print_json
from orchestrator.counting import counted
from orchestrator.errors import LedgerCorruptError, RatchetError, StorageError
from orchestrator.home import Home
from orchestrator.text import one_line

PACKAGES: Final = ("torch", "transformers", "ray", "mlflow", "sqlalchemy", "safetensors")


@click.command()
@json_option
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Check packages, devices, home, disk, the database, the ledgers of this home and MLflow's view of them.

    \b
    Example:
      ratchet doctor
    """
    findings = list(_examine(ctx.obj))
    if as_json:
        print_json(findings)
    else:
        for finding in findings:
            how = "ok" if finding["ok"] else "NOT OK"
            click.echo(f"{how:>6}  {one_line(finding['what']):<28} {one_line(finding['detail'])}")
    ctx.exit(0 if all(finding["ok"] for finding in findings) else 1)


def _examine(home: Home) -> Iterator[dict[str, Any]]:
    from orchestrator.assembly import accelerator

    yield _finding("python", True, platform.python_version())
    for package in PACKAGES:
        try:
            yield _finding(package, True, version(package))
        except PackageNotFoundError:
            yield _finding(package, False, "not installed; pip install ratchet-rlhf brings it")
    yield _finding("accelerator", True, accelerator())
    yield _checked("home", lambda: _home(home))
    yield _checked("disk", lambda: _disk(home))
    campaigns: list[str] = []
    yield _checked("ledger", lambda: _ledger(home, campaigns))
    for name in campaigns:
        yield _checked(f"ledger of {name}", partial(_history, home, name))
        yield _checked(f"MLflow view of {name}", partial(_drift, home, name))


def _home(home: Home) -> str:
    place = _existing(home.root)
    if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
        raise StorageError(f"{place} cannot be written to: nothing can be run there; choose another place with --home")
    return str(home.root.absolute())


def _disk(home: Home) -> str:
    from orchestrator.assembly import require_room

    require_room(home.root)
    return f"{shutil.disk_usage(_existing(home.root)).free / 1024**3:.1f} GiB free"


def _existing(place: Path) -> Path:
    """The place itself, or the nearest folder above it that is there already."""
    return next(parent for parent in (place, *place.absolute().parents) if parent.exists())


def _ledger(home: Home, campaigns: list[str]) -> str:
    """Fills `campaigns` with the names that the ledger knows."""
    if not home.exists():
        return f"none yet; the first campaign makes {home.database}"
    with home.ledger() as ledger:
        campaigns += ledger.campaigns()
        return f"{ledger.name} answers, campaigns: {len(campaigns)}"


def _history(home: Home, campaign: str) -> str:
    from orchestrator.runner import read_state_at

    with home.ledger() as ledger:
        found = ledger.verify(campaign)
        if not found.ok:
            raise LedgerCorruptError(f"{found.problems[0].where}: {found.problems[0].what}")
        read_state_at(ledger, campaign)
    return counted(found.checked, "event")


def _drift(home: Home, campaign: str) -> str:
    from orchestrator.campaigns import tracker_for
    from orchestrator.runner import read_settings

    with home.ledger() as ledger:
        if ledger.head(campaign).seq < 0:
            return "nothing to show yet"
        tracker = tracker_for(read_settings(ledger, campaign), ledger, home)
        problems = tracker.drift(campaign)
    if problems:
        raise RatchetError(f"{problems[0].where}: {problems[0].what}; repair with `ratchet campaign track {campaign}`")
    return "agrees with the ledger"


def _checked(what: str, check: Callable[[], str]) -> dict[str, Any]:
    try:
        return _finding(what, True, check())
    except RatchetError as error:
        return _finding(what, False, str(error))
    except Exception as error:  # whatever a check stumbles over is a finding: the other checks are still wanted
        return _finding(what, False, f"{type(error).__name__}: {error}")


def _finding(what: str, ok: bool, detail: str) -> dict[str, Any]:
    return {"what": what, "ok": ok, "detail": detail}
