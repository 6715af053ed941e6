"""`ratchet campaign`: start, resume, pause, stop and look at campaigns."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from orchestrator import gate_words, views
from orchestrator.cli.output import (
    busy,
    console,
    json_option,
    open_ledger,
    person,
    print_json,
    require_readable,
    say,
    table,
)
from orchestrator.cli.screen import Screen
from orchestrator.core.commands import AskForLabels
from orchestrator.core.nulls import is_win_rate
from orchestrator.core.records import EndedBy, Status, Verdict
from orchestrator.core.settings import Advance
from orchestrator.core.state import CampaignState
from orchestrator.counting import counted
from orchestrator.errors import RatchetError
from orchestrator.home import Home
from orchestrator.review import office as offices
from orchestrator.runner import Outcome, Runner, read_settings, read_state_at
from orchestrator.store.ledger import Ledger
from orchestrator.text import one_line, visible

EXIT_WAITING, EXIT_REFUSED = 3, 4
DAMAGED = "failed"
"""Status of a campaign whose ledger cannot be read."""
UNASKED = "deploys every candidate without a gate and without a person, whatever approval.by says: advance is always"

wait_option = click.option(
    "--wait", is_flag=True, help="Stay while people are asked, and go on when they have answered; Ctrl-C leaves it."
)


@click.group()
def campaign() -> None:
    """Start, resume, pause, stop and watch campaigns.

    \b
    Example:
      ratchet campaign init mine && ratchet campaign start mine.yaml
    """


@campaign.command()
@click.argument("name")
@click.option("--template", default="quickstart", show_default=True, help="Which file of configs/ to begin from.")
def init(name: str, template: str) -> None:
    """Write NAME.yaml, a commented campaign file to start from.

    \b
    Example:
      ratchet campaign init mine
    """
    from orchestrator.campaigns import write_template

    path = write_template(name, template, Path.cwd())
    click.echo(f"wrote {path.name}; start it with: ratchet campaign start {path.name}")


@campaign.command()
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Override a value of the file.")
@click.option("--name", help="Another name than the file's.")
@click.option("--from", "start_from", metavar="DIGEST", help="Begin from an approved checkpoint of this home.")
@click.option("--detach", is_flag=True, help="Run in the background; `campaign watch` shows it.")
@wait_option
@json_option
@click.pass_context
def start(
    ctx: click.Context,
    config: Path,
    overrides: tuple[str, ...],
    name: str | None,
    start_from: str | None,
    detach: bool,
    wait: bool,
    as_json: bool,
) -> None:
    """Create a campaign from a CONFIG file and run it until it waits for people or ends.

    \b
    Example:
      ratchet campaign start configs/quickstart.yaml --set seed=7 --name second
    """
    from orchestrator.campaigns import create
    from orchestrator.config import load_settings

    home: Home = ctx.obj
    settings = load_settings(config, overrides, name=name)
    with busy("checking that the campaign can be run"):
        create(settings, home, author=person(), start_from=start_from)
    _run(ctx, home, settings.name, (), detach=detach, takeover=False, wait=wait, as_json=as_json)


@campaign.command()
@click.argument("name")
@click.option(
    "--set", "overrides", multiple=True, metavar="A.B=C", help="Other resources, tracking or notices, for this run."
)
@click.option("--takeover", is_flag=True, help="Fence a controller that still runs but hangs.")
@click.option("--detach", is_flag=True, help="Run in the background.")
@wait_option
@json_option
@click.pass_context
def resume(
    ctx: click.Context, name: str, overrides: tuple[str, ...], takeover: bool, detach: bool, wait: bool, as_json: bool
) -> None:
    """Go on with a campaign that was paused, killed, or had to wait for people.

    \b
    Example:
      ratchet campaign resume quickstart --set resources.workers=1
    """
    from orchestrator.campaigns import settings_for_run

    home: Home = ctx.obj
    with open_ledger(home) as ledger:
        settings_for_run(ledger, name, overrides)
    _run(ctx, home, name, overrides, detach=detach, takeover=takeover, wait=wait, as_json=as_json)


@campaign.command()
@click.argument("name")
@click.option("--reason", default="asked to pause", show_default=True, help="Recorded on the ledger.")
@click.pass_context
def pause(ctx: click.Context, name: str, reason: str) -> None:
    """Pause a campaign after the work item under way.

    \b
    Example:
      ratchet campaign pause quickstart --reason "the GPUs are needed"
    """
    with open_ledger(ctx.obj) as ledger:
        offices.pause(offices.Office(ledger, ctx.obj.artifacts(), name), reason, author=person())
    click.echo(f"{name} pauses; go on with: ratchet campaign resume {name}")


@campaign.command()
@click.argument("name")
@click.option("--reason", required=True, help="Why; recorded on the ledger.")
@click.pass_context
def stop(ctx: click.Context, name: str, reason: str) -> None:
    """End a campaign for good. Its approved checkpoint stays what it is.

    \b
    Example:
      ratchet campaign stop quickstart --reason "the raters misread the guidelines"
    """
    with open_ledger(ctx.obj) as ledger:
        offices.stop(offices.Office(ledger, ctx.obj.artifacts(), name), reason, author=person())
    click.echo(f"{name} is stopped")


@campaign.command()
@click.argument("name")
@json_option
@click.pass_context
def show(ctx: click.Context, name: str, as_json: bool) -> None:
    """Show what a campaign has come to, attempt by attempt.

    \b
    Example:
      ratchet campaign show quickstart --json
    """
    with open_ledger(ctx.obj) as ledger:
        document = _document(ledger, name)
    if as_json:
        print_json(document)
    else:
        _print_campaign(document)


@campaign.command(name="list")
@json_option
@click.pass_context
def list_campaigns(ctx: click.Context, as_json: bool) -> None:
    """List the campaigns of this home. Exit code 5 where one is damaged, which the list says.

    \b
    Example:
      ratchet campaign list
    """
    from orchestrator.campaigns import fold_all

    home: Home = ctx.obj
    found: list[dict[str, Any]] = []
    damaged: Mapping[str, RatchetError] = {}
    if home.exists():
        with home.ledger() as ledger:
            states, damaged = fold_all(ledger)
            for name, state in states.items():
                summary = views.campaign_summary(state, read_settings(ledger, name))
                found.append({**summary, "controller": _controller(ledger, name, state)})
    for name, error in damaged.items():
        unknown = dict.fromkeys(("stage", "approved", "controller"))
        found.append({"name": name, "status": DAMAGED, **unknown, "problem": str(error)})
    found.sort(key=lambda summary: str(summary["name"]))
    if as_json:
        print_json(found)
    elif not found:
        click.echo(f"no campaigns in {home.root}")
    else:
        rows = [(c["name"], _status(c), c["stage"], _short(c["approved"])) for c in found]
        table(["name", "status", "stage", "approved checkpoint"], rows)
        for left in filter(_is_left, found):
            click.echo(_go_on(left["name"]))
    require_readable(damaged)


@campaign.command()
@click.argument("name")
@click.pass_context
def watch(ctx: click.Context, name: str) -> None:
    """Follow a campaign that another process runs. Ctrl-C ends the watching, not the campaign.

    \b
    Example:
      ratchet campaign watch quickstart
    """
    from orchestrator.campaigns import follow
    from orchestrator.cli.screen import describe, labels_came

    with open_ledger(ctx.obj) as ledger:
        settings, told = read_settings(ledger, name), -1

        def tell_once_if_left(state: CampaignState) -> None:
            nonlocal told
            seq = ledger.head(name).seq
            summary = {"status": views.status(state, settings), "controller": _controller(ledger, name, state)}
            if _is_left(summary) and seq != told:
                say(f"{name}: {_status(summary)}\n{_go_on(name)}")
                told = seq

        for event, state in follow(ledger, name, on_idle=tell_once_if_left):
            line = labels_came(event, state) or describe(event, state)
            if line is not None:
                click.echo(f"{event.at:%H:%M:%S}  {one_line(line)}")


@campaign.command()
@click.argument("name")
@click.pass_context
def track(ctx: click.Context, name: str) -> None:
    """Bring MLflow up to date with the ledger, and repair what was changed there by hand.

    \b
    Example:
      ratchet campaign track quickstart
    """
    from orchestrator.campaigns import tracker_for

    home: Home = ctx.obj
    with open_ledger(home) as ledger:
        tracker = tracker_for(read_settings(ledger, name), ledger, home)
        for problem in tracker.repair(name):
            click.echo(visible(f"repaired: {problem.where}: {problem.what}"))
        done = tracker.sync(name)
    click.echo(f"MLflow shows all {done.head + 1} events of {name}")


def _run(
    ctx: click.Context,
    home: Home,
    name: str,
    overrides: Sequence[str],
    *,
    detach: bool,
    takeover: bool,
    wait: bool,
    as_json: bool,
) -> None:
    if detach:
        from orchestrator.campaigns import detach as detach_campaign

        log = detach_campaign(home, name, overrides, wait=wait)
        say(f"{name} runs in the background; follow it with: ratchet campaign watch {name} (log: {log})")
        if as_json:
            with home.ledger() as ledger:
                print_json(_document(ledger, name))
        return
    from orchestrator.campaigns import await_people

    with home.ledger() as ledger:
        state, _ = read_state_at(ledger, name)
        try:
            outcome = (
                Outcome(state, None) if state.ended_by else drive(home, ledger, name, overrides, takeover=takeover)
            )
            while wait and outcome.waiting_for is not None:
                tell(name, outcome)
                say(f"{name} goes on when people have answered; Ctrl-C ends this command and leaves it waiting")
                state = await_people(ledger, name)
                # Whoever paused or stopped it meanwhile meant it.
                goes_on = state.status is Status.RUNNING
                outcome = drive(home, ledger, name, overrides, takeover=False) if goes_on else Outcome(state, None)
        except KeyboardInterrupt:
            say(f"go on with: ratchet campaign resume {name}")
            raise
        document = _document(ledger, name)
    if as_json:
        print_json(document)
    tell(name, outcome)
    ctx.exit(exit_code(outcome))


def drive(home: Home, ledger: Ledger, name: str, overrides: Sequence[str], *, takeover: bool) -> Outcome:
    from orchestrator.assembly import make_workers
    from orchestrator.campaigns import require_free, require_same_inputs, settings_for_run, tracker_for
    from orchestrator.notify import tell_once
    from orchestrator.tracking.follower import Follower

    settings = settings_for_run(ledger, name, overrides)
    if settings.approval.by == "gate":
        say(f"NOTE: nobody approves by hand in {name}: approval.by is gate, for unattended studies")
    elif settings.protocol.advance is Advance.ALWAYS:
        say(f"NOTE: {name} {UNASKED}")
    require_same_inputs(ledger, name)
    first_seq = ledger.head(name).seq + 1
    if not takeover:
        require_free(ledger, name)
    with busy(f"starting {settings.resources.workers} workers ({settings.resources.address})"):
        workers = make_workers(settings.resources, home)
    try:
        with Follower(tracker_for(settings, ledger, home), [name]), Screen(console()) as screen:
            runner = Runner(
                name,
                ledger=ledger,
                artifacts=home.artifacts(),
                workers=workers,
                watcher=screen.watcher(name, first_seq=first_seq),
            )
            outcome = runner.run(takeover=takeover)
    finally:
        workers.close()
    if outcome.waiting_for is not None:
        problem = tell_once(name, settings, outcome.waiting_for, told=home.told(name))
        if problem is not None:
            say(f"WARNING: {one_line(problem)}")
    return outcome


def exit_code(outcome: Outcome) -> int:
    if outcome.waiting_for is not None:
        return EXIT_WAITING
    return EXIT_REFUSED if outcome.state.ended_by is EndedBy.ATTEMPTS_EXHAUSTED else 0


def tell(name: str, outcome: Outcome) -> None:
    waiting = outcome.waiting_for
    if isinstance(waiting, AskForLabels):
        left = waiting.batch.count - waiting.settled
        words = gate_words.queue_words(waiting.batch.purpose)
        say(f"{name} waits for labels ({words}, {left} left): ratchet review label {name}")
    elif waiting is not None:
        say(f"{name} waits for a decision on {waiting.attempt.candidate}: ratchet review approve {name} --reason WHY")
    elif outcome.state.ended_by is EndedBy.ATTEMPTS_EXHAUSTED:
        say(f"{name} ended: every attempt of stage {outcome.state.stage} was refused; the approved checkpoint stays")
    elif outcome.state.ended_by is not None:
        say(f"{name} has ended: {outcome.state.ended_by.value}; see: ratchet campaign show {name}")
    elif outcome.state.status is Status.PAUSED:
        say(f"{name} is paused; go on with: ratchet campaign resume {name}")


def _document(ledger: Ledger, name: str) -> dict[str, Any]:
    state, _ = read_state_at(ledger, name)
    document = views.campaign(state, read_settings(ledger, name), ledger.head(name))
    return {**document, "controller": _controller(ledger, name, state)}


def _controller(ledger: Ledger, name: str, state: CampaignState) -> bool | None:
    """Whether a process is at work on the campaign; None where that cannot be known from here."""
    from orchestrator.campaigns import controller_at_work

    return state.ended_by is None and controller_at_work(ledger, name)


def _is_left(campaign: dict[str, Any]) -> bool:
    """Whether there is work to do and nobody does it: the controller was killed, or people have answered since."""
    return campaign["status"] == Status.RUNNING.value and campaign["controller"] is False


def _status(campaign: dict[str, Any]) -> str:
    return f"{campaign['status']}{', but no controller is at work' if _is_left(campaign) else ''}"


def _go_on(name: str) -> str:
    return f"unless a controller of {name} is just starting, go on with: ratchet campaign resume {name}"


def _short(approved: dict[str, Any] | None) -> str:
    return f"{approved['digest'][:12]} (advance {approved['stage']})" if approved else "–"


def _print_campaign(document: dict[str, Any]) -> None:
    ended = f", {document['ended_by']}" if document["ended_by"] else ""
    click.echo(f"{document['name']}: {_status(document)}{ended}; approved {_short(document['approved'])}")
    if _is_left(document):
        click.echo(_go_on(document["name"]))
    if document["protocol"]["advance"] == Advance.ALWAYS.value:
        click.echo(f"NOTE: {document['name']} {UNASKED}")
    if document["why_paused"]:
        click.echo(f"paused: {one_line(document['why_paused'])}")
    columns = ("stage", "attempt", "verdict", "win_rate", "over_promise", "proxy", "gold", "kl_nats", "labels")
    rows = [[attempt[column] for column in columns] for attempt in document["attempts"]]
    table(columns, rows)
    for attempt in document["attempts"]:
        print_attempt(attempt)
    click.echo("")
    costs = document["costs"]
    labels = ", ".join(f"{count} {purpose}" for purpose, count in costs["labels"].items() if count)
    click.echo(
        f"costs: labels {labels or 0}; {costs['samples']:,} samples, {costs['tokens']:,} tokens, "
        f"{costs['gradient_steps']:,} gradient steps, {costs['compute_seconds']:.0f} s compute, {costs['usd']:.2f} USD"
    )
    told = ", ".join(
        f"{share:.1%} {words}"
        for share, words in (
            (document["raters"]["agreement_with_gold"], "with gold"),
            (document["raters"]["agreement_between_raters"], "with one another"),
        )
        if share is not None
    )
    if told:
        click.echo(f"raters agree {told}")
    _print_account(document["alpha"])
    sys.stdout.flush()


def print_attempt(attempt: dict[str, Any]) -> None:
    """An attempt at the gate: every test with its figure, vetoes, and where over-credit comes from."""
    labels = ", ".join(
        f"{gate_words.queue_words(queue['purpose'])} {queue['labels']}/{queue['sealed']}" for queue in attempt["queues"]
    )
    verdict = attempt["verdict"] or ("under way" if not attempt["queues"] else "at the gate")
    click.echo(f"\nstage {attempt['stage']}, attempt {attempt['attempt']}: {verdict}")
    asked = [test for test in attempt["tests"] if test["estimate"] is not None]
    if asked:
        rows = [
            [
                f"  {gate_words.title(test['name'])}",
                test["estimate"],
                test["bound"],
                f"{'>' if is_win_rate(test['name']) else '<'} {test['limit']:.2f}",
                test["labels"],
                "passed" if test["passed"] else "not passed",
            ]
            for test in asked
        ]
        table(["  test", "figure", "bound", "needed", "labels", "verdict"], rows)
    if labels:
        click.echo(f"  labels: {labels}")
    if attempt["verdict"] != Verdict.ADVANCE.value or not asked:
        for reason in attempt["reasons"]:
            click.echo(f"  {one_line(reason)}")
    for note in attempt["notes"]:
        click.echo(f"  note: {one_line(note)}")
    if attempt["attribution"] is not None:
        for line in gate_words.attribution_told(attempt["attribution"]):
            click.echo(f"  {line}")


def _print_account(alpha: dict[str, Any]) -> None:
    """The error budget: a sentence, and what each attempt took of it."""
    gates = sum(attempt["opened"] for attempt in alpha["attempts"])
    following = "" if alpha["next"] is None else f", the next gate may spend {alpha['next']:.4f}"
    click.echo(
        f"error budget: {alpha['total']:.4f}, spent {alpha['spent']:.4f} over {counted(gates, 'gate')}, "
        f"{alpha['left']:.4f} left{following}"
    )
    if gates:
        rows = [
            [
                f"  {spent['stage']}.{spent['attempt']}",
                f"{spent['alpha']:.4f}" if spent["opened"] else "no gate opened",
                f"{spent['spent_after']:.4f}",
            ]
            for spent in alpha["attempts"]
        ]
        table(["  attempt", "alpha", "spent by then"], rows)
