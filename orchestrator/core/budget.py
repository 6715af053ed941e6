"""How the error budget alpha is spent over a campaign's stages and attempts.

What is left is divided by the stages left, and a stage's share evenly among the attempts that it may use. An
attempt spends its share when its gate opens; what a stage leaves over carries to the next. The shares of one
lineage sum to at most alpha, whatever happened before, so by the union bound P(any wrong approval) <= alpha.
Nothing gives spent budget back: not a rollback, not a resume.
"""

from collections.abc import Sequence

from orchestrator.core.records import Count, Record
from orchestrator.core.state import CampaignState


def attempt_alpha(
    total: float, spent_before_stage: Sequence[float], *, stage: int, stages: int, attempts: int
) -> float:
    """Error budget of each attempt of `stage`.

    Args:
        total: alpha of the whole campaign.
        spent_before_stage: what every gate opened in earlier stages spent.
        stage: from 0; the stage about to run.
    """
    left = max(total - sum(spent_before_stage), 0.0)
    return left / (stages - stage) / attempts


class Spending(Record):
    """What one attempt took from the error budget."""

    stage: Count
    attempt: Count
    alpha: float
    """0 where no gate was opened: the phase failed, was vetoed, or the protocol asks nothing of this attempt."""
    spent_after: float
    """By this attempt and all before it."""
    opened: bool


class Account(Record):
    """The error budget of a campaign: P(any wrong approval) <= spent <= total."""

    total: float
    spent: float
    left: float
    attempts: tuple[Spending, ...]
    next: float | None
    """What the next gate to open will spend. None where none will, or while one is open: its verdict decides whether
    the next belongs to this stage or to the following one."""


def account(state: CampaignState) -> Account:
    """The account as the ledger has it; nothing that happened takes an entry out of it."""
    attempts, spent = [], 0.0
    for attempt in state.attempts:
        gate = state.gate_batch(attempt)
        alpha = (gate.alpha or 0.0) if gate is not None else 0.0
        spent += alpha
        attempts.append(
            Spending(
                stage=attempt.stage, attempt=attempt.attempt, alpha=alpha, spent_after=spent, opened=gate is not None
            )
        )
    total = state.gate.alpha
    return Account(
        total=total, spent=spent, left=max(total - spent, 0.0), attempts=tuple(attempts), next=_next_alpha(state)
    )


def _next_alpha(state: CampaignState) -> float | None:
    protocol, stage = state.protocol, _next_stage(state)
    if stage is None or stage == protocol.stages or not protocol.gates:
        return None
    return attempt_alpha(
        state.gate.alpha,
        state.alpha_spent_before(stage),
        stage=stage,
        stages=protocol.stages,
        attempts=protocol.gates,
    )


def _next_stage(state: CampaignState) -> int | None:
    """Of the next gate to open, as far as that is settled; one beyond the last where all are done."""
    if state.ended_by is not None:
        return None
    if not state.attempts:
        return 0
    last = state.attempts[-1]
    if last.advanced:
        return last.stage + 1
    if last.closed:
        return last.stage if last.attempt + 1 < state.protocol.attempts else None
    return last.stage if state.gate_batch(last) is None else None
