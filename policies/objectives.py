"""The losses, each a pure function of tensors."""

import torch
from torch import Tensor
from torch.nn import functional


def policy_gradient(logp_BT: Tensor, advantage_B: Tensor, keep_BT: Tensor) -> Tensor:
    """REINFORCE loss: - mean over B of advantage · log-probability of the whole response; scalar.

    The log-probability is summed over tokens. A mean over each response's own length would pay long wrong
    responses less for being wrong (Dr. GRPO, arXiv:2503.20783). keep_BT is bool, True = counted.
    """
    return -(advantage_B.detach() * (logp_BT * keep_BT).sum(dim=1)).mean()


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


def entropy(logits: Tensor) -> Tensor:
    """Entropy of each next-token distribution; nats. logits [..., V], result [...]."""
    logp = torch.log_softmax(logits, dim=-1)
    return -(logp.exp() * logp).sum(dim=-1)
