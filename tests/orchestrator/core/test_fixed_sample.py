"""Bounds of fixed samples against scipy's and by hand, their coverage, and that nobody peeks at them."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from orchestrator.core.fixed_sample import clopper_pearson_lower, wilson_lower
from orchestrator.core.gate import decide, judge
from orchestrator.core.questions import Panel, settle
from orchestrator.core.records import Purpose, Verdict
from orchestrator.core.settings import GateSettings, Method


def sample(wins: int, n: int) -> np.ndarray:
    return np.array([1.0] * wins + [0.0] * (n - wins))


@pytest.mark.parametrize("alpha", [0.003, 0.05, 0.3])
@pytest.mark.parametrize(("wins", "n"), [(0, 10), (1, 10), (6, 10), (10, 10), (233, 400), (400, 400)])
class TestAgainstScipy:
    def test_wilson(self, wins: int, n: int, alpha: float) -> None:
        found = binomtest(wins, n, alternative="greater").proportion_ci(1 - alpha, method="wilson")
        assert wilson_lower(sample(wins, n), alpha) == pytest.approx(found.low, abs=1e-12)

    def test_clopper_pearson(self, wins: int, n: int, alpha: float) -> None:
        found = binomtest(wins, n, alternative="greater").proportion_ci(1 - alpha, method="exact")
        assert clopper_pearson_lower(sample(wins, n), alpha) == pytest.approx(found.low, abs=1e-9)


def test_wilson_by_hand() -> None:
    # 8 of 10, z = 1.644854: centre .8 + 2.705543/20 = .9352772, root of .8·.2/10 + 2.705543/400 = .1508764,
    # so (.9352772 - 1.644854 · .1508764) / 1.2705543 = .5407925
    assert wilson_lower(sample(8, 10), 0.05) == pytest.approx(0.5407925, abs=1e-6)


def test_ten_wins_of_ten_by_hand() -> None:
    # The chance of ten wins is b^10, so the bound is alpha^(1/10).
    assert clopper_pearson_lower(sample(10, 10), 0.05) == pytest.approx(0.05**0.1)


def test_a_tie_is_half_a_win_to_wilson_and_a_loss_to_clopper_and_pearson() -> None:
    tied = np.array([1.0, 0.5, 0.5, 0.0])
    assert wilson_lower(tied, 0.1) == pytest.approx(wilson_lower(sample(2, 4), 0.1))
    assert clopper_pearson_lower(tied, 0.1) == pytest.approx(clopper_pearson_lower(sample(1, 4), 0.1))


@pytest.mark.parametrize("bound", [wilson_lower, clopper_pearson_lower])
def test_nothing_is_known_of_no_labels(bound: Callable[[np.ndarray, float], float]) -> None:
    assert bound(np.array([]), 0.05) == 0.0


@pytest.mark.parametrize("spread", [0.0, 0.2, 0.39])
@pytest.mark.parametrize("ties", [0.0, 0.3])
def test_coverage_where_items_differ(spread: float, ties: float) -> None:
    """Half the items are won with probability .55 + spread, half with .55 - spread: the bounds are of their average."""
    n, alpha, trials = 80, 0.1, 1500
    rng = np.random.default_rng(0)
    chance_N = np.where(np.arange(n) % 2, 0.55 + spread, 0.55 - spread)
    z_TN = (rng.random((trials, n)) < chance_N).astype(float)
    z_TN[rng.random((trials, n)) < ties] = 0.5
    mean = (1 - ties) * 0.55 + ties / 2
    for bound, slack in ((wilson_lower, 0.02), (clopper_pearson_lower, 0.0)):
        wrong = sum(bound(z_N, alpha) > mean for z_N in z_TN)
        # Wilson's level is approximate: at a few lattice points of n = 80 it errs by up to two points.
        assert wrong <= binom.ppf(0.9999, trials, alpha + slack)


@pytest.mark.parametrize("method", [Method.WILSON, Method.CLOPPER_PEARSON])
class TestNobodyPeeks:
    def test_nothing_is_told_before_the_last_label(self, method: Method) -> None:
        settings = GateSettings(method=method, max_labels=60)
        panel = Panel(Purpose.GATE, 60, [1.0] * 59, [0.6] * 60)
        found = judge((panel,), alpha=0.05, settings=settings)
        assert found.verdict is Verdict.WAIT
        assert (found.tests, found.win_rate, found.win_rate_low, found.over_promise) == ((), None, None, None)
        assert "59 of at most 60" in found.reasons[0]

    def test_at_the_last_label_it_is_decided_by_the_bounds(self, method: Method) -> None:
        settings = GateSettings(method=method, max_labels=60)
        z = [1.0] * 45 + [0.0] * 15
        promised = [0.62] * 60
        found = decide(promised, z, alpha=0.05, settings=settings)
        name = {Method.WILSON: "wilson", Method.CLOPPER_PEARSON: "exact"}[method]
        low = binomtest(45, 60, alternative="greater").proportion_ci(0.95, method=name).low
        assert found.verdict is Verdict.ADVANCE
        assert found.win_rate_low == pytest.approx(low)
        # An over-promise is a bet, richest at some label: 45 wins, then losses, each of p = .62 against a mean of -.15.
        stake = min(math.sqrt(13.3 * math.log(20) / 60), 0.9 / 0.85)
        assert found.tests[1].log_e_value == pytest.approx(45 * math.log1p(stake * (1 - 0.62 + 0.15)))
        assert found.over_promise_high is not None
        assert found.over_promise_high < 0.15
        assert decide([0.95] * 60, [1.0, 1.0, 1.0, 0.0] * 15, alpha=0.05, settings=settings).verdict is Verdict.ROLLBACK

    def test_a_lost_cause_is_taken_to_its_end(self, method: Method) -> None:
        settings = GateSettings(method=method, max_labels=200)
        early = decide([0.6] * 200, [0.0] * 150, alpha=0.05, settings=settings)
        late = decide([0.6] * 200, [0.0] * 200, alpha=0.05, settings=settings)
        assert (early.verdict, late.verdict, late.labels) == (Verdict.WAIT, Verdict.ROLLBACK, 200)


def test_wilson_peeked_at_errs_and_the_bet_does_not() -> None:
    """Every 20 labels from 40 to 1,000, on fair coins: why a fixed sample is looked at once."""
    trials, alpha, looks = 200, 0.05, range(40, 1001, 20)
    z_TN = (np.random.default_rng(0).random((trials, 1000)) < 0.5).astype(float)
    peeked = sum(any(wilson_lower(z_N[:n], alpha) > 0.5 for n in looks) for z_N in z_TN)
    exactly = _peeked_exactly(alpha, looks)
    assert exactly == pytest.approx(0.243, abs=0.001)
    assert binomtest(peeked, trials, exactly).pvalue > 1e-3
    bet = math.sqrt(13.3 * math.log(1 / alpha) / 1000)
    richest_T = np.cumsum(np.log1p(bet * (z_TN - 0.5)), axis=1).max(axis=1)
    assert (richest_T >= math.log(1 / alpha)).sum() <= binom.ppf(0.9999, trials, alpha)


def _peeked_exactly(alpha: float, looks: range) -> float:
    """Probability of passing at any look, every path counted by its wins; the bound is scipy's."""
    chance_W, passed = np.ones(1), 0.0
    for n in range(1, looks.stop):
        chance_W = np.convolve(chance_W, [0.5, 0.5])
        if n in looks:
            # The fewest wins with which the bound lies above one half, by bisection.
            low, high = n // 2, n
            while high - low > 1:
                middle = (low + high) // 2
                bound = binomtest(middle, n, alternative="greater").proportion_ci(1 - alpha, method="wilson").low
                low, high = (low, middle) if bound > 0.5 else (middle, high)
            passed += float(chance_W[high:].sum())
            chance_W[high:] = 0.0
    return passed


@pytest.mark.parametrize("method", [Method.WILSON, Method.CLOPPER_PEARSON])
@pytest.mark.parametrize("purpose", [Purpose.GATE, Purpose.AUDIT])
def test_promises_that_vary_do_not_pass_more_often_than_alpha(method: Method, purpose: Purpose) -> None:
    """Over-promise exactly at the limit, on promises of .25 and 1 at random: a bound on outcomes alone passes .09."""
    trials, n, alpha, limit = 400, 100, 0.05, 0.15
    settings = GateSettings(method=method, max_labels=n, over_promise_limit=limit, audit={"limit": limit, "labels": n})
    dice = np.random.default_rng(1)
    passed = 0
    for _ in range(trials):
        p_N = dice.choice([0.25, 1.0], n) if purpose is Purpose.GATE else (dice.random(n) < 0.625).astype(float)
        z_N = (dice.random(n) < 0.625 - limit).astype(float)
        settled = settle(Panel(purpose, n, z_N.tolist(), p_N.tolist()), alpha=alpha, settings=settings)
        (test,) = [test for test in settled.results() if test.name in ("over_promise", "audit")]
        passed += test.passed
    assert passed <= binom.ppf(0.999, trials, alpha)
