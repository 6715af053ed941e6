"""The policy while it learns: weights, optimizer, value head, KL controller. Asked about a batch, and moved by one.

Called by `phase`, which draws, rewards and judges; what a batch teaches comes from `algorithms`. A batch goes through
the model `prompts_per_pass` prompts at a time: losses of the parts add up, so only memory depends on it.
"""

import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

import torch
from torch import Tensor, nn

from policies import algorithms, kl, language_model, measured, objectives
from policies.algorithms import Lesson
from policies.batch import TokenBatch
from policies.kl import KLController
from policies.language_model import LanguageModel
from policies.measured import Reference, require_finite
from policies.phase_records import Algorithm, OptimizerStart, PhaseSettings
from policies.trainer_state import TrainerState, digest
from policies.value_head import ValueHead

_LESSON_FIRST: Final = algorithms.REINFORCING - algorithms.IMITATING - {Algorithm.PPO}
"""Algorithms whose lesson is known before the policy is asked about its batch again."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the policy says of its own batch; no gradient."""

    logp_BT: Tensor
    """Of the tokens drawn; nats, 0 where padded."""
    kl_B: Tensor
    """To the reference, exact or k3, summed over each response; nats."""
    entropy_nats: float
    """A token's."""
    value_BT: Tensor | None
    """PPO: the value head's, before each token; 0 where padded."""


@dataclass(frozen=True, slots=True)
class Update:
    """What gradient steps looked like."""

    grad_norm: float
    """The largest, before clipping."""
    clip_fraction: float = 0.0
    """Share of the ratios that the clip took out of the gradient."""
    value_loss: float = 0.0


@dataclass
class Learner:
    """What changes while a phase learns."""

    settings: PhaseSettings
    policy: LanguageModel
    optimizer: torch.optim.AdamW
    controller: KLController
    value_head: ValueHead | None
    steps: int = 0
    """Gradient steps taken."""

    @classmethod
    def start(cls, settings: PhaseSettings, start_dir: Path, device: torch.device | str) -> Self:
        """Open the policy, with the optimizer that `settings.optimizer` asks for.

        Raises:
            ModelFolderError: if the folder does not open.
            PrecisionError: if `device` lacks what `settings.precision` asks for.
        """
        policy = language_model.load(start_dir, device, settings.precision)
        value_head = None
        parameters = list(policy.model.parameters())
        if settings.algorithm is Algorithm.PPO:
            value_head = ValueHead(policy.model.config.hidden_size).to(policy.device)
            parameters += value_head.parameters()
        optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0, fused=True)
        controller = KLController(settings.kl_coefficient, settings.kl_target_nats)
        if settings.optimizer is OptimizerStart.RESTORE and TrainerState.present(start_dir):
            earlier = TrainerState.load(start_dir)
            earlier.restore_moments(policy.model, optimizer)
            if value_head is not None:
                earlier.restore_value_head(value_head, optimizer)
            controller = earlier.controller
        return cls(settings, policy, optimizer, controller, value_head)

    def digest(self) -> str:
        """Hash the present state; sha256, hex."""
        return digest(self.policy.model, self.optimizer, self.controller, self.value_head)

    def state(self, *, sampling: torch.Generator, reward_mean: float, reward_sd: float) -> TrainerState:
        """Take down everything besides the weights that a later phase could start from."""
        return TrainerState.of(
            self.policy.model,
            self.optimizer,
            self.controller,
            reward_mean=reward_mean,
            reward_sd=reward_sd,
            generators={"sampling": sampling},
            value_head=self.value_head,
        )

    @property
    def learns_while_looking(self) -> bool:
        """Whether `look` can prepare the only gradient step of a batch, so that no second forward pass is needed."""
        return self.settings.algorithm in _LESSON_FIRST and self._on_policy

    def look(self, batch: TokenBatch, reference: Reference, lesson: Lesson | None = None) -> Seen:
        """Ask the policy about a batch that it drew; with a lesson, leave the gradient of its loss in the weights."""
        share_BT = None if lesson is None else self._shares(lesson)
        self.optimizer.zero_grad()
        logps, kls, entropies, values = [], [], [], []
        for rows, tokens, part in measured.parts(batch, self.settings.prompts_per_pass):
            with torch.set_grad_enabled(lesson is not None):
                logp_NV, value_N = self._ask(part)
                logp_N = measured.picked(logp_NV, part.response_ids_N)
                if lesson is not None and share_BT is not None:
                    self._loss(lesson.rows(rows), share_BT[rows], part.spread(logp_N), None).total.backward()
            with torch.no_grad():
                entropies.append(objectives.entropy(logp_NV))
                if reference.logp_NV is not None:
                    kls.append(kl.exact(logp_NV, reference.logp_NV[tokens]))
                else:
                    kls.append(kl.k3_tokens(logp_N, reference.logp_BT[rows][part.response_keep_BT]))
            logps.append(logp_N.detach())
            if value_N is not None:
                values.append(value_N)
        return Seen(
            logp_BT=batch.spread(torch.cat(logps)),
            kl_B=batch.spread(torch.cat(kls)).sum(dim=1),
            entropy_nats=float(torch.cat(entropies).mean()),
            value_BT=batch.spread(torch.cat(values)) if values else None,
        )

    def step(self) -> Update:
        """Step along the gradient that is ready.

        Raises:
            NonFiniteError: if it is not finite.
        """
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self.settings.max_grad_norm)
        require_finite(norm, "the gradient")
        self.optimizer.step()
        self.steps += 1
        return Update(float(norm))

    def learn(self, batch: TokenBatch, lesson: Lesson) -> Update:
        """Take the gradient steps of a batch: `updates_per_batch` passes in `minibatches` shares."""
        if self.settings.algorithm in algorithms.IMITATING:
            batch, lesson = _kept(batch, lesson)
        updates = [
            self._learn(batch.prompts_between(begin, end), lesson.rows(rows))
            for _ in range(self.settings.updates_per_batch)
            for begin, end, rows in _minibatches(batch, self.settings.minibatches)
        ]
        return Update(
            max(update.grad_norm for update in updates),
            sum(update.clip_fraction for update in updates) / len(updates),
            sum(update.value_loss for update in updates) / len(updates),
        )

    def check_weights(self) -> None:
        """Refuse to let a broken candidate out.

        Raises:
            NonFiniteError: naming the weight.
        """
        for name, weight in self.policy.model.named_parameters():
            require_finite(weight, f"weight {name} of the candidate")
        for name, weight in self.value_head.named_parameters() if self.value_head is not None else ():
            require_finite(weight, f"{name} of the value head")

    def _learn(self, batch: TokenBatch, lesson: Lesson) -> Update:
        """Take one gradient step on (a share of) a batch."""
        share_BT = self._shares(lesson)
        clipped = value_loss = 0.0
        self.optimizer.zero_grad()
        for rows, _, part in measured.parts(batch, self.settings.prompts_per_pass):
            logp_NV, value_N = self._ask(part)
            logp_BT = part.spread(measured.picked(logp_NV, part.response_ids_N))
            value_BT = None if value_N is None else part.spread(value_N)
            loss = self._loss(lesson.rows(rows), share_BT[rows], logp_BT, value_BT)
            clipped, value_loss = clipped + loss.clipped, value_loss + loss.value
            loss.total.backward()
        return replace(self.step(), clip_fraction=clipped, value_loss=value_loss)

    @property
    def _on_policy(self) -> bool:
        """Whether each batch is trained on only by the policy that drew it."""
        return self.settings.updates_per_batch * self.settings.minibatches == 1

    def _shares(self, lesson: Lesson) -> Tensor:
        return algorithms.shares(self.settings.algorithm, lesson.keep_BT, self.settings.max_new_tokens)

    def _ask(self, part: TokenBatch) -> tuple[Tensor, Tensor | None]:
        """Log-probabilities over the vocabulary [N, V] and, for PPO, values [N]."""
        outputs = self.policy.outputs(part, with_states=self.value_head is not None)
        logp_NV = torch.log_softmax(outputs.logits_NV, dim=-1)
        if self.value_head is None or outputs.states_ND is None:
            return logp_NV, None
        return logp_NV, self.value_head(outputs.states_ND)

    def _loss(self, lesson: Lesson, share_BT: Tensor, logp_BT: Tensor, value_BT: Tensor | None) -> algorithms.Loss:
        if self._on_policy:
            # The ratio is 1, whatever the rounding of sampler and trainer says.
            lesson = replace(lesson, logp_BT=logp_BT.detach())
        loss = algorithms.loss(
            self.settings, lesson, share_BT, logp_BT, value_BT, kl_coefficient=self.controller.coefficient
        )
        require_finite(loss.total, "the loss")
        return loss


def _kept(tokens: TokenBatch, lesson: Lesson) -> tuple[TokenBatch, Lesson]:
    """Leave only the responses that are imitated, one a prompt."""
    rows_B = lesson.advantage_BT[:, 0] > 0
    kept = TokenBatch(
        tokens.prompt_ids_GP, tokens.prompt_keep_GP, tokens.response_ids_BT[rows_B], tokens.response_keep_BT[rows_B]
    )
    return kept, lesson.rows(rows_B)


def _minibatches(tokens: TokenBatch, minibatches: int) -> list[tuple[int, int, slice]]:
    """Deal the prompts, which stand in random order, into consecutive shares whose sizes differ by one at most."""
    prompts, each = len(tokens.prompt_ids_GP), tokens.samples_per_prompt
    bounds = [prompts * at // minibatches for at in range(minibatches + 1)]
    return [(begin, end, slice(begin * each, end * each)) for begin, end in itertools.pairwise(bounds)]
