"""The rules of stopping, one by one and in their order."""

from dataclasses import replace

import pytest
import torch

from policies import stopping
from policies.phase_records import PhaseFailure, PhaseSettings, StoppedBy
from policies.stopping import Shown

SETTINGS = PhaseSettings(
    kl_budget_nats=4.0, kl_explosion_nats=50.0, stop_predicted_win_rate=0.65, stop_spread_growth=1.5
)
CALM = Shown(
    steps=3,
    kl_nats=1.0,
    reward_spread=0.2,
    first_spread=0.2,
    predicted_win_rate=0.55,
    empty_rate=0.0,
    alike=False,
)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (CALM, None),
        (replace(CALM, kl_nats=4.0), StoppedBy.KL_BUDGET),
        (replace(CALM, predicted_win_rate=0.65), StoppedBy.PREDICTED_WIN_RATE),
        (replace(CALM, reward_spread=0.3), None),
        (replace(CALM, reward_spread=0.31), StoppedBy.REWARD_SPREAD),
        (replace(CALM, first_spread=0.0, reward_spread=0.0), None),
        (replace(CALM, first_spread=None, reward_spread=None), None),
        (replace(CALM, steps=0, predicted_win_rate=0.7, reward_spread=0.4), None),
        (replace(CALM, steps=0, kl_nats=5.0), StoppedBy.KL_BUDGET),
        (replace(CALM, predicted_win_rate=0.7, reward_spread=0.4), StoppedBy.PREDICTED_WIN_RATE),
        (replace(CALM, kl_nats=5.0, predicted_win_rate=0.7, reward_spread=0.4), StoppedBy.KL_BUDGET),
    ],
)
def test_reasons_to_stop(shown: Shown, expected: StoppedBy | None) -> None:
    assert stopping.reason(shown, SETTINGS) is expected


def test_a_rule_that_is_off_stops_nothing() -> None:
    off = PhaseSettings(kl_budget_nats=None, stop_predicted_win_rate=None, stop_spread_growth=None)
    assert stopping.reason(replace(CALM, kl_nats=90.0, predicted_win_rate=1.0, reward_spread=9.0), off) is None


@pytest.mark.parametrize(
    ("shown", "stopped_by", "expected"),
    [
        (CALM, None, None),
        (replace(CALM, kl_nats=50.0), StoppedBy.KL_BUDGET, PhaseFailure.KL_EXPLOSION),
        (replace(CALM, empty_rate=0.5), None, None),
        (replace(CALM, empty_rate=0.51), StoppedBy.STEPS, PhaseFailure.EMPTY_RESPONSES),
        (replace(CALM, alike=True), None, PhaseFailure.NO_SIGNAL),
        (replace(CALM, alike=True), StoppedBy.STEPS, None),
        (replace(CALM, steps=0, kl_nats=5.0), StoppedBy.KL_BUDGET, PhaseFailure.NOTHING_LEARNED),
        (replace(CALM, steps=0, kl_nats=90.0), StoppedBy.KL_BUDGET, PhaseFailure.NOTHING_LEARNED),
        (replace(CALM, steps=1, kl_nats=5.0), StoppedBy.KL_BUDGET, None),
        (replace(CALM, steps=0), StoppedBy.STEPS, None),
    ],
)
def test_failures(shown: Shown, stopped_by: StoppedBy | None, expected: PhaseFailure | None) -> None:
    assert stopping.failure(shown, SETTINGS, stopped_by) is expected


def test_one_group_that_differs_is_enough_to_learn_from() -> None:
    assert stopping.alike(torch.tensor([[1.0, 1.0], [2.0, 2.0 + 1e-7]]))
    assert not stopping.alike(torch.tensor([[1.0, 1.0], [2.0, 2.1]]))


def test_single_samples_are_compared_with_one_another() -> None:
    assert stopping.alike(torch.tensor([[1.0], [1.0]]))
    assert not stopping.alike(torch.tensor([[1.0], [2.0]]))


@pytest.mark.parametrize("failed", list(PhaseFailure))
def test_every_failure_says_what_to_do(failed: PhaseFailure) -> None:
    assert ";" in stopping.advice(failed)
