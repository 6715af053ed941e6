"""People and their secrets, in both databases."""

from __future__ import annotations

import hashlib
import pickle
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.core.records import Role
from orchestrator.errors import UnauthenticatedError, UsageError
from orchestrator.store.ledger import Ledger

DAY = timedelta(days=1)


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opened(where: str, clock: Clock) -> Iterator[Ledger]:
    with Ledger.open(where, now=clock) as ledger:
        ledger.create_campaign("memo")
        yield ledger


def why(call: Callable[[], object]) -> str:
    with pytest.raises(UnauthenticatedError) as refused:
        call()
    return refused.value.why


def everything_stored(ledger: Ledger) -> str:
    with ledger._database.read() as connection:
        tables = ("people", "grants", "credentials", "people_log")
        return repr([connection.exec_driver_sql(f"SELECT * FROM {table}").all() for table in tables])


def test_from_invitation_to_session(opened: Ledger) -> None:
    people = opened.people
    assert not people.any()
    invited = people.invite(" ＡNN ", [Role.LABELER], campaigns=["memo"], by="Bo")
    assert people.any()
    assert invited.person_name == "ann"
    assert re.fullmatch(r"rti_[A-Za-z0-9_-]{43}", invited.secret)
    session, ann = people.redeem(invited.secret)
    assert re.fullmatch(r"rtc_[A-Za-z0-9_-]{43}", session)
    assert (ann.name, ann.grants) == ("ann", {(Role.LABELER, "memo")})
    assert re.fullmatch(r"c-[0-9a-f]{8}", ann.credential)
    assert people.authenticate(session) == ann
    assert ann.may(Role.LABELER, "memo")
    assert not ann.may(Role.LABELER, "other")
    assert not ann.may(Role.APPROVER, "memo")


def test_nothing_stored_or_shown_holds_a_secret(opened: Ledger) -> None:
    people = opened.people
    invited = people.invite("ann", [Role.LABELER], by="bo")
    session, ann = people.redeem(invited.secret)
    token, _ = people.token("cyd", [Role.AUDITOR], by="bo")
    seen = everything_stored(opened) + repr((invited, ann, people.list(), people.log()))
    for secret in (invited.secret, session, token):
        assert secret[4:] not in seen
        assert hashlib.sha256(secret.encode()).hexdigest() in seen
    for refused in (invited.secret, "rti_" + "x" * 43, session + "x"):
        with pytest.raises(UnauthenticatedError) as error:
            people.redeem(refused)
        assert refused not in "".join(traceback.format_exception(error.value, chain=True)).replace(repr(refused), "")


def test_a_code_works_once(opened: Ledger, clock: Clock) -> None:
    code = opened.people.invite("ann", [Role.LABELER], by="bo").secret
    opened.people.redeem(code)
    assert why(lambda: opened.people.redeem(code)) == "used"
    clock.now += 365 * DAY
    assert why(lambda: opened.people.redeem(code)) == "used"


def test_a_code_that_many_browsers_send_at_once_opens_one_session(opened: Ledger) -> None:
    code = opened.people.invite("ann", [Role.LABELER], by="bo").secret

    def redeem(_: int) -> str:
        try:
            return opened.people.redeem(code)[0]
        except UnauthenticatedError as error:
            return error.why

    with ThreadPoolExecutor(8) as browsers:
        got = list(browsers.map(redeem, range(8)))
    assert sorted(answer == "used" for answer in got) == [False] + [True] * 7
    (session,) = set(got) - {"used"}
    assert opened.people.authenticate(session).name == "ann"


def test_a_code_that_processes_send_at_once_opens_one_session(where: str) -> None:
    sender = """
import sys
from orchestrator.errors import UnauthenticatedError
from orchestrator.store.ledger import Ledger
try:
    Ledger.open(sys.argv[1]).people.redeem(sys.argv[2])
    print("opened")
except UnauthenticatedError as error:
    print(error.why)
"""
    with Ledger.open(where) as ledger:
        code = ledger.people.invite("ann", [Role.LABELER], by="bo").secret
        senders = [
            subprocess.Popen([sys.executable, "-c", sender, where, code], stdout=subprocess.PIPE, text=True)
            for _ in range(3)
        ]
        told = [process.communicate(timeout=60)[0].strip() for process in senders]
    assert sorted(told) == ["opened", "used", "used"]


@pytest.mark.parametrize(("after", "expected"), [(7 * DAY - timedelta(microseconds=1), None), (7 * DAY, "expired")])
def test_a_code_runs_out(opened: Ledger, clock: Clock, after: timedelta, expected: str | None) -> None:
    invited = opened.people.invite("ann", [Role.LABELER], by="bo", valid=7 * DAY)
    assert invited.expires == clock.now + 7 * DAY
    clock.now += after
    if expected is None:
        opened.people.redeem(invited.secret)
    else:
        assert why(lambda: opened.people.redeem(invited.secret)) == expected


def test_sessions_and_tokens_run_out(opened: Ledger, clock: Clock) -> None:
    session, _ = opened.people.redeem(opened.people.invite("ann", [Role.LABELER], by="bo").secret, valid=2 * DAY)
    token, _ = opened.people.token("ann", [Role.LABELER], by="bo", valid=3 * DAY)
    clock.now += 2 * DAY
    assert why(lambda: opened.people.authenticate(session)) == "expired"
    assert opened.people.authenticate(token).name == "ann"
    clock.now += DAY
    assert why(lambda: opened.people.authenticate(token)) == "expired"


@pytest.mark.parametrize("secret", ["", "rtc_", "rtc_" + "A" * 43, "rti_" + "A" * 43, "x" * 100_000, "rtc_é\0\ud800"])
def test_what_was_never_given_is_unknown(opened: Ledger, secret: str) -> None:
    assert why(lambda: opened.people.authenticate(secret)) == "unknown"
    assert why(lambda: opened.people.redeem(secret)) == "unknown"
    opened.people.end_session(secret)


def test_a_code_is_no_session_and_a_session_no_code(opened: Ledger) -> None:
    code = opened.people.invite("ann", [Role.LABELER], by="bo").secret
    assert why(lambda: opened.people.authenticate(code)) == "unknown"
    session, _ = opened.people.redeem(code)
    assert why(lambda: opened.people.redeem(session)) == "unknown"


def test_whoever_is_revoked_is_out_at_once(opened: Ledger) -> None:
    people = opened.people
    session, _ = people.redeem(people.invite("ann", [Role.LABELER], by="bo").secret)
    token, _ = people.token("ann", [Role.APPROVER], by="bo")
    still_open = people.invite("ann", [Role.LABELER], by="bo").secret
    others, _ = people.token("cyd", [Role.LABELER], by="bo")
    people.revoke("ANN", by="bo")
    assert [why(lambda secret=secret: people.authenticate(secret)) for secret in (session, token)] == ["revoked"] * 2
    assert why(lambda: people.redeem(still_open)) == "revoked"
    assert people.authenticate(others).name == "cyd"
    ann = people.list()[0]
    assert (ann.name, ann.grants, ann.credentials) == ("ann", frozenset(), ())
    assert ann.revoked is not None
    # Whoever comes back begins anew: the old secrets stay closed, the old roles are gone.
    _, back = people.redeem(people.invite("ann", [Role.AUDITOR], by="bo").secret)
    assert back.grants == {(Role.AUDITOR, None)}
    assert why(lambda: people.authenticate(session)) == "revoked"
    assert people.list()[0].revoked is None


def test_one_credential_is_revoked_alone(opened: Ledger) -> None:
    people = opened.people
    laptop, at_laptop = people.token("ann", [Role.LABELER], by="bo")
    desk, _ = people.token("ann", [Role.LABELER], by="bo")
    people.revoke_credential(at_laptop.credential, by="bo")
    people.revoke_credential(at_laptop.credential, by="bo")
    assert why(lambda: people.authenticate(laptop)) == "revoked"
    assert people.authenticate(desk).name == "ann"
    assert [row.what for row in people.log()].count(f"revoked token {at_laptop.credential}") == 1
    for unknown in (lambda: people.revoke_credential("c-00000000", by="bo"), lambda: people.revoke("dan", by="bo")):
        with pytest.raises(UsageError, match="ratchet review people"):
            unknown()


def test_logging_out_ends_one_session(opened: Ledger) -> None:
    people = opened.people
    first, _ = people.redeem(people.invite("ann", [Role.LABELER], by="bo").secret)
    second, _ = people.redeem(people.invite("ann", [Role.LABELER], by="bo").secret)
    people.end_session(first)
    assert why(lambda: people.authenticate(first)) == "revoked"
    assert people.authenticate(second).name == "ann"


def test_granting_again_adds(opened: Ledger) -> None:
    people = opened.people
    token, _ = people.token("ann", [Role.LABELER], campaigns=["memo"], by="bo")
    people.invite("Ann", [Role.LABELER, Role.AUDITOR], campaigns=["memo", "sums"], by="bo")
    _, ann = people.token("ann", [Role.LABELER], by="bo")
    expected = {
        (Role.LABELER, "memo"),
        (Role.LABELER, "sums"),
        (Role.AUDITOR, "memo"),
        (Role.AUDITOR, "sums"),
        (Role.LABELER, None),
    }
    assert ann.grants == people.authenticate(token).grants == people.list()[0].grants == expected
    assert ann.may(Role.LABELER, "anything")


@pytest.mark.parametrize(
    "name",
    ["gate", "Protocol", "CONTROLLER", "gold", "simulated-0", "campaign", "", " ", "a\0b", "a\u202eb", "x" * 201],
)
def test_names_that_nobody_can_have(opened: Ledger, name: str) -> None:
    for call in (opened.people.invite, opened.people.token):
        with pytest.raises(UsageError):
            call(name, [Role.LABELER], by="bo")
    assert not opened.people.any()


def test_what_cannot_be_granted(opened: Ledger) -> None:
    for roles, campaigns, valid in (
        ([], [], DAY),
        ([Role.LABELER], ["../x"], DAY),
        ([Role.LABELER], [""], DAY),
        ([Role.LABELER], [], timedelta(0)),
    ):
        with pytest.raises(UsageError):
            opened.people.invite("ann", roles, campaigns=campaigns, by="bo", valid=valid)
    with pytest.raises(UsageError):
        opened.people.invite("ann", [Role.LABELER], by="\0")
    assert not opened.people.any()
    assert opened.people.log() == ()


def test_every_change_is_noted(opened: Ledger, clock: Clock) -> None:
    people = opened.people
    code = people.invite("ann", [Role.LABELER], campaigns=["memo"], by="Bo").secret
    (held,) = people.list()[0].credentials
    assert (held.kind, held.created, held.expires) == ("invitation", clock.now, clock.now + 7 * DAY)
    clock.now += DAY
    _, ann = people.redeem(code, kind="token")
    people.revoke("ann", by="bo")
    assert [(row.time.day, row.author, row.person, row.what) for row in people.log()] == [
        (1, "bo", "ann", f"invited as labeler of memo; code {held.id}"),
        (2, "ann", "ann", f"turned code {held.id} into token {ann.credential}"),
        (2, "bo", "ann", "revoked, with every credential and role"),
    ]


REDEEM = """
import os, sys
from orchestrator.errors import UnauthenticatedError
from orchestrator.store.ledger import Ledger
with Ledger.open(sys.argv[1]) as ledger:
    try:
        session, _ = ledger.people.redeem(sys.argv[2])
        print("opened")
    except UnauthenticatedError as error:
        print(error.why)
"""


@pytest.mark.parametrize(
    ("fail_point", "left"), [("people.before_commit", "invitation"), ("people.after_commit", "session")]
)
def test_kill_while_a_code_is_redeemed(where: str, fail_point: str, left: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either nothing happened and the code still works, or it was used and one session stands."""
    with Ledger.open(where) as ledger:
        code = ledger.people.invite("ann", [Role.LABELER], by="bo").secret
        monkeypatch.setenv("RATCHET_FAILPOINT", f"{fail_point}:kill@1")
        killed = subprocess.run([sys.executable, "-c", REDEEM, where, code], capture_output=True, timeout=60)
        assert (killed.returncode, killed.stdout) == (-9, b"")
        monkeypatch.delenv("RATCHET_FAILPOINT")
        assert [row.kind for row in ledger.people.list()[0].credentials] == [left]
        again = subprocess.run([sys.executable, "-c", REDEEM, where, code], capture_output=True, timeout=60)
        assert again.stdout == (b"opened\n" if left == "invitation" else b"used\n")


def test_a_refusal_crosses_processes() -> None:
    error = pickle.loads(pickle.dumps(UnauthenticatedError("gone", why="expired")))
    assert (str(error), error.why, error.exit_code) == ("gone", "expired", 1)
