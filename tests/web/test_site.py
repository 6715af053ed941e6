"""What the pages share."""

import errno
import os
from pathlib import Path

import pytest

from orchestrator.core import events as ev
from orchestrator.core.records import Role
from orchestrator.core.settings import CampaignSettings
from orchestrator.errors import UnauthenticatedError, UsageError
from orchestrator.home import Home
from orchestrator.review.identity import Person
from orchestrator.runner import draft
from orchestrator.web import limits
from orchestrator.web.limits import Limits
from orchestrator.web.server import listen
from orchestrator.web.site import Site


def test_campaigns_come_by_priority_then_name_and_only_ones_own(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.create()
    with home.ledger() as ledger:
        for name, priority in (("b", 0), ("a", 0), ("late", -1), ("urgent", 5), ("others", 9)):
            settings = CampaignSettings.model_validate(
                {"name": name, "task": {"kind": "memo"}, "base": {"seedling": {}}, "priority": priority}
            )
            created = ev.CampaignCreated(
                settings=settings.model_dump(mode="json"), settings_digest=settings.digest(), code_version="test"
            )
            ledger.create_campaign(name)
            ledger.append(name, [draft(created, "created", author="controller")], epoch=None)
        mine = frozenset((Role.LABELER, name) for name in ("a", "b", "late", "urgent"))
        site = Site(ledger, home.artifacts(), Limits())
        assert site.campaigns(Person("ann", "c-ann", mine)) == ("urgent", "a", "b", "late")


def test_sessions_that_were_seen_are_remembered_up_to_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MANY_KEYS", 3)
    home = Home(tmp_path)
    home.create()
    with home.ledger() as ledger:
        site = Site(ledger, home.artifacts(), Limits())
        secrets = [ledger.people.token(f"person {n}", [Role.LABELER], by="tester")[0] for n in range(4)]
        for secret in (*secrets[:3], secrets[0], secrets[3]):
            site.person(secret, "192.0.2.1")
        assert [site.is_known(secret) for secret in secrets] == [True, False, True, True], "the longest unseen is gone"
        ledger.people.revoke("person 2", by="tester")
        with pytest.raises(UnauthenticatedError):
            site.person(secrets[2], "192.0.2.1")
        assert not site.is_known(secrets[2])


def test_a_port_that_is_taken_is_told_once() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError) as refused:
            listen("127.0.0.1", port)
    told = str(refused.value)
    assert told.count("127.0.0.1") == told.count(str(port)) == 1
    assert f"{os.strerror(errno.EADDRINUSE)}; choose another with --host or --port" in told
