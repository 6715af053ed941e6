"""Gold, seen from outside: scores of a checkpoint's samples and of a phase's rollouts. Trains and gates nothing."""

import math
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from orchestrator.core.attribution import Estimate, off_distribution
from orchestrator.core.events import Evaluated
from orchestrator.core.work import Evaluate
from policies.preference import Scorer
from policies.rng import derive_seed
from policies.tasks.base import Split, Task, has_gold, probe_prompts
from workers.bench import Bench, Sampled, task_of
from workers.rollouts import read_rollouts


def evaluate(work: Evaluate, bench: Bench) -> Evaluated:
    """Every checkpoint of a campaign answers the same prompts with the same random numbers, so they compare."""
    task = task_of(work.task)
    prompts = task.prompts(Split.EVALUATE, work.prompts, derive_seed(work.seed, "prompts"))
    sampled = _two_each(work, bench, work.checkpoint, prompts)
    if not has_gold(task):
        return _without_gold(work, bench, sampled)
    gold_B = _gold(task, sampled.prompts, sampled.responses)
    rows = [
        {"prompt": prompt, "response": response, "gold": gold}
        for prompt, response, gold in zip(sampled.prompts, sampled.responses, gold_B.tolist(), strict=True)
    ]
    course = _course(work, task, bench)
    before = after = None
    if work.reward_model is not None and work.start is not None:
        model = bench.scorer(work.reward_model)
        started = _two_each(work, bench, work.start, prompts)
        before = _accuracy(model, started, _gold(task, started.prompts, started.responses))
        after = _accuracy(model, sampled, gold_B)
    off_distribution = _off_distribution(work, task, bench)
    prompt_means = gold_B.reshape(-1, 2).mean(axis=1)
    return Evaluated(
        checkpoint=work.checkpoint,
        stage=work.stage,
        attempt=work.attempt,
        gold_mean=float(gold_B.mean()),
        gold_se=float(prompt_means.std(ddof=1) / math.sqrt(len(prompt_means))) if len(prompt_means) > 1 else 0.0,
        responses=len(rows),
        samples=bench.artifacts.publish_lines("samples", rows),
        gold_by_step=course.gold,
        gold_steps=course.steps,
        wrong_reward_share=course.wrong_reward_share,
        wrong_reward=course.wrong_reward,
        reward_model_accuracy=before,
        reward_model_accuracy_candidate=after,
        off_distribution=off_distribution,
    )


def _without_gold(work: Evaluate, bench: Bench, sampled: Sampled) -> Evaluated:
    """Keep the samples for people to read, and say that nobody scored them."""
    rows = [
        {"prompt": prompt, "response": response, "gold": None}
        for prompt, response in zip(sampled.prompts, sampled.responses, strict=True)
    ]
    return Evaluated(
        checkpoint=work.checkpoint,
        stage=work.stage,
        attempt=work.attempt,
        gold_mean=None,
        gold_se=None,
        responses=len(rows),
        samples=bench.artifacts.publish_lines("samples", rows),
    )


@dataclass(frozen=True, slots=True)
class _Course:
    """Gold along a phase."""

    steps: tuple[int, ...] = ()
    gold: tuple[float, ...] = ()
    """Mean over the responses that each step's policy drew."""
    wrong_reward_share: float | None = None
    wrong_reward: float | None = None


def _course(work: Evaluate, task: Task, bench: Bench) -> _Course:
    """Follow gold over the rollouts, and the reward given to wrong behaviour: its share M, and its sum.

    M = sum of max(A, 0) over responses whose gold lies below the phase start's mean, over the same sum for all,
    whoever drew them. The start's mean is taken over the first step's own responses, which the starting policy drew.
    """
    if work.rollouts is None:
        return _Course()
    rollouts = read_rollouts(bench.folder(work.rollouts))
    gold_B = _gold(task, [row["prompt"] for row in rollouts], [row["response"] for row in rollouts])
    step_B = np.array([row["step"] for row in rollouts])
    paid_B = np.maximum([row["advantage"] for row in rollouts], 0.0)
    steps = tuple(step for step, _ in groupby(step_B.tolist()))
    own_B = np.array([row["own"] for row in rollouts])
    gold = tuple(float(gold_B[(step_B == step) & own_B].mean()) for step in steps)
    wrong, total = float(paid_B[gold_B < gold[0]].sum()), float(paid_B.sum())
    return _Course(steps, gold, wrong / total if total else None, wrong)


def _off_distribution(work: Evaluate, task: Task, bench: Bench) -> Estimate | None:
    """How much of the candidate's win rate over the approved policy, by gold, is lost on probes of the same prompts."""
    probes = probe_prompts(task, Split.EVALUATE, work.prompts, derive_seed(work.seed, "prompts"))
    if probes is None or work.approved is None:
        return None
    ordinary = task.prompts(Split.EVALUATE, work.prompts, derive_seed(work.seed, "prompts"))
    wins = []
    for prompts in (ordinary, probes):
        ours, theirs = (
            _gold(task, drawn.prompts, drawn.responses)
            for drawn in (_two_each(work, bench, policy, prompts) for policy in (work.checkpoint, work.approved))
        )
        wins.append(((ours > theirs) + 0.5 * (ours == theirs)).reshape(-1, 2).mean(axis=1))
    return off_distribution(*wins)


def _gold(task: Task, prompts: "tuple[str, ...] | list[str]", responses: "tuple[str, ...] | list[str]") -> np.ndarray:
    return np.array([task.gold(p, r) for p, r in zip(prompts, responses, strict=True)], dtype=np.float64)


def _two_each(work: Evaluate, bench: Bench, checkpoint: str, prompts: list[str]) -> Sampled:
    return bench.sample(
        bench.policy(checkpoint),
        prompts,
        each=2,
        max_new_tokens=work.max_response_tokens,
        seed=derive_seed(work.seed, "evaluate"),
        what="evaluating with gold",
    )


def _accuracy(model: Scorer, sampled: Sampled, gold_B: np.ndarray) -> float | None:
    """Share of the sample pairs of unequal gold that the reward model orders as gold does."""
    reward_B = model.score(sampled.prompts, sampled.responses).aggregate_B.double().cpu().numpy()
    gold_difference = gold_B[0::2] - gold_B[1::2]
    reward_difference = reward_B[0::2] - reward_B[1::2]
    decided = gold_difference != 0
    if not decided.any():
        return None
    return float(np.mean((reward_difference > 0)[decided] == (gold_difference > 0)[decided]))
