"""Accuracy, intervals and calibration slopes against hand arithmetic and brute force."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest

from policies.calibration import (
    Interval,
    accuracy,
    calibration_slope,
    cross_fitted_logits,
    wilson_interval,
)


def test_accuracy_leaves_ties_out_and_counts_indecision_half() -> None:
    logit = np.array([1.0, -2.0, 0.3, 0.0, 5.0])
    target = np.array([1.0, 1.0, 0.0, 1.0, 0.5])
    # Right, wrong, wrong, undecided; the tie does not count.
    assert accuracy(logit, target) == pytest.approx(1.5 / 4)
    assert math.isnan(accuracy(np.array([1.0]), np.array([0.5])))


def test_a_majority_of_raters_is_a_side() -> None:
    assert accuracy(np.array([1.0, 1.0]), np.array([2 / 3, 1 / 3])) == pytest.approx(0.5)


def test_accuracy_does_not_care_which_response_comes_first() -> None:
    logit, target = np.array([1.0, -2.0, 0.0]), np.array([1.0, 1.0, 0.0])
    assert accuracy(-logit, 1 - target) == accuracy(logit, target)


def test_wilson_interval_by_hand() -> None:
    # 8 of 10 at z = 1.959964: centre (.8 + .192073) / 1.384146 = .716740,
    # half-width 1.959964 · sqrt(.016 + .0096037) / 1.384146 = .226577.
    found = wilson_interval(0.8, 10)
    assert (found.low, found.high) == pytest.approx((0.490162, 0.943318), abs=2e-6)


@pytest.mark.parametrize(("right", "count"), [(0, 7), (7, 7), (130, 200)])
def test_wilson_interval_is_scipys(right: int, count: int) -> None:
    expected = binomtest(right, count).proportion_ci(0.9, method="wilson")
    found = wilson_interval(right / count, count, 0.9)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_nothing_seen_is_nothing_known() -> None:
    assert wilson_interval(math.nan, 0) == Interval(0.0, 1.0)


def test_slope_by_hand() -> None:
    # 3 of 4 prefer what is predicted at logit 2: sigmoid(2b) = 3/4, so b = ln 3 / 2. Residuals 1/4 three times and
    # 3/4 once, each times 2: sqrt(3 · 1/4 + 9/4) = sqrt 3. Information: 4 · 4 · 3/16 = 3.
    found = calibration_slope(np.full(4, 2.0), np.array([1.0, 1.0, 1.0, 0.0]))
    assert found.value == pytest.approx(math.log(3.0) / 2)
    assert found.standard_error == pytest.approx(math.sqrt(3.0) / 3.0)


def test_slope_and_its_error_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    logit = rng.normal(size=200) * 2
    target = rng.choice([0.0, 0.5, 1.0], size=200, p=[0.3, 0.2, 0.5])

    def likelihoods(slope: float) -> np.ndarray:
        p = 1 / (1 + np.exp(-slope * logit))
        return target * np.log(p) + (1 - target) * np.log(1 - p)

    best = minimize_scalar(lambda slope: -likelihoods(slope).sum(), bounds=(-5, 5), method="bounded")
    found = calibration_slope(logit, target)
    assert found.value == pytest.approx(best.x, abs=1e-4)
    # Scores and curvature by finite differences of each label's likelihood.
    step, at = 1e-4, found.value
    score = (likelihoods(at + step) - likelihoods(at - step)) / (2 * step)
    curvature = (likelihoods(at + step) - 2 * likelihoods(at) + likelihoods(at - step)).sum() / step**2
    assert found.standard_error == pytest.approx(math.sqrt((score**2).sum()) / -curvature, rel=1e-4)


def test_slopes_standard_error_is_how_slopes_scatter() -> None:
    rng = np.random.default_rng(1)
    logit = rng.normal(size=400)
    p = 1 / (1 + np.exp(-0.7 * logit))
    found = [calibration_slope(logit, (rng.random(400) < p).astype(float)) for _ in range(300)]
    values = [slope.value for slope in found]
    assert np.mean(values) == pytest.approx(0.7, abs=0.03)
    assert np.std(values) == pytest.approx(np.mean([slope.standard_error for slope in found]), rel=0.15)


def test_slope_does_not_care_which_response_comes_first() -> None:
    logit, target = np.array([1.0, -2.0, 0.5, 3.0]), np.array([1.0, 1.0, 0.5, 1.0])
    flip = np.array([True, False, True, False])
    swapped = calibration_slope(np.where(flip, -logit, logit), np.where(flip, 1 - target, target))
    assert swapped.value == pytest.approx(calibration_slope(logit, target).value)


def test_contradiction_has_a_negative_slope() -> None:
    assert calibration_slope(np.full(4, 2.0), np.array([0.0, 0.0, 0.0, 1.0])).value == pytest.approx(-math.log(3.0) / 2)


def test_slopes_without_bound_and_without_predictions_say_so() -> None:
    right = calibration_slope(np.array([1.0, -1.0]), np.array([1.0, 0.0]))
    wrong = calibration_slope(np.array([1.0, -1.0]), np.array([0.0, 1.0]))
    assert (right.value, wrong.value) == pytest.approx((math.exp(4), -math.exp(4)))
    assert right.standard_error == wrong.standard_error == math.inf
    assert math.isnan(calibration_slope(np.zeros(3), np.array([1.0, 0.0, 0.5])).value)


def test_each_group_is_judged_at_the_others_temperature() -> None:
    # 3 of 4 at difference 2 ask for T = 2 / ln 3; 3 of 4 at difference 4 for twice that.
    difference = np.array([2.0] * 4 + [4.0] * 4)
    target = np.array([1.0, 1.0, 1.0, 0.0] * 2)
    group = np.array([0] * 4 + [1] * 4)
    logit = cross_fitted_logits(difference, target, np.ones(8), group)
    assert logit[:4] == pytest.approx(np.full(4, math.log(3.0) / 2), rel=1e-4)
    assert logit[4:] == pytest.approx(np.full(4, 2 * math.log(3.0)), rel=1e-4)


def test_one_group_alone_keeps_its_logits() -> None:
    difference = np.array([2.0, -1.0])
    found = cross_fitted_logits(difference, np.array([1.0, 0.0]), np.ones(2), np.zeros(2, dtype=np.int64))
    assert found.tolist() == [2.0, -1.0]
