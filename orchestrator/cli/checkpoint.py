"""`ratchet checkpoint`: the checkpoints of a campaign, and where they came from."""

from pathlib import Path
from typing import Any

import click
from rich.progress import track

from orchestrator import lineage
from orchestrator.artifacts import whose
from orchestrator.cli.output import console, json_option, open_ledger, print_json, report_verification, table
from orchestrator.core.state import CampaignState
from orchestrator.core.verification import Problem, Verification
from orchestrator.counting import counted
from orchestrator.disk import copy_folder
from orchestrator.errors import UsageError
from orchestrator.home import Home
from orchestrator.runner import read_settings, read_state_at
from orchestrator.text import one_line


@click.group()
def checkpoint() -> None:
    """List, show, verify, export and collect checkpoints.

    \b
    Example:
      ratchet checkpoint list quickstart
    """


@checkpoint.command(name="list")
@click.argument("name")
@json_option
@click.pass_context
def list_checkpoints(ctx: click.Context, name: str, as_json: bool) -> None:
    """List a campaign's checkpoints: the base, the approved ones, the quarantined ones.

    \b
    Example:
      ratchet checkpoint list quickstart
    """
    with open_ledger(ctx.obj) as ledger:
        rows = list(lineage.checkpoints(read_state_at(ledger, name)[0]))
    if as_json:
        print_json(rows)
    else:
        columns = ["digest", "standing", "stage", "attempt", "parent"]
        table(columns, [[row[column] for column in columns] for row in rows])


@checkpoint.command()
@click.argument("name")
@click.argument("digest", required=False)
@json_option
@click.pass_context
def show(ctx: click.Context, name: str, digest: str | None, as_json: bool) -> None:
    """Trace a checkpoint (default: the approved one) to its parent, reward model, labels, verdict and decisions.

    \b
    Example:
      ratchet checkpoint show quickstart --json
    """
    with open_ledger(ctx.obj) as ledger:
        state, _ = read_state_at(ledger, name)
        steps = lineage.trace(state, _resolve(state, digest))
    if as_json:
        print_json(steps)
        return
    for step in steps:
        click.echo(f"{step['digest']}  {step['standing']}")
        for key in ("parent", "reward_model", "label_set", "labels", "verdict"):
            if step[key] is not None:
                click.echo(one_line(f"    {key}: {step[key]}"))
        for reason in step["reasons"] or ():
            click.echo(one_line(f"    reason: {reason}"))
        for key, words in _approval_told(step).items():
            if words:
                click.echo(one_line(f"    {key}: {words}"))


def _approval_told(step: dict[str, Any]) -> dict[str, str]:
    """What a verdict rested on and who decided, in a line each."""
    audit = step["audit"]
    return {
        "tests": ", ".join(
            f"{test['name']} {'passed' if test['passed'] else 'not passed'}" for test in step["tests"] or ()
        ),
        "queues": ", ".join(
            f"{queue['purpose']} {queue['labels']}/{queue['sealed']}" for queue in step["queues"] or ()
        ),
        "audit": f"{counted(audit['labels'], 'item')} by {audit['evaluator']}" if audit is not None else "",
        "causes of over-credit": ", ".join(step["causes"] or ()),
        "decisions": "; ".join(
            f"{made['decision']} by {made['reviewer']}{': ' + made['reason'] if made['reason'] else ''}"
            for made in step["decisions"] or ()
        ),
    }


@checkpoint.command()
@click.argument("name")
@json_option
@click.pass_context
def verify(ctx: click.Context, name: str, as_json: bool) -> None:
    """Read every byte of every artifact that the ledger names. Exit code 5 where something is wrong.

    \b
    Example:
      ratchet checkpoint verify quickstart --json
    """
    home: Home = ctx.obj
    with open_ledger(home) as ledger:
        digests = sorted(lineage.referenced(read_state_at(ledger, name)[0]))
    artifacts = home.artifacts()
    checked, problems = 0, []
    for digest in track(digests, description="verifying", console=console(), transient=True):
        found = artifacts.verify(digest)
        checked += found.checked
        problems += [Problem(f"{digest[:12]} {problem.where}", problem.what) for problem in found.problems]
    report_verification(Verification(checked, tuple(problems)), as_json=as_json, what="file")


@checkpoint.command()
@click.argument("name")
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--digest", help="Which checkpoint; default: the approved one.")
@click.pass_context
def export(ctx: click.Context, name: str, target: Path, digest: str | None) -> None:
    """Copy a checkpoint to TARGET, an ordinary Hugging Face folder.

    \b
    Example:
      ratchet checkpoint export quickstart ./approved-model
    """
    home: Home = ctx.obj
    with open_ledger(home) as ledger:
        chosen = _resolve(read_state_at(ledger, name)[0], digest)
    if target.exists():
        raise UsageError(f"{target} exists already; choose another place")
    with whose(name):
        source = home.artifacts().open(chosen)
    try:
        copy_folder(source, target)
    except FileExistsError as error:
        raise UsageError(f"{target} exists already; choose another place") from error
    click.echo(f"exported {chosen} to {target}")


@checkpoint.command()
@click.argument("name", required=False)
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.pass_context
def gc(ctx: click.Context, name: str | None, dry_run: bool) -> None:
    """Remove artifacts that no campaign of this home names, and what killed processes left behind.

    Campaigns share artifacts, so it is always the whole home that is looked through; a NAME must be one of its
    campaigns.

    \b
    Example:
      ratchet checkpoint gc --dry-run
    """
    home: Home = ctx.obj
    with open_ledger(home) as ledger:
        if name is not None:
            read_settings(ledger, name)
        keep: set[str] = set()
        for each in ledger.campaigns():
            keep |= lineage.referenced(read_state_at(ledger, each)[0])
    artifacts = home.artifacts()
    if dry_run:
        loose = len(set(artifacts.digests()) - keep)
        click.echo(f"{counted(loose, 'artifact is', 'artifacts are')} named by no campaign")
        return
    stale = artifacts.collect_temporary()
    removed = artifacts.gc(keep)
    gone = f"{counted(len(removed), 'artifact')} and {counted(stale, 'temporary folder')}"
    click.echo(f"removed {gone}; {counted(len(keep), 'artifact is', 'artifacts are')} in use")


def _resolve(state: CampaignState, digest: str | None) -> str:
    if digest is None:
        if state.approved is None:
            raise UsageError("there is no approved checkpoint yet")
        return state.approved
    found = {row["digest"] for row in lineage.checkpoints(state) if row["digest"].startswith(digest.lower())}
    if len(found) != 1:
        raise UsageError(f"{digest!r} names {len(found)} checkpoints; see `ratchet checkpoint list`")
    return str(found.pop())
