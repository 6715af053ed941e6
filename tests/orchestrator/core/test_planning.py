"""Planning: worlds with the rates that they claim, and the gate's own code, budget and error rate underneath."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from orchestrator.core import planning
from orchestrator.core.gate import decide
from orchestrator.core.planning import Plan, Power, Share, Truth, always
from orchestrator.core.records import Purpose, Verdict
from orchestrator.core.settings import GateSettings
from orchestrator.core.worlds import (
    BetaWorld,
    ImpossibleWorldError,
    Predictions,
    World,
    gate_world,
    over_confident_world,
    spread_of,
)

STRICT = GateSettings(over_promise_limit=0.10)
TWO_TESTS = frozenset({"improvement", "over_promise"})
"""What the simulations that fixed the defaults asked."""


def most(trials: int, alpha: float) -> float:
    """Passes beyond which a true rate of at most alpha is refuted at 1 in 10,000."""
    return float(binom.ppf(0.9999, trials, alpha))


class TestWorlds:
    @pytest.mark.parametrize(
        "world",
        [
            gate_world(0.5, 0.0),
            gate_world(0.65, 0.03, ties=0.3),
            gate_world(0.85, 0.15),
            gate_world(0.97, 0.03, accuracy=0.9),
            gate_world(0.15, -0.1),
            gate_world(0.7, 0.1, Predictions.UNINFORMATIVE, ties=0.1),
            gate_world(0.4, None, Predictions.HALF),
            gate_world(0.0, 0.3),
            over_confident_world(0.6, 0.0, 0.15, 1.5),
            BetaWorld(0.57, 0.03),
            BetaWorld(0.35, 0.25),
            BetaWorld(0.62, -0.3),
        ],
        ids=str,
    )
    def test_rates_are_what_they_claim(self, world: World) -> None:
        """Within five standard errors of many labels: a clipped tail would show."""
        drawn = world.draw(np.random.default_rng(0), 400_000)
        over_N = drawn.p_hat_N - drawn.z_N
        top_N = over_N[np.argsort(-drawn.p_hat_N, kind="stable")[:200_000]]
        assert drawn.p_hat_N.min() >= 0
        assert drawn.p_hat_N.max() <= 1
        assert set(np.unique(drawn.z_N)) <= {0.0, 0.5, 1.0}
        assert drawn.z_N.mean() == pytest.approx(world.win_rate, abs=0.004)
        assert over_N.mean() == pytest.approx(world.over_promise, abs=0.004)
        assert top_N.mean() == pytest.approx(world.top_half_over_promise, abs=0.0056)

    def test_informative_predictions_are_calibrated(self) -> None:
        drawn = gate_world(0.6, 0.0, ties=0.2).draw(np.random.default_rng(0), 400_000)
        for low in (0.3, 0.5, 0.7):
            there = (drawn.p_hat_N >= low) & (drawn.p_hat_N < low + 0.05)
            assert drawn.z_N[there].mean() == pytest.approx(drawn.p_hat_N[there].mean(), abs=0.02)

    def test_uninformative_predictions_know_nothing(self) -> None:
        drawn = gate_world(0.6, 0.0, Predictions.UNINFORMATIVE).draw(np.random.default_rng(0), 400_000)
        assert drawn.p_hat_N.std() > 0.15
        assert abs(np.corrcoef(drawn.p_hat_N, drawn.z_N)[0, 1]) < 0.01

    @pytest.mark.parametrize("accuracy", [0.5, 0.65, 0.9])
    def test_the_reward_model_is_as_accurate_as_asked(self, accuracy: float) -> None:
        drawn = gate_world(0.5, 0.0, accuracy=accuracy).draw(np.random.default_rng(0), 400_000)
        right = (drawn.p_hat_N > 0.5) == (drawn.z_N == 1.0)
        assert right.mean() == pytest.approx(accuracy, abs=0.005)

    def test_unbiased_beta_predictions_are_beta_3_2(self) -> None:
        p_N = BetaWorld(0.6, 0.0).draw(np.random.default_rng(0), 400_000).p_hat_N
        assert (p_N.mean(), p_N.var()) == (pytest.approx(0.6, abs=0.002), pytest.approx(0.04, abs=0.001))

    @pytest.mark.parametrize(
        ("win_rate", "over_promise", "predictions", "said"),
        [
            (1.1, 0.0, "informative", "win rate of 1.1 cannot be; give one from 0 to 1"),
            (0.95, 0.1, "informative", "predictions of 1.05 on average.*lower one"),
            (0.05, -0.1, "uninformative", "predictions of -0.05 on average.*raise one"),
            (0.65, 0.1, "half", "win rate of 0.65 by -0.15.*leave the over-promise out"),
            (math.nan, 0.0, "informative", "cannot be"),
        ],
    )
    def test_what_cannot_be_is_refused(self, win_rate: float, over_promise: float, predictions: str, said: str) -> None:
        with pytest.raises(ImpossibleWorldError, match=said):
            gate_world(win_rate, over_promise, Predictions(predictions))

    def test_ties_narrow_what_can_be(self) -> None:
        with pytest.raises(ImpossibleWorldError, match=r"with 0.4 of ties, from 0.2 to 0.8"):
            gate_world(0.85, 0.0, ties=0.4)

    def test_accuracies_that_cannot_be(self) -> None:
        with pytest.raises(ImpossibleWorldError, match=r"from 0\.5 to 0\.95"):
            spread_of(0.4)

    def test_a_top_half_out_of_reach(self) -> None:
        with pytest.raises(ImpossibleWorldError, match="raise the spread"):
            over_confident_world(0.6, 0.0, 0.4, 0.5)

    def test_other_queues_have_rates_too(self) -> None:
        with pytest.raises(ImpossibleWorldError, match="wrong reward of 2"):
            Truth(gate_world(0.6), wrong_reward=2.0)
        with pytest.raises(ImpossibleWorldError, match="nearer to 0"):
            Truth(gate_world(0.6), audit_excess=0.7)


class TestAttempts:
    @pytest.mark.parametrize("win_rate", [0.5, 0.6, 0.75])
    def test_the_verdict_is_that_of_the_gate(self, win_rate: float) -> None:
        world = gate_world(win_rate, 0.05)
        plan = Plan(STRICT, 0.02)
        passes = 0
        for seed in range(40):
            drawn = world.draw(np.random.default_rng(seed), STRICT.max_labels)
            verdict = decide(drawn.p_hat_N.tolist(), drawn.z_N.tolist(), alpha=0.02, settings=STRICT)
            (found,) = planning.simulate(always(Truth(world)), plan, np.random.default_rng(seed)).attempts
            assert (found.passed, found.labels) == (verdict.verdict is Verdict.ADVANCE, verdict.labels)
            passes += found.passed
        assert passes > 0 if win_rate > 0.7 else passes < 40

    @pytest.mark.parametrize("win_rate", [0.55, 0.62])
    def test_power_of_the_win_rate_test_is_exact_by_counting_paths(self, win_rate: float) -> None:
        """The fortune depends on wins alone, so every path can be counted: wins so far, until passed or given up."""
        cap, alpha, trials = 120, 0.05, 2000
        bet = min(math.sqrt(13.3 * math.log(1 / alpha) / cap), 1.8)
        alive, passed_by = {0: 1.0}, []
        passed = 0.0
        for n in range(1, cap + 1):
            coming: dict[int, float] = {}
            for wins, mass in alive.items():
                coming[wins + 1] = coming.get(wins + 1, 0.0) + mass * win_rate
                coming[wins] = coming.get(wins, 0.0) + mass * (1 - win_rate)
            alive = {}
            for wins, mass in coming.items():
                if (1 + bet / 2) ** wins * (1 - bet / 2) ** (n - wins) >= 1 / alpha:
                    passed += mass
                elif n in (80, 100) and _hopeless(wins - n / 2, n, cap, alpha):
                    continue
                else:
                    alive[wins] = mass
            passed_by.append(passed)
        settings = GateSettings(min_labels=1, max_labels=cap)
        plan = Plan(settings, alpha, tests=frozenset({"improvement"}))
        found = planning.power(Truth(gate_world(win_rate)), plan, trials=trials, rng=np.random.default_rng(0))
        for n in (40, 80, cap):
            count = int((found.needed_T <= n).sum())
            assert binomtest(count, trials, passed_by[n - 1]).pvalue > 1e-4

    def test_a_test_alone_passes_more_often_than_all_together(self) -> None:
        truth, trials = Truth(gate_world(0.6, 0.05)), 300

        def rate(*names: str) -> float:
            plan = Plan(GateSettings(), 0.02, tests=frozenset(names))
            return planning.power(truth, plan, trials=trials, rng=np.random.default_rng(0)).passed.value

        alone = [rate(name) for name in planning.GATE_TESTS]
        assert rate(*planning.GATE_TESTS) < min(alone)
        assert rate(*TWO_TESTS) < min(alone[:2])

    def test_further_queues_are_asked_in_turn_and_counted(self) -> None:
        good = gate_world(0.9, -0.2)
        truth = Truth(good, good, wrong_reward=0.1, creep_win_rate=0.9)
        settings, alpha = GateSettings(), 0.01

        def first(truth: Truth) -> planning.Attempted:
            return planning.simulate(always(truth), Plan(settings, alpha), np.random.default_rng(3)).attempts[0]

        alone, all_four = first(Truth(good)), first(truth)
        assert alone.passed
        assert all_four.passed
        assert all_four.labels > alone.labels + 3 * 5
        refused = {
            Purpose.GATE: replace(truth, gate=gate_world(0.3, 0.0)),
            Purpose.DIRECTION: replace(truth, direction=gate_world(0.3, 0.0)),
            Purpose.PATH: replace(truth, wrong_reward=0.9),
            Purpose.CREEP_BASE: replace(truth, creep_win_rate=0.2),
        }
        for purpose, bad in refused.items():
            found = first(bad)
            assert (found.passed, found.refused_by) == (False, purpose)
            assert found.true_nulls == bad.true_nulls(settings)

    def test_the_audit_refuses_raters_who_favour_the_candidate(self) -> None:
        settings = GateSettings.model_validate({"audit": {"limit": 0.2}})
        plan = Plan(settings, 0.05)

        def rate(excess: float) -> float:
            truth = Truth(gate_world(0.8, -0.1), audit_excess=excess)
            return planning.power(truth, plan, trials=200, rng=np.random.default_rng(0)).passed.value

        assert rate(0.2) * 200 <= most(200, 0.05)
        assert rate(0.0) > 0.8
        assert rate(-0.1) > rate(0.05)


class TestErrorRate:
    @pytest.mark.parametrize(
        "world",
        [
            gate_world(0.5, 0.0),
            gate_world(0.5, 0.0, Predictions.UNINFORMATIVE),
            gate_world(0.5, None, Predictions.HALF),
            gate_world(0.4, 0.1, Predictions.HALF),
            gate_world(0.65, 0.1),
            gate_world(0.85, 0.1),
            gate_world(0.85, 0.1, Predictions.UNINFORMATIVE),
            over_confident_world(0.7, 0.0, 0.1, 1.5),
        ],
        ids=str,
    )
    def test_a_stage_of_five_attempts_passes_a_true_null_at_most_alpha_often(self, world: World) -> None:
        plan, trials = Plan(STRICT, 0.05, attempts=5), 200
        truth = Truth(world)
        assert truth.true_nulls(STRICT)
        rng = np.random.default_rng(0)
        passes = sum(planning.simulate(always(truth), plan, rng).advances for _ in range(trials))
        assert passes <= most(trials, 0.05)

    def test_campaigns_under_an_adversary_approve_wrongly_at_most_alpha_often(self) -> None:
        """Eight kinds of nulls take turns over twenty attempts, so that the whole budget is spent."""
        rng, trials = np.random.default_rng(0), 80
        plan = Plan(GateSettings(), 0.2, stages=4, attempts=5, press_on=True)
        lineages = [planning.simulate(planning.adversary(plan, rng), plan, rng) for _ in range(trials)]
        told = {null for lineage in lineages for attempted in lineage.attempts for null in attempted.true_nulls}
        assert told >= {"improvement", "over_promise", "over_promise_top_half", "direction", "direction_over_promise"}
        assert told >= {"wrong_reward", "creep_base"}
        assert all(attempted.true_nulls for lineage in lineages for attempted in lineage.attempts)
        wrong = sum(lineage.wrong for lineage in lineages)
        assert 0 < wrong <= most(trials, 0.2)


class TestCampaigns:
    def test_budgets_carry_over_by_hand(self) -> None:
        # .12 / 3 / 2 = .02; one spent: .10 / 2 / 2 = .025; one spent: .075 / 1 / 2 = .0375
        plan = Plan(GateSettings(), 0.12, stages=3, attempts=2)
        sure = always(Truth(gate_world(1.0, -0.4)))
        found = planning.simulate(sure, plan, np.random.default_rng(0))
        assert [attempted.alpha for attempted in found.attempts] == pytest.approx([0.02, 0.025, 0.0375])
        assert found.advances == 3

    @pytest.mark.parametrize(("press_on", "attempts"), [(False, 2), (True, 6)])
    def test_a_stage_without_a_pass_ends_the_campaign(self, press_on: bool, attempts: int) -> None:
        plan = Plan(GateSettings(), 0.12, stages=3, attempts=2, press_on=press_on)
        found = planning.simulate(always(Truth(gate_world(0.2, 0.0))), plan, np.random.default_rng(0))
        assert len(found.attempts) == attempts
        assert sum(attempted.alpha for attempted in found.attempts) == pytest.approx(0.02 * attempts)

    def test_candidates_see_their_place(self) -> None:
        places = []

        def candidates(rng: np.random.Generator, stage: int, attempt: int) -> Truth:
            places.append((stage, attempt))
            return Truth(gate_world(0.95, -0.3) if attempt == 1 else gate_world(0.2, 0.0))

        planning.simulate(candidates, Plan(GateSettings(), 0.1, stages=2, attempts=3), np.random.default_rng(0))
        assert places == [(0, 0), (0, 1), (1, 0), (1, 1)]

    def test_the_simulation_that_fixed_the_defaults_is_found_again(self) -> None:
        """57% of stages advanced within two attempts, 95% within five, 180 labels an attempt (science of the gate)."""
        plan = Plan(GateSettings(), 0.10, stages=4, attempts=5, tests=TWO_TESTS)
        rng = np.random.default_rng(0)
        lineages = [planning.simulate(planning.reference_candidates, plan, rng) for _ in range(120)]
        found = planning.summarise(lineages, plan)
        assert found.advanced_within(2).value == pytest.approx(0.57, abs=0.08)
        assert found.advanced_within(5).value == pytest.approx(0.95, abs=0.05)
        assert found.labels_per_attempt == pytest.approx(180, rel=0.05)


class TestFigures:
    @pytest.mark.parametrize(("count", "trials"), [(0, 50), (7, 50), (50, 50), (250, 5000)])
    def test_intervals_are_clopper_and_pearsons(self, count: int, trials: int) -> None:
        exact = binomtest(count, trials).proportion_ci(0.95, method="exact")
        share = Share(count, trials)
        assert (share.low, share.value, share.high) == pytest.approx((exact.low, count / trials, exact.high))

    def test_who_never_passes_needs_more_labels_than_there_are(self) -> None:
        power = Power(np.array([30.0, 10.0, np.inf, 20.0, np.inf]), np.array([30.0, 10.0, 90.0, 20.0, 80.0]))
        assert power.passed == Share(3, 5)
        assert (power.needed(0.2), power.needed(0.5), power.needed(0.6), power.needed(0.8)) == (10, 30, 30, None)

    def test_outcomes_by_hand(self) -> None:
        def attempted(stage: int, attempt: int, passed: bool, labels: int, *nulls: str) -> planning.Attempted:
            return planning.Attempted(stage, attempt, 0.01, passed, labels, None if passed else Purpose.GATE, nulls)

        both = planning.Lineage((attempted(0, 0, True, 100), attempted(1, 0, False, 50), attempted(1, 1, True, 60)))
        neither = planning.Lineage((attempted(0, 0, False, 10, "improvement"), attempted(0, 1, False, 20)))
        wrong = planning.Lineage((attempted(0, 0, True, 40, "improvement"), attempted(1, 0, True, 40)))
        found = planning.summarise([both, neither, wrong], Plan(GateSettings(), 0.1, stages=2, attempts=2))
        assert (found.passed, found.wrong) == (Share(2, 3), Share(1, 3))
        assert (found.advanced_within(1), found.advanced_within(2)) == (Share(3, 5), Share(4, 5))
        assert (found.advanced_at(0), found.advanced_at(1)) == (Share(3, 5), Share(1, 5))
        assert (found.labels(0.5), found.labels(0.8)) == (80, 210)
        assert found.labels_by_end() == ([210, 80], [30])
        assert found.labels_per_advance == 320 / 4
        assert found.labels_per_attempt == 320 / 7

    def test_nulls_at_their_edges(self) -> None:
        settings = GateSettings()
        assert Truth(gate_world(0.5, 0.0)).true_nulls(settings) == ("improvement",)
        assert Truth(gate_world(0.5, 0.0)).true_nulls(settings, hold=True) == ()
        assert Truth(gate_world(0.47, 0.0)).true_nulls(settings, hold=True) == ("improvement",)
        assert Truth(gate_world(0.6, 0.15)).true_nulls(settings) == ("over_promise",)
        assert Truth(over_confident_world(0.6, 0.0, 0.15, 1.5)).true_nulls(settings) == ("over_promise_top_half",)


class TestAims:
    def test_the_win_rate_needed_lets_four_of_five_pass(self) -> None:
        plan = Plan(GateSettings(max_labels=200), 0.05)
        found = planning.win_rate_needed(
            lambda win_rate: Truth(gate_world(win_rate, 0.0)), plan, highest=1.0, trials=250, seed=0
        )
        assert found is not None

        def rate(win_rate: float) -> float:
            return planning.power(
                Truth(gate_world(win_rate, 0.0)), plan, trials=400, rng=np.random.default_rng(9)
            ).passed.value

        assert rate(found) == pytest.approx(0.8, abs=0.09)
        assert rate(found - 0.03) < 0.75

    def test_no_win_rate_makes_up_for_over_promising(self) -> None:
        plan = Plan(GateSettings(), 0.05)
        found = planning.win_rate_needed(
            lambda win_rate: Truth(gate_world(win_rate, 0.15)), plan, highest=0.85, trials=100, seed=0
        )
        assert found is None

    def test_the_labels_needed_let_four_of_five_pass(self) -> None:
        truth, plan = Truth(gate_world(0.6, 0.0)), Plan(GateSettings(max_labels=100), 0.05)
        found = planning.max_labels_needed(truth, plan, trials=200, seed=0)
        assert found is not None

        def rate(max_labels: int) -> float:
            wider = replace(plan, settings=planning.with_max_labels(plan.settings, max_labels))
            return planning.power(truth, wider, trials=400, rng=np.random.default_rng(9)).passed.value

        assert rate(found) == pytest.approx(0.8, abs=0.09)
        assert rate(found * 2 // 3) < 0.75

    def test_a_true_null_needs_more_labels_than_any(self) -> None:
        plan = Plan(GateSettings(), 0.05)
        assert planning.max_labels_needed(Truth(gate_world(0.5, 0.0)), plan, trials=10, seed=0) is None

    def test_steps_in_proportion_to_log_odds(self) -> None:
        # odds .6 : .4 = 1.5 after 40 steps; 9 : 4 = 1.5² after 80
        assert planning.steps_needed(40, 0.6, 9 / 13 - 1e-9) == 80

    @pytest.mark.parametrize("reached", [0.5, 0.4, 1.0])
    def test_a_phase_that_got_nowhere_tells_nothing(self, reached: float) -> None:
        with pytest.raises(ImpossibleWorldError, match="give one between"):
            planning.steps_needed(40, reached, 0.65)


def _hopeless(gain: float, seen: int, cap: int, alpha: float) -> bool:
    left = cap - seen
    return (math.sqrt(cap * math.log(1 / alpha) / 2) - gain) / left > gain / seen + math.sqrt(1 / seen + 1 / left)
