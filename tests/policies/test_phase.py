"""One phase: it improves what it is paid for, starts from exactly what it should, and fails loudly."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file, save_file

from policies import language_model
from policies.errors import ModelFolderError
from policies.phase import run_phase
from policies.phase_records import OptimizerStart, PhaseFailedError, PhaseResult, PhaseSettings, StoppedBy
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

    def score(self, prompts: Sequence[str], responses: Sequence[str], *, all_members: bool = False) -> Scores:
        reward_B = torch.tensor([("rice" in text.split()) + 0.01 * len(text.split()) for text in responses])
        if self.value is not None:
            reward_B = torch.full_like(reward_B, self.value)
        return Scores(reward_B, reward_B.unsqueeze(0))


@pytest.fixture
def phase(memo: Memo, seedling_dir: Path, tmp_path: Path) -> Any:
    def run(
        settings: PhaseSettings = SETTINGS,
        *,
        start: Path = seedling_dir,
        out: str = "out",
        seed: int = 1,
        value: float | None = None,
    ) -> PhaseResult:
        return run_phase(
            settings,
            start_dir=start,
            reference_dir=seedling_dir,
            reward_model=cast(RewardModel, KnownReward(value=value)),
            prompts=memo.prompts("train", 40, seed=0),
            seed=seed,
            out_dir=tmp_path / out,
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
    with pytest.raises(PhaseFailedError, match="not finite"):
        phase(value=value)
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
    assert 0 < fined.ended_rate < 1 or fined.ended_rate == 0
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
