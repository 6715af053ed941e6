"""Importance weights by hand and by brute force."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq

from policies.errors import NonFiniteError
from policies.importance import importance_weights


def test_ratios_without_need_of_a_cap_are_divided_by_their_mean() -> None:
    # Ratios 1, 2, 3 have mean 2. Kish: 3² / (1/4 + 1 + 9/4) = 9 / 3.5.
    found = importance_weights(np.log([1.0, 2.0, 3.0]), cap=2.0)
    assert found.weight_N == pytest.approx([0.5, 1.0, 1.5])
    assert found.effective_sample_size == pytest.approx(9 / 3.5)


def test_capped_ratios_leave_their_excess_to_the_others() -> None:
    # Ratios 1, 8, 1: divided by the mean the second would weigh 2.4. At most 2, so the others share 1.
    found = importance_weights(np.log([1.0, 8.0, 1.0]), cap=2.0)
    assert found.weight_N == pytest.approx([0.5, 2.0, 0.5])
    assert found.effective_sample_size == pytest.approx(9 / 4.5)


def test_capping_one_can_push_the_next_over_the_cap() -> None:
    # Ratios 100, 10, 1, 1: the first at 1.5 leaves 2.5, of which the second would take 25/12. At 1.5 too, 1 is left.
    found = importance_weights(np.log([100.0, 10.0, 1.0, 1.0]), cap=1.5)
    assert found.weight_N == pytest.approx([1.5, 1.5, 0.5, 0.5])


@pytest.mark.parametrize("cap", [1.0, 1.3, 3.0, 10.0])
def test_weights_by_brute_force(cap: float) -> None:
    log_ratio = np.random.default_rng(3).normal(size=50) * 3
    found = importance_weights(log_ratio, cap)

    def excess(log_c: float) -> float:
        return float(np.minimum(np.exp(log_ratio + log_c), cap).mean()) - 1.0

    # At cap 1 any large c will do.
    log_c = brentq(excess, -30, 30) if cap > 1 else 30
    assert found.weight_N == pytest.approx(np.minimum(np.exp(log_ratio + log_c), cap), rel=1e-6)
    assert found.weight_N.mean() == pytest.approx(1.0)
    assert 50 / cap - 1e-9 <= found.effective_sample_size <= 50 + 1e-9


def test_a_constant_in_all_ratios_changes_nothing() -> None:
    log_ratio = np.array([0.0, -2.0, 5.0])
    assert importance_weights(log_ratio - 5_000.0, 2.0).weight_N == pytest.approx(
        importance_weights(log_ratio, 2.0).weight_N
    )


def test_ratios_beyond_what_floats_hold_still_weigh() -> None:
    assert importance_weights(np.array([0.0, -2_000.0, -2_000.0]), 2.0).weight_N == pytest.approx([2.0, 0.5, 0.5])


def test_no_labels_have_no_weights() -> None:
    found = importance_weights(np.zeros(0), 2.0)
    assert (len(found.weight_N), found.effective_sample_size) == (0, 0.0)


def test_caps_below_the_mean_and_ratios_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot stay below"):
        importance_weights(np.zeros(2), 0.9)
    with pytest.raises(NonFiniteError, match="log-probability is not finite"):
        importance_weights(np.array([0.0, -math.inf]), 2.0)
