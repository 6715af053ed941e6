"""`ratchet`: the command line. Thin: every command reads its arguments, calls the orchestrator, prints what came out.

Nothing heavy is imported here, nor at the top of a command's module: `ratchet --help` answers at once, and torch,
ray and mlflow come in only where a command needs them. Exit codes: 0 done, 1 error, 2 usage, 3 waiting for people,
4 gate refused, 5 integrity failure, 11 locked by another controller, 130 interrupted.
"""

import importlib
import io
import logging
import sys
import traceback
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from orchestrator.errors import RatchetError
from orchestrator.signals import hear_signals, signal_heard
from orchestrator.text import VisibleFormatter, visible

COMMANDS: Final = {
    "demo": ("orchestrator.cli.demo:demo", "The quickstart: ratchet, online and offline RLHF, and the tax."),
    "campaign": ("orchestrator.cli.campaign:campaign", "Start, resume, pause, stop and watch campaigns."),
    "review": ("orchestrator.cli.review:review", "Label comparisons; approve or reject candidates."),
    "gate": ("orchestrator.cli.gate:gate", "The gate alone: plan its labels, question two models."),
    "labels": ("orchestrator.cli.labels:labels", "How far raters agree; labels from and to other tools."),
    "checkpoint": ("orchestrator.cli.checkpoint:checkpoint", "List, show, verify, export and collect checkpoints."),
    "ledger": ("orchestrator.cli.ledger:ledger", "Show, verify and export a campaign's ledger."),
    "report": ("orchestrator.cli.report:report", "One HTML file of what happened in a campaign."),
    "doctor": ("orchestrator.cli.doctor:doctor", "What works on this machine, and what does not and why."),
}
INTERRUPTED: Final = 130
_GIVEN: Final = "ratchet.given"
"""Where a context's `meta` keeps what was given on the command line, before and behind the commands."""


class LazyGroup(click.Group):
    """Knows its commands by name, and imports one only when it is called or asked for its help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        _take_options_of_ratchet(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="RATCHET_HOME",
    default=Path(".ratchet"),
    show_default=True,
    help="Folder of the ledger, the artifacts and the reports; RATCHET_HOME sets it too.",
)
@click.option(
    "--ledger",
    metavar="URL",
    envvar="RATCHET_LEDGER",
    help="The ledger's file, or postgresql://USER@HOST/NAME for a team; RATCHET_LEDGER sets it too, and keeps a "
    "password off the command line.  [default: ledger.db in the home]",
)
@click.option("--debug", is_flag=True, help="Show tracebacks and the log.")
@click.version_option(package_name="ratchet-rlhf", prog_name="ratchet")
@click.pass_context
def cli(ctx: click.Context, home: Path, ledger: str | None, debug: bool) -> None:
    """Safe RLHF with a ratchet: roll back to the last approved checkpoint until people and reward agree.

    \b
    Example:
      ratchet demo
      ratchet campaign start configs/quickstart.yaml
    """
    from orchestrator.home import Home

    to_stderr = logging.StreamHandler()
    to_stderr.setFormatter(VisibleFormatter("%(levelname)s %(message)s"))
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, handlers=[to_stderr])
    for library in ("httpx", "urllib3", "filelock", "matplotlib", "asyncio"):
        logging.getLogger(library).setLevel(logging.WARNING)
    ctx.obj = Home(home, ledger or None)
    on_the_line = {name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    ctx.meta[_GIVEN] = {name: value for name, value in ctx.params.items() if name in on_the_line}


def _take_options_of_ratchet(command: click.Command) -> None:
    """Let the options of `ratchet` itself stand behind `command` too, and behind every command below it."""
    if any(option.callback is _set_behind for option in command.params):
        return
    for option in cli.params:
        if isinstance(option, click.Option) and option.expose_value:
            behind = copy(option)
            behind.default, behind.envvar = (False if option.is_flag else None), None
            behind.hidden, behind.expose_value, behind.callback = True, False, _set_behind
            command.params.append(behind)
    command.epilog = "--home, --ledger and --debug may stand here too: see `ratchet --help`."
    for below in command.commands.values() if isinstance(command, click.Group) else ():
        _take_options_of_ratchet(below)


def _set_behind(ctx: click.Context, option: click.Parameter, value: Any) -> None:
    """Take an option given behind a command; raises UsageError where it was given before, and differently."""
    name = str(option.name)
    if value is None or value is False:
        return
    if ctx.meta[_GIVEN].setdefault(name, value) != value:
        raise click.UsageError(f"--{name} is given twice, and differently; give it once", ctx)
    if name == "debug":
        logging.getLogger().setLevel(logging.DEBUG)
    else:
        ctx.obj = replace(ctx.obj, **{"root" if name == "home" else "ledger_at": value or None})


def main() -> None:
    """Run the command line, and turn every outcome into one or two lines and an exit code."""
    debug = "--debug" in sys.argv[1:]
    try:
        hear_signals()
        code = cli.main(prog_name="ratchet", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as error:
        click.echo(visible(_told(error)), err=True, nl=False)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo(signal_heard() or "interrupted", err=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except RatchetError as error:
        if debug:
            _print_traceback()
        click.echo(f"error: {visible(str(error))}", err=True)
        sys.exit(error.exit_code)
    except Exception as error:  # the last resort: a bug is told in one line too
        if debug:
            _print_traceback()
        click.echo(
            f"error: unexpected {type(error).__name__}: {visible(str(error), 300)}; "
            "--debug shows where, and please report it",
            err=True,
        )
        sys.exit(1)


def _told(error: click.ClickException) -> str:
    """One line instead of click's four, but the whole help where a group was called without a command."""
    if isinstance(error, click.UsageError) and not isinstance(error, click.exceptions.NoArgsIsHelpError):
        where = "ratchet" if error.ctx is None else error.ctx.command_path
        return f"error: {error.format_message().rstrip('.')}; see `{where} --help`\n"
    told = io.StringIO()
    error.show(told)
    return told.getvalue()


def _print_traceback() -> None:
    click.echo(visible(traceback.format_exc(), 100_000), err=True)


if __name__ == "__main__":
    main()
