import math

import pytest
import torch

from policies.language_model import LanguageModel
from policies.rng import generator
from policies.sampler import draw, sample

EVEN = ["memo to ana on monday : tea , milk , rice", "memo to ben on friday : soap , tea , jam"]
RAGGED = [*EVEN, "memo to cleo : tea"]


@pytest.mark.parametrize("prompts", [EVEN, RAGGED], ids=["even", "ragged"])
def test_logp_is_that_of_a_plain_forward_pass(tiny: LanguageModel, prompts: list[str]) -> None:
    drawn = sample(tiny, prompts, max_new_tokens=12, generator=generator(3), samples_per_prompt=4)
    assert drawn.prompts == tuple(prompt for prompt in prompts for _ in range(4))
    for row, prompt in enumerate(drawn.prompts):
        keep_T = drawn.batch.response_keep_BT[row]
        prompt_ids, response_ids = tiny.encode_prompts([prompt])[0], drawn.batch.response_ids_BT[row][keep_T].tolist()
        with torch.no_grad():
            logits = tiny.model(torch.tensor([prompt_ids + response_ids])).logits[0, len(prompt_ids) - 1 : -1]
        plain = torch.log_softmax(logits, -1)[range(len(response_ids)), response_ids]
        assert torch.allclose(drawn.logp_BT[row][keep_T], plain, atol=1e-4)
        assert torch.equal(drawn.logp_BT[row][~keep_T], torch.zeros(int((~keep_T).sum())))


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
