"""The runner with real work in this process: a whole loop, exact rollback, and a world that misbehaves."""

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from desks import say_next
from safetensors.numpy import load_file
from small_campaigns import (
    Campaign,
    Small,
    against_the_candidate,
    for_the_candidate,
    later,
    total_costs,
    with_people,
)

from orchestrator.core import events as ev
from orchestrator.core import work as wk
from orchestrator.core.commands import AskForDecision, AskForLabels
from orchestrator.core.records import Choice, Decision, EndedBy, Status, Verdict
from orchestrator.core.work import Work
from orchestrator.errors import (
    ArtifactCorruptError,
    ArtifactMissingError,
    IntegrityError,
    LockedError,
    StaleEpochError,
    UsageError,
    WorkFailedError,
)
from orchestrator.ports import Claim, Progress, WorkDone, Workers
from orchestrator.runner import TRIES
from orchestrator.store.ledger import Ledger


class Wrapped:
    """Real workers, with something done before or to a result."""

    def __init__(self, inner: Workers, around: Callable[[Work, Callable[[], WorkDone]], WorkDone]) -> None:
        self._inner, self._around = inner, around
        self.seen: list[str] = []

    def run(self, work: Work, claim: Claim, progress: Progress) -> WorkDone:
        self.seen.append(work.command_id)
        return self._around(work, lambda: self._inner.run(work, claim, progress))

    def close(self) -> None:
        self._inner.close()


def meanwhile(campaign: Campaign, command_id: str, act: Callable[[], Any]) -> Wrapped:
    """Workers during whose item `command_id` somebody does something else."""

    def around(work: Work, run: Callable[[], WorkDone]) -> WorkDone:
        done = run()
        if work.command_id == command_id:
            act()
        return done

    return Wrapped(campaign.workers(), around)


def failing(campaign: Campaign, command_id: str, times: int, *, retryable: bool = True) -> Wrapped:
    left = [times]

    def around(work: Work, run: Callable[[], WorkDone]) -> WorkDone:
        if work.command_id == command_id and left[0]:
            left[0] -= 1
            raise WorkFailedError("the worker died", retryable=retryable)
        return run()

    return Wrapped(campaign.workers(), around)


def flip_one_bit(path: Path) -> None:
    os.chmod(path, 0o644)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    os.chmod(path, 0o444)


# --- a whole campaign ---------------------------------------------------------------------------------------


def test_a_campaign_runs_to_its_end(undisturbed: Small) -> None:
    campaign = undisturbed.reopen()
    state = campaign.state
    assert state.ended_by is EndedBy.STAGES_COMPLETED
    first, second = state.attempts
    assert (first.rolled_back_to, first.advanced) == (state.base, False)
    assert second.advanced
    assert state.approved == second.candidate != state.base
    assert campaign.ledger.verify("small").ok
    for digest in (state.base, first.candidate, second.candidate):
        assert digest is not None
        assert campaign.home.artifacts().verify(digest).ok


def test_each_attempt_begins_from_the_same_bytes(small: Small) -> None:
    campaign = small.campaign()
    base = load_file(small.base / "model.safetensors")
    started_from = []

    def around(work: Work, run: Callable[[], WorkDone]) -> WorkDone:
        if isinstance(work, wk.RunPhase):
            file = campaign.checkpoint_file(work.start)
            tensors = load_file(file)
            assert tensors.keys() == base.keys()
            assert all(np.array_equal(tensors[name], base[name]) for name in base)
            started_from.append(hashlib.sha256(file.read_bytes()).hexdigest())
        return run()

    campaign.run(Wrapped(campaign.workers(), around))
    phases = [event.body for event in campaign.events if isinstance(event.body, ev.PhaseFinished)]
    assert len(started_from) == len(phases) == 2
    assert len(set(started_from)) == 1
    assert phases[0].start_digest == phases[1].start_digest
    assert phases[0].candidate != phases[1].candidate
    trained = load_file(campaign.checkpoint_file(phases[1].candidate))
    assert any(not np.array_equal(trained[name], base[name]) for name in base)


def test_a_later_stage_begins_from_the_approved_candidate_optimizer_and_all(small: Small) -> None:
    campaign = small.campaign(**with_people(protocol={"stages": 2}, phase={"optimizer": "restore"}))
    campaign.run_until_candidate()
    approved = campaign.desk().decide(Decision.APPROVE, campaign.run_until_candidate(), "good").digest
    campaign.run()
    campaign.label(against_the_candidate)
    campaign.run()
    campaign.label(against_the_candidate)
    outcome = campaign.run()
    assert outcome.state.ended_by is EndedBy.ATTEMPTS_EXHAUSTED
    assert outcome.state.approved == approved
    one, two, three = outcome.state.attempts
    assert two.start == three.start == two.rolled_back_to == three.rolled_back_to == approved
    assert two.start_digest == three.start_digest != one.start_digest


def test_two_homes_agree_to_the_bit_and_another_seed_differs(small: Small, undisturbed: Small) -> None:
    first = undisturbed.reopen()
    again, other = small.campaign("again"), small.campaign("other", seed=6)
    again.run()
    other.run()
    assert again.digest == first.digest
    assert again.state.approved == first.state.approved
    assert [a.rollouts for a in again.state.attempts] == [a.rollouts for a in first.state.attempts]
    assert other.digest != first.digest
    assert other.state.approved != first.state.approved


def test_costs_count_discarded_attempts(undisturbed: Small) -> None:
    campaign = undisturbed.reopen()
    state = campaign.state
    assert state.costs == total_costs(campaign.events)
    discarded, kept = state.attempts
    assert discarded.costs.samples > 0
    assert state.costs.samples > discarded.costs.samples + kept.costs.samples  # the initial comparisons besides
    assert state.costs.gradient_steps == discarded.costs.gradient_steps + kept.costs.gradient_steps
    said = {
        purpose: sum(
            len(event.body.labels)
            for event in campaign.events
            if isinstance(event.body, ev.LabelsRecorded) and event.body.batch.endswith(purpose)
        )
        for purpose in ("initial", "training", "gate", "audit")
    }
    # Ties on the gate's prompts: 40 is the fewest that a gate may rest on. The auditor without a say is nobody's cost.
    assert said == {"initial": 40, "training": 20, "gate": 40, "audit": 40}
    assert state.labels.model_dump() == {**said, "audit": 0, "checks": 0}
    assert state.deployments[-1].costs == state.costs


@pytest.mark.parametrize("reward_model", ["refit", "frozen"])
def test_ordinary_rlhf_goes_on_from_the_last_candidate(small: Small, reward_model: str) -> None:
    protocol = {"restart_from": "last", "advance": "always", "reward_model": reward_model, "stages": 2, "attempts": 1}
    training = 20 if reward_model == "refit" else 0
    state = small.campaign(protocol=protocol, feedback={"labels_per_round": training}).run().state
    assert state.ended_by is EndedBy.STAGES_COMPLETED
    first, second = state.attempts
    assert second.start == first.candidate
    assert state.approved == second.candidate
    assert (first.reward_model == second.reward_model) is (reward_model == "frozen")
    assert (state.labels.gate, state.labels.training, state.alpha_spent) == (0, training, 0.0)


def test_a_campaign_may_restart_from_the_base_each_time(small: Small) -> None:
    protocol = {"restart_from": "base", "advance": "always", "stages": 2, "attempts": 1}
    state = small.campaign(protocol=protocol).run().state
    assert [attempt.start for attempt in state.attempts] == [state.base, state.base]
    assert state.attempts[0].start_digest == state.attempts[1].start_digest


# --- people at the same time --------------------------------------------------------------------------------


def test_a_stop_during_work_voids_its_result(small: Small) -> None:
    campaign = small.campaign()
    stopping = meanwhile(campaign, "s0.a0.phase", lambda: campaign.stop("enough"))
    outcome = campaign.run(stopping)
    assert outcome.state.status is Status.STOPPED
    assert campaign.types[-1] == "finished"
    assert "phase_finished" not in campaign.types
    assert campaign.ledger.verify("small").ok
    assert campaign.run().state == campaign.state  # nothing goes on
    with pytest.raises(UsageError, match="ended"):
        campaign.pause("too late")


def test_a_pause_during_work_keeps_its_result_and_changes_nothing(small: Small, undisturbed: Small) -> None:
    campaign = small.campaign()
    outcome = campaign.run(meanwhile(campaign, "s0.a0.phase", lambda: campaign.pause("the GPUs are needed")))
    assert outcome.state.status is Status.PAUSED
    assert outcome.state.why_paused == "the GPUs are needed"
    assert campaign.types[-2:] == ["paused", "phase_finished"]
    assert campaign.run().state.ended_by is EndedBy.STAGES_COMPLETED
    assert campaign.types.count("phase_finished") == 2
    assert campaign.digest == undisturbed.reopen().digest


def test_a_rejection_between_check_and_append_beats_the_advance(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = small.campaign(**with_people())
    candidate = campaign.run_until_candidate()
    campaign.desk("ann").decide(Decision.APPROVE, candidate, "good")
    append = campaign.ledger.append
    raced = []

    def racing(name: str, drafts: Any, **options: Any) -> Any:
        if drafts[0].type == "advanced" and not raced:
            raced.append(True)
            bob = ev.DecisionMade(candidate=candidate, decision=Decision.REJECT, reviewer="bob", credential="c-bob")
            append(name, [replace(drafts[0], type=bob.TYPE, body=bob.model_dump(mode="json"), command_id="bob",
                                  author="bob", reason="it flatters")], epoch=None)  # fmt: skip
        return append(name, drafts, **options)

    monkeypatch.setattr(campaign.ledger, "append", racing)
    state = campaign.run().state
    assert raced
    assert "advanced" not in campaign.types
    assert state.attempts[0].rolled_back_to == state.approved == state.base
    assert campaign.ledger.verify("small").ok


def test_labels_that_come_in_at_the_same_moment_are_kept(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = small.campaign(**with_people())
    campaign.run()
    campaign.label()
    append, raced = campaign.ledger.append, []

    def racing(name: str, drafts: Any, **options: Any) -> Any:
        if options["epoch"] is not None and drafts[0].type == "reward_model_fitted" and not raced:
            raced.append(True)
            late = ev.LabelsRecorded(
                batch="initial", labels=({"item": 0, "rater": "bob", "choice": "tie"},), credential="c-bob"
            )  # a second opinion that nobody asked for
            append(name, [replace(drafts[0], type=late.TYPE, body=late.model_dump(mode="json"), command_id="bob",
                                  author="bob", reason="")], epoch=None)  # fmt: skip
        return append(name, drafts, **options)

    monkeypatch.setattr(campaign.ledger, "append", racing)
    campaign.run()
    assert raced
    batch = campaign.state.batch("initial")
    assert batch is not None
    assert len(batch.labels) == 41
    assert campaign.types.count("reward_model_fitted") == 1


def test_only_one_controller_runs_and_a_fenced_one_cannot_write(small: Small) -> None:
    campaign = small.campaign()
    with (
        campaign.ledger.acquire_controller("small", owner="another"),
        pytest.raises(LockedError, match="another") as refused,
    ):
        campaign.run()
    assert refused.value.exit_code == 11
    assert campaign.types == ["campaign_created"]

    def take_over() -> None:
        campaign.ledger.acquire_controller("small", owner="newer", takeover=True).close()

    with pytest.raises(StaleEpochError):
        campaign.run(meanwhile(campaign, "base.evaluated", take_over))
    assert campaign.types[-1] == "base_ready"
    assert campaign.run().state.ended_by is EndedBy.STAGES_COMPLETED


# --- waiting for people -------------------------------------------------------------------------------------


def test_people_label_approve_and_a_rollback_refuses_late_words(small: Small) -> None:
    campaign = small.campaign(**with_people(approval={"approvers": 2}))
    assert isinstance(campaign.run().waiting_for, AskForLabels)
    assert isinstance(campaign.run().waiting_for, AskForLabels)  # asking again changes nothing
    campaign.label()
    campaign.run()
    refused = campaign.label(against_the_candidate)
    assert refused.id == "s0.a0.gate"
    waiting = campaign.run().waiting_for
    assert isinstance(waiting, AskForLabels)
    assert waiting.batch.id == "s0.a1.gate"
    rolled_back = campaign.state.attempts[0].candidate
    assert rolled_back is not None
    with pytest.raises(UsageError, match="no candidate waits"):
        campaign.desk().decide(Decision.APPROVE, rolled_back, "I liked it")
    campaign.label()
    asked = campaign.run().waiting_for
    assert isinstance(asked, AskForDecision)
    assert (asked.approvals, asked.approvers) == (0, 2)
    with pytest.raises(UsageError, match="the candidate under review is"):
        campaign.desk().decide(Decision.APPROVE, rolled_back, "I liked it")
    candidate = str(asked.attempt.candidate)
    campaign.desk("ann").decide(Decision.APPROVE, candidate[:8], "good")
    campaign.desk("ann").decide(Decision.APPROVE, candidate, "good")  # twice is once
    asked = campaign.run().waiting_for
    assert isinstance(asked, AskForDecision)
    assert asked.approvals == 1
    campaign.desk("bob").decide(Decision.APPROVE, candidate, "agreed")
    state = campaign.run().state
    assert state.ended_by is EndedBy.STAGES_COMPLETED
    assert state.approved == candidate
    assert state.waiting_seconds > 0


def test_a_rejected_candidate_rolls_back(small: Small) -> None:
    campaign = small.campaign(**with_people())
    candidate = campaign.run_until_candidate()
    campaign.desk().decide(Decision.REJECT, candidate, "it evades")
    state = campaign.run().state
    assert state.attempts[0].rolled_back_to == state.base == state.approved
    assert state.attempts[1].start == state.base
    with pytest.raises(UsageError):
        campaign.desk("bob").decide(Decision.APPROVE, candidate, "I disagree")


@pytest.mark.parametrize("labelled", [0, 30])
def test_labels_that_never_came_count_against_the_candidate(small: Small, labelled: int) -> None:
    """30 of 40 labels, each for the candidate, would pass the gate's tests but not its minimum."""
    campaign = small.campaign(**with_people(gate={"alpha": 0.1}, protocol={"attempts": 1}))
    campaign.run()
    campaign.label()
    campaign.run()
    if labelled:
        campaign.label(items=range(labelled))
    assert isinstance(campaign.run(now=later(hours=71)).waiting_for, AskForLabels)
    state = campaign.run(now=later(hours=73)).state
    assert "feedback_expired" in campaign.types
    (attempt,) = state.attempts
    assert attempt.verdict is not None
    assert attempt.verdict.verdict is Verdict.ROLLBACK
    assert state.ended_by is EndedBy.ATTEMPTS_EXHAUSTED
    assert state.approved == state.base


class Clock:
    """Stands still until it is told the hour."""

    hour = 0.0

    def __call__(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=self.hour)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def timed(small: Small, clock: Clock, **changes: Any) -> Campaign:
    """A campaign whose events bear the clock's time, up to the hour 0 of its first gate."""
    campaign = small.campaign(**with_people(**changes))
    campaign.ledger = Ledger.open(campaign.home.database, now=clock)
    small.adopt(campaign.ledger)
    campaign.run(now=clock)
    campaign.label()
    campaign.run(now=clock)
    return campaign


def asked_at(campaign: Campaign, clock: Clock, hour: float) -> str | None:
    """The queue that people are asked for at this hour."""
    clock.hour = hour
    waiting = campaign.run(now=clock).waiting_for
    return waiting.batch.id if isinstance(waiting, AskForLabels) else None


def test_the_time_of_a_queue_begins_when_the_one_before_it_is_finished(small: Small, clock: Clock) -> None:
    campaign = timed(small, clock, protocol={"stages": 2, "attempts": 1})
    assert asked_at(campaign, clock, 71) == "s0.a0.gate"
    campaign.label()
    assert asked_at(campaign, clock, 71) == "s0.a0.direction"
    assert asked_at(campaign, clock, 71 + 71) == "s0.a0.direction"
    campaign.label()
    assert asked_at(campaign, clock, 71 + 71 + 71) == "s0.a0.path"
    assert "feedback_expired" not in campaign.types
    assert asked_at(campaign, clock, 71 + 71 + 73) is None
    assert [event.body.batch for event in campaign.events if isinstance(event.body, ev.FeedbackExpired)] == [
        "s0.a0.path"
    ]
    (attempt,) = campaign.state.attempts
    assert attempt.verdict is not None
    assert attempt.verdict.verdict is Verdict.ROLLBACK
    assert campaign.state.approved == campaign.state.base


def test_a_queue_that_nobody_finished_passes_its_time_on(small: Small, clock: Clock) -> None:
    """A fixed sample may stand although its last labels never came; the next queue still has all its time."""
    gate = {"method": "wilson", "min_labels": 30, "over_promise_limit": 0.95}
    campaign = timed(small, clock, protocol={"stages": 2, "attempts": 1}, gate=gate)
    campaign.label(items=range(39))
    assert asked_at(campaign, clock, 71) == "s0.a0.gate"
    assert asked_at(campaign, clock, 73) == "s0.a0.direction"
    assert asked_at(campaign, clock, 73 + 71) == "s0.a0.direction"
    assert asked_at(campaign, clock, 73 + 73) is None


def test_answers_to_check_items_win_no_time(small: Small, clock: Clock) -> None:
    campaign = timed(small, clock, protocol={"attempts": 1}, feedback={"checks": {"items": 2}})
    clock.hour = 70
    answered = say_next(campaign.desk())
    assert answered is not None
    assert answered.batch == "s0.a0.checks"
    assert asked_at(campaign, clock, 71) == "s0.a0.gate"
    assert asked_at(campaign, clock, 73) is None


def test_a_campaign_that_waits_can_be_stopped_and_paused(small: Small) -> None:
    campaign = small.campaign(**with_people())
    campaign.run()
    campaign.pause("holiday")
    campaign.pause("holiday")
    assert campaign.state.status is Status.PAUSED
    with pytest.raises(AssertionError):
        campaign.label()  # nothing is asked for while it is paused
    assert isinstance(campaign.run().waiting_for, AskForLabels)
    campaign.stop("never mind")
    campaign.stop("never mind")
    assert campaign.types.count("finished") == 1
    outcome = campaign.run()
    assert (outcome.waiting_for, outcome.state.ended_by) == (None, EndedBy.STOPPED)


# --- failing closed -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stale", [{"epoch": 99}, {"command_id": "s0.a1.phase"}, {"campaign": "other"}])
def test_a_result_in_another_name_is_refused(small: Small, stale: dict[str, Any]) -> None:
    campaign = small.campaign()

    def around(work: Work, run: Callable[[], WorkDone]) -> WorkDone:
        done = run()
        return replace(done, claim=replace(done.claim, **stale)) if isinstance(work, wk.Evaluate) else done

    with pytest.raises(StaleEpochError, match="campaign resume"):
        campaign.run(Wrapped(campaign.workers(), around))
    assert campaign.types[-1] == "base_ready"


def test_work_is_tried_three_times_then_the_campaign_pauses(small: Small, undisturbed: Small) -> None:
    campaign = small.campaign()
    workers = failing(campaign, "s0.a0.phase", TRIES)
    with pytest.raises(WorkFailedError) as failed:
        campaign.run(workers)
    assert failed.value.exit_code == 1
    assert workers.seen.count("s0.a0.phase") == 3
    assert campaign.state.status is Status.PAUSED
    assert campaign.state.why_paused == "the worker died"
    assert campaign.run(failing(campaign, "s0.a0.phase", TRIES - 1)).state.ended_by is EndedBy.STAGES_COMPLETED
    assert campaign.digest == undisturbed.reopen().digest


def test_a_failure_that_another_try_cannot_mend_is_not_repeated(small: Small) -> None:
    campaign = small.campaign()
    workers = failing(campaign, "base.evaluated", 1, retryable=False)
    with pytest.raises(WorkFailedError):
        campaign.run(workers)
    assert workers.seen == ["base", "base.evaluated"]


def damaged(campaign: Campaign, digest: str, how: str) -> type[IntegrityError]:
    if how == "missing":
        shutil.rmtree(campaign.checkpoint_file(digest).parent)
        return ArtifactMissingError
    flip_one_bit(campaign.checkpoint_file(digest))
    return ArtifactCorruptError


@pytest.mark.parametrize("how", ["one bit flipped", "missing"])
def test_a_damaged_start_stops_the_campaign_before_it_is_used(small: Small, how: str) -> None:
    campaign = small.campaign(**with_people())
    campaign.run()
    campaign.label()
    base = campaign.state.base
    assert base is not None
    error = damaged(campaign, base, how)
    with pytest.raises(error, match="ratchet checkpoint verify") as refused:
        campaign.run()
    assert refused.value.exit_code == 5
    assert "reward_model_fitted" not in campaign.types
    assert not campaign.home.artifacts().verify(base).ok


@pytest.mark.parametrize("how", ["one bit flipped", "missing"])
def test_nothing_is_rolled_back_to_a_damaged_checkpoint(small: Small, how: str) -> None:
    campaign = small.campaign(**with_people())
    campaign.run()
    campaign.label()
    campaign.run()
    campaign.label(against_the_candidate)
    error = damaged(campaign, str(campaign.state.base), how)
    with pytest.raises(error):
        campaign.run()
    assert campaign.types[-1] == "verdict_given"
    with pytest.raises(error):
        campaign.run()
    assert "rolled_back" not in campaign.types
    with pytest.raises(error, match="no approved checkpoint is whole"):
        campaign.run()


@pytest.mark.parametrize("how", ["one bit flipped", "missing"])
def test_nothing_advances_to_a_damaged_candidate(small: Small, how: str) -> None:
    campaign = small.campaign(**with_people())
    candidate = campaign.run_until_candidate()
    campaign.desk().decide(Decision.APPROVE, candidate, "good")
    error = damaged(campaign, candidate, how)
    with pytest.raises(error) as refused:
        campaign.run()
    assert refused.value.exit_code == 5
    assert f"the last whole approved checkpoint is {str(campaign.state.base)[:12]}" in str(refused.value)
    assert "advanced" not in campaign.types
    assert campaign.state.approved == campaign.state.base


def test_a_phase_that_diverges_leaves_no_candidate(small: Small) -> None:
    campaign = small.campaign(phase={"missing_eos_penalty": 1.0e300, "max_response_tokens": 1})
    state = campaign.run().state
    assert state.ended_by is EndedBy.ATTEMPTS_EXHAUSTED
    assert [attempt.candidate for attempt in state.attempts] == [None, None]
    assert [attempt.rolled_back_to for attempt in state.attempts] == [state.base, state.base]
    assert state.approved == state.base
    assert state.alpha_spent == 0
    assert campaign.types.count("phase_failed") == 2
    first, second = (event.body for event in campaign.events if isinstance(event.body, ev.PhaseFailed))
    assert "not finite" in first.why
    assert first.costs.compute_seconds > 0
    assert first.costs.samples == first.costs.tokens > 0, "one-token samples were drawn before it diverged"
    assert state.costs.samples > first.costs.samples + second.costs.samples
    assert (second.stage, second.attempt) == (0, 1)


def test_skipping_everything_never_advances(small: Small) -> None:
    campaign = small.campaign(**with_people(protocol={"attempts": 1}))
    campaign.run()
    campaign.label(for_the_candidate)
    campaign.run()
    campaign.label(lambda batch, item: Choice.SKIP)
    state = campaign.run().state
    assert state.ended_by is EndedBy.ATTEMPTS_EXHAUSTED
    assert state.approved == state.base


ANGRY = """
class Angry:
    name = "angry"

    def label(self, prompt, response_1, response_2, rng):
        raise RuntimeError("no more of this")
"""


def test_whatever_a_worker_raises_pauses_with_the_cause(small: Small) -> None:
    (small.folder / "angry.py").write_text(ANGRY)
    campaign = small.campaign(feedback={"rater": f"{small.folder / 'angry.py'}:Angry"})
    with pytest.raises(WorkFailedError, match="rating: RuntimeError"):
        campaign.run()
    assert campaign.state.status is Status.PAUSED
    assert "RuntimeError" in str(campaign.state.why_paused)


def test_a_controller_collects_what_killed_ones_left_in_staging(small: Small) -> None:
    campaign = small.campaign(**with_people())
    artifacts = campaign.home.artifacts()
    left = campaign.home.artifact_root / "tmp" / "left"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half a model")
    with artifacts.staging() as of_another:
        campaign.run()
        assert not left.exists()
        assert of_another.exists()
