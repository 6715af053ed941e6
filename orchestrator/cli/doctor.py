"""`ratchet doctor`: what works on this machine, what does not and why."""

import platform
import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import click

from orchestrator.cli.output import json_option, print_json
from orchestrator.errors import RatchetError
from orchestrator.home import Home
from orchestrator.text import visible

PACKAGES: Final = ("torch", "transformers", "ray", "mlflow", "sqlalchemy", "safetensors")


@click.command()
@json_option
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Check packages, devices, disk, the database, the ledgers of this home and MLflow's view of them.

    \b
    Example:
      ratchet doctor
    """
    findings = list(_examine(ctx.obj))
    if as_json:
        print_json(findings)
    else:
        for finding in findings:
            click.echo(f"{'ok' if finding['ok'] else 'NOT OK':>6}  {finding['what']:<28} {visible(finding['detail'])}")
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
    yield _checked("disk", lambda: _disk(home))
    answers = _checked("ledger", lambda: _ledger(home))
    yield answers
    if answers["ok"] and home.exists():
        with home.ledger() as ledger:
            for name in ledger.campaigns():
                found = ledger.verify(name)
                detail = (
                    f"{found.checked} events" if found.ok else f"{found.problems[0].where}: {found.problems[0].what}"
                )
                yield _finding(f"ledger of {name}", found.ok, detail)
                yield _checked(f"MLflow view of {name}", lambda name=name: _drift(home, name))  # type: ignore[misc]


def _ledger(home: Home) -> str:
    if not home.exists():
        return f"none yet; the first campaign makes {home.database}"
    with home.ledger() as ledger:
        return f"{ledger.name} answers, campaigns: {len(ledger.campaigns())}"


def _disk(home: Home) -> str:
    from orchestrator.assembly import require_room

    require_room(home.root)
    place = next(parent for parent in (home.root, *home.root.absolute().parents) if parent.exists())
    return f"{shutil.disk_usage(place).free / 1024**3:.1f} GiB free"


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


def _finding(what: str, ok: bool, detail: str) -> dict[str, Any]:
    return {"what": what, "ok": ok, "detail": detail}
