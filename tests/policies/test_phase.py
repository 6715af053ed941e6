"""One phase: it improves what it is paid for, starts from exactly what it should, and fails loudly."""

import hashlib
import math
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from policies import algorithms, language_model, sampler
from policies.errors import ModelFolderError, NonFiniteError
from policies.learner import Learner
from policies.phase import run_phase
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
from policies.precision import Precision
from policies.reward_model import RewardModel, Scores
from policies.tasks.memo import Memo

SETTINGS = PhaseSettings(
    steps=3, prompts_per_step=4, samples_per_prompt=4, max_new_tokens=10, learning_rate=3e-3, kl_budget_nats=None
)


@dataclass(frozen=True)
class KnownReward:
    """Pays for "rice", and a little for each word: what a reward model would be if we wrote it down."""

    mean: float = 0.0
    sd: float = 1.0
    value: float | None = None
    unit: float = 1.0
    doubt: float = 0.0
    """How far the members are apart where there is "rice", in raw units."""

    def score(self, prompts: Sequence[str], responses: Sequence[str], *, all_members: bool = False) -> Scores:
        reward_B = torch.tensor([("rice" in text.split()) + 0.01 * len(text.split()) for text in responses])
        if self.value is not None:
            reward_B = torch.full_like(reward_B, self.value)
        reward_B = reward_B * self.unit
        rice_B = torch.tensor(["rice" in text.split() for text in responses])
        doubt_B = self.doubt * rice_B
        return Scores(reward_B, torch.stack([reward_B - doubt_B, reward_B + doubt_B]))

    def logit(self, difference_B: Tensor) -> Tensor:
        return 2.0 * difference_B


@pytest.fixture
def phase(memo: Memo, seedling_dir: Path, tmp_path: Path) -> Any:
    def run(
        settings: PhaseSettings = SETTINGS,
        *,
        start: Path = seedling_dir,
        out: str = "out",
        seed: int = 1,
        value: float | None = None,
        unit: float = 1.0,
        doubt: float = 0.0,
        base: Path | None = None,
    ) -> PhaseResult:
        return run_phase(
            settings,
            start_dir=start,
            reference_dir=seedling_dir,
            reward_model=cast(RewardModel, KnownReward(value=value, unit=unit, doubt=doubt)),
            prompts=memo.prompts("train", 40, seed=0),
            seed=seed,
            out_dir=tmp_path / out,
            base_dir=base,
        )

    return run


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_a_known_reward_improves_the_policy(phase: Any) -> None:
    result = phase(replace(SETTINGS, steps=25, prompts_per_step=8))
    assert result.stopped_by is StoppedBy.STEPS
    assert result.steps == 25
    assert result.records[-1].reward > result.records[0].reward + 0.3
    assert result.kl_nats > 0.1
    # KL is paid where the policy moved, not at the start, where it is its own reference.
    assert result.records[0].kl_nats == pytest.approx(0.0, abs=1e-5)


def test_the_account_is_complete(phase: Any) -> None:
    result = phase()
    batch = 4 * 4
    assert [record.step for record in result.records] == [0, 1, 2, 3]
    # One more batch comes from the reference, to measure what the candidate has dropped.
    assert len(result.rollouts) == 4 * batch
    assert result.spent.samples == 5 * batch
    assert result.spent.prompts == 4 * 4
    assert [record.grad_norm is None for record in result.records] == [False, False, False, True]
    own_tokens = round(sum(record.response_tokens * batch for record in result.records))
    assert own_tokens + batch <= result.spent.tokens <= own_tokens + batch * SETTINGS.max_new_tokens
    for record in result.records:
        rewards = [rollout.reward for rollout in result.rollouts if rollout.step == record.step]
        assert sum(rewards) / len(rewards) == pytest.approx(record.reward, abs=1e-6)
        assert record.logp_gap < 1e-4
    for begin in range(0, len(result.rollouts), 4):
        group = result.rollouts[begin : begin + 4]
        assert len({rollout.prompt for rollout in group}) == 1
        assert sum(rollout.advantage for rollout in group) == pytest.approx(0.0, abs=1e-4)


def test_the_budget_stops_the_phase_before_a_further_step(phase: Any) -> None:
    free = phase(replace(SETTINGS, steps=12))
    budget = free.records[6].kl_nats
    first = next(record.step for record in free.records if record.kl_nats >= budget)
    stopped = phase(replace(SETTINGS, steps=12, kl_budget_nats=budget), out="stopped")
    assert stopped.stopped_by is StoppedBy.KL_BUDGET
    assert stopped.steps == first
    assert stopped.kl_nats == free.records[first].kl_nats >= budget
    assert stopped.records[-1].grad_norm is None


def test_a_dear_nat_keeps_the_policy_near(phase: Any) -> None:
    cheap = phase(replace(SETTINGS, steps=20, kl_coefficient=0.0))
    dear = phase(replace(SETTINGS, steps=20, kl_coefficient=3.0), out="dear")
    assert dear.kl_nats < cheap.kl_nats / 2


def test_same_seed_same_files_to_the_bit(phase: Any) -> None:
    one, two, other = phase(out="one"), phase(out="two"), phase(out="three", seed=2)
    assert digests(one.out_dir) == digests(two.out_dir)
    assert one.records == two.records
    assert one.rollouts == two.rollouts
    assert digests(one.out_dir)["model.safetensors"] != digests(other.out_dir)["model.safetensors"]


def test_bfloat16_improves_the_policy_and_repeats_itself_to_the_bit(
    phase: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slow but the same where it is emulated; what leaves the phase is float32."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    settings = replace(SETTINGS, precision=Precision.BFLOAT16)
    result = phase(replace(settings, steps=25, prompts_per_step=8))
    assert result.records[-1].reward > result.records[0].reward + 0.3
    assert all(0.0 < record.logp_gap < 0.3 for record in result.records)
    weights = load_file(result.out_dir / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    for algorithm in (Algorithm.RLOO, Algorithm.PPO):
        first, again = (phase(replace(settings, algorithm=algorithm), out=f"{algorithm}{at}") for at in range(2))
        assert digests(first.out_dir) == digests(again.out_dir)
        assert first.records == again.records


def test_every_attempt_from_one_checkpoint_starts_from_the_same_digest(phase: Any) -> None:
    assert len({phase(out=str(seed), seed=seed).start_digest for seed in range(3)}) == 1


def test_the_digest_covers_weights_moments_and_controller(phase: Any, tmp_path: Path) -> None:
    checkpoint = phase(out="checkpoint").out_dir
    restore = replace(SETTINGS, optimizer=OptimizerStart.RESTORE)
    steered = replace(SETTINGS, kl_target_nats=1.0)
    starts = [
        phase(start=checkpoint, out="a").start_digest,
        phase(restore, start=checkpoint, out="b").start_digest,
        phase(steered, start=checkpoint, out="c").start_digest,
        phase(out="d").start_digest,
    ]
    assert len(set(starts)) == 4
    weights = load_file(checkpoint / "model.safetensors")
    name = sorted(weights)[0]
    weights[name].view(-1)[0] += 1e-6
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    assert phase(start=checkpoint, out="e").start_digest != starts[0]


def test_a_restored_optimizer_goes_on_as_if_it_had_never_stopped(phase: Any) -> None:
    """Moments on disk after a phase equal those that a restoring phase of no steps writes again."""
    checkpoint = phase(out="checkpoint").out_dir
    still = phase(replace(SETTINGS, steps=0, optimizer=OptimizerStart.RESTORE), start=checkpoint, out="still")
    before, after = (load_file(folder / "trainer_state.safetensors") for folder in (checkpoint, still.out_dir))
    moments = [name for name in before if name.startswith("moments.")]
    assert len(moments) > 10
    assert all(torch.equal(before[name], after[name]) for name in moments)
    assert digests(checkpoint)["model.safetensors"] == digests(still.out_dir)["model.safetensors"]
    reset = phase(replace(SETTINGS, steps=0), start=checkpoint, out="reset")
    assert not any(name.startswith("moments.") for name in load_file(reset.out_dir / "trainer_state.safetensors"))


def test_restoring_resumes_the_controller(phase: Any) -> None:
    steered = replace(SETTINGS, kl_target_nats=1e-3, optimizer=OptimizerStart.RESTORE)
    first = phase(steered, out="first")
    second = phase(steered, start=first.out_dir, out="second")
    assert second.records[0].kl_coefficient > first.records[0].kl_coefficient
    assert second.records[0].kl_coefficient == first.records[-1].kl_coefficient


def test_restoring_from_a_base_without_trainer_state_starts_from_nothing(phase: Any) -> None:
    restore = replace(SETTINGS, optimizer=OptimizerStart.RESTORE)
    assert phase(restore, out="a").start_digest == phase(out="b").start_digest


def test_incomplete_trainer_state_is_refused(phase: Any) -> None:
    checkpoint = phase(out="checkpoint").out_dir
    (checkpoint / "trainer_state.safetensors").unlink()
    with pytest.raises(ModelFolderError, match="incomplete trainer state"):
        phase(replace(SETTINGS, optimizer=OptimizerStart.RESTORE), start=checkpoint, out="next")


def test_a_candidate_is_an_ordinary_folder(phase: Any, seedling_dir: Path) -> None:
    candidate = phase().out_dir
    language_model.load(candidate)
    changed = {name for name, value in digests(seedling_dir).items() if digests(candidate)[name] != value}
    assert changed == {"model.safetensors"}
    expected = {path.name for path in seedling_dir.iterdir()} | {"trainer_state.safetensors", "trainer_state.json"}
    assert {path.name for path in candidate.iterdir()} == expected


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_broken_reward_leaves_no_candidate(phase: Any, tmp_path: Path, value: float) -> None:
    with pytest.raises(PhaseFailedError, match="not finite") as failed:
        phase(value=value)
    assert failed.value.failure is PhaseFailure.NON_FINITE
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("algorithm", sorted(algorithms.REINFORCING))
def test_rewards_too_large_to_square_leave_no_candidate(phase: Any, tmp_path: Path, algorithm: Algorithm) -> None:
    """Scaled by a root mean square that is infinite, all advantages would be 0."""
    with pytest.raises(PhaseFailedError, match="not finite") as failed:
        phase(replace(SETTINGS, algorithm=algorithm), unit=1e25)
    assert failed.value.failure is PhaseFailure.NON_FINITE
    assert failed.value.spent.gradient_steps == 0
    assert not (tmp_path / "out").exists()


def test_a_learning_rate_that_explodes_leaves_no_candidate(phase: Any, tmp_path: Path) -> None:
    with pytest.raises(PhaseFailedError, match="not finite") as diverged:
        phase(replace(SETTINGS, learning_rate=1e30))
    assert not (tmp_path / "out").exists()
    spent = diverged.value.spent
    a_step = SETTINGS.prompts_per_step * SETTINGS.samples_per_prompt
    assert spent.gradient_steps >= 1
    assert spent.samples == spent.prompts * SETTINGS.samples_per_prompt >= a_step
    assert spent.tokens >= spent.samples


def test_being_cut_off_costs_the_stated_fine(phase: Any) -> None:
    free = replace(SETTINGS, steps=0, kl_coefficient=0.0, missing_end_penalty=0.0, max_new_tokens=3)
    fined = phase(replace(free, missing_end_penalty=2.0), value=1.0, out="fined").records[0]
    assert phase(free, value=1.0).records[0].return_ == pytest.approx(1.0)
    assert 0 < fined.ended_rate < 1
    assert fined.return_ == pytest.approx(1.0 - 2.0 * (1 - fined.ended_rate), abs=1e-6)


def test_progress_is_told(memo: Memo, seedling_dir: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    run_phase(
        SETTINGS,
        start_dir=seedling_dir,
        reference_dir=seedling_dir,
        reward_model=cast(RewardModel, KnownReward()),
        prompts=memo.prompts("train", 5, seed=0),
        seed=0,
        out_dir=tmp_path / "out",
        progress=lambda done, total, message: told.append((done, total)),
    )
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_no_prompts_is_an_error(seedling_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs prompts"):
        run_phase(
            SETTINGS,
            start_dir=seedling_dir,
            reference_dir=seedling_dir,
            reward_model=cast(RewardModel, KnownReward()),
            prompts=[],
            seed=0,
            out_dir=tmp_path / "out",
        )


ALGORITHMS = sorted(algorithms.REINFORCING)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_improves_on_a_known_reward(phase: Any, algorithm: Algorithm) -> None:
    result = phase(replace(SETTINGS, algorithm=algorithm, steps=25, prompts_per_step=8))
    assert result.records[-1].reward > result.records[0].reward + 0.3
    assert result.steps == 25
    assert result.kl.reverse_reference_nats == pytest.approx(result.kl_nats, rel=1e-4)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_repeats_itself_to_the_bit(phase: Any, algorithm: Algorithm) -> None:
    settings = replace(SETTINGS, algorithm=algorithm, updates_per_batch=2, minibatches=2, stop_predicted_win_rate=0.999)
    one, two = phase(settings, out="one"), phase(settings, out="two")
    assert digests(one.out_dir) == digests(two.out_dir)
    assert (one.records, one.rollouts, one.kl, one.spent) == (two.records, two.rollouts, two.kl, two.spent)
    assert one.spent.gradient_steps == 3 * 2 * 2


def test_preferences_have_a_phase_of_their_own(phase: Any) -> None:
    with pytest.raises(ValueError, match="dpo does not learn from a reward model"):
        phase(replace(SETTINGS, algorithm=Algorithm.DPO))


def test_what_best_of_n_imitates_comes_from_the_start(phase: Any, seedling_dir: Path) -> None:
    """Its responses do not follow the policy: whatever is learned, they are the same."""
    imitating = replace(SETTINGS, algorithm=Algorithm.BEST_OF_N)
    slow, fast = phase(replace(imitating, learning_rate=1e-9), out="slow"), phase(imitating, out="fast")
    taught = [[rollout for rollout in result.rollouts if not rollout.own] for result in (slow, fast)]
    assert [rollout.step for rollout in taught[0]] == [0] * 16 + [1] * 16 + [2] * 16
    assert [rollout.response for rollout in taught[0]] == [rollout.response for rollout in taught[1]]
    for begin in range(0, len(taught[0]), 4):
        group = taught[0][begin : begin + 4]
        kept = [rollout for rollout in group if rollout.advantage]
        assert [rollout.advantage for rollout in kept] == [1.0]
        assert kept[0].reward - (not kept[0].ended) == max(rollout.reward - (not rollout.ended) for rollout in group)
    own = [rollout for rollout in fast.rollouts if rollout.own]
    assert [rollout.step for rollout in own] == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 16
    assert not any(rollout.advantage for rollout in own[:12])
    for record in fast.records:
        rewards = [rollout.reward for rollout in own if rollout.step == record.step]
        assert sum(rewards) / len(rewards) == pytest.approx(record.reward, abs=1e-6)


class TestSeveralUpdates:
    settings = replace(SETTINGS, updates_per_batch=3, minibatches=2, learning_rate=1e-2)

    def test_the_clip_holds_later_updates(self, phase: Any) -> None:
        several = phase(self.settings)
        assert several.spent.gradient_steps == 3 * 3 * 2
        assert any(record.clip_fraction for record in several.records)
        assert phase(out="one").records[0].clip_fraction == 0.0
        assert several.records[-1].clip_fraction is None

    def test_more_minibatches_than_prompts_are_refused(self) -> None:
        with pytest.raises(ValueError, match="minibatches must lie between 1 and prompts_per_step"):
            replace(SETTINGS, minibatches=5)


class TestValueHead:
    settings = replace(SETTINGS, algorithm=Algorithm.PPO)

    def test_it_is_restored_with_its_moments(self, phase: Any) -> None:
        checkpoint = phase(self.settings, out="checkpoint").out_dir
        restore = replace(self.settings, steps=0, optimizer=OptimizerStart.RESTORE)
        still = phase(restore, start=checkpoint, out="still")
        before, after = (load_file(folder / "trainer_state.safetensors") for folder in (checkpoint, still.out_dir))
        kept = [name for name in before if "value_head" in name]
        assert len(kept) == 2 + 2 * 3
        assert float(before["value_head.weight"].abs().max()) > 0
        assert all(torch.equal(before[name], after[name]) for name in kept)
        reset = phase(replace(self.settings, steps=0), start=checkpoint, out="reset")
        assert not load_file(reset.out_dir / "trainer_state.safetensors")["value_head.weight"].any()
        assert still.start_digest != reset.start_digest

    def test_after_another_algorithm_it_starts_at_zero(self, phase: Any) -> None:
        checkpoint = phase(out="checkpoint").out_dir
        restore = replace(self.settings, steps=0, optimizer=OptimizerStart.RESTORE)
        state = load_file(phase(restore, start=checkpoint, out="ppo").out_dir / "trainer_state.safetensors")
        assert not state["value_head.weight"].any()
        assert any(name.startswith("moments.exp_avg.model") for name in state)

    def test_a_broken_one_leaves_no_candidate(self, seedling_dir: Path) -> None:
        learner = Learner.start(self.settings, seedling_dir, "cpu")
        learner.check_weights()
        assert learner.value_head is not None
        learner.value_head.weight.data[0, 0] = math.nan
        with pytest.raises(NonFiniteError, match="weight of the value head"):
            learner.check_weights()

    def test_its_loss_is_noted(self, phase: Any) -> None:
        records = phase(self.settings).records
        assert all(record.value_loss > 0 for record in records[:-1])
        assert phase(out="rloo").records[0].value_loss is None


class TestStopping:
    def test_by_predicted_win_rate(self, phase: Any) -> None:
        result = phase(replace(SETTINGS, steps=30, prompts_per_step=8, stop_predicted_win_rate=0.6))
        rates = [record.predicted_win_rate for record in result.records]
        assert result.stopped_by is StoppedBy.PREDICTED_WIN_RATE
        assert rates[-1] >= 0.6
        assert all(rate < 0.6 for rate in rates[:-1])
        assert rates[0] == pytest.approx(0.5, abs=0.1)
        # One response of the start to each prompt, besides those of the policy and, once, of the reference.
        assert result.spent.samples == len(rates) * 8 * (4 + 1) + 8 * 4

    def test_by_no_win_rate_before_anything_was_learned(self, phase: Any) -> None:
        """Against itself the start wins half the time, more or less, by chance."""
        result = phase(replace(SETTINGS, stop_predicted_win_rate=0.01))
        assert result.stopped_by is StoppedBy.PREDICTED_WIN_RATE
        assert (result.steps, len(result.records)) == (1, 2)

    def test_measuring_the_win_rate_changes_nothing_else(self, phase: Any) -> None:
        free, watched = phase(out="free"), phase(replace(SETTINGS, stop_predicted_win_rate=0.999), out="watched")
        assert digests(free.out_dir)["model.safetensors"] == digests(watched.out_dir)["model.safetensors"]

    def test_by_the_members_spread(self, phase: Any) -> None:
        result = phase(replace(SETTINGS, steps=30, prompts_per_step=8, stop_spread_growth=1.5), doubt=0.3)
        spreads = [record.reward_spread for record in result.records]
        assert result.stopped_by is StoppedBy.REWARD_SPREAD
        assert spreads[-1] > 1.5 * spreads[0]
        assert all(spread <= 1.5 * spreads[0] for spread in spreads[:-1])


class TestFailures:
    def test_an_exploding_kl(self, phase: Any, tmp_path: Path) -> None:
        with pytest.raises(PhaseFailedError, match="no longer near its reference") as failed:
            phase(replace(SETTINGS, steps=20, kl_explosion_nats=1.0))
        assert failed.value.failure is PhaseFailure.KL_EXPLOSION
        assert not (tmp_path / "out").exists()

    def test_a_candidate_whose_kl_exploded_with_the_last_step(self, phase: Any) -> None:
        free = phase(replace(SETTINGS, steps=6), out="free")
        nats = [record.kl_nats for record in free.records]
        steps = nats.index(max(nats))
        with pytest.raises(PhaseFailedError) as failed:
            phase(replace(SETTINGS, steps=steps, kl_explosion_nats=max(nats)))
        assert failed.value.failure is PhaseFailure.KL_EXPLOSION
        assert failed.value.spent.gradient_steps == steps > 0

    def test_mostly_empty_responses(self, phase: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Stands in for a policy that has learned to say nothing, which takes longer than a test may."""
        drawn = sampler.sample

        def silenced(*args: Any, **kwargs: Any) -> sampler.Samples:
            samples = drawn(*args, **kwargs)
            return replace(samples, responses=(" ",) * 9 + samples.responses[9:])

        monkeypatch.setattr("policies.phase.sample", silenced)
        with pytest.raises(PhaseFailedError, match="more than half of the responses are empty") as failed:
            phase()
        assert failed.value.failure is PhaseFailure.EMPTY_RESPONSES
        assert failed.value.spent.samples == 16
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("algorithm", ALGORITHMS)
    def test_equal_rewards(self, phase: Any, algorithm: Algorithm, tmp_path: Path) -> None:
        settings = replace(SETTINGS, algorithm=algorithm, missing_end_penalty=0.0)
        with pytest.raises(PhaseFailedError, match="all rewarded alike") as failed:
            phase(settings, value=1.0)
        assert failed.value.failure is PhaseFailure.NO_SIGNAL
        assert failed.value.spent.gradient_steps == 0
        assert not (tmp_path / "out").exists()

    def test_a_start_past_the_budget(self, phase: Any, tmp_path: Path) -> None:
        """The reference is where the start came from: no step can be taken, and the start is no candidate."""
        far = phase(replace(SETTINGS, steps=6), out="far")
        budget = far.kl_nats / 4
        with pytest.raises(PhaseFailedError, match=r"past phase\.kl\.budget_nats") as failed:
            phase(replace(SETTINGS, kl_budget_nats=budget), start=far.out_dir)
        assert failed.value.failure is PhaseFailure.NOTHING_LEARNED
        assert failed.value.spent.gradient_steps == 0
        assert not (tmp_path / "out").exists()

    def test_a_candidate_may_be_rewarded_alike(self, phase: Any) -> None:
        assert phase(replace(SETTINGS, steps=0), value=1.0).stopped_by is StoppedBy.STEPS

    def test_it_survives_the_way_between_processes(self) -> None:
        spent = Spent(prompts=1, samples=2, tokens=3, gradient_steps=4)
        sent = pickle.loads(pickle.dumps(PhaseFailedError("why", PhaseFailure.NO_SIGNAL, spent)))
        assert (str(sent), sent.failure, sent.spent) == ("why", PhaseFailure.NO_SIGNAL, spent)


class TestKLReport:
    def test_an_untouched_policy_is_nowhere_else(self, phase: Any, seedling_dir: Path) -> None:
        report = phase(replace(SETTINGS, steps=0), base=seedling_dir).kl
        for nats in (
            report.reverse_reference_nats,
            report.forward_reference_nats,
            report.reverse_base_nats,
            report.forward_base_nats,
            report.largest_token_log_ratio_nats,
        ):
            assert nats == pytest.approx(0.0, abs=1e-5)
        assert report.exact

    def test_without_a_base_there_is_nothing_to_say(self, phase: Any) -> None:
        report = phase().kl
        assert report.reverse_base_nats is None
        assert report.forward_base_nats is None
        assert 0 < report.high_token_log_ratio_nats <= report.largest_token_log_ratio_nats

    def test_base_and_reference_are_told_apart(self, phase: Any, seedling_dir: Path) -> None:
        far = phase(replace(SETTINGS, steps=15), out="far").out_dir
        report = phase(replace(SETTINGS, steps=0), start=seedling_dir, base=far, out="back").kl
        assert report.reverse_reference_nats == pytest.approx(0.0, abs=1e-5)
        assert report.reverse_base_nats > 0.1
        assert report.forward_base_nats > 0.1
        assert report.reverse_base_nats != report.forward_base_nats
