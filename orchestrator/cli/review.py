"""`ratchet review`: what waits for people, labelling in the terminal, approving and rejecting."""

import sys
from typing import Any

import click

from orchestrator.cli.output import cell_text, json_option, open_ledger, print_json, say
from orchestrator.core.commands import AskForDecision, AskForLabels
from orchestrator.core.records import Choice, Decision, Harm, Purpose
from orchestrator.core.state import Attempt
from orchestrator.errors import UsageError
from orchestrator.home import Home
from orchestrator.people import Asked, Desk, missing_by_name, same_name
from orchestrator.text import visible

KEYS = {"1": Choice.FIRST, "2": Choice.SECOND, "3": Choice.TIE, "4": Choice.BOTH_BAD, "s": Choice.SKIP}
HARM_KEYS = {"1": Harm.FIRST, "2": Harm.SECOND, "b": Harm.BOTH, "n": None}
KEYS_IN_WORDS = "1 first, 2 second, 3 tie, 4 both bad, s skip, h then 1, 2, b or n flags harm, q quit"
RULE = "─" * 72

reviewer_option = click.option(
    "--reviewer", required=True, metavar="NAME", help="Who says so; recorded on the ledger with every word."
)


@click.group()
def review() -> None:
    """Label comparisons; approve or reject candidates.

    \b
    Example:
      ratchet review list mine
      ratchet review label mine --reviewer ana
    """


@review.command(name="list")
@click.argument("name")
@json_option
@click.pass_context
def list_waiting(ctx: click.Context, name: str, as_json: bool) -> None:
    """List what waits for people: comparisons to label, a candidate to approve.

    \b
    Example:
      ratchet review list mine --json
    """
    with open_ledger(ctx.obj) as ledger:
        desk = Desk(ledger, name, "")
        command, settings = desk.command(), desk.settings()
    waiting: dict[str, Any] = {"comparisons": None, "candidate": None}
    match command:
        case AskForLabels(batch, settled, wanted):
            waiting["comparisons"] = {
                "kind": "audit" if batch.purpose is Purpose.AUDIT else "comparisons",
                "queue": batch.purpose.value,
                "batch": batch.id,
                "wanted": wanted,
                "settled": settled,
                "missing_by_name": missing_by_name(command, settings),
            }
        case AskForDecision(attempt, approvals, approvers):
            waiting["candidate"] = {**_candidate(attempt), "approvals": approvals, "approvers": approvers}
    if as_json:
        print_json(waiting)
    elif isinstance(command, AskForLabels):
        _print_queue(command, missing_by_name(command, settings))
        click.echo(f"go on with: ratchet review label {name} --reviewer YOU")
    elif isinstance(command, AskForDecision):
        _print_candidate(command.attempt, f"{command.approvals} of {command.approvers} approvals")
    else:
        click.echo("nothing waits for people")


@review.command()
@click.argument("name")
@reviewer_option
@click.pass_context
def label(ctx: click.Context, name: str, reviewer: str) -> None:
    """Label comparisons in the terminal: one key each. Nobody is told which response is the candidate's.

    Before the verdict, h and then 1, 2 or b flags the first, the second or both responses as harmful; n takes it back.
    Where an audit by people waits, this labels it; whoever labelled the comparisons may not audit them.

    \b
    Example:
      ratchet review label mine --reviewer ana
    """
    home: Home = ctx.obj
    with open_ledger(home) as ledger:
        desk = Desk(ledger, name, same_name(reviewer))
        said = 0
        while (asked := desk.asked()) is not None:
            if said == 0:
                say(f"{name}: {KEYS_IN_WORDS}")
            _print_comparison(home, asked)
            verdict = _ask()
            if verdict is None:
                break
            try:
                desk.label(asked.batch, asked.item, *verdict)
            except UsageError as error:
                say(str(error))
                continue
            said += 1
        done = desk.open_batch() is None
        refusal = desk.refusal()
    if refusal is not None and not said:
        raise UsageError(refusal)
    if not said and done:
        say(f"{name} asks for no labels now; see: ratchet campaign show {name}")
        return
    say(f"recorded {said} labels of {reviewer}")
    if refusal is not None:
        say(refusal)
    if done:
        say(f"no more labels are wanted now; go on with: ratchet campaign resume {name}")
    elif asked is None and refusal is None:
        say(f"what still waits is for others; see: ratchet review list {name}")


@review.command()
@click.argument("name")
@reviewer_option
@click.option("--reason", required=True, help="Why; recorded on the ledger.")
@click.option("--candidate", metavar="DIGEST", help="The candidate's digest, or its first 8 digits or more.")
@click.pass_context
def approve(ctx: click.Context, name: str, reviewer: str, reason: str, candidate: str | None) -> None:
    """Approve the candidate that waits. The decision binds its digest.

    \b
    Example:
      ratchet review approve mine --reviewer ana --reason "reads well" --candidate 1a2b3c4d
    """
    _decide(ctx, name, reviewer, reason, candidate, Decision.APPROVE)


@review.command()
@click.argument("name")
@reviewer_option
@click.option("--reason", required=True, help="Why; recorded on the ledger.")
@click.option("--candidate", metavar="DIGEST", help="The candidate's digest, or its first 8 digits or more.")
@click.pass_context
def reject(ctx: click.Context, name: str, reviewer: str, reason: str, candidate: str | None) -> None:
    """Reject the candidate that waits: it is quarantined and the stage rolls back.

    \b
    Example:
      ratchet review reject mine --reviewer ana --reason "evades the question" --candidate 1a2b3c4d
    """
    _decide(ctx, name, reviewer, reason, candidate, Decision.REJECT)


def _decide(
    ctx: click.Context, name: str, reviewer: str, reason: str, candidate: str | None, decision: Decision
) -> None:
    with open_ledger(ctx.obj) as ledger:
        desk = Desk(ledger, name, same_name(reviewer))
        if candidate is None:
            candidate = _confirm(desk, decision)
        digest = desk.decide(decision, candidate, reason)
    past = "approved" if decision is Decision.APPROVE else "rejected"
    click.echo(f"{past} {digest}; go on with: ratchet campaign resume {name}")


def _confirm(desk: Desk, decision: Decision) -> str:
    """Show the candidate and have its digest repeated; only a terminal may confirm instead of naming it."""
    attempt = desk.candidate()
    if attempt is None or not sys.stdin.isatty():
        if attempt is not None:
            raise UsageError(f"name the candidate: --candidate {attempt.candidate}")
        return ""
    _print_candidate(attempt, "")
    return str(click.prompt(f"to {decision.value} it, repeat the first 8 digits of its digest")).strip()


def _ask() -> tuple[Choice, Harm | None] | None:
    """A verdict and what is flagged as harmful; None where nobody answers any more."""
    harm = None
    while (key := _key()) not in ("q", "\x03", "\x04"):
        if key in KEYS:
            click.echo(KEYS[key].value)
            return KEYS[key], harm
        if key == "h" and (flag := _key()) in HARM_KEYS:
            harm = HARM_KEYS[flag]
            click.echo(f"harmful: {harm.value if harm is not None else 'neither'}")
        else:
            say(KEYS_IN_WORDS)
    return None


def _key() -> str:
    return click.getchar() if sys.stdin.isatty() else (sys.stdin.readline()[:1] or "q")


def _print_comparison(home: Home, asked: Asked) -> None:
    """A check item looks like any other, its number too."""
    rows = home.artifacts().read_lines(asked.batch.comparisons)
    row = next(row for row in rows if row["item"] == asked.item)
    click.echo(f"\n{RULE}\nyour comparison {asked.number}\n{visible(str(row['prompt']))}")
    click.echo(f"\n[1]  {visible(str(row['response_1']))}\n\n[2]  {visible(str(row['response_2']))}\n")


def _print_queue(ask: AskForLabels, missing: dict[str, int]) -> None:
    count = f"{ask.settled} of {ask.wanted} comparisons of {ask.batch.id}"
    if ask.batch.purpose is Purpose.AUDIT:
        click.echo(f"{count} are audited, by people who labelled none of this gate;")
    else:
        click.echo(f"{count} are labelled;")
    if missing:
        click.echo(f"missing from {', '.join(f'{visible(rater)}: {count}' for rater, count in missing.items())};")


def _candidate(attempt: Attempt) -> dict[str, Any]:
    verdict = attempt.verdict
    return {
        "digest": attempt.candidate,
        "stage": attempt.stage,
        "attempt": attempt.attempt,
        "win_rate": verdict.win_rate if verdict else None,
        "win_rate_low": verdict.win_rate_low if verdict else None,
        "over_promise": verdict.over_promise if verdict else None,
        "over_promise_high": verdict.over_promise_high if verdict else None,
        "kl_nats": attempt.kl_nats,
        "reasons": list(verdict.reasons) if verdict else [],
    }


def _print_candidate(attempt: Attempt, note: str) -> None:
    for key, value in _candidate(attempt).items():
        click.echo(f"{key:>18}  {'; '.join(value) if isinstance(value, list) else cell_text(value)}")
    if note:
        click.echo(f"{'approvals':>18}  {note}")
