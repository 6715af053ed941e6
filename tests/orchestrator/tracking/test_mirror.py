"""What MLflow shows of a campaign, and the cursor: against the real MLflow on SQLite."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from mlflow_world import (
    ALPHA,
    BORN,
    CAMPAIGN,
    EACH,
    VETO,
    FirstUse,
    Flaky,
    World,
    approved_version,
    client,
    digest,
    everything,
    refutation,
    runs,
)

from orchestrator.artifacts import ArtifactStore
from orchestrator.core.events import Paused, Resumed
from orchestrator.core.gate import GateVerdict
from orchestrator.core.records import Verdict
from orchestrator.core.settings import Method
from orchestrator.core.state import Attempt
from orchestrator.tracking import mirror
from orchestrator.tracking.figures import verdict_text
from orchestrator.tracking.mirror import SAMPLES_SHOWN
from orchestrator.tracking.mlflow_view import ALIAS
from orchestrator.tracking.tags import CURSOR
from orchestrator.tracking.tracker import Tracker, TrackingError


def test_a_campaign_becomes_a_tree_of_runs(mirrored: World) -> None:
    tree = runs(mirrored)
    assert set(tree) == {CAMPAIGN, "s0.a0", "s0.a1", "s1.a0"}
    parent = tree[CAMPAIGN]
    assert all(
        tree[place].data.tags["mlflow.parentRunId"] == parent.info.run_id for place in ("s0.a0", "s0.a1", "s1.a0")
    )
    assert {name: run.info.status for name, run in tree.items()} == {
        CAMPAIGN: "FINISHED",
        "s0.a0": "KILLED",
        "s0.a1": "FINISHED",
        "s1.a0": "FINISHED",
    }
    assert tree["s0.a0"].data.tags["ratchet.verdict"] == "rollback"
    assert tree["s0.a1"].data.tags["ratchet.decisions"] == "approve by anna"
    assert parent.info.start_time == round(mirrored.ledger.events(CAMPAIGN)[0].time.timestamp() * 1000)
    assert parent.data.params["gate.alpha"] == "0.999"
    assert parent.data.tags["ratchet.ended_by"] == "stages_completed"


def test_why_it_was_paused_stands_there_no_longer_than_it_is(world: World) -> None:
    world.base()
    for body, why in ((Paused(why="the night"), "the night"), (Resumed(), "")):
        world.record(body)
        world.tracker().sync(CAMPAIGN)
        assert runs(world)[CAMPAIGN].data.tags["ratchet.why_paused"] == why


def test_figures_are_those_of_the_ledger(mirrored: World) -> None:
    mlflow, tree = client(mirrored), runs(mirrored)

    attempt = tree["s0.a0"]
    history = mlflow.get_metric_history(attempt.info.run_id, "proxy/reward")
    assert [(m.step, m.value) for m in history] == [(0, 0.0), (1, 0.5), (2, 1.0)]
    history = mlflow.get_metric_history(attempt.info.run_id, "gold/rollouts")
    assert [m.value for m in history] == [0.1, 0.2, 0.3]
    expected = {
        "gate/win_rate": 0.4,
        "gate/win_rate_low": 0.55,
        "gate/over_promise": 0.02,
        "gate/over_promise_high": 0.1,
        "gate/alpha": ALPHA,
        "gate/labels": EACH,
        "gate/labels/gate": EACH,
        "gate/labels/direction": 0,
        "gate/labels/audit": EACH,
        "gate/improvement/estimate": 0.7,
        "gate/improvement/bound": 0.55,
        "gate/improvement/limit": 0.5,
        "gate/alpha_spent": ALPHA,
        "attribution/over_credit": 0.14,
        "attribution/over_credit_low": 0.08,
        "attribution/over_credit_high": 0.2,
        "attribution/raters_low": -0.03,
        "reward_model/accuracy": 0.8,
        "gold/candidate": 0.3,
        "kl/candidate_nats": 0.2,
        "phase/entropy_nats": 0.0,
    }
    assert {key: attempt.data.metrics[key] for key in expected} == expected

    parent = tree[CAMPAIGN]
    deployed = mlflow.get_metric_history(parent.info.run_id, "gold/deployed")
    assert [(m.step, m.value) for m in deployed] == [(0, 0.1), (1, 0.3), (2, 0.4)]
    totals = {
        "cost/labels_initial": 2,
        "cost/labels_gate": EACH * (1 + 3 + 4),
        "cost/samples": 4 + 3 * 3 * 8,
        "cost/tokens": 900,
        "cost/gradient_steps": 18,
        "cost/compute_seconds": 13.5,
        "cost/usd": (2 + EACH * 8) * 0.60 + 13.5 / 3600 * 2.50,
    }
    assert {key: parent.data.metrics[key] for key in totals} == pytest.approx(totals)


def test_the_gate_is_mirrored_as_the_ledger_has_it(mirrored: World) -> None:
    """Every test, queue and attributed figure of every verdict, and none besides."""
    mlflow, tree = client(mirrored), runs(mirrored)
    state = mirrored.state()
    for attempt in state.attempts:
        run = tree[attempt.place]
        assert attempt.verdict is not None
        assert attempt.attribution is not None
        expected = {
            f"gate/{test.name}/{figure}": getattr(test, figure)
            for test in attempt.verdict.tests
            for figure in ("estimate", "bound", "limit")
        }
        expected |= {f"gate/labels/{batch.purpose.value}": len(batch.labels) for batch in state.panels(attempt)}
        for name in ("over_credit", "reward_model", "raters"):
            estimate = getattr(attempt.attribution, name)
            expected |= {f"attribution/{name}": estimate.mean}
            expected |= {f"attribution/{name}_{end}": getattr(estimate, end) for end in ("low", "high")}
        shown = {key: value for key, value in run.data.metrics.items() if key.count("/") == 2 or "attribution" in key}
        assert shown == expected
    assert {place: run.data.metrics.get("gate/alpha_spent") for place, run in tree.items()} == pytest.approx(
        {"s0.a0": ALPHA, "s0.a1": 2 * ALPHA, "s1.a0": 3 * ALPHA, CAMPAIGN: 3 * ALPHA}
    )
    assert "gate/creep_base/bound" in tree["s1.a0"].data.metrics
    tags = {place: run.data.tags for place, run in tree.items()}
    assert tags["s0.a0"]["ratchet.vetoes"] == VETO
    assert tags["s0.a1"]["ratchet.vetoes"] == ""
    assert tags["s0.a0"]["ratchet.causes"] == "reward_model"
    text = Path(mlflow.download_artifacts(tree["s0.a0"].info.run_id, "verdict.txt")).read_text()
    assert "over-credit +.14 [+.08, +.20]: reward model (b)" in text
    assert "note: audit: by one whom nobody asked" in text


def test_a_fixed_sample_has_no_evidence_to_tell_of() -> None:
    test = refutation("improvement", passed=False).model_copy(update={"log_e_value": None})
    verdict = GateVerdict(verdict=Verdict.ROLLBACK, reasons=(), alpha=0.02, method=Method.WILSON, tests=(test,))
    told = verdict_text(CAMPAIGN, Attempt(stage=0, attempt=0, start=digest("base")), verdict)
    assert "improvement: estimate 0.700, bound 0.550, limit 0.500, all 1 labels at once, not passed" in told


def test_artifacts_tables_and_label_sets_come_along(mirrored: World, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow, tree = client(mirrored), runs(mirrored)
    run = tree["s0.a1"]
    folder = Path(mlflow.download_artifacts(run.info.run_id, ""))
    assert folder.is_relative_to(mirrored.home / "mlflow" / "artifacts")
    assert json.loads((folder / "verdict.json").read_text())["verdict"] == "advance"
    assert "improvement: passed at alpha" in (folder / "verdict.txt").read_text()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.tracking_uri)  # load_table asks the global one
    table = mlflow.load_table(run.info.experiment_id, "samples.json", run_ids=[run.info.run_id])
    assert len(table) == SAMPLES_SHOWN
    assert table["response"][0] == "s0.a1 <script>0</script>"
    dataset = run.inputs.dataset_inputs[0]
    assert {tag.value for tag in dataset.tags} == {"reward_model"}
    assert json.loads(dataset.dataset.profile)["num_rows"] == 3
    assert "name: quickstart" in (
        Path(mlflow.download_artifacts(tree[CAMPAIGN].info.run_id, "campaign.yaml")).read_text()
    )


def test_each_advance_is_a_version_and_the_alias_is_on_the_last(world: World) -> None:
    world.base()
    world.attempt(0, 0, digest("base"), passes=True)
    tracker = world.tracker()
    tracker.sync(CAMPAIGN)
    assert approved_version(world) == "1"
    world.attempt(1, 0, digest("s0.a0"), passes=False)
    tracker.sync(CAMPAIGN)
    assert approved_version(world) == "1"
    world.attempt(1, 1, digest("s0.a0"), passes=True)
    tracker.sync(CAMPAIGN)
    approved = client(world).get_model_version_by_alias(CAMPAIGN, ALIAS)
    assert approved.version in (2, "2")
    assert approved.tags["ratchet.digest"] == digest("s1.a1")
    assert approved.tags["ratchet.parent"] == digest("s0.a0")
    candidates = everything(world)["candidates"]
    assert [name for name, *_ in candidates] == ["quickstart-s0-a0", "quickstart-s1-a0", "quickstart-s1-a1"]
    assert all(status.endswith("READY") for _, status, *_ in candidates)
    assert ("gold/candidate", 0.3) in candidates[0][3]


def test_secrets_stay_out(world: World) -> None:
    world.create(api_key="sk-123", nested={"password": 7, "max_tokens": 9}, url="https://u:hunter2@host/x")
    world.tracker().sync(CAMPAIGN)
    run = runs(world)[CAMPAIGN]
    text = Path(client(world).download_artifacts(run.info.run_id, "campaign.yaml")).read_text()
    assert run.data.params["task.options.api_key"] == "[redacted]"
    assert run.data.params["task.options.nested.max_tokens"] == "9"
    for secret in ("sk-123", "hunter2", "password: 7"):
        assert secret not in text
        assert secret not in str(run.data.params)


# --- the cursor ---------------------------------------------------------------------------------------------------


def test_syncing_again_changes_nothing(mirrored: World) -> None:
    tracker = mirrored.tracker()
    tracker.sync(CAMPAIGN)
    before = everything(mirrored)
    assert tracker.sync(CAMPAIGN).mirrored == 0
    assert mirrored.tracker().sync(CAMPAIGN).mirrored == 0
    assert everything(mirrored) == before


def test_mirroring_from_the_first_event_again_duplicates_nothing(mirrored: World) -> None:
    before = everything(mirrored)
    mlflow = client(mirrored)
    mlflow.set_tag(runs(mirrored)[CAMPAIGN].info.run_id, CURSOR, "-1")
    assert mirrored.tracker().sync(CAMPAIGN).mirrored == mirrored.ledger.head(CAMPAIGN).seq + 1
    assert everything(mirrored) == before


def test_bit_by_bit_shows_the_same_as_all_at_once(mirrored: World, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = everything(mirrored)
    monkeypatch.setattr(mirror, "_EVENTS_PER_FLUSH", 1)
    client(mirrored).set_tag(runs(mirrored)[CAMPAIGN].info.run_id, CURSOR, "-1")
    mirrored.tracker().sync(CAMPAIGN)
    assert everything(mirrored) == at_once


def test_a_crash_anywhere_is_mended_by_the_next_sync(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.base()
    world.attempt(0, 0, digest("base"), passes=False)
    world.attempt(0, 1, digest("base"), passes=True)
    monkeypatch.setattr(mirror, "_EVENTS_PER_FLUSH", 4)
    calls, crashes = 1, 0
    while True:
        tracker = world.tracker()  # a new process
        tracker._connected().client = Flaky(tracker._connected().client, calls)
        try:
            tracker.sync(CAMPAIGN)
            break
        except TrackingError:
            crashes += 1
            calls += 5
    assert crashes > 5
    assert world.tracker().drift(CAMPAIGN) == []
    crashed = everything(world)
    client(world).set_tag(runs(world)[CAMPAIGN].info.run_id, CURSOR, "-1")
    world.tracker().sync(CAMPAIGN)
    assert everything(world) == crashed


def test_a_lost_mlflow_starts_again_by_itself(world: World, first_use: FirstUse) -> None:
    world.base()
    world.attempt(0, 0, digest("base"), passes=True)
    world.tracker().sync(CAMPAIGN)
    before = everything(world)
    (world.home / "mlflow" / "mlflow.db").write_bytes(first_use.database.read_bytes())
    world.tracker().sync(CAMPAIGN)
    assert everything(world) == before


def test_artifacts_that_are_gone_leave_the_rest(world: World) -> None:
    world.base()
    world.attempt(0, 0, digest("base"), passes=True)
    for stored in world.artifacts.digests():
        folder = world.home / "artifacts" / stored[:2] / stored
        (folder / "manifest.json").unlink()
    tracker = Tracker(world.ledger, ArtifactStore(world.home / "artifacts"), "default", home=world.home)
    assert tracker.sync(CAMPAIGN).behind == 0
    assert runs(world)["s0.a0"].data.metrics["gold/candidate"] == 0.3


def test_campaigns_of_one_name_in_two_homes_stay_apart(world: World, tmp_path: Path) -> None:
    other = World(tmp_path / "other")
    address = f"sqlite:///{world.home / 'mlflow' / 'mlflow.db'}"
    for home in (world, other):
        home.now = BORN if home is world else BORN + timedelta(days=1)
        home.base()
        home.attempt(0, 0, digest("base"), passes=True)
        home.tracker(address).sync(CAMPAIGN)
    assert world.tracker().drift(CAMPAIGN) == []
    assert other.tracker(address).drift(CAMPAIGN) == []
    ledger = other.ledger.events(CAMPAIGN)[0].hash
    assert client(world).get_model_version_by_alias(f"{CAMPAIGN}-{ledger[:8]}", ALIAS)
    other.ledger.close()
