"""A phase without a reward model: it learns what people prefer, from the labels it should, and fails by name."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from policies import language_model
from policies.errors import LabelsError
from policies.implicit_reward import ImplicitReward
from policies.language_model import LanguageModel
from policies.phase_records import (
    Algorithm,
    OptimizerStart,
    PhaseFailedError,
    PhaseFailure,
    PhaseResult,
    PhaseSettings,
    Spent,
    StoppedBy,
)
from policies.preference_phase import FOLDS, MEASURE_EVERY, LabelledPair, run_preference_phase
from policies.rng import derive_seed, generator
from policies.sampler import sample
from policies.tasks.memo import Memo

SETTINGS = PhaseSettings(
    algorithm=Algorithm.DPO,
    steps=7,
    prompts_per_step=4,
    samples_per_prompt=4,
    max_new_tokens=10,
    learning_rate=1e-3,
    kl_budget_nats=None,
    label_batch_size=16,
    label_epochs=8,
)
SEED = 1
FOLD_SEED = 4


def pleasure(text: str) -> int:
    return sum(text.split().count(word) for word in ("rice", "milk", "salt", "eggs"))


def held_out(pair: LabelledPair) -> bool:
    return derive_seed(FOLD_SEED, "fold", pair.prompt) % FOLDS == 0


@pytest.fixture(scope="module")
def pairs(memo: Memo, seedling_dir: Path) -> list[LabelledPair]:
    """Two samples of the seedling to each prompt; people like what is white."""
    drawn = sample(
        language_model.load(seedling_dir),
        memo.prompts("label", 160, seed=0),
        max_new_tokens=10,
        generator=generator(5),
        samples_per_prompt=2,
    )
    likes = [pleasure(text) for text in drawn.responses]
    return [
        LabelledPair(
            prompt=drawn.prompts[at],
            response_1=drawn.responses[at],
            response_2=drawn.responses[at + 1],
            target=0.5 + (likes[at] > likes[at + 1]) / 2 - (likes[at] < likes[at + 1]) / 2,
            own_1=True,
            own_2=True,
        )
        for at in range(0, len(likes), 2)
    ]


@pytest.fixture
def phase(memo: Memo, pairs: list[LabelledPair], seedling_dir: Path, tmp_path: Path) -> Any:
    def run(
        settings: PhaseSettings = SETTINGS,
        *,
        comparisons: Sequence[LabelledPair] = pairs,
        start: Path = seedling_dir,
        base: Path | None = None,
        out: str = "out",
        seed: int = SEED,
    ) -> PhaseResult:
        return run_preference_phase(
            settings,
            start_dir=start,
            reference_dir=seedling_dir,
            comparisons=comparisons,
            prompts=memo.prompts("train", 40, seed=0),
            seed=seed,
            fold_seed=FOLD_SEED,
            out_dir=tmp_path / out,
            base_dir=base,
        )

    return run


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def mean_pleasure(policy: LanguageModel, memo: Memo) -> float:
    drawn = sample(policy, memo.prompts("evaluate", 300, seed=0), max_new_tokens=10, generator=generator(9))
    return sum(map(pleasure, drawn.responses)) / 300


@pytest.mark.parametrize("algorithm", [Algorithm.DPO, Algorithm.IPO, Algorithm.LABELS])
def test_people_get_more_of_what_they_prefer(phase: Any, memo: Memo, tiny: LanguageModel, algorithm: Algorithm) -> None:
    result = phase(replace(SETTINGS, algorithm=algorithm, steps=40))
    assert result.stopped_by is StoppedBy.STEPS
    assert result.steps == 40
    assert result.judgement.decided >= 15
    assert result.judgement.accuracy > 0.75
    assert result.judgement.log_loss < 0.95 * math.log(2.0)
    assert mean_pleasure(language_model.load(result.out_dir), memo) > mean_pleasure(tiny, memo) + 0.3
    assert result.records[0].kl_nats == pytest.approx(0.0, abs=1e-5)
    assert result.records[-1].kl_nats > 0.05


@pytest.mark.parametrize("algorithm", [Algorithm.DPO, Algorithm.IPO, Algorithm.LABELS])
def test_same_seed_same_files_to_the_bit(phase: Any, algorithm: Algorithm) -> None:
    settings = replace(SETTINGS, algorithm=algorithm)
    one, two, other = phase(settings, out="one"), phase(settings, out="two"), phase(settings, out="three", seed=2)
    assert digests(one.out_dir) == digests(two.out_dir)
    assert (one.records, one.rollouts, one.judgement, one.kl) == (two.records, two.rollouts, two.judgement, two.kl)
    assert one.start_digest == other.start_digest
    assert digests(one.out_dir)["model.safetensors"] != digests(other.out_dir)["model.safetensors"]


@pytest.mark.parametrize("algorithm", [Algorithm.DPO, Algorithm.LABELS])
def test_labels_held_out_train_nothing(phase: Any, pairs: list[LabelledPair], algorithm: Algorithm) -> None:
    settings = replace(SETTINGS, algorithm=algorithm)
    turned = [replace(pair, target=1 - pair.target) if held_out(pair) else pair for pair in pairs]
    assert 10 < sum(map(held_out, pairs)) < 50
    as_it_was, changed = phase(settings, out="one"), phase(settings, comparisons=turned, out="two")
    assert digests(as_it_was.out_dir) == digests(changed.out_dir)
    assert as_it_was.judgement.accuracy == pytest.approx(1 - changed.judgement.accuracy)
    at = next(at for at, pair in enumerate(pairs) if not held_out(pair) and pair.target != 0.5)
    trained = [*pairs[:at], replace(pairs[at], target=1 - pairs[at].target), *pairs[at + 1 :]]
    learned = phase(replace(settings, steps=20), comparisons=trained, out="three")
    assert digests(learned.out_dir) != digests(phase(replace(settings, steps=20), out="four").out_dir)


def test_what_is_held_out_stays_held_out_at_the_next_phase(phase: Any, pairs: list[LabelledPair]) -> None:
    """Labels that a coin gave cannot be predicted, only remembered: by a start that had learned from them."""
    coin = generator(3)
    differing = [pair for pair in pairs if pair.response_1 != pair.response_2]
    tossed = [replace(pair, target=float(torch.rand(1, generator=coin) < 0.5)) for pair in differing]
    learning = replace(SETTINGS, steps=160, label_epochs=20, learning_rate=1e-3, kl_explosion_nats=1e9)
    first = phase(learning, comparisons=tossed, out="first")
    second = phase(learning, comparisons=tossed, start=first.out_dir, out="second", seed=2)
    held = sum(map(held_out, differing))
    for result in (first, second):
        assert result.judgement.held_out == held
        assert result.judgement.train_accuracy > 0.8
        assert result.judgement.accuracy_low < 0.5 < result.judgement.accuracy_high


def test_labels_on_what_others_drew_are_no_reward(phase: Any, pairs: list[LabelledPair]) -> None:
    settings = replace(SETTINGS, algorithm=Algorithm.LABELS)
    foreign = [replace(pair, own_1=at % 2 == 0, own_2=False) for at, pair in enumerate(pairs)]
    turned = [pair if pair.own_1 else replace(pair, target=1 - pair.target) for pair in foreign]
    one, two = phase(settings, comparisons=foreign, out="one"), phase(settings, comparisons=turned, out="two")
    assert digests(one.out_dir) == digests(two.out_dir)
    assert digests(one.out_dir) != digests(phase(settings, out="three").out_dir)


def test_the_judgement_is_the_candidates_own(phase: Any, pairs: list[LabelledPair], tiny: LanguageModel) -> None:
    """The implicit reward, put together from the files, sides with the held-out labels as often as was said."""
    result = phase(replace(SETTINGS, steps=12))
    reward = ImplicitReward(language_model.load(result.out_dir), tiny, SETTINGS.beta, result.judgement.temperature)
    held = [pair for pair in pairs if held_out(pair)]
    decided = [pair for pair in held if pair.target != 0.5]
    prompts = [pair.prompt for pair in decided]
    first = reward.score(prompts, [pair.response_1 for pair in decided]).aggregate_B
    second = reward.score(prompts, [pair.response_2 for pair in decided]).aggregate_B
    right = [(one > other) == (pair.target == 1) for one, other, pair in zip(first, second, decided, strict=True)]
    assert (result.judgement.held_out, result.judgement.decided) == (len(held), len(decided))
    assert result.judgement.accuracy == pytest.approx(sum(map(bool, right)) / len(right))


def test_the_account_is_complete(phase: Any, seedling_dir: Path) -> None:
    result = phase(base=seedling_dir)
    a_look = 4 * 4
    assert [record.step for record in result.records] == [0, MEASURE_EVERY, 7]
    assert [record.grad_norm is None for record in result.records] == [False, False, True]
    assert result.steps == result.spent.gradient_steps == 7
    assert len(result.rollouts) == 3 * a_look
    # Three looks, and one draw each of reference and base for the report.
    assert result.spent.samples == 5 * a_look
    assert result.spent.prompts == 3 * 4
    assert result.spent.tokens > round(sum(record.response_tokens * a_look for record in result.records))
    for record in result.records:
        rewards = [rollout.reward for rollout in result.rollouts if rollout.step == record.step]
        assert sum(rewards) / len(rewards) == pytest.approx(record.reward, abs=1e-6)
        assert record.reward == pytest.approx(SETTINGS.beta * record.kl_k1_nats, abs=1e-6)
        assert record.logp_gap < 1e-4
        assert record.kl_coefficient == SETTINGS.beta
    for begin in range(0, len(result.rollouts), 4):
        group = result.rollouts[begin : begin + 4]
        assert len({rollout.prompt for rollout in group}) == 1
        assert sum(rollout.advantage for rollout in group) == pytest.approx(0.0, abs=1e-4)
    assert result.kl.reverse_reference_nats == pytest.approx(result.kl_nats, rel=1e-4)
    assert result.kl.forward_base_nats == pytest.approx(result.kl.forward_reference_nats, rel=0.5)


def test_one_sample_a_prompt_is_enough_to_measure(phase: Any) -> None:
    result = phase(replace(SETTINGS, samples_per_prompt=1))
    assert len(result.rollouts) == 3 * 4
    assert sum(rollout.advantage for rollout in result.rollouts[-4:]) == pytest.approx(0.0, abs=1e-5)


def test_no_more_passes_than_were_asked_for(phase: Any, pairs: list[LabelledPair]) -> None:
    trains = sum(not held_out(pair) for pair in pairs)
    result = phase(replace(SETTINGS, steps=1000, label_epochs=2, label_batch_size=64))
    assert result.steps == 2 * math.ceil(trains / 64)


def test_the_budget_stops_the_phase_before_a_further_step(phase: Any) -> None:
    free = phase(replace(SETTINGS, steps=30))
    budget = free.records[3].kl_nats
    first = next(record.step for record in free.records if record.kl_nats >= budget)
    stopped = phase(replace(SETTINGS, steps=30, kl_budget_nats=budget), out="stopped")
    assert stopped.stopped_by is StoppedBy.KL_BUDGET
    assert stopped.steps == first < 30
    assert stopped.kl_nats >= budget
    assert stopped.records[-1].grad_norm is None


@pytest.mark.parametrize("algorithm", [Algorithm.DPO, Algorithm.LABELS])
def test_parts_change_memory_and_not_the_gradient(phase: Any, algorithm: Algorithm) -> None:
    settings = replace(SETTINGS, algorithm=algorithm, steps=1)
    whole, parts = phase(settings, out="whole"), phase(replace(settings, prompts_per_pass=5), out="parts")
    assert parts.records[0].grad_norm == pytest.approx(whole.records[0].grad_norm, rel=1e-4)


def test_the_first_labels_step_clips_nothing(phase: Any) -> None:
    settings = replace(SETTINGS, algorithm=Algorithm.LABELS, beta=0.5)
    one, many = phase(replace(settings, steps=1), out="one"), phase(replace(settings, steps=30), out="many")
    assert one.records[0].clip_fraction == 0.0
    assert 0 < many.records[-2].clip_fraction < 1
    assert many.records[-1].clip_fraction is None
    assert phase(SETTINGS, out="dpo").records[0].clip_fraction is None


def test_a_restored_optimizer_goes_on(phase: Any) -> None:
    checkpoint = phase(out="checkpoint").out_dir
    restore = replace(SETTINGS, steps=0, optimizer=OptimizerStart.RESTORE)
    still, reset = phase(restore, start=checkpoint, out="still"), phase(start=checkpoint, out="reset")
    before, after = (load_file(folder / "trainer_state.safetensors") for folder in (checkpoint, still.out_dir))
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("moments."))
    assert still.start_digest != reset.start_digest
    assert all(torch.equal(value, weights(still.out_dir)[name]) for name, value in weights(checkpoint).items())


@pytest.mark.parametrize("algorithm", [Algorithm.DPO, Algorithm.LABELS])
def test_too_few_labels_are_refused(phase: Any, pairs: list[LabelledPair], algorithm: Algorithm) -> None:
    with pytest.raises(LabelsError, match=r"feedback\.labels_per_round"):
        phase(replace(SETTINGS, algorithm=algorithm), comparisons=pairs[:9])


def test_labels_that_others_earned_are_too_few(phase: Any, pairs: list[LabelledPair]) -> None:
    foreign = [replace(pair, own_1=False, own_2=False) for pair in pairs]
    with pytest.raises(LabelsError, match="0 labels on responses that the starting policy drew"):
        phase(replace(SETTINGS, algorithm=Algorithm.LABELS), comparisons=foreign)
    assert phase(comparisons=foreign).steps == 7


def _failure(phase: Any, tmp_path: Path, settings: PhaseSettings, **given: Any) -> PhaseFailedError:
    with pytest.raises(PhaseFailedError) as failed:
        phase(settings, **given)
    assert not (tmp_path / "out").exists()
    return failed.value


def test_nothing_but_ties_is_no_signal(phase: Any, pairs: list[LabelledPair], tmp_path: Path) -> None:
    ties = [replace(pair, target=0.5) for pair in pairs]
    failed = _failure(phase, tmp_path, SETTINGS, comparisons=ties)
    assert failed.failure is PhaseFailure.NO_SIGNAL
    assert failed.spent == Spent()


@pytest.mark.parametrize("algorithm", [Algorithm.DPO, Algorithm.IPO, Algorithm.LABELS])
def test_nothing_but_like_beside_like_is_no_signal(
    phase: Any, pairs: list[LabelledPair], tmp_path: Path, algorithm: Algorithm
) -> None:
    alike = [replace(pair, response_2=pair.response_1, target=1.0) for pair in pairs]
    failed = _failure(phase, tmp_path, replace(SETTINGS, algorithm=algorithm), comparisons=alike)
    assert failed.failure is PhaseFailure.NO_SIGNAL


@pytest.mark.parametrize("algorithm", [Algorithm.DPO, Algorithm.IPO, Algorithm.LABELS])
def test_a_learning_rate_that_explodes_is_named(phase: Any, tmp_path: Path, algorithm: Algorithm) -> None:
    failed = _failure(phase, tmp_path, replace(SETTINGS, algorithm=algorithm, learning_rate=1e30))
    assert failed.failure is PhaseFailure.NON_FINITE
    assert failed.spent.gradient_steps >= 1
    assert failed.spent.samples >= 4 * 4


def test_a_policy_that_runs_away_is_named(phase: Any, tmp_path: Path) -> None:
    failed = _failure(phase, tmp_path, replace(SETTINGS, learning_rate=3e-2, steps=30, kl_explosion_nats=3.0))
    assert failed.failure is PhaseFailure.KL_EXPLOSION
    assert failed.spent.gradient_steps % MEASURE_EVERY == 0


def test_a_start_past_the_budget_is_named(phase: Any, tmp_path: Path) -> None:
    far = phase(replace(SETTINGS, steps=20), out="far")
    settings = replace(SETTINGS, kl_budget_nats=far.kl_nats / 4)
    failed = _failure(phase, tmp_path, settings, start=far.out_dir)
    assert failed.failure is PhaseFailure.NOTHING_LEARNED
    assert failed.spent.gradient_steps == 0


def test_a_policy_that_falls_silent_is_named(phase: Any, pairs: list[LabelledPair], tmp_path: Path) -> None:
    silence = [replace(pair, response_1="", target=1.0) for pair in pairs]
    failed = _failure(phase, tmp_path, replace(SETTINGS, learning_rate=3e-3, steps=60), comparisons=silence)
    assert failed.failure is PhaseFailure.EMPTY_RESPONSES


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        (replace(SETTINGS, algorithm=Algorithm.RLOO), "rloo does not learn from labels alone"),
        (replace(SETTINGS, stop_predicted_win_rate=0.7), "no reward model to stop by"),
        (replace(SETTINGS, stop_spread_growth=1.5), "no reward model to stop by"),
    ],
)
def test_what_needs_a_reward_model_is_refused(phase: Any, settings: PhaseSettings, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        phase(settings)
