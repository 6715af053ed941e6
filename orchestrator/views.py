"""The ledger as people and programs ask for it: JSON-ready views of a folded state. Nothing here decides."""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

from orchestrator import gate_words
from orchestrator.core.budget import account
from orchestrator.core.commands import AskForDecision, AskForLabels
from orchestrator.core.envelope import Head
from orchestrator.core.machine import next_command
from orchestrator.core.records import Choice, Purpose, Status
from orchestrator.core.settings import CampaignSettings, PriceSettings
from orchestrator.core.state import Attempt, Batch, CampaignState, state_digest

_OF_A_TEST: Final = {"name", "estimate", "bound", "limit", "labels", "passed"}


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
        "alpha": account(state).model_dump(mode="json"),
        "costs": costs(state, settings.prices),
        "ledger": {"events": head.seq + 1, "head": head.hash, "state": state_digest(state)},
    }


def attempt_view(state: CampaignState, attempt: Attempt) -> dict[str, Any]:
    verdict, evaluation, fitted = attempt.verdict, attempt.evaluation, attempt.fitted
    batch = state.gate_batch(attempt)
    tests = {test["name"]: test for test in tests_of(attempt)}
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
        "wrong_reward_high": tests["wrong_reward"]["bound"] if "wrong_reward" in tests else None,
        "alpha": batch.alpha if batch else None,
        "method": verdict.method.value if verdict else None,
        "tests": list(tests.values()),
        "queues": queues_of(state, attempt),
        "vetoes": list(verdict.vetoes) if verdict else [],
        "notes": list(verdict.notes) if verdict else [],
        "attribution": attempt.attribution.model_dump(mode="json") if attempt.attribution else None,
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
        "labels": sum(len(panel.labels) for panel in state.panels(attempt) if _is_rated(panel)),
        "seconds": attempt.costs.compute_seconds,
    }


def tests_of(attempt: Attempt) -> list[dict[str, Any]]:
    """What the gate asked, and what the labels answered; a bound is one-sided, at the attempt's alpha."""
    return [
        {"queue": gate_words.queue(test.name), **test.model_dump(include=_OF_A_TEST)}
        for test in (attempt.verdict.tests if attempt.verdict else ())
    ]


def queues_of(state: CampaignState, attempt: Attempt) -> list[dict[str, Any]]:
    """The sealed queues of an attempt's gate, in the order of their sealing.

    `labels` came in, on `sealed` items; `skipped` items went into the verdict without anybody's word.
    """
    judged = {result.purpose: result for result in attempt.verdict.panels} if attempt.verdict else {}
    return [
        {
            "purpose": panel.purpose.value,
            "labels": len(panel.labels),
            "sealed": panel.count,
            "skipped": judged[panel.purpose].skipped if panel.purpose in judged else 0,
        }
        for panel in state.panels(attempt)
    ]


def _is_rated(panel: Batch) -> bool:
    """Whether the campaign's raters label it: not an instrument, whose labels have an account of their own."""
    return panel.purpose.counted_as == Purpose.GATE.value


def raters(state: CampaignState) -> dict[str, Any]:
    """How far the labels can be trusted, as shares in [0, 1]; None where there is nothing to go by.

    With gold: of simulated raters' labels that name a winner where gold does, too. Between raters: of all pairs of
    verdicts on one comparison; whoever skipped has given none.
    """
    compared = state.labels_with_gold
    return {
        "agreement_with_gold": state.labels_agreed_with_gold / compared if compared else None,
        "agreement_between_raters": _agreement_between(state),
        "by_rater": [_of_rater(state, rater) for rater in sorted({r for b in state.batches for r in b.labels.raters})],
    }


def _of_rater(state: CampaignState, rater: str) -> dict[str, Any]:
    """What one rater's words tell of the rater; shares in [0, 1], None where there is nothing to go by.

    `left_share` is of the words that name a winner: far from one half, somebody clicks on one side. `steady_share` is
    of the comparisons that were shown again, sides swapped.
    """
    labels = [label for batch in state.batches for label in batch.labels.by(rater)]
    sided = [label.choice.swapped if label.swapped else label.choice for label in labels]
    decided = [choice for choice in sided if choice in (Choice.FIRST, Choice.SECOND)]
    again = [
        (label.choice, first.choice)
        for batch in state.batches
        for label in batch.repeats
        if label.rater == rater and (first := batch.labels.of(label.item, rater)) is not None
    ]
    checks = [
        label.choice is batch.expected[label.item]
        for batch in state.batches
        if batch.purpose is Purpose.CHECKS
        for label in batch.labels.by(rater)
    ]
    return {
        "rater": rater,
        "labels": len(labels),
        "left_share": _share(choice is Choice.FIRST for choice in decided),
        "repeats": len(again),
        "steady_share": _share(one is other for one, other in again),
        "checks": len(checks),
        "checks_right_share": _share(checks),
    }


def _share(holds: Iterable[bool]) -> float | None:
    told = list(holds)
    return sum(told) / len(told) if told else None


def _agreement_between(state: CampaignState) -> float | None:
    same = pairs = 0
    for batch in state.batches:
        if not batch.purpose.trains:
            continue  # everybody answers the check items, and an auditor is alone
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
