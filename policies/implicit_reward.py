"""The reward model that a policy is by itself: β times its log-ratio to a reference (Rafailov et al. 2023).

A policy trained without a reward model still makes promises, and this is how the gate questions them. It has a
leaning of its own: over the policy's responses it is β·KL(policy || reference) on average, over the reference's
-β·KL(reference || policy), so it always expects the policy to win. Only the temperature, fitted to labels that
trained nothing, says by how much.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from policies import language_model
from policies.batch import TokenBatch
from policies.errors import ModelFolderError, NonFiniteError
from policies.language_model import LanguageModel
from policies.reward_model import Scores

RECORD_FILE = "implicit_reward.json"

_CHUNK = 64
"""Prompts a forward pass without gradients."""


@dataclass(frozen=True)
class ImplicitReward:
    """r(x, y) = β·(log π(y|x) - log π_ref(y|x)), whole responses, in the unit that normalising gave it.

    Responses come as text, since text is what people compared: they are turned into tokens again and closed with
    the end-of-sequence token. A text that the policy drew in other tokens, or that was cut off, is thus scored by
    the log-probability of its usual spelling, ended.
    """

    policy: LanguageModel
    reference: LanguageModel
    """Tokenizes as the policy does."""
    beta: float
    """Reward units a nat, before normalising."""
    temperature: float = 1.0
    """Reward differences, before normalising, that one logit of preference takes; DPO's own theory says 1."""
    mean: float = 0.0
    """Reward, before normalising, that counts as 0."""
    sd: float = 1.0
    """Reward, before normalising, that counts as 1 unit."""

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        """Reward B responses; one member, whose raw unit is the reward before normalising.

        Raises:
            NonFiniteError: if a reward is NaN or infinite.
        """
        logp_B = sequence_logp(self.policy, prompts, responses)
        ref_logp_B = sequence_logp(self.reference, prompts, responses)
        raw_B = self.beta * (logp_B - ref_logp_B)
        if not bool(raw_B.isfinite().all()):
            raise NonFiniteError("the implicit reward is not finite; lower phase.learning_rate and try again")
        return Scores((raw_B - self.mean) / self.sd, raw_B.unsqueeze(0))

    def logit(self, difference_B: Tensor) -> Tensor:
        """Turn differences of normalised rewards into logits of preference."""
        return difference_B * (self.sd / self.temperature)

    def normalised(self, prompts: Sequence[str], responses: Sequence[str]) -> "ImplicitReward":
        """Give the same reward with these responses at mean 0 and standard deviation 1.

        Where all responses are alike the unit stays as it was.
        """
        raw_B = replace(self, mean=0.0, sd=1.0).score(prompts, responses).aggregate_B
        sd = float(raw_B.std()) if len(raw_B) > 1 else 0.0
        return replace(self, mean=float(raw_B.mean()), sd=sd if sd > 1e-6 else 1.0)

    def save(self, out_dir: Path) -> None:
        """Write what is not in the two policies' own folders (JSON); same reward, same bytes."""
        out_dir.mkdir(parents=True, exist_ok=True)
        record = {"beta": self.beta, "temperature": self.temperature, "mean": self.mean, "sd": self.sd}
        (out_dir / RECORD_FILE).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")


def load(path: Path | str, policy: LanguageModel, reference: LanguageModel) -> ImplicitReward:
    """Open a saved implicit reward around the two policies that it was saved for.

    Raises:
        ModelFolderError: if the folder does not hold one.
    """
    folder = Path(path)
    try:
        return ImplicitReward(policy, reference, **json.loads((folder / RECORD_FILE).read_text()))
    except (OSError, TypeError, ValueError) as error:
        raise ModelFolderError(f"{folder} does not open as an implicit reward: {error}") from error


@torch.no_grad()
def sequence_logp(policy: LanguageModel, prompts: Sequence[str], responses: Sequence[str]) -> Tensor:
    """Log-probability of each response, the same number to each prompt, side by side; nats, float32 [B]."""
    each = len(responses) // max(len(prompts), 1)
    chunks = [
        batch_logp(policy, policy.batch(prompts[at : at + _CHUNK], responses[at * each : (at + _CHUNK) * each]))
        for at in range(0, len(prompts), _CHUNK)
    ]
    return torch.cat(chunks) if chunks else torch.zeros(0, device=policy.device)


def batch_logp(policy: LanguageModel, batch: TokenBatch) -> Tensor:
    """Log-probability of each response of a batch, summed over its tokens; nats, float32 [B]. Differentiable."""
    logits_NV = policy.outputs(batch).logits_NV
    return batch.spread(language_model.token_logp(logits_NV, batch.response_ids_N)).sum(dim=1)
