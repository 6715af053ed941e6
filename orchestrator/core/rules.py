"""The rules of judging: what folding refuses, whoever wrote it.

Called by `history` as it folds. Each raises `IllegalEventError` where its rule is broken, and changes nothing.
"""

from collections import Counter
from typing import Final

from orchestrator.core import events as ev
from orchestrator.core.budget import attempt_alpha
from orchestrator.core.events import Event
from orchestrator.core.gate import RULE, GateVerdict
from orchestrator.core.nulls import OVER_PROMISES, asked_of
from orchestrator.core.panels import ANCHORED, anchor, asked_by_name, judged, missing, mixes_checks, raters_per_item
from orchestrator.core.records import Digest, Purpose, Verdict, recorded_name
from orchestrator.core.settings import GOLD, Advance
from orchestrator.core.state import Attempt, Batch, CampaignState
from orchestrator.core.vetoes import check_results, checks_due, of_labels, of_phase, of_raters, of_samples

ROUNDING: Final = 1e-9
"""Relative slack for a sum of shares of alpha."""


class IllegalEventError(ValueError):
    """An event that the rules do not allow at its place: the ledger was not written by this machine."""


def require(event: Event, holds: bool, otherwise: str) -> None:
    if not holds:
        raise IllegalEventError(f"event {event.seq} ({event.body.TYPE}): {otherwise}")


def batch_of(state: CampaignState, event: Event, batch: str) -> Batch:
    found = state.batch(batch)
    if found is None:
        raise IllegalEventError(f"event {event.seq} ({event.body.TYPE}): batch {batch!r} was never sealed")
    return found


def require_seal(state: CampaignState, event: Event, attempt: Attempt, body: ev.ComparisonsDrawn) -> None:
    """What judges a candidate is about this candidate, is whole, is new, and comes before the first label."""
    require(event, attempt.candidate is not None, "there is no candidate to question")
    require(event, attempt.verdict is None, "the verdict stands already")
    require(event, body.candidate == attempt.candidate, "it questions another candidate")
    labelled = any(batch.labels for batch in state.panels(attempt))
    require(event, not labelled, "a label was asked before everything was sealed")
    if body.purpose is Purpose.CHECKS:
        require(event, len(body.expected) == body.count, "a check item has no known answer")
        return
    require(event, len(body.candidate_first) == body.count, "the seal is not whole: the order belongs to it")
    size = _size(state, body.purpose)
    fits = body.count == size or (body.purpose is Purpose.PATH and body.count == 0)
    require(event, fits, f"its queue has {body.count} items, the campaign asks for {size}")
    if body.purpose is Purpose.AUDIT:
        gate = state.gate_batch(attempt)
        front = gate is not None and (gate.comparisons, gate.opponent, gate.candidate_first[: body.count]) == (
            body.comparisons,
            body.opponent,
            body.candidate_first,
        )
        require(event, front, "it audits something else than the front of the gate's queue")
        return
    require(event, body.reward_model == attempt.reward_model, "it questions another reward model")
    require(event, body.opponent == _opponent(state, attempt, body.purpose), "it compares with another checkpoint")
    promises = body.count if state.promises else 0
    require(event, len(body.p_hat) == promises, "the seal is not whole: the predictions belong to it")
    used = next((batch.id for batch in state.batches if batch.comparisons == body.comparisons), None)
    new = used is None or not body.count  # all empty queues are alike
    require(event, new, f"its comparisons are those of {used}")
    own = body.purpose is not Purpose.PATH
    require(event, (body.first_prompt is not None) is own, "the seal is not whole: its prompts belong to it")
    if body.first_prompt is not None:
        for batch in state.batches:
            if batch.purpose.judges and batch.first_prompt is not None:
                apart = (
                    batch.first_prompt + batch.count <= body.first_prompt
                    or body.first_prompt + body.count <= batch.first_prompt
                )
                require(event, apart, f"prompts of {batch.id} would serve twice")
    if body.purpose is Purpose.GATE:
        require(event, body.alpha is not None, "the seal is not whole: alpha belongs to it")
        spent = state.alpha_spent + (body.alpha or 0.0)
        affordable = spent <= state.gate.alpha * (1 + ROUNDING)
        require(event, affordable, f"it would bring the alpha spent to {spent:.4f} of {state.gate.alpha}")
        share = attempt_alpha(
            state.gate.alpha,
            state.alpha_spent_before(attempt.stage),
            stage=attempt.stage,
            stages=state.protocol.stages,
            attempts=state.protocol.gates,
        )
        within = (body.alpha or 0.0) <= share * (1 + ROUNDING)
        require(event, within, f"it spends {body.alpha} where an attempt's share is {share:.4f}")


def _size(state: CampaignState, purpose: Purpose) -> int:
    """Length of a queue, as the campaign's file fixes it; a path on which nothing was paid is empty."""
    gate = state.gate
    part = {
        Purpose.DIRECTION: gate.direction,
        Purpose.PATH: gate.path,
        Purpose.CREEP_BASE: gate.creep,
        Purpose.CREEP_OLDER: gate.creep,
    }.get(purpose)
    if purpose is Purpose.AUDIT:
        return gate.audit.labels
    return gate.max_labels if part is None else part.max_labels


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


def require_may_train(state: CampaignState, event: Event, batches: tuple[str, ...]) -> None:
    """Nothing learns from labels that still judge, nor from those of an instrument."""
    for name in batches:
        batch = batch_of(state, event, name)
        require(event, state.may_train(batch), f"the labels of {name} may not train")


def require_own_word(event: Event, people: frozenset[str], credential: str | None) -> None:
    """Whoever is no controller speaks for themselves, as the holder of a token."""
    if event.epoch is None:
        others = ", ".join(sorted(people - {event.author}))
        require(event, not others, f"{event.author} cannot speak for {others}")
        require(event, credential is not None, f"nothing shows that it was {event.author} who said so")


def require_may_bring(state: CampaignState, event: Event, batch: Batch, body: ev.LabelsRecorded) -> None:
    """Labels from a file are counted, or not taken at all.

    A word at a desk is kept even where it comes too late or is one too many, since somebody sat before it; of a file's
    words, whoever brings it could choose.
    """
    vouched = event.epoch is None and body.credential is not None
    require(event, vouched, f"nothing shows that it was {event.author} who brought these labels")
    if batch.purpose.judges:
        attempt = state.open_attempt
        here = attempt is not None and (batch.stage, batch.attempt) == (attempt.stage, attempt.attempt)
        require(event, here and attempt is not None and attempt.verdict is None, f"{batch.id} judges nothing any more")
        require(event, not batch.expired, f"the time for the labels of {batch.id} is over")
        checked = mixes_checks(batch, state)
        require(event, not checked, f"raters meet check items between those of {batch.id}, and a file brings none")
    wanted = raters_per_item(batch, state)
    for item, labels in Counter(label.item for label in body.labels).items():
        room = batch.labels.count_on(item) + labels <= wanted
        require(event, room, f"item {item} of {batch.id} has all its verdicts")


def require_known_raters(state: CampaignState, event: Event, batch: Batch, raters: frozenset[str]) -> None:
    """Of the people asked, those alone who are named; of audits by the task's gold, that alone."""
    allowed = frozenset(map(recorded_name, state.feedback.raters))
    if batch.purpose is Purpose.AUDIT:
        allowed = frozenset({GOLD}) if state.gate.audit.evaluator == GOLD else frozenset()
    elif state.feedback.rater != "people":
        require(event, event.epoch is not None, f"{batch.id} is rated by {state.feedback.rater}, not by people")
        return
    strangers = ", ".join(sorted(raters - allowed)) if allowed else ""
    require(event, not strangers, f"{strangers} may not label {batch.id}")


def require_may_judge(state: CampaignState, event: Event, batch: Batch, body: ev.LabelsRecorded) -> None:
    """Labels that judge come after the whole seal, from those who may give them."""
    attempt = state.open_attempt
    here = attempt is not None and (batch.stage, batch.attempt) == (attempt.stage, attempt.attempt)
    if attempt is None or not here or attempt.verdict is not None:
        return  # a late word: kept, and it decides nothing
    unsealed = ", ".join(purpose.value for purpose in missing(state, attempt))
    require(event, not unsealed, f"a label before everything is sealed: {unsealed} is missing")
    raters = {label.rater for label in body.labels}
    audit = batch.purpose is Purpose.AUDIT
    gate = state.panels(attempt) if audit else (state.panel(attempt, Purpose.AUDIT),)
    others = frozenset[str]().union(
        *(b.labels.raters for b in gate if b is not None and (b.purpose is not Purpose.AUDIT) is audit)
    )
    both = ", ".join(sorted(raters & others))
    require(event, not both, f"{both} cannot both label and audit")
    for label in body.labels:
        drawn = asked_by_name(batch, label.item, state)
        if drawn is not None and label.rater not in drawn:
            require(event, False, f"item {label.item} of {batch.id} is for {' and '.join(drawn)}, by lot")
    if audit or batch.purpose is Purpose.CHECKS or state.feedback.checks is None:
        return
    answered = check_results(state, attempt)
    for rater in sorted(raters):
        labels = sum(label.rater == rater for label in body.labels)
        due = checks_due(state, attempt, rater, state.feedback.checks, labels=labels)
        done = answered.get(rater, (0, 0))[0]
        require(event, done >= due, f"{rater} has {due - done} check items to answer first")


def require_evidence(state: CampaignState, event: Event, attempt: Attempt, decision: GateVerdict) -> None:
    """A passing verdict must rest on every sealed queue, and be what its labels come to: folding decides again."""
    batch = state.gate_batch(attempt)
    if batch is None:
        raise IllegalEventError(f"event {event.seq} ({event.body.TYPE}): the gate was never opened")
    require(event, decision.alpha == batch.alpha, "the verdict spends another alpha than was sealed")
    require(event, decision.method == state.gate.method, "the verdict weighs evidence by another method")
    require(event, not decision.vetoes, "a veto stands")
    again = judged(state, attempt, figures=False)
    require(event, decision.rule == RULE, "it weighs the evidence by a rule that is not known here")
    require(event, again.verdict is Verdict.ADVANCE, f"the labels say otherwise: {'; '.join(again.reasons)}")
    require(event, again.panels == decision.panels, "it rests on other labels than were recorded")
    asked = {test.name for test in decision.tests}
    wanted = [name for result in again.panels for name in asked_of(result.purpose)]
    left_out = [name for name in wanted if name not in asked and (state.promises or name not in OVER_PROMISES)]
    require(event, not left_out, f"it leaves out {', '.join(left_out)}")
    unmet = ", ".join(test.name for test in decision.tests if not test.bears_out(decision.alpha or 0.0))
    require(event, not unmet, f"not every test was passed: {unmet}")
    limits = state.gate.vetoes
    vetoes = (*of_phase(attempt, limits), *of_samples(batch, limits), *of_labels(state, batch, decision.panels, limits))
    require(event, not vetoes, f"a veto is left out: {'; '.join(vetoes)}")
    if state.feedback.checks is not None:
        failing = ", ".join(of_raters(state, attempt, state.feedback.checks, still_labelling=False))
        require(event, not failing, failing)
    too_early = state.protocol.advance is Advance.ONCE and attempt.attempt == 0
    require(event, not too_early, "the protocol retrains once before it may advance")
