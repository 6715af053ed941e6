"""Every algorithm inside the ratchet: whole small campaigns through the real machine, ledger and workers."""

import gzip
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_campaigns import Campaign, Small

from orchestrator.core import events as ev
from orchestrator.core.records import EndedBy
from orchestrator.core.settings import Algorithm, PhaseSettings
from orchestrator.core.work import LabelledBatch
from policies import language_model
from workers.bench import Bench, task_of
from workers.labels import labelled, towards
from workers.learning import _phase_settings
from workers.rollouts import ROLLOUTS_FILE, read_rollouts


def options_of(algorithm: Algorithm) -> dict[str, Any]:
    without = {} if algorithm.needs_reward_model else {"protocol": {"reward_model": "none"}}
    return {"phase": {"algorithm": algorithm.value}, **without}


def ended(small: Small, **changes: Any) -> Campaign:
    campaign = small.campaign(**changes)
    campaign.run()
    return campaign


@pytest.mark.parametrize("algorithm", Algorithm)
def test_every_algorithm_goes_round_the_loop(small: Small, algorithm: Algorithm) -> None:
    """Rolled back once, trained again from the same bytes, approved; costs and evidence as for any other."""
    campaign = ended(small, **options_of(algorithm))
    state = campaign.state
    assert state.ended_by is EndedBy.STAGES_COMPLETED
    first, second = state.attempts
    assert first.rolled_back_to == first.start == second.start
    assert first.start_digest == second.start_digest
    assert second.advanced
    assert second.candidate not in (None, first.candidate, first.start)
    assert second.label_set is not None
    assert campaign.ledger.verify("small").ok
    for attempt in (first, second):
        assert attempt.costs.gradient_steps > 0
        assert attempt.costs.tokens > 0
        assert attempt.distances is not None
        assert attempt.distances.reverse_base_nats == pytest.approx(attempt.distances.reverse_reference_nats)
        assert read_rollouts(campaign.home.artifacts().open(str(attempt.rollouts)))
    finished = [event.body for event in campaign.events if isinstance(event.body, ev.PhaseFinished)]
    assert all(body.steps_allowed == 2 and body.kl_budget_nats == 4.0 for body in finished)


@pytest.mark.parametrize("algorithm", [Algorithm.DPO, Algorithm.LABELS])
def test_without_a_reward_model_the_same_file_gives_the_same_bytes(small: Small, algorithm: Algorithm) -> None:
    one, two = (ended(small, home=home, **options_of(algorithm)) for home in ("one", "two"))
    assert one.state.approved == two.state.approved
    assert one.digest == two.digest


def test_what_dpo_promises_is_its_own_implicit_reward(small: Small) -> None:
    """The sealed predictions, recomputed from the two checkpoints by plain forward passes over single texts."""
    campaign = ended(small, **options_of(Algorithm.DPO))
    attempt = campaign.state.attempts[1]
    batch = campaign.state.gate_batch(attempt)
    assert batch is not None
    assert attempt.fitted is not None
    trained = [event.body.trained_on for event in campaign.events if isinstance(event.body, ev.PhaseFinished)]
    assert trained == [("initial",), ("initial", "s0.a1.training")]
    store = campaign.home.artifacts()
    candidate, approved = (
        language_model.load(store.open(str(digest))) for digest in (attempt.candidate, attempt.start)
    )
    beta = campaign.settings.phase.preference.beta

    def reward(prompt: str, response: str) -> float:
        return beta * (plain_logp(candidate, prompt, response) - plain_logp(approved, prompt, response))

    for row in list(store.read_lines(batch.comparisons))[:5]:
        first = batch.candidate_first[row["item"]]
        ours, theirs = row["response_1" if first else "response_2"], row["response_2" if first else "response_1"]
        logit = (reward(row["prompt"], ours) - reward(row["prompt"], theirs)) / attempt.fitted.temperature
        assert batch.p_hat[row["item"]] == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-4)


def plain_logp(policy: language_model.LanguageModel, prompt: str, response: str) -> float:
    prompt_ids, response_ids = policy.encode_prompts([prompt])[0], policy.encode_responses([response])[0]
    with torch.no_grad():
        logits = policy.model(torch.tensor([prompt_ids + response_ids])).logits[0]
    logp = torch.log_softmax(logits.double(), dim=-1)
    return float(sum(logp[len(prompt_ids) - 1 + at, token] for at, token in enumerate(response_ids)))


def test_where_verdicts_are_the_reward_nothing_is_promised_and_only_own_responses_teach(small: Small) -> None:
    campaign = ended(small, **options_of(Algorithm.LABELS), feedback={"labels_per_round": 20})
    first, second = campaign.state.attempts
    assert first.reward_model is second.reward_model is None
    assert first.verdict is not None
    assert second.verdict is not None
    assert first.verdict.tests == (), "the first attempt of a stage opens no gate under `advance: once`"
    assert [test.name for test in second.verdict.tests] == ["improvement"]
    bought = next(batch for batch in campaign.state.batches if batch.id == "s0.a1.training")
    assert bought.policy == campaign.state.attempts[1].start, "drawn by the policy that they are to teach"


def test_a_failed_phase_is_named_and_leaves_no_candidate(small: Small) -> None:
    """No policy can stay within a billionth of a nat: the explosion ends every attempt, and the campaign says why."""
    kl = {"budget_nats": None, "explosion_nats": 1e-9}
    campaign = ended(small, phase={"kl": kl, "learning_rate": 0.01})
    failed = [event.body for event in campaign.events if isinstance(event.body, ev.PhaseFailed)]
    assert [body.failure for body in failed] == ["kl_explosion", "kl_explosion"]
    assert all("no longer near its reference" in body.why and body.costs.tokens > 0 for body in failed)
    assert all(attempt.candidate is None for attempt in campaign.state.attempts)
    assert campaign.state.ended_by is EndedBy.ATTEMPTS_EXHAUSTED
    assert campaign.state.approved == campaign.state.base


@pytest.mark.parametrize(("kl", "expected"), [({}, 12.0), ({"budget_nats": None}, 100.0), ({"explosion_nats": 7}, 7.0)])
def test_an_explosion_is_measured_by_the_budget(kl: dict[str, Any], expected: float) -> None:
    section = PhaseSettings.model_validate({"kl": kl})
    assert _phase_settings(section).kl_explosion_nats == expected


def test_a_step_far_past_the_budget_is_no_candidate(small: Small) -> None:
    campaign = ended(small, phase={"learning_rate": 1.0})
    failed = [event.body for event in campaign.events if isinstance(event.body, ev.PhaseFailed)]
    assert "kl_explosion" in [body.failure for body in failed]
    assert all(attempt.candidate is None for attempt in campaign.state.attempts)


def test_gold_follows_the_policy_that_learns_whoever_drew_what_it_imitates(small: Small) -> None:
    """The start's responses, which best_of_n imitates, are as good at the end as at the beginning."""
    campaign = ended(small, **options_of(Algorithm.BEST_OF_N))
    attempt = campaign.state.attempts[1]
    course = next(
        event.body for event in campaign.events if isinstance(event.body, ev.Evaluated) and event.body.attempt == 1
    )
    rows = read_rollouts(campaign.home.artifacts().open(str(attempt.rollouts)))
    task = task_of(campaign.settings.task)
    gold = {
        step: [task.gold(r["prompt"], r["response"]) for r in rows if r["own"] and r["step"] == step]
        for step in range(3)
    }
    assert [len(gold[step]) for step in range(3)] == [4, 4, 16]
    assert course.gold_by_step == pytest.approx([sum(each) / len(each) for each in gold.values()])
    kept = [row for row in rows if row["advantage"] > 0 and row["step"] < 2]
    assert len(kept) == 2 * 4
    assert not any(row["own"] for row in kept)


def test_older_rollouts_are_the_policys_own(tmp_path: Path) -> None:
    (tmp_path / ROLLOUTS_FILE).write_bytes(gzip.compress(b'{"step": 0, "advantage": 1.0}\n'))
    assert read_rollouts(tmp_path) == [{"step": 0, "advantage": 1.0, "own": True}]


def test_labels_may_weigh_by_importance(small: Small) -> None:
    campaign = ended(small, reward_model={"importance_cap": 2.0}, phase={"learning_rate": 0.01})
    first, second = (attempt.fitted for attempt in campaign.state.attempts)
    assert first is not None
    assert second is not None
    assert first.effective_labels == pytest.approx(first.labels), "the start drew every response itself"
    assert second.labels / 2 <= float(second.effective_labels or 0) < second.labels


def test_log_ratios_are_those_of_the_policies_that_drew_the_responses(small: Small) -> None:
    """Weights recomputed from the definition: min(c · ratio, cap) with mean 1, ratios by plain forward passes."""
    campaign = ended(small, phase={"learning_rate": 0.01})
    state, store = campaign.state, campaign.home.artifacts()
    gate = state.gate_batch(state.attempts[1])
    assert gate is not None
    batch = LabelledBatch(
        batch=gate.id,
        comparisons=gate.comparisons,
        policy=gate.policy,
        opponent=gate.opponent,
        candidate_first=gate.candidate_first,
        choices=gate.choices(1),
    )
    bench = Bench(store, torch.device("cpu"), lambda *_: None)
    labels = labelled([batch], bench)
    weights = towards(str(state.base), labels, 3.0, bench)
    base, candidate = (language_model.load(store.open(str(digest))) for digest in (state.base, gate.policy))
    ratios = []
    for label in labels:
        theirs = label.response_1 if label.drawn_by[0] == gate.policy else label.response_2
        ratios.append(plain_logp(base, label.prompt, theirs) - plain_logp(candidate, label.prompt, theirs))
    low, high = -50.0, 50.0
    for _ in range(200):  # the one constant that makes the mean 1, by bisection
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(np.exp(np.array(ratios) + middle), 3.0).mean() < 1 else (low, middle)
    expected = np.minimum(np.exp(np.array(ratios) + low), 3.0)
    assert weights.weight_N == pytest.approx(expected, rel=1e-3)


def test_steps_are_kept_as_json(small: Small) -> None:
    campaign = ended(small, **options_of(Algorithm.PPO))
    folder = campaign.home.artifacts().open(str(campaign.state.attempts[0].rollouts))
    steps = [json.loads(line) for line in (folder / ev.ROLLOUT_STEPS).read_text().splitlines()]
    assert [step["step"] for step in steps] == [0, 1, 2]
    assert steps[0]["value_loss"] is not None
