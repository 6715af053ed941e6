"""Which batches judge an attempt, and which must be sealed before the first of their labels is asked.

Called by `judging`, which has them drawn in this order, and by `history`, which refuses a ledger that leaves one out.
"""

from typing import Final

from orchestrator.core.records import Digest, Purpose
from orchestrator.core.state import Attempt, CampaignState

QUESTIONED: Final = (
    Purpose.GATE,
    Purpose.DIRECTION,
    Purpose.PATH,
    Purpose.CREEP_BASE,
    Purpose.CREEP_OLDER,
    Purpose.AUDIT,
)
"""In the order in which the gate asks: the cheapest way to a refusal first."""
ANCHORED: Final = (Purpose.CREEP_BASE, Purpose.CREEP_OLDER)
"""Those that compare with an older checkpoint."""


def required(state: CampaignState, attempt: Attempt) -> tuple[Purpose, ...]:
    """The batches that this attempt's verdict rests on; those of `QUESTIONED` first, in its order."""
    gate, stages = state.gate, state.protocol.stages
    wanted = {Purpose.GATE}
    if stages > 1 and gate.direction is not None and state.promises:
        wanted.add(Purpose.DIRECTION)
    if stages > 1 and gate.path is not None and state.algorithm.needs_reward_model:
        wanted.add(Purpose.PATH)
    if _creep_is_due(state, attempt):
        wanted.update(purpose for purpose in ANCHORED if anchor(state, purpose) is not None)
    if is_audited(state):
        wanted.add(Purpose.AUDIT)
    return (
        *(purpose for purpose in QUESTIONED if purpose in wanted),
        *((Purpose.CHECKS,) if state.feedback.checks is not None else ()),
    )


def anchor(state: CampaignState, purpose: Purpose) -> Digest | None:
    """The older checkpoint that a candidate is held against; None where there is none, or it is the approved one."""
    if purpose is Purpose.CREEP_BASE:
        return state.base if state.advances else None
    creep = state.gate.creep
    if creep is None or state.advances <= creep.older:
        return None  # so many approvals ago is the base, or before it
    return state.deployments[state.advances - creep.older].checkpoint


def is_audited(state: CampaignState) -> bool:
    """Whether there is an evaluator better than the raters. An audit that may refuse is never left out in silence."""
    evaluator, limit = state.gate.audit.evaluator, state.gate.audit.limit
    if evaluator == "gold":
        known = state.base_evaluation is not None and state.base_evaluation.gold_mean is not None
        return known or limit is not None
    return evaluator != "none"


def missing(state: CampaignState, attempt: Attempt) -> tuple[Purpose, ...]:
    """Those not yet sealed."""
    return tuple(purpose for purpose in required(state, attempt) if state.panel(attempt, purpose) is None)


def _creep_is_due(state: CampaignState, attempt: Attempt) -> bool:
    creep = state.gate.creep
    return creep is not None and attempt.stage > 0 and attempt.stage % creep.every == 0
