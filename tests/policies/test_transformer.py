"""The own forward pass against Hugging Face's, number by number and gradient by gradient."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from policies import language_model, transformer
from policies.batch import TokenBatch, pad
from policies.precision import Precision

VOCABULARY = 40
RAGGED = ([5, 2, 7], [4, 1, 6, 2, 2, 3, 1, 1, 5])
BATCHES = {
    "ragged": RAGGED,
    "one sample each": ([3, 6], [2, 5]),
    "even": ([4, 4], [3, 3, 3, 3]),
    "one token each": ([3, 1], [1, 1, 1, 1]),
    "one empty": ([3, 3], [0, 2, 3, 3]),
}


def llama(**changes: Any) -> LlamaForCausalLM:
    shape = {"num_attention_heads": 4, "num_key_value_heads": 4, "tie_word_embeddings": True, **changes}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=VOCABULARY,
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=3,
                initializer_range=0.2,
                **shape,
            )
        ).eval()
        for weight in model.parameters():  # else every norm's weight is 1
            weight.data += 0.1 * torch.randn_like(weight)
    return model


def random_batch(prompt_lengths: list[int], response_lengths: list[int]) -> TokenBatch:
    numbers = torch.Generator().manual_seed(1)
    prompt, response = (
        pad([torch.randint(VOCABULARY, (length,), generator=numbers).tolist() for length in lengths], 0, side)
        for lengths, side in ((prompt_lengths, "left"), (response_lengths, "right"))
    )
    return TokenBatch(prompt.ids, prompt.keep, response.ids, response.keep)


def plain(model: Any, batch: TokenBatch) -> tuple[Tensor, Tensor]:
    """Logits and final states of each row alone, through the Hugging Face module."""
    logits, states = [], []
    for row, keep_T in enumerate(batch.response_keep_BT):
        group = row // batch.samples_per_prompt
        prompt = batch.prompt_ids_GP[group][batch.prompt_keep_GP[group]]
        response = batch.response_ids_BT[row][keep_T]
        said = model(torch.cat([prompt, response]).unsqueeze(0), output_hidden_states=True)
        predicts = slice(len(prompt) - 1, len(prompt) + len(response) - 1)
        logits.append(said.logits[0, predicts])
        states.append(said.hidden_states[-1][0, predicts])
    return torch.cat(logits), torch.cat(states)


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize(
    "changes",
    [{}, {"num_key_value_heads": 2}, {"tie_word_embeddings": False}, {"head_dim": 16}],
    ids=["plain", "grouped heads", "untied head", "wide heads"],
)
def test_logits_states_and_gradients_are_those_of_the_module(changes: dict[str, Any], batch: Any) -> None:
    model, tokens = llama(**changes), random_batch(*batch)
    original = copy.deepcopy(model)
    found = language_model.response_outputs(model, tokens, with_states=True)
    logits_NV, states_ND = plain(original, tokens)
    assert found.states_ND is not None
    torch.testing.assert_close(found.logits_NV, logits_NV, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.states_ND, states_ND, atol=1e-4, rtol=0)

    weight_NV = torch.randn(logits_NV.shape, generator=torch.Generator().manual_seed(2))
    ((found.logits_NV * weight_NV).sum() + found.states_ND.sin().sum()).backward()
    ((logits_NV * weight_NV).sum() + states_ND.sin().sum()).backward()
    for (name, mine), theirs in zip(model.named_parameters(), original.parameters(), strict=True):
        assert mine.grad is not None, name
        assert theirs.grad is not None, name
        torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-4 * float(theirs.grad.abs().max()), rtol=0)


def test_frozen_weights_get_no_gradient() -> None:
    model = llama()
    model.model.layers[0].requires_grad_(False)
    language_model.response_logits(model, random_batch(*RAGGED)).sum().backward()
    assert all(weight.grad is None for weight in model.model.layers[0].parameters())
    assert all(weight.grad is not None for weight in model.model.layers[1].parameters())


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="a prompt has no tokens"):
        transformer.Layout.of(random_batch([2, 0], [1, 1]))


def test_only_exactly_this_architecture_is_recognised() -> None:
    assert transformer.recognises(llama())
    scaled = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10_000.0}
    for changes in (
        {"attention_bias": True},
        {"mlp_bias": True},
        {"hidden_act": "gelu"},
        {"attention_dropout": 0.1},
        {"rope_parameters": scaled},
    ):
        assert not transformer.recognises(llama(**changes)), changes
    adapted, hooked, half = llama(), llama(), llama()
    adapted.model.layers[1].mlp.up_proj = torch.nn.Sequential(adapted.model.layers[1].mlp.up_proj)
    assert not transformer.recognises(adapted)
    hooked.model.norm.register_forward_hook(lambda *_: None)
    assert not transformer.recognises(hooked)
    assert not transformer.recognises(half.bfloat16())


def test_another_architecture_goes_through_its_own_forward_pass() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPT2LMHeadModel(
            GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=2, n_positions=32)
        ).eval()
    assert not transformer.recognises(model)
    tokens = random_batch(*BATCHES["ragged"])
    found = language_model.response_outputs(model, tokens, with_states=True)
    logits_NV, states_ND = plain(copy.deepcopy(model), tokens)
    assert found.states_ND is not None
    torch.testing.assert_close(found.logits_NV, logits_NV, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.states_ND, states_ND, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["own pass", "module's pass"])
def test_bfloat16_is_float32_up_to_its_rounding(kind: str) -> None:
    """Rounding to 8 bits is 2⁻⁹ relative; through three layers and a head, a few times that of the largest logit."""
    model, tokens = llama(), random_batch(*RAGGED)
    original = copy.deepcopy(model)
    if kind == "module's pass":
        model.model.norm.register_forward_hook(lambda *_: None)
    found = language_model.response_outputs(model, tokens, with_states=True, precision=Precision.BFLOAT16)
    logits_NV, _ = plain(original, tokens)
    assert found.logits_NV.dtype == torch.float32
    difference = float((found.logits_NV - logits_NV).detach().abs().max())
    assert 0.0 < difference < 0.05 * float(logits_NV.detach().abs().max())

    ids_N = tokens.response_ids_N
    language_model.token_logp(found.logits_NV, ids_N).sum().backward()
    language_model.token_logp(logits_NV, ids_N).sum().backward()
    for (name, mine), theirs in zip(model.named_parameters(), original.parameters(), strict=True):
        assert mine.grad is not None, name
        assert theirs.grad is not None, name
        assert mine.grad.dtype == torch.float32
        along = torch.cosine_similarity(mine.grad.flatten(), theirs.grad.flatten(), dim=0)
        assert float(along) > 0.99, name
