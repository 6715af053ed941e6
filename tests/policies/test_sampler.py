import copy
import math
from dataclasses import replace

import pytest
import torch
from scipy import stats
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from policies import transformer
from policies.errors import TooLongError
from policies.language_model import LanguageModel, token_logp
from policies.precision import Precision
from policies.reward_model import encode
from policies.rng import generator
from policies.sampler import draw, sample

EVEN = ["memo to ana on monday : tea , milk , rice", "memo to ben on friday : soap , tea , jam"]
RAGGED = [*EVEN, "memo to cleo : tea"]


@pytest.fixture
def gpt2(tiny: LanguageModel) -> LanguageModel:
    """An architecture that goes through its own module."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        size = len(tiny.tokenizer)
        model = GPT2LMHeadModel(GPT2Config(vocab_size=size, n_embd=16, n_layer=2, n_head=2, n_positions=64))
    return replace(tiny, model=model.eval())


@pytest.fixture
def grouped(tiny: LanguageModel) -> LanguageModel:
    """Fewer key heads than query heads, a head of its own, random weights: long and short responses."""
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "initializer_range": 0.2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = LlamaConfig(vocab_size=12, num_attention_heads=4, num_key_value_heads=2, head_dim=16, **shape)
        return replace(tiny, model=LlamaForCausalLM(config).eval(), tokenizer=Twelve())


class Twelve:
    """A tokenizer of twelve tokens: letters a to l."""

    def __call__(self, texts: list[str], **_: bool) -> dict[str, list[list[int]]]:
        return {"input_ids": [[ord(letter) - ord("a") for letter in text] for text in texts]}

    def batch_decode(self, ids: list[list[int]], **_: bool) -> list[str]:
        return ["".join(chr(ord("a") + number) for number in row) for row in ids]


def check_logp(policy: LanguageModel, prompts: list[str], max_new_tokens: int) -> None:
    """Each response's log-probabilities against the Hugging Face module on that sequence alone."""
    plain = copy.deepcopy(policy.model)
    drawn = sample(policy, prompts, max_new_tokens=max_new_tokens, generator=generator(3), samples_per_prompt=4)
    assert drawn.prompts == tuple(prompt for prompt in prompts for _ in range(4))
    for row, prompt in enumerate(drawn.prompts):
        keep_T = drawn.batch.response_keep_BT[row]
        prompt_ids, response_ids = policy.encode_prompts([prompt])[0], drawn.batch.response_ids_BT[row][keep_T].tolist()
        with torch.no_grad():
            logits = plain(torch.tensor([prompt_ids + response_ids])).logits[0, len(prompt_ids) - 1 : -1]
        logp = torch.log_softmax(logits, -1)[range(len(response_ids)), response_ids]
        torch.testing.assert_close(drawn.logp_BT[row][keep_T], logp, atol=1e-4, rtol=0)
        assert not drawn.logp_BT[row][~keep_T].any()
        assert bool((drawn.batch.response_ids_BT[row][~keep_T] == policy.pad_id).all())


@pytest.mark.parametrize("prompts", [EVEN, RAGGED], ids=["even", "ragged"])
def test_logp_is_that_of_a_plain_forward_pass(tiny: LanguageModel, prompts: list[str]) -> None:
    check_logp(tiny, prompts, 24)


@pytest.mark.parametrize("prompts", [EVEN, RAGGED], ids=["even", "ragged"])
def test_logp_of_any_other_architecture(gpt2: LanguageModel, prompts: list[str]) -> None:
    assert not transformer.recognises(gpt2.model)
    check_logp(gpt2, prompts, 12)


def test_logp_with_grouped_heads_while_rows_end_and_are_dropped(grouped: LanguageModel) -> None:
    """An end token with a twelfth of the probability: rows leave the batch all the time."""
    assert transformer.recognises(grouped.model)
    check_logp(grouped, ["abc", "d", "efghij", "kk", "abcdefghijkl"], 30)


@pytest.mark.parametrize("kind", ["tiny", "gpt2"])
def test_more_tokens_than_positions_are_refused(kind: str, request: pytest.FixtureRequest) -> None:
    """Both have 64. A text is closed with the end token, which takes a position as well."""
    policy = request.getfixturevalue(kind)
    prompt = len(policy.encode_prompts(EVEN[:1])[0])
    sample(policy, EVEN[:1], max_new_tokens=63 - prompt, generator=generator(1))
    with pytest.raises(TooLongError, match=r"take 65 tokens.*64 positions.*phase\.max_response_tokens"):
        sample(policy, EVEN[:1], max_new_tokens=64 - prompt, generator=generator(1))
    fits, too_long = " ".join(["tea"] * (63 - prompt)), " ".join(["tea"] * (64 - prompt))
    assert policy.batch(EVEN[:1], [fits]).tokens == 64 - prompt
    assert len(encode(policy, EVEN[:1], [fits])) == 1
    for reads in (policy.batch, lambda *texts: encode(policy, *texts)):
        with pytest.raises(TooLongError, match="65 tokens"):
            reads(EVEN[:1], [too_long])


def test_responses_stop_at_the_end_token_and_nowhere_else(tiny: LanguageModel) -> None:
    drawn = sample(tiny, EVEN * 16, max_new_tokens=8, generator=generator(1))
    assert 0 < int(drawn.ended_B.sum()) < len(drawn.ended_B)
    for row, ended in enumerate(drawn.ended_B.tolist()):
        ids = drawn.batch.response_ids_BT[row][drawn.batch.response_keep_BT[row]].tolist()
        assert ended == (ids[-1] == tiny.eos_id)
        assert tiny.eos_id not in ids[:-1]
        assert ended or len(ids) == 8


def test_same_generator_same_bits(tiny: LanguageModel) -> None:
    first = sample(tiny, RAGGED, max_new_tokens=8, generator=generator(5), samples_per_prompt=2)
    again = sample(tiny, RAGGED, max_new_tokens=8, generator=generator(5), samples_per_prompt=2)
    other = sample(tiny, RAGGED, max_new_tokens=8, generator=generator(6), samples_per_prompt=2)
    assert first.responses == again.responses
    assert torch.equal(first.logp_BT, again.logp_BT)
    assert first.responses != other.responses


def test_neighbours_change_nothing(tiny: LanguageModel) -> None:
    """A row's numbers are drawn in its place: a neighbour's prompt, even a longer one, does not touch them."""
    alone = sample(tiny, [EVEN[0], "memo to cleo : tea"], max_new_tokens=8, generator=generator(9))
    beside = sample(tiny, [EVEN[0], EVEN[1]], max_new_tokens=8, generator=generator(9))
    assert alone.responses[0] == beside.responses[0]
    length = int(alone.batch.response_keep_BT[0].sum())
    assert torch.allclose(alone.logp_BT[0, :length], beside.logp_BT[0, :length], atol=1e-4)


def test_the_generator_ends_where_it_always_does(tiny: LanguageModel) -> None:
    """What comes after depends on how much was asked for, not on when the responses happened to end."""
    one, two = generator(2), generator(2)
    sample(tiny, [EVEN[0]], max_new_tokens=30, generator=one)
    sample(tiny, ["memo to cleo : tea"], max_new_tokens=30, generator=two)
    assert torch.equal(one.get_state(), two.get_state())


def test_drawing_inverts_the_distribution() -> None:
    logp_BV = torch.tensor([[0.25, 0.0, 0.5, 0.25]]).log().expand(6, 4)
    uniform_B = torch.tensor([0.0, 0.2499, 0.25, 0.7499, 0.7501, 1 - 2**-53], dtype=torch.float64)
    assert draw(logp_BV, uniform_B).tolist() == [0, 0, 2, 2, 3, 3]  # token 1 has no probability


def test_drawn_frequencies_match_the_policy(tiny: LanguageModel) -> None:
    """First tokens of 4,000 samples against the forward pass, by a chi-square-like bound on each."""
    drawn = sample(tiny, [EVEN[0]], max_new_tokens=1, generator=generator(4), samples_per_prompt=4_000)
    with torch.no_grad():
        p_V = tiny.model(torch.tensor(tiny.encode_prompts([EVEN[0]]))).logits[0, -1].softmax(-1)
    found_V = torch.bincount(drawn.batch.response_ids_BT[:, 0], minlength=len(p_V)) / 4_000
    for p, found in zip(p_V.tolist(), found_V.tolist(), strict=True):
        assert abs(p - found) < 5 * math.sqrt(p * (1 - p) / 4_000) + 1e-3


def test_drawn_pairs_of_tokens_match_the_policy(grouped: LanguageModel) -> None:
    """Chi-square over all responses of two tokens, and of the end token alone: 11 · 12 + 1 outcomes by enumeration."""
    grouped = replace(grouped, eos_id=11)
    drawn = sample(grouped, ["abc"], max_new_tokens=2, generator=generator(8), samples_per_prompt=20_000)
    with torch.no_grad():
        first_V = grouped.model(torch.tensor([[0, 1, 2]])).logits[0, -1].double().softmax(-1)
        rows = torch.tensor([[0, 1, 2, token] for token in range(11)])
        second_VV = copy.deepcopy(grouped.model)(rows).logits[:, -1].double().softmax(-1)
    expected = torch.cat([(first_V[:11, None] * second_VV).flatten(), first_V[11:]])
    ids_BT = drawn.batch.response_ids_BT
    outcome = torch.where(ids_BT[:, 0] == 11, torch.tensor(132), ids_BT[:, 0] * 12 + ids_BT[:, 1])
    found = torch.bincount(outcome, minlength=133)
    assert stats.chisquare(found.numpy(), (expected / expected.sum() * 20_000).numpy()).pvalue > 1e-3


def test_batch_order_and_size_change_no_response(grouped: LanguageModel) -> None:
    """With the same numbers a row gives the same response: alone, among others, and after others have left."""
    prompts = ["abc", "d", "efghij"] * 10
    together = sample(grouped, prompts, max_new_tokens=20, generator=generator(2))
    for row in (0, 1, 2, 17, 29):
        numbers = generator(2)
        torch.rand(row, 20, generator=numbers, dtype=torch.float64)  # what the rows before take
        alone = sample(grouped, [prompts[row]], max_new_tokens=20, generator=numbers)
        assert alone.responses[0] == together.responses[row]
        length = int(alone.batch.response_keep_BT.sum())
        torch.testing.assert_close(alone.logp_BT[0], together.logp_BT[row, :length], atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["tiny", "gpt2"])
def test_bfloat16_draws_what_the_training_pass_says(kind: str, request: pytest.FixtureRequest) -> None:
    """Sampler and training pass round in other places; neither is far from the other, nor from float32."""
    exact = request.getfixturevalue(kind)
    policy = replace(exact, precision=Precision.BFLOAT16)
    drawn = sample(policy, RAGGED, max_new_tokens=12, generator=generator(3), samples_per_prompt=8)
    with torch.no_grad():
        ids_N, keep_BT = drawn.batch.response_ids_N, drawn.batch.response_keep_BT
        trained_N = token_logp(policy.outputs(drawn.batch).logits_NV, ids_N)
        exact_N = token_logp(exact.outputs(drawn.batch).logits_NV, ids_N)
    assert not torch.equal(trained_N, exact_N)
    assert float((drawn.logp_BT[keep_BT] - trained_N).abs().max()) < 0.1
    assert float((drawn.logp_BT[keep_BT] - exact_N).abs().max()) < 0.1
