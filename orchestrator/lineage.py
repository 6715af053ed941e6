"""Where checkpoints came from, and which artifacts a campaign's ledger names."""

from collections.abc import Iterator
from typing import Any, Final

from orchestrator import views
from orchestrator.core.records import Purpose
from orchestrator.core.state import Attempt, CampaignState

_STEP: Final = (
    "digest",
    "standing",
    "stage",
    "attempt",
    "parent",
    "start_digest",
    "reward_model",
    "label_set",
    "labels",
    "raters",
    "verdict",
    "reasons",
    "tests",
    "queues",
    "audit",
    "causes",
    "decisions",
    "settings_digest",
)
"""What a step of a lineage tells; the base has no more than the first two and the last."""


def referenced(state: CampaignState) -> set[str]:
    """Every artifact that the ledger names, quarantined candidates included."""
    found: set[str | None] = {state.start_from, *(deployed.checkpoint for deployed in state.deployments)}
    found |= {batch.comparisons for batch in state.batches}
    if state.base_evaluation is not None:
        found.add(state.base_evaluation.samples)
    for attempt in state.attempts:
        found |= {attempt.start, attempt.candidate, attempt.reward_model, attempt.rollouts}
        found.add(attempt.label_set)
        found.add(attempt.evaluation.samples if attempt.evaluation else None)
    return {digest for digest in found if digest is not None}


def checkpoints(state: CampaignState) -> Iterator[dict[str, Any]]:
    """The base, then every candidate in the order of its making, with what became of it."""
    if state.base is not None:
        yield {"digest": state.base, "standing": "base", "stage": None, "attempt": None, "parent": None}
    for attempt in state.attempts:
        if attempt.candidate is None:
            continue
        yield {
            "digest": attempt.candidate,
            "standing": _standing(attempt),
            "stage": attempt.stage,
            "attempt": attempt.attempt,
            "parent": attempt.start,
        }


def trace(state: CampaignState, digest: str) -> list[dict[str, Any]]:
    """From the checkpoint back to the base, with everything that each step rested on."""
    steps = []
    wanted: str | None = digest
    for attempt in reversed(state.attempts):
        if attempt.candidate is None or attempt.candidate != wanted:
            continue
        verdict = attempt.verdict
        steps.append(
            {
                "digest": attempt.candidate,
                "standing": _standing(attempt),
                "stage": attempt.stage,
                "attempt": attempt.attempt,
                "parent": attempt.start,
                "start_digest": attempt.start_digest,
                "reward_model": attempt.reward_model,
                "label_set": attempt.label_set,
                "labels": attempt.fitted.labels if attempt.fitted else None,
                "raters": _raters(state),
                "verdict": verdict.verdict.value if verdict else None,
                "reasons": list(verdict.reasons) if verdict else [],
                "tests": views.tests_of(attempt),
                "queues": views.queues_of(state, attempt),
                "audit": audit_of(state, attempt),
                "causes": [cause.value for cause in attempt.attribution.causes] if attempt.attribution else [],
                "decisions": [decision.model_dump(mode="json") for decision in attempt.decisions],
                "settings_digest": state.settings_digest,
            }
        )
        wanted = attempt.start
    if state.base is not None and wanted == state.base:
        unknown = dict.fromkeys(_STEP)
        steps.append(unknown | {"digest": state.base, "standing": "base", "settings_digest": state.settings_digest})
    return steps


def _raters(state: CampaignState) -> list[str]:
    """Everybody whose labels could train or judge; an auditor's do neither alone."""
    rated = (batch for batch in state.batches if batch.purpose is not Purpose.AUDIT)
    return sorted({label.rater for batch in rated for label in batch.labels})


def audit_of(state: CampaignState, attempt: Attempt) -> dict[str, Any] | None:
    """Who looked closer than the raters, at how many items, and whether that could refuse; None where nobody did."""
    batch = state.panel(attempt, Purpose.AUDIT)
    if batch is None:
        return None
    settings = state.gate.audit
    return {"evaluator": settings.evaluator, "labels": len(batch.labels), "limit": settings.limit}


def _standing(attempt: Attempt) -> str:
    if attempt.advanced:
        return "approved"
    return "quarantined" if attempt.closed else "candidate"
