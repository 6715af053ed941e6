"""Who judges what: folds, rounds, weights and ties, by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from transformers import GPT2Config, GPT2LMHeadModel

from policies import objectives, reward_fit
from policies.calibration import Floats
from policies.errors import LabelsError
from policies.language_model import LanguageModel
from policies.reward_fit import Comparison, fit, judge
from policies.reward_model import Member, RewardModelSettings
from policies.rng import derive_seed
from policies.tasks.memo import Memo

SETTINGS = RewardModelSettings(members=2, epochs=1, learning_rate=1e-3, batch_size=8, folds=3)


def labels(memo: Memo, count: int, each: int = 1) -> list[Comparison]:
    prompts = memo.prompts("label", count // each, seed=0)
    return [Comparison(prompt, "tea . thanks", "rice milk .", 1.0) for prompt in prompts for _ in range(each)]


def judged_alike(difference_MN: Floats, held_MN: np.ndarray, target_N: Floats) -> reward_fit.Judgement:
    count = len(target_N)
    return judge(difference_MN, held_MN, target_N, np.ones(count), np.zeros(count, dtype=np.int64))


class TestJudge:
    def test_only_members_that_did_not_see_a_label_are_asked_about_it(self) -> None:
        # On each label, one member did not see it and is right three times in four; the other always knows.
        difference_MN = np.array([[2.0, 2.0, 9.0, 9.0], [9.0, 9.0, 2.0, -2.0]])
        held_MN = np.array([[True, True, False, False], [False, False, True, True]])
        found = judged_alike(difference_MN, held_MN, np.ones(4))
        assert (found.held_out, found.decided, found.accuracy, found.train_accuracy) == (4, 4, 0.75, 1.0)
        # Three of four right at a difference of 2: sigmoid(2 / T) = 3/4.
        assert found.temperature == pytest.approx(2 / math.log(3), rel=1e-4)
        # Wilson at 3 of 4, z = 1.959964: (.75 + .480182) / 1.960365 = .627528, half-width .326886.
        assert (found.accuracy_low, found.accuracy_high) == pytest.approx((0.300642, 0.954413), abs=1e-5)

    def test_several_members_that_did_not_see_a_label_have_one_opinion(self) -> None:
        found = judged_alike(np.array([[5.0, 1.0], [-3.0, 1.0]]), np.array([[True, True], [True, False]]), np.ones(2))
        # Means of the opinions held: (5 - 3) / 2 and 1.
        assert (found.held_out, found.accuracy) == (2, 1.0)

    def test_ties_are_predicted_but_take_no_side(self) -> None:
        found = judged_alike(np.array([[2.0, 2.0, 0.0]]), np.array([[True] * 3]), np.array([1.0, 0.5, 0.5]))
        assert (found.held_out, found.decided, found.accuracy) == (3, 1, 1.0)

    def test_predictions_are_made_at_other_groups_temperatures(self) -> None:
        # Group 0 asks for T = 2 / ln 3, group 1 for twice that; so group 0 is predicted at half its logit, group 1 at
        # twice: ln 3 / 2 and 2 ln 3, where 3 of 4 call for ln 3.
        difference = np.array([[2.0] * 4 + [4.0] * 4])
        target = np.array([1.0, 1.0, 1.0, 0.0] * 2)
        found = judge(difference, np.ones((1, 8), dtype=bool), target, np.ones(8), np.array([0] * 4 + [1] * 4))

        def loss(logit: float) -> float:
            p = 1 / (1 + math.exp(-logit))
            return -(0.75 * math.log(p) + 0.25 * math.log(1 - p))

        expected = (loss(math.log(3) / 2) + loss(2 * math.log(3))) / 2
        assert found.log_loss == pytest.approx(expected, rel=1e-4)
        assert found.calibration_slope < 1.0

    def test_temperatures_look_at_what_weighs(self) -> None:
        # Right three times in four at 2 and at 4, with all the weight on the latter: sigmoid(4 / T) = 3/4.
        difference, target = np.array([[2.0] * 4 + [4.0] * 4]), np.array([1.0, 1.0, 1.0, 0.0] * 2)
        weight = np.array([0.0] * 4 + [1.0] * 4)
        found = judge(difference, np.ones((1, 8), dtype=bool), target, weight, np.zeros(8, dtype=np.int64))
        assert found.temperature == pytest.approx(4 / math.log(3), rel=1e-4)

    def test_nothing_held_out_is_nothing_known(self) -> None:
        found = judged_alike(np.ones((1, 3)), np.zeros((1, 3), dtype=bool), np.ones(3))
        assert math.isnan(found.accuracy)
        assert math.isnan(found.log_loss)
        assert (found.accuracy_low, found.accuracy_high, found.temperature) == (0.0, 1.0, 1.0)


class Recorded:
    """What `fit` asks of the members' training and of `judge`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[list[int]] = []
        self.judged: dict[str, np.ndarray] = {}
        train, rate = reward_fit._fit_member, reward_fit.judge

        def recording_train(member: Member, data: object, seen: list[int], *rest: object) -> int:
            self.seen.append(seen)
            return train(member, data, seen, *rest)  # type: ignore[arg-type]

        def recording_judge(**arguments: np.ndarray) -> reward_fit.Judgement:
            self.judged = arguments
            return rate(**arguments)

        monkeypatch.setattr(reward_fit, "_fit_member", recording_train)
        monkeypatch.setattr(reward_fit, "judge", recording_judge)


def test_what_a_member_saw_it_is_not_asked_about(
    tiny: LanguageModel, memo: Memo, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded, rows = Recorded(monkeypatch), labels(memo, 36, each=2)
    fit(tiny, rows, SETTINGS, seed=4)
    for number, (seen, held_N) in enumerate(zip(recorded.seen, recorded.judged["held_MN"], strict=True)):
        held = set(np.flatnonzero(held_N))
        assert held.isdisjoint(seen)
        assert held | set(seen) == set(range(36))
        # By prompt, so that both labels of one prompt are on one side.
        assert held == {row for row in range(36) if derive_seed(4, "fold", rows[row].prompt) % 3 == number}
        assert {row ^ 1 for row in held} == held
    group_N = recorded.judged["group_N"]
    assert np.array_equal(group_N[0::2], group_N[1::2])
    assert len(set(group_N.tolist())) > 1


def test_recency_and_importance_multiply(tiny: LanguageModel, memo: Memo, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = Recorded(monkeypatch)
    rows = [replace(row, round=at // 4) for at, row in enumerate(labels(memo, 12))]
    fit(tiny, rows, replace(SETTINGS, recency=0.5), seed=4, weights=[4.0] * 6 + [8.0] * 6)
    # Mean 6: weights 2/3 and 4/3; rounds 0, 1, 2 count a quarter, a half, all.
    expected = [1 / 6] * 4 + [1 / 3] * 2 + [2 / 3] * 2 + [4 / 3] * 4
    assert recorded.judged["weight_N"] == pytest.approx(expected)


def test_equal_weights_are_no_weights_to_the_bit(tiny: LanguageModel, memo: Memo) -> None:
    plain, weighted = (fit(tiny, labels(memo, 24), SETTINGS, seed=2, weights=w) for w in (None, [3.0] * 24))
    assert plain[1] == weighted[1]
    for one, other in zip(plain[0].members, weighted[0].members, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_labels_that_weigh_nothing_teach_nothing(tiny: LanguageModel, memo: Memo) -> None:
    """Half of the labels say the opposite of the other half; what weighs wins."""
    rows = labels(memo, 96)
    rows = [replace(row, target=float(at % 2)) for at, row in enumerate(rows)]
    settings = replace(SETTINGS, epochs=4, learning_rate=3e-3)
    prompts = memo.prompts("evaluate", 10, seed=1)
    for odd in (0.0, 1.0):
        weights = [odd if at % 2 else 1.0 - odd for at in range(96)]
        model = fit(tiny, rows, settings, seed=2, weights=weights)[0]
        rewards = [model.score(prompts, [text] * 10).aggregate_B for text in ("tea . thanks", "rice milk .")]
        assert bool(((rewards[0] > rewards[1]) == bool(odd)).all())


@pytest.mark.parametrize("weights", [[1.0] * 11, [1.0] * 11 + [-1.0], [1.0] * 11 + [math.nan], [0.0] * 12])
def test_weights_that_are_none_are_refused(tiny: LanguageModel, memo: Memo, weights: list[float]) -> None:
    with pytest.raises(LabelsError, match="as many weights"):
        fit(tiny, labels(memo, 12), SETTINGS, seed=2, weights=weights)


def test_a_member_that_would_see_nothing_is_refused(tiny: LanguageModel, memo: Memo) -> None:
    with pytest.raises(LabelsError, match="would see no label"):
        fit(tiny, labels(memo, 12, each=12), replace(SETTINGS, members=3), seed=2)


def best_difference(targets: list[float]) -> float:
    """The reward difference that the loss prefers for one pair labelled several times, by search."""

    def loss(difference: float) -> float:
        count = len(targets)
        return objectives.bradley_terry(torch.full((count,), difference), torch.tensor(targets)).item()

    return minimize_scalar(loss, bounds=(-5, 5), method="bounded").x


def test_dropping_ties_overstates_differences() -> None:
    decided, ties = [1.0, 1.0, 1.0, 0.0], [0.5] * 4
    # Kept, 5 of 8 points go to the first: ln(5/3), the log-odds of what a new label is expected to say. Dropped,
    # 3 of 4: ln 3, more than twice as much.
    assert best_difference(decided + ties) == pytest.approx(math.log(5 / 3), abs=2e-3)
    assert best_difference(decided) == pytest.approx(math.log(3), abs=2e-3)


def test_weights_in_the_loss_by_hand() -> None:
    # P(first) = 3/4: - ln(3/4) · 0.5 and - ln(1/4) · 1.5, their mean.
    loss = objectives.bradley_terry(torch.full((2,), math.log(3.0)), torch.tensor([1.0, 0.0]), torch.tensor([0.5, 1.5]))
    assert loss.item() == pytest.approx(-(0.5 * math.log(0.75) + 1.5 * math.log(0.25)) / 2)


def test_a_base_with_dropout_is_fitted_to_the_same_bytes(tiny: LanguageModel, memo: Memo) -> None:
    """Dropout draws from torch's global generator, which no seed of a campaign reaches: it must stay off."""
    config = GPT2Config(
        vocab_size=len(tiny.tokenizer),
        n_positions=64,
        n_embd=16,
        n_layer=1,
        n_head=2,
        resid_pdrop=0.1,
        embd_pdrop=0.1,
        attn_pdrop=0.1,
    )
    base = replace(tiny, model=GPT2LMHeadModel(config).eval())
    fitted = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        fitted.append(fit(base, labels(memo, 24), SETTINGS, seed=1)[0])
    for one, two in zip(fitted[0].members, fitted[1].members, strict=True):
        pairs = zip(one.parameters(), two.parameters(), strict=True)
        assert all(torch.equal(mine, theirs) for mine, theirs in pairs)
