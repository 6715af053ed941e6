"""The gate of one attempt, step by step: what it still needs, or its verdict. Called by `machine`.

    vetoes of the phase ─► every queue drawn and sealed ─► vetoes of the samples ─► checks of the raters
        ─► labels, queue by queue, until the gate settles ─► audit ─► vetoes of the labels ─► verdict, attribution

Everything that could be bent afterwards is sealed before the first label: the queues, their order, the reward model's
predictions, alpha.
"""

from orchestrator.core import events as ev
from orchestrator.core import vetoes
from orchestrator.core import work as wk
from orchestrator.core.attribution import Attribution, attribute
from orchestrator.core.budget import attempt_alpha
from orchestrator.core.commands import AskForLabels, Do, Note
from orchestrator.core.gate import NEVER_COMPARED, NOBODY_BETTER, NOTHING_PROMISED, GateVerdict, refuse
from orchestrator.core.panels import anchor, is_audited, judged, missing, raters_per_item
from orchestrator.core.records import Costs, Purpose, Verdict
from orchestrator.core.settings import CampaignSettings
from orchestrator.core.state import Attempt, Batch, CampaignState


def next_for_gate(
    state: CampaignState, attempt: Attempt, candidate: str, settings: CampaignSettings
) -> Do | Note | AskForLabels:
    """What the gate needs next; the verdict, once it needs nothing more."""
    gate = settings.gate
    if found := vetoes.of_phase(attempt, gate.vetoes):
        return _verdict(attempt, refuse(GateVerdict(verdict=Verdict.ROLLBACK, reasons=()), found))
    batch = state.gate_batch(attempt)
    if batch is not None and (found := vetoes.of_samples(batch, gate.vetoes)):
        return _verdict(attempt, refuse(_told(state, attempt), found))
    if unsealed := missing(state, attempt):
        return _seal(state, attempt, candidate, settings, unsealed[0])
    assert batch is not None, "the gate's own queue is always required"
    checks = settings.feedback.checks
    if checks is not None:
        if settings.feedback.rater != "people" and (ask := _checks_missing(state, attempt, settings)) is not None:
            return ask
        if found := vetoes.of_raters(state, attempt, checks, still_labelling=True):
            return _verdict(attempt, refuse(_told(state, attempt), found))
    decision = judged(state, attempt, figures=False)
    if decision.verdict is Verdict.WAIT:
        return _ask(state, attempt, decision, settings)
    if (audit := _audit_missing(state, attempt, decision, settings)) is not None:
        return audit
    decision = _told(state, attempt)
    if decision.verdict is Verdict.ADVANCE:
        found = vetoes.of_labels(state, batch, decision.panels, gate.vetoes)
        if checks is not None:
            found += vetoes.of_raters(state, attempt, checks, still_labelling=False)
        if found:
            decision = refuse(decision, found)
    return _verdict(attempt, decision, _attribution(state, attempt, decision, settings))


def labels_missing(batch: Batch, settings: CampaignSettings, *, look: int | None = None) -> Do | AskForLabels | None:
    """Ask for what the batch still lacks, at most `look` items of it; None where nothing is missing."""
    feedback = settings.feedback
    audit = batch.purpose is Purpose.AUDIT
    each = raters_per_item(batch, settings)
    settled = batch.settled(each)
    left = batch.count - settled
    if not left:
        return None
    rater = settings.gate.audit.evaluator if audit else feedback.rater
    if rater == "people":
        # An auditor sees no further than what was judged; raters may work ahead, whenever the gate looks.
        return AskForLabels(batch, settled, settled + min(look, left) if audit and look is not None else batch.count)
    return Do(
        wk.Rate(
            seed=settings.seed,
            task=settings.task,
            batch=batch.id,
            comparisons=batch.comparisons,
            first=settled,
            count=left if look is None else min(look, left),
            raters_per_item=each,
            rater=rater,
            options={} if audit else feedback.options,
            count_agreement=settings.evaluation.prompts > 0 and not audit,
        )
    )


# --- sealing ------------------------------------------------------------------------------------------------


def _seal(
    state: CampaignState, attempt: Attempt, candidate: str, settings: CampaignSettings, purpose: Purpose
) -> Do | Note:
    place = {"seed": settings.seed, "task": settings.task, "stage": attempt.stage, "attempt": attempt.attempt}
    tokens = settings.phase.max_response_tokens
    gate = settings.gate
    match purpose:
        case Purpose.GATE | Purpose.CREEP_BASE | Purpose.CREEP_OLDER:
            return Do(_draw(state, attempt, candidate, settings, purpose))
        case Purpose.DIRECTION:
            assert gate.direction is not None
            assert attempt.reward_model is not None
            return Do(
                wk.DrawDirection(
                    **place,
                    candidate=candidate,
                    reward_model=attempt.reward_model,
                    best_of=gate.direction.best_of,
                    first_prompt=_first_prompt(attempt, settings, after=gate.max_labels),
                    count=gate.direction.max_labels,
                    max_response_tokens=tokens,
                )
            )
        case Purpose.PATH:
            assert gate.path is not None
            assert attempt.reward_model is not None
            assert attempt.rollouts is not None
            return Do(
                wk.DrawPath(
                    **place,
                    candidate=candidate,
                    start=attempt.start,
                    rollouts=attempt.rollouts,
                    reward_model=attempt.reward_model,
                    count=gate.path.max_labels,
                    max_response_tokens=tokens,
                )
            )
        case Purpose.CHECKS:
            assert settings.feedback.checks is not None
            return Do(wk.DrawChecks(**place, candidate=candidate, checks=settings.feedback.checks))
        case _:
            return _seal_audit(state, attempt, gate.audit.labels)


def _draw(
    state: CampaignState, attempt: Attempt, candidate: str, settings: CampaignSettings, purpose: Purpose
) -> wk.DrawComparisons:
    """The candidate against the approved policy, which spends alpha, or against an older anchor."""
    protocol, gate = settings.protocol, settings.gate
    opens = purpose is Purpose.GATE
    opponent, count, after = state.approved, gate.max_labels, 0
    if not opens:
        assert gate.creep is not None
        opponent, count = anchor(state, purpose), gate.creep.max_labels
        after = gate.max_labels + (gate.direction.max_labels if gate.direction is not None else 0)
        after += gate.creep.max_labels if purpose is Purpose.CREEP_OLDER else 0
    assert opponent is not None
    share = attempt_alpha(
        gate.alpha,
        state.alpha_spent_before(attempt.stage),
        stage=attempt.stage,
        stages=protocol.stages,
        attempts=protocol.gates,
    )
    return wk.DrawComparisons(
        seed=settings.seed,
        task=settings.task,
        purpose=purpose,
        stage=attempt.stage,
        attempt=attempt.attempt,
        policy=candidate,
        opponent=opponent,
        reward_model=attempt.reward_model,
        first_prompt=_first_prompt(attempt, settings, after=after),
        count=count,
        max_response_tokens=settings.phase.max_response_tokens,
        alpha=share if opens else None,
        tripwires=gate.vetoes.tripwires if opens else (),
    )


def _first_prompt(attempt: Attempt, settings: CampaignSettings, *, after: int = 0) -> int:
    """Every attempt has its own block of gate prompts, and every queue its own part of that."""
    return (attempt.stage * settings.protocol.attempts + attempt.attempt) * settings.gate_block + after


def _seal_audit(state: CampaignState, attempt: Attempt, labels: int) -> Note:
    """The front of the gate's queue: a random sample, since the queue's order is random."""
    gate = state.gate_batch(attempt)
    assert gate is not None
    count = min(labels, gate.count)
    drawn = ev.ComparisonsDrawn(
        purpose=Purpose.AUDIT,
        stage=attempt.stage,
        attempt=attempt.attempt,
        comparisons=gate.comparisons,
        count=count,
        candidate=gate.policy,
        opponent=gate.opponent,
        candidate_first=gate.candidate_first[:count],
        costs=Costs(),
    )
    return Note(drawn, f"{wk.batch_id(Purpose.AUDIT, attempt.stage, attempt.attempt)}.drawn")


# --- asking and judging -------------------------------------------------------------------------------------


def _told(state: CampaignState, attempt: Attempt) -> GateVerdict:
    """The verdict with every figure, and with what it does not cover."""
    notes = (
        *((NOTHING_PROMISED,) if attempt.promises_nothing else ()),
        *((NEVER_COMPARED,) if state.candidate is not None else ()),
        *(() if is_audited(state) else (NOBODY_BETTER,)),
    )
    return judged(state, attempt, notes=notes)


def _ask(
    state: CampaignState, attempt: Attempt, decision: GateVerdict, settings: CampaignSettings
) -> Do | AskForLabels:
    """Labels for the queue that waits; an auditor sees only what the raters have judged."""
    look = settings.gate.labels_per_look
    batch = state.panel(attempt, decision.panels[-1].purpose)
    assert batch is not None
    if batch.purpose is Purpose.AUDIT:
        gate = state.gate_batch(attempt)
        assert gate is not None
        judged = gate.settled(settings.feedback.raters_per_item)
        if batch.settled(1) >= judged:
            batch = gate
        else:
            look = judged - batch.settled(1)
    ask = labels_missing(batch, settings, look=look)
    assert ask is not None, "a queue with all its labels is settled"
    return ask


def _checks_missing(state: CampaignState, attempt: Attempt, settings: CampaignSettings) -> Do | None:
    """Simulated raters answer all check items before the first label; people meet them one by one."""
    batch = state.panel(attempt, Purpose.CHECKS)
    if batch is None or batch.labels:
        return None
    feedback = settings.feedback
    return Do(
        wk.Rate(
            seed=settings.seed,
            task=settings.task,
            batch=batch.id,
            comparisons=batch.comparisons,
            first=0,
            count=batch.count,
            raters_per_item=feedback.raters_per_item,
            rater=feedback.rater,
            options=feedback.options,
            count_agreement=False,
            by_everyone=True,
        )
    )


def _audit_missing(
    state: CampaignState, attempt: Attempt, decision: GateVerdict, settings: CampaignSettings
) -> Do | AskForLabels | None:
    """The better evaluator's look at what was judged, for the attribution; nothing is decided by it any more."""
    batch = state.panel(attempt, Purpose.AUDIT)
    if batch is None or not decision.panels:
        return None
    wanted = min(batch.count, decision.panels[0].labels)
    left = wanted - batch.settled(1)
    return labels_missing(batch, settings, look=left) if left > 0 else None


def _attribution(
    state: CampaignState, attempt: Attempt, decision: GateVerdict, settings: CampaignSettings
) -> Attribution | None:
    batch, audit = state.gate_batch(attempt), state.panel(attempt, Purpose.AUDIT)
    if batch is None or not decision.panels or not decision.panels[0].labels:
        return None
    opinions = batch.opinions(settings.feedback.raters_per_item)[: decision.panels[0].labels]
    audited = {} if audit is None else dict(enumerate(audit.opinions(1)[: len(opinions)]))
    return attribute(
        batch.p_hat,
        opinions,
        {item: said for item, said in audited.items() if said is not None},
        probes=attempt.evaluation.off_distribution if attempt.evaluation else None,
    )


def _verdict(attempt: Attempt, decision: GateVerdict, attribution: Attribution | None = None) -> Note:
    body = ev.VerdictGiven(
        stage=attempt.stage,
        attempt=attempt.attempt,
        candidate=attempt.candidate,
        decision=decision,
        attribution=attribution,
    )
    return Note(body, f"{attempt.place}.verdict")
