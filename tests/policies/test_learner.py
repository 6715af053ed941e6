"""The learning policy: parts of a batch add up to the whole, and single passes to double ones."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from policies import kl, measured
from policies.algorithms import Lesson
from policies.errors import NonFiniteError
from policies.learner import Learner
from policies.measured import Reference
from policies.phase_records import Algorithm, PhaseSettings
from policies.rng import generator
from policies.sampler import Samples, sample
from policies.tasks.memo import Memo

SETTINGS = PhaseSettings(prompts_per_step=5, samples_per_prompt=3, max_new_tokens=8)


def drawn(learner: Learner, memo: Memo) -> Samples:
    return sample(
        learner.policy,
        memo.prompts("train", 5, seed=0),
        max_new_tokens=8,
        generator=generator(1),
        samples_per_prompt=3,
    )


def lesson_on(samples: Samples, ref_logp_BT: Tensor) -> Lesson:
    keep_BT = samples.batch.response_keep_BT
    advantage_BT = torch.randn(15, 1, generator=generator(2)) * keep_BT
    target_BT = torch.randn(keep_BT.shape, generator=generator(3)) * keep_BT
    return Lesson(keep_BT, samples.logp_BT, ref_logp_BT, advantage_BT, target_BT)


def gradients(learner: Learner) -> list[Tensor]:
    parameters = [parameter for group in learner.optimizer.param_groups for parameter in group["params"]]
    return [parameter.grad.clone() for parameter in parameters if parameter.grad is not None]


def look_gradients(settings: PhaseSettings, seedling_dir: Path, memo: Memo) -> tuple[list[Tensor], Tensor]:
    learner = Learner.start(settings, seedling_dir, "cpu")
    samples = drawn(learner, memo)
    reference = measured.refer(learner.policy, samples.batch, settings.prompts_per_pass)
    moved_BT = reference.logp_BT - 0.3 * samples.batch.response_keep_BT
    seen = learner.look(samples.batch, Reference(reference.logp_BT, reference.logp_NV), lesson_on(samples, moved_BT))
    return gradients(learner), seen.kl_B


def agree(one: list[Tensor], other: list[Tensor]) -> bool:
    scale = max(float(tensor.abs().max()) for tensor in one)
    assert scale > 1e-3
    return all(torch.allclose(a, b, atol=1e-5 * scale) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("algorithm", [Algorithm.RLOO, Algorithm.GRPO, Algorithm.DR_GRPO, Algorithm.REINFORCE])
def test_passes_add_up_while_looking(algorithm: Algorithm, seedling_dir: Path, memo: Memo) -> None:
    settings = replace(SETTINGS, algorithm=algorithm)
    whole, _ = look_gradients(settings, seedling_dir, memo)
    for prompts_per_pass in (1, 2):
        parts, _ = look_gradients(replace(settings, prompts_per_pass=prompts_per_pass), seedling_dir, memo)
        assert agree(whole, parts)


@pytest.mark.parametrize("algorithm", [Algorithm.RLOO, Algorithm.GRPO, Algorithm.PPO])
def test_passes_add_up_while_learning(algorithm: Algorithm, seedling_dir: Path, memo: Memo) -> None:
    found = []
    for prompts_per_pass in (None, 2):
        settings = replace(
            SETTINGS, algorithm=algorithm, prompts_per_pass=prompts_per_pass, learning_rate=0.0, max_grad_norm=1e9
        )
        learner = Learner.start(settings, seedling_dir, "cpu")
        samples = drawn(learner, memo)
        update = learner.learn(samples.batch, lesson_on(samples, samples.logp_BT - 0.3))
        found.append((gradients(learner), update.grad_norm, update.value_loss))
    assert agree(found[0][0], found[1][0])
    assert found[0][1:] == pytest.approx(found[1][1:], rel=1e-4)


def test_looking_and_learning_give_one_gradient(seedling_dir: Path, memo: Memo) -> None:
    settings = replace(SETTINGS, learning_rate=0.0, max_grad_norm=1e9)
    learner = Learner.start(settings, seedling_dir, "cpu")
    samples = drawn(learner, memo)
    taught = lesson_on(samples, samples.logp_BT)
    learner.learn(samples.batch, taught)
    learned = gradients(learner)
    looked, _ = look_gradients(settings, seedling_dir, memo)
    assert agree(learned, looked)


def test_a_single_update_needs_no_ratio(seedling_dir: Path, memo: Memo) -> None:
    """However far sampler and trainer are apart in rounding, the ratio of one and the same policy is 1."""
    learner = Learner.start(replace(SETTINGS, learning_rate=0.0, max_grad_norm=1e9), seedling_dir, "cpu")
    samples = drawn(learner, memo)
    taught = lesson_on(samples, samples.logp_BT)
    found = []
    for logp_BT in (taught.logp_BT, taught.logp_BT - 2.0 * taught.keep_BT):
        learner.learn(samples.batch, replace(taught, logp_BT=logp_BT))
        found.append(gradients(learner))
    assert agree(*found)


def test_a_large_vocabulary_is_measured_by_k3(seedling_dir: Path, memo: Memo, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = Learner.start(SETTINGS, seedling_dir, "cpu")
    samples = drawn(learner, memo)
    with torch.no_grad():
        for parameter in learner.policy.model.parameters():
            parameter.mul_(1.05)
    exactly = measured.refer(learner.policy, samples.batch, None)
    monkeypatch.setattr(kl, "EXACT_LIMIT", 10)
    reference = measured.refer(learner.policy, samples.batch, None)
    assert exactly.logp_NV is not None
    assert reference.logp_NV is None
    assert torch.equal(exactly.logp_BT, reference.logp_BT)
    fresh = Learner.start(SETTINGS, seedling_dir, "cpu")
    seen = fresh.look(samples.batch, reference)
    expected_B = kl.k3(samples.logp_BT, reference.logp_BT, samples.batch.response_keep_BT)
    assert torch.allclose(seen.kl_B, expected_B, atol=1e-4)


def test_a_broken_model_has_no_distance(seedling_dir: Path, memo: Memo) -> None:
    learner, broken = (Learner.start(SETTINGS, seedling_dir, "cpu") for _ in range(2))
    samples = drawn(learner, memo)
    with torch.no_grad():
        broken.policy.model.lm_head.weight[5] = float("inf")
    with pytest.raises(NonFiniteError, match="distance between two policies"):
        measured.distance(learner.policy, broken.policy, samples.batch, None)
