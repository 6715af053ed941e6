"""One RL phase: from a checkpoint, against a fixed reward model, to a candidate.

Per step: draw K responses to each of G prompts; reward them; let the algorithm say what they teach; take one gradient
step (or several, held by the clipped ratio) and throw the batch away.

    start ──► sample ──► reward, KL ──► failed? ── yes ──► named failure, no candidate
                ▲                         │ no
                │                      over? ── yes ──► measure and write the candidate
                │                         │ no                  (also when the steps are used up)
                └──── gradient step ◄─────┘

What is particular to an algorithm stands in `algorithms`, the weights in `learner`, when to stop in `stopping`. A phase
knows nothing of gold, of people or of what happens to its candidate.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from policies import algorithms, kl, language_model, measured, phase_steps, stopping
from policies.advantages import RunningBaseline
from policies.algorithms import Lesson
from policies.batch import TokenBatch
from policies.errors import NonFiniteError
from policies.language_model import LanguageModel
from policies.learner import Learner, Seen, Update
from policies.measured import Reference, require_finite
from policies.phase_records import (
    Algorithm,
    KLReport,
    PhaseFailedError,
    PhaseFailure,
    PhaseResult,
    PhaseSettings,
    Rollout,
    Spent,
    StepRecord,
    StoppedBy,
)
from policies.phase_steps import PromptOrder
from policies.progress import Progress, silent
from policies.reward_model import RewardModel, disagreement
from policies.rng import derive_seed, generator
from policies.sampler import Samples, sample
from policies.stopping import Shown


def run_phase(
    settings: PhaseSettings,
    *,
    start_dir: Path,
    reference_dir: Path,
    reward_model: RewardModel,
    prompts: Sequence[str],
    seed: int,
    out_dir: Path,
    base_dir: Path | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> PhaseResult:
    """Train the policy in `start_dir` and write the candidate to `out_dir`.

    The candidate is an ordinary Hugging Face folder with the trainer's state beside the weights. Prompts are
    used in an order that `seed` fixes, again and again if they run out. The candidate's distance from the model in
    `base_dir`, if given, is measured besides that from the reference.

    Raises:
        ModelFolderError: if a folder does not open.
        PrecisionError: if `device` lacks what `settings.precision` asks for.
        PhaseFailedError: if a reward, loss, gradient or weight is NaN or infinite, if the KL explodes, if most
            responses are empty, if a step's rewards tell no prompt's responses apart, or if the start is past the
            KL budget already. Nothing is written then.
        ValueError: if there are no prompts, or if the algorithm does not learn from a reward model.
    """
    if settings.algorithm not in algorithms.REINFORCING:
        raise ValueError(f"{settings.algorithm} does not learn from a reward model")
    trainer = _Trainer.start(settings, start_dir, reference_dir, reward_model, prompts, seed, device)
    start_digest = trainer.learner.digest()
    records: list[StepRecord] = []
    rollouts: list[Rollout] = []
    stopped_by: StoppedBy | None = None
    try:
        while stopped_by is None:
            step = len(records)
            batch = trainer.draw(step, last=step == settings.steps)
            stopped_by = phase_steps.stopped(batch.shown, settings, step=step, last=batch.last, spent=trainer.spent)
            update = None if stopped_by else trainer.update(batch)
            records.append(trainer.record(batch, update))
            rollouts += batch.rollouts(learned=update is not None)
            progress(step, settings.steps, f"reward {records[-1].reward:+.2f}, KL {batch.shown.kl_nats:.2f} nats")
        trainer.learner.check_weights()
        report = trainer.kl_report(batch, base_dir)
    except NonFiniteError as error:
        raise PhaseFailedError(str(error), PhaseFailure.NON_FINITE, trainer.spent) from error
    language_model.save(trainer.learner.policy, out_dir, like=start_dir)
    state = trainer.learner.state(sampling=trainer.sampling, reward_mean=reward_model.mean, reward_sd=reward_model.sd)
    state.save(out_dir)
    return PhaseResult(
        out_dir=out_dir,
        steps=trainer.spent.gradient_steps,
        stopped_by=stopped_by,
        kl_nats=records[-1].kl_nats,
        start_digest=start_digest,
        records=tuple(records),
        rollouts=tuple(rollouts),
        spent=trainer.spent,
        kl=report,
    )


@dataclass(frozen=True, slots=True)
class _Experience:
    """Responses with their rewards, and what the reference says of them."""

    samples: Samples
    reference: Reference
    reward_B: Tensor
    """The reward model's."""
    fined_B: Tensor
    """Less the fine for not ending."""
    return_B: Tensor
    """What is maximised: less the price of the KL, where that is in the reward."""
    spread: float | None
    """Between the reward model's members; None where only one opinion was asked."""
    k1_B: Tensor
    """Log-ratio to the reference, of the policy that drew."""

    @property
    def batch(self) -> TokenBatch:
        return self.samples.batch

    def grouped(self, value_B: Tensor) -> Tensor:
        return value_B.reshape(-1, self.batch.samples_per_prompt)

    def rollouts(self, step: int, advantage_B: Tensor, *, own: bool) -> list[Rollout]:
        columns = zip(
            self.samples.prompts,
            self.samples.responses,
            self.samples.ended_B.tolist(),
            self.reward_B.tolist(),
            self.k1_B.tolist(),
            advantage_B.tolist(),
            [own] * len(self.samples.responses),
            strict=True,
        )
        return [Rollout(step, *column) for column in columns]


@dataclass(frozen=True, slots=True)
class _Batch:
    """One step before its update."""

    step: int
    last: bool
    own: _Experience
    """Drawn by the present policy: what is measured."""
    taught: _Experience
    """What is learned from; the same, except for best_of_n."""
    lesson: Lesson
    seen: Seen
    shown: Shown

    def rollouts(self, *, learned: bool) -> list[Rollout]:
        """The step's responses; those that were only measured were paid nothing."""
        advantage_B = self.lesson.advantage_BT.sum(dim=1) / self.lesson.keep_BT.sum(dim=1)
        if not learned:
            advantage_B = torch.zeros_like(advantage_B)
        if self.taught is self.own:
            return self.own.rollouts(self.step, advantage_B, own=True)
        unpaid_B = torch.zeros(len(self.own.reward_B))
        own = self.own.rollouts(self.step, unpaid_B, own=True)
        return own + self.taught.rollouts(self.step, advantage_B, own=False)


@dataclass
class _Trainer:
    """What draws, rewards and judges, around the policy that learns."""

    settings: PhaseSettings
    start_dir: Path
    reference_dir: Path
    reward_model: RewardModel
    prompts: PromptOrder
    seed: int
    learner: Learner
    sampling: torch.Generator
    start_sampling: torch.Generator
    """Of the start's own responses, so that measuring them does not change what the policy draws."""
    baseline: RunningBaseline = field(default_factory=RunningBaseline)
    drawn: Spent = field(default_factory=Spent)
    first_spread: float | None = None
    """Between the reward model's members at step 0; None where they are not asked."""
    frozen: dict[Path, LanguageModel] = field(default_factory=dict)

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
        return cls(
            settings=settings,
            start_dir=start_dir,
            reference_dir=reference_dir,
            reward_model=reward_model,
            prompts=PromptOrder.drawn(prompts, settings.prompts_per_step, seed),
            seed=seed,
            learner=Learner.start(settings, start_dir, device),
            sampling=generator(derive_seed(seed, "sampling"), device),
            start_sampling=generator(derive_seed(seed, "start_sampling"), device),
        )

    @property
    def spent(self) -> Spent:
        return replace(self.drawn, gradient_steps=self.learner.steps)

    def fixed(self, folder: Path) -> LanguageModel:
        """A model that does not change during the phase, opened once."""
        if folder not in self.frozen:
            self.frozen[folder] = language_model.load(folder, self.learner.policy.device, self.settings.precision)
            self.frozen[folder].model.requires_grad_(False)
        return self.frozen[folder]

    def draw(self, step: int, *, last: bool) -> _Batch:
        """Sample at the present weights and weigh what came out; the gradient is left ready where it can be."""
        settings, learner = self.settings, self.learner
        prompts = self.prompts.of_step(step)
        imitates_start = settings.algorithm is Algorithm.BEST_OF_N and not last
        # What best_of_n learns from does not come from the policy; to measure that, one response a prompt is enough.
        each = 1 if imitates_start else settings.samples_per_prompt
        own = taught = self._experience(self._sample(learner.policy, prompts, each, self.sampling, new_prompts=True))
        if imitates_start:
            start = self.fixed(self.start_dir)
            taught = self._experience(self._sample(start, prompts, settings.samples_per_prompt, self.start_sampling))
        if step == 0:
            self.first_spread = own.spread
        # Squared, since advantages are scaled by a root mean square: where that overflows, they are 0 instead.
        squares = torch.cat([own.return_B, own.k1_B, taught.return_B]).square().sum()
        require_finite(squares, f"step {step}: a reward or log-probability, or its square,")

        if learner.learns_while_looking and not last:
            lesson = self._lesson(taught, None)
            seen = learner.look(own.batch, own.reference, lesson)
        else:
            seen = learner.look(own.batch, own.reference)
            lesson = self._lesson(taught, seen.value_BT)
        require_finite(seen.kl_B, f"step {step}: a KL")
        require_finite(lesson.advantage_BT, f"step {step}: an advantage")
        shown = Shown(
            steps=learner.steps,
            kl_nats=float(seen.kl_B.mean()),
            reward_spread=own.spread,
            first_spread=self.first_spread,
            predicted_win_rate=self._predicted_win_rate(own, prompts),
            empty_rate=phase_steps.empty_rate(own.samples),
            alike=stopping.alike(taught.grouped(taught.return_B)),
        )
        return _Batch(step, last, own, taught, lesson, seen, shown)

    def update(self, batch: _Batch) -> Update:
        """Learn from the batch."""
        self.baseline = self.baseline.after(batch.taught.return_B)
        if self.learner.learns_while_looking:
            return self.learner.step()
        return self.learner.learn(batch.taught.batch, batch.lesson)

    def record(self, batch: _Batch, update: Update | None) -> StepRecord:
        """Note the step, then let the controller see its KL."""
        own, learner = batch.own, self.learner
        coefficient = learner.controller.coefficient
        if update is not None:
            learner.controller = learner.controller.after(batch.shown.kl_nats)
        return phase_steps.record(
            batch.step,
            own.samples,
            batch.seen,
            batch.shown,
            ref_logp_BT=own.reference.logp_BT,
            k1_B=own.k1_B,
            reward_B=own.reward_B,
            return_B=own.return_B,
            kl_coefficient=coefficient,
            grad_norm=None if update is None else update.grad_norm,
            clip_fraction=None if update is None else update.clip_fraction,
            value_loss=None if update is None or learner.value_head is None else update.value_loss,
        )

    def kl_report(self, last: _Batch, base_dir: Path | None) -> KLReport:
        """Measure the candidate's distances, on the responses of the last batch and on fresh ones of the others."""
        prompts, each = self.prompts.of_step(last.step), last.own.batch.samples_per_prompt
        drawn: dict[Path, TokenBatch] = {}
        for folder in [self.reference_dir, *([base_dir] if base_dir else [])]:
            if folder not in drawn:
                source = generator(derive_seed(self.seed, "kl_report", len(drawn)), self.learner.policy.device)
                drawn[folder] = self._sample(self.fixed(folder), prompts, each, source).batch
        return measured.kl_report(
            self.learner.policy,
            self.fixed(self.reference_dir),
            self.fixed(base_dir) if base_dir else None,
            drawn=last.own.batch,
            drawn_by_reference=drawn[self.reference_dir],
            drawn_by_base=drawn[base_dir] if base_dir else None,
            prompts_per_pass=self.settings.prompts_per_pass,
        )

    def _sample(
        self,
        policy: LanguageModel,
        prompts: list[str],
        each: int,
        source: torch.Generator,
        *,
        new_prompts: bool = False,
    ) -> Samples:
        samples = sample(
            policy,
            prompts,
            max_new_tokens=self.settings.max_new_tokens,
            generator=source,
            samples_per_prompt=each,
        )
        self.drawn = self.drawn.drew(
            prompts=len(prompts) if new_prompts else 0, samples=len(samples.responses), tokens=samples.batch.tokens
        )
        return samples

    def _experience(self, samples: Samples) -> _Experience:
        batch = samples.batch
        reference = measured.refer(self.fixed(self.reference_dir), batch, self.settings.prompts_per_pass)
        # Averaged weights have no spread; the members are asked where a rule needs theirs.
        scores = self.reward_model.score(
            samples.prompts, samples.responses, all_members=self.settings.stop_spread_growth is not None
        )
        fined_B = scores.aggregate_B - self.settings.missing_end_penalty * (~samples.ended_B)
        k1_B = kl.k1(samples.logp_BT, reference.logp_BT, batch.response_keep_BT)
        priced = self.settings.algorithm in algorithms.KL_IN_REWARD
        return _Experience(
            samples=samples,
            reference=reference,
            reward_B=scores.aggregate_B,
            fined_B=fined_B,
            return_B=fined_B - self.learner.controller.coefficient * k1_B if priced else fined_B,
            spread=disagreement(scores.members_MB) if len(scores.members_MB) > 1 else None,
            k1_B=k1_B,
        )

    def _predicted_win_rate(self, own: _Experience, prompts: list[str]) -> float | None:
        """What the reward model expects of the policy against one fresh response of the start to each prompt."""
        if self.settings.stop_predicted_win_rate is None:
            return None
        start = self._sample(self.fixed(self.start_dir), prompts, 1, self.start_sampling)
        against_G = self.reward_model.score(start.prompts, start.responses).aggregate_B
        difference_GK = own.grouped(own.reward_B) - against_G.unsqueeze(1)
        return float(torch.sigmoid(self.reward_model.logit(difference_GK)).mean())

    def _lesson(self, taught: _Experience, value_BT: Tensor | None) -> Lesson:
        """What a batch teaches; `value_BT` is the value head's opinion of it (PPO)."""
        keep_BT = taught.batch.response_keep_BT
        logp_BT, ref_logp_BT = taught.samples.logp_BT, taught.reference.logp_BT
        if value_BT is not None:
            k1_BT = kl.k1_tokens(logp_BT, ref_logp_BT)
            reward_BT = algorithms.token_rewards(taught.fined_B, k1_BT, keep_BT, self.learner.controller.coefficient)
            return algorithms.token_lesson(reward_BT, value_BT, logp_BT, ref_logp_BT, keep_BT, self.settings)
        return_GK = taught.grouped(taught.return_B)
        advantage_GK = algorithms.sequence_advantage(self.settings.algorithm, return_GK, self.baseline)
        return Lesson(keep_BT, logp_BT, ref_logp_BT, advantage_GK.reshape(-1, 1) * keep_BT)
