"""`ratchet report`: one HTML file of what happened in a campaign."""

from pathlib import Path

import click

from orchestrator.cli.output import json_option, open_ledger, print_json
from orchestrator.errors import StorageError, StorageFullError
from orchestrator.home import Home


@click.command()
@click.argument("name")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to write it; reports/NAME.html under --home if not given.",
)
@json_option
@click.pass_context
def report(ctx: click.Context, name: str, out: Path | None, as_json: bool) -> None:
    """Write one HTML file of what happened in a campaign: in words, in pictures, with samples.

    The file loads nothing and runs nothing; it can be mailed and archived. A campaign under way has a report too.

    \b
    Example:
      ratchet report quickstart --out quickstart.html
    """
    from orchestrator.core.envelope import Head
    from orchestrator.report.page import campaign_page, write_page
    from orchestrator.runner import read_settings, read_state_at

    home: Home = ctx.obj
    with open_ledger(home) as ledger:
        settings = read_settings(ledger, name)
        state, seq = read_state_at(ledger, name)
        last = ledger.events(name, seq - 1)[0]
    path = out if out is not None else home.reports / f"{name}.html"
    page = campaign_page(state, settings, Head(last.seq, last.hash), home.artifacts())
    try:
        write_page(path, page)
    except StorageFullError:
        raise
    except StorageError as error:
        raise StorageError(f"{error}, or name another file with --out" if out is None else str(error)) from error
    if as_json:
        print_json({"report": str(path)})
    else:
        click.echo(path)
