"""Bandits with known optima: each algorithm, driven through its own advantages and losses, reaches its own optimum.

Policies are softmax tables. A batch is no random draw but a grid: response number i of N is the one at quantile
(i + ½)/N, so that shares in the batch are the policy's probabilities up to 1/N and expectations are nearly exact.
Advantages are those of `algorithms` in full, with their scaling; where a scale is common to the batch it changes how
far a step goes and not where steps lead, so the optimum is that of the unscaled objective. Near that optimum a scaled
step does not shrink by itself, which is why step sizes decay here.

Tolerance in total variation: 0.001, and 0.01 where the batch is a random draw.
"""

import itertools
import math
from collections.abc import Callable, Sequence

import pytest
import torch
from scipy.optimize import brentq
from torch import Tensor

from policies import advantages, algorithms, best_of_n
from policies.advantages import RunningBaseline
from policies.algorithms import Lesson
from policies.phase_records import Algorithm, PhaseSettings

REWARD = [0.0, 0.5, 1.0, -1.0]
REF = [0.4, 0.3, 0.1, 0.2]
BETA = 0.5
N = 2000
TOLERANCE, SAMPLED = 0.001, 0.01


def distance(found: Tensor, expected: Sequence[float]) -> float:
    return float((found - torch.tensor(expected, dtype=torch.float64)).abs().sum()) / 2


def normalised(weights: Sequence[float]) -> list[float]:
    return [weight / sum(weights) for weight in weights]


def grid(probability_R: Tensor, batch: int) -> Tensor:
    """Responses 0 to R - 1, as often as they are probable; int64 [batch]."""
    quantile_B = (torch.arange(batch, dtype=torch.float64) + 0.5) / batch
    return torch.searchsorted(probability_R.cumsum(0), quantile_B).clamp(max=len(probability_R) - 1)


def descend(parameters: list[Tensor], loss: Callable[[], Tensor], steps: int = 800, rate: float = 0.05) -> None:
    """Adam with a step size that falls linearly to zero."""
    optimizer = torch.optim.Adam(parameters, lr=rate)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()


class OneToken:
    """Four responses of one token each."""

    def __init__(self) -> None:
        self.z_V = torch.tensor(REF, dtype=torch.float64).log().requires_grad_()
        self.reward_V, self.ref_V = torch.tensor(REWARD).double(), torch.tensor(REF).double().log()

    @property
    def probability_V(self) -> Tensor:
        return torch.softmax(self.z_V.detach(), dim=0)

    def learn(self, algorithm: Algorithm) -> Tensor:
        settings = PhaseSettings(algorithm=algorithm)
        baseline = RunningBaseline()

        def loss() -> Tensor:
            nonlocal baseline
            row_B = grid(self.probability_V, N)
            logp_B = torch.log_softmax(self.z_V, dim=0)[row_B]
            return_B = self.reward_V[row_B]
            if algorithm in algorithms.KL_IN_REWARD:
                return_B = return_B - BETA * (logp_B.detach() - self.ref_V[row_B])
            advantage_GK = algorithms.sequence_advantage(algorithm, return_B.unsqueeze(0), baseline)
            baseline = baseline.after(return_B)
            keep_BT = torch.ones(N, 1, dtype=torch.bool)
            lesson = Lesson(keep_BT, logp_B.detach()[:, None], self.ref_V[row_B][:, None], advantage_GK.T)
            share_BT = algorithms.shares(algorithm, keep_BT, max_new_tokens=1)
            return algorithms.loss(settings, lesson, share_BT, logp_B[:, None], kl_coefficient=BETA).total

        descend([self.z_V], loss)
        return self.probability_V


@pytest.mark.parametrize("algorithm", [Algorithm.RLOO, Algorithm.REINFORCE])
def test_kl_in_the_reward_leads_to_the_boltzmann_policy(algorithm: Algorithm) -> None:
    """max_π E[r] - β·KL(π||π_ref) is met by π ∝ π_ref·exp(r/β): there every return r - β·log π/π_ref is the same."""
    expected = normalised([q * math.exp(r / BETA) for q, r in zip(REF, REWARD, strict=True)])
    assert distance(OneToken().learn(algorithm), expected) < TOLERANCE


def forward_anchored(sd: float) -> list[float]:
    """π with π_a·(r_a - μ)/sd = β·(π_a - π_ref_a), μ = Σ π·r; bisected in μ.

    On-policy the gradient by logit a is π_a·(r_a - μ)/sd from the advantage and -β·(π_a - π_ref_a) from k3, whose
    expected gradient is that of KL(π_ref||π). Hence π_a = β·π_ref_a / (β - (r_a - μ)/sd), where μ must make this sum
    to 1; summing the first equation over a shows that this μ is then indeed Σ π·r. The sum falls from infinity, where
    the best response's denominator vanishes, towards 0, so there is one such μ.
    """

    def policy(mu: float) -> list[float]:
        return [BETA * q / (BETA - (r - mu) / sd) for q, r in zip(REF, REWARD, strict=True)]

    lowest = max(REWARD) - BETA * sd
    return policy(brentq(lambda mu: sum(policy(mu)) - 1, lowest + 1e-12, lowest + 100))


def test_dr_grpo_is_anchored_by_the_forward_kl() -> None:
    assert distance(OneToken().learn(Algorithm.DR_GRPO), forward_anchored(1.0)) < TOLERANCE


def test_grpo_pays_for_nats_in_units_of_the_groups_spread() -> None:
    """As Dr. GRPO with sd = the standard deviation of r under π itself, found by iteration."""
    sd = 0.5
    for _ in range(200):
        policy = forward_anchored(sd)
        mean = sum(p * r for p, r in zip(policy, REWARD, strict=True))
        sd = sum(p * (r - mean) ** 2 for p, r in zip(policy, REWARD, strict=True)) ** 0.5
    boltzmann = normalised([q * math.exp(r / BETA) for q, r in zip(REF, REWARD, strict=True)])
    found = OneToken().learn(Algorithm.GRPO)
    assert distance(found, policy) < TOLERANCE
    assert distance(found, boltzmann) > 0.02
    assert distance(found, forward_anchored(1.0)) > 0.02


def best_of(n: int) -> list[float]:
    """P(a) = F(a)^n - F(below a)^n, with F the start's distribution of rewards, all different here."""
    below = {r: sum(q for q, other in zip(REF, REWARD, strict=True) if other < r) for r in REWARD}
    return [(below[r] + q) ** n - below[r] ** n for q, r in zip(REF, REWARD, strict=True)]


def imitate(algorithm: Algorithm, source_V: Tensor, z_V: Tensor, groups: int, source: torch.Generator) -> Tensor:
    """The loss on one batch of groups of four responses from `source_V`."""
    drawn_GK = torch.multinomial(source_V, groups * 4, replacement=True, generator=source).reshape(groups, 4)
    reward_GK = torch.tensor(REWARD)[drawn_GK]
    advantage_B1 = algorithms.sequence_advantage(algorithm, reward_GK, RunningBaseline()).reshape(-1, 1)
    logp_B1 = torch.log_softmax(z_V, dim=0)[drawn_GK.reshape(-1, 1)]
    keep_B1 = torch.ones(groups * 4, 1, dtype=torch.bool)
    lesson = Lesson(keep_B1, logp_B1.detach(), logp_B1.detach(), advantage_B1)
    share_B1 = algorithms.shares(algorithm, keep_B1, max_new_tokens=1)
    return algorithms.loss(PhaseSettings(algorithm=algorithm), lesson, share_B1, logp_B1, kl_coefficient=0.0).total


def test_best_of_n_is_distilled_into_its_own_distribution() -> None:
    """Cross-entropy to what was kept is least at the distribution of what was kept (20,000 groups: ± .0035)."""
    z_V = torch.tensor(REF, dtype=torch.float64).log().requires_grad_()
    descend(
        [z_V],
        lambda: imitate(Algorithm.BEST_OF_N, torch.tensor(REF), z_V, 20_000, torch.Generator().manual_seed(0)),
        steps=200,
    )
    found, expected = torch.softmax(z_V.detach(), dim=0), best_of(4)
    assert distance(found, expected) < SAMPLED
    divergence = sum(p * math.log(p / q) for p, q in zip(expected, REF, strict=True))
    assert divergence < best_of_n.kl_bound_nats(4)


def test_expert_iteration_ends_at_the_best_response() -> None:
    """Best of four of the best of four ...: P(best) grows to 1 - (1 - P(best))^4 each round."""
    z_V = torch.tensor(REF, dtype=torch.float64).log().requires_grad_()
    source = torch.Generator().manual_seed(0)
    descend(
        [z_V],
        lambda: imitate(Algorithm.EXPERT_ITERATION, torch.softmax(z_V.detach(), dim=0).float(), z_V, 100, source),
        steps=300,
        rate=0.2,
    )
    assert float(torch.softmax(z_V.detach(), dim=0)[REWARD.index(max(REWARD))]) > 1 - SAMPLED


class TwoTokens:
    """Three tokens, two positions, the second depending on the first: nine responses."""

    pairs = tuple(itertools.product(range(3), repeat=2))
    reward = (0.0, 1.0, -0.5, 0.5, 0.2, -1.0, 1.5, -0.5, 0.0)
    ref = ([0.5, 0.3, 0.2], [[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.3, 0.6]])

    def __init__(self) -> None:
        self.first_V = torch.tensor(self.ref[0]).double().log().requires_grad_()
        self.second_VV = torch.tensor(self.ref[1]).double().log().requires_grad_()
        self.value = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        self.value_V = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        self.ref_R2 = self.logp_R2().detach()

    def logp_R2(self) -> Tensor:
        """Log-probabilities of both tokens of all nine responses."""
        first_R, second_R = (torch.tensor(column) for column in zip(*self.pairs, strict=True))
        first_V, second_VV = torch.log_softmax(self.first_V, dim=0), torch.log_softmax(self.second_VV, dim=1)
        return torch.stack([first_V[first_R], second_VV[first_R, second_R]], dim=1)

    def optimum(self) -> list[float]:
        ref = [self.ref[0][a] * self.ref[1][a][b] for a, b in self.pairs]
        return normalised([q * math.exp(r / BETA) for q, r in zip(ref, self.reward, strict=True)])

    def learn(self, algorithm: Algorithm, *, scaled: bool) -> Tensor:
        settings = PhaseSettings(algorithm=algorithm, value_coefficient=1.0)
        keep_BT = torch.ones(N, 2, dtype=torch.bool)
        share_BT = algorithms.shares(algorithm, keep_BT, max_new_tokens=2)
        first_R = torch.tensor([a for a, _ in self.pairs])
        baseline = RunningBaseline()

        def loss() -> Tensor:
            nonlocal baseline
            logp_R2 = self.logp_R2()
            row_B = grid(logp_R2.detach().sum(dim=1).exp(), N)
            logp_BT, ref_BT, reward_B = logp_R2[row_B], self.ref_R2[row_B], torch.tensor(self.reward).double()[row_B]
            drawn_BT, value_BT = logp_BT.detach(), None
            if algorithm is Algorithm.PPO:
                value_BT = torch.stack([self.value.expand(N), self.value_V[first_R[row_B]]], dim=1)
                token_BT = algorithms.token_rewards(reward_B, drawn_BT - ref_BT, keep_BT, BETA)
                lesson = algorithms.token_lesson(token_BT, value_BT.detach(), drawn_BT, ref_BT, keep_BT, settings)
                if not scaled:
                    assert lesson.value_target_BT is not None
                    plain_BT = lesson.value_target_BT - value_BT.detach()
                    lesson = Lesson(keep_BT, drawn_BT, ref_BT, plain_BT, lesson.value_target_BT)
            else:
                return_GK = (reward_B - BETA * (drawn_BT - ref_BT).sum(dim=1)).unsqueeze(0)
                if scaled:
                    advantage_GK = algorithms.sequence_advantage(algorithm, return_GK, baseline)
                elif algorithm is Algorithm.RLOO:
                    advantage_GK = advantages.leave_one_out(return_GK)
                else:
                    advantage_GK = baseline.subtracted_from(return_GK)
                baseline = baseline.after(return_GK)
                lesson = Lesson(keep_BT, drawn_BT, ref_BT, advantage_GK.T.expand(N, 2))
            return algorithms.loss(settings, lesson, share_BT, logp_BT, value_BT, kl_coefficient=BETA).total

        descend([self.first_V, self.second_VV, self.value, self.value_V], loss, steps=1000)
        return self.logp_R2().detach().sum(dim=1).exp()


@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "scaled"])
@pytest.mark.parametrize("algorithm", [Algorithm.RLOO, Algorithm.REINFORCE, Algorithm.PPO])
def test_two_tokens_with_the_kl_in_the_reward(algorithm: Algorithm, scaled: bool) -> None:
    """π(ab) ∝ π_ref(ab)·exp(r(ab)/β), token-wise π(b|a) ∝ π_ref(b|a)·exp(r(ab)/β).

    Whole responses: as with one token. PPO: with V(a) = β·log Σ_b π_ref(b|a)·exp(r(ab)/β) and V likewise one token
    earlier, every surprise r_t - β·log π/π_ref + V' - V is zero there, hence so is every advantage, whatever λ.
    Scaling by one figure for the batch multiplies reward and KL price alike: β stays what it is.
    """
    bandit = TwoTokens()
    assert distance(bandit.learn(algorithm, scaled=scaled), bandit.optimum()) < TOLERANCE
