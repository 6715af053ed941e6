"""Losses that take people's comparisons straight to the policy, without a reward model in between.

All rest on the margin of a comparison: how much more the policy has raised the first response than the second,
measured from a frozen reference. It is summed over tokens: a sequence is one action, whatever its length.
"""

from torch import Tensor

from policies import objectives


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
