"""What a reward model promises about two policies' responses, for the gate to hold against labels."""

from collections.abc import Sequence
from dataclasses import dataclass

from policies.reward_model import RewardModel


@dataclass(frozen=True, slots=True)
class Promise:
    """The reward model's opinion on one pair, fixed before the first label is asked."""

    delta_reward: float
    """Candidate's reward minus the approved policy's, in normalised units."""
    p_candidate: float
    """Predicted probability that people prefer the candidate's response, in [0, 1]; a tie counts ½."""


def promises(
    reward_model: RewardModel, prompts: Sequence[str], candidate: Sequence[str], approved: Sequence[str]
) -> list[Promise]:
    """Predict each pair of responses to the same prompt."""
    reward_candidate_B = reward_model.score(prompts, candidate).aggregate_B
    reward_approved_B = reward_model.score(prompts, approved).aggregate_B
    delta_B = reward_candidate_B - reward_approved_B
    p_B = reward_model.logit(delta_B).sigmoid()
    return [Promise(delta, p) for delta, p in zip(delta_B.tolist(), p_B.tolist(), strict=True)]
