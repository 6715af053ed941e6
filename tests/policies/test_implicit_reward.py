"""The reward in a policy: against a plain forward pass, its symmetry, its unit and its file."""

import copy
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from policies import implicit_reward
from policies.calibration import fit_temperature
from policies.errors import ModelFolderError, NonFiniteError
from policies.implicit_reward import ImplicitReward
from policies.language_model import LanguageModel
from policies.preference import promises
from policies.tasks.memo import Memo

RESPONSES = ["rice", "please bring rice and milk", "", "milk !"]


@pytest.fixture
def prompts(memo: Memo) -> list[str]:
    return memo.prompts("train", 4, seed=3)


@pytest.fixture
def reward(tiny: LanguageModel) -> ImplicitReward:
    """The seedling, nudged, against the seedling."""
    source = torch.Generator().manual_seed(1)
    policy = LanguageModel(copy.deepcopy(tiny.model), tiny.tokenizer, tiny.eos_id, tiny.pad_id)
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight += 0.02 * torch.randn(weight.shape, generator=source)
    return ImplicitReward(policy, tiny, beta=0.5)


@torch.no_grad()
def plain_logp(policy: LanguageModel, prompt: str, response: str) -> float:
    """One sequence, no padding, no batch."""
    ids = policy.tokenizer(prompt)["input_ids"]
    reply = [*policy.tokenizer(response, add_special_tokens=False)["input_ids"], policy.eos_id]
    logp = policy.model(torch.tensor([ids + reply])).logits[0].log_softmax(dim=-1)
    return sum(float(logp[len(ids) - 1 + at, token]) for at, token in enumerate(reply))


def test_scores_are_those_of_a_plain_forward_pass(reward: ImplicitReward, prompts: list[str]) -> None:
    expected = [
        0.5 * (plain_logp(reward.policy, prompt, response) - plain_logp(reward.reference, prompt, response))
        for prompt, response in zip(prompts, RESPONSES, strict=True)
    ]
    scores = reward.score(prompts, RESPONSES)
    assert scores.aggregate_B.tolist() == pytest.approx(expected, abs=1e-4)
    assert scores.members_MB.tolist() == [scores.aggregate_B.tolist()]
    assert max(map(abs, expected)) > 0.05


def test_a_policy_that_is_its_own_reference_rewards_nothing(tiny: LanguageModel, prompts: list[str]) -> None:
    assert ImplicitReward(tiny, tiny, beta=3.0).score(prompts, RESPONSES).aggregate_B.tolist() == [0.0] * 4


def test_sides_that_change_places_negate(reward: ImplicitReward, prompts: list[str]) -> None:
    others = RESPONSES[::-1]
    forth, back = promises(reward, prompts, RESPONSES, others), promises(reward, prompts, others, RESPONSES)
    for one, other in zip(forth, back, strict=True):
        assert one.delta_reward == -other.delta_reward
        assert one.p_candidate == pytest.approx(1 - other.p_candidate, abs=1e-6)


def test_a_long_list_is_scored_like_its_parts(reward: ImplicitReward, prompts: list[str]) -> None:
    many = reward.score(prompts * 40, RESPONSES * 40).aggregate_B
    assert torch.allclose(many, reward.score(prompts, RESPONSES).aggregate_B.repeat(40), atol=1e-5)
    assert len(reward.score([], []).aggregate_B) == 0


def test_several_responses_to_a_prompt_stand_side_by_side(reward: ImplicitReward, prompts: list[str]) -> None:
    twice = [text for text in RESPONSES for _ in range(2)]
    found = implicit_reward.sequence_logp(reward.policy, prompts, twice)
    once = implicit_reward.sequence_logp(reward.policy, prompts, RESPONSES)
    assert torch.allclose(found, once.repeat_interleave(2), atol=1e-4)


def test_normalising_changes_the_unit_and_no_probability(reward: ImplicitReward, prompts: list[str]) -> None:
    reward = ImplicitReward(reward.policy, reward.reference, beta=0.5, temperature=0.25)
    normal = reward.normalised(prompts, RESPONSES)
    scored = normal.score(prompts, RESPONSES).aggregate_B
    assert float(scored.mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(scored.std()) == pytest.approx(1.0, abs=1e-5)
    before = promises(reward, prompts, RESPONSES, RESPONSES[::-1])
    after = promises(normal, prompts, RESPONSES, RESPONSES[::-1])
    assert [one.p_candidate for one in after] == pytest.approx([one.p_candidate for one in before], abs=1e-5)
    # σ(β·(difference of log-ratios) / temperature), from log-probabilities alone.
    first, last = (
        plain_logp(reward.policy, prompts[0], text) - plain_logp(reward.reference, prompts[0], text)
        for text in (RESPONSES[0], RESPONSES[3])
    )
    assert before[0].p_candidate == pytest.approx(1 / (1 + math.exp(-0.5 * (first - last) / 0.25)), abs=1e-4)


def test_a_temperature_fitted_to_labels_makes_its_promises_true(reward: ImplicitReward, prompts: list[str]) -> None:
    """Labels with the strength of a known temperature give it back, and what it promises is what they say."""
    first, second = RESPONSES * 4, [text for text in RESPONSES for _ in range(4)]
    asked = prompts * 4
    raw = [
        plain_logp(reward.policy, *one) - plain_logp(reward.reference, *one)
        for one in [*zip(asked, first, strict=True), *zip(asked, second, strict=True)]
    ]
    difference = 0.5 * (np.array(raw[:16]) - np.array(raw[16:]))
    target = 1 / (1 + np.exp(-difference / 0.3))
    found = fit_temperature(
        (reward.score(asked, first).aggregate_B - reward.score(asked, second).aggregate_B).double().numpy(), target
    )
    assert found == pytest.approx(0.3, rel=1e-3)
    said = promises(replace(reward, temperature=found), asked, first, second)
    assert [one.p_candidate for one in said] == pytest.approx(target.tolist(), abs=1e-3)


def test_a_reward_without_differences_keeps_its_unit(tiny: LanguageModel, prompts: list[str]) -> None:
    assert ImplicitReward(tiny, tiny, beta=1.0).normalised(prompts, RESPONSES).sd == 1.0


def test_saved_and_opened_it_is_the_same(reward: ImplicitReward, prompts: list[str], tmp_path: Path) -> None:
    normal = ImplicitReward(reward.policy, reward.reference, beta=0.5, temperature=2.5).normalised(prompts, RESPONSES)
    normal.save(tmp_path / "reward")
    assert implicit_reward.load(tmp_path / "reward", reward.policy, reward.reference) == normal


def test_a_folder_without_one_is_refused(tiny: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="implicit reward"):
        implicit_reward.load(tmp_path, tiny, tiny)


def test_a_broken_policy_is_no_reward(reward: ImplicitReward, prompts: list[str]) -> None:
    with torch.no_grad():
        reward.policy.model.lm_head.weight[0, 0] = torch.nan
    with pytest.raises(NonFiniteError, match="not finite"):
        reward.score(prompts, RESPONSES)
