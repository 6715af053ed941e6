"""Film reviews by a sentiment lexicon that ten people a word have rated: a gold scorer, and raters made of them.

Made for the VADER lexicon (Hutto and Gilbert 2014, MIT licence), which is not part of this project: each line
holds a token, the mean and the standard deviation of ten people's scores from -4 to 4, and the ten scores.

What a continuation is worth, to gold and to a rater alike, is how good it sounds less how cluttered it is:

    worth = s / sqrt(s² + 15) - 2 · clutter,     s = sum of the scores of the different rated words in it

The first term is VADER's own, so praise saturates; a word said twice is counted once. Clutter is what no reviewer
writes: see `clutter`. Gold takes each word's mean score. A simulated rater draws each word's score from the ten that
real people gave, so how much raters err, and on which words, is those people's doing and no setting of ours.
"""

import json
import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from policies.errors import TaskError
from policies.tasks.base import Choice, Rater, RaterSettings
from policies.tasks.raters import careless
from policies.tasks.text_files import read_lines

LEXICON: Final = "lexicon"
SATURATION: Final = 15.0
"""VADER's normalising constant: a sum of scores of its root, 3.9, gives 0.71 of the most there is."""
TOLERATED: Final = 1 / 3
"""Share of a text that may be repetitions, and likewise rated words, before it reads as clutter. Of the film-review
sentences that this was made for, 3 in 100 have more of one."""
CLUTTER_WEIGHT: Final = 2.0
SAYS_NOTHING: Final = -1.0
"""Worth of a continuation without any word."""
PEOPLE: Final = 10
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


def words_of(text: str) -> list[str]:
    """Give the words of a text in lower case, without digits and punctuation; don't and hard-hitting are one word."""
    return [word.lower().replace("’", "'") for word in _WORD.findall(text)]


def clutter(words: Sequence[str], is_rated: Callable[[str], bool]) -> float:
    """Say by how much a text repeats itself and piles up sentiment, beyond what is tolerated; 0 to 4/3."""
    repeated = 1 - len(set(words)) / len(words)
    rated = sum(map(is_rated, words)) / len(words)
    return max(repeated - TOLERATED, 0.0) + max(rated - TOLERATED, 0.0)


def saturated(score_sum: float) -> float:
    """Bring a sum of scores into -1 to 1."""
    return score_sum / math.sqrt(score_sum**2 + SATURATION)


@dataclass(frozen=True, slots=True)
class Rating:
    """What ten people thought of one word."""

    mean: float
    sd: float
    """Population standard deviation of the scores."""
    scores: tuple[int, ...]


class Sentiment:
    """Gold scorer and raters in one; give it as both plug-ins of task `text`, with `task.files.lexicon`."""

    def __init__(self, *, files: Mapping[str, str]) -> None:
        """Read the lexicon."""
        if LEXICON not in files:
            raise TaskError("sentiment: needs a lexicon; give --set task.files.lexicon=FILE")
        self.lexicon = read_lexicon(Path(files[LEXICON]))

    def gold(self, prompt: str, response: str) -> float:
        """Say what the response is worth by the mean scores; the prompt has no part in it."""
        return self.worth(response, lambda word: self.lexicon[word].mean)

    def worth(self, response: str, score: Callable[[str], float]) -> float:
        """Say what a response is worth to somebody who gives its rated words these scores."""
        words = words_of(response)
        if not words:
            return SAYS_NOTHING
        score_sum = sum(score(word) for word in dict.fromkeys(words) if word in self.lexicon)
        return saturated(score_sum) - CLUTTER_WEIGHT * clutter(words, self.lexicon.__contains__)

    def raters(self, settings: RaterSettings) -> Sequence[Rater]:
        """Make raters; faults of the verdict come on top of the people's differences.

        Raises:
            TaskError: for a setting that would add noise or bias of our own to the people's.
        """
        usual = RaterSettings()
        for name in ("temperature", "tie_margin", "bias", "length_bias", "disagreement", "inspects"):
            if getattr(settings, name) != getattr(usual, name):
                raise TaskError(f"sentiment: raters err as the lexicon's people do; remove feedback.options.{name}")
        return tuple(
            careless(
                LexiconRater(name=f"reader-{number}", sentiment=self, both_bad_below=settings.both_bad_below), settings
            )
            for number in range(settings.count)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LexiconRater:
    """A reader who feels about each word as one of its ten people did, another one at each comparison."""

    name: str
    sentiment: Sentiment
    both_bad_below: float | None

    def label(self, prompt: str, response_1: str, response_2: str, rng: random.Random) -> Choice:
        """Judge one comparison; a word in both responses gets one score. Equal worth is a tie."""
        lexicon = self.sentiment.lexicon
        rated = sorted({word for word in [*words_of(response_1), *words_of(response_2)] if word in lexicon})
        felt = {word: float(rng.choice(lexicon[word].scores)) for word in rated}
        worth_1 = self.sentiment.worth(response_1, felt.__getitem__)
        worth_2 = self.sentiment.worth(response_2, felt.__getitem__)
        if self.both_bad_below is not None and max(worth_1, worth_2) < self.both_bad_below:
            return Choice.BOTH_BAD
        if math.isclose(worth_1, worth_2, abs_tol=1e-9):
            return Choice.TIE
        return Choice.FIRST if worth_1 > worth_2 else Choice.SECOND


def read_lexicon(path: Path) -> dict[str, Rating]:
    """Read token, mean, standard deviation and ten scores a line; of a token given twice the last line counts.

    Raises:
        TaskError: naming file and row.
    """
    lexicon = {}
    for row, line in read_lines(path):
        cells = line.split("\t")
        try:
            token, mean, sd, scores = cells[0], float(cells[1]), float(cells[2]), tuple(json.loads(cells[3]))
        except (IndexError, ValueError, TypeError, RecursionError) as error:
            raise TaskError(f"{path}, row {row}: expected token, mean, deviation and scores, tab-separated") from error
        if len(scores) != PEOPLE or not all(type(score) is int and -4 <= score <= 4 for score in scores):
            raise TaskError(f"{path}, row {row}: {token[:40]!r} needs {PEOPLE} whole scores from -4 to 4")
        if not (math.isfinite(mean) and math.isfinite(sd)):
            raise TaskError(f"{path}, row {row}: {token[:40]!r} has a mean or deviation that is not finite")
        lexicon[token] = Rating(mean, sd, scores)
    if not lexicon:
        raise TaskError(f"{path}: an empty lexicon")
    return lexicon
