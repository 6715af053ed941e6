"""The gate against a plain re-derivation of its rule, and its error rate by simulation."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from orchestrator.core.gate import GateVerdict, decide
from orchestrator.core.questions import top_half
from orchestrator.core.records import Verdict
from orchestrator.core.settings import GateSettings

GATE = GateSettings(alpha=0.1, over_promise_limit=0.15, min_labels=40, max_labels=400)

FUTILE = GateSettings(over_promise_limit=0.9, min_labels=400, max_labels=400)
"""Nothing passes before the cap, and next to any promise is allowed: the win rate alone can be futile."""


@dataclass
class Test:
    """One test of the oracle: a running fortune over the places that it is asked about."""

    __test__ = False

    even: float
    worst: float
    places: set[int]
    alpha: float
    fortune: float = 1.0
    richest: float = 1.0
    gain: float = 0.0
    seen: int = 0
    crossed: bool = False

    def bet(self, x: float) -> None:
        cap = len(self.places)
        stake = min(math.sqrt(13.3 * math.log(1 / self.alpha) / cap), 0.9 / (self.even - self.worst))
        self.fortune *= 1 + stake * (x - self.even)
        self.gain += x - self.even
        self.seen += 1
        self.richest = max(self.richest, self.fortune)
        self.crossed |= self.fortune >= 1 / self.alpha

    def hopeless(self) -> bool:
        if self.crossed or not self.seen:
            return False
        left = len(self.places) - self.seen
        if left == 0:
            return True
        aim = math.sqrt(len(self.places) * math.log(1 / self.alpha) / 2)
        return (aim - self.gain) / left > self.gain / self.seen + math.sqrt(1 / self.seen + 1 / left)


def oracle(
    p_hat: Sequence[float], outcomes: Sequence[float | None], alpha: float, rules: GateSettings, even: float = 0.5
) -> tuple[Verdict, int, list[Test]]:
    """The gate's rule read aloud, label by label, without numpy."""
    cap = min(len(p_hat), rules.max_labels)
    half = set(sorted(range(cap), key=lambda i: p_hat[i], reverse=True)[: (cap + 1) // 2])
    win = Test(even, 0.0, set(range(cap)), alpha)
    promise = Test(-rules.over_promise_limit, -1.0, set(range(cap)), alpha)
    top = Test(-rules.over_promise_limit, -1.0, half, alpha)
    tests = [win, promise, top]
    for n, outcome in enumerate(outcomes[:cap], start=1):
        z = 0.0 if outcome is None else outcome
        over_promise = 1.0 if outcome is None else p_hat[n - 1] - z
        win.bet(z)
        promise.bet(-over_promise)
        if n - 1 in half:
            top.bet(-over_promise)
        said = n - outcomes[:n].count(None)
        if said >= rules.min_labels and all(test.crossed for test in tests):
            return Verdict.ADVANCE, n, tests
        look = n >= 80 and n % 20 == 0
        if n == cap or (look and any(test.hopeless() for test in tests)):
            return Verdict.ROLLBACK, n, tests
    return Verdict.WAIT, min(len(outcomes), cap), tests


@st.composite
def queues(draw: st.DrawFn) -> tuple[list[float], list[float | None], float, GateSettings]:
    """A queue with labels of some quality: hopeless, excellent and everything between."""
    dice = random.Random(draw(st.integers(0, 2**32)))
    most = draw(st.integers(1, 200))
    rules = GateSettings(
        over_promise_limit=draw(st.sampled_from([0.1, 0.15, 0.3])),
        min_labels=draw(st.integers(1, most)),
        max_labels=most,
    )
    length = draw(st.integers(1, 220))
    levels = draw(st.sampled_from([1, 3, 1000]))
    centre = draw(st.floats(0.3, 0.9))
    p_hat = [min(max(centre + (dice.randrange(levels) / levels - 0.5) * 0.4, 0.0), 1.0) for _ in range(length)]
    win_rate, ties, skips = draw(st.floats(0, 1)), draw(st.floats(0, 0.5)), draw(st.sampled_from([0.0, 0.0, 0.1]))
    outcomes: list[float | None] = []
    for _ in range(draw(st.one_of(st.just(length), st.integers(0, length)))):
        said = 0.5 if dice.random() < ties else float(dice.random() < win_rate)
        outcomes.append(None if dice.random() < skips else said)
    return p_hat, outcomes, draw(st.sampled_from([0.004, 0.02, 0.1, 0.4])), rules


@settings(max_examples=150)
@given(queue=queues(), hold=st.booleans())
def test_verdict_agrees_with_the_oracle(
    queue: tuple[list[float], list[float | None], float, GateSettings], hold: bool
) -> None:
    p_hat, outcomes, alpha, rules = queue
    found = decide(p_hat, outcomes, alpha=alpha, settings=rules, hold=hold)
    verdict, labels, tests = oracle(p_hat, outcomes, alpha, rules, 0.47 if hold else 0.5)
    assert (found.verdict, found.labels) == (verdict, labels)
    for result, test in zip(found.tests, tests, strict=True):
        assert (result.labels, result.cap, result.passed) == (test.seen, len(test.places), test.crossed)
        assert result.log_e_value == pytest.approx(math.log(test.richest), abs=1e-9)


@settings(max_examples=60)
@given(queue=queues(), cuts=st.lists(st.integers(0, 220), max_size=4))
def test_verdict_does_not_depend_on_how_labels_arrive(
    queue: tuple[list[float], list[float | None], float, GateSettings], cuts: list[int]
) -> None:
    """Looks at any prefixes: WAIT until one settles, and from then on the same verdict at the same label."""
    p_hat, outcomes, alpha, rules = queue
    settled: GateVerdict | None = None
    for seen in [*sorted(cut for cut in cuts if cut < len(outcomes)), len(outcomes)]:
        found = decide(p_hat, outcomes[:seen], alpha=alpha, settings=rules)
        if settled is not None:
            assert found == settled
        elif found.verdict is not Verdict.WAIT:
            settled = found
        else:
            assert found.labels == min(seen, rules.max_labels)


@settings(max_examples=40)
@given(queue=queues())
def test_asking_the_other_way_round_mirrors_the_estimates(
    queue: tuple[list[float], list[float | None], float, GateSettings],
) -> None:
    p_hat, outcomes, alpha, rules = queue
    said = [z for z in outcomes if z is not None]
    here = decide(p_hat, said, alpha=alpha, settings=rules)
    there = decide([1 - p for p in p_hat], [1 - z for z in said], alpha=alpha, settings=rules)
    if here.labels == there.labels and here.win_rate is not None and here.over_promise is not None:
        assert there.win_rate == pytest.approx(1 - here.win_rate)
        assert there.over_promise == pytest.approx(-here.over_promise)


def test_four_labels_by_hand() -> None:
    """Alpha 1/2, cap 4. Win rate: bet min(sqrt(13.3 ln 2 / 4) = 1.518, 1.8). A win pays 1.759: passed at label 2
    with 1, 1 (product 3.09 >= 2 already at label 2; 1.759 < 2 at label 1). Over-promise with p_hat 1/2, limit .15:
    bet min(1.518, .9/.85 = 1.0588), a win gains .65 and pays 1.688: passed at label 2. Top half: ties of p_hat go
    to the earlier place, so places 0 and 1; cap 2, bet 1.0588, passed at label 2."""
    rules = GateSettings(over_promise_limit=0.15, min_labels=1, max_labels=4)
    found = decide([0.5] * 4, [1.0, 1.0], alpha=0.5, settings=rules)
    assert (found.verdict, found.labels) == (Verdict.ADVANCE, 2)
    win, promise, top = found.tests
    assert win.log_e_value == pytest.approx(2 * math.log(1 + 1.518129 * 0.5), abs=1e-6)
    assert promise.log_e_value == pytest.approx(2 * math.log(1 + 0.9 / 0.85 * 0.65))
    assert top.log_e_value == pytest.approx(2 * math.log(1 + 0.9 / 0.85 * 0.65))
    assert [test.labels for test in found.tests] == [2, 2, 2]
    assert (found.win_rate, found.over_promise) == (1.0, -0.5)
    assert decide([0.5] * 4, [1.0], alpha=0.5, settings=rules).verdict is Verdict.WAIT


def test_top_half_by_hand() -> None:
    assert top_half([0.1, 0.9, 0.5, 0.7, 0.5]) == (1, 2, 3), "of two equal promises the earlier place is taken"
    assert top_half([0.5] * 4) == (0, 1)


def test_a_crossing_before_the_minimum_is_kept() -> None:
    """Twenty wins cross everything; the losses that follow up to the minimum do not take that back."""
    rules = GateSettings(min_labels=24, max_labels=40)
    found = decide([0.6] * 40, [1.0] * 20 + [0.0] * 4, alpha=0.1, settings=rules)
    assert (found.verdict, found.labels) == (Verdict.ADVANCE, 24)
    assert all(reason.endswith(": passed at alpha") for reason in found.reasons)
    assert len(found.reasons) == len(found.tests)


def test_missing_labels_do_not_make_up_the_minimum() -> None:
    """Thirty wins cross everything; ten items that nobody labelled are not ten labels."""
    rules = GateSettings(min_labels=40, max_labels=100)
    assert decide([0.6] * 100, [1.0] * 30 + [None] * 10, alpha=0.1, settings=rules).verdict is Verdict.WAIT
    assert decide([0.6] * 100, [1.0] * 30 + [None] * 70, alpha=0.1, settings=rules).verdict is Verdict.ROLLBACK
    found = decide([0.6] * 100, [1.0] * 30 + [None] * 10 + [1.0] * 10, alpha=0.1, settings=rules)
    assert (found.verdict, found.labels, found.skipped) == (Verdict.ADVANCE, 50, 10)


def test_all_skipped_is_refused_and_counts_as_lost() -> None:
    found = decide([0.6] * 400, [None] * 100, alpha=0.1, settings=GATE)
    assert found.verdict is Verdict.ROLLBACK
    assert (found.win_rate, found.over_promise, found.skipped, found.labels) == (0.0, 1.0, 80, 80)


def test_each_skip_counts_against() -> None:
    won = [1.0] * 60
    skipped = [None if i % 2 else 1.0 for i in range(60)]
    assert decide([0.6] * 400, won, alpha=0.1, settings=GATE).verdict is Verdict.ADVANCE
    found = decide([0.6] * 400, skipped, alpha=0.1, settings=GATE)
    assert found.verdict is Verdict.WAIT
    assert found.win_rate == 0.5
    assert found.over_promise == pytest.approx(0.5 * (0.6 - 1.0) + 0.5 * 1.0)


@pytest.mark.parametrize(
    ("p_hat", "outcomes", "alpha", "why"),
    [
        ([], [], 0.1, "queue is empty"),
        ([0.5] * 50, [1.0] * 51, 0.1, "51 labels for a queue of 50"),
        ([0.5] * 50, [1.0] * 50, 0.0, "no error budget"),
        ([0.5] * 50, [1.0] * 50, 1.0, "no error budget"),
        ([0.5] * 50, [1.0] * 50, -0.1, "no error budget"),
        ([0.5] * 50, [1.0] * 50, math.nan, "no error budget"),
        ([0.5] * 50, [1.0] * 50, math.inf, "no error budget"),
        ([0.5] * 49 + [math.nan], [1.0] * 50, 0.1, "a prediction lies outside"),
        ([0.5] * 49 + [1.01], [1.0] * 50, 0.1, "a prediction lies outside"),
        ([0.5] * 50, [1.0] * 49 + [math.nan], 0.1, "an outcome lies outside"),
        ([0.5] * 50, [1.0] * 49 + [2.0], 0.1, "an outcome lies outside"),
        ([0.5] * 50, [1.0] * 49 + [-1.0], 0.1, "an outcome lies outside"),
    ],
)
def test_broken_evidence_is_refused(p_hat: list[float], outcomes: list[float], alpha: float, why: str) -> None:
    found = decide(p_hat, outcomes, alpha=alpha, settings=GATE)
    assert found.verdict is Verdict.ROLLBACK
    assert why in found.reasons[0]


def test_a_queue_shorter_than_the_minimum_is_refused_not_waited_for() -> None:
    found = decide([0.6] * 30, [1.0] * 30, alpha=0.1, settings=GATE)
    assert found.verdict is Verdict.ROLLBACK
    assert found.reasons == ("30 labels in all: the gate asks for more than that",)


def test_without_a_promise_only_the_win_rate_is_questioned() -> None:
    """The same labels, judged alone, must give T1's own verdict; and an empty queue is still no evidence."""
    wins = [1.0, 1.0, 1.0, 0.0] * 100
    verdict = decide([], wins, alpha=0.1, settings=GATE, unpromised=400)
    promised = decide([0.5] * 400, wins, alpha=0.1, settings=GATE)
    assert verdict.verdict is Verdict.ADVANCE
    assert [test.name for test in verdict.tests] == ["improvement"]
    assert verdict.tests[0].estimate == promised.tests[0].estimate == verdict.win_rate
    assert (verdict.over_promise, verdict.over_promise_high) == (None, None)
    assert "nothing was promised" in verdict.notes[-1]
    assert decide([], [0.0, 1.0] * 200, alpha=0.1, settings=GATE, unpromised=400).verdict is Verdict.ROLLBACK
    assert decide([], [], alpha=0.1, settings=GATE).verdict is Verdict.ROLLBACK
    assert decide([], wins, alpha=0.1, settings=GATE).verdict is Verdict.ROLLBACK
    for length in (3, 400):
        assert decide([0.99] * length, wins, alpha=0.1, settings=GATE, unpromised=400).verdict is Verdict.ROLLBACK


def test_no_labels_is_wait() -> None:
    found = decide([0.6] * 400, [], alpha=0.1, settings=GATE)
    assert (found.verdict, found.labels, found.win_rate, found.over_promise) == (Verdict.WAIT, 0, None, None)
    assert (found.win_rate_low, found.over_promise_high) == (0.0, 1.0)


def test_knowing_nothing_does_not_let_a_bad_candidate_pass() -> None:
    """p_hat one half everywhere never over-promises much; the win rate refuses, over every seed."""
    for seed in range(40):
        z_N = (np.random.default_rng(seed).random(400) < 0.4).astype(float).tolist()
        assert decide([0.5] * 400, z_N, alpha=0.05, settings=GATE).verdict is Verdict.ROLLBACK


def test_a_promise_that_is_false_only_at_the_top_is_refused() -> None:
    """Half of the queue claims .4 and wins .9, half claims .85 and wins .65: on average an under-promise."""
    dice = random.Random(0)
    p_hat = [0.85 if i % 2 else 0.4 for i in range(400)]
    z = [float(dice.random() < (0.65 if i % 2 else 0.9)) for i in range(400)]
    found = decide(p_hat, z, alpha=0.05, settings=GATE)
    assert found.verdict is Verdict.ROLLBACK
    assert [test.passed for test in found.tests] == [True, True, False]


def simulate(
    trials: int, seed: int, win_rate: float, over_promise: float, *, alpha: float = 0.05, informed: float = 0.4
) -> float:
    """Share of trials that pass: calibrated predictions spread by `informed` around the win rate, then shifted."""
    rng = np.random.default_rng(seed)
    passes = 0
    for _ in range(trials):
        truth_N = win_rate + informed * (rng.random(400) - 0.5)
        z_N = (rng.random(400) < truth_N).astype(float)
        p_N = truth_N + over_promise
        assert p_N.min() >= 0
        assert p_N.max() <= 1
        passes += decide(p_N.tolist(), z_N.tolist(), alpha=alpha, settings=GATE).verdict is Verdict.ADVANCE
    return passes / trials


@pytest.mark.parametrize(
    ("win_rate", "over_promise"),
    [(0.5, 0.0), (0.65, 0.15), (0.5, 0.15), (0.5, -0.2)],
    ids=["no better", "over-promises", "both", "no better, modest"],
)
def test_false_passes_stay_below_alpha(win_rate: float, over_promise: float) -> None:
    trials = 1000
    assert simulate(trials, 1, win_rate, over_promise) <= binom.ppf(0.9999, trials, 0.05) / trials


def test_a_null_true_in_the_top_half_alone_stays_below_alpha() -> None:
    """Excess of exactly the limit where the promise is large, none elsewhere: the half's own test must hold."""
    trials, passes = 1000, 0
    rng = np.random.default_rng(3)
    for _ in range(trials):
        top_N = rng.random(400) < 0.5
        truth_N = np.where(top_N, 0.7, 0.6)
        p_N = np.where(top_N, 0.85, 0.6)
        z_N = (rng.random(400) < truth_N).astype(float)
        passes += decide(p_N.tolist(), z_N.tolist(), alpha=0.05, settings=GATE).verdict is Verdict.ADVANCE
    assert passes <= binom.ppf(0.9999, trials, 0.05)


def test_an_honest_candidate_usually_passes() -> None:
    assert simulate(200, 2, 0.65, 0.0) >= 0.8


def test_the_hold_test_lets_an_equal_candidate_pass_more_often() -> None:
    rng = np.random.default_rng(4)
    draws = [(rng.random(400) < 0.53).astype(float).tolist() for _ in range(40)]
    p_hat = [0.5] * 400
    plain = sum(decide(p_hat, z, alpha=0.1, settings=GATE).verdict is Verdict.ADVANCE for z in draws)
    hold = sum(decide(p_hat, z, alpha=0.1, settings=GATE, hold=True).verdict is Verdict.ADVANCE for z in draws)
    assert hold > plain


@pytest.mark.parametrize(("even_for", "stops_at"), [(0, 80), (84, 100), (100, 120)])
def test_futility_is_looked_at_every_twenty_labels_from_eighty(even_for: int, stops_at: int) -> None:
    """Wins and losses in turn, then losses alone; cap 400, alpha .05, so the aim is 24.477 above even.

    S = 0 at n = 80 and 100: needed .076 and .082 against .125 and .115 hoped for: it goes on. Then S = -8 at
    n = 100 (needed .108 against .035) or S = -10 at n = 120 (.123 against .026): it stops.
    """
    z = [float(i % 2 == 0 and i < even_for) for i in range(140)]
    assert decide([0.5] * 400, z, alpha=0.05, settings=FUTILE).labels == stops_at


def test_a_refusal_names_every_failed_test_with_its_figures() -> None:
    found = decide([0.9] * 400, [0.0] * 80, alpha=0.05, settings=GATE)
    assert found.verdict is Verdict.ROLLBACK
    assert len(found.reasons) == 3
    assert found.reasons[0].startswith("improvement: win rate 0.000 over 80 labels, bound 0.000 against > 0.50")
