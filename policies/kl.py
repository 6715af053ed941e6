"""How far a policy is from its reference: estimators, the exact figure, and the controller of the penalty.

All estimators take tokens that the policy drew and estimate KL(policy || reference).
"""

from dataclasses import asdict, dataclass
from typing import Self

import torch
from torch import Tensor


def k1(logp_BT: Tensor, ref_logp_BT: Tensor, keep_BT: Tensor) -> Tensor:
    """Per-sequence log-ratio, the plain unbiased estimate; nats, [B]. May be negative.

    Put into the reward it gives the gradient of the true KL; put into the loss it gives none in expectation
    (arXiv:2510.01555).
    """
    return ((logp_BT - ref_logp_BT) * keep_BT).sum(dim=1)


def k3(logp_BT: Tensor, ref_logp_BT: Tensor, keep_BT: Tensor) -> Tensor:
    """Per-sequence sum of exp(-Δ) + Δ - 1 with Δ = log-ratio: unbiased, never negative; nats, [B].

    Schulman 2020, "Approximating KL Divergence". For vocabularies too large for `exact`.
    """
    delta_BT = logp_BT - ref_logp_BT
    return (((-delta_BT).exp() + delta_BT - 1) * keep_BT).sum(dim=1)


def exact(logits: Tensor, ref_logits: Tensor) -> Tensor:
    """KL(policy || reference) of each next-token distribution, over the whole vocabulary; nats.

    logits and ref_logits [..., V], result [...]. Summed over the tokens of sequences that the policy drew, its mean
    is an unbiased estimate of the sequence KL with less variance than `k1` or `k3`: only which prefixes occur is
    left to chance.
    """
    logp, ref_logp = torch.log_softmax(logits, dim=-1), torch.log_softmax(ref_logits, dim=-1)
    return (logp.exp() * (logp - ref_logp)).sum(dim=-1)


@dataclass(frozen=True, slots=True)
class KLController:
    """The price of a nat in the reward, and how it follows the KL seen (Ziegler et al. 2019, arXiv:1909.08593)."""

    coefficient: float
    """Reward units a nat."""
    target_nats: float | None = None
    """Sequence KL to steer for; None = the coefficient stays what it is."""
    gain: float = 0.1
    """Relative change of the coefficient a step, at most a fifth of it."""

    def after(self, kl_nats: float) -> Self:
        """Give the controller for the next step."""
        if self.target_nats is None:
            return self
        error = min(max(kl_nats / self.target_nats - 1.0, -0.2), 0.2)
        return type(self)(self.coefficient * (1.0 + self.gain * error), self.target_nats, self.gain)

    def state(self) -> dict[str, float | None]:
        """Everything that a rollback must restore; JSON."""
        return asdict(self)
