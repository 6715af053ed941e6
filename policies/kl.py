"""How far a policy is from its reference: estimators, the exact figure, and the controller of the penalty.

All estimators take tokens that the policy drew and estimate KL(policy || reference).
"""

from dataclasses import asdict, dataclass
from typing import Final, Self

from torch import Tensor

EXACT_LIMIT: Final = 2**26
"""Tokens times vocabulary up to which the exact KL is afforded: 256 MiB in float32 for the reference's part. That is
4,096 tokens with a vocabulary of 16,384; beyond, k3 takes its place."""


def k1_tokens(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """Log-ratio Δ = log π/π_ref of each token, the plain unbiased estimate; nats, any shape. May be negative.

    Put into the reward it gives the gradient of the true KL; put into the loss it gives none in expectation
    (arXiv:2510.01555).
    """
    return logp - ref_logp


def k2_tokens(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """Δ²/2: never negative, biased, small in variance where the policies are near one another; nats, any shape.

    Schulman 2020, "Approximating KL Divergence". Put into the loss, on-policy, it gives the gradient of the true KL.
    """
    return (logp - ref_logp).square() / 2


def k3_tokens(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """exp(-Δ) + Δ - 1: unbiased as a value, never negative; nats, any shape (Schulman 2020, as above).

    Put into the loss, on-policy, its gradient is that of the forward KL(π_ref || π), not of the reverse.
    """
    delta = logp - ref_logp
    return (-delta).exp() + delta - 1


def k1(logp_BT: Tensor, ref_logp_BT: Tensor, keep_BT: Tensor) -> Tensor:
    """`k1_tokens` summed over each response; nats, [B]. Unbiased for the sequence KL."""
    return (k1_tokens(logp_BT, ref_logp_BT) * keep_BT).sum(dim=1)


def k2(logp_BT: Tensor, ref_logp_BT: Tensor, keep_BT: Tensor) -> Tensor:
    """`k2_tokens` summed over each response; nats, [B]."""
    return (k2_tokens(logp_BT, ref_logp_BT) * keep_BT).sum(dim=1)


def k3(logp_BT: Tensor, ref_logp_BT: Tensor, keep_BT: Tensor) -> Tensor:
    """`k3_tokens` summed over each response; nats, [B]. Unbiased; for vocabularies too large for `exact`."""
    return (k3_tokens(logp_BT, ref_logp_BT) * keep_BT).sum(dim=1)


def exact(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """KL of each next-token distribution from the reference's, over the whole vocabulary; nats.

    Normalised log-probabilities [..., V], result [...]. Summed over the tokens of sequences that the policy drew, its
    mean is an unbiased estimate of the sequence KL with less variance than `k1` or `k3`: only which prefixes occur is
    left to chance. With the arguments exchanged, over sequences that the reference drew, it is the forward KL.
    """
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
