"""The spending of alpha: never more than there is, and what a stage leaves over carries on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.budget import attempt_alpha


def test_carry_over_by_hand() -> None:
    # .12 over 3 stages of 2 attempts: .12/3/2 = .02. Stage 0 uses one attempt: .10 left, /2 stages /2 = .025.
    # Stage 1 uses both: .05 left for one stage, /2 = .025.
    first = attempt_alpha(0.12, [], stage=0, stages=3, attempts=2)
    second = attempt_alpha(0.12, [first], stage=1, stages=3, attempts=2)
    third = attempt_alpha(0.12, [first, second, second], stage=2, stages=3, attempts=2)
    assert (first, second, third) == pytest.approx((0.02, 0.025, 0.025))


def test_a_budget_overspent_by_an_earlier_program_gives_nothing() -> None:
    assert attempt_alpha(0.1, [0.2], stage=1, stages=2, attempts=2) == 0.0


@given(
    total=st.floats(1e-6, 0.999),
    attempts=st.integers(1, 8),
    used=st.lists(st.integers(0, 8), min_size=1, max_size=10),
)
def test_shares_of_any_history_sum_to_at_most_alpha(total: float, attempts: int, used: list[int]) -> None:
    """`used` is how many attempts each stage opened a gate for: anything an adaptive campaign can come to."""
    spent: list[float] = []
    for stage, wanted in enumerate(used):
        share = attempt_alpha(total, tuple(spent), stage=stage, stages=len(used), attempts=attempts)
        spent += [share] * min(wanted, attempts)
    assert sum(spent) <= total * (1 + 1e-12)


@given(total=st.floats(1e-6, 0.999), attempts=st.integers(1, 8), stages=st.integers(1, 8))
def test_a_campaign_that_uses_everything_spends_everything(total: float, attempts: int, stages: int) -> None:
    spent: list[float] = []
    for stage in range(stages):
        spent += [attempt_alpha(total, spent, stage=stage, stages=stages, attempts=attempts)] * attempts
    assert sum(spent) == pytest.approx(total)
