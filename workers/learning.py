"""The two work items that learn: fitting a reward model, and running an RL phase against it."""

import gzip
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from orchestrator.core.events import ROLLOUT_STEPS, PhaseFailed, PhaseFinished, RewardModelFitted
from orchestrator.core.records import Choice, Costs
from orchestrator.core.settings import PhaseSettings as PhaseSection
from orchestrator.core.settings import RewardModelSettings as RewardModelSection
from orchestrator.core.work import FitRewardModel, LabelledBatch, RunPhase
from policies.errors import NonFiniteError
from policies.phase import run_phase
from policies.phase_records import OptimizerStart, PhaseFailedError, PhaseResult, PhaseSettings
from policies.reward_fit import Comparison, fit
from policies.reward_model import Aggregate, RewardModelSettings
from policies.rng import derive_seed
from policies.tasks.base import Split
from workers.bench import Bench, task_of

NORMALISE_PROMPTS: Final = 256
"""Samples of the approved policy that fix a reward model's zero and unit, where the task has so many prompts."""
FEWEST_NORMALISE_PROMPTS: Final = 32
"""Fewer would leave zero and unit to chance; a campaign on such a task is refused at the start."""
ROLLOUTS_FILE: Final = "rollouts.jsonl.gz"


def fit_reward_model(work: FitRewardModel, bench: Bench) -> RewardModelFitted | PhaseFailed:
    """Fit from the base on all labels so far, then fix zero and unit on the attempt's start."""
    try:
        return _fit_reward_model(work, bench)
    except NonFiniteError as error:
        return PhaseFailed(stage=work.stage, attempt=work.attempt, why=str(error))


def _fit_reward_model(work: FitRewardModel, bench: Bench) -> RewardModelFitted:
    place = (work.seed, work.stage, work.attempt)
    rows = [row for at, batch in enumerate(work.batches) for row in _labelled(batch, at, bench)]
    comparisons = [Comparison(**{key: value for key, value in row.items() if key != "item"}) for row in rows]
    model, report = fit(
        bench.policy(work.base),
        comparisons,
        _reward_model_settings(work.settings),
        seed=derive_seed(*place, "reward_model"),
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
    label_set = bench.artifacts.publish_lines("label_set", rows)
    with bench.artifacts.staging() as staged:
        model.save(staged)
        meta = {"base": work.base, "label_set": label_set, "normalised_on": work.normalise_on}
        digest = bench.artifacts.publish(staged, kind="reward_model", meta=meta)
    # Where no held-out label is decided, nothing is known of the accuracy: one half, between 0 and 1.
    accuracy = report.accuracy if report.decided else 0.5
    return RewardModelFitted(
        stage=work.stage,
        attempt=work.attempt,
        reward_model=digest,
        label_set=label_set,
        labels=len(rows),
        accuracy=accuracy,
        accuracy_low=report.accuracy_low,
        accuracy_high=report.accuracy_high,
        log_loss_nats=report.log_loss,
        temperature=report.temperature,
        costs=Costs(
            prompts=len(prompts),
            samples=len(prompts),
            tokens=sampled.tokens,
            gradient_steps=report.gradient_steps,
        ),
    )


def train_policy(work: RunPhase, bench: Bench) -> PhaseFinished | PhaseFailed:
    """One RL phase from the checkpoint that the protocol names; a phase that diverges leaves no candidate."""
    section = work.settings
    place = (work.seed, work.stage, work.attempt)
    prompts = task_of(work.task).prompts(
        Split.TRAIN, section.steps * section.prompts_per_step, derive_seed(*place, "prompts")
    )
    with bench.artifacts.staging() as staged:
        try:
            result = run_phase(
                _phase_settings(section),
                start_dir=bench.folder(work.start),
                reference_dir=bench.folder(work.reference),
                reward_model=bench.reward_model(str(work.reward_model)),
                prompts=prompts,
                seed=derive_seed(*place, "phase"),
                out_dir=staged,
                device=bench.device,
                progress=bench.progress,
            )
        except PhaseFailedError as error:
            costs = Costs(**asdict(error.spent))
            return PhaseFailed(stage=work.stage, attempt=work.attempt, why=str(error), costs=costs)
        candidate = bench.publish_checkpoint(staged, {"parent": work.start, "reward_model": work.reward_model})
    return PhaseFinished(
        stage=work.stage,
        attempt=work.attempt,
        candidate=candidate,
        start=work.start,
        start_digest=result.start_digest,
        rollouts=_publish_rollouts(result, bench),
        steps=result.steps,
        stopped_by=result.stopped_by.value,
        proxy=result.records[-1].reward,
        kl_nats=result.kl_nats,
        costs=Costs(**asdict(result.spent)),
    )


def _labelled(batch: LabelledBatch, at: int, bench: Bench) -> Iterable[dict[str, Any]]:
    """The batch's comparisons that somebody had an opinion on, with the mean opinion as target."""
    for row in bench.artifacts.read_lines(batch.comparisons):
        target = _target(batch.choices[row["item"]])
        if target is not None:
            yield {
                "item": f"{batch.batch}.{row['item']}",
                "prompt": row["prompt"],
                "response_1": row["response_1"],
                "response_2": row["response_2"],
                "target": target,
                "round": at,
            }


def _target(said: tuple[Choice, ...]) -> float | None:
    values = [choice.first_wins for choice in said if choice.first_wins is not None]
    return sum(values) / len(values) if values else None


def _publish_rollouts(result: PhaseResult, bench: Bench) -> str:
    with bench.artifacts.staging() as staged:
        steps = "".join(json.dumps(asdict(record), sort_keys=True) + "\n" for record in result.records)
        (staged / ROLLOUT_STEPS).write_text(steps)
        lines = "".join(json.dumps(asdict(rollout), sort_keys=True) + "\n" for rollout in result.rollouts)
        (staged / ROLLOUTS_FILE).write_bytes(gzip.compress(lines.encode(), mtime=0))
        return bench.artifacts.publish(staged, kind="rollouts")


def read_rollouts(folder: Path) -> list[dict[str, Any]]:
    with gzip.open(folder / ROLLOUTS_FILE, "rt") as lines:
        return [json.loads(line) for line in lines]


def _reward_model_settings(section: RewardModelSection) -> RewardModelSettings:
    return RewardModelSettings(
        members=section.members,
        aggregate=Aggregate(section.aggregate),
        variance_weight=section.variance_weight,
        recency=section.recency,
        epochs=section.epochs,
        learning_rate=section.learning_rate,
        batch_size=section.batch_size,
    )


def _phase_settings(section: PhaseSection) -> PhaseSettings:
    return PhaseSettings(
        steps=section.steps,
        prompts_per_step=section.prompts_per_step,
        samples_per_prompt=section.samples_per_prompt,
        max_new_tokens=section.max_response_tokens,
        learning_rate=section.learning_rate,
        max_grad_norm=section.max_gradient_norm,
        optimizer=OptimizerStart(section.optimizer),
        kl_coefficient=section.kl.coefficient,
        kl_budget_nats=section.kl.budget_nats,
        missing_end_penalty=section.missing_eos_penalty,
    )
