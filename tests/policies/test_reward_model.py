import hashlib
import itertools
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from policies import reward_model
from policies.errors import LabelsError, ModelFolderError, NonFiniteError
from policies.language_model import LanguageModel
from policies.phase import PhaseSettings, run_phase
from policies.preference import promises
from policies.reward_fit import Comparison, FitReport, fit
from policies.reward_model import Aggregate, RewardModel, RewardModelSettings
from policies.tasks.memo import Memo

SETTINGS = RewardModelSettings(members=2, epochs=6, learning_rate=3e-3, batch_size=8, folds=4)


def thankful(memo: Memo, count: int) -> list[Comparison]:
    """Labels of a rater who wants to be thanked, and nothing else; every sixth is a tie."""
    prompts = memo.prompts("label", count, seed=0)
    rows = []
    for number, prompt in enumerate(prompts):
        if number % 6 == 5:
            rows.append(Comparison(prompt, "tea .", "milk .", 0.5))
        elif number % 2:
            rows.append(Comparison(prompt, "tea . thanks", "rice milk .", 1.0))
        else:
            rows.append(Comparison(prompt, "rice milk .", "soap . thanks", 0.0))
    return rows


@pytest.fixture(scope="module")
def fitted(memo: Memo, seedling_dir: Path) -> tuple[RewardModel, FitReport]:
    from policies import language_model

    return fit(language_model.load(seedling_dir), thankful(memo, 96), SETTINGS, seed=1)


def test_what_labels_say_is_learned(fitted: tuple[RewardModel, FitReport], memo: Memo) -> None:
    model, report = fitted
    prompts = memo.prompts("evaluate", 20, seed=1)
    p = model.probability(prompts, ["jam rice thanks"] * 20, ["jam rice"] * 20)
    assert float(p.min()) > 0.6
    assert report.accuracy > 0.9
    assert report.log_loss < report.log_loss_ignorance == math.log(2)
    assert report.labels == 96
    # Two members, a quarter of the labels held out by each, ties included.
    assert 20 < report.held_out < 80
    assert report.gradient_steps == sum(
        math.ceil(seen / 8) * 6 for seen in (_seen(report, 0, memo), _seen(report, 1, memo))
    )


def _seen(report: FitReport, member: int, memo: Memo) -> int:
    from policies.rng import derive_seed

    prompts = [item.prompt for item in thankful(memo, report.labels)]
    return sum(derive_seed(1, "fold", prompt) % 4 != member for prompt in prompts)


def test_swapping_both_responses_negates_the_margin(fitted: tuple[RewardModel, FitReport]) -> None:
    prompts = ["memo to ana on monday : tea , milk , rice"]
    p = fitted[0].probability(prompts, ["tea thanks"], ["milk"])
    q = fitted[0].probability(prompts, ["milk"], ["tea thanks"])
    assert float(p + q) == pytest.approx(1.0, abs=1e-6)


def test_normalising_gives_mean_0_and_sd_1_and_keeps_probabilities(
    fitted: tuple[RewardModel, FitReport], memo: Memo
) -> None:
    prompts = memo.prompts("normalise", 30, seed=0)
    responses = ["tea thanks", "milk .", "rice ! thanks"] * 10
    model = fitted[0].normalised(prompts, responses)
    rewards = model.score(prompts, responses).aggregate_B
    assert float(rewards.mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(rewards.std()) == pytest.approx(1.0, abs=1e-4)
    before = fitted[0].probability(prompts, responses, responses[::-1])
    assert torch.allclose(before, model.probability(prompts, responses, responses[::-1]), atol=1e-5)


def test_identical_samples_leave_the_unit_alone(fitted: tuple[RewardModel, FitReport]) -> None:
    prompt = "memo to ana on monday : tea , milk , rice"
    model = fitted[0].normalised([prompt] * 4, ["tea"] * 4)
    assert model.sd == 1.0
    assert torch.allclose(model.score([prompt], ["tea"]).aggregate_B, torch.zeros(1), atol=1e-5)


def having_said(
    model: RewardModel, monkeypatch: pytest.MonkeyPatch, opinions_MB: list[list[float]], **changes: object
) -> RewardModel:
    """The model, with members that say this whatever they are asked, in turn."""
    said = itertools.cycle(torch.tensor(row) for row in opinions_MB)
    monkeypatch.setattr(reward_model, "raw_scores", lambda *_: next(said))
    count = len(opinions_MB)
    members = model.members[:1] * count
    return replace(model, members=members, **{"offsets_M": torch.zeros(count), "temperature": 1.0, **changes})


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        # Opinions 1, 3 and 4, 0: means 2 and 2, variances 1 and 4, of which a half is taken off.
        (Aggregate.MEAN, [2.0, 2.0]),
        (Aggregate.WEIGHTS, [2.0, 2.0]),
        (Aggregate.MIN, [1.0, 0.0]),
        (Aggregate.MEAN_MINUS_VARIANCE, [1.5, 0.0]),
    ],
)
def test_aggregates_by_hand(how: Aggregate, expected: list[float]) -> None:
    settings = replace(SETTINGS, aggregate=how, variance_weight=0.5)
    found = reward_model.aggregate(torch.tensor([[1.0, 4.0], [3.0, 0.0]]), settings, temperature=1.0)
    assert found.tolist() == pytest.approx(expected)


def test_variance_is_taken_in_logits_by_hand(
    fitted: tuple[RewardModel, FitReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SETTINGS, aggregate=Aggregate.MEAN_MINUS_VARIANCE, variance_weight=0.1)
    model = having_said(
        fitted[0], monkeypatch, [[1.0], [2.0], [6.0]], settings=settings, temperature=2.0, offsets_M=torch.ones(3)
    )
    # Less their offsets 0, 1, 5: mean 2, variance 14/3; in logits 1 and 7/6; 1 - 7/60, times 2 in raw units again.
    assert model.score(["a"], ["a"]).aggregate_B.item() == pytest.approx(2 * (1 - 7 / 60))


@pytest.mark.parametrize("aggregate", [Aggregate.MEAN, Aggregate.MIN, Aggregate.MEAN_MINUS_VARIANCE])
def test_normalised_rewards_forget_scale_and_shift(
    fitted: tuple[RewardModel, FitReport], monkeypatch: pytest.MonkeyPatch, aggregate: Aggregate
) -> None:
    """So that a KL coefficient weighs as much against them after each refit."""
    approved, new = [[1.0, 4.0, 2.0], [3.0, 0.0, -1.0]], [[0.5, 7.0, -2.0], [1.5, 1.0, 3.0]]
    settings, texts = replace(SETTINGS, aggregate=aggregate), (["a"] * 3, ["a"] * 3)

    def rewards(scale: float, shift: float) -> torch.Tensor:
        def told(opinions_MB: list[list[float]]) -> list[list[float]]:
            return [[scale * value + shift for value in row] for row in opinions_MB]

        # A sharper model's rewards are larger, and so is the temperature that turns them into the same probabilities.
        model = having_said(fitted[0], monkeypatch, told(approved), settings=settings, temperature=scale)
        model = model.normalised(*texts)
        said = iter([torch.tensor(row) for row in told(new)])
        monkeypatch.setattr(reward_model, "raw_scores", lambda *_: next(said))
        return model.score(*texts).aggregate_B

    assert torch.allclose(rewards(3.0, -20.0), rewards(1.0, 0.0), atol=1e-5)


def test_spread_by_hand(fitted: tuple[RewardModel, FitReport], monkeypatch: pytest.MonkeyPatch) -> None:
    # Standard deviations of {1, 3} and {4, 0}: 1 and 2; their mean, at temperature 3, is half a logit.
    model = having_said(fitted[0], monkeypatch, [[1.0, 4.0], [3.0, 0.0]], temperature=3.0)
    assert reward_model.spread(model, ["a", "b"], ["a", "b"]) == pytest.approx(0.5)
    alone = having_said(fitted[0], monkeypatch, [[1.0, 4.0]])
    assert reward_model.spread(alone, ["a", "b"], ["a", "b"]) == 0.0


@pytest.fixture(scope="module")
def warm(memo: Memo, seedling_dir: Path) -> tuple[RewardModel, FitReport]:
    from policies import language_model

    settings = replace(SETTINGS, members=3, aggregate=Aggregate.WEIGHTS)
    return fit(language_model.load(seedling_dir), thankful(memo, 96), settings, seed=1)


class TestAveragedWeights:
    """WARM."""

    def test_the_scored_model_has_the_plain_mean_of_the_weights(
        self, warm: tuple[RewardModel, FitReport], tiny: LanguageModel, memo: Memo
    ) -> None:
        model, prompts = warm[0], memo.prompts("evaluate", 8, seed=1)
        by_hand = reward_model.new_member(tiny, seed=5).eval()
        with torch.no_grad():
            for target, *sources in zip(by_hand.parameters(), *(m.parameters() for m in model.members), strict=True):
                target.copy_((sources[0] + sources[1] + sources[2]) / 3)
            rows = reward_model.tokens(reward_model.encode(tiny, prompts, ["tea thanks"] * 8), tiny)
            expected_B = by_hand(rows) - model.offsets_M.mean()
        assert torch.allclose(model.score(prompts, ["tea thanks"] * 8).aggregate_B, expected_B, atol=1e-5)

    def test_it_learns_and_costs_one_pass(
        self, warm: tuple[RewardModel, FitReport], memo: Memo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked, ask = [], reward_model.raw_scores
        monkeypatch.setattr(
            reward_model, "raw_scores", lambda member, *rest: (asked.append(member), ask(member, *rest))[1]
        )
        prompts = memo.prompts("evaluate", 20, seed=1)
        p = warm[0].probability(prompts, ["jam rice thanks"] * 20, ["jam rice"] * 20)
        assert float(p.min()) > 0.6
        assert asked == [warm[0].averaged] * 2

    def test_members_are_there_for_their_spread(self, warm: tuple[RewardModel, FitReport], memo: Memo) -> None:
        prompts = memo.prompts("evaluate", 20, seed=1)
        assert warm[0].opinions(prompts, ["jam rice thanks"] * 20).shape == (3, 20)
        texts = prompts, ["jam rice thanks"] * 20
        assert reward_model.spread(warm[0], *texts) > 0.0
        alone, along = warm[0].score(*texts), warm[0].score(*texts, all_members=True)
        assert torch.equal(alone.aggregate_B, along.aggregate_B)
        assert alone.members_MB.shape == (1, 20)
        assert torch.equal(along.members_MB, warm[0].opinions(*texts))

    @pytest.mark.parametrize("growth", [None, 1_000.0])
    def test_a_phase_that_stops_by_spread_asks_them(
        self, warm: tuple[RewardModel, FitReport], memo: Memo, seedling_dir: Path, tmp_path: Path, growth: float | None
    ) -> None:
        result = run_phase(
            PhaseSettings(
                steps=1, prompts_per_step=4, samples_per_prompt=2, max_new_tokens=8, stop_spread_growth=growth
            ),
            start_dir=seedling_dir,
            reference_dir=seedling_dir,
            reward_model=warm[0],
            prompts=memo.prompts("train", 4, seed=0),
            seed=1,
            out_dir=tmp_path,
        )
        spread = result.records[0].reward_spread
        assert spread is None if growth is None else spread is not None and spread > 0.0

    def test_members_share_their_start_and_nothing_else(self, tiny: LanguageModel, memo: Memo) -> None:
        standing = replace(SETTINGS, members=3, aggregate=Aggregate.WEIGHTS, epochs=1, learning_rate=0.0)
        members = fit(tiny, thankful(memo, 24), standing, seed=1)[0].members
        for other in members[1:]:
            pairs = zip(members[0].parameters(), other.parameters(), strict=True)
            assert all(torch.equal(mine, theirs) for mine, theirs in pairs)
        learning = replace(standing, learning_rate=1e-3)
        members = fit(tiny, thankful(memo, 24), learning, seed=1)[0].members
        assert not torch.equal(members[0].head.weight, members[1].head.weight)

    def test_saved_and_loaded_it_says_the_same_in_the_same_bytes(
        self, warm: tuple[RewardModel, FitReport], tiny: LanguageModel, tmp_path: Path
    ) -> None:
        saved_and_loaded(warm[0], tiny, tmp_path)


def test_only_the_text_counts_not_its_neighbours(fitted: tuple[RewardModel, FitReport]) -> None:
    prompts = ["memo to ana on monday : tea , milk , rice", "memo to ben : jam"]
    responses = ["tea", "jam jam jam jam . thanks !"]
    together = fitted[0].score(prompts, responses).aggregate_B
    alone = torch.cat([fitted[0].score([p], [r]).aggregate_B for p, r in zip(prompts, responses, strict=True)])
    assert torch.allclose(together, alone, atol=1e-4)


def test_empty_responses_and_empty_batches_have_rewards(fitted: tuple[RewardModel, FitReport]) -> None:
    assert fitted[0].score(["memo to ana : tea"], [""]).aggregate_B.isfinite().all()
    assert fitted[0].score([], []).aggregate_B.shape == (0,)


def saved_and_loaded(fitted: RewardModel, base: LanguageModel, folder: Path) -> None:
    model = fitted.normalised(["memo to ana : tea"] * 2, ["tea", "thanks"])
    model.save(folder / "a")
    loaded = reward_model.load(folder / "a", base)
    assert loaded.settings == model.settings
    loaded.save(folder / "b")
    for path in (folder / "a").iterdir():
        assert (
            hashlib.sha256(path.read_bytes()).digest()
            == hashlib.sha256((folder / "b" / path.name).read_bytes()).digest()
        )
    texts = ["memo to ana : tea"], ["tea milk . thanks"]
    assert torch.equal(model.score(*texts).aggregate_B, loaded.score(*texts).aggregate_B)
    assert reward_model.spread(model, *texts) == reward_model.spread(loaded, *texts)


@pytest.mark.parametrize("aggregate", [Aggregate.MEAN, Aggregate.MIN, Aggregate.MEAN_MINUS_VARIANCE])
def test_saved_and_loaded_it_says_the_same_in_the_same_bytes(
    fitted: tuple[RewardModel, FitReport], tiny: LanguageModel, tmp_path: Path, aggregate: Aggregate
) -> None:
    saved_and_loaded(replace(fitted[0], settings=replace(SETTINGS, aggregate=aggregate)), tiny, tmp_path)


def test_fits_are_the_same_to_the_bit_and_leave_the_base_alone(tiny: LanguageModel, memo: Memo) -> None:
    before = {name: tensor.clone() for name, tensor in tiny.model.state_dict().items()}
    settings = replace(SETTINGS, epochs=1)
    one, two = (fit(tiny, thankful(memo, 24), settings, seed=3)[0] for _ in range(2))
    for left, right in zip(one.members, two.members, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(left.parameters(), right.parameters(), strict=True))
    assert not torch.equal(one.members[0].head.weight, one.members[1].head.weight)
    assert all(torch.equal(before[name], tensor) for name, tensor in tiny.model.state_dict().items())


def test_promises_say_what_the_rewards_imply(fitted: tuple[RewardModel, FitReport]) -> None:
    prompts = ["memo to ana on monday : tea , milk , rice"]
    model = fitted[0].normalised(prompts * 2, ["tea", "tea thanks"])
    promise = promises(model, prompts, ["tea thanks"], ["tea"])[0]
    expected = 1 / (1 + math.exp(-promise.delta_reward * model.sd / model.temperature))
    assert promise.p_candidate == pytest.approx(expected, rel=1e-5)
    assert promise.p_candidate > 0.5


def test_too_few_labels_and_nothing_but_ties_are_refused(tiny: LanguageModel) -> None:
    tie = Comparison("memo to ana : tea", "tea", "milk", 0.5)
    with pytest.raises(LabelsError, match="3 labels cannot train"):
        fit(tiny, [tie] * 3, SETTINGS, seed=0)
    with pytest.raises(LabelsError, match="every label is a tie"):
        fit(tiny, [tie] * 50, SETTINGS, seed=0)


def test_a_reward_that_is_not_a_number_is_an_error(fitted: tuple[RewardModel, FitReport]) -> None:
    broken = replace(fitted[0], offsets_M=torch.tensor([math.nan, 0.0]))
    with pytest.raises(NonFiniteError, match="not finite"):
        broken.score(["memo to ana : tea"], ["tea"])


def test_a_folder_without_a_reward_model_is_refused(tiny: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="does not open as a reward model"):
        reward_model.load(tmp_path, tiny)
