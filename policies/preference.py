"""What a reward promises about two policies' responses, for the gate to hold against labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from torch import Tensor

from policies.reward_model import Scores


class Scorer(Protocol):
    """A reward that the gate can question: a `RewardModel`, or a policy's `ImplicitReward`."""

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        """Reward B responses."""
        ...

    def logit(self, difference_B: Tensor) -> Tensor:
        """Turn differences of `Scores.aggregate_B` into logits of preference."""
        ...

    def normalised(self, prompts: Sequence[str], responses: Sequence[str]) -> Self:
        """Give the same reward with these responses at mean 0 and standard deviation 1."""
        ...

    def save(self, out_dir: Path) -> None:
        """Write what the loader of its kind reads; same reward, same bytes."""
        ...


@dataclass(frozen=True, slots=True)
class Promise:
    """A reward's opinion on one pair, fixed before the first label is asked."""

    delta_reward: float
    """Candidate's reward minus the approved policy's, in normalised units."""
    p_candidate: float
    """Predicted probability that people prefer the candidate's response, in [0, 1]; a tie counts ½."""


def promises(
    scorer: Scorer, prompts: Sequence[str], candidate: Sequence[str], approved: Sequence[str]
) -> list[Promise]:
    """Predict each pair of responses to the same prompt."""
    reward_candidate_B = scorer.score(prompts, candidate).aggregate_B
    reward_approved_B = scorer.score(prompts, approved).aggregate_B
    delta_B = reward_candidate_B - reward_approved_B
    p_B = scorer.logit(delta_B).sigmoid()
    return [Promise(delta, p) for delta, p in zip(delta_B.tolist(), p_B.tolist(), strict=True)]
