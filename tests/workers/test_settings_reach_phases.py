"""A campaign file's settings reach the phase, and both sides start from the same defaults."""

from contextlib import nullcontext
from dataclasses import fields, replace
from enum import StrEnum
from typing import Any, get_args

import pytest

from orchestrator.core.settings import Algorithm as AlgorithmWord
from orchestrator.core.settings import KLSettings
from orchestrator.core.settings import PhaseSettings as PhaseSection
from orchestrator.core.settings import RewardModelSettings as RewardModelSection
from policies import algorithms
from policies.phase_records import Algorithm, OptimizerStart, PhaseSettings
from policies.precision import Precision
from policies.preference_phase import PREFERRING
from policies.reward_model import Aggregate, RewardModelSettings
from workers.learning import _phase_settings, _reward_model_settings


def test_defaults_agree() -> None:
    """But for the explosion, which a campaign states relative to its budget."""
    assert replace(_phase_settings(PhaseSection()), kl_explosion_nats=100.0) == PhaseSettings()
    assert _reward_model_settings(RewardModelSection()) == RewardModelSettings()


@pytest.mark.parametrize(
    ("section", "key", "known"),
    [
        (PhaseSection, "optimizer", OptimizerStart),
        (PhaseSection, "precision", Precision),
        (RewardModelSection, "aggregate", Aggregate),
    ],
)
def test_the_words_of_a_file_are_those_that_policies_know(
    section: type[PhaseSection | RewardModelSection], key: str, known: type[StrEnum]
) -> None:
    assert set(get_args(section.model_fields[key].annotation)) == {word.value for word in known}


def test_both_sides_have_the_same_algorithms() -> None:
    assert {word.value for word in AlgorithmWord} == {algorithm.value for algorithm in Algorithm}


@pytest.mark.parametrize("word", AlgorithmWord)
def test_both_sides_say_the_same_of_an_algorithm(word: AlgorithmWord) -> None:
    algorithm = Algorithm(word.value)
    assert word.needs_reward_model == (algorithm in algorithms.REINFORCING) == (algorithm not in PREFERRING)
    assert word.prices_kl == (algorithm in algorithms.KL_IN_REWARD | algorithms.KL_IN_LOSS)
    refused = pytest.raises(ValueError, match="samples_per_prompt must be 2 or more")
    with refused if word.compares_samples else nullcontext():
        PhaseSettings(algorithm=algorithm, samples_per_prompt=1)


def test_every_setting_of_a_phase_comes_from_the_file() -> None:
    """Each leaf of the section, changed alone, changes the phase's settings, but for those that act elsewhere."""
    elsewhere = {"shorten", "kl.reference"}
    changed = {
        "algorithm": "ppo",
        "optimizer": "restore",
        "precision": "bfloat16",
        "kl.target_nats": 2.0,
        "kl.budget_nats": 3.0,
        "kl.explosion_nats": 50.0,
        "prompts_per_pass": 2,
        "minibatches": 2,
        "stop.predicted_win_rate": 0.7,
        "stop.spread_growth": 2.0,
    }
    plain, seen = _phase_settings(PhaseSection()), set()
    for path, value in leaves(PhaseSection().model_dump()):
        if path in elsewhere:
            continue
        other = changed[path] if path in changed else value / 2 if isinstance(value, float) else value + 1
        section, _, key = path.rpartition(".")
        told = _phase_settings(PhaseSection.model_validate({section: {key: other}} if section else {key: other}))
        differing = {field.name for field in fields(told) if getattr(told, field.name) != getattr(plain, field.name)}
        assert differing, f"phase.{path} has no effect"
        seen |= differing
    assert seen == {field.name for field in fields(PhaseSettings)}


def leaves(section: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in section.items():
        found += leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return found


@pytest.mark.parametrize(
    ("kl", "explosion"),
    [({}, 12.0), ({"budget_nats": None}, 100.0), ({"budget_nats": 8.0}, 24.0), ({"explosion_nats": 5.0}, 5.0)],
)
def test_an_explosion_is_three_times_the_budget(kl: dict[str, float], explosion: float) -> None:
    assert KLSettings.model_validate(kl).explosion == explosion
