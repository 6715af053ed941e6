"""A campaign's labels from other tools: the whole round trip, who may bring them, and that each counts once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from desks import all_of, let_in
from hall import Hall
from labelled_elsewhere import Answers, label_there
from small_campaigns import CommandLine, Ended

from orchestrator.core.commands import AskForDecision, AskForLabels
from orchestrator.core.events import LabelsRecorded, parse
from orchestrator.core.records import Choice, Harm, Role
from orchestrator.core.state import Batch
from orchestrator.home import Home

Run = Callable[..., Ended]
FEEDBACK = {"initial_labels": 6, "raters_per_item": 2}
GATE = {"alpha": 0.99, "over_promise_limit": 0.9, "min_labels": 20, "max_labels": 20, "labels_per_look": 20}
ANA, BO = "ana@example.org", "b=o@example.org"
AS = ("--as", f"{ANA}=ana", "--as", f"{BO}=Bo")


@pytest.fixture
def run(command_line: CommandLine, tmp_path: Path) -> Run:
    return lambda *words, **options: command_line(tmp_path, *map(str, words), **options)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Olga is signed in and approves; ana and bo may label."""
    home = Home(tmp_path / "home")
    home.create()
    with home.ledger() as ledger:
        for name in ("ana", "bo"):
            ledger.people.token(name, [Role.LABELER], by="tester")
    let_in(home, "olga", [Role.APPROVER])
    return home


@pytest.fixture
def hall_at(home: Home, tmp_path: Path) -> Iterator[Callable[..., Hall]]:
    made = []

    def make(**changes: Any) -> Hall:
        feedback = {**FEEDBACK, **changes.pop("feedback", {})}
        gate = {**GATE, **changes.pop("gate", {})}
        made.append(
            Hall(str(home.database), tmp_path, root=home.artifact_root, feedback=feedback, gate=gate, **changes)
        )
        made[-1].time = datetime.now(UTC)
        made[-1].go_on()
        return made[-1]

    yield make
    for hall in made:
        hall.__exit__()


@pytest.fixture
def hall(hall_at: Callable[..., Hall]) -> Hall:
    """Waits for six labels of two people each."""
    return hall_at()


def both(choice: Choice, harm: Harm | None = None) -> Answers:
    return lambda item: {ANA: (choice, harm), BO: (Choice.TIE, None)}


def exported(run: Run, folder: Path, answers: Answers, form: str = "label-studio", campaign: str = "small") -> Path:
    for name in ("tasks.json", "labelled.json"):
        (folder / name).unlink(missing_ok=True)
    ended = run("labels", "tasks", campaign, "--format", form, "--out", "tasks.json")
    assert ended.code == 0, ended.stderr
    return label_there(folder / "tasks.json", form, answers, folder / "labelled.json")


def bring(
    run: Run, *words: Any, form: str = "label-studio", into: str = "small", who: tuple[str, ...] = AS, **around: str
) -> Ended:
    return run("labels", "import", "labelled.json", "--format", form, "--into", into, *who, *words, **around)


def batch_of(hall: Hall, name: str) -> Batch:
    found = hall.state.batch(name)
    assert found is not None
    return found


def head(hall: Hall) -> int:
    return hall.ledger.events(hall.name)[-1].seq


# --- the round trip ---------------------------------------------------------------------------------------------


def test_a_campaign_advances_on_labels_that_came_through_both_tools(run: Run, hall: Hall, tmp_path: Path) -> None:
    forms = iter(["label-studio", "argilla", "argilla", "label-studio"])
    seen = []
    while isinstance(command := hall.go_on(), AskForLabels):
        batch, form = command.batch, next(forms)

        def says(item: str, batch: Batch = batch) -> dict[str, tuple[Choice, Harm | None]]:
            first = not batch.candidate_first or batch.candidate_first[int(item.rpartition(".")[2])]
            return dict.fromkeys((ANA, BO), (Choice.FIRST if first else Choice.SECOND, None))

        exported(run, tmp_path, says, form)
        ended = bring(run, "--json", form=form)
        assert ended.code == 0, ended.stderr
        assert (ended.json["labels"], ended.json["left"]) == (2 * batch.count, 0)
        seen.append((batch.id, form))
        # What was imported is final: nothing is left open for which the gate would have to wait.
        assert not batch_of(hall, batch.id).open_words
    assert seen == [("initial", "label-studio"), ("s0.a0.gate", "argilla")]
    assert isinstance(command, AskForDecision)
    digest = str(command.attempt.candidate)
    assert run("review", "approve", "small", "--reason", "reads well", "--candidate", digest).code == 0
    hall.go_on()
    assert (hall.state.approved, hall.state.advances) == (digest, 1)
    assert run("ledger", "verify", "small").code == 0


@pytest.mark.parametrize("form", ["label-studio", "argilla"])
def test_every_kind_of_verdict_arrives_as_what_it_is(form: str, run: Run, hall: Hall, tmp_path: Path) -> None:
    said = [
        (Choice.FIRST, None), (Choice.SECOND, Harm.FIRST), (Choice.TIE, Harm.BOTH), (Choice.BOTH_BAD, Harm.SECOND),
        (Choice.SKIP, None), (Choice.SECOND, None),
    ]  # fmt: skip
    path = exported(run, tmp_path, lambda item: {ANA: said[int(item[-1])]}, form)
    records = json.loads(path.read_text())
    if form == "label-studio":
        records[0]["drafts"] = [{"result": []}]
    else:
        records[0]["suggestions"] = {"preference": {"value": "first"}}
    path.write_text(json.dumps(records))
    ended = bring(run, form=form, who=AS[:2])
    assert ended.code == 0, ended.stderr
    assert ended.stdout == "small: 6 labels of initial recorded (ana 6)\n"
    thing = "draft" if form == "label-studio" else "suggestion"
    assert f"passed over: 1 × {thing}\n" in ended.stderr
    assert "6 comparisons still lack verdicts" in ended.stderr
    labels = batch_of(hall, "initial").labels
    assert [(label.item, label.rater, label.choice, label.harm) for label in labels] == [
        (item, "ana", *verdict) for item, verdict in enumerate(said)
    ]


def test_the_ledger_tells_who_brought_them_and_the_person_whose_they_are(run: Run, hall: Hall, tmp_path: Path) -> None:
    import hashlib

    path = exported(run, tmp_path, both(Choice.FIRST))
    assert bring(run).code == 0
    stored = hall.ledger.events("small")[-1]
    body = parse(stored).body
    assert isinstance(body, LabelsRecorded)
    with Home(tmp_path / "home").ledger() as ledger:
        (olga,) = (row for row in ledger.people.list() if row.name == "olga")
    assert (stored.author, body.credential) == ("olga", olga.credentials[0].id)
    assert {label.rater for label in body.labels} == {"ana", "bo"}
    assert body.origin is not None
    assert (body.origin.format, body.origin.file) == ("label-studio", hashlib.sha256(path.read_bytes()).hexdigest())
    (brought,) = batch_of(hall, "initial").brought
    assert (brought.by, brought.labels) == ("olga", 12)


def test_a_file_of_ours_brings_them_too(run: Run, hall: Hall, tmp_path: Path) -> None:
    exported(run, tmp_path, both(Choice.SECOND))
    assert run("labels", "import", "labelled.json", "--format", "label-studio", "--out", "ours.jsonl").code == 0
    (tmp_path / "labelled.json").write_bytes((tmp_path / "ours.jsonl").read_bytes())
    assert bring(run, "--json", form="ratchet").json["labels"] == 12
    left = run("labels", "export", "small", "--format", "ratchet", "--out", "back.jsonl", "--json")
    assert left.json["labels"] == 12


def test_tasks_for_one_person_are_theirs_alone(run: Run, hall_at: Callable[..., Hall], tmp_path: Path) -> None:
    """Where more raters are named than an item wants, a lot draws whose words count at a gate."""
    from orchestrator.core.panels import asked_by_name

    hall = hall_at(feedback={"raters": ["ana", "bo"], "raters_per_item": 1})
    all_of(hall.desk("ana"), Choice.FIRST)
    hall.go_on()
    gate = batch_of(hall, "s0.a0.gate")
    for number, name in enumerate(("ana", "BO ")):
        assert run("labels", "tasks", "small", "--format", "argilla", "--out", f"{number}", "--for", name).code == 0
        items = [record["id"] for record in json.loads((tmp_path / f"{number}").read_text())]
        wanted = [item for item in range(20) if asked_by_name(gate, item, hall.settings) == (name.strip().lower(),)]
        assert items == [f"s0.a0.gate.{item}" for item in wanted]
    exported(run, tmp_path, lambda item: {ANA: (Choice.FIRST, None)})
    ended = bring(run, who=AS[:2])
    assert ended.code == 2
    assert f"{len(wanted)} bad records" in ended.stderr
    assert "is for bo, by lot" in ended.stderr
    ended = bring(run, "--skip-bad", "--json", who=AS[:2])
    assert (ended.json["labels"], ended.json["bad_rows"]) == (20 - len(wanted), len(wanted))


# --- once ---------------------------------------------------------------------------------------------------------


def test_a_dry_run_tells_all_and_writes_nothing(run: Run, hall: Hall, tmp_path: Path) -> None:
    exported(run, tmp_path, both(Choice.FIRST))
    before = head(hall)
    ended = bring(run, "--dry-run")
    assert (ended.code, ended.stdout) == (0, "small: 12 labels of initial would be recorded (ana 6, bo 6)\n")
    assert bring(run, "--dry-run", "--json").json == {
        "labels": 12, "items": 6, "by_person": {"ana": 6, "bo": 6}, "recorded_already": 0, "bad_rows": 0,
        "passed_over": {}, "left": 0, "into": "small", "batch": "initial", "by": "olga", "dry_run": True,
    }  # fmt: skip
    assert head(hall) == before


def test_twice_is_once_also_after_the_campaign_went_on(run: Run, hall: Hall, tmp_path: Path) -> None:
    exported(run, tmp_path, both(Choice.FIRST))
    assert bring(run).code == 0
    again = bring(run)
    assert (again.code, again.stdout) == (0, "small: nothing new; 12 recorded already\n")
    hall.go_on()
    assert batch_of(hall, "s0.a0.gate").count == 20
    assert bring(run, "--json").json["recorded_already"] == 12
    assert len(batch_of(hall, "initial").labels) == 12
    assert hall.types.count("labels_recorded") == 1


@pytest.mark.parametrize("point", ["ledger.before_commit", "ledger.after_commit"])
def test_killed_in_the_middle_each_label_stands_once(point: str, run: Run, hall: Hall, tmp_path: Path) -> None:
    exported(run, tmp_path, both(Choice.FIRST))
    killed = bring(run, RATCHET_FAILPOINT=f"{point}:kill@1")
    assert (killed.code, killed.stdout) == (-9, "")
    there = 12 if point == "ledger.after_commit" else 0
    assert len(batch_of(hall, "initial").labels) == there, "all or none"
    ended = bring(run, "--json")
    assert (ended.json["labels"], ended.json["recorded_already"]) == (12 - there, there)
    assert len(batch_of(hall, "initial").labels) == 12
    assert run("ledger", "verify", "small").code == 0


def test_a_later_export_of_the_same_project_brings_what_is_new(run: Run, hall: Hall, tmp_path: Path) -> None:
    exported(run, tmp_path, lambda item: {ANA: (Choice.FIRST, None)} if int(item[-1]) < 4 else {})
    assert bring(run, "--json").json["labels"] == 4
    label_there(tmp_path / "tasks.json", "label-studio", both(Choice.FIRST), tmp_path / "labelled.json")
    found = bring(run, "--json").json
    assert (found["labels"], found["recorded_already"], found["by_person"]) == (8, 4, {"ana": 2, "bo": 6})
    assert [(one.by, one.labels) for one in batch_of(hall, "initial").brought] == [("olga", 4), ("olga", 8)]


# --- who may --------------------------------------------------------------------------------------------------------


def test_only_an_approver_brings_labels_in(run: Run, hall: Hall, home: Home, tmp_path: Path) -> None:
    exported(run, tmp_path, both(Choice.FIRST))
    with home.ledger() as ledger:
        secret, _ = ledger.people.token("ana", [Role.LABELER], by="tester")
        elsewhere, _ = ledger.people.token("eve", [Role.APPROVER], campaigns=["other"], by="tester")
    before = head(hall)
    for token, name in ((secret, "ana"), (elsewhere, "eve")):
        ended = bring(run, RATCHET_TOKEN=token)
        assert (ended.code, f"{name} is not invited to small as approver" in ended.stderr) == (1, True)
    ended = bring(run, RATCHET_TOKEN="rtc_" + "x" * 43)
    assert (ended.code, "not known here" in ended.stderr) == (1, True)
    assert head(hall) == before


@pytest.mark.parametrize(
    ("who", "why"),
    [
        ((), "say who the file's raters are"),
        (("--as", "ana"), "expected RATER=PERSON"),
        (("--as", "x=nobody-known"), "nobody of that name was let in here"),
        (("--as", "x=gone"), "gone was shut out"),
        (("--as", "x=olga"), "olga may not label small"),
        (("--as", "x=far"), "far may not label small"),
        (("--as", "x=ana", "--as", "x=bo"), "the file's 'x' is ana already"),
        (("--as", "x=\x1b[2J"), "is no name"),
    ],
)
def test_raters_are_people_who_may_label(
    who: tuple[str, ...], why: str, run: Run, hall: Hall, home: Home, tmp_path: Path
) -> None:
    with home.ledger() as ledger:
        ledger.people.token("gone", [Role.LABELER], by="tester")
        ledger.people.revoke("gone", by="tester")
        ledger.people.token("far", [Role.LABELER], campaigns=["other"], by="tester")
    (tmp_path / "labelled.json").write_text("[]")
    ended = bring(run, who=who)
    assert (ended.code, why in ended.stderr, ended.stdout) == (2, True, ""), ended.stderr
    assert len(ended.stderr.splitlines()) <= 2
    assert "\x1b" not in ended.stderr


def test_in_a_home_without_people_a_dry_run_lets_nobody_in(run: Run, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    with Hall(str(home.database), tmp_path, root=home.artifact_root) as hall:
        hall.go_on()
        exported(run, tmp_path, lambda item: {ANA: (Choice.TIE, None)})
        ended = bring(run, "--reviewer", "Ana", "--dry-run", who=AS[:2])
        assert (ended.code, "a dry run lets nobody in" in ended.stderr) == (1, True)
        assert not hall.ledger.people.any()
        ended = bring(run, "--reviewer", "Ana", "--json", who=AS[:2])
        assert (ended.code, ended.json["labels"], ended.json["by"]) == (0, 6, "ana"), ended.stderr


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--format", "ratchet"), "--out FILE, or --into NAME"),
        (("--format", "ratchet", "--out", "x", "--into", "small"), "--out FILE, or --into NAME"),
        (("--format", "ratchet", "--out", "x", "--dry-run"), "are for --into"),
        (("--format", "ratchet", "--out", "x", "--as", "a=b"), "are for --into"),
        (("--format", "trl", "--into", "small", *AS), "--into takes ratchet, label-studio, argilla"),
        (("--format", "ratchet", "--into", "small", "--rater", "ana", *AS), "--as names the people"),
        (("--format", "ratchet", "--into", "nowhere", *AS), "there is no campaign 'nowhere'"),
        (("--format", "ratchet", "--into", "small", *AS), "name a file that can be read"),
    ],
)
def test_what_cannot_be_is_one_line(words: tuple[str, ...], why: str, run: Run, hall: Hall, tmp_path: Path) -> None:
    ended = run("labels", "import", "absent.json", *words)
    assert (ended.code, why in ended.stderr, ended.stdout) == (2, True, ""), ended.stderr
    assert len(ended.stderr.splitlines()) <= 2


# --- rows ---------------------------------------------------------------------------------------------------------


def test_bad_rows_are_told_and_nothing_is_recorded(run: Run, hall: Hall, tmp_path: Path) -> None:
    path = exported(run, tmp_path, both(Choice.FIRST))
    records = json.loads(path.read_text())
    del records[1]["data"]["ratchet_texts"]
    records[1]["data"]["response_2"] += " "
    records[2]["data"]["item"] = "initial.99"
    records[3]["annotations"][0]["completed_by"]["email"] = "eve@\x1b[2J"
    records[4]["annotations"][0]["result"] = []
    records[5]["data"]["ratchet_sealed"] = "0" * 64
    path.write_text(json.dumps(records))
    ended = bring(run)
    assert (ended.code, ended.stdout) == (2, "")
    assert ended.stderr.splitlines() == [
        "error: labelled.json: 8 bad records; nothing was imported; mend them, or leave them out with --skip-bad",
        *2 * ["  record 2: its texts are not those of initial.1 on the ledger; what was labelled is unknown"],
        *2 * ["  record 3: campaign small never asked for an item 'initial.99'"],
        "  record 4: nobody said who 'eve@\\x1b[2J' is; --as 'eve@\\x1b[2J=PERSON' does",
        "  record 5: an annotation has 0 pairwise or choices results; one is wanted (--question names a control)",
        *2 * ["  record 6: another campaign asked for it, not small on this ledger"],
    ]
    assert not batch_of(hall, "initial").labels
    assert bring(run, "--dry-run").code == 2
    ended = bring(run, "--skip-bad", "--json")
    assert (ended.code, ended.json["labels"], ended.json["bad_rows"]) == (0, 3, 8)
    assert [(label.item, label.rater) for label in batch_of(hall, "initial").labels] == [
        (0, "ana"), (0, "bo"), (3, "bo"),
    ]  # fmt: skip


def test_of_many_bad_rows_the_first_are_told(run: Run, hall_at: Callable[..., Hall], tmp_path: Path) -> None:
    hall_at(feedback={"initial_labels": 30})
    exported(run, tmp_path, lambda item: {"eve": (Choice.FIRST, None)})
    ended = bring(run)
    assert ended.code == 2
    assert len(ended.stderr.splitlines()) == 1 + 20 + 1
    assert "and 10 more" in ended.stderr


def test_a_twin_campaign_s_file_is_refused(run: Run, hall_at: Callable[..., Hall], tmp_path: Path) -> None:
    """The very same texts under the very same names, asked by another campaign."""
    hall, twin = hall_at(), hall_at(name="twin")
    assert batch_of(hall, "initial").comparisons == batch_of(twin, "initial").comparisons
    exported(run, tmp_path, both(Choice.FIRST), campaign="twin")
    ended = bring(run)
    assert (ended.code, "12 bad records" in ended.stderr, "another campaign asked" in ended.stderr) == (2, True, True)
    assert bring(run, "--json", into="twin").json["labels"] == 12
