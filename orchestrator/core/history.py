"""Folding: what each event does to the state, and which events the rules allow at all.

A ledger that the machine wrote always folds; a history that breaks the rules (an advance without a decision, a
verdict on another candidate, a rollback that did not restore the same bytes) is refused, wherever it came from.
"""

from collections.abc import Iterable
from typing import Any, Final

from orchestrator.core import events as ev
from orchestrator.core.events import Event
from orchestrator.core.records import (
    AUTOMATIC_REVIEWERS,
    Costs,
    Decision,
    EndedBy,
    Purpose,
    Status,
    Verdict,
    recorded_name,
)
from orchestrator.core.rules import (
    IllegalEventError,
    batch_of,
    require,
    require_evidence,
    require_may_train,
    require_own_word,
    require_seal,
)
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
from orchestrator.core.words import (
    expired,
    label_adjudicated,
    label_repeated,
    label_withdrawn,
    labels_recorded,
    replace_batch,
)

FROM_PEOPLE: Final = (ev.LabelsRecorded, ev.LabelWithdrawn, ev.LabelRepeated, ev.DecisionMade)
"""What a campaign waits for; and for no longer than until its deadline."""


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
    waited, waits_since = 0.0, state.waits_since
    from_people = event.epoch is None and isinstance(event.body, FROM_PEOPLE)
    if waits_since is not None and (from_people or isinstance(event.body, ev.FeedbackExpired)):
        waited = max((event.at - waits_since).total_seconds(), 0.0)
    if not isinstance(event.body, ev.ControllerStarted):  # one that finds people still missing ends no wait
        waits_since = event.at
    return state.model_copy(
        update={
            "last_event_at": event.at,
            "waits_since": waits_since,
            "waiting_seconds": state.waiting_seconds + waited,
        }
    )


def _apply_body(state: CampaignState, event: Event) -> CampaignState:
    body = event.body
    if not isinstance(body, ev.CampaignCreated):
        require(event, state.settings_digest is not None, "before the campaign was created")
    match body:
        case ev.CampaignCreated():
            require(event, state.settings_digest is None, "a campaign is created once")
            return _created(state, body)
        case ev.ControllerStarted():
            return state
        case ev.Paused():
            require(event, state.status in (Status.RUNNING, Status.PAUSED), "the campaign has ended")
            return _with(state, status=Status.PAUSED, why_paused=body.why)
        case ev.Resumed():
            require(event, state.status in (Status.RUNNING, Status.PAUSED), "the campaign has ended")
            return _with(state, status=Status.RUNNING, why_paused=None)
        case ev.Finished():
            require(event, state.ended_by is None, "the campaign has ended already")
            return _finished(state, event, body)
    require(event, state.ended_by is None, "the campaign has ended")
    match body:
        case ev.BaseReady():
            return _base_ready(state, event, body)
        case ev.Evaluated():
            return _evaluated(state, event, body)
        case ev.ComparisonsDrawn():
            return _comparisons_drawn(state, event, body)
        case ev.LabelsRecorded():
            return labels_recorded(state, event, body)
        case ev.LabelWithdrawn():
            return label_withdrawn(state, event, body)
        case ev.LabelRepeated():
            return label_repeated(state, event, body)
        case ev.LabelAdjudicated():
            return label_adjudicated(state, event, body)
        case ev.LabellingPaused():
            return _with(state, labelling_paused=body.why)
        case ev.LabellingResumed():
            return _with(state, labelling_paused=None)
        case ev.FeedbackExpired():
            batch = batch_of(state, event, body.batch)
            require(event, event.epoch is not None, "only the controller calls time")
            require(event, batch.purpose.judges, "only a gate's labels have a deadline")
            return replace_batch(state, expired(batch, event.at))
        case ev.AttemptBegun():
            return _attempt_begun(state, event, body)
        case ev.RewardModelFitted():
            attempt = _in_training(state, event, body.stage, body.attempt)
            require(event, attempt.reward_model is None, "the attempt has its reward model already")
            require(event, state.algorithm.needs_reward_model, "the algorithm has no use for one")
            require_may_train(state, event, body.trained_on)
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
            require(event, refused or attempt.rejected, "neither the gate nor a reviewer refused the candidate")
            require(event, body.to == state.restart_point, "the protocol rolls back to another checkpoint")
            require(event, body.quarantined in (None, attempt.candidate), "it quarantines another checkpoint")
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
    require(event, state.open_attempt is None, "an attempt is still open")
    last = state.attempts[-1] if state.attempts else None
    if body.ended_by is EndedBy.STAGES_COMPLETED:
        require(event, state.advances == state.protocol.stages, "stages are left")
    else:
        used_up = last is not None and not last.advanced and last.attempt + 1 == state.protocol.attempts
        require(event, used_up, "attempts are left")
    return _with(state, status=Status.FINISHED, ended_by=body.ended_by)


def _base_ready(state: CampaignState, event: Event, body: ev.BaseReady) -> CampaignState:
    require(event, state.base is None, "there is a base already")
    base = Deployment(checkpoint=body.checkpoint, parent=None)
    return _with(state, base=body.checkpoint, approved=body.checkpoint, deployments=(base,))


def _evaluated(state: CampaignState, event: Event, body: ev.Evaluated) -> CampaignState:
    if body.stage is None or body.attempt is None:
        require(event, body.checkpoint == state.base, "it evaluates another base")
        require(event, state.base_evaluation is None, "the base is evaluated already")
        gold = {"gold_mean": body.gold_mean, "gold_se": body.gold_se}
        base = state.deployments[0].model_copy(update=gold)
        return _with(state, base_evaluation=body, deployments=(base, *state.deployments[1:]))
    attempt = _open(state, event, body.stage, body.attempt)
    require(event, body.checkpoint == attempt.candidate, "it evaluates another candidate")
    require(event, attempt.evaluation is None, "the candidate is evaluated already")
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
    require(event, state.batch(batch.id) is None, f"batch {batch.id} is sealed already")
    require(event, body.alpha is None or body.purpose is Purpose.GATE, "only a gate spends alpha")
    if body.purpose is Purpose.INITIAL:
        require(event, state.candidate is None, "nothing is trained where the candidate is given")
        require(event, state.base is not None, "there is no base to sample from")
        require(event, body.stage is None and body.attempt is None, "the initial batch belongs to no attempt")
        state = _with(state, costs=state.costs + body.costs)
    else:
        if body.stage is None or body.attempt is None:
            raise IllegalEventError(f"event {event.seq} ({event.body.TYPE}): it names no attempt")
        attempt = _open(state, event, body.stage, body.attempt)
        if body.purpose.judges:
            require_seal(state, event, attempt, body)
        else:
            require(event, state.candidate is None, "nothing is trained where the candidate is given")
        state = _replace_attempt(state, attempt, spent=body.costs)
    return _with(state, batches=(*state.batches, batch))


def _attempt_begun(state: CampaignState, event: Event, body: ev.AttemptBegun) -> CampaignState:
    require(event, state.base is not None, "there is no base to begin from")
    require(event, state.open_attempt is None, "an attempt is still open")
    last = state.attempts[-1] if state.attempts else None
    if last is None:
        expected = (0, 0)
    elif last.advanced:
        expected = (last.stage + 1, 0)
    else:
        expected = (last.stage, last.attempt + 1)
    require(event, (body.stage, body.attempt) == expected, f"expected attempt {expected}")
    allowed = body.stage < state.protocol.stages and body.attempt < state.protocol.attempts
    require(event, allowed, "the protocol's stages or attempts are used up")
    require(event, body.start == state.restart_point, "the protocol makes it begin from another checkpoint")
    carried = body.reward_model in (None, state.reward_model)
    require(event, carried, "it carries over a reward model that is not the last one")
    attempt = Attempt(stage=body.stage, attempt=body.attempt, start=body.start, reward_model=body.reward_model)
    return _with(state, attempts=(*state.attempts, attempt))


def _phase_finished(state: CampaignState, event: Event, body: ev.PhaseFinished) -> CampaignState:
    attempt = _in_training(state, event, body.stage, body.attempt)
    if state.algorithm.needs_reward_model:
        require(event, attempt.reward_model is not None, "no reward model was frozen before it")
        require(event, body.implicit_reward is None, "its reward model was frozen before it")
    else:
        implicit = body.implicit_reward
        require(
            event, (implicit is not None) is state.algorithm.promises, "what it promises does not fit its algorithm"
        )
        here = implicit is None or (implicit.stage, implicit.attempt) == (body.stage, body.attempt)
        require(event, here, "it promises for another attempt")
    require(event, body.start == attempt.start, "the phase began from another checkpoint")
    require_may_train(state, event, body.trained_on)
    for earlier in state.attempts:
        if earlier.start == body.start and earlier.start_digest is not None:
            exact = earlier.start_digest == body.start_digest
            require(event, exact, f"the restored {body.start[:12]} differs from what it was before")
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
    require(event, state.candidate is not None, "candidates are trained in this campaign")
    require(event, attempt.candidate is None, "the attempt has a candidate already")
    require(event, body.start == attempt.start, "it is to be judged against another checkpoint")
    require(event, body.candidate != body.start, "a checkpoint cannot be judged against itself")
    promised = body.reward_model is not None
    require(event, promised is state.promises, "the reward model that promises is not what the campaign names")
    return _replace_attempt(state, attempt, candidate=body.candidate, reward_model=body.reward_model, spent=body.costs)


def _verdict_given(state: CampaignState, event: Event, body: ev.VerdictGiven) -> CampaignState:
    attempt = _open(state, event, body.stage, body.attempt)
    require(event, attempt.verdict is None, "the verdict stands already")
    require(event, body.candidate == attempt.candidate, "the verdict is on another candidate")
    require(event, body.decision.verdict is not Verdict.WAIT, "to wait is no verdict")
    if body.decision.verdict is Verdict.ADVANCE:
        require(event, attempt.candidate is not None, "there is no candidate to advance")
        if state.protocol.advance is not Advance.ALWAYS:
            require_evidence(state, event, attempt, body.decision)
    return _replace_attempt(state, attempt, verdict=body.decision, attribution=body.attribution)


def _decision_made(state: CampaignState, event: Event, body: ev.DecisionMade) -> CampaignState:
    attempt = state.open_attempt
    if attempt is None or attempt.candidate != body.candidate:
        raise IllegalEventError(f"event {event.seq}: {body.candidate[:12]} is not the candidate under review")
    passed = attempt.verdict is not None and attempt.verdict.verdict is Verdict.ADVANCE
    require(event, passed, "the gate has not passed this candidate")
    impostor = body.reviewer in AUTOMATIC_REVIEWERS and body.reviewer != state.automatic_reviewer
    require(event, not impostor, f"in this campaign {body.reviewer!r} decides nothing")
    if body.reviewer in AUTOMATIC_REVIEWERS:
        require(event, event.epoch is not None, f"{body.reviewer!r} decides through the controller alone")
    else:
        require(event, event.epoch is None, "a controller cannot decide for a person")
        require_own_word(event, frozenset({body.reviewer}), body.credential)
    place = (attempt.stage, attempt.attempt)
    require(event, (body.stage, body.attempt) in (place, (None, None)), "it was said of another attempt")
    again = any(d.reviewer == body.reviewer for d in attempt.decisions)
    require(event, not again, f"{body.reviewer} has decided already")
    require(event, not attempt.rejected, "another reviewer has rejected it")
    if body.decision is Decision.APPROVE:  # a rejection still outweighs approvals that were not yet acted on
        require(event, state.approvals_missing(attempt) > 0, "it has all approvals that it needs")
        owner = state.approval.owner
        own = owner is not None and body.reviewer == recorded_name(owner)
        require(event, state.approval.self_approval or not own, f"{body.reviewer} owns this campaign")
    if body.override:
        require(event, state.approval.override, "this campaign lets nobody stand for the other approvers")
        require(event, body.decision is Decision.APPROVE, "only an approval can stand for others")
        require(event, bool(event.reason.strip()), "an override says why")
    decision = ReviewDecision(
        decision=body.decision,
        reviewer=body.reviewer,
        reason=event.reason,
        override=body.override,
        credential=body.credential,
    )
    return _replace_attempt(state, attempt, decisions=(*attempt.decisions, decision))


def _advanced(state: CampaignState, event: Event, body: ev.Advanced) -> CampaignState:
    attempt = _open(state, event, body.stage, body.attempt)
    require(event, body.approved == attempt.candidate, "it advances another checkpoint")
    passed = attempt.verdict is not None and attempt.verdict.verdict is Verdict.ADVANCE
    require(event, passed, "the gate has not passed it")
    require(event, not attempt.rejected, "a reviewer rejected this digest")
    missing = state.approvals_missing(attempt)
    require(event, not missing, f"no decision approves this digest: {missing} missing")
    require(event, body.parent == attempt.start, "it names another parent than the attempt began from")
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


def _open(state: CampaignState, event: Event, stage: int, attempt: int) -> Attempt:
    found = state.open_attempt
    if found is None or (found.stage, found.attempt) != (stage, attempt):
        raise IllegalEventError(f"event {event.seq} ({event.body.TYPE}): stage {stage} attempt {attempt} is not open")
    return found


def _in_training(state: CampaignState, event: Event, stage: int, attempt: int) -> Attempt:
    """The open attempt, while its phase has not ended."""
    found = _open(state, event, stage, attempt)
    require(event, state.candidate is None, "nothing is trained where the candidate is given")
    require(event, found.candidate is None, "the attempt has a candidate already")
    require(event, not found.failed_phase and found.verdict is None, "the attempt's phase has ended")
    return found


def _replace_attempt(
    state: CampaignState, attempt: Attempt, *, spent: Costs | None = None, **changes: Any
) -> CampaignState:
    """Change the open attempt, the last one; what it spent counts for the campaign too."""
    if spent is not None:
        changes["costs"] = attempt.costs + spent
        state = _with(state, costs=state.costs + spent)
    return _with(state, attempts=(*state.attempts[:-1], attempt.model_copy(update=changes)))
