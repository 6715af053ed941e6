"""`ratchet gate compare`: the gate alone, on two existing models. A campaign like any other, with nothing to train."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.output import busy, json_option, person, print_json
from orchestrator.core.records import Verdict
from orchestrator.home import Home

if TYPE_CHECKING:
    from orchestrator.runner import Outcome


@click.command()
@click.argument("model_a")
@click.argument("model_b")
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", help="The campaign's name; by default made of the models' names.")
@click.option(
    "--reward-model", metavar="MODEL", help="What promised something of MODEL_B; without, no promise is questioned."
)
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Override a value of the file.")
@json_option
@click.pass_context
def compare(
    ctx: click.Context,
    model_a: str,
    model_b: str,
    config: Path,
    name: str | None,
    reward_model: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Ask whether MODEL_B may replace MODEL_A, the approved one, by the gate of a CONFIG file.

    Models are Hugging Face folders, hub ids, or digests of checkpoints in this home. Of the file, `task`, `feedback`,
    `gate`, `approval`, `evaluation`, `resources`, `tracking` and `phase.max_response_tokens` count; nothing is trained.
    It is a campaign: label it with `ratchet review label`, go on with `ratchet campaign resume`.

    Exit codes: 0 MODEL_B passed and is approved, 3 people are asked for labels or for an approval, 4 it was refused.

    \b
    Example:
      ratchet gate compare models/old models/new configs/quickstart.yaml --name new-against-old
    """
    from orchestrator import views
    from orchestrator.campaigns import create
    from orchestrator.cli.campaign import drive, exit_code, print_attempt, tell
    from orchestrator.config import load_comparison
    from orchestrator.runner import read_settings

    home: Home = ctx.obj
    settings = load_comparison(config, model_a, model_b, reward_model=reward_model, overrides=overrides, name=name)
    with busy("checking that the models can be compared"):
        create(settings, home, author=person())
    with home.ledger() as ledger:
        outcome = drive(home, ledger, settings.name, (), takeover=False)
        document = _document(settings.name, views.status(outcome.state, read_settings(ledger, settings.name)), outcome)
    if as_json:
        print_json(document)
    else:
        words = {Verdict.ADVANCE.value: "MODEL_B passed", Verdict.ROLLBACK.value: "MODEL_B was refused"}
        click.echo(f"{settings.name}: {words.get(document['verdict'], 'no verdict yet')}")
        if "tests" in document:
            print_attempt(document)
    if outcome.waiting_for is not None:
        tell(settings.name, outcome)
    ctx.exit(exit_code(outcome))


def _document(name: str, status: str, outcome: "Outcome") -> dict[str, Any]:
    """The view of the one attempt, and what it belongs to."""
    from orchestrator import views

    state = outcome.state
    attempt = next(iter(state.attempts), None)
    seen = views.attempt_view(state, attempt) if attempt is not None else {"verdict": None, "reasons": []}
    return {"campaign": name, "status": status, "approved": state.approved, **seen}
