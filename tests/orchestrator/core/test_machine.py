"""Whole campaigns in memory, for every protocol: what the loop does, in which order, and with which data."""

import itertools
from typing import Any

import pytest
from fake_world import World, always_bad, always_good, mixed, settings_of
from pydantic import ValidationError

from orchestrator.core import events as ev
from orchestrator.core import work as wk
from orchestrator.core.commands import AskForDecision, AskForLabels, Do, Halt, Note
from orchestrator.core.gate import NOTHING_PROMISED
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
    """What an attempt learns from is every labelled batch so far, all queues of judged attempts among them; but never
    an audit or checks, nor a queue of the attempt itself."""
    labelled: list[str] = []
    judged: set[tuple[int, int]] = set()
    without = world.settings.protocol.reward_model == "none"
    learning = works(world, wk.RunPhase if without else wk.FitRewardModel)
    taught = {(work.stage, work.attempt): {batch.batch: batch for batch in work.batches} for work in learning}
    checked = 0
    for event in world.events:
        match event.body:
            case ev.LabelsRecorded(batch=name) if name not in labelled:
                labelled.append(name)
            case ev.VerdictGiven(stage=stage, attempt=attempt):
                judged.add((stage, attempt))
            case (
                ev.RewardModelFitted(stage=stage, attempt=attempt)
                | ev.PhaseFinished(stage=stage, attempt=attempt)
                | ev.PhaseFailed(stage=stage, attempt=attempt)
            ):
                if without is isinstance(event.body, ev.RewardModelFitted) or (stage, attempt) not in taught:
                    continue
                used = taught[stage, attempt]
                assert list(used) == [name for name in labelled if not name.endswith((".audit", ".checks"))]
                for name, batch in used.items():
                    sealed = world.state.batch(name)
                    assert sealed is not None
                    if sealed.purpose.judges:
                        assert (sealed.stage, sealed.attempt) in judged
                    else:
                        assert all(batch.choices), "every label asked for is in"
                checked += 1
    assert checked == len(learning) > 0


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
            if batch.purpose.judges:
                assert batch.stage is not None
                assert batch.attempt is not None
                candidate, start = candidates[batch.stage, batch.attempt]
                opponents = {
                    Purpose.GATE: world.state.deployments[batch.stage].checkpoint,
                    Purpose.DIRECTION: candidate,
                    Purpose.PATH: start,
                    Purpose.CREEP_BASE: world.state.base,
                }
                assert labelled.policy == (None if batch.purpose is Purpose.PATH else candidate)
                assert labelled.opponent == opponents[batch.purpose]
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


PROMISED = ("over_promise", "over_promise_top_half")
DIRECTION = ("direction", "direction_over_promise")


@pytest.mark.parametrize("stages", [1, 2])
@pytest.mark.parametrize(
    ("learning", "names"),
    [
        ("refit", ("improvement", *PROMISED, *DIRECTION, "wrong_reward")),
        ("frozen", ("improvement", *PROMISED, *DIRECTION, "wrong_reward")),
        ("dpo", ("improvement", *PROMISED, *DIRECTION)),
        ("labels", ("improvement",)),
    ],
)
def test_every_pass_has_asked_what_its_algorithm_and_stages_call_for(
    learning: str, names: tuple[str, ...], stages: int
) -> None:
    """Over-promise wherever something was promised; direction and path where a further phase would follow them and
    there is a reward model to follow; the base again from the second stage on."""
    settings = settings_for(("approved", "until_agreement", learning, "gate", "simulated"))
    protocol = settings.protocol.model_copy(update={"stages": stages})
    world = World(settings.model_copy(update={"protocol": protocol}), quality=always_good)
    world.run()
    passed = [a.verdict for a in world.state.attempts if a.advanced and a.verdict is not None]
    assert len(passed) == stages
    alone = tuple(name for name in names if name in ("improvement", *PROMISED))
    assert tuple(test.name for test in passed[0].tests) == (alone if stages == 1 else names)
    if stages == 2:
        assert tuple(test.name for test in passed[1].tests) == (*names, "creep_base")
    assert all((NOTHING_PROMISED in verdict.notes) is (learning == "labels") for verdict in passed)


def test_a_refusal_has_asked_no_further_than_the_queue_that_refused(world: World) -> None:
    for attempt in world.state.attempts:
        verdict = attempt.verdict
        if verdict is not None and verdict.tests and verdict.verdict is Verdict.ROLLBACK:
            assert [panel.purpose for panel in verdict.panels] == [Purpose.GATE]
            asked = [batch.id for batch in world.state.panels(attempt) if batch.labels]
            assert asked == [f"{attempt.place}.gate", f"{attempt.place}.audit"]


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
    """Over all queues and attempts together; what needs no prompts of its own takes none."""
    own = [work for work in works(world, wk.DrawComparisons) if work.purpose.judges] + works(world, wk.DrawDirection)
    used = [p for draw in own for p in range(draw.first_prompt, draw.first_prompt + draw.count)]
    assert len(set(used)) == len(used)
    assert all(0 <= prompt < world.settings.gate_prompts for prompt in used)
    for batch in world.state.batches:
        if batch.purpose in (Purpose.PATH, Purpose.AUDIT):
            assert batch.first_prompt is None


def test_every_label_prompt_is_used_once(world: World) -> None:
    both = draws(world, Purpose.INITIAL) + draws(world, Purpose.TRAINING)
    used = [p for draw in both for p in range(draw.first_prompt, draw.first_prompt + draw.count)]
    assert sorted(used) == list(range(len(used)))


def test_everything_that_judges_is_sealed_before_the_first_label(world: World) -> None:
    """All of an attempt's queues, not just the one that is labelled first."""
    sealed: set[str] = set()
    labelled: set[tuple[int | None, int | None]] = set()
    for event in world.events:
        match event.body:
            case ev.ComparisonsDrawn(purpose=purpose, stage=stage, attempt=attempt):
                assert not purpose.judges or (stage, attempt) not in labelled
                sealed.add(wk.batch_id(purpose, stage, attempt))
            case ev.LabelsRecorded(batch=name):
                assert name in sealed
                batch = world.state.batch(name)
                assert batch is not None
                if batch.purpose.judges:
                    labelled.add((batch.stage, batch.attempt))
    assert bool(labelled) is (world.settings.protocol.advance is not Advance.ALWAYS)


def test_alpha_is_spent_once_and_never_more_than_there_is(world: World) -> None:
    """Two stages of three attempts share .2: .1/3 an attempt; what stage 0 leaves over carries to stage 1. Where the
    first attempt of a stage opens no gate, two attempts share a stage's .1, and the second of them passes here."""
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
    elif world.settings.protocol.advance is Advance.ONCE:
        left = 0.2 - 0.1 / 2
        assert alphas == pytest.approx({(0, 1): 0.1 / 2, (1, 1): left / 2, (1, 2): left / 2})
    else:
        left = 0.2 - 2 * (0.1 / 3)
        expected = {(0, 0): 0.1 / 3, (0, 1): 0.1 / 3, (1, 1): left / 3, (1, 2): left / 3}
        assert alphas == pytest.approx(expected)


def test_people_are_asked_only_where_the_campaign_says_so(world: World) -> None:
    """The task's own gold audits, also what people labelled."""
    people = world.settings.feedback.rater == "people"
    ungated = world.settings.protocol.advance is Advance.ALWAYS
    by_people = {command.batch.purpose for command in world.commands if isinstance(command, AskForLabels)}
    by_workers = {work.batch.rpartition(".")[2]: work.rater for work in works(world, wk.Rate)}
    assert bool(by_people) is people
    assert Purpose.AUDIT not in by_people
    assert {kind for kind, rater in by_workers.items() if rater == "gold"} == (set() if ungated else {"audit"})
    assert {rater for kind, rater in by_workers.items() if kind != "audit"} == (set() if people else {"simulated"})
    asked = any(isinstance(command, AskForDecision) for command in world.commands)
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
    bought = dict.fromkeys(Purpose, 0)
    for body in bodies(world, ev.LabelsRecorded):
        batch = world.state.batch(body.batch)
        assert batch is not None
        bought[batch.purpose] += len(body.labels)
    counts = world.state.labels
    further = (Purpose.DIRECTION, Purpose.PATH, Purpose.CREEP_BASE, Purpose.CREEP_OLDER)
    assert counts.gate == bought[Purpose.GATE] + sum(bought[purpose] for purpose in further)
    assert (counts.initial, counts.training) == (bought[Purpose.INITIAL], bought[Purpose.TRAINING])
    assert (counts.audit, counts.checks) == (0, 0), "an audit without a say is the experimenter's"
    assert bool(bought[Purpose.AUDIT]) is (world.settings.protocol.advance is not Advance.ALWAYS)


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
    assert (first.tests, first.labels, first.alpha) == ((), 0, None), "no gate is opened, and nothing spent on it"
    assert [batch.id for batch in world.state.batches if batch.purpose is Purpose.GATE] == ["s0.a1.gate", "s1.a1.gate"]


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
    verdict = world.state.attempts[0].verdict
    assert verdict is not None
    for panel in verdict.panels:
        ratings = [work for work in works(world, wk.Rate) if work.batch == f"s0.a0.{panel.purpose}"]
        assert [(work.first, work.count) for work in ratings] == [(20 * i, 20) for i in range(len(ratings))]
        assert 20 * (len(ratings) - 1) < panel.labels <= 20 * len(ratings)
    assert verdict.labels == sum(panel.labels for panel in verdict.panels)
    assert len(verdict.panels) == 3


def test_expired_feedback_is_refused_without_waiting_on() -> None:
    world = World(settings_of(feedback={"rater": "people"}), quality=always_good)
    gate = world.run(lambda c: isinstance(c, AskForLabels) and c.batch.purpose is Purpose.GATE)
    assert isinstance(gate, AskForLabels)
    world.append(ev.FeedbackExpired(batch=gate.batch.id), "expired")
    command = world.run(lambda c: isinstance(c, Note))
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
    ask = next_command(world.state, world.settings)
    assert isinstance(ask, AskForLabels)
    assert ask.batch.purpose is Purpose.DIRECTION, "the first queue is settled"


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
        ({"gate": {"audit": {"evaluator": "none", "limit": 0.2}}}, "needs somebody who audits"),
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
