"""Fitting reward models to comparisons, and judging the fit on labels that did not train the member asked."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from policies import objectives
from policies.calibration import (
    Floats,
    accuracy,
    calibration_slope,
    cross_fitted_logits,
    fit_temperature,
    log_loss,
    wilson_interval,
)
from policies.errors import LabelsError, NonFiniteError
from policies.language_model import LanguageModel
from policies.progress import Progress, silent
from policies.reward_model import (
    Aggregate,
    Encoded,
    Member,
    RewardModel,
    RewardModelSettings,
    encode,
    new_member,
    raw_scores,
    tokens,
)
from policies.rng import derive_seed, generator

MIN_LABELS = 10
CALIBRATION_GROUPS = 5
"""Prompts are dealt into so many groups; each is predicted at the temperature that the others' labels ask for."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two responses to one prompt, and what people said."""

    prompt: str
    response_1: str
    response_2: str
    target: float
    """Share of the preference that goes to response_1: 1, 0, or ½ for a tie; means over raters are welcome."""
    round: int = 0
    """When it was labelled, counted in rounds of labelling; later ones are nearer to what comes next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What opinions on held-out labels are worth: labels that did not train the member asked."""

    held_out: int
    """Held-out labels; ties counted."""
    decided: int
    """Of these, the ones whose label is no tie."""
    accuracy: float
    """Share of the held-out opinions that side with the label; ties in the labels left out. NaN if none is decided."""
    accuracy_low: float
    """Wilson's 95% interval of it."""
    accuracy_high: float
    log_loss: float
    """Of the held-out opinions, nats, each at the temperature that other prompts' labels give. Below
    `log_loss_ignorance` = better than chance; NaN if none is held out."""
    log_loss_ignorance: float
    """Of saying ½ always: ln 2, whatever the labels."""
    calibration_slope: float
    """Of the same predictions: 1 = calibrated, below = too sure, above = too modest; see `calibration.Slope`."""
    calibration_slope_error: float
    """Its standard error."""
    train_accuracy: float
    """As `accuracy`, on the labels that did train the members: far above it = learnt by heart."""
    temperature: float
    """Raw reward difference that one logit of preference takes; fitted to all held-out opinions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitReport(Judgement):
    """What a fit took, and what it is worth."""

    labels: int
    gradient_steps: int


def fit(
    base: LanguageModel,
    comparisons: Sequence[Comparison],
    settings: RewardModelSettings,
    *,
    seed: int,
    weights: Sequence[float] | None = None,
    progress: Progress = silent,
) -> tuple[RewardModel, FitReport]:
    """Fit an ensemble to all comparisons, starting from the base model's weights.

    weights: what each comparison counts for, in the loss and for the temperature, relative to the others; None = all
    alike. `importance.importance_weights` gives some that look towards the current policy. Accuracy, log-loss and
    slope count every label once.

    Raises:
        LabelsError: if there are too few labels, all are ties, or a member would see none; if a weight is negative
            or not finite, or all are 0.
        NonFiniteError: if a loss is NaN or infinite.
    """
    if len(comparisons) < MIN_LABELS:
        raise LabelsError(f"{len(comparisons)} labels cannot train a reward model; gather {MIN_LABELS} or more")
    if all(comparison.target == 0.5 for comparison in comparisons):
        raise LabelsError("every label is a tie, which says nothing; ask for comparisons that differ")
    data = _Labelled.of(base, comparisons, _mean_one(weights, len(comparisons)), settings, seed)
    members, raws, steps = [], [], 0
    for number in range(settings.members):
        seen = [row for row, fold in enumerate(data.fold) if fold != number % settings.folds]
        if not seen:
            raise LabelsError("a member would see no label, the rest being held out; label more prompts")
        member_seed = derive_seed(seed, "member", number)
        shared = settings.aggregate is Aggregate.WEIGHTS
        member = new_member(base, seed=derive_seed(seed if shared else member_seed, "head"))
        steps += _fit_member(member, data, seen, settings, member_seed)
        members.append(member)
        raws.append(raw_scores(member, data.encoded, base))
        progress(number + 1, settings.members, "fitting the reward model")
    raw_MB = torch.stack(raws)
    said = _judge_fit(raw_MB, data, comparisons, settings, seed)
    report = FitReport(**asdict(said), labels=len(comparisons), gradient_steps=steps)
    return RewardModel(base, tuple(members), raw_MB.mean(dim=1), settings, report.temperature), report


def judge(
    difference_MN: Floats, held_MN: NDArray[np.bool_], target_N: Floats, weight_N: Floats, group_N: NDArray[np.int64]
) -> Judgement:
    """Judge M members' raw reward differences on N labels.

    held_MN is True where a label did not train the member. Where several members are such, their mean is the opinion,
    so that no label counts twice. weight_N is what labels count for in temperatures, group_N what belongs together
    (prompts, say) and is predicted at the others' temperature.

    A single member is noisier than the ensemble, so the temperature errs on the side of modest probabilities.
    """
    held_N = held_MN.any(axis=0)
    opinions_N = (difference_MN * held_MN).sum(axis=0)[held_N] / held_MN.sum(axis=0)[held_N]
    target, weight = target_N[held_N], weight_N[held_N]
    decided = int(np.count_nonzero(target != 0.5))
    right = accuracy(opinions_N, target)
    interval = wilson_interval(right, decided)
    logit = cross_fitted_logits(opinions_N, target, weight, group_N[held_N])
    slope = calibration_slope(logit, target)
    seen_MN = ~held_MN
    return Judgement(
        held_out=len(target),
        decided=decided,
        accuracy=right,
        accuracy_low=interval.low,
        accuracy_high=interval.high,
        log_loss=log_loss(logit, target) if len(target) else math.nan,
        log_loss_ignorance=math.log(2.0),
        calibration_slope=slope.value,
        calibration_slope_error=slope.standard_error,
        train_accuracy=accuracy(difference_MN[seen_MN], np.broadcast_to(target_N, seen_MN.shape)[seen_MN]),
        temperature=fit_temperature(opinions_N, target, weight) if weight.any() else 1.0,
    )


def _mean_one(weights: Sequence[float] | None, count: int) -> Floats:
    """Check weights and give them mean 1, so that a learning rate means what it means without."""
    if weights is None:
        return np.ones(count)
    weight_N = np.array(weights, dtype=np.float64)
    if weight_N.shape != (count,) or not np.isfinite(weight_N).all() or (weight_N < 0).any() or not weight_N.any():
        raise LabelsError(f"{count} labels need as many weights: finite, none negative, not all 0")
    return weight_N / weight_N.mean()


@dataclass(frozen=True, slots=True)
class _Labelled:
    """Comparisons as tokens: rows 2i and 2i+1 of `encoded` are the two responses of comparison i."""

    base: LanguageModel
    encoded: list[Encoded]
    target_N: Tensor
    weight_N: Tensor
    """What each comparison counts for; mean 1."""
    fold: list[int]

    @classmethod
    def of(
        cls,
        base: LanguageModel,
        comparisons: Sequence[Comparison],
        weight_N: Floats,
        settings: RewardModelSettings,
        seed: int,
    ) -> "_Labelled":
        prompts = [item.prompt for item in comparisons for _ in range(2)]
        responses = [text for item in comparisons for text in (item.response_1, item.response_2)]
        # By prompt: two comparisons of one prompt share what is hard about it.
        fold = [derive_seed(seed, "fold", item.prompt) % settings.folds for item in comparisons]
        target_N = torch.tensor([item.target for item in comparisons], dtype=torch.float32, device=base.device)
        weight = torch.tensor(weight_N, dtype=torch.float32, device=base.device)
        return cls(base, encode(base, prompts, responses), target_N, weight, fold)


def _fit_member(member: Member, data: _Labelled, seen: list[int], settings: RewardModelSettings, seed: int) -> int:
    """Train one member on the comparisons `seen`, learning rate falling to zero; gives the steps taken."""
    order = generator(derive_seed(seed, "order"))
    total = math.ceil(len(seen) / settings.batch_size) * settings.epochs
    optimizer = torch.optim.AdamW(
        member.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 - step / total)
    rows_N = torch.tensor(seen)
    # Dropout stays off: its numbers would come from torch's global generator, and two fits would differ.
    member.eval()
    for _ in range(settings.epochs):
        shuffled_N = rows_N[torch.randperm(len(seen), generator=order)]
        for rows in shuffled_N.split(settings.batch_size):
            pairs = [data.encoded[2 * row + side] for row in rows.tolist() for side in (0, 1)]
            raw_2B = member(tokens(pairs, data.base))
            at = rows.to(data.base.device)
            loss = objectives.bradley_terry(raw_2B[0::2] - raw_2B[1::2], data.target_N[at], data.weight_N[at])
            if not bool(loss.isfinite()):
                raise NonFiniteError("the reward model's loss is not finite; lower reward_model.learning_rate")
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(member.parameters(), settings.max_grad_norm)
            optimizer.step()
            schedule.step()
    return total


def _judge_fit(
    raw_MB: Tensor, data: _Labelled, comparisons: Sequence[Comparison], settings: RewardModelSettings, seed: int
) -> Judgement:
    """Judge members on the labels that they did not see; later rounds count for more, as `recency` says."""
    fold_N = np.array(data.fold)
    newest = max(item.round for item in comparisons)
    recency_N = np.array([settings.recency ** (newest - item.round) for item in comparisons])
    return judge(
        difference_MN=(raw_MB[:, 0::2] - raw_MB[:, 1::2]).double().cpu().numpy(),
        held_MN=np.stack([fold_N == number % settings.folds for number in range(settings.members)]),
        target_N=data.target_N.double().cpu().numpy(),
        weight_N=recency_N * data.weight_N.double().cpu().numpy(),
        group_N=np.array([derive_seed(seed, "calibration", item.prompt) % CALIBRATION_GROUPS for item in comparisons]),
    )
