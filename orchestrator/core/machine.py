"""The loop as a pure function: given the state, `next_command` says what comes next.

    state = fold(events)            command = next_command(state, settings)

No I/O, no clock, no randomness: the same state and settings always give the same command, which is why a campaign
that was killed at any instant goes on as if nothing had happened. `orchestrator.core.history` holds the other half,
the folding of events into state.
"""

from orchestrator.core import events as ev
from orchestrator.core import work as wk
from orchestrator.core.commands import AskForDecision, Command, Do, Halt, Note
from orchestrator.core.gate import GateVerdict
from orchestrator.core.judging import labels_missing, next_for_gate
from orchestrator.core.records import Decision, EndedBy, Purpose, Status, Verdict, place_of
from orchestrator.core.settings import Advance, Algorithm, CampaignSettings, RewardModelPolicy
from orchestrator.core.state import Attempt, CampaignState


def next_command(state: CampaignState, settings: CampaignSettings) -> Command:
    """What the campaign needs next. Depends on nothing but its arguments."""
    if state.status is not Status.RUNNING:
        return Halt()
    if state.base is None:
        return Do(
            wk.PrepareBase(seed=settings.seed, task=settings.task, base=settings.base, start_from=state.start_from)
        )
    if settings.evaluation.prompts and state.base_evaluation is None:
        return Do(_evaluate_base(state.base, settings))
    if settings.candidate is None:
        initial = state.batch(Purpose.INITIAL.value)
        if initial is None:
            return Do(_draw_initial(state.base, settings))
        if (ask := labels_missing(initial, settings)) is not None:
            return ask
    attempt = state.open_attempt
    if attempt is None:
        return _begin_or_finish(state, settings)
    if attempt.verdict is not None:
        return _after_verdict(state, attempt)
    if attempt.failed_phase:
        return _note_verdict(attempt, _no_gate(Verdict.ROLLBACK, f"the phase failed: {attempt.stopped_by}"))
    if attempt.candidate is None:
        return _train(state, attempt, settings) if settings.candidate is None else Do(_take(attempt, settings))
    if settings.evaluation.prompts and attempt.evaluation is None:
        return Do(_evaluate_attempt(state, attempt, attempt.candidate, settings))
    if settings.protocol.advance is Advance.ALWAYS:
        return _note_verdict(attempt, _no_gate(Verdict.ADVANCE, "the protocol deploys every candidate: no gate"))
    if settings.protocol.advance is Advance.ONCE and attempt.attempt == 0:
        reason = "the protocol retrains every checkpoint once, on fresh labels, before it may advance"
        return _note_verdict(attempt, _no_gate(Verdict.ROLLBACK, reason))
    return next_for_gate(state, attempt, attempt.candidate, settings)


# --- next_command, step by step ---------------------------------------------------------------------------


def _begin_or_finish(state: CampaignState, settings: CampaignSettings) -> Command:
    """Between attempts: the next one of this stage, the first one of the next stage, or the end."""
    protocol = settings.protocol
    last = state.attempts[-1] if state.attempts else None
    if last is None:
        stage, attempt = 0, 0
    elif last.advanced:
        stage, attempt = last.stage + 1, 0
        if stage == protocol.stages:
            return Note(ev.Finished(ended_by=EndedBy.STAGES_COMPLETED), "finished")
    else:
        stage, attempt = last.stage, last.attempt + 1
        if attempt == protocol.attempts:
            return Note(ev.Finished(ended_by=EndedBy.ATTEMPTS_EXHAUSTED), "finished")
    frozen = protocol.reward_model is RewardModelPolicy.FROZEN
    begun = ev.AttemptBegun(
        stage=stage,
        attempt=attempt,
        start=_restart_point(state),
        reward_model=state.reward_model if frozen else None,
    )
    return Note(begun, f"{place_of(stage, attempt)}.begun")


def _restart_point(state: CampaignState) -> str:
    assert state.restart_point is not None
    return state.restart_point


def _train(state: CampaignState, attempt: Attempt, settings: CampaignSettings) -> Command:
    """Fresh training labels where the protocol buys them, then the reward model, then the phase."""
    if attempt.reward_model is None:
        fresh = _training_feedback(state, attempt, settings)
        if fresh is not None:
            return fresh
        if settings.phase.algorithm.needs_reward_model:
            return Do(_fit(state, attempt, settings))
    assert state.approved is not None
    assert state.base is not None
    without = not settings.phase.algorithm.needs_reward_model
    return Do(
        wk.RunPhase(
            seed=settings.seed,
            task=settings.task,
            stage=attempt.stage,
            attempt=attempt.attempt,
            start=attempt.start,
            reference=state.approved if settings.phase.kl.reference == "approved" else state.base,
            base=state.base,
            reward_model=attempt.reward_model,
            batches=state.training_labels(settings.feedback.raters_per_item) if without else (),
            settings=settings.phase.after(failures=attempt.attempt),
        )
    )


def _take(attempt: Attempt, settings: CampaignSettings) -> wk.TakeCandidate:
    assert settings.candidate is not None
    return wk.TakeCandidate(
        seed=settings.seed,
        task=settings.task,
        stage=attempt.stage,
        attempt=attempt.attempt,
        start=attempt.start,
        candidate=settings.candidate,
    )


def _training_feedback(state: CampaignState, attempt: Attempt, settings: CampaignSettings) -> Command | None:
    count = settings.feedback.labels_per_round
    if not count or state.last_candidate is None:
        return None
    batch = state.batch(wk.batch_id(Purpose.TRAINING, attempt.stage, attempt.attempt))
    if batch is not None:
        return labels_missing(batch, settings)
    rounds = sum(b.purpose is Purpose.TRAINING for b in state.batches)
    # Where verdicts are the reward, only the start's own responses teach the policy that starts there.
    policy = attempt.start if settings.phase.algorithm is Algorithm.LABELS else state.last_candidate
    return Do(
        wk.DrawComparisons(
            seed=settings.seed,
            task=settings.task,
            purpose=Purpose.TRAINING,
            stage=attempt.stage,
            attempt=attempt.attempt,
            policy=policy,
            opponent=policy,
            first_prompt=settings.feedback.initial_labels + rounds * count,
            count=count,
            max_response_tokens=settings.phase.max_response_tokens,
        )
    )


def _fit(state: CampaignState, attempt: Attempt, settings: CampaignSettings) -> wk.FitRewardModel:
    assert state.base is not None
    return wk.FitRewardModel(
        seed=settings.seed,
        task=settings.task,
        stage=attempt.stage,
        attempt=attempt.attempt,
        base=state.base,
        normalise_on=attempt.start,
        batches=state.training_labels(settings.feedback.raters_per_item),
        settings=settings.reward_model,
        max_response_tokens=settings.phase.max_response_tokens,
    )


def _after_verdict(state: CampaignState, attempt: Attempt) -> Command:
    """A verdict of ADVANCE needs a decision on this very digest; everything else rolls back."""
    assert attempt.verdict is not None
    if attempt.verdict.verdict is not Verdict.ADVANCE:
        return _roll_back(state, attempt, "; ".join(attempt.verdict.reasons))
    assert attempt.candidate is not None
    if attempt.rejected:
        return _roll_back(state, attempt, "a reviewer rejected the candidate")
    if state.approvals_missing(attempt):
        reviewer = state.automatic_reviewer
        if reviewer is None:
            return AskForDecision(attempt, len(attempt.approvers), state.approvals_needed)
        decision = ev.DecisionMade(
            candidate=attempt.candidate,
            stage=attempt.stage,
            attempt=attempt.attempt,
            decision=Decision.APPROVE,
            reviewer=reviewer,
        )
        return Note(decision, f"{attempt.place}.decision")
    return Note(
        ev.Advanced(stage=attempt.stage, attempt=attempt.attempt, approved=attempt.candidate, parent=attempt.start),
        f"{attempt.place}.advanced",
    )


def _roll_back(state: CampaignState, attempt: Attempt, why: str) -> Note:
    to = _restart_point(state)
    return Note(
        ev.RolledBack(
            stage=attempt.stage,
            attempt=attempt.attempt,
            to=to,
            quarantined=attempt.candidate if attempt.candidate != to else None,
            why=why,
        ),
        f"{attempt.place}.rolled_back",
    )


def _note_verdict(attempt: Attempt, decision: GateVerdict) -> Note:
    return Note(
        ev.VerdictGiven(stage=attempt.stage, attempt=attempt.attempt, candidate=attempt.candidate, decision=decision),
        f"{attempt.place}.verdict",
    )


def _no_gate(verdict: Verdict, reason: str) -> GateVerdict:
    return GateVerdict(verdict=verdict, reasons=(reason,))


def _draw_initial(base: str, settings: CampaignSettings) -> wk.DrawComparisons:
    return wk.DrawComparisons(
        seed=settings.seed,
        task=settings.task,
        purpose=Purpose.INITIAL,
        policy=base,
        opponent=base,
        first_prompt=0,
        count=settings.feedback.initial_labels,
        max_response_tokens=settings.phase.max_response_tokens,
    )


def _evaluate_base(base: str, settings: CampaignSettings) -> wk.Evaluate:
    return wk.Evaluate(
        seed=settings.seed,
        task=settings.task,
        checkpoint=base,
        prompts=settings.evaluation.prompts,
        max_response_tokens=settings.phase.max_response_tokens,
    )


def _evaluate_attempt(
    state: CampaignState, attempt: Attempt, candidate: str, settings: CampaignSettings
) -> wk.Evaluate:
    return wk.Evaluate(
        seed=settings.seed,
        task=settings.task,
        stage=attempt.stage,
        attempt=attempt.attempt,
        checkpoint=candidate,
        start=attempt.start,
        approved=state.approved,
        rollouts=attempt.rollouts,
        reward_model=attempt.reward_model,
        prompts=settings.evaluation.prompts,
        max_response_tokens=settings.phase.max_response_tokens,
    )
