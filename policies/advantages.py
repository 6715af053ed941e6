"""From rewards to advantages: what each response, or each of its tokens, was worth beside what was to be expected.

Pure functions of tensors; `algorithms` says which algorithm uses which.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

SMALLEST_SCALE = 1e-4
"""Reward units. Rewards that differ by less differ by rounding; scaled up, they would teach noise."""


def leave_one_out(reward_GK: Tensor) -> Tensor:
    """Subtract from each reward the mean of the other samples of the same prompt; [G, K].

    Equals K/(K-1) · (reward - mean of all K). Sums to zero in each group (RLOO, Kool et al. 2019; Ahmadian et al.
    2024, arXiv:2402.14740).

    Raises:
        ValueError: if K < 2, which leaves no others.
    """
    samples = reward_GK.shape[1]
    if samples < 2:
        raise ValueError(f"leave-one-out needs at least 2 samples a prompt, got {samples}")
    return group_centred(reward_GK) * (samples / (samples - 1))


def group_centred(reward_GK: Tensor) -> Tensor:
    """Subtract the mean of all K samples of the prompt; [G, K] (Dr. GRPO, arXiv:2503.20783)."""
    return reward_GK - reward_GK.mean(dim=1, keepdim=True)


def group_standardised(reward_GK: Tensor) -> Tensor:
    """Subtract the group's mean and divide by its standard deviation, that of a sample (K - 1) plus 1e-4; [G, K].

    GRPO, Shao et al. 2024, arXiv:2402.03300, section 4.1.2. A group of equal rewards gives zeros.

    Raises:
        ValueError: if K < 2, which leaves no spread.
    """
    if reward_GK.shape[1] < 2:
        raise ValueError(f"a standard deviation needs at least 2 samples a prompt, got {reward_GK.shape[1]}")
    return group_centred(reward_GK) / (reward_GK.std(dim=1, keepdim=True) + SMALLEST_SCALE)


def scale_batch(advantage_GK: Tensor) -> Tensor:
    """Divide by one root mean square over the whole batch, so that a step's size does not follow the reward's.

    One scale for all: a scale per prompt would favour prompts on which samples hardly differ (Dr. GRPO, Liu et al.
    2025, arXiv:2503.20783). The scale is at least `SMALLEST_SCALE`; all-equal rewards stay zero.
    """
    return advantage_GK / advantage_GK.square().mean().sqrt().clamp(min=SMALLEST_SCALE)


@dataclass(frozen=True, slots=True)
class RunningBaseline:
    """What a return is expected to be: an exponential moving average over earlier batches (Williams 1992)."""

    value: float | None = None
    """Reward units; None before the first batch."""
    decay: float = 0.9
    """Weight that an older batch has, relative to the next one."""

    def subtracted_from(self, return_GK: Tensor) -> Tensor:
        """Give returns less the baseline; [G, K].

        The first batch stands in for the history that it does not have. Its own mean contains each response's own
        return, which shortens the expected gradient by 1/(G·K) and leaves its direction as it is.
        """
        return return_GK - (return_GK.mean() if self.value is None else self.value)

    def after(self, return_GK: Tensor) -> Self:
        """Give the baseline for the next batch."""
        mean = float(return_GK.mean())
        return replace(self, value=mean if self.value is None else self.decay * self.value + (1 - self.decay) * mean)


def generalised(reward_BT: Tensor, value_BT: Tensor, *, discount: float, gae_lambda: float) -> Tensor:
    """Generalised advantage estimation (Schulman et al. 2015, arXiv:1506.02438, equation 16); [B, T].

    A_t = Σ_l (γλ)^l · (r_{t+l} + γ·V_{t+l+1} - V_{t+l}), where V_t is the value before token t and 0 after the last:
    a response that was cut off is over as well, its fine being its last reward. Rewards and values of padding must
    be 0, and padding must stand on the right; its advantages are 0.
    """
    advantage_BT = torch.zeros_like(reward_BT)
    later_B, next_value_B = torch.zeros_like(reward_BT[:, 0]), torch.zeros_like(reward_BT[:, 0])
    for t in range(reward_BT.shape[1] - 1, -1, -1):
        surprise_B = reward_BT[:, t] + discount * next_value_B - value_BT[:, t]
        later_B = surprise_B + discount * gae_lambda * later_B
        advantage_BT[:, t], next_value_B = later_B, value_BT[:, t]
    return advantage_BT


def whitened(advantage_BT: Tensor, keep_BT: Tensor) -> Tensor:
    """Shift and scale to mean 0 and variance 1 over all kept tokens of the batch; [B, T], 0 where padded."""
    kept_N = advantage_BT[keep_BT]
    scale = kept_N.std(unbiased=False).clamp(min=SMALLEST_SCALE)
    return (advantage_BT - kept_N.mean()) / scale * keep_BT
