"""From rewards to advantages: leave-one-out baselines (RLOO, Ahmadian et al. 2024, arXiv:2402.14740)."""

import torch
from torch import Tensor


def leave_one_out(reward_GK: Tensor) -> Tensor:
    """Subtract from each reward the mean of the other samples of the same prompt; [G, K].

    Equals K/(K-1) · (reward - mean of all K). Sums to zero in each group.

    Raises:
        ValueError: if K < 2, which leaves no others.
    """
    samples = reward_GK.shape[1]
    if samples < 2:
        raise ValueError(f"leave-one-out needs at least 2 samples a prompt, got {samples}")
    return (reward_GK - reward_GK.mean(dim=1, keepdim=True)) * (samples / (samples - 1))


def scale_batch(advantage_GK: Tensor) -> Tensor:
    """Divide by one root mean square over the whole batch, so that a step's size does not follow the reward's.

    One scale for all: a scale per prompt would favour prompts on which samples hardly differ (Dr. GRPO, Liu et al.
    2025, arXiv:2503.20783). All-equal rewards stay zero.
    """
    scale = advantage_GK.square().mean().sqrt()
    return torch.where(scale > 0, advantage_GK / scale.clamp(min=torch.finfo(scale.dtype).tiny), 0.0)
