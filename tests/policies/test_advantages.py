"""Advantages against hand arithmetic and plain sums."""

import pytest
import torch

from policies import advantages
from policies.advantages import RunningBaseline


def test_leave_one_out_by_hand() -> None:
    # 1 - (2+6)/2, 2 - (1+6)/2, 6 - (1+2)/2
    found = advantages.leave_one_out(torch.tensor([[1.0, 2.0, 6.0], [5.0, 5.0, 5.0]]))
    assert torch.allclose(found, torch.tensor([[-3.0, -1.5, 4.5], [0.0, 0.0, 0.0]]))


def test_groups_need_others() -> None:
    with pytest.raises(ValueError, match="at least 2 samples"):
        advantages.leave_one_out(torch.zeros(3, 1))
    with pytest.raises(ValueError, match="at least 2 samples"):
        advantages.group_standardised(torch.zeros(3, 1))


def test_centred_and_standardised_groups_by_hand() -> None:
    reward_GK = torch.tensor([[1.0, 2.0, 6.0], [5.0, 5.0, 5.0]])
    # Mean 3; squares of -2, -1, 3 sum to 14; over K - 1 = 2 that is 7.
    centred = torch.tensor([[-2.0, -1.0, 3.0], [0.0, 0.0, 0.0]])
    assert torch.allclose(advantages.group_centred(reward_GK), centred)
    assert torch.allclose(advantages.group_standardised(reward_GK)[0], centred[0] / (7**0.5 + 1e-4))


def test_one_scale_for_the_whole_batch() -> None:
    # Mean square over all four: (1 + 1 + 49 + 49) / 4 = 25.
    found = advantages.scale_batch(torch.tensor([[1.0, -1.0], [7.0, -7.0]]))
    assert torch.allclose(found, torch.tensor([[0.2, -0.2], [1.4, -1.4]]))


@pytest.mark.parametrize("weigh", [advantages.scale_batch, advantages.group_standardised, advantages.leave_one_out])
def test_equal_rewards_teach_nothing(weigh: object) -> None:
    assert callable(weigh)
    assert torch.equal(weigh(torch.zeros(2, 2)), torch.zeros(2, 2))


@pytest.mark.parametrize("weigh", [advantages.scale_batch, advantages.group_standardised])
def test_rounding_is_not_scaled_up_to_a_lesson(weigh: object) -> None:
    assert callable(weigh)
    assert float(weigh(torch.tensor([[1e-7, -1e-7], [0.0, 0.0]])).abs().max()) < 2e-3


def test_a_running_baseline_is_the_average_of_earlier_batches() -> None:
    baseline = RunningBaseline()
    first, second = torch.tensor([[1.0, 3.0]]), torch.tensor([[5.0, 7.0]])
    assert baseline.subtracted_from(first).tolist() == [[-1.0, 1.0]]
    baseline = baseline.after(first)
    assert baseline.subtracted_from(second).tolist() == [[3.0, 5.0]]
    # 0.9 · 2 + 0.1 · 6
    assert baseline.after(second).value == pytest.approx(2.4)


class TestGeneralisedAdvantage:
    """Two responses of 4 and 2 tokens; the oracle is the double sum that defines the estimate."""

    rewards = ([0.5, -1.0, 0.25, 2.0], [1.0, -0.5])
    values = ([0.3, 0.1, -0.4, 0.8], [-0.2, 0.6])

    def found(self, discount: float, gae_lambda: float) -> torch.Tensor:
        reward_BT = torch.tensor([self.rewards[0], [*self.rewards[1], 0.0, 0.0]])
        value_BT = torch.tensor([self.values[0], [*self.values[1], 0.0, 0.0]])
        return advantages.generalised(reward_BT, value_BT, discount=discount, gae_lambda=gae_lambda)

    @pytest.mark.parametrize(("discount", "gae_lambda"), [(1.0, 0.95), (0.9, 0.7), (1.0, 0.0), (0.5, 1.0)])
    def test_it_is_the_discounted_sum_of_surprises(self, discount: float, gae_lambda: float) -> None:
        found = self.found(discount, gae_lambda)
        for row, (rewards, values) in enumerate(zip(self.rewards, self.values, strict=True)):
            after = [*values[1:], 0.0]
            surprises = [r + discount * v_next - v for r, v_next, v in zip(rewards, after, values, strict=True)]
            for t in range(len(rewards)):
                expected = sum((discount * gae_lambda) ** (at - t) * surprises[at] for at in range(t, len(rewards)))
                assert float(found[row, t]) == pytest.approx(expected, rel=1e-5)

    def test_without_forgetting_it_is_what_came_less_what_was_expected(self) -> None:
        # Sums of rewards from each token on: 1.75, 1.25, 2.25, 2.0 and 0.5, -0.5.
        expected = [[1.45, 1.15, 2.65, 1.2], [0.7, -1.1, 0.0, 0.0]]
        assert torch.allclose(self.found(1.0, 1.0), torch.tensor(expected))

    def test_padding_has_no_advantage(self) -> None:
        assert self.found(1.0, 0.95)[1, 2:].tolist() == [0.0, 0.0]


def test_whitening_counts_kept_tokens_only() -> None:
    # Kept: 1, 3, 8. Mean 4, mean square deviation (9 + 1 + 16) / 3 = 26/3.
    keep_BT = torch.tensor([[True, True], [True, False]])
    found = advantages.whitened(torch.tensor([[1.0, 3.0], [8.0, 0.0]]), keep_BT)
    scale = (26 / 3) ** 0.5
    assert torch.allclose(found, torch.tensor([[-3 / scale, -1 / scale], [4 / scale, 0.0]]))
    assert torch.equal(advantages.whitened(torch.ones(2, 2), keep_BT), torch.zeros(2, 2))
