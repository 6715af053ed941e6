"""Whole campaigns in memory, for every protocol: what the loop does, in which order, and with which data."""

import itertools
from typing import Any

import pytest
from fake_world import World, always_bad, always_good, mixed, settings_of
from pydantic import ValidationError

from orchestrator.core import events as ev
from orchestrator.core import work as wk
from orchestrator.core.commands import AskForDecision, AskForLabels, Do, Halt, Note
from orchestrator.core.history import fold
from orchestrator.core.machine import next_command
from orchestrator.core.records import Costs, Decision, EndedBy, Purpose, Status, Verdict
from orchestrator.core.settings import Advance
from orchestrator.core.state import state_digest

COMBINATIONS = [
    combination
    for combination in itertools.product(
        ("approved", "base", "last"),
        ("until_agreement", "once", "always"),
        ("refit", "frozen", "dpo", "labels"),
        ("person", "gate"),
        ("people", "simulated"),
    )
    if combination[3:] != ("gate", "people")
]


def settings_for(combination: tuple[str, ...], **changes: Any) -> Any:
    """The third entry is the protocol's reward model, or an algorithm that does without one."""
    restart_from, advance, learning, by, rater = combination
    without = learning not in ("refit", "frozen")
    return settings_of(
        protocol={
            "restart_from": restart_from,
            "advance": advance,
            "reward_model": "none" if without else learning,
        },
        phase={"algorithm": learning} if without else {},
        approval={"by": by},
        feedback={"rater": rater},
        **changes,
    )


@pytest.fixture(scope="module", params=COMBINATIONS, ids="-".join)
def world(request: pytest.FixtureRequest) -> World:
    world = World(settings_for(request.param))
    assert isinstance(world.run(), Halt)
    return world


def bodies(world: World, kind: type[ev.EventBody]) -> list[Any]:
    return [event.body for event in world.events if isinstance(event.body, kind)]


def works(world: World, kind: type[wk.Work]) -> list[Any]:
    return [work for work in world.works if isinstance(work, kind)]


def draws(world: World, purpose: Purpose) -> list[wk.DrawComparisons]:
    return [work for work in works(world, wk.DrawComparisons) if work.purpose is purpose]


def test_campaign_ends_with_all_its_stages(world: World) -> None:
    assert (world.state.status, world.state.ended_by) == (Status.FINISHED, EndedBy.STAGES_COMPLETED)
    assert world.state.advances == 2


def test_folding_a_prefix_and_then_the_rest_equals_folding_all(world: World) -> None:
    events = world.events
    state = fold(events[:0])
    for cut, event in enumerate(events):
        if cut % 7 == 0:
            assert fold(events[cut:], state) == world.state
        state = fold([event], state)
    assert state == world.state


def test_the_same_state_gives_the_same_command(world: World) -> None:
    """Anywhere the campaign may be killed, the ledger so far asks for what was asked before."""
    state, settings = fold([]), world.settings
    asked = []
    for event in world.events:
        state = fold([event], state)
        asked.append(next_command(state, settings))
    assert [command for command in asked if not isinstance(command, Halt)] == world.commands


def test_every_command_id_is_used_once(world: World) -> None:
    ids = [stored.command_id for stored in world.stored]
    assert len(set(ids)) == len(ids)


def test_every_attempt_begins_where_the_protocol_says(world: World) -> None:
    base = approved = last = None
    for event in world.events:
        match event.body:
            case ev.BaseReady(checkpoint=checkpoint):
                base = approved = last = checkpoint
            case ev.PhaseFinished(candidate=candidate):
                last = candidate
            case ev.Advanced(approved=checkpoint):
                approved = checkpoint
            case ev.AttemptBegun(start=start):
                assert start == {"approved": approved, "base": base, "last": last}[world.settings.protocol.restart_from]
            case ev.RolledBack(to=to, quarantined=quarantined):
                assert to == {"approved": approved, "base": base, "last": last}[world.settings.protocol.restart_from]
                assert quarantined != to
    assert approved == world.state.approved


def test_every_phase_trains_what_its_attempt_began_with(world: World) -> None:
    for work in works(world, wk.RunPhase):
        attempt = next(a for a in world.state.attempts if (a.stage, a.attempt) == (work.stage, work.attempt))
        assert work.start == attempt.start
        if world.settings.protocol.reward_model == "none":
            assert work.reward_model is None
        else:
            assert (work.reward_model, work.batches) == (attempt.reward_model, ())


def test_nothing_advances_without_a_passing_verdict_and_an_approval_of_that_digest(world: World) -> None:
    passed: set[str] = set()
    approved: set[str] = set()
    for event in world.events:
        match event.body:
            case ev.VerdictGiven(candidate=str(candidate), decision=decision) if decision.verdict is Verdict.ADVANCE:
                passed.add(candidate)
            case ev.DecisionMade(candidate=candidate, decision=Decision.APPROVE, reviewer=reviewer):
                assert candidate in passed
                ungated = world.settings.protocol.advance is Advance.ALWAYS
                people = world.settings.approval.by == "person" and not ungated
                assert reviewer == ("ann" if people else "protocol" if ungated else "gate")
                approved.add(candidate)
            case ev.Advanced(approved=checkpoint):
                assert checkpoint in passed
                assert checkpoint in approved


def test_bad_candidates_are_refused_where_there_is_a_gate(world: World) -> None:
    refused = {(a.stage, a.attempt) for a in world.state.attempts if a.rolled_back_to is not None}
    if world.settings.protocol.advance is Advance.ALWAYS:
        assert refused == {(1, 0)}, "only the phase that failed"
    else:
        assert refused == {(0, 0), (1, 0), (1, 1)}


def test_labels_that_judge_have_not_trained_before(world: World) -> None:
    """A gate's batch enters training only behind its verdict, and every earlier batch enters the next one."""
    drawn: list[str] = []
    judged: set[str] = set()
    without = world.settings.protocol.reward_model == "none"
    learning = works(world, wk.RunPhase if without else wk.FitRewardModel)
    taught = {(work.stage, work.attempt): {batch.batch: batch for batch in work.batches} for work in learning}
    for event in world.events:
        match event.body:
            case ev.ComparisonsDrawn(purpose=purpose, stage=stage, attempt=attempt):
                drawn.append(wk.batch_id(purpose, stage, attempt))
            case ev.VerdictGiven(stage=stage, attempt=attempt):
                judged.add(wk.batch_id(Purpose.GATE, stage, attempt))
            case ev.RewardModelFitted(stage=stage, attempt=attempt) | ev.PhaseFinished(stage=stage, attempt=attempt):
                if without is isinstance(event.body, ev.RewardModelFitted) or (stage, attempt) not in taught:
                    continue
                used = taught[stage, attempt]
                assert all(name in judged for name in used if name.endswith(".gate"))
                assert set(used) == set(drawn)
                bought = [batch for name, batch in used.items() if not name.endswith(".gate")]
                assert all(said for batch in bought for said in batch.choices), "every label asked for is in"
                assert wk.batch_id(Purpose.GATE, stage, attempt) not in used


def test_training_knows_who_drew_each_response(world: World) -> None:
    """A batch names the policy that drew both responses of a pair, or the two that drew one each and in which order."""
    candidates = {(a.stage, a.attempt): (a.candidate, a.start) for a in world.state.attempts}
    for work in [*works(world, wk.FitRewardModel), *works(world, wk.RunPhase)]:
        for labelled in work.batches:
            batch = world.state.batch(labelled.batch)
            assert batch is not None
            if batch.purpose is Purpose.INITIAL:
                assert (labelled.policy, labelled.opponent) == (world.state.base, None)
            if batch.purpose is Purpose.TRAINING and world.settings.phase.algorithm == "labels":
                assert batch.stage is not None
                assert batch.attempt is not None
                assert (labelled.policy, labelled.opponent) == (candidates[batch.stage, batch.attempt][1], None)
            if batch.purpose is Purpose.GATE:
                assert batch.stage is not None
                assert batch.attempt is not None
                assert labelled.policy == candidates[batch.stage, batch.attempt][0]
                assert labelled.opponent is not None
                assert len(labelled.candidate_first) == batch.count


def test_a_frozen_reward_model_is_fitted_once_on_the_initial_labels(world: World) -> None:
    fits = works(world, wk.FitRewardModel)
    if world.settings.protocol.reward_model == "frozen":
        assert [[batch.batch for batch in fit.batches] for fit in fits] == [["initial"]]
        assert len({attempt.reward_model for attempt in world.state.attempts}) == 1
    elif world.settings.protocol.reward_model == "none":
        assert not fits
    else:
        assert len(fits) == len(world.state.attempts)


def test_over_promise_is_questioned_wherever_something_was_promised(world: World) -> None:
    names = {test.name for a in world.state.attempts if a.verdict is not None for test in a.verdict.tests}
    if world.settings.protocol.advance is Advance.ALWAYS:
        assert not names
    elif world.settings.phase.algorithm == "labels":
        assert names == {"improvement"}
        assert all(a.reward_model is None for a in world.state.attempts)
    else:
        assert names == {"improvement", "over_promise", "over_promise_top_half"}


def test_a_gate_compares_the_candidate_with_the_approved_checkpoint_of_its_time(world: World) -> None:
    approved: dict[int, str | None] = {0: world.state.base}
    for attempt in world.state.attempts:
        if attempt.advanced:
            approved[attempt.stage + 1] = attempt.candidate
    for draw in draws(world, Purpose.GATE):
        assert draw.stage is not None
        attempt = next(a for a in world.state.attempts if (a.stage, a.attempt) == (draw.stage, draw.attempt))
        assert (draw.policy, draw.opponent) == (attempt.candidate, approved[draw.stage])
        assert draw.reward_model == attempt.reward_model


def test_a_reward_model_is_normalised_where_its_attempt_begins(world: World) -> None:
    starts = {(attempt.stage, attempt.attempt): attempt.start for attempt in world.state.attempts}
    for fit in works(world, wk.FitRewardModel):
        assert (fit.base, fit.normalise_on) == (world.state.base, starts[fit.stage, fit.attempt])


def test_only_once_holds_instead_of_improving(world: World) -> None:
    limit = 0.47 if world.settings.protocol.advance is Advance.ONCE else 0.5
    verdicts = [a.verdict for a in world.state.attempts if a.verdict is not None and a.verdict.tests]
    assert all(verdict.tests[0].limit == limit for verdict in verdicts)


def test_every_gate_prompt_is_used_once(world: World) -> None:
    used = [p for draw in draws(world, Purpose.GATE) for p in range(draw.first_prompt, draw.first_prompt + draw.count)]
    assert len(set(used)) == len(used)
    assert all(0 <= prompt < world.settings.gate_prompts for prompt in used)


def test_every_label_prompt_is_used_once(world: World) -> None:
    both = draws(world, Purpose.INITIAL) + draws(world, Purpose.TRAINING)
    used = [p for draw in both for p in range(draw.first_prompt, draw.first_prompt + draw.count)]
    assert sorted(used) == list(range(len(used)))


def test_a_gate_is_sealed_before_its_first_label(world: World) -> None:
    sealed: set[str] = set()
    for event in world.events:
        match event.body:
            case ev.ComparisonsDrawn(purpose=purpose, stage=stage, attempt=attempt):
                sealed.add(wk.batch_id(purpose, stage, attempt))
            case ev.LabelsRecorded(batch=batch):
                assert batch in sealed


def test_alpha_is_spent_once_and_never_more_than_there_is(world: World) -> None:
    """Two stages of three attempts share .2: .1/3 an attempt; what stage 0 leaves over carries to stage 1."""
    spent = 0.0
    state = fold([])
    for event in world.events:
        state = fold([event], state)
        assert state.alpha_spent >= spent, "nothing gives spent budget back"
        spent = state.alpha_spent
    assert spent <= 0.2 * (1 + 1e-12)
    alphas = {(b.stage, b.attempt): b.alpha for b in world.state.batches if b.purpose is Purpose.GATE}
    if world.settings.protocol.advance is Advance.ALWAYS:
        assert alphas == {}
    else:
        left = 0.2 - 2 * (0.1 / 3)
        expected = {(0, 0): 0.1 / 3, (0, 1): 0.1 / 3, (1, 1): left / 3, (1, 2): left / 3}
        assert alphas == pytest.approx(expected)


def test_people_are_asked_only_where_the_campaign_says_so(world: World) -> None:
    labels = {type(c) for c in world.commands if isinstance(c, AskForLabels) or getattr(c, "work", None)}
    assert (AskForLabels in labels) is (world.settings.feedback.rater == "people")
    assert bool(works(world, wk.Rate)) is (world.settings.feedback.rater != "people")
    asked = any(isinstance(command, AskForDecision) for command in world.commands)
    ungated = world.settings.protocol.advance is Advance.ALWAYS
    assert asked is (world.settings.approval.by == "person" and not ungated)


def test_gold_is_never_shown_to_anything_that_learns_or_judges(world: World) -> None:
    golden = {evaluated.samples for evaluated in bodies(world, ev.Evaluated)}
    assert golden
    for work in works(world, wk.FitRewardModel) + works(world, wk.RunPhase) + works(world, wk.DrawComparisons):
        assert not any(samples in work.model_dump_json() for samples in golden)


def test_agreement_with_gold_moves_nothing(world: World) -> None:
    """At every point of the campaign the next command is the same, whatever raters were found to be worth."""
    state = fold([])
    for event in world.events:
        state = fold([event], state)
        other = state.model_copy(update={"labels_with_gold": 1000, "labels_agreed_with_gold": 1})
        assert next_command(other, world.settings) == next_command(state, world.settings)


def test_costs_are_those_of_all_work_discarded_attempts_included(world: World) -> None:
    expected = sum(
        (b.costs for b in (event.body for event in world.events) if hasattr(b, "costs") and b.TYPE != "base_ready"),
        start=Costs(),
    )
    assert world.state.costs == expected
    assert world.state.labels.total == sum(len(body.labels) for body in bodies(world, ev.LabelsRecorded))


def test_used_up_attempts_end_the_campaign_and_the_approved_checkpoint_stays() -> None:
    world = World(settings_of(approval={"by": "gate"}), quality=always_bad)
    world.run()
    assert (world.state.status, world.state.ended_by) == (Status.FINISHED, EndedBy.ATTEMPTS_EXHAUSTED)
    assert [(a.stage, a.attempt) for a in world.state.attempts] == [(0, 0), (0, 1), (0, 2)]
    assert world.state.approved == world.state.base


@pytest.mark.parametrize("advance", ["until_agreement", "once", "always"])
def test_phases_that_always_fail_end_the_campaign(advance: str) -> None:
    world = World(settings_of(protocol={"advance": advance}), quality=lambda stage, attempt: None)
    world.run()
    assert world.state.ended_by is EndedBy.ATTEMPTS_EXHAUSTED
    assert world.state.alpha_spent == 0.0


def test_once_retrains_every_checkpoint_exactly_once() -> None:
    world = World(settings_of(protocol={"advance": "once"}, approval={"by": "gate"}), quality=always_good)
    world.run()
    assert [(a.stage, a.attempt, a.advanced) for a in world.state.attempts] == [
        (0, 0, False),
        (0, 1, True),
        (1, 0, False),
        (1, 1, True),
    ]
    first = world.state.attempts[0].verdict
    assert first is not None
    assert "retrains" in first.reasons[0]
    assert all(test.passed for test in first.tests), "the gate itself had passed it"


def test_a_rejected_candidate_is_rolled_back_and_its_alpha_stays_spent() -> None:
    says = {(0, 0): Decision.REJECT}
    world = World(settings_of(), quality=always_good, reviewer_says=lambda s, a: says.get((s, a), Decision.APPROVE))
    world.run()
    first = world.state.attempts[0]
    assert (first.rejected, first.advanced) == (True, False)
    assert first.rolled_back_to == world.state.base
    assert world.state.alpha_spent == pytest.approx(0.1 / 3 * 2 + (0.2 - 0.1 / 3 * 2) / 3)


def test_two_approvers_are_two_people() -> None:
    world = World(settings_of(approval={"approvers": 2}), quality=always_good)
    command = world.run(lambda c: isinstance(c, AskForDecision))
    assert isinstance(command, AskForDecision)
    assert (command.approvals, command.approvers) == (0, 2)
    world.answer(command)
    command = world.run(lambda c: isinstance(c, AskForDecision))
    assert isinstance(command, AskForDecision)
    assert (command.approvals, command.approvers) == (1, 2)
    world.answer(command)
    assert isinstance(next_command(world.state, world.settings), Note)


def test_a_gate_looks_again_after_every_few_labels() -> None:
    world = World(settings_of(approval={"by": "gate"}), quality=always_good)
    world.run()
    ratings = [work for work in works(world, wk.Rate) if work.batch == "s0.a0.gate"]
    assert [(work.first, work.count) for work in ratings] == [(20 * i, 20) for i in range(len(ratings))]
    verdict = world.state.attempts[0].verdict
    assert verdict is not None
    assert 20 * (len(ratings) - 1) < verdict.labels <= 20 * len(ratings)


def test_expired_feedback_is_refused_without_waiting_on() -> None:
    world = World(settings_of(feedback={"rater": "people"}), quality=always_good)
    gate = world.run(lambda c: isinstance(c, AskForLabels) and c.batch.purpose is Purpose.GATE)
    assert isinstance(gate, AskForLabels)
    world.append(ev.FeedbackExpired(batch=gate.batch.id), "expired")
    command = next_command(world.state, world.settings)
    assert isinstance(command, Note)
    assert isinstance(command.body, ev.VerdictGiven)
    assert command.body.decision.verdict is Verdict.ROLLBACK
    assert command.body.decision.skipped == command.body.decision.labels > 0


def test_people_who_label_in_any_order_block_at_the_first_gap() -> None:
    world = World(settings_of(feedback={"rater": "people"}), quality=always_good)
    ask = world.run(lambda c: isinstance(c, AskForLabels) and c.batch.purpose is Purpose.GATE)
    assert isinstance(ask, AskForLabels)
    labels = world.labels(ask.batch, range(1, 100), ("ann",))
    world.append(ev.LabelsRecorded(batch=ask.batch.id, labels=labels), "all but one", author="ann", person=True)
    ask = next_command(world.state, world.settings)
    assert isinstance(ask, AskForLabels)
    assert ask.settled == 0
    last = world.labels(ask.batch, [0], ("ann",))
    world.append(ev.LabelsRecorded(batch=ask.batch.id, labels=last), "the one", author="ann", person=True)
    assert isinstance(next_command(world.state, world.settings), Note)


def test_several_raters_an_item_are_all_waited_for() -> None:
    for rater in ("people", "simulated"):
        world = World(settings_of(feedback={"rater": rater, "raters_per_item": 3}), quality=mixed)
        world.run()
        assert world.state.ended_by is EndedBy.STAGES_COMPLETED
        initial = world.state.batch("initial")
        assert initial is not None
        assert {len(choices) for choices in initial.choices(3)} == {3}


def test_training_labels_are_bought_before_every_refit_but_the_first() -> None:
    world = World(settings_of(approval={"by": "gate"}))
    world.run()
    bought = [(draw.stage, draw.attempt) for draw in draws(world, Purpose.TRAINING)]
    assert bought == [(0, 1), (1, 0), (1, 1), (1, 2)]


def test_refused_attempts_shorten_the_next_ones_of_their_stage() -> None:
    """Four steps and a budget of 8 nats: whole for two attempts, then halved once more each time."""
    phase = {"steps": 4, "kl": {"budget_nats": 8.0}, "shorten": {"after_failures": 2, "factor": 0.5}}
    settings = settings_of(phase=phase, protocol={"stages": 1, "attempts": 5}, approval={"by": "gate"})
    world = World(settings, quality=always_bad)
    world.run()
    allowed = [(work.settings.steps, work.settings.kl.budget_nats) for work in works(world, wk.RunPhase)]
    assert allowed == [(4, 8.0), (4, 8.0), (2, 4.0), (1, 2.0), (1, 1.0)]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"phase": {"algorithm": "dpo"}}, "set protocol.reward_model: none"),
        ({"protocol": {"reward_model": "none"}}, "set protocol.reward_model to refit or frozen"),
        ({"phase": {"stop": {"spread_growth": 1.5}}, "reward_model": {"members": 1}}, "members of 2 or more"),
        ({"phase": {"kl": {"budget_nats": 4.0, "explosion_nats": 3.0}}}, "must exceed budget_nats"),
        ({"phase": {"prompts_per_step": 16, "minibatches": 3}}, "must divide prompts_per_step"),
        ({"phase": {"algorithm": "grpo", "samples_per_prompt": 1}}, "samples_per_prompt to 2 or more"),
        ({"phase": {"kl": {"target_nats": 2.0, "coefficient": 0.0}}}, "cannot be steered"),
        ({"phase": {"algorithm": "best_of_n", "kl": {"target_nats": 2.0}}}, "no KL coefficient"),
        (
            {
                "phase": {"algorithm": "labels", "stop": {"predicted_win_rate": 0.7}},
                "protocol": {"reward_model": "none"},
            },
            "asks a reward model",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        settings_of(**changes)


def test_without_rounds_or_gold_neither_is_asked_for() -> None:
    world = World(settings_of(feedback={"labels_per_round": 0}, evaluation={"prompts": 0}, approval={"by": "gate"}))
    world.run()
    assert not draws(world, Purpose.TRAINING)
    assert not works(world, wk.Evaluate)
    assert not any(work.count_agreement for work in works(world, wk.Rate))
    assert world.state.ended_by is EndedBy.STAGES_COMPLETED


def test_a_paused_campaign_does_nothing_until_it_is_resumed() -> None:
    world = World(settings_of())
    before = next_command(world.state, world.settings)
    world.append(ev.Paused(why="night"), "pause", author="ann", person=True)
    assert isinstance(next_command(world.state, world.settings), Halt)
    world.append(ev.Resumed(), "resume", author="ann", person=True)
    assert next_command(world.state, world.settings) == before


def test_a_pause_in_the_middle_changes_nothing_that_is_remembered() -> None:
    plain, disturbed = World(settings_of()), World(settings_of())
    plain.run()
    disturbed.run(lambda c: isinstance(c, Do) and isinstance(c.work, wk.RunPhase))
    disturbed.append(ev.Paused(why="night"), "pause", author="ann", person=True)
    disturbed.append(ev.ControllerStarted(owner="another"), "controller.2")
    disturbed.append(ev.Resumed(), "resume", author="ann", person=True)
    disturbed.run()
    assert state_digest(disturbed.state) == state_digest(plain.state)


def test_the_reference_of_the_kl_penalty_is_what_the_settings_say() -> None:
    for reference in ("approved", "base"):
        world = World(settings_of(phase={"kl": {"reference": reference}}, protocol={"restart_from": "last"}))
        world.run()
        approved = {a.stage: d.checkpoint for a, d in zip(_advanced(world), world.state.deployments[1:], strict=True)}
        for work in works(world, wk.RunPhase):
            expected = world.state.base if reference == "base" or work.stage == 0 else approved[work.stage - 1]
            assert work.reference == expected


def _advanced(world: World) -> list[Any]:
    return [attempt for attempt in world.state.attempts if attempt.advanced]


def test_people_who_label_also_approve() -> None:
    with pytest.raises(ValidationError, match="people who label also approve"):
        settings_of(feedback={"rater": "people"}, approval={"by": "gate"})
