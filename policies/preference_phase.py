"""One phase without a reward model: from a checkpoint and people's labels straight to a candidate.

    labels ─► one prompt in six held out
                 │ the others
    start ──► mini-batch ──► gradient step ──┐    every MEASURE_EVERY steps, and at the end:
                 ▲                           │      sample, measure KL ──► budget reached? ─ yes ─► write candidate
                 └───────────────────────────┘

DPO and IPO take all labels, whoever drew the responses; labels as the reward only responses that the start policy
itself drew. On-line and iterated is what a campaign makes of it: every attempt brings fresh labels on the latest
policies, and the reference is the approved checkpoint.

The labels held out train nothing. They judge, and give a temperature to, the candidate's implicit reward: what it
promises to the gate.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policies import advantages, kl, language_model, measured, phase_steps, preference_objectives
from policies.batch import TokenBatch
from policies.errors import LabelsError, NonFiniteError
from policies.implicit_reward import sequence_logp
from policies.language_model import LanguageModel
from policies.learner import Learner, Seen, Update
from policies.measured import require_finite
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
from policies.preference_objectives import LabelsLoss
from policies.progress import Progress, silent
from policies.reward_fit import CALIBRATION_GROUPS, MIN_LABELS, Comparison, Judgement, judge
from policies.rng import derive_seed, generator
from policies.sampler import Samples, sample
from policies.stopping import Shown

PREFERRING: Final = frozenset({Algorithm.DPO, Algorithm.IPO, Algorithm.LABELS})
"""All algorithms that run here."""
FOLDS: Final = 6
"""Labels are dealt, by prompt, into so many folds; one of them is held out. As many as reward models use."""
MEASURE_EVERY: Final = 5
"""Gradient steps between two looks at the KL. A look at 128 fresh samples costs about two steps on 32 comparisons, so
that looking at every step would treble a phase; and within five small steps the KL does not run far past its budget."""


@dataclass(frozen=True, slots=True)
class LabelledPair(Comparison):
    """A comparison that knows where its responses came from."""

    own_1: bool = False
    """True = the policy that the phase starts from drew response_1."""
    own_2: bool = False


def run_preference_phase(
    settings: PhaseSettings,
    *,
    start_dir: Path,
    reference_dir: Path,
    comparisons: Sequence[LabelledPair],
    prompts: Sequence[str],
    seed: int,
    fold_seed: int,
    out_dir: Path,
    base_dir: Path | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> PhaseResult:
    """Train the policy in `start_dir` on labels and write the candidate to `out_dir`.

    `prompts` are for the samples that measure the policy. They train nothing: the records' `reward` is the implicit
    reward β·log π/π_ref of fresh samples, before normalising, and a rollout's advantage is that reward less the mean of
    its prompt's samples. Steps are gradient steps; those between two looks have no record.

    `fold_seed` alone deals prompts into folds. It must be the same at every phase whose start may have learned from
    some of these labels: labels held out now that trained the start would be remembered, not judged.

    Responses are text, since text is what people compared. They are turned into tokens again and closed with the
    end-of-sequence token, even one that was cut off when it was drawn.

    Raises:
        ModelFolderError: if a folder does not open.
        PrecisionError: if `device` lacks what `settings.precision` asks for.
        LabelsError: if too few labels can train.
        PhaseFailedError: if the phase failed in a named way. Nothing is written then.
        ValueError: if there are no prompts, or the settings ask for what needs a reward model.
    """
    if settings.algorithm not in PREFERRING:
        raise ValueError(f"{settings.algorithm} does not learn from labels alone")
    if settings.stop_predicted_win_rate is not None or settings.stop_spread_growth is not None:
        raise ValueError(f"{settings.algorithm} has no reward model to stop by; leave phase.stop empty")
    order = PromptOrder.drawn(prompts, settings.prompts_per_step, seed)
    labels = _Labels.of(comparisons, settings.algorithm, fold_seed)
    batches = labels.batches(settings, generator(derive_seed(seed, "labels")))
    trainer = _Trainer.start(settings, start_dir, reference_dir, labels, order, seed, device)
    learner = trainer.learner
    start_digest = learner.digest()
    records: list[StepRecord] = []
    rollouts: list[Rollout] = []
    stopped_by: StoppedBy | None = None
    try:
        while stopped_by is None:
            look = trainer.look(number=len(records))
            stopped_by = phase_steps.stopped(
                look.shown, settings, step=look.step, last=look.step == len(batches), spent=trainer.spent
            )
            coming = () if stopped_by else batches[look.step : look.step + MEASURE_EVERY]
            updates = [trainer.update(rows) for rows in coming]
            records.append(trainer.record(look, updates))
            rollouts += look.rollouts()
            progress(look.step, len(batches), f"reward {records[-1].reward:+.2f}, KL {look.shown.kl_nats:.2f} nats")
        learner.check_weights()
        judgement = trainer.judgement()
        report = trainer.kl_report(look, number=len(records) - 1, base_dir=base_dir)
    except NonFiniteError as error:
        raise PhaseFailedError(str(error), PhaseFailure.NON_FINITE, trainer.spent) from error
    language_model.save(learner.policy, out_dir, like=start_dir)
    learner.state(sampling=trainer.sampling, reward_mean=0.0, reward_sd=1.0).save(out_dir)
    return PhaseResult(
        out_dir=out_dir,
        steps=learner.steps,
        stopped_by=stopped_by,
        kl_nats=records[-1].kl_nats,
        start_digest=start_digest,
        records=tuple(records),
        rollouts=tuple(rollouts),
        spent=trainer.spent,
        kl=report,
        judgement=judgement,
    )


@dataclass(frozen=True)
class _Labels:
    """Comparisons, and what becomes of each."""

    pairs: tuple[LabelledPair, ...]
    target_N: Tensor
    """float32, on the CPU."""
    held_N: NDArray[np.bool_]
    """True = held out; trains nothing."""
    trains: tuple[int, ...]
    """Rows of those that train."""
    advantage_N2: Tensor
    """What a row's responses weigh where labels are the reward; float32, on the CPU."""
    group_N: NDArray[np.int64]
    """Which labels share a temperature when they are judged."""

    @classmethod
    def of(cls, pairs: Sequence[LabelledPair], algorithm: Algorithm, fold_seed: int) -> "_Labels":
        held = [derive_seed(fold_seed, "fold", pair.prompt) % FOLDS == 0 for pair in pairs]
        trains = tuple(
            row
            for row, pair in enumerate(pairs)
            if not held[row] and (algorithm is not Algorithm.LABELS or pair.own_1 or pair.own_2)
        )
        if len(trains) < MIN_LABELS:
            whose = " on responses that the starting policy drew" if algorithm is Algorithm.LABELS else ""
            raise LabelsError(
                f"{len(trains)} labels{whose} cannot train a policy, {MIN_LABELS} can; "
                f"raise feedback.initial_labels or feedback.labels_per_round (one label in {FOLDS} is held out)"
            )
        target_N = torch.tensor([pair.target for pair in pairs], dtype=torch.float32)
        if all(pairs[row].target == 0.5 or pairs[row].response_1 == pairs[row].response_2 for row in trains):
            raise PhaseFailedError(
                "every label is a tie, or on two responses that are alike, which says nothing; "
                "ask for comparisons that differ",
                PhaseFailure.NO_SIGNAL,
                Spent(),
            )
        trains_N1 = torch.zeros(len(pairs), 1, dtype=torch.bool)
        trains_N1[list(trains)] = True
        own_N2 = torch.tensor([(pair.own_1, pair.own_2) for pair in pairs])
        return cls(
            pairs=tuple(pairs),
            target_N=target_N,
            held_N=np.array(held),
            trains=trains,
            advantage_N2=preference_objectives.label_advantage(target_N, own_N2 & trains_N1),
            group_N=np.array(
                [derive_seed(fold_seed, "calibration", pair.prompt) % CALIBRATION_GROUPS for pair in pairs]
            ),
        )

    def batches(self, settings: PhaseSettings, source: torch.Generator) -> list[list[int]]:
        """Deal the rows that train into mini-batches, in a new order for every pass; no more than may be used."""
        rows_N = torch.tensor(self.trains)
        dealt = [
            batch.tolist()
            for _ in range(settings.label_epochs)
            for batch in rows_N[torch.randperm(len(rows_N), generator=source)].split(settings.label_batch_size)
        ]
        return dealt[: settings.steps]

    def texts(self, rows: Sequence[int]) -> tuple[list[str], list[str]]:
        """Give the prompts of some rows, and twice as many responses: the first and the second of each."""
        pairs = [self.pairs[row] for row in rows]
        return [pair.prompt for pair in pairs], [text for pair in pairs for text in (pair.response_1, pair.response_2)]


@dataclass(frozen=True, slots=True)
class _Look:
    """Fresh samples of the present policy, and what they show."""

    step: int
    samples: Samples
    seen: Seen
    ref_logp_BT: Tensor
    reward_B: Tensor
    """The implicit reward of the tokens as drawn."""
    shown: Shown

    @property
    def batch(self) -> TokenBatch:
        return self.samples.batch

    @property
    def k1_B(self) -> Tensor:
        return kl.k1(self.seen.logp_BT, self.ref_logp_BT, self.batch.response_keep_BT)

    def rollouts(self) -> list[Rollout]:
        each = self.batch.samples_per_prompt
        # With one sample a prompt, the batch stands in for the samples of the prompt.
        reward_GK = self.reward_B.reshape((-1, each) if each > 1 else (1, -1))
        columns = zip(
            self.samples.prompts,
            self.samples.responses,
            self.samples.ended_B.tolist(),
            self.reward_B.tolist(),
            self.k1_B.tolist(),
            advantages.group_centred(reward_GK).flatten().tolist(),
            strict=True,
        )
        return [Rollout(self.step, *column) for column in columns]


@dataclass
class _Trainer:
    """A learner with the labels that it learns from and the reference that it is measured by."""

    settings: PhaseSettings
    learner: Learner
    reference: LanguageModel
    labels: _Labels
    ref_logp_2N: Tensor
    """Of all labelled responses under the reference: computed once."""
    start_logp: dict[int, Tensor]
    """Of the tokens of both responses of a row under the policy at the start; empty unless labels are the reward."""
    prompts: PromptOrder
    seed: int
    sampling: torch.Generator
    drawn: Spent = field(default_factory=Spent)

    @classmethod
    def start(
        cls,
        settings: PhaseSettings,
        start_dir: Path,
        reference_dir: Path,
        labels: _Labels,
        prompts: PromptOrder,
        seed: int,
        device: torch.device | str,
    ) -> "_Trainer":
        learner = Learner.start(settings, start_dir, device)
        reference = language_model.load(reference_dir, device, settings.precision)
        reference.model.requires_grad_(False)
        rewarded = settings.algorithm is Algorithm.LABELS
        return cls(
            settings=settings,
            learner=learner,
            reference=reference,
            labels=labels,
            ref_logp_2N=sequence_logp(reference, *labels.texts(range(len(labels.pairs)))),
            start_logp=_start_logp(learner.policy, labels, settings.label_batch_size) if rewarded else {},
            prompts=prompts,
            seed=seed,
            sampling=generator(derive_seed(seed, "sampling"), device),
        )

    @property
    def spent(self) -> Spent:
        return replace(self.drawn, gradient_steps=self.learner.steps)

    def look(self, *, number: int) -> _Look:
        """Sample at the present weights and measure."""
        step = self.learner.steps
        samples = self._sample(self.learner.policy, self.prompts.of_step(number), self.sampling)
        self.drawn = self.drawn.drew(prompts=self.settings.prompts_per_step, samples=0, tokens=0)
        reference = measured.refer(self.reference, samples.batch, self.settings.prompts_per_pass)
        seen = self.learner.look(samples.batch, reference)
        k1_B = kl.k1(seen.logp_BT, reference.logp_BT, samples.batch.response_keep_BT)
        require_finite(seen.kl_B, f"step {step}: a KL")
        require_finite(k1_B, f"step {step}: a log-probability")
        shown = Shown(
            steps=step,
            kl_nats=float(seen.kl_B.mean()),
            reward_spread=None,
            first_spread=None,
            predicted_win_rate=None,
            empty_rate=phase_steps.empty_rate(samples),
            alike=False,
        )
        return _Look(step, samples, seen, reference.logp_BT, self.settings.beta * k1_B, shown)

    def update(self, rows: Sequence[int]) -> Update:
        """Take one gradient step on the comparisons in `rows`."""
        at_once = self.settings.prompts_per_pass or len(rows)
        clipped = 0.0
        self.learner.optimizer.zero_grad()
        for begin in range(0, len(rows), at_once):
            part = rows[begin : begin + at_once]
            share = len(part) / len(rows)
            loss = self._loss(part)
            require_finite(loss.total, "the loss")
            (share * loss.total).backward()
            clipped += share * loss.clipped
        return replace(self.learner.step(), clip_fraction=clipped)

    def record(self, look: _Look, updates: Sequence[Update]) -> StepRecord:
        """Note a look and the updates that followed it, up to the next one."""
        rewarded = self.settings.algorithm is Algorithm.LABELS
        clip_fraction = sum(update.clip_fraction for update in updates) / max(len(updates), 1)
        return phase_steps.record(
            look.step,
            look.samples,
            look.seen,
            look.shown,
            ref_logp_BT=look.ref_logp_BT,
            k1_B=look.k1_B,
            reward_B=look.reward_B,
            return_B=look.reward_B,
            kl_coefficient=0.0 if rewarded else self.settings.beta,
            grad_norm=max((update.grad_norm for update in updates), default=None),
            clip_fraction=clip_fraction if rewarded and updates else None,
        )

    def judgement(self) -> Judgement:
        """Hold the candidate's implicit reward against all labels, trained on and held out."""
        logp_2N = sequence_logp(self.learner.policy, *self.labels.texts(range(len(self.labels.pairs))))
        require_finite(logp_2N, "a log-probability of a labelled response")
        sides = logp_2N[0::2], logp_2N[1::2], self.ref_logp_2N[0::2], self.ref_logp_2N[1::2]
        difference_N = self.settings.beta * preference_objectives.margin(*sides).double().cpu().numpy()
        return judge(
            difference_MN=difference_N[np.newaxis],
            held_MN=self.labels.held_N[np.newaxis],
            target_N=np.array([pair.target for pair in self.labels.pairs]),
            weight_N=np.ones(len(difference_N)),
            group_N=self.labels.group_N,
        )

    def kl_report(self, last: _Look, *, number: int, base_dir: Path | None) -> KLReport:
        """Measure the candidate's distances, on the samples of the last look and on fresh ones of the others."""
        prompts = self.prompts.of_step(number)
        base = language_model.load(base_dir, self.reference.device, self.settings.precision) if base_dir else None
        drawn = [
            self._sample(one, prompts, generator(derive_seed(self.seed, "kl_report", at), self.reference.device)).batch
            for at, one in enumerate([self.reference, base])
            if one is not None
        ]
        return measured.kl_report(
            self.learner.policy,
            self.reference,
            base,
            drawn=last.batch,
            drawn_by_reference=drawn[0],
            drawn_by_base=drawn[1] if base else None,
            prompts_per_pass=self.settings.prompts_per_pass,
        )

    def _loss(self, rows: Sequence[int]) -> LabelsLoss:
        settings, labels, policy = self.settings, self.labels, self.learner.policy
        batch = policy.batch(*labels.texts(rows))
        logits_NV = policy.outputs(batch).logits_NV
        logp_BT = batch.spread(language_model.token_logp(logits_NV, batch.response_ids_N))
        if settings.algorithm is Algorithm.LABELS:
            start_logp_BT = batch.spread(torch.cat([self.start_logp[row] for row in rows]))
            return preference_objectives.labels(
                logp_BT - start_logp_BT,
                labels.advantage_N2[list(rows)].flatten().to(logp_BT.device),
                batch.response_keep_BT,
                settings.clip_low,
                settings.clip_high,
            )
        logp_2B, ref_logp_2B = logp_BT.sum(dim=1), self.ref_logp_2N.reshape(-1, 2)[list(rows)].flatten()
        margin_B = preference_objectives.margin(logp_2B[0::2], logp_2B[1::2], ref_logp_2B[0::2], ref_logp_2B[1::2])
        target_B = labels.target_N[list(rows)].to(margin_B.device)
        loss = preference_objectives.dpo if settings.algorithm is Algorithm.DPO else preference_objectives.ipo
        return LabelsLoss(loss(margin_B, target_B, settings.beta), 0.0)

    def _sample(self, policy: LanguageModel, prompts: list[str], source: torch.Generator) -> Samples:
        samples = sample(
            policy,
            prompts,
            max_new_tokens=self.settings.max_new_tokens,
            generator=source,
            samples_per_prompt=self.settings.samples_per_prompt,
        )
        self.drawn = self.drawn.drew(prompts=0, samples=len(samples.responses), tokens=samples.batch.tokens)
        return samples


@torch.no_grad()
def _start_logp(policy: LanguageModel, labels: _Labels, at_once: int) -> dict[int, Tensor]:
    """Log-probabilities of the tokens of each row that trains, both responses one after the other; nats."""
    found: dict[int, Tensor] = {}
    for begin in range(0, len(labels.trains), at_once):
        rows = labels.trains[begin : begin + at_once]
        batch = policy.batch(*labels.texts(rows))
        logp_N = language_model.token_logp(policy.outputs(batch).logits_NV, batch.response_ids_N)
        tokens = batch.response_keep_BT.sum(dim=1).reshape(-1, 2).sum(dim=1).tolist()
        found.update(zip(rows, logp_N.split(tokens), strict=True))
    return found
