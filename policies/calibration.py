"""From reward differences to probabilities, and what such probabilities are worth, judged by labels.

A prediction is a logit: of the first response being preferred. A label is a target in [0, 1]: 1 = the first was
preferred, 0 = the second, ½ = a tie; means over raters are welcome. None of the labels may have trained what predicts.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, ndtri

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


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval of a probability."""

    low: float
    high: float


def accuracy(logit: Floats, target: Floats) -> float:
    """Share of predictions that side with the label, in [0, 1]; a prediction of exactly ½ counts half.

    Labels of exactly ½ are left out, since no side is right about them; NaN where nothing else is left.
    """
    decided = target != 0.5
    if not decided.any():
        return math.nan
    return float(np.mean((np.sign(logit[decided] * (target[decided] - 0.5)) + 1.0) / 2.0))


def wilson_interval(share: float, count: int, confidence: float = 0.95) -> Interval:
    """Where a probability lies, of which `share` was seen in `count` independent trials (Wilson 1927).

    Centre (s + z²/2n) / (1 + z²/n), half-width z · sqrt(s(1 - s)/n + z²/4n²) / (1 + z²/n). Where there was no
    trial, all of [0, 1].
    """
    if count == 0:
        return Interval(0.0, 1.0)
    z = float(ndtri(0.5 + confidence / 2.0))
    shrink = 1.0 + z * z / count
    centre = (share + z * z / (2 * count)) / shrink
    half = z * math.sqrt(share * (1.0 - share) / count + (z / (2 * count)) ** 2) / shrink
    return Interval(max(centre - half, 0.0), min(centre + half, 1.0))


@dataclass(frozen=True, slots=True)
class Slope:
    """How much of a predicted logit the labels bear out."""

    value: float
    """1 = as predicted, below 1 = too sure, above 1 = too modest, 0 = unrelated, negative = the wrong way round."""
    standard_error: float
    """Infinite where the labels set no bound to the slope (all predictions on the right side, or all on the wrong);
    NaN where there is no prediction other than ½."""


def calibration_slope(logit: Floats, target: Floats) -> Slope:
    """Regress labels on predicted logits: the b that makes sigmoid(b · logit) most likely; in [-e⁴, e⁴].

    Cox's (1958) recalibration without an intercept: which response comes first is arbitrary, and an intercept would
    change when the two change places. The standard error is the sandwich sqrt(Σ x²(y - p)²) / Σ x²p(1 - p), which
    holds for ties and for means over raters as well; labels count as independent.
    """
    if not np.any(logit):
        return Slope(math.nan, math.nan)
    bound = float(np.exp(_LOG_RANGE[1]))

    def score(slope: float) -> float:
        """Derivative of the log-likelihood; falls as the slope rises."""
        return float(np.sum(logit * (target - expit(slope * logit))))

    if score(bound) >= 0.0 or score(-bound) <= 0.0:
        return Slope(bound if score(bound) >= 0.0 else -bound, math.inf)
    value = float(brentq(score, -bound, bound, xtol=1e-10))
    p = expit(value * logit)
    information = float(np.sum(logit**2 * p * (1.0 - p)))
    return Slope(value, float(np.sqrt(np.sum((logit * (target - p)) ** 2))) / information)


def cross_fitted_logits(difference: Floats, target: Floats, weight: Floats, group: NDArray[np.int64]) -> Floats:
    """Divide each difference by the temperature that the other groups' labels ask for.

    Judged at one temperature fitted to all of them, predictions would have a calibration slope of 1 by construction.
    A group gets temperature 1 if there are no others, or if they weigh nothing.
    """
    logit = difference.copy()
    for each in np.unique(group):
        own = group == each
        if weight[~own].any():
            logit[own] /= fit_temperature(difference[~own], target[~own], weight[~own])
    return logit
