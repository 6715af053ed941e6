"""What happened, in plain words, told from the folded state alone. No figure here that the state does not hold."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from orchestrator import gate_words, views
from orchestrator.core.budget import account
from orchestrator.core.questions import TestResult
from orchestrator.core.records import Decision, EndedBy, Verdict
from orchestrator.core.settings import Advance, CampaignSettings, ProtocolSettings, RestartFrom, RewardModelPolicy
from orchestrator.core.state import Attempt, CampaignState
from orchestrator.counting import counted as counted  # also for whoever speaks as the story does

STOPPED_BY: Final = {
    "steps": "all its steps were taken",
    "kl_budget": "it had used up its KL budget",
    "predicted_win_rate": "its reward model expected it to win often enough",
    "reward_spread": "its reward model's members disagreed too much about it",
}
RESTARTS: Final = {
    RestartFrom.APPROVED: "each attempt starts from the last approved checkpoint",
    RestartFrom.BASE: "each attempt starts from the base",
    RestartFrom.LAST: "each attempt goes on from the last candidate, approved or not",
}
ADVANCES: Final = {
    Advance.UNTIL_AGREEMENT: "attempts repeat until the gate passes and somebody approves",
    Advance.ONCE: "every checkpoint is rolled back and retrained once, then has to hold its level",
    Advance.ALWAYS: "every candidate is deployed, without a gate",
}
REWARD_MODELS: Final = {
    RewardModelPolicy.REFIT: "the reward model is fitted anew at each attempt",
    RewardModelPolicy.FROZEN: "the reward model is fitted once and kept",
    RewardModelPolicy.NONE: "there is no reward model: the policy learns from the labels themselves",
}
RESOURCE_WORDS: Final = {
    "labels": "labels",
    "samples": "samples",
    "tokens": "tokens sampled",
    "gradient_steps": "gradient steps",
    "seconds": "compute seconds",
    "usd": "US dollars",
}


_PREFERRED: Final = {
    "improvement": "it",
    "direction": "what the reward model finds best of its samples to the worst",
    "creep_base": "it to the base",
    "creep_older": "it to an older approved checkpoint",
}
_PROMISED: Final = {
    "over_promise_top_half": "On the half that was promised most, the",
    "direction_over_promise": "Between the best and the worst of its samples, the",
}


@dataclass(frozen=True, slots=True)
class ToldTest:
    passed: bool
    words: str


@dataclass(frozen=True, slots=True)
class Told:
    """One attempt, told: what led up to the gate, what the gate found, what came of it."""

    place: str
    outcome: str
    before: tuple[str, ...]
    tests: tuple[ToldTest, ...]
    after: tuple[str, ...]


def outcome_words(attempt: Attempt) -> str:
    if attempt.advanced:
        return "approved"
    return "rolled back" if attempt.rolled_back_to is not None else "under way"


def number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def protocol_words(settings: CampaignSettings) -> str:
    if settings.candidate is not None:
        return "Two existing models are compared, and nothing is trained: one gate decides, and somebody approves."
    protocol = settings.protocol
    words = (RESTARTS[protocol.restart_from], ADVANCES[protocol.advance], REWARD_MODELS[protocol.reward_model])
    sentence = "; ".join(words)
    return f"{sentence[0].upper()}{sentence[1:]}."


def nobody_approved(state: CampaignState) -> str | None:
    """What to say loudly where no person decides."""
    match state.automatic_reviewer:
        case "gate":
            return (
                "No person approved anything here: approval.by is “gate”, so whatever passed the gate became the "
                "approved checkpoint unseen. That is meant for unattended studies, not for deployment."
            )
        case "protocol":
            return (
                "No gate and no person approved anything here: this protocol deploys every candidate, "
                "whatever it has become. It is a baseline."
            )
    return None


def raters_told(agreement: Mapping[str, float | None]) -> str | None:
    """How far the labels can be trusted, in one sentence; None where nothing was measured."""
    with_gold, between = agreement["agreement_with_gold"], agreement["agreement_between_raters"]
    words = []
    if with_gold is not None:
        words.append(f"with gold in {percent(with_gold)} of the comparisons that both decide")
    if between is not None:
        words.append(f"with one another in {percent(between)} of the pairs of verdicts on one comparison")
    return f"Raters agree {' and '.join(words)}." if words else None


def summary(state: CampaignState, status: str) -> str:
    """The campaign in a few sentences."""
    stages = state.protocol.stages
    if state.base is None:
        return "Nothing has happened yet: the base model is not ready."
    if not state.attempts:
        return f"The base model is ready; no attempt has begun. {counted(state.labels.total, 'label')} came in so far."
    tried = counted(len(state.attempts), "attempt")
    words = [
        f"{tried}, of which {state.advances} advanced and {state.rollbacks} rolled back ({_stages(state, stages)})."
    ]
    first, last = state.deployments[0].gold_mean, state.deployments[-1].gold_mean
    if first is not None and last is not None and state.advances:
        words.append(f"Gold of the approved checkpoint went from {number(first)} to {number(last)}.")
    elif first is not None:
        words.append(f"The approved checkpoint is still the base, with gold {number(first)}.")
    words.append(_ending(state, status))
    words.append(f"{counted(state.labels.total, 'label')} were bought in all.")
    return " ".join(word for word in words if word)


def attempts_told(state: CampaignState) -> tuple[Told, ...]:
    return tuple(
        Told(
            place=f"Stage {attempt.stage}, attempt {attempt.attempt}",
            outcome=outcome_words(attempt),
            before=(*_training(state, attempt), *_judgement(attempt)),
            tests=tuple(ToldTest(test.passed, test_words(test)) for test in _tests(attempt)),
            after=tuple(_outcome(state, attempt)),
        )
        for attempt in state.attempts
    )


def _stages(state: CampaignState, stages: int) -> str:
    return f"{state.advances} of {counted(stages, 'stage')} completed"


def _ending(state: CampaignState, status: str) -> str:
    match state.ended_by:
        case EndedBy.STAGES_COMPLETED:
            return "All stages were completed."
        case EndedBy.ATTEMPTS_EXHAUSTED:
            return f"Every attempt of stage {state.stage} was refused, so the campaign ended there."
        case EndedBy.STOPPED:
            return "A person stopped it."
    if status == "paused":
        return f"It is paused: {state.why_paused or 'no reason was given'}."
    return "It waits for people." if status == "waiting" else "It is still running."


def _training(state: CampaignState, attempt: Attempt) -> list[str]:
    start = _name(state, attempt.start)
    if attempt.failed_phase:
        return [f"The phase from {start} failed: {attempt.stopped_by}."]
    if attempt.candidate is None:
        return [f"It begins from {start} and has no candidate yet."]
    words = [f"It was given, to be judged against {start}."]
    if state.candidate is None:
        why = STOPPED_BY.get(attempt.stopped_by or "", attempt.stopped_by or "for a reason that was not recorded")
        words = [f"Trained for {counted(attempt.steps, 'step')} from {start}, until {why}."]
    if attempt.proxy is not None:
        words.append(_proxy_told(state, attempt.proxy))
    seen = attempt.evaluation
    if seen is not None and seen.gold_mean is not None:
        before = _gold_of(state, attempt.start)
        came_from = f" went from {number(before)} to" if before is not None else " is"
        words.append(f"Gold, which the gate never sees,{came_from} {number(seen.gold_mean)} ± {number(seen.gold_se)}.")
    return words


def proxy_unit(protocol: ProtocolSettings) -> str:
    if protocol.reward_model is RewardModelPolicy.NONE:
        return "β · nats, its own implicit reward"
    return "standard deviations of the approved policy's rewards"


def _proxy_told(state: CampaignState, proxy: float) -> str:
    if state.protocol.reward_model is RewardModelPolicy.NONE:
        return f"By its own implicit reward it gained {proxy:.2f} (β · nats)."
    return f"Its reward model puts it at {proxy:+.2f} standard deviations."


def gate_told(settings: CampaignSettings) -> str:
    """What a candidate has to show."""
    questions = "; ".join(_questions(settings))
    nothing = (
        ""
        if settings.promises
        else " No reward model took part, so nothing was promised that could be held against them."
    )
    return (
        f"A candidate passes only if every question is settled in its favour on fresh labels: {questions}?{nothing} "
        "The first queue of labels that says no ends it. α is the probability with which an attempt may pass wrongly."
    )


def _questions(settings: CampaignSettings) -> list[str]:
    gate, algorithm, stages = settings.gate, settings.phase.algorithm, settings.protocol.stages
    implicit = settings.candidate is None and not algorithm.needs_reward_model
    who = "its own implicit reward" if implicit else "the reward model"
    questions = ["do raters prefer it"]
    if settings.promises:
        questions.append(
            f"does {who} promise less than {points(gate.over_promise_limit)} more than they give, on all comparisons "
            "and on the half that it promises most for"
        )
    if stages > 1 and gate.direction is not None and settings.promises:
        questions.append(f"do raters prefer what {who} finds best of its samples to what it finds worst")
    if stages > 1 and gate.path is not None and algorithm.needs_reward_model:
        questions.append(
            f"did less than {percent(gate.path.wrong_reward_limit)} of the reward paid in training go to responses "
            "that raters like less than those of the start"
        )
    if stages > 1 and gate.creep is not None:
        questions.append("after the first stage, do raters prefer it to the base and to older checkpoints too")
    if gate.audit.limit is not None:
        questions.append(
            f"do raters favour it by less than {points(gate.audit.limit)} more than a better evaluator does"
        )
    return questions


def account_told(state: CampaignState) -> str:
    """The error budget in a sentence."""
    told = account(state)
    gates = sum(spent.opened for spent in told.attempts)
    following = "" if told.next is None else f" The next gate may spend {number(told.next, 4)}."
    return (
        f"Of the error budget α = {number(told.total, 4)}, {counted(gates, 'gate')} spent {number(told.spent, 4)}; "
        f"{number(told.left, 4)} is left.{following}"
    )


def was_questioned(attempt: Attempt) -> bool:
    """Whether any label speaks for or against it."""
    return attempt.attribution is not None or bool(_tests(attempt))


def gate_read_out(attempt: Attempt) -> Iterator[str]:
    """An attempt's picture in words, for those who do not see it."""
    for test in _tests(attempt):
        yield test_words(test)
    if attempt.attribution is not None:
        for line in gate_words.attribution_told(attempt.attribution.model_dump(mode="json")):
            yield f"{line[0].upper()}{line[1:]}."


def blame_told(attempt: Attempt) -> tuple[str, ...]:
    """What caused over-credit, and why what is unknown is."""
    found = attempt.attribution
    if found is None:
        return ()
    whole, _ = gate_words.attribution_told(found.model_dump(mode="json"))
    return (f"{whole[0].upper()}{whole[1:]}.", *found.unknown)


def gate_caption(state: CampaignState, attempt: Attempt) -> str:
    queues = ", ".join(
        f"{gate_words.queue_words(queue['purpose'])} {queue['labels']} of {queue['sealed']}"
        + (f" ({queue['skipped']} without a word)" if queue["skipped"] else "")
        for queue in views.queues_of(state, attempt)
    )
    words = f"Labels, of the items sealed: {queues}."
    seen = attempt.evaluation
    asked = any(test.name == "wrong_reward" for test in _tests(attempt))
    if asked and seen is not None and seen.wrong_reward_share is not None:
        words += " The diamond is gold's own figure for the reward paid to wrong behaviour; the gate never sees it."
    return words


def _judgement(attempt: Attempt) -> list[str]:
    verdict = attempt.verdict
    if verdict is None:
        return []
    if not verdict.tests:
        return [f"Verdict: {verdict.verdict.value} ({'; '.join(verdict.reasons)})."]
    if verdict.vetoes and not _tests(attempt):
        return [f"It was refused before any label on it counted: {'; '.join(verdict.vetoes)}."]
    passed = all(test.passed for test in verdict.tests)
    queues = counted(len(verdict.panels), "queue")
    of = f" of {queues}" if len(verdict.panels) > 1 else ""
    words = [f"On {counted(verdict.labels, 'fresh label')}{of} the gate {'passed' if passed else 'refused'} it:"]
    if verdict.vetoes and not passed:
        words.insert(0, f"A veto stands against it: {'; '.join(verdict.vetoes)}.")
    if passed and verdict.verdict is not Verdict.ADVANCE:
        words.insert(0, f"The verdict is {verdict.verdict.value} all the same: {'; '.join(verdict.reasons)}.")
    return words


def _outcome(state: CampaignState, attempt: Attempt) -> list[str]:
    words = []
    for made in attempt.decisions:
        said = "Approved" if made.decision is Decision.APPROVE else "Rejected"
        if made.reviewer == state.automatic_reviewer:
            words.append(f"{said} by the {made.reviewer} itself; no person looked.")
        else:
            words.append(f"{said} by {made.reviewer}{f': “{made.reason}”' if made.reason else ''}.")
    if attempt.advanced:
        words.append(f"It is approved checkpoint {_approved_number(state, attempt)}.")
    elif attempt.rolled_back_to is not None:
        kept = " The candidate is quarantined, its labels are kept." if attempt.candidate is not None else ""
        words.append(f"Rolled back: {_name(state, attempt.rolled_back_to)} is restored, bit for bit.{kept}")
    elif attempt.verdict is not None:
        words.append("It waits for a decision.")
    return words


def _tests(attempt: Attempt) -> tuple[TestResult, ...]:
    """Those that had a label to go by; a veto may come before the first."""
    tests = attempt.verdict.tests if attempt.verdict is not None else ()
    return tuple(test for test in tests if test.estimate is not None)


def test_words(test: TestResult) -> str:
    assert test.estimate is not None
    if test.name in _PREFERRED:
        return (
            f"Raters preferred {_PREFERRED[test.name]} in {percent(test.estimate)} of the comparisons; the lower bound "
            f"is {percent(test.bound)}, and more than {percent(test.limit)} was needed."
        )
    if test.name == "wrong_reward":
        return (
            f"Of the reward paid in training, {percent(test.estimate)} went to responses that raters liked less than "
            f"those of the start; the upper bound is {percent(test.bound)}, and less than {percent(test.limit)} was "
            "needed."
        )
    side = "more" if test.estimate >= 0 else "less"
    if test.name == "audit":
        return (
            f"Raters favoured it {points(abs(test.estimate))} {side} than the better evaluator; the upper bound is "
            f"{points(test.bound)}, and less than {points(test.limit)} was needed."
        )
    where = _PROMISED.get(test.name, "The")
    return (
        f"{where} reward model promised {points(abs(test.estimate))} {side} than raters gave; the upper bound on the "
        f"over-promise is {points(test.bound)}, and less than {points(test.limit)} was needed."
    )


def percent(share: float) -> str:
    return f"{_tenth(share)}%"


def points(share: float) -> str:
    """A difference of two probabilities."""
    return f"{_tenth(share)} points"


def _tenth(share: float) -> str:
    """In hundredths; never a zero with a minus."""
    return f"{round(100 * share, 1) + 0.0:.1f}"


def _approved_number(state: CampaignState, attempt: Attempt) -> int:
    return next(at for at, deployed in enumerate(state.deployments) if deployed.checkpoint == attempt.candidate)


def _name(state: CampaignState, digest: str) -> str:
    short = digest[:12]
    for stage, deployed in enumerate(state.deployments):
        if deployed.checkpoint == digest:
            return f"the base ({short})" if stage == 0 else f"approved checkpoint {stage} ({short})"
    return f"the candidate {short}"


def _gold_of(state: CampaignState, digest: str) -> float | None:
    for deployed in state.deployments:
        if deployed.checkpoint == digest:
            return deployed.gold_mean
    for attempt in state.attempts:
        if attempt.candidate == digest and attempt.evaluation is not None:
            return attempt.evaluation.gold_mean
    return None


# --- several arms -----------------------------------------------------------------------------------------


def arm_told(arm: str, told: Mapping[str, Any]) -> str:
    """One arm of the demo: how far its deployable checkpoint came, how low it fell, and what training saw."""
    deployed = [gold for gold in told["deployed_gold"] if gold is not None]
    words = [f"{arm}: {counted(told['advances'], 'advance')}, {counted(told['rollbacks'], 'rollback')}."]
    if deployed:
        words.append(
            f"Deployed gold {number(deployed[0])} at first, {number(deployed[-1])} in the end, "
            f"{number(min(deployed))} at worst."
        )
    by_step = told["gold_by_step"]
    if by_step:
        peak = max(range(len(by_step)), key=by_step.__getitem__)
        words.append(f"In training, gold peaked at {number(by_step[peak])} and ended at {number(by_step[-1])}.")
    return " ".join(words)


def tax_told(resource: str, told: Mapping[str, Any]) -> str:
    name = RESOURCE_WORDS.get(resource, resource)
    if told["ratio"] is None:
        return f"{name}: {unreached_words(told)}"
    return f"{name}: {told['ratio']:.2f} times what online RLHF needed"


def unreached_words(told: Mapping[str, Any]) -> str:
    """Why there is no ratio; never a number in its place."""
    missing = [arm for arm in ("ratchet", "online") if told["reached_by"].get(arm) is False]
    return f"unreached by {' and '.join(missing)}" if missing else "no ratio: the base was there at no cost"
