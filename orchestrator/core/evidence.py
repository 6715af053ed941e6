"""Betting evidence about a bounded mean: valid at any number of labels, however often one looks.

To question H0: E[X | past] <= m for observations X >= lower, a fixed fraction `bet` of an imagined fortune is
staked on every X being above m. The fortune E_t = prod(1 + bet * (X_i - m)) is a non-negative supermartingale
under H0, so P(it ever reaches 1/alpha) <= alpha (Ville's inequality; Waudby-Smith and Ramdas 2020,
arXiv 2010.09686). The bet is tuned to the largest number of labels that may be bought, and fixed before the first.

Arrays: `x_N` holds N observations in queue order, float64.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

GROWTH = 13.3
"""Tunes the bet: sqrt(GROWTH * ln(1/alpha) / cap), found by simulation over plausible candidates."""
SAFETY = 0.9
"""Share of the largest stake that could ruin the fortune in one step."""
BISECTIONS = 24
"""Halvings of the range in which a bound is looked for: to within 1e-7."""
FUTILITY_Z = 2.0
"""Standard errors by which the hoped-for remainder must be out of reach before a test is given up."""


def bet_fraction(alpha: float, cap: int, largest_loss: float) -> float:
    """The stake per observation; `largest_loss` is m - lower, the furthest that X can fall below m."""
    return min(math.sqrt(GROWTH * math.log(1 / alpha) / cap), SAFETY / largest_loss)


def log_fortune(x_N: Array, null_mean: float, bet: float) -> Array:
    """Natural log of the fortune after each observation, shape (N,)."""
    return np.cumsum(np.log1p(bet * (x_N - null_mean)))


def lower_confidence_bound(x_N: Array, alpha: float, cap: int, *, lower: float, upper: float) -> float:
    """Lower end of the confidence sequence for E[X], valid at any time at level 1 - alpha.

    The mean at which its own bet just fails to be refuted, from below; `lower` where N is 0. A fortune falls as the
    mean that it bets on rises, at every number of labels, so the refuted means end somewhere, and bisection finds it.
    """
    if len(x_N) == 0:
        return lower
    threshold = math.log(1 / alpha)
    refuted, kept = lower, upper
    for _ in range(BISECTIONS):
        mean = (refuted + kept) / 2
        if log_fortune(x_N, mean, bet_fraction(alpha, cap, mean - lower)).max() >= threshold:
            refuted = mean
        else:
            kept = mean
    return refuted


def is_futile(gain_sum: float, seen: int, cap: int, alpha: float, z: float = FUTILITY_Z) -> bool:
    """Whether a test not yet passed is out of hope: stop, and save the labels.

    `gain_sum` is the sum of X - m over the `seen` observations. The mean still needed over the remainder is held
    against the mean so far plus z/2 standard errors of the difference (X - m has a standard deviation of at most
    about 1/2). Stopping can only turn a pass into a refusal, so the error rate is untouched.
    """
    left = cap - seen
    if left <= 0:
        return True
    needed = (math.sqrt(cap * math.log(1 / alpha) / 2) - gain_sum) / left
    hoped = gain_sum / seen + 0.5 * z * math.sqrt(1 / seen + 1 / left)
    return needed > hoped


def as_array(values: Sequence[float]) -> Array:
    return np.asarray(values, dtype=np.float64)
