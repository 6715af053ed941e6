"""Fitting reward models to comparisons, and judging the fit on labels that did not train the member asked."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from policies import objectives
from policies.calibration import fit_temperature, log_loss
from policies.errors import LabelsError, NonFiniteError
from policies.language_model import LanguageModel
from policies.progress import Progress, silent
from policies.reward_model import (
    Encoded,
    Member,
    RewardModel,
    RewardModelSettings,
    encode,
    new_member,
    raw_scores,
    rectangle,
)
from policies.rng import derive_seed, generator

MIN_LABELS = 10


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
class FitReport:
    """What a fit is worth, judged on labels that did not train the member asked."""

    labels: int
    held_out: int
    """Opinions on held-out labels; ties counted."""
    decided: int
    """Of these, the ones whose label is no tie."""
    accuracy: float
    """Share of the held-out opinions that side with the label; ties in the labels left out."""
    log_loss: float
    """Of the held-out opinions at the fitted temperature, nats. Below `log_loss_ignorance` = better than chance."""
    log_loss_ignorance: float
    """Of saying ½ always: ln 2."""
    train_accuracy: float
    """As `accuracy`, on the labels that did train the members: far above it = learnt by heart."""
    temperature: float
    """Raw reward difference that one logit of preference takes."""
    gradient_steps: int


def fit(
    base: LanguageModel,
    comparisons: Sequence[Comparison],
    settings: RewardModelSettings,
    *,
    seed: int,
    progress: Progress = silent,
) -> tuple[RewardModel, FitReport]:
    """Fit an ensemble to all comparisons, starting from the base model's weights.

    Raises:
        LabelsError: if there are too few labels, or all are ties.
        NonFiniteError: if a loss is NaN or infinite.
    """
    if len(comparisons) < MIN_LABELS:
        raise LabelsError(f"{len(comparisons)} labels cannot train a reward model; gather {MIN_LABELS} or more")
    if all(comparison.target == 0.5 for comparison in comparisons):
        raise LabelsError("every label is a tie, which says nothing; ask for comparisons that differ")
    data = _Labelled.of(base, comparisons, settings, seed)
    members, raws, steps = [], [], 0
    for number in range(settings.members):
        seen = [row for row, fold in enumerate(data.fold) if fold != number % settings.folds]
        member_seed = derive_seed(seed, "member", number)
        member = new_member(base, seed=derive_seed(member_seed, "head"))
        steps += _fit_member(member, data, seen, settings, member_seed)
        members.append(member)
        raws.append(raw_scores(member, data.encoded, base))
        progress(number + 1, settings.members, "fitting the reward model")
    raw_MB = torch.stack(raws)
    report = _judge(raw_MB, data, comparisons, settings, steps)
    return RewardModel(base, tuple(members), raw_MB.mean(dim=1), settings, report.temperature), report


@dataclass(frozen=True, slots=True)
class _Labelled:
    """Comparisons as tokens: rows 2i and 2i+1 of `encoded` are the two responses of comparison i."""

    base: LanguageModel
    encoded: list[Encoded]
    target_N: Tensor
    fold: list[int]

    @classmethod
    def of(
        cls, base: LanguageModel, comparisons: Sequence[Comparison], settings: RewardModelSettings, seed: int
    ) -> "_Labelled":
        prompts = [item.prompt for item in comparisons for _ in range(2)]
        responses = [text for item in comparisons for text in (item.response_1, item.response_2)]
        # By prompt: two comparisons of one prompt share what is hard about it.
        fold = [derive_seed(seed, "fold", item.prompt) % settings.folds for item in comparisons]
        target_N = torch.tensor([item.target for item in comparisons], dtype=torch.float32, device=base.device)
        return cls(base, encode(base, prompts, responses), target_N, fold)


def _fit_member(member: Member, data: _Labelled, seen: list[int], settings: RewardModelSettings, seed: int) -> int:
    """Train one member on the comparisons `seen`, learning rate falling to zero; gives the steps taken."""
    order = generator(derive_seed(seed, "order"))
    total = math.ceil(len(seen) / settings.batch_size) * settings.epochs
    optimizer = torch.optim.AdamW(member.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 - step / total)
    rows_N = torch.tensor(seen)
    member.train()
    for _ in range(settings.epochs):
        shuffled_N = rows_N[torch.randperm(len(seen), generator=order)]
        for rows in shuffled_N.split(settings.batch_size):
            pairs = [data.encoded[2 * row + side] for row in rows.tolist() for side in (0, 1)]
            raw_2B = member(*rectangle(pairs, data.base))
            loss = objectives.bradley_terry(raw_2B[0::2] - raw_2B[1::2], data.target_N[rows.to(data.base.device)])
            if not bool(loss.isfinite()):
                raise NonFiniteError("the reward model's loss is not finite; lower reward_model.learning_rate")
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(member.parameters(), settings.max_grad_norm)
            optimizer.step()
            schedule.step()
    member.eval()
    return total


def _judge(
    raw_MB: Tensor,
    data: _Labelled,
    comparisons: Sequence[Comparison],
    settings: RewardModelSettings,
    gradient_steps: int,
) -> FitReport:
    """Fit the temperature to, and take the figures from, each member's opinions on its held-out labels.

    A single member is noisier than the ensemble, so the temperature errs on the side of modest probabilities.
    """
    difference_MN = (raw_MB[:, 0::2] - raw_MB[:, 1::2]).double().cpu().numpy()
    fold_N, target_N = np.array(data.fold), data.target_N.double().cpu().numpy()
    newest = max(item.round for item in comparisons)
    weight_N = np.array([settings.recency ** (newest - item.round) for item in comparisons])
    held_MN = np.stack([fold_N == number % settings.folds for number in range(settings.members)])
    target_MN, weight_MN = (np.broadcast_to(row, held_MN.shape) for row in (target_N, weight_N))
    held, target = difference_MN[held_MN], target_MN[held_MN]
    temperature = fit_temperature(held, target, weight_MN[held_MN]) if len(held) else 1.0
    return FitReport(
        labels=len(comparisons),
        held_out=len(held),
        decided=int(np.count_nonzero(target != 0.5)),
        accuracy=_accuracy(held, target),
        log_loss=log_loss(held / temperature, target) if len(held) else math.nan,
        log_loss_ignorance=math.log(2.0),
        train_accuracy=_accuracy(difference_MN[~held_MN], target_MN[~held_MN]),
        temperature=temperature,
        gradient_steps=gradient_steps,
    )


def _accuracy(difference: np.ndarray, target: np.ndarray) -> float:
    decided = target != 0.5
    if not decided.any():
        return math.nan
    return float(np.mean((difference[decided] > 0) == (target[decided] > 0.5)))
