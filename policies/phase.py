"""One RL phase: from a checkpoint, against a fixed reward model, to a candidate.

Per step: draw K responses to each of G prompts; reward them (reward model, less a fixed fine for not ending, less
the price of every nat away from the reference); compare each with the other responses to its prompt (RLOO); take
one gradient step on that batch and throw it away, so that training is strictly on-policy.

    start ──► sample ──► measure KL ──► budget reached? ── yes ──► write candidate
                ▲                            │ no
                └── one gradient step ◄── reward, advantage          (also when the steps are used up)

A phase knows nothing of gold, of people or of what happens to its candidate.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from policies import advantages, kl, language_model, objectives
from policies.errors import NonFiniteError
from policies.kl import KLController
from policies.language_model import LanguageModel
from policies.phase_records import (
    OptimizerStart,
    PhaseFailedError,
    PhaseFailure,
    PhaseResult,
    PhaseSettings,
    Rollout,
    Spent,
    StepRecord,
    StoppedBy,
)
from policies.progress import Progress, silent
from policies.reward_model import RewardModel
from policies.rng import derive_seed, generator
from policies.sampler import Samples, sample
from policies.trainer_state import TrainerState, digest


def run_phase(
    settings: PhaseSettings,
    *,
    start_dir: Path,
    reference_dir: Path,
    reward_model: RewardModel,
    prompts: Sequence[str],
    seed: int,
    out_dir: Path,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> PhaseResult:
    """Train the policy in `start_dir` and write the candidate to `out_dir`.

    The candidate is an ordinary Hugging Face folder with the trainer's state beside the weights. Prompts are
    used in an order that `seed` fixes, again and again if they run out.

    Raises:
        ModelFolderError: if a folder does not open.
        PhaseFailedError: if a reward, loss, gradient or weight is NaN or infinite. Nothing is written then.
        ValueError: if there are no prompts.
    """
    trainer = _Trainer.start(settings, start_dir, reference_dir, reward_model, prompts, seed, device)
    start_digest = trainer.start_digest
    records: list[StepRecord] = []
    rollouts: list[Rollout] = []
    stopped_by = StoppedBy.STEPS
    try:
        for step in range(settings.steps + 1):
            last = step == settings.steps
            measured = trainer.measure(step)
            over_budget = settings.kl_budget_nats is not None and measured.kl_nats >= settings.kl_budget_nats
            if over_budget and not last:
                stopped_by = StoppedBy.KL_BUDGET
            grad_norm = None if last or over_budget else trainer.update(measured)
            records.append(trainer.record(step, measured, grad_norm))
            rollouts += measured.rollouts(step)
            progress(step, settings.steps, f"reward {records[-1].reward:+.2f}, KL {measured.kl_nats:.2f} nats")
            if grad_norm is None:
                break
        trainer.check_weights()
    except NonFiniteError as error:
        raise PhaseFailedError(str(error), PhaseFailure.NON_FINITE, trainer.spent) from error
    language_model.save(trainer.policy, out_dir, like=start_dir)
    trainer.state().save(out_dir)
    return PhaseResult(
        out_dir=out_dir,
        steps=trainer.spent.gradient_steps,
        stopped_by=stopped_by,
        kl_nats=records[-1].kl_nats,
        start_digest=start_digest,
        records=tuple(records),
        rollouts=tuple(rollouts),
        spent=trainer.spent,
    )


@dataclass(frozen=True, slots=True)
class _Measured:
    """A batch of fresh samples with everything known about it; logits carry the gradient."""

    samples: Samples
    logp_BT: Tensor
    reward_B: Tensor
    spread: float
    return_B: Tensor
    k1_B: Tensor
    kl_nats: float
    entropy_nats: float
    advantage_B: Tensor

    def rollouts(self, step: int) -> list[Rollout]:
        columns = zip(
            self.samples.prompts,
            self.samples.responses,
            self.samples.ended_B.tolist(),
            self.reward_B.tolist(),
            self.k1_B.tolist(),
            self.advantage_B.tolist(),
            strict=True,
        )
        return [Rollout(step, *column) for column in columns]


@dataclass
class _Trainer:
    """What changes during a phase: the policy's weights, the optimizer, the controller, the generator."""

    settings: PhaseSettings
    policy: LanguageModel
    reference: LanguageModel
    reward_model: RewardModel
    prompts: list[str]
    optimizer: torch.optim.AdamW
    controller: KLController
    sampling: torch.Generator
    start_digest: str
    spent: Spent = field(default_factory=Spent)

    @classmethod
    def start(
        cls,
        settings: PhaseSettings,
        start_dir: Path,
        reference_dir: Path,
        reward_model: RewardModel,
        prompts: Sequence[str],
        seed: int,
        device: torch.device | str,
    ) -> "_Trainer":
        if not prompts:
            raise ValueError("a phase needs prompts")
        policy = language_model.load(start_dir, device)
        reference = language_model.load(reference_dir, device)
        reference.model.requires_grad_(False)
        optimizer = torch.optim.AdamW(policy.model.parameters(), lr=settings.learning_rate, weight_decay=0.0)
        controller = KLController(settings.kl_coefficient, settings.kl_target_nats)
        if settings.optimizer is OptimizerStart.RESTORE and TrainerState.present(start_dir):
            earlier = TrainerState.load(start_dir)
            earlier.restore_moments(policy.model, optimizer)
            controller = earlier.controller
        start_digest = digest(policy.model, optimizer, controller)
        order = generator(derive_seed(seed, "prompts"))
        shuffled = [prompts[row] for row in torch.randperm(len(prompts), generator=order).tolist()]
        sampling = generator(derive_seed(seed, "sampling"), device)
        return cls(settings, policy, reference, reward_model, shuffled, optimizer, controller, sampling, start_digest)

    def measure(self, step: int) -> _Measured:
        """Sample at the present weights and weigh what came out."""
        settings = self.settings
        begin = step * settings.prompts_per_step
        chosen = [self.prompts[(begin + at) % len(self.prompts)] for at in range(settings.prompts_per_step)]
        samples = sample(
            self.policy,
            chosen,
            max_new_tokens=settings.max_new_tokens,
            generator=self.sampling,
            samples_per_prompt=settings.samples_per_prompt,
        )
        self.spent = replace(
            self.spent,
            prompts=self.spent.prompts + len(chosen),
            samples=self.spent.samples + len(samples.responses),
            tokens=self.spent.tokens + samples.batch.tokens,
        )
        batch, keep_BT = samples.batch, samples.batch.response_keep_BT
        logits_NV = language_model.response_logits(self.policy.model, batch)
        with torch.no_grad():
            ref_logits_NV = language_model.response_logits(self.reference.model, batch)
            ref_logp_BT = batch.spread(language_model.token_logp(ref_logits_NV, batch.response_ids_N))
            kl_B = batch.spread(kl.exact(logits_NV, ref_logits_NV)).sum(dim=1)
            entropy_N = objectives.entropy(logits_NV)
        logp_BT = batch.spread(language_model.token_logp(logits_NV, batch.response_ids_N))
        k1_B = kl.k1(logp_BT.detach(), ref_logp_BT, keep_BT)
        scores = self.reward_model.score(samples.prompts, samples.responses)
        reward_B = scores.aggregate_B
        fine_B = settings.missing_end_penalty * (~samples.ended_B)
        return_B = reward_B - fine_B - self.controller.coefficient * k1_B
        _require_finite(return_B, f"step {step}: a reward or log-probability")
        advantage_GK = advantages.leave_one_out(return_B.reshape(-1, settings.samples_per_prompt))
        return _Measured(
            samples=samples,
            logp_BT=logp_BT,
            reward_B=reward_B,
            spread=float(scores.members_MB.std(dim=0, unbiased=False).mean()),
            return_B=return_B,
            k1_B=k1_B,
            kl_nats=float(kl_B.mean()),
            entropy_nats=float(entropy_N.mean()),
            advantage_B=advantages.scale_batch(advantage_GK).flatten(),
        )

    def update(self, measured: _Measured) -> float:
        """Take one gradient step; gives the gradient's norm before clipping."""
        keep_BT = measured.samples.batch.response_keep_BT
        loss = objectives.policy_gradient(measured.logp_BT, measured.advantage_B, keep_BT)
        self.optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.policy.model.parameters(), self.settings.max_grad_norm)
        _require_finite(norm, "the gradient")
        self.optimizer.step()
        self.spent = replace(self.spent, gradient_steps=self.spent.gradient_steps + 1)
        return float(norm)

    def record(self, step: int, measured: _Measured, grad_norm: float | None) -> StepRecord:
        """Note the step, then let the controller see its KL."""
        samples, batch = measured.samples, measured.samples.batch
        gap_BT = (samples.logp_BT - measured.logp_BT.detach()).abs()
        coefficient = self.controller.coefficient
        if grad_norm is not None:
            self.controller = self.controller.after(measured.kl_nats)
        return StepRecord(
            step=step,
            reward=float(measured.reward_B.mean()),
            reward_spread=measured.spread,
            return_=float(measured.return_B.mean()),
            kl_nats=measured.kl_nats,
            entropy_nats=measured.entropy_nats,
            response_tokens=batch.tokens / len(samples.responses),
            ended_rate=float(samples.ended_B.float().mean()),
            grad_norm=grad_norm,
            kl_coefficient=coefficient,
            logp_gap=float(gap_BT[batch.response_keep_BT].max()),
        )

    def check_weights(self) -> None:
        """Refuse to let a broken candidate out."""
        for name, weight in self.policy.model.named_parameters():
            _require_finite(weight, f"weight {name} of the candidate")

    def state(self) -> TrainerState:
        """Everything besides the weights that a later phase could start from."""
        return TrainerState.of(
            self.policy.model,
            self.optimizer,
            self.controller,
            reward_mean=self.reward_model.mean,
            reward_sd=self.reward_model.sd,
            generators={"sampling": self.sampling},
        )


def _require_finite(tensor: Tensor, what: str) -> None:
    if not bool(tensor.isfinite().all()):
        raise NonFiniteError(f"{what} is not finite; the phase failed. Lower phase.learning_rate and try again")
