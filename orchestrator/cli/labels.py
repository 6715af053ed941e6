"""`ratchet labels`: how far raters agree, and labels from and to other tools."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestrator.cli.output import cell_text, json_option, open_ledger, print_json, say, table
from orchestrator.errors import UnknownCampaignError, UsageError
from orchestrator.home import Home
from orchestrator.text import visible

if TYPE_CHECKING:
    from orchestrator.labels.comparisons import Labelled
    from orchestrator.labels.judgements import Judgements

T = TypeVar("T")

FORMAT_NAMES = (
    "ratchet", "hh-rlhf", "trl", "trl-implicit", "trl-chat", "trl-chat-implicit", "label-studio", "argilla"
)  # fmt: skip
"""As `orchestrator.labels.formats` has them; written out so that --help imports none of it."""
PROJECT_NAMES = ("label-studio", "argilla")
"""Those in whose own pages people label."""
SHOWN_RATERS = 20
SHOWN_PAIRS = 20

new_file = click.Path(dir_okay=False, path_type=Path)
words_option = click.option(
    "--map", "words", multiple=True, metavar="VALUE=CHOICE",
    help="What a label means: first, second, tie, both_bad or skip. May be repeated.",
)  # fmt: skip

escape_option = click.option(
    "--escape", is_flag=True,
    help="Write texts as HTML entities, for a project of yours whose controls take texts for HTML.",
)  # fmt: skip


@click.group()
def labels() -> None:
    """How far raters agree; labels from and to other tools.

    \b
    Example:
      ratchet labels agreement votes.jsonl
      ratchet labels export mine --format trl --out mine.jsonl
      ratchet labels tasks mine --format argilla --out records.json --set-up settings.json
    """


@labels.command()
@click.argument("source", metavar="FILE|NAME")
@click.option("--order", metavar="LABEL,…", help="All labels in ascending order, for figures on ranks.")
@click.option(
    "--smoothing", type=click.FloatRange(min=0), default=5.0, show_default=True,
    help="Labels' worth of belief that a rater errs as all do, in Dawid and Skene's fit; 0 is the classical estimate.",
)  # fmt: skip
@click.option("--consensus", type=new_file, help="Write each item's likeliest label to this new file.")
@json_option
@click.pass_context
def agreement(
    ctx: click.Context, source: str, order: str | None, smoothing: float, consensus: Path | None, as_json: bool
) -> None:
    """How far raters agree: kappas, Krippendorff's alpha, Dawid and Skene, and figures on each rater.

    FILE holds a JSON object a line, {"item": 1, "rater": "ana", "label": "first"}, and may tell gold, prediction,
    length_1 and length_2 of each; docs/labels.md explains every figure. NAME is a campaign.

    \b
    Example:
      ratchet labels agreement votes.jsonl --json
    """
    from orchestrator.labels import figures
    from orchestrator.labels.rows import refuse_existing, write_lines

    if consensus is not None:
        refuse_existing(consensus)
    judgements = _judgements(ctx.obj, source, None if order is None else order.split(","))
    fitted = figures.fit(judgements, smoothing)
    found = figures.document(judgements, fitted, smoothing)
    if consensus is not None:
        if fitted is None:
            raise UsageError(f"{source}: too many raters or labels for a consensus; split the file")
        write_lines(consensus, figures.consensus(judgements, fitted))
    if as_json:
        click.echo(json.dumps(found, allow_nan=False))  # on one line: pairs of raters may be many
    else:
        _print_figures(found)


@labels.command()
@click.argument("source", metavar="NAME|FILE")
@click.option("--format", "form", type=click.Choice(FORMAT_NAMES), required=True, help="What to write.")
@click.option("--out", type=new_file, required=True, help="The new file.")
@escape_option
@json_option
@click.pass_context
def export(ctx: click.Context, source: str, form: str, out: Path, escape: bool, as_json: bool) -> None:
    """Write a campaign's labels, or those of a file of format `ratchet`, for another tool.

    Labels of a gate stay sealed until its verdict and are left out, and said so. Formats of chosen and rejected
    responses leave out labels without a winner; every other label is a row of its own, several raters an item or not.

    \b
    Example:
      ratchet labels export mine --format trl --out mine.jsonl
    """
    from orchestrator.labels.exchange import write_labels
    from orchestrator.labels.formats import FORMATS

    found, sealed = _labels(ctx.obj, source)
    without_winner = write_labels(out, FORMATS[form], found, escape=escape)
    said = {
        "labels": len(found) - without_winner, "left_out": {"sealed": sealed, "without_winner": without_winner},
        "out": str(out),
    }  # fmt: skip
    if as_json:
        print_json(said)
    else:
        click.echo(f"{out}: {said['labels']} labels; {sealed} sealed and {without_winner} without a winner left out")


@labels.command()
@click.argument("name")
@click.option("--format", "form", type=click.Choice(PROJECT_NAMES), required=True, help="Where people will label.")
@click.option("--out", type=new_file, required=True, help="The new file of tasks.")
@click.option("--set-up", type=new_file, help="Write what sets the project up to this new file, too.")
@click.option("--batch", help="All comparisons of this batch, rather than what the open queue still wants.")
@escape_option
@json_option
@click.pass_context
def tasks(
    ctx: click.Context, name: str, form: str, out: Path, set_up: Path | None, batch: str | None, escape: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Write what a campaign asks people to label, as tasks for Label Studio or Argilla.

    Blind: the tasks hold texts, in the sealed order, and tell nothing of whose they are. What people say there comes
    back with `ratchet labels import`, as a file of labels; the campaign itself takes labels from its own desk alone.

    \b
    Example:
      ratchet labels tasks mine --format label-studio --out tasks.json --set-up config.xml
    """
    from orchestrator.labels.campaign import tasks_of
    from orchestrator.labels.exchange import write_tasks
    from orchestrator.labels.formats import FORMATS
    from orchestrator.labels.rows import refuse_existing, write_whole

    for path in filter(None, (out, set_up)):
        refuse_existing(path)
    with open_ledger(ctx.obj) as ledger:
        found = tasks_of(ledger, ctx.obj, name, batch)
    project = FORMATS[form].project
    assert project is not None
    write_tasks(out, project, found.comparisons, escape=escape)
    if set_up is not None:
        write_whole(set_up, [project.set_up(found.raters)])
    odd = sum(comparison.breaks_databases for comparison in found.comparisons)
    if odd:
        say(f"{odd} of them hold NUL or half a surrogate pair, which PostgreSQL and some tools refuse")
    if as_json:
        print_json({"tasks": len(found.comparisons), "batch": found.batch, "raters": found.raters, "out": str(out)})
    else:
        click.echo(f"{out}: {len(found.comparisons)} comparisons of {found.batch}, {found.raters} raters each")


@labels.command(name="import")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--format", "form", type=click.Choice(FORMAT_NAMES), required=True, help="What the file holds.")
@click.option("--out", type=new_file, required=True, help="The new file, a label a line.")
@click.option("--rater", default="imported", show_default=True, help="Who labelled, in formats that know no raters.")
@click.option("--question", metavar="NAME", help="Which control or question, in label-studio and argilla.")
@click.option("--fields", metavar="PROMPT,FIRST,SECOND", help="Names of the three texts, in label-studio and argilla.")
@words_option
@click.option("--skip-bad", is_flag=True, help="Import the good rows of a file that has bad ones too.")
@json_option
def import_(
    file: Path, form: str, out: Path, rater: str, question: str | None, fields: str | None, words: tuple[str, ...],
    skip_bad: bool, as_json: bool,
) -> None:  # fmt: skip
    """Turn another tool's labels into a file of ours: item, rater, label, prompt and both responses a line.

    Every bad row is named by its number, and then nothing is written unless --skip-bad says so. The file serves
    `ratchet labels agreement` and `export`; a campaign takes no labels from files, only from its own raters.

    \b
    Example:
      ratchet labels import test.jsonl.gz --format hh-rlhf --rater crowd --out hh.jsonl
    """
    from orchestrator.labels.comparisons import CHOICE_WORDS, Reading
    from orchestrator.labels.exchange import parse_words, read_labels
    from orchestrator.labels.formats import FORMATS
    from orchestrator.labels.rows import refuse_existing, write_lines

    refuse_existing(out)
    reading = Reading(rater, parse_words(words, dict(CHOICE_WORDS)), _three(fields), question)
    read = read_labels(file, FORMATS[form], reading)
    if not skip_bad:
        read.bad.refuse("nothing was imported; mend them, or leave them out with --skip-bad")
    if not read.labels:
        raise UsageError(f"{file}: no label in it; nothing was imported")
    if read.bad:
        say(f"{len(read.bad)} bad rows are left out:\n{read.bad.told()}")
    if read.passed_over:
        say("passed over: " + visible(", ".join(f"{count} × {what}" for what, count in read.passed_over.items()), 400))
    write_lines(out, (label.to_row() for label in read.labels))
    items = len({label.item for label in read.labels})
    if as_json:
        print_json({
            "labels": len(read.labels), "items": items, "bad_rows": len(read.bad),
            "passed_over": dict(read.passed_over), "out": str(out),
        })  # fmt: skip
    else:
        click.echo(f"{out}: {len(read.labels)} labels of {items} items")


def _three(fields: str | None) -> tuple[str, str, str]:
    names = tuple((fields or "prompt,response_1,response_2").split(","))
    if len(names) != 3 or "" in names:
        raise UsageError(f"--fields {fields!r}: expected three names, as in --fields prompt,answer1,answer2")
    return names[0], names[1], names[2]


def _judgements(home: Home, source: str, order: list[str] | None) -> "Judgements":
    from orchestrator.labels.judgements import code, read_judgements

    def of_campaign() -> "Judgements":
        from orchestrator.labels.campaign import judgements_of

        with open_ledger(home) as ledger:
            found = judgements_of(ledger, home, source)
        if not found:
            raise UsageError(f"campaign {source} has no labels yet; see `ratchet campaign show {source}`")
        return code(found, order)

    return _from_file_or_campaign(source, lambda path: read_judgements(path, order), of_campaign)


def _labels(home: Home, source: str) -> "tuple[list[Labelled], int]":
    """Labels, and how many stay sealed."""

    def of_file(path: Path) -> "tuple[list[Labelled], int]":
        from orchestrator.labels.comparisons import Reading
        from orchestrator.labels.exchange import read_labels
        from orchestrator.labels.formats import FORMATS

        read = read_labels(path, FORMATS["ratchet"], Reading())
        read.bad.refuse("nothing was exported")
        return list(read.labels), 0

    def of_campaign() -> "tuple[list[Labelled], int]":
        from orchestrator.labels.campaign import labels_of

        with open_ledger(home) as ledger:
            return labels_of(ledger, home, source)

    return _from_file_or_campaign(source, of_file, of_campaign)


def _from_file_or_campaign(source: str, of_file: Callable[[Path], T], of_campaign: Callable[[], T]) -> T:
    if Path(source).exists():
        return of_file(Path(source))
    try:
        return of_campaign()
    except UnknownCampaignError as error:
        raise UsageError(f"there is no file {source!r}, and as a campaign: {error}") from error


def _print_figures(found: dict[str, Any]) -> None:
    alpha, ceiling, model = found["krippendorff_alpha"], found["ceiling"], found["dawid_skene"]
    skipped = f", {found['skipped']} skipped" if found["skipped"] else ""
    click.echo(f"{found['labels']} labels of {found['items']} items by {found['raters']} raters{skipped}\n")
    rows: list[tuple[str, Any]] = [
        ("two raters of an item agree", found["agreement"]),
        ("Fleiss' kappa", found["fleiss_kappa"]),
        ("Krippendorff's alpha, nominal", alpha["nominal"]),
        ("Krippendorff's alpha, ordinal", alpha["ordinal"]),
        ("people agree with one another (the ceiling)", _interval(ceiling["human_human"])),
    ]
    if ceiling["reward_human"]["items"]:
        rows.append(("the reward model agrees with people", _interval(ceiling["reward_human"])))
        rows.append(("that less the ceiling, on the same items", _interval(ceiling["reward_less_human"])))
    table(["figure", "value"], rows)
    if model is not None:
        click.echo("")
        shares = zip(found["classes"], model["prior"], strict=True)
        table(["label", "share of the truth (Dawid and Skene)"], [(str(value), share) for value, share in shares])
    _print_raters(found["per_rater"])
    _print_pairs(found["pairs"])


def _print_raters(raters: list[dict[str, Any]]) -> None:
    known = [
        (title, key) for title, key in (("gold", "gold"), ("says first", "first"), ("prefers longer", "longer"))
        if any(rater[key] and rater[key]["labels"] for rater in raters)
    ]  # fmt: skip
    shown = sorted(raters, key=lambda rater: -rater["labels"])[:SHOWN_RATERS]
    click.echo("")
    table(
        ["rater", "labels", "agrees with others", "right by consensus", "lapses", *(title for title, _ in known)],
        [
            (
                str(rater["rater"]), rater["labels"], rater["agreement"], rater["accuracy"], rater["lapse_rate"],
                *(_interval({"value": rater[key]["share"], **rater[key]}) for _, key in known),
            )
            for rater in shown
        ],
    )  # fmt: skip
    if len(raters) > len(shown):
        click.echo(f"and {len(raters) - len(shown)} raters with fewer labels: --json tells all")


def _print_pairs(pairs: list[dict[str, Any]] | None) -> None:
    if pairs is None:
        say("there are too many pairs of raters to list")
    if not pairs:
        return
    click.echo("")
    shown = sorted(pairs, key=lambda pair: -pair["items"])[:SHOWN_PAIRS]
    rows = [(str(pair["a"]), str(pair["b"]), pair["items"], pair["agreement"], pair["kappa"]) for pair in shown]
    table(["rater", "and rater", "items", "agreement", "Cohen's kappa"], rows)
    if len(pairs) > len(shown):
        click.echo(f"and {len(pairs) - len(shown)} pairs with fewer items in common: --json tells all")


def _interval(figure: dict[str, Any]) -> str:
    if figure["value"] is None:
        return cell_text(None)
    value, low, high = (cell_text(figure[key]) for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"
