"""A reward model's forward pass against the plain module, row by row."""

from dataclasses import replace

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from policies import reward_model
from policies.language_model import LanguageModel
from policies.reward_model import Encoded

ROWS = [
    Encoded([5, 6, 7], [8, 2]),
    Encoded([5, 6, 7], [2]),
    Encoded([9], [4, 5, 6, 2]),
    Encoded([9], [7, 7, 2]),
]


@pytest.fixture
def gpt2(tiny: LanguageModel) -> LanguageModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tiny.tokenizer), n_embd=16, n_layer=2, n_head=2))
    return replace(tiny, model=model.eval())


@pytest.mark.parametrize("architecture", ["tiny", "gpt2"])
@pytest.mark.parametrize("rows", [ROWS, ROWS[:3], ROWS[1:]], ids=["pairs", "odd", "other odd"])
def test_rewards_and_gradients_are_those_of_each_row_alone(
    architecture: str, rows: list[Encoded], request: pytest.FixtureRequest
) -> None:
    base: LanguageModel = request.getfixturevalue(architecture)
    mine, plain = (reward_model.new_member(base, seed=3).eval() for _ in range(2))
    found_B = mine(reward_model.tokens(rows, base))
    alone = []
    for row in rows:
        state_LD = plain.backbone(torch.tensor([row.prompt + row.response])).last_hidden_state[0]
        alone.append(plain.head(state_LD[len(row.prompt) :].mean(dim=0)))
    expected_B = torch.cat(alone)
    torch.testing.assert_close(found_B, expected_B, atol=1e-4, rtol=0)
    found_B.square().sum().backward()
    expected_B.square().sum().backward()
    for (name, own), theirs in zip(mine.named_parameters(), plain.parameters(), strict=True):
        if theirs.grad is not None:
            assert own.grad is not None, name
            torch.testing.assert_close(own.grad, theirs.grad, atol=1e-4 * float(theirs.grad.abs().max()) + 1e-7, rtol=0)


def test_a_shared_prompt_is_laid_out_once(tiny: LanguageModel) -> None:
    assert reward_model.tokens(ROWS, tiny).prompt_ids_GP.shape == (2, 3)
    assert reward_model.tokens(ROWS[:3], tiny).prompt_ids_GP.shape == (3, 3)
    assert reward_model.tokens([*ROWS[:2], *ROWS[:2]], tiny).prompt_ids_GP.shape == (1, 3)
