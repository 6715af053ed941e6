"""The losses, each a pure function of tensors."""

import torch
from torch import Tensor
from torch.nn import functional


def clipped_gain(log_ratio: Tensor, advantage: Tensor, clip_low: float, clip_high: float) -> tuple[Tensor, Tensor]:
    """PPO's surrogate, min(ρ·A, clip(ρ, 1 - clip_low, 1 + clip_high)·A), and whether the clip decided; to maximise.

    Schulman et al. 2017, arXiv:1707.06347, equation 7; two limits as in DAPO, arXiv:2503.14476. Elementwise, any shape:
    log_ratio is log π/μ of an action, a token or a whole response, with μ the policy that drew it. Where ρ = 1 the
    gradient is A·∇log π. The second result is bool, True = no gradient flows.
    """
    ratio = log_ratio.exp()
    free, held = ratio * advantage, ratio.clamp(1 - clip_low, 1 + clip_high) * advantage
    return torch.minimum(free, held), held < free


def bradley_terry(difference_B: Tensor, target_B: Tensor, weight_B: Tensor | None = None) -> Tensor:
    """Negative log-likelihood of preferences; scalar, nats.

    difference_B: reward of the first response minus that of the second, in logits. target_B in [0, 1]: 1 = first
    preferred, 0 = second, ½ = tie (dropping ties would overstate how far apart the others are).
    weight_B: importance of each, mean 1.
    """
    losses_B = functional.binary_cross_entropy_with_logits(difference_B, target_B, reduction="none")
    return (losses_B if weight_B is None else losses_B * weight_B).mean()


def next_token(logits_NV: Tensor, ids_N: Tensor) -> Tensor:
    """Mean cross-entropy of N tokens; scalar, nats."""
    return functional.cross_entropy(logits_NV, ids_N)


def entropy(logp: Tensor) -> Tensor:
    """Entropy of each next-token distribution; nats. logp [..., V] sums to 1 as probabilities; result [...]."""
    return -(logp.exp() * logp).sum(dim=-1)
