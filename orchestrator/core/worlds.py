"""Imagined truths about a candidate, and labels drawn from them: what planning puts before the gate.

A world fixes the joint distribution of an outcome Z and the prediction P made of it. Its two means are exact by
construction: E[Z] is the win rate and E[P - Z] the over-promise, whatever the rest; nothing is clipped afterwards.

    LogitWorld   an item's logit is x ~ N(0, spread^2); P = expit(x + a) and Z ~ Bernoulli(expit(slope * x + b)), with
                 a and b solved for the two means. Slope 1 and no over-promise: P is calibrated.
    BetaWorld    P ~ Beta with the weight of five observations, Z ~ Bernoulli(P - c), cut off at 0 and 1, with c
                 solved for the win rate.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final, Protocol

import numpy as np
from numpy.random import Generator
from scipy import optimize, special

from orchestrator.core.evidence import Array

ACCURACY: Final = 0.65
"""Of the reward model, on comparisons of equally good policies, unless another is given."""
MOST_ACCURATE: Final = 0.95
"""Up to here the integrals below are exact to 1e-11."""
BETA_WEIGHT: Final = 5.0
"""Observations that a Beta prediction is worth: a + b."""

_REACH: Final = 10.0
"""Standard deviations to which the normal distribution is integrated; less than 1e-22 lies beyond."""
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(160)
_HALF_X: Final[Array] = (_NODES + 1) * _REACH / 2
"""Places in the upper half of a standard normal distribution."""
_HALF_MASS: Final[Array] = _WEIGHTS * _REACH / 2 * np.exp(-(_HALF_X**2) / 2) * math.sqrt(2 / math.pi)
"""Their probabilities given the upper half; they sum to 1."""


class Predictions(StrEnum):
    """What the reward model's predictions know of the single comparison."""

    INFORMATIVE = "informative"
    """All that varies in them is true: with no over-promise they are calibrated."""
    UNINFORMATIVE = "uninformative"
    """They vary as much, and none of it is true."""
    HALF = "half"
    """One half everywhere; the over-promise is then one half less the win rate."""


class ImpossibleWorldError(ValueError):
    """No distribution has the rates asked for."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """Comparisons in queue order."""

    z_N: Array
    p_hat_N: Array


class World(Protocol):
    @property
    def win_rate(self) -> float: ...

    @property
    def over_promise(self) -> float: ...

    @property
    def top_half_over_promise(self) -> float:
        """E[P - Z] on the half of the comparisons with the largest P."""
        ...

    def draw(self, rng: Generator, count: int) -> Drawn: ...


@dataclass(frozen=True, slots=True)
class LogitWorld:
    """A logistic-normal world; see the module's docstring."""

    win_rate: float
    over_promise: float
    spread: float
    """Standard deviation of an item's logit; 0: every prediction is win_rate + over_promise."""
    slope: float = 1.0
    """How much of the predicted logit is true: 1 informative, 0 uninformative, between: over-confident."""
    ties: float = 0.0
    """Share of comparisons with outcome 1/2, whatever the item; predictions know of it."""

    def __post_init__(self) -> None:
        _check_rates(self.win_rate, self.over_promise, self.ties)

    @property
    def top_half_over_promise(self) -> float:
        if self.spread == 0 or _untied(self.win_rate + self.over_promise, self.ties) in (0.0, 1.0):
            return self.over_promise  # all predictions are alike, so that the half is any half
        p, q = self._chances(self.spread * _HALF_X)
        return (1 - self.ties) * float(_HALF_MASS @ (p - q))

    def draw(self, rng: Generator, count: int) -> Drawn:
        p_N, q_N = self._chances(self.spread * rng.standard_normal(count))
        z_N = (rng.random(count) < q_N).astype(np.float64)
        if self.ties:
            z_N[rng.random(count) < self.ties] = 0.5
        return Drawn(z_N, self._tied(p_N))

    def _chances(self, x_N: Array) -> tuple[Array, Array]:
        """Predicted and true chance that an item which is no tie is won."""
        promised = _untied(self.win_rate + self.over_promise, self.ties)
        p_N = special.expit(x_N + _offset(promised, self.spread))
        q_N = special.expit(self.slope * x_N + _offset(_untied(self.win_rate, self.ties), self.slope * self.spread))
        return p_N, q_N

    def _tied(self, chance_N: Array) -> Array:
        return np.clip((1 - self.ties) * chance_N + self.ties / 2, 0.0, 1.0)  # rounding alone is clipped


@dataclass(frozen=True, slots=True)
class BetaWorld:
    """Beta predictions with a constant bias; win rate .6 and over-promise 0 are Beta(3, 2), calibrated."""

    win_rate: float
    over_promise: float

    def __post_init__(self) -> None:
        _check_rates(self.win_rate, self.over_promise, 0.0)
        if not 0 < self.win_rate + self.over_promise < 1:
            raise ImpossibleWorldError("Beta predictions have a mean strictly between 0 and 1; change the rates")

    @property
    def top_half_over_promise(self) -> float:
        a, b = self._shape
        u = (_NODES + 3) / 4
        p = special.betaincinv(a, b, u)
        return float((_WEIGHTS / 2) @ (p - np.clip(p - self._bias, 0.0, 1.0)))

    def draw(self, rng: Generator, count: int) -> Drawn:
        p_N = rng.beta(*self._shape, size=count)
        return Drawn((rng.random(count) < p_N - self._bias).astype(np.float64), p_N)

    @property
    def _shape(self) -> tuple[float, float]:
        mean = self.win_rate + self.over_promise
        return BETA_WEIGHT * mean, BETA_WEIGHT * (1 - mean)

    @property
    def _bias(self) -> float:
        return _beta_bias(self.win_rate, *self._shape)


def gate_world(
    win_rate: float,
    over_promise: float | None = None,
    predictions: Predictions = Predictions.INFORMATIVE,
    *,
    accuracy: float = ACCURACY,
    ties: float = 0.0,
) -> LogitWorld:
    """A candidate against the approved policy.

    Args:
        over_promise: None: 0, or what predictions of one half imply.
        accuracy: of the reward model on comparisons of equally good policies, in [1/2, .95]: how far P varies.

    Raises:
        ImpossibleWorldError: no distribution has these rates.
    """
    half = 0.5 - win_rate
    if predictions is Predictions.HALF and over_promise is not None and abs(over_promise - half) > 1e-9:
        raise ImpossibleWorldError(
            f"predictions of one half over-promise a win rate of {win_rate:g} by {half:+.2f} and not by "
            f"{over_promise:+.2f}; leave the over-promise out, or choose informative or uninformative predictions"
        )
    if predictions is Predictions.HALF:
        return LogitWorld(win_rate, half, spread=0.0, ties=ties)
    slope = 1.0 if predictions is Predictions.INFORMATIVE else 0.0
    return LogitWorld(win_rate, over_promise or 0.0, spread_of(accuracy), slope, ties)


def over_confident_world(win_rate: float, over_promise: float, top_half: float, spread: float) -> LogitWorld:
    """A world whose top half over-promises by `top_half`, more than the whole does.

    Raises:
        ImpossibleWorldError: no slope between 0 and 1 brings it about at this spread.
    """

    def excess(slope: float) -> float:
        return LogitWorld(win_rate, over_promise, spread, slope).top_half_over_promise - top_half

    if excess(0.0) * excess(1.0) > 0:
        raise ImpossibleWorldError(
            f"a top half cannot over-promise by {top_half:+.2f} where the whole does by {over_promise:+.2f} and logits "
            f"vary by {spread:g}; raise the spread"
        )
    return LogitWorld(win_rate, over_promise, spread, float(optimize.brentq(excess, 0.0, 1.0, xtol=1e-13)))


@lru_cache(maxsize=64)
def spread_of(accuracy: float) -> float:
    """Standard deviation of the logits of a calibrated reward model that is right so often at even win rates.

    Raises:
        ImpossibleWorldError: the accuracy is not in [1/2, .95].
    """
    if not 0.5 <= accuracy <= MOST_ACCURATE:
        raise ImpossibleWorldError(f"an accuracy of {accuracy:g} cannot be planned with; give one from 0.5 to 0.95")
    if accuracy == 0.5:
        return 0.0
    return _solve(lambda spread: float(_HALF_MASS @ special.expit(spread * _HALF_X)) - accuracy, 0.0, 400.0)


@lru_cache(maxsize=4096)
def _offset(mean: float, spread: float) -> float:
    """The a with E[expit(x + a)] = mean, x ~ N(0, spread^2)."""
    if mean in (0.0, 1.0) or spread == 0:
        return float(special.logit(mean))
    x = spread * _HALF_X

    def excess(a: float) -> float:
        return float(_HALF_MASS @ (special.expit(a + x) + special.expit(a - x))) / 2 - mean

    widest = abs(float(special.logit(mean))) + 1 + spread * _REACH
    return _solve(excess, -widest, widest)


@lru_cache(maxsize=64)
def _beta_bias(win_rate: float, a: float, b: float) -> float:
    """The c with E[min(max(P - c, 0), 1)] = win_rate, P ~ Beta(a, b)."""

    def above(c: float, a: float, b: float) -> float:
        """E[max(P - c, 0)], c >= 0."""
        return float(a / (a + b) * special.betaincc(a + 1, b, c) - c * special.betaincc(a, b, c))

    def excess(c: float) -> float:
        return (above(c, a, b) if c >= 0 else 1 - above(-c, b, a)) - win_rate

    return _solve(excess, -1.0, 1.0)


def _solve(excess: Callable[[float], float], low: float, high: float) -> float:
    return float(optimize.brentq(excess, low, high, xtol=1e-13))


def _untied(mean: float, ties: float) -> float:
    """The mean of what is left of a mean when a share of ties, each worth 1/2, is taken out."""
    # Rounding alone is cut off, so that rates at the edge are the edge.
    return min(max(round((mean - ties / 2) / (1 - ties), 12), 0.0), 1.0)


def _check_rates(win_rate: float, over_promise: float, ties: float) -> None:
    if not 0 <= ties < 1:
        raise ImpossibleWorldError(f"a share of ties of {ties:g} cannot be; give one from 0 to less than 1")
    low, high, rounding = ties / 2, 1 - ties / 2, 1e-12
    within = f"with {ties:g} of ties, from {low:g} to {high:g}" if ties else "from 0 to 1"
    if not low - rounding <= win_rate <= high + rounding:  # NaN fails every comparison
        raise ImpossibleWorldError(f"a win rate of {win_rate:g} cannot be; give one {within}")
    promised = win_rate + over_promise
    if not low - rounding <= promised <= high + rounding:
        raise ImpossibleWorldError(
            f"a win rate of {win_rate:g} and an over-promise of {over_promise:+g} need predictions of {promised:.2f} "
            f"on average, and those lie {within}; {'lower' if promised > high else 'raise'} one of the two"
        )
