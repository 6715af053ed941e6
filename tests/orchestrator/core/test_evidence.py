"""The betting evidence against hand arithmetic, and its guarantee by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from orchestrator.core import evidence


def test_bet_follows_the_formula_of_the_larger_simulation() -> None:
    # sqrt(13.3 * ln(20) / 400) = sqrt(13.3 * 2.995732 / 400) = sqrt(0.0996081) = 0.315607
    assert evidence.bet_fraction(0.05, 400, 0.5) == pytest.approx(0.315607, abs=1e-6)


def test_bet_never_risks_more_than_nine_tenths_of_the_fortune() -> None:
    # sqrt(13.3 * ln(1000) / 4) = 4.79 would lose more than everything; 0.9 / 0.5 = 1.8 loses 0.9
    assert evidence.bet_fraction(0.001, 4, 0.5) == pytest.approx(1.8)


def test_fortune_of_three_observations_by_hand() -> None:
    # bet 1, null 1/2: win * 1.5, loss * 0.5, tie * 1  ->  1.5, 0.75, 0.75
    log_fortune = evidence.log_fortune(evidence.as_array([1.0, 0.0, 0.5]), 0.5, 1.0)
    assert np.exp(log_fortune) == pytest.approx([1.5, 0.75, 0.75])


def test_lower_bound_knows_nothing_before_the_first_observation() -> None:
    assert evidence.lower_confidence_bound(evidence.as_array([]), 0.05, 100, lower=-1.0, upper=1.0) == -1.0


@given(
    observations=st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=60),
    alpha=st.sampled_from([0.01, 0.05, 0.3]),
)
def test_lower_bound_lies_where_brute_force_stops_refuting(observations: list[float], alpha: float) -> None:
    """Every mean of the grid is bet against in plain Python, one product at a time."""
    cap, refuted = 60, [0.0]
    for step in range(1, 400):
        mean = step / 400
        bet = min(math.sqrt(13.3 * math.log(1 / alpha) / cap), 0.9 / mean)
        fortune = best = 1.0
        for x in observations:
            fortune *= 1 + bet * (x - mean)
            best = max(best, fortune)
        if best >= 1 / alpha:
            refuted.append(mean)
    bound = evidence.lower_confidence_bound(evidence.as_array(observations), alpha, cap, lower=0.0, upper=1.0)
    assert max(refuted) - 1e-6 <= bound <= max(refuted) + 1 / 400


@given(
    observations=st.lists(st.floats(-1, 1, allow_nan=False), min_size=2, max_size=50),
    at=st.integers(1, 49),
)
def test_lower_bound_never_falls_as_observations_come(observations: list[float], at: int) -> None:
    def bound(x: list[float]) -> float:
        return evidence.lower_confidence_bound(evidence.as_array(x), 0.1, 50, lower=-1.0, upper=1.0)

    assert bound(observations[:at]) <= bound(observations)


@pytest.mark.parametrize("mean", [0.5, 0.65, 0.9])
def test_lower_bound_covers_the_truth_at_all_times(mean: float) -> None:
    """The bound only ever rises, so its last value tells whether it was wrong at any time."""
    paths, cap, alpha = 1500, 100, 0.1
    draws_PN = (np.random.default_rng(0).random((paths, cap)) < mean).astype(float)
    wrong = sum(evidence.lower_confidence_bound(x_N, alpha, cap, lower=0.0, upper=1.0) > mean for x_N in draws_PN)
    assert wrong <= binom.ppf(0.9999, paths, alpha)
    assert wrong >= paths * alpha / 20, "the bound is so loose that it says nothing"


@pytest.mark.parametrize(
    ("gain_sum", "futile"),
    [
        # cap 400, alpha .05, seen 100: aim sqrt(400 * 2.995732 / 2) = 24.477, hope S/100 + sqrt(1/100 + 1/300)
        # = S/100 + .11547, need (24.477 - S)/300. They meet at S = (24.477/300 - .11547)/(1/100 + 1/300) = -2.541
        (-2.50, False),
        (-2.58, True),
    ],
)
def test_futility_by_hand(gain_sum: float, futile: bool) -> None:
    assert evidence.is_futile(gain_sum, 100, 400, 0.05) is futile


def test_nothing_left_is_futile() -> None:
    assert evidence.is_futile(1000.0, 400, 400, 0.05)
