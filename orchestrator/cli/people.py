"""`ratchet review invite|login|logout|people|revoke`: who may take part, and how they prove who they are."""

import sys
from datetime import timedelta

import click

from orchestrator.cli.output import json_option, open_ledger, person, print_json, say, table
from orchestrator.cli.signing import TOKEN_VARIABLE, forget, keep, reviewer_option, signed_in
from orchestrator.core.records import Role
from orchestrator.errors import StorageError, UnknownCampaignError, UsageError
from orchestrator.home import Home
from orchestrator.review.identity import Grant
from orchestrator.text import visible

DEFAULT_URL = "http://127.0.0.1:8321"


@click.command()
@click.argument("name")
@click.option(
    "--role",
    "roles",
    type=click.Choice([role.value for role in Role]),
    multiple=True,
    required=True,
    help="What they may do; give it again for more.",
)
@click.option("--campaign", "campaigns", multiple=True, help="Where; every campaign of this ledger unless given.")
@click.option("--token", "as_token", is_flag=True, help="Print a token for a terminal or a program, not a link.")
@click.option("--url", envvar="RATCHET_REVIEW_URL", default=DEFAULT_URL, show_default=True, help="Where the page is.")
@click.option("--days", type=click.IntRange(1, 365), help="How long it is good for: a link 7 days, a token 90.")
@json_option
@click.pass_context
def invite(
    ctx: click.Context,
    name: str,
    roles: tuple[str, ...],
    campaigns: tuple[str, ...],
    as_token: bool,
    url: str,
    days: int | None,
    as_json: bool,
) -> None:
    """Let somebody in: print a link that works once. Nothing of it is kept here but a digest.

    \b
    Example:
      ratchet review invite ana --role labeler
      ratchet review invite bo --role approver --role auditor --campaign mine
    """
    home: Home = ctx.obj
    wanted = tuple(Role(role) for role in roles)
    with open_ledger(home) as ledger:
        if unknown := sorted(set(campaigns) - set(ledger.campaigns())):
            raise UnknownCampaignError(f"there is no campaign {unknown[0]!r}; see `ratchet campaign list`")
        if as_token:
            valid = timedelta(days=days or 90)
            secret, holder = ledger.people.token(name, wanted, campaigns=campaigns, by=person(), valid=valid)
            document = {"person": holder.name, "roles": list(roles), "token": secret}
        else:
            valid = timedelta(days=days or 7)
            invitation = ledger.people.invite(name, wanted, campaigns=campaigns, by=person(), valid=valid)
            secret = invitation.secret
            document = {
                "person": invitation.person_name,
                "roles": list(roles),
                # Behind the #, where no server and no log ever sees it.
                "link": f"{url.rstrip('/')}/join#{secret}",
                "code": secret,
                "expires": invitation.expires.isoformat(),
            }
    if as_json:
        print_json(document)
    elif as_token:
        say(f"a token for {document['person']}, shown this once; they set RATCHET_TOKEN to it:")
        click.echo(secret)
    else:
        say(f"for {document['person']} alone, good for one use within {valid.days} days:")
        click.echo(document["link"])
        say(f"at a terminal: `ratchet review login`, and the code {secret}")


@click.command()
@click.option("--code", envvar="RATCHET_INVITATION", help="The invitation's code; asked for unless given.")
@click.pass_context
def login(ctx: click.Context, code: str | None) -> None:
    """Turn an invitation into a token that this home's terminal commands use.

    \b
    Example:
      ratchet review login
    """
    home: Home = ctx.obj
    if code is None:
        code = click.prompt("invitation code", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline()
    secret = code.strip().rpartition("#")[2]  # a whole link will do
    with open_ledger(home) as ledger:
        token, holder = ledger.people.redeem(secret, kind="token", valid=timedelta(days=90))
    try:
        path = keep(home, holder, token)
    except StorageError:
        say(f"the code is used up, and this token in its place; keep it yourself and set {TOKEN_VARIABLE}:")
        click.echo(token)
        raise
    click.echo(f"you are {holder.name}, {_granted(holder.grants)}; the token is in {path}")


@click.command()
@reviewer_option
@click.pass_context
def logout(ctx: click.Context, reviewer: str | None) -> None:
    """End the token that terminal commands use here, and forget it.

    \b
    Example:
      ratchet review logout
    """
    home: Home = ctx.obj
    with open_ledger(home) as ledger:
        holder = signed_in(home, ledger, reviewer)
        ledger.people.revoke_credential(holder.credential, by=holder.name)
    forget(home, holder.name)
    click.echo(f"{holder.name}'s token {holder.credential} is ended")


@click.command()
@json_option
@click.pass_context
def people(ctx: click.Context, as_json: bool) -> None:
    """List who was let in, what they may do, and what opens the door for them.

    \b
    Example:
      ratchet review people
    """
    with open_ledger(ctx.obj) as ledger:
        known = ledger.people.list()
    if as_json:
        print_json(
            [
                {
                    "name": row.name,
                    "since": row.since.isoformat(),
                    "revoked": row.revoked.isoformat() if row.revoked else None,
                    "grants": [{"role": role, "campaign": campaign} for role, campaign in sorted(row.grants, key=str)],
                    "credentials": [
                        {"id": held.id, "kind": held.kind, "expires": held.expires.isoformat()}
                        for held in row.credentials
                    ],
                }
                for row in known
            ]
        )
        return
    if not known:
        click.echo("nobody was let in yet; see `ratchet review invite --help`")
        return
    rows = [
        (
            row.name,
            "shut out" if row.revoked else _granted(row.grants),
            ", ".join(f"{held.kind} {held.id} until {held.expires:%Y-%m-%d}" for held in row.credentials),
        )
        for row in known
    ]
    table(("who", "may", "holds"), rows)


@click.command()
@click.argument("name", required=False)
@click.option("--credential", metavar="ID", help="One session, token or invitation alone, by its id.")
@click.pass_context
def revoke(ctx: click.Context, name: str | None, credential: str | None) -> None:
    """Shut somebody out at once, or end a single token. What they have said stays on the ledger.

    \b
    Example:
      ratchet review revoke ana
      ratchet review revoke --credential c-1a2b3c4d
    """
    if (name is None) == (credential is None):
        raise UsageError("name a person, or one token with --credential")
    with open_ledger(ctx.obj) as ledger:
        if name is not None:
            ledger.people.revoke(name, by=person())
        else:
            ledger.people.revoke_credential(str(credential), by=person())
    click.echo(visible(f"{name or credential} is revoked"))


def _granted(grants: frozenset[Grant]) -> str:
    """Roles in words, each with the campaigns that it is for."""
    by_role: dict[str, list[str]] = {}
    for role, campaign in sorted(grants, key=str):
        by_role.setdefault(role.value, []).append(campaign or "everywhere")
    return "; ".join(f"{role} {', '.join(places)}" for role, places in by_role.items()) or "nothing"
