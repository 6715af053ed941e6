"""The ledger as people and programs ask for it: JSON-ready views of a folded state. Nothing here decides."""

import math
from collections import Counter
from typing import Any

from orchestrator.core.commands import AskForDecision, AskForLabels
from orchestrator.core.envelope import Head
from orchestrator.core.machine import next_command
from orchestrator.core.records import Choice, Status
from orchestrator.core.settings import CampaignSettings, PriceSettings
from orchestrator.core.state import Attempt, CampaignState, state_digest


def status(state: CampaignState, settings: CampaignSettings) -> str:
    """`waiting` is no event: it is what a running campaign is while only people can move it."""
    if state.status is Status.RUNNING and isinstance(next_command(state, settings), AskForLabels | AskForDecision):
        return Status.WAITING.value
    return state.status.value


def campaign_summary(state: CampaignState, settings: CampaignSettings) -> dict[str, Any]:
    return {
        "name": settings.name,
        "status": status(state, settings),
        "stage": state.stage,
        "approved": _approved(state),
    }


def campaign(state: CampaignState, settings: CampaignSettings, head: Head) -> dict[str, Any]:
    """The document of `ratchet campaign show --json`. Units stand in names; unknown figures are None."""
    return {
        **campaign_summary(state, settings),
        "ended_by": state.ended_by.value if state.ended_by else None,
        "why_paused": state.why_paused,
        "protocol": settings.protocol.model_dump(mode="json"),
        "seed": settings.seed,
        "base": state.base,
        "base_gold": state.base_evaluation.gold_mean if state.base_evaluation else None,
        "advances": state.advances,
        "rollbacks": state.rollbacks,
        "attempts": [attempt_view(state, attempt) for attempt in state.attempts],
        "deployed_gold": [deployed.gold_mean for deployed in state.deployments],
        "raters": raters(state),
        "alpha": {"total": settings.gate.alpha, "spent": state.alpha_spent},
        "costs": costs(state, settings.prices),
        "ledger": {"events": head.seq + 1, "head": head.hash, "state": state_digest(state)},
    }


def attempt_view(state: CampaignState, attempt: Attempt) -> dict[str, Any]:
    verdict, evaluation, fitted = attempt.verdict, attempt.evaluation, attempt.fitted
    batch = state.gate_batch(attempt)
    return {
        "stage": attempt.stage,
        "attempt": attempt.attempt,
        "verdict": verdict.verdict.value if verdict else None,
        "reasons": list(verdict.reasons) if verdict else [],
        "decisions": [decision.model_dump(mode="json") for decision in attempt.decisions],
        "advanced": attempt.advanced,
        "candidate": attempt.candidate,
        "start": attempt.start,
        "start_digest": attempt.start_digest,
        "reward_model": attempt.reward_model,
        "reward_model_accuracy": fitted.accuracy if fitted else None,
        "reward_model_accuracy_gold": evaluation.reward_model_accuracy if evaluation else None,
        "win_rate": verdict.win_rate if verdict else None,
        "win_rate_low": verdict.win_rate_low if verdict else None,
        "over_promise": verdict.over_promise if verdict else None,
        "over_promise_high": verdict.over_promise_high if verdict else None,
        "alpha": batch.alpha if batch else None,
        "proxy": attempt.proxy,
        "gold": evaluation.gold_mean if evaluation else None,
        "gold_se": evaluation.gold_se if evaluation else None,
        "wrong_reward_share": evaluation.wrong_reward_share if evaluation else None,
        "kl_nats": attempt.kl_nats,
        "distances": attempt.distances.model_dump() if attempt.distances else None,
        "spread_start": attempt.spread_start,
        "spread_candidate": attempt.spread_candidate,
        "calibration_slope": fitted.calibration_slope if fitted else None,
        "steps": attempt.steps,
        "stopped_by": attempt.stopped_by,
        "failure": attempt.failure,
        "labels": len(batch.labels) if batch else 0,
        "seconds": attempt.costs.compute_seconds,
    }


def raters(state: CampaignState) -> dict[str, float | None]:
    """How far the labels can be trusted, as shares in [0, 1]; None where there is nothing to go by.

    With gold: of simulated raters' labels that name a winner where gold does, too. Between raters: of all pairs of
    verdicts on one comparison; whoever skipped has given none.
    """
    compared = state.labels_with_gold
    return {
        "agreement_with_gold": state.labels_agreed_with_gold / compared if compared else None,
        "agreement_between_raters": _agreement_between(state),
    }


def _agreement_between(state: CampaignState) -> float | None:
    same = pairs = 0
    for batch in state.batches:
        by_item: dict[int, list[Choice]] = {}
        for label in batch.labels:
            if label.choice is not Choice.SKIP:
                by_item.setdefault(label.item, []).append(label.choice)
        for said in by_item.values():
            pairs += math.comb(len(said), 2)
            same += sum(math.comb(count, 2) for count in Counter(said).values())
    return same / pairs if pairs else None


def costs(state: CampaignState, prices: PriceSettings) -> dict[str, Any]:
    spent = state.costs
    usd = state.labels.total * prices.label_usd + spent.compute_seconds / 3600 * prices.gpu_hour_usd
    return {
        "labels": state.labels.model_dump(),
        "prompts": spent.prompts,
        "samples": spent.samples,
        "tokens": spent.tokens,
        "gradient_steps": spent.gradient_steps,
        "compute_seconds": spent.compute_seconds,
        "waiting_seconds": state.waiting_seconds,
        "usd": usd,
    }


def _approved(state: CampaignState) -> dict[str, Any] | None:
    return {"digest": state.approved, "stage": state.advances} if state.approved else None
