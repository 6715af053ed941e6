"""MLflow as a view, against the real MLflow on SQLite (and a real address where nobody answers)."""

import json
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator import tracking
from orchestrator.artifacts import ArtifactStore
from orchestrator.core import events as ev
from orchestrator.core.canonical import sha256_hex
from orchestrator.core.envelope import EventDraft
from orchestrator.core.gate import GateVerdict, TestResult
from orchestrator.core.records import Choice, Costs, Decision, EndedBy, Label, Purpose, Verdict
from orchestrator.core.settings import CampaignSettings
from orchestrator.errors import ConfigError
from orchestrator.store.ledger import Ledger
from orchestrator.tracking import ALIAS, CURSOR, Follower, Tracker, TrackingError

CAMPAIGN = "quickstart"
BORN = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SPENT = Costs(prompts=4, samples=8, tokens=100, gradient_steps=2, compute_seconds=1.5)


def digest(name: str) -> str:
    return sha256_hex(name)


def refutation(passed: bool) -> TestResult:
    return TestResult(
        name="improvement",
        labels=1,
        cap=1,
        estimate=0.7,
        bound=0.55,
        limit=0.5,
        log_e_value=3.0,
        log_threshold=2.9,
        passed=passed,
    )


class World:
    """A ledger and an artifact store with real events in them, and the MLflow that mirrors them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.artifacts = ArtifactStore(home / "artifacts")
        self.now = BORN
        self.ledger = Ledger.open(home / "ledger.db", now=lambda: self.now)

    def tracker(self, where: str = "default") -> Tracker:
        return Tracker(self.ledger, self.artifacts, where, home=self.home)

    def create(self, name: str = CAMPAIGN, **options: Any) -> None:
        self.ledger.create_campaign(name)
        settings = CampaignSettings.model_validate(
            {
                "name": name,
                "task": {"kind": "memo", "options": options},
                "base": {"seedling": {}},
                "protocol": {"stages": 2},
            }
        )
        created = ev.CampaignCreated(
            settings=settings.model_dump(mode="json"), settings_digest=settings.digest(), code_version="0.1.0"
        )
        self.record(created, name=name)

    def record(self, *bodies: ev.EventBody, name: str = CAMPAIGN) -> None:
        for body in bodies:
            self.now += timedelta(seconds=1)
            seq = self.ledger.head(name).seq + 1
            draft = EventDraft(body.TYPE, body.model_dump(mode="json"), command_id=f"c{seq}", author="test")
            self.ledger.append(name, [draft], epoch=None)

    def base(self, name: str = CAMPAIGN) -> None:
        self.create(name)
        comparisons = ev.ComparisonsDrawn(
            purpose=Purpose.INITIAL, comparisons=digest("initial"), count=2, costs=Costs(samples=4)
        )
        labels = [Label(item=i, rater="simulated", choice=Choice.FIRST) for i in range(2)]
        self.record(
            ev.BaseReady(checkpoint=digest("base"), parameters=1000, costs=SPENT),
            ev.Evaluated(
                checkpoint=digest("base"), gold_mean=0.1, gold_se=0.01, responses=8, samples=self.samples("base")
            ),
            comparisons,
            ev.LabelsRecorded(batch="initial", labels=tuple(labels)),
            name=name,
        )

    def samples(self, who: str) -> str:
        rows = [{"prompt": f"p{i}", "response": f"{who} <script>{i}</script>", "gold": i / 10} for i in range(30)]
        return self.artifacts.publish_lines("samples", rows)

    def attempt(self, stage: int, attempt: int, start: str, *, passes: bool, name: str = CAMPAIGN) -> None:
        """A whole attempt, to its advance or rollback."""
        place = f"s{stage}.a{attempt}"
        candidate, reward_model = digest(place), digest(f"{place}.rm")
        label_set = self.artifacts.publish_lines(
            "labels", [{"prompt": "p", "first": "a", "second": "b", "choice": "first", "weights": [1, 2]}] * 3
        )
        with self.artifacts.staging() as folder:
            rows = [
                {"step": i, "reward": 0.5 * i, "kl_nats": 0.1 * i, "entropy_nats": 2.0 - i, "grad_norm": None}
                for i in range(3)
            ]
            (folder / "steps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            rollouts = self.artifacts.publish(folder, kind="rollouts", meta={"place": place})
        decision = GateVerdict(
            verdict=Verdict.ADVANCE if passes else Verdict.ROLLBACK,
            reasons=("improvement: refuted at alpha" if passes else "over_promise: all labels used",),
            alpha=0.02,
            labels=1,
            tests=(refutation(passes),),
            win_rate=0.7 if passes else 0.4,
            win_rate_low=0.55,
            over_promise=0.02,
            over_promise_high=0.1,
        )
        where: dict[str, Any] = {"stage": stage, "attempt": attempt}
        self.record(
            ev.AttemptBegun(**where, start=start),
            ev.RewardModelFitted(
                **where,
                reward_model=reward_model,
                label_set=label_set,
                labels=3,
                accuracy=0.8,
                accuracy_low=0.7,
                accuracy_high=0.9,
                log_loss_nats=0.5,
                temperature=1.0,
                costs=SPENT,
            ),
            ev.PhaseFinished(
                **where,
                candidate=candidate,
                start=start,
                start_digest=digest(f"tensors of {start}"),
                rollouts=rollouts,
                steps=3,
                stopped_by="steps",
                proxy=1.0,
                kl_nats=0.2,
                costs=SPENT,
            ),
            ev.Evaluated(
                **where,
                checkpoint=candidate,
                gold_mean=0.3 + 0.1 * stage,
                gold_se=0.02,
                responses=8,
                samples=self.samples(place),
                gold_by_step=(0.1, 0.2, 0.3),
                wrong_reward_share=0.25,
            ),
            ev.ComparisonsDrawn(
                **where,
                purpose=Purpose.GATE,
                comparisons=digest(f"{place}.gate"),
                count=1,
                candidate=candidate,
                reward_model=reward_model,
                candidate_first=(True,),
                p_hat=(0.6,),
                alpha=0.02,
                costs=SPENT,
            ),
            ev.LabelsRecorded(batch=f"{place}.gate", labels=(Label(item=0, rater="simulated", choice=Choice.FIRST),)),
            ev.VerdictGiven(**where, candidate=candidate, decision=decision),
            name=name,
        )
        if passes:
            self.record(
                ev.DecisionMade(candidate=candidate, decision=Decision.APPROVE, reviewer="anna"),
                ev.Advanced(**where, approved=candidate, parent=start),
                name=name,
            )
        else:
            self.record(ev.RolledBack(**where, to=start, quarantined=candidate, why="over-promise"), name=name)

    def campaign(self) -> None:
        """Base, one rollback, two advances, the end."""
        self.base()
        self.attempt(0, 0, digest("base"), passes=False)
        self.attempt(0, 1, digest("base"), passes=True)
        self.attempt(1, 0, digest("s0.a1"), passes=True)
        self.record(ev.Finished(ended_by=EndedBy.STAGES_COMPLETED))


@dataclass(frozen=True)
class FirstUse:
    folder: Path
    done: subprocess.CompletedProcess[str]

    @property
    def database(self) -> Path:
        return self.folder / "home" / "mlflow.db"


@pytest.fixture(scope="module")
def first_use(tmp_path_factory: pytest.TempPathFactory) -> FirstUse:
    """MLflow's empty tables, made by a process of their own that watches what this does to it."""
    folder = tmp_path_factory.mktemp("first")
    (folder / "home").mkdir()
    program = """
import logging, os, sys
from pathlib import Path
logging.basicConfig(level=logging.INFO)
from orchestrator import tracking
assert "mlflow" not in sys.modules
tracking._create_database(Path("home/mlflow.db").absolute())
import mlflow
assert logging.getLogger("sqlalchemy.engine").level == logging.NOTSET
assert mlflow.tracking._tracking_service.utils._tracking_uri is None
assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
"""
    command = [sys.executable, "-c", program]
    return FirstUse(
        folder, subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    )


def make_world(home: Path, first_use: FirstUse) -> World:
    (home / "mlflow").mkdir(parents=True)
    # MLflow takes seconds to make its tables: each world gets a copy of the same empty ones.
    (home / "mlflow" / "mlflow.db").write_bytes(first_use.database.read_bytes())
    return World(home)


@pytest.fixture
def world(tmp_path: Path, first_use: FirstUse) -> Iterator[World]:
    world = make_world(tmp_path / "home", first_use)
    yield world
    world.ledger.close()


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory: pytest.TempPathFactory, first_use: FirstUse) -> Iterator[World]:
    """A whole campaign in MLflow, for tests that leave it as it was."""
    world = make_world(tmp_path_factory.mktemp("mirrored") / "home", first_use)
    world.campaign()
    progress = world.tracker().sync(CAMPAIGN)
    assert (progress.behind, progress.mirrored) == (0, progress.head + 1)
    yield world
    world.ledger.close()


def client(world: World) -> Any:
    return tracking._mlflow_client(f"sqlite:///{world.home / 'mlflow' / 'mlflow.db'}")


def runs(world: World) -> dict[str, Any]:
    mlflow = client(world)
    experiment = mlflow.get_experiment_by_name("ratchet")
    found = mlflow.search_runs([experiment.experiment_id])
    assert len({run.info.run_name for run in found}) == len(found), "a run is there twice"
    return {run.info.run_name: run for run in found}


def everything(world: World) -> dict[str, Any]:
    """All that MLflow shows of the campaign, without ids: equal whenever the view is."""
    mlflow = client(world)
    shown: dict[str, Any] = {}
    for name, run in runs(world).items():
        history = {
            key: [(m.step, m.value, m.timestamp) for m in mlflow.get_metric_history(run.info.run_id, key)]
            for key in run.data.metrics
        }
        files = sorted(file.path for file in mlflow.list_artifacts(run.info.run_id))
        tags = {key: value for key, value in run.data.tags.items() if key != "mlflow.parentRunId"}
        shown[name] = (run.info.status, run.info.start_time, run.info.end_time, tags, run.data.params, history, files)
        shown[f"{name} inputs"] = [(i.dataset.name, i.dataset.digest) for i in run.inputs.dataset_inputs]
    versions = mlflow.search_model_versions(f"name='{CAMPAIGN}'")
    shown["versions"] = sorted((v.version, v.tags["ratchet.digest"], v.tags["ratchet.advance"]) for v in versions)
    experiment = mlflow.get_experiment_by_name("ratchet").experiment_id
    shown["candidates"] = sorted(
        (m.name, str(m.status), sorted(m.tags.items()), sorted((x.key, x.value) for x in m.metrics or []))
        for m in mlflow.search_logged_models([experiment])
    )
    return shown


def approved_version(world: World) -> str:
    return str(client(world).get_model_version_by_alias(CAMPAIGN, ALIAS).version)


class Flaky:
    """The real client, which dies at its n-th call from now on."""

    def __init__(self, real: Any, calls: int) -> None:
        self._real, self._left = real, calls

    def __getattr__(self, name: str) -> Any:
        self._left -= 1
        if self._left < 0:
            raise ConnectionError("the machine room is on fire")
        return getattr(self._real, name)


# --- what is shown ------------------------------------------------------------------------------------------------


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
    assert parent.data.params["gate.alpha"] == "0.1"
    assert parent.data.tags["ratchet.ended_by"] == "stages_completed"


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
        "gate/alpha": 0.02,
        "gate/labels": 1,
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
        "cost/labels_gate": 3,
        "cost/samples": 4 + 3 * 3 * 8,
        "cost/tokens": 900,
        "cost/gradient_steps": 18,
        "cost/compute_seconds": 13.5,
        "cost/usd": 5 * 0.60 + 13.5 / 3600 * 2.50,
    }
    assert {key: parent.data.metrics[key] for key in totals} == pytest.approx(totals)


def test_artifacts_tables_and_label_sets_come_along(mirrored: World, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow, tree = client(mirrored), runs(mirrored)
    run = tree["s0.a1"]
    folder = Path(mlflow.download_artifacts(run.info.run_id, ""))
    assert folder.is_relative_to(mirrored.home / "mlflow" / "artifacts")
    assert json.loads((folder / "verdict.json").read_text())["verdict"] == "advance"
    assert "improvement: refuted at alpha" in (folder / "verdict.txt").read_text()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.tracking_uri)  # load_table asks the global one
    table = mlflow.load_table(run.info.experiment_id, "samples.json", run_ids=[run.info.run_id])
    assert len(table) == tracking.SAMPLES_SHOWN
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
    monkeypatch.setattr(tracking, "_EVENTS_PER_FLUSH", 1)
    client(mirrored).set_tag(runs(mirrored)[CAMPAIGN].info.run_id, CURSOR, "-1")
    mirrored.tracker().sync(CAMPAIGN)
    assert everything(mirrored) == at_once


def test_a_crash_anywhere_is_mended_by_the_next_sync(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.base()
    world.attempt(0, 0, digest("base"), passes=False)
    world.attempt(0, 1, digest("base"), passes=True)
    monkeypatch.setattr(tracking, "_EVENTS_PER_FLUSH", 4)
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


# --- drift --------------------------------------------------------------------------------------------------------


def test_an_alias_moved_by_hand_is_reported_and_put_back(mirrored: World) -> None:
    tracker = mirrored.tracker()
    tracker.sync(CAMPAIGN)
    assert tracker.drift(CAMPAIGN) == []
    before = everything(mirrored)
    client(mirrored).set_registered_model_alias(CAMPAIGN, ALIAS, "1")
    problems = tracker.drift(CAMPAIGN)
    assert [(p.where, p.what) for p in problems] == [
        ("alias approved of quickstart", "it points to version 1; the ledger approves version 2")
    ]
    assert tracker.repair(CAMPAIGN) == problems
    assert tracker.drift(CAMPAIGN) == []
    assert everything(mirrored) == before


def test_edits_of_every_kind_are_reported_and_repaired(world: World) -> None:
    world.campaign()
    tracker = world.tracker()
    tracker.sync(CAMPAIGN)
    mlflow, tree = client(world), runs(world)
    mlflow.delete_model_version(CAMPAIGN, "2")
    mlflow.delete_run(tree["s0.a0"].info.run_id)
    mlflow.set_tag(tree["s0.a1"].info.run_id, "ratchet.verdict", "rollback")
    mlflow.set_tag(tree[CAMPAIGN].info.run_id, CURSOR, "999")
    problems = tracker.drift(CAMPAIGN)
    assert [p.where for p in problems] == ["cursor", "s0.a0", "s0.a1", "model quickstart"]
    assert tracker.repair(CAMPAIGN) == problems
    assert tracker.drift(CAMPAIGN) == []
    assert approved_version(world) == str(
        max(int(v.version) for v in mlflow.search_model_versions(f"name='{CAMPAIGN}'"))
    )


def test_an_alias_without_an_advance_is_taken_away(world: World) -> None:
    world.base()
    world.attempt(0, 0, digest("base"), passes=False)
    tracker = world.tracker()
    tracker.sync(CAMPAIGN)
    mlflow = client(world)
    ledger = world.ledger.events(CAMPAIGN)[0].hash
    mlflow.create_registered_model(CAMPAIGN, tags={"ratchet.ledger": ledger})
    mlflow.create_model_version(CAMPAIGN, f"runs:/{runs(world)['s0.a0'].info.run_id}/candidate", await_creation_for=0)
    mlflow.set_registered_model_alias(CAMPAIGN, ALIAS, "1")
    assert ["nothing is approved" in p.what for p in tracker.repair(CAMPAIGN)] == [True]
    assert ALIAS not in mlflow.get_registered_model(CAMPAIGN).aliases


def test_a_lag_is_reported_as_such(world: World) -> None:
    world.base()
    tracker = world.tracker()
    tracker.sync(CAMPAIGN)
    world.record(ev.AttemptBegun(stage=0, attempt=0, start=digest("base")))
    assert [p.what for p in tracker.drift(CAMPAIGN)] == ["the view is 1 events behind the ledger"]


# --- away, off, apart ---------------------------------------------------------------------------------------------


def nobody_listens() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://user:hunter2@127.0.0.1:{probe.getsockname()[1]}"


def test_a_server_that_is_away_fails_fast_and_names_the_next_action(world: World) -> None:
    world.base()
    tracker = world.tracker(nobody_listens())
    begun = time.monotonic()
    with pytest.raises(
        TrackingError, match=r"Connection refused.*catches up later: `ratchet campaign track quickstart`"
    ) as failure:
        tracker.sync(CAMPAIGN)
    assert time.monotonic() - begun < 5
    assert "hunter2" not in str(failure.value)
    assert [p.where for p in tracker.drift(CAMPAIGN)] == ["mlflow"]


def test_the_follower_warns_once_and_ends_in_time(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.base()
    follower = Follower(world.tracker(nobody_listens()), [CAMPAIGN], interval=timedelta(milliseconds=20)).start()
    time.sleep(0.5)
    begun = time.monotonic()
    assert not follower.close(timedelta(seconds=3))
    assert time.monotonic() - begun < 5
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "ratchet campaign track quickstart" in warnings[0].getMessage()


def test_a_server_that_hangs_does_not_hold_the_program(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.base()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        follower = Follower(world.tracker(address), [CAMPAIGN], interval=timedelta(milliseconds=20)).start()
        time.sleep(0.2)
        begun = time.monotonic()
        assert not follower.close(timedelta(seconds=0.5))
        assert time.monotonic() - begun < 2
    assert "is slow" in caplog.text


def test_the_follower_catches_up_after_an_outage(world: World, caplog: pytest.LogCaptureFixture) -> None:
    tracker = world.tracker()
    real = tracker._connected().client
    tracker._connected().client = Flaky(real, 0)
    with Follower(tracker, interval=timedelta(milliseconds=20)) as follower:
        follower.follow(CAMPAIGN)  # before its first event
        world.base()
        world.attempt(0, 0, digest("base"), passes=True)
        time.sleep(0.2)
        tracker._connected().client = real
    assert follower._caught_up
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1
    assert world.tracker().drift(CAMPAIGN) == []


def test_two_processes_take_turns(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.base()
    monkeypatch.setattr(tracking, "_LOCK_PATIENCE", timedelta(milliseconds=50))
    with world.tracker()._turn(CAMPAIGN), pytest.raises(TrackingError, match="another process"):
        world.tracker().sync(CAMPAIGN)
    trackers = [world.tracker() for _ in range(2)]
    monkeypatch.setattr(tracking, "_LOCK_PATIENCE", timedelta(seconds=20))
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
