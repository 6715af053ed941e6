"""The two work items that learn: fitting a reward model, and running a phase against it, or against labels alone."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from orchestrator.core.events import Distances, PhaseFailed, PhaseFinished, RewardModelFitted
from orchestrator.core.records import Costs
from orchestrator.core.settings import PhaseSettings as PhaseSection
from orchestrator.core.settings import RewardModelSettings as RewardModelSection
from orchestrator.core.work import FitRewardModel, RunPhase
from policies import phase_records
from policies.errors import NonFiniteError
from policies.implicit_reward import ImplicitReward
from policies.phase import run_phase
from policies.phase_records import OptimizerStart, PhaseFailedError, PhaseFailure, PhaseResult, PhaseSettings
from policies.precision import Precision
from policies.preference_phase import run_preference_phase
from policies.reward_fit import Judgement, fit
from policies.reward_model import Aggregate, RewardModelSettings
from policies.rng import derive_seed
from policies.tasks.base import Split
from workers.bench import Bench, task_of
from workers.labels import Labelled, labelled, towards
from workers.rollouts import publish_rollouts

NORMALISE_PROMPTS: Final = 256
"""Samples of the approved policy that fix a reward model's zero and unit, where the task has so many prompts."""
FEWEST_NORMALISE_PROMPTS: Final = 32
"""Fewer would leave zero and unit to chance; a campaign on such a task is refused at the start."""


def fit_reward_model(work: FitRewardModel, bench: Bench) -> RewardModelFitted | PhaseFailed:
    """Fit from the base on all labels so far, then fix zero and unit on the attempt's start."""
    try:
        return _fit_reward_model(work, bench)
    except NonFiniteError as error:
        failure = PhaseFailure.NON_FINITE.value
        return PhaseFailed(stage=work.stage, attempt=work.attempt, failure=failure, why=str(error))


def _fit_reward_model(work: FitRewardModel, bench: Bench) -> RewardModelFitted:
    place = (work.seed, work.stage, work.attempt)
    labels = labelled(work.batches, bench)
    cap = work.settings.importance_cap
    weights = towards(work.normalise_on, labels, cap, bench) if cap is not None else None
    model, report = fit(
        bench.policy(work.base),
        [label.comparison() for label in labels],
        _reward_model_settings(work.settings),
        seed=derive_seed(*place, "reward_model"),
        weights=None if weights is None else weights.weight_N.tolist(),
        progress=bench.progress,
    )
    task = task_of(work.task)
    capacity = task.prompt_capacity(Split.NORMALISE)
    wanted = NORMALISE_PROMPTS if capacity is None else min(NORMALISE_PROMPTS, capacity)
    prompts = task.prompts(Split.NORMALISE, wanted, derive_seed(work.seed, "prompts"))
    sampled = bench.sample(
        bench.policy(work.normalise_on),
        prompts,
        each=1,
        max_new_tokens=work.max_response_tokens,
        seed=derive_seed(*place, "normalise"),
        what="renormalising on the approved policy",
    )
    model = model.normalised(sampled.prompts, sampled.responses)
    label_set = _publish_labels(labels, bench)
    with bench.artifacts.staging() as staged:
        model.save(staged)
        meta = {"base": work.base, "label_set": label_set, "normalised_on": work.normalise_on}
        digest = bench.artifacts.publish(staged, kind="reward_model", meta=meta)
    return RewardModelFitted(
        stage=work.stage,
        attempt=work.attempt,
        reward_model=digest,
        label_set=label_set,
        labels=len(labels),
        trained_on=tuple(batch.batch for batch in work.batches),
        **_figures(report),
        effective_labels=None if weights is None else weights.effective_sample_size,
        costs=Costs(
            prompts=len(prompts),
            samples=len(prompts),
            tokens=sampled.tokens,
            gradient_steps=report.gradient_steps,
        ),
    )


def train_policy(work: RunPhase, bench: Bench) -> PhaseFinished | PhaseFailed:
    """One phase from the checkpoint that the protocol names; one that breaks down leaves no candidate."""
    labels = labelled(work.batches, bench) if work.reward_model is None else []
    with bench.artifacts.staging() as staged:
        try:
            result = _run(work, labels, staged, bench)
        except PhaseFailedError as error:
            return PhaseFailed(
                stage=work.stage,
                attempt=work.attempt,
                failure=error.failure.value,
                why=str(error),
                costs=Costs(**asdict(error.spent)),
            )
        candidate = bench.publish_checkpoint(staged, {"parent": work.start, "reward_model": work.reward_model})
    label_set = _publish_labels(labels, bench) if work.reward_model is None else None
    first, last = result.records[0], result.records[-1]
    return PhaseFinished(
        stage=work.stage,
        attempt=work.attempt,
        candidate=candidate,
        start=work.start,
        start_digest=result.start_digest,
        rollouts=publish_rollouts(result, bench),
        steps=result.steps,
        stopped_by=result.stopped_by.value,
        proxy=last.reward,
        kl_nats=result.kl_nats,
        steps_allowed=work.settings.steps,
        kl_budget_nats=work.settings.kl.budget_nats,
        distances=_distances(result),
        spread_start=first.reward_spread,
        spread_candidate=last.reward_spread,
        label_set=label_set,
        trained_on=tuple(batch.batch for batch in work.batches),
        implicit_reward=_implicit_reward(work, candidate, result, label_set, len(labels), bench),
        costs=Costs(**asdict(result.spent)),
    )


def _run(work: RunPhase, labels: list[Labelled], out_dir: Path, bench: Bench) -> PhaseResult:
    section = work.settings
    place = (work.seed, work.stage, work.attempt)
    settings = _phase_settings(section)
    shared: dict[str, Any] = {
        "start_dir": bench.folder(work.start),
        "reference_dir": bench.folder(work.reference),
        "base_dir": bench.folder(work.base),
        "prompts": task_of(work.task).prompts(
            Split.TRAIN, section.steps * section.prompts_per_step, derive_seed(*place, "prompts")
        ),
        "seed": derive_seed(*place, "phase"),
        "out_dir": out_dir,
        "device": bench.device,
        "progress": bench.progress,
    }
    if work.reward_model is None:
        pairs = [label.pair(work.start) for label in labels]
        return run_preference_phase(settings, comparisons=pairs, fold_seed=derive_seed(work.seed, "folds"), **shared)
    return run_phase(settings, reward_model=bench.reward_model(work.reward_model), **shared)


def _implicit_reward(
    work: RunPhase, candidate: str, result: PhaseResult, label_set: str | None, labels: int, bench: Bench
) -> RewardModelFitted | None:
    """The candidate read as a reward model, with what labels that it was not trained on say of that."""
    judgement = result.judgement
    if judgement is None or label_set is None or not work.settings.algorithm.promises:
        return None
    beta = work.settings.preference.beta
    reward = ImplicitReward(bench.policy(candidate), bench.policy(work.reference), beta, judgement.temperature)
    with bench.artifacts.staging() as staged:
        reward.save(staged)
        meta = {"policy": candidate, "reference": work.reference, "label_set": label_set}
        digest = bench.artifacts.publish(staged, kind="reward_model", meta=meta)
    return RewardModelFitted(
        stage=work.stage,
        attempt=work.attempt,
        reward_model=digest,
        label_set=label_set,
        labels=labels,
        **_figures(judgement),
        costs=Costs(),
    )


def _figures(judgement: Judgement) -> dict[str, float | None]:
    """What held-out labels say; where none is decided, nothing is known: accuracy one half, between 0 and 1."""
    known = judgement.decided > 0
    return {
        "accuracy": judgement.accuracy if known else 0.5,
        "accuracy_low": judgement.accuracy_low if known else 0.0,
        "accuracy_high": judgement.accuracy_high if known else 1.0,
        "log_loss_nats": judgement.log_loss if judgement.held_out else math.log(2.0),
        "temperature": judgement.temperature,
        "calibration_slope": _finite(judgement.calibration_slope),
        "calibration_slope_se": _finite(judgement.calibration_slope_error),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _distances(result: PhaseResult) -> Distances:
    return Distances(
        reverse_reference_nats=result.kl.reverse_reference_nats,
        forward_reference_nats=result.kl.forward_reference_nats,
        reverse_base_nats=result.kl.reverse_base_nats,
        forward_base_nats=result.kl.forward_base_nats,
        largest_token_log_ratio_nats=result.kl.largest_token_log_ratio_nats,
        high_token_log_ratio_nats=result.kl.high_token_log_ratio_nats,
        exact=result.kl.exact,
    )


def _publish_labels(labels: list[Labelled], bench: Bench) -> str:
    return bench.artifacts.publish_lines("label_set", [label.row() for label in labels])


def _reward_model_settings(section: RewardModelSection) -> RewardModelSettings:
    return RewardModelSettings(
        members=section.members,
        aggregate=Aggregate(section.aggregate),
        variance_weight=section.variance_weight,
        epochs=section.epochs,
        learning_rate=section.learning_rate,
        batch_size=section.batch_size,
        recency=section.recency,
    )


def _phase_settings(section: PhaseSection) -> PhaseSettings:
    return PhaseSettings(
        algorithm=phase_records.Algorithm(section.algorithm.value),
        steps=section.steps,
        prompts_per_step=section.prompts_per_step,
        samples_per_prompt=section.samples_per_prompt,
        max_new_tokens=section.max_response_tokens,
        learning_rate=section.learning_rate,
        max_grad_norm=section.max_gradient_norm,
        optimizer=OptimizerStart(section.optimizer),
        kl_coefficient=section.kl.coefficient,
        kl_target_nats=section.kl.target_nats,
        kl_budget_nats=section.kl.budget_nats,
        kl_explosion_nats=section.kl.explosion,
        missing_end_penalty=section.missing_eos_penalty,
        updates_per_batch=section.updates_per_batch,
        minibatches=section.minibatches,
        prompts_per_pass=section.prompts_per_pass,
        precision=Precision(section.precision),
        clip_low=section.clip.low,
        clip_high=section.clip.high,
        discount=section.ppo.discount,
        gae_lambda=section.ppo.gae_lambda,
        value_coefficient=section.ppo.value_coefficient,
        beta=section.preference.beta,
        label_epochs=section.preference.epochs,
        label_batch_size=section.preference.batch_size,
        stop_predicted_win_rate=section.stop.predicted_win_rate,
        stop_spread_growth=section.stop.spread_growth,
    )
