"""Where over-credit comes from: the reward model, the raters, or ground that neither of them saw.

One scale: the probability that the candidate's response beats the approved policy's. On it P is what the reward model
promises, H what the rater population says, G what a better evaluator says, and

    P - G = (P - H) + (H - G): the reward model against the raters (b), the raters against the better evaluator (a).

Positive is over-credit. Off distribution (c) is apart: the better evaluator's win rate on ordinary prompts less that
on probes. The gate sees b alone; it is blind to a and c by construction, which is why they are estimated here.

The samples are nested. The reward model predicted all N pairs of a queue in random order (f), raters judged the first
n of them (Y), an auditor a random m of those n (Z), drawn before the labels. Every mean is refined by the larger
sample of the cheaper evaluator (a control variate; prediction-powered inference), twice in a chain:

    P = mean_N f        H = mean_n Y + λ (P - mean_n f)        G = mean_m Z + μ (H - mean_m Y).

PPI++ (Angelopoulos, Duchi and Zrnic 2023, arXiv 2311.01453) has the N predictions independent of the n labelled items,
whence λ = Cov(Y, f) / ((1 + n/N) Var f) and the variance Var(Y - λf)/n + λ² Var f/N. Here the labelled items are among
the N, so that mean_n Y and P share them: with items independent,

    Var H = Var Y/n - (1/n - 1/N)(2λ Cov(Y, f) - λ² Var f),

least at λ = Cov(Y, f)/Var f, whatever N; there it is (1 - ρ²) Var Y/n + ρ² Var Y/N. (It is PPI++ on the N - n others,
to the letter: P - mean_n f = (1 - n/N)(mean of the others - mean_n f), so PPI++'s λ is this one times 1 - n/N, and
Cov/((1 + n/(N - n)) Var f) is just that.) μ = Cov(Z, Y)/Var Y likewise; it is the best of its kind where f tells of Z
through Y alone. Both are cut to [0, 1]: at 1, b is the mean over pairs of f - Y and a that of Y - Z; at 0, each mean
stands alone; in between, the difference varies less than either.

The differences' variances need no formula of their own. Each figure is a sum over independent items, so each item's
pull on it is written down, figures add and subtract pull by pull, and the variance is the sum of squares: whatever two
figures share, P, H and G among them, is counted once and with its sign.

The 95% intervals describe, they do not test: the queue stopped when the gate had seen enough, a time that depends on
the labels. That leans the means towards the verdict. In four worlds simulated with the gate's defaults and 100 audits
it was by .012 at most (b too small after advances, too large after rollbacks, a the other way), and the intervals
covered 91 to 96%. Nothing here gates anything.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from scipy import special

from orchestrator.core.agreement import Z_95, Floats, Ints
from orchestrator.core.records import Count, Record

LEAST_ITEMS: Final = 3
"""Fewer leave nothing to tell a slope from noise with."""
ROUNDING: Final = 1e-24
"""Sum of squares about the mean that equal values may show, their mean being off by a last bit."""


class Cause(StrEnum):
    RATERS = "raters"
    """(a) Raters prefer what a better evaluator does not."""
    REWARD_MODEL = "reward_model"
    """(b) The reward model promises what raters do not find."""
    OFF_DISTRIBUTION = "off_distribution"
    """(c) What is better on ordinary prompts is less so on probes."""


class Estimate(Record):
    """A difference of two win probabilities, in [-1, 1], with its 95% interval."""

    mean: float
    low: float
    high: float
    items: Count
    """Of the dearest evaluator that the figure rests on."""


class Attribution(Record):
    """How much more was credited than a better evaluator grants, and by whom. Positive is over-credit."""

    over_credit: Estimate | None
    """P - G. `reward_model` and `raters` add up to it, but where one was cut to [-1, 1]."""
    reward_model: Estimate | None
    """(b) P - H."""
    raters: Estimate | None
    """(a) H - G."""
    off_distribution: Estimate | None
    """(c) The better evaluator's win rate in distribution less that on probes."""
    without_verdict: Count
    """Items that came up and that no rater judged; left out, so that H and G speak of the others alone."""
    unknown: tuple[str, ...]
    """For each figure that is missing, a sentence that says why."""
    causes: tuple[Cause, ...]
    """Those whose whole interval lies above the margin, largest first."""


def attribute(
    p_hat: Sequence[float],
    outcomes: Sequence[float | None],
    audited: Mapping[int, float],
    *,
    probes: Estimate | None = None,
    margin: float = 0.0,
) -> Attribution:
    """Estimate what can be from one verdict's evidence; what cannot is None, with a reason.

    Args:
        p_hat: the reward model's probabilities for all N pairs, in queue order; empty where none took part.
        outcomes: raters' outcomes for the candidate, in [0, 1], of the queue's first items; None where an item came
            up and nobody gave a verdict.
        audited: by place in the queue, the better evaluator's outcomes, in [0, 1]. Which places is
            settled before the labels, at random; the front of a queue in random order will do. An item that no rater
            judged counts for nothing.
        probes: what `off_distribution` made of the probes.
        margin: in [0, 1]; over-credit that is not yet called a cause.

    Raises:
        ValueError: a number is out of its range or NaN, more outcomes than predictions, or an audited item that
            never came up.
    """
    if not 0 <= margin <= 1:
        raise ValueError(f"margin must be in [0, 1], not {margin}")
    if len(p_hat) and len(outcomes) > len(p_hat):
        raise ValueError(f"{len(outcomes)} outcomes, but the reward model predicted {len(p_hat)} pairs only")
    if strange := [place for place in audited if not 0 <= place < len(outcomes)]:
        raise ValueError(f"audited items {strange} are not among the {len(outcomes)} that came up")
    items = max(len(p_hat), len(outcomes))
    f_N = _probabilities(p_hat, "p_hat")
    _probabilities(list(audited.values()), "audited")
    labels = {place: outcome for place, outcome in enumerate(outcomes) if outcome is not None}
    audits = {place: audited[place] for place in labels if place in audited}
    labelled_n, audited_m = np.array(list(labels), dtype=np.int64), np.array(list(audits), dtype=np.int64)
    y_n = _probabilities(list(labels.values()), "outcomes")
    z_m = np.array(list(audits.values()), dtype=np.float64)
    y_m = np.array([labels[place] for place in audits], dtype=np.float64)

    promised = Figure.mean_of(f_N, np.arange(len(f_N)), items) if len(f_N) >= LEAST_ITEMS else None
    rated = granted = None
    if len(y_n) >= LEAST_ITEMS:
        rated = Figure.mean_of(y_n, labelled_n, items)
        if promised is not None:
            rated = refined_mean(y_n, f_N[labelled_n], labelled_n, promised)
        if len(z_m) >= LEAST_ITEMS:
            granted = refined_mean(z_m, y_m, audited_m, rated)

    reward_model = _difference(promised, rated, len(y_n))
    raters = _difference(rated, granted, len(z_m))
    parts = {Cause.RATERS: raters, Cause.REWARD_MODEL: reward_model, Cause.OFF_DISTRIBUTION: probes}
    found = [
        (estimate.mean, cause) for cause, estimate in parts.items() if estimate is not None and estimate.low > margin
    ]
    return Attribution(
        over_credit=_difference(promised, granted, len(z_m)),
        reward_model=reward_model,
        raters=raters,
        off_distribution=probes,
        without_verdict=len(outcomes) - len(y_n),
        unknown=_unknown(
            no_model=None if len(f_N) else "no reward model took part",
            few_labels=_too_few(len(y_n), "raters judged"),
            few_audits=_too_few(len(z_m), "of what raters judged, the better evaluator saw")
            if audited
            else "nobody better than the raters looked",
            no_probes=None if probes is not None else "no probes, or too few, were compared",
        ),
        causes=tuple(cause for _, cause in sorted(found, reverse=True)),
    )


def off_distribution(win_in_distribution_N: Sequence[float], win_on_probe_N: Sequence[float]) -> Estimate | None:
    """(c): how much of the candidate's advantage is lost where a cue of the prompt is swapped.

    Outcomes of candidate against approved by the better evaluator, in {0, 1/2, 1}; the i-th probe is the i-th prompt
    with its cue swapped, and the interval is that of the mean over these pairs. None below `LEAST_ITEMS` pairs.

    c is identified relative to the probe set only: it says nothing of a shift that no probe makes, and a probe that
    makes the task itself harder for everybody moves it as well.

    Raises:
        ValueError: the lists differ in length, or an outcome is out of [0, 1].
    """
    if len(win_in_distribution_N) != len(win_on_probe_N):
        raise ValueError(f"{len(win_in_distribution_N)} prompts, but {len(win_on_probe_N)} probes; they come in pairs")
    lost_N = _probabilities(win_in_distribution_N, "outcomes") - _probabilities(win_on_probe_N, "outcomes on probes")
    items = len(lost_N)
    return Figure.mean_of(lost_N, np.arange(items), items).estimate(items) if items >= LEAST_ITEMS else None


# --- means and what each item pulls them by ---------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Figure:
    """An estimate that is a sum over N independent items."""

    mean: float
    pull_N: Floats
    """What each item adds to the estimate beyond its expectation; the squares sum to the estimate's variance."""

    @classmethod
    def mean_of(cls, value_n: Floats, place_n: Ints, items: int) -> "Figure":
        """Plain mean of the values at two or more of the `items` places."""
        mean, count = value_n.mean(), len(value_n)
        pull_N = np.zeros(items)
        pull_N[place_n] = (value_n - mean) / math.sqrt(count * (count - 1))
        return cls(float(mean), pull_N)

    def __add__(self, other: "Figure") -> "Figure":
        return Figure(self.mean + other.mean, self.pull_N + other.pull_N)

    def __sub__(self, other: "Figure") -> "Figure":
        return self + other * -1.0

    def __mul__(self, factor: float) -> "Figure":
        return Figure(self.mean * factor, self.pull_N * factor)

    @property
    def variance(self) -> float:
        return float(self.pull_N @ self.pull_N)

    def estimate(self, count: int) -> Estimate:
        """With its 95% interval, cut to [-1, 1]; `count` is the size of the smallest sample in it.

        Normal, with two cares for small samples. Student's quantile at count - 2 degrees of freedom, for a mean and a
        slope (at ten audits it covers about 94%, the normal quantile 89%). And never narrower than Wilson's interval
        for an event of size 1 that was not seen once, z²/(count + z²): ten audits that all agree do not prove that
        raters never err.
        """
        student = float(special.stdtrit(count - 2, 0.975))
        half = max(student * math.sqrt(self.variance), Z_95**2 / (count + Z_95**2))
        mean, low, high = np.clip([self.mean, self.mean - half, self.mean + half], -1.0, 1.0).tolist()
        return Estimate(mean=mean, low=low, high=high, items=count)


def refined_mean(
    truth_n: Floats, proxy_n: Floats, place_n: Ints, proxy_mean: Figure, power: float | None = None
) -> Figure:
    """Mean of the truth, seen at n places, refined by a proxy whose mean is known better than from these places.

    mean_n truth + power (proxy_mean - mean_n proxy); `power` is `tuned_power` where not given, and 0 is the plain mean.
    """
    if power is None:
        power = tuned_power(truth_n, proxy_n)
    items = len(proxy_mean.pull_N)
    shift = proxy_mean - Figure.mean_of(proxy_n, place_n, items)
    return Figure.mean_of(truth_n, place_n, items) + shift * power


def tuned_power(truth_n: Floats, proxy_n: Floats) -> float:
    """Cov(truth, proxy)/Var(proxy), cut to [0, 1].

    1 where the proxy did not vary: nothing is known of the slope then, and the difference of proxy and truth is best
    taken pair by pair.
    """
    away_n = proxy_n - proxy_n.mean()
    spread = float(away_n @ away_n)
    return min(max(float(away_n @ truth_n) / spread, 0.0), 1.0) if spread > ROUNDING else 1.0


def _difference(more: Figure | None, less: Figure | None, count: int) -> Estimate | None:
    return None if more is None or less is None else (more - less).estimate(count)


def _probabilities(values: Sequence[float], what: str) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if not ((array >= 0) & (array <= 1)).all():
        raise ValueError(f"{what} must be in [0, 1]")
    return array


def _too_few(items: int, deed: str) -> str | None:
    number = {0: "no items", 1: "one item"}.get(items, f"{items} items")
    return f"{deed} {number}, fewer than {LEAST_ITEMS}" if items < LEAST_ITEMS else None


def _unknown(
    *, no_model: str | None, few_labels: str | None, few_audits: str | None, no_probes: str | None
) -> tuple[str, ...]:
    """A sentence for each figure that one of these reasons, or None, leaves missing."""
    reasons = {
        "Over-credit": no_model or few_labels or few_audits,
        "The reward model's part": no_model or few_labels,
        "The raters' part": few_labels or few_audits,
        "The part off distribution": no_probes,
    }
    return tuple(f"{figure} is unknown: {reason}." for figure, reason in reasons.items() if reason is not None)
