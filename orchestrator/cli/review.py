"""`ratchet review`: what waits for people, labelling in the terminal, approving and rejecting."""

import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from orchestrator.cli import people, serve
from orchestrator.cli.output import barred, framed, json_option, open_ledger, print_json, require_readable, say
from orchestrator.cli.signing import reviewer_option, signed_in
from orchestrator.core.commands import AskForDecision, AskForLabels, Command
from orchestrator.core.records import Choice, Decision, Harm, Purpose
from orchestrator.core.settings import CampaignSettings
from orchestrator.core.state import Attempt
from orchestrator.counting import counted
from orchestrator.differences import of as differences_of
from orchestrator.errors import IntegrityError, LedgerVersionError, RatchetError, UsageError
from orchestrator.home import Home
from orchestrator.review.asking import labelled, missing_by_name
from orchestrator.review.case import Case, case_in_short, case_of
from orchestrator.review.desk import Asked, Desk, Standing
from orchestrator.review.identity import Person
from orchestrator.review.office import Office
from orchestrator.store.ledger import Ledger
from orchestrator.text import one_line, visible

KEYS = {"1": Choice.FIRST, "2": Choice.SECOND, "3": Choice.TIE, "4": Choice.BOTH_BAD, "s": Choice.SKIP}
HARM_KEYS = {"1": Harm.FIRST, "2": Harm.SECOND, "b": Harm.BOTH, "n": None}
KEYS_IN_WORDS = (
    "1 first, 2 second, 3 tie, 4 both bad, s skip, u undo, d differences, g guidelines, "
    "h then 1, 2, b or n flags harm, q quit"
)
STANDINGS = {
    Standing.AGAIN: "recorded before",
    Standing.EXTRA: "recorded; others had labelled it meanwhile",
    Standing.LATE: "recorded, too late to count: the campaign has gone on",
    Standing.UNDONE: "taken back",
    Standing.TOO_LATE: "your regret is recorded; the word was final already and stands",
}
RULE = "─" * 72
NOTHING_WAITS = "nothing waits for people"
CASE_NAMES = 30
"""Columns for the names of a case's rows."""


@click.group()
def review() -> None:
    """Label comparisons; approve or reject candidates.

    \b
    Example:
      ratchet review list mine
      ratchet review label mine
    """


@review.command(name="list")
@click.argument("name", required=False)
@json_option
@click.pass_context
def list_waiting(ctx: click.Context, name: str | None, as_json: bool) -> None:
    """List what waits for people: comparisons to label, a candidate to approve.

    With a NAME, what waits in this campaign: {comparisons, candidate}, either null. Without one, what waits in all
    campaigns of the home: a list of {campaign, comparisons, candidate}, of those only that wait; and of those that
    cannot be read, with a `problem`, for which the exit code is 5.

    \b
    Example:
      ratchet review list
      ratchet review list mine --json
    """
    home: Home = ctx.obj
    waits: list[tuple[str, Command, CampaignSettings]] = []
    cases: dict[str, Case] = {}
    damaged: dict[str, RatchetError] = {}
    if name is not None or home.exists():
        with open_ledger(home) as ledger:
            for one in ledger.campaigns() if name is None else [name]:
                try:
                    if name is None and ledger.head(one).seq < 0:
                        continue  # its creation was cut short
                    office = Office(ledger, home.artifacts(), one)
                    command = office.command()
                    if isinstance(command, AskForDecision) and not as_json:
                        cases[one] = _case(office, command.attempt)
                    waits.append((one, command, office.settings()))
                except (IntegrityError, LedgerVersionError) as error:
                    if name is not None:
                        raise
                    damaged[one] = error
    if name is None:
        waits = [each for each in waits if isinstance(each[1], AskForLabels | AskForDecision)]
    if as_json:
        documents = [{"campaign": one, **_waiting(command, settings)} for one, command, settings in waits]
        unknown = {"comparisons": None, "candidate": None}
        documents += [{"campaign": one, **unknown, "problem": str(problem)} for one, problem in damaged.items()]
        print_json(documents if name is None else _waiting(*waits[0][1:]))
    else:
        if waits or not damaged:
            _print_waiting(waits, cases, headed=name is None)
        for one, problem in damaged.items():
            click.echo(f"\n{one}:\ncannot be read: {visible(str(problem))}")
    require_readable(damaged)


def _print_waiting(
    waits: Sequence[tuple[str, Command, CampaignSettings]], cases: Mapping[str, Case], *, headed: bool
) -> None:
    for number, (one, command, settings) in enumerate(waits):
        if headed:
            click.echo(f"\n{one}:" if number else f"{one}:")
        if isinstance(command, AskForLabels):
            _print_queue(command, labelled(command, settings), missing_by_name(command, settings))
            click.echo(f"go on with: ratchet review label {one}")
        elif isinstance(command, AskForDecision):
            _print_case(cases[one])
            click.echo(f"go on with: ratchet review approve {one} --reason WHY, or reject")
        else:
            click.echo(NOTHING_WAITS)
    if not waits:
        click.echo(NOTHING_WAITS)


def _waiting(command: Command, settings: CampaignSettings) -> dict[str, Any]:
    waiting: dict[str, Any] = {"comparisons": None, "candidate": None}
    match command:
        case AskForLabels(batch, settled, wanted):
            waiting["comparisons"] = {
                "kind": "audit" if batch.purpose is Purpose.AUDIT else "comparisons",
                "queue": batch.purpose.value,
                "batch": batch.id,
                "wanted": wanted,
                "settled": settled,
                "labelled": labelled(command, settings),
                "missing_by_name": missing_by_name(command, settings),
            }
        case AskForDecision(attempt, approvals, approvers):
            waiting["candidate"] = {**_candidate(attempt), "approvals": approvals, "approvers": approvers}
    return waiting


@review.command()
@click.argument("name")
@reviewer_option
@click.pass_context
def label(ctx: click.Context, name: str, reviewer: str | None) -> None:
    """Label comparisons in the terminal: one key each. Nobody is told which response is the candidate's.

    Before the verdict, h and then 1, 2 or b flags the first, the second or both responses as harmful; n takes it back.
    u takes the last word back. Where an audit waits, this labels it; whoever labelled the comparisons may not audit.

    \b
    Example:
      ratchet review label mine
    """
    home: Home = ctx.obj
    with open_ledger(home) as ledger:
        desk = _desk(home, ledger, name, reviewer)
        said = _label(desk, lambda: signed_in(home, ledger, reviewer))
        done, refusal = desk.open_batch() is None, desk.refusal()
    if refusal is not None and not said:
        raise UsageError(refusal)
    if not said and done:
        say(f"{name} asks for no labels now; see: ratchet campaign show {name}")
        return
    say(f"recorded {counted(said, 'label')} of {desk.name}")
    if refusal is not None:
        say(refusal)
    if done:
        say(f"no more labels are wanted now; go on with: ratchet campaign resume {name}")
    elif desk.asked() is None and refusal is None:
        say(f"what still waits is for others; see: ratchet review list {name}")


def _label(desk: Desk, who: Callable[[], Person]) -> int:
    """Ask until nothing waits, or until nobody answers any more; how many words were said and stand.

    Args:
        who: whoever holds the token that is in use; asked before each word, since tokens end.
    """
    said = 0
    while (asked := desk.asked()) is not None:
        if said == 0:
            say(f"{desk.campaign}: {KEYS_IN_WORDS}")
        _print_comparison(asked)
        answer = _ask(desk, asked)
        if answer is None:
            break
        desk.person = who()
        try:
            if answer == "undo":
                undone = desk.undo(asked.number - 1)
                say(STANDINGS.get(undone.standing, ""))
                said -= undone.standing is Standing.UNDONE
                continue
            done = desk.label(asked.ticket, *answer)
        except UsageError as error:
            say(str(error))
            continue
        said += done.standing is not Standing.AGAIN
        if done.standing in STANDINGS:
            say(STANDINGS[done.standing])
    return max(said, 0)


@review.command()
@click.argument("name")
@reviewer_option
@click.option("--reason", required=True, help="Why; recorded on the ledger.")
@click.option("--candidate", metavar="DIGEST", help="The candidate's digest, or its first 8 digits or more.")
@click.option(
    "--override", is_flag=True, help="Stand for all approvers, where the campaign allows it; recorded and shown."
)
@click.pass_context
def approve(
    ctx: click.Context, name: str, reviewer: str | None, reason: str, candidate: str | None, override: bool
) -> None:
    """Approve the candidate that waits. The decision binds its digest.

    \b
    Example:
      ratchet review approve mine --reason "reads well" --candidate 1a2b3c4d
    """
    _decide(ctx, name, reviewer, reason, candidate, Decision.APPROVE, override=override)


@review.command()
@click.argument("name")
@reviewer_option
@click.option("--reason", required=True, help="Why; recorded on the ledger.")
@click.option("--candidate", metavar="DIGEST", help="The candidate's digest, or its first 8 digits or more.")
@click.pass_context
def reject(ctx: click.Context, name: str, reviewer: str | None, reason: str, candidate: str | None) -> None:
    """Reject the candidate that waits: it is quarantined and the stage rolls back.

    \b
    Example:
      ratchet review reject mine --reason "evades the question" --candidate 1a2b3c4d
    """
    _decide(ctx, name, reviewer, reason, candidate, Decision.REJECT)


@review.command()
@click.argument("name")
@reviewer_option
@click.option("--item", metavar="BATCH.ITEM", help="Which one to settle, as this command lists them.")
@click.option(
    "--choice",
    type=click.Choice([choice.value for choice in Choice if choice is not Choice.SKIP]),
    help="The settling word, in the order in which this command shows the two.",
)
@click.option("--reason", help="Why; recorded on the ledger.")
@json_option
@click.pass_context
def settle(
    ctx: click.Context,
    name: str,
    reviewer: str | None,
    item: str | None,
    choice: str | None,
    reason: str | None,
    as_json: bool,
) -> None:
    """List the comparisons that raters saw differently, or settle one for what trains. Every verdict stays.

    \b
    Example:
      ratchet review settle mine
      ratchet review settle mine --item s0.a0.gate.7 --choice first --reason "the second evades"
    """
    home: Home = ctx.obj
    with open_ledger(home) as ledger:
        desk = _desk(home, ledger, name, reviewer)
        if item is not None:
            batch, _, number = item.rpartition(".")
            if not (batch and number.isdecimal() and choice and reason):
                raise UsageError("to settle one, give --item BATCH.ITEM, --choice and --reason")
            desk.adjudicate(batch, int(number), Choice(choice), reason)
            click.echo(f"{item} is settled: {choice}")
            return
        found = desk.disagreements()
    if as_json:
        print_json(
            [
                {
                    "item": f"{one.batch}.{one.item}",
                    "prompt": one.prompt,
                    "response_1": one.response_1,
                    "response_2": one.response_2,
                    "words": [{"rater": rater, "choice": said.value} for rater, said in one.words],
                    "settled": [{"by": by, "choice": said.value, "reason": why} for by, said, why in one.settled],
                }
                for one in found
            ]
        )
        return
    for one in found:
        words = ", ".join(f"{one_line(rater)}: {said.value}" for rater, said in one.words)
        done = f"; settled: {one.settled[-1][1].value}" if one.settled else ""
        click.echo(f"\n{RULE}\n{one.batch}.{one.item}  {words}{done}\n{framed(one.prompt)}")
        click.echo(f"\n[1]\n{framed(one.response_1)}\n\n[2]\n{framed(one.response_2)}\n")
    say(f"{counted(len(found), 'comparison')} that raters saw differently")


@review.command()
@click.argument("name")
@reviewer_option
@click.option("--reason", required=True, help="Why; shown to labelers and recorded on the ledger.")
@click.pass_context
def pause(ctx: click.Context, name: str, reviewer: str | None, reason: str) -> None:
    """Give nobody comparisons for a while. Words for what is on screens are still kept; deadlines do not wait.

    \b
    Example:
      ratchet review pause mine --reason "the guidelines change"
    """
    home: Home = ctx.obj
    with open_ledger(home) as ledger:
        _desk(home, ledger, name, reviewer).pause_labelling(reason)
    click.echo(f"labelling of {name} is paused; go on with: ratchet review resume {name}")


@review.command()
@click.argument("name")
@reviewer_option
@click.pass_context
def resume(ctx: click.Context, name: str, reviewer: str | None) -> None:
    """Go on with labelling.

    \b
    Example:
      ratchet review resume mine
    """
    home: Home = ctx.obj
    with open_ledger(home) as ledger:
        _desk(home, ledger, name, reviewer).resume_labelling()
    click.echo(f"labelling of {name} goes on")


for command in (people.invite, people.login, people.logout, people.people, people.revoke, serve.serve):
    review.add_command(command)


def _desk(home: Home, ledger: Ledger, name: str, reviewer: str | None) -> Desk:
    office = Office(ledger, home.artifacts(), name)
    office.settings()  # a campaign that is not there makes nobody this home's first person
    return Desk(office, signed_in(home, ledger, reviewer))


def _decide(
    ctx: click.Context,
    name: str,
    reviewer: str | None,
    reason: str,
    candidate: str | None,
    decision: Decision,
    *,
    override: bool = False,
) -> None:
    home: Home = ctx.obj
    with open_ledger(home) as ledger:
        desk = _desk(home, ledger, name, reviewer)
        if candidate is None:
            candidate = _confirm(desk, decision)
            desk.person = signed_in(home, ledger, reviewer)  # who reads long may have been shut out meanwhile
        decided = desk.decide(decision, candidate, reason, override=override)
    past = "approved" if decision is Decision.APPROVE else "rejected"
    missing = decided.approvers - decided.approvals
    if decision is Decision.APPROVE and missing > 0 and not override:
        click.echo(f"{past} {decided.digest}; {counted(missing, 'more approval is', 'more approvals are')} wanted")
    else:
        click.echo(f"{past} {decided.digest}; go on with: ratchet campaign resume {name}")


def _confirm(desk: Desk, decision: Decision) -> str:
    """Show the candidate's case and have its digest repeated; only a terminal may confirm instead of naming it."""
    attempt = desk.candidate()
    if attempt is None or not sys.stdin.isatty():
        if attempt is not None:
            raise UsageError(f"name the candidate: --candidate {attempt.candidate}")
        return ""
    _print_case(_case(desk.office, attempt))
    return str(click.prompt(f"to {decision.value} it, repeat the first 8 digits of its digest")).strip()


def _ask(desk: Desk, asked: Asked) -> tuple[Choice, Harm | None] | str | None:
    """A verdict and what is flagged as harmful, or `undo`; None where nobody answers any more."""
    harm = None
    while (key := _key()) not in ("q", "\x03", "\x04"):
        if key in KEYS:
            click.echo(KEYS[key].value)
            return KEYS[key], harm
        if key == "u":
            return "undo"
        if key == "d":
            _print_differences(asked)
        elif key == "g":
            click.echo(visible(desk.office.settings().feedback.guidelines or "this campaign has no guidelines"))
        elif key == "h" and (flag := _key()) in HARM_KEYS:
            harm = HARM_KEYS[flag]
            click.echo(f"harmful: {harm.value if harm is not None else 'neither'}")
        else:
            say(KEYS_IN_WORDS)
    return None


def _key() -> str:
    if sys.stdin.isatty():
        return click.getchar()
    return sys.stdin.readline()[:1] or "q"


def _print_comparison(asked: Asked) -> None:
    """A check item and a repeat look like any other, their numbers too."""
    click.echo(f"\n{RULE}\nyour comparison {asked.number}\n{framed(asked.prompt)}")
    click.echo(f"\n[1]\n{framed(asked.left)}\n\n[2]\n{framed(asked.right)}\n")


def _print_differences(asked: Asked) -> None:
    """What only one of the two says, between markers that no colour is needed for."""
    for number, side in enumerate(differences_of(asked.left, asked.right), start=1):
        told = "".join(f"«{visible(span.text)}»" if span.kind == "only" else visible(span.text) for span in side)
        click.echo(f"\n[{number}]\n{barred(told)}")


def _print_queue(ask: AskForLabels, done: int, missing: dict[str, int]) -> None:
    count = f"{done} of {counted(ask.wanted, 'comparison')} of {ask.batch.id}"
    if ask.batch.purpose is Purpose.AUDIT:
        click.echo(f"{count} are audited, by people who labelled none of this gate;")
    else:
        click.echo(f"{count} are labelled;")
    if missing:
        click.echo(f"missing from {', '.join(f'{one_line(rater)}: {count}' for rater, count in missing.items())};")


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


def _case(office: Office, attempt: Attempt) -> Case:
    return case_of(office.state(), office.settings(), attempt, office.artifacts, code_version=office.code_version)


def _print_case(case: Case) -> None:
    """Names on the left, values beside them or, of long names, below; a digest stays whole, to be copied."""
    width, beside = shutil.get_terminal_size().columns, " " * (CASE_NAMES + 2)
    for name, value in case_in_short(case):
        begins = f"{one_line(name):>{CASE_NAMES}}  "
        if len(begins) > len(beside):
            click.echo(textwrap.fill(begins, width))
            begins = beside
        told = textwrap.TextWrapper(width, begins, beside, break_long_words=False, break_on_hyphens=False)
        click.echo(told.fill(one_line(value)))
