"""Folding: what each event does to the state, and which events the rules allow at all.

A ledger that the machine wrote always folds; a history that breaks the rules (an advance without a decision, a
verdict on another candidate, a rollback that did not restore the same bytes) is refused, wherever it came from.
"""

import unicodedata
from collections.abc import Iterable
from typing import Any, Final

from orchestrator.core import events as ev
from orchestrator.core.events import Event
from orchestrator.core.gate import GateVerdict
from orchestrator.core.panels import ANCHORED, anchor, missing, required
from orchestrator.core.questions import OVER_PROMISES, TESTS
from orchestrator.core.records import Costs, Digest, EndedBy, Purpose, Status, Verdict
from orchestrator.core.settings import (
    Advance,
    ApprovalSettings,
    CandidateSettings,
    FeedbackSettings,
    GateSettings,
    PhaseSettings,
    ProtocolSettings,
)
from orchestrator.core.state import Attempt, Batch, CampaignState, Deployment, ReviewDecision
from orchestrator.core.vetoes import check_results, checks_due, of_labels, of_phase, of_raters, of_samples

AUTOMATIC_REVIEWERS: Final = frozenset({"gate", "protocol"})
GOLD: Final = "gold"
"""As an auditor, the task's own scorer."""
ROUNDING: Final = 1e-9
"""Relative slack for a sum of shares of alpha."""


class IllegalEventError(ValueError):
    """An event that the rules do not allow at its place: the ledger was not written by this machine."""


def fold(events: Iterable[Event], state: CampaignState | None = None) -> CampaignState:
    """Fold events, in order of seq, into a state; folding a prefix and then the rest gives the same."""
    state = CampaignState() if state is None else state
    for event in events:
        state = apply(state, event)
    return state


def apply(state: CampaignState, event: Event) -> CampaignState:
    """The state after one more event.

    Raises:
        IllegalEventError: the rules do not allow this event here.
    """
    state = _apply_body(state, event)
    waited = 0.0
    from_people = event.epoch is None and isinstance(event.body, ev.LabelsRecorded | ev.DecisionMade)
    if from_people and state.last_event_at is not None:
        waited = max((event.at - state.last_event_at).total_seconds(), 0.0)
    return state.model_copy(update={"last_event_at": event.at, "waiting_seconds": state.waiting_seconds + waited})


def _apply_body(state: CampaignState, event: Event) -> CampaignState:
    body = event.body
    if not isinstance(body, ev.CampaignCreated):
        _require(event, state.settings_digest is not None, "before the campaign was created")
    match body:
        case ev.CampaignCreated():
            _require(event, state.settings_digest is None, "a campaign is created once")
            return _created(state, body)
        case ev.ControllerStarted():
            return state
        case ev.Paused():
            _require(event, state.status in (Status.RUNNING, Status.PAUSED), "the campaign has ended")
            return _with(state, status=Status.PAUSED, why_paused=body.why)
        case ev.Resumed():
            _require(event, state.status in (Status.RUNNING, Status.PAUSED), "the campaign has ended")
            return _with(state, status=Status.RUNNING, why_paused=None)
        case ev.Finished():
            _require(event, state.ended_by is None, "the campaign has ended already")
            return _finished(state, event, body)
    _require(event, state.ended_by is None, "the campaign has ended")
    match body:
        case ev.BaseReady():
            return _base_ready(state, event, body)
        case ev.Evaluated():
            return _evaluated(state, event, body)
        case ev.ComparisonsDrawn():
            return _comparisons_drawn(state, event, body)
        case ev.LabelsRecorded():
            return _labels_recorded(state, event, body)
        case ev.FeedbackExpired():
            batch = _batch(state, event, body.batch)
            _require(event, batch.purpose.judges, "only a gate's labels have a deadline")
            return _replace_batch(state, batch.model_copy(update={"expired": True, "labelled_at": event.at}))
        case ev.AttemptBegun():
            return _attempt_begun(state, event, body)
        case ev.RewardModelFitted():
            attempt = _in_training(state, event, body.stage, body.attempt)
            _require(event, attempt.reward_model is None, "the attempt has its reward model already")
            _require(event, state.algorithm.needs_reward_model, "the algorithm has no use for one")
            _require_may_train(state, event, body.trained_on)
            fitted = {"reward_model": body.reward_model, "label_set": body.label_set, "fitted": body}
            state = _replace_attempt(state, attempt, **fitted, spent=body.costs)
            return _with(state, reward_model=body.reward_model)
        case ev.PhaseFinished():
            return _phase_finished(state, event, body)
        case ev.CandidateTaken():
            return _candidate_taken(state, event, body)
        case ev.PhaseFailed():
            attempt = _in_training(state, event, body.stage, body.attempt)
            return _replace_attempt(state, attempt, stopped_by=body.why, failure=body.failure, spent=body.costs)
        case ev.VerdictGiven():
            return _verdict_given(state, event, body)
        case ev.DecisionMade():
            return _decision_made(state, event, body)
        case ev.RolledBack():
            attempt = _open(state, event, body.stage, body.attempt)
            refused = attempt.verdict is not None and attempt.verdict.verdict is Verdict.ROLLBACK
            _require(event, refused or attempt.rejected, "neither the gate nor a reviewer refused the candidate")
            _require(event, body.to == state.restart_point, "the protocol rolls back to another checkpoint")
            _require(event, body.quarantined in (None, attempt.candidate), "it quarantines another checkpoint")
            return _replace_attempt(state, attempt, rolled_back_to=body.to)
        case ev.Advanced():
            return _advanced(state, event, body)
    raise IllegalEventError(f"event {event.seq}: {type(body).__name__} has no place in the rules")


def _created(state: CampaignState, body: ev.CampaignCreated) -> CampaignState:
    settings = body.settings
    given = settings.get("candidate")
    return _with(
        state,
        name=str(settings.get("name", "")),
        settings_digest=body.settings_digest,
        start_from=body.start_from,
        protocol=ProtocolSettings.model_validate(settings.get("protocol", {})),
        feedback=FeedbackSettings.model_validate(settings.get("feedback", {})),
        gate=GateSettings.model_validate(settings.get("gate", {})),
        approval=ApprovalSettings.model_validate(settings.get("approval", {})),
        algorithm=PhaseSettings.model_validate(settings.get("phase", {})).algorithm,
        candidate=None if given is None else CandidateSettings.model_validate(given),
    )


def _finished(state: CampaignState, event: Event, body: ev.Finished) -> CampaignState:
    if body.ended_by is EndedBy.STOPPED:
        return _with(state, status=Status.STOPPED, ended_by=body.ended_by)
    _require(event, state.open_attempt is None, "an attempt is still open")
    last = state.attempts[-1] if state.attempts else None
    if body.ended_by is EndedBy.STAGES_COMPLETED:
        _require(event, state.advances == state.protocol.stages, "stages are left")
    else:
        used_up = last is not None and not last.advanced and last.attempt + 1 == state.protocol.attempts
        _require(event, used_up, "attempts are left")
    return _with(state, status=Status.FINISHED, ended_by=body.ended_by)


def _base_ready(state: CampaignState, event: Event, body: ev.BaseReady) -> CampaignState:
    _require(event, state.base is None, "there is a base already")
    base = Deployment(checkpoint=body.checkpoint, parent=None)
    return _with(state, base=body.checkpoint, approved=body.checkpoint, deployments=(base,))


def _evaluated(state: CampaignState, event: Event, body: ev.Evaluated) -> CampaignState:
    if body.stage is None or body.attempt is None:
        _require(event, body.checkpoint == state.base, "it evaluates another base")
        _require(event, state.base_evaluation is None, "the base is evaluated already")
        gold = {"gold_mean": body.gold_mean, "gold_se": body.gold_se}
        base = state.deployments[0].model_copy(update=gold)
        return _with(state, base_evaluation=body, deployments=(base, *state.deployments[1:]))
    attempt = _open(state, event, body.stage, body.attempt)
    _require(event, body.checkpoint == attempt.candidate, "it evaluates another candidate")
    _require(event, attempt.evaluation is None, "the candidate is evaluated already")
    return _replace_attempt(state, attempt, evaluation=body)


def _comparisons_drawn(state: CampaignState, event: Event, body: ev.ComparisonsDrawn) -> CampaignState:
    batch = Batch(
        purpose=body.purpose,
        stage=body.stage,
        attempt=body.attempt,
        comparisons=body.comparisons,
        count=body.count,
        policy=body.candidate,
        opponent=body.opponent,
        candidate_first=body.candidate_first,
        p_hat=body.p_hat,
        alpha=body.alpha,
        first_prompt=body.first_prompt,
        expected=body.expected,
        candidate_tokens_mean=body.candidate_tokens_mean,
        opponent_tokens_mean=body.opponent_tokens_mean,
        tripwires=body.tripwires,
        drawn_at=event.at,
    )
    _require(event, state.batch(batch.id) is None, f"batch {batch.id} is sealed already")
    _require(event, body.alpha is None or body.purpose is Purpose.GATE, "only a gate spends alpha")
    if body.purpose is Purpose.INITIAL:
        _require(event, state.candidate is None, "nothing is trained where the candidate is given")
        _require(event, state.base is not None, "there is no base to sample from")
        _require(event, body.stage is None and body.attempt is None, "the initial batch belongs to no attempt")
        state = _with(state, costs=state.costs + body.costs)
    else:
        if body.stage is None or body.attempt is None:
            raise IllegalEventError(f"event {event.seq} ({event.body.TYPE}): it names no attempt")
        attempt = _open(state, event, body.stage, body.attempt)
        if body.purpose.judges:
            _require_seal(state, event, attempt, body)
        else:
            _require(event, state.candidate is None, "nothing is trained where the candidate is given")
        state = _replace_attempt(state, attempt, spent=body.costs)
    return _with(state, batches=(*state.batches, batch))


def _require_seal(state: CampaignState, event: Event, attempt: Attempt, body: ev.ComparisonsDrawn) -> None:
    """What judges a candidate is about this candidate, is whole, is new, and comes before the first label."""
    _require(event, attempt.candidate is not None, "there is no candidate to question")
    _require(event, attempt.verdict is None, "the verdict stands already")
    _require(event, body.candidate == attempt.candidate, "it questions another candidate")
    labelled = any(batch.labels for batch in state.panels(attempt))
    _require(event, not labelled, "a label was asked before everything was sealed")
    if body.purpose is Purpose.CHECKS:
        _require(event, len(body.expected) == body.count, "a check item has no known answer")
        return
    _require(event, len(body.candidate_first) == body.count, "the seal is not whole: the order belongs to it")
    if body.purpose is Purpose.AUDIT:
        gate = state.gate_batch(attempt)
        front = gate is not None and (gate.comparisons, gate.opponent, gate.candidate_first[: body.count]) == (
            body.comparisons,
            body.opponent,
            body.candidate_first,
        )
        _require(event, front, "it audits something else than the front of the gate's queue")
        return
    _require(event, body.reward_model == attempt.reward_model, "it questions another reward model")
    _require(event, body.opponent == _opponent(state, attempt, body.purpose), "it compares with another checkpoint")
    promises = body.count if state.promises else 0
    _require(event, len(body.p_hat) == promises, "the seal is not whole: the predictions belong to it")
    used = next((batch.id for batch in state.batches if batch.comparisons == body.comparisons), None)
    _require(event, used is None, f"its comparisons are those of {used}")
    own = body.purpose is not Purpose.PATH
    _require(event, (body.first_prompt is not None) is own, "the seal is not whole: its prompts belong to it")
    if body.first_prompt is not None:
        for batch in state.batches:
            if batch.purpose.judges and batch.first_prompt is not None:
                apart = (
                    batch.first_prompt + batch.count <= body.first_prompt
                    or body.first_prompt + body.count <= batch.first_prompt
                )
                _require(event, apart, f"prompts of {batch.id} would serve twice")
    if body.purpose is Purpose.GATE:
        _require(event, body.alpha is not None, "the seal is not whole: alpha belongs to it")
        spent = state.alpha_spent + (body.alpha or 0.0)
        affordable = spent <= state.gate.alpha * (1 + ROUNDING)
        _require(event, affordable, f"it would bring the alpha spent to {spent:.4f} of {state.gate.alpha}")


def _opponent(state: CampaignState, attempt: Attempt, purpose: Purpose) -> Digest | None:
    """Whose responses a queue holds against the candidate's."""
    match purpose:
        case Purpose.DIRECTION:
            return attempt.candidate
        case Purpose.PATH:
            return attempt.start
        case _ if purpose in ANCHORED:
            return anchor(state, purpose)
    return state.approved


def _require_may_train(state: CampaignState, event: Event, batches: tuple[str, ...]) -> None:
    """Nothing learns from labels that still judge, nor from those of an instrument."""
    for name in batches:
        batch = _batch(state, event, name)
        _require(event, state.may_train(batch), f"the labels of {name} may not train")


def _labels_recorded(state: CampaignState, event: Event, body: ev.LabelsRecorded) -> CampaignState:
    batch = _batch(state, event, body.batch)
    _require_known_raters(state, event, batch, body)
    said = {(label.item, label.rater) for label in batch.labels}
    if batch.purpose.judges:
        _require_may_judge(state, event, batch, body)
    for label in body.labels:
        _require(event, label.item < batch.count, f"batch {batch.id} has no item {label.item}")
        once = (label.item, label.rater) not in said
        _require(event, once, f"{label.rater} has labelled item {label.item} of {batch.id} already")
        said.add((label.item, label.rater))
    with_gold, agreed = body.with_gold or 0, body.agreed_with_gold or 0
    _require(event, agreed <= with_gold <= len(body.labels), "more labels agree with gold than could be compared")
    update = {"labels": batch.labels + body.labels, "labelled_at": event.at}
    state = _replace_batch(state, batch.model_copy(update=update))
    return _with(
        state,
        labels=state.labels.plus(batch.purpose, _bought(state, batch, body)),
        labels_with_gold=state.labels_with_gold + with_gold,
        labels_agreed_with_gold=state.labels_agreed_with_gold + agreed,
    )


def _require_known_raters(state: CampaignState, event: Event, batch: Batch, body: ev.LabelsRecorded) -> None:
    """Of the people asked, those alone who are named; of audits by the task's gold, that alone."""
    raters, allowed = {label.rater for label in body.labels}, frozenset(map(_recorded, state.feedback.raters))
    if batch.purpose is Purpose.AUDIT:
        allowed = frozenset({GOLD}) if state.gate.audit.evaluator == GOLD else frozenset()
    elif state.feedback.rater != "people":
        return
    strangers = ", ".join(sorted(raters - allowed)) if allowed else ""
    _require(event, not strangers, f"{strangers} may not label {batch.id}")


def _recorded(name: str) -> str:
    """As a person's name is recorded, however the campaign file spells it."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def _require_may_judge(state: CampaignState, event: Event, batch: Batch, body: ev.LabelsRecorded) -> None:
    """Labels that judge come after the whole seal, from those who may give them."""
    attempt = state.open_attempt
    here = attempt is not None and (batch.stage, batch.attempt) == (attempt.stage, attempt.attempt)
    if attempt is None or not here or attempt.verdict is not None:
        return  # a late word: kept, and it decides nothing
    unsealed = ", ".join(purpose.value for purpose in missing(state, attempt))
    _require(event, not unsealed, f"a label before everything is sealed: {unsealed} is missing")
    raters = {label.rater for label in body.labels}
    audit = batch.purpose is Purpose.AUDIT
    gate = state.panels(attempt) if audit else (state.panel(attempt, Purpose.AUDIT),)
    others = {
        label.rater for b in gate if b is not None and (b.purpose is not Purpose.AUDIT) is audit for label in b.labels
    }
    both = ", ".join(sorted(raters & others))
    _require(event, not both, f"{both} cannot both label and audit")
    if audit or batch.purpose is Purpose.CHECKS or state.feedback.checks is None:
        return
    answered = check_results(state, attempt)
    for rater in sorted(raters):
        labels = sum(label.rater == rater for label in body.labels)
        due = checks_due(state, attempt, rater, state.feedback.checks, labels=labels)
        done = answered.get(rater, (0, 0))[0]
        _require(event, done >= due, f"{rater} has {due - done} check items to answer first")


def _bought(state: CampaignState, batch: Batch, body: ev.LabelsRecorded) -> int:
    """Labels that cost the campaign something: an audit that can refuse nothing is the experimenter's."""
    instrument = batch.purpose is Purpose.AUDIT and state.gate.audit.limit is None
    return 0 if instrument else len(body.labels)


def _attempt_begun(state: CampaignState, event: Event, body: ev.AttemptBegun) -> CampaignState:
    _require(event, state.base is not None, "there is no base to begin from")
    _require(event, state.open_attempt is None, "an attempt is still open")
    last = state.attempts[-1] if state.attempts else None
    if last is None:
        expected = (0, 0)
    elif last.advanced:
        expected = (last.stage + 1, 0)
    else:
        expected = (last.stage, last.attempt + 1)
    _require(event, (body.stage, body.attempt) == expected, f"expected attempt {expected}")
    allowed = body.stage < state.protocol.stages and body.attempt < state.protocol.attempts
    _require(event, allowed, "the protocol's stages or attempts are used up")
    _require(event, body.start == state.restart_point, "the protocol makes it begin from another checkpoint")
    carried = body.reward_model in (None, state.reward_model)
    _require(event, carried, "it carries over a reward model that is not the last one")
    attempt = Attempt(stage=body.stage, attempt=body.attempt, start=body.start, reward_model=body.reward_model)
    return _with(state, attempts=(*state.attempts, attempt))


def _phase_finished(state: CampaignState, event: Event, body: ev.PhaseFinished) -> CampaignState:
    attempt = _in_training(state, event, body.stage, body.attempt)
    if state.algorithm.needs_reward_model:
        _require(event, attempt.reward_model is not None, "no reward model was frozen before it")
        _require(event, body.implicit_reward is None, "its reward model was frozen before it")
    else:
        implicit = body.implicit_reward
        _require(
            event, (implicit is not None) is state.algorithm.promises, "what it promises does not fit its algorithm"
        )
        here = implicit is None or (implicit.stage, implicit.attempt) == (body.stage, body.attempt)
        _require(event, here, "it promises for another attempt")
    _require(event, body.start == attempt.start, "the phase began from another checkpoint")
    _require_may_train(state, event, body.trained_on)
    for earlier in state.attempts:
        if earlier.start == body.start and earlier.start_digest is not None:
            exact = earlier.start_digest == body.start_digest
            _require(event, exact, f"the restored {body.start[:12]} differs from what it was before")
    if (implicit := body.implicit_reward) is not None:
        attempt = attempt.model_copy(update={"reward_model": implicit.reward_model, "fitted": implicit})
    return _replace_attempt(
        state,
        attempt,
        label_set=attempt.label_set or body.label_set,
        candidate=body.candidate,
        start_digest=body.start_digest,
        rollouts=body.rollouts,
        steps=body.steps,
        stopped_by=body.stopped_by,
        proxy=body.proxy,
        kl_nats=body.kl_nats,
        kl_budget_nats=body.kl_budget_nats,
        distances=body.distances,
        spread_start=body.spread_start,
        spread_candidate=body.spread_candidate,
        spent=body.costs,
    )


def _candidate_taken(state: CampaignState, event: Event, body: ev.CandidateTaken) -> CampaignState:
    attempt = _open(state, event, body.stage, body.attempt)
    _require(event, state.candidate is not None, "candidates are trained in this campaign")
    _require(event, attempt.candidate is None, "the attempt has a candidate already")
    _require(event, body.start == attempt.start, "it is to be judged against another checkpoint")
    _require(event, body.candidate != body.start, "a checkpoint cannot be judged against itself")
    promised = body.reward_model is not None
    _require(event, promised is state.promises, "the reward model that promises is not what the campaign names")
    return _replace_attempt(state, attempt, candidate=body.candidate, reward_model=body.reward_model, spent=body.costs)


def _verdict_given(state: CampaignState, event: Event, body: ev.VerdictGiven) -> CampaignState:
    attempt = _open(state, event, body.stage, body.attempt)
    _require(event, attempt.verdict is None, "the verdict stands already")
    _require(event, body.candidate == attempt.candidate, "the verdict is on another candidate")
    _require(event, body.decision.verdict is not Verdict.WAIT, "to wait is no verdict")
    if body.decision.verdict is Verdict.ADVANCE:
        _require(event, attempt.candidate is not None, "there is no candidate to advance")
        if state.protocol.advance is not Advance.ALWAYS:
            _require_evidence(state, event, attempt, body.decision)
    return _replace_attempt(state, attempt, verdict=body.decision, attribution=body.attribution)


def _require_evidence(state: CampaignState, event: Event, attempt: Attempt, decision: GateVerdict) -> None:
    """A passing verdict must rest on every sealed queue. Folding does not decide again: the gate's rule may evolve."""
    batch = state.gate_batch(attempt)
    if batch is None:
        raise IllegalEventError(f"event {event.seq} ({event.body.TYPE}): the gate was never opened")
    _require(event, decision.alpha == batch.alpha, "the verdict spends another alpha than was sealed")
    _require(event, decision.method == state.gate.method, "the verdict weighs evidence by another method")
    judging = tuple(
        purpose
        for purpose in required(state, attempt)
        if purpose is not Purpose.CHECKS and (purpose is not Purpose.AUDIT or state.gate.audit.limit is not None)
    )
    wanted = [name for purpose in judging for name in TESTS[purpose]]
    if not state.promises:
        wanted = [name for name in wanted if name not in OVER_PROMISES]
    asked = {test.name for test in decision.tests}
    left_out = [name for name in wanted if name not in asked]
    _require(event, not left_out, f"it leaves out {', '.join(left_out)}")
    _require(event, all(test.passed for test in decision.tests), "not every test was passed")
    _require(event, not decision.vetoes, "a veto stands")
    judged = {result.purpose: result for result in decision.panels}
    for purpose in judging:
        panel, result = state.panel(attempt, purpose), judged.get(purpose)
        if panel is None or result is None:
            raise IllegalEventError(f"event {event.seq} ({event.body.TYPE}): it leaves out {purpose.value}")
        settled = panel.settled(1 if purpose is Purpose.AUDIT else state.feedback.raters_per_item)
        enough = 0 < result.labels <= settled
        _require(event, enough, f"{purpose.value}: {result.labels} labels judged, {settled} recorded without a gap")
    limits = state.gate.vetoes
    labels = judged[Purpose.GATE].labels
    vetoes = (*of_phase(attempt, limits), *of_samples(batch, limits), *of_labels(state, batch, labels, limits))
    _require(event, not vetoes, f"a veto is left out: {'; '.join(vetoes)}")
    if state.feedback.checks is not None:
        failing = ", ".join(of_raters(state, attempt, state.feedback.checks, still_labelling=False))
        _require(event, not failing, failing)
    too_early = state.protocol.advance is Advance.ONCE and attempt.attempt == 0
    _require(event, not too_early, "the protocol retrains once before it may advance")


def _decision_made(state: CampaignState, event: Event, body: ev.DecisionMade) -> CampaignState:
    attempt = state.open_attempt
    if attempt is None or attempt.candidate != body.candidate:
        raise IllegalEventError(f"event {event.seq}: {body.candidate[:12]} is not the candidate under review")
    passed = attempt.verdict is not None and attempt.verdict.verdict is Verdict.ADVANCE
    _require(event, passed, "the gate has not passed this candidate")
    impostor = body.reviewer in AUTOMATIC_REVIEWERS and body.reviewer != state.automatic_reviewer
    _require(event, not impostor, f"in this campaign {body.reviewer!r} decides nothing")
    again = any(d.reviewer == body.reviewer for d in attempt.decisions)
    _require(event, not again, f"{body.reviewer} has decided already")
    decision = ReviewDecision(decision=body.decision, reviewer=body.reviewer, reason=event.reason)
    return _replace_attempt(state, attempt, decisions=(*attempt.decisions, decision))


def _advanced(state: CampaignState, event: Event, body: ev.Advanced) -> CampaignState:
    attempt = _open(state, event, body.stage, body.attempt)
    _require(event, body.approved == attempt.candidate, "it advances another checkpoint")
    passed = attempt.verdict is not None and attempt.verdict.verdict is Verdict.ADVANCE
    _require(event, passed, "the gate has not passed it")
    _require(event, not attempt.rejected, "a reviewer rejected this digest")
    missing = state.approvals_needed - len(attempt.approvers)
    _require(event, missing <= 0, f"no decision approves this digest: {missing} missing")
    _require(event, body.parent == attempt.start, "it names another parent than the attempt began from")
    evaluation = attempt.evaluation
    deployed = Deployment(
        checkpoint=body.approved,
        parent=body.parent,
        gold_mean=evaluation.gold_mean if evaluation else None,
        gold_se=evaluation.gold_se if evaluation else None,
        labels=state.labels,
        costs=state.costs,
    )
    state = _replace_attempt(state, attempt, advanced=True)
    return _with(state, approved=body.approved, deployments=(*state.deployments, deployed))


# --- helpers ------------------------------------------------------------------------------------------------


def _with(state: CampaignState, **changes: Any) -> CampaignState:
    return state.model_copy(update=changes)


def _require(event: Event, holds: bool, otherwise: str) -> None:
    if not holds:
        raise IllegalEventError(f"event {event.seq} ({event.body.TYPE}): {otherwise}")


def _open(state: CampaignState, event: Event, stage: int, attempt: int) -> Attempt:
    found = state.open_attempt
    if found is None or (found.stage, found.attempt) != (stage, attempt):
        raise IllegalEventError(f"event {event.seq} ({event.body.TYPE}): stage {stage} attempt {attempt} is not open")
    return found


def _in_training(state: CampaignState, event: Event, stage: int, attempt: int) -> Attempt:
    """The open attempt, while its phase has not ended."""
    found = _open(state, event, stage, attempt)
    _require(event, state.candidate is None, "nothing is trained where the candidate is given")
    _require(event, found.candidate is None, "the attempt has a candidate already")
    _require(event, not found.failed_phase and found.verdict is None, "the attempt's phase has ended")
    return found


def _batch(state: CampaignState, event: Event, batch: str) -> Batch:
    found = state.batch(batch)
    if found is None:
        raise IllegalEventError(f"event {event.seq} ({event.body.TYPE}): batch {batch!r} was never sealed")
    return found


def _replace_batch(state: CampaignState, batch: Batch) -> CampaignState:
    return _with(state, batches=tuple(batch if b.id == batch.id else b for b in state.batches))


def _replace_attempt(
    state: CampaignState, attempt: Attempt, *, spent: Costs | None = None, **changes: Any
) -> CampaignState:
    """Change the open attempt, the last one; what it spent counts for the campaign too."""
    if spent is not None:
        changes["costs"] = attempt.costs + spent
        state = _with(state, costs=state.costs + spent)
    return _with(state, attempts=(*state.attempts[:-1], attempt.model_copy(update=changes)))
