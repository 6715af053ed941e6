"""Which batches judge an attempt, and what their labels come to.

Called by `judging`, which has them drawn in this order and labelled, and by `rules`, which refuse a ledger that leaves
one out or says something else of them.
"""

from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final

from orchestrator.core.canonical import digest_of
from orchestrator.core.gate import GateVerdict, judge
from orchestrator.core.questions import Panel
from orchestrator.core.records import Digest, Purpose, recorded_name
from orchestrator.core.settings import GOLD, Advance, CampaignSettings
from orchestrator.core.state import Attempt, Batch, CampaignState

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
    if evaluator == GOLD:
        known = state.base_evaluation is not None and state.base_evaluation.gold_mean is not None
        return known or limit is not None
    return evaluator != "none"


def missing(state: CampaignState, attempt: Attempt) -> tuple[Purpose, ...]:
    """Those not yet sealed."""
    return tuple(purpose for purpose in required(state, attempt) if state.panel(attempt, purpose) is None)


def raters_per_item(batch: Batch, settings: CampaignSettings | CampaignState) -> int:
    """Verdicts that settle one item of a batch."""
    return 1 if batch.purpose in (Purpose.AUDIT, Purpose.CHECKS) else settings.feedback.raters_per_item


def mixes_checks(batch: Batch, settings: CampaignSettings | CampaignState) -> bool:
    """Whether people meet check items between the comparisons of this batch."""
    return settings.feedback.checks is not None and batch.purpose.judges and batch.purpose is not Purpose.AUDIT


def asked_by_name(batch: Batch, item: int, settings: CampaignSettings | CampaignState) -> tuple[str, ...] | None:
    """Whose verdicts on an item of a gate's queue count, drawn by lot when it was sealed; None: whoever comes first.

    Were every named rater offered every item, the quickest words would count, and who is quick may well be quick
    because of the verdict. The lot knows the sealed comparisons, the place and the name, nothing that comes later.
    Batches that judge nothing have no deadline, so nobody's absence may block them; audits are for others than the
    raters, and check items for everybody.
    """
    feedback = settings.feedback
    judged_by_people = feedback.rater == "people" and batch.purpose.judges
    if not feedback.raters or not judged_by_people or batch.purpose in (Purpose.AUDIT, Purpose.CHECKS):
        return None
    named = _named(feedback.raters)
    drawn = sorted(named, key=lambda name: digest_of([batch.comparisons, item, name]))
    return tuple(drawn[: raters_per_item(batch, settings)])


@lru_cache(maxsize=64)
def _named(raters: tuple[str, ...]) -> frozenset[str]:
    return frozenset(map(recorded_name, raters))


def judged(state: CampaignState, attempt: Attempt, *, notes: tuple[str, ...] = (), figures: bool = True) -> GateVerdict:
    """What the gate says of the labels so far; vetoes apart."""
    gate = state.gate_batch(attempt)
    return judge(
        _evidence(state, attempt),
        alpha=gate.alpha if gate is not None and gate.alpha is not None else 0.0,
        settings=state.gate,
        hold=state.protocol.advance is Advance.ONCE,
        notes=notes,
        figures=figures,
    )


def deadline(state: CampaignState, batch: Batch) -> datetime | None:
    """When the labels of a batch that people judge by are due; None where nothing is.

    Queues are asked one after the other: one's time begins when all is sealed and the labels of those before it are in.
    Check items are no queue: people meet them in between.
    """
    attempt = state.open_attempt
    audit = batch.purpose is Purpose.AUDIT
    rater = state.gate.audit.evaluator if audit else state.feedback.rater
    if attempt is None or batch.purpose not in QUESTIONED or rater != "people" or missing(state, attempt):
        return None  # labels that only train are worth waiting for; without them there is no reward model
    panels = state.panels(attempt)
    sealed_at = max(panel.drawn_at for panel in panels)
    before = QUESTIONED[: QUESTIONED.index(batch.purpose)]
    queues = (panel for panel in panels if panel.purpose in before)
    asked_at = max((queue.labelled_at for queue in queues if queue.labelled_at is not None), default=sealed_at)
    return asked_at + timedelta(hours=state.feedback.label_deadline_hours)


def _evidence(state: CampaignState, attempt: Attempt) -> tuple[Panel, ...]:
    """Every queue that has a say, as far as it is sealed."""
    panels = []
    gate = state.gate_batch(attempt)
    for purpose in required(state, attempt):
        batch = state.panel(attempt, purpose)
        if batch is None or gate is None or purpose not in QUESTIONED:
            continue
        each = raters_per_item(batch, state)
        outcomes = batch.outcomes(each)
        if purpose is not Purpose.AUDIT:
            panels.append(Panel(purpose, batch.count, outcomes, batch.p_hat, batch.unsaid(each)))
        elif state.gate.audit.limit is not None:
            # Where raters had no opinion, they may have favoured the candidate as much as can be.
            opinions = gate.opinions(state.feedback.raters_per_item)[: batch.count]
            said = tuple(1.0 if opinion is None else opinion for opinion in opinions)
            panels.append(Panel(purpose, batch.count, outcomes[: len(said)], said))
    return tuple(panels)


def _creep_is_due(state: CampaignState, attempt: Attempt) -> bool:
    creep = state.gate.creep
    return creep is not None and attempt.stage > 0 and attempt.stage % creep.every == 0
