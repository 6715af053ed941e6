"""From reward differences to probabilities: one temperature, fitted on labels that trained nothing judged."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_LOG_RANGE = (-4.0, 4.0)
"""Natural logarithms of the temperatures searched."""


def log_loss(logit: Floats, target: Floats, weight: Floats | None = None) -> float:
    """Weighted mean negative log-likelihood of targets in [0, 1] under sigmoid(logit); nats."""
    # log(1 + exp(x)) - target · x, without overflow.
    return float(np.average(np.logaddexp(0.0, logit) - target * logit, weights=weight))


def fit_temperature(difference: Floats, target: Floats, weight: Floats | None = None) -> float:
    """Find T > 0 that minimises the log-loss of sigmoid(difference / T); within [e⁻⁴, e⁴].

    The loss is convex in 1/T, hence has one valley over log T, which a golden-section search finds. Differences
    that say nothing, or the opposite of the labels, end at the upper bound: probabilities near ½.
    """
    low, high = _LOG_RANGE
    shrink = (np.sqrt(5.0) - 1) / 2
    for _ in range(60):
        left, right = high - shrink * (high - low), low + shrink * (high - low)
        if log_loss(difference / np.exp(left), target, weight) < log_loss(difference / np.exp(right), target, weight):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))
