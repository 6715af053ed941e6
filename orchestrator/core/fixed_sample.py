"""Bounds for a number of labels fixed beforehand: the alternative to betting, valid for one look and one only.

Z_1 ... Z_n lie in {0, 1/2, 1} and are independent; their means may differ from item to item. Both functions bound the
average of these means from below. They know nothing of what was promised of each item, so an over-promise is questioned
by a bet in any case, with one look at its end.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from scipy import special

from orchestrator.core.evidence import Array
from orchestrator.core.settings import Method


def wilson_lower(z_N: Array, alpha: float) -> float:
    """Wilson's (1927) score bound at one-sided level alpha; conservative where there are ties, else approximate.

    A tie makes the variance smaller than that of a win with the same mean, which the bound assumes. Without ties the
    true level oscillates around alpha: at .0083 it reaches .0125 with 100 labels, .0103 with 400.
    """
    n = len(z_N)
    if n == 0:
        return 0.0
    mean, z = float(z_N.mean()), -float(special.ndtri(alpha))
    centre = mean + z**2 / (2 * n)
    margin = z * float(np.sqrt(mean * (1 - mean) / n + z**2 / (4 * n**2)))
    return (centre - margin) / (1 + z**2 / n)


def clopper_pearson_lower(z_N: Array, alpha: float) -> float:
    """Clopper and Pearson's (1934) exact bound on the share of wins, at one-sided level alpha; a tie is a loss in it.

    Exact also where the items' means differ: the binomial tail bounds the sum's (Hoeffding 1956, Theorem 4).
    """
    n, wins = len(z_N), int(np.count_nonzero(z_N == 1.0))
    return float(special.betaincinv(wins, n - wins + 1, alpha)) if wins else 0.0


LOWER_BOUNDS: Final[dict[Method, Callable[[Array, float], float]]] = {
    Method.WILSON: wilson_lower,
    Method.CLOPPER_PEARSON: clopper_pearson_lower,
}
