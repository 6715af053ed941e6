"""`ratchet labels`: how far raters agree, and labels from and to other tools."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestrator.cli.output import cell_text, console, json_option, open_ledger, print_json, say, table
from orchestrator.cli.signing import reviewer_option, signed_in
from orchestrator.errors import UnauthenticatedError, UnknownCampaignError, UsageError
from orchestrator.home import Home
from orchestrator.text import visible

if TYPE_CHECKING:
    from orchestrator.labels.bringing import Brought
    from orchestrator.labels.comparisons import Labelled, Reading
    from orchestrator.labels.exchange import Read
    from orchestrator.labels.judgements import Judgements

T = TypeVar("T")

FORMAT_NAMES = (
    "ratchet", "hh-rlhf", "trl", "trl-implicit", "trl-chat", "trl-chat-implicit", "label-studio", "argilla"
)  # fmt: skip
"""As `orchestrator.labels.formats` has them; written out so that --help imports none of it."""
PROJECT_NAMES = ("label-studio", "argilla")
"""Those in whose own pages people label."""
INTO_NAMES = ("ratchet", *PROJECT_NAMES)
"""Those that say which comparison a label is of, and whose it is."""
MEND = "nothing was imported; mend them, or leave them out with --skip-bad"
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
      ratchet labels import labelled.json --format argilla --into mine --as '7c5e…=ana'
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
@click.option("--for", "person", metavar="PERSON", help="Those alone that still want this person's verdict.")
@escape_option
@json_option
@click.pass_context
def tasks(
    ctx: click.Context, name: str, form: str, out: Path, set_up: Path | None, batch: str | None, person: str | None,
    escape: bool, as_json: bool,
) -> None:  # fmt: skip
    """Write what a campaign asks people to label, as tasks for Label Studio or Argilla.

    Blind: the tasks hold texts, in the sealed order, and tell nothing of whose they are. What people say there comes
    back with `ratchet labels import --into`.

    \b
    Example:
      ratchet labels tasks mine --format label-studio --out tasks.json --set-up config.xml
    """
    from orchestrator.labels.campaign import tasks_of
    from orchestrator.labels.exchange import write_tasks
    from orchestrator.labels.formats import FORMATS
    from orchestrator.labels.rows import refuse_existing, write_whole
    from orchestrator.review.names import same_name

    for path in filter(None, (out, set_up)):
        refuse_existing(path)
    with open_ledger(ctx.obj) as ledger:
        found = tasks_of(ledger, ctx.obj, name, batch, None if person is None else same_name(person))
    project = FORMATS[form].project
    assert project is not None
    write_tasks(out, project, found.comparisons, escape=escape)
    if set_up is not None:
        write_whole(set_up, [project.set_up(found.raters)])
    odd = sum(comparison.breaks_databases for comparison in found.comparisons)
    if found.mixes_checks:
        say(
            f"raters of {found.batch} meet check items at their desks, and these tasks hold none: {name} will not take "
            "their labels in"
        )
    if odd:
        say(f"{odd} of them hold NUL or half a surrogate pair, which PostgreSQL and some tools refuse")
    if as_json:
        print_json({"tasks": len(found.comparisons), "batch": found.batch, "raters": found.raters, "out": str(out)})
    else:
        click.echo(f"{out}: {len(found.comparisons)} comparisons of {found.batch}, {found.raters} raters each")


@labels.command(name="import")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--format", "form", type=click.Choice(FORMAT_NAMES), required=True, help="What the file holds.")
@click.option("--out", type=new_file, help="The new file, a label a line.")
@click.option("--into", metavar="NAME", help="The campaign that asked for these labels.")
@click.option(
    "--as", "people", multiple=True, metavar="RATER=PERSON",
    help="Who a rater of the file is here; once for each. With --into.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="With --into: tell all, and record nothing.")
@reviewer_option
@click.option("--rater", help="Who labelled, in formats that know no raters.  [default: imported]")
@click.option("--question", metavar="NAME", help="Which control or question, in label-studio and argilla.")
@click.option("--fields", metavar="PROMPT,FIRST,SECOND", help="Names of the three texts, in label-studio and argilla.")
@words_option
@click.option("--skip-bad", is_flag=True, help="Import the good rows of a file that has bad ones too.")
@json_option
@click.pass_context
def import_(
    ctx: click.Context, file: Path, form: str, out: Path | None, into: str | None, people: tuple[str, ...],
    dry_run: bool, reviewer: str | None, rater: str | None, question: str | None, fields: str | None,
    words: tuple[str, ...], skip_bad: bool, as_json: bool,
) -> None:  # fmt: skip
    """Take in another tool's labels: as a file of ours, or into the campaign that asked for them.

    With --out, a line holds item, rater, label, prompt and both responses; `ratchet labels agreement` and `export` read
    it. With --into, an approver puts what people said of a campaign's tasks on its ledger, in their names, and answers
    for it. Such labels are final. Every bad row is named by its number, and then nothing is imported unless --skip-bad
    says so. To import a file twice is to import it once.

    \b
    Example:
      ratchet labels import test.jsonl.gz --format hh-rlhf --rater crowd --out hh.jsonl
      ratchet labels import export.json --format label-studio --into mine --as ana@example.org=ana --dry-run
    """
    from orchestrator.labels.comparisons import CHOICE_WORDS, Reading
    from orchestrator.labels.exchange import parse_words

    if (out is None) is (into is None):
        raise UsageError("say where the labels go: --out FILE, or --into NAME")
    reading = Reading(rater or "imported", parse_words(words, dict(CHOICE_WORDS)), _three(fields), question)
    if into is None:
        assert out is not None
        if people or dry_run or reviewer is not None:
            raise UsageError("--as, --dry-run and --reviewer are for --into, which names a campaign")
        _import_as_file(file, form, out, reading, skip_bad=skip_bad, as_json=as_json)
        return
    if form not in INTO_NAMES or rater is not None:
        raise UsageError(
            f"--into takes {', '.join(INTO_NAMES)}, which say whose label of which comparison each is; --as names the "
            "people"
        )
    _import_into(
        ctx.obj, file, form, into, reading, people, reviewer, dry_run=dry_run, skip_bad=skip_bad, as_json=as_json
    )


def _import_as_file(file: Path, form: str, out: Path, reading: "Reading", *, skip_bad: bool, as_json: bool) -> None:
    from orchestrator.labels.rows import refuse_existing, write_lines

    refuse_existing(out)
    read = _read(file, form, reading)
    if not skip_bad:
        read.bad.refuse(MEND)
    _require_labels(file, read)
    _tell_left_out(read)
    write_lines(out, (label.to_row() for label in read.labels))
    items = len({label.item for label in read.labels})
    if as_json:
        print_json({
            "labels": len(read.labels), "items": items, "bad_rows": len(read.bad),
            "passed_over": dict(read.passed_over), "out": str(out),
        })  # fmt: skip
    else:
        click.echo(f"{out}: {len(read.labels)} labels of {items} items")


def _import_into(
    home: Home, file: Path, form: str, campaign: str, reading: "Reading", people: tuple[str, ...],
    reviewer: str | None, *, dry_run: bool, skip_bad: bool, as_json: bool,
) -> None:  # fmt: skip
    from orchestrator.labels.bringing import Bringer, origin_of, raters_of
    from orchestrator.review.office import Office

    with open_ledger(home) as ledger:
        office = Office(ledger, home.artifacts(), campaign)
        repeats = office.settings().feedback.repeat_every is not None
        if dry_run and not ledger.people.any():
            raise UnauthenticatedError("nobody was let in here yet; a dry run lets nobody in", why="unknown")
        importer = signed_in(home, ledger, reviewer)
        origin = origin_of(file, form)
        Bringer(office, importer, raters_of(people, ledger.people, campaign, importer), origin).require_entitled()
        read = _read(file, form, reading)
        importer = signed_in(home, ledger, reviewer)  # reading takes its time, and people are shut out at any
        bringer = Bringer(office, importer, raters_of(people, ledger.people, campaign, importer), origin)
        found = list(zip(read.numbers, read.labels, strict=True))
        if dry_run or (read.bad and not skip_bad):
            done = bringer.look(found, _follow)
        else:
            done = bringer.bring(found, _follow, all_or_none=not skip_bad)
    for number, why in done.refused:
        read.bad.add(number, why)
    if not skip_bad:
        read.bad.refuse(MEND)
    _require_labels(file, read)
    _tell_left_out(read)
    if not done.labels and not done.again:
        raise UsageError(f"{file}: {campaign} takes none of its labels; nothing was imported")
    if unheard := sorted(set(bringer.raters) - {label.rater for label in read.labels}):
        say(visible(f"no label in it is by {', '.join(unheard)}", 400))
    if done.labels and repeats:
        say("nobody is asked anything twice in a file: how steady its raters are stays unknown (feedback.repeat_every)")
    by_person = Counter(label.rater for label in done.labels)
    if as_json:
        print_json({
            "labels": len(done.labels), "items": len({label.item for label in done.labels}), "by_person": by_person,
            "recorded_already": done.again, "bad_rows": len(read.bad), "passed_over": dict(read.passed_over),
            "left": done.left, "into": campaign, "batch": done.batch, "by": importer.name, "dry_run": dry_run,
        })  # fmt: skip
    else:
        _print_brought(done, campaign, by_person, dry_run=dry_run)


def _print_brought(done: "Brought", campaign: str, by_person: Counter[str], *, dry_run: bool) -> None:
    again = f"; {done.again} recorded already" if done.again else ""
    if not done.labels:
        click.echo(f"{campaign}: nothing new{again}")
        return
    who = ", ".join(f"{person} {labels}" for person, labels in sorted(by_person.items()))
    what = "would be recorded" if dry_run else "recorded"
    click.echo(f"{campaign}: {len(done.labels)} labels of {done.batch} {what} ({who}){again}")
    if done.left:
        say(f"{done.left} comparisons still lack verdicts; see: ratchet review list {campaign}")
    elif not dry_run:
        say(f"no more labels are wanted now; go on with: ratchet campaign resume {campaign}")


def _follow(found: "Sequence[tuple[int, Labelled]]") -> "Iterable[tuple[int, Labelled]]":
    from rich.progress import track

    screen = console()
    return track(found, "holding against the ledger", console=screen, transient=True, disable=not screen.is_terminal)


def _read(file: Path, form: str, reading: "Reading") -> "Read":
    from orchestrator.labels.exchange import read_labels
    from orchestrator.labels.formats import FORMATS

    return read_labels(file, FORMATS[form], reading)


def _require_labels(file: Path, read: "Read") -> None:
    if not read.labels:
        raise UsageError(f"{file}: no label in it; nothing was imported")


def _tell_left_out(read: "Read") -> None:
    if read.bad:
        say(f"{len(read.bad)} bad rows are left out:\n{read.bad.told()}")
    if read.passed_over:
        say("passed over: " + visible(", ".join(f"{count} × {what}" for what, count in read.passed_over.items()), 400))


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
