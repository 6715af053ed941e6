"""Losses that take people's comparisons straight to the policy, without a reward model in between.

DPO and IPO rest on the margin of a comparison: how much more the policy has raised the first response than the second,
measured from a frozen reference. It is summed over tokens: a sequence is one action, whatever its length. Labels as
the reward are a policy gradient on the responses that were labelled.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from policies import objectives
from policies.advantages import SMALLEST_SCALE


def margin(logp_1_B: Tensor, logp_2_B: Tensor, ref_logp_1_B: Tensor, ref_logp_2_B: Tensor) -> Tensor:
    """Log-ratio to the reference of each first response, less that of the second; nats, [B].

    Takes log-probabilities of whole responses. Positive = the first has gained on the second. 0 everywhere as long
    as the policy is its own reference.
    """
    return (logp_1_B - ref_logp_1_B) - (logp_2_B - ref_logp_2_B)


def dpo(margin_B: Tensor, target_B: Tensor, beta: float) -> Tensor:
    """Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290, equation 7); scalar, nats.

    The Bradley-Terry loss of the implicit reward β·log-ratio. target_B in [0, 1]: 1 = first preferred, 0 = second,
    ½ = tie, which pulls the margin to zero. Where labels follow Bradley-Terry with rewards r, the loss is least at
    π ∝ π_ref·exp(r/β), so β is the price of a nat in logits of preference. Labels that are all of one mind have no
    optimum: the margin grows for as long as the phase lasts, so a KL budget has to end it.
    """
    return objectives.bradley_terry(beta * margin_B, target_B)


def ipo(margin_B: Tensor, target_B: Tensor, beta: float) -> Tensor:
    """Identity preference optimisation (Azar et al. 2023, arXiv:2310.12036, equation 17); scalar, squared nats.

    beta is the paper's τ: a clear label asks for a margin of ±1/(2β), a tie for none, and a mean over raters for
    something between. target_B as for `dpo`. The paper's loss is an average over the drawn preference, of which
    this is, up to a constant, the mean: target·(h - 1/2β)² + (1 - target)·(h + 1/2β)². With pairs drawn from μ it is
    least at π ∝ π_ref·exp(p(y ≻ μ)/β): unlike `dpo`, it stays bounded where labels are all of one mind.

    The paper writes whole-sequence log-ratios, as here. TRL divides each by its response's length, which amounts,
    for responses of n tokens each, to this loss with n times the β, up to the factor n².
    """
    return (margin_B - (target_B - 0.5) / beta).square().mean()


def label_advantage(target_N: Tensor, own_N2: Tensor) -> Tensor:
    """Weigh the responses of N comparisons by people's labels alone; float32 [N, 2], one column a side.

    A response's reward is its share of the preference (1 = preferred, ½ = tie, 0 = not), its baseline ½: what any
    response earns against another from the same source. own_N2 is bool, True = the policy at the start drew that
    response; others weigh 0, since only what a policy drew tells it what its own probabilities are worth. Where both
    sides are its own, they weigh the same with opposite signs, as leave-one-out would have them. All are divided by
    one root mean square over the own ones; ties stay 0.
    """
    share_N2 = torch.stack([target_N, 1 - target_N], dim=1)
    centred_N2 = (share_N2 - 0.5) * own_N2
    mean_square = centred_N2.square().sum() / own_N2.sum().clamp(min=1)
    return centred_N2 / mean_square.sqrt().clamp(min=SMALLEST_SCALE)


@dataclass(frozen=True, slots=True)
class LabelsLoss:
    """What `labels` gives."""

    total: Tensor
    """Scalar; carries the gradient."""
    clipped: float
    """Share of the weighed tokens whose ratio the clip took out of the gradient."""


def labels(log_ratio_BT: Tensor, advantage_B: Tensor, keep_BT: Tensor, clip_low: float, clip_high: float) -> LabelsLoss:
    """Policy gradient on labels: clipped gain (PPO, arXiv:1707.06347, equation 7), less is better.

    log_ratio_BT: log π/π_start of each token; B = twice as many as comparisons. The token is the action, and gains are
    summed over a response's tokens, then averaged over comparisons: at the start the gradient is that of
    -advantage·log π(response). Later passes over the same labels are held by the clip, token by token: one over whole
    responses would let none gain more than clip_high, which is too little to be noticed. keep_BT is bool, True =
    counted. No price of a nat: only the clip and the phase's KL budget hold the policy.
    """
    gain_BT, clipped_BT = objectives.clipped_gain(log_ratio_BT, advantage_B.unsqueeze(1), clip_low, clip_high)
    weighed_BT = keep_BT & (advantage_B != 0).unsqueeze(1)
    clipped = (clipped_BT & weighed_BT).sum() / weighed_BT.sum().clamp(min=1)
    return LabelsLoss(-(gain_BT * keep_BT).sum() / (len(advantage_B) / 2), float(clipped))
