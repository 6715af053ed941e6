"""`ratchet demo`: the quickstart campaign and its baselines, then the tax."""

from typing import Any

import click

from orchestrator.cli.output import busy, cell_text, console, json_option, person, print_json, say, table
from orchestrator.cli.screen import Screen
from orchestrator.home import Home


@click.command()
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of everything random.")
@json_option
@click.pass_context
def demo(ctx: click.Context, seed: int, as_json: bool) -> None:
    """Watch a policy exploit its reward model, be caught, rolled back, retrained and approved; then see the tax.

    Runs the quickstart under the ratchet and under ordinary RLHF (online and offline) from the same base, seeds,
    initial labels and rater. Takes a few minutes on two cores. Interrupted, the same command goes on.

    \b
    Example:
      ratchet demo --seed 1
    """
    from orchestrator.assembly import make_workers, preflight
    from orchestrator.campaigns import TEMPLATES, tracker_for
    from orchestrator.config import load_settings
    from orchestrator.demo import RATCHET, Demo, arm_settings
    from orchestrator.tracking.follower import Follower

    home: Home = ctx.obj
    arms = arm_settings(load_settings(TEMPLATES / "quickstart.yaml", ["approval.by=gate"]), seed)
    with busy("checking that the demo can be run"):
        for settings in arms.values():
            preflight(settings, home)
    running = Demo(home, arms, person())
    say(f"the demo of seed {seed}: three arms on {arms[RATCHET].resources.workers} workers, state in {home.root}")
    say("approval.by is gate: nobody approves by hand here; a real campaign asks people")
    names = [settings.name for settings in arms.values()]
    home.create()
    with busy(f"starting {arms[RATCHET].resources.workers} workers"):
        workers = make_workers(arms[RATCHET].resources, home)
    try:
        with Screen(console()) as screen:
            running.run(
                workers,
                {name: screen.watcher(name) for name in names},
                lambda ledger: Follower(tracker_for(arms[RATCHET], ledger, home), names),
            )
    except KeyboardInterrupt:
        say(f"interrupted; go on with: ratchet demo --seed {seed}")
        raise
    finally:
        workers.close()
    with busy("writing the report"):
        result = _finish(running, home)
    if as_json:
        print_json(result)
    else:
        _print_result(result)


def _finish(running: Any, home: Home) -> dict[str, Any]:
    """The result, its report, and its place in MLflow."""
    import tempfile
    from pathlib import Path

    from orchestrator.campaigns import tracker_for
    from orchestrator.demo import RATCHET
    from orchestrator.errors import RatchetError
    from orchestrator.report.figures import demo_figures
    from orchestrator.report.page import demo_page, write_page

    with home.ledger() as ledger:
        result: dict[str, Any] = running.result(ledger)
        states = running.states(ledger)
        result["report"] = str(running.report_path)
        write_page(running.report_path, demo_page(result, states, artifacts=home.artifacts()))
        tracker = tracker_for(running.arms[RATCHET], ledger, home)
        campaigns = {arm: settings.name for arm, settings in running.arms.items()}
        with tempfile.TemporaryDirectory() as folder:
            figures = {}
            for name, png in demo_figures(result, states).items():
                figures[name] = Path(folder) / f"{name}.png"
                figures[name].write_bytes(png)
            try:
                for campaign in campaigns.values():
                    tracker.sync(campaign)
                tracker.log_tax(f"demo-{result['seed']}", campaigns, result["tax"], figures)
            except RatchetError as error:
                say(f"warning: {error}")
    return result


def _print_result(result: dict[str, Any]) -> None:
    accuracy = result["reward_model_accuracy_gold"]
    click.echo(
        f"\nbase gold {cell_text(result['base_gold'])} ± {cell_text(result['base_gold_se'])}; the first reward model "
        f"orders base samples as gold does {cell_text(accuracy)} of the time"
    )
    rows = []
    for arm, told in result["arms"].items():
        peak = max(told["gold_by_step"], default=None)
        deployed = [gold for gold in told["deployed_gold"] if gold is not None]
        rows.append(
            [
                arm,
                told["advances"],
                told["rollbacks"],
                min(deployed, default=None),
                peak,
                deployed[-1] if deployed else None,
                sum(told["costs"]["labels"].values()),
                told["costs"]["samples"],
            ]
        )
    columns = ["arm", "advances", "rollbacks", "worst deployed gold", "peak gold", "final gold", "labels", "samples"]
    table(columns, rows)
    target = result["tax"]["labels"]["target_gold"]
    click.echo(f"\nrobustness tax at gold {target:.2f} of the deployable checkpoint, ratchet over online RLHF:")
    for resource, told in result["tax"].items():
        if told["reached"]:
            click.echo(f"  {resource:>15}  {told['ratio']:.2f}")
        else:
            missing = ", ".join(arm for arm in ("ratchet", "online") if not told["reached_by"][arm])
            click.echo(f"  {resource:>15}  unreached by {missing}")
    click.echo(f"\nreport: {result['report']}")
