"""The robustness tax: what the ratchet costs over a baseline, at the same gold of the deployable checkpoint.

For an arm A, g_A(c) is the gold of the checkpoint that could be deployed after spending c of a resource, and
C_A(g) = inf{c : g_A(c) >= g}. The tax at a target g is C_ratchet(g) / C_baseline(g). Discarded attempts count in
full; a target that an arm never reaches is unreached, never estimated.
"""

from collections.abc import Mapping, Sequence

from orchestrator.core.records import Record
from orchestrator.core.state import CampaignState

RESOURCES = ("labels", "samples", "tokens", "gradient_steps", "seconds")


class Point(Record):
    """A deployable checkpoint: its gold, and all that had been spent by the time it was deployed."""

    gold_mean: float
    gold_se: float
    spent: Mapping[str, float]
    """By resource; seconds are compute time."""


class Tax(Record):
    """The tax on one resource at one target."""

    target_gold: float
    ratio: float | None
    """None unless both arms reached the target."""
    reached: bool
    reached_by: Mapping[str, bool]
    spent: Mapping[str, float | None]
    """By arm, up to the first deployable checkpoint at the target; None where it was never reached."""


def curve(state: CampaignState) -> tuple[Point, ...]:
    """The campaign's deployable checkpoints in order, the base first; those without gold are left out."""
    return tuple(
        Point(
            gold_mean=deployed.gold_mean,
            gold_se=deployed.gold_se or 0.0,
            spent={
                "labels": deployed.labels.total,
                "samples": deployed.costs.samples,
                "tokens": deployed.costs.tokens,
                "gradient_steps": deployed.costs.gradient_steps,
                "seconds": deployed.costs.compute_seconds,
            },
        )
        for deployed in state.deployments
        if deployed.gold_mean is not None
    )


def cost_to_reach(points: Sequence[Point], target_gold: float, resource: str) -> float | None:
    """Spent up to the first deployable checkpoint with gold of at least the target; None if there is none."""
    return next((point.spent[resource] for point in points if point.gold_mean >= target_gold), None)


def tax(arms: Mapping[str, Sequence[Point]], *, target_gold: float, arm: str, baseline: str, resource: str) -> Tax:
    """The tax of `arm` over `baseline` on `resource`; every arm's own cost is told beside it."""
    spent = {name: cost_to_reach(points, target_gold, resource) for name, points in arms.items()}
    ours, theirs = spent[arm], spent[baseline]
    ratio = ours / theirs if ours is not None and theirs else None
    return Tax(
        target_gold=target_gold,
        ratio=ratio,
        reached=ratio is not None,
        reached_by={name: cost is not None for name, cost in spent.items()},
        spent=spent,
    )
