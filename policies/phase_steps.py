"""What every phase loop does at a step, whatever it learns from: take prompts, decide whether to go on, take notes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from policies import kl, stopping
from policies.learner import Seen
from policies.phase_records import PhaseFailedError, PhaseSettings, Spent, StepRecord, StoppedBy
from policies.rng import derive_seed, generator
from policies.sampler import Samples
from policies.stopping import Shown


@dataclass(frozen=True, slots=True)
class PromptOrder:
    """A phase's prompts in the order in which they are used, again and again if they run out."""

    prompts: tuple[str, ...]
    each: int
    """Prompts a step."""

    @classmethod
    def drawn(cls, prompts: Sequence[str], each: int, seed: int) -> "PromptOrder":
        """Put them into an order that the phase's `seed` fixes.

        Raises:
            ValueError: if there are none.
        """
        if not prompts:
            raise ValueError("a phase needs prompts")
        order = torch.randperm(len(prompts), generator=generator(derive_seed(seed, "prompts")))
        return cls(tuple(prompts[row] for row in order.tolist()), each)

    def of_step(self, step: int) -> list[str]:
        """Give the prompts of a step, counted from 0."""
        return [self.prompts[at % len(self.prompts)] for at in range(step * self.each, (step + 1) * self.each)]


def stopped(shown: Shown, settings: PhaseSettings, *, step: int, last: bool, spent: Spent) -> StoppedBy | None:
    """Say whether the phase ends here, and why; `last` = its steps are used up.

    Raises:
        PhaseFailedError: if it failed.
    """
    stopped_by = StoppedBy.STEPS if last else stopping.reason(shown, settings)
    failed = stopping.failure(shown, settings, stopped_by)
    if failed is not None:
        raise PhaseFailedError(f"step {step}: {stopping.advice(failed)}", failed, spent)
    return stopped_by


def empty_rate(samples: Samples) -> float:
    """Share of the responses without text."""
    return sum(not response.strip() for response in samples.responses) / len(samples.responses)


def record(
    step: int,
    samples: Samples,
    seen: Seen,
    shown: Shown,
    *,
    ref_logp_BT: Tensor,
    k1_B: Tensor,
    reward_B: Tensor,
    return_B: Tensor,
    kl_coefficient: float,
    grad_norm: float | None,
    clip_fraction: float | None,
    value_loss: float | None = None,
) -> StepRecord:
    """Note what the policy's own samples showed, and what the updates that followed looked like."""
    keep_BT = samples.batch.response_keep_BT
    gap_BT = (samples.logp_BT - seen.logp_BT).abs()
    return StepRecord(
        step=step,
        reward=float(reward_B.mean()),
        reward_spread=shown.reward_spread,
        return_=float(return_B.mean()),
        kl_nats=shown.kl_nats,
        entropy_nats=seen.entropy_nats,
        response_tokens=samples.batch.tokens / len(samples.responses),
        ended_rate=float(samples.ended_B.float().mean()),
        grad_norm=grad_norm,
        kl_coefficient=kl_coefficient,
        logp_gap=float(gap_BT[keep_BT].max()),
        kl_k1_nats=float(k1_B.mean()),
        kl_k3_nats=float(kl.k3(seen.logp_BT, ref_logp_BT, keep_BT).mean()),
        empty_rate=shown.empty_rate,
        clip_fraction=clip_fraction,
        value_loss=value_loss,
        predicted_win_rate=shown.predicted_win_rate,
    )
