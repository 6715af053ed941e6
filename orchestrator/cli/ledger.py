"""`ratchet ledger`: the chain of events itself."""

import json

import click

from orchestrator.cli.output import json_option, open_ledger, print_json, report_verification, table
from orchestrator.core.envelope import Head, StoredEvent, to_row
from orchestrator.core.events import Event
from orchestrator.core.state import CampaignState
from orchestrator.core.verification import Problem, Verification
from orchestrator.core.vouching import unvouched
from orchestrator.errors import LedgerCorruptError, LedgerVersionError, UsageError
from orchestrator.runner import fold_stored
from orchestrator.store.ledger import Ledger


@click.group()
def ledger() -> None:
    """Show, verify and export a campaign's ledger.

    \b
    Example:
      ratchet ledger verify quickstart
    """


@ledger.command()
@click.argument("name")
@json_option
@click.pass_context
def show(ctx: click.Context, name: str, as_json: bool) -> None:
    """Show every event: when, who, what.

    \b
    Example:
      ratchet ledger show quickstart
    """
    with open_ledger(ctx.obj) as opened:
        events = opened.events(name)
    if as_json:
        print_json([_document(event) for event in events])
        return
    rows = [(e.seq, f"{e.time:%Y-%m-%d %H:%M:%S}", e.author, e.type, e.command_id, e.hash[:12]) for e in events]
    table(["seq", "time (UTC)", "author", "event", "command", "hash"], rows)


@ledger.command()
@click.argument("name")
@click.option("--anchor", metavar="SEQ:HASH", help="A head noted elsewhere earlier; without one a cut tail is unseen.")
@json_option
@click.pass_context
def verify(ctx: click.Context, name: str, anchor: str | None, as_json: bool) -> None:
    """Recompute the hash chain, fold the history by the rules, and hold people's words against the register of people.

    Exit code 5 where something is wrong.

    \b
    Example:
      ratchet ledger verify quickstart --json
    """
    with open_ledger(ctx.obj) as opened:
        found = opened.verify(name, _anchor(anchor))
        if found.ok:
            found = Verification(found.checked, problems_of_history(opened, name))
    report_verification(found, as_json=as_json, what="event")


@ledger.command()
@click.argument("name")
@click.pass_context
def export(ctx: click.Context, name: str) -> None:
    """Write every event as a JSON line to stdout; texts and tensors stay in the artifacts.

    \b
    Example:
      ratchet ledger export quickstart > quickstart.jsonl
    """
    with open_ledger(ctx.obj) as opened:
        for event in opened.events(name):
            click.echo(json.dumps(to_row(event), sort_keys=True))


def problems_of_history(ledger: Ledger, name: str) -> tuple[Problem, ...]:
    """What is wrong with a history whose chain is whole."""
    events: list[Event] = []
    try:
        state, _ = fold_stored(
            ledger, name, CampaignState(), after_seq=-1, on_event=lambda event, _: events.append(event)
        )
    except (LedgerCorruptError, LedgerVersionError) as error:
        return (Problem("history", str(error)),)
    # Read behind the events: whoever spoke was let in before.
    return unvouched(name, events, state, ledger.people.register())


def _document(event: StoredEvent) -> dict[str, object]:
    return {**to_row(event), "body": event.body}


def _anchor(text: str | None) -> Head | None:
    if text is None:
        return None
    seq, _, digest = text.partition(":")
    if not seq.isdigit() or len(digest) != 64:
        raise UsageError(f"--anchor {text!r}: expected SEQ:HASH, as `ratchet ledger show --json` prints them")
    return Head(int(seq), digest)
