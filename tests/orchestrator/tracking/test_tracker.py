"""MLflow away, off or shared: what a tracker leaves alone, and what it refuses."""

import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from mlflow_world import CAMPAIGN, FirstUse, World, client, nobody_listens, runs

from orchestrator.errors import ConfigError
from orchestrator.tracking.follower import Follower
from orchestrator.tracking.tracker import Tracker, TrackingError


def test_a_server_that_is_away_fails_fast_and_names_the_next_action(world: World) -> None:
    world.base()
    tracker = world.tracker(nobody_listens())
    begun = time.monotonic()
    with pytest.raises(
        TrackingError, match=r"Connection refused.*catches up later: `ratchet campaign track quickstart`"
    ) as failure:
        tracker.sync(CAMPAIGN)
    assert time.monotonic() - begun < 60
    assert "hunter2" not in str(failure.value)
    assert [p.where for p in tracker.drift(CAMPAIGN)] == ["mlflow"]


def test_two_processes_take_turns(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.base()
    monkeypatch.setattr("orchestrator.tracking.tracker._LOCK_PATIENCE", timedelta(milliseconds=50))
    with world.tracker()._turn(CAMPAIGN), pytest.raises(TrackingError, match="another process"):
        world.tracker().sync(CAMPAIGN)
    trackers = [world.tracker() for _ in range(2)]
    monkeypatch.setattr("orchestrator.tracking.tracker._LOCK_PATIENCE", timedelta(seconds=20))
    threads = [threading.Thread(target=tracker.sync, args=(CAMPAIGN,)) for tracker in trackers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(runs(world)) == {CAMPAIGN}


def test_none_touches_nothing(world: World) -> None:
    world.base()
    tracker = Tracker(world.ledger, world.artifacts, "none", home=world.home / "elsewhere")
    assert tracker.sync(CAMPAIGN).behind == 0
    assert tracker.drift(CAMPAIGN) == tracker.repair(CAMPAIGN) == []
    with Follower(tracker, [CAMPAIGN]) as follower:
        assert follower.close()
    assert not (world.home / "elsewhere").exists()


@pytest.mark.parametrize("where", ["mlruns", "", "file:///tmp/mlruns"])
def test_an_address_that_is_none_is_refused(world: World, where: str) -> None:
    with pytest.raises(ConfigError, match=r"tracking\.mlflow"):
        world.tracker(where)


def test_the_process_is_left_alone(first_use: FirstUse) -> None:
    """Nothing on stdout or stderr, no file beside the current directory, no global address; mlflow only when used."""
    assert (first_use.done.returncode, first_use.done.stdout, first_use.done.stderr) == (0, "", "")
    assert sorted(path.name for path in first_use.folder.rglob("*")) == ["home", "mlflow.db"]


# --- tax ----------------------------------------------------------------------------------------------------------


def test_the_tax_is_a_run_with_its_plots(world: World, tmp_path: Path) -> None:
    for arm in ("ratchet", "online"):
        world.base(f"demo-0-{arm}")
    plot = tmp_path / "frontier.png"
    plot.write_bytes(b"\x89PNG")
    tax: dict[str, dict[str, Any]] = {
        "labels": {"target_gold": 0.3, "ratio": 1.4, "reached": True},
        "tokens": {"target_gold": 0.3, "ratio": None, "reached": False},
    }
    arms = {"ratchet": "demo-0-ratchet", "online": "demo-0-online"}
    for _ in range(2):
        world.tracker().log_tax("demo-0", arms, tax, {"gold against labels": plot})
    run = runs(world)["demo-0"]
    assert run.data.metrics == {"tax/labels": 1.4, "tax/labels_target_gold": 0.3, "tax/tokens_target_gold": 0.3}
    assert run.data.tags["tax/tokens"] == "unreached"
    assert run.info.status == "FINISHED"
    mlflow = client(world)
    assert len(mlflow.get_metric_history(run.info.run_id, "tax/labels")) == 1
    assert [file.path for file in mlflow.list_artifacts(run.info.run_id, "figures/gold against labels")] == [
        "figures/gold against labels/frontier.png"
    ]
