"""Simulated raters for any task with a gold score."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from policies.tasks.base import Choice


@dataclass(frozen=True, slots=True, kw_only=True)
class BradleyTerryRater:
    """A person who mostly sees what is better: P(first) = sigmoid((u1 - u2) / temperature).

    Never faked: the label is drawn from what the two texts are worth, whoever wrote them.
    """

    name: str
    utility: Callable[[str, str], float]
    """(prompt, response) -> worth as this rater sees it, in units of gold."""
    temperature: float
    """Noise, in units of gold; 0 = always the better one."""
    tie_margin: float
    """Differences up to this, in units of gold, are a tie."""
    both_bad_below: float | None
    """Worth below which a response will not do; None = never said."""

    def label(self, prompt: str, response_1: str, response_2: str, rng: random.Random) -> Choice:
        """Judge one comparison. Always draws one number, so that rng stays in step whatever the verdict."""
        draw = rng.random()
        worth_1, worth_2 = self.utility(prompt, response_1), self.utility(prompt, response_2)
        if self.both_bad_below is not None and max(worth_1, worth_2) < self.both_bad_below:
            return Choice.BOTH_BAD
        difference = worth_1 - worth_2
        if abs(difference) <= self.tie_margin:
            return Choice.TIE
        return Choice.FIRST if draw < self._p_first(difference) else Choice.SECOND

    def _p_first(self, difference: float) -> float:
        if self.temperature == 0:
            return 1.0 if difference > 0 else 0.0
        return 0.5 * (1.0 + math.tanh(difference / self.temperature / 2))  # sigmoid without overflow
