"""A rater plug-in for tests: it has an opinion where labels train, and none where they judge.

Every gate comparison is a tie, so at an alpha near one the hold test (`advance: once`) passes after some seventy
labels, whatever the policy learned: the outcome of a campaign does not hang on numerics.
"""

import random

from policies.tasks.base import Choice, Split, split_of


class SplitRater:
    name = "splitter"

    def label(self, prompt: str, response_1: str, response_2: str, rng: random.Random) -> Choice:
        if split_of(prompt) is Split.GATE:
            return Choice.TIE
        if len(response_1) == len(response_2):
            return Choice.FIRST if rng.random() < 0.5 else Choice.SECOND
        return Choice.FIRST if len(response_1) < len(response_2) else Choice.SECOND
