"""What a policy can be asked to do: the protocol that every task, built in or plugged in, fulfils.

Pure Python, no torch: raters and gold scorers run wherever a text can be read.
"""

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol, runtime_checkable

from policies.errors import TaskError


class Split(StrEnum):
    """Where a prompt may be used. A prompt's text alone decides, so no two uses can ever meet."""

    TRAIN = "train"
    """RL phases."""
    LABEL = "label"
    """Comparisons that train reward models."""
    GATE = "gate"
    """Comparisons that judge candidates; each prompt serves once."""
    EVALUATE = "evaluate"
    """Gold curves, which steer nothing."""
    NORMALISE = "normalise"
    """Samples of the approved policy that fix a reward model's zero and unit."""


SPLIT_PERCENT: dict[Split, int] = {
    Split.TRAIN: 25,
    Split.LABEL: 25,
    Split.GATE: 35,
    Split.EVALUATE: 10,
    Split.NORMALISE: 5,
}
"""Share of a task's prompts that falls to each split; sums to 100."""


def split_of(prompt: str) -> Split:
    """Say which split a prompt belongs to, by the hash of its text."""
    bucket = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big") % 100
    for split, percent in SPLIT_PERCENT.items():
        if bucket < percent:
            return split
        bucket -= percent
    raise AssertionError("SPLIT_PERCENT does not sum to 100")


class Choice(StrEnum):
    """One rater's verdict on a comparison."""

    FIRST = "first"
    SECOND = "second"
    TIE = "tie"
    BOTH_BAD = "both_bad"
    """Neither would do. Counts as half, like a tie, and can veto."""

    @property
    def target(self) -> float:
        """Share of the preference that goes to the first response: 1, 0 or ½."""
        return {Choice.FIRST: 1.0, Choice.SECOND: 0.0}.get(self, 0.5)


@dataclass(frozen=True, slots=True)
class Example:
    """One prompt with one response, of the text a base model is grown on."""

    prompt: str
    response: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RaterSettings:
    """How simulated raters err: `feedback.options` of a campaign file. All zero = as gold says, without an error.

    Faults of judgement change what a response seems worth; faults of the verdict (`flips`, `position_bias`,
    `lapses`) change what is said of it.

    Raises:
        TaskError: naming the option that is out of its range.
    """

    count: int = 1
    """Raters in the pool; who labels an item goes round."""
    temperature: float = 0.5
    """Noise of the Bradley-Terry choice, in standard deviations of gold over the corpus; 0 = no noise."""
    tie_margin: float = 0.0
    """Differences up to this size (in the same unit), as the rater sees them, are called a tie."""
    both_bad_below: float | None = None
    """Worth below which a response will not do; both below = both bad. None: raters never say so."""
    harm_below: float | None = None
    """Worth below which a response is flagged as harmful, whatever the verdict. None: raters never flag any."""
    bias: float = 0.0
    """Gold units by which the task's own temptation (flattery, say) sways raters, and gold does not see."""
    length_bias: float = 0.0
    """Gold units that each word of a response is worth to raters, whatever it says; negative = they like it short."""
    disagreement: float = 0.0
    """How far tastes differ: each rater of the pool has a personal liking for every word, drawn once and for all with
    this standard deviation (in those of gold), and pays it where the word occurs."""
    inspects: int | None = None
    """Steps of a response that a rater looks into, where the task has steps; None = all."""
    flips: float = 0.0
    """Probability that a verdict for one of the two is given to the other by mistake."""
    position_bias: float = 0.0
    """Probability of taking the response shown first unread; negative = the second."""
    lapses: float = 0.0
    """Probability of answering by the toss of a coin, whatever is shown."""

    def __post_init__(self) -> None:
        for name, kind, least, most, words in _RANGES:
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            fits = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
            if not fits or not least <= value <= most or math.isinf(value):
                raise TaskError(f"feedback.options.{name}: {value!r} will not do; give {words}")


_OPTIONAL: Final = frozenset({"both_bad_below", "harm_below", "inspects"})
_RANGES: Final[tuple[tuple[str, type, float, float, str], ...]] = (
    ("count", int, 1, math.inf, "a whole number of 1 or more"),
    ("temperature", float, 0, math.inf, "a number of 0 or more"),
    ("tie_margin", float, 0, math.inf, "a number of 0 or more"),
    ("both_bad_below", float, -math.inf, math.inf, "a number, or leave it out"),
    ("harm_below", float, -math.inf, math.inf, "a number, or leave it out"),
    ("bias", float, -math.inf, math.inf, "a number"),
    ("length_bias", float, -math.inf, math.inf, "a number"),
    ("disagreement", float, 0, math.inf, "a number of 0 or more"),
    ("inspects", int, 0, math.inf, "a whole number of 0 or more, or leave it out"),
    ("flips", float, 0, 1, "a probability, 0 to 1"),
    ("position_bias", float, -1, 1, "-1 to 1"),
    ("lapses", float, 0, 1, "a probability, 0 to 1"),
)
"""Option, type, least and greatest value, and the range in words."""


class Rater(Protocol):
    """Whoever labels: here, a simulation of a person.

    One more member may be there, and is read by the function `is_harmful` below: `is_harmful(prompt, response)`.
    """

    @property
    def name(self) -> str:
        """Who this is, as labels record it."""
        ...

    def label(self, prompt: str, response_1: str, response_2: str, rng: random.Random) -> Choice:
        """Judge one comparison; all randomness comes from `rng`."""
        ...


def is_harmful(rater: Rater, prompt: str, response: str) -> bool:
    """Say whether a rater flags a response as harmful; `Rater.is_harmful`, or no."""
    flags = getattr(rater, "is_harmful", None)
    return flags is not None and bool(flags(prompt, response))


@runtime_checkable
class Task(Protocol):
    """Prompts with a purpose. A plug-in class that has these members serves wherever a built-in task does.

    Three more members may be there, and are read by the functions below: `has_gold`, `bpe_vocabulary` and
    `probe_prompts`.
    """

    kind: str

    def corpus(self, seed: int) -> list[Example]:
        """Give text to grow a base model on.

        Raises:
            TaskError: if the task brings no corpus (then the base must be an existing model).
        """
        ...

    def prompts(self, split: str, count: int, seed: int) -> list[str]:
        """Give `count` different prompts of a split in an order that `seed` fixes.

        A shorter list is a prefix of a longer one of the same seed, so that a queue can be read on.

        Raises:
            PromptsExhaustedError: if the split has fewer.
        """
        ...

    def prompt_capacity(self, split: str) -> int | None:
        """Count the prompts of a split; None = no limit."""
        ...

    def gold(self, prompt: str, response: str) -> float:
        """Score a response by an evaluator better than the raters; higher is better. Trains nothing, ever."""
        ...

    def raters(self, settings: RaterSettings) -> Sequence[Rater]:
        """Make simulated raters.

        Raises:
            TaskError: if the task cannot simulate them.
        """
        ...


def has_gold(task: Task) -> bool:
    """Say whether the task can score responses; `Task.has_gold`, or yes."""
    return bool(getattr(task, "has_gold", True))


def bpe_vocabulary(task: Task) -> int | None:
    """Say how a seedling's tokenizer cuts the task's texts; `Task.bpe_vocabulary`, or None.

    None = into whole words, for a closed vocabulary. A number = by a byte-level BPE of that many tokens.
    """
    return getattr(task, "bpe_vocabulary", None)


def probe_prompts(task: Task, split: str, count: int, seed: int) -> list[str] | None:
    """Give probes for what a policy goes by; `Task.probe_prompts(split, count, seed)`, or None where it has none.

    The i-th probe is the i-th of `Task.prompts(split, count, seed)` with a cue changed that ought not to matter, so
    that gold on both can be compared in pairs. No probe is a prompt of any split: none is ever trained on.
    """
    make = getattr(task, "probe_prompts", None)
    return None if make is None else make(split, count, seed)
