"""A ledger with real events, the real MLflow on SQLite that mirrors it, and what that shows."""

import json
import socket
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from orchestrator.artifacts import ArtifactStore
from orchestrator.core import events as ev
from orchestrator.core.attribution import Attribution, Cause, Estimate
from orchestrator.core.canonical import sha256_hex
from orchestrator.core.envelope import EventDraft
from orchestrator.core.events import parse
from orchestrator.core.gate import GateVerdict, PanelResult
from orchestrator.core.history import fold
from orchestrator.core.questions import TestResult
from orchestrator.core.records import Choice, Costs, Decision, EndedBy, Label, Purpose, Verdict
from orchestrator.core.settings import CampaignSettings
from orchestrator.core.state import CampaignState
from orchestrator.store.ledger import Ledger
from orchestrator.tracking.mlflow_view import ALIAS, mlflow_client
from orchestrator.tracking.tracker import Tracker

CAMPAIGN = "quickstart"
BORN = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SPENT = Costs(prompts=4, samples=8, tokens=100, gradient_steps=2, compute_seconds=1.5)


def digest(name: str) -> str:
    return sha256_hex(name)


TESTS = {
    Purpose.GATE: ("improvement", "over_promise", "over_promise_top_half"),
    Purpose.DIRECTION: ("direction", "direction_over_promise"),
    Purpose.PATH: ("wrong_reward",),
    Purpose.CREEP_BASE: ("creep_base",),
}
"""What is asked on each queue; an audit without a limit asks nothing."""
EACH = 3
"""Comparisons a queue: all won, they are enough for so large an alpha and so wide limits."""
ALPHA = 0.999 / 4
GATE = {
    "alpha": 0.999,
    "min_labels": 1,
    "max_labels": EACH,
    "over_promise_limit": 0.9,
    "direction": {"max_labels": EACH, "over_promise_limit": 0.9},
    "path": {"max_labels": EACH},
    "creep": {"max_labels": EACH},
    "audit": {"labels": EACH},
}
VETO = "responses of 9.0 tokens against 2.0: over 2 times as long"
ATTRIBUTION = Attribution(
    over_credit=Estimate(mean=0.14, low=0.08, high=0.2, items=1),
    reward_model=Estimate(mean=0.12, low=0.05, high=0.19, items=1),
    raters=Estimate(mean=0.02, low=-0.03, high=0.07, items=1),
    off_distribution=None,
    without_verdict=0,
    unknown=("The part off distribution is unknown: no probes, or too few, were compared.",),
    causes=(Cause.REWARD_MODEL,),
)


def queues(stage: int) -> tuple[Purpose, ...]:
    """What must be sealed in a campaign of two stages; against the base only once that is not the approved one."""
    creep = (Purpose.CREEP_BASE,) if stage else ()
    return (Purpose.GATE, Purpose.DIRECTION, Purpose.PATH, *creep, Purpose.AUDIT)


def refutations(passed: bool, asked: tuple[Purpose, ...]) -> tuple[TestResult, ...]:
    return tuple(refutation(name, passed) for purpose in asked for name in TESTS.get(purpose, ()))


def refutation(name: str, passed: bool) -> TestResult:
    return TestResult(
        name=name,
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

    def state(self, name: str = CAMPAIGN) -> CampaignState:
        return fold(parse(stored) for stored in self.ledger.events(name))

    def create(self, name: str = CAMPAIGN, **options: Any) -> None:
        self.ledger.create_campaign(name)
        settings = CampaignSettings.model_validate(
            {
                "name": name,
                "task": {"kind": "memo", "options": options},
                "base": {"seedling": {}},
                "protocol": {"stages": 2, "attempts": 2},
                "feedback": {"rater": "people"},
                "gate": GATE,
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
            author = "test"
            if isinstance(body, ev.LabelsRecorded | ev.DecisionMade):
                author = body.reviewer if isinstance(body, ev.DecisionMade) else body.labels[0].rater
                body = body.model_copy(update={"credential": "c-test"})
            draft = EventDraft(body.TYPE, body.model_dump(mode="json"), command_id=f"c{seq}", author=author)
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
        asked = queues(stage) if passes else (Purpose.GATE,)
        decision = GateVerdict(
            verdict=Verdict.ADVANCE if passes else Verdict.ROLLBACK,
            reasons=("improvement: passed at alpha" if passes else f"veto: {VETO}",),
            notes=("audit: by one whom nobody asked",),
            alpha=ALPHA,
            labels=EACH * len(asked),
            panels=tuple(PanelResult(purpose=purpose, labels=EACH, skipped=0) for purpose in asked if purpose in TESTS),
            tests=refutations(passes, asked),
            vetoes=() if passes else (VETO,),
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
            *(self.sealed(purpose, stage, attempt, start, candidate, reward_model) for purpose in queues(stage)),
            *(
                ev.LabelsRecorded(
                    batch=f"{place}.{purpose.value}",
                    labels=tuple(
                        Label(item=item, rater="gold" if purpose is Purpose.AUDIT else "ann", choice=Choice.FIRST)
                        for item in range(EACH)
                    ),
                )
                for purpose in (*asked, *(() if passes else (Purpose.AUDIT,)))
            ),
            ev.VerdictGiven(**where, candidate=candidate, decision=decision, attribution=ATTRIBUTION),
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

    def sealed(
        self, purpose: Purpose, stage: int, attempt: int, start: str, candidate: str, reward_model: str
    ) -> ev.ComparisonsDrawn:
        """A queue of a few comparisons. The audit's is the gate's own."""
        audit = purpose is Purpose.AUDIT
        opponents = {Purpose.DIRECTION: candidate, Purpose.CREEP_BASE: digest("base")}
        prompts = (Purpose.GATE, Purpose.DIRECTION, Purpose.CREEP_BASE)
        return ev.ComparisonsDrawn(
            stage=stage,
            attempt=attempt,
            purpose=purpose,
            comparisons=digest(f"s{stage}.a{attempt}.{'gate' if audit else purpose.value}"),
            count=EACH,
            candidate=candidate,
            opponent=opponents.get(purpose, start),
            first_prompt=100 * stage + 20 * attempt + EACH * prompts.index(purpose) if purpose in prompts else None,
            reward_model=None if audit else reward_model,
            candidate_first=(True,) * EACH,
            p_hat=() if audit else (0.6,) * EACH,
            alpha=ALPHA if purpose is Purpose.GATE else None,
            costs=SPENT if purpose is Purpose.GATE else Costs(),
        )

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


def make_world(home: Path, first_use: FirstUse) -> World:
    (home / "mlflow").mkdir(parents=True)
    # MLflow takes seconds to make its tables: each world gets a copy of the same empty ones.
    (home / "mlflow" / "mlflow.db").write_bytes(first_use.database.read_bytes())
    return World(home)


def client(world: World) -> Any:
    return mlflow_client(f"sqlite:///{world.home / 'mlflow' / 'mlflow.db'}")


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


def nobody_listens() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://user:hunter2@127.0.0.1:{probe.getsockname()[1]}"
