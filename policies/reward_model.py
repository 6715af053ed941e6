"""Reward models: an ensemble of scalar heads on the base transformer, fitted to comparisons.

Each member starts from the base model, never from an earlier reward model, and reads texts as people saw them:
whatever special tokens a policy may produce, only the text behind the reply counts. Members hold out different
labels, so every label has an opinion from somebody who was not trained on it; these opinions give the accuracy
that is reported and the temperature that turns rewards into probabilities.
"""

import copy
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from policies import transformer
from policies.batch import TokenBatch, pad
from policies.errors import ModelFolderError, NonFiniteError
from policies.language_model import LanguageModel, position_arguments
from policies.rng import generator

WEIGHTS_FILE, RECORD_FILE = "reward_model.safetensors", "reward_model.json"


class Aggregate(StrEnum):
    """How members' opinions r_1 … r_M on one response become one."""

    MEAN = "mean"
    MIN = "min"
    """The worst case over members (WCO, Coste et al. 2023, arXiv:2310.02743)."""
    MEAN_MINUS_VARIANCE = "mean_minus_variance"
    """mean r - λ · mean (r - mean r)² / T, with λ the `variance_weight` and T the temperature (UWO, same source).

    In other words: UWO in logits of preference, r / T. In raw units λ would be another penalty after each refit,
    since a sharper model has larger rewards, and a variance larger by the square.
    """
    WEIGHTS = "weights"
    """One model, whose weights are the mean of the members' (WARM, Ramé et al. 2024, arXiv:2401.12187).

    Members then start from one head too, since weights average well only where they have a start in common. A reward
    costs one forward pass instead of M; all members are kept, and asked for their spread alone.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardModelSettings:
    """How reward models are fitted. A minimum, a variance or a spread needs two members or more."""

    members: int = 3
    aggregate: Aggregate = Aggregate.MEAN
    variance_weight: float = 0.5
    """λ of mean_minus_variance; 0 = the mean. Coste et al. take 0.5 for best-of-n and 0.1 for PPO, with rewards of
    larger models; where few labels make rewards small, and variances smaller still, 0.5 is close to the mean."""
    epochs: int = 4
    learning_rate: float = 3e-4
    batch_size: int = 32
    """Comparisons a gradient step."""
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    folds: int = 6
    """Labels are dealt, by prompt, into this many folds; member m does not see fold m mod folds."""
    recency: float = 1.0
    """Weight of the labels of each older round, relative to the next one, when the temperature is fitted;
    1 = all rounds alike."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Rewards of B responses."""

    aggregate_B: Tensor
    """float32, in the model's normalised unit."""
    members_MB: Tensor
    """float32, each member's own opinion in its raw unit: logits, mean 0 on the labelled responses. With
    Aggregate.WEIGHTS a single row, the averaged model's, unless all members were asked for."""


class Member(nn.Module):
    """One reward model: the base transformer, and a linear head on the mean of the response's final states.

    The mean keeps the reward from growing with length by itself: with a sum, a policy need only fill its space.
    """

    def __init__(self, backbone: nn.Module, hidden_size: int, seed: int) -> None:
        """Copy the backbone; draw a small head from `seed`, so that members differ from the start."""
        super().__init__()
        self.backbone = copy.deepcopy(backbone)
        self.head = nn.Linear(hidden_size, 1)
        nn.init.normal_(self.head.weight, std=hidden_size**-0.5, generator=generator(seed))
        nn.init.zeros_(self.head.bias)

    def forward(self, batch: TokenBatch) -> Tensor:
        """Raw rewards, float32 [B]. Prompts are computed once for all their responses where the backbone allows."""
        keep_BT = batch.response_keep_BT
        if transformer.recognises(self.backbone):
            layout = transformer.Layout.of(batch, own_states=True)
            states_BTD = layout.responses.unpack(transformer.states(self.backbone, layout))
        else:
            said = self.backbone(
                input_ids=batch.ids_BL, **position_arguments(batch.prompt_keep_GP, batch.keep_BL), use_cache=False
            )
            states_BTD = said.last_hidden_state[:, -keep_BT.shape[1] :].float() * keep_BT.unsqueeze(-1)
        pooled_BD = states_BTD.sum(dim=1) / keep_BT.sum(dim=1, keepdim=True)
        return self.head(pooled_BD).squeeze(-1)


@dataclass(frozen=True)
class RewardModel:
    """A fitted ensemble. Frozen: normalising gives a new one around the same members."""

    base: LanguageModel
    """Tokenizer and architecture; its weights are not used."""
    members: tuple[Member, ...]
    offsets_M: Tensor
    """Mean raw reward of each member on the labelled responses, subtracted: preferences leave it undetermined."""
    settings: RewardModelSettings
    temperature: float
    """Reward differences, in raw units, that one logit of preference takes."""
    mean: float = 0.0
    """Aggregated reward that counts as 0."""
    sd: float = 1.0
    """Aggregated reward that counts as 1 unit."""

    def score(self, prompts: Sequence[str], responses: Sequence[str], *, all_members: bool = False) -> Scores:
        """Reward B responses.

        all_members: with Aggregate.WEIGHTS, ask the members as well as their average, for their spread: M + 1 forward
        passes instead of one. Other aggregates ask them anyway.

        Raises:
            NonFiniteError: if a reward is NaN or infinite.
        """
        if self.settings.aggregate is Aggregate.WEIGHTS:
            scored_MB = self._ask((self.averaged,), self.offsets_M.mean(dim=0, keepdim=True), prompts, responses)
            members_MB = self.opinions(prompts, responses) if all_members else scored_MB
        else:
            scored_MB = members_MB = self.opinions(prompts, responses)
        raw_B = aggregate(scored_MB, self.settings, self.temperature)
        return Scores((raw_B - self.mean) / self.sd, members_MB)

    def opinions(self, prompts: Sequence[str], responses: Sequence[str]) -> Tensor:
        """Ask each member: float32 [M, B], in raw units, mean 0 on the labelled responses. M forward passes.

        Raises:
            NonFiniteError: if a reward is NaN or infinite.
        """
        return self._ask(self.members, self.offsets_M, prompts, responses)

    @cached_property
    def averaged(self) -> Member:
        """The model whose weights are the plain mean of the members'."""
        states = [member.state_dict() for member in self.members]
        mean = {name: torch.stack([state[name] for state in states]).mean(dim=0) for name in states[0]}
        averaged = copy.deepcopy(self.members[0])
        averaged.load_state_dict(mean)
        return averaged

    def probability(self, prompts: Sequence[str], first: Sequence[str], second: Sequence[str]) -> Tensor:
        """Say how probably people prefer `first` to `second`: sigmoid(Δ reward / temperature); float32 [B]."""
        difference_B = self.score(prompts, first).aggregate_B - self.score(prompts, second).aggregate_B
        return torch.sigmoid(self.logit(difference_B))

    def logit(self, difference_B: Tensor) -> Tensor:
        """Turn differences of normalised rewards into logits of preference."""
        return difference_B * (self.sd / self.temperature)

    def normalised(self, prompts: Sequence[str], responses: Sequence[str]) -> "RewardModel":
        """Give the same model with these responses at mean 0 and standard deviation 1.

        Meant for samples of the approved policy, once per attempt, so that rewards of different reward models
        are steps of about the same size, and a KL coefficient pays for the same number of them after each refit.
        Where all responses are alike the unit stays as it was.
        """
        raw = replace(self, mean=0.0, sd=1.0).score(prompts, responses).aggregate_B
        sd = float(raw.std()) if len(raw) > 1 else 0.0
        return replace(self, mean=float(raw.mean()), sd=sd if sd > 1e-6 else 1.0)

    def save(self, out_dir: Path) -> None:
        """Write members (safetensors) and the rest (JSON); same model, same bytes."""
        out_dir.mkdir(parents=True, exist_ok=True)
        tensors = {"offsets": self.offsets_M}
        for number, member in enumerate(self.members):
            for name, tensor in member.state_dict().items():
                tensors[f"members.{number}.{name}"] = tensor.contiguous()
        save_file(tensors, out_dir / WEIGHTS_FILE)
        record = {
            "settings": asdict(self.settings),
            "temperature": self.temperature,
            "mean": self.mean,
            "sd": self.sd,
        }
        (out_dir / RECORD_FILE).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")

    def _ask(
        self, members: Sequence[Member], offsets_M: Tensor, prompts: Sequence[str], responses: Sequence[str]
    ) -> Tensor:
        rows = encode(self.base, prompts, responses)
        raw_MB = torch.stack([raw_scores(member, rows, self.base) for member in members])
        members_MB = raw_MB - offsets_M.unsqueeze(1)
        if not bool(members_MB.isfinite().all()):
            raise NonFiniteError("the reward model gives a reward that is not finite; fit it again")
        return members_MB


def aggregate(members_MB: Tensor, settings: RewardModelSettings, temperature: float) -> Tensor:
    """Make one of the members' opinions, as `Aggregate` says; float32 [B], in their raw unit."""
    match settings.aggregate:
        case Aggregate.MEAN | Aggregate.WEIGHTS:
            return members_MB.mean(dim=0)
        case Aggregate.MIN:
            return members_MB.amin(dim=0)
        case Aggregate.MEAN_MINUS_VARIANCE:
            variance_B = members_MB.var(dim=0, unbiased=False)
            return members_MB.mean(dim=0) - settings.variance_weight * variance_B / temperature


def disagreement(members_MB: Tensor) -> float:
    """Mean over B responses of the standard deviation over M members (divided by M, not M - 1), in their unit."""
    return float(members_MB.std(dim=0, unbiased=False).mean())


def spread(model: RewardModel, prompts: Sequence[str], responses: Sequence[str]) -> float:
    """How far members disagree about these responses, in logits of preference; 0 with one member.

    Compare it between the candidate's and the approved policy's responses to the same prompts: where it has grown,
    the policy went where the labels did not. M forward passes; scores whose `members_MB` holds every member have it
    for nothing, as `disagreement(scores.members_MB) / model.temperature`.
    """
    return disagreement(model.opinions(prompts, responses)) / model.temperature


def load(path: Path | str, base: LanguageModel) -> RewardModel:
    """Open a saved reward model; `base` brings the tokenizer it was fitted with.

    Raises:
        ModelFolderError: if the folder does not hold a reward model of this base's shape.
    """
    folder = Path(path)
    try:
        record = json.loads((folder / RECORD_FILE).read_text())
        tensors = load_file(folder / WEIGHTS_FILE, device=str(base.device))
        settings = RewardModelSettings(**record["settings"])
        settings = replace(settings, aggregate=Aggregate(settings.aggregate))
        members = []
        for number in range(settings.members):
            member = new_member(base, seed=0)
            prefix = f"members.{number}."
            member.load_state_dict(
                {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            )
            members.append(member.eval())
        offsets_M = tensors["offsets"]
        figures = record["temperature"], record["mean"], record["sd"]
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelFolderError(f"{folder} does not open as a reward model of this base: {error}") from error
    return RewardModel(base, tuple(members), offsets_M, settings, *figures)


@dataclass(frozen=True, slots=True)
class Encoded:
    """One prompt with one response, as tokens."""

    prompt: list[int]
    response: list[int]
    """Ends with the end-of-sequence token, so it is never empty."""


def encode(base: LanguageModel, prompts: Sequence[str], responses: Sequence[str]) -> list[Encoded]:
    """Turn texts into tokens as a reward model reads them.

    Raises:
        TooLongError: if a prompt and its response take more tokens than the base has positions.
    """
    if not prompts:
        return []
    pairs = zip(base.encode_prompts(prompts), base.encode_responses(responses), strict=True)
    rows = [Encoded(prompt, response) for prompt, response in pairs]
    base.require_room(max(len(row.prompt) + len(row.response) for row in rows))
    return rows


def tokens(rows: Sequence[Encoded], base: LanguageModel) -> TokenBatch:
    """Lay B rows out. Neighbours with the same prompt share it, where every prompt comes equally often."""
    runs = [(prompt, len(list(run))) for prompt, run in itertools.groupby(row.prompt for row in rows)]
    each = math.gcd(*(length for _, length in runs))
    prompt = pad([prompt for prompt, length in runs for _ in range(length // each)], base.pad_id, "left")
    response = pad([row.response for row in rows], base.pad_id, "right")
    device = base.device
    return TokenBatch(prompt.ids.to(device), prompt.keep.to(device), response.ids.to(device), response.keep.to(device))


@torch.no_grad()
def raw_scores(member: Member, rows: Sequence[Encoded], base: LanguageModel, batch_size: int = 256) -> Tensor:
    """One member's rewards of B rows, before offset and normalisation; float32 [B]."""
    chunks = [member(tokens(rows[start : start + batch_size], base)) for start in range(0, len(rows), batch_size)]
    return torch.cat(chunks) if chunks else torch.zeros(0, device=base.device)


def new_member(base: LanguageModel, *, seed: int) -> Member:
    """Make a member with the base model's weights and a head of its own."""
    return Member(base.model.base_model, base.model.config.hidden_size, seed).to(base.device)
