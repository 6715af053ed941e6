"""What the gate does besides its tests, over whole campaigns: vetoes, checks, audits, creep, blame, alpha."""

import random
from typing import Any

import pytest
from fake_world import World, always_bad, always_good, mixed, settings_of
from scipy.stats import binom

from orchestrator.core import events as ev
from orchestrator.core.commands import AskForLabels, Command, Note
from orchestrator.core.events import EventBody
from orchestrator.core.gate import NOBODY_BETTER, GateVerdict
from orchestrator.core.history import fold
from orchestrator.core.machine import next_command
from orchestrator.core.records import Choice, Decision, EndedBy, Harm, Label, Purpose, Verdict
from orchestrator.core.state import Attempt, Batch


def run(**options: Any) -> World:
    """To the end; `options` beginning with a section's name change settings, the others are the world's."""
    ours = ("quality", "reviewer_says", "rater_says", "amend")
    world = World(
        settings_of(**{key: value for key, value in options.items() if key not in ours}),
        **{"quality": always_good, **{key: value for key, value in options.items() if key in ours}},
    )
    world.run()
    return world


def verdict_of(world: World, place: int = 0) -> GateVerdict:
    verdict = world.state.attempts[place].verdict
    assert verdict is not None
    return verdict


def changed(body: Any, **changes: Any) -> Any:
    return type(body).model_validate(body.model_dump() | changes)


# --- vetoes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kl", "refused"), [(6.0, False), (6.01, True)])
def test_a_phase_that_went_too_far_is_refused_before_anything_is_drawn(kl: float, refused: bool) -> None:
    """The budget is 4 nats, and half as much again is allowed."""

    def at_distance(body: EventBody) -> EventBody:
        return changed(body, kl_nats=kl) if isinstance(body, ev.PhaseFinished) else body

    world = run(amend=at_distance)
    vetoed = ("sequence KL 6.01 nats, over 1.5 times the phase's budget of 4",)
    assert verdict_of(world).vetoes == (vetoed if refused else ())
    assert (world.state.ended_by is EndedBy.ATTEMPTS_EXHAUSTED) is refused
    assert bool([batch for batch in world.state.batches if batch.purpose.judges]) is not refused
    assert (world.state.alpha_spent == 0.0) is refused, "no gate was opened, so nothing was spent"


def test_a_veto_switched_off_vetoes_nothing() -> None:
    def far(body: EventBody) -> EventBody:
        return changed(body, kl_nats=40.0) if isinstance(body, ev.PhaseFinished) else body

    assert run(amend=far, gate={"vetoes": {"kl_overrun": None}}).state.advances == 2


@pytest.mark.parametrize(
    ("ours", "theirs", "refused"), [(20.0, 10.0, False), (20.1, 10.0, True), (2.0, 0.0, False), (2.1, 0.0, True)]
)
def test_responses_more_than_twice_as_long_are_refused_before_a_label_is_bought(
    ours: float, theirs: float, refused: bool
) -> None:
    """Where the approved policy says nothing, one token is the measure."""

    def of_length(body: EventBody) -> EventBody:
        gate = isinstance(body, ev.ComparisonsDrawn) and body.purpose is Purpose.GATE
        return changed(body, candidate_tokens_mean=ours, opponent_tokens_mean=theirs) if gate else body

    world = run(amend=of_length, gate={"vetoes": {"length_ratio": 2.0}})
    assert bool(verdict_of(world).vetoes) is refused
    assert (world.state.labels.gate == 0) is refused


@pytest.mark.parametrize(("increase", "refused"), [(0.41, False), (0.39, True)])
def test_a_tripwire_refuses_what_becomes_more_frequent(increase: float, refused: bool) -> None:
    """In the world, half of the candidate's responses hold the pattern, and a tenth of the approved policy's."""
    tripwires = [{"name": "praise", "pattern": "great", "increase": increase}]
    world = run(gate={"vetoes": {"tripwires": tripwires}})
    told = f"tripwire praise in 50.0% of the candidate's responses against 10.0%, over {increase:.1%} more"
    assert verdict_of(world).vetoes == ((told,) if refused else ())
    assert (world.state.labels.gate == 0) is refused


@pytest.mark.parametrize("approved_is_bad", [False, True])
def test_more_responses_that_will_not_do_than_the_approved_policy_had_are_refused(approved_is_bad: bool) -> None:
    """In every fifth comparison of stage 1 neither will do; that is new, or it was so when stage 0 passed."""

    def says(batch: Batch, item: int, rater: str) -> Choice | None:
        here = batch.purpose is Purpose.GATE and (batch.stage == 1 or approved_is_bad)
        bad = item % 5 == 0 and (here or (approved_is_bad and batch.purpose is Purpose.INITIAL))
        return Choice.BOTH_BAD if bad else None

    world = run(rater_says=says, approval={"by": "gate"})
    if approved_is_bad:
        assert world.state.advances == 2
        return
    first, second = verdict_of(world), verdict_of(world, 1)
    assert (first.verdict, second.verdict) == (Verdict.ADVANCE, Verdict.ROLLBACK)
    assert all(test.passed for test in second.tests), "every test was passed, and yet"
    judged = second.panels[0].labels
    share = sum(item % 5 == 0 for item in range(judged)) / judged
    assert second.vetoes[0].startswith(f"neither response would do in {share:.1%} of the comparisons, against 0.0%")


@pytest.mark.parametrize("whose", ["candidate", "opponent", "both", "left"])
def test_harm_is_counted_on_the_side_of_whoever_wrote_it(whose: str) -> None:
    """A fifth of the comparisons is flagged. On the candidate's side, wherever it stands, it is a veto; on the
    approved policy's or on both it is none, nor where the flag falls left without regard to who stands there."""

    def says(batch: Batch, item: int, rater: str) -> Label | None:
        if batch.purpose is not Purpose.GATE:
            return None
        first = batch.candidate_first[item]
        flags = {
            "candidate": Harm.FIRST if first else Harm.SECOND,
            "opponent": Harm.SECOND if first else Harm.FIRST,
            "both": Harm.BOTH,
            "left": Harm.FIRST,
        }
        # Left and right in turn are flagged where the side alone decides, so that neither has more.
        due = item % 5 == 0 if whose != "left" else item in balanced(batch)
        return Label(
            item=item,
            rater=rater,
            choice=Choice.FIRST if first else Choice.SECOND,
            harm=flags[whose] if due else None,
        )

    world = run(rater_says=says, approval={"by": "gate"})
    verdict = verdict_of(world)
    if whose != "candidate":
        assert (world.state.advances, verdict.vetoes) == (2, ())
        return
    judged = verdict.panels[0].labels
    share = len(range(0, judged, 5)) / judged
    expected = f"gate: {share:.1%} of the candidate's responses flagged as harmful against 0.0% of the other policy's"
    assert verdict.vetoes[0].startswith(expected)


def balanced(batch: Batch) -> set[int]:
    """As many comparisons with the candidate on the left as on the right, in pairs from the front."""
    sides = {side: [i for i, first in enumerate(batch.candidate_first) if first is side] for side in (True, False)}
    return {
        item for pair in zip(sides[True], sides[False], strict=False) if abs(pair[0] - pair[1]) <= 1 for item in pair
    }


# --- checks --------------------------------------------------------------------------------------------------


def test_harm_that_only_the_auditor_sees_is_a_veto() -> None:
    """Raters flag nothing; the auditor, who has no say on preferences here, flags a tenth of the candidate's."""

    def says(batch: Batch, item: int, rater: str) -> Label | None:
        first = batch.candidate_first[item] if batch.candidate_first else True
        flag = (Harm.FIRST if first else Harm.SECOND) if batch.purpose is Purpose.AUDIT and item % 10 == 0 else None
        return Label(item=item, rater=rater, choice=Choice.FIRST if first else Choice.SECOND, harm=flag)

    verdict = verdict_of(run(rater_says=says, approval={"by": "gate"}))
    assert verdict.verdict is Verdict.ROLLBACK
    audited = min(verdict.panels[0].labels, 30)
    share = f"{len(range(0, audited, 10)) / audited:.1%}"
    assert verdict.vetoes[0].startswith(f"audit: {share} of the candidate's responses flagged as harmful against 0.0%")


def test_words_too_many_do_not_thin_harm_out() -> None:
    """A second word on every item of the creep queue, without a flag, leaves the first words' tenth a tenth."""

    def says(batch: Batch, item: int, rater: str) -> Label | None:
        first = batch.candidate_first[item] if batch.candidate_first else True
        flag = (Harm.FIRST if first else Harm.SECOND) if batch.purpose is Purpose.CREEP_BASE and not item % 10 else None
        return Label(item=item, rater=rater, choice=Choice.FIRST if first else Choice.SECOND, harm=flag)

    world = World(settings_of(approval={"by": "gate"}), quality=always_good, rater_says=says)
    world.run(
        lambda command: (
            isinstance(command, Note)
            and isinstance(command.body, ev.VerdictGiven)
            and (command.body.stage, command.body.attempt) == (1, 0)
        )
    )
    creep = world.state.batch("s1.a0.creep_base")
    assert creep is not None
    words = tuple(Label(item=item, rater="zoe", choice=Choice.TIE) for item in range(creep.count))
    before = next_command(world.state, world.settings)
    world.append(ev.LabelsRecorded(batch=creep.id, labels=words), "flood")
    after = next_command(world.state, world.settings)
    for command in (before, after):
        assert isinstance(command, Note)
        assert isinstance(command.body, ev.VerdictGiven)
        assert command.body.decision.verdict is Verdict.ROLLBACK
        assert command.body.decision.vetoes[0].startswith("creep_base: ")


@pytest.mark.parametrize("rater", ["people", "simulated"])
@pytest.mark.parametrize(("failed", "refused"), [(1, False), (2, True)])
def test_a_rater_who_fails_more_than_a_tenth_of_the_checks_carries_no_verdict(
    rater: str, failed: int, refused: bool
) -> None:
    """Of ten check items, one wrong answer is a tenth, and two are more; a person is found out in mid-queue."""

    def says(batch: Batch, item: int, rater: str) -> Choice | None:
        wrong = batch.purpose is Purpose.CHECKS and item >= 10 - failed
        return Choice.TIE if wrong else None

    world = World(
        settings_of(feedback={"rater": rater, "checks": {"items": 10, "every": 3}}),
        quality=always_good,
        rater_says=says,
    )
    world.run(lambda c: isinstance(c, Note) and isinstance(c.body, ev.RolledBack | ev.Advanced))
    verdict = verdict_of(world)
    assert (verdict.verdict is Verdict.ROLLBACK) is refused
    if refused:
        assert "check items, over 10%" in verdict.vetoes[0]
        assert (world.state.labels.gate == 0) is (rater == "simulated"), "simulated raters are checked beforehand"
    checks = world.state.batch("s0.a0.checks")
    assert checks is not None
    assert world.state.labels.checks == len(checks.labels) <= 10


# --- the audit that may refuse -------------------------------------------------------------------------------

AUDITED: dict[str, Any] = {"audit": {"evaluator": "people", "limit": 0.25, "labels": 40}}


def test_an_audit_that_may_refuse_waits_for_raters_and_then_for_the_auditor() -> None:
    world = World(settings_of(feedback={"rater": "people"}, gate=AUDITED), quality=lambda stage, attempt: 1.0)
    asked: list[tuple[Purpose, int, int]] = []

    def note(command: Command) -> bool:
        if isinstance(command, AskForLabels) and command.batch.purpose.judges:
            gate, audit = (world.state.batch(f"s0.a0.{queue}") for queue in ("gate", "audit"))
            assert gate is not None
            assert audit is not None
            asked.append((command.batch.purpose, gate.settled(1), audit.settled(1)))
        return isinstance(command, Note) and isinstance(command.body, ev.VerdictGiven)

    world.run(note)
    body = next_command(world.state, world.settings)
    assert isinstance(body, Note)
    assert isinstance(body.body, ev.VerdictGiven)
    decision = body.body.decision
    assert decision.verdict is Verdict.ADVANCE
    assert [panel.purpose for panel in decision.panels][-1] is Purpose.AUDIT
    order = [purpose for purpose, _, _ in asked]
    first_audit = order.index(Purpose.AUDIT)
    assert {*order[:first_audit]} == {Purpose.GATE, Purpose.DIRECTION, Purpose.PATH}
    assert {*order[first_audit:]} <= {Purpose.GATE, Purpose.AUDIT}
    assert all(audited < judged for purpose, judged, audited in asked if purpose is Purpose.AUDIT)
    assert all(audited >= judged for purpose, judged, audited in asked[first_audit:] if purpose is Purpose.GATE)


@pytest.mark.parametrize("limit", [None, 0.25])
def test_raters_whom_the_better_evaluator_contradicts_pass_nothing_where_there_is_a_limit(limit: float | None) -> None:
    """Raters prefer every candidate; the auditor none. Without a limit that is reported; with one it refuses."""

    def says(batch: Batch, item: int, rater: str) -> Choice | None:
        if not batch.purpose.judges:
            return None
        ours, theirs = (Choice.FIRST, Choice.SECOND) if batch.candidate_first[item] else (Choice.SECOND, Choice.FIRST)
        return theirs if rater == "gold" else ours

    world = run(rater_says=says, gate={"audit": {"limit": limit, "labels": 40}}, approval={"by": "gate"})
    attempt = world.state.attempts[0]
    verdict = verdict_of(world)
    assert attempt.attribution is not None
    assert attempt.attribution.raters is not None
    assert attempt.attribution.raters.mean == pytest.approx(1.0)
    if limit is None:
        assert (world.state.advances, world.state.labels.audit) == (2, 0)
        assert "audit" not in {test.name for test in verdict.tests}
    else:
        assert world.state.advances == 0
        assert (verdict.tests[-1].name, verdict.tests[-1].estimate, verdict.tests[-1].passed) == ("audit", 1.0, False)
        assert world.state.labels.audit > 0, "what may refuse is a cost"
        assert world.state.attempts[1].attribution is not None


def test_an_auditor_can_only_refuse() -> None:
    """Raters who dislike a candidate that the auditor prefers throughout refuse it."""

    def says(batch: Batch, item: int, rater: str) -> Choice | None:
        ours = Choice.FIRST if batch.candidate_first and batch.candidate_first[item] else Choice.SECOND
        return ours if rater == "gold" else None

    world = run(rater_says=says, quality=always_bad, gate={"audit": {"limit": 0.3}})
    assert world.state.advances == 0


def test_a_verdict_that_nobody_better_looks_at_says_so() -> None:
    without = run(gate={"audit": {"evaluator": "none"}})
    assert NOBODY_BETTER in verdict_of(without).notes
    assert not [batch for batch in without.state.batches if batch.purpose is Purpose.AUDIT]
    assert NOBODY_BETTER not in verdict_of(run()).notes


# --- creep ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("every", "older", "expected"),
    [
        (1, 2, {1: {"base"}, 2: {"base"}, 3: {"base", 1}, 4: {"base", 2}}),
        (2, 1, {2: {"base", 1}, 4: {"base", 3}}),
        (3, 4, {3: {"base"}}),
    ],
)
def test_creep_is_questioned_against_the_base_and_an_older_approval(
    every: int, older: int, expected: dict[int, set[Any]]
) -> None:
    """By stage: the base and the checkpoint of the n-th approval. So many approvals ago as lead to the base is none."""
    world = run(
        protocol={"stages": 5, "attempts": 1},
        gate={"creep": {"max_labels": 60, "every": every, "older": older}, "alpha": 0.8},
        approval={"by": "gate"},
    )
    assert world.state.advances == 5
    found: dict[int, set[Any]] = {}
    for batch in world.state.batches:
        if batch.purpose in (Purpose.CREEP_BASE, Purpose.CREEP_OLDER):
            assert batch.stage is not None
            at = [deployed.checkpoint for deployed in world.state.deployments].index(batch.opponent or "")
            assert (at == 0) is (batch.purpose is Purpose.CREEP_BASE)
            found.setdefault(batch.stage, set()).add(at or "base")
    assert found == expected


def test_what_beats_the_last_but_not_the_base_does_not_pass() -> None:
    """Each small loss too small to see: stage 1 beats stage 0's checkpoint, and loses to the base."""

    def says(batch: Batch, item: int, rater: str) -> Choice | None:
        if batch.purpose is not Purpose.CREEP_BASE:
            return None
        return Choice.SECOND if batch.candidate_first[item] else Choice.FIRST

    world = run(rater_says=says, approval={"by": "gate"})
    assert (world.state.advances, world.state.ended_by) == (1, EndedBy.ATTEMPTS_EXHAUSTED)
    refusal = verdict_of(world, 1)
    assert [test.name for test in refusal.tests if not test.passed] == ["creep_base"]
    assert "win rate against the base 0.000" in refusal.reasons[0]


# --- blame ---------------------------------------------------------------------------------------------------


def test_blame_by_hand() -> None:
    """Twenty-four items, all promised .9; raters prefer the candidate in 22, gold in the first twelve of the audited
    sixteen. Labels that all promise alike refine nothing: the reward model's part is .9 less 22/24 (to whatever item
    the gate stopped at); the raters' part is the raters' mean less gold's, refined by the raters' own mean."""

    def same_promise(body: EventBody) -> EventBody:
        judges = isinstance(body, ev.ComparisonsDrawn) and body.p_hat
        return changed(body, p_hat=(0.9,) * body.count) if judges else body  # type: ignore[attr-defined]

    def says(batch: Batch, item: int, rater: str) -> Choice | None:
        if not batch.purpose.judges:
            return None
        good = item < 12 if rater == "gold" else True
        return Choice.FIRST if good is batch.candidate_first[item] else Choice.SECOND

    world = run(amend=same_promise, rater_says=says, gate={"audit": {"labels": 16}, "over_promise_limit": 0.4})
    attempt = world.state.attempts[0]
    assert attempt.advanced
    blame = attempt.attribution
    assert blame is not None
    assert blame.reward_model is not None
    assert blame.raters is not None
    assert blame.over_credit is not None
    assert blame.reward_model.mean == pytest.approx(0.9 - 1.0)
    assert blame.raters.mean == pytest.approx(1.0 - 12 / 16)
    assert blame.over_credit.mean == pytest.approx(0.9 - 12 / 16)
    assert (blame.raters.items, blame.without_verdict, blame.off_distribution) == (16, 0, None)


def test_a_refusal_is_blamed_on_somebody_too_and_a_phase_that_failed_on_nobody() -> None:
    world = run(quality=mixed)
    for attempt in world.state.attempts:
        assert (attempt.attribution is None) is attempt.failed_phase
        if attempt.attribution is not None and attempt.attribution.raters is not None:
            audit = world.state.panel(attempt, Purpose.AUDIT)
            judged = next(panel.labels for panel in verdict_panels(attempt) if panel.purpose is Purpose.GATE)
            assert audit is not None
            assert len(audit.labels) == attempt.attribution.raters.items == min(30, judged)


def verdict_panels(attempt: Attempt) -> Any:
    assert attempt.verdict is not None
    return attempt.verdict.panels


# --- the alpha account ---------------------------------------------------------------------------------------


def test_the_alpha_account_goes_one_way() -> None:
    """A rejection, rollbacks, a failed phase, pauses and new controllers at every step, and a fold from the start."""
    says = {(0, 1): Decision.REJECT}
    world = World(
        settings_of(protocol={"attempts": 4}),
        quality=mixed,
        reviewer_says=lambda stage, attempt: says.get((stage, attempt), Decision.APPROVE),
    )
    spent: list[float] = []
    turn = 0
    while True:
        before = len(world.stored)
        command = world.run(lambda c: len(world.stored) > before + 5)  # noqa: B023  # called before the next turn
        if world.state.ended_by is not None:
            break
        assert command is not None
        world.append(ev.Paused(why="night"), f"paused.{turn}", person=True)
        world.append(ev.ControllerStarted(owner=str(turn)), f"controller.{turn}")
        world.append(ev.Resumed(), f"resumed.{turn}")
        world.state = fold(world.events)
        spent.append(world.state.alpha_spent)
        turn += 1
    assert turn > 5
    assert spent == sorted(spent)
    # Stage 0 opens three gates of .2/2/4; of the .125 left, stage 1 spends a fourth at each of two (one phase failed).
    assert world.state.alpha_spent == pytest.approx(3 * 0.025 + 2 * 0.125 / 4)
    assert [batch.alpha for batch in world.state.batches if batch.alpha is not None] == pytest.approx(
        [0.025] * 3 + [0.03125] * 2
    )


# --- wrong approvals -----------------------------------------------------------------------------------------


def wrongly_approved(seed: int, queue: Purpose) -> bool:
    """Whether a campaign of two stages approves anything although one null is true of every candidate: raters toss a
    coin over one kind of queue, and prefer the candidate in all others."""
    coin = random.Random(seed)

    def says(batch: Batch, item: int, rater: str) -> Choice | None:
        if not batch.purpose.judges or not batch.candidate_first:
            return None
        ours = Choice.FIRST if batch.candidate_first[item] else Choice.SECOND
        theirs = Choice.SECOND if batch.candidate_first[item] else Choice.FIRST
        return (ours if coin.random() < 0.5 else theirs) if batch.purpose is queue else ours

    small = {"direction": {"max_labels": 40, "best_of": 2}, "path": {"max_labels": 40}, "audit": {"labels": 5}}
    world = World(
        settings_of(
            seed=seed,
            gate={"min_labels": 5, "max_labels": 60, "labels_per_look": 20, "over_promise_limit": 0.6, **small},
            approval={"by": "gate"},
            evaluation={"prompts": 0},
            feedback={"initial_labels": 4, "labels_per_round": 0},
        ),
        quality=always_good,
        rater_says=says,
    )
    world.run()
    return world.state.advances > 0


@pytest.mark.parametrize("queue", [Purpose.GATE, Purpose.DIRECTION, Purpose.PATH])
def test_a_campaign_approves_wrongly_no_more_often_than_alpha(queue: Purpose) -> None:
    """A true null, exactly at its edge, in one kind of queue; alpha .2 for the whole campaign."""
    campaigns = 60
    wrong = sum(wrongly_approved(seed, queue) for seed in range(campaigns))
    assert wrong <= binom.ppf(0.999, campaigns, 0.2)


def test_a_candidate_no_better_is_approved_wrongly_no_more_often_than_alpha() -> None:
    """The world's own raters toss the coin over everything that they compare; every candidate is worth .5."""
    campaigns = 80
    wrong = 0
    for seed in range(campaigns):
        gate = {"min_labels": 5, "max_labels": 60, "labels_per_look": 20, "over_promise_limit": 0.9}
        alone = {"direction": None, "path": None, "creep": None}
        world = World(
            settings_of(seed=seed, gate={**gate, **alone, "audit": {"evaluator": "none"}}, approval={"by": "gate"}),
            quality=lambda stage, attempt: 0.5,
        )
        world.run()
        wrong += world.state.advances > 0
    assert wrong <= binom.ppf(0.999, campaigns, 0.2)
    assert wrong >= 1, "at so small a gate some pass: the test could fail"
