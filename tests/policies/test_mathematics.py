"""Losses, divergences and calibration against hand arithmetic and enumeration."""

import itertools
import math

import numpy as np
import pytest
import torch

from policies import kl, objectives
from policies.calibration import fit_temperature, log_loss
from policies.kl import KLController


def test_bradley_terry_by_hand_with_a_tie_as_half() -> None:
    difference_B, target_B = torch.tensor([math.log(3.0), math.log(3.0), 0.0]), torch.tensor([1.0, 0.5, 0.5])
    # P(first) = 3/4: -ln .75; a tie pays half of each side: -(ln .75 + ln .25) / 2; and ln 2.
    expected = (-math.log(0.75) - (math.log(0.75) + math.log(0.25)) / 2 + math.log(2.0)) / 3
    assert objectives.bradley_terry(difference_B, target_B).item() == pytest.approx(expected, rel=1e-6)


def test_next_token_is_the_surprise_at_what_came() -> None:
    loss = objectives.next_token(torch.tensor([[0.0, math.log(3.0)]]), torch.tensor([1]))
    assert loss.item() == pytest.approx(-math.log(0.75), rel=1e-6)


def test_entropy_of_a_fair_and_of_a_biased_coin() -> None:
    logp_BTV = torch.tensor([[[0.5, 0.5], [0.75, 0.25]]]).log()
    biased = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert objectives.entropy(logp_BTV)[0].tolist() == pytest.approx([math.log(2.0), biased], rel=1e-5)


class TestDivergenceByEnumeration:
    """Three tokens, two steps, the second depending on the first: all nine sequences, summed in plain Python."""

    policy = ([0.5, 0.3, 0.2], [[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.3, 0.3, 0.4]])
    reference = ([0.2, 0.5, 0.3], [[0.4, 0.4, 0.2], [0.3, 0.3, 0.4], [0.2, 0.5, 0.3]])

    def true_kl(self) -> float:
        total = 0.0
        for first, second in itertools.product(range(3), repeat=2):
            p = self.policy[0][first] * self.policy[1][first][second]
            q = self.reference[0][first] * self.reference[1][first][second]
            total += p * math.log(p / q)
        return total

    def batch(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """All nine sequences: (probability, tokens, the policy's log-probabilities, the reference's)."""
        sequences = list(itertools.product(range(3), repeat=2))
        p_B = torch.tensor([self.policy[0][a] * self.policy[1][a][b] for a, b in sequences])

        def logp(model: tuple[list[float], list[list[float]]]) -> torch.Tensor:
            return torch.tensor([[model[0], model[1][a]] for a, _ in sequences]).log()

        return p_B, torch.tensor(sequences), logp(self.policy), logp(self.reference)

    def test_exact_k1_and_k3_agree_in_expectation(self) -> None:
        p_B, ids_BT, logp_BTV, ref_logp_BTV = self.batch()
        logp_BT = logp_BTV.gather(-1, ids_BT.unsqueeze(-1)).squeeze(-1)
        ref_logp_BT = ref_logp_BTV.gather(-1, ids_BT.unsqueeze(-1)).squeeze(-1)
        keep_BT = torch.ones(9, 2, dtype=torch.bool)
        for estimate_B in (
            kl.k1(logp_BT, ref_logp_BT, keep_BT),
            kl.k3(logp_BT, ref_logp_BT, keep_BT),
            kl.exact(logp_BTV, ref_logp_BTV).sum(dim=1),
        ):
            assert float((p_B * estimate_B).sum()) == pytest.approx(self.true_kl(), rel=1e-5)

    def test_k2_is_half_the_mean_square_of_the_log_ratio(self) -> None:
        p_B, ids_BT, logp_BTV, ref_logp_BTV = self.batch()
        expected = 0.0
        for first, second in itertools.product(range(3), repeat=2):
            tokens = [
                (self.policy[0][first], self.reference[0][first]),
                (self.policy[1][first][second], self.reference[1][first][second]),
            ]
            expected += tokens[0][0] * tokens[1][0] * sum(math.log(p / q) ** 2 / 2 for p, q in tokens)
        logp_BT = logp_BTV.gather(-1, ids_BT.unsqueeze(-1)).squeeze(-1)
        ref_logp_BT = ref_logp_BTV.gather(-1, ids_BT.unsqueeze(-1)).squeeze(-1)
        found_B = kl.k2(logp_BT, ref_logp_BT, torch.ones(9, 2, dtype=torch.bool))
        assert float((p_B * found_B).sum()) == pytest.approx(expected, rel=1e-5)

    def test_padding_does_not_count(self) -> None:
        logp_BT, ref_logp_BT = torch.tensor([[-1.0, -50.0]]), torch.tensor([[-1.5, 0.0]])
        keep_BT = torch.tensor([[True, False]])
        assert kl.k1(logp_BT, ref_logp_BT, keep_BT).tolist() == [0.5]
        assert kl.k2(logp_BT, ref_logp_BT, keep_BT).tolist() == [0.125]
        assert kl.k3(logp_BT, ref_logp_BT, keep_BT).tolist() == pytest.approx([math.exp(-0.5) - 0.5])

    def test_the_gradients_of_the_estimators_in_the_loss(self) -> None:
        """On-policy: k1's is zero, k2's that of the reverse KL, k3's that of the forward KL (arXiv:2510.01555).

        One token, softmax logits z: ∂KL(p||q)/∂z_a = p_a·(log(p_a/q_a) - KL), ∂KL(q||p)/∂z_a = p_a - q_a.
        """
        p, q = self.policy[0], self.reference[0]
        divergence = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        expected = {
            kl.k1_tokens: [0.0, 0.0, 0.0],
            kl.k2_tokens: [a * (math.log(a / b) - divergence) for a, b in zip(p, q, strict=True)],
            kl.k3_tokens: [a - b for a, b in zip(p, q, strict=True)],
        }
        for estimator, gradient in expected.items():
            z_V = torch.tensor(p).log().requires_grad_()
            (torch.tensor(p) * estimator(torch.log_softmax(z_V, dim=0), torch.tensor(q).log())).sum().backward()
            assert z_V.grad is not None
            assert z_V.grad.tolist() == pytest.approx(gradient, abs=1e-6)

    def test_exact_varies_least(self) -> None:
        p_B, ids_BT, logp_BTV, ref_logp_BTV = self.batch()
        logp_BT = logp_BTV.gather(-1, ids_BT.unsqueeze(-1)).squeeze(-1)
        ref_logp_BT = ref_logp_BTV.gather(-1, ids_BT.unsqueeze(-1)).squeeze(-1)
        keep_BT = torch.ones(9, 2, dtype=torch.bool)

        def variance(value_B: torch.Tensor) -> float:
            return float((p_B * (value_B - self.true_kl()).square()).sum())

        assert variance(kl.exact(logp_BTV, ref_logp_BTV).sum(dim=1)) < variance(kl.k1(logp_BT, ref_logp_BT, keep_BT))


def test_controller_stays_where_it_is_without_a_target() -> None:
    assert KLController(0.02).after(100.0) == KLController(0.02)


def test_controller_raises_the_price_by_at_most_two_per_cent_a_step() -> None:
    # Twice the target is clipped to an error of a fifth; gain .1 makes that 2 %.
    assert KLController(0.5, target_nats=2.0).after(4.0).coefficient == pytest.approx(0.51)
    assert KLController(0.5, target_nats=2.0).after(1.9).coefficient == pytest.approx(0.5 * (1 - 0.1 * 0.05))


def test_temperature_is_found_again() -> None:
    # 3 of 4 prefer the response that is 2.0 better: the best T solves sigmoid(2/T) = 3/4, so T = 2 / ln 3.
    difference, target = np.full(4, 2.0), np.array([1.0, 1.0, 1.0, 0.0])
    assert fit_temperature(difference, target) == pytest.approx(2.0 / math.log(3.0), rel=1e-4)


def test_contradicted_rewards_get_probabilities_near_one_half() -> None:
    temperature = fit_temperature(np.full(10, 1.0), np.zeros(10))
    assert 1 / (1 + math.exp(-1.0 / temperature)) == pytest.approx(0.5, abs=0.01)


def test_weights_count_labels_as_repetition_would() -> None:
    difference, target = np.array([1.0, 2.0, -1.0]), np.array([1.0, 0.0, 0.0])
    repeated = fit_temperature(np.array([1.0, 1.0, 1.0, 2.0, -1.0]), np.array([1.0, 1.0, 1.0, 0.0, 0.0]))
    assert fit_temperature(difference, target, np.array([3.0, 1.0, 1.0])) == pytest.approx(repeated)


def test_log_loss_of_ignorance_is_ln_2() -> None:
    assert log_loss(np.zeros(3), np.array([0.0, 0.5, 1.0])) == pytest.approx(math.log(2.0))
