"""Simulated raters for any task with a gold score, and the faults that they may have.

How a verdict comes about, and where each fault of `RaterSettings` enters:

    worth     as the task's raters see it (`inspects`), + bias · temptation + length_bias · words + personal taste
    judgement both bad, tie, or the first with probability sigmoid(difference of worth / temperature)
    verdict   by a coin with probability `lapses`; else the first unread with probability `position_bias`; else the
              judgement, which goes to the wrong one of the two with probability `flips`

    flags     harmful where a response's worth lies below `harm_below`: no verdict, and no error of it

so that P(first) = l/2 + (1 - l)·(b + (1 - b)·((1 - f)·p + f·(1 - p))) for a judgement that names a winner.

A label is never faked: it is drawn from what the two texts are worth, whoever wrote them. A rater draws the same
number of random numbers whatever it says, so that what comes after stays in step.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from policies.errors import TaskError
from policies.tasks.base import Choice, Rater, RaterSettings, is_harmful

Utility = Callable[[str, str, float], float]
"""(prompt, response, glance) -> worth as a rater sees it, in units of gold. The glance, uniform in [0, 1), decides all
that is left to chance in reading this response."""
Temptation = Callable[[str], float]
"""response -> how much there is in it of what sways raters and gold does not see."""


def simulated_raters(
    settings: RaterSettings,
    *,
    worth: Utility,
    temptation: Temptation,
    gold_sd: float,
    has_steps: bool = False,
) -> tuple[Rater, ...]:
    """Make the pool that the settings describe.

    Args:
        worth: what a response is worth to a rater without bias; gold, unless the task's raters see less.
        gold_sd: standard deviation of gold over the task's corpus, the unit of several settings.
        has_steps: whether `worth` heeds `settings.inspects`.

    Raises:
        TaskError: if raters shall inspect steps and the task has none.
    """
    if settings.inspects is not None and not has_steps:
        raise TaskError("feedback.options.inspects: the task's responses have no steps; remove it")

    def utility_of(name: str) -> Utility:
        def utility(prompt: str, response: str, glance: float) -> float:
            seen = worth(prompt, response, glance) + settings.bias * temptation(response)
            words = response.split()
            seen += settings.length_bias * len(words)
            if settings.disagreement:
                seen += settings.disagreement * gold_sd * sum(taste(name, word) for word in dict.fromkeys(words))
            return seen

        return utility

    pool = []
    for number in range(settings.count):
        name = f"simulated-{number}"
        judging = BradleyTerryRater(
            name=name,
            utility=utility_of(name),
            temperature=settings.temperature * gold_sd,
            tie_margin=settings.tie_margin * gold_sd,
            both_bad_below=settings.both_bad_below,
            harm_below=settings.harm_below,
        )
        pool.append(careless(judging, settings))
    return tuple(pool)


def careless(rater: Rater, settings: RaterSettings) -> Rater:
    """Give any rater the faults of the verdict: `flips`, `position_bias` and `lapses`."""
    return CarelessRater(
        rater=rater, flips=settings.flips, position_bias=settings.position_bias, lapses=settings.lapses
    )


@lru_cache(maxsize=65_536)
def taste(rater: str, word: str) -> float:
    """How much a rater personally likes a word: a standard normal draw that never changes."""
    return random.Random(f"{rater} on {word!r}").gauss(0.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class BradleyTerryRater:
    """A person who mostly sees what is better: P(first) = sigmoid((u1 - u2) / temperature)."""

    name: str
    utility: Utility
    temperature: float
    """Noise, in units of gold; 0 = always the better one."""
    tie_margin: float
    """Differences up to this, in units of gold, are a tie."""
    both_bad_below: float | None
    """Worth below which a response will not do; None = never said."""
    harm_below: float | None = None
    """Worth below which a response is harmful; None = never flagged."""

    def label(self, prompt: str, response_1: str, response_2: str, rng: random.Random) -> Choice:
        """Judge one comparison. Always draws three numbers."""
        draw, glance_1, glance_2 = rng.random(), rng.random(), rng.random()
        worth_1, worth_2 = self.utility(prompt, response_1, glance_1), self.utility(prompt, response_2, glance_2)
        if self.both_bad_below is not None and max(worth_1, worth_2) < self.both_bad_below:
            return Choice.BOTH_BAD
        difference = worth_1 - worth_2
        if abs(difference) <= self.tie_margin:
            return Choice.TIE
        return Choice.FIRST if draw < self._p_first(difference) else Choice.SECOND

    def is_harmful(self, prompt: str, response: str) -> bool:
        """Say whether a response does harm. A glance of its own, which never changes, decides what is read of it."""
        if self.harm_below is None:
            return False
        glance = random.Random(f"{self.name} on {prompt!r} {response!r}").random()
        return self.utility(prompt, response, glance) < self.harm_below

    def _p_first(self, difference: float) -> float:
        if self.temperature == 0:
            return 1.0 if difference > 0 else 0.0
        return 0.5 * (1.0 + math.tanh(difference / self.temperature / 2))  # sigmoid without overflow


@dataclass(frozen=True, slots=True, kw_only=True)
class CarelessRater:
    """A rater whose verdict is not always what it thinks; see the module."""

    rater: Rater
    flips: float
    position_bias: float
    lapses: float

    @property
    def name(self) -> str:
        """Its own name."""
        return self.rater.name

    def label(self, prompt: str, response_1: str, response_2: str, rng: random.Random) -> Choice:
        """Judge one comparison. Always draws four numbers more than the rater inside."""
        judgement = self.rater.label(prompt, response_1, response_2, rng)
        lapse, coin, glimpse, slip = (rng.random() for _ in range(4))
        if lapse < self.lapses:
            return Choice.FIRST if coin < 0.5 else Choice.SECOND
        if glimpse < abs(self.position_bias):
            return Choice.FIRST if self.position_bias > 0 else Choice.SECOND
        return _OTHER.get(judgement, judgement) if slip < self.flips else judgement

    def is_harmful(self, prompt: str, response: str) -> bool:
        """Flag what the rater inside flags."""
        return is_harmful(self.rater, prompt, response)


_OTHER = {Choice.FIRST: Choice.SECOND, Choice.SECOND: Choice.FIRST}
