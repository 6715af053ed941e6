"""When a phase is over: the rules, as pure functions of what a step has shown."""

from dataclasses import dataclass
from typing import Final

from torch import Tensor

from policies.phase_records import PhaseFailure, PhaseSettings, StoppedBy

MOST_EMPTY: Final = 0.5
"""Share of responses without text. Up to half, the reward can still tell the policy to speak; beyond, the batch no
longer teaches how, and raters would be shown nothing."""
SAME_REWARD: Final = 1e-5
"""Reward units. The same response beside longer neighbours scores the same up to rounding."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What a step has shown before its update."""

    steps: int
    """Gradient steps taken so far."""
    kl_nats: float
    """Mean sequence KL to the reference."""
    reward_spread: float | None
    """None where the members were not asked."""
    first_spread: float | None
    """That of step 0."""
    predicted_win_rate: float | None
    empty_rate: float
    alike: bool
    """True = in every group all responses brought the same return."""


def failure(shown: Shown, settings: PhaseSettings, stopped_by: StoppedBy | None) -> PhaseFailure | None:
    """Name the failure, if the step is one; `stopped_by` says why the phase ends here otherwise, None = it goes on.

    Nothing is learned from the last batch, which measures the candidate: that its rewards are alike is no failure.
    A phase that a rule stops before its first gradient step is one: the candidate would be the start.
    """
    if stopped_by not in (None, StoppedBy.STEPS) and not shown.steps:
        return PhaseFailure.NOTHING_LEARNED
    if shown.kl_nats >= settings.kl_explosion_nats:
        return PhaseFailure.KL_EXPLOSION
    if shown.empty_rate > MOST_EMPTY:
        return PhaseFailure.EMPTY_RESPONSES
    if stopped_by is None and shown.alike:
        return PhaseFailure.NO_SIGNAL
    return None


def reason(shown: Shown, settings: PhaseSettings) -> StoppedBy | None:
    """Give the reason to stop before this step's update; the first in the order of `StoppedBy`.

    Before anything was learned, what the reward model says of the policy is chance, and no reason to stop.
    """
    if settings.kl_budget_nats is not None and shown.kl_nats >= settings.kl_budget_nats:
        return StoppedBy.KL_BUDGET
    if not shown.steps:
        return None
    wanted = settings.stop_predicted_win_rate
    if wanted is not None and shown.predicted_win_rate is not None and shown.predicted_win_rate >= wanted:
        return StoppedBy.PREDICTED_WIN_RATE
    growth, first, spread = settings.stop_spread_growth, shown.first_spread, shown.reward_spread
    if growth is not None and first is not None and spread is not None and spread > growth * first:
        return StoppedBy.REWARD_SPREAD
    return None


def alike(return_GK: Tensor) -> bool:
    """Say whether no prompt's returns tell its responses apart; with one response a prompt, whether all are alike.

    Returns, not rewards: where the KL is part of them, a policy that earns the largest reward with every response
    still learns to earn it nearer to the reference. A single group alike is no failure: its advantages are 0.
    """
    groups = return_GK if return_GK.shape[1] > 1 else return_GK.reshape(1, -1)
    return bool((groups.amax(dim=1) - groups.amin(dim=1) < SAME_REWARD).all())


def advice(failed: PhaseFailure) -> str:
    """Say what happened and what to do about it."""
    match failed:
        case PhaseFailure.NON_FINITE:
            return "a number is not finite; lower phase.learning_rate"
        case PhaseFailure.KL_EXPLOSION:
            return "the policy is no longer near its reference; lower phase.learning_rate or set phase.kl.budget_nats"
        case PhaseFailure.EMPTY_RESPONSES:
            return "more than half of the responses are empty; look at the base model and at the reward for silence"
        case PhaseFailure.NO_SIGNAL:
            return "each prompt's responses are all rewarded alike; look for a collapsed policy or a constant reward"
        case PhaseFailure.NOTHING_LEARNED:
            return (
                "nothing was learned, since the start is already past phase.kl.budget_nats from its reference; "
                "raise the budget, or set phase.kl.reference: approved"
            )
