"""What the pages share."""

from pathlib import Path

from orchestrator.core import events as ev
from orchestrator.core.records import Role
from orchestrator.core.settings import CampaignSettings
from orchestrator.home import Home
from orchestrator.review.identity import Person
from orchestrator.runner import draft
from orchestrator.web.limits import Limits
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
