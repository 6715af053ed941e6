"""Of a safety case: what the candidate is, and what made it another than the approved checkpoint."""

from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.core.settings import CampaignSettings
from orchestrator.core.state import Attempt, CampaignState
from orchestrator.report import story
from orchestrator.text import visible


@dataclass(frozen=True, slots=True)
class Row:
    """A name and what is to be said of it; `digest` says that the value is one."""

    name: str
    value: str
    digest: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """What the candidate is, and what made it another than the approved checkpoint. None: not known."""

    candidate: str | None
    parent: str
    """Where its training began; of a given candidate, whom it is judged against."""
    approved: str | None
    """Whom it was compared with."""
    base: str | None
    given: bool
    """It came from elsewhere: nothing was trained here."""
    algorithm: str | None
    steps: int
    """Gradient steps of the policy."""
    stopped_by: str | None
    kl_nats: float | None
    """Sequence KL from the reference policy, at the end of the phase."""
    kl_budget_nats: float | None
    kl_reference: str
    kl_base_nats: float | None
    """Sequence KL from the base."""
    reward_model: str | None
    reward_accuracy: float | None
    """Share of held-out labels that it predicts, with its 95% interval."""
    reward_accuracy_low: float | None
    reward_accuracy_high: float | None
    calibration_slope: float | None
    """1: its probabilities mean what they say; below 1: it is too sure of itself."""
    calibration_slope_se: float | None
    trained_on_labels: int | None
    settings: str | None
    code_version: str | None

    @property
    def rows(self) -> tuple[Row, ...]:
        """All but the candidate's digest."""
        return tuple(_change_rows(self))


def change_of(state: CampaignState, settings: CampaignSettings, attempt: Attempt, code_version: str | None) -> Change:
    gate, given = state.gate_batch(attempt), state.candidate is not None
    fitted = attempt.fitted or next(
        # Carried over: fitted at an earlier attempt.
        (a.fitted for a in state.attempts if a.fitted is not None and a.reward_model == attempt.reward_model),
        None,
    )
    return Change(
        candidate=attempt.candidate,
        parent=attempt.start,
        approved=gate.opponent if gate is not None else None,
        base=state.base,
        given=given,
        algorithm=None if given else state.algorithm.value,
        steps=attempt.steps,
        stopped_by=attempt.stopped_by,
        kl_nats=attempt.kl_nats,
        kl_budget_nats=attempt.kl_budget_nats,
        kl_reference=settings.phase.kl.reference,
        kl_base_nats=attempt.distances.reverse_base_nats if attempt.distances else None,
        reward_model=attempt.reward_model,
        reward_accuracy=fitted.accuracy if fitted else None,
        reward_accuracy_low=fitted.accuracy_low if fitted else None,
        reward_accuracy_high=fitted.accuracy_high if fitted else None,
        calibration_slope=fitted.calibration_slope if fitted else None,
        calibration_slope_se=fitted.calibration_slope_se if fitted else None,
        trained_on_labels=fitted.labels if fitted else None,
        settings=state.settings_digest,
        code_version=code_version,
    )


def kl_words(kl_nats: float, budget_nats: float | None) -> str:
    if budget_nats is None:
        return f"{kl_nats:.2f} nats, without a budget"
    return f"{kl_nats:.2f} of {budget_nats:.2f} nats, {kl_nats / budget_nats:.0%} of the budget"


def _change_rows(change: Change) -> Iterator[Row]:
    if not change.given:
        yield Row("Parent", change.parent, digest=True)
    if change.approved is not None and (change.given or change.approved != change.parent):
        yield Row("Compared with", change.approved, digest=True)
    if change.base is not None and not change.given:
        same = change.base == change.parent
        yield Row("Base", "the parent itself") if same else Row("Base", change.base, digest=True)
    if change.given:
        yield Row("Training", "none here: the candidate was given, and its descent is not known")
    else:
        why = story.STOPPED_BY.get(change.stopped_by or "")
        ending = f", until {why}" if why is not None else f": {visible(change.stopped_by)}" if change.stopped_by else ""
        yield Row("Training", f"{change.algorithm}, {story.counted(change.steps, 'gradient step')}{ending}")
    if change.kl_nats is not None:
        yield Row(f"KL from the {change.kl_reference}", kl_words(change.kl_nats, change.kl_budget_nats))
    if change.kl_base_nats is not None and change.kl_reference != "base" and change.base != change.parent:
        yield Row("KL from the base", f"{change.kl_base_nats:.2f} nats")
    yield from _reward_rows(change)
    if change.settings is not None:
        yield Row("Configuration", change.settings, digest=True)
    if change.code_version is not None:
        yield Row("Code version", visible(change.code_version))


def _reward_rows(change: Change) -> Iterator[Row]:
    if change.reward_model is None:
        yield Row("Reward model", "none took part")
        return
    yield Row("Reward model", change.reward_model, digest=True)
    if change.reward_accuracy is None:
        yield Row("Reward model's accuracy", "not known: it was not fitted here")
        return
    low, high = change.reward_accuracy_low, change.reward_accuracy_high
    interval = ""
    if low is not None and high is not None:
        interval = f" (95% interval {story.percent(low)} to {story.percent(high)})"
    yield Row("Reward model's accuracy", f"{story.percent(change.reward_accuracy)} of held-out labels{interval}")
    slope, error = change.calibration_slope, change.calibration_slope_se
    if slope is not None:
        spread = "" if error is None else f" ± {error:.2f}"
        yield Row("Its calibration slope", f"{slope:.2f}{spread}; 1 is calibrated, less is too sure of itself")
    if change.trained_on_labels is not None:
        yield Row("Labels that trained it", f"{change.trained_on_labels:,}")
