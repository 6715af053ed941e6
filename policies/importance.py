"""Weighting labels towards the current policy, by how much likelier it is to write what was compared.

Labels of earlier rounds compare responses of earlier policies. Weighted by the ratio of densities, they fit the
reward model where the current policy writes (as in off-policy corrected reward modelling, arXiv:2507.15507).
Sequence densities differ by orders of magnitude, so weights are capped; the price is some bias, the gain that no few
labels drown the others.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from policies.calibration import Floats
from policies.errors import NonFiniteError


@dataclass(frozen=True, slots=True)
class ImportanceWeights:
    """What N comparisons count for."""

    weight_N: Floats
    """At least 0, at most the cap, mean 1."""
    effective_sample_size: float
    """(Σ w)² / Σ w² (Kish 1965): how many labels that weigh alike would be as informative; from N / cap to N."""


def importance_weights(log_ratio_N: Floats, cap: float) -> ImportanceWeights:
    """Turn ratios of densities into weights min(c · ratio, cap), c such that their mean is 1.

    log_ratio_N: Σ over both responses of log π_current(y | x) - log π_behaviour(y | x), nats, with log-probabilities
    of whole responses; any constant added to all leaves the weights alone. cap >= 1, where 1 weighs all alike.

    Raises:
        ValueError: if cap is below 1.
        NonFiniteError: if a log-ratio is NaN or infinite.
    """
    if not cap >= 1.0:
        raise ValueError(f"weights of mean 1 cannot stay below {cap}; take a cap of 1 or more")
    if not np.isfinite(log_ratio_N).all():
        raise NonFiniteError("a response's log-probability is not finite; its label cannot be weighted")
    count = len(log_ratio_N)
    order = np.argsort(-log_ratio_N, kind="stable")
    weight_N = np.full(count, cap)
    # The k likeliest are capped, and the others share what is left: the first k that leaves none of these above.
    for capped in range(count):
        rest = order[capped:]
        share = (count - capped * cap) * softmax(log_ratio_N[rest])
        if share[0] <= cap:
            weight_N[rest] = share
            break
    size = weight_N.sum() ** 2 / np.square(weight_N).sum() if count else 0.0
    return ImportanceWeights(weight_N, float(size))
