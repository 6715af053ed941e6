"""Campaigns to report on: a real small one, run once, and hand-made ones that say what a test needs them to say."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markupsafe import Markup

from orchestrator.artifacts import ArtifactStore
from orchestrator.core.canonical import sha256_hex
from orchestrator.core.events import Evaluated, RewardModelFitted
from orchestrator.core.gate import GateVerdict, decide
from orchestrator.core.records import (
    Choice,
    Costs,
    Decision,
    EndedBy,
    Label,
    LabelCounts,
    Purpose,
    Status,
    Verdict,
)
from orchestrator.core.settings import (
    Advance,
    CampaignSettings,
    ProtocolSettings,
    RestartFrom,
    RewardModelPolicy,
)
from orchestrator.core.state import Attempt, Batch, CampaignState, Deployment, ReviewDecision
from orchestrator.home import Home
from orchestrator.report import page

MINI = {
    "name": "mini",
    "seed": 5,
    "task": {"kind": "memo"},
    "base": {"seedling": {"width": 32, "layers": 1, "heads": 2, "steps": 5}},
    "protocol": {"stages": 1, "attempts": 2},
    "phase": {"steps": 3, "prompts_per_step": 4, "samples_per_prompt": 4},
    "reward_model": {"members": 2, "epochs": 1},
    "feedback": {"initial_labels": 20},
    "gate": {"max_labels": 40},
    "evaluation": {"prompts": 8},
    "approval": {"by": "gate"},
    "resources": {"address": "in_process"},
    "tracking": {"mlflow": "none"},
}


@pytest.fixture(scope="session")
def real_home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home in which the campaign "mini" was run to its end."""
    from orchestrator.assembly import make_workers
    from orchestrator.campaigns import create
    from orchestrator.runner import Runner

    home = Home(tmp_path_factory.mktemp("real") / "home")
    settings = CampaignSettings.model_validate(MINI)
    create(settings, home, author="ada")
    workers = make_workers(settings.resources, home)
    with home.ledger() as ledger:
        Runner(settings.name, ledger=ledger, artifacts=home.artifacts(), workers=workers).run()
    workers.close()
    return home


def digest(text: str) -> str:
    return sha256_hex(text.encode())


@dataclass
class Plan:
    """What a hand-made attempt shall have come to."""

    advance: bool
    gold: Sequence[float] = (3.3, 3.4, 3.5)
    """By step; the last one is the candidate's."""
    win_rate: float = 0.6
    promise: float = 0.6
    responses: Sequence[str] | None = None
    """The candidate's, one a prompt; plain ones if None."""
    failed: str | None = None
    with_gold: bool = True
    reviewer: str = "ada"
    reason: str = "reads well"


@pytest.fixture
def artifacts(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


@pytest.fixture
def unillustrated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without their pictures, which take most of the time: for tests that are about the words."""

    def picture(name: str, draw: object, alt: str, caption: str) -> page.Picture:
        return page.Picture(Markup("<svg></svg>"), Markup("<svg></svg>"), caption)

    monkeypatch.setattr(page, "_picture", picture)


Campaign = tuple[CampaignState, CampaignSettings]


@pytest.fixture
def make(artifacts: ArtifactStore) -> Callable[..., Campaign]:
    """A hand-made campaign: one dict of `Plan`'s fields an attempt, and changes to the settings."""

    def build(*plans: dict[str, Any], **changes: Any) -> Campaign:
        return hand_made([Plan(**plan) for plan in plans], artifacts, **changes)

    return build


@pytest.fixture(scope="session")
def demo_artifacts(tmp_path_factory: pytest.TempPathFactory) -> ArtifactStore:
    return ArtifactStore(tmp_path_factory.mktemp("demo") / "artifacts")


@pytest.fixture(scope="session")
def demo(demo_artifacts: ArtifactStore) -> tuple[dict[str, Any], dict[str, Campaign]]:
    """The demo's document and its arms; whoever changes the document copies it first."""
    arms = demo_arms(demo_artifacts)
    return demo_result(arms), arms


def hand_made(
    plans: Sequence[Plan],
    artifacts: ArtifactStore,
    *,
    name: str = "hand-made",
    protocol: ProtocolSettings | None = None,
    labels_per_round: int = 0,
    **changes: Any,
) -> Campaign:
    """A state with these attempts, and artifacts to go with it. The gate's numbers come from the gate itself."""
    settings = CampaignSettings.model_validate(
        {
            **MINI,
            "name": name,
            "gate": {"alpha": 0.5, "max_labels": 200},
            "evaluation": {"prompts": 12},
            "phase": {"steps": 40},
        }
        | {"approval": {"by": "person"}, "protocol": {"stages": 3, "attempts": 4}}
        | ({"protocol": protocol} if protocol else {})
        | changes
    )
    gated = settings.protocol.advance is not Advance.ALWAYS
    base = digest("base")
    initial = LabelCounts(initial=400)
    start_gold = plans[0].gold[0] if plans else 3.3
    base_seen = (
        _evaluated(base, None, None, start_gold, artifacts, [f"plain {i}" for i in range(24)]) if plans else None
    )
    deployments = [Deployment(checkpoint=base, parent=None, gold_mean=start_gold, gold_se=0.1, labels=initial)]
    attempts: list[Attempt] = []
    batches = [
        Batch(purpose=Purpose.INITIAL, stage=None, attempt=None, comparisons=digest("c"), count=400, drawn_at=_now())
    ]
    labels, costs, stage, number = initial, Costs(), 0, 0
    last = base
    for at, plan in enumerate(plans):
        approved = deployments[-1].checkpoint
        start = last if settings.protocol.restart_from is RestartFrom.LAST else approved
        candidate = None if plan.failed else digest(f"{name} candidate {at}")
        spent = Costs(samples=4000, tokens=40000, gradient_steps=90, compute_seconds=12.5)
        costs = costs + spent
        verdict = GateVerdict(verdict=Verdict.ADVANCE, reasons=("the protocol deploys every candidate",))
        decisions: tuple[ReviewDecision, ...] = ()
        if plan.failed:
            verdict = GateVerdict(verdict=Verdict.ROLLBACK, reasons=(f"the phase failed: {plan.failed}",))
        elif gated:
            verdict, batch = _judged(plan, stage, number, at)
            batches.append(batch)
            labels = labels.plus(Purpose.GATE, len(batch.labels))
        if plan.advance and gated:
            reviewer, reason = (plan.reviewer, plan.reason) if settings.approval.by == "person" else ("gate", "")
            decisions = (ReviewDecision(decision=Decision.APPROVE, reviewer=reviewer, reason=reason),)
        if labels_per_round and at:
            labels = labels.plus(Purpose.TRAINING, labels_per_round)
        seen = None
        if candidate is not None:
            gold = plan.gold[-1] if plan.with_gold else None
            responses = plan.responses or [f"plain answer {i}" for i in range(24)]
            seen = _evaluated(candidate, stage, number, gold, artifacts, responses, plan.gold if plan.with_gold else ())
        attempts.append(
            Attempt(
                stage=stage,
                attempt=number,
                start=start,
                start_digest=None if candidate is None else digest(f"memory of {start}"),
                reward_model=digest(f"reward model {at}"),
                fitted=_fitted(stage, number, labels.total),
                candidate=candidate,
                rollouts=_rollouts(plan, artifacts) if candidate is not None else None,
                steps=0 if plan.failed else len(plan.gold) - 1,
                stopped_by=plan.failed or "kl_budget",
                proxy=None if plan.failed else 1.25,
                kl_nats=None if plan.failed else 3.75,
                evaluation=seen,
                verdict=verdict,
                decisions=decisions,
                advanced=plan.advance,
                rolled_back_to=None if plan.advance else approved,
                costs=spent,
            )
        )
        last = candidate or last
        if plan.advance:
            assert candidate is not None
            gold_se = 0.1 if plan.with_gold else None
            golden = plan.gold[-1] if plan.with_gold else None
            deployments.append(
                Deployment(
                    checkpoint=candidate, parent=start, gold_mean=golden, gold_se=gold_se, labels=labels, costs=costs
                )
            )
        stage, number = (stage + 1, 0) if plan.advance else (stage, number + 1)
    state = CampaignState(
        name=name,
        settings_digest=settings.digest(),
        protocol=settings.protocol,
        gate=settings.gate,
        approval=settings.approval,
        status=Status.FINISHED,
        ended_by=EndedBy.STAGES_COMPLETED if plans and plans[-1].advance else EndedBy.ATTEMPTS_EXHAUSTED,
        base=base,
        approved=deployments[-1].checkpoint,
        base_evaluation=base_seen,
        batches=tuple(batches),
        attempts=tuple(attempts),
        deployments=tuple(deployments),
        labels=labels,
        costs=costs,
        last_event_at=_now(),
    )
    return state, settings


def demo_arms(artifacts: ArtifactStore) -> dict[str, Campaign]:
    """Three arms with the shapes that the three protocols have: steps up, up and down, up and over the top."""
    dice = np.random.default_rng(0)

    def course(*corners: float) -> list[float]:
        x = np.linspace(0, len(corners) - 1, 41)
        shape = np.interp(x, range(len(corners)), corners)
        return [round(float(gold), 3) for gold in shape + np.r_[0, dice.normal(0, 0.12, 39), 0]]

    baseline = {"restart_from": RestartFrom.LAST, "advance": Advance.ALWAYS, "attempts": 1}
    ratchet = [
        Plan(False, course(3.3, 3.7, 2.4, 1.6), win_rate=0.3, promise=0.68),
        Plan(True, course(3.3, 3.6, 3.9, 4.1), win_rate=0.72, promise=0.66),
        Plan(False, course(4.1, 4.2, 3.6, 3.3), win_rate=0.42, promise=0.66),
        Plan(True, course(4.1, 4.3, 4.6, 4.7), win_rate=0.72, promise=0.66),
        Plan(True, course(4.7, 4.8, 4.9, 5.05), win_rate=0.7, promise=0.65),
    ]
    online = [
        Plan(True, course(3.3, 3.8, 2.9)),
        Plan(True, course(2.9, 3.9, 4.0)),
        Plan(True, course(4.0, 4.4, 3.6)),
        Plan(True, course(3.6, 4.5, 4.6)),
        Plan(True, course(4.6, 4.7, 4.3)),
        Plan(True, course(4.3, 4.6, 4.8)),
    ]
    offline = [
        Plan(True, course(3.3, 4.0, 3.0)),
        Plan(True, course(3.0, 1.5, 0.2)),
        Plan(True, course(0.2, -0.9, -1.4)),
        Plan(True, course(-1.4, -1.7, -1.6)),
    ]
    return {
        "ratchet": hand_made(ratchet, artifacts, name="demo-0-ratchet", approval={"by": "gate"}),
        "online": hand_made(
            online,
            artifacts,
            name="demo-0-online",
            protocol=ProtocolSettings(stages=6, **baseline),
            labels_per_round=100,
        ),
        "offline": hand_made(
            offline,
            artifacts,
            name="demo-0-offline",
            protocol=ProtocolSettings(stages=4, reward_model=RewardModelPolicy.FROZEN, **baseline),
        ),
    }


def demo_result(arms: dict[str, Campaign]) -> dict[str, Any]:
    """What `ratchet demo --json` would say of these arms."""
    from orchestrator.core.tax import RESOURCES, curve, tax
    from orchestrator.views import costs

    points = {arm: curve(state) for arm, (state, _) in arms.items()}
    return {
        "seed": 0,
        "base_gold": 3.3,
        "base_gold_se": 0.1,
        "reward_model_accuracy_gold": 0.68,
        "arms": {
            arm: {
                "campaign": settings.name,
                "advances": state.advances,
                "rollbacks": state.rollbacks,
                "deployed_gold": [deployed.gold_mean for deployed in state.deployments],
                "deployed_gold_se": [deployed.gold_se for deployed in state.deployments],
                "gold_by_step": [g for a in state.attempts if a.evaluation for g in a.evaluation.gold_by_step],
                "costs": costs(state, settings.prices),
            }
            for arm, (state, settings) in arms.items()
        },
        "tax": {
            resource: tax(points, target_gold=4.5, arm="ratchet", baseline="online", resource=resource).model_dump()
            for resource in RESOURCES
        },
        "report": None,
    }


def _now() -> datetime:
    return datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


def _evaluated(
    checkpoint: str,
    stage: int | None,
    attempt: int | None,
    gold: float | None,
    artifacts: ArtifactStore,
    responses: Sequence[str],
    by_step: Sequence[float] = (),
) -> Evaluated:
    rows = [
        {"prompt": f"memo {i // 2}", "response": response, "gold": None if gold is None else gold + i / 100}
        for i, response in enumerate(responses)
    ]
    return Evaluated(
        checkpoint=checkpoint,
        stage=stage,
        attempt=attempt,
        gold_mean=gold,
        gold_se=None if gold is None else 0.1,
        responses=len(rows),
        samples=artifacts.publish_lines("samples", rows),
        gold_by_step=tuple(by_step),
        wrong_reward_share=0.25,
        reward_model_accuracy=0.68,
    )


def _fitted(stage: int, attempt: int, labels: int) -> RewardModelFitted:
    return RewardModelFitted(
        stage=stage,
        attempt=attempt,
        reward_model=digest(f"reward model {stage} {attempt}"),
        label_set=digest(f"labels {stage} {attempt}"),
        labels=labels,
        accuracy=0.66,
        accuracy_low=0.6,
        accuracy_high=0.72,
        log_loss_nats=0.61,
        temperature=1.0,
        costs=Costs(),
    )


def _rollouts(plan: Plan, artifacts: ArtifactStore) -> str:
    with artifacts.staging() as folder:
        steps = len(plan.gold)
        lines = (
            {"step": i, "reward": round(1.25 * i / max(steps - 1, 1), 4), "kl_nats": round(3.75 * (i / steps) ** 2, 4)}
            for i in range(steps)
        )
        (folder / "steps.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return artifacts.publish(folder, kind="rollouts")


def _judged(plan: Plan, stage: int, attempt: int, seed: int) -> tuple[GateVerdict, Batch]:
    """A queue on which the candidate wins as often as planned, and what the gate makes of it."""
    dice = np.random.default_rng(seed)
    won = dice.permutation([1.0] * round(200 * plan.win_rate) + [0.0] * (200 - round(200 * plan.win_rate)))
    p_hat = tuple(float(p) for p in np.clip(plan.promise + 0.15 * (won - 0.5) + dice.normal(0, 0.05, 200), 0, 1))
    settings = CampaignSettings.model_validate({**MINI, "gate": {"max_labels": 200}})
    verdict = decide(p_hat, [float(z) for z in won], alpha=0.05, settings=settings.gate)
    if plan.advance != (verdict.verdict is Verdict.ADVANCE):
        raise AssertionError(f"planned advance={plan.advance}, the gate says {verdict}")
    labels = tuple(
        Label(item=i, rater="simulated-0", choice=Choice.FIRST if won[i] else Choice.SECOND)
        for i in range(verdict.labels)
    )
    batch = Batch(
        purpose=Purpose.GATE,
        stage=stage,
        attempt=attempt,
        comparisons=digest(f"comparisons {stage} {attempt}"),
        count=200,
        candidate_first=(True,) * 200,
        p_hat=p_hat,
        alpha=0.05,
        labels=labels,
        drawn_at=_now(),
    )
    return verdict, batch
