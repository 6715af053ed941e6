"""Best of n: the unbiased estimate against all subsets, the choice, and the bound on the KL."""

import itertools
import math

import pytest
import torch

from policies import best_of_n

PROXY = [0.3, -1.2, 2.0, 0.9, 1.1, -0.4, 0.0]
GOLD = [1.0, 0.5, -2.0, 0.7, 0.2, 0.1, 0.9]


@pytest.mark.parametrize("n", range(1, len(PROXY) + 1))
def test_the_estimate_is_the_mean_over_all_subsets(n: int) -> None:
    subsets = list(itertools.combinations(range(len(PROXY)), n))
    expected = sum(GOLD[max(subset, key=PROXY.__getitem__)] for subset in subsets) / len(subsets)
    found = best_of_n.expected_best(torch.tensor(PROXY), torch.tensor(GOLD), n)
    assert found == pytest.approx(expected, rel=1e-6)


def test_large_samples_neither_overflow_nor_lose_weight() -> None:
    values = torch.ones(3000)
    assert best_of_n.expected_best(torch.arange(3000.0), values, 1000) == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("n", [0, 8])
def test_more_than_there_are_cannot_be_estimated(n: int) -> None:
    with pytest.raises(ValueError, match=f"best of {n}"):
        best_of_n.expected_best(torch.tensor(PROXY), torch.tensor(GOLD), n)


def test_the_first_of_the_best_is_chosen() -> None:
    found = best_of_n.chosen(torch.tensor([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0], [0.0, -1.0, 5.0]]))
    assert found.tolist() == [[False, True, False], [True, False, False], [False, False, True]]


@pytest.mark.parametrize("n", [1, 2, 4, 16])
def test_the_bound_is_met_where_no_two_responses_are_alike(n: int) -> None:
    # Over M equally likely responses in order of reward, response i is best with (i/M)^n - ((i-1)/M)^n.
    responses = 20_000
    truth = 0.0
    for i in range(1, responses + 1):
        probability = (i / responses) ** n - ((i - 1) / responses) ** n
        truth += probability * math.log(probability * responses) if probability else 0.0
    bound = best_of_n.kl_bound_nats(n)
    assert truth <= bound + 1e-9
    assert truth == pytest.approx(bound, abs=1e-3)
