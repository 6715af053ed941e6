"""What a policy can be asked to do: the protocol that every task, built in or plugged in, fulfils.

Pure Python, no torch: raters and gold scorers run wherever a text can be read.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable


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
    """How simulated raters err."""

    count: int = 1
    temperature: float = 0.5
    """Noise of the Bradley-Terry choice, in standard deviations of gold over the corpus; 0 = no noise."""
    tie_margin: float = 0.0
    """Gold differences up to this size (in the same unit) are called a tie."""
    both_bad_below: float | None = None
    """Gold below which a response will not do; both below = both bad. None: raters never say so."""
    bias: float = 0.0
    """Gold units by which the task's own temptation (flattery, say) sways raters, and gold does not see."""


class Rater(Protocol):
    """Whoever labels: here, a simulation of a person."""

    @property
    def name(self) -> str:
        """Who this is, as labels record it."""
        ...

    def label(self, prompt: str, response_1: str, response_2: str, rng: random.Random) -> Choice:
        """Judge one comparison; all randomness comes from `rng`."""
        ...


@runtime_checkable
class Task(Protocol):
    """Prompts with a purpose. A plug-in class that has these members serves wherever a built-in task does.

    Two more members may be there, and are read by the functions below: `has_gold` and `bpe_vocabulary`.
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
