"""What tells one reinforcement-learning algorithm from another: the advantage, the loss, the place of the KL.

Pure functions of tensors. `phase` samples, scores and steps; what a batch then teaches is decided here. Notation: r a
response's reward less the fine for not ending, π the policy, μ the policy that drew the batch, ρ = π/μ, π_ref the
reference, β the KL coefficient, c(ρ, A) = min(ρ·A, clip(ρ, 1 - clip_low, 1 + clip_high)·A). On the first update of a
batch ρ = 1 and ∇c = A·∇log π: the plain policy gradient.

RLOO (Ahmadian et al. 2024, arXiv:2402.14740). The response is one action. Return R = r - β·Σ_t log π/π_ref; the
    advantage is R less the mean return of the prompt's other samples, divided by one root mean square over the batch;
    loss -mean_B c(Π_t ρ_t, A). The KL is in the reward (k1), which gives the gradient of the true reverse KL.
    Optimum: π ∝ π_ref·exp(r/β).
REINFORCE (Williams 1992; for language models Ahmadian et al. as above). As RLOO, but the baseline is a running mean
    of the returns of earlier batches, so that one sample a prompt is enough. Same optimum.
GRPO (Shao et al. 2024, arXiv:2402.03300, equations 3 and 4). A = (r - group's mean)/(group's standard deviation), the
    same for all tokens; loss: mean over each response's tokens of -c(ρ_t, A) + β·k3_t, then over responses. The KL is
    in the loss; on-policy the gradient of k3 there is that of the *forward* KL(π_ref || π) at each prefix
    (arXiv:2510.01555), and the standard deviation makes the price of a nat follow the group's spread. The optimum is
    therefore another one: for one-token responses π = β·π_ref / (β - (r - mean)/sd).
Dr. GRPO (Liu et al. 2025, arXiv:2503.20783). GRPO without the two biases: A = r - group's mean, and tokens are summed
    and divided by the constant longest length instead of each response's own. The KL stays in the loss (k3).
PPO (Schulman et al. 2017, arXiv:1707.06347; for language models Ziegler et al. 2019, arXiv:1909.08593). The token is
    the action. Token rewards -β·log π/π_ref (k1), with r added at the last; a linear value head on the policy's final
    states; generalised advantage estimation, whitened over the batch; loss: mean over all tokens of -c(ρ_t, A_t) plus
    value_coefficient·½(V_t - target_t)². The value loss is not clipped, since clipping it did not help (Andrychowicz
    et al. 2020, arXiv:2006.05990). Optimum as RLOO's.
Best of n, distilled (Gui et al. 2024, arXiv:2406.00832). Draw n responses from the policy at the phase's start, keep
    the one with the largest r, maximise its likelihood: -mean_B Σ_t log π. No KL term: the optimum is the best-of-n
    distribution, at most log n - (n-1)/n nats from the start.
Expert iteration (Anthony et al. 2017, arXiv:1705.08439; RAFT, Dong et al. 2023, arXiv:2304.06767). The same from the
    *present* policy, so that the distance grows from step to step; its optimum is the best response alone.
"""

from dataclasses import dataclass
from typing import Final

from torch import Tensor

from policies import advantages, best_of_n, kl, objectives
from policies.advantages import RunningBaseline
from policies.phase_records import Algorithm, PhaseSettings

KL_IN_REWARD: Final = frozenset({Algorithm.RLOO, Algorithm.REINFORCE, Algorithm.PPO})
KL_IN_LOSS: Final = frozenset({Algorithm.GRPO, Algorithm.DR_GRPO})
IMITATING: Final = frozenset({Algorithm.BEST_OF_N, Algorithm.EXPERT_ITERATION})
REINFORCING: Final = KL_IN_REWARD | KL_IN_LOSS | IMITATING
"""All algorithms that `phase` runs."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a batch teaches; everything [B, T], float32 unless said otherwise, 0 where padded."""

    keep_BT: Tensor
    """bool; True = a token of the response."""
    logp_BT: Tensor
    """Under the policy that drew it; nats."""
    ref_logp_BT: Tensor
    advantage_BT: Tensor
    value_target_BT: Tensor | None = None
    """PPO: what the value head should have said."""

    def rows(self, rows: slice | Tensor) -> "Lesson":
        """Give the part that some responses make up: a range, or bool [B]."""
        target_BT = None if self.value_target_BT is None else self.value_target_BT[rows]
        return Lesson(
            self.keep_BT[rows], self.logp_BT[rows], self.ref_logp_BT[rows], self.advantage_BT[rows], target_BT
        )


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss and what is worth noting about it."""

    total: Tensor
    """Scalar; carries the gradient."""
    clipped: float
    """Share of the loss's actions whose ratio the clip took out of the gradient, times their share of the batch."""
    value: float
    """Half the squared error of the value head, likewise; 0 without one."""


def sequence_advantage(algorithm: Algorithm, return_GK: Tensor, baseline: RunningBaseline) -> Tensor:
    """Weigh whole responses; [G, K]. All algorithms but PPO, whose advantages are a token's."""
    match algorithm:
        case Algorithm.RLOO:
            return advantages.scale_batch(advantages.leave_one_out(return_GK))
        case Algorithm.REINFORCE:
            return advantages.scale_batch(baseline.subtracted_from(return_GK))
        case Algorithm.GRPO:
            return advantages.group_standardised(return_GK)
        case Algorithm.DR_GRPO:
            return advantages.group_centred(return_GK)
        case Algorithm.BEST_OF_N | Algorithm.EXPERT_ITERATION:
            return best_of_n.chosen(return_GK).to(return_GK.dtype)
        case _:
            raise ValueError(f"{algorithm} does not weigh whole responses")


def token_rewards(reward_B: Tensor, k1_BT: Tensor, keep_BT: Tensor, kl_coefficient: float) -> Tensor:
    """Lay a response's reward on its last token, and on every token the price of its own log-ratio; [B, T]."""
    last_B1 = keep_BT.sum(dim=1, keepdim=True) - 1
    priced_BT = -kl_coefficient * k1_BT * keep_BT
    return priced_BT.scatter_add(1, last_B1, reward_B.unsqueeze(1).to(priced_BT.dtype))


def token_lesson(
    reward_BT: Tensor, value_BT: Tensor, logp_BT: Tensor, ref_logp_BT: Tensor, keep_BT: Tensor, settings: PhaseSettings
) -> Lesson:
    """PPO's lesson: advantages by GAE and whitened; the value head's targets are A + V before whitening."""
    advantage_BT = advantages.generalised(
        reward_BT, value_BT, discount=settings.discount, gae_lambda=settings.gae_lambda
    )
    return Lesson(
        keep_BT, logp_BT, ref_logp_BT, advantages.whitened(advantage_BT, keep_BT), (advantage_BT + value_BT) * keep_BT
    )


def shares(algorithm: Algorithm, keep_BT: Tensor, max_new_tokens: int) -> Tensor:
    """Say what each token counts in the loss of one update; float32 [B, T], 0 where padded.

    GRPO: 1/(B · its response's length); Dr. GRPO: 1/(B · longest allowed length); PPO: 1/all tokens; others, which
    sum over a response: 1/B. Taken over the whole batch of an update, they make the losses of its parts add up.
    """
    sequences = len(keep_BT)
    match algorithm:
        case Algorithm.GRPO:
            return keep_BT / (keep_BT.sum(dim=1, keepdim=True).clamp(min=1) * sequences)
        case Algorithm.DR_GRPO:
            return keep_BT / (sequences * max_new_tokens)
        case Algorithm.PPO:
            return keep_BT / keep_BT.sum()
        case _:
            return keep_BT / sequences


def loss(
    settings: PhaseSettings,
    lesson: Lesson,
    share_BT: Tensor,
    logp_BT: Tensor,
    value_BT: Tensor | None = None,
    *,
    kl_coefficient: float,
) -> Loss:
    """The loss of (a part of) an update's batch; `share_BT` is this part's of `shares`.

    logp_BT: under the policy being trained, 0 where padded; carries the gradient, as does value_BT (PPO). The sum
    over the parts of a batch is the loss of the batch.
    """
    algorithm = settings.algorithm
    if algorithm in IMITATING:
        return Loss(-(share_BT * lesson.advantage_BT * logp_BT).sum(), 0.0, 0.0)
    log_ratio_BT = (logp_BT - lesson.logp_BT) * lesson.keep_BT
    if algorithm in {Algorithm.RLOO, Algorithm.REINFORCE}:
        # One action a response: its tokens all have the same advantage and share, and every response has a token.
        log_ratio, advantage, share = log_ratio_BT.sum(dim=1), lesson.advantage_BT[:, 0], share_BT[:, 0]
    else:
        log_ratio, advantage, share = log_ratio_BT, lesson.advantage_BT, share_BT
    gain, clipped = objectives.clipped_gain(log_ratio, advantage, settings.clip_low, settings.clip_high)
    total = -(share * gain).sum()
    if algorithm in KL_IN_LOSS:
        total = total + kl_coefficient * (share_BT * kl.k3_tokens(logp_BT, lesson.ref_logp_BT)).sum()
    value = 0.0
    if value_BT is not None and lesson.value_target_BT is not None:
        value_loss = (share_BT * 0.5 * (value_BT - lesson.value_target_BT).square()).sum()
        total, value = total + settings.value_coefficient * value_loss, float(value_loss.detach())
    return Loss(total, float((share * clipped).sum()), value)
