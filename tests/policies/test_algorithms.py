"""Losses and gradients of every algorithm on two responses of two tokens and one, by hand.

Ratios to the drawing policy are 1.2, 1.5 and 0.5; ratios to the reference 2, 1 and ½; limits 0.8 and 1.28.
"""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from policies import algorithms, objectives
from policies.advantages import RunningBaseline
from policies.algorithms import Lesson, Loss
from policies.phase_records import Algorithm, PhaseSettings

KEEP_BT = torch.tensor([[True, True], [True, False]])
LOGP_BT = torch.tensor([[-1.0, -2.0], [-0.5, 0.0]])
DRAWN_BT = LOGP_BT - torch.tensor([[1.2, 1.5], [0.5, 1.0]]).log()
REF_BT = LOGP_BT - torch.tensor([[2.0, 1.0], [0.5, 1.0]]).log()
LN2 = math.log(2.0)


def lesson(*advantages: float, drawn_BT: Tensor = DRAWN_BT) -> Lesson:
    return Lesson(KEEP_BT, drawn_BT, REF_BT, torch.tensor(advantages).unsqueeze(1) * KEEP_BT)


def loss_and_gradient(
    algorithm: Algorithm, taught: Lesson, *, kl_coefficient: float = 0.0, max_new_tokens: int = 4
) -> tuple[Loss, Tensor]:
    logp_BT = LOGP_BT.clone().requires_grad_()
    share_BT = algorithms.shares(algorithm, KEEP_BT, max_new_tokens)
    settings = PhaseSettings(algorithm=algorithm)
    found = algorithms.loss(settings, taught, share_BT, logp_BT, kl_coefficient=kl_coefficient)
    found.total.backward()
    assert logp_BT.grad is not None
    return found, logp_BT.grad


def close(found: Tensor, expected: list[list[float]]) -> bool:
    return torch.allclose(found, torch.tensor(expected), atol=1e-6)


@pytest.mark.parametrize("algorithm", [Algorithm.RLOO, Algorithm.REINFORCE])
class TestWholeResponses:
    def test_the_ratio_is_that_of_the_response(self, algorithm: Algorithm) -> None:
        # Ratios 1.2 · 1.5 = 1.8 and 0.5. min(2 · 1.8, 2 · 1.28) = 2.56; min(-0.5, -0.8) = -0.8. Both are clipped.
        found, gradient_BT = loss_and_gradient(algorithm, lesson(2.0, -1.0))
        assert found.total.item() == pytest.approx(-(2.56 - 0.8) / 2, rel=1e-6)
        assert found.clipped == pytest.approx(1.0)
        assert close(gradient_BT, [[0.0, 0.0], [0.0, 0.0]])

    def test_the_clip_never_hides_a_loss(self, algorithm: Algorithm) -> None:
        # min(-2 · 1.8, -2 · 1.28) = -3.6; min(0.5, 0.8) = 0.5. Gradients - A·ρ/B.
        found, gradient_BT = loss_and_gradient(algorithm, lesson(-2.0, 1.0))
        assert found.total.item() == pytest.approx(-(-3.6 + 0.5) / 2, rel=1e-6)
        assert found.clipped == 0.0
        assert close(gradient_BT, [[1.8, 1.8], [-0.25, 0.0]])

    def test_on_policy_it_is_the_policy_gradient(self, algorithm: Algorithm) -> None:
        # ∇ of - mean_B A·Σ_t log π.
        _, gradient_BT = loss_and_gradient(algorithm, lesson(2.0, -1.0, drawn_BT=LOGP_BT))
        assert close(gradient_BT, [[-1.0, -1.0], [0.5, 0.0]])

    def test_the_kl_is_not_in_the_loss(self, algorithm: Algorithm) -> None:
        free, _ = loss_and_gradient(algorithm, lesson(2.0, -1.0))
        priced, _ = loss_and_gradient(algorithm, lesson(2.0, -1.0), kl_coefficient=3.0)
        assert free.total.item() == priced.total.item()


class TestGRPO:
    def test_tokens_are_averaged_in_each_response_first(self) -> None:
        # Gains 2 · 1.2 = 2.4, 2 · 1.28 = 2.56 (clipped) and -0.8 (clipped): (mean(2.4, 2.56) - 0.8) / 2 = 0.84.
        found, gradient_BT = loss_and_gradient(Algorithm.GRPO, lesson(2.0, -1.0))
        assert found.total.item() == pytest.approx(-0.84, rel=1e-6)
        assert found.clipped == pytest.approx(0.25 + 0.5)
        assert close(gradient_BT, [[-2.4 / 4, 0.0], [0.0, 0.0]])

    def test_k3_is_in_the_loss(self) -> None:
        # k3 of Δ = ln 2, 0, -ln 2: ½ + ln 2 - 1, 0, 2 - ln 2 - 1. Its gradient is 1 - exp(-Δ): ½, 0, -1.
        found, gradient_BT = loss_and_gradient(Algorithm.GRPO, lesson(0.0, 0.0), kl_coefficient=3.0)
        assert found.total.item() == pytest.approx(3 * ((LN2 - 0.5) / 2 + (1 - LN2)) / 2, rel=1e-5)
        assert close(gradient_BT, [[3 * 0.5 / 4, 0.0], [3 * -1.0 / 2, 0.0]])


class TestDrGRPO:
    def test_tokens_are_summed_and_divided_by_a_constant(self) -> None:
        # (2.4 + 2.56 - 0.8) / (2 responses · 4 tokens at most)
        found, gradient_BT = loss_and_gradient(Algorithm.DR_GRPO, lesson(2.0, -1.0))
        assert found.total.item() == pytest.approx(-4.16 / 8, rel=1e-6)
        assert close(gradient_BT, [[-2.4 / 8, 0.0], [0.0, 0.0]])

    def test_k3_is_in_the_loss(self) -> None:
        # (ln 2 - ½ + 1 - ln 2) / 8
        found, _ = loss_and_gradient(Algorithm.DR_GRPO, lesson(0.0, 0.0), kl_coefficient=3.0)
        assert found.total.item() == pytest.approx(3 * 0.5 / 8, rel=1e-5)


class TestPPO:
    def test_every_token_counts_the_same_and_the_value_loss_joins(self) -> None:
        # Gains as above, over 3 tokens; errors of the value 1, -2 and 3: half the mean square is 14/6.
        value_BT = torch.tensor([[0.5, 0.0], [1.0, 0.0]], requires_grad=True)
        target_BT = torch.tensor([[-0.5, 2.0], [-2.0, 0.0]])
        settings = PhaseSettings(algorithm=Algorithm.PPO, value_coefficient=0.1)
        share_BT = algorithms.shares(Algorithm.PPO, KEEP_BT, 4)
        taught = replace(lesson(2.0, -1.0), value_target_BT=target_BT)
        found = algorithms.loss(settings, taught, share_BT, LOGP_BT, value_BT, kl_coefficient=3.0)
        assert found.value == pytest.approx(14 / 6, rel=1e-6)
        assert found.total.item() == pytest.approx(-4.16 / 3 + 0.1 * 14 / 6, rel=1e-6)
        found.total.backward()
        assert value_BT.grad is not None
        assert close(value_BT.grad, [[0.1 * 1 / 3, 0.1 * -2 / 3], [0.1 * 3 / 3, 0.0]])

    def test_the_reward_lies_on_the_last_token_and_the_kl_on_each(self) -> None:
        k1_BT = torch.tensor([[0.5, -1.0], [2.0, 9.0]])
        found = algorithms.token_rewards(torch.tensor([3.0, -4.0]), k1_BT, KEEP_BT, 0.1)
        assert close(found, [[-0.05, 3.1], [-4.2, 0.0]])

    def test_a_lesson_is_whitened_and_its_targets_are_not(self) -> None:
        # λ = 1: what came from each token on is 3, 2 and 1; values 1, 1 and 0. Advantages 2, 1 and 1.
        settings = PhaseSettings(algorithm=Algorithm.PPO, gae_lambda=1.0)
        reward_BT, value_BT = torch.tensor([[1.0, 2.0], [1.0, 0.0]]), torch.tensor([[1.0, 1.0], [0.0, 0.0]])
        found = algorithms.token_lesson(reward_BT, value_BT, DRAWN_BT, REF_BT, KEEP_BT, settings)
        assert found.value_target_BT is not None
        assert close(found.value_target_BT, [[3.0, 2.0], [1.0, 0.0]])
        # Mean 4/3, mean square deviation (4 + 1 + 1) / 27.
        scale = (6 / 27) ** 0.5
        assert close(found.advantage_BT, [[(2 / 3) / scale, (-1 / 3) / scale], [(-1 / 3) / scale, 0.0]])


@pytest.mark.parametrize("algorithm", [Algorithm.BEST_OF_N, Algorithm.EXPERT_ITERATION])
def test_imitation_maximises_the_likelihood_of_what_was_kept(algorithm: Algorithm) -> None:
    found, gradient_BT = loss_and_gradient(algorithm, lesson(1.0, 0.0), kl_coefficient=3.0)
    assert found.total.item() == pytest.approx(3.0 / 2)
    assert close(gradient_BT, [[-0.5, -0.5], [0.0, 0.0]])


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        (Algorithm.RLOO, [[-3.0, -1.5, 4.5]]),
        (Algorithm.REINFORCE, [[-1.0, 0.0, 4.0]]),
        (Algorithm.GRPO, [[-2.0, -1.0, 3.0]]),
        (Algorithm.DR_GRPO, [[-2.0, -1.0, 3.0]]),
        (Algorithm.BEST_OF_N, [[0.0, 0.0, 1.0]]),
    ],
)
def test_each_algorithm_weighs_as_it_says(algorithm: Algorithm, expected: list[list[float]]) -> None:
    found = algorithms.sequence_advantage(algorithm, torch.tensor([[1.0, 2.0, 6.0]]), RunningBaseline(2.0))
    scale = {
        Algorithm.RLOO: ((9 + 2.25 + 20.25) / 3) ** 0.5,
        Algorithm.REINFORCE: (17 / 3) ** 0.5,
        Algorithm.GRPO: 7**0.5 + 1e-4,
    }
    assert torch.allclose(found, torch.tensor(expected) / scale.get(algorithm, 1.0))


@pytest.mark.parametrize("algorithm", sorted(algorithms.REINFORCING))
def test_losses_of_parts_add_up(algorithm: Algorithm) -> None:
    settings = PhaseSettings(algorithm=algorithm)
    taught, share_BT = lesson(2.0, -1.0), algorithms.shares(algorithm, KEEP_BT, 4)
    whole = algorithms.loss(settings, taught, share_BT, LOGP_BT, kl_coefficient=0.3).total
    rows = [slice(0, 1), slice(1, 2)]
    parts = [
        algorithms.loss(settings, taught.rows(row), share_BT[row], LOGP_BT[row], kl_coefficient=0.3).total
        for row in rows
    ]
    assert float(sum(parts)) == pytest.approx(float(whole), rel=1e-6)


def test_the_clip_has_two_limits() -> None:
    ratio, advantage = torch.tensor([0.5, 0.9, 1.2, 1.5]), torch.tensor([-1.0, -1.0, 1.0, 1.0])
    gain, clipped = objectives.clipped_gain(ratio.log(), advantage, 0.2, 0.28)
    assert torch.allclose(gain, torch.tensor([-0.8, -0.9, 1.2, 1.28]))
    assert clipped.tolist() == [True, False, False, True]


def test_preferences_do_not_come_this_way() -> None:
    with pytest.raises(ValueError, match="dpo does not weigh"):
        algorithms.sequence_advantage(Algorithm.DPO, torch.zeros(1, 2), RunningBaseline())
