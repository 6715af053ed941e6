"""Who speaks at a terminal: letting people in, tokens, and words that only their own holder can say."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from desks import all_of, let_in
from hall import Hall
from small_campaigns import CommandLine, Ended

from orchestrator.core import events as ev
from orchestrator.core.records import Choice, Label, Role
from orchestrator.home import Home
from orchestrator.runner import draft
from orchestrator.store.ledger import Ledger

SECRET = re.compile(r"rt[ci]_[A-Za-z0-9_-]{43}")
Run = Callable[..., Ended]


@pytest.fixture
def run(command_line: CommandLine, tmp_path: Path) -> Run:
    return lambda *words, **options: command_line(tmp_path, *words, **options)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """With a campaign that waits for four labels of two people each."""
    home = Home(tmp_path / "home")
    home.create()
    hall = Hall(str(home.database), tmp_path, root=home.artifact_root, feedback=FEEDBACK)
    with hall:
        hall.time = datetime.now(UTC)
        hall.go_on()
    return home


FEEDBACK = {"initial_labels": 4, "raters_per_item": 2, "guidelines": "Prefer what is true.\x1b[2J"}


def state_of(home: Home) -> Any:
    from orchestrator.runner import read_state_at

    with home.ledger() as ledger:
        return read_state_at(ledger, "small")[0]


def invited(run: Run, name: str, *roles: str) -> dict[str, Any]:
    options = [word for role in roles for word in ("--role", role)]
    ended = run("review", "invite", name, *options, "--json")
    assert ended.code == 0, ended.stderr
    document = ended.json
    assert isinstance(document, dict)
    return document


def later(home: Home, **much: float) -> Ledger:
    return Ledger.open(home.database, now=lambda: datetime.now(UTC) - timedelta(**much))


# --- letting in -----------------------------------------------------------------------------------------------


def test_an_invitation_is_a_link_whose_code_no_server_sees(run: Run, home: Home) -> None:
    document = invited(run, "Ana", "labeler", "approver")
    link, _, code = document["link"].partition("#")
    assert link == "http://127.0.0.1:8321/join"
    assert code == document["code"]
    assert SECRET.fullmatch(code)
    assert (document["person"], document["roles"]) == ("ana", ["labeler", "approver"])
    expires = datetime.fromisoformat(document["expires"]) - datetime.now(UTC)
    assert timedelta(days=6.9) < expires < timedelta(days=7)
    told = run("review", "invite", "bo", "--role", "labeler", "--url", "https://review.example/", "--days", "3")
    assert told.code == 0
    assert re.fullmatch(r"https://review\.example/join#rti_[A-Za-z0-9_-]{43}\n", told.stdout)
    assert "for bo alone, good for one use within 3 days" in told.stderr


@pytest.mark.parametrize("whole_link", [True, False])
def test_login_turns_an_invitation_into_a_token_once(run: Run, home: Home, whole_link: bool) -> None:
    document = invited(run, "Ana", "labeler")
    given = document["link" if whole_link else "code"]
    ended = run("review", "login", stdin=f"{given}\n")
    assert ended.code == 0, ended.stderr
    assert ended.stdout.startswith("you are ana, labeler everywhere; the token is in ")
    path = Path(ended.stdout.strip().rpartition(" ")[2])
    assert path.parent == home.tokens
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.tokens.stat().st_mode) == 0o700
    assert SECRET.fullmatch(path.read_text())
    assert not SECRET.search(ended.stdout + ended.stderr)
    labelled = run("review", "label", "small", stdin="1\n")
    assert labelled.code == 0, labelled.stderr
    assert "recorded 1 label of ana" in labelled.stderr
    again = run("review", "login", "--code", given)
    assert (again.code, again.stderr) == (1, "error: this invitation code was used already; ask for another one\n")
    (label,) = state_of(home).batches[0].labels
    assert label.rater == "ana"


def test_a_token_for_a_program_is_printed_once_and_alone(run: Run, home: Home) -> None:
    ended = run("review", "invite", "robo", "--role", "labeler", "--campaign", "small", "--token")
    secret = ended.stdout.strip()
    assert (ended.code, ended.stdout) == (0, f"{secret}\n")
    assert SECRET.fullmatch(secret)
    assert secret.startswith("rtc_")
    assert run("review", "label", "small", stdin="1\n", RATCHET_TOKEN=secret).code == 0
    refused = run("review", "pause", "small", "--reason", "lunch", RATCHET_TOKEN=secret)
    assert (refused.code, refused.stderr) == (1, "error: robo is not invited to small as approver\n")
    document = run("review", "invite", "robo", "--role", "labeler", "--token", "--json").json
    assert document.keys() == {"person", "roles", "token"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["gate", "--role", "labeler"], "it names what is no person"),
        (["", "--role", "labeler"], "is no name"),
        (["ana"], "--role"),
        (["ana", "--role", "boss"], "boss"),
        (["ana", "--role", "labeler", "--campaign", "nobody"], "there is no campaign 'nobody'"),
        (["ana", "--role", "labeler", "--days", "0"], "--days"),
    ],
)
def test_an_invitation_that_means_nothing_is_refused(run: Run, home: Home, words: list[str], told: str) -> None:
    ended = run("review", "invite", *words)
    assert ended.code == 2
    assert told in ended.stderr
    assert run("review", "people", "--json").json == []


# --- who speaks -----------------------------------------------------------------------------------------------


def test_the_first_name_given_is_the_first_person_and_the_next_one_has_to_be_let_in(run: Run, home: Home) -> None:
    nobody = run("review", "label", "small", stdin="1\n")
    assert (nobody.code, nobody.stderr) == (
        1,
        "error: nobody was let in here yet: say who you are with --reviewer NAME\n",
    )
    assert run("review", "label", "nothing", "--reviewer", "Ann").code == 2
    assert run("review", "label", "small", "--reviewer", "gate").code == 2
    assert not home.tokens.exists()
    first = run("review", "label", "small", "--reviewer", "Ann", stdin="1\n")
    assert first.code == 0, first.stderr
    assert "ann is the first person of this home and may do everything here" in first.stderr
    assert run("review", "label", "small", stdin="1\n").code == 0, "her token is used where it is the only one"
    refused = run("review", "label", "small", "--reviewer", "bob", stdin="1\n")
    assert refused.code == 1
    assert "nothing shows who you are: have somebody run `ratchet review invite 'bob' --role labeler`" in refused.stderr
    assert {label.rater for label in state_of(home).batches[0].labels} == {"ann"}
    (ann,) = run("review", "people", "--json").json
    assert {grant["role"] for grant in ann["grants"]} == {"labeler", "approver", "auditor"}


def test_nobody_speaks_in_anothers_name(run: Run, home: Home) -> None:
    secret = let_in(home, "bob", [Role.LABELER])
    refused = run("review", "label", "small", "--reviewer", "ann", stdin="1\n", RATCHET_TOKEN=secret)
    assert (refused.code, refused.stderr) == (
        1,
        "error: the token in use is bob's, not ann's; nobody speaks for others\n",
    )
    assert state_of(home).labels.total == 0


def test_of_several_tokens_one_is_named(run: Run, home: Home) -> None:
    for name in ("ann", "bob"):
        let_in(home, name)
    several = run("review", "label", "small", stdin="1\n")
    assert several.code == 2
    assert "this home keeps tokens of ann, bob; say which with --reviewer" in several.stderr
    assert run("review", "label", "small", "--reviewer", "BOB", stdin="1\n").code == 0
    assert [label.rater for label in state_of(home).batches[0].labels] == ["bob"]


@pytest.mark.parametrize(
    ("secret", "told"),
    [
        ("rtc_" + "x" * 43, "this token is not known here"),
        ("something", "this token is not known here"),
        ("rtc_é", "this token is not known here"),
    ],
)
def test_a_token_that_nobody_issued_opens_nothing(run: Run, home: Home, secret: str, told: str) -> None:
    ended = run("review", "label", "small", stdin="1\n", RATCHET_TOKEN=secret)
    assert ended.code == 1
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr
    assert secret not in ended.stderr


def test_a_token_ends_by_time_by_logout_and_by_revoking(run: Run, home: Home) -> None:
    with later(home, days=8) as ledger:
        old, _ = ledger.people.token("ann", [Role.LABELER], by="tester", valid=timedelta(days=7))
        code = ledger.people.invite("ann", [Role.LABELER], by="tester").secret
    expired = run("review", "label", "small", RATCHET_TOKEN=old)
    assert (expired.code, expired.stderr) == (1, "error: this token has expired; ask for an invitation\n")
    expired = run("review", "login", RATCHET_INVITATION=code)
    assert (expired.code, expired.stderr) == (1, "error: this invitation code has expired; ask for an invitation\n")

    ann, bob = let_in(home, "ann"), let_in(home, "bob")
    ended = run("review", "logout", "--reviewer", "ann")
    assert ended.code == 0
    assert re.fullmatch(r"ann's token c-[0-9a-f]{8} is ended\n", ended.stdout)
    assert [path.read_text() for path in home.tokens.iterdir()] == [bob]
    revoked = run("review", "label", "small", RATCHET_TOKEN=ann)
    assert (revoked.code, revoked.stderr) == (1, "error: this token was revoked; ask for an invitation\n")

    assert run("review", "label", "small", stdin="1\n").code == 0
    assert run("review", "revoke", "Bob").stdout == "Bob is revoked\n"
    assert run("review", "label", "small", stdin="1\n").code == 1
    assert state_of(home).labels.total == 1, "what bob said stays"
    bob_row = next(row for row in run("review", "people", "--json").json if row["name"] == "bob")
    assert (bob_row["credentials"], bob_row["grants"]) == ([], [])
    assert bob_row["revoked"] is not None


def test_one_token_is_revoked_by_its_id(run: Run, home: Home) -> None:
    first, second = let_in(home, "ann"), let_in(home, "ann")
    (ann,) = run("review", "people", "--json").json
    assert [held["kind"] for held in ann["credentials"]] == ["token", "token"]
    assert run("review", "revoke", "--credential", ann["credentials"][0]["id"]).code == 0
    assert run("review", "label", "small", stdin="1\n", RATCHET_TOKEN=first).code == 1
    assert run("review", "label", "small", stdin="1\n", RATCHET_TOKEN=second).code == 0
    assert run("review", "revoke", "--credential", "c-00000000").code == 2
    assert run("review", "revoke", "nobody").code == 2
    assert run("review", "revoke").code == 2
    assert run("review", "revoke", "ann", "--credential", "c-00000000").code == 2


def test_no_secret_is_kept_or_shown(run: Run, home: Home) -> None:
    secrets = {invited(run, "ana", "labeler")["code"], invited(run, "bo", "approver")["code"], let_in(home, "cy")}
    login = run("review", "login", "--code", invited(run, "dee", "labeler")["code"])
    assert login.code == 0
    secrets |= {path.read_text() for path in home.tokens.iterdir()}
    assert len(secrets) == 4
    assert run("review", "label", "small", "--reviewer", "cy", stdin="1\n").code == 0
    told = run("review", "people", "--json").stdout + run("review", "people").stdout
    told += run("ledger", "show", "small", "--json").stdout
    files = [path for path in home.root.rglob("*") if path.is_file() and path.parent != home.tokens]
    assert home.database in files
    kept = b"".join(path.read_bytes() for path in files)
    for secret in secrets:
        assert secret not in told
        assert secret.encode() not in kept
        assert secret[4:].encode() not in kept
    assert not SECRET.search(told)
    assert re.search(r"c-[0-9a-f]{8}", told), "words name the credential"


def test_people_are_listed(run: Run, home: Home) -> None:
    assert "nobody was let in yet" in run("review", "people").stdout
    let_in(home, "ann", [Role.LABELER])
    invited(run, "bo", "approver")
    assert run("review", "revoke", "bo").code == 0
    listed = run("review", "people").stdout
    assert re.search(r"ann +labeler everywhere +token c-[0-9a-f]{8} until \d{4}-\d\d-\d\d", listed)
    assert re.search(r"bo +shut out", listed)


# --- words in the terminal ------------------------------------------------------------------------------------


def test_u_takes_the_last_word_back_and_asks_again(run: Run, home: Home) -> None:
    let_in(home, "ann")
    ended = run("review", "label", "small", stdin="u\n1\nu\n3\nq\n")
    assert ended.code == 0, ended.stderr
    assert "you have said nothing yet" in ended.stderr
    assert "taken back" in ended.stderr
    assert "recorded 1 label of ann" in ended.stderr
    (label,) = state_of(home).batches[0].labels
    assert (label.item, label.choice) == (0, Choice.TIE)
    numbers = [line for line in ended.stdout.splitlines() if line.startswith("your comparison")]
    assert numbers == [f"your comparison {number}" for number in (1, 1, 2, 1, 2)]


def test_who_is_shut_out_says_no_more_at_an_open_terminal(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from orchestrator.cli import review
    from orchestrator.errors import UnauthenticatedError

    let_in(home, "ann")
    keys = iter("11")

    def key() -> str:
        if state_of(home).labels.total == 1:
            with home.ledger() as ledger:
                ledger.people.revoke("ann", by="tester")
        return next(keys)

    monkeypatch.setattr(review, "_key", key)
    ended = CliRunner().invoke(review.label, ["small"], obj=home)
    assert isinstance(ended.exception, UnauthenticatedError)
    assert "revoked" in str(ended.exception)
    assert state_of(home).labels.total == 1


def test_d_marks_what_only_one_says_and_g_shows_the_guidelines(run: Run, home: Home) -> None:
    let_in(home, "ann")
    ended = run("review", "label", "small", stdin="d\ng\n?\nq\n")
    assert ended.code == 0, ended.stderr
    # The two responses are "0, one" and "0, two".
    assert "0, «one»" in ended.stdout
    assert "0, «two»" in ended.stdout
    assert "Prefer what is true.\\x1b[2J" in ended.stdout
    assert "\x1b" not in ended.stdout + ended.stderr
    assert ended.stderr.count("u undo, d differences, g guidelines") == 2, "at the start, and for help"
    assert state_of(home).labels.total == 0


def test_pausing_stops_the_questions_until_labelling_is_resumed(run: Run, home: Home) -> None:
    let_in(home, "eve", [Role.APPROVER, Role.LABELER])
    assert run("review", "pause", "small").code == 2
    paused = run("review", "pause", "small", "--reason", "new guidelines")
    assert (paused.code, "go on with: ratchet review resume small" in paused.stdout) == (0, True)
    told = run("review", "label", "small", stdin="1\n")
    assert (told.code, told.stderr) == (2, "error: labelling of small is paused: new guidelines\n")
    assert run("review", "resume", "small").code == 0
    assert run("review", "label", "small", stdin="1\n").code == 0
    assert state_of(home).labels.total == 1


def test_disagreements_are_listed_and_settled(run: Run, home: Home, tmp_path: Path) -> None:
    let_in(home, "eve", [Role.APPROVER])
    with home.ledger() as ledger:
        from orchestrator.review.desk import Desk
        from orchestrator.review.identity import Person
        from orchestrator.review.office import Office

        office = Office(ledger, home.artifacts(), "small")
        for name, choice in (("ann", Choice.FIRST), ("bob", Choice.SECOND)):
            all_of(Desk(office, Person(name, f"c-{name}", frozenset({(Role.LABELER, None)}))), choice)
    found = run("review", "settle", "small", "--json").json
    assert [one["item"] for one in found] == [f"initial.{n}" for n in range(4)]
    assert found[1]["words"] == [{"rater": "ann", "choice": "first"}, {"rater": "bob", "choice": "second"}]
    assert (found[1]["response_1"], found[1]["settled"]) == ("1, one", [])
    settle = ("review", "settle", "small", "--item", "initial.1")
    assert run(*settle, "--choice", "tie").code == 2
    assert run("review", "settle", "small", "--item", "1", "--choice", "tie", "--reason", "x").code == 2
    assert run("review", "settle", "small", "--item", "initial.9", "--choice", "tie", "--reason", "x").code == 2
    assert run(*settle, "--choice", "tie", "--reason", "both are right").stdout == "initial.1 is settled: tie\n"
    listed = run("review", "settle", "small")
    assert "4 comparisons that raters saw differently" in listed.stderr
    assert "initial.1  ann: first, bob: second; settled: tie" in listed.stdout
    assert state_of(home).batches[0].teaches(2)[1] == (Choice.TIE,)
    secret = let_in(home, "lea", [Role.LABELER])
    refused = run("review", "settle", "small", RATCHET_TOKEN=secret)
    assert (refused.code, refused.stderr) == (1, "error: lea is not invited to small as approver\n")
    assert json.loads(run("review", "settle", "small", "--reviewer", "eve", "--json").stdout)[-1]["settled"] == [
        {"by": "eve", "choice": "tie", "reason": "both are right"}
    ]


def test_verify_names_a_word_that_no_token_stands_behind(run: Run, home: Home) -> None:
    let_in(home, "ann")
    assert run("review", "label", "small", stdin="1\n2\n").code == 0
    assert run("ledger", "verify", "small", "--json").json["ok"] is True
    label = Label(item=3, rater="ann", choice=Choice.TIE)
    with home.ledger() as ledger:
        body = ev.LabelsRecorded(batch="initial", labels=(label,), credential="c-0badf00d")
        (stored,) = ledger.append("small", [draft(body, "forged", author="ann")], epoch=None)
    ended = run("ledger", "verify", "small", "--json")
    assert ended.code == 5
    what = "it names the token c-0badf00d, and nobody was ever given that"
    assert ended.json["problems"] == [{"where": f"event {stored.seq}", "what": what}]
