"""Creating and following campaigns."""

import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from small_campaigns import TASK, CommandLine, Small

from orchestrator.campaigns import create, detach, follow, write_template
from orchestrator.core.envelope import EventDraft
from orchestrator.core.records import EndedBy
from orchestrator.errors import CampaignExistsError, ConfigError, IntegrityError, StorageFullError, UsageError
from orchestrator.home import Home


def test_a_name_is_taken_once(small: Small) -> None:
    campaign = small.campaign()
    with pytest.raises(CampaignExistsError, match="campaign resume small"):
        small.campaign()
    assert campaign.types == ["campaign_created"]


def test_a_creation_cut_short_is_no_campaign_and_can_be_repeated(small: Small) -> None:
    home = Home(small.folder / "home")
    home.create()
    with home.ledger() as ledger:
        ledger.create_campaign("small")
    assert small.campaign().types == ["campaign_created"]


def test_a_full_disk_is_refused_before_anything_is_written(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 10 * 1024**2

    monkeypatch.setattr("orchestrator.assembly.shutil.disk_usage", lambda place: Usage)
    with pytest.raises(StorageFullError, match="10 MiB free, a campaign needs 256 MiB"):
        small.campaign()
    assert not (small.folder / "home").exists()


def test_following_ends_with_the_campaign(undisturbed: Small) -> None:
    campaign = undisturbed.reopen()
    seen = [(event.body.TYPE, state.ended_by) for event, state in follow(campaign.ledger, "small")]
    assert [kind for kind, _ in seen] == campaign.types[: len(seen)]
    assert seen[-1] == ("finished", EndedBy.STAGES_COMPLETED)


def test_following_sees_what_comes_in_later(small: Small) -> None:
    campaign = small.campaign()
    threading.Timer(0.8, lambda: campaign.stop("enough")).start()
    assert [event.body.TYPE for event, _ in follow(campaign.ledger, "small")] == ["campaign_created", "finished"]


def test_a_detached_campaign_runs_by_itself(small: Small) -> None:
    campaign = small.campaign()
    log = detach(campaign.home, "small")
    *_, (_, last) = follow(campaign.ledger, "small")
    assert last.ended_by is EndedBy.STAGES_COMPLETED
    assert "advanced" in log.read_text()


def test_only_an_approved_checkpoint_of_this_home_may_be_a_start(small: Small, undisturbed: Small) -> None:
    approved = str(undisturbed.reopen().state.approved)
    with pytest.raises(UsageError, match="names 0 approved checkpoints"):
        create(small.settings(), Home(small.folder / "home"), author="t", start_from=approved)
    assert not (small.folder / "home").exists()


def test_a_damaged_campaign_blocks_no_other(
    small: Small, undisturbed: Small, command_line: CommandLine, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(undisturbed.folder / "home", small.folder / "home")
    whole = small.reopen()
    approved = str(whole.state.approved)
    for name in ("broken", "headless", "newer"):
        create(small.settings(name=name), whole.home, author="t")
    whole.ledger.append("newer", [EventDraft("recast", {}, command_id="recast", author="t")], epoch=None)
    with closing(sqlite3.connect(whole.home.root / "ledger.db")) as database, database:
        database.execute("UPDATE events SET author = 'mallory' WHERE campaign = 'broken'")
        database.execute("UPDATE campaigns SET head_hash = ? WHERE name = 'headless'", ("0" * 64,))

    listed = command_line(small.folder, "campaign", "list", "--json")
    assert listed.code == 5
    rows = {row["name"]: row for row in listed.json}
    assert {name: row["status"] for name, row in rows.items()} == {
        "broken": "failed",
        "headless": "failed",
        "newer": "failed",
        "small": "finished",
    }
    assert all({"name", "status", "stage", "approved"} <= row.keys() for row in rows.values())
    assert "broken" in rows["broken"]["problem"]
    assert "recast" in rows["newer"]["problem"]
    told = command_line(small.folder, "campaign", "list")
    assert told.code == 5
    assert approved[:12] in told.stdout
    assert "headless" in told.stderr

    create(small.settings(name="next", seed=6), whole.home, author="t", start_from=approved)
    assert whole.ledger.head("next").seq == 0
    assert {name for name in rows if f"passing over {name}," in caplog.text} == {"broken", "headless", "newer"}
    with pytest.raises(IntegrityError, match="broken"):
        create(small.settings(name="later"), whole.home, author="t", start_from="abcdef12")
    assert "later" not in whole.ledger.campaigns()


def test_no_descendant_asks_the_gate_prompts_of_its_forebears(small: Small) -> None:
    """Of three generations, the third would be judged on what the first was trained on; a shared base hurts nobody."""
    first = small.campaign()
    first.run()
    origin = str(first.state.approved)

    def begin(name: str, start_from: str | None, **changes: Any) -> None:
        create(small.settings(name=name, **changes), first.home, author="t", start_from=start_from)

    same = r"comes from campaign small, whose seed and task are the same: .*; begin with --set seed=6"
    with pytest.raises(UsageError, match=same):
        begin("second", origin)
    with pytest.raises(UsageError, match=same):
        begin("second", None, base={"model": origin[:12]})
    assert first.ledger.campaigns() == ("small",)
    begin("second", origin[:8], seed=6)
    second = small.reopen(settings=small.settings(name="second"))
    second.run()
    youngest = str(second.state.approved)
    assert youngest != origin
    with pytest.raises(UsageError, match=same):
        begin("third", youngest)
    with pytest.raises(UsageError, match="comes from campaign second"):
        begin("third", youngest, seed=6)
    begin("other-task", youngest, task={**TASK, "options": {**TASK["options"], "examples": 2001}})
    begin("sister", str(first.state.base))
    given = {"stages": 1, "attempts": 1, "advance": "until_agreement"}
    begin("compared", None, base={"model": origin}, candidate={"model": youngest}, protocol=given)
    known = ("compared", "other-task", "second", "sister", "small")
    assert first.ledger.campaigns() == known

    # Nobody can know any more what the first one asked, so the third might ask it again.
    with closing(sqlite3.connect(first.home.root / "ledger.db")) as database, database:
        database.execute("UPDATE events SET author = 'mallory' WHERE campaign = 'small'")
    for seed in (5, 7):
        with pytest.raises(IntegrityError, match="campaign small"):
            begin("third", youngest, seed=seed)
    begin("fresh", None)
    assert first.ledger.campaigns() == tuple(sorted((*known, "fresh")))


def test_templates(tmp_path: Path) -> None:
    path = write_template("mine", "quickstart", tmp_path)
    with pytest.raises(UsageError, match="exists already"):
        write_template("mine", "quickstart", tmp_path)
    with pytest.raises(ConfigError, match=r"known: .*quickstart"):
        write_template("other", "nope", tmp_path)
    assert [path.name] == [file.name for file in tmp_path.iterdir()]
