"""The safety case says what the state says: numbers were chosen in `waiting_candidate`, or worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import waiting_candidate as made
from waiting_candidate import digest, waiting

from orchestrator.artifacts import ArtifactStore
from orchestrator.core.gate import NOTHING_PROMISED, GateVerdict
from orchestrator.core.label_log import LabelLog
from orchestrator.core.records import Choice, Decision, Label, Verdict
from orchestrator.core.state import Brought, ReviewDecision
from orchestrator.review.case import Case, case_in_short, case_of
from orchestrator.review.case_change import Row
from orchestrator.review.case_feedback import Pair, Rater
from orchestrator.review.case_weaknesses import Weakness

if TYPE_CHECKING:
    from small_campaigns import Small


@pytest.fixture
def artifacts(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


def case(artifacts: ArtifactStore, *, place: int = 1, **changes: Any) -> Case:
    state, settings = waiting(artifacts, **changes)
    return case_of(state, settings, state.attempts[place], artifacts, code_version="0.1.0+abc")


def warned(of: Case) -> dict[Weakness, str]:
    return {warning.weakness: warning.words for warning in of.warnings}


def value(rows: tuple[Row, ...], name: str) -> str:
    return next(row.value for row in rows if row.name == name)


# --- what changed, and the gate -----------------------------------------------------------------------------


def test_the_change_is_told_with_its_units(artifacts: ArtifactStore) -> None:
    change = case(artifacts).change
    assert change.candidate == digest("candidate 1")
    assert change.rows == (
        Row("Parent", digest("base"), digest=True),
        Row("Base", "the parent itself"),
        Row("Training", "rloo, 30 gradient steps, until it had used up its KL budget"),
        Row("KL from the approved", "3.00 of 4.00 nats, 75% of the budget"),
        Row("Reward model", digest("reward model 1"), digest=True),
        Row("Reward model's accuracy", "70.0% of held-out labels (95% interval 60.0% to 80.0%)"),
        Row("Its calibration slope", "0.90 ± 0.20; 1 is calibrated, less is too sure of itself"),
        Row("Labels that trained it", "28"),
        Row("Configuration", digest("settings"), digest=True),
        Row("Code version", "0.1.0+abc"),
    )


def test_a_carried_reward_model_is_described_by_the_attempt_that_fitted_it(artifacts: ArtifactStore) -> None:
    told = case(artifacts, reward_model=digest("reward model 0"), fitted=None)
    assert told.change.trained_on_labels == 28


def test_the_questions_are_those_of_the_verdict_each_against_its_own_side(artifacts: ArtifactStore) -> None:
    told = case(artifacts)
    assert [(q.name, q.estimate, q.bound, q.limit, q.above, q.needed, q.passed, q.labels) for q in told.questions] == [
        ("improvement", 0.625, 0.525, 0.5, True, "> 0.50", True, 6),
        ("over_promise", 0.04, 0.12, 0.15, False, "< 0.15", True, 6),
        ("over_promise_top_half", 0.0, 0.14, 0.15, False, "< 0.15", True, 3),
        ("direction", 0.75, 0.51, 0.5, True, "> 0.50", True, 2),
        ("direction_over_promise", -0.3, 0.1, 0.15, False, "< 0.15", True, 2),
    ]
    assert told.questions[0].words == (
        "Raters preferred it in 62.5% of the comparisons; the lower bound is 52.5%, and more than 50.0% was needed."
    )
    assert told.passed
    assert told.verdict == "The gate passed this candidate: 5 tests on 8 comparisons."


def test_every_mark_lies_on_its_axis_and_differences_share_one(artifacts: ArtifactStore) -> None:
    told = case(artifacts)
    for question in told.questions:
        marks = (question.estimate, question.bound, question.limit)
        assert all(mark is not None and question.scale_low <= mark <= question.scale_high for mark in marks)
    assert {(q.scale_low, q.scale_high) for q in told.questions if q.above} == {(0.0, 1.0)}
    # -0.3 is the lowest of their marks and 0.15 the highest; 0.2 each way is drawn in any case, with .05 to spare
    assert {(q.scale_low, q.scale_high) for q in told.questions if not q.above} == {(-0.35, 0.25)}


def test_what_was_not_asked_has_a_reason_each(artifacts: ArtifactStore) -> None:
    assert [(u.title, u.why, u.weakens) for u in case(artifacts).unasked] == [
        ("reward paid to wrong behaviour", "switched off (gate.path)", True),
        ("win rate against the base; win rate against an older one", "the approved policy is the base itself", False),
        ("raters beyond the evaluator", "the audit is reported and has no say (gate.audit.limit)", False),
    ]


def test_a_refused_attempt_says_that_the_later_queues_were_not_asked(artifacts: ArtifactStore) -> None:
    told = case(artifacts, verdict=made.REFUSED)
    assert not told.passed
    assert told.verdict == "The gate refused this candidate."
    first = told.unasked[0]
    assert first.title == "win rate, best over worst; over-promise, best over worst"
    assert (first.why, first.weakens) == ("a veto, or a queue asked before, had refused already", False)


def test_the_error_budget_adds_up_to_this_attempt(artifacts: ArtifactStore) -> None:
    budget = case(artifacts).budget
    assert (budget.total, budget.spent, budget.here) == (0.3, pytest.approx(0.1), 0.05)
    budget = case(artifacts, place=0).budget
    assert (budget.total, budget.spent, budget.here) == (0.3, 0.05, 0.05)


def test_feedback_counts_over_what_was_judged(artifacts: ArtifactStore) -> None:
    rows = case(artifacts).feedback
    assert value(rows, "Candidate against approved") == "6 comparisons, 6 labels of 1 rater"
    # of six labels, one flags the candidate's and one the approved policy's
    assert value(rows, "Flagged as harmful") == "candidate 16.7%, approved 16.7% of the labels"
    assert value(rows, "Neither answer would do") == "0.0% of the labels"
    assert value(rows, "Better evaluator") == "gold looked at 0 items, without a say"


def test_attribution_in_words(artifacts: ArtifactStore) -> None:
    told = case(artifacts)
    assert [(part.title, part.words) for part in told.blame] == [
        ("Over-credit, in all", "+8.0 points (95% interval -1.0 to +17.0)"),
        ("(b) reward model against raters", "+12.0 points (95% interval +2.0 to +22.0): stands out"),
        ("(a) raters against the better evaluator", "-4.0 points (95% interval -14.0 to +6.0)"),
        ("(c) lost off distribution", "unknown"),
    ]
    assert told.blame_notes == ("The part off distribution is unknown: no probes, or too few, were compared.",)


def test_reward_and_people_by_attempt(artifacts: ArtifactStore) -> None:
    first, second = case(artifacts).courses
    assert (first.place, first.outcome, first.here) == ("0.0", "rolled back", False)
    assert (first.proxy, first.promised, first.win_rate, first.win_rate_low) == (0.8, 0.5, 0.25, 0.125)
    assert (second.place, second.outcome, second.here) == ("0.1", "under way", True)
    # (.9 + .4 + .7 + .6 + .8 + .5) / 6
    assert second.promised == pytest.approx(0.65)
    assert (second.proxy, second.win_rate, second.win_rate_low) == (1.25, 0.625, 0.525)
    assert (second.kl_nats, second.kl_budget_nats) == (3.0, 4.0)
    assert [course.place for course in case(artifacts, place=0).courses] == ["0.0"]


def test_earlier_attempts_of_the_stage_say_why_they_failed(artifacts: ArtifactStore) -> None:
    (earlier,) = case(artifacts).earlier
    assert (earlier.place, earlier.outcome) == ("0.0", "rolled back")
    assert earlier.why == (
        "win rate against approved: 0.250, bound 0.125, needed > 0.50",
        "over-promise: 0.300, bound 0.500, needed < 0.15",
        "over-promise, top half: 0.200, bound 0.400, needed < 0.15",
    )
    assert case(artifacts, place=0).earlier == ()


def test_costs_of_the_attempt_and_of_the_campaign(artifacts: ArtifactStore) -> None:
    costs = {cost.name: (cost.here, cost.campaign) for cost in case(artifacts).costs}
    assert costs == {
        "Labels, initial": ("0", "20"),
        "Labels, gate": ("6", "16"),
        "Labels, training": ("0", "0"),
        "Labels, audit": ("0", "0"),
        "Labels, checks": ("0", "0"),
        "Samples": ("60", "110"),
        "Tokens sampled": ("600", "1,100"),
        "Gradient steps": ("30", "70"),
        "Compute, seconds": ("20.0", "7,200.0"),
        "Waiting for people, seconds": ("–", "90.0"),
        # 36 labels at .50, two hours at 3
        "US dollars, at the campaign's prices": ("–", "24.00"),
    }


def test_an_audit_is_paid_for_where_it_has_a_say(artifacts: ArtifactStore) -> None:
    def audit_labels(limit: float | None) -> str:
        gate = {**made.SETTINGS["gate"], "audit": {"limit": limit, "labels": 6}}
        state, settings = waiting(artifacts, settings={"gate": gate})
        looked = tuple(Label(item=item, rater="gold", choice=Choice.FIRST) for item in range(4))
        batches = (*state.batches[:-1], state.batches[-1].model_copy(update={"labels": LabelLog(looked)}))
        state = state.model_copy(update={"batches": batches})
        told = case_of(state, settings, state.attempts[1], artifacts)
        return next(cost.here for cost in told.costs if cost.name == "Labels, audit")

    assert (audit_labels(None), audit_labels(0.1)) == ("0", "4")


# --- what weakens it ----------------------------------------------------------------------------------------


def test_the_warnings_of_a_case_that_passed(artifacts: ArtifactStore) -> None:
    said = warned(case(artifacts))
    assert said == {
        Weakness.NOT_ASKED: "Not asked: reward paid to wrong behaviour (switched off (gate.path)).",
        Weakness.SKIPPED: "Nobody gave a verdict on 1 comparison of 8; these count against the candidate.",
        # (1 - q)^6 = .05 where q = 1 - .05^(1/6) = .393
        Weakness.FEW_LABELS: "Few labels: on 6 comparisons, a fault in 39.3% of the responses goes unseen one time in "
        "twenty.",
        Weakness.OVER_CREDIT: "Part of the credit is more than is due; what stands out: reward model.",
    }


@pytest.mark.parametrize(
    ("changes", "weakness", "words"),
    [
        ({"verdict": made.REFUSED}, Weakness.NOT_PASSED, "The gate refused"),
        ({"verdict": None}, Weakness.NOT_PASSED, "no verdict yet"),
        ({"kl_nats": 5.0}, Weakness.KL, "5.00 of 4.00 nats, 125% of the budget"),
        ({"gate": {"expired_after": 6}}, Weakness.DEADLINE, "gate"),
        ({"state": {"base_evaluation": None}}, Weakness.NOBODY_BETTER, "Nobody better than the raters"),
        (
            {"fitted": made.fitted(1).model_copy(update={"accuracy_low": 0.45})},
            Weakness.REWARD_MODEL,
            "begins at 45.0%",
        ),
    ],
)
def test_what_weakens_a_case_is_said(
    artifacts: ArtifactStore, changes: dict[str, Any], weakness: Weakness, words: str
) -> None:
    assert weakness not in warned(case(artifacts))
    assert words in warned(case(artifacts, **changes))[weakness]


def test_labels_out_of_files_are_told_with_those_who_answer_for_them(artifacts: ArtifactStore) -> None:
    brought = (Brought(by="olga", labels=3), Brought(by="bo\x1b", labels=2))
    decided = (ReviewDecision(decision=Decision.APPROVE, reviewer="olga", reason="reads well", credential="c-1"),)
    assert Weakness.BROUGHT not in warned(case(artifacts, decisions=decided))
    said = warned(case(artifacts, gate={"brought": brought}, decisions=decided))
    assert said[Weakness.BROUGHT] == (
        "Out of files came 5 labels: that raters said so, nothing shows but bo\\x1b and olga."
    )
    assert said[Weakness.OWN_WORK] == "Decided by somebody who had brought its labels in, too: olga."


def test_enough_labels_are_not_called_few(artifacts: ArtifactStore) -> None:
    """.95^58 = .051 and .95^59 = .048."""

    def judged(count: int) -> GateVerdict:
        panels = (made.PASSED.panels[0].model_copy(update={"labels": count}),)
        return made.PASSED.model_copy(update={"panels": panels})

    longer = {
        "count": 60,
        "candidate_first": (True,) * 60,
        "p_hat": (0.5,) * 60,
        "labels": tuple(Label(item=item, rater="ana", choice=Choice.FIRST) for item in range(60)),
        "comparisons": made.comparisons(artifacts, 60),
    }
    assert Weakness.FEW_LABELS in warned(case(artifacts, verdict=judged(58), gate=longer))
    assert Weakness.FEW_LABELS not in warned(case(artifacts, verdict=judged(59), gate=longer))


def test_approval_by_the_gate_is_said_first_of_all(artifacts: ArtifactStore) -> None:
    by_gate = {"approval": {"by": "gate"}, "feedback": {"rater": "simulated"}}
    decided = (ReviewDecision(decision=Decision.APPROVE, reviewer="gate", reason=""),)
    told = case(artifacts, settings=by_gate, decisions=decided)
    assert told.warnings[0].weakness is Weakness.NOBODY_LOOKED
    assert told.decisions[0].automatic
    assert warned(told)[Weakness.NO_PEOPLE] == "No person was asked: the labels are simulated."
    assert Weakness.UNVOUCHED not in warned(told)


def test_vetoes_are_shown_as_plain_text(artifacts: ArtifactStore) -> None:
    refused = made.PASSED.model_copy(
        update={"verdict": Verdict.ROLLBACK, "vetoes": ("tripwire \x1b[31mred in 10.0%",), "reasons": ("veto",)}
    )
    told = case(artifacts, verdict=refused)
    assert told.vetoes == ("tripwire \\x1b[31mred in 10.0%",)
    assert warned(told)[Weakness.VETO] == "Veto: tripwire \\x1b[31mred in 10.0%."


def test_a_rejected_attempt_is_told_with_the_reason(artifacts: ArtifactStore) -> None:
    state, settings = waiting(artifacts)
    refused = ReviewDecision(decision=Decision.REJECT, reviewer="eve", reason="evades", credential="c-1")
    first = state.attempts[0].model_copy(update={"verdict": made.PASSED, "decisions": (refused,)})
    state = state.model_copy(update={"attempts": (first, state.attempts[1])})
    (earlier,) = case_of(state, settings, state.attempts[1], artifacts).earlier
    assert earlier.why == ("rejected by eve: evades",)


def approved_by(who: str, **more: Any) -> dict[str, Any]:
    made_so = {"credential": "c-1a2b3c4d", "reason": "reads\u202e well", **more}
    return {"decisions": (ReviewDecision(decision=Decision.APPROVE, reviewer=who, **made_so),)}


def test_decisions_are_told_with_the_token_that_vouches_for_them(artifacts: ArtifactStore) -> None:
    told = case(artifacts, **approved_by("eve"))
    (said,) = told.decisions
    assert (said.who, said.decision, said.reason) == ("eve", "approve", "reads\\u202e well")
    assert said.how == "with token c-1a2b3c4d"
    assert (told.approvals, told.approvals_needed) == (1, 1)
    assert {Weakness.OWN_WORK, Weakness.UNVOUCHED, Weakness.OVERRIDE}.isdisjoint(warned(told))


def test_who_decided_may_weaken_a_case(artifacts: ArtifactStore) -> None:
    rater = case(artifacts, **approved_by("ana"))
    assert warned(rater)[Weakness.OWN_WORK].endswith("labelled its comparisons, too: ana.")
    owned = {"approval": {"owner": "Eve", "approvers": 2, "override": True}}
    owner = case(artifacts, settings=owned, **approved_by("eve"))
    assert warned(owner)[Weakness.OWN_WORK] == "Decided by the campaign's owner: Eve."
    typed = case(artifacts, **approved_by("eve", credential=None))
    assert warned(typed)[Weakness.UNVOUCHED].endswith("who decided: eve.")
    assert typed.decisions[0].how == "under a name that nothing vouches for"
    alone = case(artifacts, settings=owned, **approved_by("bo", override=True))
    assert "one word stands for the 2 approvals" in warned(alone)[Weakness.OVERRIDE]
    assert alone.decisions[0].how == "with token c-1a2b3c4d, for all approvers"


def test_who_labelled_the_gate_is_told_with_how_steady_they_are(artifacts: ArtifactStore) -> None:
    """Of ana's six words four name a winner: two each way. Asked again, she keeps one of two."""
    again = (Label(item=0, rater="ana", choice=Choice.SECOND), Label(item=1, rater="ana", choice=Choice.TIE))
    assert case(artifacts, gate={"repeats": again}).raters == (Rater("ana", 6, 0.5, 0.5, None),)


# --- samples ------------------------------------------------------------------------------------------------


def test_the_worst_are_those_that_people_refused_and_the_reward_praised(artifacts: ArtifactStore) -> None:
    samples = case(artifacts).samples
    assert samples is not None
    assert (samples.against, samples.judged) == (3, 6)
    # against the candidate: items 0, 4 and 2, whose p_hat are .9, .8 and .7
    assert [(pair.number, pair.p_hat) for pair in samples.worst] == [(1, 0.9), (5, 0.8), (3, 0.7)]
    assert samples.worst[0] == Pair(
        number=1,
        prompt="prompt 0",
        approved="second 0",
        candidate="first 0",
        p_hat=0.9,
        votes_for=0,
        votes_against=1,
        votes_even=0,
        skipped=0,
        harmful=1,
    )
    third = samples.worst[2]  # the candidate's stood second, and the other one was flagged
    assert (third.candidate, third.approved, third.harmful) == ("second 2", "first 2", 0)


def test_what_was_said_of_a_pair_in_words(artifacts: ArtifactStore) -> None:
    samples = case(artifacts).samples
    assert samples is not None
    said = {pair.number: (pair.promise, pair.said) for pair in (*samples.drawn, *samples.worst)}
    assert said == {
        1: (
            "The reward promised 90.0% to the candidate",
            "Raters: 1 against the candidate, flagged as harmful by 1",
        ),
        2: ("The reward promised 40.0% to the candidate", "Raters: 1 for the candidate"),
        3: ("The reward promised 70.0% to the candidate", "Raters: 1 against the candidate"),
        4: ("The reward promised 60.0% to the candidate", "Raters: 1 undecided"),
        5: ("The reward promised 80.0% to the candidate", "Raters: 1 against the candidate"),
        6: ("The reward promised 50.0% to the candidate", "Raters: 1 skipped"),
    }


def test_several_raters_count_by_heads(artifacts: ArtifactStore) -> None:
    labels = tuple(
        Label(item=0, rater=rater, choice=choice)
        for rater, choice in (("ana", Choice.SECOND), ("bo", Choice.SECOND), ("cy", Choice.FIRST))
    )
    settings = {"feedback": {"rater": "people", "raters_per_item": 3}}
    samples = case(artifacts, settings=settings, gate={"labels": labels}).samples
    assert samples is not None
    (worst,) = samples.worst
    assert (worst.number, worst.votes_for, worst.votes_against) == (1, 1, 2)


def test_the_random_ones_depend_on_the_candidate_alone(artifacts: ArtifactStore) -> None:
    many = {"count": 60, "candidate_first": (True,) * 60, "p_hat": (0.5,) * 60, "labels": ()}
    many["comparisons"] = made.comparisons(artifacts, 60)
    verdict = made.PASSED.model_copy(
        update={"panels": (made.PASSED.panels[0].model_copy(update={"labels": 60}),), "skipped": 60}
    )

    def drawn(candidate: str) -> list[int]:
        samples = case(artifacts, gate=many, verdict=verdict, candidate=digest(candidate)).samples
        assert samples is not None
        return [pair.number for pair in samples.drawn]

    assert drawn("one") == drawn("one")
    assert drawn("one") != drawn("another")
    assert len(set(drawn("one"))) == 6


def test_before_the_verdict_nobody_learns_which_side_is_the_candidates(artifacts: ArtifactStore) -> None:
    told = case(artifacts, verdict=None)
    assert told.samples is None
    assert told.why_no_samples == "nobody may learn which response is the candidate's before the verdict"


def test_missing_texts_leave_a_gap_and_no_failure(artifacts: ArtifactStore) -> None:
    told = case(artifacts, gate={"comparisons": digest("gone")})
    assert told.samples is None
    assert "there is no artifact" in warned(told)[Weakness.NO_SAMPLES]
    assert told.questions


def test_damaged_texts_are_not_shown(artifacts: ArtifactStore) -> None:
    state, settings = waiting(artifacts)
    queue = state.gate_batch(state.attempts[1])
    assert queue is not None
    rows = artifacts.open(queue.comparisons) / "rows.jsonl.gz"
    rows.chmod(0o600)
    rows.write_bytes(rows.read_bytes()[:-9] + bytes(9))
    told = case_of(state, settings, state.attempts[1], artifacts)
    assert told.samples is None
    assert Weakness.NO_SAMPLES in warned(told)


@pytest.mark.parametrize(
    "rows",
    [
        [{"item": 0, "prompt": "p", "response_1": "a", "response_2": "b"}],
        [{"item": item, "prompt": "p", "response_1": "a"} for item in range(8)],
        [{"item": item, "prompt": ["p"], "response_1": "a", "response_2": "b"} for item in range(8)],
        [{"item": [item], "prompt": "p", "response_1": "a", "response_2": "b"} for item in range(8)],
        ["text"] * 8,
        [7] * 8,
    ],
)
def test_an_artifact_of_another_kind_is_not_taken_for_comparisons(artifacts: ArtifactStore, rows: list[Any]) -> None:
    forged = artifacts.publish_lines("comparisons", rows)
    told = case(artifacts, gate={"comparisons": forged})
    assert told.samples is None
    assert "does not hold the 8 comparisons that were sealed" in warned(told)[Weakness.NO_SAMPLES]


# --- other campaigns ----------------------------------------------------------------------------------------


def test_a_given_candidate_was_not_trained_here(artifacts: ArtifactStore) -> None:
    given = {
        "candidate": {"model": "b"},
        "protocol": {"stages": 1, "attempts": 1},
        "base": {"model": "a", "seedling": None},
    }
    verdict = made.PASSED.model_copy(update={"tests": made.PASSED.tests[:1], "notes": (NOTHING_PROMISED,)})
    state, settings = waiting(
        artifacts,
        settings=given,
        gate={"p_hat": ()},
        verdict=verdict,
        reward_model=None,
        fitted=None,
        steps=0,
        stopped_by=None,
        kl_nats=None,
        kl_budget_nats=None,
        distances=None,
    )
    told = case_of(state, settings, state.attempts[1], artifacts)
    assert told.change.rows == (
        Row("Compared with", digest("base"), digest=True),
        Row("Training", "none here: the candidate was given, and its descent is not known"),
        Row("Reward model", "none took part"),
        Row("Configuration", digest("settings"), digest=True),
    )
    assert [(u.title.count("; ") + 1, u.why, u.weakens) for u in told.unasked] == [
        (2, "no reward model took part, so nothing was promised", True),
        (5, "nothing was trained here", False),
        (1, "the audit is reported and has no say (gate.audit.limit)", False),
    ]
    assert told.samples is not None
    # nothing was promised, so the order is the queue's
    assert [(pair.number, pair.promise) for pair in told.samples.worst] == [(1, None), (3, None), (5, None)]
    assert told.courses[-1].promised is None


def test_a_failed_phase_has_a_case_without_a_candidate(artifacts: ArtifactStore) -> None:
    refused = GateVerdict(verdict=Verdict.ROLLBACK, reasons=("the phase failed: the KL exploded",))
    state, settings = waiting(artifacts, candidate=None, steps=0, stopped_by="the KL exploded", verdict=refused)
    state = state.model_copy(update={"batches": state.batches[:1]})
    told = case_of(state, settings, state.attempts[1], artifacts)
    assert told.verdict == "The phase failed, so there is no candidate."
    assert value(told.change.rows, "Training") == "rloo, 0 gradient steps: the KL exploded"
    assert [(u.title, u.why) for u in told.unasked] == [("every question", "the attempt has no candidate")]
    assert told.why_no_samples == "the candidate was compared with nothing"


def test_in_short_for_a_terminal(artifacts: ArtifactStore) -> None:
    rows = case_in_short(case(artifacts))
    assert rows[:3] == [
        ("candidate", digest("candidate 1")),
        ("stands", "waits for a decision: 0 of 1 approvals"),
        ("gate", "The gate passed this candidate: 5 tests on 8 comparisons."),
    ]
    assert rows[3][0] == "warning"
    told = dict(rows)
    assert told["win rate against approved"] == "passed: 0.625, bound 0.525, needed > 0.50, 6 labels"
    assert told["reward paid to wrong behaviour"] == "not asked: switched off (gate.path)"
    assert told["error budget"] == "α = 0.3000 for the campaign, 0.1000 spent so far; 0.0500 by this attempt"
    assert told["kl from the approved"] == "3.00 of 4.00 nats, 75% of the budget"
    assert told["approvals"] == "0 of 1"


def test_a_real_campaign_has_a_case_at_every_attempt(small: Small) -> None:
    from small_campaigns import with_people

    campaign = small.campaign(**with_people())
    candidate = campaign.run_until_candidate()
    state = campaign.state
    told = [case_of(state, campaign.settings, attempt, campaign.home.artifacts()) for attempt in state.attempts]
    last = told[-1]
    assert last.change.candidate == candidate
    assert last.passed
    assert last.questions[0].estimate == 1.0  # every label was for the candidate
    assert last.samples is not None
    assert last.samples.worst == ()
    assert len(last.samples.drawn) == 6
    assert all(pair.votes_for == 1 for pair in last.samples.drawn)
    eve = campaign.desk("eve")
    eve.decide(Decision.APPROVE, candidate, "reads well")
    state = campaign.state
    (said,) = case_of(state, campaign.settings, state.attempts[-1], campaign.home.artifacts()).decisions
    assert (said.who, said.reason, said.credential) == ("eve", "reads well", eve.person.credential)
