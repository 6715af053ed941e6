"""A candidate that waits for an approver, made by hand: every number in it is chosen, none is computed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from orchestrator.artifacts import ArtifactStore
from orchestrator.core.attribution import Attribution, Cause, Estimate
from orchestrator.core.canonical import sha256_hex
from orchestrator.core.events import Distances, Evaluated, RewardModelFitted
from orchestrator.core.gate import GateVerdict, PanelResult
from orchestrator.core.questions import TestResult
from orchestrator.core.records import Choice, Costs, Harm, Label, LabelCounts, Purpose, Verdict
from orchestrator.core.settings import CampaignSettings
from orchestrator.core.state import Attempt, Batch, CampaignState, Deployment

SETTINGS: dict[str, Any] = {
    "name": "ours",
    "task": {"kind": "memo"},
    "base": {"seedling": {"width": 32, "layers": 1, "heads": 2, "steps": 5}},
    "protocol": {"stages": 2, "attempts": 3},
    "feedback": {"rater": "people", "initial_labels": 20},
    "gate": {"alpha": 0.3, "min_labels": 5, "max_labels": 8, "path": None},
    "prices": {"label_usd": 0.5, "gpu_hour_usd": 3.0},
}
AT = datetime(2026, 1, 2, tzinfo=UTC)
P_HAT = (0.9, 0.4, 0.7, 0.6, 0.8, 0.5, 0.3, 0.2)
CANDIDATE_FIRST = (True, True, False, False, True, False, True, False)
SAID = (
    # item, choice, harm: the first six items were judged
    (0, Choice.SECOND, Harm.FIRST),  # against the candidate, whom it flags
    (1, Choice.FIRST, None),  # for
    (2, Choice.FIRST, Harm.FIRST),  # against; the approved policy's is flagged
    (3, Choice.TIE, None),
    (4, Choice.SECOND, None),  # against
    (5, Choice.SKIP, None),
)
"""Of the six, one for the candidate, three against it, one even, one skipped."""


def digest(text: str) -> str:
    return sha256_hex(text.encode())


def told(name: str, estimate: float | None, bound: float, limit: float, labels: int, passed: bool) -> TestResult:
    return TestResult(
        name=name,
        labels=labels,
        cap=8,
        estimate=estimate,
        bound=bound,
        limit=limit,
        log_e_value=3.0,
        log_threshold=2.0,
        passed=passed,
    )


PASSED = GateVerdict(
    verdict=Verdict.ADVANCE,
    reasons=("all refuted",),
    alpha=0.05,
    labels=8,
    skipped=1,
    panels=(
        PanelResult(purpose=Purpose.GATE, labels=6, skipped=1),
        PanelResult(purpose=Purpose.DIRECTION, labels=2, skipped=0),
    ),
    tests=(
        told("improvement", 0.625, 0.525, 0.5, 6, True),
        told("over_promise", 0.04, 0.12, 0.15, 6, True),
        told("over_promise_top_half", -0.0, 0.14, 0.15, 3, True),
        told("direction", 0.75, 0.51, 0.5, 2, True),
        told("direction_over_promise", -0.3, 0.1, 0.15, 2, True),
    ),
    win_rate=0.625,
    win_rate_low=0.525,
    over_promise=0.04,
    over_promise_high=0.12,
)
REFUSED = GateVerdict(
    verdict=Verdict.ROLLBACK,
    reasons=("improvement: all labels used",),
    alpha=0.05,
    labels=8,
    panels=(PanelResult(purpose=Purpose.GATE, labels=8, skipped=0),),
    tests=(
        told("improvement", 0.25, 0.125, 0.5, 8, False),
        told("over_promise", 0.3, 0.5, 0.15, 8, False),
        told("over_promise_top_half", 0.2, 0.4, 0.15, 4, False),
    ),
    win_rate=0.25,
    win_rate_low=0.125,
    over_promise=0.3,
    over_promise_high=0.5,
)
ATTRIBUTION = Attribution(
    over_credit=Estimate(mean=0.08, low=-0.01, high=0.17, items=6),
    reward_model=Estimate(mean=0.12, low=0.02, high=0.22, items=6),
    raters=Estimate(mean=-0.04, low=-0.14, high=0.06, items=6),
    off_distribution=None,
    without_verdict=1,
    unknown=("The part off distribution is unknown: no probes, or too few, were compared.",),
    causes=(Cause.REWARD_MODEL,),
)


def comparisons(artifacts: ArtifactStore, count: int = 8) -> str:
    rows = (
        {"item": item, "prompt": f"prompt {item}", "response_1": f"first {item}", "response_2": f"second {item}"}
        for item in range(count)
    )
    return artifacts.publish_lines("comparisons", rows)


def batch(purpose: Purpose, attempt: int, texts: str, **changes: Any) -> Batch:
    made: dict[str, Any] = {
        "purpose": purpose,
        "stage": 0,
        "attempt": attempt,
        "comparisons": texts,
        "count": 8,
        "policy": digest(f"candidate {attempt}"),
        "opponent": digest("base"),
        "candidate_first": CANDIDATE_FIRST,
        "drawn_at": AT,
    }
    return Batch(**{**made, **changes})


def fitted(attempt: int) -> RewardModelFitted:
    return RewardModelFitted(
        stage=0,
        attempt=attempt,
        reward_model=digest(f"reward model {attempt}"),
        label_set=digest("labels"),
        labels=28,
        accuracy=0.7,
        accuracy_low=0.6,
        accuracy_high=0.8,
        log_loss_nats=0.6,
        temperature=1.0,
        calibration_slope=0.9,
        calibration_slope_se=0.2,
        costs=Costs(),
    )


def waiting(
    artifacts: ArtifactStore,
    *,
    settings: dict[str, Any] | None = None,
    state: dict[str, Any] | None = None,
    gate: dict[str, Any] | None = None,
    **attempt: Any,
) -> tuple[CampaignState, CampaignSettings]:
    """The campaign: its first attempt was refused, its second passed and waits.

    Keyword arguments change the second attempt; `settings` and `state` change those, `gate` its gate's queue.
    """
    asked = CampaignSettings.model_validate({**SETTINGS, **(settings or {})})
    texts = comparisons(artifacts)
    labels = tuple(Label(item=item, rater="ana", choice=choice, harm=harm) for item, choice, harm in SAID)
    sealed = {"p_hat": P_HAT, "alpha": 0.05, "labels": labels, **(gate or {})}
    first = Attempt(
        stage=0,
        attempt=0,
        start=digest("base"),
        reward_model=digest("reward model 0"),
        fitted=fitted(0),
        candidate=digest("candidate 0"),
        steps=40,
        stopped_by="steps",
        proxy=0.8,
        kl_nats=2.0,
        kl_budget_nats=4.0,
        verdict=REFUSED,
        rolled_back_to=digest("base"),
        costs=Costs(samples=50, tokens=500, gradient_steps=40, compute_seconds=10.0),
    )
    second: dict[str, Any] = {
        "stage": 0,
        "attempt": 1,
        "start": digest("base"),
        "reward_model": digest("reward model 1"),
        "fitted": fitted(1),
        "candidate": digest("candidate 1"),
        "steps": 30,
        "stopped_by": "kl_budget",
        "proxy": 1.25,
        "kl_nats": 3.0,
        "kl_budget_nats": 4.0,
        "distances": Distances(
            reverse_reference_nats=3.0,
            forward_reference_nats=2.5,
            reverse_base_nats=3.5,
            forward_base_nats=2.5,
            largest_token_log_ratio_nats=4.0,
            high_token_log_ratio_nats=3.0,
            exact=True,
        ),
        "verdict": PASSED,
        "attribution": ATTRIBUTION,
        "costs": Costs(samples=60, tokens=600, gradient_steps=30, compute_seconds=20.0),
        **attempt,
    }
    folded: dict[str, Any] = {
        "name": asked.name,
        "settings_digest": digest("settings"),
        "protocol": asked.protocol,
        "feedback": asked.feedback,
        "gate": asked.gate,
        "approval": asked.approval,
        "candidate": asked.candidate,
        "base": digest("base"),
        "approved": digest("base"),
        "base_evaluation": Evaluated(
            checkpoint=digest("base"), gold_mean=3.0, gold_se=0.1, responses=8, samples=digest("samples")
        ),
        "batches": (
            batch(Purpose.GATE, 0, texts, p_hat=(0.5,) * 8, alpha=0.05),
            batch(Purpose.GATE, 1, texts, **sealed),
            *([batch(Purpose.DIRECTION, 1, texts)] if asked.protocol.stages > 1 else []),
            batch(Purpose.AUDIT, 1, texts, count=6, candidate_first=CANDIDATE_FIRST[:6]),
        ),
        "attempts": (first, Attempt(**second)),
        "deployments": (Deployment(checkpoint=digest("base"), parent=None),),
        "labels": LabelCounts(initial=20, gate=16),
        "costs": Costs(samples=110, tokens=1100, gradient_steps=70, compute_seconds=7200.0),
        "waiting_seconds": 90.0,
        **(state or {}),
    }
    return CampaignState(**folded), asked
