"""Best of n: choosing it, what it is expected to score, and how far at most it is from where it was drawn."""

import math

import torch
from torch import Tensor


def chosen(reward_GK: Tensor) -> Tensor:
    """Mark the best sample of each prompt, the first of equals; bool [G, K], one True a row."""
    best_G1 = reward_GK.sort(dim=1, descending=True, stable=True).indices[:, :1]
    return torch.zeros_like(reward_GK, dtype=torch.bool).scatter(1, best_G1, value=True)


def expected_best(ranked_by: Tensor, valued_by: Tensor, n: int) -> float:
    """Estimate without bias what the best of n samples is worth, from N ≥ n samples of one prompt.

    The mean, over all subsets of n of the N, of the value of the subset's best. Sorted by `ranked_by` in ascending
    order, sample i is the best of C(i-1, n-1) of the C(N, n) subsets (Nakano et al. 2021, arXiv:2112.09332, appendix
    I; Gao et al. 2022, arXiv:2210.10760). Both tensors [N]; give the proxy and gold, or the proxy twice.

    Raises:
        ValueError: unless 1 ≤ n ≤ N.
    """
    total = len(ranked_by)
    if not 1 <= n <= total:
        raise ValueError(f"the best of {n} cannot be estimated from {total} samples")
    order = ranked_by.sort(stable=True).indices.tolist()
    values = valued_by.double().tolist()
    subsets = math.comb(total, n)
    # The quotient of two exact integers is rounded once, however large they are.
    return sum(math.comb(rank, n - 1) / subsets * values[at] for rank, at in enumerate(order))


def kl_bound_nats(n: int) -> float:
    """Bound KL(best of n || what it was drawn from) from above: log n - (n - 1)/n.

    Equality holds where no two responses are alike; for short or predictable ones the truth is far smaller
    (Beirami et al. 2024, arXiv:2401.01879).
    """
    return math.log(n) - (n - 1) / n
